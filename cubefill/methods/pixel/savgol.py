"""Savitzky-Golay on real days.

A straight line between the clear observations, then one weighted sum of dates for each date asked
for, the weights shared by all pixels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.pixel.kernel import (
    FAR,
    NAN,
    SECONDS,
    TABLE,
    VALID,
    Array,
    kernel,
    rounded,
    row,
    store,
)
from cubefill.methods.pixel.linear import LINEAR, scan_backwards, scan_forwards
from cubefill.methods.pixel.method import Axes, Classic

TILE = 256


def polynomial_weights(
    days: NDArray[np.float64], out_days: NDArray[np.float64], window: float, order: int
) -> NDArray[np.float64]:
    """`(out_time, time)` weights of the local polynomial at each date asked for.

    The polynomial is fitted by least squares to the dates no further than `window / 2` days away,
    and to the `order + 2` nearest ones where these are fewer.
    """
    out = np.zeros((len(out_days), len(days)))
    for k, day in enumerate(out_days):
        apart = np.abs(days - day)
        fewest = np.sort(apart)[: order + 2][-1]
        near = apart <= max(window / 2, fewest)
        u = (days[near] - day) / max(window / 2, fewest, 1.0)
        powers = np.vander(u, min(order, near.sum() - 1) + 1, increasing=True)
        out[k, near] = np.linalg.pinv(powers)[0]
    return out


@row
def _add(z: Array, w: float, total: Array) -> None:
    for j in range(z.shape[0]):
        total[j] += w * np.float64(z[j])


@row
def _keep(pv: Array, pt: Array, day: Any, r: Array) -> None:
    """Puts the observations of a date back into `r`."""
    for j in range(r.shape[0]):
        r[j] = pv[j] if pt[j] == day else r[j]


@kernel("band", VALID, SECONDS, TABLE, types.boolean, "out")
def savgol(band: Array, valid: Array, s: Array, weights: Array, keep: bool, out: Array) -> int:
    """Fills `out`; gives the number of clear values that held no data."""
    count, pixels = len(s), band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    z = np.empty((count, 1, width), np.float32)
    pv = np.full((count + 1, width), NAN, np.float32)
    pt = np.full((count + 1, width), -FAR, np.int32)
    v = np.empty(width, np.float32)
    t = np.empty(width, np.int32)
    total = np.empty(width)
    r = np.empty(width, np.float32)
    every = np.arange(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += scan_forwards(band, valid, s, p0, n, v, t, pv, pt)
        scan_backwards(s, s, every, 0, n, v, t, pv, pt, LINEAR, z)
        for k in range(len(weights)):
            total[:] = 0.0
            for i in range(count):
                if weights[k, i] != 0.0:
                    _add(z[i, 0], weights[k, i], total)
            rounded(total, r)
            if keep:
                _keep(pv[k, :n], pt[k, :n], s[k], r[:n])
            store(r, k, p0, n, out)
    return lost


@dataclass(frozen=True)
class Savgol(Classic):
    """Gaps lie on a polynomial fitted to the `window` days around each date.

    The straight line between the clear observations is laid first, as is usual; the polynomial is
    fitted to it at the real acquisition days, so that irregular dates are honoured.

    References
    ----------
    Chen et al. (2004), A simple method for reconstructing a high-quality NDVI time-series data
    set based on the Savitzky-Golay filter, Remote Sensing of Environment 91.
    """

    window: float = 45
    """Days that the polynomial is fitted to, both sides together."""
    order: int = 2
    """Degree of the polynomial."""

    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 0 or not self.window > 0:
            raise MethodError(
                f"Savgol(window={self.window}, order={self.order}): expected days above 0 and "
                "order >= 0; pass window=45, order=2."
            )

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        weights = polynomial_weights(axes.days, axes.out_days, self.window, self.order)
        keep = self.keeps(axes)
        return int(savgol(band.dtype, band, valid, axes.s, weights, keep, out))
