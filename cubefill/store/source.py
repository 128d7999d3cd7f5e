"""Where values of a cube come from: a stored array or one in memory, read window by window."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from cubefill.addresses import bare, local, local_path, unopened
from cubefill.cube.counts import Counts, Encoding, decode
from cubefill.errors import StoreError

Index = tuple[slice, ...]
StoreLike = str | Store
"""A store as cubefill keeps it: an absolute path, a URL, or a zarr store."""

GROUP = "cubefill_job"
"""Name of the group in a store that keeps the record of finished tiles."""

UNTRACKED = "once-"
"""Beginning of a word for values of which nothing tells whether they are still the same."""

_OPEN_ARRAYS = 512


@runtime_checkable
class Source(Protocol):
    """What a window of one variable can be read from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of decoded values."""

    @property
    def counts(self) -> Counts | None:
        """How raw int16 counts stand for values; None where there are none."""

    def read(self, index: Index) -> NDArray[Any]:
        """Decoded values of a window."""


@dataclass(frozen=True)
class StoreSource:
    """One array of a zarr store; pickles to a path and a name, never to data.

    `read` gives what the CF attributes say, in float32 arithmetic: `np.float32(count) *
    np.float32(scale)`, NaN where the count is `nodata`. Arrays are opened once per process.
    """

    store: StoreLike
    """Absolute path, URL, or zarr store."""
    name: str
    """Path of the array in the store."""
    shape: tuple[int, ...]
    """Lengths of the axes."""
    dtype: np.dtype[Any]
    """Type of decoded values: float32, bool, uint8, or another integer as it is stored."""
    stored: np.dtype[Any]
    """Type on disk."""
    chunks: tuple[int, ...]
    """Smallest window that can be decoded by itself."""
    shards: tuple[int, ...] | None = None
    """Smallest window that can be written by itself, where it is larger than a chunk."""
    scale: float | None = None
    """Value of one count; None where values are stored as they are."""
    offset: float = 0.0
    """Value of count 0 (never other than 0 in what cubefill writes)."""
    nodata: float | None = None
    """Stored number that stands for no data; None where NaN or nothing does."""
    identity: str = field(default_factory=lambda: uuid4().hex)
    """Changes when the content of the store does, as far as one can tell."""
    recorded: tuple[int | None, int | None, int] | None = None
    """Axes y and x and the edge of the tiles that the store keeps a record of, where it does."""

    @property
    def counts(self) -> Counts | None:
        """How int16 counts stand for values; None where the array holds something else."""
        if self.scale is None or self.nodata is None or self.offset:
            return None
        if self.stored != np.int16:
            return None
        return Counts(self.scale, int(self.nodata))

    def read(self, index: Index) -> NDArray[Any]:
        """Decoded values of a window, as an array of its own.

        Examples
        --------
        >>> import numpy as np, zarr
        >>> memory = zarr.storage.MemoryStore()
        >>> a = zarr.create_array(memory, name="B04", data=np.array([[1200, -32768]], np.int16))
        >>> source = StoreSource(memory, "B04", a.shape, np.dtype("f4"), a.dtype, a.chunks,
        ...                      scale=1e-4, nodata=-32768)
        >>> source.read((slice(0, 1), slice(0, 2)))
        array([[0.12,  nan]], dtype=float32)
        """
        how = Encoding(self.stored, self.dtype, self.scale, self.nodata, offset=self.offset)
        return decode(self.read_counts(index), how)

    def read_counts(self, index: Index) -> NDArray[Any]:
        """Values of a window as they are stored: int16 counts where `counts` is set."""
        try:
            array = _opened(self)
            counts = np.asarray(array[index])
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{self.name} of {describe(self.store)} cannot be read at {_window(index)}: "
                f"{error} Expected readable chunks; write that part again (overwrite=True)."
            ) from error
        if self.recorded is not None:
            _refuse_lost(self, array, index, counts)
        return counts

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """Same array of the same store: same token."""
        return ("cubefill.StoreSource", str(self.store), self.name, self.identity)


@dataclass(frozen=True, eq=False)
class _Values:
    """Values that this process holds or knows how to get; they stand for themselves."""

    array: Any
    """The values, or the variable that gives them."""
    identity: str = field(default_factory=lambda: uuid4().hex)
    """Unlike that of any other source."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of decoded values."""
        found: np.dtype[Any] = self.array.dtype
        return found

    @property
    def counts(self) -> Counts | None:
        """None: values are decoded already."""
        return None

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """A token of this object alone: values are not hashed."""
        return (f"cubefill.{type(self).__name__}", self.identity)


class ArraySource(_Values):
    """An array in memory; `read` gives read-only views of it."""

    def read(self, index: Index) -> NDArray[Any]:
        """A read-only view of a window."""
        view: NDArray[Any] = self.array[index].view()
        view.flags.writeable = False
        return view


class LazySource(_Values):
    """A variable that xarray opened from a file without dask; each window is read anew."""

    def read(self, index: Index) -> NDArray[Any]:
        """Decoded values of a window."""
        return np.asarray(self.array[index].values)


def as_dask(source: Source, chunks: Sequence[int | tuple[int, ...]]) -> Any:
    """A dask array of a source: one task a chunk, each reads its own window.

    `find` recognises the array as long as nothing was done to it.
    """
    import dask.array
    from dask.base import tokenize

    da: Any = dask.array
    chunks = da.core.normalize_chunks(tuple(chunks), source.shape, dtype=source.dtype)
    name = f"cubefill-source-{tokenize(source, chunks)}"
    source = _REGISTRY.setdefault(name, source)
    return da.from_array(
        _Reader(source),
        chunks=chunks,
        name=name,
        asarray=True,
        fancy=False,
        inline_array=True,
        meta=np.empty((0,) * len(source.shape), source.dtype),
    )


def find(variable: xr.Variable | xr.DataArray) -> Source | None:
    """The source of a variable's values, or None where only its graph can give them.

    A dask array counts only when `as_dask` made it in this process and nothing was done to it
    since: slicing, arithmetic and rechunking change its name. Values in memory give an
    `ArraySource`.
    """
    plain = variable.variable if isinstance(variable, xr.DataArray) else variable
    if not plain._in_memory and plain.chunks is None:
        return LazySource(plain)
    data = plain.data
    if isinstance(data, np.ndarray):
        return ArraySource(data)
    found = _REGISTRY.get(getattr(data, "name", ""))
    if found is None or found.shape != data.shape or found.dtype != data.dtype:
        return None
    return found


def source_named(name: str) -> Source | None:
    """The source that a layer of a graph reads, where `as_dask` made it in this process."""
    return _REGISTRY.get(name)


def sources_of(cube: xr.Dataset | xr.Variable) -> list[Source]:
    """Every source that `as_dask` put into the graph of a cube, through any operation."""
    graph: Any = cube.__dask_graph__()
    layers = getattr(graph, "layers", graph) or {}
    return [s for name in layers if (s := _REGISTRY.get(name)) is not None]


def stores_of(cube: xr.Dataset) -> list[Any]:
    """Every store or file that a cube is read from, as far as its graph and xarray tell."""
    found: list[Any] = [s.store for s in sources_of(cube) if isinstance(s, StoreSource)]
    encodings = [cube.encoding, *(v.encoding for v in cube.variables.values())]
    named = [e.get("source") for e in encodings]
    found += [name for name in named if isinstance(name, str)]
    for variable in cube.variables.values():
        source = variable._data if not variable._in_memory else None
        layers = getattr(getattr(source, "dask", None), "layers", {})
        arrays = [v for n in layers if n.startswith("original-") for v in layers[n].values()]
        found += [s for a in (source, *arrays) if (s := _store_under(a)) is not None]
    return found


def _store_under(array: Any) -> Store | None:
    """The zarr store below the wrappers that xarray and dask put around an array."""
    while array is not None and not isinstance(array, zarr.Array):
        inner = (getattr(array, n, None) for n in ("array", "_array", "value"))
        array = next((a for a in inner if a is not None and a is not array), None)
    return None if array is None else array.store


def place(target: Any, storage_options: Mapping[str, Any] | None = None) -> StoreLike:
    """A store as cubefill keeps it: absolute path, URL, or the zarr store itself.

    Raises
    ------
    StoreError
        `target` is none of these, a URL that no installed package opens, or storage options came
        with something that takes none.
    """
    if isinstance(target, LocalStore) and not target.read_only:
        return str(Path(target.root).absolute())
    if isinstance(target, Store):
        return target
    if not isinstance(target, str | os.PathLike):
        raise StoreError(
            f"Expected a store (a path, a URL or a zarr store), got {type(target).__name__}."
        )
    text = local(os.fspath(target))
    if "://" in text:
        try:
            return FsspecStore.from_url(text, storage_options=dict(storage_options or {}))
        except Exception as error:  # each kind of store has classes of its own
            raise unopened(text, error) from error
    if storage_options:
        raise StoreError(
            f"storage_options came with the path {text!r}: expected a URL such as "
            "'s3://bucket/cube.zarr'."
        )
    return str(local_path(text).absolute())


def describe(store: StoreLike) -> str:
    """A short name of a store for messages; holds no credentials."""
    if isinstance(store, str):
        return store
    inner = getattr(store, "path", None) or getattr(store, "root", None)
    return f"{type(store).__name__}({bare(str(inner))})" if inner else type(store).__name__


class _Reader:
    """The face that dask's slicing wants; integers and steps reach zarr unchanged."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = source.shape
        self.dtype = source.dtype
        self.ndim = len(source.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.source.read(index)

    def __dask_tokenize__(self) -> tuple[str, Any]:
        return ("cubefill._Reader", self.source)


_REGISTRY: "weakref.WeakValueDictionary[str, Source]" = weakref.WeakValueDictionary()
_ARRAYS: "OrderedDict[tuple[Any, ...], tuple[StoreLike, zarr.Array[Any]]]" = OrderedDict()
_LOCK = threading.Lock()


def _opened(source: StoreSource) -> "zarr.Array[Any]":
    known = source.store if isinstance(source.store, str) else id(source.store)
    key = (known, source.name, source.identity)
    with _LOCK:
        if key in _ARRAYS:
            _ARRAYS.move_to_end(key)
            return _ARRAYS[key][1]
    array = zarr.open_array(source.store, path=source.name, mode="r")
    with _LOCK:
        _ARRAYS[key] = (source.store, array)
        while len(_ARRAYS) > _OPEN_ARRAYS:
            _ARRAYS.popitem(last=False)
    return array


def _refuse_lost(
    source: StoreSource, array: "zarr.Array[Any]", index: Any, counts: NDArray[Any]
) -> None:
    """Raises StoreError where a chunk is absent that the store's record says was written.

    We write every chunk, so only a part that holds nothing but the fill value is looked after.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = (*parts, *(slice(None),) * (array.ndim - len(parts)))
    at = [np.atleast_1d(np.arange(n)[p]) for n, p in zip(array.shape, parts, strict=True)]
    counts, unit = counts.reshape([len(a) for a in at]), array.shards or array.chunks
    blocks = [np.unique(a // u) for a, u in zip(at, unit, strict=True)]
    for block in product(*(b.tolist() for b in blocks)):
        inside = [a // u == b for a, u, b in zip(at, unit, block, strict=True)]
        first = counts[tuple(int(np.argmax(i)) for i in inside)]
        if not _is_fill(first, array) or not _is_fill(counts[np.ix_(*inside)], array):
            continue
        key = f"{array.path}/{array.metadata.encode_chunk_key(block)}"
        if not _holds(array.store, key) and _is_done(source, unit, block):
            window = tuple(
                slice(b * u, min(b * u + u, n))
                for b, u, n in zip(block, unit, array.shape, strict=True)
            )
            raise StoreError(
                f"{describe(source.store)} has lost {key}: expected it, since {source.name} at "
                f"{_window(window)} is recorded as written. Restore that chunk, or write the "
                "store again (overwrite=True)."
            )


def _holds(store: Store, key: str) -> bool:
    """True where a store has bytes under a key: a file cut to nothing reads as a chunk of fill."""
    return sync(store.exists(key)) and sync(store.getsize(key)) > 0


def _is_fill(values: Any, array: "zarr.Array[Any]") -> bool:
    fill = 0 if array.fill_value is None else array.fill_value
    return bool(np.all(np.isnan(values) if fill != fill else values == fill))


def _is_done(source: StoreSource, unit: tuple[int, ...], block: tuple[int, ...]) -> bool:
    """True where the tile that holds a chunk is recorded as written."""
    y, x, edge = source.recorded or (None, None, 1)
    row, column = (0 if a is None else block[a] * unit[a] // edge for a in (y, x))
    return bool(zarr.open_array(source.store, path=f"{GROUP}/done", mode="r")[row, column])


def _window(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ", ".join(f"{p.start}:{p.stop}" if isinstance(p, slice) else str(p) for p in parts)
