"""STpconv: one variable filled by a U-Net of partial convolutions over time, y and x.

Appel (2024), Artificial Intelligence for the Earth Systems 3(2), arXiv 2208.08781. The net sees a
variable and where it is clear, both `(batch, 1, time, y, x)`, and gives `(batch, 1, time, y, x)`.

What differs from the author's code: any number of dates and any size (theirs are blocks of
128 x 128 x 16), clear values are kept, negative values are values, a value near which nothing at
all is clear stays empty (theirs is a constant there), and every band of a cube is filled by itself.
Dates count as steps: their distance is not seen, as in the original.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.errors import MethodError
from cubefill.method import Block, Bool, Filled, Flag, Float, Needs
from cubefill.methods._torch import Arrays, TorchMethod
from cubefill.nn import keras
from cubefill.nn.partialconv import PartialUNet3d, Sizes, reached
from cubefill.windows import Span, Window

STEPS = 64
"""Time steps that go through the net at once; longer series go in overlapping parts."""


@dataclass(frozen=True)
class Config(Sizes):
    """The net, its patch, and the unit it works in; defaults are those of the published weights."""

    size: int = 128
    """Edge of a patch in pixels."""
    offset: float = 0.0
    """Value that the net sees as 0."""
    scale: float = 1.0
    """Difference of values that the net sees as 1."""

    def __post_init__(self) -> None:
        _, y, x = self.multiple
        if self.size % y or self.size % x or self.size < 1:
            raise MethodError(
                f"size={self.size}: expected a multiple of {max(x, y)}, by which the net shrinks a "
                f"patch. Type size={max(x, y) * max(1, self.size // max(x, y))}."
            )
        if self.scale <= 0:
            raise MethodError(f"scale={self.scale}: expected more than 0. Type scale=1.")

    @property
    def keep(self) -> int:
        """Edge of the middle of a patch whose values do not depend on where the patch ends."""
        unit = max(self.multiple[1:])
        margin = -(-max(self.reach[1:]) // unit) * unit
        return max(unit, self.size - 2 * margin)


@dataclass(frozen=True)
class STpconv(TorchMethod):
    """Each band by itself from what is clear around it in space and time (Appel 2024).

    Examples
    --------
    >>> STpconv().needs.space
    Span(size=128, keep=104, blend='none')
    """

    name: ClassVar[str] = "stpconv"
    Config: ClassVar[type] = Config
    flag: ClassVar[Flag] = Flag.LEARNED
    complete: ClassVar[bool] = False
    rows: ClassVar[int] = 1

    @cached_property
    def needs(self) -> Needs:
        """Any bands, patches of the configured size, the whole time axis."""
        return Needs(space=Span(self.config.size, self.config.keep))

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return PartialUNet3d(config)

    def encode(self, block: Block) -> Arrays:
        """`x` and `clear`: bands, and parts of a long series, as samples `(n, 1, time, y, x)`."""
        values, clear = self._series(block)
        x = np.where(clear, (values - self._offset) / self._scale, np.float32(0))
        return {"x": self._parts(x), "clear": self._parts(clear.astype(np.float32))}

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        """Values on the dates asked for; NaN where the net saw nothing clear."""
        _, steps = _axis(block)
        seen = reached(torch.from_numpy(self.encode(block)["clear"]), self.config).numpy()
        values = output * self._scale + self._offset
        whole = self._joined(np.where(seen > 0, values, np.float32(np.nan)), len(block.bands))
        return block.filled(np.ascontiguousarray(whole[:, steps].swapaxes(0, 1)))

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """The hidden values of every band, as samples of the net's answer."""
        values, known = self._series(truth)
        where = known & ~self._series(gapped)[1]
        x = np.where(known, (values - self._offset) / self._scale, np.float32(0))
        return {"target": self._parts(x), "where": self._parts(where)}

    @property
    def _offset(self) -> np.float32:
        return np.float32(self.config.offset)

    @property
    def _scale(self) -> np.float32:
        return np.float32(self.config.scale)

    def _series(self, block: Block) -> tuple[Float, Bool]:
        """Values and where they are clear, `(band, step, y, x)`, steps as the net needs them."""
        steps, _ = _axis(block)
        count, unit = len(steps), self.config.multiple[0]
        padded = -(-count // unit) * unit
        optical = block.optical.swapaxes(0, 1)
        values = np.full((len(optical), padded, *optical.shape[2:]), np.nan, np.float32)
        known = steps >= 0
        values[:, :count][:, known] = optical[:, steps[known]]
        return values, np.isfinite(values)

    def _windows(self, steps: int) -> list[Window]:
        """Parts of a series; the kept middles do not depend on where a part ends."""
        unit = self.config.multiple[0]
        margin = -(-self.config.reach[0] // unit) * unit
        size = max(-(-STEPS // unit) * unit, 2 * margin + unit)
        return [Window(0, steps, 0, steps)] if steps <= size else Span(
            size, size - 2 * margin
        ).windows(steps)

    def _parts(self, a: NDArray[Any]) -> NDArray[Any]:
        """Samples `(band * part, 1, step, y, x)` of `(band, step, y, x)`."""
        parts = np.stack([a[:, w.start : w.stop] for w in self._windows(a.shape[1])], axis=1)
        return parts.reshape(-1, 1, *parts.shape[2:])

    def _joined(self, parts: Float, bands: int) -> Float:
        """`(band, step, y, x)` from samples."""
        per_band = len(parts) // bands
        parts = parts.reshape(bands, per_band, *parts.shape[2:])
        if per_band == 1:
            return parts[:, 0]
        unit = next(n for n in range(1, len(parts[0]) * STEPS * 2) if self._fits(n, parts))
        windows = self._windows(unit)
        kept = [
            parts[:, i, w.keep_start - w.start : w.keep_stop - w.start]
            for i, w in enumerate(windows)
        ]
        return np.concatenate(kept, axis=1)
