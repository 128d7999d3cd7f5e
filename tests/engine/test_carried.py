"""`bands=`: what is filled, and what comes back beside it untouched, at every door."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cubefill
from cubefill.cli.commands import main
from cubefill.errors import CubeError, CubefillWarning, MethodError, StoreError
from cubefill.testing import synthetic_cube
from tests.shared.bad_cases import net

BANDS = ["B04", "B08"]


def rich() -> xr.Dataset:
    """A cube with layers of every type and on other dimensions."""
    ds = synthetic_cube(dates=6, sar=True, dem=True)
    rng = np.random.default_rng(2)
    ds["thing"] = (("y", "time", "x"), rng.random((20, 6, 24)).astype(np.float32))
    ds["angle"] = (("time", "y", "x"), rng.random((6, 20, 24)).astype(np.float32))
    ds["classes"] = (("time", "y", "x"), rng.integers(0, 9, (6, 20, 24)).astype(np.uint16))
    ds["by_month"] = (("month", "y", "x"), rng.random((2, 20, 24)).astype(np.float32))
    ds["weights"] = ("month", np.array([1, 2], np.float32))
    return ds.assign_coords(month=[3, 4])


REST = ["B02", "B03", "SCL", "valid", "VV", "VH", "sar_valid", "DEM", "thing", "angle", "classes",
        "by_month", "weights"]  # fmt: skip


@pytest.mark.parametrize("lazy", [False, True])
def test_all_else_comes_back_as_it_is(lazy: bool) -> None:
    ds = rich().chunk(y=8) if lazy else rich()
    out = ds.gapfill("linear", bands=BANDS)
    want = ds[[*BANDS, "SCL", "valid"]].gapfill("linear")
    assert sorted(map(str, out.data_vars)) == sorted([*BANDS, "fill_flag", *REST])
    for name in REST:
        xr.testing.assert_identical(out[name].variable, ds[name].variable)
    for name in (*BANDS, "fill_flag"):
        np.testing.assert_array_equal(out[name], want[name])
    np.testing.assert_array_equal(out["month"], ds["month"])
    assert ds.gapfill.plan("linear", bands=BANDS).gives == (*BANDS, "fill_flag")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("tile", [16, 32])
def test_a_job_writes_it_too_and_goes_on(tmp_path: Path, stored: bool, tile: int) -> None:
    ds = rich()
    source: Any = ds
    if stored:
        source = tmp_path / "cube.zarr"
        cubefill.write_cube(ds, source, progress=False)
    for _ in range(2):
        out = cubefill.run(
            source, tmp_path / "f.zarr", "linear", bands=BANDS, tile=tile, ndvi=True,
            progress=False,
        )  # fmt: skip
    want = ds[[*BANDS, "SCL", "valid"]].gapfill("linear")
    for name in REST:
        assert out[name].dims == ds[name].dims
        np.testing.assert_allclose(out[name], ds[name], atol=1e-7)
    np.testing.assert_allclose(out["B04"], want["B04"], atol=6e-5)
    assert "NDVI" in out


def test_other_dates_leave_out_what_lies_on_dates() -> None:
    ds = rich()
    with pytest.warns(CubefillWarning, match="B02, B03, SCL, valid, .* left out of the result"):
        out = ds.gapfill("linear", bands=BANDS, times="5D")
    assert set(out.data_vars) == {*BANDS, "fill_flag", "DEM", "by_month", "weights"}


def test_a_method_with_bands_of_its_own() -> None:
    ds = synthetic_cube(dates=6, size=(16, 16)).assign(B11=rich()["B04"][:, :16, :16])
    with pytest.raises(MethodError, match=r"not B11. Pass bands=\['B02', .*'linear'"):
        ds.gapfill("utilise", checkpoint=net("utilise"), bands=["B02", "B03", "B04", "B08", "B11"])
    with pytest.raises(MethodError, match=r"needs band B02, B03"):
        ds.gapfill("utilise", checkpoint=net("utilise"), bands=BANDS)
    strange = ds.assign(thing=ds["B02"].drop_attrs())
    assert "B04" in strange.gapfill("utilise", checkpoint=net("utilise"))


def test_the_command_takes_bands(tmp_path: Path) -> None:
    cubefill.write_cube(rich(), tmp_path / "cube.zarr", progress=False)
    source, target = str(tmp_path / "cube.zarr"), str(tmp_path / "f.zarr")
    for more in (["--dry-run"], []):
        main(
            ["fill", source, target, "--method", "linear", "--bands", "B04,thing", *more],
            standalone_mode=False,
        )
    out = cubefill.open_cube(target)
    assert "fill_flag" in out["thing"].attrs["ancillary_variables"]
    np.testing.assert_allclose(out["B02"], rich()["B02"], atol=1e-7)
    with pytest.raises(CubeError, match="thing may be bands or not"):
        cubefill.run(source, tmp_path / "g.zarr", "linear", progress=False)


def test_names_that_are_no_text_are_carried_too(tmp_path: Path) -> None:
    ds = rich().assign({4: rich()["angle"], ("a", 1): rich()["classes"]})
    out = ds.gapfill("linear", bands=BANDS)
    xr.testing.assert_identical(out[4], out["angle"].rename(4))
    done = cubefill.run(ds, tmp_path / "o.zarr", "linear", bands=BANDS, progress=False)
    np.testing.assert_array_equal(done["4"], done["angle"])
    np.testing.assert_array_equal(done["('a', 1)"], ds["classes"])


@pytest.mark.parametrize(
    "name", ["a/b", "", "..", "zarr.json", "cubefill_job", "__own", "a\\b", ".zattrs", 4]
)
def test_names_that_no_store_has_are_refused_and_the_advice_leads_on(
    tmp_path: Path, name: Any
) -> None:
    ds = synthetic_cube(dates=4).assign({name: synthetic_cube(dates=4)["SCL"]})
    ds = ds.assign({"4": ds["SCL"]}) if name == 4 else ds
    ways: tuple[Callable[[xr.Dataset], xr.Dataset], ...] = (
        lambda ds: cubefill.write_cube(ds, tmp_path / "o.zarr", progress=False),
        lambda ds: cubefill.run(ds, tmp_path / "r.zarr", bands=BANDS, progress=False),
    )
    for write in ways:
        with pytest.raises(StoreError, match="is no name for an array of a store") as error:
            write(ds)
        better = eval(str(error.value).split("Use ")[1].rstrip("."), {"ds": ds})
        assert np.array_equal(write(better)["SCL"], ds["SCL"])


def test_numbers_and_text_beside_the_bands_go_through_stores_as_they_are(tmp_path: Path) -> None:
    ds, rng = synthetic_cube(dates=4), np.random.default_rng(3)
    beside = {
        "longitude": (("y", "x"), 48 + rng.random((20, 24)) * 1e-7),
        "noise_std": (("time", "y", "x"), rng.normal(0, 20, (4, 20, 24))),
        "seconds": ("time", 1.7e9 + rng.random(4)),
        "product": ("time", ["S2A_1", "S2B_2", "S2A_3", "S2B_4"]),
        "sensed": ("time", ds["time"].values + np.timedelta64(3, "s")),
    }
    ds = ds.assign(beside)
    written = cubefill.write_cube(ds, tmp_path / "c.zarr", progress=False)
    done = cubefill.run(ds, tmp_path / "o.zarr", bands=BANDS, progress=False)
    again = cubefill.run(tmp_path / "c.zarr", tmp_path / "p.zarr", bands=BANDS, progress=False)
    for name in beside:
        for out in (written, done, again):
            np.testing.assert_array_equal(out[name], ds[name])


def test_a_layer_that_valid_names_is_no_band_whatever_its_name_and_type() -> None:
    ds = synthetic_cube(dates=6)
    named = ds.assign(thing=ds["SCL"].astype("float32"), other=ds["valid"].astype("int32"))
    named = named.drop_vars(["SCL", "valid"])
    for valid in ({"thing": (4, 5, 6, 7)}, "other"):
        out = named[["B04", "thing" if isinstance(valid, dict) else "other"]].gapfill(valid=valid)
        assert list(out.data_vars) == ["B04", "fill_flag"]
    with pytest.raises(CubeError, match="thing may be bands or not"):
        named[["B04", "thing"]].gapfill(valid="finite")


def test_a_job_on_a_cube_without_crs_says_so(tmp_path: Path) -> None:
    ds = synthetic_cube(dates=4).drop_vars("spatial_ref").drop_attrs()
    for v in ds.variables.values():
        v.encoding.pop("grid_mapping", None)
    with pytest.warns(CubefillWarning, match="names no CRS, so the store has none") as said:
        cubefill.run(ds, tmp_path / "out.zarr", progress=False)
    assert len(said) == 1
    named = eval("ds.assign_attrs(crs='EPSG:32631')", {"ds": ds})
    assert str(said[0].message).count("ds.assign_attrs(crs='EPSG:32631')") == 1
    out = cubefill.run(named, tmp_path / "named.zarr", progress=False)
    assert cubefill.cube.crs_of(out) == "EPSG:32631"
