"""stackstac: an array (time, band, y, x) of float64 at pixel corners, with coordinates of objects.

Its newest version asks for pandas below 3, so the project does not install it; it runs with 3. The
array that is built by hand is held against the real one where the package is.
"""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine

from tests.recipes.clean_cube import (
    COMMON,
    LEFT,
    STEP,
    TOP,
    assert_right,
    classes,
    recipe,
    reflectance,
    said,
    times,
    x_centres,
    y_centres,
)
from tests.recipes.items import BOUNDS, write_items


def by_hand() -> xr.DataArray:
    values = np.concatenate([reflectance(np.float64), classes()[:, None]], axis=1)
    values = np.where(np.concatenate([values[:, :4], values[:, 4:]], 1) == 0, np.nan, values)
    about = np.empty(5, object)
    about[:] = [{"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": 0.0}] * 4 + [
        {"data_type": "uint8", "nodata": 0}
    ]
    shape = np.empty((), object)
    shape[()] = {24, 28}
    coords: dict[str, Any] = {
        "time": times(),
        "id": ("time", [f"S2A_32631_{str(t)[:10]}_0_L2A" for t in times()]),
        "band": [*COMMON, "scl"],
        "x": x_centres() - STEP / 2,
        "y": y_centres() + STEP / 2,
        "eo:cloud_cover": ("time", np.full(len(times()), 30.0)),
        "platform": "sentinel-2a",
        "proj:code": "EPSG:32631",
        "proj:shape": ((), shape),
        "raster:bands": ("band", about),
        "epsg": 32631,
    }
    return xr.DataArray(
        da.from_array(values, chunks=(1, 1, -1, -1)),
        coords,
        ("time", "band", "y", "x"),
        name="stackstac-16c97320a0381df8a9f47971bf3948b2",
        attrs={
            "crs": "epsg:32631",
            "transform": Affine(STEP, 0, LEFT, 0, -STEP, TOP),
            "resolution": STEP,
        },
    )


def by_stackstac(folder: Path) -> xr.DataArray:
    stackstac = pytest.importorskip("stackstac", reason="asks for pandas below 3")
    found: xr.DataArray = stackstac.stack(
        write_items(folder), assets=[*COMMON, "scl"], epsg=32631, resolution=10, bounds=BOUNDS
    )
    return found


@pytest.fixture(params=["by hand", "by stackstac"])
def array(request: pytest.FixtureRequest, tmp_path: Path) -> xr.DataArray:
    return by_hand() if request.param == "by hand" else by_stackstac(tmp_path)


def test_one_call(array: xr.DataArray, tmp_path: Path) -> None:
    with said("corner"):
        out = recipe("stackstac", da=array)["out"]
        assert_right(out, tmp_path)
    assert out.band.values.tolist() == [*COMMON, "scl"]
    out.to_netcdf(tmp_path / "filled.nc")
    with xr.open_dataarray(tmp_path / "filled.nc") as again:
        np.testing.assert_array_equal(again.values, out.values)
        np.testing.assert_array_equal(again.x, x_centres())
        assert '"scale"' in str(again["raster:bands"].values[0])


def test_the_array_by_hand_is_the_real_one(tmp_path: Path) -> None:
    real, own = by_stackstac(tmp_path), by_hand()
    np.testing.assert_allclose(real.values, own.values, rtol=1e-14)
    assert (real.dims, real.dtype) == (own.dims, own.dtype)
    assert set(own.coords) <= set(real.coords)
    for name in own.coords:
        assert (own[name].dims, own[name].dtype.kind) == (real[name].dims, real[name].dtype.kind)
    for name in ("x", "y", "time", "epsg", "band"):
        np.testing.assert_array_equal(real[name].values, own[name].values)
    assert {k: real.attrs[k] for k in own.attrs} == own.attrs
