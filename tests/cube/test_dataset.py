from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cubefill
from cubefill.cube import check, conform, describe, resolution_of, spectral
from cubefill.errors import CubeError, StoreError
from cubefill.testing import synthetic_cube
from tests.shared.strategies import cube


def test_a_cube_passes_unchanged() -> None:
    ds = cube()
    assert check(ds) is ds
    assert spectral(ds) == ("B04", "B08")
    assert resolution_of(ds) == 10


def test_masks_flags_and_errors_are_not_filled() -> None:
    ds = cube()
    for name in ("fill_flag", "SCL", "B04_std", "NDVI_flag", "VV", "sar_valid"):
        ds[name] = ds["B04"]
    assert spectral(ds) == ("B04", "B08")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["B04"], r"Expected an xarray.Dataset.*got DataArray"),
        (lambda d: d.rename(x="col"), r"Missing dimension x.*found time, y, col"),
        (lambda d: d.rename(time="t"), r"Missing dimension time.*conform"),
        (lambda d: d.rename(y="lat", x="lon"), r"in degrees.*reproject"),
        (lambda d: d.drop_vars("time"), r"no coordinate.*assign_coords"),
        (lambda d: d.assign_coords(time=np.arange(7)), r"dtype int64: expected datetime64"),
        (lambda d: d[["valid"]], r"No band to fill.*found valid"),
        (lambda d: d.assign_coords(x=d.x * 1e-6), r"in degrees"),
        (lambda d: d.assign(B04=(d.B04 * 1e4).astype("uint16")), r"digital numbers \(dtype uint16"),
    ],
)
def test_what_is_no_cube_says_what_to_type(change, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CubeError, match=message):
        check(change(cube()))


def test_nat_is_named_by_position() -> None:
    ds = cube()
    time = ds["time"].values.copy()
    time[[1, 4]] = np.datetime64("NaT")
    with pytest.raises(CubeError, match=r"NaT at positions \[1, 4\]"):
        check(ds.assign_coords(time=time))


def test_a_geographic_crs_is_refused() -> None:
    wkt = 'GEOGCRS["WGS 84",DATUM["World Geodetic System 1984"]]'
    ds = cube().assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": wkt}))
    with pytest.raises(CubeError, match=r"projected CRS in metres"):
        check(ds)


def test_foreign_names_and_counts_conform() -> None:
    ds = cube()
    counts = (ds["B04"] * 1e4).round().astype("uint16")
    counts[0, 0, 0] = 0
    foreign = ds.assign(B04=counts).rename(B04="red", B08="b08", time="t")
    out = conform(foreign, scale=1e-4)
    assert spectral(out) == ("B04", "B08")
    assert np.isnan(out["B04"].values[0, 0, 0])
    np.testing.assert_allclose(out["B04"].values[1:], ds["B04"].values[1:], atol=1e-6)
    with pytest.raises(CubeError, match=r"scale=1e-4"):
        conform(foreign)


def test_one_line_says_what_it_is() -> None:
    assert describe(cube()) == "7 dates, 2 bands (B04, B08), 12 x 10 px, EPSG:32631, 10 m"


def stacked_dates(ds: xr.Dataset) -> xr.Dataset:
    orbit = ("time", np.arange(ds.sizes["time"]))
    ds = ds.assign_coords(orbit=orbit, day=("time", ds["time"].values))
    return ds.drop_vars("time").set_index(time=["day", "orbit"])


def undecoded(ds: xr.Dataset, **attrs: float) -> xr.Dataset:
    counts = ((ds["B04"] - attrs.get("add_offset", 0)) / attrs["scale_factor"]).round()
    return ds.assign(B04=counts.astype("int32").assign_attrs(attrs))


def counted_dates(ds: xr.Dataset) -> xr.Dataset:
    days = (ds["time"] - ds["time"][0]).values / np.timedelta64(1, "s")
    first = str(ds["time"].values[0])[:19].replace("T", " ")
    return ds.assign_coords(time=("time", days, {"units": f"seconds since {first}"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: undecoded(ds, scale_factor=1e-4), "scale_factor=0.0001"),
        (lambda ds: undecoded(ds, scale_factor=2.75e-5, add_offset=-0.2), "add_offset=-0.2"),
        (counted_dates, "holds numbers, seconds since"),
        (stacked_dates, "several levels"),
        (lambda ds: ds.stack(pixel=("y", "x")), "Missing dimension y, x"),
        (lambda ds: ds.rename(B02=2, B03=("B", 3)), "names of bands as text"),
    ],
)
def test_the_line_to_type_gives_the_cube(change: Any, message: str) -> None:
    ds = synthetic_cube(dates=5, size=(4, 5))
    with pytest.raises(CubeError, match=message) as error:
        cubefill.gapfill(change(ds), "linear")
    line = str(error.value).split("Use ")[1]
    code = line.split(", since")[0].split(" with")[0].rstrip(".")
    better = eval(code, {"ds": change(ds), "xarray": xr})
    out = cubefill.gapfill(better, "linear")["B04"].transpose("time", "y", "x")
    np.testing.assert_allclose(out, cubefill.gapfill(ds, "linear")["B04"], atol=6e-5)


def test_no_scale_replaces_that_of_the_attributes() -> None:
    ds = undecoded(synthetic_cube(dates=2), scale_factor=1e-4, add_offset=-0.1)
    with pytest.raises(CubeError, match=r"Use xarray.decode_cf\(ds\)"):
        cubefill.conform(ds, scale=1e-4)
    plain = undecoded(synthetic_cube(dates=2), scale_factor=1e-4)
    np.testing.assert_allclose(
        cubefill.conform(plain, scale=1e-4)["B04"], synthetic_cube(dates=2)["B04"], atol=6e-5
    )


@pytest.mark.parametrize("given", [None, "cube.zarr", synthetic_cube(dates=2)["B04"]])
@pytest.mark.parametrize(
    "door", ["ndvi", "with_ndvi", "gapfill", "plan", "report", "to_geotiff", "write_cube"]
)
def test_what_is_no_dataset_is_refused_at_every_door(
    tmp_path: Path, door: str, given: object
) -> None:
    target = (tmp_path / "o",) if door in ("to_geotiff", "write_cube") else ()
    with pytest.raises(CubeError, match=r"Expected an xarray.Dataset .* got "):
        getattr(cubefill, door)(given, *target)


def test_arguments_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"bands=3: the cube has no 3.*Pass bands="):
        synthetic_cube(dates=2).gapfill(bands=3)
    with pytest.raises(CubeError, match=r"Expected an xarray.Dataset .* got NoneType"):
        conform(None)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"Pass shard=256"):
        cubefill.write_cube(synthetic_cube(dates=2), tmp_path / "o.zarr", shard=0)
