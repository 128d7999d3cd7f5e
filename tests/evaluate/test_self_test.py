"""Held-out errors are those of the hidden pixels, and the same ones for every method."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from cubefill import gaps as artificial
from cubefill import simulate
from cubefill.engine import gapfill
from cubefill.errors import CubeError, MethodError
from cubefill.evaluate import compare, comparison, self_test, window
from cubefill.evaluate.cases import MethodLike
from cubefill.evaluate.decloud import _rows
from cubefill.gaps import Blobs, Dates, Transplant
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.registry import resolve
from tests.shared import pictures_scene as scenes

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return scenes.cube(dates=24, size=40)


@pytest.fixture(scope="module")
def scores(cube: xr.Dataset) -> xr.Dataset:
    return self_test(cube, ("linear", "nearest"), seed=4)


@dataclass(frozen=True)
class Silent:
    """Fills gaps with one value, and says nothing of its error."""

    needs = Needs()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            yield Filled({n: np.full_like(a, 0.1) for n, a in block.bands.items()})


def by_hand(cube: xr.Dataset, method: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and fill, `(band, hidden pixel)`, computed here."""
    hidden = artificial.hide(cube, Transplant(), seed)
    out = gapfill(artificial.apply(cube, hidden), method)
    at = hidden.values
    return tuple(np.array([ds[b].values[at] for b in BANDS], float) for ds in (cube, out))  # type: ignore[return-value]


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_numbers_are_those_of_the_hidden_pixels(
    cube: xr.Dataset, scores: xr.Dataset, method: str
) -> None:
    true, fill = by_hand(cube, method, 4)
    row = scores.sel(method_name=method)
    error = fill - true
    assert float(row["mae"]) == pytest.approx(np.abs(error).mean())
    assert float(row["rmse"]) == pytest.approx(np.sqrt((error**2).mean()))
    assert float(row["psnr"]) == pytest.approx(-10 * np.log10((error**2).mean()))
    cosine = (true * fill).sum(0) / np.sqrt((true**2).sum(0) * (fill**2).sum(0))
    assert float(row["sam"]) == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
    index = [(a[3] - a[2]) / (a[3] + a[2]) for a in (true, fill)]
    assert float(row["ndvi_mae"]) == pytest.approx(np.abs(index[0] - index[1]).mean(), rel=1e-5)
    assert scores.attrs["n"] == true.size
    assert scores.attrs["hidden"] == true.shape[1]


def test_numbers_are_those_of_version_0_1(scores: xr.Dataset) -> None:
    """Written down from version 0.1, which added up eight dates at a time; coverage is today's."""
    before = {
        "mae": [0.004277652460333525, 0.007203187461551002],
        "rmse": [0.012598352496960862, 0.014888580910028973],
        "psnr": [37.99372488853812, 36.54293389225527],
        "sam": [1.2430995454745848, 2.142804208778581],
        "ndvi_mae": [0.025723497162652834, 0.044043444384553335],
        "coverage": [0.9818893783651493, 0.9916789035731767],
        "filled": [1.0, 1.0],
    }
    assert list(scores.data_vars) == list(before)
    for name, values in before.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-6)
    assert (scores.attrs["n"], scores.attrs["hidden"], scores.attrs["hidden_dates"]) == (
        24516,
        6129,
        6,
    )


def test_methods_that_do_not_know_their_error_have_no_coverage(cube: xr.Dataset) -> None:
    found = self_test(cube, ("linear", Silent()), seed=4)
    assert np.isfinite(found["coverage"].values).tolist() == [True, False]
    assert "coverage" not in self_test(cube, (Silent(),), seed=4)


def test_conventions_are_stored(scores: xr.Dataset) -> None:
    for name in ("mae", "rmse", "psnr", "sam", "ndvi_mae"):
        attrs = scores[name].attrs
        assert attrs["convention"] == "cubefill"
        assert attrs["pixel_set"] == comparison.PIXEL_SET
        assert attrs["peak"] == 1.0
        assert attrs["pooling"].startswith("pixels")
        assert attrs["n"] > 0
    assert scores["psnr"].attrs["higher_is_better"] == 1
    assert scores["mae"].attrs["higher_is_better"] == 0
    assert "Transplant" in scores.attrs["gaps"]


def test_near_infrared_may_be_b8a(cube: xr.Dataset, scores: xr.Dataset) -> None:
    found = self_test(cube.rename(B08="B8A"), ("linear", "nearest"), seed=4)
    np.testing.assert_array_equal(found["ndvi_mae"], scores["ndvi_mae"])
    assert found["ndvi_mae"].attrs["formula"] == "NDVIMAE(red='B04', nir='B8A')"
    assert scores["ndvi_mae"].attrs["formula"] == "NDVIMAE(red='B04', nir='B08')"


def test_a_better_method_scores_better(scores: xr.Dataset) -> None:
    assert float(scores["mae"].sel(method_name="linear")) < float(
        scores["mae"].sel(method_name="nearest")
    )


def test_order_is_that_of_the_call(cube: xr.Dataset, scores: xr.Dataset) -> None:
    turned = self_test(cube, ("nearest", "linear"), seed=4)
    assert turned.method_name.values.tolist() == ["nearest", "linear"]
    for name in scores.data_vars:
        np.testing.assert_array_equal(turned[name].values[::-1], scores[name].values)


@pytest.mark.parametrize("alone", ["linear", resolve("linear"), type(resolve("linear"))])
def test_a_method_alone_is_a_list_of_one(cube: xr.Dataset, alone: MethodLike) -> None:
    listed = self_test(cube, ["linear"], seed=4)
    xr.testing.assert_identical(self_test(cube, alone, seed=4), listed)
    scored = compare(alone, cube, Transplant(), resamples=0)
    assert scored.method_name.values.tolist() == ["linear"]
    assert list(_rows(alone)) == ["linear"]


def test_a_name_alone_that_is_unknown_is_refused_whole(cube: xr.Dataset) -> None:
    with pytest.raises(MethodError, match=r"'liner'.*linear"):
        self_test(cube, "liner")


def test_the_seed_decides(cube: xr.Dataset, scores: xr.Dataset) -> None:
    xr.testing.assert_identical(self_test(cube, ("linear", "nearest"), seed=4), scores)
    other = self_test(cube, ("linear", "nearest"), seed=5)
    assert float(other["mae"][0]) != float(scores["mae"][0])


def test_all_methods_are_scored_where_all_filled(cube: xr.Dataset) -> None:
    found = self_test(cube, (resolve("linear", max_gap=20), "linear"), seed=4)
    assert found.method_name.values.tolist() == ["linear", "linear (2)"]
    assert float(found["filled"][0]) < 1
    assert float(found["filled"][1]) == 1
    assert float(found["mae"][0]) == pytest.approx(float(found["mae"][1]))
    whole = self_test(cube, ("linear",), seed=4)
    assert found.attrs["n"] < whole.attrs["n"]


def test_coverage_of_the_interval(cube: xr.Dataset, scores: xr.Dataset) -> None:
    assert scores["coverage"].attrs["target"] == 0.9
    assert 0.5 < float(scores["coverage"].sel(method_name="linear")) <= 1


def test_the_cube_is_not_changed(cube: xr.Dataset) -> None:
    before = cube.copy(deep=True)
    self_test(cube, ("linear",))
    xr.testing.assert_identical(cube, before)


def test_a_large_cube_is_judged_by_a_window() -> None:
    cube = simulate.scene(size=(72, 96), dates=30, seed=2, bands=BANDS, sar=False, dem=False).cube
    found = self_test(cube.chunk({"y": 24, "x": 24}), ("linear",), max_px=32)
    assert found.attrs["window"].startswith("rows ")
    part, where = window(cube, 32)
    assert where == found.attrs["window"]
    assert (part.sizes["y"], part.sizes["x"]) == (32, 32)
    y = cube.y.values.tolist().index(part.y.values[0])
    x = cube.x.values.tolist().index(part.x.values[0])
    assert where == f"rows {y} to {y + 32}, columns {x} to {x + 32}"
    xr.testing.assert_equal(part["B04"], cube["B04"][:, y : y + 32, x : x + 32])


def test_a_cube_with_scl_alone() -> None:
    cube = simulate.scene(size=40, dates=30, seed=2, bands=BANDS, sar=False, dem=False).cube
    xr.testing.assert_allclose(
        self_test(cube.drop_vars("valid"), ("linear",)), self_test(cube, ("linear",))
    )


def test_gaps_of_another_kind(cube: xr.Dataset) -> None:
    found = self_test(cube, ("linear",), gaps=Dates(share=0.3))
    assert found.attrs["gaps"].startswith("Dates(share=0.3")


def test_blobs_where_no_cloud_can_be_borrowed(cube: xr.Dataset) -> None:
    sunny = cube.assign(valid=xr.ones_like(cube["valid"]))
    assert self_test(sunny, ("linear",)).attrs["gaps"] == repr(Blobs())


def test_without_red_and_nir_there_is_no_ndvi(cube: xr.Dataset) -> None:
    assert "ndvi_mae" not in self_test(cube.drop_vars("B08"), ("linear",))


def test_an_overcast_cube_is_refused(cube: xr.Dataset) -> None:
    with pytest.raises(CubeError, match=r"Blobs.*hides nothing: expected clear observations"):
        self_test(cube.assign(valid=xr.zeros_like(cube["valid"])), ("linear",))


def test_an_unknown_method_is_refused(cube: xr.Dataset) -> None:
    with pytest.raises(MethodError, match="Did you mean 'linear'"):
        self_test(cube, ("liner",))


def test_no_method_is_refused(cube: xr.Dataset) -> None:
    with pytest.raises(CubeError, match="expected one or more"):
        self_test(cube, ())


def test_a_smooth_product_is_refused(cube: xr.Dataset) -> None:
    with pytest.raises(CubeError, match="no band in common"):
        self_test(cube, (resolve("whittaker", smooth=True),))
