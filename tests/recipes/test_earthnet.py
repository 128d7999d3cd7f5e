"""EarthNet2021 and GreenEarthNet: one function reads the files; opened raw, the error names it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cubefill
from cubefill.errors import CubeError
from tests.recipes.clean_cube import BANDS, clear, masked, recipe, reflectance

NAME = "33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz"


def assert_filled(out: xr.Dataset) -> None:
    """The fill is that of the same numbers in a cube of our own with the same dates."""
    out = out.compute()
    series = dict(zip(BANDS, reflectance().swapaxes(0, 1), strict=True))
    own = xr.Dataset(
        {
            n: (("time", "y", "x"), a.astype(np.float16).astype(np.float32))
            for n, a in series.items()
        },
        {c: out[c] for c in ("time", "y", "x")},
    )
    want = own.gapfill(valid=clear()).compute()
    for name in BANDS:
        np.testing.assert_allclose(out[name].values, want[name].values, atol=1e-6)
        np.testing.assert_array_equal(out[name].values[clear()], own[name].values[clear()])


def test_earthnet2021(tmp_path: Path) -> None:
    images = np.concatenate([reflectance(), ~clear()[:, None]], axis=1).transpose(2, 3, 1, 0)
    path = tmp_path / NAME
    np.savez(path, highresdynamic=images.astype(np.float16))
    out = recipe("EarthNet2021 and GreenEarthNet", path=path)["out"]
    assert_filled(out)
    files = out.gapfill.to_geotiff(tmp_path / "files")
    assert len(files) == len(clear())
    assert (crs := cubefill.cube.crs_of(out)) is not None
    assert crs.epsg == 32633


@pytest.fixture
def minicube(tmp_path: Path) -> Path:
    """GreenEarthNet: daily dates of which every fifth holds an image, lat and lon in degrees."""
    steps = len(clear())
    days = np.datetime64("2019-05-12", "ns") + np.arange(5 * steps) * np.timedelta64(1, "D")
    values = np.full((5 * steps, 4, *clear().shape[1:]), np.nan, np.float32)
    values[4::5] = np.where(clear()[:, None], reflectance(), masked())
    mask = np.full((5 * steps, *clear().shape[1:]), np.nan, np.float32)
    mask[4::5] = ~clear()
    dims = ("time", "lat", "lon")
    names = ("s2_B02", "s2_B03", "s2_B04", "s2_B8A")
    data = {n: (dims, values[:, i].astype(np.float16).astype("f4")) for i, n in enumerate(names)}
    ds = xr.Dataset(
        {**data, "s2_dlmask": (dims, mask)},
        {
            "time": days,
            "lat": 50 - 1.8e-4 * np.arange(clear().shape[1]),
            "lon": 3 + 2.8e-4 * np.arange(clear().shape[2]),
        },
    )
    path = tmp_path / "JAS21_minicube_49_31UDS.nc"
    ds.to_netcdf(path)
    return path


def test_greenearthnet(minicube: Path) -> None:
    assert_filled(recipe("EarthNet2021 and GreenEarthNet", path=minicube)["out"])


def test_opened_with_xarray_the_error_names_the_reader(minicube: Path) -> None:
    with xr.open_dataset(minicube) as ds, pytest.raises(CubeError, match=r"earthnet\.read"):
        ds.gapfill()
