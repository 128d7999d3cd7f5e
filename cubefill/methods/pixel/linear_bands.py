"""The straight line through all bands of a block at once.

When a pixel was clear is the same for every band: times and weights of a tile are found once, and
each band then moves its values only. The arithmetic is that of the kernel `scan`, bit for bit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from cubefill.errors import MethodError
from cubefill.methods.pixel.kernel import (
    FAR,
    NAN,
    SECONDS,
    VALID,
    Array,
    as_row,
    check_rows,
    cube_type,
    decode,
    encode,
    fetch,
    kernel,
    reach,
    row,
)

CLEAR = np.float32(-2)
"""Weight that stands for a clear observation; those of gaps are above -1."""


def addresses(arrays: Sequence[Array]) -> Array:
    """Address and strides of time and y of each array, in bytes; all of one type.

    Raises
    ------
    MethodError
        A kernel that goes to these addresses would misread an array.
    """
    check_rows(arrays)
    types_of = {a.dtype for a in arrays}
    if len(types_of) > 1:
        raise MethodError(
            f"The bands of a block hold {' and '.join(sorted(map(str, types_of)))}: expected one "
            "type, float32 or int16. Use band.astype('float32')."
        )
    return np.array([[a.ctypes.data, a.strides[0], a.strides[1]] for a in arrays], np.int64)


def _row_at(typing: Any, address: Any, n: Any, like: Any) -> Any:
    """The 1-D array of `n` elements at an address, of the type of data of `like`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        made = context.make_array(kind)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        item = ir.Constant(ir.IntType(64), size)
        data = builder.inttoptr(args[0], context.get_data_type(kind.dtype).as_pointer())
        populate_array(
            made, data=data, shape=[args[1]], strides=[item], itemsize=item, meminfo=None
        )
        return made._getvalue()

    return types.Array(like.dtype, 1, "C")(types.int64, types.int64, like), code


row_at: Any = intrinsic(_row_at)


@row
def _last(valid: Array, day: Any, t: Array, pt: Array) -> None:
    for j in range(valid.shape[0]):
        b = day if valid[j] else t[j]
        t[j] = b
        pt[j] = b


@row
def _weigh(pt: Array, day: Any, t: Array, w: Array) -> None:
    for j in range(w.shape[0]):
        past = pt[j]
        clear = past == day
        c = day if clear else t[j]
        t[j] = c
        r = np.float32(np.int32(day - past)) / np.float32(np.int32(c - past))
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
def _forwards(band: Array, valid: Array, v: Array, pv: Array) -> Any:
    lost = np.int32(0)
    for j in range(band.shape[0]):
        q = decode(band[j])
        a = q if valid[j] else v[j]
        lost = np.int32(lost + np.int32(valid[j] & (q != q)))
        v[j] = a
        pv[j] = a
    return lost


@row
def _backwards(pv: Array, w: Array, v: Array, out: Array) -> None:
    for j in range(out.shape[0]):
        a = pv[j]
        clear = w[j] == CLEAR
        b = a if clear else v[j]
        v[j] = b
        r = a + (b - a) * w[j]
        r = r if r == r else (a if a == a else b)
        r = a if clear else r
        out[j] = encode(r, out)


@row
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
    t[:] = -FAR
    for i in range(len(s)):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            if i + 1 < len(s):
                fetch(as_row(valid[i + 1, y, x : x + m]))
            _last(as_row(valid[i, y, x : x + m]), s[i], t[j : j + m], pt[i, j : j + m])
            j += m
    t[:] = FAR
    for i in range(len(s) - 1, -1, -1):
        _weigh(pt[i, :n], s[i], t[:n], w[i, :n])
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            e = j + m
            _code(w[i, j:e], pt[i, j:e], t[j:e], codes, as_row(flag[i, y, x : x + m]))
            j += m


@row
def _values(
    at: Array, to: Array, like: Array, valid: Array, p0: int, n: int, v: Array, pv: Array, w: Array
) -> int:
    """One band: `at` and `to` are the address and the strides of time and y, in bytes."""
    count, size, lost = valid.shape[0], like.itemsize, 0
    v[:] = NAN
    for i in range(count):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            here = at[0] + i * at[1] + y * at[2] + x * size
            if i + 1 < count:
                fetch(row_at(here + at[1], m, like))
            a = row_at(here, m, like)
            c, e = as_row(valid[i, y, x : x + m]), j + m
            lost += _forwards(a, c, v[j:e], pv[i, j:e])
            j += m
    v[:] = NAN
    for i in range(count - 1, -1, -1):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, valid.shape[2])
            here = to[0] + i * to[1] + y * to[2] + x * size
            if i > 0:
                fetch(row_at(here - to[1], m, like))
            e = j + m
            _backwards(pv[i, j:e], w[i, j:e], v[j:e], row_at(here, m, like))
            j += m
    return lost


def _signature(dtype: Any) -> Any:
    table = types.Array(types.int64, 2, "C", readonly=True)
    codes = types.Array(types.uint8, 1, "C", readonly=True)
    return types.void(
        table, table, types.Array(dtype, 1, "C", readonly=True), VALID, SECONDS, codes, types.int64,
        cube_type(types.uint8, out=True), types.Array(types.int64, 1, "C"),
    )  # fmt: skip


@kernel(_signature)
def lines(
    bands: Array, outs: Array, like: Array, valid: Array, s: Array, codes: Array, width: int,
    flag: Array, lost: Array,
) -> None:  # fmt: skip
    """Fills every output and the flags, on the dates given.

    Rows of `bands` and `outs` are addresses and the strides of time and y; x has unit stride.
    `codes` are of observed, between, before the first, after the last, never clear. `lost` gets
    the clear values of each band that hold no data: where it is not 0, that band is wrong.
    """
    pixels = valid.shape[1] * valid.shape[2]
    pv = np.empty((len(s), width), np.float32)
    w = np.empty((len(s), width), np.float32)
    pt = np.empty((len(s), width), np.int32)
    v = np.empty(width, np.float32)
    t = np.empty(width, np.int32)
    lost[:] = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        _times(valid, s, p0, n, t, pt, w, codes, flag)
        for b in range(bands.shape[0]):
            lost[b] += _values(bands[b], outs[b], like, valid, p0, n, v, pv, w)
