"""The metrics as other papers compute them, so that numbers can be compared.

`decloud` (Cresson et al., 2022), `utilise` (U-TILISE, Stucker et al., 2023) and `ganfilling-train`
(what the training of GANFilling prints). One prediction scores several dB and several hundredths
of SSIM apart under them: compare within a convention, never across.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cubefill.metrics.formulas import (
    MAE,
    PSNR,
    RMSE,
    SAM,
    SSIM,
    Array,
    Bands,
    Metric,
    Terms,
    decibels,
    mean_of,
    means,
    ratio,
    similarity,
)

COUNTS = 10_000.0
"""Counts of a reflectance of 1."""

# ------------------------------------------------------------------ decloud


class _Decloud:
    convention: ClassVar[str] = "decloud"
    higher_is_better: ClassVar[bool] = False
    ideal: ClassVar[float | None] = None
    sees: ClassVar[str] = "pixel"
    pooling: ClassVar[str] = "pixels, dates, bands and cubes"


@dataclass(frozen=True)
class DecloudMSE(_Decloud):
    """Mean squared error of reflectance times 10 000, over the whole test set."""

    name: ClassVar[str] = "MSE"
    unit: ClassVar[str] = "count^2"

    peak: float = COUNTS

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of squared errors in counts."""
        sums = RMSE().terms(pred, true, where)
        return {"square": sums["square"] * COUNTS**2, "n": sums["n"]}

    def value(self, terms: Terms) -> float:
        """Mean."""
        return ratio(terms["square"].sum(), terms["n"].sum())


@dataclass(frozen=True)
class DecloudPSNR(DecloudMSE):
    """10 log10(10 000^2 / MSE), once from the pooled MSE."""

    name: ClassVar[str] = "PSNR"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True

    def value(self, terms: Terms) -> float:
        """Decibels."""
        return decibels(super().value(terms), self.peak)


@dataclass(frozen=True)
class DecloudSAM(_Decloud):
    """The angle whose cosine is the mean cosine: not the mean angle."""

    name: ClassVar[str] = "SAM"
    unit: ClassVar[str] = "radian"
    pooling: ClassVar[str] = "cosines of pixels, dates and cubes, then the angle"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of cosines; that of a zero spectrum is 0."""
        p, t = (np.stack([np.asarray(a[b], float)[where] for b in true]) for a in (pred, true))
        known = np.isfinite(p).all(0) & np.isfinite(t).all(0)
        p, t = p[:, known], t[:, known]
        length = np.sqrt((p * p).sum(0) * (t * t).sum(0))
        cosine = np.divide((p * t).sum(0), length, out=np.zeros_like(length), where=length > 0)
        return {"cosine": np.array([cosine.sum()]), "n": np.array([float(known.sum())])}

    def value(self, terms: Terms) -> float:
        """Radians."""
        mean = ratio(terms["cosine"].sum(), terms["n"].sum())
        return float(np.arccos(np.clip(mean, -1, 1)))


@dataclass(frozen=True)
class DecloudSSIM(SSIM):
    """Mean over bands and images of `tf.image.ssim` with a range of 1."""

    convention: ClassVar[str] = "decloud"
    pooling: ClassVar[str] = "pixels of an image and band, then bands and images"

    def terms_of(self, maps: Bands, where: Array) -> Terms:
        """Sum of the means of images."""
        total, images, n = 0.0, 0, 0
        for band in maps.values():
            usable = where & np.isfinite(band)
            count = usable.sum((-2, -1))
            sums = np.where(usable, band, 0).sum((-2, -1))
            total += float((sums[count > 0] / count[count > 0]).sum())
            images += int((count > 0).sum())
            n += int(count.sum())
        return means(total, images, n)

    def value(self, terms: Terms) -> float:
        """Mean."""
        return mean_of(terms)


# ------------------------------------------------------------------ one value a series


@dataclass(frozen=True)
class PerSeries:
    """Another metric, computed for each series and then averaged over series."""

    of: Metric
    named: str = ""
    convention: str = "utilise"
    pooling: str = "pixels, dates and bands of a series, then series"
    ideal: float | None = None
    sees: ClassVar[str] = "series"

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.named or self.of.name

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return self.of.unit

    @property
    def higher_is_better(self) -> bool:
        """True where a higher value is a better one."""
        return self.of.higher_is_better

    @property
    def peak(self) -> float:
        """Full scale."""
        return float(getattr(self.of, "peak", 1.0))

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """The value of this series."""
        inner = self.of.terms(pred, true, where)
        n = int(inner["n"].sum())
        return means(self.of.value(inner) if n else 0.0, int(n > 0), n)

    def value(self, terms: Terms) -> float:
        """Mean over series."""
        return mean_of(terms)


@dataclass(frozen=True)
class _MSE(RMSE):
    name: ClassVar[str] = "MSE"
    unit: ClassVar[str] = "reflectance^2"

    def value(self, terms: Terms) -> float:
        return ratio(terms["square"].sum(), terms["n"].sum())


@dataclass(frozen=True)
class UtiliseSSIM(SSIM):
    """A Gaussian window of 5 x 5, images padded with zeros, local values held within 0 and 1."""

    halo: int = 2
    padded: bool = True

    def local(self, p: Array, t: Array) -> Array:
        """The map `(time, y, x)`."""
        found: Array = np.clip(super().local(p, t), 0, 1)
        return found


# ------------------------------------------------------------------ ganfilling-train


@dataclass(frozen=True)
class _Frames:
    """Whole images, zero in fill and truth alike outside the scored pixels.

    The zeros agree, so they raise the score. A date without any scored pixel does not count.
    """

    convention: ClassVar[str] = "ganfilling-train"
    higher_is_better: ClassVar[bool] = True
    ideal: ClassVar[float | None] = None
    sees: ClassVar[str] = "image"
    pooling: ClassVar[str] = "images with zeros outside the pixel set, then images"

    def terms(self, pred: Bands, true: Bands, where: Array) -> Terms:
        """Sum of the finite values of images."""
        some = where.any((-2, -1))
        sides = (np.stack([np.asarray(a[b], float)[some] for b in true]) for a in (pred, true))
        p, t = sides
        used = where[some] & np.isfinite(p) & np.isfinite(t)
        values = self.of_images(np.where(used, p, 0), np.where(used, t, 0))
        finite = np.isfinite(values)
        return means(float(values[finite].sum()), int(finite.sum()), int(used.sum()))

    def value(self, terms: Terms) -> float:
        """Mean over images."""
        return mean_of(terms)

    def of_images(self, p: Array, t: Array) -> Array:
        """The value of each date of two `(band, time, y, x)` arrays."""
        raise NotImplementedError


@dataclass(frozen=True)
class GanPSNR(_Frames):
    """Peak signal-to-noise ratio of each image; images without error are dropped."""

    name: ClassVar[str] = "PSNR"
    unit: ClassVar[str] = "dB"

    peak: float = 1.0

    def of_images(self, p: Array, t: Array) -> Array:
        """Decibels."""
        with np.errstate(divide="ignore"):
            found: Array = 10 * np.log10(self.peak**2 / ((p - t) ** 2).mean((0, 2, 3)))
        return found


@dataclass(frozen=True)
class GanSSIM(_Frames):
    """Uniform window of 7 x 7 and the range of 2 that scikit-image once gave to floats."""

    name: ClassVar[str] = "SSIM"
    unit: ClassVar[str] = "1"

    peak: float = 2.0

    def of_images(self, p: Array, t: Array) -> Array:
        """Mean over bands and the pixels whose window is inside."""
        return square_ssim(p, t, self.peak)[..., 3:-3, 3:-3].mean((0, 2, 3))


def square_ssim(p: Array, t: Array, peak: float) -> Array:
    """Local structural similarity in 7 x 7 pixels of equal weight, variances over n - 1."""
    from scipy.ndimage import uniform_filter1d

    def mean(a: Array) -> Array:
        for axis in (-1, -2):
            a = uniform_filter1d(a, 7, axis)
        return a

    return similarity(p, t, mean, peak, unbiased=49 / 48)


def by_name(*metrics: Metric) -> dict[str, Metric]:
    """Name to metric."""
    return {m.name: m for m in metrics}


CONVENTIONS: dict[str, dict[str, Metric]] = {
    "decloud": by_name(DecloudMSE(), DecloudPSNR(), DecloudSSIM(), DecloudSAM()),
    "utilise": by_name(
        *(PerSeries(m) for m in (MAE(), RMSE(), _MSE(), PSNR(), UtiliseSSIM(), SAM()))
    ),
    "ganfilling-train": by_name(GanPSNR(), GanSSIM()),
}
"""Convention to name to metric."""
