"""What a gap is like: which flag its filling gets, and how large its error is expected to be.

Both follow from when the pixel was clear, not from the values; a pass forwards keeps the time of
the last clear observation, a pass backwards the next.
"""

from typing import Any

import numpy as np
from numba import types

from cubefill.methods.contract import Flag
from cubefill.methods.pixel.kernel import (
    CODES,
    FAR,
    INDEX,
    NAN,
    SECONDS,
    TABLE,
    VALID,
    Array,
    as_row,
    fetch,
    inlined,
    kernel,
    piece,
    reach,
    row,
)

NOTHING = np.uint8(Flag.UNFILLABLE)


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
def _spread(pt: Array, t: Array, day: Any, edges: Array, tables: Array, out: Array) -> None:
    """Expected error by days: `tables[0]` between two observations, `tables[1]` beyond them."""
    for j in range(out.shape[0]):
        inside = (pt[j] > -FAR) & (t[j] < FAR)
        d = np.int32(day - pt[j]) if t[j] == FAR else np.int32(t[j] - day)
        d = np.int32(t[j] - pt[j]) if inside else d
        a, b = tables[0, 0], tables[1, 0]
        for e in range(edges.shape[0]):
            a = tables[0, e + 1] if d > edges[e] else a
            b = tables[1, e + 1] if d > edges[e] else b
        r = np.float32(a if inside else b)
        none = (pt[j] == day) | ((pt[j] == -FAR) & (t[j] == FAR))
        out[j] = NAN if none else r


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
    VALID, SECONDS, SECONDS, INDEX, SECONDS, CODES, SECONDS, TABLE, types.int64,
    types.Array(types.uint8, 3, "A"), types.Array(types.float32, 3, "A"), gives=types.void,
)  # fmt: skip
def flags(
    valid: Array, s: Array, so: Array, lo: Array, limits: Array, codes: Array, edges: Array,
    tables: Array, width: int, out: Array, std: Array,
) -> None:  # fmt: skip
    """Writes the code of every pixel and date to `out`, the expected error of gaps to `std`.

    One without a date is left out. `limits` are seconds: the longest gap, the furthest before the
    first observation and after the last; -1 stands for never. `codes` are those of observed,
    between and beyond. `std` is NaN where observed or nothing is clear.
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
                if out.shape[0] > 0:
                    _code(a, b, so[k], limits, codes, as_row(out[k, y, x : x + m]))
                if std.shape[0] > 0:
                    _spread(a, b, so[k], edges, tables, as_row(std[k, y, x : x + m]))
                j += m
