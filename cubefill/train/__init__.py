"""Training: one loop for every net.

A recipe and samples come in; a checkpoint comes out. Start with `loop.py`.
"""

from cubefill.train.loop import check_shapes as check_shapes
from cubefill.train.loop import fit as fit
from cubefill.train.loop import run_recipe as run_recipe
from cubefill.train.sources import cube_samples as cube_samples
