"""GANFilling and Seq2Seq: every date of a series by a ConvLSTM generator.

González-Calabuig et al. (2025), "Generative networks for spatio-temporal gap filling of Sentinel-2
reflectances", ISPRS Journal of Photogrammetry and Remote Sensing 220, 637-648,
doi 10.1016/j.isprsjprs.2025.01.016.

`x (date, band, y, x)` in 0-1, blue, green, red and near infrared, 128 x 128 pixels (20 m in
EarthNet2021) and ten dates five days apart, gives `(date, band, y, x)`. Clouds are given as the
sensor saw them, no mask is; no data is 1, so that it looks like a saturated cloud. `ganfilling`
learns against a discriminator, which sees four dates of 64 x 64 pixels; `seq2seq`, of the authors'
preprint, has the same net and learns by a loss over clear values alone, so it is taught by
what artificial gaps hide and by what lies beside and before them.

The net runs forwards in time, so a date knows only those before it. A longer series than the net
was trained on is cut into windows that start `keep` dates apart; each answers for its last `keep`
dates, and the first one for all of its own.

What differs from the authors' code: clear pixels are put back by the engine; patches overlap and
are blended, so that a cube has any size; a longer series goes in windows, and dates to give that
are no acquisition join it as dates without data; the discriminator's real windows are flipped
without reversing the order of their bands; `clouds="hidden"` gives a gap as no data. The net itself
is the same: 181 746 628 parameters, of which 18 874 368 are never read, and 26 360 518 of the
discriminator.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Needs
from cubefill.methods.learned.method import Arrays
from cubefill.methods.learned.time_windows import Places, WindowMethod, even_windows
from cubefill.methods.windows import Span, Whole
from cubefill.nn.convlstm import MULTIPLE, Discriminator, Generator, GeneratorSizes, original_names
from cubefill.nn.objective import Adversarial, Learning, Objective
from cubefill.nn.original import check_shapes, original_pt, shapes_of


@dataclass(frozen=True)
class GeneratorConfig:
    """Configuration of the generator and of what it is given; the authors' by default."""

    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    """Bands, in the order of the net."""
    width: int = 64
    """Features of the first layer."""
    clouds: Literal["seen", "hidden"] = "seen"
    """What the net is given in a gap: what the sensor saw, as the authors' net, which knows no
    mask; or "hidden", 1 as where there is no data. Artificial gaps hold no data, or clouds of
    other dates: a net is never scored on what it saw."""
    dates: int = 10
    """Longest series that the net is given at once."""
    keep: int = 5
    """Dates that a window of a longer series answers for, its last ones."""
    patch: int = 128
    """Pixels of a patch along y and x, a multiple of 128."""
    patch_keep: int = 96
    """Pixels from one patch to the next."""
    blend: Literal["none", "linear"] = "linear"
    """`linear` weights overlapping patches by their distance from the edge."""
    unused: bool = True
    """True keeps the tensors that the authors' nets hold and no pass reads."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.patch % MULTIPLE or not 1 <= self.patch_keep <= self.patch:
            raise MethodError(
                f"patch={self.patch}, patch_keep={self.patch_keep}: expected a multiple of "
                f"{MULTIPLE}, and at most that much kept. Pass patch=128, patch_keep=96."
            )
        if not 1 <= self.keep <= self.dates:
            raise MethodError(
                f"keep={self.keep}, dates={self.dates}: expected 1 <= keep <= dates. Pass keep=5."
            )
        if self.clouds not in ("hidden", "seen"):
            raise MethodError(f"clouds={self.clouds!r}: expected 'hidden' or 'seen'.")


@dataclass(frozen=True)
class GeneratorMethod(WindowMethod):
    """A method that gives every date of a series by the GANFilling generator."""

    Config: ClassVar[type] = GeneratorConfig
    channels_last: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """The bands of the net on the whole time axis."""
        c = self.config
        return Needs(bands=c.bands, time=Whole(), space=Span(c.patch, c.patch_keep, c.blend))

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return Generator(sizes_of(config))

    # -------------------------------------------------------------- one window

    def encode(self, block: Block) -> Arrays:
        """`x (date, band, y, x)` in 0-1; 1 is no data, and a gap where clouds are hidden."""
        x = np.stack([block.bands[n] for n in self.config.bands], axis=1).astype(np.float32)
        if self.config.clouds == "hidden":
            x[np.broadcast_to(~block.valid[:, None], x.shape)] = 1
        x = np.clip(x, 0, 1)
        return {"x": np.where(np.isnan(x), np.float32(1), x)}

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """`target` and `where` `(date, band, y, x)`: every clear value, hidden or not."""
        bands = np.stack([truth.bands[n] for n in self.config.bands], axis=1).astype(np.float32)
        where = np.isfinite(bands) & truth.valid[:, None]
        return {"target": np.where(where, np.clip(bands, 0, 1), np.float32(0)), "where": where}

    def places(self, cloudy: NDArray[np.float64]) -> Places:
        """Windows of the length that the net was trained on, `keep` dates apart."""
        return even_windows(len(cloudy), self.config.dates, self.config.keep)

    # -------------------------------------------------------------- the authors' weights

    @classmethod
    def from_original(
        cls, path: str | Path, config: GeneratorConfig | None = None
    ) -> dict[str, Tensor]:
        """The state of the net from the authors' `GANFilling.pt`; runs no code of the file.

        The file holds `model`, a state dict, and `configuration`, a namespace. Without `config`
        the width is that of the tensors.

        Raises
        ------
        StoreError
            The file is absent, a git-lfs pointer, cut short, or asks for code.
        MethodError
            A tensor is missing, unexpected or of another shape.
        """
        found, _ = original_pt(path, key="model")
        return _ours(found, sizes_of(config or _config_of(found)), str(path))

    @classmethod
    def original_settings(cls, path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The width of the tensors of the authors' `GANFilling.pt`, and how they trained it."""
        found, said = original_pt(path, key="model")
        recipe = {str(n): v for n, v in dict(said.get("configuration", {})).items()}
        return {"width": _config_of(found).width}, recipe


@dataclass(frozen=True)
class GanFilling(GeneratorMethod):
    """Every date by a ConvLSTM generator, trained against an adversary (GANFilling, 2025).

    Examples
    --------
    >>> GanFilling().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "ganfilling"

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        """Clear values as they were given, and short windows that a discriminator believes."""
        if not isinstance(net, Generator):
            raise TypeError(f"Expected a Generator, got {type(net).__name__}.")
        judge = Discriminator(net.sizes).to(next(net.parameters()).device)
        return Adversarial(net, judge, recipe)


@dataclass(frozen=True)
class Seq2Seq(GeneratorMethod):
    """Every date by a ConvLSTM generator, trained by a loss alone (GANFilling's preprint).

    Examples
    --------
    >>> Seq2Seq().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "seq2seq"


def sizes_of(config: Any) -> GeneratorSizes:
    """The widths of the nets for a configuration."""
    return GeneratorSizes(len(config.bands), config.width, config.unused)


# ------------------------------------------------------------------ the authors' names


def original_shapes(sizes: GeneratorSizes) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of the authors' generator."""
    with torch.device("meta"):
        ours = shapes_of(Generator(sizes).state_dict())
    shapes = {}
    for theirs, names in original_names(sizes).items():
        parts = [ours[n] for n in names]
        inputs = [sum(p[1] for p in parts)] if len(parts[0]) > 1 else []
        shapes[theirs] = (parts[0][0], *inputs, *parts[0][2:])
    return shapes


def from_names(state: dict[str, Tensor], sizes: GeneratorSizes) -> dict[str, Tensor]:
    """The authors' tensors under our names, those of a cell cut into input and state."""
    out: dict[str, Tensor] = {}
    for theirs, names in original_names(sizes).items():
        whole = state[theirs]
        if len(names) == 1:
            out[names[0]] = whole
        else:
            hidden = whole.shape[0] // 4
            out |= dict(zip(names, (whole[:, :-hidden], whole[:, -hidden:]), strict=True))
    return out


def _config_of(state: dict[str, Tensor]) -> GeneratorConfig:
    """The width of the authors' tensors; the rest as they publish it."""
    first = state.get("conv1.weight")
    return GeneratorConfig(width=int(first.shape[0]) if first is not None else 64)


def _ours(found: dict[str, Tensor], sizes: GeneratorSizes, source: str) -> dict[str, Tensor]:
    """The authors' tensors, checked, under our names; without the unused where we have none."""
    unused = set(original_names(replace(sizes, unused=True))) - set(original_names(sizes))
    found = {n: t for n, t in found.items() if n not in unused}
    check_shapes(shapes_of(found), original_shapes(sizes), source, "the generator")
    return from_names(found, sizes)
