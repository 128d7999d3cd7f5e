"""What curves fitted to observations share: a straight line where a pixel has too few of them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cubefill.methods.contract import Bool
from cubefill.methods.pixel.linear import Linear
from cubefill.methods.pixel.method import Axes, Classic

MOST_ROUNDS = 50
"""Robust rounds beyond which nothing changes."""


@dataclass(frozen=True)
class Fit(Classic):
    """A curve that need not pass through the observations, and stays within their range.

    A pixel with fewer than `fewest` clear observations gets what `linear` gives it, under the code
    `FEW_OBSERVATIONS`.
    """

    fits: ClassVar[bool] = True
    revision: ClassVar[str] = "2"

    @property
    def fewest(self) -> int:
        """Clear observations of a pixel that the curve needs."""
        raise NotImplementedError(f"{type(self).__name__} has no `fewest`.")

    def few(self, valid: Bool) -> Bool | None:
        """Pixels `(y, x)` with too few observations for the curve; None where there are none."""
        if self.fewest < 2:
            return None
        known = np.count_nonzero(valid, axis=0)
        few: Bool = (known > 0) & (known < self.fewest)
        return few if few.any() else None

    def replace_few(self, band: Any, valid: Bool, axes: Axes, few: Bool, out: Any) -> None:
        """Writes the straight line of such pixels to `out`."""
        y, x = np.nonzero(few)
        line = np.empty((len(axes.so), 1, len(y)), out.dtype)
        values, clear = (np.ascontiguousarray(a[:, y, x])[:, None] for a in (band, valid))
        Linear().curve(values, clear, axes, line)
        out[:, y, x] = line[:, 0]
