"""What a gap is like: which flag its filling gets, and what is expected of its error.

Both follow from when the pixel was clear, not from the values; a pass forwards keeps the time of
the last clear observation, a pass backwards the next.
"""

from typing import Any

import numpy as np
from numba import types

from cubefill.methods.contract import Flag
from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    CODES,
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
def _stratum(
    pt: Array, t: Array, day: Any, flag: Array, first: Array, edges: Array, out: Array
) -> None:
    """Place of each pixel in a table: by source, position (between, before, after) and days."""
    bins = np.int32(edges.shape[0] + 1)
    last = first[256]
    for j in range(out.shape[0]):
        behind = pt[j] > -FAR
        ahead = t[j] < FAR
        d = np.int32(t[j] - day) if ahead else np.int32(day - pt[j])
        d = np.int32(t[j] - pt[j]) if (behind & ahead) else d
        b = bins if not behind else np.int32(0)
        b = b if ahead else np.int32(2 * bins)
        for e in range(edges.shape[0]):
            b = b + np.int32(1) if d > edges[e] else b
        none = (pt[j] == day) | ((not behind) & (not ahead)) | (first[flag[j]] < 0)
        out[j] = last if none else first[flag[j]] + b


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
    each code of `flag`, -1 for what has none; after them the place for those, then the number of
    places from one support to the next. `support` without dates stands for 0 everywhere.
    """
    pixels = valid.shape[1] * valid.shape[2]
    pt = np.empty((len(s) + 1, width), np.int32)
    pt[len(s)] = -FAR
    t = np.empty(width, np.int32)
    place = np.empty(width, np.int32)
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
                _stratum(before[j : j + m], t[j : j + m], so[k], f, first, edges, at)
                if support.shape[0] > 0:
                    _supported(as_row(support[k, y, x : x + m]), first[257], first[256], at)
                for o in range(outs.shape[0]):
                    here = outs[o, 0] + k * outs[o, 1] + y * outs[o, 2] + 4 * x
                    _look_up(tables[o], at, row_at(here, m, tables[o]))
                j += m
