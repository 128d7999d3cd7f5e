from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cubefill.cube.indices import ndvi
from cubefill.engine import gapfill
from cubefill.errors import CubefillWarning
from cubefill.methods.contract import Block, Filled, Flag, Needs
from tests.shared.strategies import Mean, cube


@dataclass(frozen=True)
class Constant:
    """Fills everything with one value, whatever came."""

    value: float = 0.25
    needs = Needs()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for b in blocks:
            yield Filled({n: np.full(b.shape, self.value, np.float32) for n in b.bands})


@dataclass(frozen=True)
class Greenness:
    """Gives NDVI instead of bands."""

    gives = ("NDVI",)
    needs = Needs(bands=("B04", "B08"))

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for b in blocks:
            yield Filled({"NDVI": np.full(b.shape, 0.5, np.float32)})


def test_codes_of_a_learned_fill() -> None:
    ds = cube()
    out = gapfill(ds, Constant()).compute()
    valid = ds["valid"].values
    np.testing.assert_array_equal(out["fill_flag"].values, np.where(valid, 0, Flag.LEARNED))
    assert (out["B04"].values[~valid] == np.float32(0.25)).all()


def test_what_stays_nan_is_unfillable() -> None:
    out = gapfill(cube(), Constant(np.nan)).compute()
    nan = np.isnan(out["B04"].values)
    np.testing.assert_array_equal(nan, out["fill_flag"].values == Flag.UNFILLABLE)
    assert nan.any()


def test_a_pixel_without_any_value_is_no_data_and_nan() -> None:
    ds = cube()
    for b in ("B04", "B08"):
        ds[b][:, 3, 3] = np.nan
    out = gapfill(ds, Constant()).compute()
    assert (out["fill_flag"].values[:, 3, 3] == Flag.NO_DATA).all()
    assert np.isnan(out["B04"].values[:, 3, 3]).all()
    assert (out["fill_flag"].values == Flag.NO_DATA).sum() == ds.sizes["time"]


def test_nan_in_one_band_is_a_gap_of_that_band_only() -> None:
    ds = cube(gap=0.0)
    ds["B04"][2, 5, 5] = np.nan
    out = gapfill(ds, Constant()).compute()
    assert out["B04"].values[2, 5, 5] == np.float32(0.25)
    assert out["B08"].values[2, 5, 5] == ds["B08"].values[2, 5, 5]
    assert out["fill_flag"].values[2, 5, 5] == Flag.LEARNED


def test_zero_is_a_value_and_nan_is_a_gap_whatever_the_mask_says() -> None:
    ds = cube(gap=0.0)
    ds["valid"][:] = True
    ds["B04"][3, 4, 4] = 0.0
    ds["B04"][3, 4, 5] = np.nan
    ds["B08"][3, 4, 5] = np.nan
    out = gapfill(ds, Constant()).compute()
    assert out["B04"].values[3, 4, 4] == 0
    assert out["fill_flag"].values[3, 4, 4] == Flag.OBSERVED
    assert out["B04"].values[3, 4, 5] == np.float32(0.25)
    assert out["fill_flag"].values[3, 4, 5] == Flag.LEARNED


def test_a_failed_read_is_no_gap() -> None:
    ds = cube()
    missing = np.zeros(ds["valid"].shape, bool)
    missing[1, 4:6] = True
    ds["source_missing"] = (("time", "y", "x"), missing)
    ds["valid"] = ds["valid"] & ~missing
    out = gapfill(ds, Constant()).compute()
    assert (out["fill_flag"].values[missing] == Flag.SOURCE_MISSING).all()
    assert np.isnan(out["B08"].values[missing]).all()
    assert (out["fill_flag"].values == Flag.SOURCE_MISSING).sum() == missing.sum()


def test_dates_without_acquisition_have_their_own_code() -> None:
    ds = cube()
    asked = [ds["time"].values[2], np.datetime64("2023-01-03")]
    out = gapfill(ds, Mean(), times=asked).compute()
    valid = ds["valid"].values[2]
    np.testing.assert_array_equal(out["B04"].values[0][valid], ds["B04"].values[2][valid])
    np.testing.assert_array_equal(out["fill_flag"].values[0] == 0, valid)
    codes = set(np.unique(out["fill_flag"].values[1]).tolist())
    assert codes <= {int(Flag.NOT_ACQUIRED), int(Flag.UNFILLABLE)}
    assert int(Flag.NOT_ACQUIRED) in codes


def test_each_of_two_acquisitions_of_a_day_keeps_its_clear_pixels() -> None:
    ds = cube()
    time = ds["time"].values.copy()
    time[3] = time[2] + np.timedelta64(14, "s")
    ds = ds.assign_coords(time=time)
    with pytest.warns(CubefillWarning, match="more than one acquisition"):
        out = gapfill(ds, Mean())
    out = out.compute()
    valid = ds["valid"].values
    for b in ("B04", "B08"):
        np.testing.assert_array_equal(out[b].values[valid], ds[b].values[valid])
    np.testing.assert_array_equal(out["fill_flag"].values == 0, valid)


def test_unsorted_dates_come_back_in_the_callers_order() -> None:
    ds = cube()
    turned = ds.isel(time=[4, 0, 6, 2, 1, 5, 3])
    a = gapfill(ds, Mean()).compute()
    b = gapfill(turned, Mean()).compute().sortby("time")
    for name in a:
        np.testing.assert_array_equal(a[name].values, b[name].values)


def test_clear_ndvi_is_put_back_where_a_method_gives_ndvi() -> None:
    ds = cube()
    out = gapfill(ds, Greenness()).compute()
    valid = ds["valid"].values & np.isfinite(ndvi(ds).values)
    np.testing.assert_array_equal(out["NDVI"].values[valid], ndvi(ds).values[valid])
    assert (out["NDVI"].values[~ds["valid"].values] == np.float32(0.5)).all()


@pytest.mark.parametrize("method", ["linear", "whittaker", "harmonic", Constant()])
def test_one_flag_tells_a_band_that_is_missing_from_all(method: Any) -> None:
    """11: some bands have no value, others do; 8 and 255 only where none has one."""
    ds = cube(9, (4, 5))
    ds["valid"][:, 1, 1] = [True, False, True, True, False, True, True, False, True]
    ds["B08"][:, 1, 1] = np.nan
    ds["B04"][:, 2, 2] = ds["B08"][:, 2, 2] = np.nan
    class_of: dict[str, Any] = {"lam": 10.0} if method == "whittaker" else {}
    out = gapfill(ds, method, **class_of).compute()
    known = np.stack([np.isfinite(out[b].values) for b in ("B04", "B08")])
    flag = out["fill_flag"].values
    np.testing.assert_array_equal(np.isin(flag, (8, 255)), ~known.any(axis=0))
    np.testing.assert_array_equal(flag == Flag.INCOMPLETE, known.any(axis=0) & ~known.all(axis=0))
    if not isinstance(method, Constant):
        assert (flag[:, 1, 1] == Flag.INCOMPLETE).all()
    assert (flag[:, 2, 2] == Flag.NO_DATA).all()
    assert out["fill_flag"].attrs["flag_meanings"].split()[11] == "incomplete"
    tiled = gapfill(ds.chunk(y=2, x=2), method, tile=2, **class_of).compute()
    np.testing.assert_array_equal(tiled["fill_flag"].values, flag)
