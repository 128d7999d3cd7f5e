import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cubefill
from cubefill import conform
from cubefill.cube import accept, check
from cubefill.errors import CubeError, CubefillWarning
from tests.shared.strategies import cube

SCALE = np.float32(1e-4)


def digital(dtype: str, *, lazy: bool = False) -> xr.Dataset:
    """A cube of digital numbers, with classes, an index and a mask beside the bands."""
    ds = cube(size=(20, 24))
    ndvi = ((ds["B08"] - ds["B04"]) / (ds["B08"] + ds["B04"])).drop_attrs()
    for name in ("B04", "B08"):
        ds[name] = (ds[name] * 1e4).round().astype(dtype)
    ds["NDVI"] = ndvi
    ds["cloud_class"] = ds["valid"].astype("uint16") * 4
    ds["cloud_probability"] = ds["valid"].astype("float32") * 80
    return ds.chunk(time=3, y=7) if lazy else ds


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_digital_numbers_are_scaled_once_and_nothing_else_is(dtype: str, lazy: bool) -> None:
    ds, want = digital(dtype, lazy=lazy), cube(size=(20, 24))
    once = conform(ds, scale=1e-4)
    twice = conform(once, scale=1e-4)
    for out in (once, twice):
        for name in ("B04", "B08"):
            assert out[name].dtype == np.float32
            np.testing.assert_allclose(out[name], want[name], rtol=0, atol=1e-6)
        for name in ("NDVI", "cloud_class", "cloud_probability", "valid"):
            np.testing.assert_array_equal(out[name], ds[name])
    filled = once.gapfill("linear").compute()
    clear = want["valid"].values
    np.testing.assert_array_equal(filled["B04"].values[clear], once["B04"].values[clear])


def test_no_data_stays_no_data() -> None:
    ds = digital("float32")
    ds["B04"][:, :10] = np.nan
    ds["B08"][2] = 0
    out = conform(ds, scale=1e-4)
    assert np.isnan(out["B04"][:, :10]).all()
    assert np.isfinite(out["B04"][:, 10:]).all()
    assert (out["B08"][2] == 0).all()
    whole = digital("int16")
    whole["B04"][1] = -999
    whole["B04"].attrs["nodata"] = -999
    whole["B08"][2] = 0
    out = conform(whole, scale=1e-4)
    assert np.isnan(out["B04"][1]).all()
    assert np.isnan(out["B08"][2]).all()
    assert "nodata" not in out["B04"].attrs


def test_the_hint_about_digital_numbers_leads_on() -> None:
    for ds in (digital("uint16"), digital("float32")):
        with pytest.raises(CubeError) as error:
            ds.gapfill("linear").compute()
        typed = re.search(r"Use (cubefill\.cube\.conform\(.*?\)) after", str(error.value))
        assert typed is not None
        out = eval(typed[1], {"cubefill": cubefill, "ds": ds})
        assert np.isfinite(out.gapfill("linear").compute()["B04"]).any()


def test_numbers_under_a_strange_name_are_scaled_when_named() -> None:
    ds = digital("uint16").rename(B08="thing")
    with pytest.raises(CubeError) as error:
        ds[["thing", "valid"]].assign(B04=cube(size=(20, 24))["B04"]).gapfill(bands=["thing"])
    assert "conform(ds, scale=1e-4, bands=['thing'])" in str(error.value)
    out = conform(ds, scale=1e-4, bands=["thing", "B04"])
    np.testing.assert_allclose(out["thing"], cube(size=(20, 24))["B08"], rtol=0, atol=1e-6)


# ------------------------------------------------------------------ names


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    dims=st.permutations(["time", "y", "x"]),
    time=st.sampled_from(["t", "T", "timestamp", "date", "time"]),
    yx=st.sampled_from([("northing", "easting"), ("Y", "X"), ("y", "x")]),
    red=st.sampled_from(["red", "b04", "B04_10m", "B4", "B04"]),
)
def test_any_names_and_order_fill_as_cubefills_own(
    dims: list[str], time: str, yx: tuple[str, str], red: str
) -> None:
    ds = cube()
    want = ds.gapfill("linear").compute()
    foreign = ds.transpose(*dims)
    for old, new in zip(("time", "y", "x", "B04"), (time, *yx, red), strict=True):
        foreign = foreign.rename({old: new}) if old != new else foreign
    changed = [n for n in (time, *yx, red) if n not in ("time", "y", "x", "B04")]
    if changed:
        with pytest.warns(CubefillWarning, match=f"Read .*{changed[-1]} as") as said:
            out = foreign.gapfill("linear")
        assert len(said) == 1
    else:
        out = foreign.gapfill("linear")
    xr.testing.assert_equal(out.compute().transpose("time", "y", "x"), want)
    assert conform(foreign).gapfill("linear")["B04"].dims == tuple(dims)


def test_a_mask_may_keep_the_names_of_its_cube() -> None:
    ds = cube()
    want = ds.gapfill("linear").compute()
    foreign = ds.rename(time="t", valid="clear", B04="red")
    for valid in (
        "clear",
        foreign["clear"],
        lambda d: d.clear,
        lambda d: d["red"] * 0 + d.clear > 0,
    ):
        with pytest.warns(CubefillWarning, match="Read t as time, red as B04"):
            out = foreign.gapfill("linear", valid=valid)
        xr.testing.assert_equal(out.compute(), want)


def test_a_date_coordinate_beside_the_dimension_is_the_time() -> None:
    ds = cube().rename(time="step").rename_vars(step="time")
    assert ds["B04"].dims[0] == "step"
    with pytest.raises(CubeError, match=r"Use ds.rename\(\{'step': 'time'\}\)"):
        check(ds)
    other = cube().rename(time="t").rename_vars(t="time")
    assert check(conform(other))["B04"].dims[0] == "time"


def test_standard_names_tell_the_axes() -> None:
    ds = cube().rename(y="row", x="col")
    ds["row"].attrs["standard_name"] = "projection_y_coordinate"
    ds["col"].attrs["standard_name"] = "projection_x_coordinate"
    with pytest.warns(CubefillWarning, match="Read row as y, col as x"):
        assert accept(ds)["B04"].dims == ("time", "y", "x")


def test_two_names_of_one_band_are_refused() -> None:
    ds = cube().rename(B04="red").assign({"red-jp2": cube()["B04"]})
    with pytest.raises(CubeError, match=r"both stand for B04.*Use ds.drop_vars\('red-jp2'\)"):
        ds.gapfill()
    assert "B04" in conform(ds.drop_vars("red-jp2"))


def test_floating_point_classes_are_classes() -> None:
    ds = cube().drop_vars("valid")
    scl = xr.where(cube()["valid"], 4.0, np.nan)
    out = ds.assign(SCL=scl).gapfill("linear", valid=None).compute()
    xr.testing.assert_equal(out, cube().gapfill("linear").compute())


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("dim", ["time", "y", "x"])
def test_an_empty_selection_is_refused_in_one_line(dim: str, tmp_path: object) -> None:
    ds = cube().isel({dim: slice(0, 0)})
    for door in (
        lambda: ds.gapfill("linear"),
        lambda: cubefill.plan(ds),
        lambda: cubefill.run(ds, f"{tmp_path}/f.zarr"),
        lambda: cubefill.write_cube(ds, f"{tmp_path}/c.zarr", progress=False),
    ):
        with pytest.raises(CubeError, match=rf"The cube is empty: {dim} of length 0") as error:
            door()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dim", ["time", "y", "x"])
def test_the_hint_about_a_lost_dimension_leads_on(dim: str) -> None:
    one = cube().isel({dim: 2})
    with pytest.raises(CubeError, match=rf"Missing dimension {dim}") as error:
        one.gapfill("linear")
    typed = str(error.value).split("Use ")[1].removesuffix(".")
    out = eval(typed, {"ds": one})
    assert out.gapfill("linear").compute()["B04"].sizes[dim] == 1


def test_bands_along_a_dimension_are_refused_and_the_hint_leads_on() -> None:
    ds = cube()
    da = ds[["B04", "B08"]].to_array("bands")
    stacked = da.to_dataset(name="stack")
    with pytest.raises(CubeError) as error:
        stacked.gapfill("linear")
    out = eval(str(error.value).split("Use ")[1].removesuffix("."), {"ds": stacked})
    want = ds.gapfill("linear").compute()
    xr.testing.assert_equal(out.gapfill("linear", valid=ds["valid"]).compute(), want)
    with pytest.raises(CubeError, match=r"Use da.gapfill\(...\), or da.to_dataset\(dim='bands'\)"):
        cubefill.gapfill(da)  # type: ignore[arg-type]
    with pytest.raises(CubeError, match=r"da.to_dataset\(name='B04'\)"):
        cubefill.gapfill(ds["B04"])  # type: ignore[arg-type]


def test_what_write_cube_takes_is_what_a_fill_takes(tmp_path: object) -> None:
    ds = digital("uint16")
    for door in (check, lambda d: cubefill.write_cube(d, f"{tmp_path}/no.zarr", progress=False)):
        with pytest.raises(CubeError, match="B04 looks like digital numbers"):
            door(ds)
    foreign = conform(ds, scale=1e-4).rename(B04="red", time="t")
    foreign["scl"] = xr.where(foreign["valid"], 4.0, np.nan)
    with pytest.warns(CubefillWarning, match="Read t as time, red as B04, scl as SCL"):
        out = cubefill.write_cube(foreign.drop_vars("valid"), f"{tmp_path}/c.zarr", progress=False)
    assert out["SCL"].dtype == np.uint8
    cubefill.run(f"{tmp_path}/c.zarr", f"{tmp_path}/f.zarr", "linear", progress=False)
