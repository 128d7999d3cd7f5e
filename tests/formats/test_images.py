"""A folder of dated images becomes the cube that it was made from, or is refused by file."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from numpy.testing import assert_array_equal
from rasterio.rio.main import main_group

import cubefill
from cubefill.errors import CubeError, CubefillWarning, ReadError, StoreError
from cubefill.formats import images
from cubefill.formats.geotiff import write_cog
from tests.shared.store_cube import store_cube

BANDS = ("B02", "B08")
SHAPE = (12, 10)


def counts(step: int, band: int) -> np.ndarray[Any, Any]:
    """Counts of a band: no two alike, 0 in one corner."""
    found = np.arange(120, dtype=np.uint16).reshape(SHAPE) + 1000 * band + 200 * step
    found[0, 0] = 0
    return found


def write(path: Path, values: np.ndarray[Any, Any], **options: Any) -> Path:
    given = {
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000),
        "crs": "EPSG:32631",
        **options,
    }
    write_cog(path, values, **given)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three dates of two bands, a file each."""
    for step, day in enumerate(("20210301", "20210306", "20210311")):
        for band, name in enumerate(BANDS, start=1):
            write(tmp_path / "s2" / f"T31UDS_{day}T105621_{name}_10m.tif", counts(step, band))
    return tmp_path / "s2"


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    cube = store_cube(3, 60, 90)
    names = ["B04", "B08", "NDVI", "fill_flag", "valid"]
    cubefill.to_geotiff(cube, tmp_path / "out", bands=names)
    got = cubefill.from_geotiffs(tmp_path / "out")
    assert set(got.data_vars) == set(names)
    for name in names:
        assert got[name].dtype == cube[name].dtype
        np.testing.assert_allclose(got[name].values, cube[name].values, atol=6e-5)
    assert_array_equal(got.x.values, cube.x.values)
    assert_array_equal(got.y.values, cube.y.values)
    days = pd.DatetimeIndex(cube.time.values).normalize()
    assert_array_equal(got.time.values, days.to_numpy("datetime64[ns]"))
    assert (crs := cubefill.cube.crs_of(got)) is not None
    assert crs.epsg == 32631
    again = got.gapfill.to_geotiff(tmp_path / "again")[1]
    with rasterio.open(again) as new, rasterio.open(tmp_path / "out" / again.name) as old:
        assert (new.transform, new.crs) == (old.transform, old.crs)
        assert_array_equal(new.read(), old.read())


def test_plain_counts_stay_counts_until_a_scale_is_given(folder: Path) -> None:
    plain = cubefill.from_geotiffs(folder)
    assert plain["B02"].dtype == np.uint16
    assert_array_equal(plain["B08"].values[1], counts(1, 2))
    with pytest.raises(CubeError, match=r"looks like digital numbers.*scale=1e-4"):
        plain.gapfill("linear", valid=plain["B02"] > 0)
    scaled = cubefill.from_geotiffs(folder, scale=1e-4, offset=-0.1)
    expected = counts(2, 1) * np.float32(1e-4) + np.float32(-0.1)
    assert scaled["B02"].dtype == np.float32
    assert np.isnan(scaled["B02"].values[:, 0, 0]).all()
    assert_array_equal(scaled["B02"].values[2].ravel()[1:], expected.ravel()[1:])


def test_tiles_and_threads_do_not_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cubefill.from_geotiffs(folder)
    monkeypatch.setattr(images, "TILE", 7)
    tiled = cubefill.from_geotiffs(folder)
    assert tiled["B02"].chunks == ((1, 1, 1), (7, 5), (7, 3))
    xr.testing.assert_identical(whole.compute(), tiled.compute())


def test_reading_is_lazy_and_named_by_the_files(folder: Path) -> None:
    first, again = (cubefill.from_geotiffs(folder)["B02"].data.name for _ in range(2))
    assert first == again
    write(next(folder.glob("*B02*")), counts(9, 9))
    assert cubefill.from_geotiffs(folder)["B02"].data.name != first


def test_classes_stay_integers_and_nodata_becomes_nan(tmp_path: Path) -> None:
    scl = np.full(SHAPE, 4, np.uint8)
    write(tmp_path / "2021-03-01_SCL.tif", scl, nodata=0)
    write(tmp_path / "2021-03-01_B04.tif", counts(0, 1).astype(np.int16), nodata=0)
    write(tmp_path / "2021-03-01_B08.tif", counts(0, 2) / 1e4, nodata=0.2001)
    got = cubefill.from_geotiffs(tmp_path)
    assert {n: v.dtype for n, v in got.data_vars.items()} == {
        "B04": np.float32,
        "B08": np.float32,
        "SCL": np.uint8,
    }
    assert np.argwhere(np.isnan(got["B04"].values)).tolist() == [[0, 0, 0]]
    assert np.argwhere(np.isnan(got["B08"].values)).tolist() == [[0, 0, 1]]


def test_scale_tags_of_a_file_are_its_own(tmp_path: Path) -> None:
    for day, scale, offset in (("2021-03-01", 1e-4, 0.0), ("2021-03-06", 2e-4, -0.1)):
        path = write(tmp_path / f"{day}_B04.tif", counts(0, 1))
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.scales, file.offsets = (scale,), (offset,)
    got = cubefill.from_geotiffs(tmp_path, scale=5.0)["B04"].values
    raw = counts(0, 1).astype(np.float32)
    np.testing.assert_allclose(got, [raw * 1e-4, raw * 2e-4 - 0.1], rtol=1e-6)


def test_bands_of_one_file_by_description_name_and_request(tmp_path: Path) -> None:
    both = np.stack([counts(0, 1), counts(0, 2)])
    told = write(tmp_path / "a" / "2021-03-01.tif", both)
    with pytest.raises(CubeError, match=r"holds 2 bands and its names are not told.*Pass bands="):
        cubefill.from_geotiffs(tmp_path / "a")
    for bands in (["B04", "swir"], lambda path: ["B04", "swir"]):
        got = cubefill.from_geotiffs(tmp_path / "a", bands=bands)
        assert_array_equal(got["swir"].values[0], counts(0, 2))
    with rasterio.open(told, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.set_band_description(1, "red")
        file.set_band_description(2, "b08")
    assert list(cubefill.from_geotiffs(tmp_path / "a").data_vars) == ["B04", "B08"]
    write(tmp_path / "b" / "red_nir_2021-03-01.tif", both)
    assert list(cubefill.from_geotiffs(tmp_path / "b").data_vars) == ["B04", "B08"]


def test_numbers_in_names_are_no_bands(tmp_path: Path) -> None:
    for orbit, day in (("R008", "20210301"), ("R051", "20210306")):
        write(tmp_path / f"{day}_{orbit}.tif", counts(0, 1))
    with pytest.raises(CubeError, match=r"Nothing tells the band of .*'R008'.*bands=\['B04'\]"):
        cubefill.from_geotiffs(tmp_path)
    assert cubefill.from_geotiffs(tmp_path, bands=["B04"])["B04"].sizes["time"] == 2
    write(tmp_path / "c" / "lai_20210301.tif", counts(0, 1))
    write(tmp_path / "c" / "lai_20210306.tif", counts(0, 1))
    assert list(cubefill.from_geotiffs(tmp_path / "c").data_vars) == ["lai"]


def test_dates_by_list_and_function(tmp_path: Path) -> None:
    for name in ("b_B04.tif", "a_B04.tif"):
        write(tmp_path / name, counts(ord(name[0]) - 97, 1))
    with pytest.raises(CubeError, match=r"a_B04.tif has no date \(none in its name\).*dates="):
        cubefill.from_geotiffs(tmp_path)
    dates = ["2021-03-06T01:00+01:00", pd.Timestamp("2021-03-01")]
    got = cubefill.from_geotiffs(tmp_path, dates=dates)
    assert_array_equal(got.time.values, np.array(["2021-03-01", "2021-03-06"], "M8[ns]"))
    assert_array_equal(got["B04"].values[0], counts(1, 1))
    with pytest.raises(CubeError, match="dates has 1 dates for 2 files"):
        cubefill.from_geotiffs(tmp_path, dates=dates[:1])
    by_name = {"a_B04": "2021-03-06", "b_B04": "2021-03-01"}
    xr.testing.assert_identical(
        cubefill.from_geotiffs(tmp_path, dates=lambda path: by_name[path.stem]), got
    )
    with pytest.raises(CubeError, match=r"a_B04.tif has no date \(7\)"):
        cubefill.from_geotiffs(tmp_path, dates=lambda path: 7)


def test_two_acquisitions_of_a_date_stay_two(folder: Path) -> None:
    for band, name in enumerate(BANDS, start=1):
        write(folder / "second" / f"T31UDS_20210306T105621_{name}_10m.tif", counts(7, band))
    got = cubefill.from_geotiffs(folder)
    assert got.sizes["time"] == 4
    assert got.time.values[1] == got.time.values[2]
    pair = {int(got["B02"].values[i, 5, 5]) for i in (1, 2)}
    assert pair == {int(counts(1, 1)[5, 5]), int(counts(7, 1)[5, 5])}
    assert_array_equal(
        got["B08"].values - got["B02"].values,
        np.broadcast_to(np.where(counts(0, 1), 1000, 0), (4, *SHAPE)),
    )
    next((folder / "second").glob("*B08*")).unlink()
    with pytest.raises(CubeError, match=r"2 files of some bands and 1 of B08"):
        cubefill.from_geotiffs(folder)


def test_a_date_without_a_band_is_said(folder: Path) -> None:
    next(folder.glob("*20210306*B08*")).unlink()
    with pytest.warns(CubefillWarning, match=r"1 dates have no file of B08 \(2021-03-06\)"):
        got = cubefill.from_geotiffs(folder, scale=1e-4)
    assert np.isnan(got["B08"].values[1]).all()


def test_a_mask_belongs_to_the_image_of_its_day(folder: Path) -> None:
    for day in ("20210301", "20210306", "20210311"):
        with_day = np.full(SHAPE, int(day[-2:]), np.uint8)
        write(folder / f"mask_{day}.tif", with_day)
    got = cubefill.from_geotiffs(folder)
    assert got.sizes["time"] == 3
    assert_array_equal(got["mask"].values[:, 0, 0], [1, 6, 11])
    (folder / "mask_20210306.tif").unlink()
    with pytest.raises(CubeError, match=r"2021-03-06 has no file of mask, whose numbers name no"):
        cubefill.from_geotiffs(folder)


def test_another_grid_is_refused_and_the_advice_leads_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sorted(folder.iterdir())[0]
    odd = write(
        folder / "T31UDS_20210316T105621_B02_20m.tif",
        counts(0, 1)[::2, ::2],
        transform=rasterio.Affine(20, 0, 500_000, 0, -20, 5_600_000),
    )
    with pytest.raises(
        CubeError, match=r"B02_20m.tif lies on another grid \(6 x 5 px of 20"
    ) as said:
        cubefill.from_geotiffs(folder)
    assert cubefill.from_geotiffs(folder, pattern="*_10m.tif").sizes["time"] == 3
    typed = str(said.value).partition("or use rio ")[2].split()
    assert typed == ["warp", odd.name, "new.tif", "--like", first.name]
    monkeypatch.chdir(folder)
    main_group(typed, standalone_mode=False)
    shutil.move(folder / "new.tif", odd)
    with pytest.warns(CubefillWarning, match="no file of B08"):
        assert cubefill.from_geotiffs(folder, scale=1e-4).sizes["time"] == 4


def test_other_crs_and_shift_are_other_grids(folder: Path) -> None:
    for options in (
        {"crs": "EPSG:32632"},
        {"transform": rasterio.Affine(10, 0, 500_010, 0, -10, 5_600_000)},
    ):
        write(folder / "T31UDS_20210316T105621_B02_10m.tif", counts(0, 1), **options)
        with pytest.raises(CubeError, match=r"20210316T105621_B02_10m.tif lies on another grid"):
            cubefill.from_geotiffs(folder)


def test_a_corrupt_file_is_named(folder: Path) -> None:
    bad = sorted(folder.iterdir())[2]
    whole = bad.read_bytes()
    bad.write_bytes(b"<html>404</html>")
    with pytest.raises(StoreError, match=rf"{bad.name} cannot be read"):
        cubefill.from_geotiffs(folder)
    rng = np.random.default_rng(0)
    write(bad, rng.integers(1, 9000, SHAPE, dtype=np.uint16))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-800] + b"\xff" * 800)
    got = cubefill.from_geotiffs(folder)
    with pytest.raises(ReadError, match=rf"{bad.name}, band 1, cannot be read at rows \(0, 12\)"):
        got.compute()


def test_files_without_place_or_turned_are_refused(tmp_path: Path) -> None:
    turned = rasterio.Affine(10, 1, 500_000, 1, -10, 5_600_000)
    for transform, word in ((rasterio.Affine.identity(), "no"), (turned, "a turned")):
        path = tmp_path / "2021-03-01_B04.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            write(path, counts(0, 1), transform=transform)
        with pytest.raises(CubeError, match=f"B04.tif has {word} georeference"):
            cubefill.from_geotiffs(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No folder"):
        cubefill.from_geotiffs(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("")
    write(tmp_path / ".hidden" / "2021-03-01_B04.tif", counts(0, 1))
    with pytest.raises(StoreError, match="No image in"):
        cubefill.from_geotiffs(tmp_path)


def test_paths_are_taken_in_any_order(folder: Path) -> None:
    paths = sorted(folder.iterdir(), reverse=True)
    same = cubefill.from_geotiffs(map(str, paths)).compute()
    xr.testing.assert_equal(same, cubefill.from_geotiffs(folder).compute())


def test_an_offset_that_names_tell_is_asked_for(tmp_path: Path) -> None:
    product = "S2A_MSIL2A_20220301T105031_N0400_R051_T31UDS_20220301T151211.SAFE"
    write(tmp_path / product / "T31UDS_20220301T105031_B04_10m.tif", counts(0, 1))
    with pytest.warns(CubefillWarning, match=r"baseline N0400.*offset=-0.1, or offset=0"):
        cubefill.from_geotiffs(tmp_path, scale=1e-4)
    for offset in (-0.1, 0):
        cubefill.from_geotiffs(tmp_path, scale=1e-4, offset=offset)
    with pytest.raises(CubeError, match="without a scale"):
        cubefill.from_geotiffs(tmp_path, offset=-0.1)


def test_mixed_counts_and_reflectance_are_refused(folder: Path) -> None:
    with rasterio.open(sorted(folder.iterdir())[0], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.scales = (1e-4,)
    with pytest.raises(CubeError, match=r"B02 has a scale in some files and none in .*0306"):
        cubefill.from_geotiffs(folder)
    cubefill.from_geotiffs(folder, scale=1e-4)


def test_a_safe_folder_of_jpeg2000(tmp_path: Path) -> None:
    safe = tmp_path / "S2A_MSIL2A_20210301T105621_N0214_R094_T31UDS_20210302T131211.SAFE"
    for step, folder in ((10, "R10m"), (20, "R20m")):
        inside = safe / "GRANULE" / "L2A_T31UDS_A029" / "IMG_DATA" / folder
        inside.mkdir(parents=True)
        profile = {
            "driver": "JP2OpenJPEG",
            "height": 120 // step,
            "width": 100 // step,
            "count": 1,
            "dtype": "uint16",
            "crs": "EPSG:32631",
            "transform": rasterio.Affine(step, 0, 500_000, 0, -step, 5_600_000),
            "REVERSIBLE": "YES",
            "QUALITY": "100",
        }
        for band, name in enumerate(BANDS, start=1):
            path = inside / f"T31UDS_20210301T105621_{name}_{step}m.jp2"
            with rasterio.open(path, "w", **profile) as file:
                file.write(counts(0, band)[:: step // 10, :: step // 10], 1)
    with pytest.raises(CubeError, match=r"_20m.jp2 lies on another grid .*Pass pattern="):
        cubefill.from_geotiffs(tmp_path)
    got = cubefill.from_geotiffs(tmp_path, pattern="*_B0[2348]_10m.jp2", scale=1e-4)
    assert got.time.values.tolist() == [np.datetime64("2021-03-01T10:56:21", "ns").astype(int)]
    expected = counts(0, 2) * np.float32(1e-4)
    assert_array_equal(got["B08"].values[0].ravel()[1:], expected.ravel()[1:])


def test_names_that_a_user_gives_are_bands_too(tmp_path: Path) -> None:
    write(tmp_path / "2021-03-01.tif", counts(0, 1))
    got = cubefill.from_geotiffs(tmp_path, bands="red", scale=1e-4)
    expected = counts(0, 1) * np.float32(1e-4)
    assert_array_equal(got["red"].values[0].ravel()[1:], expected.ravel()[1:])


def test_a_cube_of_files_goes_through_a_store_and_back_over_its_files(tmp_path: Path) -> None:
    cube = store_cube(3, 60, 90)
    cubefill.to_geotiff(cube, tmp_path / "out", bands=["B04", "B08", "valid"])
    lazy = cubefill.from_geotiffs(tmp_path / "out")
    stored = cubefill.write_cube(lazy, tmp_path / "cube.zarr", progress=False)
    assert_array_equal(stored["B04"].values, lazy["B04"].values)
    filled = lazy.gapfill("linear")
    want = filled.compute()
    filled.gapfill.to_geotiff(tmp_path / "out", overwrite=True)
    again = cubefill.from_geotiffs(tmp_path / "out", pattern="????-??-??.tif")
    np.testing.assert_allclose(again["B08"].values, want["B08"].values, atol=6e-5)
