"""U-TILISE: all dates of a series from each other, by attention over time.

Stucker et al. (2023), "U-TILISE: a sequence-to-sequence model for cloud removal in optical
satellite time series", IEEE TGRS 61, arXiv 2305.13277.

`x (date, band, y, x)` in 0-1 with gaps at 1 and `days (date,)`, the days of the year, give
`(date, band, y, x)`. SAR, where the net has it, joins as further bands: VV from -25 to 0 dB and
VH from -32.5 to 0 dB as 0 to 1, as SEN12MS-CR-TS scales them.

A longer series than the net was trained on is cut into windows half their length apart. A window
whose first date is more than 10 % cloudy starts at the least cloudy date within a quarter of its
length. From one window to the next the answer goes over after the date on which both agree best
over the patch.

What differs from the authors' code: clear pixels are put back by the engine; dates to give that
are no acquisition join the series as wholly hidden ones; training scores every clear pixel of the
series, hidden or not, as theirs, and never what lies under a real cloud.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.cube import axes
from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Filled, Float, Needs
from cubefill.methods.learned.method import Arrays
from cubefill.methods.learned.prior import Prior, features_of, prior_of
from cubefill.methods.learned.time_windows import (
    Places,
    WindowMethod,
    clear_windows,
    cloudy_of,
    with_dates,
)
from cubefill.methods.windows import Span, Whole
from cubefill.nn.attention import AttentionSizes, TemporalAttentionUNet
from cubefill.nn.original import original_pt

SAR_RANGE = {"VV": (-25.0, 0.0), "VH": (-32.5, 0.0)}
"""Backscatter in dB that stands for 0 and 1."""


@dataclass(frozen=True)
class UtiliseConfig:
    """Configuration of the net; the EarthNet2021 one by default."""

    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    """Bands, in the order of the net."""
    sar: bool = False
    """With VV and VH."""
    widths: tuple[int, ...] = (64, 64, 64, 128)
    """Features at each scale."""
    heads: int = 4
    """Heads of the attention."""
    key: int = 4
    """Width of a query of one head."""
    dates: int = 10
    """Longest series that the net is given at once."""
    patch: int = 128
    """Pixels of a patch along y and x."""
    pad: int = 16
    """Pixels of a patch's border that are not kept."""
    blend: Literal["none", "linear"] = "none"
    """`linear` weights overlapping patches instead of cutting them."""
    residual: Literal["none", "linear"] = "none"
    """`linear` for a net that learns what a series differs by from straight lines; see `prior`."""

    def __post_init__(self) -> None:
        fits = self.heads > 0 and not any(w % self.heads for w in self.widths)
        if not fits or self.key < 1 or not self.widths:
            raise MethodError(
                f"heads={self.heads}, key={self.key}, widths={self.widths}: expected one or more "
                "of each, and widths of multiples of heads. Pass heads=4, widths=(64, 64, 64, 128)."
            )


@dataclass(frozen=True, kw_only=True)
class PrimedBlock(Block):
    """A block with its part of the prior of a longer series."""

    prior: Prior


@dataclass(frozen=True)
class Utilise(WindowMethod):
    """All dates from each other, by temporal attention in a U-Net (Stucker et al., 2023).

    Examples
    --------
    >>> Utilise().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "utilise"
    Config: ClassVar[type] = UtiliseConfig
    channels_last: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """The bands of the net on the whole time axis."""
        c = self.config
        multiple = sizes_of(c).multiple
        if c.patch % multiple or not 0 <= 2 * c.pad < c.patch or c.dates < 2:
            raise MethodError(
                f"patch={c.patch}, pad={c.pad}, dates={c.dates}: expected a patch of a multiple of "
                f"{multiple} pixels, a pad of less than half of it and 2 dates or more."
            )
        space = Span(c.patch, c.patch - 2 * c.pad, c.blend)
        return Needs(bands=c.bands, time=Whole(), space=space, sar=c.sar)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net, its weights drawn as Glorot and Bengio's normal ones."""
        net = TemporalAttentionUNet(sizes_of(config))
        drawn = nn.init.xavier_normal_ if config.residual == "none" else nn.init.kaiming_normal_
        for p in net.parameters():
            if p.ndim > 1 and not p.is_meta:
                drawn(p)
        if net.straight is not None:  # the first answer is the prior itself
            for p in (*net.last[1].parameters(), *net.straight.parameters()):
                nn.init.zeros_(p)
        return net

    # -------------------------------------------------------------- one window

    def encode(self, block: Block) -> Arrays:
        """`x (date, band, y, x)` and `days (date,)` of a series of any length.

        For a residual, `x` holds the features of the prior, and `prior` its values.
        """
        if self.config.residual != "none":
            return self._with_sar(block, self._of_prior(block))
        seen = np.stack([block.bands[n] for n in self.config.bands], axis=1).astype(np.float32)
        seen = np.clip(np.nan_to_num(seen, nan=0.0), 0, 1)
        x = np.where(block.valid[:, None], seen, np.float32(1))
        return self._with_sar(block, {"x": x, "days": day_of_year(block.time)})

    def _with_sar(self, block: Block, arrays: Arrays) -> Arrays:
        if not self.config.sar:
            return arrays
        radar = np.stack([_scaled(block.sar[n], *SAR_RANGE[n]) for n in ("VV", "VH")], axis=1)
        return {**arrays, "x": np.concatenate([arrays["x"], radar], axis=1)}

    def _of_prior(self, block: Block) -> Arrays:
        prior = block.prior if isinstance(block, PrimedBlock) else self._prior(block)
        first = day_of_year(block.time[:1])
        days = (first + block.days).astype(np.float32)  # goes on beyond the end of a year
        return {"x": prior.features(), "days": days, "prior": prior.known()}

    def _prior(self, series: Block) -> Prior:
        bands = np.stack([series.bands[n] for n in self.config.bands], axis=1)
        return prior_of(bands.astype(np.float32, copy=False), series.valid, series.days)

    def split(self, block: Block) -> list[Block]:
        """One block for each window, each with its part of the prior of the whole series."""
        parts = super().split(block)
        if self.config.residual == "none":
            return parts
        prior, places = self._prior(with_dates(block)), self.places(cloudy_of(block))
        return [
            PrimedBlock(**{f.name: getattr(p, f.name) for f in fields(p)}, prior=prior.part(*at))
            for p, at in zip(parts, places, strict=True)
        ]

    def decode(self, output: Float, block: Block) -> Filled:
        """The bands; of a residual as much as its prior says is to be believed.

        A pixel without any clear observation, for which there is no prior, is NaN.
        """
        if isinstance(block, PrimedBlock):
            line = block.prior.values
            output = line + block.prior.support() * (output - line)
        return block.filled(output)

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """`target` and `where` `(date, band, y, x)`: every clear pixel, hidden or not.

        For a residual the hidden ones alone: where a pixel is seen its prior is the truth.
        """
        if self.config.residual != "none":
            return super().target(truth, gapped)
        bands = truth.optical
        where = np.isfinite(bands)
        return {"target": np.where(where, bands, np.float32(0)), "where": where}

    def padded(self, sample: Mapping[str, NDArray[Any]], dates: int) -> Arrays:
        """A sample filled up to a number of dates with zeros, which the net is told to skip."""
        count = len(sample["days"])
        more = {
            n: np.pad(a, [(0, max(0, dates - count)), *[(0, 0)] * (a.ndim - 1)])
            for n, a in sample.items()
        }
        return {**more, "present": np.arange(max(dates, count)) < count}

    # -------------------------------------------------------------- all windows

    def places(self, cloudy: NDArray[np.float64]) -> Places:
        """Windows of the length that the net was trained on, from clear dates on."""
        return clear_windows(cloudy, self.config.dates)

    def over(self, known: Float, part: Float) -> int:
        """Dates up to the one on which both agree best over the patch."""
        differs = np.abs(known - part).mean(axis=(1, 2, 3), dtype=np.float64)
        return int(np.argmin(differs)) + 1

    # -------------------------------------------------------------- the authors' weights

    @classmethod
    def from_original(
        cls, path: str | Path, config: UtiliseConfig | None = None
    ) -> dict[str, Tensor]:
        """The state of the net from the authors' checkpoint (`model_state_dict` in a `.pt`)."""
        found, _ = original_pt(path, key="model_state_dict")
        return cls._checked(from_names(found), config or UtiliseConfig(), path)


def sizes_of(config: UtiliseConfig) -> AttentionSizes:
    """The widths of the net for a configuration."""
    bands = len(config.bands)
    return AttentionSizes(
        bands,
        2 * config.sar,
        features_of(bands) if config.residual != "none" else 0,
        config.widths,
        config.heads,
        config.key,
    )


def day_of_year(time: NDArray[np.datetime64]) -> Float:
    """Days of the year, 1 for the first of January."""
    return axes.day_of_year(time.astype("M8[D]")).astype(np.float32)


def _scaled(db: Float, low: float, high: float) -> Float:
    scaled = (np.clip(db, low, high) - low) / (high - low)
    return np.where(np.isnan(scaled), 0, scaled).astype(np.float32)


# ------------------------------------------------------------------ the authors' names


def original_names(levels: int) -> dict[str, str]:
    """Name of a module of our net to its name in the authors' state, for `levels` of scales."""
    found = {
        "first.0": "in_conv.conv.conv.0",
        "first.1": "in_conv.conv.conv.2",
        "last.0": "out_conv.conv.conv.0",
        "last.1": "out_conv.conv.conv.2",
        "attention.key_of": "temporal_encoder.0.attention_heads.fc_k",
        "attention.query_of": "temporal_encoder.0.attention_heads.fc_q",
        "attention.norm1": "temporal_encoder.0.norm1",
        "attention.norm2": "temporal_encoder.0.norm2",
        "attention.mlp": "temporal_encoder.0.mlp.0",
    }
    for i in range(levels):
        found |= {
            f"down.{i}.down": f"down_blocks.{i}.down.conv.0",
            f"down.{i}.conv1": f"down_blocks.{i}.conv1.conv.0",
            f"down.{i}.conv2": f"down_blocks.{i}.conv2.conv.0",
            f"up.{i}.skip": f"up_blocks.{i}.skip_conv.conv.conv.0",
            f"up.{i}.up": f"up_blocks.{i}.up.convtrans.0",
            f"up.{i}.conv1": f"up_blocks.{i}.conv1.conv.conv.0",
            f"up.{i}.conv2": f"up_blocks.{i}.conv2.conv.conv.0",
        }
    return found


def from_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state under our names; what has no name of ours is kept as it is."""
    levels = 1 + max(
        (int(n.split(".")[1]) for n in state if n.startswith("down_blocks.")), default=0
    )
    ours = {theirs: name for name, theirs in original_names(levels).items()}
    parts = (n.rpartition(".") for n in state)
    return {f"{ours.get(m, m)}.{p}": t for (m, _, p), t in zip(parts, state.values(), strict=True)}
