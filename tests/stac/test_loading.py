import logging
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_reproject

from cubefill import cube as cubes
from cubefill import stac
from cubefill.cube import valid
from cubefill.errors import CatalogueError, CubeError, CubefillWarning, ReadError
from cubefill.stac.area import outline, quiet
from tests.shared.stac_cases import BANDS, cube, item


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stac.write_catalogue(cube(sar=True), tmp_path_factory.mktemp("catalogue"))


@pytest.fixture
def items(folder: Path) -> stac.Items:
    return stac.search(folder)


def square(west: float, south: float, side: float, crs: str, resolution: float) -> Any:
    return GeoBox.from_bbox((west, south, west + side, south + side), crs, resolution=resolution)


def break_asset(items: stac.Items, date: str, key: str) -> str:
    one = next(i for i in items if date in i.id and key in i.assets)
    one.assets[key].href = "/nowhere/gone.tif"
    return str(one.id)


def test_a_cube_with_its_coordinates_attributes_and_crs(items: stac.Items) -> None:
    ds = stac.load(items, bands=("red", "b8a"))
    cubes.check(ds)
    assert list(ds.data_vars) == ["B04", "B8A", "SCL", "valid"]
    assert ds["time"].dtype == "datetime64[ns]"
    assert {n: v.dtype.name for n, v in ds.data_vars.items()} == {
        "B04": "float32", "B8A": "float32", "SCL": "uint8", "valid": "bool",
    }  # fmt: skip
    assert all(v.dims == ("time", "y", "x") for v in ds.data_vars.values())
    assert all(v.encoding["grid_mapping"] == "spatial_ref" for v in ds.data_vars.values())
    with quiet():
        crs = cubes.crs_of(ds)
    assert crs is not None
    assert crs.epsg == 32631
    assert ds["B04"].attrs["wavelength_nm"] == 665
    assert ds["valid"].attrs["dilation_m"] == 30.0
    assert ds.attrs["items"][1] == "S2A_32631_20210506_0_L2A"
    for value in ds.attrs.values():
        assert isinstance(value, str | int | float | list)


def test_nothing_is_read_until_asked(items: stac.Items) -> None:
    for one in items:
        for asset in one.assets.values():
            asset.href = "/nowhere/gone.tif"
    ds = stac.load(items, bands=BANDS, sar=True, dem=True)
    assert all(hasattr(v.data, "dask") for v in ds.data_vars.values())
    with pytest.raises(ReadError, match="S2A_32631_20210501_0_L2A of 2021-05-01T10:50:31"):
        ds["B04"].isel(time=0).compute()


def test_a_lazy_cube_pickles_and_names_are_stable(items: stac.Items) -> None:
    ds = stac.load(items, bands=("B04",))
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again["valid"], ds["valid"])
    assert ds["B04"].data.name == stac.load(items, bands=("B04",))["B04"].data.name


@pytest.mark.parametrize("chunks", [7, 16, 64])
def test_the_answer_does_not_depend_on_chunks(items: stac.Items, chunks: int) -> None:
    want = stac.load(items, bands=BANDS, resolution=20, sar=True, dem=True).compute()
    got = stac.load(items, bands=BANDS, resolution=20, sar=True, dem=True, chunks=chunks).compute()
    xr.testing.assert_identical(got, want)
    np.testing.assert_array_equal(got["valid"], valid.from_scl(got["SCL"]))


def test_options_of_valid(items: stac.Items) -> None:
    ds = stac.load(items, bands=("B04",), snow=True, dilate=70, clear=(4, 5))
    want = valid.from_scl(cube()["SCL"], snow=True, dilate=70, clear=(4, 5))
    np.testing.assert_array_equal(ds["valid"], want)
    assert ds["valid"].attrs == want.attrs
    mine = stac.load(items, bands=("B04",), valid=lambda d: d["B04"] > 0.3)
    np.testing.assert_array_equal(mine["valid"], cube()["B04"] > 0.3)
    assert "SCL" in mine
    assert "<lambda>" in mine["valid"].attrs["source"]


def test_bbox_and_geometry_cut_on_pixel_edges(items: stac.Items) -> None:
    whole = stac.load(items, bands=("B04",))
    box = (3.0010, 50.5470, 3.0040, 50.5485)
    w, s, e, n = box
    ring = [[w, s], [e, s], [e, n], [w, n], [w, s]]
    part = stac.load(items, bbox=box, bands=("B04",))
    same = stac.load(items, geometry={"type": "Polygon", "coordinates": [ring]}, bands=("B04",))
    xr.testing.assert_identical(part, same)
    assert 0 < part.sizes["x"] < whole.sizes["x"]
    inside = whole["B04"].reindex_like(part["B04"])
    np.testing.assert_array_equal(part["B04"], inside)


def test_a_geobox_is_taken_as_it_is(items: stac.Items) -> None:
    with quiet():
        box = square(500_100, 5_599_700, 200, "EPSG:32631", 20)
        ds = stac.load(items, geobox=box, bands=("B04",))
        assert ds.odc.geobox == box
    assert ds["B04"].shape == (5, 10, 10)


def test_granules_of_a_solar_day_are_one_mosaic(tmp_path: Path) -> None:
    whole = cube()
    west, east = whole.isel(x=slice(0, 30)), whole.isel(x=slice(24, None))
    east = east.assign_coords(time=east["time"] + np.timedelta64(14, "s"))
    first = stac.search(stac.write_catalogue(west, tmp_path / "w", quirk="offset"))
    second = stac.search(stac.write_catalogue(east, tmp_path / "e"))
    for one in second:
        one.id += "_east"
    ds = stac.load([*second, *first], bands=BANDS)
    assert ds.sizes["time"] == 5
    np.testing.assert_array_equal(ds["time"].values, whole["time"].values)
    for name in (*BANDS, "SCL"):
        np.testing.assert_array_equal(ds[name], whole[name])
    assert ds.attrs["items"][0] == "S2A_32631_20210501_0_L2A+S2A_32631_20210501_0_L2A_east"
    assert "5 items: +0 counts" in ds.attrs["offset_items"]
    assert "5 items: -1000 counts" in ds.attrs["offset_items"]


def test_mixed_crs_is_chosen_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = cube(dates=2)
    with quiet():
        where = outline(whole.odc.geobox).bounds
        box = whole.odc.geobox.to_crs("EPSG:32632", resolution=10)
        turned = xr.Dataset(
            {n: xr_reproject(whole[n], box, resampling="nearest") for n in (*BANDS, "SCL")}
        )
    turned = turned.assign_coords(time=turned["time"] + np.timedelta64(2, "D"))
    one = stac.search(stac.write_catalogue(whole, tmp_path / "a"))
    two = stac.search(stac.write_catalogue(turned, tmp_path / "b"))
    with caplog.at_level(logging.INFO, "cubefill"):
        ds = stac.load([*one, *two], bands=("B04",), bbox=where, resampling="nearest")
    assert ds.attrs["crs_choice"] == "EPSG:32631 (chosen; 2 of 4 items are reprojected)"
    assert "CRS EPSG:32631 (chosen; 2 of 4 items are reprojected)" in caplog.text
    got = ds["B04"].compute()
    near = np.abs(got[0] - got[1])
    assert float(got[1].notnull().mean()) > 0.8
    assert float((near < 1e-6).mean()) > 0.3
    other = stac.load([*one, *two], bands=("B04",), crs="EPSG:32632")
    assert "EPSG:32632 (given; 2 of 4 items" in other.attrs["crs_choice"]


def test_sar_on_its_own_dates_and_by_orbit(items: stac.Items) -> None:
    ds = stac.load(items, bands=("B04",), sar="own")
    assert ds["VV"].dims == ("sar_time", "y", "x")
    assert set(ds["orbit"].values) == {"ascending"}
    np.testing.assert_allclose(ds["VV"], cube(sar=True)["VV"], atol=1e-5)
    near = stac.load(items, bands=("B04",), sar=True, sar_orbit="ascending")
    assert near["sar_gap_hours"].dtype == "float32"
    assert bool(near["sar_valid"].all())
    assert "sar_time" not in near.dims


def test_a_failed_read_is_an_error_or_has_its_own_flag(items: stac.Items) -> None:
    name = break_asset(items, "20210506", "red")
    with pytest.raises(ReadError, match=rf"'red' \(B04\) of item {name} of 2021-05-06T10:50:31"):
        stac.load(items, bands=BANDS).compute()
    ds = stac.load(items, bands=BANDS, on_error="flag").compute()
    assert bool(ds["source_missing"][1].all())
    assert not ds["source_missing"][[0, 2, 3, 4]].any()
    assert not ds["valid"][1].any()
    assert bool(ds["B04"][1].isnull().all())
    assert bool(np.isfinite(ds["B02"][1]).any())
    np.testing.assert_array_equal(ds["SCL"], cube()["SCL"])
    np.testing.assert_array_equal(ds["valid"][0], valid.from_scl(cube()["SCL"])[0])


def test_a_failed_scl_is_flagged(items: stac.Items) -> None:
    break_asset(items, "20210506", "scl")
    with pytest.raises(ReadError, match=r"'scl' \(SCL\)"):
        stac.load(items, bands=BANDS)["valid"].compute()
    ds = stac.load(items, bands=BANDS, on_error="flag").compute()
    assert bool(ds["source_missing"][1].all())
    assert not ds["valid"][1].any()
    assert not ds["SCL"][1].any()
    np.testing.assert_array_equal(ds["B04"], cube()["B04"])


def test_an_absent_asset_is_an_error_or_flagged(items: stac.Items) -> None:
    del next(i for i in items if "red" in i.assets).assets["red"]
    with pytest.raises(CatalogueError, match=r"1 items have no asset for B04 \(S2A_.*has blue"):
        stac.load(items, bands=BANDS)
    ds = stac.load(items, bands=BANDS, on_error="flag").compute()
    assert int(ds["source_missing"].any(("y", "x")).sum()) == 1


def without(kind: str) -> Any:
    def change(items: stac.Items) -> list[Any]:
        return [i for i in items if kind not in (i.collection_id or "")]

    return change


def without_scl(items: stac.Items) -> stac.Items:
    for one in items:
        one.assets.pop("scl", None)
    return items


def nameless(items: stac.Items) -> stac.Items:
    for one in items:
        one.properties.pop("proj:code")
    return items


def timeless(items: stac.Items) -> stac.Items:
    items[5].datetime = None
    items[5].properties["datetime"] = None
    return items


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda i: [], {}, CatalogueError, r"No items to load.*cubefill\.search"),
        (without("sentinel-2"), {}, CatalogueError, r"No Sentinel-2 L2A item among 6 items"),
        (None, {"bbox": (8, 50, 9, 51)}, CatalogueError, r"All 5 Sentinel-2 items lie outside"),
        (None, {"bands": ("B11",)}, CatalogueError, r"5 items have no asset for B11.*Leave B11"),
        (None, {"bands": ("B99",)}, CubeError, "Unknown band 'B99'"),
        (None, {"bands": ()}, CatalogueError, "bands is empty"),
        (None, {"bands": ("B04", "VV")}, CatalogueError, r"got VV\. Pass sar=True"),
        (None, {"bands": ("B04", "DEM")}, CatalogueError, r"got DEM\. Pass dem=True"),
        (without_scl, {}, CatalogueError, r"5 of 5 items have no SCL.*valid=your_function"),
        (nameless, {}, CatalogueError, r"No item says its CRS.*crs='EPSG:32631'"),
        (timeless, {}, CatalogueError, "has no datetime"),
        (None, {"crs": "EPSG:4326"}, CubeError, r"in degrees: expected a projected CRS.*32631"),
        (None, {"resolution": 0}, CubeError, "expected metres above 0"),
        (None, {"resampling": "best"}, CatalogueError, "expected one of nearest, bilinear"),
        (None, {"on_error": "ignore"}, CatalogueError, "expected 'raise' or 'flag'"),
        (without("sentinel-1"), {"sar": True}, CatalogueError, "no Sentinel-1 RTC item among"),
        (None, {"sar": True, "sar_orbit": "descending"}, CatalogueError, "'ascending': 5"),
        (None, {"sar": True, "sar_orbit": "up"}, CatalogueError, "expected 'ascending'"),
        (without("dem"), {"dem": True}, CatalogueError, "no DEM item reaches the grid"),
        (None, {"clear": (0,)}, CubeError, "expected classes of SCL"),
        (None, {"valid": "clouds"}, CubeError, "expected a variable of the cube"),
    ],
)
def test_bad_input_gets_a_clear_error(
    items: stac.Items, change: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = change(items) if change else items
    with pytest.raises(error, match=message):
        stac.load(given, **{"bands": ("B04",), **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeoBox.from_bbox((3, 50, 3.1, 50.1), "EPSG:4326", resolution=0.01), "metres"),
        (lambda: GeoBox.from_bbox((0, 0, 50, 50), "EPSG:32631", resolution=10).flipy(), "descend"),
        (
            lambda: GeoBox.from_bbox((9e5, 0, 9.1e5, 5e3), "EPSG:32631", resolution=10),
            "No item reaches the grid",
        ),
    ],
)
def test_a_geobox_that_cannot_be(items: stac.Items, make: Any, message: str) -> None:
    with quiet():
        box = make()
    with pytest.raises((CubeError, CatalogueError), match=message):
        stac.load(items, geobox=box, bands=("B04",))


def test_no_scl_but_a_mask_of_the_user(items: stac.Items) -> None:
    ds = stac.load(without_scl(items), bands=("B04",), valid=lambda d: d["B04"].notnull())
    assert "SCL" not in ds
    np.testing.assert_array_equal(ds["valid"], cube()["B04"].notnull())


def test_metadata_that_contradicts_itself_is_said() -> None:
    raster = {"raster:bands": [{"scale": 1e-4, "offset": 0}]}
    odd = item(asset=raster, **{"s2:processing_baseline": "05.09"})
    with pytest.warns(CubefillWarning, match="say offset 0"):
        stac.load([odd], bands=("B04",))


# ------------------------------------------------------------------ real data


def netcdf(data_folder: Path, name: str) -> xr.Dataset:
    path = next((data_folder / "worldcereal_31UDS").glob(name))
    ds = xr.open_dataset(path, mask_and_scale=False, decode_coords=False)
    return ds.rename(timestamp="time").sortby("time")


def reflectance(counts: xr.DataArray) -> np.ndarray:
    values = counts.values.astype(np.float32) * np.float32(1e-4)
    return np.where(counts.values == 0, np.float32(np.nan), values)


def test_the_real_catalogue_equals_its_source_to_the_last_count(data_folder: Path) -> None:
    start = time.perf_counter()
    names = ("B02", "B03", "B04", "B08")
    ds = stac.load(stac.search(data_folder / "stac_31UDS"), bands=names, sar=True, dem=True)
    got = ds.compute()
    assert time.perf_counter() - start < 60
    fine = netcdf(data_folder, "S2_L2A_10m*.nc")
    assert got.sizes == {"time": 118, "y": 64, "x": 64}
    np.testing.assert_array_equal(got["time"].values, fine["time"].values)
    for name in names:
        np.testing.assert_array_equal(got[name], reflectance(fine[name]), err_msg=name)
    scl = netcdf(data_folder, "S2_L2A_20m*.nc")["SCL"].values
    np.testing.assert_array_equal(got["SCL"], scl.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(got["valid"], valid.from_scl(got["SCL"]))
    assert got.attrs["offset_items"] == (
        "51 items: +0 counts (band metadata); 67 items: -1000 counts (band metadata)"
    )
    assert [t.split(":")[0] for t in got.attrs["items_left_out"]] == [
        f"S2A_31UDS_201805{day}_0_L2A" for day in ("04", "06", "09")
    ]
    assert float(got["DEM"].min()) > 0
    assert float(got["VV"].median()) == pytest.approx(-10, abs=5)
    gap = got["sar_gap_hours"].values
    assert np.abs(gap).max() < 24 * 7
    assert gap.min() < 0 < gap.max()


def test_real_20_m_bands_at_20_m(data_folder: Path) -> None:
    names = ("B05", "B06", "B07", "B8A", "B11", "B12")
    items = stac.search(data_folder / "stac_31UDS", datetime="2018-04-20/2018-05-31")
    got = stac.load(items, bands=names, resolution=20, sar="own").compute()
    coarse = netcdf(data_folder, "S2_L2A_20m*.nc").sel(time=got["time"].values)
    for name in names:
        np.testing.assert_array_equal(got[name], reflectance(coarse[name]), err_msg=name)
    radar = netcdf(data_folder, "S1*.nc").sel(time=got["sar_time"].values)
    for name in ("VV", "VH"):
        np.testing.assert_allclose(got[name], radar[name] / 1e4, atol=2e-4)
    doubled = stac.load(items, bands=names, resampling="nearest")["B05"].compute()
    np.testing.assert_array_equal(doubled, got["B05"].values.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("north_up", [True, False])
def test_items_without_outline_lie_where_their_grid_does(
    items: stac.Items, tmp_path: Path, north_up: bool
) -> None:
    whole = stac.load(items, bands=BANDS).compute()
    bare = [i.clone() for i in items if "sentinel-2" in str(i.collection_id)]
    for one in bare:
        one.geometry = one.bbox = None
        for key, asset in one.assets.items():
            if not north_up and asset.href.endswith(".tif"):
                turn_over(asset, tmp_path / f"{one.id}-{key}.tif")
    found = stac.load(bare, bands=BANDS).compute()
    xr.testing.assert_equal(found[[*BANDS, "SCL"]], whole[[*BANDS, "SCL"]])


def turn_over(asset: Any, path: Path) -> None:
    """The same pixels in a file whose first row is the southernmost."""
    with rasterio.open(asset.href) as file:
        values, profile, old = file.read(1)[::-1], file.profile, file.transform
    new = rasterio.Affine(old.a, 0, old.c, 0, -old.e, old.f + old.e * values.shape[0])
    plain = {"driver": "GTiff", "transform": new, "tiled": False}
    profile = {k: v for k, v in profile.items() if k not in ("blockxsize", "blockysize", "layout")}
    with rasterio.open(path, "w", **{**profile, **plain}) as file:
        file.write(values, 1)
    asset.href = str(path)
    asset.extra_fields["proj:transform"] = list(new)[:6]


def test_a_real_safe_granule_comes_out_without_the_tenth(data_folder: Path) -> None:
    safe = next((data_folder / "safe_T29UNU").glob("*.SAFE"))
    one = stac.from_safe(safe)
    assert one.properties["s2:processing_baseline"] == "04.00"
    assert one.properties["s2:mgrs_tile"] == "29UNU"
    names = ("B02", "B03", "B04", "B8A")
    with quiet():
        box = square(530_040, 5_839_980, 24_000, "EPSG:32629", 60)
    ds = stac.load([one], geobox=box, bands=names, resolution=60).compute()
    assert ds.attrs["offset_items"] == "1 items: -1000 counts (band metadata)"
    for name in names:
        path = next(safe.rglob(f"*_{name}_60m.jp2"))
        with rasterio.open(path) as file:
            window = rasterio.windows.from_bounds(*box.boundingbox, file.transform)
            dn = file.read(1, window=window.round_offsets().round_lengths()).astype(np.float64)
        want = np.where(dn == 0, np.nan, dn * 1e-4 - 0.1)
        np.testing.assert_allclose(ds[name][0], want, atol=1e-7)
    whole = stac.load([one], bands=names, resolution=60)
    assert whole.sizes == {"time": 1, "y": 1830, "x": 1830}
    clear = ds.where(ds["SCL"] == 4)
    assert 0.0 < float(clear["B02"].median()) < 0.06
    assert float(clear["B8A"].median()) > 0.15
