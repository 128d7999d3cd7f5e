import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import cube
from cubefill.engine import gapfill
from cubefill.errors import CubeError, StoreError
from cubefill.formats import earthnet as minicube
from cubefill.formats.earthnet import (
    CleanWindow,
    clean_windows_of,
    read,
    read_clean_windows,
    tile_corner,
)

NAME = "33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz"


def images(steps: int = 10, channels: int = 5, size: int = 12) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 1.2, (size, size, channels, steps)).astype(np.float16)
    a[:, :, -1] = rng.random((size, size, steps)) < 0.3
    return a


def write(folder: Path, prefix: str = "context_", **arrays: Any) -> Path:
    path = folder / (prefix + NAME)
    np.savez(path, **({"highresdynamic": images()} | arrays))
    return path


def test_values_mask_and_dates(tmp_path: Path) -> None:
    a = images()
    a[3, 4, 1, 2] = np.nan
    a[3, 4, -1, 2] = 0
    ds = cube.check(read(write(tmp_path, highresdynamic=a)))
    assert cube.spectral(ds) == ("B02", "B03", "B04", "B08")
    for i, band in enumerate(cube.spectral(ds)):
        expected = np.clip(a[:, :, i].astype(np.float32), 0, 1).transpose(2, 0, 1)
        np.testing.assert_array_equal(ds[band].values, expected)
        assert ds[band].dtype == np.float32
    clear = (a[:, :, -1] == 0).transpose(2, 0, 1)
    assert not ds["valid"].values[2, 3, 4]
    clear[2, 3, 4] = False
    np.testing.assert_array_equal(ds["valid"].values, clear)
    days = ds["time"].values.astype("M8[D]").astype(str)
    assert days[:2].tolist() == ["2019-05-20", "2019-05-25"]


def test_values_above_one_are_kept_when_asked(tmp_path: Path) -> None:
    ds = read(write(tmp_path), clip=False, nir="B8A")
    assert float(ds["B8A"].max()) > 1
    assert "B08" not in ds


def test_target_goes_on_after_the_context(tmp_path: Path) -> None:
    target = read(write(tmp_path, "target_", highresdynamic=images(20)))
    assert str(target["time"].values[0])[:10] == "2019-07-09"
    whole = read(write(tmp_path, "", highresdynamic=images(30, 7)))
    np.testing.assert_array_equal(whole["time"].values[10:], target["time"].values)
    assert whole["SCL"].dtype == np.uint8


def test_place(tmp_path: Path) -> None:
    ds = read(write(tmp_path))
    assert cube.crs_of(ds).epsg == 32633  # type: ignore[union-attr]
    _, left, top = tile_corner("33SXD")
    assert float(ds["y"][0]) == top - 20 * 4025 - 10
    assert float(ds["x"][0]) == left + 20 * 3129 + 10
    assert cube.resolution_of(ds) == 20
    assert float(ds["y"][1]) < float(ds["y"][0])
    other = tmp_path / "mine.npz"
    np.savez(other, highresdynamic=images())
    assert cube.crs_of(read(other)) is None


def test_elevation_in_metres(tmp_path: Path) -> None:
    ds = read(write(tmp_path, highresstatic=np.full((12, 12, 1), 0.5, np.float16)))
    np.testing.assert_array_equal(ds["DEM"].values, 0)


@pytest.mark.parametrize(
    ("tile", "expected"),
    [
        ("31UDS", (32631, 399960, 5700000)),
        ("31TCJ", (32631, 300000, 4900020)),
        ("33UUP", (32633, 300000, 5400000)),
        ("29SND", (32629, 499980, 4400040)),
        ("21LXF", (32721, 600000, 8600020)),
        ("56HLH", (32756, 300000, 6300040)),
    ],
)
def test_tile_corner(tile: str, expected: tuple[int, int, int]) -> None:
    assert tile_corner(tile) == expected


@pytest.mark.parametrize("tile", ["", "99UDS", "31IDS", "31UZS", "31UDSX", "abcde"])
def test_what_is_no_tile(tile: str) -> None:
    with pytest.raises(CubeError, match="MGRS"):
        tile_corner(tile)


def test_tile_corner_of_a_real_granule(data_folder: Path) -> None:
    path = next((data_folder / "safe_T29UNU").rglob("MTD_TL.xml"))
    text = path.read_text()
    found = [float(re.findall(f"<{n}>(.*?)</{n}>", text)[0]) for n in ("ULX", "ULY")]
    assert tile_corner("29UNU")[1:] == tuple(found)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No file"):
        read(tmp_path / "absent.npz")
    (tmp_path / "a.tif").touch()
    with pytest.raises(StoreError, match="EarthNet2021"):
        read(tmp_path / "a.tif")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(CubeError, match="something"):
        read(tmp_path / "other.npz")
    with pytest.raises(CubeError, match="channels"):
        read(write(tmp_path, highresdynamic=images(channels=4)))
    with pytest.raises(CubeError, match="4 axes"):
        read(write(tmp_path, highresdynamic=np.zeros((2, 2, 2))))
    np.savez(tmp_path / "evil.npz", highresdynamic=np.array([{}], object))
    with pytest.raises(StoreError, match="cannot be read"):
        read(tmp_path / "evil.npz")
    (tmp_path / "cut.npz").write_bytes(write(tmp_path).read_bytes()[:100])
    with pytest.raises(StoreError, match="cannot be read"):
        read(tmp_path / "cut.npz")


# ------------------------------------------------------------------ GreenEarthNet


def green(folder: Path, mask: str = "s2_dlmask") -> Path:
    rng = np.random.default_rng(1)
    dims = ("time", "lat", "lon")
    bands = {f"s2_{b}": (dims, rng.random((150, 6, 7))) for b in ("B02", "B03", "B04", "B8A")}
    codes = rng.integers(0, 4, (150, 6, 7)).astype(float)
    ds = xr.Dataset(
        {**bands, mask: (dims, codes, {"classes": "0 - free sky 1 - cloud"})},
        {
            "time": np.datetime64("2021-05-10", "ns") + np.arange(150).astype("m8[D]"),
            "lat": 39.3 - 0.00018 * np.arange(6),
            "lon": -8.57 + 0.00023 * np.arange(7),
        },
    )
    ds["cop_dem"] = (("lat", "lon"), rng.random((6, 7)))
    path = folder / "cube.nc"
    ds.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("mask", ["s2_dlmask", "s2_mask"])
def test_green_earth_net(tmp_path: Path, mask: str) -> None:
    path = green(tmp_path, mask)
    ds = cube.check(read(path))
    assert ds.sizes == {"time": 30, "y": 6, "x": 7}
    assert str(ds["time"].values[0])[:10] == "2021-05-14"
    with xr.open_dataset(path) as given:
        codes = given[mask].values[4::5]
        np.testing.assert_array_equal(ds["valid"].values, codes == 0)
        np.testing.assert_array_equal(ds["lat"].values, given["lat"].values)
    assert "free sky" in ds["valid"].attrs["comment"]
    assert cube.resolution_of(ds) == 20


def test_green_earth_net_without_a_band(tmp_path: Path) -> None:
    path = tmp_path / "less.nc"
    with xr.open_dataset(green(tmp_path)) as ds:
        ds.drop_vars("s2_B8A").to_netcdf(path, engine="h5netcdf")
    with pytest.raises(CubeError, match="s2_B8A"):
        read(path)


def test_green_earth_net_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "cut.nc"
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="netCDF"):
        read(path)


# ------------------------------------------------------------------ land cover, clean windows


def test_landcover(tmp_path: Path) -> None:
    assert len(minicube.LANDCOVER) == 15
    path = tmp_path / NAME
    np.savez(path, landcover=np.full((1, 12, 12), 73, np.uint8))
    codes = minicube.read_landcover(path)
    assert codes.dims == ("y", "x")
    assert (codes == 73).all()
    np.testing.assert_array_equal(codes["x"], read(write(tmp_path))["x"])
    with pytest.raises(StoreError, match="No file"):
        minicube.read_landcover(tmp_path / "absent.npz")
    np.savez(path, landcover=np.zeros((2, 12, 12), np.uint8))
    with pytest.raises(CubeError, match="one map"):
        minicube.read_landcover(path)


def test_clean_windows(tmp_path: Path) -> None:
    path = tmp_path / "clean.json"
    entry = {"path": "train/x.npz", "kernel size": 4, "bbox": [2, 3], "time steps": [4, 5, 6]}
    path.write_text(json.dumps({"34S": [entry], "33U": []}))
    found = read_clean_windows(path)
    assert found["34S"] == (CleanWindow("train/x.npz", 4, 2, 3, (4, 5, 6)),)
    part = found["34S"][0].cut(read(write(tmp_path)))
    assert part.sizes == {"time": 3, "y": 4, "x": 4}


def test_neighbours_lend_clean_windows() -> None:
    def at(path: str) -> tuple[CleanWindow, ...]:
        return (CleanWindow(path, 64, 0, 0, (0, 1, 2)),)

    found = {"32U": at("west"), "34U": at("east"), "01C": at("first"), "60X": at("last")}
    assert clean_windows_of(found, "32U")[0].path == "west"
    assert clean_windows_of(found, "33U")[0].path == "east"
    assert clean_windows_of(found, "35U")[0].path == "east"
    assert clean_windows_of(found, "60C")[0].path == "first"
    assert clean_windows_of(found, "01X")[0].path == "last"
    assert clean_windows_of(found, "33S") == ()


@pytest.mark.parametrize("text", ["no json", "[]", '{"33S": [{"path": "x"}]}', '{"33S": [3]}'])
def test_bad_lists_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clean.json"
    path.write_text(text)
    with pytest.raises((StoreError, CubeError)):
        read_clean_windows(path)


# ------------------------------------------------------------------ real files


def test_real_earthnet(data_folder: Path) -> None:
    folder = data_folder / "earthnet2021"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    ds = cube.check(read(next(folder.glob("context_33SXD*"))))
    share = 1 - ds["valid"].values.mean((1, 2))
    expected = [0, 1, 0.797, 0.016, 0.003, 0, 0, 0.745, 0, 0]
    np.testing.assert_allclose(share, expected, atol=6e-4)
    np.testing.assert_allclose(ds["B02"].values.max(), 1)
    context = read(next(folder.glob("context_29SND*")))
    target = read(folder / f"target_{Path(context.attrs['source']).name[8:]}")
    whole = xr.concat([context.drop_vars("DEM"), target], "time")
    assert len(np.unique(np.diff(whole["time"].values))) == 1
    missing = np.isnan(target["B02"].values).all((1, 2))
    assert missing.sum() == 4
    assert not target["valid"].values[missing].any()
    out = gapfill(whole, "linear").compute()
    assert np.isfinite(out["B08"].values).all()


def test_real_green_earth_net(data_folder: Path) -> None:
    folder = data_folder / "greenearthnet"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    found = [p for p in folder.glob("*.nc") if "forecast" not in p.name]
    for path in found:
        ds = cube.check(read(path))
        assert ds.sizes == {"time": 30, "y": 128, "x": 128}
        assert 0.1 < float(ds["valid"].mean()) < 1
        with xr.open_dataset(str(path).replace(".nc", "_published_forecast.nc")) as forecast:
            np.testing.assert_array_equal(ds["time"].values[10:], forecast["time"].values)
