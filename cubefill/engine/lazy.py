"""The lazy executor: `gapfill` gives a dataset whose tiles are filled when they are computed."""

import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.engine import kernel
from cubefill.engine.output import describe_output, with_carried
from cubefill.engine.planning import Plan, plan_work
from cubefill.engine.request import Request, announce, prepared, request
from cubefill.engine.work import Region, Work, described
from cubefill.machine import Memory
from cubefill.methods import Method
from cubefill.store.fingerprint import content_of, stands_for
from cubefill.store.ledger import tiles
from cubefill.store.source import UNTRACKED, ArraySource


def gapfill(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    quantiles: Iterable[float] = (),
    tile: int | None = None,
    memory: Memory = None,
    device: str = "auto",
    bands: Iterable[str] | str | None = None,
    **options: Any,
) -> xr.Dataset:
    """A lazy dataset with every gap filled that the method can fill, and `fill_flag`.

    Clear observations come back bit for bit. The values do not depend on chunks or tiles.

    Parameters
    ----------
    ds
        A cube: bands (reflectance; floating point, read as float32) on time, y and x in any order
        and any layout in memory, and `valid` or `SCL`. Names of other libraries (`red`, `t`) become
        cubefill's (`B04`, `time`) in the result; a warning says so.
    method
        A name (`cubefill.list_methods()`), a method object or class, or "package.module:Class".
        "auto" stands for the default, `samedate`; see `docs/default.md`.
    times
        Dates of the result: None for the acquisition dates, "5D" for a regular axis, or an array.
        A date on the day of an acquisition shows that acquisition.
    valid
        Where an observation is clear: None for `ds.valid` (or SCL where there is none), a name,
        class numbers `{"SCL": (4, 5, 6, 7)}`, a threshold `{"cloud_probability": "< 40"}`,
        "finite" where clouds are NaN, a mask package such as "csmask", a callable of the dataset,
        or an array; see `cubefill.cube.valid.apply`.
    std
        True adds `<band>_std`, the standard deviation of the filling error, NaN where observed.
    quantiles
        Levels such as `(0.05, 0.95)`: adds `<band>_q05` and `<band>_q95`, between which the truth
        lies nine times out of ten, as held-out observations of this cube say; NaN where observed.
        See `docs/errors.md`.
    tile
        Edge of a tile in pixels; it changes speed and memory, never values.
    memory
        Budget of all workers, such as "4GB"; None for 60 % of what is free.
    device
        "auto", "cpu", "cuda", "mps": where a deep method runs.
    bands
        Names of the variables to fill; the result then holds all other variables too, as they
        came. None fills what plainly is a band or an index, never masks, classes, angles or
        probabilities, and the result holds the filled bands and `fill_flag` alone, without `valid`
        and `SCL`.
    **options
        Options of the method.

    Returns
    -------
    xr.Dataset
        Bands (time, y, x) in the caller's order of dimensions and dates; NaN where `fill_flag` is
        7, 8 or 255, and in some bands where it is 11: it stands for all bands of a pixel and date.

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
    asked = request(
        ds, method, times=times, valid=valid, std=std, quantiles=quantiles, device=device,
        bands=bands, options=options,
    )  # fmt: skip
    plan = plan_work(asked, tile=tile, memory=memory)
    announce(method, asked)
    asked = replace(asked, work=prepared(asked))
    out = describe_output(asked, _lazy(asked, plan))
    first = next(iter(asked.work.bands))
    out = out.transpose(*asked.ds[first].dims, ...)
    out = with_carried(out, asked)
    out.encoding["source_cube"] = asked.ds
    return out


def _lazy(asked: Request, plan: Plan) -> dict[str, Any]:
    """Dask arrays by output name: one task a tile, one an output and tile."""
    import dask.array as da
    from dask.array.core import normalize_chunks
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    work = asked.work
    stored = not any(s is None or isinstance(s, ArraySource) for s in work.sources.values())
    token = tokenize(work, plan.tile) if stored else uuid4().hex
    root, name = f"gapfill-work-{token}", f"gapfill-{token}"
    held = _Held(work, asked.variables)
    layer: dict[Any, Any] = {root: held}
    parts: dict[str, dict[Any, Any]] = {f"{name}-{out}": {} for out in work.outputs}
    upstream = []
    free = [n for n, s in work.sources.items() if s is None]
    for one in tiles(work.shape, plan.tile):
        where, at = kernel.region(work, Region(one.y, one.x)), (name, *one.index)
        given = {n: asked.variables[n].data[..., where.y, where.x] for n in free}
        upstream += list(given.values())
        keys = [a.__dask_keys__() for a in given.values()]
        layer[at] = (_run, root, one.y, one.x, list(given), keys)
        for out in work.outputs:
            key = f"{name}-{out}"
            parts[key][key, 0, *one.index] = (operator.getitem, at, out)
    base = HighLevelGraph.from_collections(name, layer, dependencies=upstream)
    graph = HighLevelGraph(
        {**base.layers, **parts}, {**base.dependencies, **{part: {name} for part in parts}}
    )
    for out in work.outputs:
        stands_for(f"{name}-{out}", held, out)
    shape = (len(work.axes.out), *work.shape)
    chunks = normalize_chunks((-1, plan.tile, plan.tile), shape)
    return {
        out: da.Array(graph, f"{name}-{out}", chunks, meta=np.empty((0, 0, 0), dtype))
        for out, dtype in work.outputs.items()
    }


class _Held:
    """Keeps the work opaque to dask, which would walk into it; travels without the cube."""

    def __init__(self, work: Work, variables: Mapping[str, xr.Variable] | None = None) -> None:
        self.work = work
        self.variables = variables or {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, (self.work,)

    def content(self) -> str:
        """A word for what is filled: the method, what is asked of it, and the cube's values."""
        read = {n: content_of(v) for n, v in self.variables.items()}
        lost = next((word for word in read.values() if word.startswith(UNTRACKED)), None)
        return lost or json.dumps([described(self.work), read], sort_keys=True)


def _run(
    held: _Held, y: slice, x: slice, names: list[str], given: list[Any]
) -> dict[str, NDArray[Any]]:
    from dask.array.core import concatenate3

    arrays = {n: np.asarray(concatenate3(a)) for n, a in zip(names, given, strict=True)}
    return kernel.fill_tile(held.work, Region(y, x), arrays)
