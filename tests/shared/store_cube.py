"""A small cube with one variable of each stored kind, and what it is compared by."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_array_equal

SMALL: dict[str, Any] = {"chunk": 16, "shard": 32, "progress": False}
"""Chunks and shards that cut the cube into six tiles."""


def store_cube(
    dates: int = 5, rows: int = 70, columns: int = 50, seed: int = 0, crs: str = "EPSG:32631"
) -> xr.Dataset:
    """Reflectance that int16 counts hold exactly, flags, masks, SAR on its own dates, DEM."""
    from odc.geo.xr import assign_crs

    rng = np.random.default_rng(seed)
    shape = (dates, rows, columns)
    dims = ("time", "y", "x")

    def band() -> np.ndarray[Any, np.dtype[np.float32]]:
        counts = rng.integers(-500, 11000, shape).astype(np.float32)
        values: np.ndarray[Any, np.dtype[np.float32]] = counts * np.float32(1e-4)
        values[rng.random(shape) < 0.2] = np.nan
        return values

    flag = {
        "flag_values": np.arange(3, dtype=np.uint8),
        "flag_meanings": "observed interpolated same_date",
        "standard_name": "status_flag",
    }
    start = np.datetime64("2021-03-01T10:56:21.024", "ns")
    step = np.timedelta64(5, "D")
    ds = xr.Dataset(
        {
            "B04": (dims, band(), {"units": "1", "wavelength_nm": 665}),
            "B08": (dims, band(), {"ancillary_variables": "fill_flag"}),
            "NDVI": (dims, band()),
            "B04_std": (dims, np.abs(band())),
            "SCL": (dims, rng.integers(0, 12, shape).astype(np.uint8)),
            "fill_flag": (dims, rng.integers(0, 3, shape).astype(np.uint8), flag),
            "valid": (dims, rng.random(shape) > 0.4, {"comment": "made up"}),
            "VV": (("sar_time", "y", "x"), rng.normal(-12, 3, (3, *shape[1:])).astype("f4")),
            "DEM": (("y", "x"), rng.random(shape[1:], dtype=np.float32) * 100),
        },
        coords={
            "time": start + np.arange(dates) * step,
            "y": 5_600_000 - 10.0 * np.arange(rows) - 5,
            "x": 500_000 + 10.0 * np.arange(columns) + 5,
            "sar_time": start + np.arange(3) * np.timedelta64(6, "D"),
            "orbit": ("sar_time", np.array([15, 110, 15], np.int16)),
            "sar_gap_hours": ("time", np.arange(dates, dtype=np.float32)),
        },
        attrs={"boa_offset_harmonized": 1, "history": "made"},
    )
    located: xr.Dataset = assign_crs(ds, crs)
    return located


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Fails unless both hold the same variables with the same values, types and dims."""
    assert list(found.data_vars) == list(expected.data_vars)
    for name in expected.variables:
        assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))
    for name in expected.data_vars:
        assert found[name].dtype == expected[name].dtype
        assert found[name].dims == expected[name].dims


def twice(x: xr.DataArray) -> xr.DataArray:
    """Twice the values, by a function without a name."""
    found: xr.DataArray = xr.apply_ufunc(
        lambda a: a * 2, x, dask="parallelized", output_dtypes=[x.dtype]
    )
    return found
