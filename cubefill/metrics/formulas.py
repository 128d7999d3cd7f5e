"""Formulas of the metrics, each a pair of pure functions: sums that add up, and their value.

`pred` and `true` map a band's name to `(time, y, x)` reflectance; `where` is True on the scored
pixels. A pixel counts for a band where both are finite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import CubeError

Array = NDArray[Any]
Bands = Mapping[str, Array]
Terms = dict[str, NDArray[np.float64]]


class Metric(Protocol):
    """A score in two halves, with the facts that make it comparable.

    Optional facts: `sees`, what `terms` must be given at once: "pixel" (any pixels, in any shape),
    "image" (whole dates) or "series" (the whole cube, the default); `peak`; and `ideal`, the best
    value where that is neither the lowest nor the highest.
    """

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def higher_is_better(self) -> bool:
        """True where a higher value is a better one."""

    @property
    def unit(self) -> str:
        """Unit of the value."""

    @property
    def convention(self) -> str:
        """Whose formula it is."""

    @property
    def pooling(self) -> str:
        """What is averaged before the last step, and what after it."""

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sums that add up over chunks; `n` counts what was scored."""

    def value(self, terms: Terms) -> float:
        """The number; NaN where nothing was scored."""


def add(a: Terms, b: Terms) -> Terms:
    """The terms of two chunks together."""
    return {k: a[k] + b[k] for k in a}


def sees(metric: Metric) -> str:
    """What `terms` must be given at once: "pixel", "image" or "series"."""
    return str(getattr(metric, "sees", "series"))


# ------------------------------------------------------------------ pixel by pixel


class _Cubefill:
    """Facts that all metrics of the default convention share."""

    convention: ClassVar[str] = "cubefill"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "reflectance"
    pooling: ClassVar[str] = "pixels, dates and bands"
    sees: ClassVar[str] = "pixel"
    ideal: ClassVar[float | None] = None


@dataclass(frozen=True)
class MAE(_Cubefill):
    """Mean absolute error."""

    name: ClassVar[str] = "MAE"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of absolute errors."""
        return _sums(pred, true, where, {"error": lambda p, t: np.abs(p - t)})

    def value(self, terms: Terms) -> float:
        """Mean."""
        return ratio(terms["error"].sum(), terms["n"].sum())


@dataclass(frozen=True)
class Bias(MAE):
    """Mean error, fill minus truth; nearest to 0 is best."""

    name: ClassVar[str] = "bias"
    ideal: ClassVar[float | None] = 0.0

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of errors."""
        return _sums(pred, true, where, {"error": lambda p, t: p - t})


@dataclass(frozen=True)
class RMSE(_Cubefill):
    """Root of the mean squared error."""

    name: ClassVar[str] = "RMSE"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of squared errors."""
        return _sums(pred, true, where, {"square": lambda p, t: (p - t) ** 2})

    def value(self, terms: Terms) -> float:
        """Root of the mean."""
        return float(np.sqrt(ratio(terms["square"].sum(), terms["n"].sum())))


@dataclass(frozen=True)
class PSNR(RMSE):
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mean squared error)."""

    name: ClassVar[str] = "PSNR"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "dB"

    peak: float = 1.0
    """Reflectance that counts as full scale."""

    def value(self, terms: Terms) -> float:
        """Decibels; infinite where there is no error at all."""
        error = super().value(terms)
        return float("inf") if error == 0 else float(20 * np.log10(self.peak / error))


@dataclass(frozen=True)
class R2(_Cubefill):
    """Share of the truth's variance that the fill explains, about the mean of each band."""

    name: ClassVar[str] = "R2"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "1"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sums of squared errors, of the truth and of its squares."""
        parts = {
            "square": lambda p, t: (p - t) ** 2,
            "true": lambda p, t: t,
            "true2": lambda p, t: t * t,
        }
        return _sums(pred, true, where, parts)

    def value(self, terms: Terms) -> float:
        """One minus errors over variance."""
        n = np.maximum(terms["n"], 1)
        spread = (terms["true2"] - terms["true"] ** 2 / n).sum()
        return 1 - ratio(terms["square"].sum(), spread)


@dataclass(frozen=True)
class ERGAS(_Cubefill):
    """Relative global error of synthesis: errors relative to each band's mean (Wald, 2000)."""

    name: ClassVar[str] = "ERGAS"
    unit: ClassVar[str] = "%"
    pooling: ClassVar[str] = "pixels and dates, then bands"

    ratio: float = 1.0
    """Pixel size of the fill over that of its source."""

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sums of squared errors and of the truth."""
        parts = {"square": lambda p, t: (p - t) ** 2, "true": lambda p, t: t}
        return _sums(pred, true, where, parts)

    def value(self, terms: Terms) -> float:
        """Percent."""
        some = terms["n"] > 0
        n = terms["n"][some]
        relative = terms["square"][some] / n / (terms["true"][some] / n) ** 2
        return 100 * self.ratio * float(np.sqrt(ratio(relative.sum(), some.sum())))


@dataclass(frozen=True)
class SAM(_Cubefill):
    """Mean angle between the spectra of fill and truth (Kruse et al., 1993)."""

    name: ClassVar[str] = "SAM"
    unit: ClassVar[str] = "degree"
    pooling: ClassVar[str] = "pixels and dates"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of angles where no spectrum is zero and no band is missing."""
        p, t = (np.stack([_float(a[b]) for b in true]) for a in (pred, true))
        length = np.sqrt((p * p).sum(0) * (t * t).sum(0))
        usable = where & (length > 0)
        cosine = (p * t).sum(0)[usable] / length[usable]
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        return {"angle": np.array([angles.sum()]), "n": np.array([float(usable.sum())])}

    def value(self, terms: Terms) -> float:
        """Degrees."""
        return ratio(terms["angle"].sum(), terms["n"].sum())


@dataclass(frozen=True)
class NDVIMAE(MAE):
    """Mean absolute error of NDVI."""

    name: ClassVar[str] = "NDVI-MAE"
    unit: ClassVar[str] = "1"
    pooling: ClassVar[str] = "pixels and dates"

    red: str = "B04"
    nir: str = "B08"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of absolute errors of NDVI."""
        absent = [b for b in (self.red, self.nir) if b not in true]
        if absent:
            raise CubeError(
                f"{self.name}: expected bands {self.red} and {self.nir}, got {', '.join(true)}. "
                "Pass metrics=(...) without it, or NDVIMAE(nir='B8A')."
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            p, t = (self._ndvi(_float(a[self.red]), _float(a[self.nir])) for a in (pred, true))
        return _sums({"NDVI": p}, {"NDVI": t}, where, {"error": lambda p, t: np.abs(p - t)})

    @staticmethod
    def _ndvi(red: Array, nir: Array) -> Array:
        total = nir + red
        return np.where(total > 0, (nir - red) / total, np.nan)


@dataclass(frozen=True)
class Coverage(_Cubefill):
    """Share of the truth within `z` standard deviations of the fill.

    Reads `<band>_std` beside each band of the fill. For a normal error 1.645 should give 0.9.
    """

    name: ClassVar[str] = "coverage"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "1"

    z: float = 1.6448536269514722
    """Half width of the interval in standard deviations."""

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Counts of the truth inside; where `<band>_std` is NaN a pixel does not count."""
        absent = [f"{b}_std" for b in true if f"{b}_std" not in pred]
        if absent:
            raise CubeError(
                f"coverage: expected {', '.join(absent)} in the fill, got {', '.join(pred)}. "
                "Pass std=True where the fill is made."
            )
        inside, n = [], []
        for band, t in true.items():
            error, std = np.abs(_float(pred[band]) - _float(t)), _float(pred[f"{band}_std"])
            usable = where & np.isfinite(error) & np.isfinite(std)
            inside.append(float((error[usable] <= self.z * std[usable]).sum()))
            n.append(float(usable.sum()))
        return {"inside": np.array(inside), "n": np.array(n)}

    def value(self, terms: Terms) -> float:
        """Share."""
        return ratio(terms["inside"].sum(), terms["n"].sum())


# ------------------------------------------------------------------ structure


class Mapped(_Cubefill):
    """A metric with a local value at every pixel: maps are made once and summed over many sets."""

    sees: ClassVar[str] = "image"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sums of local values."""
        return self.terms_of(self.maps(pred, true), where)

    def maps(self, pred: Bands, true: Bands) -> dict[str, Array]:
        """The local value of each band, NaN where there is none."""
        return {b: self.local(_float(pred[b]), _float(t)) for b, t in true.items()}

    def local(self, p: Array, t: Array) -> Array:
        """The map `(time, y, x)` of one band."""
        raise NotImplementedError

    def terms_of(self, maps: Bands, where: Array) -> Terms:
        """Sums of the maps over the scored pixels."""
        some = [m[where & np.isfinite(m)] for m in maps.values()]
        return {
            "similarity": np.array([m.sum() for m in some]),
            "n": np.array([float(len(m)) for m in some]),
        }


@dataclass(frozen=True)
class SSIM(Mapped):
    """Structural similarity with a Gaussian window of 11 x 11 (Wang et al., 2004).

    The local value is taken at scored pixels whose whole window is known in fill and truth, so
    set the truth to NaN where it is cloudy. No padding: chunks in space need `halo` pixels around.
    """

    name: ClassVar[str] = "SSIM"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "1"

    sigma: float = 1.5
    peak: float = 1.0
    """Range of the data."""
    halo: int = 5
    """Pixels of the window on each side of its middle."""
    padded: bool = False
    """True pads images with zeros, so that their borders count."""

    def value(self, terms: Terms) -> float:
        """Mean."""
        return ratio(terms["similarity"].sum(), terms["n"].sum())

    def local(self, p: Array, t: Array) -> Array:
        """The map `(time, y, x)`, NaN at borders and near missing pixels."""
        known = np.isfinite(p) & np.isfinite(t)
        p, t = np.where(known, p, 0), np.where(known, t, 0)
        found = similarity(p, t, self._blur, self.peak)
        return np.where(whole(known, self.halo, self.padded), found, np.nan)

    def _blur(self, a: Array) -> Array:
        return blur(a, self.sigma, self.halo)


def similarity(
    p: Array, t: Array, mean: Callable[[Array], Array], peak: float, unbiased: float = 1.0
) -> Array:
    """Local structural similarity (Wang et al., 2004).

    `mean` is the local mean, `unbiased` the factor of its variances.
    """
    mp, mt = mean(p), mean(t)
    vp, vt, c = (
        unbiased * (mean(a * b) - x * y)
        for a, b, x, y in ((p, p, mp, mp), (t, t, mt, mt), (p, t, mp, mt))
    )
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found: Array = (2 * mp * mt + c1) * (2 * c + c2) / ((mp**2 + mt**2 + c1) * (vp + vt + c2))
    return found


def blur(a: Array, sigma: float, radius: int) -> Array:
    """A Gaussian mean over the last two axes, zero beyond them."""
    from scipy.ndimage import gaussian_filter1d

    for axis in (-1, -2):
        a = gaussian_filter1d(a, sigma, axis, radius=radius, mode="constant")
    return np.asarray(a)


def whole(known: Array, radius: int, padded: bool = False) -> Array:
    """True where the window around a pixel is known and, unless `padded`, inside."""
    from scipy.ndimage import minimum_filter1d

    out = known.astype(np.uint8)
    for axis in (-1, -2):
        out = minimum_filter1d(out, 2 * radius + 1, axis, mode="constant", cval=int(padded))
    return np.asarray(out, dtype=bool)


def _sums(pred: Bands, true: Bands, where: Array, parts: Mapping[str, Any]) -> Terms:
    """Sums of each part over the scored pixels, one for each band, and how many there were."""
    out: dict[str, list[float]] = {name: [] for name in (*parts, "n")}
    for band, values in true.items():
        p, t = _float(pred[band]), _float(values)
        usable = where & np.isfinite(p) & np.isfinite(t)
        p, t = p[usable], t[usable]
        for name, part in parts.items():
            out[name].append(float(part(p, t).sum()))
        out["n"].append(float(len(p)))
    return {name: np.array(sums) for name, sums in out.items()}


def _float(a: Any) -> NDArray[np.float64]:
    return np.asarray(a, dtype=np.float64)


def means(total: float, count: int, n: int) -> Terms:
    """Terms of values that are averaged: their sum, how many, and what they were made from."""
    return {k: np.array([float(v)]) for k, v in (("total", total), ("count", count), ("n", n))}


def mean_of(terms: Terms) -> float:
    """The average of `means` that were added up."""
    return ratio(terms["total"].sum(), terms["count"].sum())


def decibels(square: float, peak: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error; infinite where that is 0."""
    return float("inf") if square == 0 else float(10 * np.log10(peak**2 / square))


def ratio(above: Any, below: Any) -> float:
    """The quotient as a float, NaN where there is nothing below."""
    return float(above) / float(below) if below else float("nan")
