"""xcube and DeepESDL: Datasets on time, y, x with `crs` or `spatial_ref` and bounds of times.

xcube-core asks for a GDAL that no wheel brings, so the project does not install it. Where it is,
its own function lays out the cube.
"""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS

from tests.recipes.clean_cube import (
    COLUMNS,
    DATES,
    DIMS,
    LEFT,
    ROWS,
    STEP,
    TOP,
    assert_right,
    classes,
    clean,
    counts,
    recipe,
    said,
    times,
    x_centres,
    y_centres,
)


def by_hand() -> xr.Dataset:
    """A cube as `xcube.core.new.new_cube` lays it out, bands of float64."""
    x, y, t = x_centres(), y_centres(), times()
    half, day = STEP / 2, np.timedelta64(12, "h")
    ds = xr.Dataset(
        {n: (DIMS, c * 1e-4) for n, c in counts().items()} | {"SCL": (DIMS, classes())},
        {
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
            "y": ("y", y, {"units": "m", "standard_name": "projection_y_coordinate"}),
            "time": ("time", t, {"standard_name": "time", "bounds": "time_bnds"}),
            "x_bnds": (("x", "bnds"), np.stack([x - half, x + half], 1)),
            "y_bnds": (("y", "bnds"), np.stack([y - half, y + half], 1)),
            "time_bnds": (("time", "bnds"), np.stack([t - day, t + day], 1)),
        },
        {"Conventions": "CF-1.7", "title": "Test Cube"},
    )
    ds["crs"] = xr.DataArray(0, attrs=CRS.from_epsg(32631).to_cf())
    for name in counts():
        ds[name].attrs["grid_mapping"] = "crs"
    return ds


def by_xcube() -> xr.Dataset:
    new = pytest.importorskip("xcube.core.new", reason="asks for GDAL")
    ds: xr.Dataset = new.new_cube(
        width=COLUMNS,
        height=ROWS,
        x_name="x",
        y_name="y",
        x_start=LEFT,
        y_start=TOP - STEP * ROWS,
        x_res=STEP,
        y_res=STEP,
        x_units="m",
        y_units="m",
        crs="EPSG:32631",
        inverse_y=True,
        time_periods=DATES,
        variables=dict.fromkeys((*counts(), "SCL"), 0.0),
    )
    for name, c in counts().items():
        ds[name] = ds[name].copy(data=c * 1e-4)
    ds["SCL"] = (DIMS, classes())
    day = np.timedelta64(12, "h")
    bounds = np.stack([times() - day, times() + day], 1)
    return ds.assign_coords(time=times(), time_bnds=(("time", "bnds"), bounds))


@pytest.mark.parametrize("make", [by_hand, by_xcube])
def test_one_call(make: object, tmp_path: Path) -> None:
    ds = make()  # type: ignore[operator]
    with said():
        assert_right(recipe("xcube and DeepESDL", ds=ds)["out"], tmp_path)


def test_deepesdl_store(tmp_path: Path) -> None:
    """Chunked Zarr with `spatial_ref` as a data variable and classes of float."""
    ds = clean().reset_coords("spatial_ref")
    ds["SCL"] = ds["SCL"].astype(np.float32)
    for name in ds.data_vars:
        if "time" in ds[name].dims:
            ds[name].attrs["grid_mapping"] = "spatial_ref"
            ds[name].encoding = {}
    ds.chunk(time=1, y=12, x=14).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False)
    with said():
        assert_right(recipe("xcube and DeepESDL", ds=stored)["out"], tmp_path)
