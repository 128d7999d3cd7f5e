"""Regression on what is clear on the same date: the default method.

Start with `method.py`; `regression.py` is what it learns of a cube, `kernels.py` what it does with
every pixel.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.methods.samedate.method import SameDate as SameDate
else:
    _PUBLIC = {"method": "SameDate"}
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
