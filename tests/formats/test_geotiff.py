from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.testing import assert_array_equal

from cubefill.errors import CubeError, CubefillWarning, StoreError
from cubefill.formats import geotiff as store_geotiff
from cubefill.formats.geotiff import to_geotiff, write_cog
from tests.shared.store_cube import store_cube


@pytest.fixture
def cube() -> xr.Dataset:
    return store_cube(3, 60, 90)


def test_one_cog_a_date_with_bands_as_bands(tmp_path: Path, cube: xr.Dataset) -> None:
    paths = to_geotiff(cube, tmp_path / "out")
    assert [p.name for p in paths] == ["2021-03-01.tif", "2021-03-06.tif", "2021-03-11.tif"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in paths]
    for step, path in enumerate(paths):
        with rasterio.open(path) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.descriptions == ("B04", "B08")
            assert file.dtypes == ("int16", "int16")
            assert file.scales == (1e-4, 1e-4)
            assert file.offsets == (0.0, 0.0)
            assert file.nodata == -32768
            assert file.crs.to_epsg() == 32631
            assert file.transform[:6] == (10, 0, 500_000, 0, -10, 5_600_000)
            assert file.tags()["TIFFTAG_DATETIME"].startswith("2021:03:")
            assert file.tags(1)["wavelength_nm"] == "665"
            for i, name in enumerate(("B04", "B08"), start=1):
                counts = file.read(i)
                values = counts.astype(np.float32) * np.float32(1e-4)
                values[counts == -32768] = np.nan
                assert_array_equal(values, cube[name].values[step])


def test_tiles_do_not_show(
    tmp_path: Path, cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = to_geotiff(cube, tmp_path / "a", bands=["B04"], time=["2021-03-06T10:56:21.024"])
    monkeypatch.setattr(store_geotiff, "TILE", 32)
    lazy = cube.chunk(time=1, y=25, x=25)
    [tiled] = to_geotiff(lazy, tmp_path / "b", bands=["B04"], time=["2021-03-06T10:56:21.024"])
    assert_array_equal(rasterio.open(whole).read(), rasterio.open(tiled).read())


def test_other_variables_have_files_of_their_own(tmp_path: Path, cube: xr.Dataset) -> None:
    names = ["B08", "NDVI", "fill_flag", "B04_std", "valid", "DEM"]
    paths = to_geotiff(cube, tmp_path, bands=names, time="2021-03-06")
    assert [p.name for p in paths] == [
        "2021-03-06.tif",
        *(f"2021-03-06_{n}.tif" for n in names[1:]),
    ]
    expected = {
        "NDVI": ("int16", -32768),
        "fill_flag": ("uint8", None),
        "B04_std": ("uint16", 65535),
        "valid": ("uint8", None),
    }
    for name, (dtype, nodata) in expected.items():
        with rasterio.open(tmp_path / f"2021-03-06_{name}.tif") as file:
            assert (file.dtypes[0], file.nodata) == (dtype, nodata)
    with rasterio.open(tmp_path / "2021-03-06_fill_flag.tif") as file:
        assert_array_equal(file.read(1), cube.fill_flag.values[1])
        assert file.tags(1)["flag_meanings"] == "observed interpolated same_date"
        assert file.tags(1)["flag_values"] == "0 1 2"
    with rasterio.open(tmp_path / "2021-03-06_DEM.tif") as file:
        assert_array_equal(file.read(1), cube.DEM.values)
        assert np.isnan(file.nodata)


def test_a_cube_of_ndvi_alone(tmp_path: Path, cube: xr.Dataset) -> None:
    paths = to_geotiff(cube[["NDVI"]], tmp_path)
    assert paths[0].name == "2021-03-01_NDVI.tif"


def test_a_day_with_two_acquisitions(tmp_path: Path, cube: xr.Dataset) -> None:
    times = cube.time.values.copy()
    times[1] = times[0] + np.timedelta64(1, "h")
    paths = to_geotiff(cube.assign_coords(time=times), tmp_path, bands="B04")
    assert len({p.name for p in paths}) == 3


@pytest.mark.parametrize(
    "turn",
    [
        lambda d: d,
        lambda d: d.sortby("y"),
        lambda d: d.sortby("x", ascending=False),
        lambda d: d.isel(x=[3]),
        lambda d: d.isel(y=[5]),
        lambda d: d.isel(x=[3], y=[5]),
    ],
)
@pytest.mark.parametrize("corner", [False, True])
def test_every_pixel_lies_where_it_did(
    tmp_path: Path, cube: xr.Dataset, turn: Callable[[xr.Dataset], xr.Dataset], corner: bool
) -> None:
    """North or south up, west or east first, one pixel wide; given by centres or by corners."""
    ds = turn(cube[["B04"]].isel(time=[0], x=slice(12), y=slice(9)))
    given = ds.assign_attrs(transform=(10, 0, 500_000, 0, -10, 5_600_000))
    if corner:
        given = given.assign_coords(x=ds.x - 5, y=ds.y + 5)
        with pytest.warns(CubefillWarning, match="x and y are corners of pixels"):
            [path] = to_geotiff(given, tmp_path)
    else:
        [path] = to_geotiff(given, tmp_path)
    x, y = np.meshgrid(ds.x, ds.y)
    with rasterio.open(path) as file:
        counts = np.array([v[0] for v in file.sample(zip(x.ravel(), y.ravel(), strict=True))])
    found = np.where(counts == -32768, np.nan, counts * np.float32(1e-4)).reshape(x.shape)
    assert_array_equal(found.astype(np.float32), ds.B04.values[0])


def test_a_crs_of_any_tool_is_in_the_file_and_its_absence_said(
    tmp_path: Path, cube: xr.Dataset
) -> None:
    bare = cube[["B04"]].isel(time=[0]).drop_vars("spatial_ref")
    [path] = to_geotiff(bare.assign_coords(epsg=32631), tmp_path / "a")
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32631
    with pytest.warns(CubefillWarning, match="names no CRS, so the GeoTIFF has none"):
        [path] = to_geotiff(bare, tmp_path / "b")
    with rasterio.open(path) as file:
        assert file.crs is None


def test_equal_times_have_files_of_their_own(tmp_path: Path, cube: xr.Dataset) -> None:
    times = cube.time.values[[0, 0, 0]]
    twice = cube[["B04"]].assign_coords(time=times)
    paths = to_geotiff(twice, tmp_path / "a")
    for step, path in enumerate(paths):
        with rasterio.open(path) as file:
            values = np.where(file.read(1) == -32768, np.nan, file.read(1) * np.float32(1e-4))
        assert_array_equal(values.astype(np.float32), cube.B04.values[step])
    chosen = to_geotiff(twice, tmp_path / "b", time=times[0])
    assert [p.name for p in chosen] == [p.name for p in paths]
    with pytest.raises(CubeError, match=r"holds a time twice.*Pass time="):
        to_geotiff(twice, tmp_path / "c", time=list(times[:1]))


def test_the_name_of_a_date_does_not_depend_on_the_choice(tmp_path: Path, cube: xr.Dataset) -> None:
    times = cube.time.values.copy()
    times[1] = times[0] + np.timedelta64(1, "h")
    day = cube[["B04"]].assign_coords(time=times)
    paths = to_geotiff(day, tmp_path / "a")
    assert [to_geotiff(day, tmp_path / "b", time=[t])[0].name for t in times] == [
        p.name for p in paths
    ]


def test_refusals(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.raises(CubeError, match=r"No variable B99 to write: expected some of B04, B08"):
        to_geotiff(cube, tmp_path, bands=["B99"])
    with pytest.raises(CubeError, match=r"No date '2019-01-01'.*from 2021-03-01 to 2021-03-11"):
        to_geotiff(cube, tmp_path, time="2019-01-01")
    absent: list[Any] = [10, "2030", slice("2030", "2031"), [], 3.5, "x"]
    for time in absent:
        with pytest.raises(CubeError, match=r"No date .*from 2021-03-01 to 2021-03-11"):
            to_geotiff(cube, tmp_path, time=time)
    with pytest.raises(CubeError, match=r"no time axis.*expand_dims"):
        to_geotiff(cube.isel(time=0), tmp_path)
    with pytest.raises(CubeError, match="x has steps of 10 to 40"):
        to_geotiff(cube.isel(x=[0, 1, 5, 6]), tmp_path)
    with pytest.raises(CubeError, match="no x and y coordinates"):
        to_geotiff(cube.drop_vars(["x", "y"]), tmp_path)
    paths = to_geotiff(cube, tmp_path)
    with pytest.raises(StoreError, match=r"2 other files exist.*overwrite=True"):
        to_geotiff(cube, tmp_path)
    assert to_geotiff(cube, tmp_path, overwrite=True) == paths
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        to_geotiff(cube, file)


def test_one_call_writes_an_image_of_several_bands_into_a_new_folder(tmp_path: Path) -> None:
    pixels = np.arange(2 * 600 * 520, dtype=np.float32).reshape(2, 600, 520)
    path = tmp_path / "new" / "a.tif"
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
    write_cog(path, pixels, transform=transform, crs="EPSG:32631", nodata=-1)
    with rasterio.open(path) as file:
        assert_array_equal(file.read(), pixels)
        assert (file.nodata, file.crs.to_epsg(), file.transform) == (-1, 32631, transform)
        assert file.overviews(1) == [2]
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
