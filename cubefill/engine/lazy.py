"""The lazy executor: `gapfill` gives a dataset whose tiles are filled when they are computed."""

import json
import logging
import operator
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.engine import kernel as tiles
from cubefill.engine import planning
from cubefill.engine.planning import Plan, Request
from cubefill.engine.work import Area, Work
from cubefill.machine import Memory
from cubefill.methods import AUTO, Flag, Method, parameters, traits
from cubefill.store.source import ArraySource, StoreSource

log = logging.getLogger("cubefill")

FLAG_MEANINGS = {
    Flag.OBSERVED: "observed",
    Flag.INTERPOLATED: "interpolated",
    Flag.SAME_DATE: "same_date",
    Flag.LEARNED: "learned",
    Flag.CLIMATOLOGY: "climatology",
    Flag.EXTRAPOLATED: "extrapolated",
    Flag.SMOOTHED: "smoothed",
    Flag.SOURCE_MISSING: "source_missing",
    Flag.UNFILLABLE: "unfillable",
    Flag.NOT_ACQUIRED: "not_acquired",
    Flag.NO_DATA: "no_data",
}


def gapfill(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    tile: int | None = None,
    memory: Memory = None,
    device: str = "auto",
    **options: Any,
) -> xr.Dataset:
    """A lazy dataset with every gap filled that the method can fill, and `fill_flag`.

    Clear observations come back bit for bit. The values do not depend on chunks or tiles.

    Parameters
    ----------
    ds
        A cube: bands (reflectance; floating point, read as float32) on time, y and x in any order
        and any layout in memory, and `valid` or `SCL`.
    method
        A name (`cubefill.list_methods()`), a method object or class, or "package.module:Class".
        "auto" stands for the default method.
    times
        Dates of the result: None for the acquisition dates, "5D" for a regular axis, or an array.
        A date on the day of an acquisition shows that acquisition.
    valid
        Where an observation is clear: None for `ds.valid` (or SCL where there is none), an array,
        a name, or a callable of the dataset.
    std
        True adds `<band>_std`, the standard deviation of the filling error.
    tile
        Edge of a tile in pixels; it changes speed and memory, never values.
    memory
        Budget of all workers, such as "4GB"; None for 60 % of what is free.
    device
        "auto", "cpu", "cuda", "mps": where a deep method runs.
    **options
        Options of the method.

    Returns
    -------
    xr.Dataset
        Bands (time, y, x) in the caller's order of dimensions and dates; NaN where `fill_flag` is
        7, 8 or 255.

    Raises
    ------
    CubeError, MethodError, PlanError
        The dataset is no cube, lacks what the method needs, or a tile exceeds the memory.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> out = gapfill(synthetic_cube(), "linear", max_gap=60)
    >>> sorted(out.data_vars)
    ['B02', 'B03', 'B04', 'B08', 'fill_flag']
    """
    asked = planning.request(
        ds, method, times=times, valid=valid, std=std, device=device, options=options
    )
    plan = planning.plan_work(asked, tile=tile, memory=memory)
    announce(method, asked)
    asked = replace(asked, work=prepared(asked))
    arrays = _lazy(asked, plan)
    return _dataset(asked, arrays)


def announce(method: Any, asked: Request) -> None:
    """Says once in the log which method "auto" stands for, and which bands become float32."""
    if method == "auto":
        log.info("method 'auto' is %r (%s)", AUTO, asked.name)
    types = {b: asked.variables[b].dtype.newbyteorder("=") for b in asked.work.bands}
    other = [f"{b} ({d})" for b, d in types.items() if d != np.float32]
    if other:
        log.info("%s: read as float32, and so is the result", ", ".join(other))


def prepared(asked: Request) -> Work:
    """The work with what its method learned from the subsample, if it learns."""
    work = asked.work
    prepare = getattr(work.method, "prepare", None)
    if prepare is None:
        return work
    if work.std or getattr(work.method, "wants_sample", True):
        method = prepare(tiles.sample(work, lambda n, t: _fetch(asked, n, t)))
        return replace(work, method=method, traits=traits(method, work.bands))
    return work


def _fetch(asked: Request, name: str, where: Area) -> NDArray[Any]:
    variable = asked.variables[name]
    index = {"y": where.y, "x": where.x}
    return np.asarray(variable.isel(index).values)


# ------------------------------------------------------------------ the graph


def _lazy(asked: Request, plan: Plan) -> dict[str, Any]:
    """Dask arrays by output name: one task a tile, one an output and tile."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    work = asked.work
    ys, xs = (_edges(n, plan.tile) for n in work.shape)
    stored = not any(s is None or isinstance(s, ArraySource) for s in work.sources.values())
    token = tokenize(work, plan.tile) if stored else uuid4().hex
    root, name = f"gapfill-work-{token}", f"gapfill-{token}"
    layer: dict[Any, Any] = {root: _Held(work)}
    parts: dict[str, dict[Any, Any]] = {f"{name}-{out}": {} for out in work.outputs}
    upstream = []
    free = [n for n, s in work.sources.items() if s is None]
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            tile = Area(y, x)
            given = {n: _block(asked.variables[n].data, work, tile) for n in free}
            upstream += list(given.values())
            layer[name, i, j] = (_run, root, y, x, list(given), [_keys(a) for a in given.values()])
            for out in work.outputs:
                key = f"{name}-{out}"
                parts[key][key, 0, i, j] = (operator.getitem, (name, i, j), out)
    base = HighLevelGraph.from_collections(name, layer, dependencies=upstream)
    graph = HighLevelGraph(
        {**base.layers, **parts}, {**base.dependencies, **{part: {name} for part in parts}}
    )
    chunks = (
        (len(work.axes.out),),
        tuple(s.stop - s.start for s in ys),
        tuple(s.stop - s.start for s in xs),
    )
    return {
        out: da.Array(graph, f"{name}-{out}", chunks, meta=np.empty((0, 0, 0), dtype))
        for out, dtype in work.outputs.items()
    }


class _Held:
    """Keeps the work opaque to dask, which would walk into it."""

    def __init__(self, work: Work) -> None:
        self.work = work


def _run(
    held: _Held, y: slice, x: slice, names: list[str], given: list[Any]
) -> dict[str, NDArray[Any]]:
    from dask.array.core import concatenate3

    arrays = {n: np.asarray(concatenate3(a)) for n, a in zip(names, given, strict=True)}
    return tiles.fill_tile(held.work, Area(y, x), arrays)


def _block(array: Any, work: Work, tile: Area) -> Any:
    where = tiles.region(work, tile)
    return array[..., where.y, where.x]


def _keys(array: Any) -> Any:
    return array.__dask_keys__()


def _edges(length: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, length)) for i in range(0, length, size)]


# ------------------------------------------------------------------ the dataset


def _dataset(asked: Request, arrays: Mapping[str, Any]) -> xr.Dataset:
    out = describe_output(asked, arrays)
    first = next(iter(asked.work.bands))
    order = [d for d in asked.ds[first].dims if d in ("time", "y", "x")]
    out = out.transpose(*order)
    out.encoding["source_cube"] = asked.ds
    return out


def describe_output(asked: Request, arrays: Mapping[str, Any]) -> xr.Dataset:
    """The result as a dataset: dims, coordinates, CF flags, CRS and provenance."""
    ds, work = asked.ds, asked.work
    dims = {"time", "y", "x"} if _same_dates(work) else {"y", "x"}
    coords = {n: c for n, c in ds.coords.items() if set(c.dims) <= dims}
    coords["time"] = xr.DataArray(work.axes.out, dims="time", attrs=dict(ds["time"].attrs))
    out = xr.Dataset(coords=coords, attrs=provenance(asked))
    for name, array in arrays.items():
        variable = xr.Variable(("time", "y", "x"), array, _attrs(ds, work, name))
        if "spatial_ref" in out.coords:
            variable.encoding["grid_mapping"] = "spatial_ref"
        out[name] = variable
    return out


def _same_dates(work: Work) -> bool:
    return work.axes.out is work.axes.given


def _attrs(ds: xr.Dataset, work: Work, name: str) -> dict[str, Any]:
    if name == "fill_flag":
        return flag_attrs()
    if work.std and name.endswith("_std") and name not in ds:
        what = name.removesuffix("_std")
        return {"long_name": f"standard deviation of the filling error of {what}", "units": "1"}
    band = name.removesuffix(work.traits.suffix) if work.traits.suffix else name
    attrs = dict(ds[band].attrs) if band in ds else {}
    if work.traits.suffix:
        attrs["long_name"] = f"{attrs.get('long_name', band)}, smoothed"
    extra = [f"{name}_std"] if work.std else []
    return attrs | {"ancillary_variables": " ".join(["fill_flag", *extra])}


def flag_attrs() -> dict[str, Any]:
    """CF attributes of `fill_flag`."""
    return {
        "long_name": "how each value came to be",
        "standard_name": "status_flag",
        "flag_values": np.array(list(FLAG_MEANINGS), np.uint8),
        "flag_meanings": " ".join(FLAG_MEANINGS.values()),
    }


def provenance(asked: Request) -> dict[str, Any]:
    """Attributes of an output: the cube's own, and how it was filled."""
    work, ds = asked.work, asked.ds
    method = work.method
    learned: dict[str, Any] = getattr(method, "recorded", dict)()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now} cubefill {_version()}: gapfill method={asked.name}"
    attrs = dict(ds.attrs)
    attrs |= {
        "gapfill_method": asked.name,
        "gapfill_parameters": json.dumps(parameters(method), default=str, sort_keys=True),
        "gapfill_version": _version(),
        "gapfill_valid": _valid_words(ds),
        "gapfill_observed_altered": int(bool(work.traits.suffix)),
        "history": "\n".join(filter(None, [str(ds.attrs.get("history", "")), line])),
    }
    band = work.sources[work.bands[0]]
    if isinstance(band, StoreSource) and isinstance(band.store, str):
        attrs["gapfill_source"] = band.store
    if learned:
        attrs["gapfill_learned"] = json.dumps(learned, default=float, sort_keys=True)
    return attrs


@cache
def _version() -> str:
    return installed("cubefill")


def _valid_words(ds: xr.Dataset) -> str:
    if "valid" in ds:
        found = ds["valid"].attrs
        return str(found.get("description") or found.get("source") or "given by the user")
    return "made from SCL"
