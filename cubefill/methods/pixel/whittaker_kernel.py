"""The kernel of the Whittaker smoother: a smoothing spline through a pixel's own observations.

The curve that minimises the squared distance to the observations plus `lam` times the integral of
its squared second derivative is a natural cubic spline with its knots at the observations (Reinsch
1967). Its second derivatives follow from a pentadiagonal system, factorised as L D L' in float64
(float32 was measured unusable). Nothing but the pixel's own observations goes into it: a date on
which the pixel is not clear changes no bit. The factor follows from when a pixel was clear: bands
that share `valid` share it.
"""

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    AHEAD,
    BISQUARE,
    COUNT,
    DAYS,
    FLOOR,
    LOST,
    MAD,
    ROOM,
    ROOM64,
    SECONDS,
    TIMES,
    VALID,
    Array,
    fetch,
    inlined,
    kernel,
    load,
    load_row,
    middle,
    piece,
    reach,
    row,
    row_at,
    store_row,
)

TILE = 64
PER_DAY = 1 / 86_400
LEAST = 1e-6
"""Weight of an observation that a robust round forgets."""
ROWS = types.Array(types.float64, 3, "C")


@inlined
def knots(s: Array, j: int, seconds: Array, t: Array) -> int:
    """Seconds of the observations of pixel `j` of `s (time, pixel)`, in `t`, and their number."""
    n = 0
    for i in range(len(seconds)):
        t[n] = seconds[i]
        n += 1 if s[i, j] == s[i, j] else 0
    return n


@inlined
def _shared(valid: Array, p: int, seconds: Array, t: Array) -> int:
    """`knots` of all bands at once."""
    n, y = 0, p // valid.shape[2]
    x = p - y * valid.shape[2]
    for i in range(valid.shape[0]):
        t[n] = seconds[i]
        n += 1 if valid[i, y, x] else 0
    return n


@inlined
def steps(t: Array, n: int, h: Array) -> None:
    """Days between neighbours of `n` observations."""
    for i in range(n - 1):
        h[i] = (t[i + 1] - t[i]) * PER_DAY


@row
def factor(n: int, lam: float, h: Array, v: Array, l1: Array, l2: Array, d: Array) -> None:
    """Factor of the system of the inner observations; `v` is one over the weight of each.

    `d` holds one over the diagonal.
    """
    for i in range(1, n - 1):
        a, b = 1 / h[i - 1], 1 / h[i]
        c = -a - b
        g = (h[i - 1] + h[i]) / 3 + lam * (a * a * v[i - 1] + c * c * v[i] + b * b * v[i + 1])
        l1[i] = 0.0
        l2[i] = 0.0
        if i > 1:
            q = 1 / h[i - 2]
            e = h[i - 1] / 6 + lam * ((-q - a) * a * v[i - 1] + a * c * v[i])
            if i > 2:
                f = lam * q * a * v[i - 1]
                l2[i] = f * d[i - 2]
                e -= f * l1[i - 1]
                g -= f * l2[i]
            l1[i] = e * d[i - 1]
            g -= e * l1[i]
        d[i] = 1 / g


@row
def solve(
    n: int, lam: float, h: Array, v: Array, l1: Array, l2: Array, d: Array,
    y: Array, g: Array, z: Array,
) -> None:  # fmt: skip
    """Second derivatives `g` and values `z` of the curve at `n` observations `y`."""
    for i in range(n):
        g[i] = 0.0
        z[i] = y[i]
    for i in range(1, n - 1):
        b = (y[i + 1] - y[i]) / h[i] - (y[i] - y[i - 1]) / h[i - 1]
        if i > 1:
            b -= l1[i] * g[i - 1]
        if i > 2:
            b -= l2[i] * g[i - 2]
        g[i] = b
    for i in range(n - 2, 0, -1):
        b = g[i] * d[i]
        if i < n - 2:
            b -= l1[i + 1] * g[i + 1]
        if i < n - 3:
            b -= l2[i + 2] * g[i + 2]
        g[i] = b
    before = 0.0
    for i in range(n - 1):
        bend = (g[i + 1] - g[i]) / h[i]
        z[i] -= lam * v[i] * (bend - before)
        before = bend
    if n > 0:
        z[n - 1] += lam * v[n - 1] * before


@inlined
def _forget(v: Array) -> None:
    """All observations weigh the same."""
    for i in range(v.shape[0]):
        v[i] = 1.0


@inlined
def _reweigh(n: int, y: Array, z: Array, work: Array, v: Array) -> None:
    """One over the bisquare weight of each observation, from its distance to the curve."""
    for i in range(n):
        work[i] = abs(y[i] - z[i])
    far = BISQUARE * max(MAD * middle(work, n), FLOOR)
    for i in range(n):
        u = (y[i] - z[i]) / far
        near = (1 - u * u) * (1 - u * u) if abs(u) < 1 else 0.0
        v[i] = 1 / max(near, LEAST)


@inlined
def _read(
    so: Array, t: Array, n: int, h: Array, y: Array, g: Array, z: Array, r: Array, j: int
) -> None:
    """The curve at the dates asked for, held at its ends, within the range of the observations."""
    low, high = np.inf, -np.inf
    for i in range(n):
        low = y[i] if y[i] < low else low
        high = y[i] if y[i] > high else high
    i = 0
    for k in range(len(so)):
        while i < n - 2 and t[i + 1] <= so[k]:
            i += 1
        if n == 0:
            a = np.nan
        elif so[k] <= t[0]:
            a = z[0]
        elif so[k] >= t[n - 1]:
            a = z[n - 1]
        else:
            b = (so[k] - t[i]) * PER_DAY / h[i]
            c = 1 - b
            bend = (c * c * c - c) * g[i] + (b * b * b - b) * g[i + 1]
            a = c * z[i] + b * z[i + 1] + bend * h[i] * h[i] / 6
        a = low if a < low else a
        a = high if a > high else a
        r[k, j] = np.float32(a)


@inlined
def _take(at: Array, size: int, valid: Array, p0: int, n: int, s: Array) -> int:
    """`load` from an address and its strides, of values of `size` bytes."""
    count, lost, j = valid.shape[0], 0, 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        for i in range(count):
            here = at[0] + i * at[1] + y * at[2] + x * size
            if i + AHEAD < count:
                fetch(row_at(here + AHEAD * at[1], m * size, np.bool_))
                fetch(piece(valid, (i + AHEAD, y, x), m))
            c, d = piece(valid, (i, y, x), m), piece(s, (i, j), m)
            if size == COUNT:
                lost += load_row(row_at(here, m, np.int16), c, d)
            else:
                lost += load_row(row_at(here, m, np.float32), c, d)
        j += m
    return lost


@inlined
def _put(
    to: Array, size: int, dates: int, side: int, p0: int, n: int, r: Array
) -> None:  # fmt: skip
    """`store` of all dates, to an address and its strides."""
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, side)
        here = to[0] + y * to[2] + x * size
        for k in range(dates):
            if k + AHEAD < dates:
                fetch(row_at(here + (k + AHEAD) * to[1], m * size, np.bool_))
            if size == COUNT:
                store_row(piece(r, (k, j), m), row_at(here + k * to[1], m, np.int16))
            else:
                store_row(piece(r, (k, j), m), row_at(here + k * to[1], m, np.float32))
        j += m


@inlined
def _observed(s: Array, j: int, y: Array) -> None:
    n = 0
    for i in range(len(y) - 1):
        y[n] = np.float64(s[i, j])
        n += 1 if s[i, j] == s[i, j] else 0


@inlined
def _keep(s: Array, count: int, n: int, r: Array) -> None:
    """Puts the observations back."""
    for i in range(count):
        for j in range(n):
            r[i, j] = s[i, j] if s[i, j] == s[i, j] else r[i, j]


@kernel(
    ADDRESSES, ADDRESSES, types.int64, VALID, SECONDS, SECONDS, types.float64, types.boolean,
    ROOM, TIMES, ROOM64, LOST, gives=types.void,
)  # fmt: skip
def whittaker(
    bands: Array, outs: Array, size: int, valid: Array, seconds: Array, so: Array, lam: float,
    keep: bool, room: Array, t: Array, parts: Array, lost: Array,
) -> None:  # fmt: skip
    """Fills every output; rows of `bands` and `outs` are `addresses`. All bands share a factor.

    `size` are the bytes of a value: one function for both types of data. `keep` puts clear
    observations back. It works in `room`, `t` and `parts`, as `rooms` makes them. `lost`, 0 at
    first, gets the clear values of each band that hold no data: where it is not 0, that band is
    wrong, and `robust_whittaker` is right.
    """
    side, pixels, width = valid.shape[2], valid.shape[1] * valid.shape[2], t.shape[0]
    s, r, (h, l1, l2, d) = room[0], room[1], (parts[0], parts[1], parts[2], parts[3])
    v, y, g, z = parts[4, 0], parts[4, 1], parts[4, 2], parts[4, 3]
    _forget(v)
    p0 = 0
    while p0 < pixels:
        n = width if p0 + width < pixels else pixels - p0
        for j in range(n):
            many = _shared(valid, p0 + j, seconds, t[j])
            steps(t[j], many, h[j])
            factor(many, lam, h[j], v, l1[j], l2[j], d[j])
            t[j, valid.shape[0]] = many
        for b in range(bands.shape[0]):
            lost[b] += _take(bands[b], size, valid, p0, n, s)
            for j in range(n):
                many = t[j, valid.shape[0]]
                _observed(s, j, y)
                solve(many, lam, h[j], v, l1[j], l2[j], d[j], y, g, z)
                _read(so, t[j], many, h[j], y, g, z, r, j)
            if keep:
                _keep(s, len(so), n, r)
            _put(outs[b], size, len(so), side, p0, n, r)
        p0 += n


@kernel(
    ADDRESSES, ADDRESSES, types.int64, VALID, SECONDS, SECONDS, types.float64, types.boolean,
    types.int64, ROOM, TIMES, ROOM64, LOST, gives=types.void,
)  # fmt: skip
def robust_whittaker(
    bands: Array, outs: Array, size: int, valid: Array, seconds: Array, so: Array, lam: float,
    keep: bool, rounds: int, room: Array, times: Array, parts: Array, lost: Array,
) -> None:  # fmt: skip
    """`whittaker` with a factor of each band's own, and `rounds` of robust weights."""
    side, pixels, width = valid.shape[2], valid.shape[1] * valid.shape[2], times.shape[0]
    s, r, t = room[0], room[1], times[0]
    h, l1, l2, d = parts[0, 0], parts[1, 0], parts[2, 0], parts[3, 0]
    v, y, g, z, work = parts[4, 0], parts[4, 1], parts[4, 2], parts[4, 3], parts[4, 4]
    p0 = 0
    while p0 < pixels:
        n = width if p0 + width < pixels else pixels - p0
        for b in range(bands.shape[0]):
            lost[b] += _take(bands[b], size, valid, p0, n, s)
            for j in range(n):
                _observed(s, j, y)
                many = knots(s, j, seconds, t)
                steps(t, many, h)
                _forget(v)
                for k in range(rounds + 1 if many > 0 else 1):
                    if k > 0:
                        _reweigh(many, y, z, work, v)
                    factor(many, lam, h, v, l1, l2, d)
                    solve(many, lam, h, v, l1, l2, d, y, g, z)
                _read(so, t, many, h, y, g, z, r, j)
            if keep:
                _keep(s, len(so), n, r)
            _put(outs[b], size, len(so), side, p0, n, r)
        p0 += n


def rooms(given: int, asked: int) -> tuple[Array, Array, Array]:
    """What `whittaker` works in, for so many dates given and asked for."""
    room = np.empty((2, max(given, asked), TILE), np.float32)
    return room, np.empty((TILE, given + 1), np.int32), np.empty((5, TILE, given + 1))


@kernel("band", VALID, SECONDS, DAYS, ROWS, gives=types.void)
def sweep(band: Array, valid: Array, seconds: Array, lams: Array, out: Array) -> None:
    """Misfit and roughness `(2, lam, pixel)` of the curve of every pixel for each of `lams`.

    These are the sum of squared distances to the observations and the integral of the squared
    second derivative.
    """
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.empty((count, width), np.float32)
    t = np.empty(count + 1, np.int32)
    work = np.empty((8, count + 1))
    h, l1, l2, d, v = work[0], work[1], work[2], work[3], work[4]
    y, g, z = work[5], work[6], work[7]
    _forget(v)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        load(band, valid, p0, n, s)
        for j in range(n):
            many = knots(s, j, seconds, t)
            steps(t, many, h)
            _observed(s, j, y)
            for m in range(len(lams)):
                factor(many, lams[m], h, v, l1, l2, d)
                solve(many, lams[m], h, v, l1, l2, d, y, g, z)
                misfit, rough = 0.0, 0.0
                for i in range(many):
                    misfit += (y[i] - z[i]) * (y[i] - z[i])
                for i in range(many - 1):
                    rough += h[i] / 3 * (g[i] * g[i] + g[i] * g[i + 1] + g[i + 1] * g[i + 1])
                out[0, m, p0 + j] = misfit
                out[1, m, p0 + j] = rough
