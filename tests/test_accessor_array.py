from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.errors import CubeError, CubefillWarning
from cubefill.testing import synthetic_cube


def scene() -> xr.Dataset:
    return synthetic_cube(dates=8, size=(9, 11)).drop_vars("valid")


def stack(ds: xr.Dataset, dim: str = "band") -> xr.DataArray:
    """The cube as other tools give it: classes among the bands, names of a catalogue."""
    bands = ds[["B04", "B08", "SCL"]].rename(B04="red", B08="nir")
    return bands.to_array(dim).transpose("time", dim, "y", "x")


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
@pytest.mark.parametrize(("dim", "time"), [("band", "time"), ("bands", "t")])
@pytest.mark.parametrize("lazy", [False, True])
def test_an_array_comes_back_filled_on_its_own_dims(
    order: tuple[int, ...], dim: str, time: str, lazy: bool
) -> None:
    ds = scene()
    errors: dict[str, Any] = {"std": True, "quantiles": (0.05, 0.95)}
    want = ds.gapfill("linear", **errors).compute()
    da = stack(ds, dim).rename({"time": time} if time != "time" else {})
    da = da.transpose(*(da.dims[i] for i in order))
    out = (da.chunk(y=4) if lazy else da).gapfill("linear", **errors)
    assert out.chunks is not None
    assert (out.dims, out.shape, out.dtype) == (da.dims, da.shape, np.float32)
    assert out[dim].values.tolist() == ["red", "nir", "SCL"]
    there = out.rename({time: "time"} if time != "time" else {}).compute()
    for label, name in {"red": "B04", "nir": "B08"}.items():
        one = there.sel({dim: label}).transpose("time", "y", "x")
        np.testing.assert_array_equal(one, want[name])
        for end in ("std", "q05", "q95"):
            error = there[f"fill_{end}"].sel({dim: label}).transpose("time", "y", "x")
            np.testing.assert_array_equal(error, want[f"{name}_{end}"])
    kept = there.sel({dim: "SCL"}).transpose("time", "y", "x")
    np.testing.assert_array_equal(kept, ds["SCL"])
    np.testing.assert_array_equal(there["fill_flag"].transpose("time", "y", "x"), want["fill_flag"])
    assert out.attrs["gapfill_method"] == "linear"


def test_objects_among_the_coordinates_come_back_as_text(tmp_path: Path) -> None:
    da = stack(scene())
    meta = np.empty(3, object)
    meta[:] = [{"scale": 1e-4}, None, {1, 2}]
    da = da.assign_coords({"raster:bands": ("band", meta), "title": ("band", ["a", "b", "c"])})
    da = da.assign_coords(band=da["band"].astype(object), epsg=32631)
    out = da.gapfill("linear")
    assert out["raster:bands"].values[0] == '{"scale": 0.0001}'
    assert set(da.coords) <= set(out.coords)
    out.to_netcdf(tmp_path / "filled.nc")


def test_other_dates_leave_out_what_is_not_filled() -> None:
    ds = scene()
    out = stack(ds).gapfill("linear", times="5D")
    want = ds.gapfill("linear", times="5D")
    assert out["band"].values.tolist() == ["red", "nir"]
    np.testing.assert_array_equal(out["time"], want["time"])
    np.testing.assert_array_equal(out.sel(band="nir"), want["B08"])


def test_a_single_index() -> None:
    ds = scene()
    valid = ds["SCL"] == 4
    index = ds.gapfill.ndvi()
    want = ds.assign(NDVI=index).gapfill("linear", bands="NDVI", valid=valid)
    for da in (index, index.rename(None), index.rename(time="t").transpose("y", "x", "t")):
        out = da.gapfill(
            "linear", valid=valid.rename({"time": da.dims[-1]} if "t" in da.dims else {})
        )
        assert (out.dims, out.name) == (da.dims, da.name)
        np.testing.assert_array_equal(out.transpose(..., "y", "x"), want["NDVI"])
    by_call = index.gapfill("linear", valid=lambda da: da.notnull())
    assert np.isfinite(by_call).all()
    one = stack(ds).sel(band="red").gapfill("linear", valid=valid)
    np.testing.assert_array_equal(one, ds.gapfill("linear", valid=valid)["B04"])


def test_a_smooth_curve_takes_the_place_of_its_band() -> None:
    ds = scene()
    out = stack(ds).gapfill("whittaker", smooth=True)
    curve = ds.gapfill("whittaker", smooth=True)["B04_smooth"]
    np.testing.assert_array_equal(out.sel(band="red"), curve)


def test_plan_and_ndvi_of_an_array() -> None:
    ds = scene()
    da = stack(ds)
    assert da.gapfill.plan("linear").gives == ("B04", "B08", "fill_flag")
    xr.testing.assert_equal(da.gapfill.ndvi(), ds.gapfill.ndvi())
    assert "8 dates, 2 bands (B04, B08)" in repr(da.gapfill)


def test_bands_of_an_array_may_be_chosen() -> None:
    da = stack(scene())
    out = da.gapfill("linear", bands=["red"])
    np.testing.assert_array_equal(out.sel(band="nir"), da.sel(band="nir").astype("f4"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda da: da.drop_vars("band"), r"names no bands \(it has no coordinate\)"),
        (lambda da: da.assign_coords(band=[1, 2, 3]), r"names no bands \(\[1, 2, 3\]\)"),
        (lambda da: da.assign_coords(band=["a", "a", "b"]), r"expected distinct names"),
        (lambda da: da.isel(x=0), r"lies on time, band, y: expected time, y, x"),
        (lambda da: da.expand_dims("k"), r"expected time, y, x and at most a dimension of bands"),
        (lambda da: da.isel(y=slice(0)), r"The cube is empty: y of length 0"),
        (lambda da: (da * 1e4).astype("uint16"), r"digital numbers"),
    ],
)
def test_an_array_that_is_no_cube_is_refused(change, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CubeError, match=message):
        change(stack(scene())).gapfill("linear")


def test_the_hint_about_unnamed_bands_leads_on() -> None:
    da = stack(scene()).isel(band=slice(2)).drop_vars("band")
    with pytest.raises(CubeError) as error:
        da.gapfill("linear")
    typed = str(error.value).split("Use ")[1].split(" with ")[0]
    named = eval(typed, {"da": da})
    assert named.gapfill("linear", valid=scene()["SCL"] == 4).shape == da.shape


def test_corrected_places_and_a_found_crs_are_those_of_the_array() -> None:
    ds = scene()
    da = stack(ds).drop_vars("spatial_ref").assign_coords(epsg=32631)
    da = da.assign_coords(x=ds["x"] - 5, y=ds["y"] + 5)
    da.attrs["transform"] = (10, 0, float(ds["x"][0]) - 5, 0, -10, float(ds["y"][0]) + 5)
    with pytest.warns(CubefillWarning, match="corners of pixels"):
        out = da.gapfill("linear")
    np.testing.assert_array_equal(out["x"], ds["x"])
    np.testing.assert_array_equal(out["y"], ds["y"])
    assert "spatial_ref" in out.coords
    np.testing.assert_array_equal(out.sel(band="SCL"), ds["SCL"])
