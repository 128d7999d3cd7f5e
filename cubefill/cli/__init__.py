"""The command `cubefill`.

Every command is one call of a public function. Start with `commands.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.cli.commands import main as main
else:
    _PUBLIC = {"commands": "main"}
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
