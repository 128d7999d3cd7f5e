"""Cubes in Zarr: opened lazily, written tile by tile, resumed where a run stopped."""

import hashlib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cubefill import cube
from cubefill.cube.counts import SCALE
from cubefill.errors import CubefillWarning, StoreError
from cubefill.ownership import ID, marks
from cubefill.store.encoding import Profile, plain
from cubefill.store.ledger import Ledger, Progress, Report, Tile, tiles
from cubefill.store.reading import UNTRACKED, Chunks, missing_tiles, opened
from cubefill.store.source import ArraySource, Place, StoreSource, describe, find, place, sources_of
from cubefill.store.template import (
    create,
    exists,
    grid_mapping_of,
    refuse_existing,
    refuse_own_source,
    transform_of,
    write_region,
)
from cubefill.store.workers import Tally, clipped_text, on_cluster, on_threads

log = logging.getLogger("cubefill")

_VOLATILE = frozenset({"history", "created", "date_created", "date_modified", "clipped_values"})
_SAMPLE = 10**6


def open_cube(
    store: Any,
    *,
    chunks: Chunks = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The lazy cube in a store: float32, bool and uint8 on dask arrays that read their windows.

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
    return checked(ds)


def checked(ds: xr.Dataset) -> xr.Dataset:
    """The same dataset; every opened cube passes here."""
    return cube.check(ds)


def write_cube(
    ds: xr.Dataset,
    store: Any,
    *,
    resume: bool = True,
    client: Any = None,
    overwrite: bool = False,
    profile: Profile = "default",
    zarr_format: int = 3,
    chunk: int = 256,
    shard: int = 1024,
    progress: bool | Report | None = None,
) -> xr.Dataset:
    """The cube opened from `store`, after its pixels are computed and written tile by tile.

    A tile is one shard wide and has all dates. Each finished tile is recorded: the same call again
    writes what is missing. Reflectance becomes int16 counts of 1e-4 (`cubefill.store.encoding`).

    Parameters
    ----------
    ds
        Cube with y and x; lazy or in memory.
    store
        Path, URL or zarr store.
    resume
        Finish a store that the same call began; False refuses any store that is there.
    client
        `distributed.Client`: workers compute and write, one tile a task. None uses threads here.
    overwrite
        Replace a store that is there.
    profile, zarr_format, chunk, shard
        See `create`.
    progress
        None draws a bar on a terminal only; True, False, or a callable `(done, total, info)`.

    Warns
    -----
    CubefillWarning
        Values were too large for their type and were clipped.

    Raises
    ------
    StoreError
        The store is there and holds something else, cannot be written, or the cube is read from
        it.
    """
    where = place(store)
    _require_grid(ds)
    options: dict[str, Any] = {
        "profile": profile,
        "zarr_format": zarr_format,
        "chunk": chunk,
        "shard": shard,
    }
    asked = fingerprint_of(ds) | options
    finish = f"cubefill.write_cube(ds, {describe(where)!r}) with the same cube"
    todo = begin(
        where, ds, asked, resume=resume, overwrite=overwrite, finish=finish, create_options=options
    )
    total = len(tiles((ds.sizes["y"], ds.sizes["x"]), shard))
    parts = on_threads(where, ds, todo) if client is None else on_cluster(where, ds, todo, client)
    tally = Tally()
    try:
        with Progress(progress, total, total - len(todo), "write") as bar:
            for tile, found in parts:
                tally.add(found)
                bar.step({"tile": tile.name})
    except KeyboardInterrupt:
        log.warning("Stopped. Type %s to finish it.", finish)
        raise
    finally:
        parts.close()
        _say(where, tally)
    return opened(where, "auto")


def begin(
    target: Any,
    template: xr.Dataset,
    fingerprint: Mapping[str, Any],
    *,
    resume: bool = True,
    overwrite: bool = False,
    finish: str = "",
    create_options: Mapping[str, Any] | None = None,
) -> list[Tile]:
    """Tiles that are still to be written into `target`, which is created when it is not there.

    `create_options` go to `create`; a tile is one shard. Used by every writer of tiles.

    Raises
    ------
    StoreError
        As `create`; or a store is there that was begun with another fingerprint (the message
        lists what differs), has no ledger, or `resume` is False.
    """
    where = place(target)
    options = dict(create_options or {})
    size = (template.sizes["y"], template.sizes["x"])
    shard = int(options.get("shard", 1024))
    if not admit(where, resume=resume, overwrite=overwrite):
        refuse_own_source(template, where)
        return Ledger(where).begin(fingerprint, size, shard)
    create(where, template, overwrite=overwrite, fingerprint=fingerprint, finish=finish, **options)
    return tiles(size, shard)


def admit(where: Place, *, resume: bool, overwrite: bool) -> bool:
    """True where a new store may be made, False where one of ours is there to be finished.

    Raises
    ------
    StoreError
        Anything else is there.
    """
    if not overwrite and resume and exists(where) and ID in (marks(where) or {}):
        if Ledger(where).exists:
            return False
        raise StoreError(
            f"{describe(where)} exists and has no record of tiles, so it cannot be finished. "
            "Pass overwrite=True to replace it, or choose another path."
        )
    refuse_existing(where, overwrite)
    return True


def fingerprint_of(ds: xr.Dataset) -> dict[str, Any]:
    """What a cube is, as far as one can tell without computing it; plain JSON.

    Grid, dates, variables with their attributes, the stores that they are read from, and a sample
    of what lies in memory. Attributes that change with every run (`history`, `created`) are left
    out.
    """
    time = ds["time"].values.astype("datetime64[ns]") if "time" in ds.coords else np.empty(0)
    return {
        "grid": {
            "shape": [ds.sizes["y"], ds.sizes["x"]],
            "transform": plain(transform_of(ds)),
            "crs": _crs_text(ds),
        },
        "time": {
            "steps": int(time.size),
            "first": str(time[0]) if time.size else "",
            "last": str(time[-1]) if time.size else "",
            "digest": _digest(time),
        },
        "variables": {str(n): _fingerprint_variable(v.variable) for n, v in ds.data_vars.items()},
        "attrs": _stable(ds.attrs),
    }


def _fingerprint_variable(variable: xr.Variable) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dims": [str(d) for d in variable.dims],
        "dtype": str(variable.dtype),
        "attrs": _stable(variable.attrs),
    }
    read = [s for s in sources_of(variable) if isinstance(s, StoreSource)]
    tracked = {f"{s.name} of {s.identity}" for s in read if not s.identity.startswith(UNTRACKED)}
    if tracked:
        found["sources"] = sorted(tracked)
    if isinstance(source := find(variable), ArraySource):
        found["sample"] = _digest(_sample(source.array))
    return found


def _sample(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    step = int(np.ceil(np.sqrt(max(1, array.size / _SAMPLE))))
    return array[..., ::step, ::step] if array.ndim > 1 else array


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


def _stable(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {k: v for k, v in plain(dict(attrs)).items() if k not in _VOLATILE}


def _crs_text(ds: xr.Dataset) -> str:
    name = grid_mapping_of(ds)
    return str(ds[name].attrs.get("crs_wkt", "")) if name else ""


def _require_grid(ds: xr.Dataset) -> None:
    absent = [d for d in ("y", "x") if d not in ds.sizes]
    if absent:
        raise StoreError(
            f"The dataset has no dimension {', '.join(absent)}: expected y and x, found "
            f"{', '.join(map(str, ds.sizes)) or 'none'}. Use cubefill.cube.conform(ds)."
        )


def _say(store: Place, tally: Tally) -> None:
    """Records, and says once, what encoding did to values."""
    if not (tally.clipped or tally.rounded):
        return
    group = zarr.open_group(store, mode="r+")
    for name, n in tally.clipped.items():
        before = group[name].attrs.get("clipped_values", 0)
        group[name].attrs["clipped_values"] = int(before) + n  # type: ignore[arg-type]
    for name in tally.rounded:
        group[name].attrs["rounded_to"] = SCALE
    if tally.rounded:
        log.info(
            "%s: values lie between counts (resampled?); they are rounded to multiples of %g.",
            ", ".join(sorted(tally.rounded)),
            SCALE,
        )
    if tally.clipped:
        warnings.warn(
            f"{sum(tally.clipped.values())} values were too large or too small for their type in "
            f"{describe(store)} and were clipped ({clipped_text(tally.clipped)}): expected "
            "reflectance within ±3.2767. Check the scale of the bands.",
            CubefillWarning,
            stacklevel=3,
        )


__all__ = [
    "begin",
    "create",
    "fingerprint_of",
    "open_cube",
    "write_cube",
    "write_region",
]
