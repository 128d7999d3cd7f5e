"""Coordinates of other tools that no file can hold, as numbers or text that it can."""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubefill.cube.axes import naive_utc

log = logging.getLogger("cubefill")


def serialisable(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with every small variable of Python objects as numbers, dates or JSON text.

    None among numbers becomes NaN and among texts "". Says once in the log what became JSON.
    """
    made: dict[Any, xr.Variable] = {}
    for name, variable in ds.variables.items():
        if name in ds.dims or {"x", "y"} & set(variable.dims):
            continue
        if variable.dtype == object or not isinstance(variable.dtype, np.dtype):
            index = variable.ndim == 1 and variable.dtype != object
            given = variable.to_index().to_numpy(object) if index else variable.values
            values = _values(np.asarray(given, object))
            if values is not None:
                made[name] = xr.Variable(variable.dims, values, variable.attrs)
    if not made:
        return ds
    log.info("%s: Python objects, kept as numbers or JSON text", ", ".join(map(str, made)))
    data = {n: v for n, v in made.items() if n in ds.data_vars}
    return ds.assign(data).assign_coords({n: v for n, v in made.items() if n not in data})


def file_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as netCDF and Zarr both hold them: numbers, text, or rows of one of these.

    Truth values become 0 and 1, None becomes "", and anything nested JSON text.
    """
    return {str(k): _file_attr(v) for k, v in attrs.items()}


def _file_attr(value: Any) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return "" if value is None else int(value)
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iuf":
        kind: Any = {"b": int, "M": str, "m": str}.get(value.dtype.kind, object)
        return _file_attr(value.astype(kind) if kind is int else value.astype(kind).tolist())
    if isinstance(value, str | int | float | np.number | np.ndarray):
        return value
    if isinstance(value, list | tuple):
        same = (str, (int, float, np.number))
        if any(value and all(isinstance(v, kind) for v in value) for kind in same):
            return list(value)
    if isinstance(value, list | tuple | set | frozenset | dict):
        return json.dumps(value, default=_plain)
    try:
        return [float(v) for v in value]  # such as affine.Affine
    except (TypeError, ValueError):
        return str(value)


def _values(given: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, Any] | None:
    """The same values in a type that files hold; None where they are text already."""
    flat = list(given.ravel())
    some = [v for v in flat if not _is_nothing(v)]
    if some and all(isinstance(v, str) for v in some):
        filled = ["" if _is_nothing(v) else v for v in flat]
        return None if len(some) == len(flat) else _shaped(filled, given.shape)
    if all(isinstance(v, Number) and not isinstance(v, bool | np.bool_) for v in some):
        return np.array([np.nan if _is_nothing(v) else v for v in flat], float).reshape(given.shape)
    if all(isinstance(v, datetime) for v in some):
        return naive_utc(np.array([v if v in some else None for v in flat], object)).reshape(
            given.shape
        )
    return _shaped([json.dumps(v, default=_plain, sort_keys=True) for v in flat], given.shape)


def _shaped(texts: list[str], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    made = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(shape)


def _plain(value: Any) -> Any:
    """What JSON has instead of a set, an array or any other object."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _is_nothing(value: Any) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value))
