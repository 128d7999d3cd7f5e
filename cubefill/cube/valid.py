"""Which pixels are clear: from the scene classification, or from a user's own mask."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.bands import SCL
from cubefill.errors import CubeError

CLEAR = (SCL.VEGETATION, SCL.BARE, SCL.WATER, SCL.UNCLASSIFIED)
"""Classes that count as clear unless asked otherwise."""

SPREADING = (SCL.CLOUD_SHADOW, SCL.CLOUD_MEDIUM, SCL.CLOUD_HIGH, SCL.THIN_CIRRUS)
"""Classes that are dilated: clouds and their shadows."""

Bool = NDArray[np.bool_]
UserValid = str | xr.DataArray | NDArray[Any] | Callable[[xr.Dataset], Any]
"""What a user may give as `valid`: a variable's name, an array, or a function of the dataset."""


def from_scl(
    scl: xr.DataArray,
    *,
    snow: bool = False,
    dilate: float = 30.0,
    clear: Iterable[int] = CLEAR,
    resolution: float | None = None,
) -> xr.DataArray:
    """True where the scene classification says clear, away from clouds and their shadows.

    Parameters
    ----------
    scl
        Classes of Sen2Cor on `(..., y, x)`, numpy or dask; dask stays lazy, and the answer is the
        same for any chunks.
    snow
        Counts snow (class 11) as clear.
    dilate
        Radius in m of the disk by which clouds (8, 9, 10) and shadows (3) grow; 0 for none.
        Pixels outside the array are taken as cloudless.
    clear
        Classes that count as clear.
    resolution
        Pixel size in m; by default read from the coordinates.

    Returns
    -------
    xr.DataArray
        bool, with how it was made in its attributes.

    Raises
    ------
    CubeError
        The array has no y and x, no integer classes, or an option is out of range.

    Examples
    --------
    >>> scl = xr.DataArray([[4, 4, 9, 4, 11]], dims=("y", "x"), coords={"x": [0, 10, 20, 30, 40]})
    >>> from_scl(scl, dilate=10).values
    array([[ True, False, False, False, False]])
    """
    classes = clear_classes(clear, snow)
    _check_scl(scl, dilate)
    offsets = disk(dilate, *_pixel(scl, resolution, dilate))
    turned = scl.transpose(..., "y", "x")
    data = _from_classes(turned.data, classes, offsets)
    out = turned.copy(data=data).transpose(*scl.dims).rename("valid")
    out.attrs = attributes(classes, dilate)
    out.encoding = {k: v for k, v in scl.encoding.items() if k == "grid_mapping"}
    return out


def apply(ds: xr.Dataset, valid: UserValid | None = None) -> xr.DataArray:
    """The clear pixels `(time, y, x)` of a cube, whichever way they are given.

    Parameters
    ----------
    ds
        A cube.
    valid
        None takes `ds["valid"]`, else makes it from `ds["SCL"]`; a name takes that variable; a
        callable is given the dataset; an array is broadcast. True is a clear observation.

    Raises
    ------
    CubeError
        There is neither `valid` nor `SCL`, or what was given is not boolean or does not fit.
    """
    if valid is None:
        return _own(ds)
    if callable(valid):
        return _fit(ds, valid(ds), f"valid={getattr(valid, '__name__', valid)!s}(ds)")
    if isinstance(valid, str):
        if valid not in ds:
            raise CubeError(
                f"valid={valid!r}: expected a variable of the cube, found "
                f"{', '.join(map(str, ds.data_vars))}. Pass valid=None to use SCL."
            )
        return _fit(ds, ds[valid], f"valid={valid!r}")
    return _fit(ds, valid, "valid")


def clear_fraction(ds: xr.Dataset, valid: UserValid | None = None) -> xr.DataArray:
    """Share of clear pixels per date, 0 to 1, on `time`; lazy where the cube is lazy."""
    share = apply(ds, valid).mean(("y", "x"))
    share.attrs = {"long_name": "share of clear pixels", "units": "1"}
    return share.rename("clear_fraction")


def clear_classes(clear: Iterable[int], snow: bool) -> tuple[int, ...]:
    """Classes that count as clear, sorted."""
    classes = sorted({int(c) for c in clear} | ({int(SCL.SNOW)} if snow else set()))
    if not classes or classes[0] < 1 or classes[-1] > max(SCL):
        raise CubeError(
            f"clear={classes}: expected classes of SCL from 1 to {int(max(SCL))}, "
            "such as clear=(4, 5, 6, 7)."
        )
    return tuple(classes)


def attributes(classes: tuple[int, ...], dilate: float) -> dict[str, Any]:
    """How a mask from SCL was made, in words and numbers."""
    names = ", ".join(SCL(c).name.lower() for c in classes)
    return {
        "long_name": "clear observation",
        "source": "SCL",
        "clear_classes": list(classes),
        "snow_is_clear": int(int(SCL.SNOW) in classes),
        "dilation_m": float(dilate),
        "description": (
            f"True where SCL is {names}; clouds and cloud shadows dilated by {dilate:g} m"
        ),
    }


def disk(radius: float, step_y: float, step_x: float) -> tuple[int, ...]:
    """Half widths in pixels of the rows of a disk, from its middle row outwards."""
    if radius <= 0:
        return (0,)
    inside = radius * (1 + 1e-6)
    rows = int(inside / step_y)
    return tuple(
        int(math.sqrt(max(inside**2 - (row * step_y) ** 2, 0.0)) / step_x)
        for row in range(rows + 1)
    )


def from_classes(scl: NDArray[Any], classes: tuple[int, ...], rows: tuple[int, ...]) -> Bool:
    """Clear pixels of an array of classes `(..., y, x)`; `rows` describes the disk."""
    out: Bool = _lookup(scl, classes)
    if rows != (0,):
        out &= ~dilated(_lookup(scl, SPREADING), rows)
    return out


def dilated(where: Bool, rows: tuple[int, ...]) -> Bool:
    """True pixels grown by a disk whose half widths are `rows`, outermost last."""
    out = np.zeros_like(where)
    wide, width = where.copy(), 0
    for row in range(len(rows) - 1, -1, -1):
        while width < rows[row]:
            width += 1
            wide[..., width:] |= where[..., :-width]
            wide[..., :-width] |= where[..., width:]
        if row == 0:
            out |= wide
        elif row < where.shape[-2]:
            out[..., row:, :] |= wide[..., :-row, :]
            out[..., :-row, :] |= wide[..., row:, :]
    return out


def _lookup(scl: NDArray[Any], classes: Iterable[int]) -> Bool:
    table = np.zeros(256, bool)
    table[[int(c) for c in classes]] = True
    return table[scl.astype(np.uint8, copy=False)]


def _from_classes(data: Any, classes: tuple[int, ...], rows: tuple[int, ...]) -> Any:
    if isinstance(data, np.ndarray):
        return from_classes(data, classes, rows)
    import dask.array as da

    run = partial(from_classes, classes=classes, rows=rows)
    meta = np.empty((0,) * data.ndim, bool)
    if rows == (0,):
        return data.map_blocks(run, dtype=bool, meta=meta)
    reach = {data.ndim - 2: len(rows) - 1, data.ndim - 1: rows[0]}
    depth = {axis: min(n, data.shape[axis] - 1) for axis, n in reach.items()}
    overlap: Any = da.map_overlap
    return overlap(run, data, depth=depth, boundary=0, dtype=bool, meta=meta)


def _check_scl(scl: xr.DataArray, dilate: float) -> None:
    if not {"y", "x"} <= set(scl.dims):
        raise CubeError(f"SCL: expected dimensions y and x, got {', '.join(map(str, scl.dims))}.")
    if scl.dtype.kind not in "iu":
        raise CubeError(
            f"SCL has dtype {scl.dtype}: expected integer classes 0 to 11. "
            "Use scl.fillna(0).astype('uint8'); resample it by nearest only."
        )
    if not 0 <= dilate < math.inf:
        raise CubeError(f"dilate={dilate}: expected a radius in m, 0 or more.")


def _pixel(scl: xr.DataArray, resolution: float | None, dilate: float) -> tuple[float, float]:
    if resolution is not None:
        return float(resolution), float(resolution)
    steps = [_step(scl, d) for d in ("y", "x")]
    known = [s for s in steps if s]
    if not known and dilate > 0:
        raise CubeError(
            "SCL has no y or x coordinates to read the pixel size from: expected pixel centres in "
            "m. Use from_scl(scl, resolution=10)."
        )
    fallback = known[0] if known else 1.0
    return steps[0] or fallback, steps[1] or fallback


def _step(scl: xr.DataArray, dim: str) -> float | None:
    if dim not in scl.coords or scl.sizes[dim] < 2:
        return None
    values = scl[dim].values[:2].astype(float)
    return abs(float(values[1] - values[0])) or None


def _own(ds: xr.Dataset) -> xr.DataArray:
    if "valid" in ds:
        return _fit(ds, ds["valid"], "ds['valid']")
    if "SCL" in ds:
        return _fit(ds, from_scl(ds["SCL"]), "valid from SCL")
    raise CubeError(
        "The cube has neither `valid` nor `SCL`, so nothing says which pixels are clear: expected "
        "one of them. Use ds['valid'] = ds['B02'].notnull(), or pass valid=your_function."
    )


def _fit(ds: xr.Dataset, given: Any, what: str) -> xr.DataArray:
    sizes = {d: ds.sizes[d] for d in ("time", "y", "x")}
    if not isinstance(given, xr.DataArray):
        given = _wrap(given, tuple(sizes.values()), what)
    given = given.rename({"timestamp": "time"} if "timestamp" in given.dims else {})
    wrong = [d for d in given.dims if d not in sizes or given.sizes[d] != sizes[str(d)]]
    if wrong:
        raise CubeError(
            f"{what} has sizes {dict(given.sizes)}: expected {sizes}, or fewer of these dimensions."
        )
    if given.dtype.kind in "iu":
        given = given.astype(bool)
    if given.dtype != bool:
        raise CubeError(
            f"{what} has dtype {given.dtype}: expected bool, True where clear. "
            "Use cloud_probability < 0.4 rather than the probability."
        )
    _check_coordinates(ds, given, what)
    absent = {d: n for d, n in sizes.items() if d not in given.dims}
    out: xr.DataArray = given.expand_dims(absent).transpose("time", "y", "x").rename("valid")
    out = out.assign_coords({d: ds[d] for d in sizes if d in ds.coords and d not in out.coords})
    if not out.attrs.get("source"):
        out.attrs = {**out.attrs, "long_name": "clear observation", "source": f"given: {what}"}
    return out


def _wrap(given: Any, shape: tuple[int, ...], what: str) -> xr.DataArray:
    array = given if hasattr(given, "dtype") else np.asarray(given)
    dims = {3: ("time", "y", "x"), 2: ("y", "x"), 1: ("time",)}.get(array.ndim)
    if dims is None:
        raise CubeError(f"{what} has {array.ndim} dimensions: expected an array of shape {shape}.")
    return xr.DataArray(array, dims=dims)


def _check_coordinates(ds: xr.Dataset, given: xr.DataArray, what: str) -> None:
    for dim in given.dims:
        if dim in given.coords and dim in ds.coords:
            mine, theirs = ds[dim].values, given[dim].values
            if not np.array_equal(mine, theirs):
                raise CubeError(
                    f"{what} lies on other {dim} coordinates than the cube "
                    f"({theirs[0]} to {theirs[-1]}, expected {mine[0]} to {mine[-1]}). "
                    f"Use mask.reindex_like(ds) or assign the cube's coordinates."
                )
