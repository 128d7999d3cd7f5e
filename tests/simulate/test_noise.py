from typing import Any

import numpy as np
import pytest
import torch

from cubefill.simulate.noise import block_mean, enlarge, fractal, like, namespace, smooth, stream


def white(shape: tuple[int, int] = (64, 96), seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_fractal_field_has_zero_mean_and_unit_variance() -> None:
    field = fractal(white(), 3.0)
    assert abs(field.mean()) < 1e-12
    assert field.std() == pytest.approx(1.0)


@pytest.mark.parametrize("slope", [2.0, 3.0, 4.0])
def test_the_power_spectrum_falls_with_the_slope(slope: float) -> None:
    fields = [fractal(white((256, 256), s), slope) for s in range(8)]
    power = np.mean([np.abs(np.fft.fft2(f)[0, 4:100]) ** 2 for f in fields], axis=0)
    fitted = np.polyfit(np.log(np.arange(4, 100)), np.log(power), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.35)


def test_inner_and_outer_scales_bound_the_structure() -> None:
    rough, soft = fractal(white(), 2.0), fractal(white(), 2.0, inner=12)
    assert np.abs(np.diff(soft)).mean() < 0.5 * np.abs(np.diff(rough)).mean()
    wide, narrow = fractal(white(), 3.5), fractal(white(), 3.5, outer=0.1)
    assert block_mean(narrow, 16).std() < block_mean(wide, 16).std()


def test_smooth_is_a_periodic_gaussian_filter() -> None:
    from scipy.ndimage import gaussian_filter

    expected = gaussian_filter(white(), 2.5, mode="wrap", truncate=8)
    np.testing.assert_allclose(smooth(white(), 2.5), expected, atol=2e-3)


def test_block_mean_and_enlarge_keep_means() -> None:
    a = white((3, 8))[:, None, :] * np.ones((1, 6, 1))
    wide = enlarge(block_mean(a, 2), 2)
    assert wide.shape == a.shape
    assert (wide[:, ::2, ::2] == wide[:, 1::2, 1::2]).all()
    assert wide.mean() == pytest.approx(a.mean())


def test_streams_are_independent_and_repeat() -> None:
    assert stream(1, 2).random() == stream(1, 2).random()
    assert len({stream(*k).random() for k in ((1, 2), (1, 3), (2, 2), (1, 2, 0, 1))}) == 4


def test_torch_tensors_give_the_same_fields() -> None:
    w = white()
    t = torch.as_tensor(w)
    assert namespace(t) is torch
    assert like([1.0], t).dtype == torch.float64
    pairs = [
        (fractal(w, 3.0, 0.5, 2.0), fractal(t, 3.0, 0.5, 2.0)),
        (smooth(w, 3.0), smooth(t, 3.0)),
        (enlarge(block_mean(w, 4), 4), enlarge(block_mean(t, 4), 4)),
    ]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), atol=1e-10)
