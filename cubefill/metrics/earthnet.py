"""The EarthNetScore of Requena-Mesa et al. (2021): four scores of a cube and their harmonic mean.

Values are clipped to 0..1; all four lie within 0 and 1, 1 is best, and each is averaged over cubes
before the harmonic mean. Time is the number of the date, as on the regular axis of EarthNet.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import CubeError
from cubefill.metrics.conventions import square_ssim
from cubefill.metrics.formulas import Array, Bands, Metric, Terms, mean_of, means

MEDIAN_POWER, NDVI_POWER, SSIM_POWER = 0.06649346971087526, 0.10082047548620601, 10.31885115
CLEAR = 0.7
"""Share of scored pixels above which a date counts for SSIM."""
RANGE = 2.0
"""Range of the data in SSIM: what scikit-image took for floats when the score was published."""


@dataclass(frozen=True)
class _Cube:
    """One value a cube, then the mean over cubes."""

    name: ClassVar[str] = ""
    convention: ClassVar[str] = "earthnet"
    higher_is_better: ClassVar[bool] = True
    ideal: ClassVar[float | None] = None
    unit: ClassVar[str] = "1"
    sees: ClassVar[str] = "series"
    pooling: ClassVar[str] = "one value a cube, then cubes"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """The value of this cube, clipped to 0..1."""
        p, t, known = _clipped(pred, true, where)
        found = self.of_cube(p, t, known)
        some = found is not None and np.isfinite(found)
        held = min(max(float(found), 0.0), 1.0) if found is not None and some else 0.0
        return means(held, int(some), int(known.sum() * len(p)))

    def value(self, terms: Terms) -> float:
        """Mean over cubes."""
        return mean_of(terms)

    def of_cube(self, p: dict[str, Array], t: dict[str, Array], known: Array) -> float | None:
        """The value of one cube; None where nothing can be scored."""
        raise NotImplementedError


@dataclass(frozen=True)
class MAD(_Cube):
    """One minus the scaled median absolute deviation."""

    name: ClassVar[str] = "MAD"

    def of_cube(self, p: dict[str, Array], t: dict[str, Array], known: Array) -> float | None:
        """From all bands together."""
        errors = np.concatenate([np.abs(p[b] - t[b])[known] for b in t])
        return 1 - float(np.median(errors**MEDIAN_POWER)) if len(errors) else None


@dataclass(frozen=True)
class OLS(_Cube):
    """One minus the scaled difference of the slopes of NDVI, pixel by pixel.

    The slope of the truth is taken over its scored dates, that of the fill over all dates between
    the first and the last of them. Pixels with fewer than two scored dates do not count.
    """

    name: ClassVar[str] = "OLS"

    def of_cube(self, p: dict[str, Array], t: dict[str, Array], known: Array) -> float | None:
        """From NDVI."""
        seen = _enough(known)
        if seen is None:
            return None
        fill, truth = _ndvi(p)[:, seen], _ndvi(t)[:, seen]
        used = known[:, seen]
        step = np.arange(len(used), dtype=float)[:, None]
        first, last = used.argmax(0), len(used) - 1 - used[::-1].argmax(0)
        inside = (step >= first) & (step <= last)
        u = (step - first) / (last - first)
        change = np.abs(_slope(u, truth, used) - _slope(u, fill, inside)) / 4
        return 1 - float(np.mean(change**NDVI_POWER))


@dataclass(frozen=True)
class EMD(_Cube):
    """One minus the scaled earth mover distance between the NDVI values of fill and truth.

    All dates of the fill count, and the scored ones of the truth.
    """

    name: ClassVar[str] = "EMD"

    def of_cube(self, p: dict[str, Array], t: dict[str, Array], known: Array) -> float | None:
        """From NDVI."""
        seen = _enough(known)
        if seen is None:
            return None
        fill, truth, used = _ndvi(p)[:, seen], _ndvi(t)[:, seen], known[:, seen]
        there = np.isfinite(fill)
        weight = np.concatenate([there / there.sum(0), -1.0 * used / used.sum(0)])
        value = np.nan_to_num(np.concatenate([fill, np.where(used, truth, 0)]))
        order = value.argsort(0)
        value, weight = (np.take_along_axis(a, order, 0) for a in (value, weight))
        moved = (np.abs(weight.cumsum(0))[:-1] * np.diff(value, axis=0)).sum(0)
        return 1 - float(np.mean(moved**NDVI_POWER))


@dataclass(frozen=True)
class EarthNetSSIM(_Cube):
    """Scaled mean structural similarity of the images with more than 70 % of scored pixels.

    Elsewhere in these images the truth is replaced by the fill.
    """

    name: ClassVar[str] = "SSIM"

    peak: float = RANGE

    def of_cube(self, p: dict[str, Array], t: dict[str, Array], known: Array) -> float | None:
        """From each band of each date."""
        some = known.mean((-2, -1)) > CLEAR
        if not some.any() or min(known.shape[-2:]) < 7:
            return None
        fill = np.stack([a[some] for a in p.values()])
        truth = np.where(known[some], np.stack([t[b][some] for b in p]), fill)
        local = square_ssim(fill, truth, self.peak)[..., 3:-3, 3:-3]
        return max(0.0, float(np.nanmean(local.mean((-2, -1))))) ** SSIM_POWER


PARTS: tuple[_Cube, ...] = (MAD(), OLS(), EMD(), EarthNetSSIM())


@dataclass(frozen=True)
class EarthNetScore(_Cube):
    """Harmonic mean of MAD, OLS, EMD and SSIM, each averaged over cubes first."""

    name: ClassVar[str] = "ENS"
    pooling: ClassVar[str] = "one value a cube, then cubes, then the harmonic mean of four scores"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """The four values of this cube."""
        parts = [m.terms(pred, true, where) for m in PARTS]
        return {
            "total": np.concatenate([a["total"] for a in parts]),
            "count": np.concatenate([a["count"] for a in parts]),
            "n": parts[0]["n"],
        }

    def value(self, terms: Terms) -> float:
        """Harmonic mean; 0 where one of the four is 0."""
        if not terms["count"].all():
            return float("nan")
        four = terms["total"] / terms["count"]
        return float(len(four) / (1 / four).sum()) if four.all() else 0.0


def _clipped(
    pred: Bands, true: Bands, where: Array
) -> tuple[dict[str, Array], dict[str, Array], NDArray[np.bool_]]:
    p, t = (
        {b: np.clip(np.asarray(side[b], dtype=float), 0, 1) for b in true} for side in (pred, true)
    )
    known = where & np.all([np.isfinite(a[b]) for a in (p, t) for b in true], axis=0)
    return p, t, known


def _enough(known: Array) -> NDArray[np.bool_] | None:
    """Pixels with two scored dates or more; None where there is none."""
    seen: NDArray[np.bool_] = known.sum(0) > 1
    return seen if seen.any() else None


def _ndvi(side: dict[str, Array]) -> Array:
    nir = next((b for b in ("B08", "B8A") if b in side), None)
    if nir is None or "B04" not in side:
        raise CubeError(
            f"earthnet: expected B04 and one of B08, B8A for NDVI, got {', '.join(side)}. "
            "Pass metrics=('MAD', 'SSIM'), or choose another convention."
        )
    found: Array = (side[nir] - side["B04"]) / (side[nir] + side["B04"] + 1e-6)
    return found


def _slope(u: Array, values: Array, used: Array) -> Array:
    """Least-squares slope along the first axis over the used values."""
    used = used & np.isfinite(values)
    n = used.sum(0)
    u, values = np.where(used, u, 0), np.where(used, values, 0)
    mean = u.sum(0) / n
    spread = ((u - mean) ** 2 * used).sum(0)
    found: Array = ((u - mean) * values * used).sum(0) / spread
    return found


EARTHNET: dict[str, Metric] = {m.name: m for m in (*PARTS, EarthNetScore())}
"""Name to metric."""
