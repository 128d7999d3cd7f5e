"""What a worker of a job does: fill a tile step by step, and encode it."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.counts import Encoding, decode, encode
from cubefill.cube.flags import codes_in
from cubefill.cube.indices import (
    errors_together,
    index_flag,
    normalized_difference,
    normalized_difference_quantile,
    normalized_difference_std,
    together_attrs,
)
from cubefill.engine.kernel import fill_tile
from cubefill.engine.work import Region, Work
from cubefill.store.encoding import encoding_of
from cubefill.store.ledger import Tile, tiles
from cubefill.store.source import Index, Source, StoreLike
from cubefill.store.workers import Losses
from cubefill.store.writing import index_of


@dataclass(frozen=True)
class Job:
    """What a worker must know to fill and encode any tile; picklable."""

    work: Work
    targets: Mapping[str, StoreLike]
    """Output name to the store that it is written to."""
    step: int
    ndvi: tuple[str, str] | None = None
    """Near infrared and red, where NDVI is written."""
    clip: bool = False
    """True puts NDVI beyond -1..1 to the nearer of them."""
    carried: Mapping[str, tuple[tuple[str, ...], Source]] = field(default_factory=dict)
    """Variables that are written as they are read: their dimensions and where they come from."""

    def encoded(
        self, tile: Tile, given: Any, threads: int
    ) -> tuple[list[tuple[str, Index, NDArray[Any]]], Losses]:
        """One tile, filled step by step, as it is stored; its arrays serve the next tile again."""
        made = [n for n in self.targets if n not in self.carried]
        encodings = {n: encoding_of(n, dtype_of(n)) for n in made}
        shape = (len(self.work.axes.out), tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
        buffers = {n: _buffer(n, shape, e.dtype) for n, e in encodings.items()}
        tally = Losses()
        for step in tiles(shape[1:], self.step):
            part = Region(_moved(step.y, tile.y.start), _moved(step.x, tile.x.start))
            into = {n: b[:, step.y, step.x] for n, b in buffers.items()}
            filled = fill_tile(self.work, part, into=into)
            tally.codes += codes_in(filled["fill_flag"])
            for name, (counts, lost) in _with_ndvi(self, filled, encodings).items():
                if counts is not into[name]:
                    into[name][...] = counts
                if lost:
                    tally.add(Losses({name: lost}))
        index = (slice(0, shape[0]), tile.y, tile.x)
        done = [(n, index, buffers[n]) for n in made]
        return [*done, *(self._carry(n, tile, tally) for n in self.carried)], tally

    def _carry(self, name: str, tile: Tile, tally: Losses) -> tuple[str, Index, NDArray[Any]]:
        """A tile of a variable that nothing fills, as it is stored."""
        dims, source = self.carried[name]
        index = index_of(dims, tile) or ()
        counts, lost = encode(source.read(index), encoding_of(name, source.dtype))
        if lost:
            tally.add(Losses({name: lost}))
        return name, index, counts


def dtype_of(name: str) -> np.dtype[Any]:
    """Type in memory of an output."""
    if name.endswith("_flag"):
        return np.dtype(np.uint8)
    return np.dtype(np.float32)


_KEPT = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of this thread that outlives the tile: fresh pages cost more than a fill."""
    kept: dict[tuple[str, str], NDArray[Any]] = _KEPT.__dict__.setdefault("arrays", {})
    key, size = (name, dtype.str), math.prod(shape)
    if key not in kept or kept[key].size < size:
        kept[key] = np.empty(size, dtype)
    return kept[key][:size].reshape(shape)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _with_ndvi(
    job: Job, arrays: Mapping[str, NDArray[Any]], encodings: Mapping[str, Encoding]
) -> dict[str, tuple[NDArray[Any], int]]:
    """Encoded outputs of an area; NDVI is made from the bands as they are stored."""
    out = {n: encode(a, encodings[n]) for n, a in arrays.items()}
    if job.ndvi is None:
        return out
    nir, red = (decode(out[b][0], encodings[b]) for b in job.ndvi)
    clip = job.clip
    out["NDVI"] = encode(normalized_difference(nir, red, clip=clip), encodings["NDVI"])
    out["NDVI_flag"] = (index_flag(nir, red, arrays["fill_flag"], clip=clip), 0)
    if job.work.std:
        s, t = (decode(out[f"{b}_std"][0], encodings[f"{b}_std"]) for b in job.ndvi)
        attrs = together_attrs(job.work.errors_together(job.ndvi[0]))
        std = normalized_difference_std(nir, red, s, t, *errors_together(attrs, job.ndvi[1]))
        out["NDVI_std"] = encode(std, encodings["NDVI_std"])
    for name, (band, level) in job.work.quantile_names.items():
        if band == job.ndvi[0]:
            end = name.removeprefix(band)
            s, t = (decode(out[b + end][0], encodings[b + end]) for b in job.ndvi)
            attrs = together_attrs(job.work.errors_together(name))
            told = (level, *errors_together(attrs, job.ndvi[1]))
            quantile = normalized_difference_quantile(nir, red, s, t, *told)
            out["NDVI" + end] = encode(quantile, encodings["NDVI" + end])
    return out
