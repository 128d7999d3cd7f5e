from typing import Any

import numpy as np
import pytest
import torch

from cubefill.simulate.noise import stream
from cubefill.simulate.surface import (
    Calendar,
    Crop,
    Cuts,
    Cycles,
    Growth,
    calendar,
    double_logistic,
    growth,
    land,
    regrowth,
)

EACH = np.array([c for c in Crop for _ in range(40)])
DAYS = np.arange(365.0)


@pytest.fixture(scope="module")
def year() -> Growth:
    return growth(DAYS, calendar(EACH, 1, 365, stream(3, 1)))


def mean(year: Growth, name: str, crop: Crop, first: int, last: int) -> float:
    return float(getattr(year, name)[first:last, crop == EACH].mean())


def test_parcels_have_the_sizes_of_fields() -> None:
    found = land((384, 384), 10, stream(0, 0))
    assert found.parcel.shape == (384, 384)
    assert found.parcel.max() < len(found.crop)
    arable = np.isin(found.crop, [Crop.WHEAT, Crop.MAIZE, Crop.BEET, Crop.POTATO, Crop.RAPESEED])
    pixels = np.bincount(found.parcel.ravel(), minlength=len(found.crop))[arable]
    hectares = np.repeat(pixels / 100, pixels)
    assert 1 < np.median(hectares) < 10
    assert (hectares > 0.2).mean() > 0.97
    assert hectares.max() < 25


def test_a_land_has_fields_forest_water_roads_and_villages() -> None:
    kinds = {int(c) for seed in range(3) for c in np.unique(_crops(seed))}
    assert kinds == {c.value for c in Crop}
    assert (_crops(0) < Crop.GRASS).mean() > 0.3


def _crops(seed: int) -> Any:
    found = land((384, 384), 10, stream(seed, 0))
    return found.crop[found.parcel]


def test_land_is_the_same_for_the_same_seed_and_works_at_any_resolution() -> None:
    a, b = (land((64, 80), 20, stream(5, 0)) for _ in range(2))
    np.testing.assert_array_equal(a.parcel, b.parcel)
    assert not np.array_equal(a.parcel, land((64, 80), 20, stream(6, 0)).parcel)
    assert land((8, 8), 60, stream(0, 0)).parcel.shape == (8, 8)


def test_wheat_peaks_in_spring_and_is_bare_after_harvest(year: Growth) -> None:
    green = year.green[:, EACH == Crop.WHEAT].mean(1)
    assert 115 < green.argmax() < 170
    assert green.max() > 3.5
    assert mean(year, "green", Crop.WHEAT, 215, 240) < 0.4
    assert mean(year, "brown", Crop.WHEAT, 190, 200) > 0.5
    assert mean(year, "green", Crop.WHEAT, 350, 365) > 0.3


def test_summer_crops_are_green_in_summer_only(year: Growth) -> None:
    for crop in (Crop.MAIZE, Crop.BEET, Crop.POTATO):
        assert mean(year, "green", crop, 0, 120) < 0.1
        assert mean(year, "green", crop, 200, 220) > 3
    assert mean(year, "green", Crop.BEET, 355, 365) < 0.3


def test_rapeseed_flowers_between_april_and_may(year: Growth) -> None:
    flower = year.flower[:, EACH == Crop.RAPESEED].mean(1)
    assert 105 < flower.argmax() < 140
    assert year.flower[:, EACH == Crop.WHEAT].max() == 0


def test_forest_keeps_leaves_or_sheds_them(year: Growth) -> None:
    assert mean(year, "green", Crop.EVERGREEN, 0, 30) > 2.5
    assert mean(year, "green", Crop.DECIDUOUS, 0, 60) < 1
    assert mean(year, "green", Crop.DECIDUOUS, 160, 260) > 4


def test_parcels_of_one_crop_differ(year: Growth) -> None:
    peaks = year.green[:, EACH == Crop.MAIZE].max(0)
    assert 0.2 < peaks.std() < 1.5


def test_mowing_cuts_at_once_and_grows_back(year: Growth) -> None:
    cuts = Cuts(np.array([[10.0]]), np.array([[0.7]]), np.array([[30.0]]))
    standing = regrowth(np.array([9.0, 10.0, 40.0, 100.0]), cuts)[:, 0]
    np.testing.assert_allclose(standing, [1, 0.3, 1 - 0.7 * np.exp(-2), 1], atol=2e-3)
    drops = np.diff(year.green[:, EACH == Crop.GRASS], axis=0).min(0)
    assert 0.4 < (drops < -0.8).mean() < 0.9


def test_a_double_logistic_is_half_way_at_its_dates() -> None:
    one = Cycles(*(np.array([[v]]) for v in (3.0, 100.0, 5.0, 200.0, 5.0)))
    value = double_logistic(np.array([0.0, 100.0, 150.0, 200.0, 300.0]), one)[:, 0]
    np.testing.assert_allclose(value, [0, 1.5, 3, 1.5, 0], atol=1e-3)


def test_torch_grows_the_same_crops(year: Growth) -> None:
    c = calendar(EACH, 1, 365, stream(3, 1))
    parts: list[Any] = [
        type(p)(*map(torch.as_tensor, p)) for p in (c.green, c.brown, c.flower, c.cuts)
    ]
    tensors = Calendar(torch.as_tensor(c.base), *parts)
    for a, b in zip(growth(torch.as_tensor(DAYS), tensors), year, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5)
