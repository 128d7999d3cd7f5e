"""Which pixels are clear: from classes, thresholds, a mask package, or a user's own mask."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import given as mask
from cubefill.cube import masks
from cubefill.cube.bands import SCL, canonical
from cubefill.cube.variables import spectral
from cubefill.errors import CubeError

CLEAR = (SCL.VEGETATION, SCL.BARE, SCL.WATER, SCL.UNCLASSIFIED)
"""Classes that count as clear unless asked otherwise."""

SPREADING = (SCL.CLOUD_SHADOW, SCL.CLOUD_MEDIUM, SCL.CLOUD_HIGH, SCL.THIN_CIRRUS)
"""Classes that are dilated: clouds and their shadows."""

Bool = NDArray[np.bool_]
Rule = str | int | Iterable[int]
"""What is clear in a layer: class numbers, or a threshold such as "< 40"."""
UserValid = (
    str | Mapping[str, Rule | float] | xr.DataArray | NDArray[Any] | Callable[[xr.Dataset], Any]
)
"""What a user may give as `valid`, see `apply`."""

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
"""Comparisons that a threshold may begin with."""


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
        same for any chunks. Floating point is taken where its values are whole; NaN is no data.
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
        The array has no y and x, no class numbers, or an option is out of range; for a lazy array
        of fractions when it is computed.

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
    find_clear = partial(from_classes, classes=classes, rows=offsets)
    data = _blockwise(find_clear, turned.data, offsets)
    out = turned.copy(data=data).transpose(*scl.dims).rename("valid")
    out.attrs = attributes(classes, dilate)
    out.encoding = {k: v for k, v in scl.encoding.items() if k == "grid_mapping"}
    return out


def apply(
    ds: xr.Dataset, valid: UserValid | None = None, bands: Sequence[str] | None = None
) -> xr.DataArray:
    """The clear pixels `(time, y, x)` of a cube, whichever way they are given.

    Parameters
    ----------
    ds
        A cube.
    valid
        True, or 1, is a clear observation; NaN is none.

        - None: `ds["valid"]`, else made from `ds["SCL"]` by `from_scl`.
        - A name: that variable of the cube, of true and false.
        - `{"SCL": (4, 5, 6, 7)}`: clear classes of a layer. SCL is dilated as `from_scl` does it;
          other layers are not, unless `"dilate": 30` (a radius in m) stands beside them: then
          every other class grows.
        - `{"cloud_probability": "< 40"}`: a threshold by <, <=, >, >=, == or !=. What several keys
          say is joined by "and".
        - "finite": where any of the bands is finite, for cubes that are NaN where cloudy.
        - "csmask", "omnicloudmask", "s2cloudless": made by that package, see `cube.masks`.
        - A callable: is given the dataset and answers with any array.
        - An array: on the cube's grid and dates, or on fewer of these dimensions; one with
          coordinates is put in the cube's order.
    bands
        The bands of "finite"; by default all of the cube.

    Raises
    ------
    CubeError
        Nothing says what is clear, or what was given is no mask or does not fit. Values of a lazy
        mask are looked at when it is computed.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> ds = synthetic_cube()
    >>> apply(ds, {"SCL": (4, 5), "dilate": 60}).attrs["dilation_m"]
    60.0
    >>> apply(ds, "finite").dims
    ('time', 'y', 'x')
    """
    if valid is None:
        return _own(ds)
    if isinstance(valid, Mapping) and not isinstance(valid, xr.Dataset):
        return _ruled(ds, valid)
    if callable(valid):
        return mask.fitted(ds, valid(ds), f"valid={getattr(valid, '__name__', valid)!s}(ds)")
    if not isinstance(valid, str):
        return mask.fitted(ds, valid, "valid")
    if (name := _named(ds, valid)) is not None:
        return mask.fitted(ds, ds[name], f"valid={valid!r}")
    if valid == "finite":
        return _finite(ds, spectral(ds) if bands is None else bands)
    if valid in masks.PACKAGES:
        return masks.by_package(ds, valid)
    raise CubeError(
        f"valid={valid!r}: expected a variable of the cube ({_listed(ds)}), 'finite', or one of "
        f"the mask packages {', '.join(masks.PACKAGES)}. Pass valid=None to use SCL."
    )


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
    numbers = _numbers(scl)
    out: Bool = _table(classes)[numbers]
    if rows != (0,):
        out &= ~dilated(_table(SPREADING)[numbers], rows)
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


def _table(classes: Iterable[int]) -> Bool:
    table = np.zeros(256, bool)
    table[[int(c) for c in classes]] = True
    return table


def _numbers(scl: NDArray[Any]) -> NDArray[np.uint8]:
    """Classes as uint8; what is no class (NaN, a number for no data) becomes 0."""
    if scl.dtype == np.uint8:
        return scl
    inside = (scl >= 0) & (scl < 256)
    numbers = np.where(inside, scl, 0).astype(np.uint8)
    _refuse_fractions(scl, inside & (numbers != scl), "SCL")
    return numbers


def _refuse_fractions(values: NDArray[Any], where: Bool, name: str) -> None:
    if where.any():
        raise CubeError(
            f"{name} holds {values[where].flat[0]:g}: expected whole class numbers, or NaN for no "
            "data. Use nearest resampling, which keeps classes, to bring it to the grid."
        )


def _blockwise(run: Callable[[NDArray[Any]], Bool], data: Any, rows: tuple[int, ...]) -> Any:
    """A function of `(..., y, x)` that looks as far as a disk, on numpy or on dask."""
    if isinstance(data, np.ndarray):
        return run(data)
    import dask.array as da

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
    if scl.dtype.kind not in "iuf":
        raise CubeError(
            f"SCL has dtype {scl.dtype}: expected classes 0 to 11. "
            "Use ds['SCL'] = ds['SCL'].astype('uint8')."
        )
    _check_radius(dilate)


def _check_radius(dilate: Any) -> None:
    if not isinstance(dilate, int | float) or not 0 <= dilate < math.inf:
        raise CubeError(f"dilate={dilate}: expected a radius in m, 0 or more.")


def _pixel(scl: xr.DataArray, resolution: float | None, dilate: float) -> tuple[float, float]:
    if resolution is not None:
        return float(resolution), float(resolution)
    steps = [_step(scl, d) for d in ("y", "x")]
    known = [s for s in steps if s]
    alone = scl.sizes["y"] == scl.sizes["x"] == 1  # nothing to grow into
    if not known and dilate > 0 and not alone:
        raise CubeError(
            f"{scl.name} has no y or x coordinates to read the pixel size from: expected "
            f"pixel centres in m. Use valid={{{str(scl.name)!r}: {tuple(map(int, CLEAR))}, "
            "'dilate': 0}, or cubefill.cube.valid.from_scl(scl, resolution=10)."
        )
    fallback = known[0] if known else 1.0
    return steps[0] or fallback, steps[1] or fallback


def _step(scl: xr.DataArray, dim: str) -> float | None:
    if dim not in scl.coords or scl.sizes[dim] < 2:
        return None
    values = scl[dim].values[:2].astype(float)
    return abs(float(values[1] - values[0])) or None


# ------------------------------------------------------------------ ways to say what is clear


def _named(ds: xr.Dataset, name: str) -> str | None:
    """The variable or coordinate of that name, or of that name as cubefill calls it."""
    return next((n for n in (name, canonical(name)) if n is not None and n in ds.variables), None)


def _listed(ds: xr.Dataset) -> str:
    return ", ".join(map(str, ds.data_vars))


def _own(ds: xr.Dataset) -> xr.DataArray:
    if "valid" in ds:
        return mask.fitted(ds, ds["valid"], "ds['valid']")
    scl = next((n for n in ds.data_vars if canonical(str(n)) == "SCL"), None)
    if scl is not None:
        return mask.fitted(ds, from_scl(mask.lazy(ds[scl])), f"valid from {scl}")
    raise CubeError(
        "The cube has neither `valid` nor `SCL`, so nothing says which pixels are clear: expected "
        "one of them. Pass valid='finite' where cloudy pixels are NaN, or valid={'layer': (0,)} "
        "with the clear classes of a layer."
    )


def _finite(ds: xr.Dataset, bands: Sequence[str]) -> xr.DataArray:
    # Any, not all: a pixel that lacks one band is still an observation of the others, and what
    # it lacks is a gap of that band alone.
    each: list[Any] = [np.isfinite(mask.lazy(ds[b])) for b in bands]
    found = reduce(operator.or_, each)
    said = f"True where any of {', '.join(bands)} is finite"
    found.attrs = {"long_name": "clear observation", "source": "finite", "description": said}
    return mask.fitted(ds, found, "valid='finite'")


def _ruled(ds: xr.Dataset, rules: Mapping[str, Any]) -> xr.DataArray:
    """What every rule of a mapping calls clear."""
    rest = dict(rules)
    dilate = rest.pop("dilate", None)
    if dilate is not None:
        _check_radius(dilate)
    if not rest:
        raise CubeError(f"valid={rules!r}: expected rules such as {{'SCL': (4, 5, 6, 7)}}.")
    parts = [_by_rule(ds, str(name), rule, dilate) for name, rule in rest.items()]
    if len(parts) == 1:
        return parts[0]
    out = reduce(operator.and_, parts)
    said = [str(p.attrs["description"]).removeprefix("True where ") for p in parts]
    out.attrs = {
        "long_name": "clear observation",
        "source": ", ".join(map(str, rest)),
        "description": f"True where {' and '.join(f'({s})' for s in said)}",
    }
    return out


def _by_rule(ds: xr.Dataset, key: str, rule: Any, dilate: float | None) -> xr.DataArray:
    name = _named(ds, key)
    if name is None:
        raise CubeError(f"valid={{{key!r}: ...}}: the cube has no {key}; it has {_listed(ds)}.")
    layer = mask.lazy(ds[name])
    what = f"valid={{{key!r}: {rule!r}}}"
    if layer.dtype.kind not in "biuf":
        raise CubeError(f"{what}: {name} has dtype {layer.dtype}; expected numbers.")
    if isinstance(rule, str):
        clear, said = _compared(layer, rule, what)
    else:
        classes = _classes(rule, what)
        if canonical(name) == "SCL":
            found = from_scl(layer, clear=classes, dilate=30.0 if dilate is None else dilate)
            return mask.fitted(ds, found, what)
        clear, said = _among(layer, classes), ", ".join(map(str, classes))
        said = f"{name} is {said}"
    if dilate:
        clear = clear & ~_grown(mask.known(layer) & ~clear, dilate)
        said += f"; the rest is dilated by {dilate:g} m"
    clear.attrs = {
        "long_name": "clear observation",
        "source": name,
        "dilation_m": float(dilate or 0),
        "description": f"True where {said}",
    }
    return mask.fitted(ds, clear, what)


def _compared(layer: xr.DataArray, rule: str, what: str) -> tuple[xr.DataArray, str]:
    parts = re.fullmatch(r"\s*([<>]=?|[=!]=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", rule, re.IGNORECASE)
    try:
        limit = float(parts[2]) if parts else math.nan
    except ValueError:
        limit = math.nan
    if parts is None or math.isnan(limit):
        raise CubeError(
            f"{what}: expected one of {' '.join(OPERATORS)} and a number, such as '< 40', or a "
            "tuple of class numbers."
        )
    clear = OPERATORS[parts[1]](layer, limit) & mask.known(layer)
    return clear, f"{layer.name} {parts[1]} {limit:g}"


def _classes(rule: Any, what: str) -> tuple[int, ...]:
    try:
        values = list(rule) if isinstance(rule, Iterable) else [rule]
        numbers = tuple(sorted({int(v) for v in values}))
        if numbers and set(numbers) == set(values):
            return numbers
    except (TypeError, ValueError):
        pass
    raise CubeError(
        f"{what}: expected class numbers such as (4, 5), or a threshold such as '< 40'."
    )


def _among(layer: xr.DataArray, classes: tuple[int, ...]) -> xr.DataArray:
    run = partial(_is_among, classes=classes, fill=mask.no_data(layer), name=str(layer.name))
    return layer.copy(data=_blockwise(run, layer.data, (0,)))


def _is_among(values: NDArray[Any], *, classes: tuple[int, ...], fill: Any, name: str) -> Bool:
    if values.dtype.kind == "f":
        _refuse_fractions(values, np.isfinite(values) & (values != np.rint(values)), name)
    clear = np.isin(values, classes)
    return clear if fill is None else clear & (values != fill)


def _grown(where: xr.DataArray, radius: float) -> xr.DataArray:
    """True grown by a disk of that radius in m."""
    if not {"y", "x"} <= set(where.dims):
        raise CubeError(f"dilate={radius}: {where.name} does not lie on y and x. Pass dilate=0.")
    turned = where.transpose(..., "y", "x")
    rows = disk(radius, *_pixel(where, None, radius))
    return turned.copy(data=_blockwise(partial(dilated, rows=rows), turned.data, rows))
