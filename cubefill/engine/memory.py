"""Bytes that a fill holds: of a tile for each worker, and of a net for all of them together."""

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.cube.rows import in_rows
from cubefill.engine.kernel import region
from cubefill.engine.work import Region, Work
from cubefill.methods import Block, Scratch
from cubefill.methods.windows import Axis, Near, Span, Whole
from cubefill.store import source

BASE_BYTES = 64 * 2**20
"""Scratch of one worker beside its arrays."""


def scratch_of(work: Work, edge: int) -> Scratch:
    """What the method of a fill says that it holds for tiles of `edge` pixels."""
    told = getattr(work.method, "scratch", None)
    found: Scratch = told(example(work, edge)) if told is not None else Scratch()
    return found


def fitting(most: int, budget: int, needed: int, scratch: Scratch) -> int:
    """Workers of `needed` bytes each that fit a budget with a method's scratch; at least 1.

    Examples
    --------
    >>> fitting(8, 100, 20, Scratch(once=30, each=10, passes=1))
    3
    """
    fits = (w for w in range(most, 1, -1) if w * needed + scratch.of(w) <= budget)
    return next(fits, 1)


def tile_bytes(work: Work, edge: int) -> int:
    """Peak bytes of one worker on a tile: what it reads, what it gives, its windows, its base."""
    ny, nx = (min(edge, n) for n in work.shape)
    where = region(work, Region(slice(0, ny), slice(0, nx)))
    halo = halo_of(work.method.needs.space)
    ry, rx = (min(n, r + halo) for n, r in zip(work.shape, where.shape, strict=True))
    n_in, n_out = len(work.axes.given), len(work.axes.out)
    cell = 2 if work.counts else 4
    read = sum(_read_bytes(work, n, cell) for n in work.sources)
    copies = 1 if work.axes.plain_in else 2
    out = sum(d.itemsize for d in work.outputs.values())
    space = work.method.needs.space
    window = 0
    if isinstance(space, Whole) or not space.pointwise:
        edge = space.size if isinstance(space, Span) else max(ry, rx)
        window = (
            8 * n_in * len(work.bands) * 4 * min(edge, ry) * min(edge, rx) + out * n_out * ny * nx
        )
    return BASE_BYTES + read * copies * n_in * ry * rx + out * n_out * ny * nx + window


def halo_of(space: Axis) -> int:
    """Pixels read beyond a tile on each side."""
    if isinstance(space, Whole) or space.pointwise:
        return 0
    if isinstance(space, Near):
        return space.reach
    return space.size - 1 if space.blend == "linear" else space.keep - 1 + (space.halo + 1) // 2


def _read_bytes(work: Work, name: str, cell: int) -> int:
    mask = name.endswith("valid")
    found = work.sources[name]
    if isinstance(found, source.ArraySource):
        value = bool if mask else np.float32
        if found.dtype == value and in_rows(found.array):
            return 0
    return cell if name in work.bands else 1 if mask else 4


# ------------------------------------------------------------------ a block without a cube


def example(work: Work, edge: int) -> Block:
    """A block as large as those of a tile of `edge` pixels, of made-up pixels that take no memory.

    Half of it is clear. Its dates are the first ones of the cube, its arrays read-only.
    """
    needs, axes = work.method.needs, work.axes
    span = None if isinstance(needs.time, Whole) or needs.time.pointwise else needs.time.size
    time = axes.time[:span]
    shape = (len(time), *_extent(work, edge))
    noise = np.random.default_rng(0).random(7 * shape[0] + 13 * shape[1] + shape[2] + 64)
    values = noise.astype(np.float32)

    def view(offset: int, factor: float) -> NDArray[np.float32]:
        part = values[offset:] * np.float32(factor)
        return np.lib.stride_tricks.as_strided(part, shape, (28, 52, 4), writeable=False)

    clear = np.lib.stride_tricks.as_strided(values < 0.5, shape, (7, 13, 1), writeable=False)
    radar = [n for n in (*SAR_BANDS, *COHERENCE) if n in work.sources] if needs.sar else []
    factors = [-20.0 if n in SAR_BANDS else 1.0 for n in radar]
    return Block(
        bands={n: view(3 * i % 64, 0.6) for i, n in enumerate(work.bands)},
        valid=clear,
        time=time,
        out_time=time if axes.same else axes.out_time,
        sar={n: view(5 * i, f) for i, (n, f) in enumerate(zip(radar, factors, strict=True))},
        dem=view(0, 500.0)[0] if needs.dem else None,
        std=work.std,
        quantiles=work.quantiles,
    )


def _extent(work: Work, edge: int) -> tuple[int, int]:
    space = work.method.needs.space
    if isinstance(space, Whole):
        return work.shape
    if space.pointwise:
        return min(edge, work.shape[0]), min(edge, work.shape[1])
    if isinstance(space, Near):
        return min(edge + space.halo, work.shape[0]), min(edge + space.halo, work.shape[1])
    return space.size, space.size
