"""Whittaker: the curve that is near the clear observations of a pixel and bends little.

Below, in this order: how much a curve on irregular days bends, the V-curve, which chooses how much
it should, from the series of a sample, and the method.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Codes
from cubefill.methods.pixel.kernel import (
    DAYS,
    NAN,
    TABLE,
    VALID,
    Array,
    addresses,
    kernel,
    load,
    row,
)
from cubefill.methods.pixel.method import Axes, Classic, reflectance
from cubefill.methods.pixel.whittaker_kernel import (
    TILE,
    backwards,
    factor,
    forwards,
    pattern,
    whittaker,
)

DEFAULT = 1000.0
"""`lam` where no series of the sample is long enough, in days cubed."""
LAMS = 10.0 ** np.arange(1.0, 7.1, 0.25)
"""Candidates of the V-curve, in days cubed."""
FEWEST = 6
"""Clear observations that a series needs to have a V-curve."""


def bending(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)`: row i of D holds `[:, i]` at dates i, i + 1, i + 2.

    Rows are second derivatives at each inner date (twice the divided difference), weighted so
    that their squares add up to the integral over time.
    """
    out = np.zeros((3, len(days)))
    if len(days) < 3:
        return out
    h = np.diff(days)
    both = h[:-1] + h[1:]
    out[0, :-2] = np.sqrt(2 / both) / h[:-1]
    out[2, :-2] = np.sqrt(2 / both) / h[1:]
    out[1] = -out[0] - out[2]
    return out


def penalty(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)` diagonals of D'D: itself, first and second above it."""
    a, b, c = bending(days)
    out = np.array([a * a, a * b, a * c])
    out[0, 1:] += (b * b)[:-1]
    out[0, 2:] += (c * c)[:-2]
    out[1, 1:] += (b * c)[:-1]
    return out


def local_cubic(
    days: NDArray[np.float64], out_days: NDArray[np.float64], lo: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First of four dates given, and their weights, for each date asked for.

    A cubic Hermite polynomial between two dates, its slopes from parabolas through three.
    """
    start = np.zeros(len(out_days), np.int64)
    weights = np.zeros((len(out_days), 4))
    for k, (day, i) in enumerate(zip(out_days, lo, strict=True)):
        if i < 0 or days[i] == day or i == len(days) - 1:
            start[k] = max(i, 0)
            weights[k, 0] = 1
            continue
        start[k] = max(i - 1, 0)
        near = days[start[k] : start[k] + 4]
        weights[k, : len(near)] = _hermite(near, i - start[k], day)
    return start, weights


def _hermite(x: NDArray[np.float64], i: int, day: float) -> NDArray[np.float64]:
    unit = np.eye(len(x))
    secant = np.diff(unit, axis=0) / np.diff(x)[:, None]
    slopes = np.concatenate([secant[:1], secant[-1:]]) if len(x) == 2 else _slopes(x, secant)
    h = x[i + 1] - x[i]
    u = (day - x[i]) / h
    ends = (1 + 2 * u) * (1 - u) ** 2 * unit[i] + u * u * (3 - 2 * u) * unit[i + 1]
    bent = u * (1 - u) ** 2 * slopes[i] - u * u * (1 - u) * slopes[i + 1]
    weights: NDArray[np.float64] = ends + h * bent
    return weights


def _slopes(x: NDArray[np.float64], secant: NDArray[np.float64]) -> NDArray[np.float64]:
    h = np.diff(x)[:, None]
    inner = (h[1:] * secant[:-1] + h[:-1] * secant[1:]) / (h[:-1] + h[1:])
    return np.concatenate([2 * secant[:1] - inner[:1], inner, 2 * secant[-1:] - inner[-1:]])


# ------------------------------------------------------------------ the V-curve


@row
def _add_up(
    s: Array, y: Array, d: Array, first: Array, last: Array, misfit: Array, rough: Array
) -> None:
    """Squared distance to the observations and squared second derivative, per pixel."""
    misfit[:] = 0.0
    rough[:] = 0.0
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            v = np.float64(s[i, j]) - y[i, j]
            misfit[j] += v * v if v == v else 0.0
    for i in range(s.shape[0] - 2):
        for j in range(s.shape[1]):
            b = d[0, i] * y[i, j] + d[1, i] * y[i + 1, j] + d[2, i] * y[i + 2, j]
            rough[j] += b * b if (i >= first[j]) & (i + 2 <= last[j]) else 0.0


@kernel("band", VALID, TABLE, TABLE, DAYS, types.Array(types.float64, 3, "C"), gives=types.void)
def sweep(band: Array, valid: Array, bend: Array, d: Array, lams: Array, out: Array) -> None:
    """Misfit and roughness `(2, lam, pixel)` of the curve of every pixel for each of `lams`."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    w = np.empty((count, width))
    e = np.zeros((count + 2, width))
    f = np.zeros((count + 2, width))
    r = np.empty((count, width))
    y = np.zeros((count + 4, width))
    first = np.empty(width, np.int32)
    last = np.empty(width, np.int32)
    misfit = np.empty(width)
    rough = np.empty(width)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        load(band, valid, p0, n, s)
        pattern(s, w, first, last)
        for m in range(len(lams)):
            factor(bend * lams[m], w, first, last, e, f, r)
            forwards(s, w, e, f, y)
            backwards(e, f, r, y)
            _add_up(s, y, d, first, last, misfit, rough)
            out[0, m, p0 : p0 + n] = misfit[:n]
            out[1, m, p0 : p0 + n] = rough[:n]


def v_curve(bands: Iterable[Array], valid: Array, days: NDArray[np.float64]) -> float:
    """The `lam` at the bottom of the V-curve: the median over the series of all bands.

    For each series: the distance between neighbours of the L-curve (log misfit against log
    roughness over log `lam`) is smallest where more bending buys little.
    """
    best: list[NDArray[np.float64]] = []
    log_lam = np.log10(LAMS)
    for band in bands:
        out = np.empty((2, len(LAMS), band.shape[1] * band.shape[2]))
        sweep(band.dtype, band, valid, penalty(days), bending(days), LAMS, out)
        clear = (valid & np.isfinite(band)).sum(axis=0).ravel() >= FEWEST
        moves = np.diff(np.log10(np.maximum(out[:, :, clear], 1e-300)), axis=1)
        v = np.hypot(*moves) / np.diff(log_lam)[:, None]
        best.append((log_lam[:-1] + log_lam[1:])[v.argmin(axis=0)] / 2)
    found = np.concatenate(best) if best else np.empty(0)
    return float(10 ** np.median(found)) if found.size else DEFAULT


# ------------------------------------------------------------------ the method


@dataclass(frozen=True)
class Whittaker(Classic):
    """Whittaker smoother on real dates; `lam` sets the smoothness.

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
        keep = self.keeps(axes)
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
