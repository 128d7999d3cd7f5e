"""What a gap is like: its dates, which flag its filling gets, and what is expected of its error.

Flag and error follow from when the pixel was clear, not from the values; a pass forwards keeps the
time of the last clear observation, a pass backwards the next.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.contract import Block, Flag
from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    CODES,
    DAY,
    EPOCH,
    FAR,
    INDEX,
    SECONDS,
    VALID,
    Array,
    as_row,
    fetch,
    inlined,
    kernel,
    piece,
    reach,
    row,
    row_at,
)

NOTHING = np.uint8(Flag.UNFILLABLE)
_GIVEN = types.Array(types.uint8, 3, "A", readonly=True)


@dataclass(frozen=True)
class Axes:
    """The dates given and asked for, as kernels want them: in whole seconds.

    Differences of seconds are exact, so that what follows from them does not depend on the date
    that they are counted from.
    """

    s: NDArray[np.int32]
    """Seconds of the dates given, since the first."""
    so: NDArray[np.int32]
    """Seconds of the dates asked for."""
    lo: NDArray[np.int64]
    """Last date given that is not after each date asked for, or -1."""
    same: bool
    """True when both are the same dates."""
    start: int
    """Seconds of the first date given since `EPOCH`."""

    @classmethod
    def of(cls, block: Block) -> "Axes":
        """The axes of a block."""
        given, asked = _seconds(block.time), _seconds(block.out_time)
        s, so = ((a - given[0]).astype(np.int32) for a in (given, asked))
        lo = np.searchsorted(s, so, side="right") - 1
        return cls(s, so, lo, block.same_axis, int(given[0]))

    @property
    def days(self) -> NDArray[np.float64]:
        """Real days of the dates given, since the first."""
        return self.s / DAY

    @property
    def out_days(self) -> NDArray[np.float64]:
        """Real days of the dates asked for."""
        return self.so / DAY


def _seconds(time: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Whole seconds since `EPOCH`, each date rounded by itself."""
    half = np.timedelta64(500, "ms")
    return ((time - EPOCH + half) // np.timedelta64(1, "s")).astype(np.int64)


@row
def _last(valid: Array, day: Any, t: Array, pt: Array) -> None:
    for j in range(valid.shape[0]):
        b = day if valid[j] else t[j]
        t[j] = b
        pt[j] = b


@row
def _next(pt: Array, day: Any, t: Array) -> None:
    for j in range(t.shape[0]):
        t[j] = day if pt[j] == day else t[j]


@row
def _code(pt: Array, t: Array, day: Any, limits: Array, codes: Array, out: Array) -> None:
    longest, before, after = limits[0], limits[1], limits[2]
    observed, between, beyond = codes[0], codes[1], codes[2]
    for j in range(out.shape[0]):
        behind = pt[j] > -FAR
        ahead = t[j] < FAR
        gap = between if np.int32(t[j] - pt[j]) <= longest else NOTHING
        head = beyond if (ahead & (np.int32(t[j] - day) <= before)) else NOTHING
        tail = beyond if (behind & (np.int32(day - pt[j]) <= after)) else NOTHING
        code = gap if (behind & ahead) else (tail if behind else head)
        out[j] = observed if pt[j] == day else code


@row
def _away(pt: Array, t: Array, day: Any, bins: Any, d: Array, out: Array) -> None:
    """Seconds that tell how far a pixel's observations are, and the first place of its position."""
    for j in range(out.shape[0]):
        behind = pt[j] > -FAR
        ahead = t[j] < FAR
        near = np.int32(t[j] - day) if ahead else np.int32(day - pt[j])
        d[j] = np.int32(t[j] - pt[j]) if (behind & ahead) else near
        b = np.int32(0) if behind else bins
        b = b if ahead else np.int32(2 * bins)
        none = (pt[j] == day) | ((not behind) & (not ahead))
        out[j] = np.int32(-FAR) if none else b


@row
def _binned(d: Array, edges: Array, out: Array) -> None:
    for e in range(edges.shape[0]):
        edge = edges[e]
        for j in range(out.shape[0]):
            out[j] = np.int32(out[j] + np.int32(d[j] > edge))


@row
def _placed(flag: Array, first: Array, last: Any, out: Array) -> None:
    for j in range(out.shape[0]):
        k = np.int32(first[flag[j]] + out[j])
        out[j] = k if k >= 0 else last


@row
def _supported(support: Array, step: Any, last: Any, out: Array) -> None:
    for j in range(out.shape[0]):
        out[j] = out[j] if out[j] == last else out[j] + step * np.int32(support[j])


@row
def _look_up(table: Array, place: Array, out: Array) -> None:
    for j in range(out.shape[0]):
        out[j] = table[place[j]]


@inlined
def past(valid: Array, s: Array, p0: int, n: int, t: Array, pt: Array) -> None:
    """The time of the last clear observation of `n` pixels at every date, in `pt`."""
    t[:] = -FAR
    for i in range(len(s)):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            if i + 1 < len(s):
                fetch(piece(valid, (i + 1, y, x), m))
            a, b = piece(t, (j,), m), piece(pt, (i, j), m)
            _last(piece(valid, (i, y, x), m), s[i], a, b)
            j += m


def neighbours(clear: Array) -> tuple[Array, Array]:
    """Clear dates before and after each date of `clear (time, ...)`; -1 and their count for none.

    Examples
    --------
    >>> before, after = neighbours(np.array([True, False, True]))
    >>> before.tolist(), after.tolist()
    ([-1, 0, 0], [2, 2, 3])
    """
    count = len(clear)
    steps = np.arange(count).reshape(-1, *[1] * (clear.ndim - 1))
    before, after = np.full(clear.shape, -1), np.full(clear.shape, count)
    before[1:] = np.maximum.accumulate(np.where(clear, steps, -1), axis=0)[:-1]
    to_come = np.where(clear, steps, count)[::-1]
    after[:-1] = np.minimum.accumulate(to_come, axis=0)[::-1][1:]
    return before, after


@kernel(
    VALID, SECONDS, SECONDS, INDEX, SECONDS, CODES, types.int64,
    types.Array(types.uint8, 3, "A"), gives=types.void,
)  # fmt: skip
def flags(
    valid: Array, s: Array, so: Array, lo: Array, limits: Array, codes: Array, width: int,
    out: Array,
) -> None:  # fmt: skip
    """Writes the code of every pixel and date to `out`.

    `limits` are seconds: the longest gap, the furthest before the first observation and after the
    last; -1 stands for never. `codes` are those of observed, between and beyond.
    """
    pixels = valid.shape[1] * valid.shape[2]
    pt = np.empty((len(s) + 1, width), np.int32)
    pt[len(s)] = -FAR
    t = np.empty(width, np.int32)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        past(valid, s, p0, n, t, pt)
        t[:] = FAR
        i = len(s) - 1
        for k in range(len(so) - 1, -1, -1):
            while i >= 0 and s[i] >= so[k]:
                _next(pt[i, :n], s[i], t[:n])
                i -= 1
            before = pt[lo[k] if lo[k] >= 0 else len(s)]
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, valid.shape[2])
                a, b = before[j : j + m], t[j : j + m]
                _code(a, b, so[k], limits, codes, as_row(out[k, y, x : x + m]))
                j += m


@kernel(
    VALID, SECONDS, SECONDS, INDEX, SECONDS, SECONDS, types.int64,
    _GIVEN, _GIVEN, types.Array(types.float32, 2, "C", readonly=True), ADDRESSES, gives=types.void,
)  # fmt: skip
def expected(
    valid: Array, s: Array, so: Array, lo: Array, edges: Array, first: Array, width: int,
    flag: Array, support: Array, tables: Array, outs: Array,
) -> None:  # fmt: skip
    """Writes what each table says of a gap to one output: an address, and strides of time and y.

    A table has a row of `3 * (len(edges) + 1)` places for each source and support: between two
    observations, before the first, after the last. `first` gives the place of the first row of
    each code of `flag`, far below 0 for what has none; after them the place for those, then the
    number of places from one support to the next. `support` without dates is 0 everywhere.
    """
    pixels = valid.shape[1] * valid.shape[2]
    pt = np.empty((len(s) + 1, width), np.int32)
    pt[len(s)] = -FAR
    t = np.empty(width, np.int32)
    place = np.empty(width, np.int32)
    d = np.empty(width, np.int32)
    bins = np.int32(len(edges) + 1)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        past(valid, s, p0, n, t, pt)
        t[:] = FAR
        i = len(s) - 1
        for k in range(len(so) - 1, -1, -1):
            while i >= 0 and s[i] >= so[k]:
                _next(pt[i, :n], s[i], t[:n])
                i -= 1
            before = pt[lo[k] if lo[k] >= 0 else len(s)]
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, valid.shape[2])
                at = place[j : j + m]
                f = as_row(flag[k, y, x : x + m])
                _away(before[j : j + m], t[j : j + m], so[k], bins, d[j : j + m], at)
                _binned(d[j : j + m], edges, at)
                _placed(f, first, first[256], at)
                if support.shape[0] > 0:
                    _supported(as_row(support[k, y, x : x + m]), first[257], first[256], at)
                for o in range(outs.shape[0]):
                    here = outs[o, 0] + k * outs[o, 1] + y * outs[o, 2] + 4 * x
                    _look_up(tables[o], at, row_at(here, m, tables[o]))
                j += m
