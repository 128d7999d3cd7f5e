"""Spectral indices as plain functions of bands; fills and their flags carry over."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.conforming import check_type
from cubefill.cube.flags import Flag, flag_attrs
from cubefill.cube.variables import variable_of
from cubefill.errors import CubeError

NDVI_ATTRS = {
    "long_name": "normalized difference vegetation index",
    "standard_name": "normalized_difference_vegetation_index",
    "units": "1",
    "valid_min": -1.0,
    "valid_max": 1.0,
}


def normalized_difference(
    a: NDArray[Any], b: NDArray[Any], *, clip: bool = False
) -> NDArray[np.float32]:
    """(a - b) / (a + b) as float32 in -1..1; NaN where the sum is not positive.

    Values beyond -1..1, which slightly negative reflectance causes, are NaN too; with `clip` they
    are -1 or 1.
    """
    r, total = _ratio(a, b)
    if clip:
        np.clip(r, -1, 1, out=r)
    r[~((total > 0) & (np.abs(r) <= 1))] = np.nan
    return r


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    total = a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((a - b) / total), total


def index_flag(
    a: NDArray[Any], b: NDArray[Any], flag: NDArray[np.uint8], *, clip: bool = False
) -> NDArray[np.uint8]:
    """Codes of `normalized_difference`, from `fill_flag` of its bands.

    8 wherever there is none: a band has no value, or the index of both is not defined. 12 where it
    was clipped.
    """
    r, total = _ratio(a, b)
    beyond = (total > 0) & (np.abs(r) > 1)
    none = ~(total > 0) | (beyond if not clip else False)
    none &= (flag != Flag.SOURCE_MISSING) & (flag != Flag.NO_DATA)
    out = np.where(none, np.uint8(Flag.UNFILLABLE), flag)
    return np.where(beyond, np.uint8(Flag.CLIPPED), out) if clip else out


def normalized_difference_std(
    a: NDArray[Any],
    b: NDArray[Any],
    a_std: NDArray[Any],
    b_std: NDArray[Any],
    correlation: float = 0.0,
    scale: float = 1.0,
) -> NDArray[np.float32]:
    """Standard deviation of (a - b) / (a + b), to first order.

    `correlation` is that of the errors of a and b; 0 stands for independent ones. `scale` is what
    was found to be missing, as a factor.
    """
    total = a + b
    u, v = b * a_std, a * b_std
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.maximum(u * u + v * v - np.float32(2 * correlation) * u * v, 0)
        s = np.asarray(np.float32(2 * scale) * np.sqrt(square) / (total * total))
    s[~(total > 0)] = np.nan
    return np.minimum(s, np.float32(1)).astype(np.float32, copy=False)


def ndvi(ds: xr.Dataset, *, nir: str = "B08", red: str = "B04", clip: bool = False) -> xr.DataArray:
    """NDVI (time, y, x), float32 in -1..1, NaN where a band is NaN or the sum is not positive.

    Parameters
    ----------
    ds
        A cube, filled or not; lazy where the bands are lazy.
    nir, red
        Bands to use; `nir="B8A"` for the narrow near infrared.
    clip
        True gives 1 or -1 where slightly negative reflectance puts the ratio beyond; False NaN.

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
        kwargs={"clip": clip},
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
    check_type(ds)
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
    """Standard deviation of the error of NDVI, from those of two bands and how these go together.

    The correlation of both errors is in the attributes of `<band>_std`, where the method knows it;
    else they count as independent, which is wider than the truth.
    """
    parts = (ds[nir], ds[red], ds[f"{nir}_std"], ds[f"{red}_std"])
    correlation, scale = errors_together(ds[f"{nir}_std"].attrs, red)
    std: xr.DataArray = xr.apply_ufunc(
        normalized_difference_std,
        *parts,
        kwargs={"correlation": correlation, "scale": scale},
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return std


def normalized_difference_quantile(
    a: NDArray[Any],
    b: NDArray[Any],
    a_quantile: NDArray[Any],
    b_quantile: NDArray[Any],
    level: float,
    correlation: float = 0.0,
    scale: float = 1.0,
) -> NDArray[np.float32]:
    """A quantile of (a - b) / (a + b) from the same quantile of both, as `..._std` has it."""
    sizes = np.abs(a_quantile - a), np.abs(b_quantile - b)
    away = normalized_difference_std(a, b, *sizes, correlation, scale)
    r, _ = _ratio(a, b)
    out = r + np.float32(np.sign(level - 0.5)) * away
    return np.clip(out, -1, 1).astype(np.float32, copy=False)


Together = Mapping[str, tuple[float, float]]
"""Other bands to the correlation of errors, and the error of the normalised difference as a
multiple of what follows from it."""


def together_attrs(others: Together) -> dict[str, Any]:
    """Attributes that tell how the error of a band, or its quantile, goes with those of others."""
    if not others:
        return {}
    correlation, scale = (
        [round(float(v), 4) for v in r] for r in zip(*others.values(), strict=True)
    )
    return {
        "error_correlation_with": " ".join(others),
        "error_correlation": correlation,
        "error_scale_of_index": scale,
    }


def errors_together(attrs: Mapping[Any, Any], other: str) -> tuple[float, float]:
    """Correlation and scale of a band with another, from its attributes; 0 and 1 for not known.

    Examples
    --------
    >>> errors_together(together_attrs({"B03": (0.9, 1.0), "B04": (0.75, 0.8)}), "B04")
    (0.75, 0.8)
    """
    names = str(attrs.get("error_correlation_with", "")).split()
    values = (np.atleast_1d(attrs.get(f"error_{n}", [])) for n in ("correlation", "scale_of_index"))
    found = dict(zip(names, zip(*values, strict=False), strict=False)).get(other, (0.0, 1.0))
    return float(found[0]), float(found[1])


def with_ndvi(
    ds: xr.Dataset, *, nir: str = "B08", red: str = "B04", clip: bool = False
) -> xr.Dataset:
    """The dataset with `NDVI`, its `NDVI_flag`, and `NDVI_std` where both bands have one.

    `NDVI_flag` is 8 wherever NDVI is not defined, and 12 where `clip` has put it to 1 or -1; else
    it says how the bands came about, as `fill_flag` does.
    """
    nir, red = (_named(ds, b, (nir, red)) for b in (nir, red))
    out = ds.assign(NDVI=ndvi(ds, nir=nir, red=red, clip=clip))
    if "fill_flag" in ds:
        out["NDVI_flag"] = xr.apply_ufunc(
            index_flag,
            ds[nir],
            ds[red],
            ds["fill_flag"],
            kwargs={"clip": clip},
            dask="parallelized",
            output_dtypes=[np.uint8],
        ).transpose(*ds["fill_flag"].dims)
        out["NDVI_flag"].attrs = flag_attrs("NDVI_flag")
        out["NDVI_flag"].encoding = dict(ds["fill_flag"].encoding)
    beside = ["NDVI_flag"]
    if f"{nir}_std" in ds and f"{red}_std" in ds:
        out["NDVI_std"] = ndvi_std(ds, nir, red).assign_attrs(
            long_name="standard deviation of the error of NDVI", units="1"
        )
        beside.append("NDVI_std")
    for name, level in quantiles_of(ds, nir, red).items():
        out[name] = ndvi_quantile(ds, nir, red, name, level)
        beside.append(name)
    if len(beside) > 1:
        out["NDVI"].attrs["ancillary_variables"] = " ".join(beside)
    return out


def quantiles_of(ds: xr.Dataset, nir: str, red: str) -> dict[str, float]:
    """Quantiles of NDVI that follow from those of both bands: names and levels."""
    ends = {str(n).removeprefix(nir): v for n, v in ds.items() if "quantile" in v.attrs}
    return {
        f"NDVI{e}": float(v.attrs["quantile"])
        for e, v in ends.items()
        if v.name == nir + e and red + e in ds
    }


def ndvi_quantile(ds: xr.Dataset, nir: str, red: str, name: str, level: float) -> xr.DataArray:
    """A quantile of NDVI, from the same of two bands and how their errors go together."""
    end = name.removeprefix("NDVI")
    parts = (ds[nir], ds[red], ds[nir + end], ds[red + end])
    correlation, scale = errors_together(ds[nir + end].attrs, red)
    quantile: xr.DataArray = xr.apply_ufunc(
        normalized_difference_quantile,
        *parts,
        kwargs={"level": level, "correlation": correlation, "scale": scale},
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return quantile.assign_attrs(
        long_name=f"quantile {level:g} of NDVI where it is filled", units="1", quantile=level
    )
