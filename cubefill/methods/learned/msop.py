"""MSOP: one date from several, each with its optical and SAR image, and elevation.

Cresson et al. (2022), "Comparison of convolutional neural networks for cloudy optical images
reconstruction from single or multitemporal joint SAR and optical images", arXiv 2204.00424.
`msop_unet` is their U-Net with an encoder shared by all dates, `msop_david` their small net.

The layout says what is done. "msop" reconstructs a date from itself and one before and after (OS2);
"crga-os1-occitanie" gives a date from one before and after and its SAR image alone (OS1): use it
with `times=`; "monthly" gives the synthesis of a month from six dates around its middle.

`optical (date, 4, y, x)`, `sar (date, 2, y, x)`, `optical_20m (date, 6, y/2, x/2)`,
`dem (1, y/2, x/2)` give `(band, y, x)`.

What differs from the authors' code: clear pixels are put back by the engine. Dates come from the
layout, the clearest of a time frame first, not from the farthest neighbours (with `mosaic=12` from
the nearest clear pixel of 12 neighbours), and a monthly synthesis is shown its dates in time
order, as in training. Forms without a published net: OS1 of the small net, 20 m bands of the
synthesis and of OS1 without SAR, elevation of the synthesis without SAR; they are put together as
their kin.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from cubefill import layout
from cubefill.methods.learned.decloud import DecloudConfig, DecloudMethod, fresh, kinds_of, state_of
from cubefill.nn.unet import SMALL, WIDTHS, DecloudNet, Kind, Wiring


@dataclass(frozen=True)
class ConfigUnet(DecloudConfig):
    """Configuration of `msop_unet`."""

    layout: str = "msop"
    """Name of a published layout, a JSON file, or JSON text."""
    widths: tuple[int, ...] = WIDTHS
    """Features at each scale."""


@dataclass(frozen=True)
class ConfigDavid(ConfigUnet):
    """Configuration of `msop_david`."""

    widths: tuple[int, ...] = SMALL
    """Features at each scale."""


@dataclass(frozen=True)
class MsopUnet(DecloudMethod):
    """One date from several optical and SAR dates, by a U-Net (Cresson et al., 2022).

    Examples
    --------
    >>> MsopUnet().layout.inputs
    ('tm1', 't', 'tp1')
    """

    name: ClassVar[str] = "msop_unet"
    Config: ClassVar[type] = ConfigUnet

    @classmethod
    def wiring_of(cls, config: ConfigUnet) -> Wiring:
        """An encoder shared by all dates; in a synthesis SAR and optical images are dates apart."""
        apart = layout.load(config.layout).synthesis and config.sar
        return _wiring(config, raw_dem=apart, own_second=apart)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(DecloudNet(cls.wiring_of(config)), "lecun" if _rebuilds(config) else "glorot")

    @classmethod
    def from_original(cls, path: str | Path, config: ConfigUnet | None = None) -> dict[str, Tensor]:
        """The state of the net from Keras weights (HDF5)."""
        return state_of(cls.net(config or ConfigUnet()), path)


@dataclass(frozen=True)
class MsopDavid(DecloudMethod):
    """One date from several optical and SAR dates, by a small net (Cresson et al., 2022).

    Examples
    --------
    >>> MsopDavid().needs.dem
    False
    """

    name: ClassVar[str] = "msop_david"
    Config: ClassVar[type] = ConfigDavid

    @classmethod
    def wiring_of(cls, config: ConfigDavid) -> Wiring:
        """An encoder shared by all dates, no skips, and a ReLU at the end."""
        return _wiring(config, skips=False, rectified=True)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(DecloudNet(cls.wiring_of(config)), "glorot")

    @classmethod
    def from_original(
        cls, path: str | Path, config: ConfigDavid | None = None
    ) -> dict[str, Tensor]:
        """The state of the net from Keras weights (HDF5)."""
        return state_of(cls.net(config or ConfigDavid()), path)


def _wiring(config: ConfigUnet, **more: Any) -> Wiring:
    chosen = layout.load(config.layout)
    kinds = kinds_of(chosen, config.sar)
    if chosen.synthesis and config.sar:
        kinds = ("s2",) * len(kinds) + ("s1",) * len(kinds)
    return Wiring(
        tuple(cast(Kind, k) for k in kinds if k),
        bands=len(config.bands),
        bands_20m=len(config.bands_20m),
        dem=config.dem,
        widths=config.widths,
        **more,
    )


def _rebuilds(config: ConfigUnet) -> bool:
    chosen = layout.load(config.layout)
    return not (chosen.generates or chosen.synthesis)
