"""What the Decloud methods share (Cresson et al., 2022): inputs, dates, filling, training.

Inputs, as the authors store and scale them: reflectance as it is, clouds included, -1 where there
is no data; sigma0 as `1 + 65534 (ln(|x| + 1e-6) + 10) / 13` of the linear power, cut to 1..65535,
0 where there is none, over 65535; elevation in m times 1e-4. Elevation and the 20 m bands are the
means of 2 x 2 pixels of the cube's 10 m grid, counted from its first row and column. The bands that
a net gives at 20 m are repeated.

For every date to give, a layout chooses the acquisitions of the patch. Where none meets its
conditions the next best one stands in, so that every date of any cube is given: before the
reference for slots before it, after it for slots after it, and from the other side (flag
EXTRAPOLATED) at the ends of the series. A date that is clear all over the patch is not computed.
The S1 gap cannot be seen here; VV and VH of the cube are taken as they stand at the chosen date.

With `mosaic=n` the slots before and after the date are put together pixel by pixel from the n
nearest acquisitions of their side, see `sources`. The authors' processor does so with the nearest
12 and takes, by a fault in its order, the farthest pair of them that has data and a SAR image
within the gap, clouds or not; here the nearest clear pixel is taken, and SAR as it stands there.

A recipe with the loss "carl" trains as Meraner et al. (2020) do, which the authors leave out: see
`nn.losses.carl`. It needs a layout that shows the optical image of the date to give.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cubefill import layout
from cubefill.errors import MethodError
from cubefill.layout import Layout
from cubefill.methods.contract import Block, Filled, Flag, Float, Needs
from cubefill.methods.learned.method import Arrays, TorchMethod
from cubefill.methods.windows import Span, Whole
from cubefill.nn import keras, losses
from cubefill.nn.objective import Learning, Objective, Supervised
from cubefill.nn.unet import DecloudNet, ResidualNet, Wiring, from_keras, initialise

BANDS = ("B02", "B03", "B04", "B08")
BANDS_20M = ("B05", "B06", "B07", "B8A", "B11", "B12")
"""The six bands at 20 m, in the order of the authors' readers."""
NODATA = np.float32(-1)
DEM_SCALE = np.float32(1e-4)


@dataclass(frozen=True)
class DecloudConfig:
    """What a Decloud net is given and how wide it is."""

    layout: str = "ssop"
    """Name of a published layout, a JSON file, or JSON text."""
    bands: tuple[str, ...] = BANDS
    """Bands on the 10 m grid."""
    bands_20m: tuple[str, ...] = ()
    """Bands of the 20 m grid; `BANDS_20M` for all six."""
    sar: bool = True
    """With VV and VH."""
    dem: bool = False
    """With elevation."""
    patch: int = 256
    """Pixels of a patch along y and x."""
    pad: int = 32
    """Pixels of a patch's border that are not kept."""
    blend: Literal["none", "linear"] = "none"
    """`linear` weights overlapping patches instead of cutting them."""
    mosaic: int = 0
    """Acquisitions on each side from which the pixels of the slots before and after the date are
    taken, the nearest clear one each; 0 for the one date that the layout chooses."""


class DecloudMethod(TorchMethod):
    """A method that gives one date from the acquisitions that a layout chooses."""

    multiple: ClassVar[int] = 0
    """What a patch must be a multiple of; 0 for what the net's scales say."""

    @property
    def needs(self) -> Needs:
        """The bands, SAR and elevation that the net was built for, on the whole time axis."""
        c: DecloudConfig = self.config
        return Needs(
            bands=c.bands + c.bands_20m,
            time=Whole(),
            space=Span(c.patch, c.patch - 2 * c.pad, c.blend, align=2),
            sar=bool(self.wiring.sar_dates),
            dem=c.dem,
        )

    @classmethod
    def wiring_of(cls, config: Any) -> Wiring:
        """How the net is put together."""
        raise NotImplementedError(f"{cls.__name__} has no `wiring_of(config)`.")

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(DecloudNet(cls.wiring_of(config)), "glorot")

    @classmethod
    def from_original(
        cls, path: str | Path, config: DecloudConfig | None = None
    ) -> dict[str, Tensor]:
        """The state of the net from Keras weights (HDF5)."""
        net = cls.net(config or cls.Config())
        if not isinstance(net, DecloudNet | ResidualNet):
            raise MethodError(f"Expected a Decloud net, got {type(net).__name__}.")
        return from_keras(net, keras.read(path))

    @cached_property
    def wiring(self) -> Wiring:
        """How the net is put together."""
        c, wiring = self.config, self.wiring_of(self.config)
        multiple = self.multiple or wiring.multiple
        if c.patch % multiple or not 0 <= 2 * c.pad < c.patch or c.pad % 2:
            raise MethodError(
                f"patch={c.patch}, pad={c.pad}: expected a patch of a multiple of {multiple} "
                "pixels and an even pad of less than half of it. Pass patch=256, pad=32."
            )
        if c.mosaic < 0 or (c.mosaic and not any(self._sides)):
            raise MethodError(
                f"mosaic={c.mosaic} for layout {self.layout.name!r}: expected 0, or a number of "
                "acquisitions and a layout with slots before or after its date. Pass mosaic=0."
            )
        return wiring

    @cached_property
    def layout(self) -> Layout:
        """How dates are chosen."""
        return layout.load(self.config.layout)

    # -------------------------------------------------------------- dates

    def dates(self, block: Block) -> NDArray[np.int64]:
        """Time steps of a block that its date is made of, in the order of the layout.

        The date is the one of `block.out_time`, the middle one where there are several.
        """
        wanted = wanted_of(block)
        clear = block.valid.mean(axis=(1, 2))
        if self.layout.synthesis:
            return layout.clearest(block.time, clear, wanted, len(self.layout.inputs))
        chosen = layout.choose(self.layout, block.time, clear, None, wanted, strict=False)
        return np.array([chosen[n] for n in self.layout.inputs])

    def sided(self, block: Block, dates: NDArray[np.int64]) -> bool:
        """True where every slot before or after the date has an image from that side."""
        times, wanted = block.time[dates], wanted_of(block)
        return all(
            s == 0 or (t < wanted if s < 0 else t > wanted)
            for s, t in zip(self._sides, times, strict=True)
        )

    @cached_property
    def _sides(self) -> tuple[int, ...]:
        """-1 for each slot before the date, 1 for one after it; the slots of a synthesis have 0."""
        inputs = self.layout.inputs
        return tuple(0 if self.layout.synthesis else self.layout[n].side for n in inputs)

    def sources(self, block: Block) -> NDArray[np.int64]:
        """Time step that each slot is taken from, `(slot, 1, 1)`, of mosaics `(slot, y, x)`.

        In a mosaic a pixel of a slot before or after the date comes from the nearest of `mosaic`
        acquisitions on that side on which it is clear in every band, and from the layout's choice
        where there is none.
        """
        dates, most = self.dates(block)[:, None, None], self.config.mosaic
        if most == 0:
            return dates
        steps = np.tile(dates, (1, *block.valid.shape[1:]))
        wanted = wanted_of(block)
        nearest = {-1: np.flatnonzero(block.time < wanted)[: -most - 1 : -1],
                   1: np.flatnonzero(block.time > wanted)[:most]}  # fmt: skip
        for step, side in zip(steps, self._sides, strict=True):
            if side and len(near := nearest[side]):
                clear = block.valid[near]
                for n in self.needs.bands:
                    clear &= np.isfinite(block.bands[n][near])
                step[...] = np.where(clear.any(0), near[clear.argmax(0)], step)
        return steps

    # -------------------------------------------------------------- one date

    def encode(self, block: Block) -> Arrays:
        """Inputs of one date: `optical`, and `sar`, `optical_20m`, `dem` where the net has them."""
        c, w, sources = self.config, self.wiring, self.sources(block)
        slots = [i for i, kind in enumerate(self._kinds) if "s2" in kind]
        seen = sources[slots]
        arrays: Arrays = {"optical": _optical(block, c.bands, seen)}
        if w.sar_dates:
            radar = [i for i, kind in enumerate(self._kinds) if "s1" in kind]
            arrays["sar"] = backscatter(block, sources[radar])
        if c.bands_20m:
            arrays["optical_20m"] = coarse(_optical(block, c.bands_20m, seen, np.nan), NODATA)
        if c.dem:
            height = np.zeros(block.valid.shape[1:], np.float32) if block.dem is None else block.dem
            arrays["dem"] = coarse(height[None] * DEM_SCALE, np.float32(0))
        return arrays

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        """What is shown of each slot."""
        return kinds_of(self.layout, self.config.sar)

    def decode(self, output: Float, block: Block) -> Filled:
        """Reflectance of the date, flagged where one side of it was missing."""
        sided = self.sided(block, self.dates(block))
        code = Flag.LEARNED if sided else Flag.EXTRAPOLATED
        flag = np.full((1, *output.shape[1:]), code, np.uint8)
        return block.filled(output[None], flag)

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """`target` and `where` `(band, y, x)`: every clear pixel of the wanted date.

        `truth` holds that date alone, or all dates of `gapped`. Pixels that the net was shown
        count as those of the authors do, whose targets are clear images. `clear` `(1, y, x)` says
        which those are, where the net is shown the date's own image.
        """
        wanted = wanted_of(gapped)
        near = int(np.argmin(np.abs(gapped.time - wanted)))
        step = 0 if len(truth.time) == 1 else int(np.argmin(np.abs(truth.time - wanted)))
        bands = np.stack([np.asarray(a[step], np.float32) for a in truth.bands.values()])
        where = np.isfinite(bands) & truth.valid[step]
        found: Arrays = {"target": np.where(where, bands, np.float32(0)), "where": where}
        if self._own_image >= 0:
            seen = np.isfinite([a[near] for a in gapped.bands.values()]).all(0)
            found["clear"] = (gapped.valid[near] & seen)[None]
        return found

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        """By the loss that the recipe names; "carl" also keeps what was shown of the date."""
        if recipe.loss != "carl":
            return Supervised(net, losses.named(recipe.loss), recipe, unseen=("clear",))
        if self._own_image < 0:
            raise MethodError(
                f"loss='carl' for layout {self.layout.name!r}: expected one that shows the optical "
                "image of the date to give, such as 'ssop' or 'msop'. Pass loss='l1'."
            )
        extra = ("clear", "optical", *(["optical_20m"] if self.config.bands_20m else []))
        loss = _regularised(self._own_image)
        return Supervised(net, loss, recipe, extra, "samples", unseen=("clear",))

    @cached_property
    def _own_image(self) -> int:
        """Which image of `optical` is that of the date to give; -1 where it is not shown."""
        if self.layout.synthesis:
            return -1
        own = self.layout.inputs.index(self.layout.origin.name)
        return sum("s2" in k for k in self._kinds[:own]) if "s2" in self._kinds[own] else -1

    # -------------------------------------------------------------- all dates

    def split(self, block: Block) -> list[Block]:
        """One block for each date that has a gap in it."""
        dates = [block.out_time[i : i + 1] for i in range(len(block.out_time))]
        return [replace(block, out_time=t) for i, t in enumerate(dates) if not _clear(block, i)]

    def join(self, block: Block, answers: list[Filled]) -> Filled:
        """All dates; those without a gap as they are."""
        bands = {n: np.empty(block.shape, np.float32) for n in block.bands}
        flag = np.full(block.shape, Flag.LEARNED, np.uint8)
        left = iter(answers)
        for i in range(len(block.out_time)):
            answer = None if _clear(block, i) else next(left)
            for n, a in bands.items():
                a[i] = block.bands[n][_step(block, i)] if answer is None else answer.bands[n][0]
            if answer is not None and answer.flag is not None:
                flag[i] = answer.flag[0]
        return Filled(bands, flag)


def _step(block: Block, i: int) -> int | None:
    """Time step of an output date, None where it is no acquisition."""
    found = np.flatnonzero(block.time == block.out_time[i])
    return int(found[0]) if len(found) else None


def _clear(block: Block, i: int) -> bool:
    """True where a date needs no filling anywhere in the block."""
    step = _step(block, i)
    if step is None or not block.valid[step].all():
        return False
    return all(bool(np.isfinite(a[step]).all()) for a in block.bands.values())


def wanted_of(block: Block) -> np.datetime64:
    """The date that a sample is about: the only one to give, else the middle one."""
    found: np.datetime64 = block.out_time[len(block.out_time) // 2]
    return found


# ------------------------------------------------------------------ inputs


def _optical(
    block: Block, bands: tuple[str, ...], sources: NDArray[np.int64], nodata: Any = NODATA
) -> Float:
    """`(slot, band, y, x)` as it was seen, clouds included."""
    seen = np.stack([_taken(block.bands[n], sources) for n in bands], axis=1).astype(np.float32)
    return np.where(np.isfinite(seen), seen, np.float32(nodata))


def _taken(a: NDArray[Any], sources: NDArray[np.int64]) -> NDArray[Any]:
    """Values `(slot, y, x)` of a variable at the time steps that slots are taken from."""
    if sources.shape[1:] == (1, 1):
        return a[sources[:, 0, 0]]
    return np.take_along_axis(a, sources, axis=0)


def backscatter(block: Block, sources: NDArray[np.int64]) -> Float:
    """VV and VH `(slot, 2, y, x)` in 0-1: the natural logarithm of the power, 0 without data."""
    db = np.stack([_taken(block.sar[n], sources) for n in ("VV", "VH")], axis=1).astype(np.float64)
    count = 1 + 65534 * (np.log(10 ** (db / 10) + 1e-6) + 10) / 13
    count = np.where(np.isnan(count), 0, np.clip(count, 1, 65535))
    return (count / 65535).astype(np.float32)


def coarse(a: NDArray[Any], nodata: np.float32) -> Float:
    """Means of 2 x 2 pixels `(..., y / 2, x / 2)`, of those that have data."""
    *rest, ny, nx = a.shape
    squares = a.reshape(*rest, ny // 2, 2, nx // 2, 2)
    known = np.isfinite(squares)
    count = known.sum(axis=(-3, -1))
    total = np.where(known, squares, 0).sum(axis=(-3, -1), dtype=np.float32)
    mean = total / np.maximum(count, 1).astype(np.float32)
    return np.where(count > 0, mean, nodata).astype(np.float32)


def kinds_of(chosen: Layout, sar: bool) -> tuple[str, ...]:
    """What a net is shown of each slot of a layout, with or without SAR.

    A layout without a target gives the reference's own optical image, which is not shown;
    without SAR nothing is shown of the reference then, and it is "".
    """
    kinds = []
    for n in chosen.inputs:
        slot = chosen[n]
        optical = slot.optical and not (slot.origin and chosen.generates)
        kinds.append(("s1" if slot.sar and sar else "") + ("s2" if optical else ""))
    return tuple(kinds)


# ------------------------------------------------------------------ learning


def _regularised(own: int) -> Callable[..., Tensor]:
    """`losses.carl` with image `own` of `optical`, and the wholly clear pixels of `optical_20m`."""

    def loss(
        pred: Tensor, true: Tensor, where: Tensor, clear: Tensor, optical: Tensor, *coarse: Tensor
    ) -> Tensor:
        given = optical[:, own]
        kept = clear.to(given.dtype).expand_as(given)
        for images in coarse:
            means = F.interpolate(images[:, own], scale_factor=2.0)
            whole = 1 - F.interpolate(F.max_pool2d(1 - kept[:, :1], 2), scale_factor=2.0)
            given = torch.cat([given, means], 1)
            kept = torch.cat([kept, whole.expand_as(means)], 1)
        return losses.carl(pred, true, where, given, kept)

    return loss


# ------------------------------------------------------------------ first weights


def fresh(net: nn.Module, rule: Literal["glorot", "lecun"]) -> nn.Module:
    """The net with its first weights; on the meta device it is left as it is."""
    return net if next(net.parameters()).is_meta else initialise(net, rule)
