"""Every formula against a slow loop in float64 or a trusted library, and over chunks."""

import math
from typing import Any

import numpy as np
import pytest

from cubefill.errors import CubeError
from cubefill.metrics.formulas import (
    ERGAS,
    MAE,
    NDVIMAE,
    PSNR,
    R2,
    RMSE,
    SAM,
    SSIM,
    Bias,
    Coverage,
    Metric,
    add,
)

BANDS = ("B02", "B04", "B08")
ALL: list[Metric] = [
    MAE(), RMSE(), Bias(), R2(), PSNR(), PSNR(peak=0.5), SAM(), SSIM(), NDVIMAE(), ERGAS(),
    Coverage(),
]  # fmt: skip


def example(seed: int = 0, shape: tuple[int, int, int] = (4, 24, 30)) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    levels = {"B02": 0.05, "B04": 0.08, "B08": 0.35}
    true = {b: (v * rng.uniform(0.5, 1.5, shape)).astype(np.float32) for b, v in levels.items()}
    pred: dict[str, Any] = {
        b: (t + rng.normal(0.004, 0.02, shape)).astype(np.float32) for b, t in true.items()
    }
    pred |= {f"{b}_std": np.full(shape, 0.02, np.float32) for b in BANDS}
    true["B04"][0, 3, 4], pred["B08"][-1, 5, 6] = np.nan, np.nan
    return pred, true, rng.random(shape) < 0.4


def cut(side: Any, window: Any) -> dict[str, Any]:
    return {band: a[window] for band, a in side.items()}


def slow(name: str, pred: Any, true: Any, where: Any) -> float:
    """The same numbers, pixel after pixel."""
    errors: list[float] = []
    truths: dict[str, list[float]] = {b: [] for b in BANDS}
    squares: dict[str, list[float]] = {b: [] for b in BANDS}
    angles, indices, inside = [], [], []
    for i in zip(*np.nonzero(where), strict=True):
        p, t = ([float(side[b][i]) for b in BANDS] for side in (pred, true))
        for b, a, c in zip(BANDS, p, t, strict=True):
            if math.isfinite(a) and math.isfinite(c):
                errors.append(a - c)
                truths[b].append(c)
                squares[b].append((a - c) ** 2)
                inside.append(abs(a - c) <= 1.6448536269514722 * float(pred[f"{b}_std"][i]))
        if math.isfinite(sum(p) + sum(t)):
            dot = sum(a * c for a, c in zip(p, t, strict=True))
            angles.append(math.degrees(math.acos(dot / (math.hypot(*p) * math.hypot(*t)))))
        ndvi = [(s[2] - s[1]) / (s[2] + s[1]) for s in (p, t)]
        if math.isfinite(sum(ndvi)):
            indices.append(abs(ndvi[0] - ndvi[1]))
    mse = math.fsum(e * e for e in errors) / len(errors)
    spread = sum(len(v) * float(np.var(v)) for v in truths.values())
    relative = [np.mean(squares[b]) / np.mean(truths[b]) ** 2 for b in BANDS]
    return {
        "MAE": math.fsum(map(abs, errors)) / len(errors),
        "bias": math.fsum(errors) / len(errors),
        "RMSE": math.sqrt(mse),
        "PSNR": 10 * math.log10(1 / mse),
        "R2": 1 - math.fsum(e * e for e in errors) / spread,
        "ERGAS": 100 * math.sqrt(float(np.mean(relative))),
        "SAM": math.fsum(angles) / len(angles),
        "NDVI-MAE": math.fsum(indices) / len(indices),
        "coverage": sum(inside) / len(inside),
    }[name]


@pytest.mark.parametrize(
    "metric",
    [MAE(), RMSE(), Bias(), R2(), PSNR(), SAM(), NDVIMAE(), ERGAS(), Coverage()],
    ids=lambda m: m.name,
)
def test_a_metric_equals_the_slow_loop(metric: Metric) -> None:
    pred, true, where = example()
    expected = slow(metric.name, pred, true, where)
    assert metric.value(metric.terms(pred, true, where)) == pytest.approx(expected, rel=1e-9)


def test_ssim_equals_scikit_image() -> None:
    from skimage import metrics as trusted

    pred, true, _ = example()
    p, t = (side["B08"][2].astype(np.float64) for side in (pred, true))
    options: Any = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity: Any = trusted.structural_similarity
    mean, full = similarity(p, t, data_range=1.0, full=True, **options)
    ours = SSIM().local(p[None], t[None])[0]
    np.testing.assert_allclose(ours[5:-5, 5:-5], full[5:-5, 5:-5], rtol=1e-9)
    assert np.isnan(ours).sum() == p.size - (p.shape[0] - 10) * (p.shape[1] - 10)
    everywhere = np.ones((1, *p.shape), bool)
    score = SSIM().value(SSIM().terms({"B08": p[None]}, {"B08": t[None]}, everywhere))
    assert score == pytest.approx(mean, rel=1e-9)


def test_ssim_leaves_out_windows_with_a_missing_pixel() -> None:
    pred, true, _ = example(shape=(1, 40, 40))
    true["B02"][0, 20, 20] = np.nan
    local = SSIM().local(*(s["B02"].astype(np.float64) for s in (pred, true)))[0]
    expected = np.ones((40, 40), bool)
    expected[5:-5, 5:-5] = False
    expected[15:26, 15:26] = True
    np.testing.assert_array_equal(np.isnan(local), expected)


def test_psnr_of_half_peak_is_six_decibels_lower() -> None:
    pred, true, where = example()
    whole, half = (m.value(m.terms(pred, true, where)) for m in (PSNR(), PSNR(peak=0.5)))
    assert whole - half == pytest.approx(20 * math.log10(2))


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_terms_add_up_over_chunks_of_time(metric: Metric) -> None:
    pred, true, where = example()
    parts = [metric.terms(cut(pred, s), cut(true, s), where[s]) for s in (slice(0, 1), slice(1, 4))]
    whole = metric.value(metric.terms(pred, true, where))
    assert metric.value(add(*parts)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("metric", [m for m in ALL if m.name != "SSIM"], ids=repr)
def test_terms_add_up_over_chunks_of_space(metric: Metric) -> None:
    pred, true, where = example()
    parts = [
        metric.terms(cut(pred, s), cut(true, s), where[s]) for s in (np.s_[..., :7], np.s_[..., 7:])
    ]
    whole = metric.value(metric.terms(pred, true, where))
    assert metric.value(add(*parts)) == pytest.approx(whole, rel=1e-12)


def test_ssim_adds_up_over_space_with_its_halo() -> None:
    pred, true, where = example()
    metric, parts = SSIM(), []
    for keep in (slice(0, 13), slice(13, 30)):
        seen = slice(max(keep.start - metric.halo, 0), keep.stop + metric.halo)
        here = np.zeros_like(where)
        here[..., keep] = where[..., keep]
        window = np.s_[..., seen]
        parts.append(metric.terms(cut(pred, window), cut(true, window), here[window]))
    whole = metric.value(metric.terms(pred, true, where))
    assert metric.value(add(*parts)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_a_perfect_fill_and_an_empty_set(metric: Metric) -> None:
    pred, true, where = example()
    pred = {**pred, **true}
    best = {"PSNR": math.inf, "R2": 1, "SSIM": 1, "coverage": 1}.get(metric.name, 0)
    value = metric.value(metric.terms(pred, true, where))
    assert value == pytest.approx(best, abs=1e-5)
    assert math.isnan(metric.value(metric.terms(pred, true, where & False)))


def test_a_worse_fill_scores_worse() -> None:
    pred, true, where = example()
    worse = {b: a if b.endswith("std") else 2 * a - true[b] + 0.01 for b, a in pred.items()}
    for metric in ALL:
        a, b = (metric.value(metric.terms(p, true, where)) for p in (pred, worse))
        assert (a > b) == metric.higher_is_better, metric.name


def test_metrics_say_which_band_they_lack() -> None:
    pred, true, where = example()
    del true["B08"]
    with pytest.raises(CubeError, match="expected bands B04 and B08, got B02, B04"):
        NDVIMAE().terms(pred, true, where)
    del pred["B04_std"]
    with pytest.raises(CubeError, match="Pass std=True"):
        Coverage().terms(pred, true, where)
