"""What makes two jobs the same one: digests of the values that go in, wherever they come from."""

import hashlib
import json
import os
import re
import weakref
import zipfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import dask
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from dask.blockwise import Blockwise
from zarr.core.sync import sync

from cubefill.cube import transform_of
from cubefill.machine import cores
from cubefill.ownership import ID, is_meta, marks, where
from cubefill.store.encoding import plain
from cubefill.store.ledger import RECORD
from cubefill.store.source import (
    UNTRACKED,
    ArraySource,
    LazySource,
    Source,
    StoreSource,
    find,
    source_named,
)
from cubefill.store.template import crs_attrs

_VOLATILE = re.compile(
    r"history|created|date_(created|modified)|clipped_values|rounded_to|(.*_)?versions?"
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_BLOCK = 2**24


class Held(Protocol):
    """What stands in a graph for a computation of ours."""

    def content(self) -> str:
        """A word that is equal for equal results."""


_COMPUTED: "weakref.WeakKeyDictionary[Held, dict[str, str]]" = weakref.WeakKeyDictionary()


def stands_for(layer: str, held: Held, output: str) -> None:
    """Notes that a layer of a graph is told by what `held` says of it, not by its tasks."""
    _COMPUTED.setdefault(held, {})[layer] = output


def fingerprint_of(ds: xr.Dataset, **asked: Any) -> dict[str, Any]:
    """What a cube holds, as far as one can tell without computing it, and what was asked of it.

    Grid, dates, variables and coordinates with their attributes and a digest of their values: of
    the bytes of what lies in memory, of the names, sizes and times of the files that a store or a
    file is made of, and of the operations of a lazy graph on these. What changes with every run or
    version (`history`, `created`, `*_version`), chunks and names of files are left out.
    """
    time = ds["time"].values.astype("datetime64[ns]") if "time" in ds.coords else np.empty(0, "M8")
    apart = ("time", "y", "x", "spatial_ref")
    return {
        "record": RECORD,
        "grid": {
            "shape": [ds.sizes["y"], ds.sizes["x"]],
            "transform": plain(transform_of(ds)),
            **crs_attrs(ds),
        },
        "time": {
            "steps": int(time.size),
            "first": str(time[0]) if time.size else "",
            "last": str(time[-1]) if time.size else "",
            "digest": digest(time.astype(np.int64)),
        },
        "variables": {str(n): _described(v.variable) for n, v in ds.data_vars.items()},
        "coordinates": {
            str(n): _described(c.variable) for n, c in ds.coords.items() if n not in apart
        },
        "attrs": _stable(ds.attrs),
        **asked,
    }


def _described(variable: xr.Variable) -> dict[str, Any]:
    return {
        "dims": [str(d) for d in variable.dims],
        "dtype": _type_of(variable.dtype),
        "attrs": _stable(variable.attrs),
        "content": content_of(variable),
    }


def _type_of(dtype: np.dtype[Any]) -> str:
    """The name of a type, whatever its byte order; numpy's own strings have none."""
    return str(dtype if dtype.kind == "T" else dtype.newbyteorder("="))


def content_of(variable: xr.Variable) -> str:
    """A word that is equal for equal values; one of its own where nothing tells what they are.

    Examples
    --------
    >>> a, b = (xr.Variable("x", np.arange(3)) for _ in range(2))
    >>> content_of(a) == content_of(b) != content_of(a + 1)
    True
    """
    try:
        source = find(variable)
        if source is not None:
            return _of_source(source)
        with dask.config.set({"tokenize.ensure-deterministic": True}):
            return _of_graph(variable.data)
    except Exception:  # whatever a foreign object raises while it is told from others
        return f"{UNTRACKED}{uuid4().hex}"


def digest(array: np.ndarray[Any, Any]) -> str:
    """Of the values of an array, whatever their layout and byte order in memory."""
    if array.dtype.hasobject or array.dtype.kind == "T":
        return _words(plain(array))
    array = np.atleast_1d(array).astype(array.dtype.newbyteorder("="), copy=False)
    rows = max(1, _BLOCK // max(1, array.nbytes // max(1, len(array))))
    parts = [array[i : i + rows] for i in range(0, len(array), rows)]
    if len(parts) == 1:
        return _words(array.shape, _sha(parts[0]))
    with ThreadPoolExecutor(cores()) as pool:
        return _words(array.shape, list(pool.map(_sha, parts)))


def _sha(part: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(part).view(np.uint8).data).hexdigest()


def _words(*words: Any) -> str:
    text = json.dumps(words, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stable(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    found = {k: v for k, v in plain(dict(attrs)).items() if not _VOLATILE.fullmatch(k)}
    return {k: _ADDRESS.sub("", v) if isinstance(v, str) else v for k, v in found.items()}


# ------------------------------------------------------------------ sources


def _of_source(source: Source) -> str:
    if isinstance(source, ArraySource):
        return digest(source.array)
    if isinstance(source, LazySource):
        return _words("file", _of_wrapped(source.array._data))
    if isinstance(source, StoreSource):
        how = (source.scale, source.offset, source.nodata, str(source.stored), str(source.dtype))
        return _words("store", how, source.shape, stored_content(source.store, source.name))
    return _deterministic(source)


def _of_wrapped(data: Any) -> list[Any]:
    """What xarray and dask put around an array of a file: each wrapper, and the array itself."""
    found: list[Any] = []
    while True:
        key, function = getattr(data, "key", None), getattr(data, "func", None)
        found.append([_deterministic(getattr(key, "tuple", key)), _deterministic(function)])
        if isinstance(data, zarr.Array):
            return [*found, stored_content(data.store, data.path)]
        inner = next((i for n in ("array", "_array") if (i := _inner(data, n)) is not None), None)
        if inner is None:
            return [*found, _of_file(data)]
        data = inner


def _inner(data: Any, name: str) -> Any:
    found = getattr(data, name, None)
    return None if found is data or isinstance(found, np.ndarray) else found


def _of_file(data: Any) -> list[Any]:
    """The file below a backend's array, and which of its variables it is."""
    store = getattr(data, "datastore", None)
    manager: Any = getattr(store or data, "_manager", None) or getattr(data, "manager", None)
    name = getattr(store, "_filename", None) or manager._args[0]
    return [*_of_stat(Path(name).stat()), getattr(data, "variable_name", None), str(data.dtype)]


def _of_stat(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def stored_content(store: Any, name: str) -> str:
    """A digest of what a stored array is made of: its chunks' names, sizes, and times or sums.

    Where a store cannot list its chunks (plain HTTP), the mark of a store of ours and the array's
    metadata stand for them: values that others change in place then go unnoticed.
    """
    chunks = sorted(_chunks(store, f"{name}/"))
    if not chunks:
        mark = (marks(store) or {}).get(ID)
        array = zarr.open_array(store, path=name, mode="r")
        return _words("metadata", mark, array.metadata.to_dict())
    return _words([c for c in chunks if not is_meta(str(c[0]).rsplit("/", 1)[-1])])


def _chunks(store: Any, prefix: str) -> Iterable[tuple[Any, ...]]:
    kind, word = where(store)
    if kind == "file" and Path(word).is_dir():
        return _files(Path(word), Path(word) / prefix)
    if kind == "file" and zipfile.is_zipfile(word):
        with zipfile.ZipFile(word) as file:
            members = [(i.filename, i.CRC, i.file_size) for i in file.infolist()]
        return [m for m in members if m[0].startswith(prefix)]
    if (memory := getattr(store, "_store_dict", None)) is not None:
        return [(k, digest(v.as_numpy_array())) for k, v in memory.items() if k.startswith(prefix)]
    if (fs := getattr(store, "fs", None)) is not None:
        return _objects(fs, f"{store.path.rstrip('/')}/", prefix)
    return sync(_listed(store, prefix))


def _files(root: Path, folder: Path) -> Iterator[tuple[Any, ...]]:
    for path, _, names in os.walk(folder):
        for name in names:
            at = Path(path, name)
            yield at.relative_to(root).as_posix(), *_of_stat(at.stat())


def _objects(fs: Any, root: str, prefix: str) -> list[tuple[Any, ...]]:
    if {"http", "https"} & {*np.atleast_1d(fs.protocol)}:
        return []
    find = partial(fs._find, f"{root}{prefix}", detail=True) if fs.async_impl else None
    rows = sync(find()) if find else fs.find(f"{root}{prefix}", detail=True)
    marks_of = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    found = []
    for key, row in rows.items():
        tells = [str(row[m]) for m in marks_of if m in row]
        found.append((key.lstrip("/").removeprefix(root.lstrip("/")), row.get("size"), *tells))
    return found


async def _listed(store: Any, prefix: str) -> list[tuple[Any, ...]]:
    return [(k, await store.getsize(k)) async for k in store.list_prefix(prefix)]


# ------------------------------------------------------------------ graphs


def _of_graph(array: Any) -> str:
    """A digest of a dask array's operations that does not depend on the names of its tasks."""
    graph = array.dask
    known: dict[str, str] = {}
    pending = [array.name]
    while pending:
        one = pending[-1]
        if one not in known and (leaf := _leaf(one)) is not None:
            known[one] = leaf
        below = [] if one in known else [d for d in graph.dependencies[one] if d not in known]
        pending += below
        if not below:
            known.setdefault(pending.pop(), "")
            known[one] = known[one] or _of_tasks(one, graph, known)
    return _words("graph", known[array.name])


def _leaf(name: str) -> str | None:
    """What stands for a layer that we made; None for the layers of others."""
    if (source := source_named(name)) is not None:
        return _of_source(source)
    held = next((h for h, layers in _COMPUTED.items() if name in layers), None)
    if held is None:
        return None
    content = held.content()
    if content.startswith(UNTRACKED):
        raise ValueError("what is computed has no lasting identity")
    return _words("computed", content, _COMPUTED[held][name])


def _of_tasks(name: str, graph: Any, known: Mapping[str, str]) -> str:
    """A digest of a layer's tasks; their names stand for what they are made of, or for nothing."""
    layer = graph.layers[name]
    names: dict[str, str] = {n: known[n] for n in graph.dependencies[name]}
    if isinstance(layer, Blockwise):
        return _of_blocks(layer, names)
    tasks = dict(layer)
    if len(tasks) == 1 and (base := _wrapped_base(next(iter(tasks.values())))) is not None:
        return _words("file", base)
    below = [k for n in names for k in graph.layers[n].get_output_keys()]
    for key in tasks:
        names.setdefault(_name_of(key), f"own-{len(names)}")
    keys = {k: _renamed(k, names) for k in (*below, *tasks)}
    swap = partial(_swapped, keys=keys, functions={})
    return _words([[plain(keys[k]), _deterministic(swap(task))] for k, task in tasks.items()])


def _of_blocks(layer: Blockwise, names: Mapping[str, str]) -> str:
    """A digest of a layer that does the same to every block, whatever their number."""
    own = {n: f"own-{i}" for i, n in enumerate(layer.io_deps)}
    new = {**names, **own}
    task = layer.task
    read = [[new.get(k := _name_of(getattr(n, "key", n)), k), at] for n, at in layer.indices]
    rest = (layer.output_indices, read, layer.concatenate, layer.new_axes, layer.output_blocks)
    given = [{new.get(n, n): v for n, v in d.items()} for d in (layer.numblocks, layer.io_deps)]
    return _words(_deterministic([task.func, task.args, task.kwargs, *rest, *given]))


def _wrapped_base(value: Any) -> list[Any] | None:
    """What an array of a file is, in the task that holds it; None for other tasks."""
    value = getattr(value, "value", value)
    if isinstance(value, np.ndarray) or not hasattr(value, "array"):
        return None
    return _of_wrapped(value)


def _name_of(key: Hashable) -> str:
    return str(key[0]) if isinstance(key, tuple) else str(key)


def _renamed(key: Hashable, names: Mapping[str, str]) -> Hashable:
    new = names.get(_name_of(key), _name_of(key))
    return (new, *key[1:]) if isinstance(key, tuple) else new


def _swapped(task: Any, keys: Mapping[Any, Any], functions: dict[int, tuple[Any, str]]) -> Any:
    """A task with the keys that it uses renamed, in either form that dask writes tasks in.

    A function is told by a word that is made once: a thousand tasks share one.
    """
    again = partial(_swapped, keys=keys, functions=functions)
    if hasattr(task, "substitute"):
        used = {k: keys[k] for k in task.dependencies if k in keys}
        new = task.substitute(used)
        if hasattr(new, "func"):
            return [again(new.func), new.args, new.kwargs]
        return getattr(new, "value", [type(new).__name__, *used.values()])
    if callable(task):
        known = functions.get(id(task)) or (task, _deterministic(task))
        return functions.setdefault(id(task), known)[1]
    if isinstance(task, dict):
        return {k: again(v) for k, v in task.items()}
    if _is_key(task, keys):
        return keys[task]
    return type(task)(map(again, task)) if type(task) in (list, tuple) else task


def _is_key(task: Any, keys: Mapping[Any, Any]) -> bool:
    try:
        return task in keys
    except TypeError:  # a tuple that holds something without a hash
        return False


def _deterministic(value: Any) -> str:
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        return str(tokenize(value))
