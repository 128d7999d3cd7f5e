"""What same-date regression does with every pixel: its answer, and the smoothed remainder nearby.

Both kernels walk a block row by row and add up in one order, so that a pixel's answer is the same
bits whatever block it comes in, if the block reaches `REACH` pixels beyond it.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.pixel.kernel import INDEX, ROOM, SECONDS, TIMES, kernel, piece, row

Array = NDArray[Any]

REACH = 12
"""Pixels, along rows and along columns, from which the remainder comes."""
SIGMA = 4.0
"""Standard deviation, in pixels, of the weights of the remainder."""
LEAST = np.float32(0.02)
"""Share of a full neighbourhood that the remainder is shrunk by."""
WIDTH = 256
"""Pixels at once; any number gives the same answer."""

SERIES = types.Array(types.float32, 3, "C", readonly=True)
CLEAR = types.Array(types.boolean, 2, "C", readonly=True)
PER_BAND = types.Array(types.float32, 2, "C", readonly=True)
TAPS = types.Array(types.float32, 1, "C", readonly=True)
ROWS = types.Array(types.float32, 2, "C")
TENTS = types.Array(types.float32, 4, "C")
LINE = types.Array(types.float32, 1, "C")


def taps() -> NDArray[np.float32]:
    """Weights along one axis, which add up to 1."""
    away = np.arange(-REACH, REACH + 1) / SIGMA
    weights = np.exp(-(away**2) / 2)
    return (weights / weights.sum()).astype(np.float32)


@row
def _add(w: Any, a: Array, out: Array) -> None:
    for q in range(out.shape[0]):
        out[q] += w * a[q]


@row
def _add_four(
    w: Any, x: Any, y: Any, z: Any, a: Array, b: Array, c: Array, d: Array, out: Array
) -> None:
    """`_add` four times, in the same order."""
    for q in range(out.shape[0]):
        out[q] = out[q] + w * a[q] + x * b[q] + y * c[q] + z * d[q]


@row
def _add_all(
    rows: Array, i: int, count: int, p0: int, n: int, weights: Array, k: int, told: Array
) -> None:
    """Adds `count` rows from `i` on, times their weights from row `k` on, to every band."""
    bands, j = told.shape[0], 0
    while j + 4 <= count:
        a, b = piece(rows, (i + j, p0), n), piece(rows, (i + j + 1, p0), n)
        c, d = piece(rows, (i + j + 2, p0), n), piece(rows, (i + j + 3, p0), n)
        for m in range(bands):
            w, x = weights[k + j, m], weights[k + j + 1, m]
            y, z = weights[k + j + 2, m], weights[k + j + 3, m]
            _add_four(w, x, y, z, a, b, c, d, piece(told, (m, 0), n))
        j += 4
    while j < count:
        for m in range(bands):
            _add(weights[k + j, m], piece(rows, (i + j, p0), n), piece(told, (m, 0), n))
        j += 1


@row
def _beside(clear: Array, p0: int, n: int, before: Array, after: Array) -> None:
    """Clear dates before and after each date of `n` pixels, itself left out; -1 and `count`."""
    count = clear.shape[0]
    for q in range(n):
        seen = -1
        for t in range(count):
            before[t, q] = seen
            seen = t if clear[t, p0 + q] else seen
        seen = count
        for t in range(count - 1, -1, -1):
            after[t, q] = seen
            seen = t if clear[t, p0 + q] else seen


@row
def _tents(s: Array, t: int, lo: int, hi: int, start: int, weights: Array, table: Array) -> None:
    """What the answer of date `t` changes by where its own value does, by the clear dates beside.

    Straight lines that pass through a value rise and fall with it like a tent, from the clear date
    before to the one after. `table[k]` holds the half that ends at date `k`; the last two rows are
    of none before and none after.
    """
    count, bands = s.shape[0], weights.shape[1]
    for k in range(count + 2):
        none = k >= count
        before = k == count if none else k < t
        for c in range(bands):
            for b in range(bands):
                total = np.float32(0.0)
                for j in range(lo if before else t + 1, t + 1 if before else hi):
                    share = np.float32(1.0)
                    if not none:
                        share = np.float32(s[j] - s[k]) / np.float32(s[t] - s[k])
                    if none or (k < j) == before:
                        total += weights[start + (j - lo) * bands + c, b] * share
                table[k, c, b] = total


@row
def _without(
    series: Array, s: Array, p: int, t: int, a: int, z: int, tents: Array, q: int, told: Array
) -> None:
    """Changes the answers `told[:, q]` to those of a pixel whose date `t` had not been clear."""
    count, bands = series.shape[0], series.shape[1]
    one, other = a if a >= 0 else z, z if z < count else a
    left, right = a if a >= 0 else count, z if z < count else count + 1
    share = np.float32(0.0)
    if one != other:
        share = np.float32(s[t] - s[a]) / np.float32(s[z] - s[a])
    for c in range(bands):
        va, vb = series[one, c, p], series[other, c, p]
        change = va + (vb - va) * share - series[t, c, p]
        for b in range(bands):
            told[b, q] += (tents[t, left, c, b] + tents[t, right, c, b]) * change


@kernel(
    SERIES, CLEAR, SECONDS, INDEX, INDEX, INDEX, INDEX, PER_BAND, PER_BAND, PER_BAND,
    TIMES, TIMES, ROWS, TENTS, ROOM, gives=types.void,
)  # fmt: skip
def answer(
    series: Array, clear: Array, s: Array, dates: Array, first: Array, last: Array, start: Array,
    weights: Array, bias: Array, remainder: Array, before: Array, after: Array, told: Array,
    tents: Array, out: Array,
) -> None:  # fmt: skip
    """Values of gaps in `out (time, band, pixel)`; of clear pixels, what they differ by instead.

    `series` is `(time, band, pixel)` without gaps, `dates` are those that something was learned of
    and that have gaps. The remainder is within its limits, NaN where there is none. `before`,
    `after` and `told` are room of rows, `tents` of `(time, time + 2, band, band)`.
    """
    count, bands, pixels = series.shape
    flat = series.reshape(count * bands, pixels)
    for t in dates:
        _tents(s, t, first[t], last[t], start[t], weights, tents[t])
    for p0 in range(0, pixels, WIDTH):
        n = min(WIDTH, pixels - p0)
        _beside(clear, p0, n, before, after)
        for t in dates:
            for b in range(bands):
                for q in range(n):
                    told[b, q] = bias[t, b]
            rows = (last[t] - first[t]) * bands
            _add_all(flat, first[t] * bands, rows, p0, n, weights, start[t], told)
            for q in range(n):
                if clear[t, p0 + q]:
                    a, z = before[t, q], after[t, q]
                    alone = a < 0 and z >= count
                    if not alone:
                        _without(series, s, p0 + q, t, a, z, tents, q, told)
                    for b in range(bands):
                        r = series[t, b, p0 + q] - told[b, q]
                        r = min(max(r, -remainder[t, b]), remainder[t, b])
                        told[b, q] = np.float32(np.nan) if alone else r
            for b in range(bands):
                for q in range(n):
                    out[t, b, p0 + q] = told[b, q]


@row
def _blurred(rows: Array, first: int, taps: Array, at: int, out: Array) -> None:
    """Sum of `taps` times rows of `rows` from `first` on, all of their columns."""
    count, n, k = taps.shape[0] - at, out.shape[0], 0
    for q in range(n):
        out[q] = np.float32(0.0)
    count = min(count, rows.shape[0] - first)
    while k + 4 <= count:
        i, j = first + k, at + k
        a, b = piece(rows, (i, 0), n), piece(rows, (i + 1, 0), n)
        c, d = piece(rows, (i + 2, 0), n), piece(rows, (i + 3, 0), n)
        _add_four(taps[j], taps[j + 1], taps[j + 2], taps[j + 3], a, b, c, d, out)
        k += 4
    while k < count:
        _add(taps[at + k], piece(rows, (first + k, 0), n), out)
        k += 1


@row
def _across(padded: Array, taps: Array, out: Array) -> None:
    """The same along one row, which is `taps` longer than `out`, zero at both ends."""
    n, k = out.shape[0], 0
    for q in range(n):
        out[q] = np.float32(0.0)
    while k + 4 <= taps.shape[0]:
        a, b = piece(padded, (k,), n), piece(padded, (k + 1,), n)
        c, d = piece(padded, (k + 2,), n), piece(padded, (k + 3,), n)
        _add_four(taps[k], taps[k + 1], taps[k + 2], taps[k + 3], a, b, c, d, out)
        k += 4
    while k < taps.shape[0]:
        _add(taps[k], piece(padded, (k,), n), out)
        k += 1


@row
def _known(values: Array, seen: Array, padded: Array) -> None:
    """The remainder of clear pixels, 0 elsewhere."""
    for q in range(values.shape[0]):
        v = values[q]
        padded[q] = v if seen[q] & (v == v) else np.float32(0.0)


@row
def _where_known(values: Array, seen: Array, padded: Array) -> None:
    for q in range(values.shape[0]):
        v = values[q]
        padded[q] = np.float32(1.0) if seen[q] & (v == v) else np.float32(0.0)


@row
def _settled(values: Array, base: Array, seen: Array, rest: Array, share: Array, most: Any) -> None:
    for q in range(values.shape[0]):
        v = values[q] + rest[q] / (share[q] + LEAST)
        v = base[q] - most if v < base[q] - most else v
        v = base[q] + most if v > base[q] + most else v
        values[q] = base[q] if seen[q] else v


@kernel(
    ROOM, SERIES, CLEAR, INDEX, types.int64, types.int64, TAPS, PER_BAND,
    ROWS, ROWS, ROWS, LINE, gives=types.void,
)  # fmt: skip
def settle(
    out: Array, series: Array, clear: Array, dates: Array, height: int, width: int, taps: Array,
    most: Array, across: Array, shares: Array, rest: Array, padded: Array,
) -> None:  # fmt: skip
    """Adds the smoothed remainder to the gaps of `dates` in `out`, as `answer` left it.

    What comes out is no farther than `most` from the straight line. `across` and `shares` are
    room of the size of an image, `rest` of a row, `padded` of a row with its margins, zero.
    """
    bands, middle = out.shape[1], taps.shape[0] // 2
    for t in dates:
        for b in range(-1, bands):
            for y in range(height):
                p = y * width
                v, seen = piece(out, (t, max(b, 0), p), width), piece(clear, (t, p), width)
                if b < 0:
                    _where_known(v, seen, piece(padded, (middle,), width))
                else:
                    _known(v, seen, piece(padded, (middle,), width))
                _across(padded, taps, piece(across, (y, 0), width))
            for y in range(height):
                at = max(0, middle - y)
                sums = piece(shares, (y, 0), width) if b < 0 else piece(rest, (0, 0), width)
                _blurred(across, y + at - middle, taps, at, sums)
                if b >= 0:
                    p = y * width
                    _settled(
                        piece(out, (t, b, p), width), piece(series, (t, b, p), width),
                        piece(clear, (t, p), width), sums, piece(shares, (y, 0), width),
                        most[t, b],
                    )  # fmt: skip
