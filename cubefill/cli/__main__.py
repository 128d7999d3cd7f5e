"""`python -m cubefill.cli`."""

from cubefill.cli.commands import main

main()
