"""Scores of a fill against the truth: the table of metrics, and `score`.

Each metric comes in two halves. `terms(pred, true, where)` gives sums that may be added over
chunks of time, or of space with `halo` pixels around; `value(terms)` makes the number. Formulas
differ between papers; the convention is named in every score.

Convention "cubefill": peak 1 on reflectance; everything is pooled over scored pixels, dates and
bands before the last step, so that PSNR is the logarithm of one mean. The others are those of
`metrics/conventions.py` and `metrics/earthnet.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import xarray as xr

from cubefill.errors import CubeError
from cubefill.metrics.conventions import CONVENTIONS, by_name
from cubefill.metrics.earthnet import EARTHNET
from cubefill.metrics.formulas import (
    ERGAS,
    MAE,
    NDVIMAE,
    PSNR,
    R2,
    RMSE,
    SAM,
    SSIM,
    Array,
    Bands,
    Bias,
    Coverage,
    Metric,
    Terms,
    add,
    sees,
)
from cubefill.metrics.perceptual import GMSD, HighFrequency

STEPS = 8
"""Time steps that `score` looks at together."""


@dataclass(frozen=True)
class Score:
    """A number with what it stands for."""

    value: float
    unit: str
    higher_is_better: bool
    convention: str
    peak: float
    pooling: str
    pixel_set: str
    n: int
    """Values that were scored: pixels times bands, or pixels for SAM and NDVI."""
    n_missing: int
    """Pixels times bands that `where` asks for and the fill or the truth left NaN."""
    formula: str = ""
    """The metric with its settings: peak, window, bands of NDVI."""


METRICS: dict[str, dict[str, Metric]] = {
    "cubefill": by_name(
        MAE(), RMSE(), Bias(), R2(), PSNR(), SAM(), SSIM(), NDVIMAE(), ERGAS(), Coverage(), GMSD(),
        HighFrequency(),
    ),
    **CONVENTIONS,
    "earthnet": EARTHNET,
}  # fmt: skip
"""Convention to name to metric."""

DEFAULT = ("MAE", "RMSE", "bias", "R2", "PSNR", "SAM", "SSIM", "ERGAS")
"""Metrics of the convention "cubefill" that any bands allow; NDVI-MAE joins with `ndvi_mae`."""


def defaults(bands: Iterable[str], convention: str = "cubefill") -> tuple[str, ...]:
    """Names of the metrics that are computed unless others are asked for.

    Examples
    --------
    >>> defaults(["B04"], "decloud")
    ('MSE', 'PSNR', 'SSIM', 'SAM')
    """
    if convention == "cubefill":
        return (*DEFAULT, *(["NDVI-MAE"] if ndvi_mae(bands) else []))
    _known_convention(convention)
    return tuple(METRICS[convention])


def ndvi_mae(bands: Iterable[str]) -> NDVIMAE | None:
    """The error of NDVI from B08, or from B8A where there is no B08; None where neither will do.

    Examples
    --------
    >>> ndvi_mae(["B04", "B8A"])
    NDVIMAE(red='B04', nir='B8A')
    """
    found = set(bands)
    nir = next((b for b in ("B08", "B8A") if b in found), "")
    return NDVIMAE(nir=nir) if nir and "B04" in found else None


def resolve(
    metric: str | Metric, convention: str = "cubefill", bands: Iterable[str] = ()
) -> Metric:
    """A metric from its name; with `bands`, NDVI-MAE is that of `ndvi_mae`.

    Raises
    ------
    CubeError
        The name or the convention is unknown; the message lists what there is.

    Examples
    --------
    >>> resolve("psnr").unit
    'dB'
    """
    if not isinstance(metric, str):
        return metric
    _known_convention(convention)
    known = {n.lower(): m for n, m in METRICS[convention].items()}
    if metric.lower() not in known:
        near = get_close_matches(metric.lower(), known, n=1)
        hint = f" Did you mean {known[near[0]].name!r}?" if near else ""
        raise CubeError(
            f"Unknown metric {metric!r}: expected one of {', '.join(METRICS[convention])}.{hint}"
        )
    found = known[metric.lower()]
    return ndvi_mae(bands) or found if isinstance(found, NDVIMAE) else found


def formula(metric: Any) -> str:
    """A metric with its settings, such as `NDVIMAE(red='B04', nir='B8A')`.

    Examples
    --------
    >>> formula(resolve("psnr"))
    'PSNR(peak=1.0)'
    """
    return repr(metric) if is_dataclass(metric) else type(metric).__name__


def _known_convention(convention: str) -> None:
    if convention not in METRICS:
        raise CubeError(f"Unknown convention {convention!r}: expected one of {', '.join(METRICS)}.")


def score(
    pred: xr.Dataset | Bands,
    true: xr.Dataset | Bands,
    where: xr.DataArray | Array,
    metrics: Iterable[str | Metric] | None = None,
    *,
    bands: Sequence[str] | None = None,
    pixel_set: str = "hidden",
    convention: str = "cubefill",
) -> dict[str, Score]:
    """Scores by name, each with its peak, pooling, pixel set and counts.

    Parameters
    ----------
    pred, true
        The fill and the truth: datasets, or bands by name as `(time, y, x)` arrays.
    where
        bool `(time, y, x)`, True on the scored pixels.
    metrics
        Names or objects; by default `defaults(bands, convention)`.
    bands
        Bands to score; by default those of `true` that `pred` has too.
    pixel_set
        What `where` stands for; stored beside the value.
    convention
        Whose formulas: "cubefill", "decloud", "utilise", "ganfilling-train" or "earthnet".

    Raises
    ------
    CubeError
        A metric is unknown, a band is missing or shapes differ.

    Examples
    --------
    >>> true = {"B04": np.full((1, 4, 4), 0.2)}
    >>> pred = {"B04": np.full((1, 4, 4), 0.21)}
    >>> round(score(pred, true, np.ones((1, 4, 4), bool), ["PSNR"])["PSNR"].value, 3)
    40.0
    """
    names = _shared(pred, true, bands)
    p, t, w = _arrays(pred, names, std=True), _arrays(true, names), _values(where)
    _check_shapes(p, t, w)
    if metrics is None:
        metrics = defaults(names, convention)
    found = [resolve(m, convention, names) for m in metrics]
    sums: dict[str, Terms] = {}
    missing = 0
    for m in found:
        if sees(m) == "series":
            sums[m.name] = m.terms(p, t, w)
    for i in range(0, max(len(w), 1), STEPS):
        chunk = [{b: a[i : i + STEPS] for b, a in side.items()} for side in (p, t)]
        here = w[i : i + STEPS]
        for m in (m for m in found if sees(m) != "series"):
            terms = m.terms(chunk[0], chunk[1], here)
            sums[m.name] = add(sums[m.name], terms) if m.name in sums else terms
        missing += sum(int((here & ~_known(chunk, b)).sum()) for b in names)
    return {m.name: _score(m, sums[m.name], pixel_set, missing) for m in found}


def _score(m: Metric, terms: Terms, pixel_set: str, missing: int) -> Score:
    peak = float(getattr(m, "peak", 1.0))
    n = int(terms["n"].sum())
    return Score(
        m.value(terms), m.unit, m.higher_is_better, m.convention, peak, m.pooling, pixel_set, n,
        missing, formula(m),
    )  # fmt: skip


def _known(chunk: list[dict[str, Array]], band: str) -> Array:
    return np.isfinite(chunk[0][band]) & np.isfinite(chunk[1][band])


def _shared(pred: Any, true: Any, bands: Sequence[str] | None) -> tuple[str, ...]:
    if bands is None:
        bands = [str(b) for b in _names(true) if b in pred and _ndim(true[b]) == 3]
        bands = [b for b in bands if _values(true[b]).dtype.kind == "f"]
    absent = [b for b in bands if b not in pred or b not in true]
    if absent or not bands:
        raise CubeError(
            f"score: expected bands that fill and truth both have, got {absent or 'none'} "
            f"out of {', '.join(map(str, _names(pred)))} and {', '.join(map(str, _names(true)))}."
        )
    return tuple(bands)


def _names(side: Any) -> list[Any]:
    return list(side.data_vars if isinstance(side, xr.Dataset) else side)


def _ndim(a: Any) -> int:
    return int(getattr(a, "ndim", 0))


def _arrays(side: Any, names: tuple[str, ...], std: bool = False) -> dict[str, Array]:
    wanted = [*names, *(f"{b}_std" for b in names if std and f"{b}_std" in side)]
    return {b: _values(side[b]) for b in wanted}


def _values(a: Any) -> Array:
    if isinstance(a, xr.DataArray):
        a = a.transpose("time", "y", "x")
    return np.asarray(a)


def _check_shapes(p: dict[str, Array], t: dict[str, Array], w: Array) -> None:
    shapes = {b: a.shape for side in (p, t) for b, a in side.items()}
    wrong = {b: s for b, s in shapes.items() if s != w.shape}
    if w.dtype != np.bool_ or w.ndim != 3 or wrong:
        raise CubeError(
            f"score: expected bool `where` (time, y, x) and bands of its shape, got {w.dtype} "
            f"{w.shape} and {wrong or 'bands that fit'}."
        )
