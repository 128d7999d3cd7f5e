from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import cube, simulate
from cubefill.errors import CubeError
from cubefill.simulate import BANDS, Crop, Scene, scene


@pytest.fixture(scope="module")
def whole() -> Scene:
    return scene(size=160, dates=None, seed=4, bands=("B02", "B04", "B08", "B11"))


def small(**changes: Any) -> Scene:
    options: dict[str, Any] = {"size": 32, "dates": 5, "bands": ("B04", "B11"), "sar": False}
    return scene(**(options | changes))


def ndvi(ds: xr.Dataset) -> xr.DataArray:
    return (ds.B08 - ds.B04) / (ds.B08 + ds.B04)


def of(s: Scene, crop: Crop) -> xr.DataArray:
    return ndvi(s.truth).where(s.truth.crop == crop.value).mean(("y", "x"))


def test_a_scene_is_a_cube_of_the_contract(whole: Scene) -> None:
    ds = cube.check(whole.cube)
    assert cube.spectral(ds) == ("B02", "B04", "B08", "B11")
    kinds = {str(n): (str(v.dtype), v.dims) for n, v in ds.data_vars.items()}
    full = ("time", "y", "x")
    assert kinds["B02"] == ("float32", full)
    assert kinds["SCL"] == ("uint8", full)
    assert kinds["valid"] == kinds["sar_valid"] == ("bool", full)
    assert kinds["DEM"] == ("float32", ("y", "x"))
    assert ds.time.dtype == "datetime64[ns]"
    assert float(ds.y[0] - ds.y[1]) == 10
    assert (float(ds.x[0]), float(ds.y[0])) == (500_005, 5_599_995)
    assert int(ds.spatial_ref) == 32631
    assert all(v.encoding["grid_mapping"] == "spatial_ref" for v in ds.data_vars.values())
    assert ds.attrs["boa_offset_harmonized"] == 1


def test_truth_equals_the_cube_where_nothing_stood_between(whole: Scene) -> None:
    clear = whole.truth.clear.values
    assert 0.2 < clear.mean() < 0.6
    assert float(whole.truth.shadow.mean()) > 0.02
    for band in ("B02", "B04", "B08", "B11"):
        seen, true = whole.cube[band].values, whole.truth[band].values
        np.testing.assert_array_equal(seen[clear], true[clear])
        assert np.abs(seen - true)[whole.truth.opacity.values > 0.9].mean() > 0.1
        assert np.isfinite(true).all()


def test_reflectance_lies_on_counts_of_a_store(whole: Scene) -> None:
    values = whole.cube.B08.values
    counts = np.rint(values * np.float32(1e4)).astype(np.int16)
    np.testing.assert_array_equal(counts * np.float32(1e-4), values)


def test_wheat_peaks_in_spring_and_drops_after_harvest(whole: Scene) -> None:
    curve = of(whole, Crop.WHEAT)
    peak = curve.time.dt.dayofyear.values[curve.values.argmax()]
    assert 100 < peak < 180
    assert float(curve.max()) > 0.75
    assert float(curve.sel(time=slice("2023-08-01", "2023-08-25")).mean()) < 0.45
    assert float(of(whole, Crop.MAIZE).sel(time="2023-04").mean()) < 0.4


def test_blue_is_darker_than_nir_on_vegetation(whole: Scene) -> None:
    dense = whole.truth.LAI.values > 3
    assert (whole.truth.B02.values < whole.truth.B08.values)[dense].mean() > 0.999


@pytest.mark.parametrize("cloud", [0.2, 0.55, 0.8])
def test_cloud_cover_is_close_to_the_request(cloud: float) -> None:
    s = scene(size=48, dates=60, bands=("B04",), cloud=cloud, sar=False, dem=False, omission=0)
    assert float(s.truth.cloud.mean()) == pytest.approx(cloud, abs=0.05)
    assert float(s.cube.valid.mean()) < 1 - cloud + 0.05


def test_the_mask_errs_as_sen2cor_does(whole: Scene) -> None:
    valid, touched = whole.cube.valid.values, ~whole.truth.clear.values
    omission = (valid & touched).sum() / valid.sum()
    assert 0.005 < omission < 0.3
    assert (whole.truth.opacity.values[valid] > 0.5).mean() < 0.002
    assert ((whole.cube.SCL.values == 9) | ~(whole.truth.opacity.values > 0.97)).mean() > 0.99


def test_scene_classes_come_in_blocks_of_20_m(whole: Scene) -> None:
    scl = whole.cube.SCL.values
    assert (scl[:, ::2, ::2] == scl[:, 1::2, 1::2]).all()
    assert set(np.unique(scl)) <= set(range(12))
    swir = whole.truth.B11.values
    assert (swir[:, ::2, ::2] == swir[:, 1::2, 1::2]).all()
    assert not (whole.truth.B04.values[:, ::2, ::2] == whole.truth.B04.values[:, 1::2, 1::2]).all()


def test_the_calendar_is_that_of_two_satellites_on_two_orbits() -> None:
    rng = np.random.default_rng(0)
    time, orbit = simulate.acquisitions(np.datetime64("2023-01-01", "ns"), 365, rng, missing=0)
    steps = np.rint(np.diff(time) / np.timedelta64(1, "D").astype("timedelta64[ns]"))
    assert len(time) == 146
    assert set(steps) == {2, 3}
    assert (np.diff(orbit) != 0).all()
    fewer = simulate.acquisitions(np.datetime64("2023-01-01", "ns"), 365, rng)[0]
    assert 0.8 < len(fewer) / 146 < 0.95


def test_orbits_differ_by_a_few_per_cent() -> None:
    s = scene(size=32, dates=None, bands=("B08",), sar=False, cloud=0, days=20, omission=0)
    level = s.truth.B08.mean(("y", "x")).values
    change = np.abs(np.diff(level)) / level[1:]
    assert 0 < change.mean() < 0.12


def test_a_scene_is_the_same_whenever_it_is_made() -> None:
    xr.testing.assert_identical(small().cube, small().cube)
    assert not np.array_equal(small().cube.B04, small(seed=1).cube.B04)


def test_a_band_is_the_same_whichever_others_are_asked_for() -> None:
    alone, among = small(bands=("B11",)), small(bands=BANDS, sar=True)
    np.testing.assert_array_equal(alone.cube.B11, among.cube.B11)
    np.testing.assert_array_equal(alone.cube.SCL, among.cube.SCL)
    assert tuple(among.cube.data_vars)[:1] == ("B02",)


@pytest.mark.parametrize(("size", "resolution"), [((33, 47), 10), (24, 20), (16, 60)])
def test_any_size_and_resolution(size: Any, resolution: float) -> None:
    s = small(size=size, resolution=resolution, bands=BANDS)
    shape = (size, size) if isinstance(size, int) else size
    assert s.cube.B02.shape == (5, *shape)
    assert s.truth.crop.shape == shape
    cube.check(s.cube)


def test_given_dates_are_taken_as_they_are() -> None:
    dates = ["2022-05-01", "2022-05-11T10:30", "2022-06-30"]
    s = small(dates=dates)
    assert (s.cube.time.values == np.array(dates, "datetime64[ns]")).all()
    assert small(dates=["2022-05-01"]).cube.sizes["time"] == 1


def test_sar_comes_with_its_gap_or_on_its_own_dates() -> None:
    near, own = small(sar=True), small(sar="own")
    assert np.abs(near.cube.sar_gap_hours.values).max() <= 72
    assert -22 < float(near.cube.VV.median()) < -6
    assert float(near.cube.VH.median()) < float(near.cube.VV.median()) - 3
    assert own.cube.VV.dims == ("sar_time", "y", "x")
    assert set(own.cube.orbit.values) == {"ascending", "descending"}
    assert own.cube.sizes["sar_time"] > 80
    assert "VV" not in small().cube


def test_nothing_is_seen_beyond_the_edge_of_a_swath() -> None:
    s = small(swath_edge=True, dates=8)
    missing = s.cube.B04.isnull()
    assert 0.02 < float(missing.mean()) < 0.5
    assert (s.cube.SCL.values[missing.values] == 0).all()
    assert not s.cube.valid.values[missing.values].any()
    assert not bool(s.truth.B04.isnull().any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": ("B01",)}, "expected some of B02"),
        ({"bands": ("B4X",)}, "Unknown band"),
        ({"bands": ()}, "got none"),
        ({"size": 4}, "at least 8 pixels"),
        ({"cloud": 1.5}, "between 0 and 1"),
        ({"dates": 500}, "larger days="),
        ({"dates": ["2023-02-01", "2023-01-01"]}, "increasing"),
        ({"days": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        small(**options)


def test_bands_lie_in_the_range_of_real_farmland(data_folder: Path) -> None:
    folder = data_folder / "worldcereal_31UDS"
    files = sorted(folder.glob("S2_L2A_*m_*.nc"))
    if len(files) != 2:
        pytest.skip(f"real data absent: no Sentinel-2 netCDF in {folder}")
    fine, coarse = (xr.open_dataset(f, mask_and_scale=False) for f in files)
    good = np.isin(coarse.SCL.values, [4, 5]).mean((1, 2)) > 0.9
    s = scene(size=96, dates=30, start="2017-08-01", days=487, seed=1, sar=False)
    for band in BANDS:
        real = (fine if band in fine else coarse)[band].values[good] / 1e4
        low, high = np.percentile(real, [5, 95])
        ours = np.median(s.truth[band].values)
        assert low < ours < high, f"{band}: {ours:.3f} out of {low:.3f} to {high:.3f}"
        assert 0.5 < ours / np.median(real) < 1.6
