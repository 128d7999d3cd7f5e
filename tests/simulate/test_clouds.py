from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.cube.bands import SCL
from cubefill.simulate import clouds
from cubefill.simulate.noise import fractal, stream

SHAPE = (96, 96)


def white(seed: int = 0, shape: tuple[int, int] = (160, 160)) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.integers(6, 120), st.floats(0, 1), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_the_covers_of_the_dates_have_the_mean_that_was_asked_for(
    n: int, cloud: float, seed: int
) -> None:
    cover = clouds.covers(np.random.default_rng(seed).standard_normal(n), cloud)
    assert cover.min() >= 0
    assert cover.max() <= 1
    assert cover.mean() == pytest.approx(cloud, abs=0.5 / n + 0.02)


def test_half_of_the_cloudy_dates_are_fully_covered() -> None:
    cover = clouds.covers(np.random.default_rng(0).standard_normal(400), 0.55)
    assert 0.45 < (cover == 1).sum() / (cover > 0).sum() < 0.65
    assert 0.15 < (cover == 0).mean() < 0.4


def test_weather_persists_from_date_to_date_for_as_long_as_asked() -> None:
    days = np.arange(0, 20_000, 2.5)
    for memory in (1.0, 3.0, 8.0):
        z = clouds.latent(days, memory, stream(0, 1))
        correlation = np.corrcoef(z[1:], z[:-1])[0, 1]
        assert correlation == pytest.approx(np.exp(-2.5 / memory), abs=0.04)
    cover = clouds.covers(clouds.latent(days, 3.0, stream(0, 1)), 0.55)
    cloudy = cover > 0.5
    after = cloudy[1:][cloudy[:-1]].mean(), cloudy[1:][~cloudy[:-1]].mean()
    assert after[0] > after[1] + 0.15


def test_the_sun_stands_high_in_june_and_south_east_in_the_morning() -> None:
    zenith, azimuth = clouds.sun(np.array([172.0, 355.0]), 50.5)
    assert 28 < zenith[0] < 36
    assert 72 < zenith[1] < 78
    assert ((azimuth > 130) & (azimuth < 172)).all()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_clouds_cover_the_share_of_the_window_that_was_asked_for(fraction: float) -> None:
    field = clouds.opacity(white(), SHAPE, fraction, 3.0, 6.0)
    part = field[: SHAPE[0], : SHAPE[1]]
    assert (part > 0).mean() == pytest.approx(fraction, abs=0.02)
    assert (field == 0).any()
    assert field.max() <= 1


def test_a_clear_sky_is_exactly_clear_and_an_overcast_one_hides_all() -> None:
    assert (clouds.opacity(white(), SHAPE, 0.0, 3.0, 6.0) == 0).all()
    assert clouds.opacity(white(), SHAPE, 1.0, 3.0, 6.0).min() > 0.8


def test_a_shadow_falls_away_from_the_sun() -> None:
    cloud = np.zeros((200, 200))
    cloud[90:110, 90:110] = 1
    shift = clouds.displacement(45.0, 160.0, 500.0, 10.0)
    dark = clouds.shadow(cloud, shift)
    y, x = (np.average(np.arange(200), weights=dark.sum(axis)) for axis in (1, 0))
    assert (y - 99.5, x - 99.5) == (pytest.approx(shift[0]), pytest.approx(shift[1]))
    assert shift == (-47, -17)  # the sun is in the south-south-east: up, and to the left


def test_nothing_changes_where_neither_cloud_nor_shadow_is() -> None:
    truth = np.random.default_rng(0).random((10, *SHAPE)).astype(np.float32)
    cloud = clouds.opacity(white(), SHAPE, 0.4, 3.0, 6.0)[:96, :96].astype(np.float32)
    dark = np.zeros(SHAPE, np.float32)
    dark[:20] = 0.8
    seen = clouds.through(truth, cloud, dark, 0 * dark, tuple(range(10)))
    clear = (cloud == 0) & (dark == 0)
    np.testing.assert_array_equal(seen[:, clear], truth[:, clear])
    shaded = (cloud == 0) & (dark > 0)
    assert (seen[:, shaded] < 0.6 * truth[:, shaded]).all()
    assert (seen[0][cloud > 0.95] > 0.4).all()
    assert seen[8][cloud > 0.95].mean() < 0.8 * seen[0][cloud > 0.95].mean()


def test_scene_classes_see_thick_cloud_and_miss_some_of_the_thin() -> None:
    cloud = clouds.opacity(white(1), (160, 160), 0.5, 3.0, 5.0)
    cloud = 1 - (1 - cloud) * (1 - clouds.halo(cloud, 10))
    dark = clouds.shadow(cloud, (-30, -10))
    wander = fractal(white(2), 2.4)
    cover = np.full(cloud.shape, 4.0)
    scl = clouds.classes(cloud, dark, wander, cover, 0 * cloud, 0.25, 0.4)
    cloudy = np.isin(scl, [SCL.CLOUD_MEDIUM, SCL.CLOUD_HIGH, SCL.THIN_CIRRUS])
    assert cloudy[cloud > 0.5].all()
    assert not cloudy[cloud == 0].any()
    missed = (cloud > 0.02) & np.isin(scl, [4, 7])
    assert 0.005 < missed.mean() < 0.25
    thick = (dark > 0.7) & (cloud == 0)
    assert (scl[thick] == SCL.CLOUD_SHADOW).all()
    assert (scl[(cloud == 0) & (dark == 0) & (wander < 1)] == 4).all()


def test_bright_ground_is_sometimes_taken_for_cloud() -> None:
    zero = np.zeros(SHAPE)
    wander = fractal(white(3, SHAPE), 2.4)
    scl = clouds.classes(zero, zero, wander, zero + 5, zero + 1, 0.2, 0.4)
    assert 0 < np.isin(scl, [8, 10]).mean() < 0.2


def test_torch_makes_the_same_clouds() -> None:
    truth = np.random.default_rng(0).random((10, 160, 160))
    wander = white(4)

    def sky(w: Any, truth: Any, wander: Any) -> list[Any]:
        cloud = clouds.opacity(w, SHAPE, 0.4, 3.0, 6.0)
        dark = clouds.shadow(cloud, (-12, -5))
        veil = clouds.halo(cloud, 10)
        seen = clouds.through(truth, cloud, dark, wander, tuple(range(10)))
        scl = clouds.classes(cloud, dark, wander, 4 + 0 * w, 0 * w, 0.25, 0.4)
        return [cloud, dark, veil, seen, scl, clouds.opacity(w, SHAPE, 1.0, 3.0, 6.0)]

    expected = sky(white(), truth, wander)
    got = sky(*(torch.as_tensor(a) for a in (white(), truth, wander)))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5)


def test_weather_is_the_same_for_the_same_seed() -> None:
    days = np.arange(0.0, 100, 5)
    a, b = (clouds.weather(days, days + 1, 0.5, 3.0, 50.0, 0.1, stream(1, 2)) for _ in range(2))
    np.testing.assert_array_equal(a.fraction, b.fraction)
    assert len(a.threshold) == len(days)
