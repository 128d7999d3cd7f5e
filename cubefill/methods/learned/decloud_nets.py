"""SSOP and MSOP: one date from its own cloudy image, or from several, with SAR and elevation.

Cresson et al. (2022), "Comparison of convolutional neural networks for cloudy optical images
reconstruction from single or multitemporal joint SAR and optical images", arXiv 2204.00424.
SSOP has one date: `ssop_mer` is the residual net of Meraner et al. (2020) as they use it,
`ssop_unet` their U-Net. MSOP has several: `msop_unet` is their U-Net with an encoder shared by all
dates, `msop_david` their small net.

The layout says what MSOP does. "msop" reconstructs a date from itself and one before and after
(OS2); "crga-os1-occitanie" gives a date from one before and after and its SAR image alone (OS1):
use it with `times=`; "monthly" gives the synthesis of a month from six dates around its middle.

`optical (date, 4, y, x)`, `sar (date, 2, y, x)`, `optical_20m (date, 6, y/2, x/2)`,
`dem (1, y/2, x/2)` give `(band, y, x)`.

What differs from the authors' code: clear pixels are put back by the engine. Dates come from the
layout, the clearest of a time frame first, not from the farthest neighbours (with `mosaic=12` from
the nearest clear pixel of 12 neighbours), and a monthly synthesis is shown its dates in time
order, as in training. The U-Net of one date with 20 m bands lacks the skip at full resolution, as
theirs does. Forms without a published net are put together as their kin: `ssop_mer` with elevation
or 20 m bands (they join its input, repeated to 10 m, and all bands are corrected), OS1 of the small
net, 20 m bands of the synthesis and of OS1 without SAR, elevation of the synthesis without SAR.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import nn

from cubefill import layout
from cubefill.methods.learned.decloud import DecloudConfig, DecloudMethod, fresh, kinds_of
from cubefill.nn.unet import SMALL, WIDTHS, DecloudNet, Kind, ResidualNet, Wiring


@dataclass(frozen=True)
class SsopMerConfig(DecloudConfig):
    """Configuration of `ssop_mer`."""

    width: int = 256
    """Features of every layer."""
    blocks: int = 16
    """Residual blocks."""


@dataclass(frozen=True)
class SsopUnetConfig(DecloudConfig):
    """Configuration of `ssop_unet`."""

    widths: tuple[int, ...] = WIDTHS
    """Features at each scale."""


@dataclass(frozen=True)
class MsopUnetConfig(SsopUnetConfig):
    """Configuration of `msop_unet`."""

    layout: str = "msop"
    """Name of a published layout, a JSON file, or JSON text."""


@dataclass(frozen=True)
class MsopDavidConfig(MsopUnetConfig):
    """Configuration of `msop_david`."""

    widths: tuple[int, ...] = SMALL
    """Features at each scale."""


@dataclass(frozen=True)
class SsopMer(DecloudMethod):
    """One date from its cloudy image and SAR, by residual blocks (Meraner et al., 2020).

    Examples
    --------
    >>> SsopMer().needs.sar
    True
    """

    name: ClassVar[str] = "ssop_mer"
    multiple: ClassVar[int] = 2
    Config: ClassVar[type] = SsopMerConfig

    @classmethod
    def wiring_of(cls, config: SsopMerConfig) -> Wiring:
        """One date, all that is known of it."""
        return _wiring(config)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(ResidualNet(cls.wiring_of(config), config.width, config.blocks), "glorot")


@dataclass(frozen=True)
class SsopUnet(DecloudMethod):
    """One date from its cloudy image, SAR and elevation, by a U-Net (Cresson et al., 2022).

    Examples
    --------
    >>> SsopUnet().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "ssop_unet"
    Config: ClassVar[type] = SsopUnetConfig

    @classmethod
    def wiring_of(cls, config: SsopUnetConfig) -> Wiring:
        """One date; without the skip at full resolution where there are 20 m bands."""
        return _wiring(config, widths=config.widths, full_skip=not config.bands_20m)


@dataclass(frozen=True)
class MsopUnet(DecloudMethod):
    """One date from several optical and SAR dates, by a U-Net (Cresson et al., 2022).

    Examples
    --------
    >>> MsopUnet().layout.inputs
    ('tm1', 't', 'tp1')
    """

    name: ClassVar[str] = "msop_unet"
    Config: ClassVar[type] = MsopUnetConfig

    @classmethod
    def wiring_of(cls, config: MsopUnetConfig) -> Wiring:
        """An encoder shared by all dates; in a synthesis SAR and optical images are dates apart."""
        apart = _apart(config)
        return _wiring(config, apart, widths=config.widths, raw_dem=apart, own_second=apart)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        chosen = layout.load(config.layout)
        rule: Any = "glorot" if chosen.generates or chosen.synthesis else "lecun"
        return fresh(DecloudNet(cls.wiring_of(config)), rule)


@dataclass(frozen=True)
class MsopDavid(DecloudMethod):
    """One date from several optical and SAR dates, by a small net (Cresson et al., 2022).

    Examples
    --------
    >>> MsopDavid().needs.dem
    False
    """

    name: ClassVar[str] = "msop_david"
    Config: ClassVar[type] = MsopDavidConfig

    @classmethod
    def wiring_of(cls, config: MsopDavidConfig) -> Wiring:
        """An encoder shared by all dates, no skips, and a ReLU at the end."""
        apart = _apart(config)
        return _wiring(config, apart, widths=config.widths, skips=False, rectified=True)


def _apart(config: DecloudConfig) -> bool:
    """True where SAR and optical images are shown as dates apart."""
    return layout.load(config.layout).synthesis and config.sar


def _wiring(config: DecloudConfig, apart: bool = False, **more: Any) -> Wiring:
    kinds = kinds_of(layout.load(config.layout), config.sar)
    if apart:
        kinds = ("s2",) * len(kinds) + ("s1",) * len(kinds)
    return Wiring(
        tuple(cast(Kind, k) for k in kinds if k),
        bands=len(config.bands),
        bands_20m=len(config.bands_20m),
        dem=config.dem,
        **more,
    )
