"""Nearest, last, next and linear: what the clear observations before and after a date say.

One kernel: a pass forwards keeps the last clear observation of every pixel, a pass backwards
keeps the next one and combines both. Differences of time are taken in whole seconds, exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba import types

from cubefill.methods.contract import Codes, Flag
from cubefill.methods.pixel.flags import past
from cubefill.methods.pixel.kernel import (
    ADDRESSES,
    CODES,
    COUNT,
    FAR,
    INDEX,
    LOST,
    NAN,
    ROOM,
    SECONDS,
    TIMES,
    VALID,
    Array,
    addresses,
    decode,
    encode,
    fetch,
    inlined,
    kernel,
    piece,
    reach,
    row,
    row_at,
)
from cubefill.methods.pixel.method import Axes, Classic

TILE = 512
CLEAR = np.float32(-2)
"""Weight that stands for a clear observation; those of gaps are above -1."""
FREE = np.array(
    [Flag.OBSERVED, Flag.INTERPOLATED, Flag.EXTRAPOLATED, Flag.EXTRAPOLATED, Flag.UNFILLABLE],
    np.uint8,
)
NEAREST, LAST, NEXT, LINEAR, LINEAR2 = range(5)


@row
def _forwards(band: Array, valid: Array, day: Any, v: Array, t: Array, pv: Array, pt: Array) -> Any:
    """Value and time of the last clear observation, `day` itself included."""
    lost = np.int32(0)
    for j in range(band.shape[0]):
        q = decode(band[j])
        clear = valid[j] & (q == q)
        lost = np.int32(lost + np.int32(valid[j] & (q != q)))
        a = q if clear else v[j]
        b = day if clear else t[j]
        v[j] = a
        t[j] = b
        pv[j] = a
        pt[j] = b
    return lost


@row
def _backwards(pv: Array, pt: Array, day: Any, v: Array, t: Array) -> None:
    """Value and time of the next clear observation, `day` itself included."""
    for j in range(v.shape[0]):
        clear = pt[j] == day
        v[j] = pv[j] if clear else v[j]
        t[j] = day if clear else t[j]


@row
def _between(pv: Array, pt: Array, v: Array, t: Array, day: Any, out: Array) -> None:
    for j in range(out.shape[0]):
        a, b = pv[j], v[j]
        w = np.float32(np.int32(day - pt[j])) / np.float32(np.int32(t[j] - pt[j]))
        r = a + (b - a) * w
        r = r if r == r else (a if a == a else b)
        r = a if pt[j] == day else r
        out[j] = encode(r, out)


@row
def _two_dates(pv: Array, pt: Array, v: Array, t: Array, day: Any, out: Array) -> None:
    for j in range(out.shape[0]):
        a, b = pv[j], v[j]
        r = a + (b - a) * np.float32(np.int32(day - pt[j])) / np.float32(np.int32(t[j] - pt[j]))
        r = a if pt[j] == day else r
        out[j] = encode(r, out)


@row
def _closest(pv: Array, pt: Array, v: Array, t: Array, day: Any, out: Array) -> None:
    for j in range(out.shape[0]):
        a, b = pv[j], v[j]
        first = np.int32(day - pt[j]) <= np.int32(t[j] - day)
        r = a if first else b
        r = r if r == r else (a if a == a else b)
        out[j] = encode(r, out)


@row
def _copy(v: Array, out: Array) -> None:
    for j in range(out.shape[0]):
        out[j] = encode(v[j], out)


@inlined
def _combine(mode: int, pv: Array, pt: Array, v: Array, t: Array, day: Any, out: Array) -> None:
    if mode == LINEAR:
        _between(pv, pt, v, t, day, out)
    elif mode == LINEAR2:
        _two_dates(pv, pt, v, t, day, out)
    elif mode == NEAREST:
        _closest(pv, pt, v, t, day, out)
    elif mode == LAST:
        _copy(pv, out)
    else:
        _copy(v, out)


@inlined
def scan_forwards(
    band: Array, valid: Array, s: Array, p0: int, n: int, v: Array, t: Array, pv: Array, pt: Array
) -> int:
    """Value and time of the last clear observation of `n` pixels at every date, in `pv` and `pt`.

    Gives the number of clear values that held no data.
    """
    lost = 0
    v[:] = NAN
    t[:] = -FAR
    for i in range(band.shape[0]):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, band.shape[2])
            if i + 1 < band.shape[0]:
                fetch(piece(band, (i + 1, y, x), m))
                fetch(piece(valid, (i + 1, y, x), m))
            b, c = piece(band, (i, y, x), m), piece(valid, (i, y, x), m)
            a, d = piece(v, (j,), m), piece(t, (j,), m)
            lost += _forwards(b, c, s[i], a, d, piece(pv, (i, j), m), piece(pt, (i, j), m))
            j += m
    return lost


@inlined
def scan_backwards(
    s: Array, so: Array, lo: Array, p0: int, n: int,
    v: Array, t: Array, pv: Array, pt: Array, mode: int, out: Array,
) -> None:  # fmt: skip
    """What `n` pixels of `out` say, from the rows that `scan_forwards` filled."""
    none = pv.shape[0] - 1
    v[:] = NAN
    t[:] = FAR
    i = len(s) - 1
    for k in range(len(so) - 1, -1, -1):
        while i >= 0 and s[i] >= so[k]:
            at = (i, 0)
            _backwards(
                piece(pv, at, n), piece(pt, at, n), s[i], piece(v, (0,), n), piece(t, (0,), n)
            )
            i -= 1
        before = lo[k] if lo[k] >= 0 else none
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, out.shape[2])
            if k > 0:
                fetch(piece(out, (k - 1, y, x), m))
            a, b = piece(pv, (before, j), m), piece(pt, (before, j), m)
            c, d = piece(v, (j,), m), piece(t, (j,), m)
            _combine(mode, a, b, c, d, so[k], piece(out, (k, y, x), m))
            j += m


@kernel("band", VALID, SECONDS, SECONDS, INDEX, types.int64, types.int64, "out")
def scan(
    band: Array, valid: Array, s: Array, so: Array, lo: Array, mode: int, width: int, out: Array
) -> int:
    """Fills `out`; gives the number of clear values that held no data.

    `s` and `so` are the seconds of the dates given and asked for, `lo` the last date given that
    is not after each date asked for, or -1.
    """
    pixels = band.shape[1] * band.shape[2]
    pv = np.empty((len(s) + 1, width), np.float32)
    pt = np.empty((len(s) + 1, width), np.int32)
    pv[len(s)] = NAN
    pt[len(s)] = -FAR
    v = np.empty(width, np.float32)
    t = np.empty(width, np.int32)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += scan_forwards(band, valid, s, p0, n, v, t, pv, pt)
        scan_backwards(s, so, lo, p0, n, v, t, pv, pt, mode, out)
    return lost


# ------------------------------------------------------------------ all bands at once
# When a pixel was clear is the same for every band: times and weights of a tile are found once and
# each band then moves its values only, with the arithmetic of `scan`, bit for bit. Four bands of 40
# dates take 0.37 (float32) or 0.22 (int16) of the time of `scan` and `flags`.


@row
def _weigh(pt: Array, day: Any, t: Array, w: Array) -> None:
    for j in range(w.shape[0]):
        last = pt[j]
        clear = last == day
        c = day if clear else t[j]
        t[j] = c
        r = np.float32(np.int32(day - last)) / np.float32(np.int32(c - last))
        w[j] = CLEAR if clear else r


@row
def _code(w: Array, pt: Array, t: Array, codes: Array, out: Array) -> None:
    observed, between, head, tail, nothing = codes[0], codes[1], codes[2], codes[3], codes[4]
    for j in range(out.shape[0]):
        ahead = t[j] < FAR
        code = between if ahead else tail
        none = head if ahead else nothing
        code = code if pt[j] > -FAR else none
        out[j] = observed if w[j] == CLEAR else code


@row
def _move_forwards(band: Array, valid: Array, v: Array, pv: Array) -> Any:
    lost = np.int32(0)
    for j in range(band.shape[0]):
        q = decode(band[j])
        a = q if valid[j] else v[j]
        lost = np.int32(lost + np.int32(valid[j] & (q != q)))
        v[j] = a
        pv[j] = a
    return lost


@row
def _move_backwards(pv: Array, w: Array, v: Array, out: Array) -> None:
    for j in range(out.shape[0]):
        a = pv[j]
        clear = w[j] == CLEAR
        b = a if clear else v[j]
        v[j] = b
        r = a + (b - a) * w[j]
        r = r if r == r else (a if a == a else b)
        r = a if clear else r
        out[j] = encode(r, out)


@inlined
def _times(
    valid: Array,
    s: Array,
    p0: int,
    n: int,
    t: Array,
    pt: Array,
    w: Array,
    codes: Array,
    flag: Array,
) -> None:
    past(valid, s, p0, n, t, pt)
    t[:] = FAR
    for i in range(len(s) - 1, -1, -1):
        _weigh(piece(pt, (i, 0), n), s[i], piece(t, (0,), n), piece(w, (i, 0), n))
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            a, b = piece(w, (i, j), m), piece(pt, (i, j), m)
            _code(a, b, piece(t, (j,), m), codes, piece(flag, (i, y, x), m))
            j += m


@inlined
def _values(
    at: Array, to: Array, size: int, valid: Array, p0: int, n: int, v: Array, pv: Array, w: Array
) -> int:
    """One band: `at` and `to` are the address and the strides of time and y, in bytes."""
    count, lost = valid.shape[0], 0
    v[:] = NAN
    for i in range(count):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            here = at[0] + i * at[1] + y * at[2] + x * size
            if i + 1 < count:
                fetch(row_at(here + at[1], m * size, np.bool_))
            c, a, b = piece(valid, (i, y, x), m), piece(v, (j,), m), piece(pv, (i, j), m)
            if size == COUNT:
                lost += _move_forwards(row_at(here, m, np.int16), c, a, b)
            else:
                lost += _move_forwards(row_at(here, m, np.float32), c, a, b)
            j += m
    v[:] = NAN
    for i in range(count - 1, -1, -1):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            here = to[0] + i * to[1] + y * to[2] + x * size
            if i > 0:
                fetch(row_at(here - to[1], m * size, np.bool_))
            a, b, c = piece(pv, (i, j), m), piece(w, (i, j), m), piece(v, (j,), m)
            if size == COUNT:
                _move_backwards(a, b, c, row_at(here, m, np.int16))
            else:
                _move_backwards(a, b, c, row_at(here, m, np.float32))
            j += m
    return lost


@kernel(
    ADDRESSES, ADDRESSES, types.int64, VALID, SECONDS, CODES, ROOM, TIMES,
    types.Array(types.uint8, 3, "A"), LOST, gives=types.void,
)  # fmt: skip
def lines(
    bands: Array, outs: Array, size: int, valid: Array, s: Array, codes: Array, room: Array,
    times: Array, flag: Array, lost: Array,
) -> None:  # fmt: skip
    """Fills every output and the flags, on the dates given.

    Rows of `bands` and `outs` are addresses and the strides of time and y; x has unit stride.
    `size` are the bytes of a value: one function for both types of data. `codes` are of observed,
    between, before the first, after the last, never clear. It works in `room (3, dates, width)` and
    `times (dates + 1, width)`. `lost`, 0 at first, gets the clear values of each band that hold no
    data: where it is not 0, that band is wrong.
    """
    pixels, width = valid.shape[1] * valid.shape[2], times.shape[1]
    pv, w, v, t = room[0], room[1], room[2, 0], times[len(s)]
    p0 = 0
    while p0 < pixels:
        n = width if p0 + width < pixels else pixels - p0
        _times(valid, s, p0, n, t, times, w, codes, flag)
        for b in range(bands.shape[0]):
            lost[b] += _values(bands[b], outs[b], size, valid, p0, n, v, pv, w)
        p0 += n


# ------------------------------------------------------------------ methods


@dataclass(frozen=True)
class _Scan(Classic):
    """A method of the kernel `scan`."""

    mode: ClassVar[int]

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        args = (band, valid, axes.s, axes.so, axes.lo, self.mode, TILE, out)
        return int(scan(band.dtype, *args))


@dataclass(frozen=True)
class Nearest(_Scan):
    """Gaps take the clear observation nearest in time; the earlier one where two are as near.

    Examples
    --------
    >>> Nearest(max_gap=60).complete
    False
    """

    mode: ClassVar[int] = NEAREST


@dataclass(frozen=True)
class Last(_Scan):
    """Gaps take the last clear observation before them; nothing is known before the first.

    Looks at the past only, as a forecaster does; not complete for that reason.
    """

    mode: ClassVar[int] = LAST
    holds: ClassVar[tuple[bool, bool]] = (False, True)


@dataclass(frozen=True)
class Next(_Scan):
    """Gaps take the next clear observation after them; nothing is known after the last."""

    mode: ClassVar[int] = NEXT
    holds: ClassVar[tuple[bool, bool]] = (True, False)


@dataclass(frozen=True)
class Linear(_Scan):
    """Linear interpolation between the clear observations beside a gap, in real days.

    Before the first and after the last clear observation its value is held.

    Examples
    --------
    >>> Linear(max_gap=60, max_extrapolate=10).flag.name
    'INTERPOLATED'
    """

    mode: ClassVar[int] = LINEAR

    def curves(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> tuple[Codes, list[int]]:
        """Flags and all bands in one pass on the dates given."""
        if not axes.same:
            return super().curves(bands, valid, axes, outs)
        flag, lost = self._lines(bands, valid, axes, outs)
        for i in map(int, np.flatnonzero(lost)):
            super().curve(bands[i], valid, axes, outs[i])
        return flag if self.complete else self.flags(valid, axes), lost.tolist()

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """That of one band, by the same kernel: no second one is compiled where one will do."""
        lost = self._lines([band], valid, axes, [out])[1][0] if axes.same else 1
        return super().curve(band, valid, axes, out) if lost else 0

    def _lines(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> tuple[Codes, Array]:
        """Fills `outs`; gives the flags, and the clear values of each band that held no data."""
        flag, lost = np.empty(valid.shape, np.uint8), np.zeros(len(bands), np.int64)
        kind = bands[0].dtype
        at, to = addresses(bands), addresses(outs)
        room = np.empty((3, len(axes.s), TILE), np.float32)
        times = np.empty((len(axes.s) + 1, TILE), np.int32)
        lines(kind, at, to, kind.itemsize, valid, axes.s, FREE, room, times, flag, lost)
        return flag, lost


@dataclass(frozen=True)
class Linear2(_Scan):
    """Two-date linear formula of Decloud, applied per pixel; it never extrapolates.

    `a + (b - a) * (t - ta) / (tb - ta)` in float32, in this order of operations. The published
    baseline takes one earlier and one later image that are clear all over; here each pixel has
    its own two dates. Never extrapolates: gaps at the ends stay NaN.

    References
    ----------
    Cresson et al. (2022), Comparison of convolutional neural networks for cloudy optical images
    reconstruction from single or multitemporal joint SAR and optical images, ISPRS Archives XLIII.
    """

    mode: ClassVar[int] = LINEAR2
    holds: ClassVar[tuple[bool, bool]] = (False, False)
