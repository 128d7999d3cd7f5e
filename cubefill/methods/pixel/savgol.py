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
    give,
    kernel,
    load,
    rounded,
    row,
)
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
def _last(s: Array, day: Any, v: Array, t: Array, pv: Array, pt: Array) -> None:
    for j in range(s.shape[0]):
        clear = s[j] == s[j]
        a = s[j] if clear else v[j]
        b = day if clear else t[j]
        v[j] = a
        t[j] = b
        pv[j] = a
        pt[j] = b


@row
def _line(s: Array, day: Any, v: Array, t: Array, pv: Array, pt: Array) -> None:
    """The straight line at one date, in `pv`."""
    for j in range(s.shape[0]):
        clear = s[j] == s[j]
        a = pv[j]
        b = s[j] if clear else v[j]
        c = day if clear else t[j]
        v[j] = b
        t[j] = c
        w = np.float32(np.int32(day - pt[j])) / np.float32(np.int32(c - pt[j]))
        z = a + (b - a) * w
        z = z if z == z else (a if a == a else b)
        pv[j] = a if clear else z


@row
def _add(z: Array, w: float, total: Array) -> None:
    for j in range(z.shape[0]):
        total[j] += w * np.float64(z[j])


@row
def _fill_lines(s: Array, seconds: Array, v: Array, t: Array, z: Array, pt: Array) -> None:
    v[:] = NAN
    t[:] = -FAR
    for i in range(s.shape[0]):
        _last(s[i], seconds[i], v, t, z[i], pt[i])
    v[:] = NAN
    t[:] = FAR
    for i in range(s.shape[0] - 1, -1, -1):
        _line(s[i], seconds[i], v, t, z[i], pt[i])


@kernel("band", VALID, SECONDS, TABLE, types.boolean, "out")
def savgol(
    band: Array, valid: Array, seconds: Array, weights: Array, keep: bool, out: Array
) -> int:
    """Fills `out`; gives the number of clear values that held no data."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    z = np.empty((count, width), np.float32)
    pt = np.empty((count, width), np.int32)
    v = np.empty(width, np.float32)
    t = np.empty(width, np.int32)
    total = np.empty(width)
    r = np.empty(width, np.float32)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        _fill_lines(s, seconds, v, t, z, pt)
        for k in range(weights.shape[0]):
            total[:] = 0.0
            for i in range(count):
                if weights[k, i] != 0.0:
                    _add(z[i], weights[k, i], total)
            rounded(total, r)
            give(s, r, k, keep, p0, n, out)
    return lost


@dataclass(frozen=True)
class Savgol(Classic):
    """Savitzky-Golay on real dates: a polynomial fitted to the `window` days around a date.

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
