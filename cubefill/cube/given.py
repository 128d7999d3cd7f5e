"""A mask that a user gave, laid on the grid and the dates of a cube and read as True and False."""

import re
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.axes import naive_utc
from cubefill.cube.bands import canonical
from cubefill.cube.conforming import own_dim
from cubefill.errors import CubeError

NEAR = 1e-3
"""Part of a pixel by which coordinates of one grid may differ: rounding, never a shift."""

_SECOND = np.timedelta64(1, "s")
_NOT_CLEAR = re.compile(r"cloud(?!_?(free|less))|shadow|haze|masked|invalid|gap", re.IGNORECASE)
_NAMED_CLOUD = re.compile(r"(^|_|is)(cloud|shadow|haze|masked|invalid)", re.IGNORECASE)
_NAMED_OTHERWISE = re.compile(
    r"(^|_)(no|non|not|valid)(_|$)|clear|free|less|inv(erted|erse)?$|prob|conf|percent|class|type",
    re.IGNORECASE,
)
_OF_NUMBERS = ("_FillValue", "missing_value", "flag_values", "flag_meanings", "flag_masks")


def fitted(ds: xr.Dataset, given: Any, what: str) -> xr.DataArray:
    """A mask as bool on `(time, y, x)` of the cube; `what` names it in errors.

    An array with coordinates is put in the cube's order of dates, rows and columns, by its labels;
    one without is taken as it lies. Lazy arrays stay lazy.

    Raises
    ------
    CubeError
        It lies elsewhere, has other sizes, or holds something else than true and false.
    """
    sizes = {d: ds.sizes[d] for d in ("time", "y", "x")}
    labelled = isinstance(given, xr.DataArray)
    if labelled and given.variable is ds.variables.get(given.name):
        _refuse_classes(given, what)
    if not labelled:
        given = _wrap(ds, given, what)
    turned = {d: n for d in given.dims if (n := own_dim(given, d)) and n not in given.dims}
    given = given.rename(turned)
    for dim in set(given.dims) & set(sizes):
        given = _aligned(ds, given, str(dim), what)
    wrong = [d for d in given.dims if d not in sizes or given.sizes[d] != sizes[str(d)]]
    if wrong:
        raise CubeError(
            f"{what} has sizes {dict(given.sizes)}: expected {sizes}, or fewer of these dimensions."
        )
    given = _as_truth(ds, given, what, labelled)
    absent = {d: n for d, n in sizes.items() if d not in given.dims}
    out: xr.DataArray = given.expand_dims(absent).transpose("time", "y", "x").rename("valid")
    out = out.assign_coords({d: ds[d] for d in sizes if d in ds.coords})
    out.encoding = {k: v for k, v in out.encoding.items() if k == "grid_mapping"}
    if not out.attrs.get("source"):
        out.attrs = {**out.attrs, "long_name": "clear observation", "source": f"given: {what}"}
    return out


def lazy(variable: xr.DataArray) -> xr.DataArray:
    """The array in memory or with dask; one that a file holds unread gets dask's chunks."""
    unread = not variable.variable._in_memory and variable.chunks is None
    return variable.chunk() if unread else variable


def known(layer: xr.DataArray) -> xr.DataArray:
    """True where a layer has data: neither NaN nor the number that its attributes call no data."""
    fill = no_data(layer)
    return layer.notnull() if fill is None else layer.notnull() & (layer != fill)


def no_data(layer: xr.DataArray) -> Any:
    """The number that stands for no data by the attributes of a layer, or None."""
    return layer.attrs.get("_FillValue", layer.attrs.get("missing_value"))


# ------------------------------------------------------------------ where it lies


def _wrap(ds: xr.Dataset, given: Any, what: str) -> xr.DataArray:
    """An array without labels on the dimensions that its shape tells.

    Raises
    ------
    CubeError
        It is no array of one to three dimensions, or may lie on y and x or on x and y.
    """
    if isinstance(given, xr.Variable):
        return xr.DataArray(given)
    if isinstance(given, xr.Dataset):
        held = next((str(n) for n in given.data_vars), "name")
        raise CubeError(
            f"{what} is a Dataset: expected one array. Use mask[{held!r}], a variable of it."
        )
    array = given if hasattr(given, "dtype") else np.asarray(given)
    plain = {3: ("time", "y", "x"), 2: ("y", "x"), 1: ("time",)}.get(array.ndim)
    if plain is None:
        shape = tuple(ds.sizes[d] for d in ("time", "y", "x"))
        raise CubeError(f"{what} has {array.ndim} dimensions: expected an array of shape {shape}.")
    own = tuple(d for d in _order(ds) if d in plain)
    if own == plain or array.shape != tuple(ds.sizes[d] for d in own):
        return xr.DataArray(array, dims=plain)
    if array.shape == tuple(ds.sizes[d] for d in plain):
        raise CubeError(
            f"{what} has shape {array.shape}, which may be {', '.join(plain)} or, as in the cube, "
            f"{', '.join(own)}: expected an array that names its dimensions. Use "
            f"valid=xarray.DataArray(mask, dims={own!r}) for the cube's."
        )
    return xr.DataArray(array, dims=own)


def _order(ds: xr.Dataset) -> tuple[str, ...]:
    """Dimensions in the order in which the variables of the cube have them."""
    full = (v.dims for v in ds.data_vars.values() if {"time", "y", "x"} <= set(v.dims))
    return tuple(map(str, next(full, ("time", "y", "x"))))


def _aligned(ds: xr.Dataset, given: xr.DataArray, dim: str, what: str) -> xr.DataArray:
    """The mask in the cube's order along one dimension."""
    if dim not in given.coords or dim not in ds.coords:
        return given
    mine = ds[dim].values
    theirs = _dates(given[dim], what) if dim == "time" else given[dim].values
    at = _positions(mine, theirs, _SECOND if dim == "time" else NEAR * _step(mine))
    if at is None:
        raise CubeError(
            f"{what} lies on other {dim} coordinates than the cube ({_span(theirs)}, expected "
            f"{_span(mine)}). {_way(dim, mine.size == theirs.size)}"
        )
    return given if np.array_equal(at, np.arange(theirs.size)) else given.isel({dim: at})


def _positions(mine: NDArray[Any], theirs: NDArray[Any], near: Any) -> NDArray[np.intp] | None:
    """Where each of the cube's coordinates stands in the mask's; None unless each has its own."""
    if mine.dtype.kind != theirs.dtype.kind and "M" in (mine.dtype.kind, theirs.dtype.kind):
        return None
    if mine.shape == theirs.shape and (np.abs(mine - theirs) <= near).all():
        return np.arange(mine.size)
    if not theirs.size:
        return None
    order = np.argsort(theirs, kind="stable")
    there = theirs[order]
    after = np.searchsorted(there, mine).clip(0, there.size - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(there[before] - mine) < np.abs(there[after] - mine), before, after)
    alone = (np.diff(there) > near).all() and np.unique(nearest).size == mine.size
    return order[nearest] if alone and (np.abs(there[nearest] - mine) <= near).all() else None


def _dates(time: xr.DataArray, what: str) -> NDArray[Any]:
    """Times as the cube has them, from what is a date; numbers as they are."""
    dtype: Any = time.dtype  # pandas' own where it has a zone
    if isinstance(dtype, np.dtype) and dtype.kind not in "OUS":
        return np.asarray(time.values)
    return naive_utc(time.to_index().to_numpy(object), f"time of {what}")


def _step(values: NDArray[Any]) -> float:
    return float(abs(values[1] - values[0])) if values.size > 1 else 1.0


def _span(values: NDArray[Any]) -> str:
    return f"{values.size} from {values[0]} to {values[-1]}" if values.size else "none"


def _way(dim: str, as_many: bool) -> str:
    """What to type where coordinates differ."""
    if as_many:
        return (
            f"Use mask.assign_coords({dim}=ds.{dim}) where both are the same "
            f"{'acquisitions' if dim == 'time' else 'pixels'} in the same order."
        )
    far = ", tolerance='12h'" if dim == "time" else ""
    return (
        f"Use mask.sortby({dim!r}).reindex({dim}=ds.{dim}, method='nearest'{far}, "
        "fill_value=False), which leaves what the mask does not cover as a gap."
    )


# ------------------------------------------------------------------ what it says


def _as_truth(ds: xr.Dataset, given: xr.DataArray, what: str, labelled: bool) -> xr.DataArray:
    """The mask as bool: True and 1 are clear, NaN is not; other numbers are refused."""
    if given.dtype == bool:
        return given
    if given.dtype.kind not in "iufO":
        raise CubeError(f"{what} has dtype {given.dtype}: expected bool, True where clear.")
    name = str(given.name) if given.name in ds.variables else ""
    advice = partial(_advice, name=name, labelled=labelled)
    check = partial(_truth, what=what, fill=no_data(given), advice=advice)
    given = lazy(given)
    data = given.data
    if given.chunks is None:
        out = check(np.asarray(data))
    else:
        out = data.map_blocks(check, dtype=bool, meta=np.empty((0,) * data.ndim, bool))
    given = given.copy(data=out)
    given.attrs = {k: v for k, v in given.attrs.items() if k not in _OF_NUMBERS}
    return given


def _refuse_classes(given: xr.DataArray, what: str) -> None:
    """Refuses a variable of the cube that says it holds classes, or that its 1 is no clear pixel.

    No value is read for that.
    """
    flags = np.atleast_1d(given.attrs.get("flag_values", []))
    meanings = str(given.attrs.get("flag_meanings", "")).split()
    words = dict(zip(flags.tolist(), meanings, strict=False))
    name = str(given.name)
    if _NOT_CLEAR.search(words.get(1, "")):
        raise CubeError(
            f"{what} says that 1 is {words[1]!r}: {_WANTED} Use valid={{{name!r}: (0,)}} to "
            "turn it."
        )
    if not words and _NAMED_CLOUD.search(name) and not _NAMED_OTHERWISE.search(name):
        raise CubeError(
            f"{what}: by its name, 1 is what is not clear; {_WANTED} Use valid={{{name!r}: 0}} to "
            f"turn it, or valid={{{name!r}: 1}} where 1 is clear."
        )
    classes = canonical(name) == "SCL" or not np.isin(flags, (0, 1)).all()
    if given.dtype != bool and (classes or "flag_masks" in given.attrs):
        advice = _advice(np.empty(0, np.uint8), name=name, labelled=True)
        raise CubeError(f"{what} holds class numbers: {_WANTED} {advice}")


_WANTED = "expected True or 1 where clear, False or 0 elsewhere."


def _truth(values: NDArray[Any], *, what: str, fill: Any, advice: Any) -> NDArray[np.bool_]:
    """A block of a mask as bool."""
    if values.dtype.kind == "O":
        try:
            values = values.astype(float)
        except (TypeError, ValueError) as error:
            raise CubeError(f"{what} holds objects: {_WANTED} ({error})") from error
    clear = values == 1
    other = ~clear & (values != 0) & (values == values)
    if fill is not None:
        clear, other = clear & (values != fill), other & (values != fill)
    if other.any():
        found = np.unique(values[other])
        some = ", ".join(f"{v:g}" for v in found[:4]) + (", ..." if found.size > 4 else "")
        raise CubeError(f"{what} holds {some}: {_WANTED} {advice(found)}")
    return np.asarray(clear, bool)


def _advice(found: NDArray[Any], *, name: str, labelled: bool) -> str:
    """What to type for a layer of classes, or of a measure such as a probability."""
    measured = "prob" in name.lower() or (found.dtype.kind == "f" and (found % 1 != 0).any())
    if measured:
        limit = "0.4" if found.size and found.max() <= 1 else "40"
        way = f"valid={{{name!r}: '< {limit}'}}" if name else f"valid=mask < {limit}"
        return f"Use {way} for what counts as clear."
    clear = (4, 5, 6, 7) if canonical(name) == "SCL" or not name else (0,)
    if name:
        return f"Use valid={{{name!r}: {clear}}} with the numbers of the clear classes."
    way = f"mask.isin({clear})" if labelled else f"numpy.isin(mask, {clear})"
    return f"Use valid={way} with the numbers of the clear classes."
