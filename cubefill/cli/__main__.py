"""`python -m cubefill.cli`."""

from cubefill.cli.main import main

main()
