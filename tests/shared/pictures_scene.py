"""A small scene with its filled form, made without the engine: what pictures are tested on."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import assign_crs

from cubefill.methods.contract import Flag

BANDS = ("B02", "B03", "B04", "B08")


def cube(dates: int = 16, size: int = 48, seed: int = 3) -> xr.Dataset:
    """Parcels whose NDVI rises and falls, under smooth clouds; cloudy values are bright."""
    rng = np.random.default_rng(seed)
    step = rng.integers(4, 12, dates)
    time = np.datetime64("2021-03-02T10:50", "ns") + np.cumsum(step).astype("timedelta64[D]")
    days = (time - time[0]) / np.timedelta64(1, "D")
    parcel = np.add.outer(np.arange(size) // 9 * 5, np.arange(size) // 12) % 7
    peak = 30 + 14 * parcel
    green = np.exp(-(((days[:, None, None] - peak) / 45.0) ** 2))
    valid = _clear(rng, dates, size)
    values = {
        "B02": 0.06 - 0.03 * green,
        "B03": 0.09 - 0.02 * green,
        "B04": 0.13 - 0.09 * green + 0.01 * (parcel % 3),
        "B08": 0.20 + 0.25 * green,
    }
    cloud = rng.uniform(0.35, 0.6, (dates, 1, 1))
    y = 5_650_000.0 - 10 * np.arange(size)
    x = 500_000.0 + 10 * np.arange(size)
    bands = {
        name: (("time", "y", "x"), np.where(valid, v, cloud + 0 * v).astype(np.float32))
        for name, v in values.items()
    }
    ds = xr.Dataset(bands, {"time": time, "y": y, "x": x})
    ds["valid"] = (("time", "y", "x"), valid)
    return assign_crs(ds, "EPSG:32631")


def filled(ds: xr.Dataset, method: str = "linear") -> xr.Dataset:
    """The cube filled by xarray's own interpolation, held at the ends, with flags and B04_std."""
    clear = ds["valid"]
    out = ds.drop_vars("valid")
    flag = np.where(clear, Flag.OBSERVED, Flag.INTERPOLATED).astype(np.uint8)
    for name in BANDS:
        inner = ds[name].where(clear).interpolate_na("time", use_coordinate=True)
        out[name] = inner.ffill("time").bfill("time").astype(np.float32)
        flag = np.where(inner.isnull() & out[name].notnull(), np.uint8(Flag.EXTRAPOLATED), flag)
        flag = np.where(out[name].isnull(), np.uint8(Flag.UNFILLABLE), flag)
        out[f"{name}_std"] = xr.where(clear, np.nan, 0.01).astype(np.float32)
    out["fill_flag"] = (("time", "y", "x"), flag)
    out.attrs["method"] = method
    return out


def _clear(rng: np.random.Generator, dates: int, size: int) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size] / size
    valid = np.ones((dates, size, size), bool)
    for t in range(dates):
        wave = sum(
            np.sin(2 * np.pi * (a * yy + b * xx) + p)
            for a, b, p in zip(
                rng.normal(0, 1.2, 6), rng.normal(0, 1.2, 6), rng.uniform(0, 6.3, 6), strict=True
            )
        )
        valid[t] = wave < np.quantile(wave, (0.05, 0.5, 0.97, 1.0)[t % 4])
    valid[4:10, :6, :6] = False
    return valid


def dates_of(ds: xr.Dataset) -> list[str]:
    """Its days as text."""
    return [str(d.date()) for d in pd.DatetimeIndex(ds["time"].values)]


class Counted:
    """An array that counts the elements asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.read = 0

    def __getitem__(self, index: Any) -> NDArray[Any]:
        part = np.broadcast_to(np.zeros((), self.dtype), self.shape)[index]
        self.read += part.size
        return np.array(part)
