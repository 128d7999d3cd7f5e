"""Pixels ready to show: decimated, stretched and coloured, and the dates worth showing.

Nothing here draws; `plot` and `reports` do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import spectral
from cubefill.cube.valid import apply
from cubefill.errors import CubeError, CubefillError
from cubefill.methods.contract import Flag
from cubefill.store import open_cube

STRETCH = (0.0, 0.3)
"""Reflectance shown as black and as full colour, before and after filling alike."""
GAMMA = 1 / 1.2
"""Exponent that follows the linear stretch."""
TRUE_COLOUR = ("B04", "B03", "B02")

FLAG_COLOURS: dict[Flag, str] = {
    Flag.OBSERVED: "#e3e3e3",
    Flag.INTERPOLATED: "#56b4e9",
    Flag.SAME_DATE: "#009e73",
    Flag.LEARNED: "#0072b2",
    Flag.CLIMATOLOGY: "#e69f00",
    Flag.EXTRAPOLATED: "#d55e00",
    Flag.SMOOTHED: "#cc79a7",
    Flag.SOURCE_MISSING: "#000000",
    Flag.UNFILLABLE: "#5c5c5c",
    Flag.NOT_ACQUIRED: "#f0e442",
    Flag.FEW_OBSERVATIONS: "#8c510a",
    Flag.INCOMPLETE: "#8a8a8a",
    Flag.CLIPPED: "#5e3c99",
    Flag.NO_DATA: "#ffffff",
}
"""One colour for each code of `fill_flag`, told apart with any colour vision (Wong 2011)."""


def flag_label(code: int) -> str:
    """The CF meaning of a code of `fill_flag`, in words.

    Examples
    --------
    >>> flag_label(9)
    'not acquired'
    """
    return Flag(code).name.lower().replace("_", " ")


def decimate(ds: xr.Dataset, max_px: int, time: int | None = None) -> xr.Dataset:
    """Every n-th pixel, so that neither side is longer than `max_px`; lazy, reads nothing.

    With `time`, of that time step alone, in one slice, so that a lazy cube reads no other.

    Raises
    ------
    CubeError
        `max_px` is below 1.
    """
    if max_px < 1:
        raise CubeError(f"max_px={max_px}: expected at least 1. Pass max_px=800.")
    step = thinned(ds, max_px)
    every: dict[str, slice | int] = {} if time is None else {"time": time}
    if step > 1:
        every |= {d: slice(min(step // 2, ds.sizes[d] - 1), None, step) for d in ("y", "x")}
    return ds.isel(every) if every else ds


def thinned(ds: xr.Dataset, max_px: int) -> int:
    """Which n of "every n-th pixel" leaves at most `max_px` rows and columns."""
    return max(1, -(-max(ds.sizes["y"], ds.sizes["x"]) // max_px))


def stretch(reflectance: NDArray[Any]) -> NDArray[np.uint8]:
    """Brightness 0-255 of reflectance: `255 * clip(v / 0.3, 0, 1) ** (1 / 1.2)`; NaN gives 0."""
    low, high = STRETCH
    unit = np.clip((np.nan_to_num(reflectance, nan=low) - low) / (high - low), 0, 1)
    bright: NDArray[np.uint8] = np.rint(255 * unit**GAMMA).astype(np.uint8)
    return bright


def rgba(step: xr.Dataset, bands: Sequence[str] = TRUE_COLOUR) -> NDArray[np.uint8]:
    """One time step as (y, x, 4); transparent where any of the three bands is NaN."""
    values = [step[b].transpose("y", "x").values for b in named(step, bands)]
    alpha = np.where(np.isnan(values).any(axis=0), 0, 255).astype(np.uint8)
    return np.dstack([*(stretch(v) * (alpha > 0) for v in values), alpha])


def flag_rgb(flag: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes of `fill_flag` (y, x) as colours (y, x, 3)."""
    table = np.zeros((256, 3), np.uint8)
    for code, colour in FLAG_COLOURS.items():
        table[code] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table[flag]


def named(ds: xr.Dataset, bands: Sequence[str]) -> list[str]:
    """The variables that hold `bands`: themselves, or their `_smooth` product.

    Raises
    ------
    CubeError
        The cube has neither.
    """
    found = [next((n for n in (b, f"{b}_smooth") if n in ds), None) for b in bands]
    missing = [b for b, name in zip(bands, found, strict=True) if name is None]
    if missing:
        have = spectral(ds) or tuple(map(str, ds.data_vars))
        raise CubeError(
            f"The picture needs {', '.join(bands)}: {', '.join(missing)} missing; the cube has "
            f"{', '.join(have)}. Pass bands=(...) with three of them."
        )
    return [name for name in found if name is not None]


def colour_bands(ds: xr.Dataset) -> tuple[str, ...]:
    """True colour where the cube has it, else its last band three times over, in grey."""
    try:
        named(ds, TRUE_COLOUR)
    except CubeError:
        bands = spectral(ds)
        return (bands[-1],) * 3
    return TRUE_COLOUR


# ------------------------------------------------------------------ dates


def date_text(time: Any) -> str:
    """A time as `2018-05-03`."""
    return str(np.datetime64(time, "D"))


def nearest_time(ds: xr.Dataset, time: Any) -> int:
    """Index of the time step nearest to `time`, which must lie within the cube's dates.

    Raises
    ------
    CubeError
        `time` is no date, or lies before the first or after the last day.
    """
    steps = pd.DatetimeIndex(ds["time"].values)
    first, last = steps.min(), steps.max()
    given: Any = time.values[()] if isinstance(time, xr.DataArray) else time
    try:
        want = pd.Timestamp(given)
    except (TypeError, ValueError) as error:
        raise CubeError(
            f"time={time!r}: expected a date. Pass time={date_text(first)!r}."
        ) from error
    want = want.tz_convert(None) if want.tzinfo else want
    if not first.normalize() <= want < last.normalize() + pd.Timedelta(days=1):
        raise CubeError(
            f"time={time!r} lies outside the cube: expected {date_text(first)} to "
            f"{date_text(last)}. Pass time={date_text(last)!r}."
        )
    days = steps.normalize() if want == want.normalize() else steps
    return int(np.abs(days - want).argmin())


def clear_of(ds: xr.Dataset) -> xr.DataArray:
    """Clear observations (time, y, x): flag 0 of a filled cube, `valid`, SCL, else finite."""
    if "fill_flag" in ds:
        return ds["fill_flag"] == int(Flag.OBSERVED)
    known = with_valid(ds)
    if "valid" in known:
        return apply(known)
    return ds[spectral(ds)[0]].notnull()


def with_valid(ds: xr.Dataset) -> xr.Dataset:
    """The cube with `valid`, made from SCL where it has none; unchanged where it has neither."""
    if "valid" in ds or "fill_flag" in ds or "SCL" not in ds:
        return ds
    return ds.assign(valid=apply(ds))


def covered(ds: xr.Dataset) -> xr.DataArray:
    """Pixels that were looked at (time, y, x), cloudy or clear."""
    if "fill_flag" in ds:
        flag = ds["fill_flag"]
        return (flag != int(Flag.NO_DATA)) & (flag != int(Flag.NOT_ACQUIRED))
    if "SCL" in ds:
        return ds["SCL"].fillna(0) != 0
    return ds[spectral(ds)[0]].notnull()


@dataclass(frozen=True)
class Cover:
    """What each date shows, as shares of the pixels looked at."""

    clear: NDArray[np.float64]
    """Clear share of all pixels, 0-1, for each date."""
    covered: NDArray[np.float64]
    """Share of all pixels that have data, cloudy or clear."""

    @property
    def clearest(self) -> int:
        """Index of the date with the most clear pixels, the first of equals."""
        return int(self.clear.argmax())

    @property
    def cloudiest(self) -> int:
        """Index of the date with the lowest clear share of what it covers.

        Dates that cover less than half of what the median date covers do not count; of equal ones
        the nearest to the middle of the series is taken, where a fill has both sides.
        """
        share = self._share
        lowest = np.flatnonzero(share <= share.min() + 1e-9)
        return int(lowest[np.abs(lowest - (share.size - 1) / 2).argmin()])

    @property
    def partly(self) -> int | None:
        """Index of the date whose clear share is nearest to a half; None where none is partly."""
        share = np.where(np.isfinite(self._share), self._share, 0.0)
        away = np.abs(share - 0.5)
        return int(away.argmin()) if away.min() < 0.45 else None

    @property
    def _share(self) -> NDArray[np.float64]:
        """Clear share of what each date covers; infinite where it covers too little to count."""
        some = self.covered > 0
        usual = np.median(self.covered[some]) if some.any() else 0.0
        eligible = some & (self.covered >= 0.5 * usual)
        share = np.full(self.clear.shape, np.inf)
        np.divide(self.clear, self.covered, out=share, where=eligible)
        return share


def cover(ds: xr.Dataset, max_px: int = 64) -> Cover:
    """Clear and covered shares of each date, from at most `max_px` rows and columns."""
    small = decimate(ds, max_px)
    both = xr.Dataset({"clear": clear_of(small), "covered": covered(small)}).compute()
    both["covered"] = both["covered"] | both["clear"]
    share = both.mean(("y", "x"))
    return Cover(share["clear"].values.astype(float), share["covered"].values.astype(float))


# ------------------------------------------------------------------ the cube before filling


def source_cube(out: xr.Dataset, before: xr.Dataset | None = None) -> xr.Dataset | None:
    """The cube that `out` was filled from, or None where it cannot be found.

    1. `before`, when given. 2. The dataset that the lazy engine left in `out.encoding`.
    3. The store that `out.attrs["gapfill_source"]` or `out.attrs["source"]` names.
    """
    if before is not None:
        return before
    kept = out.encoding.get("source_cube")
    if isinstance(kept, xr.Dataset):
        return kept
    paths = [out.attrs.get(name) for name in ("gapfill_source", "source")]
    local = [p for p in paths if isinstance(p, str) and len(p) < 4096 and Path(p).exists()]
    if not local:
        return None
    try:
        return open_cube(local[0])
    except (CubefillError, OSError, ValueError):
        return None


def align(cube: xr.Dataset, like: xr.Dataset, time: int | None = None) -> xr.Dataset | None:
    """The pixels of `cube` at the coordinates of `like`, or None where it lacks some.

    With `time`, of that time step alone, in one slice.
    """
    keep: dict[str, slice | int | NDArray[np.intp]] = {} if time is None else {"time": time}
    for d in ("y", "x"):
        at = pd.Index(cube[d].values).get_indexer(pd.Index(like[d].values))
        if (at < 0).any():
            return None
        step = int(at[1] - at[0]) if at.size > 1 else 1
        even = step > 0 and bool((np.diff(at) == step).all())
        keep[d] = slice(int(at[0]), int(at[-1]) + 1, step) if even else at
    return cube.isel(keep)


def aligned(
    cube: xr.Dataset | None, like: xr.Dataset, time: int | None = None, *, given: bool = False
) -> xr.Dataset | None:
    """As `align`, and None without a cube; a cube that the user has given must cover `like`.

    Raises
    ------
    CubeError
        It was given and does not.
    """
    part = None if cube is None else align(cube, like, time)
    if given and part is None:
        raise CubeError(
            "before= does not cover the filled cube: expected a cube that has all of its x and y. "
            "Pass before=ds with the cube that was filled."
        )
    return part


def same_day(cube: xr.Dataset, time: Any) -> int | None:
    """Index of the acquisition nearest to `time` within half a day, or None."""
    gap = np.abs(cube["time"].values.astype("datetime64[ns]") - np.datetime64(time, "ns"))
    i = int(gap.argmin())
    return i if gap[i] <= np.timedelta64(12, "h") else None
