"""Pchip, akima and quadratic: curves through the clear observations of a pixel, on real days.

One kernel: the observations of a pixel are gathered, slopes or coefficients found in float64 by
the formulas of scipy, and the curve read at the dates asked for, within the range of the pixel's
observations. Before the first and after the last of them its value is held. Days are counted in
seconds: their differences are exact.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    DAYS,
    NAN,
    VALID,
    Array,
    give,
    inlined,
    kernel,
    load,
    row,
)
from cubefill.methods.pixel.method import Axes, Classic

TILE = 128
PCHIP, AKIMA, QUADRATIC = range(3)
TINY = 1e-9
"""Share of the largest change of slope below which a point of akima counts as straight."""


@row
def _pchip_end(h0: float, h1: float, m0: float, m1: float) -> float:
    d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
    if np.sign(d) != np.sign(m0):
        return 0.0
    if (np.sign(m0) != np.sign(m1)) and (abs(d) > 3 * abs(m0)):
        return 3.0 * m0
    return d


@inlined
def _pchip_slopes(x: Array, v: Array, n: int, m: Array, d: Array) -> None:
    for i in range(n - 1):
        m[i] = (v[i + 1] - v[i]) / (x[i + 1] - x[i])
    for i in range(1, n - 1):
        h0, h1 = x[i] - x[i - 1], x[i + 1] - x[i]
        if m[i - 1] * m[i] <= 0:
            d[i] = 0.0
        else:
            w0, w1 = 2 * h1 + h0, h1 + 2 * h0
            d[i] = (w0 + w1) / (w0 / m[i - 1] + w1 / m[i])
    d[0] = _pchip_end(x[1] - x[0], x[2] - x[1], m[0], m[1])
    d[n - 1] = _pchip_end(x[n - 1] - x[n - 2], x[n - 2] - x[n - 3], m[n - 2], m[n - 3])


@inlined
def _akima_slopes(x: Array, v: Array, n: int, m: Array, d: Array) -> None:
    for i in range(n - 1):
        m[i + 2] = (v[i + 1] - v[i]) / (x[i + 1] - x[i])
    m[1] = 2 * m[2] - m[3]
    m[0] = 2 * m[1] - m[2]
    m[n + 1] = 2 * m[n] - m[n - 1]
    m[n + 2] = 2 * m[n + 1] - m[n]
    largest = 0.0
    for i in range(n):
        largest = max(largest, abs(m[i + 3] - m[i + 2]) + abs(m[i + 1] - m[i]))
    for i in range(n):
        after, before = abs(m[i + 3] - m[i + 2]), abs(m[i + 1] - m[i])
        both = after + before
        if both > TINY * largest:
            d[i] = m[i + 1] + before / both * (m[i + 2] - m[i + 1])
        else:
            d[i] = 0.5 * (m[i + 3] + m[i])


@row
def _knot(x: Array, n: int, j: int) -> float:
    """Knot `j` of the quadratic spline: halfway between observations, its ends threefold."""
    if j < 3:
        return float(x[0])
    if j >= n:
        return float(x[n - 1])
    return float(0.5 * (x[j - 2] + x[j - 1]))


@row
def _basis(x: Array, n: int, j: int, u: float) -> tuple[float, float, float]:
    """The three quadratic B-splines that are not zero between knots `j` and `j + 1`."""
    t0, t1, t2, t3 = _knot(x, n, j - 1), _knot(x, n, j), _knot(x, n, j + 1), _knot(x, n, j + 2)
    a, b = (t2 - u) / (t2 - t1), (u - t1) / (t2 - t1)
    left, right = (t2 - u) / (t2 - t0), (t3 - u) / (t3 - t1)
    return left * a, (1 - left) * a + right * b, (1 - right) * b


@inlined
def _spline(x: Array, v: Array, n: int, m: Array, d: Array) -> None:
    """Coefficients of the quadratic spline, by elimination without pivoting."""
    d[0] = v[0]
    m[0] = 0.0
    for i in range(1, n - 1):
        a, b, c = _basis(x, n, i + 1, x[i])
        pivot = b - a * m[i - 1]
        m[i] = c / pivot
        d[i] = (v[i] - a * d[i - 1]) / pivot
    d[n - 1] = v[n - 1]
    for i in range(n - 2, 0, -1):
        d[i] -= m[i] * d[i + 1]


@inlined
def _read_spline(x: Array, d: Array, n: int, i: int, u: float) -> float:
    j = i + 1 if (i == n - 2) or ((i > 0) and (u < 0.5 * (x[i] + x[i + 1]))) else i + 2
    a, b, c = _basis(x, n, j, u)
    return float(a * d[j - 2] + b * d[j - 1] + c * d[j])


@inlined
def _read_hermite(x: Array, v: Array, d: Array, i: int, u: float) -> float:
    h = x[i + 1] - x[i]
    m = (v[i + 1] - v[i]) / h
    p = (u - x[i]) / h
    bent = (1 - p) * (d[i] - m) - p * (d[i + 1] - m)
    return float(v[i] + (v[i + 1] - v[i]) * p + h * p * (1 - p) * bent)


@inlined
def _read(mode: int, x: Array, v: Array, d: Array, n: int, i: int, u: float) -> float:
    if n == 2:
        return float(v[0] + (v[1] - v[0]) * ((u - x[0]) / (x[1] - x[0])))
    if mode == QUADRATIC:
        return _read_spline(x, d, n, i, u)
    return _read_hermite(x, v, d, i, u)


@inlined
def _pixel(
    mode: int, s: Array, j: int, days: Array, out_days: Array,
    x: Array, v: Array, m: Array, d: Array, r: Array,
) -> None:  # fmt: skip
    n = 0
    low, high = np.inf, -np.inf
    for i in range(len(days)):
        if s[i, j] == s[i, j]:
            x[n] = days[i]
            v[n] = s[i, j]
            low, high = min(low, v[n]), max(high, v[n])
            n += 1
    if n > 2:
        if mode == PCHIP:
            _pchip_slopes(x, v, n, m, d)
        elif mode == AKIMA:
            _akima_slopes(x, v, n, m, d)
        else:
            _spline(x, v, n, m, d)
    i = 0
    for k in range(len(out_days)):
        u = out_days[k]
        while (i < n - 2) and (x[i + 1] <= u):
            i += 1
        if n == 0:
            r[k, j] = NAN
        elif u <= x[0]:
            r[k, j] = np.float32(v[0])
        elif u >= x[n - 1]:
            r[k, j] = np.float32(v[n - 1])
        else:
            r[k, j] = np.float32(min(max(_read(mode, x, v, d, n, i, u), low), high))


@kernel("band", VALID, DAYS, DAYS, types.int64, types.boolean, "out")
def through(
    band: Array, valid: Array, days: Array, out_days: Array, mode: int, keep: bool, out: Array
) -> int:
    """Fills `out`; gives the number of clear values that held no data."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    r = np.empty((len(out_days), width), np.float32)
    x = np.empty(count)
    v = np.empty(count)
    m = np.empty(count + 3)
    d = np.empty(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        for j in range(n):
            _pixel(mode, s, j, days, out_days, x, v, m, d, r)
        for k in range(len(out_days)):
            give(s, r[k], k, keep, p0, n, out)
    return lost


@dataclass(frozen=True)
class _Through(Classic):
    """A method of the kernel `through`."""

    mode: ClassVar[int]
    revision: ClassVar[str] = "2"

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        given, asked = axes.s.astype(np.float64), axes.so.astype(np.float64)
        args = (band, valid, given, asked, self.mode, axes.same, out)
        return int(through(band.dtype, *args))


@dataclass(frozen=True)
class Pchip(_Through):
    """Monotone cubic (PCHIP): never overshoots the clear observations beside a gap.

    Equal to `scipy.interpolate.PchipInterpolator`; two observations give a straight line.

    References
    ----------
    Fritsch and Butland (1984), A method for constructing local monotone piecewise cubic
    interpolants, SIAM Journal on Scientific Computing 5.
    """

    mode: ClassVar[int] = PCHIP


@dataclass(frozen=True)
class Akima(_Through):
    """Akima spline: little overshoot next to steps.

    Equal to `scipy.interpolate.Akima1DInterpolator`, held within the range of the pixel's clear
    observations; two observations give a straight line.

    References
    ----------
    Akima (1970), A new method of interpolation and smooth curve fitting based on local
    procedures, Journal of the ACM 17.
    """

    mode: ClassVar[int] = AKIMA


@dataclass(frozen=True)
class Quadratic(_Through):
    """Quadratic spline through all clear observations; it may overshoot those beside a gap.

    Equal to `scipy.interpolate.interp1d(kind="quadratic")`, held within the range of the pixel's
    clear observations; two observations give a straight line.
    """

    mode: ClassVar[int] = QUADRATIC
