"""What nets of regular series share: a grid of days, pixels as samples, windows along long series.

Observations go to the nearest step of the grid, at most half a step away. A series shorter than the
net's is continued by nothing; a longer one goes through the net in windows that overlap by half and
are weighted by the distance to their edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Bool, Filled, Float, days_since
from cubefill.methods.learned.method import Arrays, TorchMethod
from cubefill.methods.learned.passes import device_of
from cubefill.nn.recurrent import cut, joined

CELL, GPU_CELL = 16, 64
"""Edges of the squares of pixels that go through the net together, on a CPU and on a GPU."""

COHERENCE = ("COH_VV", "COH_VH")
"""Names of the coherence of either polarisation, 0-1, beside VV and VH."""


@dataclass(frozen=True)
class Grid:
    """Steps of equal length that cover the dates of a block."""

    start: np.datetime64
    """Day of the first step."""
    every: int
    """Days of a step."""
    steps: int
    """Steps that the dates span."""

    def days(self, times: NDArray[np.datetime64]) -> NDArray[np.float64]:
        """Days of times since the first step, each time at the start of its day."""
        return days_since(times.astype("datetime64[D]").astype("datetime64[ns]"), self.start)

    def nearest(self, times: NDArray[np.datetime64]) -> NDArray[np.intp]:
        """Step nearest to each time; the later one of two that are equally near."""
        return np.floor(self.days(times) / self.every + 0.5).astype(np.intp)


def grid_of(block: Block, every: int) -> Grid:
    """The grid of a block: from the day of its first date on, to within half a step of its last."""
    first, last = (
        edge(axis.astype("datetime64[D]") for axis in (block.time[at], block.out_time[at]))
        for edge, at in ((min, 0), (max, -1))
    )
    start = first.astype("datetime64[ns]")
    span = float(days_since(np.array([last]), start)[0])
    return Grid(start, every, int(np.floor(span / every + 0.5)) + 1)


def on_grid(values: Float, clear: Bool, times: NDArray[np.datetime64], grid: Grid) -> Float:
    """Clear values `(time, y, x)` on the grid, the nearest in time of those of a step, else NaN."""
    out = np.full((grid.steps, *values.shape[1:]), np.nan, np.float32)
    step = grid.nearest(times)
    away = np.abs(grid.days(times) - step * grid.every)
    for i in np.argsort(-away, kind="stable"):
        if 0 <= step[i] < grid.steps:
            np.copyto(out[step[i]], values[i], where=clear[i])
    return out


def nearest_known(values: Float, times: NDArray[np.datetime64], grid: Grid) -> Float:
    """Values `(time, y, x)` on the grid, each from the nearest date that has one; NaN for none."""
    days = grid.days(times)
    out = np.empty((grid.steps, *values.shape[1:]), np.float32)
    for k in range(grid.steps):
        near = np.argsort(np.abs(days - k * grid.every), kind="stable")
        out[k] = values[near[0]]
        for i in near[1:]:
            missing = np.isnan(out[k])
            if not missing.any():
                break
            np.copyto(out[k], values[i], where=missing)
    return out


def at_dates(steps: Float, times: NDArray[np.datetime64], grid: Grid) -> Float:
    """Values `(time, y, x)` from those of a grid's steps `(step, y, x)`, linear between them."""
    place = np.clip(grid.days(times) / grid.every, 0, grid.steps - 1)
    before = np.floor(place).astype(np.intp)
    after = np.minimum(before + 1, grid.steps - 1)
    weight = (place - before).astype(np.float32)[:, None, None]
    out: Float = steps[before] + (steps[after] - steps[before]) * weight
    return out


@dataclass(frozen=True)
class SeriesMethod(TorchMethod):
    """A method whose net sees the regular series of each pixel.

    A subclass gives `series`; its `Config` has `steps` and `every`.
    """

    rows: ClassVar[int] = CELL * CELL
    complete: ClassVar[bool] = False

    assumed_coherence: float = 0.0
    """Coherence taken where a net needs it and the cube has none; 0 refuses such a cube."""

    def series(self, block: Block, grid: Grid) -> Float:
        """Inputs `(step, series, y, x)` of the net; NaN where a pixel lacks an input altogether."""
        raise NotImplementedError(f"{type(self).__name__} has no `series(block, grid)`.")

    def split(self, block: Block) -> list[Block]:
        """Squares of pixels that lie on the cube's own grid."""
        return [square.of(block) for square in self._squares(block)]

    def join(self, block: Block, answers: list[Filled]) -> Filled:
        """The parts of the squares that lie in the block."""
        out = {n: np.empty(block.shape, a.dtype) for n, a in answers[0].bands.items()}
        for square, answer in zip(self._squares(block), answers, strict=True):
            for n, a in answer.bands.items():
                out[n][:, *square.place] = a[:, *square.inside]
        return Filled(out)

    def _squares(self, block: Block) -> list["_Square"]:
        return squares(block, CELL if device_of(self.device).type == "cpu" else GPU_CELL)

    def encode(self, block: Block) -> Arrays:
        """`x (pixel * window, step, series)`, 0 where a pixel lacks an input altogether."""
        grid = self._grid(block)
        return {"x": self._samples(np.nan_to_num(self.series(block, grid), nan=0.0), grid)}

    def answer(self, output: NDArray[np.float32], block: Block) -> Float:
        """Values `(out_time, y, x)` of the net's answer; NaN where a pixel lacks an input."""
        grid = self._grid(block)
        whole = joined(output[..., 0], self.config.steps, grid.steps)
        steps = np.ascontiguousarray(whole.T).reshape(grid.steps, *block.valid.shape[1:])
        out = at_dates(steps, block.out_time, grid)
        out[:, self.lacking(block)] = np.nan
        return out

    def lacking(self, block: Block) -> Bool:
        """True `(y, x)` where a pixel lacks an input on every date."""
        lacks = np.zeros(block.valid.shape[1:], bool)
        for values in block.sar.values():
            lacks |= np.isnan(values).all(axis=0)
        return lacks

    def _grid(self, block: Block) -> Grid:
        return grid_of(block, self.config.every)

    def _samples(self, series: Float, grid: Grid) -> Float:
        """Samples `(pixel * window, step, series)` of `(step, series, y, x)`."""
        missing = self.config.steps - len(series)
        if missing > 0:
            series = np.concatenate([series, self._after(series, missing)])
        flat = series.reshape(*series.shape[:2], -1).transpose(2, 0, 1)
        return np.ascontiguousarray(cut(flat, self.config.steps, grid.steps))

    def _after(self, series: Float, steps: int) -> Float:
        """What stands behind the end of a series that is too short for the net."""
        return np.repeat(series[-1:], steps, axis=0)

    def _radar(self, block: Block, grid: Grid, *, coherence: bool) -> dict[str, Float]:
        """VV and VH in -30 dB, and coherence 0-1, each `(step, y, x)`."""
        radar: dict[str, Float] = {}
        for n in ("VV", "VH"):
            scaled = nearest_known(block.sar[n], block.time, grid) / np.float32(-30)
            radar[n] = np.clip(scaled, 0.01, 2.0)
        if coherence:
            radar |= {n: self._coherence(block, n, grid) for n in COHERENCE}
        return radar

    def _coherence(self, block: Block, name: str, grid: Grid) -> Float:
        if name in block.sar:
            return np.clip(nearest_known(block.sar[name], block.time, grid), 0, 1)
        if not self.assumed_coherence:
            raise MethodError(
                f"The net of {self.name!r} needs Sentinel-1 coherence: expected {name} in the "
                "cube. Pass assumed_coherence=0.3 to take that value everywhere, or train a net "
                "with coherence=False."
            )
        shape = (grid.steps, *block.valid.shape[1:])
        return np.full(shape, self.assumed_coherence, np.float32)


# ------------------------------------------------------------------ squares of pixels


class _Square(NamedTuple):
    """A square on the cube's grid, and the part of a block that lies in it."""

    place: tuple[slice, slice]
    """Rows and columns of the block."""
    inside: tuple[slice, slice]
    """Where they lie in the square."""
    edge: int
    """Rows, and columns, of the square."""

    def of(self, block: Block) -> Block:
        """The square as a block; beyond the block's edge its nearest pixels are repeated."""
        beyond = [(s.start, self.edge - s.stop) for s in self.inside]

        def part(a: NDArray[Any]) -> NDArray[Any]:
            inner = a[..., *self.place]
            if not any(map(any, beyond)):
                return inner
            return np.pad(inner, [(0, 0)] * (a.ndim - 2) + beyond, mode="edge")

        return replace(
            block,
            bands={n: part(a) for n, a in block.bands.items()},
            valid=part(block.valid),
            sar={n: part(a) for n, a in block.sar.items()},
            dem=None if block.dem is None else part(block.dem),
            out={},
        )


def squares(block: Block, edge: int) -> list[_Square]:
    """Squares of `edge` pixels that cover a block, counted from the cube's origin.

    A matrix product may round a row by where it stands in the batch, so a pixel must stand at the
    same place whatever the tile is.
    """
    rows, columns = (
        list(_along(start, length, edge))
        for start, length in zip(block.origin[1:], block.valid.shape[1:], strict=True)
    )
    return [_Square((y, x), (v, u), edge) for (y, v), (x, u) in product(rows, columns)]


def _along(start: int, length: int, edge: int) -> Iterator[tuple[slice, slice]]:
    for first in range(start // edge * edge, start + length, edge):
        lo, hi = max(first, start), min(first + edge, start + length)
        yield slice(lo - start, hi - start), slice(lo - first, hi - first)
