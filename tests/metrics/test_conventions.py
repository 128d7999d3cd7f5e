"""The formulas of other papers against slow float64 versions, scikit-image and torch."""

import math
from typing import Any

import numpy as np
import pytest

from cubefill import metrics
from cubefill.errors import CubeError
from cubefill.metrics.conventions import CONVENTIONS
from cubefill.metrics.earthnet import EARTHNET

BANDS = ("B02", "B03", "B04", "B08")
EVERY = [*(m for c in CONVENTIONS.values() for m in c.values()), *EARTHNET.values()]


def example(seed: int = 0, shape: tuple[int, int, int] = (4, 20, 24)) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    level = {"B02": 0.05, "B03": 0.08, "B04": 0.1, "B08": 0.35}
    true = {b: v * rng.uniform(0.5, 1.5, shape) for b, v in level.items()}
    pred = {b: np.abs(t + rng.normal(0.004, 0.02, shape)) for b, t in true.items()}
    return pred, true, rng.random(shape) < 0.6


def value(convention: str, name: str, pred: Any, true: Any, where: Any) -> float:
    return metrics.score(pred, true, where, [name], convention=convention)[name].value


# ------------------------------------------------------------------ decloud


def test_the_published_mse_gives_the_published_psnr() -> None:
    true = {"B04": np.full((2, 12, 12), 0.1)}
    pred = {"B04": true["B04"] + math.sqrt(52_814) / 10_000}
    where = np.ones((2, 12, 12), bool)
    assert value("decloud", "MSE", pred, true, where) == pytest.approx(52_814)
    assert value("decloud", "PSNR", pred, true, where) == pytest.approx(32.77, abs=0.005)


@pytest.mark.parametrize(
    ("mse", "psnr"),
    [(324_508, 24.888), (234_410, 26.300), (79_904, 30.974), (133_061, 28.759), (61_016, 32.146)],
)
def test_other_rows_of_the_published_tables(mse: float, psnr: float) -> None:
    metric = metrics.resolve("PSNR", "decloud")
    terms = {"square": np.array([mse * 7.0]), "n": np.array([7.0])}
    assert metric.value(terms) == pytest.approx(psnr, abs=0.0006)


def test_decloud_angle_is_that_of_the_mean_cosine() -> None:
    pred, true, where = example()
    cosines = []
    for i in zip(*np.nonzero(where), strict=True):
        p, t = ([float(side[b][i]) for b in BANDS] for side in (pred, true))
        dot = math.fsum(a * c for a, c in zip(p, t, strict=True))
        cosines.append(dot / (math.hypot(*p) * math.hypot(*t)))
    expected = math.acos(math.fsum(cosines) / len(cosines))
    assert value("decloud", "SAM", pred, true, where) == pytest.approx(expected, rel=1e-9)
    mean_angle = math.radians(value("cubefill", "SAM", pred, true, where))
    assert expected > mean_angle


def test_decloud_ssim_is_the_mean_over_images_and_bands() -> None:
    from skimage import metrics as trusted

    pred, true, _ = example()
    similarity: Any = trusted.structural_similarity
    options: Any = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        similarity(pred[b][i], true[b][i], data_range=1.0, **options)
        for b in BANDS
        for i in range(4)
    ]
    where = np.ones(pred["B02"].shape, bool)
    found = value("decloud", "SSIM", pred, true, where)
    assert found == pytest.approx(float(np.mean(expected)), rel=1e-9)


def test_decloud_ssim_weighs_images_alike() -> None:
    pred, true, where = example()
    where[:] = True
    where[0, :, 8:] = False
    found = metrics.resolve("SSIM", "decloud")
    single = [found.value(found.terms(pred, true, _only(where, i))) for i in range(4)]
    assert found.value(found.terms(pred, true, where)) == pytest.approx(np.mean(single))


def _only(where: Any, i: int) -> Any:
    out = np.zeros_like(where)
    out[i] = where[i]
    return out


# ------------------------------------------------------------------ utilise


def test_utilise_averages_over_series() -> None:
    cases = [example(seed) for seed in (1, 2, 3)]
    for name in ("MAE", "RMSE", "PSNR", "SAM"):
        ours = metrics.resolve(name, "utilise")
        one = [value("cubefill", name, *case) for case in cases]
        terms = [ours.terms(*case) for case in cases]
        total = metrics.add(metrics.add(terms[0], terms[1]), terms[2])
        assert ours.value(total) == pytest.approx(np.mean(one), rel=1e-12)
    mse = value("utilise", "MSE", *cases[0])
    assert mse == pytest.approx(value("cubefill", "RMSE", *cases[0]) ** 2)


def test_utilise_ssim_equals_a_padded_convolution() -> None:
    import torch

    pred, true, _ = example(shape=(2, 12, 14))
    line = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(line, line) / line.sum() ** 2)[None, None]

    def mean(a: Any) -> Any:
        return torch.nn.functional.conv2d(a, window, padding=2)

    found = []
    for b in BANDS:
        p, t = (torch.from_numpy(side[b])[:, None] for side in (pred, true))
        mp, mt = mean(p), mean(t)
        vp, vt, c = mean(p * p) - mp**2, mean(t * t) - mt**2, mean(p * t) - mp * mt
        top = (2 * mp * mt + 0.01**2) * (2 * c + 0.03**2)
        loss = (1 - top / ((mp**2 + mt**2 + 0.01**2) * (vp + vt + 0.03**2))).clamp(0, 1) / 2
        found.append(float(1 - 2 * loss.mean()))
    where = np.ones((2, 12, 14), bool)
    assert value("utilise", "SSIM", pred, true, where) == pytest.approx(np.mean(found), rel=1e-9)


# ------------------------------------------------------------------ ganfilling-train


def test_ganfilling_equals_scikit_image_on_images_with_zeros() -> None:
    from skimage import metrics as trusted

    pred, true, where = example()
    similarity: Any = trusted.structural_similarity
    ratio: Any = trusted.peak_signal_noise_ratio
    structure, noise = [], []
    for i in range(4):
        p, t = (np.stack([s[b][i] * where[i] for b in BANDS], -1) for s in (pred, true))
        structure.append(similarity(t, p, channel_axis=-1, data_range=2.0))
        noise.append(ratio(t, p, data_range=1.0))
    assert value("ganfilling-train", "SSIM", pred, true, where) == pytest.approx(np.mean(structure))
    assert value("ganfilling-train", "PSNR", pred, true, where) == pytest.approx(np.mean(noise))
    assert np.mean(noise) > value("cubefill", "PSNR", pred, true, where)


def test_ganfilling_drops_dates_without_pixels_or_error() -> None:
    pred, true, where = example()
    some = where.copy()
    some[2] = False
    first = value("ganfilling-train", "PSNR", pred, true, some)
    for band in BANDS:
        pred[band][2] = true[band][2]
    assert value("ganfilling-train", "PSNR", pred, true, where) == pytest.approx(first)


# ------------------------------------------------------------------ earthnet


def slow_earthnet(pred: Any, true: Any, where: Any) -> dict[str, float]:
    """Pixel after pixel, with SciPy's distance and NumPy's least squares."""
    from scipy.stats import wasserstein_distance
    from skimage import metrics as trusted

    similarity: Any = trusted.structural_similarity
    p, t = ({b: np.clip(s[b], 0, 1) for b in BANDS} for s in (pred, true))
    errors = np.concatenate([np.abs(p[b] - t[b])[where] for b in BANDS])
    fill, truth = ((s["B08"] - s["B04"]) / (s["B08"] + s["B04"] + 1e-6) for s in (p, t))
    moved, slopes = [], []
    for y, x in np.ndindex(*where.shape[1:]):
        used = np.flatnonzero(where[:, y, x])
        if len(used) < 2:
            continue
        moved.append(wasserstein_distance(fill[:, y, x], truth[used, y, x]) ** 0.10082047548620601)
        inside = np.arange(used[0], used[-1] + 1)
        axis = 2 * (1 + (np.arange(len(where)) - used[0]) / (used[-1] - used[0]))
        a, b = (np.polyfit(axis[i], v[i, y, x], 1)[0] for i, v in ((used, truth), (inside, fill)))
        slopes.append((abs(a - b) / 2) ** 0.10082047548620601)
    images = [
        similarity(np.where(where[i], t[b][i], p[b][i]), p[b][i], data_range=2.0)
        for i in range(len(where))
        for b in BANDS
        if where[i].mean() > 0.7
    ]
    four = {
        "MAD": 1 - float(np.median(errors**0.06649346971087526)),
        "OLS": 1 - float(np.mean(slopes)),
        "EMD": 1 - float(np.mean(moved)),
        "SSIM": float(np.mean(images)) ** 10.31885115,
    }
    return {**four, "ENS": 4 / sum(1 / v for v in four.values())}


def test_earthnet_equals_the_slow_version() -> None:
    pred, true, _ = example(shape=(7, 12, 13))
    rng = np.random.default_rng(5)
    where = rng.random((7, 12, 13)) < np.linspace(0.3, 0.95, 7)[:, None, None]
    pred["B08"] = pred["B08"] * 3
    expected = slow_earthnet(pred, true, where)
    found = metrics.score(pred, true, where, convention="earthnet")
    assert {n: s.value for n, s in found.items()} == pytest.approx(expected, rel=1e-7)


def test_earthnet_score_is_the_harmonic_mean_of_means() -> None:
    cases = [example(s, (5, 12, 12))[:2] for s in (1, 2)]
    where = np.ones((5, 12, 12), bool)
    means = {}
    for name, m in EARTHNET.items():
        a, b = (m.terms(*case, where) for case in cases)
        means[name] = m.value(metrics.add(a, b))
    four = [means[n] for n in ("MAD", "OLS", "EMD", "SSIM")]
    assert means["ENS"] == pytest.approx(4 / sum(1 / v for v in four))
    assert means["SSIM"] == pytest.approx(
        np.mean([value("earthnet", "SSIM", *case, where) for case in cases])
    )


def test_earthnet_names_the_bands_of_ndvi() -> None:
    pred, true, where = example()
    del true["B08"]
    with pytest.raises(CubeError, match="expected B04 and one of B08, B8A"):
        metrics.score(pred, true, where, ["EMD"], convention="earthnet")


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: f"{m.convention} {m.name}")
def test_a_perfect_fill_and_an_empty_set(metric: metrics.Metric) -> None:
    pred, true, where = example()
    where[:] = True
    perfect = metric.value(metric.terms(dict(true), true, where))
    best = {"PSNR": math.inf, "SSIM": 1, "MAD": 1, "OLS": 1, "EMD": 1, "ENS": 1}.get(metric.name, 0)
    if (metric.convention, metric.name) == ("ganfilling-train", "PSNR"):
        assert math.isnan(perfect), "images without error are dropped"
    else:
        assert perfect == pytest.approx(best, abs=1e-6)
    assert math.isnan(metric.value(metric.terms(pred, true, where & False)))


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: f"{m.convention} {m.name}")
def test_a_worse_fill_scores_worse(metric: metrics.Metric) -> None:
    pred, true, where = example()
    where[:] = True
    worse = {b: np.abs(3 * a - 2 * true[b]) for b, a in pred.items()}
    a, b = (metric.value(metric.terms(p, true, where)) for p in (pred, worse))
    assert (a > b) == metric.higher_is_better


@pytest.mark.parametrize("convention", ["decloud", "utilise", "ganfilling-train", "earthnet"])
def test_a_score_says_whose_it_is(convention: str) -> None:
    pred, true, where = example()
    found = metrics.score(pred, true, where, convention=convention)
    assert tuple(found) == metrics.defaults(BANDS, convention)
    for score in found.values():
        assert score.convention == convention
        assert score.pooling
        assert score.unit
        assert score.peak > 0
        assert score.n > 0


def test_one_prediction_has_many_scores() -> None:
    pred, true, where = example()
    psnr = {c: value(c, "PSNR", pred, true, where) for c in ("cubefill", "decloud")}
    assert psnr["cubefill"] == pytest.approx(psnr["decloud"])
    assert value("ganfilling-train", "SSIM", pred, true, where) > value(
        "cubefill", "SSIM", pred, true, where
    )
