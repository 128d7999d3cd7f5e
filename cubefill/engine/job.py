"""The job executor: tiles as tasks on threads or a dask cluster, each owning whole chunks."""

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from cubefill.cube import unplaced, with_ndvi
from cubefill.cube.counts import Counts
from cubefill.engine.output import describe_output, with_carried
from cubefill.engine.planning import STEP, plan_work
from cubefill.engine.request import Request, announce, prepared, request
from cubefill.engine.tile import Job, dtype_of
from cubefill.engine.work import Work, described
from cubefill.errors import CubefillError, CubefillWarning, JobError
from cubefill.machine import Memory, cores
from cubefill.methods import Method, quantile_name
from cubefill.ownership import overlap, refuse_source, same_place
from cubefill.store import begin, fingerprint_of, open_cube
from cubefill.store.encoding import Profile, encoding_of
from cubefill.store.ledger import Ledger, Progress, ProgressCallback, Tile
from cubefill.store.source import (
    LazySource,
    Source,
    StoreLike,
    StoreSource,
    describe,
    find,
    place,
    stores_of,
)
from cubefill.store.swap import settle
from cubefill.store.workers import memory_of, refuse_memory, run_tiles, threads_of, written
from cubefill.store.writing import admit

log = logging.getLogger("cubefill")


def run(
    source: Any,
    target: Any,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    quantiles: Iterable[float] = (),
    ndvi: bool = False,
    ndvi_store: Any = None,
    nir: str = "B08",
    clip: bool = False,
    client: Any = None,
    resume: bool = True,
    overwrite: bool = False,
    device: str = "auto",
    memory: Memory = None,
    tile: int | None = None,
    workers: int | None = None,
    progress: bool | ProgressCallback | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    profile: Profile = "default",
    bands: Iterable[str] | str | None = None,
    **options: Any,
) -> xr.Dataset:
    """The filled cube, opened from the store that the job has written tile by tile.

    Pixels equal those of `gapfill` after encoding. Peak memory depends on the plan, not on the
    size of the cube. A job that was stopped goes on where it stopped when it is run again.

    Parameters
    ----------
    source
        A store that `write_cube` or xarray wrote, or a cube.
    target
        Store to write: a path, a URL, or any zarr store.
    method, times, valid, std, quantiles, device, bands, **options
        As for `gapfill`. Without `bands` the target holds the filled bands and `fill_flag` alone;
        with it all other variables too, as they came.
    ndvi
        True writes `NDVI`, `NDVI_flag` (and `NDVI_std` with `std`, `NDVI_q05` with `quantiles`),
        made from the stored bands;
        into `ndvi_store` where one is given. `nir="B8A"` for the narrow near infrared; `clip` as
        for `ndvi`.
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
    _check_how(on_error, workers)
    in_memory = isinstance(source, xr.Dataset | xr.DataArray)  # an array is refused as no cube
    ds: xr.Dataset = source if in_memory else open_cube(source)
    here = place(target)
    settle(here)
    asked = request(
        ds, method, times=times, valid=valid, std=std, quantiles=quantiles, device=device,
        bands=bands, options=options,
    )  # fmt: skip
    if in_memory:
        unplaced(asked.ds, "the store")
    of_ndvi = (nir, "B04") if ndvi or ndvi_store is not None else None
    _check_ndvi(asked, of_ndvi)
    announce(method, asked)
    asked = replace(asked, work=_sources(asked))
    targets = _targets(asked, here, of_ndvi, ndvi_store)
    asked, carried = _carried(asked, targets)
    targets |= dict.fromkeys(carried, here)
    refuse_memory(targets.values(), client)
    begun = Ledger(here) if not overwrite and Ledger(here).exists else None
    plan = plan_work(
        asked,
        memory=memory_of(client) if memory is None and client is not None else memory,
        tile=begun.tile if begun else tile,
        workers=workers or (cores() if client is None else threads_of(client)),
        job=True,
    )
    log.info("%s", plan)
    asked = replace(asked, work=_stored_counts(prepared(asked)))
    job = Job(asked.work, targets, plan.step or plan.tile, of_ndvi, clip, carried)
    _check_targets(ds, job, resume, overwrite)
    chunk = STEP if plan.tile % STEP == 0 else plan.tile
    create = {"profile": profile, "chunk": chunk, "shard": plan.tile}
    todo = _begin(asked, job, create, resume=resume, overwrite=overwrite)
    failed: dict[str, str] = {}
    give_up = partial(_failed, failed, on_error == "skip")
    done = plan.tiles - len(todo)
    if done:
        log.info("%d of %d tiles are done; going on", done, plan.tiles)
    with Progress(progress, plan.tiles, done) as bar:
        run_tiles(job, todo, bar, client=client, workers=plan.workers, failed=give_up)
    if failed:
        warnings.warn(
            f"{len(failed)} of {plan.tiles} tiles failed and are not written "
            f"({_listed(failed)}). Run the same job again to try them once more.",
            CubefillWarning,
            stacklevel=2,
        )
    return open_cube(here)


# ------------------------------------------------------------------ before the first tile


def _sources(asked: Request) -> Work:
    """Every variable gets a source: what only a graph can give is computed window by window."""
    work = asked.work
    sources = {
        n: LazySource(asked.variables[n]) if s is None else s for n, s in work.sources.items()
    }
    return replace(work, sources=sources)


def _carried(
    asked: Request, targets: Mapping[str, Any]
) -> tuple[Request, dict[str, tuple[tuple[str, ...], Source]]]:
    """The request with what is written untouched, and where the tiles of that come from."""
    named = {n if str(n) in asked.carried else str(n): v for n, v in asked.carried.items()}
    rest = {n: v for n, v in named.items() if n not in targets}
    tiled = {
        str(n): (tuple(map(str, v.dims)), find(v) or LazySource(v))
        for n, v in rest.items()
        if {"y", "x"} & set(v.dims)
    }
    return replace(asked, carried=rest), tiled


def _stored_counts(work: Work) -> Work:
    """Bands travel as int16 counts where source, method and target agree on them."""
    bands = [work.sources[b] for b in work.bands]
    plain = all(len(g) == 1 for g in work.axes.groups)
    agree = all(isinstance(s, StoreSource) and s.counts == Counts() for s in bands)
    outputs = {encoding_of(g, np.dtype(np.float32)).dtype for g in work.traits.gives}
    if work.traits.counts and plain and agree and outputs == {np.dtype(np.int16)}:
        return replace(work, counts=Counts())
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
    asked: Request, here: StoreLike, bands: tuple[str, str] | None, ndvi_store: Any
) -> dict[str, StoreLike]:
    targets = dict.fromkeys(asked.work.outputs, here)
    if bands:
        there = place(ndvi_store) if ndvi_store is not None else here
        if overlap(here, there):
            refuse_source(there, [] if same_place(here, there) else [here], describe(there))
            there = here
        names = ["NDVI", "NDVI_flag", *(["NDVI_std"] if asked.work.std else [])]
        names += [quantile_name("NDVI", q) for q in asked.work.quantiles]
        targets |= dict.fromkeys(names, there)
    return targets


def _check_how(on_error: str, workers: int | None) -> None:
    if on_error not in ("raise", "skip"):
        raise JobError(
            f"on_error={on_error!r}: expected 'raise' or 'skip'. Pass on_error='skip' to go on "
            "without the tiles that fail."
        )
    if workers is not None and workers < 1:
        raise JobError(f"workers={workers}: expected 1 or more. Pass workers=None for all cores.")


def _check_targets(ds: xr.Dataset, job: Job, resume: bool, overwrite: bool) -> None:
    """Refuses any of the targets before the first is touched."""
    sources = [s.store for s in job.work.sources.values() if isinstance(s, StoreSource)]
    for target in written(job):
        refuse_source(target, [*sources, *stores_of(ds)], describe(target))
        admit(target, resume=resume, overwrite=overwrite)


def _begin(
    asked: Request, job: Job, create: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> list[Tile]:
    """Tiles to write: those that any of the target stores lacks."""
    import dask.array as da

    shape = (len(asked.work.axes.out), *asked.work.shape)
    empty = {n: da.zeros(shape, dtype=dtype_of(n), chunks=shape) for n in asked.work.outputs}
    template = with_carried(describe_output(asked, empty), asked)
    if job.ndvi:
        template = with_ndvi(template, nir=job.ndvi[0], red=job.ndvi[1], clip=job.clip)
    read = xr.Dataset({**asked.carried, **asked.variables}, attrs=asked.ds.attrs).assign_coords(
        asked.ds.coords
    )
    fingerprint = fingerprint_of(
        read,
        job="gapfill",
        **described(asked.work),
        ndvi=[*(job.ndvi or ()), *(["clip"] if job.clip else [])],
    )
    missing: dict[str, Tile] = {}
    for where in written(job):
        names: list[Any] = [n for n, one in job.targets.items() if one == where]
        if where == job.targets["fill_flag"]:  # with what lies on neither y nor x
            names += [n for n in asked.carried if n not in names]
        todo = begin(
            where,
            template[names],
            fingerprint,
            resume=resume,
            overwrite=overwrite,
            finish="the same cubefill.run(...) again",
            create_options=create,
        )
        missing |= {tile.name: tile for tile in todo}
    return list(missing.values())


def _failed(failed: dict[str, str], skip: bool, tile: Tile, error: Exception) -> None:
    """Notes a tile that failed, or stops the job there."""
    message = f"{type(error).__name__}: {error}"
    if not skip:
        raise JobError(
            f"Tile {tile.name} (y {tile.y.start}:{tile.y.stop}, x {tile.x.start}:"
            f"{tile.x.stop}) failed: {message} Finished tiles are kept: run the same job "
            "again to go on, or pass on_error='skip' to go on without such tiles.",
            {tile.name: message},
        ) from error
    log.error("tile %s failed: %s", tile.name, message)
    failed[tile.name] = message


def _listed(failed: Mapping[str, str]) -> str:
    first = "; ".join(f"{k}: {v}" for k, v in list(failed.items())[:3])
    return first + ("; ..." if len(failed) > 3 else "")
