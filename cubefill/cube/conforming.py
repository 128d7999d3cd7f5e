"""Datasets and arrays of other libraries in cubefill's terms: dimensions, names, reflectance."""

import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.bands import canonical
from cubefill.cube.coordinates import serialisable
from cubefill.cube.variables import DIMS, chosen_bands, spectral
from cubefill.errors import CubeError, CubefillWarning

FOREIGN_DIMS = {
    "t": "time",
    "timestamp": "time",
    "times": "time",
    "date": "time",
    "datetime": "time",
    "northing": "y",
    "easting": "x",
}
"""Names of dimensions in other libraries' cubes; case does not matter."""

_STANDARD = {"projection_x_coordinate": "x", "projection_y_coordinate": "y"}
_OF_COUNTS = {"_FillValue", "missing_value", "nodata", "scale_factor", "add_offset", "dtype"}
_OF_COUNTS |= {"valid_min", "valid_max", "valid_range", "actual_range"}
"""Attributes of digital numbers that are wrong of reflectance."""

DIGITAL = 2.0
"""A median of clear values above this is of digital numbers."""


def conform(
    ds: xr.Dataset | xr.DataArray,
    *,
    scale: float | None = None,
    bands: Iterable[str] | str | None = None,
) -> xr.Dataset:
    """The dataset with cubefill's names of dimensions and bands, and reflectance as float32.

    Parameters
    ----------
    ds
        A cube of another library: bands `red`, `b04`, `B04_10m`; dimensions `t`, `timestamp`. Or
        an array with its bands along a dimension, whose coordinate names them.
    scale
        Factor from digital numbers to reflectance, such as 1e-4; bands of digital numbers need it,
        masks and classes never get it. Zeros of integers, and what the attribute `nodata` or
        `_FillValue` names, become NaN. A floating-point band whose values are reflectance already
        (median up to 2 in a few windows, which are read) stays as it is, so that nothing is
        scaled twice. Apply an offset of the processing baseline before.
    bands
        Names of the variables that are bands; by default those that plainly are.

    Raises
    ------
    CubeError
        It is neither dataset nor array; bands are integers without `scale`, or their attributes
        give another one; or two
        variables stand for one band.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> foreign = synthetic_cube().rename(B04="red", time="t")
    >>> "B04" in conform(foreign) and "time" in conform(foreign).dims
    True
    """
    if isinstance(ds, xr.DataArray):
        ds = from_array(ds)
    check_type(ds)
    ds = in_own_names(ds)
    for name in spectral(ds) if bands is None else chosen_bands(ds, bands):
        if ds[name].dtype.kind in "iu" and (scale is None or _own_scale(ds[name], scale)):
            raise CubeError(digital(name, f"dtype {ds[name].dtype}", bands, ds[name].attrs))
        ds[name] = _reflectance(ds[name], scale)
    return ds


def check_type(ds: object) -> None:
    """Refuses what is no dataset, and says how to make one of it.

    Raises
    ------
    CubeError
        It is an array, a path or anything else.
    """
    if isinstance(ds, xr.Dataset):
        return
    fix = "Use xarray.open_zarr(...) or xarray.Dataset(...)."
    if isinstance(ds, str | Path):
        fix = f"Use cubefill.open_cube({str(ds)!r})."
    if isinstance(ds, xr.DataArray):
        dim = band_dim(ds)
        how = (
            f"name={str('NDVI' if ds.name is None else ds.name)!r}"
            if dim is None
            else f"dim={str(dim)!r}"
        )
        fix = f"Use da.gapfill(...), or da.to_dataset({how})."
    raise CubeError(
        f"Expected an xarray.Dataset with one variable per band, got {type(ds).__name__}. {fix}"
    )


def digital(
    name: str,
    what: str,
    bands: Iterable[str] | str | None = None,
    attrs: Mapping[Any, Any] | None = None,
) -> str:
    """The message about a band of digital numbers; `attrs` may say how they are scaled."""
    found = f"{name} looks like digital numbers ({what}): expected reflectance, 0 to about 1."
    scale, offset = scaling(attrs or {})
    if (scale, offset) != (1, 0):
        return (
            f"{found} Use xarray.decode_cf(ds), since its attributes say scale_factor={scale:g}, "
            f"add_offset={offset:g}."
        )
    also = "" if bands is None else f", bands={bands if isinstance(bands, str) else list(bands)!r}"
    return (
        f"{found} Use cubefill.cube.conform(ds, scale=1e-4{also}) after any offset of the "
        "processing baseline is applied."
    )


def scaling(attrs: Mapping[Any, Any]) -> tuple[float, float]:
    """Scale and offset that attributes of undecoded numbers give; 1 and 0 where they give none."""
    try:
        return float(attrs.get("scale_factor", 1)), float(attrs.get("add_offset", 0))
    except (TypeError, ValueError):
        return 1.0, 0.0


def _own_scale(band: xr.DataArray, scale: float) -> bool:
    """True where the attributes of a band give another scale or an offset."""
    own, offset = scaling(band.attrs)
    return (own, offset) != (1, 0) and (not np.isclose(own, scale) or offset != 0)


def foreign_names(ds: xr.Dataset) -> dict[str, str]:
    """Names of dimensions and bands that `conform` changes, with what they become.

    Raises
    ------
    CubeError
        Two variables stand for one band.
    """
    names: dict[str, str] = {}
    for d in ds.dims:
        own = own_dim(ds, d)
        if own and own not in ds.dims and own not in names.values():
            names[str(d)] = own
    for name in ds.data_vars:
        found = canonical(str(name))
        if found and found != name and found not in ds.variables:
            first = next((n for n, own in names.items() if own == found), None)
            if first is not None:
                raise CubeError(
                    f"{first} and {name} both stand for {found}: expected one of them. "
                    f"Use ds.drop_vars({name!r})."
                )
            names[str(name)] = found
    return names


def in_own_names(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with cubefill's names, and SCL as classes where it came as floating point."""
    names = foreign_names(ds)
    # A date coordinate beside the dimension takes its place: `time` on dimension `t`.
    swapped = {d: o for d, o in names.items() if d in ds.dims and o in ds.variables}
    ds = ds.swap_dims(swapped) if swapped else ds
    ds = ds.rename({n: o for n, o in names.items() if n not in swapped})
    if "SCL" in ds.data_vars and ds["SCL"].dtype.kind == "f":
        ds = ds.assign(SCL=ds["SCL"].fillna(0).astype(np.uint8))
    return ds


def say_renamed(names: Mapping[str, str]) -> None:
    """Says once which names were changed on the user's behalf."""
    if names:
        warnings.warn(
            f"Read {', '.join(f'{n} as {own}' for n, own in names.items())}; the result has these "
            "names. Use cubefill.conform(ds) first to choose them yourself.",
            CubefillWarning,
            stacklevel=5,
        )


def mask_in_own_names(valid: Any, given: Any, names: Mapping[str, str]) -> Any:
    """What a user gave as `valid`, as it applies to the cube with cubefill's names.

    A callable is still called with the dataset or array that the user knows.
    """
    if not names:
        return valid
    if isinstance(valid, str):
        return names.get(valid, valid)
    if isinstance(valid, Mapping):
        return {names.get(str(k), k): v for k, v in valid.items()}
    if isinstance(valid, xr.DataArray):
        known: set[Hashable] = {*valid.dims, *valid.coords}
        return valid.rename({n: o for n, o in names.items() if n in known})
    if callable(valid):
        return _of_given(valid, given, names)
    return valid


def _of_given(valid: Callable[[Any], Any], given: Any, names: Mapping[str, str]) -> Any:
    @wraps(valid)
    def asked(cube: xr.Dataset) -> Any:
        return mask_in_own_names(valid(given), given, names)

    return asked


# ------------------------------------------------------------------ arrays


def band_dim(da: xr.DataArray) -> Hashable | None:
    """The dimension of an array along which its bands lie; None where it has no other than a band.

    Raises
    ------
    CubeError
        The array has other dimensions than time, y, x and one more.
    """
    own = {d: own_dim(da, d) or str(d) for d in da.dims}
    others = [d for d, name in own.items() if name not in DIMS]
    if len(others) > 1 or set(DIMS) - set(own.values()):
        raise CubeError(
            f"The array lies on {', '.join(map(str, da.dims)) or 'nothing'}: expected time, y, x "
            "and at most a dimension of bands. Use da.rename or da.isel to get there."
        )
    return others[0] if others else None


def labels_of(da: xr.DataArray, dim: Hashable) -> list[str]:
    """Names of the bands along a dimension of an array.

    Raises
    ------
    CubeError
        The dimension has no coordinate of distinct names.
    """
    labels = da[dim].values.tolist() if dim in da.coords else []
    if not labels or not all(isinstance(n, str) for n in labels) or len({*labels}) < len(labels):
        names = [f"B{n:02d}" for n in range(2, 2 + da.sizes[dim])]
        raise CubeError(
            f"The dimension {dim} names no bands ({labels or 'it has no coordinate'}): expected "
            f"distinct names. Use da.assign_coords({dim}={names!r}) with the names of yours."
        )
    return labels


def from_array(da: xr.DataArray) -> xr.Dataset:
    """The dataset of an array: one variable a band, in the names that the array has."""
    dim = band_dim(da)
    if dim is None:
        band = da.coords["band"].item() if "band" in da.coords and not da["band"].dims else None
        name = band if isinstance(band, str) else "value" if da.name is None else da.name
        return da.drop_vars("band", errors="ignore").to_dataset(name=str(name))
    labels = labels_of(da, dim)
    base = da.drop_vars([n for n, c in da.coords.items() if dim in c.dims])
    bands = {n: base.isel({dim: i}).variable for i, n in enumerate(labels)}
    return xr.Dataset(bands, base.coords, da.attrs)


def as_array(out: xr.Dataset, da: xr.DataArray) -> xr.DataArray:
    """A filled dataset as an array of the dimensions and band names of `da`, which it was made of.

    What was not filled is that of `da`; where the result has other dates, it is left out. Places
    and CRS are those of the result.
    """
    cube, dim = from_array(da), band_dim(da)
    names = foreign_names(cube)
    back = {own: d for d, own in names.items() if d in da.dims}
    placed = {o: back.get(o, o) for o in DIMS if o in out.coords}
    rest, time = [d for d in da.dims if d != dim], placed["time"]
    before = out.encoding["source_cube"]["time"].values.astype("datetime64[ns]")
    same = np.array_equal(out["time"].values, before)

    def there(v: xr.Variable) -> xr.Variable:
        dims = [back.get(str(d), d) for d in v.dims]
        return xr.Variable(dims, v.data, v.attrs).transpose(*(d for d in rest if d in dims))

    def stacked(given: Mapping[str, xr.Variable]) -> xr.Variable:
        values = [v.astype(np.float32) for v in given.values()]
        return values[0] if dim is None else xr.Variable.concat(values, dim).transpose(*da.dims)

    made = {str(n): _made_of(out, names.get(str(n), str(n))) for n in cube.data_vars}
    labels = [n for n, name in made.items() if name or same]
    bands = {n: there(out.variables[m]) if (m := made[n]) else cube.variables[n] for n in labels}
    gone = {dim} if len(labels) < len(made) else set()
    gone |= set() if same else {time}
    plain = serialisable(xr.Dataset(coords=da.coords)).variables
    coords = {n: plain[n] for n, c in da.coords.items() if not gone & set(c.dims)}
    coords |= {dim: xr.Variable(dim, labels)} if dim in gone else {}
    coords |= {d: there(out.variables[o]) for o, d in placed.items()}
    coords |= {n: out.variables[n] for n in out.coords if not out[n].dims and n not in coords}
    coords["fill_flag"] = there(out.variables["fill_flag"])
    none = np.full((), np.nan, np.float32)
    for end in _errors_of(out, made.values()):
        found = {n: out.variables.get(f"{made[n]}_{end}") for n in labels}
        coords[f"fill_{end}"] = stacked(
            {n: bands[n] * none if v is None else there(v) for n, v in found.items()}
        )
    return xr.DataArray(stacked(bands), coords, name=da.name, attrs=out.attrs)


def _errors_of(out: xr.Dataset, bands: Iterable[str | None]) -> list[str]:
    """What a result says of the errors of its bands: `std`, `q05`."""
    ends = (str(n).removeprefix(f"{b}_") for b in bands for n in out if str(n).startswith(f"{b}_"))
    return sorted({e for e in ends if re.fullmatch(r"std|q\d{2,3}", e)}, reverse=True)


def _made_of(out: xr.Dataset, band: str) -> str | None:
    """What a result has of a band: its values, or those of its smooth curve."""
    return next((n for n in (band, f"{band}_smooth") if n in out.data_vars), None)


# ------------------------------------------------------------------ values


def own_dim(ds: xr.Dataset | xr.DataArray, dim: Hashable) -> str | None:
    """The name of a dimension in a cube, None where it has it already or is unknown."""
    if dim in DIMS:
        return None
    known = FOREIGN_DIMS.get(str(dim).lower()) or {"X": "x", "Y": "y", "Time": "time"}.get(str(dim))
    if known is None and dim in ds.coords:
        known = _STANDARD.get(str(ds[dim].attrs.get("standard_name", "")))
    return known


def _reflectance(band: xr.DataArray, scale: float | None) -> xr.DataArray:
    """A band as float32: digital numbers times `scale`, reflectance as it is."""
    if scale is None or (band.dtype.kind == "f" and not _is_digital(band)):
        return band if band.dtype == np.float32 else band.astype(np.float32)
    nodata = [band.attrs[k] for k in ("nodata", "_FillValue", "missing_value") if k in band.attrs]
    nodata += [0] if band.dtype.kind in "iu" else []
    known = band
    for number in nodata:
        if np.ndim(number) == 0 and not np.isnan(float(number)):
            known = known.where(band != number)
    out = (known * np.float32(scale)).astype(np.float32)
    out.attrs = {k: v for k, v in band.attrs.items() if k not in _OF_COUNTS}
    out.encoding = {k: v for k, v in band.encoding.items() if k == "grid_mapping"}
    return out


def _is_digital(band: xr.DataArray) -> bool:
    """True where the values of a floating-point band are no reflectance; True where all are NaN."""
    for part in _windows(band.variable):
        values = np.abs(part[np.isfinite(part) & (part != 0)])
        if values.size:
            return bool(np.median(values) > DIGITAL)
    return True


def _windows(band: xr.Variable) -> Iterable[NDArray[Any]]:
    """Values of a band to look at: a sample of those in memory, else a few small windows."""
    if band._in_memory:
        step = max(1, round((band.size / 1e6) ** (1 / 3)))
        yield band.values[(slice(None, None, step),) * band.ndim]
        return
    middle = {
        d: slice(max(0, band.sizes[d] // 2 - 32), band.sizes[d] // 2 + 32) for d in ("y", "x")
    }
    dates = np.linspace(0, band.sizes["time"] - 1, min(8, band.sizes["time"])).astype(int)
    for t in dates:
        yield np.asarray(band.isel({"time": slice(t, t + 1), **middle}).values)
