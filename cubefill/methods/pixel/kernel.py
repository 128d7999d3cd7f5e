"""Pieces that every numba kernel is made of: rows of pixels, counts and reflectance, tiles.

A kernel walks a block in tiles of a few hundred pixels, time first, and works row by row: the
inner loops are free of branches and of reassociation, so that a pixel's answer is the same bits
whatever pixels stand beside it.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.event import Listener, install_listener
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from cubefill.cube.rows import in_rows
from cubefill.errors import MethodError
from cubefill.methods.contract import Counts

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("cubefill")

DAY = 86_400
EPOCH = np.datetime64("2020-01-01", "ns")

NAN = np.float32(np.nan)
FAR = np.int32(2**30)
"""Seconds that no axis reaches: the time of an observation that does not exist."""
NODATA = np.int16(Counts().nodata)
SCALE = np.float32(Counts().scale)
PER_UNIT = np.float32(1 / Counts().scale)
TOP = np.float32(32767)
BISQUARE = 4.685
"""Distance, in standard deviations, at which an observation loses all weight (95 % efficiency)."""
MAD = 1.4826
"""Standard deviations in a median absolute distance."""
FLOOR = 1e-4
"""Reflectance below which distances are rounding, not outliers."""
LINE = 64
"""Bytes of a cache line."""
COUNT = NODATA.itemsize
"""Bytes of a count."""
AHEAD = 4
"""Dates between asking for a row and using it."""


_njit: Any = njit  # its types know none of these options
_PLAIN: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def row(function: F) -> F:
    """A function for the inside of kernels: IEEE arithmetic to the letter, no Python checks.

    It cannot be called from Python: what that needs takes an eighth of the time to compile it.
    """
    return cast(F, _njit(**_PLAIN, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def inlined(function: F) -> F:
    """`row` for what a kernel calls in one place: it becomes part of the caller.

    Compiled by itself and then again within its caller it took half as long again. Loops over
    pixels that several places share stay a `row`.
    """
    return cast(F, _njit(**_PLAIN, inline="always")(function))


@row
def copied(values: Array, count: int, out: Array) -> None:
    """`out` begins with the first `count` values.

    A loop, because numba takes seconds to compile what `out[:count] = ...` says of odd shapes.
    """
    for j in range(count):
        out[j] = values[j]


class Kernel:
    """A compiled function with one signature per type of data, kept on disk between processes.

    Compiled (or read from disk) when it is first called. The files lie beside the source, in the
    user's cache folder where that cannot be written, and nowhere where neither can.
    """

    def __init__(self, function: Callable[..., Any], signature: Callable[[Any], Any]) -> None:
        self._signature = signature
        self._made = {t: _dispatcher(function) for t in ("float32", "int16")}
        self._ready: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, dtype: "np.dtype[Any]", *args: Any) -> Any:
        """The function's answer for blocks of `dtype`, float32 or int16.

        Raises
        ------
        MethodError
            Another type, or a block whose rows the kernel would misread.
        """
        check_rows(a for a in args if isinstance(a, np.ndarray) and a.ndim == 3)
        if dtype not in (np.float32, np.int16):
            raise MethodError(
                f"The block holds {dtype}: expected float32, or int16 counts. Use "
                "band.astype('float32'), or give the cube to gapfill, which converts."
            )
        return (self._ready.get(dtype.name) or self._get(dtype.name))(*args)

    def stats(self) -> dict[str, int]:
        """How many signatures were read from disk and how many were compiled."""
        made = [d.stats for d in self._made.values()]
        return {
            "hits": sum(sum(s.cache_hits.values()) for s in made),
            "misses": sum(sum(s.cache_misses.values()) for s in made),
        }

    def _get(self, name: str) -> Any:
        with self._lock:
            if name not in self._ready:
                made = self._made[name]
                with install_listener("numba:compile", SAID):
                    made.compile(self._signature(getattr(types, name)))
                made.disable_compile()
                self._ready[name] = made
        return self._ready[name]


class _SaidOnce(Listener):
    """Says that kernels are compiled, the first time that this process compiles one."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        """Says so; kernels that are read from disk do not get here."""
        if not self.said:
            self.said = True
            log.info("Compiling kernels, once. `cubefill doctor --warm` does it ahead.")

    def on_end(self, event: Any) -> None:
        """Nothing."""


SAID = _SaidOnce()


def check_rows(arrays: Iterable[Array]) -> None:
    """Refuses arrays whose pixels along x do not lie side by side: kernels step by one value.

    Raises
    ------
    MethodError
        The strides of the array, and how to get one that is right.
    """
    for a in arrays:
        if a.size and not in_rows(a):
            raise MethodError(
                f"A block holds an array {a.shape} of {a.dtype.str} with strides {a.strides}: "
                "expected native values side by side along x. Use numpy.ascontiguousarray(array), "
                "or give the cube to gapfill, which takes any layout."
            )


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


def kernel(*kinds: Any, gives: Any = types.int64) -> Callable[[Callable[..., Any]], Kernel]:
    """Turns a function into a `Kernel`; `kinds` are the numba types of its arguments.

    "band" and "out" stand for `(time, y, x)` views of the block's type of data, of which only
    "out" may be written to; "like" for a row that shows that type.
    """

    def signature(dtype: Any) -> Any:
        by_data = {
            "band": types.Array(dtype, 3, "A", readonly=True),
            "out": types.Array(dtype, 3, "A"),
            "like": types.Array(dtype, 1, "C", readonly=True),
        }
        return gives(*(by_data[kind] if isinstance(kind, str) else kind for kind in kinds))

    return lambda function: Kernel(function, signature)


def _dispatcher(function: Callable[..., Any]) -> Any:
    try:
        made: Any = _njit(**_PLAIN, no_cfunc_wrapper=True, cache=True)(function)
    except RuntimeError:
        log.info("No folder for compiled kernels can be written: set NUMBA_CACHE_DIR to one.")
        return _njit(**_PLAIN, no_cfunc_wrapper=True)(function)
    file: Any = getattr(made._cache, "_cache_file", None)
    if hasattr(file, "_source_stamp"):
        file._source_stamp = (file._source_stamp, SOURCES)
    return made


def _digest() -> str:
    """One of all modules beside this: numba by itself looks at the file of the kernel only."""
    try:
        files = sorted(Path(__file__).parent.glob("*.py"))
        return sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    except OSError:
        return ""


SOURCES = _digest()


VALID = types.Array(types.boolean, 3, "A", readonly=True)
SECONDS = types.Array(types.int32, 1, "C", readonly=True)
INDEX = types.Array(types.int64, 1, "C", readonly=True)
DAYS = types.Array(types.float64, 1, "C", readonly=True)
CODES = types.Array(types.uint8, 1, "C", readonly=True)
TABLE = types.Array(types.float64, 2, "C", readonly=True)
TABLES = types.Array(types.float64, 3, "C", readonly=True)
ADDRESSES = types.Array(types.int64, 2, "C", readonly=True)
LOST = types.Array(types.int64, 1, "C")
ROOM = types.Array(types.float32, 3, "C")
"""Rows that a kernel works in: arrays made in kernels take long to compile."""
ROOM64 = types.Array(types.float64, 3, "C")
TIMES = types.Array(types.int32, 2, "C")


def _as_row(typing: Any, a: Any) -> Any:  # the parameters' names are numba's business
    """The same 1-D array, known to the compiler to have unit stride."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return impl_ret_borrowed(context, builder, signature.return_type, args[0])

    return types.Array(a.dtype, 1, "C", readonly=not a.mutable)(a), code


def _prefetch(typing: Any, a: Any, k: Any) -> Any:
    """Asks for the cache line of element `k`; the hardware stops at the end of each row."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(call, [pointer, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(a, k), code


def _piece(typing: Any, a: Any, at: Any, n: Any) -> Any:
    """The `n` elements of a row from index `at`, a tuple; the caller holds `a` meanwhile.

    What numba makes of `a[i, y, x : x + n]` takes several times as long to compile. Its type does
    not say that `a` is read-only, so that what is called with it is compiled once.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole, index, _ = signature.args
        array = context.make_array(whole)(context, builder, args[0])
        places = [
            context.cast(builder, place, kind, types.intp)
            for place, kind in zip(cgutils.unpack_tuple(builder, args[1]), index, strict=True)
        ]
        data = cgutils.get_item_pointer(context, builder, whole, array, places)
        return _made_row(context, builder, signature.return_type, data, args[2])

    return types.Array(a.dtype, 1, "C")(a, at, types.int64), code


def _made_row(context: Any, builder: Any, kind: Any, data: Any, n: Any) -> Any:
    made = context.make_array(kind)(context, builder)
    item = ir.Constant(ir.IntType(64), context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    populate_array(made, data=data, shape=[n], strides=[item], itemsize=item, meminfo=None)
    return made._getvalue()


def _row_at(typing: Any, address: Any, n: Any, like: Any) -> Any:
    """The 1-D array of `n` elements at an address, of the type of data of `like`, or that type."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        data = builder.inttoptr(args[0], context.get_data_type(kind.dtype).as_pointer())
        return _made_row(context, builder, kind, data, args[1])

    return types.Array(like.dtype, 1, "C")(types.int64, types.int64, like), code


as_row: Any = intrinsic(_as_row)
prefetch: Any = intrinsic(_prefetch)
row_at: Any = intrinsic(_row_at)
piece: Any = intrinsic(_piece)


@row
def fetch(a: Array) -> None:
    """Asks for a whole row ahead of its use."""
    for j in range(0, a.shape[0], LINE // a.itemsize):
        prefetch(a, j)


def decode(q: Any) -> Any:
    """Reflectance of a stored value: counts are scaled, reflectance passes."""
    raise NotImplementedError


def encode(v: Any, out: Array) -> Any:
    """What is stored in `out` for reflectance `v`."""
    raise NotImplementedError


def _decode(q: Any) -> Any:
    if isinstance(q, types.Float):
        return lambda q: q
    return lambda q: NAN if q == NODATA else np.float32(q) * SCALE


def _encode(v: Any, out: Any) -> Any:
    if isinstance(out.dtype, types.Float):
        return lambda v, out: v

    def counts(v: Any, out: Array) -> Any:
        c = v * PER_UNIT
        c = TOP if c > TOP else c
        c = -TOP if c < -TOP else c
        c = c if c == c else np.float32(NODATA)
        return np.int16(np.int32(np.rint(c)))

    return counts


overload(decode, strict=False)(_decode)
overload(encode, strict=False)(_encode)


@inlined
def reach(p: int, left: int, width: int) -> tuple[int, int, int]:
    """Row, column and length of the run that starts at pixel `p` of a block `width` pixels wide."""
    y = p // width
    x = p - y * width
    return y, x, min(width - x, left)


@row
def load_row(band: Array, valid: Array, s: Array) -> Any:
    """One row of `load`."""
    lost = np.int32(0)
    for j in range(s.shape[0]):
        v = decode(band[j])
        s[j] = v if valid[j] else NAN
        lost = np.int32(lost + np.int32(valid[j] & (v != v)))
    return lost


@inlined
def load(band: Array, valid: Array, p0: int, n: int, s: Array) -> int:
    """Copies `n` pixels into `s (time, pixel)`, NaN in gaps; counts clear values without data."""
    lost = 0
    for i in range(band.shape[0]):
        j = 0
        while j < n:
            y, x, m = reach(p0 + j, n - j, band.shape[2])
            if i + AHEAD < band.shape[0]:
                fetch(piece(band, (i + AHEAD, y, x), m))
                fetch(piece(valid, (i + AHEAD, y, x), m))
            b, c = piece(band, (i, y, x), m), piece(valid, (i, y, x), m)
            lost += load_row(b, c, piece(s, (i, j), m))
            j += m
    return lost


@row
def store_row(r: Array, out: Array) -> None:
    """One row of `store`."""
    for j in range(out.shape[0]):
        out[j] = encode(r[j], out)


@inlined
def store(r: Array, k: int, p0: int, n: int, out: Array) -> None:
    """Writes the row `r` of `n` pixels to step `k` of the output."""
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, out.shape[2])
        if k + AHEAD < out.shape[0]:
            fetch(piece(out, (k + AHEAD, y, x), m))
        store_row(piece(r, (j,), m), piece(out, (k, y, x), m))
        j += m


@inlined
def give(s: Array, r: Array, k: int, keep: bool, p0: int, n: int, out: Array) -> None:
    """`store`, after the observations of step `k` of `s` are put back into `r` if they are kept."""
    if keep:
        for j in range(r.shape[0]):
            r[j] = s[k, j] if s[k, j] == s[k, j] else r[j]
    store(r, k, p0, n, out)


@row
def rounded(a: Array, r: Array) -> None:
    """A row of float64 as float32."""
    for j in range(r.shape[0]):
        r[j] = np.float32(a[j])


@row
def span(s: Array, low: Array, high: Array) -> None:
    """Lowest and highest observation of each pixel of `s (time, pixel)`."""
    low[:] = np.inf
    high[:] = -np.inf
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            low[j] = s[i, j] if s[i, j] < low[j] else low[j]
            high[j] = s[i, j] if s[i, j] > high[j] else high[j]


@row
def within(r: Array, low: Array, high: Array) -> None:
    """Holds a row of the curve within the range of the observations."""
    for j in range(r.shape[0]):
        r[j] = low[j] if r[j] < low[j] else r[j]
        r[j] = high[j] if r[j] > high[j] else r[j]


@row
def weigh_clear(valid: Array, w: Array) -> None:
    """Weight 1 where a row is clear, else 0."""
    for j in range(w.shape[0]):
        w[j] = 1.0 if valid[j] else 0.0


@row
def middle(a: Array, n: int) -> float:
    """The lower median of the first `n` values, which it reorders."""
    k = (n - 1) // 2
    lo, hi = 0, n - 1
    while lo < hi:
        pivot = a[(lo + hi) // 2]
        i, j = lo, hi
        while i <= j:
            while a[i] < pivot:
                i += 1
            while a[j] > pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if k <= j:
            hi = j
        elif k >= i:
            lo = i
        else:
            break
    return float(a[k])


@row
def bisquare(s: Array, y: Array, w: Array, work: Array) -> None:
    """Weights `w (time, pixel)` of the observations `s`, from their distance to the curve `y`."""
    count = s.shape[0]
    for j in range(s.shape[1]):
        n = 0
        for i in range(count):
            if s[i, j] == s[i, j]:
                work[n] = abs(np.float64(s[i, j]) - y[i, j])
                n += 1
        reach = BISQUARE * max(MAD * middle(work, n), FLOOR) if n > 0 else 1.0
        for i in range(count):
            u = (np.float64(s[i, j]) - y[i, j]) / reach
            near = (1.0 - u * u) * (1.0 - u * u)
            w[i, j] = near if abs(u) < 1.0 else 0.0
