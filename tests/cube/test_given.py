"""Masks that users bring: where they lie, and what their values say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cubefill
from cubefill.cube import valid
from cubefill.errors import CubeError
from cubefill.testing import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(size=(12, 12))


def typed(error: pytest.ExceptionInfo[CubeError], **names: object) -> object:
    """What the advice of an error says to pass as valid, evaluated."""
    text = str(error.value)
    start = text.index("Use ") + 4
    code = text[start:].removeprefix("valid=")
    for end in range(len(code), 0, -1):
        try:
            return eval(code[:end].rstrip(" .,"), {"numpy": np, **names})
        except (SyntaxError, NameError):
            continue
    raise AssertionError(f"nothing to type in {text!r}")


# ------------------------------------------------------------------ where it lies


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(12)),
    st.booleans(),
    st.booleans(),
    st.permutations(["time", "y", "x"]),
    st.floats(-4e-4, 4e-4),
    st.booleans(),
)
def test_a_labelled_mask_is_put_in_the_cubes_order(
    dates: list[int], up: bool, left: bool, dims: list[str], off: float, lazy: bool
) -> None:
    cube = synthetic_cube(size=(6, 6))
    rows, columns = slice(None, None, -1 if up else 1), slice(None, None, -1 if left else 1)
    mask = cube["valid"].isel(time=dates, y=rows, x=columns).transpose(*dims)
    mask = mask.assign_coords(x=mask["x"] + off * 10, y=mask["y"] - off * 10)
    out = valid.apply(cube, mask.chunk(y=4, time=5) if lazy else mask)
    np.testing.assert_array_equal(out, cube["valid"].transpose("time", "y", "x"))
    for d in ("time", "y", "x"):
        np.testing.assert_array_equal(out[d], cube[d])


def test_a_larger_mask_is_cut_to_the_cube(cube: xr.Dataset) -> None:
    part = cube.isel(time=slice(2, 9), y=slice(3, 8), x=[4, 5, 6])
    np.testing.assert_array_equal(valid.apply(part, cube["valid"]), part["valid"])


@pytest.mark.parametrize(
    "move",
    [
        lambda m: m.assign_coords(time=m["time"].dt.floor("D") + np.timedelta64(5, "h")),
        lambda m: m.assign_coords(x=m["x"] + 5.0),
        lambda m: m.assign_coords(y=m["y"] + 1e6),
        lambda m: m.isel(time=slice(4)),
        lambda m: m.isel(x=slice(3, None)),
        lambda m: m.assign_coords(time=m["time"] + np.timedelta64(6, "h")).isel(time=slice(5)),
    ],
)
def test_advice_for_other_coordinates_leads_on(
    cube: xr.Dataset, move: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    mask = move(cube["valid"])
    with pytest.raises(CubeError, match="coordinates than the cube") as error:
        valid.apply(cube, mask)
    better = typed(error, ds=cube, mask=mask)
    out = valid.apply(cube, better)  # type: ignore[arg-type]
    assert 0 < float(out.mean()) < 1


def test_a_date_of_the_mask_stands_for_one_of_the_cube(cube: xr.Dataset) -> None:
    twice = xr.concat([cube["valid"], cube["valid"].isel(time=[3])], "time")
    with pytest.raises(CubeError, match="13 from"):
        valid.apply(cube, twice)
    with pytest.raises(CubeError, match="is a Dataset"):
        valid.apply(cube, cube[["valid"]])  # type: ignore[arg-type]


def test_foreign_dimensions(cube: xr.Dataset) -> None:
    mask = cube["valid"].rename(time="t", x="easting", y="northing")
    np.testing.assert_array_equal(valid.apply(cube, mask), cube["valid"])


# ------------------------------------------------------------------ what it says


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64", "object"])
@pytest.mark.parametrize("lazy", [False, True])
def test_zero_and_one_are_a_mask(cube: xr.Dataset, dtype: str, lazy: bool) -> None:
    mask = cube["valid"].astype(dtype)
    out = valid.apply(cube, mask.chunk(x=5) if lazy else mask)
    assert isinstance(out.data, da.Array) == lazy
    assert out.dtype == bool
    np.testing.assert_array_equal(out, cube["valid"])


def test_nan_and_no_data_are_not_clear(cube: xr.Dataset) -> None:
    mask = cube["valid"].astype("float32")
    gone = (slice(None), slice(0, 3))
    mask.values[gone] = np.nan
    assert not valid.apply(cube, mask)[gone].any()
    raw = cube["valid"].astype("uint8").assign_attrs(_FillValue=255)
    raw.values[gone] = 255
    out = valid.apply(cube, raw)
    np.testing.assert_array_equal(out, valid.apply(cube, mask))
    assert "_FillValue" not in out.attrs
    assert out.encoding == {}
    wide = valid.apply(cube, cube["valid"].reindex(x=np.r_[cube["x"], 0.0]).isel(x=slice(12)))
    np.testing.assert_array_equal(wide, cube["valid"])


def test_class_numbers_are_no_truth(cube: xr.Dataset) -> None:
    cube = cube.assign(classes=cube["SCL"].drop_attrs())
    cases: dict[str, dict[str, Any]] = {
        "SCL": {"mask": cube["SCL"]},
        "classes": {"mask": cube["classes"]},
        "an array": {"mask": cube["classes"].rename(None)},
        "numpy": {"mask": cube["SCL"].values},
    }
    for name, around in cases.items():
        given = name if name in cube else around["mask"]
        with pytest.raises(CubeError, match="expected True or 1 where clear") as error:
            valid.apply(cube, given)
        better = typed(error, **around)
        np.testing.assert_array_equal(
            valid.apply(cube, better),  # type: ignore[arg-type]
            valid.apply(cube, {name: (4, 5, 6, 7) if name == "SCL" else (0,)})
            if name in cube
            else cube["SCL"].isin((4, 5, 6, 7)),
        )
    cube = cube.drop_vars("classes")
    with pytest.raises(CubeError, match="class numbers"):
        cube.chunk(y=4).gapfill("linear", valid="SCL")
    cube["valid"] = cube["SCL"]
    with pytest.raises(CubeError, match=r"ds\['valid'\] holds 4"):
        cube.gapfill("linear")


def test_classes_of_a_lazy_array_are_refused_when_computed(cube: xr.Dataset) -> None:
    lazy = cube["SCL"].drop_attrs().rename(None).chunk(y=4)
    out = cube.gapfill("linear", valid=lazy)
    with pytest.raises(CubeError, match=r"valid holds .*mask\.isin"):
        out.compute()


def test_a_mask_made_of_classes_keeps_their_attributes_and_counts(cube: xr.Dataset) -> None:
    scl = cube["SCL"].assign_attrs(flag_values=list(range(12)))
    mask = (scl == 4).astype("uint8").assign_attrs(scl.attrs).chunk(y=5)
    np.testing.assert_array_equal(valid.apply(cube, mask), cube["SCL"] == 4)


@pytest.mark.parametrize(("top", "limit"), [(100, "< 40"), (1, "< 0.4")])
def test_probabilities_are_no_truth(cube: xr.Dataset, top: float, limit: str) -> None:
    shape = cube["valid"].shape
    probability = np.linspace(0, top, int(np.prod(shape)), dtype="float32").reshape(shape)
    cube = cube.assign(cloud_probability=(("time", "y", "x"), probability))
    with pytest.raises(CubeError, match="expected True or 1 where clear") as error:
        valid.apply(cube, "cloud_probability")
    rule: Any = typed(error)
    assert rule == {"cloud_probability": limit}
    np.testing.assert_array_equal(valid.apply(cube, rule), probability < 0.4 * top)
    with pytest.raises(CubeError, match="expected True or 1 where clear") as error:
        valid.apply(cube, probability)
    np.testing.assert_array_equal(typed(error, mask=probability), probability < 0.4 * top)


def test_provenance_says_which_mask_was_used(cube: xr.Dataset) -> None:
    def said(**options: object) -> str:
        return str(cubefill.gapfill(cube, "linear", **options).attrs["gapfill_valid"])  # type: ignore[arg-type]

    assert said(valid={"SCL": (4, 5), "dilate": 0}) == valid.attributes((4, 5), 0)["description"]
    assert said(valid="finite") == "True where any of B02, B03, B04, B08 is finite"
    assert said(valid=cube["valid"].values) == "given: valid"
    assert said() == "given: ds['valid']"


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_classes_of_any_number_type_go_through_stores_and_jobs(
    cube: xr.Dataset, dtype: str, tmp_path: Path
) -> None:
    cube = cube.drop_vars("valid")
    known = cube["SCL"].where(cube["time"] != cube["time"][2])  # a date without data
    fill = {"_FillValue": -1} if dtype == "int16" else {}
    other = known.fillna(-1 if fill else np.nan).astype(dtype).assign_attrs(fill)
    want = cube.assign(SCL=known.fillna(0).astype("uint8")).gapfill("linear")
    cubefill.write_cube(cube.assign(SCL=other), tmp_path / "cube.zarr", progress=False)
    job = cubefill.run(tmp_path / "cube.zarr", tmp_path / "out.zarr", "linear", progress=False)
    for out in (cube.assign(SCL=other).gapfill("linear"), job):
        np.testing.assert_array_equal(out["fill_flag"], want["fill_flag"])
        np.testing.assert_allclose(out["B04"], want["B04"], atol=1e-4)
    rule = {"SCL": (5,)}
    np.testing.assert_array_equal(
        valid.apply(cubefill.open_cube(tmp_path / "cube.zarr"), rule),
        valid.apply(cube.assign(SCL=other), rule),
    )


def test_a_lazy_file_stays_lazy(cube: xr.Dataset, tmp_path: Path) -> None:
    cube.assign(SCL=cube["SCL"].drop_attrs()).to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "cube.nc", engine="h5netcdf") as ds:
        for rule in (None, "valid", "finite", {"SCL": (4,)}, {"SCL": "== 4", "valid": True}):
            out = valid.apply(ds, rule)  # type: ignore[arg-type]
            assert not out.variable._in_memory
            np.testing.assert_array_equal(out, valid.apply(cube, rule))  # type: ignore[arg-type]
        with pytest.raises(CubeError, match="expected True or 1"):
            valid.apply(ds, "SCL")


@pytest.mark.parametrize(
    ("meanings", "right"),
    [
        ("clear cloud", False),
        ("no_data cloud_free", True),
        ("gap clear", True),
        ("ok masked", False),
    ],
)
def test_a_mask_that_says_its_1_is_cloud_is_refused(
    cube: xr.Dataset, meanings: str, right: bool
) -> None:
    said = {"flag_values": [0, 1], "flag_meanings": meanings}
    cube = cube.assign(mask=cube["valid"].astype("uint8").assign_attrs(said))
    if right:
        np.testing.assert_array_equal(valid.apply(cube, "mask"), cube["valid"])
        return
    with pytest.raises(CubeError, match=r"says that 1 is '(cloud|masked)'") as error:
        valid.apply(cube, "mask")
    np.testing.assert_array_equal(valid.apply(cube, typed(error)), ~cube["valid"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cloud_mask", "s2_cloudmask", "clouds", "shadow", "invalid"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_variable_named_for_clouds_is_no_mask_of_what_is_clear(
    cube: xr.Dataset, name: str, dtype: type
) -> None:
    ds = cube.assign({name: (~cube["valid"]).astype(dtype)})
    for mask in (name, ds[name]):
        with pytest.raises(CubeError, match="by its name, 1 is what is not clear"):
            valid.apply(ds, mask)
    np.testing.assert_array_equal(valid.apply(ds, {name: 0}), cube["valid"])
    np.testing.assert_array_equal(valid.apply(ds, {name: 1}), ~cube["valid"])
    np.testing.assert_array_equal(valid.apply(ds, ds[name] == 0), cube["valid"])


@pytest.mark.parametrize("name", ["cloud_free", "not_cloudy", "clear_of_clouds", "cloudless"])
def test_a_variable_named_for_clear_sky_is_a_mask(cube: xr.Dataset, name: str) -> None:
    ds = cube.assign({name: cube["valid"]})
    np.testing.assert_array_equal(valid.apply(ds, name), cube["valid"])


@pytest.mark.parametrize("dims", [("time", "x", "y"), ("y", "x", "time"), ("x", "time", "y")])
@pytest.mark.parametrize("called", [False, True])
def test_an_array_without_labels_lies_as_the_cube_does(
    cube: xr.Dataset, dims: tuple[str, ...], called: bool
) -> None:
    ds = cube.isel(time=slice(5), y=slice(6), x=slice(7)).transpose(*dims)
    want = ds["valid"].transpose("time", "y", "x")
    for array in (ds["valid"].values, want.values):
        out = valid.apply(ds, (lambda _, a=array: a) if called else array)
        np.testing.assert_array_equal(out, want)
    square = ds.isel(y=slice(5), x=slice(5))
    array = square["valid"].values
    with pytest.raises(CubeError, match=r"may be time, y, x or, as in the cube") as error:
        valid.apply(square, array)
    better = typed(error, ds=square, mask=array, xarray=xr)
    np.testing.assert_array_equal(
        valid.apply(square, better),  # type: ignore[arg-type]
        square["valid"].transpose("time", "y", "x"),
    )


def test_dates_of_a_mask_may_be_text_or_have_a_zone(cube: xr.Dataset) -> None:
    mask, times = cube["valid"], pd.DatetimeIndex(cube["time"].values)
    days = np.array([t.date() for t in times], object)
    for dates in ([str(t) for t in times], times.tz_localize("UTC"), times.to_pydatetime()):
        dated = mask.assign_coords(time=dates)
        np.testing.assert_array_equal(valid.apply(cube, dated), mask)
    ds = cube.assign_coords(time=days)
    out = ds.gapfill("nearest", valid=mask.assign_coords(time=days))
    want = cube.gapfill("nearest", valid=mask)
    np.testing.assert_array_equal(out["B04"], want["B04"])


def test_one_pixel_of_classes_has_nothing_to_grow_into(cube: xr.Dataset) -> None:
    pixel = cube.drop_vars("valid").isel(y=[3], x=[4])
    out = valid.apply(pixel)
    np.testing.assert_array_equal(out, valid.apply(pixel, {"SCL": (4, 5, 6, 7), "dilate": 0}))
    bare = cube.drop_vars(["valid", "y", "x"])
    with pytest.raises(CubeError, match="'dilate': 0}") as error:
        valid.apply(bare)
    assert valid.apply(bare, typed(error)).any()  # type: ignore[arg-type]
