"""The kernel of the Whittaker smoother: pentadiagonal systems, a tile of pixels at a time.

The matrix is `diag(w) + lam * D'D`; `D'D` is shared by all pixels, `w` is each pixel's own. It is
factorised as L D L' without pivoting, in float64 (float32 was measured unusable). The factor
follows from when a pixel was clear: bands that share `valid` share it.
"""

from typing import Any

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    AHEAD,
    INDEX,
    LOST,
    NAN,
    TABLE,
    VALID,
    Array,
    as_row,
    bisquare,
    decode,
    encode,
    fetch,
    kernel,
    load_row,
    reach,
    row,
    row_at,
    weigh_clear,
)

TILE = 256


@row
def _weights(s: Array, w: Array) -> None:
    for j in range(w.shape[0]):
        w[j] = 1.0 if s[j] == s[j] else 0.0


@row
def _first_last(w: Array, i: int, first: Array, last: Array) -> None:
    for j in range(first.shape[0]):
        clear = w[j] > 0.0
        first[j] = np.int32(i) if clear & (last[j] < 0) else first[j]
        last[j] = np.int32(i) if clear else last[j]


@row
def _ends(w: Array, first: Array, last: Array) -> None:
    first[:] = np.int32(w.shape[0])
    last[:] = np.int32(-1)
    for i in range(w.shape[0]):
        _first_last(w[i], i, first, last)


@row
def pattern(s: Array, w: Array, first: Array, last: Array) -> None:
    """Weight 1 where `s` holds an observation, and the first and last of every pixel.

    A pixel without any has first `time` and last -1.
    """
    for i in range(s.shape[0]):
        _weights(s[i], w[i])
    _ends(w, first, last)


@row
def _shared(valid: Array, p0: int, n: int, w: Array, first: Array, last: Array) -> None:
    """`pattern` of all bands at once."""
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        for i in range(valid.shape[0]):
            if i + AHEAD < valid.shape[0]:
                fetch(as_row(valid[i + AHEAD, y, x : x + m]))
            weigh_clear(as_row(valid[i, y, x : x + m]), w[i, j : j + m])
        j += m
    _ends(w, first, last)


@row
def _eliminate(
    w: Array, a0: float, a1: float, a2: float, c2: float,
    g: Array, e1: Array, f1: Array, f2: Array, e: Array, f: Array, r: Array,
) -> None:  # fmt: skip
    """One row of the elimination; `g` becomes its unscaled `e`."""
    for j in range(w.shape[0]):
        d = a0 + w[j] - e1[j] * g[j] - f2[j] * c2
        u = a1 - f1[j] * g[j]
        o = 1.0 / d
        g[j] = u
        e[j] = u * o
        f[j] = a2 * o
        r[j] = o


@row
def _settle(k: int, first: Array, last: Array, e: Array, f: Array, r: Array) -> None:
    """Lets row `k` hold what comes before the first observation, and keep a lone one exactly.

    Of a pixel without observations it makes NaN.
    """
    for j in range(r.shape[0]):
        before = k < first[j]
        lone = first[j] == last[j]
        none = last[j] < 0
        hold = -1.0 if before else 0.0
        given = before | lone
        exact = 1.0 if k == first[j] else 0.0
        a = hold if given else e[j]
        e[j] = np.nan if none else a
        f[j] = 0.0 if given else f[j]
        r[j] = exact if given else r[j]


@row
def factor(bend: Array, w: Array, first: Array, last: Array, e: Array, f: Array, r: Array) -> None:
    """The factor of every pixel; `e` and `f` have two rows of zeros at the end."""
    count = w.shape[0]
    g = np.zeros(w.shape[1])
    for i in range(count):
        p, q = (i - 1) % (count + 2), (i - 2) % (count + 2)
        c2 = bend[2, i - 2] if i > 1 else 0.0
        _eliminate(
            w[i], bend[0, i], bend[1, i], bend[2, i], c2,
            g, e[p], f[p], f[q], e[i], f[i], r[i],
        )  # fmt: skip
    head = np.int32(0)
    for j in range(first.shape[0]):
        head = max(head, first[j] if first[j] < last[j] else np.int32(count))
    for i in range(head):
        _settle(i, first, last, e[i], f[i], r[i])


@row
def _forwards(s: Array, w: Array, e1: Array, f2: Array, z1: Array, z2: Array, z: Array) -> None:
    for j in range(z.shape[0]):
        v = np.float64(s[j])
        x = w[j] * v if v == v else 0.0
        z[j] = x - e1[j] * z1[j] - f2[j] * z2[j]


@row
def forwards(s: Array, w: Array, e: Array, f: Array, y: Array) -> None:
    """Right side of the back substitution, of observations and their weights."""
    count, ey, yy = s.shape[0], e.shape[0], y.shape[0]
    for i in range(count):
        p, q = (i - 1) % ey, (i - 2) % ey
        _forwards(s[i], w[i], e[p], f[q], y[(i - 1) % yy], y[(i - 2) % yy], y[i])


@row
def _backwards(e: Array, f: Array, r: Array, y1: Array, y2: Array, y: Array) -> None:
    for j in range(y.shape[0]):
        y[j] = y[j] * r[j] - e[j] * y1[j] - f[j] * y2[j]


@row
def backwards(e: Array, f: Array, r: Array, y: Array) -> None:
    """The curve up to the last observation; `y` has four rows of zeros at the end."""
    for i in range(r.shape[0] - 1, -1, -1):
        _backwards(e[i], f[i], r[i], y[i + 1], y[i + 2], y[i])


# ------------------------------------------------------------------ a band of a tile


@row
def _take(at: Array, like: Array, valid: Array, p0: int, n: int, s: Array) -> int:
    """`load` from an address and its strides."""
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
def _take_forwards(
    band: Array, valid: Array, e1: Array, f2: Array, z1: Array, z2: Array, s: Array, z: Array
) -> Any:
    """`_forwards` of a row of a band where all weights are 1."""
    lost = np.int32(0)
    for j in range(z.shape[0]):
        a = decode(band[j])
        known = valid[j] & (a == a)
        lost = np.int32(lost + np.int32(valid[j] & (a != a)))
        s[j] = a if known else NAN
        x = np.float64(a) if known else 0.0
        z[j] = x - e1[j] * z1[j] - f2[j] * z2[j]
    return lost


@row
def _shared_forwards(
    at: Array, like: Array, valid: Array, p0: int, n: int, e: Array, f: Array, s: Array, y: Array
) -> int:
    """`_take` and `forwards` in one pass, for bands that share `valid`."""
    count, size, lost, j = valid.shape[0], like.itemsize, 0, 0
    ey, yy = e.shape[0], y.shape[0]
    while j < n:
        b, x, m = reach(p0 + j, n - j, valid.shape[2])
        k = j + m
        for i in range(count):
            here = at[0] + i * at[1] + b * at[2] + x * size
            if i + AHEAD < count:
                fetch(row_at(here + AHEAD * at[1], m, like))
            p, q, p1, q1 = (i - 1) % ey, (i - 2) % ey, (i - 1) % yy, (i - 2) % yy
            lost += _take_forwards(
                row_at(here, m, like), as_row(valid[i, b, x : x + m]), e[p, j:k], f[q, j:k],
                y[p1, j:k], y[q1, j:k], s[i, j:k], y[i, j:k],
            )  # fmt: skip
        j = k
    return lost


@row
def _give(
    s: Array, e: Array, f: Array, r: Array, y1: Array, y2: Array, y: Array, keep: bool, out: Array
) -> None:
    """`_backwards`, and the curve into the output; clear observations put back."""
    for j in range(out.shape[0]):
        z = y[j] * r[j] - e[j] * y1[j] - f[j] * y2[j]
        y[j] = z
        a = s[j]
        out[j] = encode(a if keep & (a == a) else np.float32(z), out)


@row
def _hold(k: int, last: Array, y1: Array, y: Array) -> None:
    """Held after the last observation."""
    for j in range(last.shape[0]):
        y[j] = y[j] if k <= last[j] else y1[j]


@row
def _again(s: Array, y: Array, keep: bool, out: Array) -> None:
    for j in range(out.shape[0]):
        a = s[j]
        out[j] = encode(a if keep & (a == a) else np.float32(y[j]), out)


@row
def _give_same(
    to: Array, like: Array, side: int, p0: int, n: int, last: Array, keep: bool,
    s: Array, e: Array, f: Array, r: Array, y: Array,
) -> None:  # fmt: skip
    """Dates given. Those after the first end of a pixel are written again, held."""
    count, size, j = s.shape[0], like.itemsize, 0
    end = count - 1
    for i in range(n):
        end = min(end, last[i] if last[i] >= 0 else count)
    while j < n:
        b, x, m = reach(p0 + j, n - j, side)
        k, here = j + m, to[0] + b * to[2] + x * size
        for i in range(count - 1, end, -1):
            _backwards(e[i, j:k], f[i, j:k], r[i, j:k], y[i + 1, j:k], y[i + 2, j:k], y[i, j:k])
        for i in range(end, -1, -1):
            if i >= AHEAD:
                fetch(row_at(here + (i - AHEAD) * to[1], m, like))
            _give(
                s[i, j:k], e[i, j:k], f[i, j:k], r[i, j:k], y[i + 1, j:k], y[i + 2, j:k],
                y[i, j:k], keep, row_at(here + i * to[1], m, like),
            )  # fmt: skip
        for i in range(end + 1, count):
            _hold(i, last[j:k], y[i - 1, j:k], y[i, j:k])
            _again(s[i, j:k], y[i, j:k], keep, row_at(here + i * to[1], m, like))
        j = k


@row
def _local(w: Array, y0: Array, y1: Array, y2: Array, y3: Array, out: Array) -> None:
    """A date asked for from four neighbouring dates given."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for j in range(out.shape[0]):
        z = w0 * y0[j] + w1 * y1[j]
        z += w2 * y2[j] + w3 * y3[j]
        out[j] = encode(np.float32(z), out)


@row
def _give_other(
    to: Array, like: Array, side: int, p0: int, n: int, last: Array, start: Array, weights: Array,
    y: Array,
) -> None:  # fmt: skip
    for i in range(1, y.shape[0] - 4):
        _hold(i, last, y[i - 1], y[i])
    j = 0
    while j < n:
        b, x, m = reach(p0 + j, n - j, side)
        e, here = j + m, to[0] + b * to[2] + x * like.itemsize
        for k in range(len(start)):
            if k + AHEAD < len(start):
                fetch(row_at(here + (k + AHEAD) * to[1], m, like))
            i, o = start[k], row_at(here + k * to[1], m, like)
            _local(weights[k], y[i, j:e], y[i + 1, j:e], y[i + 2, j:e], y[i + 3, j:e], o)
        j += m


@kernel(
    ADDRESSES, ADDRESSES, "like", VALID, TABLE, INDEX, TABLE, types.boolean, types.int64,
    types.boolean, types.boolean, LOST, gives=types.void,
)  # fmt: skip
def whittaker(
    bands: Array, outs: Array, like: Array, valid: Array, bend: Array, start: Array,
    weights: Array, own: bool, rounds: int, same: bool, keep: bool, lost: Array,
) -> None:  # fmt: skip
    """Fills every output; rows of `bands` and `outs` are `addresses`.

    `bend` is `lam * penalty(days)`. Unless the dates asked for are the `same`, date `k` of them is
    the sum of dates `start[k] + 0..3` given, with the weights of row `k`. `keep` puts clear
    observations back. `lost` gets the clear values of each band that hold no data: bands share a
    factor unless each is to have its `own`, and where it is not 0, a band that shared is wrong.
    Only an own factor can have `rounds` of robust weights.
    """
    count, side, pixels = valid.shape[0], valid.shape[2], valid.shape[1] * valid.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    w = np.empty((count, width))
    e = np.zeros((count + 2, width))
    f = np.zeros((count + 2, width))
    r = np.empty((count, width))
    y = np.zeros((count + 4, width))
    first = np.empty(width, np.int32)
    last = np.empty(width, np.int32)
    work = np.empty(count)
    lost[:] = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        if not own:
            _shared(valid, p0, n, w, first, last)
            factor(bend, w, first, last, e, f, r)
        for b in range(bands.shape[0]):
            if own:
                lost[b] += _take(bands[b], like, valid, p0, n, s)
                pattern(s, w, first, last)
                factor(bend, w, first, last, e, f, r)
                forwards(s, w, e, f, y)
                for _ in range(rounds):
                    backwards(e, f, r, y)
                    bisquare(s, y, w, work)
                    factor(bend, w, first, last, e, f, r)
                    forwards(s, w, e, f, y)
            else:
                lost[b] += _shared_forwards(bands[b], like, valid, p0, n, e, f, s, y)
            if same:
                _give_same(outs[b], like, side, p0, n, last, keep, s, e, f, r, y)
            else:
                backwards(e, f, r, y)
                _give_other(outs[b], like, side, p0, n, last, start, weights, y)
