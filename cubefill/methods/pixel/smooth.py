"""Savitzky-Golay and Whittaker: curves fitted to each pixel's clear observations, on real days."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Codes
from cubefill.methods.pixel.bending import local_cubic, penalty
from cubefill.methods.pixel.kernel import Array
from cubefill.methods.pixel.linear_bands import addresses
from cubefill.methods.pixel.method import Axes, Classic, reflectance
from cubefill.methods.pixel.savgol_kernel import polynomial_weights, savgol
from cubefill.methods.pixel.vcurve import v_curve
from cubefill.methods.pixel.whittaker_kernel import whittaker


@dataclass(frozen=True)
class Savgol(Classic):
    """Gaps lie on a polynomial fitted to the `window` days around each date.

    The straight line between the clear observations is laid first, as is usual; the polynomial is
    fitted to it at the real acquisition days, so that irregular dates are honoured.

    References
    ----------
    Chen et al. (2004), A simple method for reconstructing a high-quality NDVI time-series data
    set based on the Savitzky-Golay filter, Remote Sensing of Environment 91.
    """

    window: float = 45
    """Days that the polynomial is fitted to, both sides together."""
    order: int = 2
    """Degree of the polynomial."""

    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 0 or not self.window > 0:
            raise MethodError(
                f"Savgol(window={self.window}, order={self.order}): expected days above 0 and "
                "order >= 0; pass window=45, order=2."
            )

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        weights = polynomial_weights(axes.days, axes.out_days, self.window, self.order)
        keep = axes.same and not self.smooth
        return int(savgol(band.dtype, band, valid, axes.s, weights, keep, out))


@dataclass(frozen=True)
class Whittaker(Classic):
    """Gaps lie on the curve that is near the observations and bends as little as `lam` asks.

    Minimises the squared distance to the clear observations plus `lam` times the integral of the
    squared second derivative over real days, in float64; before the first and after the last
    clear observation the curve is held at its value there. At dates without acquisition a local
    cubic through the neighbouring acquisition dates gives the value, so that the answer at one
    date does not depend on which others were asked for.

    `lam` is in cubed days: it does not depend on how often the satellite passes, and equals that
    of a Whittaker smoother on a daily axis. "vcurve" chooses it once per cube by `prepare`.
    `robust` is the number of rounds in which observations far from the curve lose weight
    (bisquare, against the median absolute distance of their pixel).

    References
    ----------
    Eilers (2003), A perfect smoother, Analytical Chemistry 75. Frasso and Eilers (2015), L- and
    V-curves for optimal smoothing, Statistical Modelling 15.
    """

    lam: float | str = "vcurve"
    """Weight of the bending, in days cubed, or "vcurve"."""
    robust: int = 0
    """Rounds of robust reweighting."""

    fits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam != "vcurve" and not (isinstance(self.lam, int | float) and self.lam > 0):
            raise MethodError(
                f"Whittaker(lam={self.lam!r}): expected a number above 0 or 'vcurve'; pass "
                "lam=1000."
            )

    @property
    def wants_sample(self) -> bool:
        """True while `lam` is to be chosen."""
        return self.lam == "vcurve"

    def prepare(self, sample: Block) -> Self:
        """The same method with `lam` as a number, the middle of the series' own V-curves."""
        chosen = self
        if self.lam == "vcurve":
            bands = [reflectance(b) for b in sample.bands.values()]
            chosen = replace(self, lam=v_curve(bands, sample.valid, sample.days))
        return super(Whittaker, chosen).prepare(sample)

    def recorded(self) -> dict[str, Any]:
        """`lam` in days cubed, and expected errors where they were asked for."""
        return {"lam": self.lam, **super().recorded()}

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        return int(self._curves([band], valid, axes, [out])[0])

    def curves(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> tuple[Codes, list[int]]:
        """`curve` for all bands, which share the factors."""
        return self.flags(valid, axes), self._curves(bands, valid, axes, outs).tolist()

    def _curves(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> Array:
        """Fills `outs`; gives the clear values of each band that held no data."""
        if isinstance(self.lam, str):
            raise MethodError(
                "Whittaker(lam='vcurve') has not seen the cube: expected a number. Use "
                "method = method.prepare(sample), or lam=1000."
            )
        bend = penalty(axes.days) * self.lam
        first, weights = local_cubic(axes.days, axes.out_days, axes.lo)
        like, lost = np.zeros(1, bands[0].dtype), np.zeros(len(bands), np.int64)
        keep = axes.same and not self.smooth
        own = self.robust > 0
        args = (self.robust, axes.same, keep)

        def run(chosen: Any, own: bool, lost: Array) -> None:
            at, to = (addresses([a[i] for i in chosen]) for a in (bands, outs))
            whittaker(like.dtype, at, to, like, valid, bend, first, weights, own, *args, lost)

        run(range(len(bands)), own, lost)
        again = np.flatnonzero(lost)
        if len(again) and not own:
            run(again, True, np.zeros(len(again), np.int64))
        return lost
