import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.engine import gapfill
from cubefill.errors import CubeError, MethodError
from cubefill.methods import Flag
from cubefill.simulate import scene
from cubefill.store import open_cube, write_cube
from tests.shared.strategies import Mean, Neighbours, cube


def test_the_result_is_lazy_and_has_flags_and_provenance() -> None:
    ds = cube().assign_attrs(title="mine", history="made")
    ds["B04"].attrs["long_name"] = "red"
    out = gapfill(ds, "linear", max_gap=30)
    assert list(out.data_vars) == ["B04", "B08", "fill_flag"]
    assert all(v.chunks is not None for v in out.data_vars.values())
    assert out["B04"].attrs["long_name"] == "red"
    assert out["B04"].attrs["ancillary_variables"] == "fill_flag"
    flag = out["fill_flag"]
    assert flag.dtype == np.uint8
    assert flag.attrs["flag_values"].dtype == np.uint8
    assert flag.attrs["flag_meanings"].split()[flag.attrs["flag_values"].tolist().index(8)] == (
        "unfillable"
    )
    assert out.attrs["title"] == "mine"
    assert out.attrs["gapfill_method"] == "linear"
    assert json.loads(out.attrs["gapfill_parameters"])["max_gap"] == 30
    assert out.attrs["history"].startswith("made\n")


def test_auto_says_in_one_log_line_what_it_stands_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cubefill"):
        out = gapfill(cube())
    assert "method 'auto' is 'samedate'" in [r.message for r in caplog.records]
    assert out.attrs["gapfill_method"] == "samedate"


def test_dimensions_in_another_order_are_restored() -> None:
    ds = cube()
    turned = ds.transpose("y", "x", "time")
    out = gapfill(turned, "linear")
    assert out["B04"].dims == ("y", "x", "time")
    expected = gapfill(ds, "linear").compute()
    xr.testing.assert_equal(out.compute().transpose("time", "y", "x"), expected)


def test_extra_coordinates_and_the_crs_stay() -> None:
    ds = cube().assign_coords(spatial_ref=0, item=("time", list("abcdefg")))
    out = gapfill(ds, "linear")
    assert out["item"].values.tolist() == list("abcdefg")
    assert out["B04"].encoding["grid_mapping"] == "spatial_ref"
    other = gapfill(ds, "linear", times="3D")
    assert "item" not in other.coords
    assert "spatial_ref" in other.coords


def test_sar_on_dates_of_its_own_is_no_obstacle() -> None:
    ds = scene(size=(20, 24), days=60, sar="own").cube
    assert "sar_time" in ds.dims
    out = gapfill(ds, "linear").compute()
    assert "sar_time" not in out.dims
    plain = gapfill(ds.drop_dims("sar_time"), "linear").compute()
    xr.testing.assert_equal(out.drop_attrs(), plain.drop_attrs())
    assert gapfill(ds, "linear", times="6D").sizes["x"] == 24


def test_one_date_two_dates_and_no_clear_pixel() -> None:
    for dates in (1, 2):
        ds = cube(dates=dates)
        out = gapfill(ds, "linear").compute()
        valid = ds["valid"].values
        np.testing.assert_array_equal(out["B04"].values[valid], ds["B04"].values[valid])
        never = ~valid.any(axis=0)
        assert (out["fill_flag"].values[:, never] == Flag.UNFILLABLE).all()
        assert np.isnan(out["B04"].values[:, never]).all()


def test_a_users_own_mask_or_callable() -> None:
    ds = cube()
    mine = ds["B04"] > 0.2
    for valid in (mine, mine.values, lambda d: d["B04"] > 0.2):
        out = gapfill(ds.drop_vars("valid"), "linear", valid=valid).compute()
        np.testing.assert_array_equal(out["fill_flag"].values == 0, mine.values)


def test_no_mask_at_all_is_an_error() -> None:
    with pytest.raises(CubeError, match=r"valid"):
        gapfill(cube().drop_vars("valid"))


def test_digital_numbers_are_refused_at_once() -> None:
    ds = cube()
    ds["B04"] = (ds["B04"] * 1e4).astype("uint16")
    with pytest.raises(CubeError, match=r"digital numbers.*scale=1e-4"):
        gapfill(ds)


def test_what_a_method_learned_is_recorded_and_the_same_for_any_chunks() -> None:
    ds = cube(size=(40, 30))
    a = gapfill(ds, Mean())
    b = gapfill(ds.chunk({"time": 3, "y": 11}), Mean(), tile=9)
    assert json.loads(a.attrs["gapfill_learned"])["learned"] > 0
    assert a.attrs["gapfill_learned"] == b.attrs["gapfill_learned"]


def test_a_store_gives_the_same_answer_as_memory(tmp_path: Path) -> None:
    ds = cube(size=(40, 30))
    stored = write_cube(ds, tmp_path / "c.zarr", progress=False)
    for method in ("linear", Neighbours(6, 3)):
        a = gapfill(stored, method, tile=13).compute()
        b = gapfill(stored.compute(), method).compute()
        xr.testing.assert_equal(a, b)


def test_clear_pixels_keep_their_counts_through_a_store(tmp_path: Path) -> None:
    import zarr

    ds = cube(size=(40, 30))
    write_cube(ds, tmp_path / "c.zarr", progress=False)
    out = gapfill(open_cube(tmp_path / "c.zarr"), "linear")
    write_cube(out, tmp_path / "f.zarr", progress=False)
    valid = ds["valid"].values
    for band in ("B04", "B08"):
        before = np.asarray(zarr.open_array(tmp_path / "c.zarr", path=band)[:])
        after = np.asarray(zarr.open_array(tmp_path / "f.zarr", path=band)[:])
        assert after.dtype == np.int16
        np.testing.assert_array_equal(before[valid], after[valid])


def test_smoothed_products_have_other_names() -> None:
    out = gapfill(cube(dates=12), "whittaker", lam=10.0, smooth=True).compute()
    assert list(out.data_vars) == ["B04_smooth", "B08_smooth", "fill_flag"]
    assert out.attrs["gapfill_observed_altered"] == 1
    assert set(np.unique(out["fill_flag"].values)) <= {
        Flag.SMOOTHED,
        Flag.UNFILLABLE,
        Flag.FEW_OBSERVATIONS,
    }
    with pytest.raises(MethodError, match=r"smooth"):
        gapfill(cube(), "linear", smooth=True)


def test_std_is_given_at_gaps_only() -> None:
    ds = cube(dates=15, size=(30, 30))
    out = gapfill(ds, "linear", std=True).compute()
    gap = out["fill_flag"].values != 0
    std = out["B04_std"].values
    assert np.isnan(std[~gap]).all()
    assert (std[gap & np.isfinite(out["B04"].values)] > 0).mean() > 0.9


def test_quantiles_lie_around_what_is_filled() -> None:
    ds = cube(dates=15, size=(30, 30))
    out = gapfill(ds, "linear", quantiles=(0.95, 0.05, 0.5, 0.05)).compute()
    levels = {n: v.attrs["quantile"] for n, v in out.items() if str(n).startswith("B04_")}
    assert levels == {"B04_q05": 0.05, "B04_q50": 0.5, "B04_q95": 0.95}
    assert out["B04"].attrs["ancillary_variables"] == "fill_flag B04_q05 B04_q50 B04_q95"
    gap = (out["fill_flag"].values != 0) & np.isfinite(out["B04"].values)
    low, middle, high = (out[n].values for n in levels)
    assert (low[gap] < middle[gap]).all()
    assert (middle[gap] < high[gap]).all()
    np.testing.assert_array_equal(middle[gap], out["B04"].values[gap])
    np.testing.assert_array_equal(np.isfinite(low), gap)


@pytest.mark.parametrize("given", [(0,), (1.0,), (0.0005,), ("much",), 1.5, (None,)])
def test_levels_that_are_none_say_what_to_pass(given: Any) -> None:
    with pytest.raises(MethodError, match=r"Pass quantiles=\(0.05, 0.95\)"):
        gapfill(cube(), "linear", quantiles=given)
