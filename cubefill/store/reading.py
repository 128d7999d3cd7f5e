"""Cubes opened from a store: what is decoded how, cut into which dask chunks."""

import os
import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ContainsArrayError, NodeNotFoundError

from cubefill.addresses import bare
from cubefill.cube import accept
from cubefill.errors import CubefillWarning, StoreError
from cubefill.ownership import ID, MEMBERS
from cubefill.store.ledger import Ledger
from cubefill.store.source import (
    UNTRACKED,
    LazySource,
    StoreLike,
    StoreSource,
    as_dask,
    describe,
    place,
)
from cubefill.store.swap import stopped
from cubefill.store.template import GEOZARR, ORDER, dims_of, grid_mapping_of

Chunks = Literal["auto"] | Mapping[str, int]

CHUNK_BYTES = 128 * 2**20
"""Largest dask chunk of an opened cube, decoded."""


def open_cube(
    store: Any,
    *,
    chunks: Chunks = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The lazy cube in a store, on dask arrays that read their windows.

    Counts are float32; what was stored as float64, bool or another integer is that.

    Dask chunks hold the whole time axis and a multiple of the stored chunks along y and x, at most
    128 MB where the stored chunks allow. The CRS is the coordinate `spatial_ref`. Opens what
    `write_cube` and `run` wrote, and cubes that xarray wrote (zarr 2 and 3, scaled integers).

    Parameters
    ----------
    store
        Path, URL or zarr store.
    chunks
        `auto`, or pixels by dimension such as `{"y": 512, "x": 512}`; -1 stands for all.
    storage_options
        Passed to fsspec for a URL.

    Warns
    -----
    CubefillWarning
        Tiles are missing; the message says how many and what to type.

    Raises
    ------
    StoreError
        There is no store, or it cannot be read.
    CubeError
        The dataset is no cube.
    """
    where = place(store, storage_options)
    ds = opened(where, chunks)
    missing, total = missing_tiles(where)
    if missing:
        warnings.warn(
            f"{describe(where)} is incomplete: {missing} of {total} tiles are missing and read as "
            f"no data. Use {Ledger(where).finish} to finish it.",
            CubefillWarning,
            stacklevel=2,
        )
    return accept(ds)


def opened(where: StoreLike, chunks: Chunks) -> xr.Dataset:
    """The lazy dataset in a store, before it is checked to be a cube."""
    group = _group(where)
    consolidated = group.metadata.consolidated_metadata is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        ds = xr.open_zarr(where, chunks=None, decode_coords="all", consolidated=consolidated)
    identity = _identity(where, group)
    steps = max([1, *(n for d, n in ds.sizes.items() if d not in ("y", "x"))])
    variables = {
        name: _variable(where, group, str(name), v.variable, identity, chunks, steps)
        for name, v in ds.data_vars.items()
    }
    cube = xr.Dataset(_ordered(variables, group.attrs.get(ORDER)), coords=_coordinates(ds))
    ours = (*GEOZARR, ID, MEMBERS, ORDER)
    cube.attrs = {k: v for k, v in ds.attrs.items() if not str(k).startswith(ours)}
    cube.encoding = {"source": describe(where), ID: identity}
    mapping = grid_mapping_of(ds)
    for variable in cube.data_vars.values():
        variable.encoding = {"grid_mapping": mapping} if mapping else {}
    return cube


def _ordered(variables: dict[Hashable, xr.Variable], names: Any) -> dict[Hashable, xr.Variable]:
    """The variables in the order in which they were written, where that is known."""
    first = [n for n in (names or ()) if n in variables]
    return {n: variables[n] for n in dict.fromkeys([*first, *sorted(variables, key=str)])}


def _group(where: StoreLike) -> zarr.Group:
    try:
        return zarr.open_group(where, mode="r")
    except (FileNotFoundError, NodeNotFoundError) as error:
        if (old := stopped(where)) is not None:
            raise StoreError(
                f"{describe(where)} was being replaced when that was stopped: expected a store, "
                f"found the old one in {old}. Use os.rename({str(old)!r}, {where!r})."
            ) from error
        raise StoreError(
            f"{describe(where)} is no zarr store: expected one that cubefill.write_cube, "
            "cubefill.run or xarray wrote. Check the path."
        ) from error
    except ContainsArrayError as error:
        raise StoreError(
            f"{describe(where)} is one zarr array: expected a group of arrays, one a band. Use "
            f"{describe(where).rstrip('/').rpartition('/')[0]!r}, the folder above it."
        ) from error
    except Exception as error:  # each kind of store has classes of its own
        raise StoreError(
            f"{describe(where)} cannot be read as a zarr store ({type(error).__name__}: "
            f"{bare(str(error))}). Check the address and storage_options=, or write it again."
        ) from error


def missing_tiles(where: StoreLike) -> tuple[int, int]:
    """Tiles that are not written yet, and all tiles; (0, 0) for a store without a ledger."""
    ledger = Ledger(where)
    if not ledger.exists:
        return 0, 0
    return len(ledger.missing()), len(ledger.grid)


def _identity(where: StoreLike, group: zarr.Group) -> str:
    """What changes when the store's content does; unlike any other where nothing tells."""
    missing, _ = missing_tiles(where)
    if ID in group.attrs:
        return f"{group.attrs[ID]}-{missing}"
    if isinstance(where, str):
        times = [f.stat().st_mtime_ns for f in Path(where).glob("*/*z*") if f.is_file()]
        times += [f.stat().st_mtime_ns for f in Path(where).glob("*z*") if f.is_file()]
        return f"{max(times, default=os.stat(where).st_mtime_ns)}-{len(times)}"
    return f"{UNTRACKED}{uuid4().hex}"


def _coordinates(ds: xr.Dataset) -> dict[Hashable, xr.Variable]:
    """Small coordinates in memory; times in nanoseconds."""
    found: dict[Hashable, xr.Variable] = {}
    for name, coordinate in ds.coords.items():
        variable = coordinate.variable
        if variable.dtype.kind == "M":
            variable = variable.astype("datetime64[ns]")
        variable = variable.copy() if {"y", "x"} <= set(variable.dims) else variable.load()
        variable.encoding = {}
        # GeoTransform is of the whole grid: wrong as soon as the cube is cut.
        variable.attrs.pop("GeoTransform", None)
        found[name] = variable
    return found


def _variable(
    where: StoreLike,
    group: zarr.Group,
    name: str,
    variable: xr.Variable,
    identity: str,
    chunks: Chunks,
    steps: int,
) -> xr.Variable:
    attrs = dict(variable.attrs)
    if not {"y", "x"} & set(variable.dims):
        return xr.Variable(variable.dims, variable.values, attrs)
    source = _source(where, group, name, variable, identity)
    if "flag_values" in attrs:
        attrs["flag_values"] = np.asarray(attrs["flag_values"], source.dtype)
    attrs.pop("dtype", None)
    sizes = chunk_sizes(source, [str(d) for d in variable.dims], chunks, steps)
    return xr.Variable(variable.dims, as_dask(source, sizes), attrs)


def _source(
    where: StoreLike, group: zarr.Group, name: str, variable: xr.Variable, identity: str
) -> StoreSource | LazySource:
    array = group[name]
    if not isinstance(array, zarr.Array):
        return LazySource(variable)
    how = variable.encoding
    scale, offset = how.get("scale_factor"), float(how.get("add_offset", 0.0))
    nodata = how.get("_FillValue", how.get("missing_value"))
    if "_Unsigned" in how or variable.dtype.kind not in "biuf":
        return LazySource(variable)
    stored: np.dtype[Any] = array.dtype
    dtype: np.dtype[Any]
    if variable.dtype.kind == "b" or stored.kind == "b":
        dtype, nodata = np.dtype(bool), None
    elif scale is None and stored == np.uint8:
        dtype, nodata = stored, None
    elif scale is None and stored.kind == "f" and stored.itemsize == 8:
        dtype = np.dtype(np.float64)
    else:
        dtype = np.dtype(np.float32) if variable.dtype.kind == "f" else stored
    nodata = None if nodata is None or np.isnan(nodata) else float(nodata)
    if scale is None and offset:
        scale = 1.0
    return StoreSource(
        where,
        name,
        array.shape,
        dtype,
        stored,
        array.chunks,
        array.shards,
        None if scale is None else float(scale),
        offset,
        nodata,
        identity,
        _recorded(where, array),
    )


def _recorded(
    where: StoreLike, array: "zarr.Array[Any]"
) -> tuple[int | None, int | None, int] | None:
    """Axes y and x of an array of a store with a record of tiles, and their edge."""
    ledger, dims = Ledger(where), dims_of(array)
    if not ledger.exists:
        return None
    y, x = (dims.index(d) if d in dims else None for d in ("y", "x"))
    return y, x, ledger.tile


def chunk_sizes(
    source: StoreSource | LazySource,
    dims: list[str],
    chunks: Chunks,
    steps: int,
) -> list[int]:
    """Dask chunks: whole along time, a multiple of stored chunks along y and x."""
    if not isinstance(chunks, str):
        given = [chunks.get(d, -1) for d in dims]
        return [n if 0 < c > n or c < 0 else c for c, n in zip(given, source.shape, strict=True)]
    edge = int(np.sqrt(CHUNK_BYTES / 4 / steps)) or 1
    inner = source.chunks if isinstance(source, StoreSource) else (edge,) * len(dims)
    outer = (source.shards if isinstance(source, StoreSource) else None) or inner
    return [
        aligned_edge(edge, c, o, n) if d in ("y", "x") else n
        for d, c, o, n in zip(dims, inner, outer, source.shape, strict=True)
    ]


def aligned_edge(edge: int, chunk: int, shard: int, size: int) -> int:
    """The largest multiple of `chunk` up to `edge` that divides a shard; at least one chunk.

    A chunk far above `edge` is split: reading it twice is cheaper than holding it.
    """
    if chunk > 4 * edge:
        return min(edge, size)
    times = max(1, edge // chunk)
    per_shard = shard // chunk
    if per_shard > 1:
        times = min(times, per_shard)
        while per_shard % times:
            times -= 1
    return min(times * chunk, size)
