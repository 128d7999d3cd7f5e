"""The job executor: tiles as tasks on threads or a dask cluster, each owning whole chunks."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from cubefill.cube.indices import NDVI_ATTRS
from cubefill.engine import lazy as engine
from cubefill.engine import planning
from cubefill.engine.memory import fitting, scratch_of
from cubefill.engine.planning import Request
from cubefill.engine.tile import Job, dtype_of, memory_of, run_tiles, threads_of
from cubefill.engine.work import Work
from cubefill.errors import CubefillError, CubefillWarning
from cubefill.machine import Memory, budget_bytes, cores, refuse_above, size
from cubefill.methods import Counts, Method, parameters
from cubefill.methods.windows import Whole
from cubefill.ownership import overlap, refuse_source, same_place
from cubefill.store import writing as store
from cubefill.store.encoding import Profile, encoding_of
from cubefill.store.ledger import Ledger, Progress, Report, Tile
from cubefill.store.ledger import tiles as grid_of
from cubefill.store.source import LazySource, Place, StoreSource, describe, place, stores_of

log = logging.getLogger("cubefill")

JOB_TILES = (1024, 512, 256)
"""Edges of a job's tile, and of a shard of its target, that the planner tries."""

STEP = 256
"""Edge of the part of a tile that is filled at once by a method that looks at single pixels."""

_STORED = Counts()


@dataclass(frozen=True)
class JobPlan:
    """How a job cuts a cube: tiles that are written at once, steps that are filled at once."""

    tile: int
    """Edge of a tile in pixels: one shard of the target."""
    step: int
    """Edge of what is filled at once."""
    tiles: int
    workers: int
    bytes_tile: int
    """Peak bytes of one worker."""
    memory: int
    """Budget in bytes."""
    bytes_net: int = 0
    """Bytes of a net for all workers of a process: its weights once, and the passes at once."""

    def __str__(self) -> str:
        net = f" + net {size(self.bytes_net)}" if self.bytes_net else ""
        return (
            f"{self.tiles} tiles of {self.tile} px in steps of {self.step} px; {self.workers} "
            f"workers x {size(self.bytes_tile)}{net} of {size(self.memory)}"
        )


def run(
    source: Any,
    target: Any,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    ndvi: bool = False,
    ndvi_store: Any = None,
    nir: str = "B08",
    client: Any = None,
    resume: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    memory: Memory = None,
    tile: int | None = None,
    workers: int | None = None,
    progress: bool | Report | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    profile: Profile = "default",
    **options: Any,
) -> xr.Dataset:
    """The filled cube, opened from the store that the job has written tile by tile.

    Pixels equal those of `gapfill` after encoding. Peak memory depends on the plan, not on the
    size of the cube. A job that was stopped goes on where it stopped when it is run again.

    Parameters
    ----------
    source
        A store that `write_cube` wrote, or a cube.
    target
        Store to write: a path, a URL, or any zarr store.
    method, times, valid, std, device, **options
        As for `gapfill`.
    ndvi
        True writes `NDVI`, `NDVI_flag` (and `NDVI_std` with `std`), made from the stored bands;
        into `ndvi_store` where one is given. `nir="B8A"` for the narrow near infrared.
    client
        A `distributed.Client`; None for threads of this process.
    resume
        True finishes a target that the same job began.
    overwrite
        True replaces an existing target.
    memory
        Budget of all workers together, "8GB"; None for 60 % of what is free here, or of what the
        workers of the cluster may take.
    tile
        Edge of a tile in pixels, one shard of the target; None lets the plan choose.
    workers
        Tiles at work at once; None for the number of cores or of the cluster's threads.
    progress
        None draws a bar on a terminal, True and False force it, a callable gets
        `(done, total, info)`.
    on_error
        "raise" stops at the first tile that fails; "skip" goes on, warns, and leaves the tile for
        the next run.
    profile
        "default" (zstd) or "fast" (lz4).

    Returns
    -------
    xr.Dataset
        As `open_cube(target)` gives it.

    Raises
    ------
    JobError
        A tile failed; `error.tiles` names it. Finished tiles stay; run again to go on.
    StoreError, PlanError, CubeError, MethodError
        The job cannot start.

    Examples
    --------
    >>> import cubefill, tempfile
    >>> from cubefill.testing import synthetic_cube
    >>> folder = tempfile.mkdtemp()
    >>> _ = cubefill.write_cube(synthetic_cube(), f"{folder}/cube.zarr", progress=False)
    >>> out = run(f"{folder}/cube.zarr", f"{folder}/filled.zarr", "linear", ndvi=True,
    ...           progress=False)
    >>> "NDVI" in out
    True
    """
    ds = source if isinstance(source, xr.Dataset) else store.open_cube(source)
    asked = planning.request(
        ds, method, times=times, valid=valid, std=std, device=device, options=options
    )
    bands = (nir, "B04") if ndvi or ndvi_store is not None else None
    _check_ndvi(asked, bands)
    engine.announce(method, asked)
    asked = replace(asked, work=_sources(asked))
    ledger = Ledger(target)
    begun = ledger.exists and not overwrite
    count = workers or (cores() if client is None else threads_of(client))
    if memory is None and client is not None:
        memory = memory_of(client)
    plan = plan_job(asked, memory=memory, tile=ledger.tile if begun else tile, workers=count)
    log.info("%s", plan)
    asked = replace(asked, work=_stored_counts(engine.prepared(asked)))
    job = Job(asked.work, _targets(asked, target, bands, ndvi_store), plan.step, bands)
    _check_targets(ds, job, resume, overwrite)
    options_of_store = {"profile": profile, "chunk": _chunk(plan), "shard": plan.tile}
    todo = _begin(asked, job, options_of_store, resume=resume, overwrite=overwrite)
    done = plan.tiles - len(todo)
    if done:
        log.info("%d of %d tiles are done; going on", done, plan.tiles)
    with Progress(progress, plan.tiles, done) as bar:
        failed = run_tiles(job, todo, client, plan.workers, bar, on_error)
    if failed:
        warnings.warn(
            f"{len(failed)} of {plan.tiles} tiles failed and are not written "
            f"({_listed(failed)}). Run the same job again to try them once more.",
            CubefillWarning,
            stacklevel=2,
        )
    return store.open_cube(target)


def plan_job(
    asked: Request, *, memory: Memory = None, tile: int | None = None, workers: int = 1
) -> JobPlan:
    """Tiles, steps and bytes of a job.

    Raises
    ------
    PlanError
        The smallest tile does not fit the budget; the message gives both numbers.
    """
    work, budget = asked.work, budget_bytes(memory)
    edge = tile or _choose(work, budget, workers)
    step = _step(work, edge)
    needed, scratch = _bytes(work, edge, step), scratch_of(work, step)
    refuse_above(needed + scratch.of(1), budget, edge, tile)
    count = len(grid_of(work.shape, edge))
    fit = fitting(min(workers, count), budget, needed, scratch)
    return JobPlan(edge, step, count, fit, needed, budget, scratch.of(fit))


def _choose(work: Work, budget: int, workers: int) -> int:
    """The largest tile that fits the budget and gives every worker one."""
    small = max(work.shape) <= JOB_TILES[-1]
    for edge in JOB_TILES:
        busy = small or len(grid_of(work.shape, edge)) >= workers
        step = _step(work, edge)
        needed = _bytes(work, edge, step) * workers + scratch_of(work, step).of(workers)
        if busy and needed <= budget:
            return edge
    return JOB_TILES[-1]


def _step(work: Work, edge: int) -> int:
    space = work.method.needs.space
    if isinstance(space, Whole):
        return max(work.shape)
    return min(edge, STEP if space.pointwise else 2 * STEP)


def _bytes(work: Work, edge: int, step: int) -> int:
    ny, nx = (min(edge, n) for n in work.shape)
    cells = len(work.axes.out) * ny * nx
    each = [encoding_of(n, d).dtype.itemsize for n, d in work.outputs.items()]
    return cells * (sum(each) + 2 * max(each)) + planning.tile_bytes(work, step)


# ------------------------------------------------------------------ before the first tile


def _sources(asked: Request) -> Work:
    """Every variable gets a source: what only a graph can give is computed window by window."""
    work = asked.work
    sources = {
        n: LazySource(asked.variables[n]) if s is None else s for n, s in work.sources.items()
    }
    return replace(work, sources=sources)


def _stored_counts(work: Work) -> Work:
    """Bands travel as int16 counts where source, method and target agree on them."""
    bands = [work.sources[b] for b in work.bands]
    plain = all(len(g) == 1 for g in work.axes.groups)
    agree = all(isinstance(s, StoreSource) and s.counts == _STORED for s in bands)
    outputs = {encoding_of(g, np.dtype(np.float32)).dtype for g in work.traits.gives}
    if work.traits.counts and plain and agree and outputs == {np.dtype(np.int16)}:
        return replace(work, counts=_STORED)
    return work


def _check_ndvi(asked: Request, bands: tuple[str, str] | None) -> None:
    missing = [b for b in bands or () if b not in asked.work.traits.gives]
    if missing:
        raise CubefillError(
            f"ndvi=True needs {' and '.join(bands or ())} among the filled variables "
            f"({', '.join(asked.work.traits.gives)}): {', '.join(missing)} is missing. "
            "Load it, or pass nir='B8A' or ndvi=False."
        )


def _targets(
    asked: Request, target: Any, bands: tuple[str, str] | None, ndvi_store: Any
) -> dict[str, Place]:
    here = place(target)
    targets = dict.fromkeys(asked.work.outputs, here)
    if bands:
        there = place(ndvi_store) if ndvi_store is not None else here
        if overlap(here, there):
            refuse_source(there, [] if same_place(here, there) else [here], describe(there))
            there = here
        names = ["NDVI", "NDVI_flag", *(["NDVI_std"] if asked.work.std else [])]
        targets |= dict.fromkeys(names, there)
    return targets


def _check_targets(ds: xr.Dataset, job: Job, resume: bool, overwrite: bool) -> None:
    """Refuses any of the targets before the first is touched."""
    sources = [s.store for s in job.work.sources.values() if isinstance(s, StoreSource)]
    for target in job.stores:
        refuse_source(target, [*sources, *stores_of(ds)], describe(target))
        store.admit(target, resume=resume, overwrite=overwrite)


def _begin(
    asked: Request, job: Job, create: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> list[Tile]:
    """Tiles to write: those that any of the target stores lacks."""
    import dask.array as da

    shape = (len(asked.work.axes.out), *asked.work.shape)
    empty = {n: da.zeros(shape, dtype=dtype_of(n), chunks=shape) for n in job.targets}
    template = engine.describe_output(asked, {n: empty[n] for n in asked.work.outputs})
    for name in [n for n in job.targets if n.startswith("NDVI") and n not in template]:
        template[name] = (("time", "y", "x"), empty[name], _ndvi_attrs(name, job))
        template[name].encoding = dict(template["fill_flag"].encoding)
    missing: dict[str, Tile] = {}
    for where in job.stores:
        names = [n for n, one in job.targets.items() if one == where]
        todo = store.begin(
            where,
            template[names],
            _fingerprint(asked, job.ndvi),
            resume=resume,
            overwrite=overwrite,
            finish="Run the same job again (resume=True)",
            create_options=create,
        )
        missing |= {tile.name: tile for tile in todo}
    return list(missing.values())


def _chunk(plan: JobPlan) -> int:
    return STEP if plan.tile % STEP == 0 else plan.tile


def _ndvi_attrs(name: str, job: Job) -> dict[str, Any]:
    if name == "NDVI_flag":
        return engine.flag_attrs()
    if name == "NDVI_std":
        return {"long_name": "standard deviation of the error of NDVI", "units": "1"}
    extra = " NDVI_std" if job.work.std else ""
    return {
        **NDVI_ATTRS,
        "bands": " ".join(job.ndvi or ()),
        "ancillary_variables": f"NDVI_flag{extra}",
    }


def _fingerprint(asked: Request, bands: tuple[str, str] | None) -> dict[str, Any]:
    work = asked.work
    band = work.sources[work.bands[0]]
    came = describe(band.store) if isinstance(band, StoreSource) else "memory"
    return {
        "job": "gapfill",
        "source": came,
        "source_identity": band.identity if isinstance(band, StoreSource) else "",
        "method": asked.name,
        "parameters": {k: str(v) for k, v in parameters(work.method).items() if k != "device"},
        "bands": list(work.bands),
        "times": [str(t) for t in work.axes.out.astype("datetime64[s]")],
        "std": work.std,
        "ndvi": list(bands or ()),
    }


def _listed(failed: Mapping[str, str]) -> str:
    first = "; ".join(f"{k}: {v}" for k, v in list(failed.items())[:3])
    return first + ("; ..." if len(failed) > 3 else "")
