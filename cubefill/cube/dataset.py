"""What a cube is: an ordinary dataset that `check` accepts; `conform` turns foreign names."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from cubefill.cube.bands import BANDS
from cubefill.cube.conforming import (
    DIGITAL,
    check_type,
    digital,
    foreign_names,
    in_own_names,
    say_renamed,
)
from cubefill.cube.georeference import check_degrees, crs_of, placed, resolution_of, say
from cubefill.cube.variables import DIMS, chosen_bands, no_band, spectral
from cubefill.errors import CubeError

Bands = Iterable[str] | str | None


def accept(ds: xr.Dataset, bands: Bands = None) -> xr.Dataset:
    """The cube that a dataset is, in cubefill's names and settled in its place; reads no pixel.

    Every door takes datasets through here (`settled`). Nothing is scaled.

    Warns
    -----
    CubefillWarning
        Names, dates or places were changed; says which.

    Raises
    ------
    CubeError
        As `check`.
    """
    check_type(ds)
    names = foreign_names(ds)
    cube, notes = placed(in_own_names(ds))
    check(cube, bands)
    say_renamed(names)
    say(notes)
    return cube


def check(ds: xr.Dataset, bands: Bands = None) -> xr.Dataset:
    """The same dataset, if it is a cube; reads no pixel.

    `bands` names the variables that are bands; by default those that plainly are.

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
    check_type(ds)
    _check_dims(ds)
    _check_time(ds)
    _check_bands(ds, bands)
    check_degrees(ds, optical=bool(set(spectral(ds)) & set(BANDS)))
    return ds


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
    check_degrees(ds, optical=False)
    missing = [d for d in DIMS if d not in ds.dims]
    if missing:
        raise CubeError(
            f"Missing dimension {', '.join(missing)}: expected time, y, x; found "
            f"{', '.join(map(str, ds.dims)) or 'none'}. {_dims_advice(ds, missing)}"
        )
    empty = [d for d in DIMS if not ds.sizes[d]]
    if empty:
        raise CubeError(
            f"The cube is empty: {' and '.join(empty)} of length 0, as a selection outside of the "
            "cube or against the order of a coordinate gives it. Expected 1 or more. "
            "Use ds.sel(y=slice(top, bottom)) where y falls, and look at the cube's coordinates."
        )


def _dims_advice(ds: xr.Dataset, missing: list[str]) -> str:
    """What to type to get the dimensions of a cube."""
    own = [d for d in foreign_names(ds) if d in ds.dims]
    others = [str(d) for d in ds.dims if d not in DIMS]
    stacked = [d for d in others if {*missing} <= {*getattr(ds.indexes.get(d), "names", ())}]
    if stacked:
        return f"Use ds.unstack({stacked[0]!r})."
    if own:
        return f"Use cubefill.cube.conform(ds) to rename {', '.join(own)}."
    if others and len(others) == len(missing):
        return f"Use ds.rename({dict(zip(others, missing, strict=True))!r})."
    if "time" in missing and "time" not in ds.coords:
        return "Use ds.expand_dims(time=[numpy.datetime64('2024-06-01')]) with the date of yours."
    return f"Use ds.expand_dims({missing!r})."


def _check_time(ds: xr.Dataset) -> None:
    if "time" not in ds.coords:
        raise CubeError(
            "The time dimension has no coordinate: expected acquisition dates. "
            "Use ds.assign_coords(time=dates)."
        )
    time = ds["time"]
    if " since " in str(time.attrs.get("units", "")) and time.dtype.kind in "iuf":
        raise CubeError(
            f"The time coordinate holds numbers, {time.attrs['units']}: expected datetime64. "
            "Use xarray.decode_cf(ds)."
        )
    if time.dtype.kind != "M":
        raise CubeError(
            f"The time coordinate has dtype {time.dtype}: expected datetime64. "
            "Use ds.assign_coords(time=pandas.date_range('2024-01-01', periods="
            f"{ds.sizes['time']}, freq='5D')) with the dates of your images."
        )
    bad = np.flatnonzero(np.isnat(time.values))
    if bad.size:
        raise CubeError(
            f"The time coordinate holds NaT at positions {bad[:5].tolist()}: expected a date for "
            "every time step. Use ds.isel(time=ds.time.notnull().values)."
        )


def _check_bands(ds: xr.Dataset, bands: Bands) -> None:
    found = spectral(ds) if bands is None else chosen_bands(ds, bands)
    if bands is None:
        _check_names(ds)
    if not found:
        _check_stacked(ds)
        raise CubeError(no_band(ds))
    for name in found:
        if ds[name].dtype.kind in "iu":
            raise CubeError(digital(name, f"dtype {ds[name].dtype}", bands, ds[name].attrs))


def _check_names(ds: xr.Dataset) -> None:
    """Refuses what may be a band and has a number or the like for a name."""
    nameless = [
        n
        for n, v in ds.data_vars.items()
        if not isinstance(n, str) and v.dtype.kind == "f" and set(v.dims) == set(DIMS)
    ]
    if nameless:
        free = [n for n in BANDS if n not in ds.variables]
        names = dict(zip(nameless, free, strict=False))
        raise CubeError(
            f"{', '.join(map(str, nameless))}: expected names of bands as text, such as B04. "
            f"Use ds.rename({names!r}) with the names of yours."
        )


def _check_stacked(ds: xr.Dataset) -> None:
    """Refuses bands along a dimension."""
    for name, v in ds.data_vars.items():
        others = [d for d in v.dims if d not in DIMS]
        if len(others) == 1 and set(DIMS) < set(v.dims):
            raise CubeError(
                f"{name} has its bands along the dimension {others[0]}: expected one variable per "
                f"band. Use ds[{name!r}].to_dataset(dim={str(others[0])!r})."
            )


def check_values(name: str, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Refuses digital numbers among the clear values of a sample of one band.

    Raises
    ------
    CubeError
        The median of the sample is above 2.
    """
    finite = values[np.isfinite(values)]
    if name in BANDS and finite.size and float(np.median(finite)) > DIGITAL:
        raise CubeError(digital(name, f"median of clear values {np.median(finite):.0f}"))
