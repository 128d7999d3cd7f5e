"""Which pixels are scored together: pixel sets, and strata of gap, season, sky and land cover.

`seen` is True where a method was shown a clear observation; `known` is True where there is a truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.errors import CubeError

Bool = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

SETS = {
    "occluded": "pixels with a truth that the methods did not see",
    "observed": "pixels with a truth that the methods saw",
    "all": "every pixel with a truth, seen or not",
}
"""Pixel set to what it holds."""

GAP_DAYS = (10, 20, 40, 80)
"""Days from date to date that part the strata of gap length, whatever the time of day; each belongs
to the stratum below it."""
GAP_LENGTHS = (*(f"{a}-{b} d" for a, b in pairwise((0, *GAP_DAYS))), f">{GAP_DAYS[-1]} d")
"""Names of the strata of gap length."""
POSITIONS = ("interior", "leading", "trailing")
"""Between two observations that were seen, before the first, after the last."""
CLEAR_SHARE = (0.25, 0.5, 0.75)
"""Clear shares that part the dates."""
CLEAR_SHARES = tuple(f"{100 * a:g}-{100 * b:g} %" for a, b in pairwise((0, *CLEAR_SHARE, 1)))
"""Names of the strata of clear share."""
SEASONS = ("DJF", "MAM", "JJA", "SON")
KINDS = ("gap length", "position", "season", "clear share", "land cover")
"""Kinds of strata, in the order of a table."""


@dataclass(frozen=True)
class Strata:
    """One kind of strata over a cube."""

    kind: str
    names: tuple[str, ...]
    codes: NDArray[np.int16]
    """`(time, y, x)` or what broadcasts to it; index into `names`, -1 for none."""

    def parts(self, where: Bool) -> Iterator[tuple[str, Bool]]:
        """Name and pixels of each stratum that has any among `where`."""
        codes = np.broadcast_to(self.codes, where.shape)
        for i, name in enumerate(self.names):
            part = where & (codes == i)
            if part.any():
                yield name, part


def pixel_set(name: str, seen: Bool, known: Bool) -> Bool:
    """The pixels `(time, y, x)` of one of `SETS`.

    Raises
    ------
    CubeError
        There is no such set.
    """
    if name not in SETS:
        raise CubeError(f"Unknown pixel set {name!r}: expected one of {', '.join(SETS)}.")
    if name == "all":
        return known
    return known & (seen if name == "observed" else ~seen)


def strata(part: xr.Dataset, seen: Bool) -> list[Strata]:
    """Every kind of strata of a cube; land cover where `land_cover(y, x)` is in it."""
    before, after = reach(seen, whole_days(part["time"].values))
    found = [
        Strata("gap length", GAP_LENGTHS, _length(seen, before, after)),
        Strata("position", POSITIONS, _position(seen, before, after)),
        Strata("season", SEASONS, _along_time(part["time"].dt.month.values % 12 // 3)),
        Strata("clear share", CLEAR_SHARES, _sky(seen)),
    ]
    return [*found, *_land_cover(part)]


def whole_days(time: NDArray[np.datetime64]) -> Floats:
    """Days from date to date since the first, whatever the time of day."""
    dates = time.astype("datetime64[D]")
    return (dates - dates[0]).astype(np.float32)


def gap_length(seen: Bool, days: Floats) -> NDArray[np.int16]:
    """Index into `GAP_LENGTHS` of each pixel `(time, y, x)`; -1 where seen or never seen."""
    return _length(seen, *reach(seen, days))


def position(seen: Bool, days: Floats) -> NDArray[np.int16]:
    """Index into `POSITIONS` of each pixel `(time, y, x)`; -1 where seen or never seen."""
    return _position(seen, *reach(seen, days))


def reach(seen: Bool, days: Floats) -> tuple[Floats, Floats]:
    """Days since the last and until the next observation that was seen; infinite where none is."""
    day = days.reshape(-1, 1, 1)
    last = np.maximum.accumulate(np.where(seen, day, -np.inf), axis=0)
    coming = np.minimum.accumulate(np.where(seen, day, np.inf)[::-1], axis=0)[::-1]
    return day - last, coming - day


def _length(seen: Bool, before: Floats, after: Floats) -> NDArray[np.int16]:
    """Days between the two observations; at an end of the series, days to the only one."""
    ends = np.isinf(before) | np.isinf(after)
    days = np.where(ends, np.minimum(before, after), before + after)
    codes = np.searchsorted(GAP_DAYS, days, side="left").astype(np.int16)
    return np.where(seen | np.isinf(days), np.int16(-1), codes)


def _position(seen: Bool, before: Floats, after: Floats) -> NDArray[np.int16]:
    codes = np.where(np.isinf(before), 1, np.where(np.isinf(after), 2, 0))
    none = seen | (np.isinf(before) & np.isinf(after))
    return np.where(none, -1, codes).astype(np.int16)


def _sky(seen: Bool) -> NDArray[np.int16]:
    return _along_time(np.searchsorted(CLEAR_SHARE, seen.mean((1, 2)), side="left"))


def _along_time(codes: NDArray[Any]) -> NDArray[np.int16]:
    return codes.astype(np.int16).reshape(-1, 1, 1)


def _land_cover(part: xr.Dataset) -> list[Strata]:
    if "land_cover" not in part:
        return []
    cover = part["land_cover"].transpose("y", "x")
    values = cover.values
    kinds = np.unique(values[np.isfinite(values.astype(float))])
    said = dict(zip(*_meanings(cover.attrs), strict=False))
    codes = np.full((1, *values.shape), -1, np.int16)
    for i, kind in enumerate(kinds):
        codes[0][values == kind] = i
    return [Strata("land cover", tuple(said.get(int(k), str(int(k))) for k in kinds), codes)]


def _meanings(attrs: Any) -> tuple[list[int], list[str]]:
    """CF `flag_values` and `flag_meanings`."""
    values = [int(v) for v in np.atleast_1d(attrs.get("flag_values", []))]
    return values, str(attrs.get("flag_meanings", "")).split()


# ------------------------------------------------------------------ a stricter truth


def robust(
    part: xr.Dataset,
    *,
    window: int = 7,
    limit: float = 3.0,
    floor: float = 0.015,
    spoilt: float = 0.3,
) -> xr.DataArray:
    """Clear observations that also agree with their neighbours in time: bool `(time, y, x)`.

    A scene classification misses haze and shadow. An observation is left out where blue (or the
    first band) is above the median of the `window` clear observations around it, or the near
    infrared below it, by more than `limit` robust standard deviations of that pixel (at least
    `floor` of reflectance); and a whole date is left out where that holds for a share of `spoilt`
    of its clear pixels. Quick real changes, such as a harvest seen once, go with them: a score
    against this truth is kinder than one against every clear observation.
    """
    valid = part["valid"].transpose("time", "y", "x")
    signs = {b: s for b, s in (("B02", 1.0), ("B08", -1.0), ("B8A", -1.0)) if b in part}
    if not signs:
        signs = {str(next(n for n in part.data_vars if part[n].ndim == 3)): 1.0}
    out = np.zeros(valid.shape, bool)
    for band, sign in signs.items():
        values = part[band].transpose("time", "y", "x").values.astype(np.float64)
        out |= _outliers(np.where(valid.values, sign * values, np.nan), window, limit, floor)
    clear = valid.values
    share = out.sum((1, 2)) / np.maximum(clear.sum((1, 2)), 1)
    kept = clear & ~out & (share <= spoilt)[:, None, None]
    return valid.copy(data=kept).rename("robust")


def _outliers(values: Floats, window: int, limit: float, floor: float) -> Bool:
    """True where a series `(time, y, x)` lies far above the running median of its finite values."""
    from scipy.ndimage import median_filter

    finite = np.isfinite(values)
    order = np.argsort(~finite, axis=0, kind="stable")
    packed = np.take_along_axis(values, order, 0)
    count = finite.sum(0)
    last = np.take_along_axis(packed, np.maximum(count - 1, 0)[None], 0)
    packed = np.where(np.arange(len(values))[:, None, None] < count, packed, last)
    if not count.all():
        packed = np.where(count > 0, packed, 0)
    above = packed - median_filter(packed, size=(window, 1, 1), mode="nearest")
    used = np.arange(len(values))[:, None, None] < count
    scale = np.nanmedian(np.where(used | (count == 0), np.abs(above), np.nan), axis=0) * 1.4826
    far = used & (above > limit * np.maximum(scale, floor / limit))
    out = np.zeros(values.shape, bool)
    np.put_along_axis(out, order, far, 0)
    return out
