"""SSOP: one date from its own cloudy image, its SAR image and elevation.

Cresson et al. (2022), "Comparison of convolutional neural networks for cloudy optical images
reconstruction from single or multitemporal joint SAR and optical images", arXiv 2204.00424.
`ssop_mer` is the residual net of Meraner et al. (2020) as they use it, `ssop_unet` their U-Net.

`optical (1, 4, y, x)`, `sar (1, 2, y, x)`, `optical_20m (1, 6, y/2, x/2)`, `dem (1, y/2, x/2)` give
`(band, y, x)`.

What differs from the authors' code: clear pixels are put back by the engine. The U-Net with 20 m
bands lacks the skip at full resolution, as theirs does. `ssop_mer` has no published form with
elevation or 20 m bands: they join its input, repeated to 10 m, and all bands are corrected.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from cubefill import layout
from cubefill.methods.learned.decloud import DecloudConfig, DecloudMethod, fresh, kinds_of, state_of
from cubefill.nn.unet import WIDTHS, DecloudNet, Kind, ResidualNet, Wiring


@dataclass(frozen=True)
class ConfigMer(DecloudConfig):
    """Configuration of `ssop_mer`."""

    width: int = 256
    """Features of every layer."""
    blocks: int = 16
    """Residual blocks."""


@dataclass(frozen=True)
class ConfigUnet(DecloudConfig):
    """Configuration of `ssop_unet`."""

    widths: tuple[int, ...] = WIDTHS
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
    Config: ClassVar[type] = ConfigMer

    @classmethod
    def wiring_of(cls, config: ConfigMer) -> Wiring:
        """One date, all that is known of it."""
        return _wiring(config)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(ResidualNet(cls.wiring_of(config), config.width, config.blocks), "glorot")

    @classmethod
    def from_original(cls, path: str | Path, config: ConfigMer | None = None) -> dict[str, Tensor]:
        """The state of the net from Keras weights (HDF5)."""
        return state_of(cls.net(config or ConfigMer()), path)


@dataclass(frozen=True)
class SsopUnet(DecloudMethod):
    """One date from its cloudy image, SAR and elevation, by a U-Net (Cresson et al., 2022).

    Examples
    --------
    >>> SsopUnet().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "ssop_unet"
    Config: ClassVar[type] = ConfigUnet

    @classmethod
    def wiring_of(cls, config: ConfigUnet) -> Wiring:
        """One date; without the skip at full resolution where there are 20 m bands."""
        return _wiring(config, widths=config.widths, full_skip=not config.bands_20m)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return fresh(DecloudNet(cls.wiring_of(config)), "glorot")

    @classmethod
    def from_original(cls, path: str | Path, config: ConfigUnet | None = None) -> dict[str, Tensor]:
        """The state of the net from Keras weights (HDF5)."""
        return state_of(cls.net(config or ConfigUnet()), path)


def _wiring(config: DecloudConfig, **more: Any) -> Wiring:
    kinds = kinds_of(layout.load(config.layout), config.sar)
    return Wiring(
        cast(tuple[Kind, ...], kinds),
        bands=len(config.bands),
        bands_20m=len(config.bands_20m),
        dem=config.dem,
        **more,
    )
