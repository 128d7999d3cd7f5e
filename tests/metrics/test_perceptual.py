"""Blur, hallucination and seams are told apart; LPIPS only with files of one's own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from cubefill import metrics
from cubefill.errors import CubeError
from cubefill.metrics.perceptual import GMSD, HighFrequency, lpips, seam_ratio


def truth(shape: tuple[int, int, int] = (3, 30, 34)) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {b: 0.2 + 0.05 * rng.standard_normal(shape) for b in ("B04", "B08")}


def changed(true: dict[str, Any], how: Any) -> dict[str, Any]:
    return {b: how(a) for b, a in true.items()}


def test_blur_is_below_one_and_invented_texture_above() -> None:
    true, rng = truth(), np.random.default_rng(4)
    where = np.ones((3, 30, 34), bool)

    def ratio(how: Any) -> float:
        found = metrics.score(changed(true, how), true, where, ["high-frequency"])
        return found["high-frequency"].value

    assert ratio(lambda a: a) == pytest.approx(1)
    assert ratio(lambda a: a + 0.1) == pytest.approx(1)
    assert ratio(lambda a: gaussian_filter(a, (0, 1, 1))) < 0.2
    assert ratio(lambda a: a + rng.normal(0, 0.05, a.shape)) == pytest.approx(2, abs=0.2)


def test_high_frequency_equals_a_slow_convolution() -> None:
    true, rng = truth((1, 20, 20)), np.random.default_rng(0)
    pred = changed(true, lambda a: a + rng.normal(0, 0.03, a.shape))
    line = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    power = [
        sum(
            float(((a[0] - convolve2d(a[0], kernel, "same"))[3:-3, 3:-3] ** 2).sum())
            for a in side.values()
        )
        for side in (pred, true)
    ]
    m = HighFrequency()
    found = m.value(m.terms(pred, true, np.ones((1, 20, 20), bool)))
    assert found == pytest.approx(power[0] / power[1], rel=1e-9)


def test_gmsd_equals_a_slow_convolution() -> None:
    true, rng = truth((1, 20, 20)), np.random.default_rng(1)
    pred = changed(true, lambda a: a + rng.normal(0, 0.03, a.shape))
    filters = [np.array([[1, 0, -1]] * 3) / 3, np.array([[1, 0, -1]] * 3).T / 3]
    values = []
    for band, t in true.items():
        lengths = [
            np.sqrt(sum(convolve2d(a[0] * 3, f, "same") ** 2 for f in filters))
            for a in (pred[band], t)
        ]
        c = 170 / 255**2
        local = (2 * lengths[0] * lengths[1] + c) / (lengths[0] ** 2 + lengths[1] ** 2 + c)
        values.append(local[1:-1, 1:-1].ravel())
    m = GMSD()
    found = m.value(m.terms(pred, true, np.ones((1, 20, 20), bool)))
    assert found == pytest.approx(float(np.std(np.concatenate(values))), rel=1e-9)


@pytest.mark.parametrize("metric", [GMSD(), HighFrequency()], ids=lambda m: m.name)
def test_perceptual_terms_add_up_and_know_empty_sets(metric: Any) -> None:
    true, rng = truth(), np.random.default_rng(2)
    pred = changed(true, lambda a: a + rng.normal(0, 0.02, a.shape))
    where = rng.random((3, 30, 34)) < 0.5
    parts = [
        metric.terms(*({b: a[s] for b, a in side.items()} for side in (pred, true)), where[s])
        for s in (slice(0, 1), slice(1, 3))
    ]
    whole = metric.value(metric.terms(pred, true, where))
    assert metric.value(metrics.add(*parts)) == pytest.approx(whole, rel=1e-12)
    assert math.isnan(metric.value(metric.terms(pred, true, where & False)))
    pred["B04"][:, 10, 10] = np.nan
    assert math.isfinite(metric.value(metric.terms(pred, true, where)))


# ------------------------------------------------------------------ seams


def test_a_seam_shows_and_a_plain_image_has_none() -> None:
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.standard_normal((9, 64, 96)), (0, 2, 2))
    assert seam_ratio(image, 16) == pytest.approx(1, abs=0.12)
    tiles = np.repeat(np.repeat(rng.standard_normal((4, 6)), 16, 0), 16, 1)
    assert seam_ratio(image + 0.3 * tiles, 16) > 1.5
    assert seam_ratio(image + 0.3 * tiles, (12, 20)) < seam_ratio(image + 0.3 * tiles, 16)


def test_seams_by_hand_and_gaps() -> None:
    image = np.array([[0.0, 1.0, 3.0, 4.0]] * 2)
    assert seam_ratio(image, (2, 2)) == pytest.approx(2 / np.mean([1] * 4 + [0] * 4))
    assert seam_ratio(np.zeros((4, 4)), 2) == 1
    image[0, 0] = np.nan
    assert math.isfinite(seam_ratio(image, (2, 2)))


def test_the_pattern_of_a_net_is_no_seam() -> None:
    rng = np.random.default_rng(0)
    image = gaussian_filter(rng.standard_normal((9, 96, 96)), (0, 2, 2))
    pattern = np.kron(rng.standard_normal((24, 24)), np.ones((4, 4)))
    tiles = np.kron(rng.standard_normal((4, 4)), np.ones((24, 24)))
    assert seam_ratio(image + pattern, 24) > 1.5
    assert seam_ratio(image + pattern, 24, grid=4) == pytest.approx(1, abs=0.15)
    assert seam_ratio(image + pattern + 3 * tiles, 24, grid=4) > 1.5
    with pytest.raises(CubeError, match="grid=5: expected a divisor of 24"):
        seam_ratio(image, 24, grid=5)


def test_seams_need_more_than_one_tile() -> None:
    with pytest.raises(CubeError, match="larger than one tile"):
        seam_ratio(np.zeros((8, 8)), 8)


# ------------------------------------------------------------------ LPIPS

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Random weights of AlexNet's shapes, in both file formats."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    folder, rng = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    net, heads = {}, {}
    for i, (number, (out, into, k)) in enumerate(SHAPES.items()):
        net[f"features.{number}.weight"] = (
            torch.randn(out, into, k, k, generator=rng) / k / into**0.5
        )
        net[f"features.{number}.bias"] = torch.randn(out, generator=rng) / 10
        heads[f"lin{i}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=rng)
    save_file(net, folder / "alexnet.safetensors")
    torch.save(heads, folder / "alex.pth")
    return folder / "alexnet.safetensors", folder / "alex.pth"


def test_lpips_is_zero_for_equal_pictures_and_equals_a_module(weights: tuple[Path, Path]) -> None:
    import torch
    from safetensors.torch import load_file
    from torch import nn

    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 0.4, (2, 1, 3, 64, 70)).astype(np.float32)
    assert lpips(a, a, backbone=weights[0], heads=weights[1]) == 0
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2),
        nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
    )  # fmt: skip
    state = load_file(weights[0])
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    lines = torch.load(weights[1], weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    sides = [torch.from_numpy(np.clip(s * 3, 0, 1) * 2 - 1) for s in (a, b)]
    sides = [(s - shift[:, None, None]) / scale[:, None, None] for s in sides]
    expected = 0.0
    with torch.no_grad():
        for i, layer in enumerate(features):
            sides = [layer(s) for s in sides]
            if i in (1, 4, 7, 9, 11):
                p, t = (s / (s.norm(dim=1, keepdim=True) + 1e-10) for s in sides)
                line = lines[f"lin{(1, 4, 7, 9, 11).index(i)}.model.1.weight"]
                expected += float(nn.functional.conv2d((p - t) ** 2, line).mean())
    assert lpips(a, b, backbone=weights[0], heads=weights[1]) == pytest.approx(expected, rel=1e-4)


def test_lpips_without_files_says_what_to_get(weights: tuple[Path, Path]) -> None:
    a = np.zeros((3, 64, 64), np.float32)
    with pytest.raises(CubeError, match=r"weights of its backbone, got ''.*downloads none"):
        lpips(a, a)
    with pytest.raises(CubeError, match="weights of its heads"):
        lpips(a, a, backbone=weights[0], heads="nowhere.pth")


def test_lpips_refuses_wrong_files_and_pictures(weights: tuple[Path, Path], tmp_path: Path) -> None:
    a = np.zeros((3, 64, 64), np.float32)
    with pytest.raises(CubeError, match=r"expected 'features.0.weight' in .*alex.pth"):
        lpips(a, a, backbone=weights[1], heads=weights[1])
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    with pytest.raises(CubeError, match="cannot be read as plain weights"):
        lpips(a, a, backbone=bad, heads=weights[1])
    with pytest.raises(CubeError, match="at least 64 x 64 px"):
        lpips(a[:, :32], a[:, :32], backbone=weights[0], heads=weights[1])
    with pytest.raises(CubeError, match="two pictures of one shape"):
        lpips(a, np.zeros((3, 64, 70)), backbone=weights[0], heads=weights[1])
