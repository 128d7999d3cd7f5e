"""The laws hold for the default, and cubes of every odd shape are filled."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.engine import gapfill
from cubefill.engine.job import run
from cubefill.errors import CubefillWarning, MethodError
from cubefill.methods.contract import Flag
from cubefill.methods.samedate import SameDate
from cubefill.store import open_cube, write_cube
from cubefill.testing import EMPTY, MethodTests
from tests.methods.samedate.scenes import BANDS, block, scene
from tests.shared.series_reference import one
from tests.shared.strategies import chunkings, cube


class TestSameDate(MethodTests):
    method: ClassVar[Any] = SameDate()
    size: ClassVar[tuple[int, int]] = (20, 29)


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return scene()[0]


@pytest.fixture(scope="module")
def filled(ds: xr.Dataset) -> xr.Dataset:
    return fill(ds)


def fill(ds: xr.Dataset, **options: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CubefillWarning)
        return gapfill(ds, **options).compute()


def same(a: xr.Dataset, b: xr.Dataset, *names: str) -> None:
    for name in names or (*BANDS, "fill_flag"):
        np.testing.assert_array_equal(a[name].values, b[name].values)


def check(ds: xr.Dataset, out: xr.Dataset) -> None:
    """Clear values stay, and what was clear at some time is filled."""
    valid, flag = ds["valid"].values, out["fill_flag"].values
    empty = np.isin(flag, EMPTY)
    for name in BANDS:
        a, b = out[name].values, ds[name].values
        clear = valid & np.isfinite(b)
        np.testing.assert_array_equal(a[clear], b[clear].astype(np.float32))
        assert np.isfinite(a[~empty]).all()
        assert np.isfinite(a[:, clear.any(axis=0)]).all()
        assert np.isnan(a[:, ~clear.any(axis=0)]).all()
    whole = valid & np.logical_and.reduce([np.isfinite(ds[n].values) for n in BANDS])
    assert (flag[whole] == Flag.OBSERVED).all()


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_chunks_and_tiles_change_no_bit(ds: xr.Dataset, filled: xr.Dataset, data: Any) -> None:
    tile = data.draw(st.sampled_from([5, 13, 29]))
    same(fill(ds.chunk(data.draw(chunkings(ds))), tile=tile), filled)


LAYOUTS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "float64": lambda ds: ds.assign({n: ds[n].astype("f8") for n in BANDS}),
    "big endian": lambda ds: ds.assign({n: ds[n].astype(">f4") for n in BANDS}),
    "time last": lambda ds: ds.transpose("y", "x", "time").copy(deep=True),
    "backwards": lambda ds: ds.isel(time=slice(None, None, -1)),
    "bands turned": lambda ds: ds[[*reversed(BANDS), "valid"]],
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_layout_and_type_change_no_bit(name: str, ds: xr.Dataset, filled: xr.Dataset) -> None:
    given = LAYOUTS[name](ds)
    out = fill(given).transpose("time", "y", "x").sel(time=filled["time"])
    if name == "bands turned":
        for band in BANDS:
            np.testing.assert_allclose(out[band].values, filled[band].values, atol=1e-5)
    else:
        same(out, filled)


def test_a_job_writes_what_gapfill_gives(tmp_path: Path, ds: xr.Dataset) -> None:
    write_cube(ds, tmp_path / "cube.zarr", progress=False)
    stored = open_cube(tmp_path / "cube.zarr")
    lazy = write_cube(fill(stored, tile=17), tmp_path / "lazy.zarr", progress=False)
    job = run(tmp_path / "cube.zarr", tmp_path / "job.zarr", tile=16, progress=False)
    same(job, lazy)
    assert (job["fill_flag"].values == Flag.SAME_DATE).any()


def test_a_band_that_is_mostly_absent_is_filled_apart(ds: xr.Dataset) -> None:
    some, most = ds.copy(deep=True), ds.copy(deep=True)
    some["B08"].values[3, 4:9, 4:9] = np.nan
    most["B08"].values[1:, 2:] = np.nan
    for odd in (some, most):
        check(odd, fill(odd))
    told = fill(most)
    assert (told["fill_flag"].values[:, :2] == Flag.SAME_DATE).any()


@pytest.mark.parametrize("dates", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 5), (1, 30)])
def test_small_cubes(dates: int, size: tuple[int, int]) -> None:
    for gap in (0.0, 0.5, 1.0):
        ds = cube(dates, size, gap=gap)
        check(ds, fill(ds))


def test_pixels_that_were_never_clear_stay_empty(ds: xr.Dataset, filled: xr.Dataset) -> None:
    given = ds.copy(deep=True)
    given["valid"].values[:, 6:8, 6:9] = False
    check(given, fill(given))
    cloudy = ds.assign(valid=xr.zeros_like(ds["valid"]))
    out = fill(cloudy)
    assert np.isnan(out["B04"].values).all()
    check(ds, filled)


def test_acquisitions_of_one_day_are_told_as_one(ds: xr.Dataset) -> None:
    twice = ds.assign_coords(time=ds["time"].copy())
    when = twice["time"].values.copy()
    when[5] = when[4] + np.timedelta64(40, "s")
    twice = twice.assign_coords(time=when)
    out = fill(twice)
    check(twice, out)
    assert (out["fill_flag"].values == Flag.SAME_DATE).any()


def test_other_dates_take_the_prior(ds: xr.Dataset, filled: xr.Dataset) -> None:
    time = ds["time"].values
    asked = np.sort(np.concatenate([time[2:5], time[[3, 6]] + np.timedelta64(2, "D")]))
    out = fill(ds, times=asked)
    given = np.isin(out["time"].values, time)
    flag = out["fill_flag"].values
    assert (flag[given] == Flag.SAME_DATE).any()
    assert not (flag[~given] == Flag.SAME_DATE).any()
    for name in BANDS:
        told = flag[given] == Flag.SAME_DATE
        at = filled.sel(time=out["time"].values[given])
        np.testing.assert_array_equal(out[name].values[given][told], at[name].values[told])
        assert np.isfinite(out[name].values).all()


@pytest.mark.parametrize("options", [{"max_gap": 14}, {"max_extrapolate": "3D"}])
def test_limits_are_those_of_linear(ds: xr.Dataset, options: dict[str, Any]) -> None:
    b = block(ds)
    out = one(SameDate(**options).prepare(b), b)
    right = one(SameDate(prior="linear", **options).curve, b)
    assert out.flag is not None
    assert right.flag is not None
    left = (out.flag == Flag.UNFILLABLE) & ~b.valid
    np.testing.assert_array_equal(left, right.flag == Flag.UNFILLABLE)
    assert left.any()
    assert (out.flag[~b.valid] == Flag.SAME_DATE).any()
    for name in BANDS:
        np.testing.assert_array_equal(np.isnan(out.bands[name]), left)
    assert not SameDate(**options).complete


def test_the_unit_of_reflectance_is_no_part_of_the_answer(ds: xr.Dataset) -> None:
    b = block(ds)
    dim = replace(b, bands={n: a * np.float32(0.125) for n, a in b.bands.items()})
    whole, eighth = (one(SameDate(prior="linear").prepare(x), x) for x in (b, dim))
    np.testing.assert_array_equal(whole.flag, eighth.flag)
    for name in BANDS:
        right = whole.bands[name]
        np.testing.assert_allclose(eighth.bands[name] * np.float32(8), right, atol=2e-6)


def test_undetected_clouds_come_back_as_observed(ds: xr.Dataset) -> None:
    given = ds.copy(deep=True)
    for name in BANDS:
        given[name].values[3, 5:11, 5:11] = np.float32(0.8)
    given["valid"].values[3, 5:11, 5:11] = True
    out = fill(given)
    check(given, out)
    assert "suspect_share" in out.attrs["gapfill_learned"]


def test_options_are_checked() -> None:
    with pytest.raises(MethodError, match=r"max_gap"):
        SameDate(max_gap=-1)
    with pytest.raises(MethodError, match=r"Unknown method 'lineer'"):
        SameDate(prior="lineer")
    with pytest.raises(MethodError, match=r"prior='samedate'.*pixel by pixel"):
        SameDate(prior="samedate")
