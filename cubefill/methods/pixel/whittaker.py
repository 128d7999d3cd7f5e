"""Whittaker: the curve that is near the clear observations of a pixel and bends little.

Below, in this order: the V-curve, which chooses how much the curve may bend, from the series of a
sample, and the method.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Codes
from cubefill.methods.pixel.fit import MOST_ROUNDS, Fit
from cubefill.methods.pixel.kernel import Array
from cubefill.methods.pixel.method import Axes, reflectance
from cubefill.methods.pixel.spline import mixture
from cubefill.methods.pixel.whittaker_kernel import sweep

DEFAULT = 1000.0
"""`lam` where no series of the sample is long enough, in days cubed."""
LAMS = 10.0 ** np.arange(1.0, 7.1, 0.25)
"""Candidates of the V-curve, in days cubed."""
LARGEST = 1e12
"""`lam` beyond which every curve is a straight line, to the last digit."""
FEWEST = 6
"""Clear observations that a series needs to have a V-curve."""


def v_curve(bands: Iterable[Array], valid: Array, seconds: NDArray[np.int32]) -> float:
    """The `lam` at the bottom of the V-curve: the median over the series of all bands.

    For each series: the distance between neighbours of the L-curve (log misfit against log
    roughness over log `lam`) is smallest where more bending buys little.
    """
    best: list[NDArray[np.float64]] = []
    log_lam = np.log10(LAMS)
    for band in bands:
        out = np.empty((2, len(LAMS), band.shape[1] * band.shape[2]))
        sweep(band.dtype, band, valid, seconds, LAMS, out)
        clear = (valid & np.isfinite(band)).sum(axis=0).ravel() >= FEWEST
        moves = np.diff(np.log10(np.maximum(out[:, :, clear], 1e-300)), axis=1)
        v = np.hypot(*moves) / np.diff(log_lam)[:, None]
        best.append((log_lam[:-1] + log_lam[1:])[v.argmin(axis=0)] / 2)
    found = np.concatenate(best) if best else np.empty(0)
    return float(10 ** np.median(found)) if found.size else DEFAULT


# ------------------------------------------------------------------ the method


@dataclass(frozen=True)
class Whittaker(Fit):
    """Whittaker smoother on real dates; `lam` sets the smoothness.

    Minimises the squared distance to the clear observations plus `lam` times the integral of the
    squared second derivative over real days, in float64: a smoothing spline, which depends on the
    pixel's own observations and on no other date. Before the first and after the last of them the
    curve is held at its value there; between them it is held within their range.

    `lam` is in cubed days: it does not depend on how often the satellite passes, and equals that
    of a Whittaker smoother on a daily axis. "vcurve" chooses it once per cube by `prepare`.
    `robust` is the number of rounds in which observations far from the curve lose weight
    (bisquare, against the median absolute distance of their pixel).

    References
    ----------
    Reinsch (1967), Smoothing by spline functions, Numerische Mathematik 10. Eilers (2003), A
    perfect smoother, Analytical Chemistry 75. Frasso and Eilers (2015), L- and V-curves for optimal
    smoothing, Statistical Modelling 15.
    """

    lam: float | str = "vcurve"
    """Weight of the bending, in days cubed, or "vcurve"."""
    robust: int = 0
    """Rounds of robust reweighting."""

    fewest: ClassVar[int] = 3
    """A curve through two is a straight line."""
    revision: ClassVar[str] = "3"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.lam == "vcurve" if isinstance(self.lam, str) else 0 < self.lam <= LARGEST
        if not known or not 0 <= self.robust <= MOST_ROUNDS:
            raise MethodError(
                f"Whittaker(lam={self.lam!r}, robust={self.robust}): expected a number above 0 or "
                f"'vcurve', up to {LARGEST:g}, and robust 0 to {MOST_ROUNDS}; pass lam=1000."
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
            chosen = replace(self, lam=v_curve(bands, sample.valid, Axes.of(sample).s))
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
        own, keep = self.robust > 0, self.keeps(axes)
        return mixture(bands, valid, axes, outs, [self.lam], own=own, rounds=self.robust, keep=keep)
