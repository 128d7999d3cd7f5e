"""What a gap is like: which flag its filling gets, and how large its error is expected to be.

Both follow from when the pixel was clear, not from the values; a pass forwards keeps the time of
the last clear observation, a pass backwards the next.
"""

from typing import Any

import numpy as np
from numba import types

from cubefill.methods.contract import Flag
from cubefill.methods.pixel.kernel import (
    FAR,
    INDEX,
    NAN,
    SECONDS,
    TABLE,
    VALID,
    Array,
    as_row,
    cube_type,
    fetch,
    kernel,
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
        past = pt[j] > -FAR
        coming = t[j] < FAR
        gap = between if np.int32(t[j] - pt[j]) <= longest else NOTHING
        head = beyond if (coming & (np.int32(t[j] - day) <= before)) else NOTHING
        tail = beyond if (past & (np.int32(day - pt[j]) <= after)) else NOTHING
        code = gap if (past & coming) else (tail if past else head)
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


@row
def _scan(valid: Array, s: Array, p0: int, n: int, t: Array, pt: Array) -> None:
    t[:] = -FAR
    for i in range(len(s)):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            if i + 1 < len(s):
                fetch(as_row(valid[i + 1, y, x : x + m]))
            _last(as_row(valid[i, y, x : x + m]), s[i], t[j : j + m], pt[i, j : j + m])
            j += m


def _flag_signature(dtype: Any) -> Any:
    return types.void(
        VALID, SECONDS, SECONDS, INDEX, types.Array(types.int32, 1, "C", readonly=True),
        types.Array(types.uint8, 1, "C", readonly=True), types.int64,
        cube_type(types.uint8, out=True),
    )  # fmt: skip


@kernel(_flag_signature)
def flags(
    valid: Array,
    s: Array,
    so: Array,
    lo: Array,
    limits: Array,
    codes: Array,
    width: int,
    out: Array,
) -> None:
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
        _scan(valid, s, p0, n, t, pt)
        t[:] = FAR
        i = len(s) - 1
        for k in range(len(so) - 1, -1, -1):
            while i >= 0 and s[i] >= so[k]:
                _next(pt[i, :n], s[i], t[:n])
                i -= 1
            before = pt[lo[k] if lo[k] >= 0 else len(s)]
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, out.shape[2])
                o = as_row(out[k, y, x : x + m])
                _code(before[j : j + m], t[j : j + m], so[k], limits, codes, o)
                j += m


NEVER_YET, BEFORE, NOW = np.uint8(0), np.uint8(1), np.uint8(3)


@row
def _seen(valid: Array, state: Array, past: Array) -> None:
    for j in range(valid.shape[0]):
        here = NOW if valid[j] else (BEFORE if state[j] != NEVER_YET else NEVER_YET)
        state[j] = here
        past[j] = here


@row
def _coming(past: Array, coming: Array) -> None:
    for j in range(coming.shape[0]):
        coming[j] = BEFORE if past[j] == NOW else coming[j]


@row
def _quick_code(past: Array, coming: Array, given: bool, codes: Array, out: Array) -> None:
    observed, between, head, tail = codes[0], codes[1], codes[2], codes[3]
    now = NOW if given else np.uint8(255)
    for j in range(out.shape[0]):
        ahead = coming[j] != NEVER_YET
        behind = past[j] != NEVER_YET
        code = between if ahead else tail
        none = head if ahead else NOTHING
        code = code if behind else none
        out[j] = observed if past[j] == now else code


def _quick_signature(dtype: Any) -> Any:
    return types.void(
        VALID, SECONDS, SECONDS, INDEX, types.Array(types.uint8, 1, "C", readonly=True),
        types.int64, cube_type(types.uint8, out=True),
    )  # fmt: skip


@kernel(_quick_signature)
def quick_flags(
    valid: Array, s: Array, so: Array, lo: Array, codes: Array, width: int, out: Array
) -> None:
    """`flags` without limits: the codes are of observed, between, before the first, after the last.

    Needs to know that there is an observation, not when: bytes instead of seconds.
    """
    pixels = valid.shape[1] * valid.shape[2]
    past = np.zeros((len(s) + 1, width), np.uint8)
    state = np.empty(width, np.uint8)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        state[:] = NEVER_YET
        for i in range(len(s)):
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, valid.shape[2])
                if i + 1 < len(s):
                    fetch(as_row(valid[i + 1, y, x : x + m]))
                _seen(as_row(valid[i, y, x : x + m]), state[j : j + m], past[i, j : j + m])
                j += m
        state[:] = NEVER_YET
        i = len(s) - 1
        for k in range(len(so) - 1, -1, -1):
            while i >= 0 and s[i] >= so[k]:
                _coming(past[i, :n], state[:n])
                i -= 1
            at = lo[k] if lo[k] >= 0 else len(s)
            given = lo[k] >= 0 and s[lo[k]] == so[k]
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, out.shape[2])
                o = as_row(out[k, y, x : x + m])
                _quick_code(past[at, j : j + m], state[j : j + m], given, codes, o)
                j += m


def _spread_signature(dtype: Any) -> Any:
    return types.void(
        VALID, SECONDS, SECONDS, INDEX, types.Array(types.int32, 1, "C", readonly=True), TABLE,
        types.int64, cube_type(types.float32, out=True),
    )  # fmt: skip


@kernel(_spread_signature)
def spread(
    valid: Array,
    s: Array,
    so: Array,
    lo: Array,
    edges: Array,
    tables: Array,
    width: int,
    out: Array,
) -> None:
    """Writes the expected error of every gap to `out`, NaN where observed or nothing is clear."""
    pixels = valid.shape[1] * valid.shape[2]
    pt = np.empty((len(s) + 1, width), np.int32)
    pt[len(s)] = -FAR
    t = np.empty(width, np.int32)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        _scan(valid, s, p0, n, t, pt)
        t[:] = FAR
        i = len(s) - 1
        for k in range(len(so) - 1, -1, -1):
            while i >= 0 and s[i] >= so[k]:
                _next(pt[i, :n], s[i], t[:n])
                i -= 1
            before = pt[lo[k] if lo[k] >= 0 else len(s)]
            j = 0
            while j < n:
                y, x, m = reach(p0 + j, n - j, out.shape[2])
                o = as_row(out[k, y, x : x + m])
                _spread(before[j : j + m], t[j : j + m], so[k], edges, tables, o)
                j += m
