"""Tiles at work on threads or on a dask cluster: one scheduler for cubes and for jobs."""

import json
import logging
import pickle
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import cloudpickle  # type: ignore[import-untyped]
import dask
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from cubefill.cube.counts import SCALE
from cubefill.cube.flags import codes_in, shares_line, shares_of
from cubefill.errors import CubefillWarning, StoreError
from cubefill.store.ledger import Ledger, Progress, Tile
from cubefill.store.source import Index, StoreLike, describe
from cubefill.store.template import consolidate, write_region

log = logging.getLogger("cubefill")

GAPS = "gapfill_shares"
"""Root attribute: JSON of the share of each code of `fill_flag` among the gaps."""


@dataclass
class Losses:
    """What encoding did to the values of some tiles; adds up."""

    clipped: dict[str, int] = field(default_factory=dict)
    """Variable to the number of values that its type could not hold."""
    rounded: set[str] = field(default_factory=set)
    """Variables with values between counts."""
    codes: Counter[int] = field(default_factory=Counter)
    """Code of `fill_flag` to the number of its values."""

    def add(self, other: "Losses") -> None:
        """Adds what was found in other tiles."""
        for name, n in other.clipped.items():
            self.clipped[name] = self.clipped.get(name, 0) + n
        self.rounded |= other.rounded
        self.codes += other.codes


Encoded = Iterable[tuple[str, Index, NDArray[Any]]]
"""Variables of a tile: name, region and stored values."""


class TileWriter(Protocol):
    """What writes any tile; picklable, and the same for all of them."""

    @property
    def targets(self) -> Mapping[str, StoreLike]:
        """Name of each variable to the store that it is written to."""

    def encoded(self, tile: Tile, given: Any, threads: int) -> tuple[Encoded, Losses]:
        """Variables of a tile, from what the scheduler was given for it, on so many threads."""


def written(writer: TileWriter) -> list[StoreLike]:
    """Stores that are written, each once."""
    return list({id(t): t for t in writer.targets.values()}.values())


def write_tile(writer: TileWriter, tile: Tile, given: Any, threads: int) -> Losses:
    """Computes all variables of a tile, writes them, whole shards at once, and marks the tile."""
    regions, tally = writer.encoded(tile, given, threads)
    for name, index, counts in regions:
        write_region(writer.targets[name], name, index, counts)
    for store in written(writer):
        Ledger(store).mark(tile)
    return tally


Failed = Callable[[Tile, Exception], None]
"""Told of a tile that failed: raises, or returns to go on without it."""


def stop(tile: Tile, error: Exception) -> None:
    """Stops at the first tile that fails, with its own error."""
    raise error


def run_tiles(
    writer: TileWriter,
    todo: Iterable[Tile],
    bar: Progress,
    *,
    given: Callable[[Tile], Any] = lambda tile: None,
    client: Any = None,
    workers: int | None = None,
    failed: Failed = stop,
) -> None:
    """Every tile written and marked; says once, and records, what encoding did to values.

    `todo` is asked for the next tile when a worker is free. `given` makes what a tile needs beside
    the writer; on a cluster it travels with the tile, and a tile that fails is tried three times.
    Without `workers` tiles run one after the other, each on all cores; on a cluster all threads.
    """
    tally = Losses()
    if client is not None:
        outcomes = _on_cluster(writer, iter(todo), given, client, workers)
    elif workers is None:
        outcomes = _in_turn(writer, iter(todo), given)
    else:
        outcomes = _on_threads(writer, iter(todo), given, workers)
    try:
        for tile, outcome in outcomes:
            if isinstance(outcome, Losses):
                tally.add(outcome)
                bar.step({"tile": tile.name, "clipped": sum(outcome.clipped.values())})
                log.debug("tile %s done", tile.name)
            elif isinstance(outcome, Exception):
                failed(tile, outcome)
            else:
                raise outcome
    finally:
        outcomes.close()
        _say(writer, tally)
    _say_gaps(writer, tally.codes)
    for store in written(writer):
        consolidate(store)


Outcomes = Generator[tuple[Tile, Losses | BaseException], None, None]


def _in_turn(writer: TileWriter, todo: Iterator[Tile], given: Callable[[Tile], Any]) -> Outcomes:
    """One tile after the other in this thread, so that an interrupt stops it at once."""
    for tile in todo:
        try:
            yield tile, write_tile(writer, tile, given(tile), dask.system.CPU_COUNT)
        except Exception as error:
            yield tile, error


def _on_threads(
    writer: TileWriter, todo: Iterator[Tile], given: Callable[[Tile], Any], workers: int
) -> Outcomes:
    """Tiles in order of completion; at most `workers` at once, so that memory keeps to the plan."""
    stopped = threading.Event()

    def one(tile: Tile) -> Losses:
        return Losses() if stopped.is_set() else write_tile(writer, tile, given(tile), 1)

    with ThreadPoolExecutor(workers, thread_name_prefix="cubefill") as pool:
        running: dict[Future[Losses], Tile] = {}
        try:
            while _top_up(running, todo, workers, lambda t: pool.submit(one, t)):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.exception() or future.result()
        finally:
            stopped.set()
            for future in running:
                future.cancel()


def _on_cluster(
    writer: TileWriter,
    todo: Iterator[Tile],
    given: Callable[[Tile], Any],
    client: Any,
    workers: int | None,
) -> Outcomes:
    """Tiles in order of completion; two in flight for each thread, fewer where memory is short.

    Pixels never pass the client.
    """
    from distributed import as_completed

    held = client.scatter(writer, broadcast=True, hash=False)
    threads = threads_of(client)
    width = 2 * threads if workers is None or workers >= threads else workers
    running: dict[Any, Tile] = {}
    completed = as_completed()

    def submit(tile: Tile) -> Any:
        packed = cloudpickle.dumps(given(tile))
        future = client.submit(_on_worker, held, tile, packed, pure=False, retries=2)
        completed.add(future)
        return future

    try:
        while _top_up(running, todo, width, submit):
            future = next(completed)
            yield running.pop(future), future.exception() or future.result()
            future.release()
    finally:
        client.cancel(list(running))


def _on_worker(writer: TileWriter, tile: Tile, packed: bytes) -> Losses:
    with dask.config.set(scheduler="threads"):
        return write_tile(writer, tile, pickle.loads(packed), _threads_here())


def _top_up(
    running: dict[Any, Tile], todo: Iterator[Tile], width: int, submit: Callable[[Tile], Any]
) -> bool:
    """Starts tiles until `width` are at work; False where none is left."""
    while len(running) < width and (tile := next(todo, None)) is not None:
        running[submit(tile)] = tile
    return bool(running)


def _threads_here() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return 1


def threads_of(client: Any) -> int:
    """Threads of a cluster."""
    return max(1, sum(client.nthreads().values()))


def memory_of(client: Any) -> int | None:
    """60 % of the memory that the workers of a cluster may take; None where they have no limit."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [int(w.get("memory_limit") or 0) for w in workers]
    return int(0.6 * sum(limits)) if limits and all(limits) else None


def refuse_memory(stores: Iterable[StoreLike], client: Any) -> None:
    """Raises StoreError where workers of a cluster would write to the memory of this process."""
    for store in stores:
        if client is not None and isinstance(store, MemoryStore):
            raise StoreError(
                f"{describe(store)} lives in one process, and client= writes from others: expected "
                "a path or a URL that all workers reach."
            )


def _say(writer: TileWriter, tally: Losses) -> None:
    """Records, and says once, what encoding did to values."""
    for name, n in tally.clipped.items():
        attrs = zarr.open_array(writer.targets[name], path=name, mode="r+").attrs
        attrs["clipped_values"] = int(attrs.get("clipped_values", 0)) + n  # type: ignore[arg-type]
    for name in tally.rounded:
        zarr.open_array(writer.targets[name], path=name, mode="r+").attrs["rounded_to"] = SCALE
    if tally.rounded:
        log.info(
            "%s: values lie between counts (resampled?); they are rounded to multiples of %g.",
            ", ".join(sorted(tally.rounded)),
            SCALE,
        )
    if tally.clipped:
        where = ", ".join(describe(s) for s in written(writer))
        each = ", ".join(f"{n}: {c}" for n, c in sorted(tally.clipped.items()))
        warnings.warn(
            f"{sum(tally.clipped.values())} values were too large or too small for their type in "
            f"{where} and were clipped ({each}): expected reflectance within ±3.2767. Check the "
            "scale of the bands.",
            CubefillWarning,
            stacklevel=4,
        )


def _say_gaps(writer: TileWriter, codes: Counter[int]) -> None:
    """Records, and says, what filled how much, once every tile of `fill_flag` is written.

    Tiles that an earlier run wrote are read again, which takes a fraction of their filling.
    """
    store = writer.targets.get("fill_flag")
    if store is None or not (ledger := Ledger(store)).complete:
        return
    flags, root = zarr.open_array(store, path="fill_flag", mode="r"), zarr.open_group(store)
    if flags.dtype != "uint8" or (GAPS in root.attrs and not codes):
        return
    if codes.total() < flags.size:
        parts = (np.asarray(flags[..., t.y, t.x]) for t in ledger.grid)
        codes = sum(map(codes_in, parts), Counter[int]())
    root.attrs[GAPS] = json.dumps(shares_of(codes))
    log.info("%s", shares_line(codes))
