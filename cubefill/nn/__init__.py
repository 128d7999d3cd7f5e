"""Nets, losses, the update step and checkpoints; nothing here depends on cubes.

Tensors come in and go out. Start with `unet.py`; `checkpoint.py` holds the weights on disk.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.nn.checkpoint import Card as Card
    from cubefill.nn.objective import Adversarial as Adversarial
    from cubefill.nn.objective import Learning as Learning
    from cubefill.nn.objective import Objective as Objective
    from cubefill.nn.objective import Supervised as Supervised
    from cubefill.nn.update import Adam as Adam
else:
    _PUBLIC = {
        "checkpoint": "Card",
        "objective": "Adversarial Learning Objective Supervised",
        "update": "Adam",
    }
    _PACKAGES = "checkpoint losses"
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC, _PACKAGES)
