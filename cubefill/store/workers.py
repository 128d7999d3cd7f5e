"""Pixels of a lazy cube, computed, encoded and written tile by tile."""

import pickle
import threading
from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import cloudpickle  # type: ignore[import-untyped]
import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from cubefill.cube.counts import Encoding, encode, is_rounded
from cubefill.errors import StoreError
from cubefill.store.encoding import encoding_of
from cubefill.store.ledger import Ledger, Tile
from cubefill.store.source import Index, Place, describe
from cubefill.store.template import write_region


@dataclass
class Tally:
    """What encoding did to the values of some tiles; adds up."""

    clipped: dict[str, int] = field(default_factory=dict)
    """Variable to the number of values that its type could not hold."""
    rounded: set[str] = field(default_factory=set)
    """Variables with values between counts."""

    def add(self, other: "Tally") -> None:
        """Adds what was found in other tiles."""
        for name, n in other.clipped.items():
            self.clipped[name] = self.clipped.get(name, 0) + n
        self.rounded |= other.rounded


@dataclass(frozen=True)
class Piece:
    """One tile of one variable: its values, not computed yet, and where they go."""

    name: str
    index: Index
    values: Any
    """numpy or dask array."""
    encoding: Encoding


def pieces_of(cube: xr.Dataset, tile: Tile) -> list[Piece]:
    """The tile of each variable on y and x."""
    found = []
    for name, variable in cube.data_vars.items():
        index = index_of(variable.dims, tile)
        if index is not None:
            values = variable.variable[index].data
            found.append(Piece(str(name), index, values, encoding_of(str(name), variable.dtype)))
    return found


def index_of(dims: Sequence[Hashable], tile: Tile) -> Index | None:
    """Where a tile lies in a variable of these dimensions; None when it has neither y nor x."""
    if "y" not in dims and "x" not in dims:
        return None
    return tuple({"y": tile.y, "x": tile.x}.get(str(d), slice(None)) for d in dims)


def write_tile(store: Place, tile: Tile, pieces: Sequence[Piece], workers: int) -> Tally:
    """Computes all variables of a tile together, writes them, and marks the tile."""
    tally = Tally()
    lock = threading.Lock()

    def encoded(block: NDArray[Any], name: str, encoding: Encoding) -> NDArray[Any]:
        counts, clipped = encode(block, encoding)
        rounded = is_rounded(block, encoding)
        if clipped or rounded:
            with lock:
                tally.add(Tally({name: clipped} if clipped else {}, {name} if rounded else set()))
        return counts

    arrays = _computed(pieces, encoded, workers)
    for piece, array in zip(pieces, arrays, strict=True):
        write_region(store, piece.name, piece.index, array)
    Ledger(store).mark(tile)
    return tally


def on_threads(
    store: Place, cube: xr.Dataset, todo: Sequence[Tile]
) -> Generator[tuple[Tile, Tally], None, None]:
    """Each tile after it is written, one after the other; its blocks run on all cores."""
    for tile in todo:
        yield tile, write_tile(store, tile, pieces_of(cube, tile), dask.system.CPU_COUNT)


def on_cluster(
    store: Place, cube: xr.Dataset, todo: Sequence[Tile], client: Any
) -> Generator[tuple[Tile, Tally], None, None]:
    """Each tile after a worker of the cluster wrote it; pixels never pass the client.

    About two tiles per thread of the cluster are in flight.
    """
    from distributed import as_completed

    if isinstance(store, MemoryStore):
        raise StoreError(
            f"{describe(store)} lives in one process, and client= writes from others: expected a "
            "path or a URL that all workers reach."
        )
    waiting = iter(todo)
    threads = sum(client.nthreads().values()) or 1
    futures: dict[Any, Tile] = {}
    done = as_completed()

    def submit() -> None:
        tile = next(waiting, None)
        if tile is not None:
            payload = _packed(store, tile, pieces_of(cube, tile))
            future = client.submit(_write_packed, payload, pure=False)
            futures[future] = tile
            done.add(future)

    try:
        for _ in range(2 * threads):
            submit()
        for future in done:
            tile = futures.pop(future)
            yield tile, future.result()
            future.release()
            submit()
    finally:
        client.cancel(list(futures))


def _computed(pieces: Sequence[Piece], encoded: Any, workers: int) -> list[NDArray[Any]]:
    """Stored values of each piece; blocks go straight to their place, so nothing is held twice."""
    import dask.array

    da: Any = dask.array
    arrays, sources, targets = [], [], []
    for piece in pieces:
        function = partial(encoded, name=piece.name, encoding=piece.encoding)
        if isinstance(piece.values, np.ndarray):
            arrays.append(function(piece.values))
            continue
        arrays.append(np.empty(piece.values.shape, piece.encoding.dtype))
        targets.append(arrays[-1])
        meta = np.empty((0,) * piece.values.ndim, piece.encoding.dtype)
        sources.append(
            piece.values.map_blocks(
                function, dtype=meta.dtype, meta=meta, name=f"encode-{piece.name}-{uuid4().hex}"
            )
        )
    if sources:
        da.store(sources, targets, lock=False, scheduler="threads", num_workers=workers)
    return arrays


def _packed(store: Place, tile: Tile, pieces: Sequence[Piece]) -> bytes:
    lazy = [p.values for p in pieces if not isinstance(p.values, np.ndarray)]
    culled = iter(dask.optimize(*lazy) if lazy else ())  # type: ignore[no-untyped-call, attr-defined]
    small = [
        p if isinstance(p.values, np.ndarray) else replace(p, values=next(culled)) for p in pieces
    ]
    packed: bytes = cloudpickle.dumps((store, tile, small))
    return packed


def _write_packed(payload: bytes) -> Tally:
    store, tile, pieces = pickle.loads(payload)
    return write_tile(store, tile, pieces, _threads_here())


def _threads_here() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return 1


def clipped_text(clipped: Mapping[str, int]) -> str:
    """`B02: 3, B03: 1`."""
    return ", ".join(f"{n}: {c}" for n, c in sorted(clipped.items()))
