"""Spectral indices as plain functions of bands; fills and their flags carry over."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.variables import variable_of
from cubefill.errors import CubeError

NDVI_ATTRS = {
    "long_name": "normalized difference vegetation index",
    "standard_name": "normalized_difference_vegetation_index",
    "units": "1",
    "valid_min": -1.0,
    "valid_max": 1.0,
}


def normalized_difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """(a - b) / (a + b) as float32 in -1..1; NaN where the sum is not positive.

    Values beyond -1..1, which negative reflectance can cause, are NaN too.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    total = a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (a - b) / total
    r[~((total > 0) & (np.abs(r) <= 1))] = np.nan
    return r


def normalized_difference_std(
    a: NDArray[Any], b: NDArray[Any], a_std: NDArray[Any], b_std: NDArray[Any]
) -> NDArray[np.float32]:
    """Standard deviation of (a - b) / (a + b) for independent errors of a and b, to first order."""
    total = a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        s = 2 * np.hypot(b * a_std, a * b_std) / (total * total)
    s[~(total > 0)] = np.nan
    return np.minimum(s, np.float32(1)).astype(np.float32, copy=False)


def ndvi(ds: xr.Dataset, *, nir: str = "B08", red: str = "B04") -> xr.DataArray:
    """NDVI (time, y, x), float32 in -1..1, NaN where a band is NaN or the sum is not positive.

    Parameters
    ----------
    ds
        A cube, filled or not; lazy where the bands are lazy.
    nir, red
        Bands to use; `nir="B8A"` for the narrow near infrared.

    Raises
    ------
    CubeError
        The cube lacks a band.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> ndvi(synthetic_cube()).dims
    ('time', 'y', 'x')

    References
    ----------
    Rouse et al. (1974), Monitoring vegetation systems in the Great Plains with ERTS.
    """
    nir, red = (_named(ds, b, (nir, red)) for b in (nir, red))
    out = xr.apply_ufunc(
        normalized_difference,
        ds[nir],
        ds[red],
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    ).rename("NDVI")
    out.attrs = {**NDVI_ATTRS, "bands": f"{nir} {red}"}
    if "fill_flag" in ds:
        out.attrs["ancillary_variables"] = "NDVI_flag"
    if "spatial_ref" in ds.coords:
        out.encoding["grid_mapping"] = "spatial_ref"
    return out


def _named(ds: xr.Dataset, band: str, pair: tuple[str, str]) -> str:
    """The variable that holds a band, in cubefill's name or a catalogue's."""
    found = variable_of(ds, band)
    if found is not None:
        return found
    other = next((b for b in ("B8A", "B08") if b not in pair and variable_of(ds, b)), None)
    fix = f"pass nir={other!r}" if other and band == pair[0] else "pass nir= and red= of the cube"
    raise CubeError(
        f"NDVI needs {' and '.join(pair)}: {band} is missing; the cube has "
        f"{', '.join(map(str, ds.data_vars))}. Use cubefill.load(items, bands={pair!r}), or {fix}."
    )


def ndvi_std(ds: xr.Dataset, nir: str, red: str) -> xr.DataArray:
    """Standard deviation of the error of NDVI, from those of two bands of the cube."""
    parts = (ds[nir], ds[red], ds[f"{nir}_std"], ds[f"{red}_std"])
    std: xr.DataArray = xr.apply_ufunc(
        normalized_difference_std, *parts, dask="parallelized", output_dtypes=[np.float32]
    )
    return std


def with_ndvi(ds: xr.Dataset, *, nir: str = "B08", red: str = "B04") -> xr.Dataset:
    """The dataset with `NDVI`, its `NDVI_flag`, and `NDVI_std` where both bands have one."""
    nir, red = (_named(ds, b, (nir, red)) for b in (nir, red))
    out = ds.assign(NDVI=ndvi(ds, nir=nir, red=red))
    if "fill_flag" in ds:
        out["NDVI_flag"] = ds["fill_flag"].copy()
        out["NDVI_flag"].attrs = dict(ds["fill_flag"].attrs)
        out["NDVI_flag"].encoding = dict(ds["fill_flag"].encoding)
    if f"{nir}_std" in ds and f"{red}_std" in ds:
        out["NDVI_std"] = ndvi_std(ds, nir, red).assign_attrs(
            long_name="standard deviation of the error of NDVI", units="1"
        )
        out["NDVI"].attrs["ancillary_variables"] = "NDVI_flag NDVI_std"
    return out
