"""Detects dates whose baseline offset was left in or removed twice."""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import valid as clear_pixels
from cubefill.cube.bands import BANDS
from cubefill.errors import CubefillWarning

VISIBLE = ("B01", "B02", "B03", "B04")
"""Bands whose dark pixels hardly change over a year."""

JUMP = (0.07, 0.13)
"""A step of reflectance that looks like an offset of 1000 counts."""

DARK = 1.0
"""Percentile of the clear pixels of a date that stands for its dark pixels."""

CLEAR = 0.2
"""Share of clear pixels that a date needs to be compared."""

NEIGHBOURS = 3
"""Dates before and after a step whose medians are compared."""


def offset_jumps(ds: xr.Dataset) -> list[str]:
    """Dates at which dark pixels jump by about 0.1 in all visible bands.

    None in a cube whose offsets are right. Reads the visible bands; warns where it finds a date.

    Parameters
    ----------
    ds
        A loaded cube, lazy or not, with `valid` or SCL.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> offset_jumps(synthetic_cube())
    []
    """
    names = [n for n in VISIBLE if n in ds] or [n for n in BANDS if n in ds]
    clear = clear_pixels.apply(ds)
    dark = np.full((len(names), ds.sizes["time"]), np.nan)
    for t in range(ds.sizes["time"]):
        step = ds[names].isel(time=t).compute()
        where = clear.isel(time=t).values
        if where.mean() >= CLEAR:
            dark[:, t] = [_percentile(step[n].values, where) for n in names]
    seen = np.flatnonzero(np.isfinite(dark).all(axis=0))
    found = [str(ds["time"].values[t])[:10] for t in _steps(dark[:, seen], seen)]
    if found:
        warnings.warn(
            f"Dark pixels of {', '.join(names)} jump by about 0.1 at {', '.join(found[:5])}: an "
            "offset of 1000 counts was left in or taken off twice. Look at "
            "ds.attrs['offset_items'] and use load(..., harmonize=function_of_the_item).",
            CubefillWarning,
            stacklevel=2,
        )
    return found


def _steps(dark: NDArray[np.float64], seen: NDArray[Any]) -> list[int]:
    """Positions where the medians before and after differ by a jump in every band."""
    found = []
    for k in range(1, len(seen)):
        before = np.median(dark[:, max(0, k - NEIGHBOURS) : k], axis=1)
        after = np.median(dark[:, k : k + NEIGHBOURS], axis=1)
        sharp = np.abs(dark[:, k] - dark[:, k - 1])
        size = np.abs(after - before)
        if all((size > JUMP[0]) & (size < JUMP[1]) & (sharp > JUMP[0]) & (sharp < JUMP[1])):
            found.append(int(seen[k]))
    return found


def _percentile(values: NDArray[Any], where: NDArray[np.bool_]) -> float:
    known = values[where & np.isfinite(values)]
    return float(np.percentile(known, DARK)) if known.size else float("nan")
