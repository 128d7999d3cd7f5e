"""What same-date regression does with every pixel: its answer, and the smoothed remainder nearby.

Both kernels walk a block row by row and add up in one order, so that a pixel's answer is the same
bits whatever block it comes in, if the block reaches `REACH` pixels beyond it.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.pixel.kernel import INDEX, Kernel, kernel, row

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
SECONDS = types.Array(types.int32, 1, "C", readonly=True)
PER_BAND = types.Array(types.float32, 2, "C", readonly=True)
TAPS = types.Array(types.float32, 1, "C", readonly=True)
VALUES = types.Array(types.float32, 3, "C")
ROWS = types.Array(types.float32, 2, "C")
STEPS = types.Array(types.int32, 2, "C")
PLANES = types.Array(types.boolean, 2, "C", readonly=True)


def taps() -> NDArray[np.float32]:
    """Weights along one axis, which add up to 1."""
    away = np.arange(-REACH, REACH + 1) / SIGMA
    weights = np.exp(-(away**2) / 2)
    return (weights / weights.sum()).astype(np.float32)


@row
def _add(weight: Any, values: Array, p0: int, n: int, out: Array) -> None:
    for q in range(n):
        out[q] += weight * values[p0 + q]


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
def _without(
    series: Array, s: Array, p: int, t: int, a: int, z: int, lo: int, hi: int, start: int,
    weights: Array, q: int, told: Array,
) -> None:  # fmt: skip
    """Changes the answers `told[:, q]` to those of a pixel whose date `t` had not been clear."""
    count, bands = series.shape[0], series.shape[1]
    for j in range(max(lo, a + 1), min(hi, z)):
        share = np.float32(0.0)
        if a >= 0 and z < count:
            share = np.float32(s[j] - s[a]) / np.float32(s[z] - s[a])
        for c in range(bands):
            va = series[a if a >= 0 else z, c, p]
            vb = series[z if z < count else a, c, p]
            change = va + (vb - va) * share - series[j, c, p]
            k = start + (j - lo) * bands + c
            for b in range(bands):
                told[b, q] += weights[k, b] * change


@kernel(
    SERIES, CLEAR, SECONDS, CLEAR, INDEX, INDEX, INDEX, PER_BAND, PER_BAND, PER_BAND,
    STEPS, STEPS, ROWS, VALUES, gives=types.void,
)  # fmt: skip
def answer(
    series: Array, clear: Array, s: Array, wanted: Array, first: Array, last: Array, start: Array,
    weights: Array, bias: Array, remainder: Array, before: Array, after: Array, told: Array,
    out: Array,
) -> None:  # fmt: skip
    """Values of gaps in `out (time, band, pixel)`; of clear pixels, what they differ by instead.

    `series` is `(time, band, pixel)` without gaps, `wanted (time, cell)` says for which dates and
    runs of `WIDTH` pixels. The remainder is within its limits, NaN where there is none.
    """
    count, bands, pixels = series.shape
    for p0 in range(0, pixels, WIDTH):
        n = min(WIDTH, pixels - p0)
        _beside(clear, p0, n, before, after)
        for t in range(count):
            if not wanted[t, p0 // WIDTH]:
                continue
            for b in range(bands):
                for q in range(n):
                    told[b, q] = bias[t, b]
            k = start[t]
            for j in range(first[t], last[t]):
                for c in range(bands):
                    for b in range(bands):
                        _add(weights[k, b], series[j, c], p0, n, told[b])
                    k += 1
            for q in range(n):
                if clear[t, p0 + q]:
                    a, z = before[t, q], after[t, q]
                    alone = a < 0 and z >= count
                    if not alone:
                        _without(
                            series, s, p0 + q, t, a, z, first[t], last[t], start[t], weights, q,
                            told,
                        )  # fmt: skip
                    for b in range(bands):
                        r = series[t, b, p0 + q] - told[b, q]
                        r = min(max(r, -remainder[t, b]), remainder[t, b])
                        told[b, q] = np.float32(np.nan) if alone else r
            for b in range(bands):
                for q in range(n):
                    out[t, b, p0 + q] = told[b, q]


@row
def _across(values: Array, clear: Array, taps: Array, out: Array, share: Array) -> None:
    """One row: weighted sums of the remainder and of where there is one."""
    width, middle = out.shape[0], taps.shape[0] // 2
    for x in range(width):
        out[x] = np.float32(0.0)
        share[x] = np.float32(0.0)
    for k in range(taps.shape[0]):
        shift = k - middle
        for x in range(max(0, -shift), min(width, width - shift)):
            v = values[x + shift]
            known = clear[x + shift] and v == v
            out[x] += taps[k] * (v if known else np.float32(0.0))
            share[x] += taps[k] if known else np.float32(0.0)


@kernel(
    VALUES, SERIES, PLANES, INDEX, types.int64, types.int64, TAPS, PER_BAND,
    ROWS, ROWS, ROWS, gives=types.void,
)  # fmt: skip
def settle(
    out: Array, series: Array, clear: Array, dates: Array, height: int, width: int, taps: Array,
    most: Array, sums: Array, shares: Array, line: Array,
) -> None:  # fmt: skip
    """Adds the smoothed remainder to the gaps of `dates` in `out`, as `answer` left it.

    What comes out is no farther than `most` from the straight line.
    """
    bands, middle = out.shape[1], taps.shape[0] // 2
    for t in dates:
        for b in range(bands):
            values, seen = out[t, b], clear[t]
            for y in range(height):
                p = y * width
                _across(values[p : p + width], seen[p : p + width], taps, sums[y], shares[y])
            for y in range(height):
                p = y * width
                for x in range(width):
                    line[0, x] = np.float32(0.0)
                    line[1, x] = np.float32(0.0)
                for k in range(max(0, middle - y), min(len(taps), height + middle - y)):
                    i = y + k - middle
                    for x in range(width):
                        line[0, x] += taps[k] * sums[i, x]
                        line[1, x] += taps[k] * shares[i, x]
                for x in range(width):
                    base = series[t, b, p + x]
                    v = values[p + x] + line[0, x] / (line[1, x] + LEAST)
                    v = min(max(v, base - most[t, b]), base + most[t, b])
                    values[p + x] = base if seen[p + x] else v


KERNELS: tuple[Kernel, ...] = (answer, settle)
