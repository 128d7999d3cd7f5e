"""Climatology: means and medians of a pixel over the same days of every year."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Flag
from cubefill.methods.pixel.fit import Fit
from cubefill.methods.pixel.kernel import (
    NAN,
    TABLES,
    VALID,
    Array,
    give,
    kernel,
    load,
    row,
)
from cubefill.methods.pixel.method import DAY, Axes

TILE = 256
YEAR = 365.25


def nearness(axes: Axes, window: float) -> NDArray[np.float64]:
    """`(level, out_time, time)` weights, falling in a straight line with the days apart.

    The first level looks `window / 2` days to both sides, each next one twice as far, the last
    one at the whole year.
    """
    apart = np.abs(axes.so[:, None].astype(np.int64) - axes.s) / DAY % YEAR
    apart = np.minimum(apart, YEAR - apart)
    half = [window / 2]
    while half[-1] <= YEAR / 2:
        half.append(half[-1] * 2)
    return np.maximum(0, 1 - apart[None] / np.array(half)[:, None, None])


@row
def _add(s: Array, w: float, total: Array, weight: Array) -> None:
    for j in range(s.shape[0]):
        v = np.float64(s[j])
        clear = v == v
        total[j] += w * v if clear else 0.0
        weight[j] += w if clear else 0.0


@row
def _divide(total: Array, weight: Array, r: Array) -> int:
    """Means where there are none yet; gives how many pixels still have none."""
    left = 0
    for j in range(r.shape[0]):
        m = np.float32(total[j] / weight[j])
        r[j] = r[j] if r[j] == r[j] else m
        left += r[j] != r[j]
    return left


@row
def _mean(s: Array, near: Array, k: int, total: Array, weight: Array, r: Array) -> None:
    r[:] = NAN
    for level in range(near.shape[0]):
        total[:] = 0.0
        weight[:] = 0.0
        for i in range(s.shape[0]):
            if near[level, k, i] > 0:
                _add(s[i], near[level, k, i], total, weight)
        if _divide(total, weight, r) == 0:
            break


@row
def _sort(a: Array, n: int) -> None:
    for i in range(1, n):
        v = a[i]
        k = i
        while k > 0 and a[k - 1] > v:
            a[k] = a[k - 1]
            k -= 1
        a[k] = v


@row
def _median_of(s: Array, j: int, near: Array, k: int, work: Array) -> Any:
    for level in range(near.shape[0]):
        n = 0
        for i in range(s.shape[0]):
            if (near[level, k, i] > 0) & (s[i, j] == s[i, j]):
                work[n] = s[i, j]
                n += 1
        if n > 0:
            _sort(work, n)
            return np.float32((work[(n - 1) // 2] + work[n // 2]) / 2)
    return NAN


@kernel("band", VALID, TABLES, types.boolean, types.boolean, "out")
def climatology(
    band: Array, valid: Array, near: Array, median: bool, keep: bool, out: Array
) -> int:
    """Fills `out`; gives the number of clear values that held no data."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    total = np.empty(width)
    weight = np.empty(width)
    r = np.empty(width, np.float32)
    work = np.empty(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        for k in range(near.shape[1]):
            if median:
                for j in range(n):
                    r[j] = _median_of(s, j, near, k, work)
            else:
                _mean(s, near, k, total, weight, r)
            give(s, r, k, keep, p0, n, out)
    return lost


@dataclass(frozen=True)
class Climatology(Fit):
    """Day-of-year climatology of the pixel: mean or median of a window of days.

    Clear observations of all years count, those on the same day of the year most, those
    `window / 2` days away or more not at all (the median counts all inside alike); where there is
    none the window doubles until there is. With one year this is a windowed mean.
    """

    window: float = 31
    """Days of the year that are looked at, both sides together."""
    statistic: str = "mean"
    """"mean" or "median"."""

    flag: ClassVar[Flag] = Flag.CLIMATOLOGY
    beyond: ClassVar[Flag] = Flag.CLIMATOLOGY
    fewest: ClassVar[int] = 1
    """A mean of one is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in ("mean", "median") or not self.window > 0:
            raise MethodError(
                f"Climatology(statistic={self.statistic!r}, window={self.window}): expected "
                "'mean' or 'median' and days above 0; pass statistic='mean', window=31."
            )

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        near = nearness(axes, self.window)
        keep = self.keeps(axes)
        return int(
            climatology(band.dtype, band, valid, near, self.statistic == "median", keep, out)
        )
