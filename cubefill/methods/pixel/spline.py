"""Smoothing splines through the observations of a row of pixels, and their mixture with a line.

The curve near the observations that bends little is the state of a walk whose slope is pushed about
at random (Wahba 1978): value and slope go from one observation to the next as a 2 x 2 matrix of
information and a vector, forwards and backwards, and where both meet the curve is read. Pixels that
were clear on other dates take the same steps with other numbers, so that a row of them is worked on
at once. A state waits at its last observation: a date on which the pixel is not clear changes no
bit. Matrices follow from when a pixel was clear and are shared by the bands. All of it is float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    AHEAD,
    BISQUARE,
    DAYS,
    FLOOR,
    INDEX,
    LOST,
    MAD,
    NAN,
    TABLE,
    VALID,
    Array,
    addresses,
    as_row,
    encode,
    fetch,
    kernel,
    load_row,
    middle,
    reach,
    row,
    row_at,
)
from cubefill.methods.pixel.method import DAY, Axes

W = 16
"""Pixels of a tile; planes lie so far apart, and the compiler must know how far."""
PER_DAY = 1 / 86_400
LEAST = 1e-6
"""Weight of an observation that a robust round forgets."""
NEVER = 1e18
"""Seconds from a date to an observation that does not exist."""
SHORT, MIDDLE, LONG, TAIL, HEAD, SEEN = range(6)
"""Rows of the table of shares: gaps by length, after the last and before the first, observed."""
CURVE = np.repeat([[0.0, 1.0]], 6, axis=0)
"""Shares of one curve and no line."""

# Planes of a date `d`: weights, observations, two of a vector (then the curve), the result, the
# share of the line and where the date lies on it.
WEIGHT, VALUE, FIRST, SECOND, RESULT, OF_LINE, PART = (i * W for i in range(7))
# Planes of a date and a stiffness `f`: steps forwards and backwards, what to read with, the share.
BACK, READ, SHARE = 4 * W, 8 * W, 11 * W
# Planes of a state: information, time, the pixel's first and last observation.
TIME, BEGIN, END = 3 * W, 4 * W, 5 * W


@row
def _step(a: float, b: float, c: float, h: float, k: float) -> Any:
    """Information `h` days away and what a vector is multiplied by on the way."""
    g0, g1, g2 = k * h * h * h / 3, -k * h * h / 2, k * h
    m0, m1 = 1 + a * g0 + b * g1, a * g1 + b * g2
    m2, m3 = b * g0 + c * g1, 1 + b * g1 + c * g2
    i = 1 / (m0 * m3 - m1 * m2)
    rest = a * c - b * b
    a, b, c = (a + rest * g2) * i, (b - rest * g1) * i, (c + rest * g0) * i
    p0, p1, p2, p3 = m3 * i, -m1 * i, -m2 * i, m0 * i
    return a, b - h * a, c - 2 * h * b + h * h * a, p0, p1, p2 - h * p0, p3 - h * p1


@row
def _forwards(day: float, k: float, w: Array, f: Array, state: Array) -> None:
    for j in range(W):
        a, b, c, t = state[j], state[W + j], state[2 * W + j], state[TIME + j]
        h = min(day, state[END + j]) - t
        h = (h if h > 0 else 0.0) * PER_DAY
        d, e, g, p0, p1, p2, p3 = _step(a, b, c, h, k)
        f[j], f[W + j], f[2 * W + j], f[3 * W + j] = p0, p1, p2, p3
        f[READ + j], f[READ + W + j], f[READ + 2 * W + j] = d, e, g
        seen = w[j] > 0
        state[j] = d + w[j] if seen else a
        state[W + j] = e if seen else b
        state[2 * W + j] = g if seen else c
        state[TIME + j] = day if seen else t


@row
def _backwards(day: float, k: float, w: Array, f: Array, state: Array) -> None:
    """The same against time, in which slopes change their sign, and the first row of the inverse.

    The curve is this row times the sum of both vectors.
    """
    for j in range(W):
        a, b, c, t = state[j], state[W + j], state[2 * W + j], state[TIME + j]
        h = t - max(day, state[BEGIN + j])
        h = (h if h > 0 else 0.0) * PER_DAY
        d, e, g, p0, p1, p2, p3 = _step(a, b, c, h, k)
        f[BACK + j], f[BACK + W + j], f[BACK + 2 * W + j], f[BACK + 3 * W + j] = p0, p1, p2, p3
        all0, all1 = f[READ + j] + d + w[j], f[READ + W + j] - e
        all2 = f[READ + 2 * W + j] + g
        i = 1 / (all0 * all2 - all1 * all1)
        f[READ + j], f[READ + W + j] = all2 * i, -all1 * i
        seen = w[j] > 0
        state[j] = d + w[j] if seen else a
        state[W + j] = e if seen else b
        state[2 * W + j] = g if seen else c
        state[TIME + j] = day if seen else t


@row
def _set(a: Array, value: float) -> None:
    for j in range(len(a)):
        a[j] = value


@row
def _ends(u: Array, d: Array, state: Array) -> None:
    """First and last time of an observation."""
    _set(state, 0.0)
    for i in range(len(u)):
        v, z = as_row(d[i]), as_row(d[len(u) - 1 - i])
        first, last = u[len(u) - 1 - i], u[i]
        for j in range(W):
            state[END + j] = last if v[j] > 0 else state[END + j]
            state[BEGIN + j] = first if z[j] > 0 else state[BEGIN + j]


@row
def _start(state: Array, of: int) -> None:
    for j in range(W):
        state[j] = state[W + j] = state[2 * W + j] = 0.0
        state[TIME + j] = state[of + j]


@row
def _factor(u: Array, k: float, d: Array, f: Array, state: Array) -> None:
    _start(state, BEGIN)
    for i in range(len(u)):
        _forwards(u[i], k, as_row(d[i]), as_row(f[i]), state)
    _start(state, END)
    for i in range(len(u) - 1, -1, -1):
        _backwards(u[i], k, as_row(d[i]), as_row(f[i]), state)


@row
def _there(d: Array, f: Array, state: Array) -> None:
    for j in range(W):
        a, b, w = state[j], state[W + j], d[j]
        x, y = f[j] * a + f[W + j] * b, f[2 * W + j] * a + f[3 * W + j] * b
        d[FIRST + j], d[SECOND + j] = x, y
        state[j] = x + w * d[VALUE + j] if w > 0 else a
        state[W + j] = y if w > 0 else b


@row
def _back(d: Array, f: Array, state: Array, part: float) -> None:
    """The curve, and `part` of its share added to the result."""
    for j in range(W):
        a, b, w = state[j], state[W + j], d[j]
        x, y = (
            f[BACK + j] * a + f[BACK + W + j] * b,
            f[BACK + 2 * W + j] * a + f[BACK + 3 * W + j] * b,
        )
        x = x + w * d[VALUE + j]
        z = f[READ + j] * (d[FIRST + j] + x) + f[READ + W + j] * (d[SECOND + j] - y)
        d[FIRST + j] = z
        d[RESULT + j] += z * f[SHARE + j] * part
        state[j] = x if w > 0 else a
        state[W + j] = y if w > 0 else b


@row
def _solve(d: Array, f: Array, state: Array, part: float) -> None:
    """The curve of the observations at every date."""
    _start(state, END)
    for i in range(len(d)):
        _there(as_row(d[i]), as_row(f[i]), state)
    _start(state, END)
    for i in range(len(d) - 1, -1, -1):
        _back(as_row(d[i]), as_row(f[i]), state, part)


# ------------------------------------------------------------------ the line, and shares


@row
def _kinds(u: Array, edges: Array, d: Array, state: Array) -> None:
    """Part of the way to the next observation, and the kind of gap in place of a share."""
    for j in range(W):
        state[j] = -NEVER
        state[W + j] = NEVER
    for i in range(len(u)):
        r, day = as_row(d[i]), u[i]
        for j in range(W):
            state[j] = day if r[j] > 0 else state[j]
            r[PART + j] = state[j]
    for i in range(len(u) - 1, -1, -1):
        r, day = as_row(d[i]), u[i]
        for j in range(W):
            a = r[PART + j]
            b = day if r[j] > 0 else state[W + j]
            state[W + j] = b
            long = b - a
            part = (day - a) / (long if long > 0 else 1.0)
            part = 1.0 if a == -NEVER else part
            r[PART + j] = 0.0 if b == NEVER else part
            kind = 2.0 if long > edges[1] else 1.0
            kind = kind if long > edges[0] else 0.0
            kind = 3.0 if b == NEVER else kind
            kind = 4.0 if a == -NEVER else kind
            r[OF_LINE + j] = 5.0 if r[j] > 0 else kind


@row
def _share(table: Array, q: int, d: Array, f: Array, plane: int) -> None:
    """The share of each kind of gap."""
    t0, t1, t2, t3, t4, t5 = (
        table[0, q], table[1, q], table[2, q], table[3, q], table[4, q], table[5, q]
    )  # fmt: skip
    for i in range(len(d)):
        r, s = as_row(d[i]), as_row(f[i])
        for j in range(W):
            kind = r[OF_LINE + j]
            a = t0 if kind == 0.0 else t1
            a = t2 if kind == 2.0 else a
            a = t3 if kind == 3.0 else a
            a = t4 if kind == 4.0 else a
            s[plane + j] = t5 if kind == 5.0 else a


@row
def _line(d: Array, state: Array) -> None:
    """The share of the line as the result."""
    _start(state, END)
    for i in range(len(d)):
        r = as_row(d[i])
        for j in range(W):
            state[j] = r[VALUE + j] if r[j] > 0 else state[j]
            r[RESULT + j] = state[j]
    for i in range(len(d) - 1, -1, -1):
        r = as_row(d[i])
        for j in range(W):
            b = r[VALUE + j] if r[j] > 0 else state[W + j]
            state[W + j] = b
            a = r[RESULT + j]
            r[RESULT + j] = (a + (b - a) * r[PART + j]) * r[OF_LINE + j]


@row
def _reweigh(d: Array, work: Array) -> None:
    """Bisquare weights of observations, from their distance to the curve."""
    for j in range(W):
        n = 0
        for i in range(len(d)):
            if d[i, j] > 0:
                work[n] = abs(d[i, VALUE + j] - d[i, FIRST + j])
                n += 1
        far = BISQUARE * max(MAD * middle(work, n), FLOOR) if n > 0 else 1.0
        for i in range(len(d)):
            if d[i, j] > 0:
                u = (d[i, VALUE + j] - d[i, FIRST + j]) / far
                near = (1 - u * u) * (1 - u * u) if abs(u) < 1 else 0.0
                d[i, j] = max(near, LEAST)


# ------------------------------------------------------------------ in and out


@row
def _clear(valid: Array, at: Array, trust: Array, p0: int, n: int, d: Array) -> None:
    """Weight of what all bands observe."""
    for i in range(valid.shape[0]):
        j, r = 0, as_row(d[at[i]])
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            if i + AHEAD < valid.shape[0]:
                fetch(as_row(valid[i + AHEAD, y, x : x + m]))
            c = as_row(valid[i, y, x : x + m])
            for q in range(m):
                r[j + q] = trust[i] if c[q] else 0.0
            j += m


@row
def _take(
    to: Array, like: Array, valid: Array, at: Array, p0: int, n: int, s: Array, d: Array
) -> int:
    """Observations from an address and its strides: in `s` NaN where there is none, in `d` 0."""
    count, lost = valid.shape[0], 0
    for i in range(count):
        j, r, e = 0, as_row(d[at[i]]), as_row(s[i])
        while j < n:
            k, x, m = reach(p0 + j, n - j, valid.shape[2])
            here = to[0] + i * to[1] + k * to[2] + x * like.itemsize
            if i + AHEAD < count:
                fetch(row_at(here + AHEAD * to[1], m, like))
            a, c = row_at(here, m, like), as_row(valid[i, k, x : x + m])
            lost += load_row(a, c, e[j : j + m])
            j += m
        for j in range(W):
            r[VALUE + j] = e[j] if e[j] == e[j] else 0.0
    return lost


@row
def _own(s: Array, at: Array, trust: Array, d: Array) -> None:
    for i in range(len(at)):
        for j in range(W):
            d[at[i], j] = trust[i] if s[i, j] == s[i, j] else 0.0


@row
def _range(s: Array, low: Array, high: Array) -> None:
    for j in range(W):
        low[j] = np.inf
        high[j] = -np.inf
    for i in range(len(s)):
        a = as_row(s[i])
        for j in range(W):
            low[j] = a[j] if a[j] < low[j] else low[j]
            high[j] = a[j] if a[j] > high[j] else high[j]


@row
def _write(r: Array, low: Array, high: Array, old: Array, keep: bool, out: Array) -> None:
    for j in range(out.shape[0]):
        a = np.float32(r[j])
        a = low[j] if a < low[j] else a
        a = high[j] if a > high[j] else a
        a = old[j] if keep and old[j] == old[j] else a
        out[j] = encode(a, out)


@row
def _put(
    to: Array, like: Array, side: int, p0: int, n: int, d: Array, asked: Array, low: Array,
    high: Array, s: Array, keep: bool,
) -> None:  # fmt: skip
    """Writes what was asked for, within the range of the observations."""
    for k in range(len(asked)):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, side)
            here = to[0] + k * to[1] + y * to[2] + x * like.itemsize
            if k + AHEAD < len(asked):
                fetch(row_at(here + AHEAD * to[1], m, like))
            e = j + m
            a, b, c = as_row(d[asked[k]]), as_row(low[j:e]), as_row(high[j:e])
            old = as_row(s[k if keep else 0])
            _write(a[RESULT + j : RESULT + e], b, c, old[j:e], keep, row_at(here, m, like))
            j = e


@kernel(
    ADDRESSES, ADDRESSES, "like", VALID, DAYS, INDEX, INDEX, DAYS, DAYS, DAYS, TABLE,
    types.boolean, types.int64, types.boolean, LOST, gives=types.void,
)  # fmt: skip
def splines(
    bands: Array, outs: Array, like: Array, valid: Array, u: Array, at: Array, asked: Array,
    trust: Array, lams: Array, edges: Array, table: Array, own: bool, rounds: int, keep: bool,
    lost: Array,
) -> None:  # fmt: skip
    """Fills every output; rows of `bands` and `outs` are addresses and strides of time and y.

    `u` are the seconds of all dates, given or asked for, `at` and `asked` which of them these are.
    `trust` is the weight of the observations of each date given. `table` has for each kind of gap,
    of `edges` seconds, the share of the line and of the curve of each of `lams`. `keep` puts clear
    observations back. `lost` gets the clear values of each band that hold no data: bands share
    their matrices unless each is to have its `own`, and where it is not 0, a band that shared is
    wrong. Only an own one can have `rounds` of robust weights.
    """
    dates, side, pixels = len(u), valid.shape[2], valid.shape[1] * valid.shape[2]
    s = np.empty((valid.shape[0], W), np.float32)
    d, f = np.empty((dates, 7 * W)), np.empty((len(lams), dates, 12 * W))
    state, work = np.empty(6 * W), np.empty(dates)
    low, high = np.empty(W, np.float32), np.empty(W, np.float32)
    for b in range(bands.shape[0]):
        lost[b] = 0
    for p0 in range(0, pixels, W):
        n = min(W, pixels - p0)
        for i in range(valid.shape[0]):
            _set(as_row(s[i]), NAN)
        for i in range(dates):
            _set(as_row(d[i]), 0.0)
        for b in range(bands.shape[0]):
            lost[b] += _take(bands[b], like, valid, at, p0, n, s, d)
            if own:
                _own(s, at, trust, d)
            elif b == 0:
                _clear(valid, at, trust, p0, n, d)
            mine = own or b == 0
            if mine:
                _ends(u, d, state)
                _kinds(u, edges, d, state)
                for q in range(len(lams), -1, -1):
                    to, plane = (f[q - 1], SHARE) if q > 0 else (d, OF_LINE)
                    _share(table, q, d, to, plane)
            _line(d, state)
            for q in range(len(lams)):
                for z in range(rounds + 1):
                    if mine:
                        _factor(u, 1 / lams[q], d, f[q], state)
                    _solve(d, f[q], state, 1.0 if z == rounds else 0.0)
                    if z < rounds:
                        _reweigh(d, work)
            _range(s, low, high)
            _put(outs[b], like, side, p0, n, d, asked, low, high, s, keep)


def mixture(
    bands: Sequence[Array],
    valid: Array,
    axes: Axes,
    outs: Sequence[Array],
    lams: Sequence[float],
    *,
    shares: Array = CURVE,
    edges: Sequence[float] = (0.0, 0.0),
    trust: Array | None = None,
    own: bool = False,
    rounds: int = 0,
    keep: bool = True,
) -> Array:
    """Fills `outs` of bands; gives the clear values of each that held no data.

    `lams` is the stiffness of each curve in days cubed, `shares` a row for each kind of gap: what
    the line and each curve are worth; the kinds are told apart at `edges`, in days. `trust` is the
    weight of the observations of each date.
    """
    like, lost = np.zeros(1, bands[0].dtype), np.zeros(len(bands), np.int64)
    u = axes.s if axes.same else np.union1d(axes.s, axes.so)
    at, asked = np.searchsorted(u, axes.s), np.searchsorted(u, axes.so)
    weight = np.ones(len(axes.s)) if trust is None else np.asarray(trust, np.float64)
    told = (u.astype(np.float64), at, asked, weight, np.asarray(lams, np.float64))
    limits = np.array([e * DAY for e in edges])

    def run(chosen: Any, own: bool, lost: Array) -> None:
        to = (addresses([a[i] for i in chosen]) for a in (bands, outs))
        splines(like.dtype, *to, like, valid, *told, limits, shares, own, rounds, keep, lost)

    run(range(len(bands)), own, lost)
    again = np.flatnonzero(lost)
    if len(again) and not own:
        run(again, True, np.zeros(len(again), np.int64))
    return lost
