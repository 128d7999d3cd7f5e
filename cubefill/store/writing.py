"""Cubes written tile by tile, and finished where a run stopped."""

import logging
import threading
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import accept, unplaced
from cubefill.cube.counts import Encoding, encode, is_rounded
from cubefill.cube.flags import codes_in
from cubefill.errors import StoreError
from cubefill.ownership import ID, marks
from cubefill.store.encoding import Profile, encoding_of
from cubefill.store.fingerprint import fingerprint_of
from cubefill.store.ledger import Ledger, Progress, ProgressCallback, Tile, tiles
from cubefill.store.reading import opened
from cubefill.store.source import (
    Index,
    StoreLike,
    describe,
    place,
)
from cubefill.store.swap import settle
from cubefill.store.template import (
    create,
    refuse_existing,
    refuse_own_source,
)
from cubefill.store.workers import Losses, refuse_memory, run_tiles

log = logging.getLogger("cubefill")


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
    progress: bool | ProgressCallback | None = None,
) -> xr.Dataset:
    """The cube opened from `store`, after its pixels are computed and written tile by tile.

    A tile is one shard wide and has all dates. Each finished tile is recorded: the same call again
    writes what is missing. Reflectance becomes int16 counts of 1e-4 (`cubefill.store.encoding`).

    Parameters
    ----------
    ds
        Cube, lazy or in memory; names of other libraries (`red`, `t`) become cubefill's.
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
        Values were too large for their type and were clipped; names, dates or places were changed
        (`cubefill.cube.settled`); the cube names no CRS.

    Raises
    ------
    CubeError
        The dataset is no cube that `open_cube` and `run` would take.
    StoreError
        The store is there and holds something else, cannot be written, or the cube is read from
        it.

    Examples
    --------
    >>> import tempfile
    >>> from cubefill.testing import synthetic_cube
    >>> out = write_cube(synthetic_cube(), f"{tempfile.mkdtemp()}/cube.zarr", progress=False)
    >>> out["B04"].dims
    ('time', 'y', 'x')
    """
    where = place(store)
    refuse_memory([where], client)
    ds = accept(ds)
    unplaced(ds, "the store")
    options: dict[str, Any] = {
        "profile": profile,
        "zarr_format": zarr_format,
        "chunk": chunk,
        "shard": shard,
    }
    asked = fingerprint_of(ds, **options)
    finish = f"cubefill.write_cube(ds, {describe(where)!r}) with the same cube"
    todo = begin(
        where, ds, asked, resume=resume, overwrite=overwrite, finish=finish, create_options=options
    )
    total = len(tiles((ds.sizes["y"], ds.sizes["x"]), shard))
    try:
        with Progress(progress, total, total - len(todo), "write") as bar:
            run_tiles(
                CubeWriter({str(n): where for n in ds.data_vars}),
                todo,
                bar,
                given=lambda tile: pieces_of(ds, tile, cull=client is not None),
                client=client,
            )
    except KeyboardInterrupt:
        log.warning("Stopped. Use %s to finish it.", finish)
        raise
    return opened(where, "auto")


@dataclass(frozen=True)
class Piece:
    """One tile of one variable: its values, not computed yet, and where they go."""

    name: str
    index: Index
    values: Any
    """numpy or dask array."""
    encoding: Encoding


def pieces_of(cube: xr.Dataset, tile: Tile, *, cull: bool = False) -> list[Piece]:
    """The tile of each variable on y and x; with `cull` no more of the graph than it needs."""
    where = {n: i for n, v in cube.data_vars.items() if (i := index_of(v.dims, tile)) is not None}
    values = [cube.variables[n][i].data for n, i in where.items()]
    values = dask.optimize(*values) if cull else values  # type: ignore[no-untyped-call, attr-defined]
    return [
        Piece(str(n), i, v, encoding_of(str(n), cube.variables[n].dtype))
        for (n, i), v in zip(where.items(), values, strict=True)
    ]


def index_of(dims: Sequence[Hashable], tile: Tile) -> Index | None:
    """Where a tile lies in a variable of these dimensions; None when it has neither y nor x."""
    if "y" not in dims and "x" not in dims:
        return None
    return tuple({"y": tile.y, "x": tile.x}.get(str(d), slice(None)) for d in dims)


@dataclass(frozen=True)
class CubeWriter:
    """Encodes and writes tiles of a cube; takes them as pieces."""

    targets: Mapping[str, StoreLike]
    """Name of each variable to the store."""

    def encoded(
        self, tile: Tile, given: Sequence[Piece], threads: int
    ) -> tuple[list[tuple[str, Index, NDArray[Any]]], Losses]:
        """Stored values of each piece; blocks go straight to their place, none is held twice."""
        tally, lock = Losses(), threading.Lock()

        def stored(block: NDArray[Any], piece: Piece) -> NDArray[Any]:
            counts, clipped = encode(block, piece.encoding)
            found = Losses({piece.name: clipped} if clipped else {})
            found.rounded |= {piece.name} if is_rounded(block, piece.encoding) else set()
            found.codes += codes_in(counts) if piece.name == "fill_flag" else Counter[int]()
            with lock:
                tally.add(found)
            return counts

        arrays, sources, targets = [], [], []
        for piece in given:
            if isinstance(piece.values, np.ndarray):
                arrays.append(stored(piece.values, piece))
                continue
            arrays.append(np.empty(piece.values.shape, piece.encoding.dtype))
            targets.append(arrays[-1])
            meta = np.empty((0,) * piece.values.ndim, piece.encoding.dtype)
            how = replace(piece, values=None)
            name = f"encode-{piece.name}-{uuid4().hex}"
            blocks = piece.values.map_blocks(stored, how, dtype=meta.dtype, meta=meta, name=name)
            sources.append(blocks)
        if sources:
            import dask.array as da

            da.store(sources, targets, lock=False, scheduler="threads", num_workers=threads)
        return [(p.name, p.index, a) for p, a in zip(given, arrays, strict=True)], tally


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


def admit(where: StoreLike, *, resume: bool, overwrite: bool) -> bool:
    """True where a new store may be made, False where one of ours is there to be finished.

    Raises
    ------
    StoreError
        Anything else is there.
    """
    settle(where)
    if not overwrite and resume and ID in (marks(where) or {}):
        if Ledger(where).exists:
            return False
        raise StoreError(
            f"{describe(where)} exists and has no record of tiles, so it cannot be finished. "
            "Pass overwrite=True to replace it, or choose another path."
        )
    refuse_existing(where, overwrite)
    return True
