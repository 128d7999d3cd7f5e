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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.addresses import local_path
from cubefill.errors import MethodError, StoreError
from cubefill.methods.contract import Block, Filled, Float, Needs
from cubefill.methods.learned.method import Arrays
from cubefill.methods.learned.time_windows import Places, WindowMethod
from cubefill.methods.windows import Span
from cubefill.nn import keras
from cubefill.nn.partialconv import PartialConvSizes, PartialUNet3d, reached

STEPS = 64
"""Time steps that go through the net at once; longer series go in overlapping parts."""


@dataclass(frozen=True)
class ConfigSTpconv(PartialConvSizes):
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
                f"patch. Pass size={max(x, y) * max(1, self.size // max(x, y))}."
            )
        if self.scale <= 0:
            raise MethodError(f"scale={self.scale}: expected more than 0. Pass scale=1.")

    @property
    def keep(self) -> int:
        """Edge of the middle of a patch whose values do not depend on where the patch ends."""
        unit = max(self.multiple[1:])
        margin = -(-max(self.reach[1:]) // unit) * unit
        return max(unit, self.size - 2 * margin)


@dataclass(frozen=True)
class STpconv(WindowMethod):
    """Each band by itself from what is clear around it in space and time (Appel 2024).

    Examples
    --------
    >>> STpconv().needs.space
    Span(size=128, keep=104, blend='none', align=1)
    """

    name: ClassVar[str] = "stpconv"
    Config: ClassVar[type] = ConfigSTpconv
    complete: ClassVar[bool] = False
    rows: ClassVar[int] = 1
    published: ClassVar[Mapping[str, str]] = {
        "quantity": "carbon monoxide",
        "sensor": "Sentinel-5P",
    }

    @property
    def needs(self) -> Needs:
        """Any bands, patches of the configured size, the whole time axis."""
        return Needs(space=Span(self.config.size, self.config.keep))

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return PartialUNet3d(config)

    def places(self, cloudy: NDArray[np.float64]) -> Places:
        """Windows of `STEPS` steps or more; what is kept of them does not depend on their ends."""
        steps, unit = self._padded(len(cloudy)), self.config.multiple[0]
        size = max(self._padded(STEPS), 2 * self._margin + unit)
        found = Span(min(size, steps), min(size - 2 * self._margin, steps)).windows(steps)
        return [(w.start, min(w.stop, len(cloudy))) for w in found]

    def over(self, known: Float, part: Float) -> int:
        """Steps up to the margin of the window before."""
        return len(known) - self._margin

    def encode(self, block: Block) -> Arrays:
        """`x` and `clear`: bands as samples `(band, 1, step, y, x)`, of a multiple of steps."""
        values, clear = self._samples(block)
        return {"x": self._scaled(values), "clear": clear}

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        """Values of all dates; NaN where the net saw nothing clear."""
        c, (_, clear) = self.config, self._samples(block)
        values = output * np.float32(c.scale) + np.float32(c.offset)
        values[reached(torch.from_numpy(clear), c).numpy() == 0] = np.nan
        return block.filled(values[:, 0, : len(block.time)].swapaxes(0, 1))

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """The hidden values of every band, in the layout of the net's answer."""
        values, known = self._samples(truth)
        _, seen = self._samples(gapped)
        return {"target": self._scaled(values), "where": (known > seen).astype(np.float32)}

    def _scaled(self, values: Float) -> Float:
        c = self.config
        scaled: Float = (values - np.float32(c.offset)) / np.float32(c.scale)
        return np.nan_to_num(scaled, nan=0.0)

    def _samples(self, block: Block) -> tuple[Float, Float]:
        """Values and 1 where they are clear, `(band, 1, step, y, x)`, NaN and 0 elsewhere."""
        optical = block.optical.swapaxes(0, 1)[:, None]
        missing = self._padded(len(block.time)) - len(block.time)
        values = np.full((*optical.shape[:2], missing, *optical.shape[3:]), np.nan, np.float32)
        values = np.ascontiguousarray(np.concatenate([optical, values], axis=2))
        return values, np.isfinite(values).astype(np.float32)

    def _padded(self, steps: int) -> int:
        unit = self.config.multiple[0]
        return -(-steps // unit) * unit

    @property
    def _margin(self) -> int:
        """Steps at the end of a window whose values depend on where it ends."""
        return self._padded(self.config.reach[0])

    @classmethod
    def from_original(
        cls, path: str | Path, config: ConfigSTpconv | None = None
    ) -> dict[str, Tensor]:
        """Weights that the author published (Keras HDF5), under our names.

        Convolutions are taken in the order in which Keras numbered them.

        Raises
        ------
        CubefillError, StoreError, MethodError
            h5py is absent; the file is no Keras file; its weights are not those of `config`.
        """
        config = config or ConfigSTpconv()
        found = keras.read(path)
        state = keras.renamed(found, _names(found, config))
        state = {n: _time_first(t) if t.ndim == 5 else t for n, t in state.items()}
        return cls._checked(state, config, path)


def original_config(path: str | Path) -> ConfigSTpconv:
    """The configuration that the author's JSON file of a net describes.

    Raises
    ------
    StoreError
        The file is absent, no JSON, or lacks an entry.
    """
    try:
        found = json.loads(local_path(path).read_text())
        levels = int(found["n_conv_layers"])
        t, y, x = (2, 1, 0)
        strides = tuple((int(s[t]), int(s[y]), int(s[x])) for s in found["strides"][:levels])
        return ConfigSTpconv(
            filters=tuple(map(int, found["n_filters"][:levels])),
            kernels=tuple(_edge(k) for k in found["kernel_sizes"][:levels]),
            strides=strides,
            convs=int(found.get("n_conv_per_block", 1)),
            size=int(found["nx"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"{path} describes no STpconv net ({type(error).__name__}: {error}): expected JSON "
            "with nx, n_conv_layers, n_filters, kernel_sizes, strides."
        ) from error


def _edge(kernel: Any) -> int:
    edges = set(map(int, kernel)) if isinstance(kernel, list) else {int(kernel)}
    if len(edges) != 1:
        raise ValueError(f"a kernel of {kernel}, which is no cube")
    return edges.pop()


# ------------------------------------------------------------------ the author's names


def _names(found: dict[str, Any], config: ConfigSTpconv) -> dict[str, str]:
    """Name of a weight in the author's file to ours."""
    levels = len(config.filters)
    places = [
        f"{way}.{i}.{k}"
        for way in ("down", "up")
        for i in range(levels)
        for k in range(config.convs)
    ]
    theirs = _numbered(found, "s_tpconv")
    if len(theirs) != len(places):
        raise MethodError(
            f"The file holds {len(theirs)} partial convolutions: expected {len(places)} for "
            f"filters={config.filters}, convs={config.convs}. Pass the config of this file."
        )
    names: dict[str, str] = {}
    for their, place in zip(theirs, places, strict=True):
        names |= {
            f"{their}/STpconv_kernel:0": f"{place}.weight",
            f"{their}/bias:0": f"{place}.bias",
        }
    for their in _numbered(found, "conv3d")[:1] or ["conv3d"]:
        names |= {f"{their}/kernel:0": "head.weight", f"{their}/bias:0": "head.bias"}
    return names


def _numbered(found: dict[str, Any], stem: str) -> list[str]:
    """Layers `stem`, `stem_1`, `stem_2` ... in the order of their numbers."""
    layers = {n.split("/")[0] for n in found}
    numbers = {m[0]: int(m[1] or 0) for n in layers if (m := re.fullmatch(rf"{stem}_?(\d*)", n))}
    return sorted(numbers, key=lambda n: numbers[n])


def _time_first(weight: Tensor) -> Tensor:
    """Kernel over (row, column, time), as the author lays axes out, over (time, row, column)."""
    return weight.permute(0, 1, 4, 2, 3).contiguous()
