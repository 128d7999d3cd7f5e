"""What a worker of a job does: fill a tile step by step and write it whole."""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill import store
from cubefill.cube.counts import Encoding, decode, encode
from cubefill.cube.indices import normalized_difference, normalized_difference_std
from cubefill.engine import kernel as tiles
from cubefill.engine.work import Area, Work
from cubefill.errors import CubefillWarning, JobError
from cubefill.store.encoding import encoding_of
from cubefill.store.ledger import Ledger, Progress, Tile
from cubefill.store.source import Place

log = logging.getLogger("cubefill")

Outcome = tuple[Tile, Any]


@dataclass(frozen=True)
class Job:
    """What a worker must know to write any tile; picklable."""

    work: Work
    targets: Mapping[str, Place]
    """Output name to the store that it is written to."""
    step: int
    ndvi: tuple[str, str] | None = None
    """Near infrared and red, where NDVI is written."""

    @property
    def stores(self) -> list[Place]:
        """Stores that are written, each once."""
        return list({id(t): t for t in self.targets.values()}.values())

    def encodings(self) -> dict[str, Encoding]:
        """How each output is stored."""
        return {n: encoding_of(n, dtype_of(n)) for n in self.targets}


def dtype_of(name: str) -> np.dtype[Any]:
    """Type in memory of an output."""
    if name.endswith("_flag"):
        return np.dtype(np.uint8)
    return np.dtype(np.float32)


def write_tile(job: Job, tile: Tile) -> dict[str, Any]:
    """Fills one tile step by step and writes it, whole shards at once; tells what was clipped."""
    encodings = job.encodings()
    shape = (len(job.work.axes.out), tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
    buffers = {n: _buffer(n, shape, e.dtype) for n, e in encodings.items()}
    clipped = 0
    for area in _areas(tile, job.step):
        y = slice(area.y.start - tile.y.start, area.y.stop - tile.y.start)
        x = slice(area.x.start - tile.x.start, area.x.stop - tile.x.start)
        into = {n: b[:, y, x] for n, b in buffers.items()}
        filled = tiles.fill_tile(job.work, area, into=into)
        for name, (counts, lost) in _with_ndvi(job, filled, encodings).items():
            if counts is not into[name]:
                into[name][...] = counts
            clipped += lost
    for name, target in job.targets.items():
        index = (slice(0, shape[0]), tile.y, tile.x)
        store.write_region(target, name, index, buffers[name])
    return {"tile": tile.name, "clipped": clipped}


_KEPT = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of this thread that outlives the tile: fresh pages cost more than a fill."""
    kept: dict[tuple[str, str], NDArray[Any]] = _KEPT.__dict__.setdefault("arrays", {})
    key, size = (name, dtype.str), math.prod(shape)
    if key not in kept or kept[key].size < size:
        kept[key] = np.empty(size, dtype)
    return kept[key][:size].reshape(shape)


def _areas(tile: Tile, step: int) -> Iterator[Area]:
    for y in range(tile.y.start, tile.y.stop, step):
        for x in range(tile.x.start, tile.x.stop, step):
            yield Area(slice(y, min(y + step, tile.y.stop)), slice(x, min(x + step, tile.x.stop)))


def _with_ndvi(
    job: Job, arrays: Mapping[str, NDArray[Any]], encodings: Mapping[str, Encoding]
) -> dict[str, tuple[NDArray[Any], int]]:
    """Encoded outputs of an area; NDVI is made from the bands as they are stored."""
    out = {n: encode(a, encodings[n]) for n, a in arrays.items()}
    if job.ndvi is None:
        return out
    nir, red = (decode(out[b][0], encodings[b]) for b in job.ndvi)
    out["NDVI"] = encode(normalized_difference(nir, red), encodings["NDVI"])
    out["NDVI_flag"] = (arrays["fill_flag"], 0)
    if job.work.std:
        stds = (decode(out[f"{b}_std"][0], encodings[f"{b}_std"]) for b in job.ndvi)
        std = normalized_difference_std(nir, red, *stds)
        out["NDVI_std"] = encode(std, encodings["NDVI_std"])
    return out


def run_tiles(
    job: Job,
    todo: list[Tile],
    client: Any,
    workers: int,
    bar: Progress,
    on_error: str,
) -> dict[str, str]:
    """Runs every tile, marks it, and returns those that failed."""
    failed: dict[str, str] = {}
    clipped = 0
    ledgers = [Ledger(where) for where in job.stores]
    outcomes = (
        _on_threads(job, todo, workers)
        if client is None
        else _on_cluster(job, todo, client, workers)
    )
    for tile, outcome in outcomes:
        if isinstance(outcome, BaseException):
            message = f"{type(outcome).__name__}: {outcome}"
            if on_error == "raise":
                raise JobError(
                    f"Tile {tile.name} (y {tile.y.start}:{tile.y.stop}, x {tile.x.start}:"
                    f"{tile.x.stop}) failed: {message} Finished tiles are kept: run the same job "
                    "again to go on, or pass on_error='skip' to go on without such tiles.",
                    {tile.name: message},
                ) from outcome
            log.error("tile %s failed: %s", tile.name, message)
            failed[tile.name] = message
            continue
        for ledger in ledgers:
            ledger.mark(tile)
        clipped += outcome["clipped"]
        bar.step(outcome)
        log.debug("tile %s done", tile.name)
    if clipped:
        warnings.warn(
            f"{clipped} values were beyond what int16 counts of 1e-4 hold (-3.2767 to 3.2767) and "
            "are clipped. Look for values that are no reflectance.",
            CubefillWarning,
            stacklevel=3,
        )
    return failed


def _on_threads(job: Job, todo: Iterable[Tile], workers: int) -> Iterator[Outcome]:
    """Tiles in order of completion; at most `workers` at once, so that memory keeps to the plan."""
    stop = threading.Event()

    def one(tile: Tile) -> Any:
        return None if stop.is_set() else write_tile(job, tile)

    with ThreadPoolExecutor(workers, thread_name_prefix="cubefill") as pool:
        running: dict[Future[Any], Tile] = {}
        queue = iter(todo)
        try:
            _top_up(running, queue, workers, lambda t: pool.submit(one, t))
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    tile = running.pop(future)
                    yield tile, future.exception() or future.result()
                _top_up(running, queue, workers, lambda t: pool.submit(one, t))
        finally:
            stop.set()
            for future in running:
                future.cancel()


def _on_cluster(job: Job, todo: Iterable[Tile], client: Any, workers: int) -> Iterator[Outcome]:
    """Tiles in order of completion; two in flight for each thread, fewer where memory is short."""
    from distributed import as_completed

    held = client.scatter(job, broadcast=True, hash=False)
    width = 2 * workers if workers >= threads_of(client) else workers
    running: dict[Any, Tile] = {}
    queue = iter(todo)

    def submit(tile: Tile) -> Any:
        return client.submit(_on_worker, held, tile, pure=False, retries=2)

    _top_up(running, queue, width, submit)
    completed = as_completed(list(running))
    try:
        for future in completed:
            tile = running.pop(future)
            yield tile, future.exception() or future.result()
            before = set(running)
            _top_up(running, queue, width, submit)
            completed.update([f for f in running if f not in before])
    finally:
        client.cancel(list(running))


def _on_worker(job: Job, tile: Tile) -> dict[str, Any]:
    import dask

    with dask.config.set(scheduler="threads"):
        return write_tile(job, tile)


def _top_up(
    running: dict[Any, Tile], queue: Iterator[Tile], width: int, submit: Callable[[Tile], Any]
) -> None:
    while len(running) < width:
        tile = next(queue, None)
        if tile is None:
            return
        running[submit(tile)] = tile


def threads_of(client: Any) -> int:
    """Threads of a cluster."""
    return max(1, sum(client.nthreads().values()))


def memory_of(client: Any) -> int | None:
    """60 % of the memory that the workers of a cluster may take; None where they have no limit."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [int(w.get("memory_limit") or 0) for w in workers]
    return int(0.6 * sum(limits)) if limits and all(limits) else None
