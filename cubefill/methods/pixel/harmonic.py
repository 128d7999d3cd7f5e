"""Harmonic and climatology: what a pixel does at this time of the year."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Codes, Flag
from cubefill.methods.pixel.climatology_kernel import climatology, nearness
from cubefill.methods.pixel.harmonic_kernel import apply_factors, factors, harmonic, products
from cubefill.methods.pixel.kernel import Array
from cubefill.methods.pixel.method import Axes, Classic

YEAR = 365.25
TOGETHER = 1 << 14
"""Pixels whose factors are kept for all bands."""


def design(days: NDArray[np.float64], orders: int, trend: bool) -> NDArray[np.float64]:
    """`(time, term)`: one, years where `trend`, then cosine and sine of each order."""
    phase = 2 * np.pi * days / YEAR
    columns = [np.ones_like(days)] + ([days / YEAR] if trend else [])
    for k in range(1, orders + 1):
        columns += [np.cos(k * phase), np.sin(k * phase)]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@dataclass(frozen=True)
class Harmonic(Classic):
    """Gaps lie on a sum of yearly waves and a trend, fitted to the pixel's clear observations.

    Least squares in float64, with a little `ridge` on all terms but the mean so that few
    observations give a calm curve. `robust` is the number of rounds in which observations far
    from the curve lose weight (bisquare).

    References
    ----------
    Roerink et al. (2000), Reconstructing cloudfree NDVI composites using Fourier analysis of time
    series, International Journal of Remote Sensing 21.
    """

    orders: int = 2
    """Waves: one a year, two a year, and so on."""
    trend: bool = True
    """True adds a straight line."""
    robust: int = 0
    """Rounds of robust reweighting."""
    ridge: float = 1e-3
    """Added to the diagonal of the normal equations, the mean's apart."""

    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.orders < 1 or self.ridge <= 0 or self.robust < 0:
            raise MethodError(
                f"Harmonic(orders={self.orders}, ridge={self.ridge}, robust={self.robust}): "
                "expected orders >= 1, ridge > 0 and robust >= 0; pass orders=2, ridge=1e-3."
            )

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        x, xo, ridge = self._designs(axes)
        keep = axes.same and not self.smooth
        args = (band, valid, products(x), x, xo, ridge, self.robust, keep, out)
        return int(harmonic(band.dtype, *args))

    def curves(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> tuple[Codes, list[int]]:
        """`curve` for all bands, which share the factors of the normal equations."""
        if self.robust or len(bands) == 1:
            return super().curves(bands, valid, axes, outs)
        x, xo, ridge = self._designs(axes)
        pairs, keep = products(x), axes.same and not self.smooth
        height, width = valid.shape[1:]
        rows = max(1, TOGETHER // max(1, width))
        factor = np.empty((pairs.shape[1] - x.shape[1], min(rows, height) * width))
        lost = [0] * len(bands)
        for y in range(0, height, rows):
            part = (slice(None), slice(y, y + rows))
            factors(np.dtype(np.float32), valid[part], pairs, ridge, factor)
            for i, (band, out) in enumerate(zip(bands, outs, strict=True)):
                args = (band[part], valid[part], pairs, xo, factor, keep, out[part])
                lost[i] += apply_factors(band.dtype, *args)
        for i, (band, out) in enumerate(zip(bands, outs, strict=True)):
            if lost[i]:
                self.curve(band, valid, axes, out)
        return self.flags(valid, axes), lost

    def _designs(self, axes: Axes) -> tuple[Array, Array, Array]:
        """The design at the dates given and asked for, and the ridge of each term."""
        middle = axes.days[-1] / 2
        x = design(axes.days - middle, self.orders, self.trend)
        xo = design(axes.out_days - middle, self.orders, self.trend)
        ridge = np.full((1, x.shape[1]), self.ridge)
        ridge[0, 0] = 0
        return x, xo, ridge


@dataclass(frozen=True)
class Climatology(Classic):
    """Gaps get what the pixel showed at this time of the year: the mean or median of near days.

    Clear observations of all years count, those on the same day of the year most, those
    `window / 2` days away or more not at all (the median counts all inside alike); where there is
    none the window doubles until there is. With one year this is a windowed mean.
    """

    window: float = 31
    """Days of the year that are looked at, both sides together."""
    statistic: str = "mean"
    """"mean" or "median"."""

    fits: ClassVar[bool] = True
    flag: ClassVar[Flag] = Flag.CLIMATOLOGY
    beyond: ClassVar[Flag] = Flag.CLIMATOLOGY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in ("mean", "median") or not self.window > 0:
            raise MethodError(
                f"Climatology(statistic={self.statistic!r}, window={self.window}): expected "
                "'mean' or 'median' and days above 0; pass statistic='mean', window=31."
            )

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        near = nearness(axes.days, axes.out_days, self.window)
        keep = axes.same and not self.smooth
        return int(
            climatology(band.dtype, band, valid, near, self.statistic == "median", keep, out)
        )
