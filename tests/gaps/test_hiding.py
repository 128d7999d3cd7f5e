"""Under artificial gaps lie clouds of other dates, never a clear observation."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cubefill import gaps
from cubefill.errors import CubeError
from cubefill.gaps import Dates, Transplant, covered
from tests.gaps.test_kinds import cloudy

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


def bands_of(valid: Any, seed: int = 0) -> dict[str, Any]:
    """Clear values below 1, cloudy ones above; B08 is B04 plus 10."""
    rng = np.random.default_rng(seed)
    values = (rng.random(valid.shape) * 0.9 + np.where(valid, 0, 1)).astype(np.float32)
    return {"B04": values, "B08": values + 10}


@given(arrays(bool, SIZES), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_hidden_pixels_hold_clouds_and_the_rest_is_as_it_was(
    valid: Any, seed: int, share: float
) -> None:
    bands, rng = bands_of(valid, seed), np.random.default_rng(seed)
    hidden = valid & (rng.random(valid.shape) < share)
    before = {n: a.copy() for n, a in bands.items()}
    shown = covered(bands, valid, hidden, rng)
    under = shown["B04"][hidden]
    assert (np.isnan(under) | (under >= 1)).all()
    assert np.isin(under[np.isfinite(under)], bands["B04"][~valid]).all()
    np.testing.assert_array_equal(shown["B08"] - 10, shown["B04"] + np.float32(10) - 10)
    for n in bands:
        np.testing.assert_array_equal(bands[n], before[n])
        np.testing.assert_array_equal(shown[n][~hidden], before[n][~hidden])
        assert shown[n].dtype == np.float32


def test_a_pixel_takes_the_cloud_of_its_own_place_first() -> None:
    valid = np.zeros((3, 4, 4), bool)
    valid[0] = True
    valid[1, :2] = True
    bands = bands_of(valid)
    hidden = np.zeros_like(valid)
    hidden[0, 2:] = True
    shown = covered(bands, valid, hidden, np.random.default_rng(0))["B04"][0, 2:]
    own = bands["B04"][1:, 2:]
    assert (shown == own).any(0).all()


def test_a_place_that_no_cloud_covers_takes_one_from_beside_it() -> None:
    valid = np.ones((2, 6, 6), bool)
    valid[1, :, :5] = False
    hidden = np.zeros_like(valid)
    hidden[0, :, 5] = True
    shown = covered(bands_of(valid), valid, hidden, np.random.default_rng(1))["B04"][0, :, 5]
    assert np.isfinite(shown).any()


def test_without_clouds_or_with_unread_ones_nothing_lies_there() -> None:
    valid = np.ones((2, 3, 3), bool)
    hidden = np.zeros_like(valid)
    hidden[0, 0] = True
    assert np.isnan(
        covered(bands_of(valid), valid, hidden, np.random.default_rng(0))["B04"][0, 0]
    ).all()
    valid[1] = False
    bands = bands_of(valid)
    bands["B08"][1] = np.nan
    shown = covered(bands, valid, hidden, np.random.default_rng(0))
    assert all(np.isnan(a[0, 0]).all() for a in shown.values())


# ------------------------------------------------------------------ cubes


def dataset() -> xr.Dataset:
    valid, days = cloudy()
    time = np.datetime64("2023-01-01", "ns") + (days * 24).astype("timedelta64[h]")
    values = xr.DataArray(
        valid, dims=("time", "y", "x"), coords={"time": time}, attrs={"source": "SCL"}
    )
    return xr.Dataset({"valid": values, "B04": values.astype("float32")})


def test_apply_takes_observations_out_and_shows_nothing_of_them() -> None:
    ds = dataset()
    hidden = gaps.hide(ds, Transplant(), seed=1)
    out = gaps.apply(ds, hidden)
    np.testing.assert_array_equal(out.valid, ds.valid & ~hidden)
    xr.testing.assert_identical(out.B04, ds.B04.where(~hidden.drop_vars(list(hidden.coords))))
    assert np.isnan(out.B04.values[hidden.values]).all()
    assert out.valid.attrs == {"source": "SCL", "hidden": int(hidden.sum())}
    assert "hidden" not in ds.valid.attrs
    assert "Transplant" in hidden.attrs["gaps"]


def test_apply_refuses_what_does_not_fit() -> None:
    ds = dataset()
    with pytest.raises(CubeError, match="expected bool of shape"):
        gaps.apply(ds, np.zeros((2, 2, 2), bool))
    with pytest.raises(CubeError, match="Expected a cube with `valid`"):
        gaps.hide(ds.drop_vars("valid"), Dates())
    with pytest.raises(CubeError, match="expected 'clouds' or 'nodata', got 'haze'"):
        gaps.apply(ds, ds.valid, hidden_as="haze")  # type: ignore[arg-type]


def test_apply_shows_clouds_of_other_dates_in_any_order_of_dims() -> None:
    ds = dataset().rename(B04="B08")
    ds["B04"] = ds["B08"].where(ds["valid"], np.float32(2)).transpose("x", "time", "y")
    hidden = gaps.hide(ds, Transplant(), seed=1)
    out = gaps.apply(ds, hidden, hidden_as="clouds", seed=3)
    assert out["B04"].dims == ("x", "time", "y")
    under = out["B04"].transpose("time", "y", "x").values[hidden.values]
    assert (np.isnan(under) | (under == 2)).all()
    assert (under == 2).mean() > 0.9
    xr.testing.assert_identical(out, gaps.apply(ds, hidden, hidden_as="clouds", seed=3))
