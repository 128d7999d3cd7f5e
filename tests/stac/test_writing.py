import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from cubefill import stac
from cubefill.cube import valid
from cubefill.errors import CatalogueError, CubeError, CubefillWarning
from cubefill.stac.writing import QUIRKS
from tests.shared.stac_cases import BANDS, cube


def roundtrip(folder: Path, ds: xr.Dataset, quirk: str | None = None, **options: Any) -> xr.Dataset:
    stac.write_catalogue(ds, folder, quirk=quirk)
    return stac.load(stac.search(folder), bands=BANDS, **options).compute()


@pytest.mark.parametrize("quirk", [None, *QUIRKS])
def test_every_quirk_loads_to_the_same_cube(tmp_path: Path, quirk: str | None) -> None:
    ds = cube()
    got = roundtrip(tmp_path, ds, quirk)
    for name in (*BANDS, "SCL"):
        np.testing.assert_array_equal(got[name], ds[name], err_msg=name)
    np.testing.assert_array_equal(got["valid"], valid.from_scl(ds["SCL"]))
    for dim in ("time", "y", "x"):
        np.testing.assert_array_equal(got[dim].values, ds[dim].values)
    assert got.attrs["boa_offset_harmonized"] == 1


@pytest.mark.parametrize(
    ("quirk", "said"),
    [
        (None, "5 items: +0 counts (band metadata)"),
        ("offset", "5 items: -1000 counts (band metadata)"),
        ("offset_applied", "5 items: +0 counts (boa_offset_applied)"),
        ("no_raster_bands", "5 items: -1000 counts (processing baseline >= 04.00)"),
        ("stac11_bands", "5 items: -1000 counts (band metadata)"),
        ("planetary_computer", "5 items: -1000 counts (processing baseline >= 04.00)"),
        ("cdse", "5 items: -1000 counts (band metadata)"),
        ("duplicates", "3 items: +0 counts (band metadata); 2 items: -1000 counts (band metadata)"),
    ],
)
def test_the_offset_that_was_taken_off_is_reported(
    tmp_path: Path, quirk: str | None, said: str
) -> None:
    stac.write_catalogue(cube(), tmp_path, quirk=quirk)
    assert stac.load(stac.search(tmp_path), bands=BANDS).attrs["offset_items"] == said


def test_harmonize_false_shows_what_is_stored(tmp_path: Path) -> None:
    ds = cube()
    got = roundtrip(tmp_path, ds, "offset", harmonize=False)
    np.testing.assert_allclose(got["B04"], ds["B04"] + 0.1, atol=1e-6)
    assert got.attrs["boa_offset_harmonized"] == 0
    again = stac.load(stac.search(tmp_path), bands=BANDS, harmonize=-1000).compute()
    np.testing.assert_array_equal(again["B04"], ds["B04"])


def test_copies_are_left_out(tmp_path: Path) -> None:
    got = roundtrip(tmp_path, cube(), "duplicates")
    assert got.attrs["items"][0] == "S2A_32631_20210501_1_L2A"
    assert len(got.attrs["items_left_out"]) == 2
    assert "has 05.09 of the same scene" in got.attrs["items_left_out"][0]


def test_loading_twice_takes_the_offset_off_once(tmp_path: Path) -> None:
    ds = roundtrip(tmp_path / "a", cube(), "offset")
    again = roundtrip(tmp_path / "b", ds, "stac11_bands")
    np.testing.assert_array_equal(again["B02"], ds["B02"])


def test_sar_and_dem_come_back(tmp_path: Path) -> None:
    ds = cube(sar=True)
    got = roundtrip(tmp_path, ds, sar=True, dem=True)
    for name in ("VV", "VH"):
        np.testing.assert_allclose(got[name], ds[name], atol=1e-5)
    np.testing.assert_array_equal(got["DEM"], ds["DEM"])
    np.testing.assert_allclose(got["sar_gap_hours"], ds["sar_gap_hours"], atol=1e-3)
    own = stac.load(stac.search(tmp_path), bands=BANDS, sar="own").compute()
    assert own["VV"].dims == ("sar_time", "y", "x")
    again = roundtrip(tmp_path / "own", own, sar="own")
    np.testing.assert_allclose(again["VV"], own["VV"], atol=1e-5)
    np.testing.assert_array_equal(again["sar_time"].values, own["sar_time"].values)
    np.testing.assert_array_equal(again["orbit"].values, own["orbit"].values)


def test_files_are_cloud_optimised_and_hrefs_relative(tmp_path: Path) -> None:
    stac.write_catalogue(cube(sar=True), tmp_path)
    document = json.loads((tmp_path / "items.json").read_text())
    assert {f["collection"] for f in document["features"]} == {
        "sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30",
    }  # fmt: skip
    for feature in document["features"]:
        for asset in feature["assets"].values():
            assert asset["href"].startswith("./")
            with rasterio.open(tmp_path / asset["href"]) as file:
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert file.crs == "EPSG:32631"
    assert not [p for p in tmp_path.rglob("*.json") if str(tmp_path) in p.read_text()]
    one = stac.search(tmp_path / "catalog.json")
    other = stac.search(tmp_path / "items.json")
    assert sorted(i.id for i in one) == sorted(i.id for i in other)
    hrefs = [sorted(a.href for i in s for a in i.assets.values()) for s in (one, other)]
    assert hrefs[0] == hrefs[1]


def test_dark_pixels_are_not_lost(tmp_path: Path) -> None:
    ds = cube(dates=1)
    ds["B02"] = ds["B02"].where(ds["B02"].isnull(), np.float32(-0.02))
    plain = roundtrip(tmp_path / "a", ds)
    np.testing.assert_array_equal(plain["B02"].isnull(), ds["B02"].isnull())
    with_offset = roundtrip(tmp_path / "b", ds, "offset")
    np.testing.assert_array_equal(with_offset["B02"], ds["B02"])


def test_without_scl_valid_is_written(tmp_path: Path) -> None:
    ds = cube()
    clear = ds["SCL"] == 4
    got = roundtrip(tmp_path, ds.drop_vars("SCL").assign(valid=clear).chunk(), dilate=0)
    np.testing.assert_array_equal(got["valid"], clear)


def test_a_copy_does_not_take_the_name_of_the_next_acquisition(tmp_path: Path) -> None:
    ds = cube()
    times = ds.time.values.copy()
    times[1] = times[0] + np.timedelta64(14, "s")
    stac.write_catalogue(ds.assign_coords(time=times), tmp_path, quirk="duplicates")
    ids = [i["id"] for i in json.loads((tmp_path / "items.json").read_text())["features"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "part",
    [{}, {"y": slice(None, None, -1)}, {"x": [3]}, {"y": [3]}, {"x": [3], "y": [3]}],
    ids=["north up", "south up", "one column", "one row", "one pixel"],
)
def test_assets_lie_where_the_pixels_are(tmp_path: Path, part: dict[str, Any]) -> None:
    ds = cube()
    x, y = ds.x.values[0], ds.y.values[0]
    given = ds.assign_coords(x=ds.x - 5, y=ds.y + 5).assign_attrs(
        transform=(10, 0, float(x) - 5, 0, -10, float(y) + 5)
    )
    with pytest.warns(CubefillWarning, match="x and y are corners of pixels"):
        stac.write_catalogue(given.isel(time=[0]).isel(part), tmp_path)
    path = next(tmp_path.rglob("B04.tif"))
    truth = ds["B04"].isel(time=0).isel(part)
    with rasterio.open(path) as file:
        assert file.shape == truth.shape
        for row in (0, -1):
            for column in (0, -1):
                place = file.xy(row % file.height, column % file.width)
                assert place == (truth.x.values[column], truth.y.values[row])


def test_refusals(tmp_path: Path) -> None:
    ds = cube(dates=1)
    with pytest.raises(CatalogueError, match="quirk='sentinel': expected one of offset"):
        stac.write_catalogue(ds, tmp_path, quirk="sentinel")
    with pytest.raises(CubeError, match="neither SCL nor valid"):
        stac.write_catalogue(ds.drop_vars("SCL"), tmp_path)
    with pytest.raises(CubeError, match="No band to write"):
        stac.write_catalogue(ds[["SCL"]], tmp_path / "b")
    with pytest.raises(CubeError, match="lacks dimension time"):
        stac.write_catalogue(ds.isel(time=0, drop=True), tmp_path / "c")
    with pytest.raises(CubeError, match=r"no CRS.*assign_attrs"):
        stac.write_catalogue(ds.drop_vars("spatial_ref"), tmp_path / "d")
    stac.write_catalogue(ds, tmp_path / "e")
    with pytest.raises(CatalogueError, match=r"exists.*overwrite=True"):
        stac.write_catalogue(ds, tmp_path / "e")
    stac.write_catalogue(ds, tmp_path / "e", overwrite=True)
    (tmp_path / "f").write_text("")
    with pytest.raises(CatalogueError, match="left alone"):
        stac.write_catalogue(ds, tmp_path / "f")
