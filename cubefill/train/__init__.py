"""Training: one loop for every net.

A recipe and samples come in; a checkpoint comes out. Start with `loop.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.train.loop import check_shapes as check_shapes
    from cubefill.train.loop import fit as fit
    from cubefill.train.loop import run_recipe as run_recipe
    from cubefill.train.recipe import Recipe as Recipe
    from cubefill.train.sources import cube_samples as cube_samples
else:
    _PUBLIC = {
        "loop": "check_shapes fit run_recipe",
        "recipe": "Recipe",
        "sources": "cube_samples",
    }
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
