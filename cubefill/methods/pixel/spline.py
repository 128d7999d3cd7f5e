"""Smoothing splines through the observations of a row of pixels, and their mixture with a line.

The curve near the observations that bends little is the state of a walk whose slope is pushed about
at random (Wahba 1978): value and slope go from one observation to the next as a 2 x 2 matrix of
information and a vector, forwards and backwards, and where both meet the curve is read. Pixels that
were clear on other dates take the same steps with other numbers, so that a row of them is worked on
at once. A state waits at its last observation: a date on which the pixel is not clear changes no
bit. Matrices follow from when a pixel was clear and are shared by the bands. Steps are reckoned
from observation to observation, times as whole seconds: float32 then is enough, within 1e-6 of
reflectance of a solution in float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    AHEAD,
    BISQUARE,
    FAR,
    FLOOR,
    INDEX,
    LOST,
    MAD,
    NAN,
    SECONDS,
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

W = 64
"""Pixels that are worked on at once: planes lie so far apart, which the compiler must know."""
WIDE = 2 * W
"""Pixels that are read and written at once."""
LEAST = np.float32(1e-6)
"""Weight of an observation that a robust round forgets."""
PER_DAY = np.float32(1 / DAY)
ZERO, ONE, TWO, THREE = (np.float32(i) for i in range(4))
SHORT, MIDDLE, LONG, TAIL, HEAD, SEEN = range(6)
"""Rows of the table of shares: gaps by length, after the last and before the first, observed."""
CURVE = np.repeat([[0.0, 1.0]], 6, axis=0)
"""Shares of one curve and no line."""

# Planes of a date `d`: weights, observations, two of a vector (then the curve), the result, the
# share of the line and where the date lies on it.
VALUE, FIRST, SECOND, RESULT, OF_LINE, PART, DATES = (i * W for i in range(1, 8))
# Planes of a date and a stiffness `f`: steps forwards and backwards, what to read with, the share.
BACK, READ, SHARE, STEPS = 4 * W, 8 * W, 11 * W, 12 * W
# Planes of `when`: the time of a state, the pixel's first and last observation.
BEGIN, END = W, 2 * W

FLOATS = types.Array(types.float32, 1, "C", readonly=True)
SHARES = types.Array(types.float32, 2, "C", readonly=True)


@row
def _step(a: Any, b: Any, c: Any, h: Any, k: Any) -> Any:
    """Information `h` days away and what a vector is multiplied by on the way."""
    g2 = k * h
    g1 = -g2 * h / TWO
    g0 = g2 * h * h / THREE
    m0, m1 = ONE + a * g0 + b * g1, a * g1 + b * g2
    m2, m3 = b * g0 + c * g1, ONE + b * g1 + c * g2
    i = ONE / (m0 * m3 - m1 * m2)
    rest = a * c - b * b
    a, b, c = (a + rest * g2) * i, (b - rest * g1) * i, (c + rest * g0) * i
    p0, p1, p2, p3 = m3 * i, -m1 * i, -m2 * i, m0 * i
    return a, b - h * a, c - TWO * h * b + h * h * a, p0, p1, p2 - h * p0, p3 - h * p1


@row
def _forwards(day: Any, k: Any, w: Array, f: Array, state: Array, when: Array) -> None:
    for j in range(W):
        a, b, c, t, v = state[j], state[W + j], state[2 * W + j], when[j], w[j]
        last = when[END + j]
        h = np.float32(np.int32((day if day < last else last) - t))
        h = (h if h > ZERO else ZERO) * PER_DAY
        d, e, g, p0, p1, p2, p3 = _step(a, b, c, h, k)
        f[j], f[W + j], f[2 * W + j], f[3 * W + j] = p0, p1, p2, p3
        f[READ + j], f[READ + W + j], f[READ + 2 * W + j] = d, e, g
        seen = v > ZERO
        d += v
        state[j] = d if seen else a
        state[W + j] = e if seen else b
        state[2 * W + j] = g if seen else c
        when[j] = day if seen else t


@row
def _backwards(day: Any, k: Any, w: Array, f: Array, state: Array, when: Array) -> None:
    """The same against time, in which slopes change their sign, and the first row of the inverse.

    The curve is this row times the sum of both vectors.
    """
    for j in range(W):
        a, b, c, t, v = state[j], state[W + j], state[2 * W + j], when[j], w[j]
        first = when[BEGIN + j]
        h = np.float32(np.int32(t - (day if day > first else first)))
        h = (h if h > ZERO else ZERO) * PER_DAY
        d, e, g, p0, p1, p2, p3 = _step(a, b, c, h, k)
        f[BACK + j], f[BACK + W + j], f[BACK + 2 * W + j], f[BACK + 3 * W + j] = p0, p1, p2, p3
        all0, all1 = f[READ + j] + d + v, f[READ + W + j] - e
        all2 = f[READ + 2 * W + j] + g
        i = ONE / (all0 * all2 - all1 * all1)
        f[READ + j], f[READ + W + j] = all2 * i, -all1 * i
        seen = v > ZERO
        d += v
        state[j] = d if seen else a
        state[W + j] = e if seen else b
        state[2 * W + j] = g if seen else c
        when[j] = day if seen else t


@row
def _ends(u: Array, d: Array, when: Array) -> None:
    """First and last time of an observation."""
    for j in range(W):
        when[BEGIN + j] = when[END + j] = 0
    for i in range(len(u)):
        v, z = as_row(d[i]), as_row(d[len(u) - 1 - i])
        first, last = u[len(u) - 1 - i], u[i]
        for j in range(W):
            a, b = when[END + j], when[BEGIN + j]
            when[END + j] = last if v[j] > ZERO else a
            when[BEGIN + j] = first if z[j] > ZERO else b


@row
def _start(state: Array) -> None:
    for j in range(len(state)):
        state[j] = ZERO


@row
def _factor(u: Array, k: Any, d: Array, f: Array, state: Array, when: Array) -> None:
    _start(state)
    for j in range(W):
        when[j] = when[BEGIN + j]
    for i in range(len(u)):
        _forwards(u[i], k, as_row(d[i]), as_row(f[i]), state, when)
    _start(state)
    for j in range(W):
        when[j] = when[END + j]
    for i in range(len(u) - 1, -1, -1):
        _backwards(u[i], k, as_row(d[i]), as_row(f[i]), state, when)


@row
def _there(d: Array, f: Array, state: Array) -> None:
    for j in range(W):
        a, b, w, v = state[j], state[W + j], d[j], d[VALUE + j]
        x, y = f[j] * a + f[W + j] * b, f[2 * W + j] * a + f[3 * W + j] * b
        d[FIRST + j], d[SECOND + j] = x, y
        x += w * v
        state[j] = x if w > ZERO else a
        state[W + j] = y if w > ZERO else b


@row
def _back(d: Array, f: Array, state: Array, part: Any) -> None:
    """The curve, and `part` of its share added to the result."""
    for j in range(W):
        a, b, w = state[j], state[W + j], d[j]
        x = f[BACK + j] * a + f[BACK + W + j] * b + w * d[VALUE + j]
        y = f[BACK + 2 * W + j] * a + f[BACK + 3 * W + j] * b
        z = f[READ + j] * (d[FIRST + j] + x) + f[READ + W + j] * (d[SECOND + j] - y)
        d[FIRST + j] = z
        d[RESULT + j] += z * f[SHARE + j] * part
        state[j] = x if w > ZERO else a
        state[W + j] = y if w > ZERO else b


@row
def _solve(d: Array, f: Array, state: Array, part: Any) -> None:
    """The curve of the observations at every date."""
    _start(state)
    for i in range(len(d)):
        _there(as_row(d[i]), as_row(f[i]), state)
    _start(state)
    for i in range(len(d) - 1, -1, -1):
        _back(as_row(d[i]), as_row(f[i]), state, part)


# ------------------------------------------------------------------ the line, and shares


@row
def _behind(day: Any, r: Array, when: Array, past: Array) -> None:
    for j in range(W):
        a = when[j]
        a = day if r[j] > ZERO else a
        when[j] = a
        past[j] = a


@row
def _kind(day: Any, edges: Array, r: Array, when: Array, past: Array) -> None:
    """Part of the way to the next observation, and the kind of gap in place of a share."""
    for j in range(W):
        a, b, seen = past[j], when[j], r[j] > ZERO
        b = day if seen else b
        when[j] = b
        head, tail, long = a == -FAR, b == FAR, np.int32(b - a)
        part = np.float32(np.int32(day - a)) / np.float32(long if long > 0 else 1)
        part = ONE if head else part
        r[PART + j] = ZERO if tail else part
        kind = np.float32(LONG) if long > edges[1] else np.float32(MIDDLE)
        kind = kind if long > edges[0] else np.float32(SHORT)
        kind = np.float32(TAIL) if tail else kind
        kind = np.float32(HEAD) if head else kind
        r[OF_LINE + j] = np.float32(SEEN) if seen else kind


@row
def _kinds(u: Array, edges: Array, d: Array, when: Array, past: Array) -> None:
    for j in range(W):
        when[j] = -FAR
    for i in range(len(u)):
        _behind(u[i], as_row(d[i]), when, as_row(past[i]))
    for j in range(W):
        when[j] = FAR
    for i in range(len(u) - 1, -1, -1):
        _kind(u[i], edges, as_row(d[i]), when, as_row(past[i]))


@row
def _share(table: Array, q: int, d: Array, f: Array, plane: int) -> None:
    """The share of each kind of gap."""
    t0, t1, t2 = table[SHORT, q], table[MIDDLE, q], table[LONG, q]
    t3, t4, t5 = table[TAIL, q], table[HEAD, q], table[SEEN, q]
    for i in range(len(d)):
        r, s = as_row(d[i]), as_row(f[i])
        for j in range(W):
            kind = r[OF_LINE + j]
            a = t0 if kind == np.float32(SHORT) else t1
            a = t2 if kind == np.float32(LONG) else a
            a = t3 if kind == np.float32(TAIL) else a
            a = t4 if kind == np.float32(HEAD) else a
            s[plane + j] = t5 if kind == np.float32(SEEN) else a


@row
def _line(d: Array, state: Array) -> None:
    """The share of the line as the result."""
    _start(state)
    for i in range(len(d)):
        r = as_row(d[i])
        for j in range(W):
            a, b = r[VALUE + j], state[j]
            a = a if r[j] > ZERO else b
            state[j] = a
            r[RESULT + j] = a
    for i in range(len(d) - 1, -1, -1):
        r = as_row(d[i])
        for j in range(W):
            a, b, v = r[RESULT + j], state[W + j], r[VALUE + j]
            b = v if r[j] > ZERO else b
            state[W + j] = b
            r[RESULT + j] = (a + (b - a) * r[PART + j]) * r[OF_LINE + j]


@row
def _reweigh(d: Array, work: Array) -> None:
    """Bisquare weights of observations, from their distance to the curve."""
    for j in range(W):
        n = 0
        for i in range(len(d)):
            if d[i, j] > ZERO:
                work[n] = abs(d[i, VALUE + j] - d[i, FIRST + j])
                n += 1
        far = BISQUARE * max(MAD * middle(work, n), FLOOR) if n > 0 else 1.0
        for i in range(len(d)):
            if d[i, j] > ZERO:
                u = (d[i, VALUE + j] - d[i, FIRST + j]) / far
                near = (1 - u * u) * (1 - u * u) if abs(u) < 1 else 0.0
                d[i, j] = max(np.float32(near), LEAST)


# ------------------------------------------------------------------ in and out


@row
def _take(at: Array, like: Array, valid: Array, p0: int, n: int, s: Array) -> int:
    """Observations of `n` pixels, from an address and its strides; NaN where there is none."""
    count, lost, j = valid.shape[0], 0, 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        for i in range(count):
            here = at[0] + i * at[1] + y * at[2] + x * like.itemsize
            if i + AHEAD < count:
                fetch(row_at(here + AHEAD * at[1], m, like))
                fetch(as_row(valid[i + AHEAD, y, x : x + m]))
            c = as_row(valid[i, y, x : x + m])
            lost += load_row(row_at(here, m, like), c, s[i, j : j + m])
        j += m
    return lost


@row
def _clear(valid: Array, p0: int, n: int, c: Array) -> None:
    """What all bands observe, in `c (time, pixel)`."""
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        for i in range(valid.shape[0]):
            a, b = as_row(valid[i, y, x : x + m]), as_row(c[i, j : j + m])
            for q in range(m):
                b[q] = a[q]
        j += m


@row
def _write(r: Array, out: Array) -> None:
    for j in range(out.shape[0]):
        out[j] = encode(r[j], out)


@row
def _put(to: Array, like: Array, side: int, p0: int, n: int, r: Array) -> None:
    """Rows of the result to an address and its strides."""
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, side)
        here = to[0] + y * to[2] + x * like.itemsize
        for k in range(r.shape[0]):
            if k + AHEAD < r.shape[0]:
                fetch(row_at(here + (k + AHEAD) * to[1], m, like))
            _write(r[k, j : j + m], row_at(here + k * to[1], m, like))
        j += m


@row
def _enter(s: Array, j0: int, at: Array, d: Array) -> None:
    """Observations of the pixels from `j0` on, 0 where there is none."""
    for i in range(len(at)):
        a, r = as_row(s[i, j0 : j0 + W]), as_row(d[at[i]])
        for j in range(W):
            r[VALUE + j] = a[j] if a[j] == a[j] else ZERO


@row
def _weigh(s: Array, c: Array, own: bool, j0: int, at: Array, trust: Array, d: Array) -> None:
    """Weights of the observations of all bands, or of one."""
    for i in range(len(at)):
        a, b, r = as_row(s[i, j0 : j0 + W]), as_row(c[i, j0 : j0 + W]), as_row(d[at[i]])
        if own:
            for j in range(W):
                r[j] = trust[i] if a[j] == a[j] else ZERO
        else:
            for j in range(W):
                r[j] = trust[i] if b[j] else ZERO


@row
def _leave(
    d: Array, asked: Array, s: Array, j0: int, keep: bool, low: Array, high: Array, r: Array
) -> None:
    """The result within the range of the observations, which are put back where they stay."""
    for j in range(W):
        low[j] = np.float32(np.inf)
        high[j] = np.float32(-np.inf)
    for i in range(len(s)):
        a = as_row(s[i, j0 : j0 + W])
        for j in range(W):
            v, x, y = a[j], low[j], high[j]
            low[j] = v if v < x else x
            high[j] = v if v > y else y
    for k in range(len(asked)):
        a, e = as_row(d[asked[k]]), as_row(r[k, j0 : j0 + W])
        for j in range(W):
            v, x, y = a[RESULT + j], low[j], high[j]
            v = x if v < x else v
            e[j] = y if v > y else v
        if keep:
            a = as_row(s[k, j0 : j0 + W])
            for j in range(W):
                v, x = a[j], e[j]
                e[j] = v if v == v else x


@kernel(
    ADDRESSES, ADDRESSES, "like", VALID, SECONDS, INDEX, INDEX, FLOATS, FLOATS, SECONDS, SHARES,
    types.boolean, types.int64, types.boolean, LOST, gives=types.void,
)  # fmt: skip
def splines(
    bands: Array, outs: Array, like: Array, valid: Array, u: Array, at: Array, asked: Array,
    trust: Array, stiff: Array, edges: Array, table: Array, own: bool, rounds: int, keep: bool,
    lost: Array,
) -> None:  # fmt: skip
    """Fills every output; rows of `bands` and `outs` are addresses and strides of time and y.

    `u` are the seconds of all dates, given or asked for, `at` and `asked` which of them these are.
    `trust` is the weight of the observations of each date given, `stiff` one over the stiffness of
    each curve. `table` has for each kind of gap, of `edges` seconds, the share of the line and of
    each curve. `keep` puts clear observations back. `lost` gets the clear values of each band that
    hold no data: bands share their matrices unless each is to have its `own`, and where it is not
    0, a band that shared is wrong. Only an own one can have `rounds` of robust weights.
    """
    side, pixels = valid.shape[2], valid.shape[1] * valid.shape[2]
    s = np.full((bands.shape[0], valid.shape[0], WIDE), NAN, np.float32)
    c = np.zeros((valid.shape[0], WIDE), np.bool_)
    r = np.empty((bands.shape[0], len(asked), WIDE), np.float32)
    d, f = np.zeros((len(u), DATES), np.float32), np.empty((len(stiff), len(u), STEPS), np.float32)
    past, when = np.empty((len(u), W), np.int32), np.empty(3 * W, np.int32)
    state, work = np.empty(3 * W, np.float32), np.empty(len(u))
    low, high = np.empty(W, np.float32), np.empty(W, np.float32)
    for b in range(bands.shape[0]):
        lost[b] = 0
    for p0 in range(0, pixels, WIDE):
        n = min(WIDE, pixels - p0)
        _clear(valid, p0, n, c)
        for b in range(bands.shape[0]):
            lost[b] += _take(bands[b], like, valid, p0, n, s[b])
        for j0 in range(0, n, W):
            for b in range(bands.shape[0]):
                _enter(s[b], j0, at, d)
                mine = own or b == 0
                if mine:
                    _weigh(s[b], c, own, j0, at, trust, d)
                    _ends(u, d, when)
                    _kinds(u, edges, d, when, past)
                    for q in range(len(stiff), -1, -1):
                        to, plane = (f[q - 1], SHARE) if q > 0 else (d, OF_LINE)
                        _share(table, q, d, to, plane)
                _line(d, state)
                for q in range(len(stiff)):
                    for z in range(rounds + 1):
                        if mine:
                            _factor(u, stiff[q], d, f[q], state, when)
                        _solve(d, f[q], state, ONE if z == rounds else ZERO)
                        if z < rounds:
                            _reweigh(d, work)
                _leave(d, asked, s[b], j0, keep, low, high, r[b])
        for b in range(bands.shape[0]):
            _put(outs[b], like, side, p0, n, r[b])


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
    weight = np.ones(len(axes.s)) if trust is None else trust
    limits = np.array([e * DAY for e in edges], np.int32)
    known = (a.astype(np.float32) for a in (weight, 1 / np.asarray(lams)))
    told = (u, at, asked, *known, limits, shares.astype(np.float32))

    def run(chosen: Any, own: bool, lost: Array) -> None:
        to = (addresses([a[i] for i in chosen]) for a in (bands, outs))
        splines(like.dtype, *to, like, valid, *told, own, rounds, keep, lost)

    run(range(len(bands)), own, lost)
    again = np.flatnonzero(lost)
    if len(again) and not own:
        run(again, True, np.zeros(len(again), np.int64))
    return lost
