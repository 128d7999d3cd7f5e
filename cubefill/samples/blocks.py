"""Blocks of cubes that samples are made of: placed, cut, turned, reflected, with gaps."""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import cube as cubes_of
from cubefill import gaps as artificial
from cubefill.cube import valid as validity
from cubefill.cube.axes import time_axes
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.errors import CubeError
from cubefill.methods.contract import Block, Needs
from cubefill.methods.windows import Axis, Span

Bool = NDArray[np.bool_]
View = tuple[xr.Dataset, NDArray[np.intp]]


def clear_windows(valid: Bool, steps: int, size: int) -> list[tuple[int, int, int]]:
    """Corners `(time, y, x)` of windows that are clear all over, a quarter of `size` apart.

    Where there is none, those at every pixel.

    Examples
    --------
    >>> clear_windows(np.ones((3, 4, 4), bool), 2, 4)
    [(0, 0, 0), (1, 0, 0)]
    """
    if any(n < m for n, m in zip(valid.shape, (steps, size, size), strict=True)):
        return []
    total = np.pad((~valid).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    inside = (
        total[:, size:, size:] - total[:, :-size, size:] - total[:, size:, :-size]
        + total[:, :-size, :-size]
    )  # fmt: skip
    clear = inside == 0
    run = clear[: len(clear) - steps + 1].copy()
    for i in range(1, steps):
        run &= clear[i : i + len(run)]
    apart = max(1, size // 4)
    if not run[:, ::apart, ::apart].any():
        apart = 1
    corners = np.argwhere(run[:, ::apart, ::apart]) * [1, apart, apart]
    return [(int(t), int(y), int(x)) for t, y, x in corners]


def viewed(ds: xr.Dataset) -> View:
    """A cube with `valid`, dims in order, and the positions of its days in order."""
    cubes_of.check(ds)
    view = ds.assign(valid=validity.apply(ds, None))
    days = np.array([g[0] for g in time_axes(ds["time"].values).groups], np.intp)
    return view.transpose("time", "y", "x", ...), days


def size_of(axis: Axis, length: int, other: int) -> int:
    """Steps that a method sees along an axis; `other` where it leaves that open."""
    if isinstance(axis, Span) and not axis.pointwise:
        return axis.size
    return min(other or length, length)


def placed(rng: np.random.Generator, length: int, size: int, align: int = 1) -> slice:
    """A random window that starts at a multiple of `align`."""
    if size > length:
        raise CubeError(
            f"A sample has {size} time steps, a cube {length}: expected a series at least as long "
            "as what the method sees. Give longer cubes."
        )
    start = int(rng.integers(length - size + 1)) // align * align
    return slice(start, start + size)


def impaired(part: xr.Dataset) -> Bool:
    """Dates on which a part of a cube is impaired, by its cloud probability where it has one."""
    found = part.get("cloud_probability")
    return artificial.impaired(part["valid"].values, None if found is None else found.values)


def shapes_at(viewed: View, edge: int, cover: float, rng: np.random.Generator) -> Bool:
    """Gaps `(n, edge, edge)` of four places of a cube, in random order."""
    (view, steps), found = viewed, []
    for _ in range(4):
        y, x = (placed(rng, n, min(n, edge)) for n in (view.sizes["y"], view.sizes["x"]))
        valid = view["valid"].isel(time=steps, y=y, x=x).values
        found.append(artificial.shapes_of(to_edge(valid, edge), cover))
    return rng.permutation(np.concatenate(found))


def to_edge(a: NDArray[Any], edge: int) -> NDArray[Any]:
    """The array reflected beyond its last row and column to `edge`, as the engine does it."""
    more = [(0, max(0, edge - n)) for n in a.shape[-2:]]
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + more, mode="reflect")


def reflected(block: Block, edge: int) -> Block:
    """The block reflected to `edge` pixels along y and x; itself where it is as large."""
    if min(block.valid.shape[1:]) >= edge:
        return block
    return replace(
        block,
        bands={n: to_edge(a, edge) for n, a in block.bands.items()},
        valid=to_edge(block.valid, edge),
        sar={n: to_edge(a, edge) for n, a in block.sar.items()},
        dem=None if block.dem is None else to_edge(block.dem, edge),
    )


def cut(
    view: xr.Dataset,
    steps: NDArray[np.intp],
    where: tuple[int, slice, slice],
    needs: Needs,
    turn: tuple[int, bool],
) -> Block:
    """The block of a cube at some time steps and a window in space."""
    first, y, x = where
    part = view.isel(time=steps, y=y, x=x)
    bands = needs.bands or cubes_of.spectral(view)
    time = part["time"].values.astype("datetime64[ns]")

    def read(name: str) -> NDArray[Any]:
        a = np.rot90(part[name].values, turn[0], axes=(-2, -1))
        return np.ascontiguousarray(a[..., ::-1] if turn[1] else a)

    return Block(
        bands={b: read(b).astype(np.float32, copy=False) for b in bands},
        valid=read("valid").astype(bool, copy=False),
        time=time,
        out_time=time,
        origin=(first, y.start, x.start),
        sar={n: read(n) for n in (*SAR_BANDS, *COHERENCE) if n in part} if needs.sar else {},
        dem=read("DEM") if needs.dem else None,
    )


def gapped(truth: Block, hidden: Bool, rng: np.random.Generator | None = None) -> Block:
    """The block with observations hidden, and what lies in their place: clouds with `rng`."""
    bands = artificial.covered(truth.bands, truth.valid, hidden, rng)
    return replace(truth, bands=bands, valid=truth.valid & ~hidden)
