"""A store before its first pixel: metadata, coordinates and georeference, then aligned regions."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.errors import NodeNotFoundError

from cubefill.cube import transform_of
from cubefill.cube.counts import Encoding, encode
from cubefill.errors import StoreError
from cubefill.ownership import (
    ID,
    MEMBERS,
    UNFINISHED,
    claim,
    foreign_in_store,
    marks,
    refuse_source,
)
from cubefill.store.encoding import Profile, array_options, encoding_of, plain, warn_format_2
from cubefill.store.ledger import Ledger
from cubefill.store.source import GROUP, Index, StoreLike, describe, place, stores_of
from cubefill.store.swap import refuse_fixed, refuse_write_once, replaced, settle

ORDER = "cubefill_variables"
"""Root attribute: names of the variables in their order."""

GEOZARR = ("zarr_conventions", "proj:", "spatial:")
"""Beginnings of root attributes that describe the grid to readers of GeoZarr."""

_NO_NAME = re.compile(r"^(\.*|__.*|zarr\.json|\.z(array|attrs|group|metadata))$|[/\\]")
_STALE = ("chunks", "shards", "preferred_chunks", "compressors", "filters", "source")


def create(
    target: Any,
    template: xr.Dataset,
    *,
    profile: Profile = "default",
    zarr_format: int = 3,
    chunk: int = 256,
    shard: int = 1024,
    overwrite: bool = False,
    attrs: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    finish: str = "",
) -> None:
    """A store with all metadata and coordinates of `template` and no pixel.

    Variables on y and x get their shape, type and attributes only, so they may be
    `dask.array.zeros`; what lies on neither y nor x is computed and written. `fingerprint` begins
    a ledger of tiles of `shard` pixels as part of the creation; `finish` is what to type to finish
    the store. A store that is there stays until the new one stands beside it, and is there or
    beside it whatever stops the creation; one that is no folder is deleted when the layout has
    been made in memory, just before it is copied.

    Parameters
    ----------
    target
        Path, URL or zarr store. Its parent folder must be there.
    template
        Cube to be; `attrs` are added to its own.
    profile
        `default` is blosc zstd-1 with bitshuffle, `fast` is lz4-5; both with crc32c.
    zarr_format
        3, or 2 for old readers: without shards, checksums and GeoZarr attributes.
    chunk, shard
        Pixels along y and x that are decoded and written at once; the time axis is whole.
    overwrite
        Replace a store that we made. Anything else, and a store with other files in it, is refused.

    Raises
    ------
    StoreError
        `target` exists, cannot be written, has no parent folder, or `template` is read from it.
    """
    store = place(target)
    if chunk < 1 or shard % chunk:
        raise StoreError(
            f"shard={shard}, chunk={chunk}: expected a shard that is a multiple of the chunk. "
            f"Pass shard={max(1, shard // max(chunk, 1)) * max(chunk, 1)}."
        )
    options = array_options(profile, zarr_format)
    _check_names(template)
    spatial = [n for n, v in template.data_vars.items() if {"y", "x"} & {str(d) for d in v.dims}]
    encodings = {n: encoding_of(str(n), template[n].dtype) for n in spatial}
    refuse_own_source(template, store)
    refuse_existing(store, overwrite)
    if zarr_format == 2:
        warn_format_2()
    with _writing(store, _KEPT), replaced(store) as new:
        small = template.drop_vars(spatial)
        small.attrs = {UNFINISHED: True, MEMBERS: _members(template)}
        zarr.create_group(new, zarr_format=zarr_format, attributes=small.attrs, overwrite=True)  # type: ignore[arg-type]
        _write_small(new, small, zarr_format)
        group = zarr.open_group(new, mode="r+", zarr_format=zarr_format)  # type: ignore[arg-type]
        for name in spatial:
            _create_array(group, template[name], encodings[name], chunk, shard, options)
        if fingerprint is not None:
            size = (template.sizes["y"], template.sizes["x"])
            Ledger(new).begin(fingerprint, size, shard, finish=finish)
        root = {**plain(template.attrs), **plain(dict(attrs or {})), ID: uuid4().hex}
        root[MEMBERS] = _members(template)
        root[ORDER] = [str(n) for n in template.data_vars]
        coordinates = group.attrs.get("coordinates")
        if coordinates:
            root["coordinates"] = coordinates
        if zarr_format == 3:
            root |= geozarr_attrs(template)
        group.attrs.put(root)


def write_region(
    target: Any,
    name: str,
    index: Index,
    array: NDArray[Any],
    *,
    dtype: np.dtype[Any] | None = None,
) -> int:
    """Number of values clipped while one region of whole shards was encoded and written.

    `array` holds decoded values, or the stored counts where its type is that on disk already.
    Regions that share no shard may be written at the same time.

    Raises
    ------
    StoreError
        The region is not made of whole shards, or the array has another shape.
    """
    store = place(target)
    try:
        stored = zarr.open_array(store, path=name, mode="r+")
    except (FileNotFoundError, NodeNotFoundError) as error:
        raise StoreError(
            f"{describe(store)} has no variable {name!r}: expected one that create() laid out."
        ) from error
    stored = stored.with_config({"write_empty_chunks": True})
    check_aligned(name, stored, index, array.shape)
    counts, clipped = encode(array, stored_encoding(name, stored, dtype or array.dtype))
    with _writing(store):
        stored[index] = counts
    return clipped


def check_aligned(
    name: str, stored: "zarr.Array[Any]", index: Index, shape: tuple[int, ...]
) -> None:
    """Refuses a region that splits a shard (or a chunk, where there are no shards)."""
    unit = stored.shards or stored.chunks
    dims = dims_of(stored)
    if len(index) != stored.ndim:
        raise StoreError(
            f"{name}: expected a region of {stored.ndim} slices ({', '.join(dims)}), got "
            f"{len(index)}."
        )
    expected = []
    for dim, part, size, step in zip(dims, index, stored.shape, unit, strict=True):
        start, stop, stride = part.indices(size)
        whole = start % step == 0 and (stop % step == 0 or stop == size)
        if stride != 1 or not whole or stop <= start:
            raise StoreError(
                f"{name}: region {start}:{stop} of dimension {dim!r} (size {size}) does not cover "
                f"whole shards of {step}; it would overwrite what another writer owns. Expected "
                f"multiples of {step} or the end of the axis."
            )
        expected.append(stop - start)
    if tuple(expected) != tuple(shape):
        raise StoreError(f"{name}: expected an array of shape {tuple(expected)}, got {shape}.")


def dims_of(stored: "zarr.Array[Any]") -> list[str]:
    """Names of the dimensions of a stored array, in zarr 2 and 3."""
    named: Any = getattr(stored.metadata, "dimension_names", None)
    named = named or stored.attrs.get("_ARRAY_DIMENSIONS")
    return [str(d) for d in named or range(stored.ndim)]


def stored_encoding(name: str, stored: "zarr.Array[Any]", dtype: np.dtype[Any]) -> Encoding:
    """The encoding that a store's array has."""
    scale, nodata = stored.attrs.get("scale_factor"), stored.attrs.get("_FillValue")
    if isinstance(scale, int | float) and isinstance(nodata, int):
        return Encoding(stored.dtype, np.dtype(np.float32), float(scale), nodata, nodata)
    return Encoding(stored.dtype, dtype)


def refuse_existing(store: StoreLike, overwrite: bool) -> None:
    """Raises StoreError unless a new store may be made here."""
    settle(store)
    refuse_write_once(store)
    name, attrs = describe(store), marks(store)
    if attrs is not None:
        ours = ID in attrs or UNFINISHED in attrs
        foreign = foreign_in_store(store, attrs) if ours else ()
        again, hint = overwrite or UNFINISHED in attrs, "resume=True to finish it or "
        claim(name, "store", ours=ours, foreign=foreign, overwrite=again, hint=hint)
        refuse_fixed(store)
    if not isinstance(store, str):
        if store.read_only:
            raise StoreError(f"{name} is read-only: expected a store opened for writing.")
        return
    path = Path(store)
    if not path.parent.is_dir():
        raise StoreError(
            f"{name} has no parent folder: expected {path.parent} to be there. "
            f"Use os.makedirs({str(path.parent)!r})."
        )
    if attrs is None and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        claim(name, "zarr store", ours=False)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreError(
            f"{name} cannot be written: expected write permission for "
            f"{path if path.exists() else path.parent}. Choose another path."
        )


def refuse_own_source(cube: xr.Dataset, store: StoreLike) -> None:
    """Raises StoreError when a cube is read from the store that it would be written to."""
    refuse_source(store, stores_of(cube), describe(store))


def _check_names(template: xr.Dataset) -> None:
    """Refuses names that no array of a store can have, or that two of them would share."""
    names = [str(n) for n in template.variables]
    for name in template.variables:
        text = str(name)
        if _NO_NAME.search(text) or text == GROUP or names.count(text) > 1:
            plain_name = re.sub(r"\W+", "_", text).strip("_") or "layer"
            better = plain_name if plain_name not in (*names, GROUP) else f"my_{plain_name}"
            raise StoreError(
                f"{text!r} is no name for an array of a store: expected one without slashes, used "
                f"once, that does not begin with '__' and is not {GROUP!r}. "
                f"Use ds.rename({{{name!r}: {better!r}}})."
            )


def _members(template: xr.Dataset) -> list[str]:
    return [*map(str, template.variables), GROUP]


def grid_mapping_of(cube: xr.Dataset) -> str | None:
    """Name of the coordinate that holds the CRS, or None."""
    names = [v.encoding.get("grid_mapping") for v in cube.data_vars.values()]
    names += ["spatial_ref", *(str(n) for n, c in cube.coords.items() if "crs_wkt" in c.attrs)]
    return next((n for n in names if n in cube.coords), None)


def geozarr_attrs(cube: xr.Dataset) -> dict[str, Any]:
    """Root attributes of the GeoZarr conventions `proj` and `spatial`; empty without a grid."""
    import zarr_cm

    transform = transform_of(cube)
    if transform is None:
        return {}
    height, width = cube.sizes["y"], cube.sizes["x"]
    dx, _, left, _, dy, top = transform
    right, bottom = left + dx * width, top + dy * height
    box = [min(left, right), min(bottom, top), max(left, right), max(bottom, top)]
    conventions: Any = {
        "spatial": {
            "spatial:dimensions": ["y", "x"],
            "spatial:transform": [float(v) for v in transform],
            "spatial:shape": [height, width],
            "spatial:bbox": [float(v) for v in box],
            "spatial:registration": "pixel",
        }
    }
    if crs := crs_attrs(cube):
        conventions["proj"] = crs
    found: dict[str, Any] = zarr_cm.create_many(conventions)
    return found


def crs_attrs(cube: xr.Dataset) -> dict[str, str]:
    """The CRS as GeoZarr writes it: an authority's code, else WKT; empty without one."""
    import pyproj

    name = grid_mapping_of(cube)
    wkt = cube[name].attrs.get("crs_wkt") if name else None
    if not wkt:
        return {}
    crs = pyproj.CRS.from_wkt(wkt)
    authority = crs.to_authority()
    return {"proj:code": ":".join(authority)} if authority else {"proj:wkt2": crs.to_wkt()}


def _write_small(store: StoreLike, small: xr.Dataset, zarr_format: int) -> None:
    """Coordinates and whatever has neither y nor x, written by xarray in a new root group."""
    small = small.copy()
    mapping, transform = grid_mapping_of(small), transform_of(small)
    if mapping and transform:
        dx, _, left, _, dy, top = transform
        numbers = (left, dx, 0.0, top, 0.0, dy)
        small[mapping].attrs["GeoTransform"] = " ".join(repr(float(v)) for v in numbers)
    for name, variable in small.variables.items():
        variable.encoding = _time_encoding(variable) if variable.dtype.kind == "M" else {}
        variable.attrs = plain(variable.attrs)
        if name in small.data_vars and mapping:
            variable.encoding["grid_mapping"] = mapping
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        warnings.filterwarnings("ignore", module="xarray")
        small.to_zarr(store, mode="a", consolidated=False, zarr_format=zarr_format)


def _time_encoding(variable: xr.Variable) -> dict[str, Any]:
    """The coarsest unit that keeps every instant exactly."""
    instants = variable.values.astype("datetime64[ns]").astype(np.int64)
    units = {"seconds": 10**9, "microseconds": 10**3, "nanoseconds": 1}
    unit = next(u for u, size in units.items() if not np.any(instants % size))
    calendar = "proleptic_gregorian"
    return {"units": f"{unit} since 1970-01-01", "calendar": calendar, "dtype": "int64"}


def _create_array(
    group: zarr.Group,
    template: xr.DataArray,
    encoding: Encoding,
    chunk: int,
    shard: int,
    options: Mapping[str, Any],
) -> None:
    dims = [str(d) for d in template.dims]
    chunks = tuple(
        min(chunk, n) if d in ("y", "x") else n for d, n in zip(dims, template.shape, strict=True)
    )
    attrs = {**plain(template.attrs), **encoding.attrs}
    attrs = {k: v for k, v in attrs.items() if k not in _STALE}
    mapping = grid_mapping_of(template.to_dataset(name="v"))
    if mapping:
        attrs["grid_mapping"] = mapping
    version_3 = group.metadata.zarr_format == 3
    shards = tuple(
        min(shard // c, -(-n // c)) * c if d in ("y", "x") else c
        for d, n, c in zip(dims, template.shape, chunks, strict=True)
    )
    where: dict[str, Any] = {"dimension_names": dims}
    if not version_3:
        where = {}
        attrs["_ARRAY_DIMENSIONS"] = dims
    # A fill value of format 2 is read as "no data" by xarray: only counts may have one.
    fill = encoding.fill if version_3 or encoding.scale is not None else None
    group.create_array(
        str(template.name),
        shape=template.shape,
        dtype=encoding.dtype,
        chunks=chunks,
        shards=shards if version_3 and shards != chunks else None,
        fill_value=fill,
        attributes=attrs,
        **where,
        **options,
    )


def consolidate(store: StoreLike) -> None:
    """Puts all metadata into the root of a complete store, where readers look first."""
    if not Ledger(store).complete:
        return
    if zarr.open_group(store, mode="r").metadata.consolidated_metadata is None:
        with warnings.catch_warnings(), _writing(store):
            warnings.filterwarnings("ignore", module="zarr")
            zarr.consolidate_metadata(store)


_GOES_ON = "What is written so far stays; pass resume=True to go on."
_KEPT = "What was there before is left as it was. Make room, or choose another path."


@contextmanager
def _writing(store: StoreLike, then: str = _GOES_ON) -> Iterator[None]:
    """An OSError or a refusal of the store as one StoreError that names it."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{describe(store)} cannot be written ({type(error).__name__}: {error}): expected a "
            f"writable store with room. {then}"
        ) from error
