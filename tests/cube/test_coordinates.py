"""What other tools hang on a cube goes into files, or is turned into what does."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine

import cubefill
from cubefill.cube import settled
from cubefill.cube.coordinates import file_attrs, serialisable
from tests.shared.strategies import cube


def objects(*values: Any) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def hung() -> xr.Dataset:
    """A cube with coordinates and attributes as stackstac and others leave them."""
    ds = cube(dates=3)
    one = objects({"scale": 1e-4})[0:1].reshape(())
    return ds.assign_coords(
        {
            "raster:bands": ("time", objects(*[[{"scale": 1e-4, "offset": np.float32(0)}]] * 3)),
            "one": ((), one),
            "names": ("time", objects({"b", "a"}, None, {"c"})),
            "cover": ("time", objects(None, 3, 4.5)),
            "title": ("time", objects("a", None, "c")),
            "id": ("time", objects("x", "y", "z")),
            "made": ("time", objects(*pd.date_range("2023-01-01", periods=3, tz="UTC"))),
            "nothing": ("time", objects(None, None, None)),
        }
    ).assign_attrs(spec=Affine.identity(), more={"a": 1}, none=None, yes=True, deep=[[1], [2]])


def test_objects_become_numbers_dates_or_json(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cubefill"):
        out = serialisable(hung())
    assert "raster:bands, one, names" in caplog.text
    assert len(caplog.records) == 1
    assert out["raster:bands"].values[0] == '[{"offset": 0.0, "scale": 0.0001}]'
    assert out["one"].item() == '{"scale": 0.0001}'
    assert out["names"].values.tolist() == ['["a", "b"]', "null", '["c"]']
    np.testing.assert_array_equal(out["cover"], [np.nan, 3, 4.5])
    assert out["title"].values.tolist() == ["a", "", "c"]
    assert out["id"].values.tolist() == ["x", "y", "z"]
    assert out["made"].dtype.kind == "M"
    assert np.isnan(out["nothing"]).all()
    assert serialisable(out) is out
    assert serialisable(cube()).identical(cube())


def test_attributes_are_what_files_hold() -> None:
    said = {"a": True, "b": None, "c": {"x": [1]}, "d": [1, "a"], "e": ["a", "b"], "f": (1, 2.5)}
    assert file_attrs(said) == {
        "a": 1, "b": "", "c": '{"x": [1]}', "d": '[1, "a"]', "e": ["a", "b"], "f": [1, 2.5],
    }  # fmt: skip
    assert file_attrs({"t": Affine.identity(), "o": pd.Timestamp("2024")}) == {
        "t": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "o": "2024-01-01 00:00:00",
    }
    rows = {
        "b": np.array([True, False]),
        "s": np.array(["a", "b"]),
        "o": np.array(["a", {"x": 1}], object),
        "m": np.array(["2024-01-01"], "M8[D]"),
    }
    made = file_attrs(rows)
    assert made["b"].tolist() == [1, 0]
    assert (made["s"], made["o"]) == (["a", "b"], '["a", {"x": 1}]')
    assert made["m"] == ["2024-01-01"]


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_fill_goes_into_every_file_and_back(tmp_path: Path) -> None:
    ds = hung()
    out = ds.gapfill("linear")
    out.to_netcdf(tmp_path / "a.nc")
    out.to_zarr(tmp_path / "a.zarr")
    with xr.open_dataset(tmp_path / "a.nc", decode_coords="all") as file:
        again = file.load()
    xr.testing.assert_equal(again.drop_vars("spatial_ref"), out.drop_vars("spatial_ref"))
    assert again.attrs["more"] == '{"a": 1}'
    for source in (again, xr.open_zarr(tmp_path / "a.zarr")):
        twice = source.gapfill("linear", times="2D", valid=ds["valid"].values)
        twice.to_netcdf(tmp_path / "b.nc")
        twice.to_zarr(tmp_path / "b.zarr", mode="w")
    assert cubefill.open_cube(tmp_path / "a.zarr")["title"].values.tolist() == ["a", "", "c"]


def test_attributes_that_are_arrays_go_into_files(tmp_path: Path) -> None:
    ds = cube()
    ds.attrs |= {"ok": np.array([True, False]), "names": np.array(["a", "b"])}
    ds["B04"].attrs |= ds.attrs
    out = ds.gapfill("linear").compute()
    out.to_netcdf(tmp_path / "o.nc")
    with xr.open_dataset(tmp_path / "o.nc") as back:
        assert back.attrs["names"] == ["a", "b"]
        assert back["B04"].attrs["ok"].tolist() == [1, 0]


def test_a_store_is_whole_with_such_coordinates(tmp_path: Path) -> None:
    ds = hung()
    opened = cubefill.write_cube(ds, tmp_path / "a.zarr", progress=False)
    assert opened["one"].item() == '{"scale": 0.0001}'
    cubefill.write_cube(ds, tmp_path / "a.zarr", progress=False)
    filled = cubefill.run(tmp_path / "a.zarr", tmp_path / "b.zarr", "linear", progress=False)
    assert filled["raster:bands"].values.tolist() == settled(ds)["raster:bands"].values.tolist()
    filled.to_netcdf(tmp_path / "b.nc")
    direct = cubefill.run(ds, tmp_path / "c.zarr", "linear", progress=False)
    assert direct["id"].values.tolist() == ["x", "y", "z"]
