"""Clear observations that look like an undetected cloud or shadow.

A cloud lies high above what the pixel showed before and after in every band, a shadow far below.
What was observed stays; it only tells nothing of the gaps.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.contract import Bool, Float
from cubefill.methods.pixel.flags import neighbours
from cubefill.methods.pixel.kernel import DAY, LOST, MAD, SECONDS, kernel, row
from cubefill.methods.samedate.kernels import CLEAR, SERIES

Array = NDArray[Any]

EACH_SIDE = 3
"""Observations before and after that one is compared with."""
LIMIT = 5.0
"""Robust standard deviations, in every band, from which an observation is suspect."""
SOON = 45 * DAY
"""Seconds within which there must be one before and one after."""
FEWEST = 4
"""Clear observations of a pixel below which none is suspect."""

SCALES = types.Array(types.float64, 1, "C", readonly=True)
FOUND = types.Array(types.boolean, 2, "C")
BESIDE = types.Array(types.float64, 1, "C")


@row
def _off(
    values: Array, p: int, band: int, s: Array, at: Array, i: int, count: int, beside: Array
) -> float:
    """How far observation `i` of a pixel is from the median of those before and after it.

    0 where nothing was observed soon before, or soon after.
    """
    n, sides = 0, 0
    for k in range(max(0, i - EACH_SIDE), min(count, i + EACH_SIDE + 1)):
        if k != i and abs(s[at[k]] - s[at[i]]) <= SOON:
            sides |= 1 if k < i else 2
            v = np.float64(values[at[k], band, p])
            j = n
            while j > 0 and beside[j - 1] > v:
                beside[j] = beside[j - 1]
                j -= 1
            beside[j] = v
            n += 1
    if sides != 3:
        return 0.0
    middle = (beside[(n - 1) // 2] + beside[n // 2]) / 2
    return np.float64(values[at[i], band, p]) - middle


@kernel(SERIES, CLEAR, SECONDS, SCALES, types.float64, LOST, BESIDE, FOUND, gives=types.void)
def screen(
    values: Array,
    clear: Array,
    s: Array,
    scales: Array,
    limit: float,
    at: Array,
    beside: Array,
    found: Array,
) -> None:
    """Sets `found (time, pixel)` where a clear observation is suspect."""
    steps, bands, pixels = values.shape
    for p in range(pixels):
        count = 0
        for t in range(steps):
            found[t, p] = False
            if clear[t, p]:
                at[count] = t
                count += 1
        if count < FEWEST:
            continue
        for i in range(count):
            first = _off(values, p, 0, s, at, i, count, beside) / scales[0]
            if abs(first) <= limit:
                continue
            sign = 1.0 if first > 0 else -1.0
            every = True
            for b in range(1, bands):
                every = every and sign * _off(values, p, b, s, at, i, count, beside) > (
                    limit * scales[b]
                )
            if every:
                found[at[i], p] = True


def suspects(values: Float, clear: Bool, s: NDArray[np.int32], scales: NDArray[np.float64]) -> Bool:
    """Where clear observations `(time, band, pixel)` are suspect, as `(time, pixel)`.

    `s` are the seconds of the dates, `scales` as `usual_change` gives them.
    """
    found = np.zeros(clear.shape, bool)
    steps = len(clear)
    room = np.empty(steps, np.int64), np.empty(2 * EACH_SIDE + 1)
    screen(np.dtype(np.float32), values, clear, s, scales, LIMIT, *room, found)
    return found


def usual_change(values: Float, clear: Bool) -> NDArray[np.float64]:
    """Robust standard deviation, for each band, of what changes from one observation to the next.

    `values` is `(time, band, pixel)`. The change over two steps, halved: as the remainder of a
    straight line has it.
    """
    out = np.empty(values.shape[1])
    pixels = np.arange(values.shape[2])
    before, _ = neighbours(clear)
    has = clear & (before >= 0)
    for b in range(values.shape[1]):
        band = values[:, b]
        change = (band - band[np.maximum(before, 0), pixels])[has]
        spread = MAD * np.median(np.abs(change)) if change.size else 1.0
        out[b] = max(spread / np.sqrt(2), 1e-9)
    return out
