"""What a cube is: an ordinary dataset that `check` accepts; `conform` turns foreign names."""

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from cubefill.cube.bands import BANDS, NOT_SPECTRAL, canonical
from cubefill.errors import CubeError

DIMS = ("time", "y", "x")

FOREIGN_DIMS = {
    "t": "time",
    "timestamp": "time",
    "date": "time",
    "northing": "y",
    "easting": "x",
    "Y": "y",
    "X": "x",
}
"""Names of dimensions in other libraries' cubes."""

_DEGREES = {"lat", "lon", "latitude", "longitude"}
_DERIVED = ("_std", "_flag")


def spectral(ds: xr.Dataset) -> tuple[str, ...]:
    """Names of the variables that a method may fill, in the dataset's order.

    Every variable on time, y and x, except masks, classes, flags, SAR and standard deviations.
    """
    return tuple(
        str(name)
        for name, v in ds.data_vars.items()
        if set(v.dims) == set(DIMS)
        and name not in NOT_SPECTRAL
        and not str(name).endswith(_DERIVED)
        and v.dtype.kind in "iuf"
    )


def check(ds: xr.Dataset) -> xr.Dataset:
    """The same dataset, if it is a cube; reads no pixel.

    Raises
    ------
    CubeError
        A dimension, the time coordinate, the bands, the unit or the grid is not a cube's; the
        message says what was expected, what came, and what to type.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> check(synthetic_cube()).sizes["time"]
    12
    """
    if not isinstance(ds, xr.Dataset):
        raise CubeError(
            f"Expected an xarray.Dataset with one variable per band, got {type(ds).__name__}. "
            "Use da.to_dataset(dim='band') for a DataArray with a band dimension."
        )
    _check_dims(ds)
    _check_time(ds)
    _check_bands(ds)
    _check_grid(ds)
    return ds


def conform(ds: xr.Dataset, *, scale: float | None = None) -> xr.Dataset:
    """The dataset with cubefill's names of dimensions and bands, and reflectance as float32.

    Parameters
    ----------
    ds
        A cube of another library: bands `red`, `b04`, `B04_10m`; dimensions `t`, `timestamp`.
    scale
        Factor from digital numbers to reflectance, such as 1e-4; integer bands need it, and their
        zeros become NaN. Apply an offset of the processing baseline before.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> foreign = synthetic_cube().rename(B04="red", time="t")
    >>> "B04" in conform(foreign) and "time" in conform(foreign).dims
    True
    """
    names: dict[Hashable, Hashable] = {
        d: FOREIGN_DIMS[str(d)] for d in ds.dims if str(d) in FOREIGN_DIMS
    }
    for name in ds.data_vars:
        found = canonical(str(name))
        if found and found != name and found not in ds:
            names[name] = found
    ds = ds.rename(names)
    for name in spectral(ds):
        if ds[name].dtype.kind in "iu":
            if scale is None:
                raise CubeError(_DIGITAL.format(name=name, what=f"dtype {ds[name].dtype}"))
            ds[name] = (ds[name].where(ds[name] != 0) * np.float32(scale)).astype(np.float32)
        elif ds[name].dtype != np.float32:
            ds[name] = ds[name].astype(np.float32)
    return ds


def crs_of(ds: xr.Dataset) -> Any | None:
    """The coordinate reference system (`odc.geo.crs.CRS`), or None where the cube has none."""
    from odc.geo.xr import xr_coords  # noqa: F401  registers ds.odc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)  # affine, in odc-geo
        found = (probe.odc.crs for probe in (ds, *ds.data_vars.values()))
        return next((crs for crs in found if crs is not None), None)


def resolution_of(ds: xr.Dataset) -> float | None:
    """Pixel size along x in units of the CRS, or None for a cube of one column."""
    x = ds["x"].values if "x" in ds.coords else np.empty(0)
    return float(abs(x[1] - x[0])) if x.size > 1 else None


def describe(ds: xr.Dataset) -> str:
    """One line: dates, bands, size and grid; reads no pixel."""
    bands = spectral(ds)
    epsg = _epsg(ds)
    step = resolution_of(ds)
    parts = [
        f"{ds.sizes.get('time', 0)} dates",
        f"{len(bands)} bands ({', '.join(bands)})",
        f"{ds.sizes.get('y', 0)} x {ds.sizes.get('x', 0)} px",
        *([epsg] if epsg else []),
        *([f"{step:g} m"] if step else []),
    ]
    return ", ".join(parts)


def _epsg(ds: xr.Dataset) -> str | None:
    crs = crs_of(ds)
    if crs is None:
        return None
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs)[:40]


def _check_dims(ds: xr.Dataset) -> None:
    if _DEGREES & {str(d) for d in ds.dims}:
        raise CubeError(
            f"The grid is in degrees (dimensions {', '.join(map(str, ds.dims))}): expected time, y "
            "and x in metres. Use ds.odc.reproject('utm', resolution=10)."
        )
    missing = [d for d in DIMS if d not in ds.dims]
    if missing:
        known = {d: FOREIGN_DIMS[str(d)] for d in ds.dims if str(d) in FOREIGN_DIMS}
        fix = "cubefill.cube.conform(ds)" if known else f"ds.rename({{...: {missing[0]!r}}})"
        raise CubeError(
            f"Missing dimension {', '.join(missing)}: expected time, y, x; found "
            f"{', '.join(map(str, ds.dims)) or 'none'}. Pass {fix}."
        )


def _check_time(ds: xr.Dataset) -> None:
    if "time" not in ds.coords:
        raise CubeError(
            "The time dimension has no coordinate: expected acquisition dates. "
            "Use ds.assign_coords(time=dates)."
        )
    time = ds["time"]
    if time.dtype.kind != "M":
        raise CubeError(
            f"The time coordinate has dtype {time.dtype}: expected datetime64. "
            "Use ds.assign_coords(time=pandas.to_datetime(ds.time))."
        )
    bad = np.flatnonzero(np.isnat(time.values))
    if bad.size:
        raise CubeError(
            f"The time coordinate holds NaT at positions {bad[:5].tolist()}: expected a date for "
            "every time step. Use ds.isel(time=ds.time.notnull().values)."
        )


_DIGITAL = (
    "{name} looks like digital numbers ({what}): expected reflectance, 0 to about 1. Use "
    "cubefill.cube.conform(ds, scale=1e-4) after any offset of the processing baseline is applied."
)


def _check_bands(ds: xr.Dataset) -> None:
    found = spectral(ds)
    if not found:
        aliases = [str(n) for n in ds.data_vars if canonical(str(n)) in BANDS]
        fix = (
            f"Use cubefill.cube.conform(ds) to rename {', '.join(aliases)}."
            if aliases
            else "Use ds['B04'] = ... to add a band."
        )
        raise CubeError(
            "No band to fill: expected variables such as B04 on time, y, x; found "
            f"{', '.join(map(str, ds.data_vars)) or 'none'}. {fix}"
        )
    for name in found:
        if ds[name].dtype.kind in "iu":
            raise CubeError(_DIGITAL.format(name=name, what=f"dtype {ds[name].dtype}"))


def _check_grid(ds: xr.Dataset) -> None:
    if not set(spectral(ds)) & set(BANDS):
        return  # a gridded product such as Sentinel-5P may lie on degrees
    step = resolution_of(ds)
    geographic = step is not None and step < 0.01
    if not geographic and "spatial_ref" in ds.coords:
        wkt = str(ds["spatial_ref"].attrs.get("crs_wkt", ""))
        geographic = wkt.lstrip().upper().startswith(("GEOGCS", "GEOGCRS", "GEODCRS"))
    if geographic:
        raise CubeError(
            f"The grid is in degrees (pixel size {step}): expected a projected CRS in metres. "
            "Use ds.odc.reproject('utm', resolution=10)."
        )


def check_values(name: str, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Refuses digital numbers among the clear values of a sample of one band.

    Raises
    ------
    CubeError
        The median of the sample is above 2.
    """
    finite = values[np.isfinite(values)]
    if finite.size and float(np.median(finite)) > 2 and name in BANDS:
        raise CubeError(
            _DIGITAL.format(name=name, what=f"median of clear values {np.median(finite):.0f}")
        )
