"""The kernel of the Whittaker smoother: pentadiagonal systems, a tile of pixels at a time.

The matrix is `diag(w) + lam * D'D`; `D'D` is shared by all pixels, `w` is each pixel's own. It is
factorised as L D L' without pivoting, in float64 (float32 was measured unusable).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods._robust import bisquare
from cubefill.methods._rows import (
    INDEX,
    NAN,
    TABLE,
    VALID,
    Array,
    cube_type,
    kernel,
    load,
    row,
    store,
)

TILE = 256
DEFAULT = 1000.0
"""`lam` where no series of the sample is long enough, in days cubed."""
LAMS = 10.0 ** np.arange(1.0, 7.1, 0.25)
"""Candidates of the V-curve, in days cubed."""
FEWEST = 6
"""Clear observations that a series needs to have a V-curve."""


def bending(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)`: row i of D holds `[:, i]` at dates i, i + 1, i + 2.

    Rows are second derivatives at each inner date (twice the divided difference), weighted so
    that their squares add up to the integral over time.
    """
    out = np.zeros((3, len(days)))
    if len(days) < 3:
        return out
    h = np.diff(days)
    both = h[:-1] + h[1:]
    out[0, :-2] = np.sqrt(2 / both) / h[:-1]
    out[2, :-2] = np.sqrt(2 / both) / h[1:]
    out[1] = -out[0] - out[2]
    return out


def penalty(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)` diagonals of D'D: itself, first and second above it."""
    a, b, c = bending(days)
    out = np.array([a * a, a * b, a * c])
    out[0, 1:] += (b * b)[:-1]
    out[0, 2:] += (c * c)[:-2]
    out[1, 1:] += (b * c)[:-1]
    return out


def local_cubic(
    days: NDArray[np.float64], out_days: NDArray[np.float64], lo: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First of four dates given, and their weights, for each date asked for.

    A cubic Hermite polynomial between two dates, its slopes from parabolas through three.
    """
    start = np.zeros(len(out_days), np.int64)
    weights = np.zeros((len(out_days), 4))
    for k, (day, i) in enumerate(zip(out_days, lo, strict=True)):
        if i < 0 or days[i] == day or i == len(days) - 1:
            start[k] = max(i, 0)
            weights[k, 0] = 1
            continue
        start[k] = max(i - 1, 0)
        near = days[start[k] : start[k] + 4]
        weights[k, : len(near)] = _hermite(near, i - start[k], day)
    return start, weights


def _hermite(x: NDArray[np.float64], i: int, day: float) -> NDArray[np.float64]:
    unit = np.eye(len(x))
    secant = np.diff(unit, axis=0) / np.diff(x)[:, None]
    slopes = np.concatenate([secant[:1], secant[-1:]]) if len(x) == 2 else _slopes(x, secant)
    h = x[i + 1] - x[i]
    u = (day - x[i]) / h
    ends = (1 + 2 * u) * (1 - u) ** 2 * unit[i] + u * u * (3 - 2 * u) * unit[i + 1]
    bent = u * (1 - u) ** 2 * slopes[i] - u * u * (1 - u) * slopes[i + 1]
    weights: NDArray[np.float64] = ends + h * bent
    return weights


def _slopes(x: NDArray[np.float64], secant: NDArray[np.float64]) -> NDArray[np.float64]:
    h = np.diff(x)[:, None]
    inner = (h[1:] * secant[:-1] + h[:-1] * secant[1:]) / (h[:-1] + h[1:])
    return np.concatenate([2 * secant[:1] - inner[:1], inner, 2 * secant[-1:] - inner[-1:]])


@row
def _first_last(s: Array, i: int, first: Array, last: Array) -> None:
    for j in range(first.shape[0]):
        clear = s[j] == s[j]
        first[j] = np.int32(i) if clear & (last[j] < 0) else first[j]
        last[j] = np.int32(i) if clear else last[j]


@row
def _eliminate(
    s: Array, a0: float, a1: float, a2: float, c2: float,
    g: Array, e1: Array, f1: Array, f2: Array, z1: Array, z2: Array,
    e: Array, f: Array, y: Array,
) -> None:  # fmt: skip
    """One row of the elimination; `z2` becomes this row's right side, `g` its unscaled `e`."""
    for j in range(s.shape[0]):
        v = np.float64(s[j])
        clear = v == v
        w = 1.0 if clear else 0.0
        x = v if clear else 0.0
        d = a0 + w - e1[j] * g[j] - f2[j] * c2
        u = a1 - f1[j] * g[j]
        z = x - e1[j] * z1[j] - f2[j] * z2[j]
        r = 1.0 / d
        g[j] = u
        z2[j] = z
        e[j] = u * r
        f[j] = a2 * r
        y[j] = z * r


@row
def _eliminate_weighted(
    s: Array, q: Array, a0: float, a1: float, a2: float, c2: float,
    g: Array, e1: Array, f1: Array, f2: Array, z1: Array, z2: Array,
    e: Array, f: Array, y: Array,
) -> None:  # fmt: skip
    for j in range(s.shape[0]):
        v = np.float64(s[j])
        w = q[j]
        x = w * v if v == v else 0.0
        d = a0 + w - e1[j] * g[j] - f2[j] * c2
        u = a1 - f1[j] * g[j]
        z = x - e1[j] * z1[j] - f2[j] * z2[j]
        r = 1.0 / d
        g[j] = u
        z2[j] = z
        e[j] = u * r
        f[j] = a2 * r
        y[j] = z * r


@row
def _substitute(
    s: Array, k: int, first: Array, last: Array, e: Array, f: Array, y1: Array, y2: Array, y: Array
) -> None:
    """One row of the back substitution; held before the first observation, exact for a lone one."""
    for j in range(s.shape[0]):
        z = y[j] - e[j] * y1[j] - f[j] * y2[j]
        v = np.float64(s[j])
        z = v if (first[j] == last[j]) & (v == v) else z
        y[j] = z if k >= first[j] else y1[j]


@row
def _hold(k: int, last: Array, y1: Array, y: Array) -> None:
    """Held after the last observation; unknown where there is none."""
    for j in range(last.shape[0]):
        z = y[j] if k <= last[j] else y1[j]
        y[j] = z if last[j] >= 0 else np.nan


@row
def solve(
    s: Array, bend: Array, w: Array, weighted: bool, first: Array, last: Array,
    e: Array, f: Array, y: Array, state: Array,
) -> None:  # fmt: skip
    """The curve of every pixel in rows 0 to T of `y`, up to its last observation.

    `e`, `f` have two rows of zeros before row 0, at T and T + 1.
    """
    count = s.shape[0]
    state[:] = 0.0
    g = state[0]
    for i in range(count):
        p, q = (i - 1) % (count + 2), (i - 2) % (count + 2)
        c2 = bend[2, i - 2] if i > 1 else 0.0
        z1, z2 = state[1 + (i + 1) % 2], state[1 + i % 2]
        if weighted:
            _eliminate_weighted(
                s[i], w[i], bend[0, i], bend[1, i], bend[2, i], c2,
                g, e[p], f[p], f[q], z1, z2, e[i], f[i], y[i],
            )  # fmt: skip
        else:
            _eliminate(
                s[i], bend[0, i], bend[1, i], bend[2, i], c2,
                g, e[p], f[p], f[q], z1, z2, e[i], f[i], y[i],
            )  # fmt: skip
    for i in range(count - 1, -1, -1):
        _substitute(s[i], i, first, last, e[i], f[i], y[i + 1], y[i + 2], y[i])


@row
def _same_date(s: Array, y: Array, k: int, last: Array, keep: bool, held: Array, r: Array) -> None:
    """A date given: the curve, held after the last observation, clear observations put back."""
    for j in range(r.shape[0]):
        z = y[j] if k <= last[j] else held[j]
        z = z if last[j] >= 0 else np.nan
        held[j] = z
        r[j] = s[j] if keep & (s[j] == s[j]) else np.float32(z)


@row
def _local(y: Array, k: int, first: int, weights: Array, r: Array) -> None:
    """Date `k` asked for from four neighbouring dates given."""
    for j in range(r.shape[0]):
        z = weights[k, 0] * y[first, j] + weights[k, 1] * y[first + 1, j]
        z += weights[k, 2] * y[first + 2, j] + weights[k, 3] * y[first + 3, j]
        r[j] = np.float32(z)


@row
def _give_other(
    y: Array, p0: int, n: int, last: Array, start: Array, weights: Array, r: Array, out: Array
) -> None:
    count = y.shape[0] - 4
    for i in range(count):
        _hold(i, last, y[max(i - 1, 0)], y[i])
    for k in range(out.shape[0]):
        _local(y, k, start[k], weights, r)
        store(r, k, p0, n, out)


@row
def _fit(
    s: Array, bend: Array, rounds: int, w: Array, first: Array, last: Array,
    e: Array, f: Array, y: Array, state: Array, work: Array,
) -> None:  # fmt: skip
    first[:] = np.int32(s.shape[0])
    last[:] = np.int32(-1)
    for i in range(s.shape[0]):
        _first_last(s[i], i, first, last)
    for k in range(rounds + 1):
        if k > 0:
            bisquare(s, y, w, work)
        solve(s, bend, w, k > 0, first, last, e, f, y, state)


def _signature(dtype: Any) -> Any:
    return types.int64(
        cube_type(dtype), VALID, TABLE, INDEX, TABLE, types.int64, types.boolean, types.boolean,
        cube_type(dtype, out=True),
    )  # fmt: skip


@kernel(_signature)
def whittaker(
    band: Array, valid: Array, bend: Array, start: Array, weights: Array,
    rounds: int, same: bool, keep: bool, out: Array,
) -> int:  # fmt: skip
    """Fills `out`; gives the number of clear values that held no data.

    `bend` is `lam * penalty(days)`. Unless the dates asked for are the `same`, date `k` of them is
    the sum of dates `start[k] + 0..3` given, with the weights of row `k`. `keep` puts clear
    observations back.
    """
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    w = np.empty((count if rounds > 0 else 1, width))
    e = np.zeros((count + 4, width))
    f = np.zeros((count + 4, width))
    y = np.zeros((count + 4, width))
    state = np.empty((3, width))
    first = np.empty(width, np.int32)
    last = np.empty(width, np.int32)
    r = np.empty(width, np.float32)
    work = np.empty(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        _fit(s, bend, rounds, w, first, last, e, f, y, state, work)
        if same:
            for k in range(count):
                _same_date(s[k], y[k], k, last, keep, state[0], r)
                store(r, k, p0, n, out)
        else:
            _give_other(y, p0, n, last, start, weights, r, out)
    return lost


# ------------------------------------------------------------------ the V-curve


@row
def _add_up(
    s: Array, y: Array, d: Array, first: Array, last: Array, misfit: Array, rough: Array
) -> None:
    """Squared distance to the observations and squared second derivative, per pixel."""
    misfit[:] = 0.0
    rough[:] = 0.0
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            v = np.float64(s[i, j]) - y[i, j]
            misfit[j] += v * v if v == v else 0.0
    for i in range(s.shape[0] - 2):
        for j in range(s.shape[1]):
            b = d[0, i] * y[i, j] + d[1, i] * y[i + 1, j] + d[2, i] * y[i + 2, j]
            rough[j] += b * b if (i >= first[j]) & (i + 2 <= last[j]) else 0.0


def _sweep_signature(dtype: Any) -> Any:
    lams = types.Array(types.float64, 1, "C", readonly=True)
    out = types.Array(types.float64, 3, "C")
    return types.void(cube_type(dtype), VALID, TABLE, TABLE, lams, out)


@kernel(_sweep_signature)
def sweep(band: Array, valid: Array, bend: Array, d: Array, lams: Array, out: Array) -> None:
    """Misfit and roughness `(2, lam, pixel)` of the curve of every pixel for each of `lams`."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    w = np.empty((1, width))
    e = np.zeros((count + 4, width))
    f = np.zeros((count + 4, width))
    y = np.zeros((count + 4, width))
    state = np.empty((3, width))
    first = np.empty(width, np.int32)
    last = np.empty(width, np.int32)
    work = np.empty(count)
    misfit = np.empty(width)
    rough = np.empty(width)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        load(band, valid, p0, n, s)
        for m in range(len(lams)):
            _fit(s, bend * lams[m], 0, w, first, last, e, f, y, state, work)
            _add_up(s, y, d, first, last, misfit, rough)
            out[0, m, p0 : p0 + n] = misfit[:n]
            out[1, m, p0 : p0 + n] = rough[:n]


def v_curve(bands: Iterable[Array], valid: Array, days: NDArray[np.float64]) -> float:
    """The `lam` at the bottom of the V-curve: the median over the series of all bands.

    For each series: the distance between neighbours of the L-curve (log misfit against log
    roughness over log `lam`) is smallest where more bending buys little.
    """
    best: list[NDArray[np.float64]] = []
    log_lam = np.log10(LAMS)
    for band in bands:
        out = np.empty((2, len(LAMS), band.shape[1] * band.shape[2]))
        sweep(band.dtype, band, valid, penalty(days), bending(days), LAMS, out)
        clear = (valid & np.isfinite(band)).sum(axis=0).ravel() >= FEWEST
        moves = np.diff(np.log10(np.maximum(out[:, :, clear], 1e-300)), axis=1)
        v = np.hypot(*moves) / np.diff(log_lam)[:, None]
        best.append((log_lam[:-1] + log_lam[1:])[v.argmin(axis=0)] / 2)
    found = np.concatenate(best) if best else np.empty(0)
    return float(10 ** np.median(found)) if found.size else DEFAULT
