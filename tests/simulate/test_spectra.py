from typing import Any

import numpy as np
import pytest
import torch

from cubefill.simulate.spectra import (
    BANDS,
    Ground,
    backscatter,
    ground,
    measured,
    radar,
    reflectance,
    resampled,
)
from cubefill.simulate.surface import Crop

ALL = tuple(range(len(BANDS)))
EACH = np.array([list(Crop)])
BLUE, GREEN, RED, NIR, SWIR = (BANDS.index(b) for b in ("B02", "B03", "B04", "B08", "B11"))


def spectrum(crop: Crop, lai: float, brown: float = 0, flower: float = 0, wet: float = 0.3) -> Any:
    g = ground(np.array([[crop]]), np.array([[0.5]]), ALL)
    maps = [np.array([[v]], np.float32) for v in (lai, brown, flower, wet)]
    return reflectance(maps[0], maps[1], maps[2], maps[3], g, ALL)[:, 0, 0]


def ndvi(rho: Any) -> float:
    return float((rho[NIR] - rho[RED]) / (rho[NIR] + rho[RED]))


def test_vegetation_is_dark_in_blue_and_bright_in_nir() -> None:
    for crop in list(Crop)[:8]:
        rho = spectrum(crop, 4)
        assert rho[BLUE] < rho[GREEN] < rho[NIR]
        assert rho[RED] < 0.06
        assert ndvi(rho) > 0.7


def test_ndvi_rises_with_leaf_area_and_saturates() -> None:
    found = [ndvi(spectrum(Crop.WHEAT, lai)) for lai in (0, 1, 2, 4, 6)]
    assert np.all(np.diff(found) > 0)
    assert found[0] < 0.3
    assert found[4] - found[3] < 0.05


def test_soil_rises_with_wavelength_and_darkens_when_wet() -> None:
    dry, wet = spectrum(Crop.MAIZE, 0, wet=0), spectrum(Crop.MAIZE, 0, wet=1)
    assert np.all(np.diff(dry[: NIR + 2]) > 0)
    np.testing.assert_allclose(wet / dry, 0.6, atol=0.01)


def test_straw_is_bright_blossom_yellow_and_water_dark() -> None:
    assert spectrum(Crop.WHEAT, 0, brown=1)[RED] > 0.12
    flowers = spectrum(Crop.RAPESEED, 3, flower=0.8)
    assert flowers[GREEN] > 1.5 * spectrum(Crop.RAPESEED, 3)[GREEN]
    assert flowers[BLUE] < 0.5 * flowers[GREEN]
    assert spectrum(Crop.WATER, 0)[SWIR] < 0.01


def test_haze_adds_more_to_blue_than_to_nir() -> None:
    rho = np.full((10, 4, 4), 0.1)
    zero = np.zeros((4, 4))
    seen = measured(rho, np.ones(10), zero + 0.01, zero, np.zeros_like(rho), ALL)[:, 0, 0]
    assert seen[BLUE] - 0.1 == pytest.approx(0.01)
    assert seen[NIR] - 0.1 < 0.005


def test_resampling_keeps_the_mean_and_shifts_the_centre() -> None:
    rho = np.zeros((1, 9, 9))
    rho[0, 4, 4] = 1
    moved = resampled(rho, 0.2, -0.3)
    assert moved.sum() == pytest.approx(1)
    rows = (moved[0].sum(1) * np.arange(9)).sum()
    columns = (moved[0].sum(0) * np.arange(9)).sum()
    assert (rows - 4, columns - 4) == (pytest.approx(-0.2), pytest.approx(0.3))


def test_radar_follows_structure_and_moisture() -> None:
    power = radar(EACH)
    one = np.ones(EACH.shape, np.float32)

    def db(lai: float, wet: float, pol: int) -> Any:
        return backscatter(lai * one, wet * one, power[2 * pol], power[2 * pol + 1], one)[0]

    assert db(0, 0.8, 0)[Crop.MAIZE] - db(0, 0.2, 0)[Crop.MAIZE] == pytest.approx(3.6, abs=0.1)
    assert db(4, 0.3, 1)[Crop.MAIZE] > db(0, 0.3, 1)[Crop.MAIZE] + 3
    assert db(0, 0.3, 0)[Crop.WATER] < db(0, 0.3, 0)[Crop.SETTLEMENT] - 8


def test_torch_reflects_the_same_light() -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(0, len(Crop), (12, 16))
    g = ground(crop, rng.random(crop.shape), ALL)
    maps = [rng.random(crop.shape).astype(np.float32) for _ in range(4)]
    noise = rng.standard_normal((10, *crop.shape)).astype(np.float32)
    view = rng.normal(1, 0.02, 10).astype(np.float32)

    def see(g: Ground, m: list[Any], view: Any, noise: Any) -> Any:
        rho = resampled(reflectance(m[0], m[1], m[2], m[3], g, ALL), 0.1, -0.2)
        return measured(rho, view, 0.01 * m[0], 0.02 * m[1], noise, ALL)

    expected = see(g, maps, view, noise)
    tensors = [torch.as_tensor(m) for m in maps]
    got = see(Ground(*map(torch.as_tensor, g)), tensors, *map(torch.as_tensor, (view, noise)))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)
    power = radar(crop)
    radars = backscatter(maps[0], maps[1], power[0], power[1], maps[2] + 0.5)
    soil, canopy = torch.as_tensor(power[0]), torch.as_tensor(power[1])
    tensor = backscatter(tensors[0], tensors[1], soil, canopy, tensors[2] + 0.5)
    np.testing.assert_allclose(tensor.numpy(), radars, atol=1e-4)
