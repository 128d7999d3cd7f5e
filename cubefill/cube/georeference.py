"""Where a cube lies: its CRS and its grid of pixel centres, whatever tool said so and where."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.axes import dated
from cubefill.cube.coordinates import serialisable
from cubefill.errors import CubeError, CubefillWarning

MAPPING = "spatial_ref"
"""Name of the coordinate that holds the CRS of every cube that we give."""

_WKT = ("crs_wkt", "spatial_ref", "esri_pe_string")
"""Attributes of a grid mapping that hold the CRS as text."""
_CODES = ("epsg", "proj:epsg", "proj:code", "proj:wkt2", "proj:projjson")
"""Coordinates of stackstac and cubo that name the CRS; the cube's own first."""
_ATTRS = ("crs_wkt", "crs", *_CODES, "spec", "spatial_ref")
"""Attributes of a dataset, an axis or a band that name the CRS."""
_DEGREES = {"lat", "lon", "latitude", "longitude"}
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_NEAR = 0.1
"""Share of a pixel by which a coordinate may lie off its place."""


def settled(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with plain dates, its CRS as the coordinate `spatial_ref`, x and y at centres.

    Every entry passes here; a dataset that is settled comes back as it is. Reads no pixel.

    Warns
    -----
    CubefillWarning
        x and y were corners of pixels and are moved to the centres, or nobody can tell which they
        are; times of a zone become UTC.

    Raises
    ------
    CubeError
        The grid has a hole, an uneven step or a place twice, or a time is no date.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> ds = synthetic_cube().drop_vars("spatial_ref").assign_coords(epsg=32631)
    >>> "spatial_ref" in settled(ds).coords
    True
    """
    out, notes = placed(ds)
    say(notes)
    return out


def placed(ds: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """The settled dataset, and what its user should be told, as long as nothing is refused."""
    for dim in ("x", "y"):
        _check_even(ds, dim)
    dates, of_dates = dated(ds)
    centred, of_places = _centred(_located(dates))
    return serialisable(centred), [n for n in (of_dates, of_places) if n]


def say(notes: list[str]) -> None:
    """Warns of what was changed in a cube's place and dates."""
    for note in notes:
        warnings.warn(note, CubefillWarning, stacklevel=5)


def follow(mask: Any, given: xr.Dataset, ds: xr.Dataset) -> Any:
    """A mask on the coordinates of the cube as it was given, now on those of the settled `ds`.

    A callable gives such a mask when it is called; anything else comes back as it is.
    """
    if callable(mask) and not isinstance(mask, xr.DataArray):
        return wraps(mask)(lambda cube: follow(mask(cube), given, ds))
    if ds is given or not isinstance(mask, xr.DataArray):
        return mask
    moved = {
        d: ds[d].variable
        for d in ("time", "y", "x")
        if d in mask.indexes and d in given.indexes and not _same(given.indexes[d], ds.indexes[d])
        if _equal(mask.indexes[d], given.indexes[d])
    }
    return mask.assign_coords(moved)


def _same(a: pd.Index, b: pd.Index) -> bool:
    """True for the same values; pandas would guess what Python's dates mean and warn of it."""
    return (a.dtype == object) == (b.dtype == object) and bool(a.equals(b))


def _equal(a: pd.Index, b: pd.Index) -> bool:
    numbers = a.dtype.kind == "f" and b.dtype.kind == "f" and a.size == b.size
    return bool(_same(a, b) or (numbers and np.allclose(a, b, rtol=1e-9, atol=0)))


def unplaced(ds: xr.Dataset, what: str) -> None:
    """Says once that an export has no CRS, where the cube names none."""
    if MAPPING not in ds.coords and crs_of(ds) is None:
        warnings.warn(
            f"The cube names no CRS, so {what} has none and lies nowhere. Use "
            "ds = ds.assign_attrs(crs='EPSG:32631') with the cube's own code.",
            CubefillWarning,
            stacklevel=3,
        )


def check_degrees(ds: xr.Dataset, optical: bool) -> None:
    """Refuses longitude and latitude for dimensions, and degrees for a grid of optical bands.

    A gridded product such as Sentinel-5P may lie on x and y in degrees.
    """
    named = bool(_DEGREES & {str(d) for d in ds.dims})
    step = resolution_of(ds)
    if not named and not (optical and ((step is not None and step < 0.01) or _is_geographic(ds))):
        return
    came = f"dimensions {', '.join(map(str, ds.dims))}" if named else f"pixel size {step}"
    reader = ""
    if any(str(n).startswith("s2_") for n in ds.data_vars):
        reader = "Use cubefill.formats.earthnet.read(path) for a minicube of EarthNet; else "
    raise CubeError(
        f"The grid is in degrees ({came}): expected a projected CRS in metres. "
        f"{reader or 'Use '}`import odc.geo.xr; ds = ds.odc.assign_crs('{_degrees_of(ds)}')"
        f".odc.reproject('utm', resolution={_metres(ds)})`."
    )


def _is_geographic(ds: xr.Dataset) -> bool:
    texts = [str(ds[MAPPING].attrs.get(k, "")) for k in _WKT] if MAPPING in ds.coords else []
    return any(t.lstrip().upper().startswith(("GEOGCS", "GEOGCRS", "GEODCRS")) for t in texts)


def _degrees_of(ds: xr.Dataset) -> str:
    crs = _crs(ds)
    return f"EPSG:{crs.to_epsg()}" if crs and crs.is_geographic and crs.to_epsg() else "EPSG:4326"


def _metres(ds: xr.Dataset) -> int:
    """Pixel size for a grid in degrees, in whole tens of metres."""
    axes = [ds[d].values for d in ds.dims if str(d) in {*_DEGREES, "y"} and d in ds.coords]
    steps = [abs(float(v[1] - v[0])) for v in axes if v.size > 1 and v.dtype.kind in "iuf"]
    return max(10, 10 * round(min(steps, default=0.0) * 11_132))


# ------------------------------------------------------------------ the CRS


def crs_of(ds: xr.Dataset) -> Any | None:
    """The coordinate reference system (`odc.geo.crs.CRS`), or None where the cube has none.

    Found in a grid mapping (a coordinate or a variable such as `spatial_ref` or `crs`, with what
    rioxarray, odc-geo, GDAL or CF write into it), in coordinates `epsg` or `proj:*`, and in
    attributes of the dataset, its axes and bands.
    """
    found = _crs(ds)
    if found is None:
        return None
    from odc.geo.crs import CRS

    return CRS(found)


def _crs(ds: xr.Dataset) -> Any | None:
    """The first claim that pyproj understands, as `pyproj.CRS`."""
    seen: list[Any] = []
    for claim in _claims(ds):
        if not any(claim is s or (type(claim) is type(s) and claim == s) for s in seen):
            seen.append(claim)
            found = _parsed(claim)
            if found is not None:
                return found
    return None


def _claims(ds: xr.Dataset) -> Iterator[Any]:
    """What may name the CRS, the most exact first."""
    for name in _mappings(ds):
        attrs = ds[name].attrs
        yield from (attrs[k] for k in _WKT if k in attrs)
        if "grid_mapping_name" in attrs:
            yield dict(attrs)
    for name in (*_CODES, *_mappings(ds)):
        if name in ds.variables and (value := _only(ds.variables[name])) is not None:
            yield value
    axes = [ds[d].attrs for d in ("x", "y") if d in ds.coords]
    for attrs in (ds.attrs, *axes, *(v.attrs for v in ds.data_vars.values())):
        yield from (attrs[k] for k in _ATTRS if k in attrs)


def _mappings(ds: xr.Dataset) -> list[str]:
    """Names of variables that hold, or may hold, the grid mapping."""
    said = [h.get("grid_mapping") for v in ds.data_vars.values() for h in (v.encoding, v.attrs)]
    said += [ds.attrs.get("grid_mapping"), MAPPING, "crs"]
    said += [n for n, v in ds.variables.items() if v.size == 1 and _is_mapping(v.attrs)]
    # CF 1.7 allows "crs: x y"
    names = dict.fromkeys(str(s).split(":")[0].strip() for s in said if s)
    return [n for n in names if n in ds.variables and ds.variables[n].size == 1]


def _is_mapping(attrs: Mapping[Any, Any]) -> bool:
    return any(k in attrs for k in ("crs_wkt", "spatial_ref", "grid_mapping_name"))


def _only(variable: xr.Variable) -> Any:
    """The one value that a small variable holds everywhere, or None."""
    if {"x", "y"} & set(variable.dims) or not variable.size:
        return None
    values = list(np.asarray(variable.values, object).ravel())
    return values[0] if len({repr(v) for v in values}) == 1 else None


def _parsed(claim: Any) -> Any | None:
    """`pyproj.CRS` of a code, a text, a mapping or an object that has one; else None."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    if isinstance(claim, Mapping) and "grid_mapping_name" in claim:
        try:
            return CRS.from_cf({k: v for k, v in claim.items() if k not in _WKT})
        except (CRSError, KeyError, ValueError, TypeError):
            return None
    claim = _plain_claim(claim)
    if claim is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CRS.from_user_input(claim)
    except (CRSError, TypeError, ValueError):
        return None


def _plain_claim(claim: Any) -> Any:
    if isinstance(claim, Mapping) and {"epsg", "init"} & set(claim):
        claim = claim.get("epsg") or claim["init"]
    claim = getattr(claim, "epsg", claim)
    claim = (
        claim.item() if isinstance(claim, np.generic | np.ndarray) and claim.size == 1 else claim
    )
    claim = claim.decode("utf-8", "replace") if isinstance(claim, bytes) else claim
    if isinstance(claim, str):
        claim = claim.strip().removeprefix("+init=")
        claim = float(claim) if _NUMBER.fullmatch(claim) else claim
    if isinstance(claim, int | float) and not isinstance(claim, bool):
        return int(claim) if np.isfinite(claim) and claim == int(claim) and claim > 0 else None
    return None if claim is None or (isinstance(claim, str) and not claim) else claim


def _located(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with its CRS as the coordinate `spatial_ref`, and in no other grid mapping."""
    mappings = [n for n in _mappings(ds) if _is_mapping(ds[n].attrs) or n in ds.data_vars]
    told = any("grid_mapping" in v.attrs for v in ds.data_vars.values())
    alone = mappings == [MAPPING] and MAPPING in ds.coords and not told
    if alone and "crs_wkt" in ds[MAPPING].attrs:
        return ds
    crs = _crs(ds)
    if crs is None:
        return ds
    kept = {k: v for n in mappings for k, v in ds[n].attrs.items() if k == "GeoTransform"}
    attrs = {**crs.to_cf(), "spatial_ref": crs.to_wkt(), **kept}
    gone = [n for n in mappings if n not in ds.dims and not set(ds[n].dims) & {"time", "x", "y"}]
    out = ds.drop_vars(gone).copy()
    out = out.assign_coords({MAPPING: ((), np.int32(crs.to_epsg() or 0), attrs)})
    out.attrs.pop("grid_mapping", None)
    for variable in out.data_vars.values():
        variable.attrs.pop("grid_mapping", None)
        if {"x", "y"} <= set(variable.dims):
            variable.encoding["grid_mapping"] = MAPPING
    return out


# ------------------------------------------------------------------ the grid


def resolution_of(ds: xr.Dataset) -> float | None:
    """Pixel size along x in units of the CRS, or None for a cube of one column."""
    x = ds["x"].values if "x" in ds.coords else np.empty(0)
    return float(abs(x[1] - x[0])) if x.size > 1 else None


def transform_of(ds: xr.Dataset) -> tuple[float, ...] | None:
    """Six numbers `(dx, 0, left, 0, dy, top)` in rasterio's order, or None without x and y.

    An axis of one pixel takes its size from the transform that travels along, else from
    `attrs["resolution"]` or the other axis; 10 m where nothing says more.
    """
    if not _has_axes(ds):
        return None
    x, y = (ds[d].values.astype(float) for d in ("x", "y"))
    steps = [(v[-1] - v[0]) / (v.size - 1) if v.size > 1 else None for v in (x, y)]
    if None in steps:
        said = next(_said(ds), None)
        told = (said.step["x"], said.step["y"]) if said else (None, None)
        size = next((abs(s) for s in (*steps, _number(ds.attrs.get("resolution"))) if s), 10.0)
        steps = [s or t or d for s, t, d in zip(steps, told, (size, -size), strict=True)]
    dx, dy = (float(s) for s in steps if s is not None)
    return (dx, 0.0, float(x[0]) - dx / 2, 0.0, dy, float(y[0]) - dy / 2)


def _has_axes(ds: xr.Dataset) -> bool:
    return all(d in ds.coords and ds.sizes.get(d) for d in ("x", "y"))


@dataclass(frozen=True)
class _Said:
    """A transform that travels with the pixels: a corner of one of them, and their size."""

    where: str
    corner: Mapping[str, float]
    step: Mapping[str, float]
    strict: bool
    """True where the tool that wrote it gives corners as well as centres."""

    @property
    def key(self) -> str:
        """Name of the attribute that holds it."""
        return self.where.split("'")[1]

    def place(self, dim: str, values: NDArray[np.float64]) -> str:
        """Whether the first coordinate is "corner" or "centre" of a pixel, "" where neither."""
        step = abs(self.step[dim])
        if values.size > 1:
            here = abs(values[-1] - values[0]) / (values.size - 1)
            if not np.isclose(here, step, rtol=0.01):
                return ""
        offset = float((values[0] - self.corner[dim]) / step % 1)
        if min(offset, 1 - offset) < _NEAR:
            return "corner"
        return "centre" if abs(offset - 0.5) < _NEAR else ""


def _said(ds: xr.Dataset) -> Iterator[_Said]:
    """What a dataset says of its grid beside x and y, the most certain first."""
    for where, numbers, strict in _transforms(ds):
        if len(numbers) >= 6 and numbers[0] and numbers[4] and not (numbers[1] or numbers[3]):
            a, _, left, _, e, top = numbers[:6]
            yield _Said(where, {"x": left, "y": top}, {"x": a, "y": e}, strict)


def _transforms(ds: xr.Dataset) -> Iterator[tuple[str, list[float], bool]]:
    """Where a transform stands, and its numbers in rasterio's order."""
    for attrs in (ds.attrs, *(v.attrs for v in ds.data_vars.values())):
        if "transform" in attrs:
            yield "attrs['transform']", _numbers(attrs["transform"]), True
        if "spec" in attrs and hasattr(attrs["spec"], "transform"):
            yield "attrs['spec']", _numbers(attrs["spec"].transform), True
    for name in _mappings(ds):
        numbers = _numbers(ds[name].attrs.get("GeoTransform", ()))
        if len(numbers) >= 6:
            left, a, b, top, d, e = numbers[:6]
            yield f"GeoTransform of {name}", [a, b, left, d, e, top], False
    if "proj:transform" in ds.variables and "epsg" in ds.variables:
        own, native = (_only(ds.variables[n]) if n in ds.variables else None
                       for n in ("epsg", "proj:epsg"))  # fmt: skip
        if native is None or native == own:
            yield "proj:transform", _numbers(_only(ds.variables["proj:transform"])), False
    if {"central_lat", "edge_size", "resolution"} <= set(ds.attrs):
        size = _number(ds.attrs["resolution"])
        # cubo's grid begins at multiples of the pixel size, except where Earth Engine made it.
        if size and "earthengine" not in str(ds.attrs.get("stac", "")):
            yield "attrs['resolution'] of cubo", [size, 0.0, 0.0, 0.0, -size, 0.0], False


def _numbers(value: Any) -> list[float]:
    if isinstance(value, str):
        return [float(v) for v in _NUMBER.findall(value)]
    try:
        return [float(v) for v in value] if value is not None else []
    except (TypeError, ValueError):
        return []


def _number(value: Any) -> float | None:
    numbers = _numbers(value if isinstance(value, str | tuple | list | np.ndarray) else [value])
    return numbers[0] if numbers and np.isfinite(numbers[0]) else None


def _centred(ds: xr.Dataset) -> tuple[xr.Dataset, str]:
    """The dataset with x and y at centres of pixels, and what is to be said of it, or ""."""
    if not _has_axes(ds):
        return ds, ""
    axes = {d: ds[d].values.astype(float) for d in ("x", "y")}
    if any(ds[d].attrs.get("coord_save_mode") == "top-left" for d in axes):
        dx, _, _, _, dy, _ = transform_of(ds) or (0.0,) * 6
        return _moved(ds, {"x": abs(dx) / 2, "y": -abs(dy) / 2}, "coord_save_mode")
    unknown = None
    for said in _said(ds):
        places = {d: said.place(d, v) for d, v in axes.items()}
        if all(places.values()):
            shifts = {d: said.step[d] / 2 for d, p in places.items() if p == "corner"}
            return _moved(ds, shifts, said.where) if shifts else (ds, "")
        unknown = unknown or (said if said.strict else None)
    if unknown is None:
        return ds, ""
    half = ", ".join(f"{d}=ds.{d}{unknown.step[d] / 2:+g}" for d in axes)
    return ds, (
        f"x and y do not lie on the pixels of {unknown.where}, so nobody can tell corners from "
        f"centres: taken as centres. Use ds = ds.assign_coords({half}) if they are corners, and "
        f"`for v in (ds, *ds.values()): v.attrs.pop({unknown.key!r}, None)` in both cases."
    )


def _moved(ds: xr.Dataset, shifts: Mapping[str, float], where: str) -> tuple[xr.Dataset, str]:
    axes = {}
    for d, shift in shifts.items():
        attrs = {k: v for k, v in ds[d].attrs.items() if k != "coord_save_mode"}
        axes[d] = xr.Variable(ds[d].dims, ds[d].values.astype(float) + shift, attrs)
    moved = " and ".join(f"{d} by {s:+g}" for d, s in shifts.items())
    return ds.assign_coords(axes), (
        f"x and y are corners of pixels, as {where} says: moved to the centres, {moved}. Use "
        "ds = cubefill.cube.settled(ds) to have the same coordinates on the cube."
    )


# ------------------------------------------------------------------ an even grid


def _check_even(ds: xr.Dataset, dim: str) -> None:
    """Refuses a coordinate that is no row of numbers at one distance."""
    if dim not in ds.coords or dim not in ds.dims or ds.sizes[dim] < 2:
        return
    if ds[dim].dtype.kind not in "iuf":
        raise CubeError(
            f"{dim} has dtype {ds[dim].dtype}: expected numbers. Use "
            f"ds.assign_coords({dim}=ds.{dim}.astype(float))."
        )
    values = ds[dim].values.astype(float)
    step = (values[-1] - values[0]) / (values.size - 1)
    line = values[0] + step * np.arange(values.size)
    if step and np.abs(values - line).max() <= _NEAR * abs(step):
        return
    raise CubeError(f"{dim} {_uneven(ds, dim, values)}")


def _uneven(ds: xr.Dataset, dim: str, values: NDArray[np.float64]) -> str:
    """What is wrong with a coordinate, and what to type."""
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        keep = f"ds.isel({dim}=numpy.isfinite(ds.{dim}.values))"
        return (
            f"holds no number at positions {bad[:5].tolist()}: expected one everywhere. Use {keep}."
        )
    apart = np.diff(values)
    if len(np.unique(values)) < values.size:
        return (
            "holds the same place twice: expected pixels side by side. Use "
            f"ds.drop_duplicates({dim!r})."
        )
    if not ((apart > 0).all() or (apart < 0).all()):
        return (
            "is out of order: expected numbers that grow or fall. Use "
            f"ds.sortby({dim!r}, ascending={dim == 'x'})."
        )
    return f"{_steps(dim, values)}: expected one pixel size. Use {_even(ds, dim, values)}."


def _steps(dim: str, values: NDArray[np.float64]) -> str:
    apart = np.abs(np.diff(values))
    at = values[int(np.argmax(apart))]
    return f"has steps of {apart.min():g} to {apart.max():g}, the widest after {dim}={at:.10g}"


def _even(ds: xr.Dataset, dim: str, values: NDArray[np.float64]) -> str:
    """What puts pixels on an even row: holes become no data, other steps take the nearest."""
    apart = np.diff(values)
    step = float(np.median(apart))
    pixels = apart / step
    if np.abs(pixels - np.round(pixels)).max() > _NEAR or not np.round(pixels).all():
        row = f"numpy.linspace({float(values[0])!r}, {float(values[-1])!r}, {values.size})"
        return f"ds.sel({dim}={row}, method='nearest').assign_coords({dim}={row})"
    count = int(np.round(pixels).sum()) + 1
    fill = {
        str(n): v.dtype.type(0).item()
        for n, v in ds.data_vars.items()
        if v.dtype.kind in "iub" and dim in v.dims
    }
    row = f"numpy.arange({count}) * {step!r} + {values[0].item()!r}"
    near = f"method='nearest', tolerance={abs(step) * 0.49!r}"
    return f"ds.reindex({dim}={row}, {near}, fill_value={fill!r}) to have no data in the holes"
