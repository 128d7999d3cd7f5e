"""Savitzky-Golay on real days.

A straight line between the clear observations, and to it, for each date asked for, one weighted sum
of how much the line bends at them, the weights shared by all pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.polynomial import Polynomial, legendre
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.pixel.fit import Fit
from cubefill.methods.pixel.kernel import (
    FAR,
    INDEX,
    NAN,
    SECONDS,
    TABLE,
    VALID,
    Array,
    copied,
    give,
    inlined,
    kernel,
    load,
    rounded,
    row,
    span,
    within,
)
from cubefill.methods.pixel.method import DAY, Axes

TILE = 256
HIGHEST = 9
"""Degree up to which the polynomial can be integrated without loss of digits."""


def kink_response(away: NDArray[np.float64], window: float, order: int) -> NDArray[np.float64]:
    """What a bend of the line by 1 a day, so many days after a date, adds to the curve there.

    The polynomial of degree `order` is fitted by least squares to the whole line within
    `window / 2` days. A straight line is its own fit, so that the curve is the line and what its
    bends add, and a bend further away adds nothing.
    """
    half = window / 2
    degrees = np.arange(order + 1)
    kernel = (2 * degrees + 1) / 2 * legendre.legval(0.0, np.eye(order + 1))
    once = legendre.Legendre(kernel).convert(kind=Polynomial).integ(lbnd=1)
    twice = once.integ(lbnd=1)
    u = away / half
    inside = np.abs(u) < 1
    return np.where(inside, half * (twice(np.where(inside, u, 0)) - np.maximum(-u, 0)), 0.0)


@row
def _last(s: Array, day: Any, v: Array, t: Array, pv: Array, pt: Array, bend: Array) -> None:
    """The last observation, and at each one less the slope that leads to it."""
    for j in range(s.shape[0]):
        clear = s[j] == s[j]
        slope = (np.float64(s[j]) - v[j]) / np.int32(day - t[j])
        bend[j] = -slope if clear & (slope == slope) else 0.0
        a = s[j] if clear else v[j]
        b = day if clear else t[j]
        v[j] = a
        t[j] = b
        pv[j] = a
        pt[j] = b


@row
def _line(s: Array, day: Any, v: Array, t: Array, pv: Array, pt: Array, bend: Array) -> None:
    """The straight line at one date, in `pv`; at an observation the slope that leads on."""
    for j in range(s.shape[0]):
        clear = s[j] == s[j]
        slope = (np.float64(v[j]) - s[j]) / np.int32(t[j] - day)
        bend[j] += slope if clear & (slope == slope) else 0.0
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
def _start(z: Array, total: Array) -> None:
    for j in range(total.shape[0]):
        total[j] = np.float64(z[j])


@row
def _add(bend: Array, w: float, total: Array) -> None:
    for j in range(bend.shape[0]):
        total[j] += w * bend[j]


@inlined
def _fill_lines(
    s: Array, seconds: Array, v: Array, t: Array, z: Array, pt: Array, bend: Array
) -> None:
    v[:] = NAN
    t[:] = -FAR
    for i in range(s.shape[0]):
        _last(s[i], seconds[i], v, t, z[i], pt[i], bend[i])
    v[:] = NAN
    t[:] = FAR
    for i in range(s.shape[0] - 1, -1, -1):
        _line(s[i], seconds[i], v, t, z[i], pt[i], bend[i])


@kernel("band", VALID, SECONDS, INDEX, INDEX, TABLE, types.boolean, "out")
def savgol(
    band: Array, valid: Array, seconds: Array, given: Array, asked: Array, response: Array,
    keep: bool, out: Array,
) -> int:  # fmt: skip
    """Fills `out`; gives the number of clear values that held no data.

    `seconds` are the dates given and asked for, all together; `given` and `asked` say where each of
    them stands there. `response (asked, seconds)` is what a bend at each adds at each date asked.
    """
    count, pixels = len(seconds), band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    first = np.empty((band.shape[0], width), np.float32)
    s = np.full((count, width), NAN, np.float32)
    z = np.empty((count, width), np.float32)
    bend = np.empty((count, width))
    pt = np.empty((count, width), np.int32)
    v = np.empty(width, np.float32)
    t = np.empty(width, np.int32)
    low = np.empty(width, np.float32)
    high = np.empty(width, np.float32)
    total = np.empty(width)
    r = np.empty(width, np.float32)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, first)
        for i in range(len(given)):
            copied(first[i], n, s[given[i]])
        span(s, low, high)
        _fill_lines(s, seconds, v, t, z, pt, bend)
        for k in range(len(asked)):
            _start(z[asked[k]], total)
            for i in range(count):
                if response[k, i] != 0.0:
                    _add(bend[i], response[k, i], total)
            rounded(total, r)
            within(r, low, high)
            give(first, r, k, keep, p0, n, out)
    return lost


@dataclass(frozen=True)
class Savgol(Fit):
    """Savitzky-Golay on real dates: a polynomial fitted to the `window` days around a date.

    The straight line between the clear observations is laid first, as is usual, and held at its
    ends; the polynomial is fitted to all of the line within the window, so that the answer depends
    on the pixel's own observations and their days, and on no other date.

    References
    ----------
    Chen et al. (2004), A simple method for reconstructing a high-quality NDVI time-series data
    set based on the Savitzky-Golay filter, Remote Sensing of Environment 91.
    """

    window: float = 45
    """Days that the polynomial is fitted to, both sides together."""
    order: int = 2
    """Degree of the polynomial."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.order <= HIGHEST or not self.window > 0:
            raise MethodError(
                f"Savgol(window={self.window}, order={self.order}): expected days above 0 and "
                f"order 0 to {HIGHEST}; pass window=45, order=2."
            )

    @property
    def fewest(self) -> int:
        """As many as the polynomial has terms."""
        return self.order + 1

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        both = np.union1d(axes.s, axes.so)
        given, asked = (np.searchsorted(both, a) for a in (axes.s, axes.so))
        away = (both[None].astype(np.int64) - axes.so[:, None]) / DAY
        response = kink_response(away, self.window, self.order) * DAY
        keep = self.keeps(axes)
        return int(savgol(band.dtype, band, valid, both, given, asked, response, keep, out))
