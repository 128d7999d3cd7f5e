"""Hypothesis strategies for cubes, and small methods with every kind of window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from pyproj import CRS

from cubefill.methods.contract import Block, Filled, Flag, Needs
from cubefill.methods.windows import Span, Whole

_CRS = CRS.from_epsg(32631).to_cf()


def cube(
    dates: int = 7,
    size: tuple[int, int] = (12, 10),
    bands: tuple[str, ...] = ("B04", "B08"),
    *,
    gap: float = 0.5,
    seed: int = 0,
    step: int = 5,
) -> xr.Dataset:
    """A cube of random reflectance with random gaps; some pixels never clear."""
    rng = np.random.default_rng(seed)
    ny, nx = size
    days = np.cumsum(rng.integers(1, step + 1, dates))
    time = np.datetime64("2023-01-01T10:30", "ns") + days.astype("m8[D]")
    shape = (dates, ny, nx)
    valid = rng.random(shape) >= gap
    valid[:, 0, 0] = False
    data: dict[str, Any] = {
        b: (("time", "y", "x"), rng.integers(1, 9000, shape).astype(np.float32) * np.float32(1e-4))
        for b in bands
    }
    data["valid"] = (("time", "y", "x"), valid)
    return xr.Dataset(
        data,
        coords={
            "time": time,
            "y": 5_600_000.0 - 10 * np.arange(ny),
            "x": 500_000.0 + 10 * np.arange(nx),
            "spatial_ref": ((), np.int32(32631), dict(_CRS)),
        },
    )


@st.composite
def cubes(draw: st.DrawFn) -> xr.Dataset:
    """Cubes of every small size, with few or many gaps."""
    return cube(
        dates=draw(st.integers(1, 9)),
        size=(draw(st.integers(1, 13)), draw(st.integers(1, 13))),
        gap=draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])),
        seed=draw(st.integers(0, 10)),
    )


@st.composite
def chunkings(draw: st.DrawFn, ds: xr.Dataset) -> dict[str, tuple[int, ...]]:
    """Random chunks along every axis of a cube, up to four: a graph of hundreds takes long."""
    return {str(d): _parts(draw, n) for d, n in ds.sizes.items()}


def _parts(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    cuts = draw(st.sets(st.integers(0, length), max_size=3)) | {0, length}
    return tuple(int(n) for n in np.diff(sorted(cuts)))


@dataclass(frozen=True)
class Neighbours:
    """The mean of everything clear that the method sees, minus what its first value is."""

    size: int = 5
    keep: int = 3
    time_size: int = 0
    time_keep: int = 0
    blend: str = "none"
    learned: float = 0.0

    @property
    def needs(self) -> Needs:
        blend: Any = self.blend
        time = Span(self.time_size, self.time_keep, blend) if self.time_size else Whole()
        return Needs(time=time, space=Span(self.size, self.keep, blend))

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            o = block.optical
            total = np.nansum(o.astype(np.float64), axis=(0, 2, 3), keepdims=True)
            places = np.arange(o[0, 0].size, dtype=np.float64).reshape(o.shape[2:])
            out = np.broadcast_to(total + places * 1e-3 + self.learned, o.shape)
            out = (
                np.broadcast_to(out[:1], (len(block.out_time), *o.shape[1:]))
                + block.out_days[:, None, None, None] * 1e-3
            )
            yield block.filled(out.astype(np.float32))


@dataclass(frozen=True)
class Mean:
    """The mean of each pixel's clear values, plus what it has learned from the sample."""

    flag = Flag.INTERPOLATED
    learned: float = field(default=0.0)

    needs = Needs()

    def prepare(self, sample: Block) -> "Mean":
        o = sample.optical
        return replace(self, learned=float(o[np.isfinite(o)].mean()) if sample.valid.any() else 0.0)

    def recorded(self) -> dict[str, float]:
        return {"learned": self.learned}

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            o = block.optical.astype(np.float64)
            n = np.isfinite(o).sum(0)
            total = np.where(np.isfinite(o), o, 0).sum(0)
            mean = np.where(n > 0, total / np.maximum(n, 1) + self.learned, np.nan)
            shape = (len(block.out_time), *mean.shape)
            yield block.filled(np.broadcast_to(mean, shape).astype(np.float32))
