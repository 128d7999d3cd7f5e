"""What a report says about a cube, in numbers: clear shares, gap lengths, flag shares, warnings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.flags import in_words
from cubefill.methods.contract import Flag, days_since
from cubefill.plot.pixels import Cover, clear_of, covered, date_text, decimate, flag_label, thinned

BINS = ((-1, 5), (5, 10), (10, 20), (20, 30), (30, 60), (60, np.inf))
"""Gap lengths in days, the upper end included."""
LONG = 60.0
"""Days from which a gap counts as long."""
FEW = 6
"""Clear dates of the median pixel below which a cube counts as thin."""


@dataclass(frozen=True)
class Summary:
    """Numbers of one cube, from every n-th pixel; shares are 0-1 of pixels and dates."""

    time: NDArray[np.datetime64]
    """Acquisitions, increasing."""
    clear: NDArray[np.float64]
    """Clear share of all pixels on each date."""
    covered: NDArray[np.float64]
    """Share of all pixels with data on each date."""
    gap_lengths: tuple[float, ...]
    """Share of the gaps in each of `BINS`."""
    ends: float
    """Share of the gaps before the first or after the last clear observation of their pixel."""
    never: float
    """Share of pixels without a clear observation."""
    clear_dates: tuple[int, int, int]
    """Fewest, median and most clear dates of a pixel."""
    flags: dict[int, float]
    """Share of each code of `fill_flag`; empty before filling."""
    missing_dates: tuple[str, ...]
    """Dates on which a source could not be read."""
    floor_jump: tuple[str, float] | None
    """Date and size of a jump of the darkest clear reflectance, the mark of a missed offset."""
    every: int
    """Every n-th pixel was read."""

    @property
    def dates(self) -> Cover:
        """Which date is the clearest, which the cloudiest."""
        return Cover(self.clear, self.covered)

    @property
    def gaps(self) -> float:
        """Share of pixels and dates that are not clear."""
        return float(1 - self.clear.mean()) if self.clear.size else 0.0

    @property
    def long(self) -> float:
        """Share of the gaps longer than 60 days."""
        return self.gap_lengths[-1]


def summarise(cube: xr.Dataset, out: xr.Dataset | None = None, max_px: int = 192) -> Summary:
    """The facts of a cube and of its filled form, where there is one."""
    small = decimate(cube, max_px).sortby("time")
    band = next((b for b in ("B02", "B03", "B04") if b in small), None)
    read: dict[str, xr.DataArray] = {"clear": clear_of(small), "covered": covered(small)}
    read |= {"dark": small[band]} if band else {}
    read |= {"missing": small["source_missing"]} if "source_missing" in small else {}
    got = xr.Dataset(read).transpose("time", "y", "x").compute()
    clear = got["clear"].values.astype(bool)
    seen = clear | got["covered"].values.astype(bool)
    time = small["time"].values
    dates = time.astype("M8[D]")
    lengths, ends = gap_lengths(clear, days_since(dates, dates[0]))
    count = clear.sum(0)
    flags, lost = _flags(out, max_px)
    if "missing" in got:
        lost = _dates_with(got["missing"].values, time)
    return Summary(
        time=time,
        clear=clear.mean((1, 2)),
        covered=seen.mean((1, 2)),
        gap_lengths=lengths,
        ends=ends,
        never=float((count == 0).mean()),
        clear_dates=(int(count.min()), int(np.median(count)), int(count.max())),
        flags=flags,
        missing_dates=lost,
        floor_jump=_floor_jump(got["dark"].values, clear, time) if band else None,
        every=thinned(cube, max_px),
    )


def gap_lengths(
    clear: NDArray[np.bool_], days: NDArray[np.float64]
) -> tuple[tuple[float, ...], float]:
    """Share of the gaps by length in `BINS`, and of those at an end of their series.

    Each missing observation counts once. Its gap runs from the clear observation before it to the
    next one; at an end of the series it runs from the missing observation to the nearest clear one.

    Parameters
    ----------
    clear
        (time, y, x).
    days
        Day of each time step, increasing.

    Examples
    --------
    >>> import numpy as np
    >>> clear = np.array([True, False, True, False]).reshape(4, 1, 1)
    >>> gap_lengths(clear, np.array([0.0, 5.0, 10.0, 75.0]))
    ((0.0, 0.5, 0.0, 0.0, 0.0, 0.5), 0.5)
    """
    day = days[:, None, None]
    before = np.maximum.accumulate(np.where(clear, day, -np.inf), axis=0)
    after = np.minimum.accumulate(np.where(clear, day, np.inf)[::-1], axis=0)[::-1]
    inner = np.isfinite(before) & np.isfinite(after)
    with np.errstate(invalid="ignore"):
        length = np.where(inner, after - before, np.minimum(day - before, after - day))
    gap = ~clear
    total = int(gap.sum())
    if not total:
        return (0.0,) * len(BINS), 0.0
    shares = [float((gap & (length > lo) & (length <= hi)).sum() / total) for lo, hi in BINS]
    return tuple(shares), float((gap & ~inner).sum() / total)


def warnings_of(found: Summary) -> Iterator[str]:
    """What deserves a second look, one sentence each; nothing where nothing does."""
    if found.floor_jump:
        date, size = found.floor_jump
        yield (
            f"The darkest clear reflectance jumps by {size:+.2f} on {date}: this looks like a "
            "processing-baseline offset that was missed or applied twice. Check the source before "
            "using any value."
        )
    if found.missing_dates:
        more = " ..." if len(found.missing_dates) > 5 else ""
        shown = ", ".join(found.missing_dates[:5]) + more
        yield f"A source could not be read on {len(found.missing_dates)} dates ({shown})."
    if found.never > 0:
        yield (
            f"{in_words(found.never)} of the pixels were never seen clear: nothing can fill them. "
            "A bright roof or sand taken for cloud looks like this too."
        )
    if found.clear_dates[1] < FEW:
        yield (
            f"The median pixel has {found.clear_dates[1]} clear dates: a season needs more than "
            f"{FEW} to be followed."
        )
    if found.long > 0.02:
        yield (
            f"{in_words(found.long)} of the gaps are longer than {LONG:.0f} days: what fills them "
            "is a guess, and no event inside them can be seen."
        )
    if found.ends > 0.05:
        yield (
            f"{in_words(found.ends)} of the gaps lie before the first or after the last clear "
            "observation of their pixel: they are extrapolated, not interpolated."
        )
    if found.flags.get(Flag.UNFILLABLE, 0) > 0:
        yield f"{in_words(found.flags[Flag.UNFILLABLE])} of the values could not be filled (NaN)."
    if found.flags.get(Flag.INCOMPLETE, 0) > 0:
        yield f"{in_words(found.flags[Flag.INCOMPLETE])} of the values lack a band (NaN there)."
    step = np.diff(days_since(found.time, found.time[0]))
    if (close := found.time[1:][step < 0.5]).size:
        days = ", ".join(map(date_text, close[:5]))
        yield f"Acquisitions less than half a day apart: {days}."


def flag_rows(found: Summary) -> list[tuple[int, str, float]]:
    """Code, meaning and share of each code that occurs, in the order of the codes."""
    known = {int(f) for f in Flag}
    return [(c, flag_label(c), s) for c, s in sorted(found.flags.items()) if c in known]


def _flags(out: xr.Dataset | None, max_px: int) -> tuple[dict[int, float], tuple[str, ...]]:
    if out is None or "fill_flag" not in out:
        return {}, ()
    flag = decimate(out, max_px)["fill_flag"].transpose("time", "y", "x").values
    codes, counts = np.unique(flag, return_counts=True)
    shares = {int(c): float(n / flag.size) for c, n in zip(codes, counts, strict=True)}
    return shares, _dates_with(flag == Flag.SOURCE_MISSING, out["time"].values)


def _dates_with(where: NDArray[Any], time: NDArray[np.datetime64]) -> tuple[str, ...]:
    return tuple(date_text(t) for t in time[where.any((1, 2))])


def _floor_jump(
    dark: NDArray[np.float32], clear: NDArray[np.bool_], time: NDArray[np.datetime64]
) -> tuple[str, float] | None:
    """Date and size of a lasting step near 0.1 of the 2nd percentile of clear values."""
    use = clear & np.isfinite(dark)
    enough = np.flatnonzero(use.sum((1, 2)) >= max(20, 0.05 * use[0].size))
    floor = np.array([np.percentile(dark[t][use[t]], 2) for t in enough])
    best: tuple[float, int, float] | None = None
    for cut in range(2, floor.size - 1):
        left, right = floor[:cut], floor[cut:]
        step = float(np.median(right) - np.median(left))
        spread = max(float(np.median(np.abs(p - np.median(p)))) for p in (left, right))
        if 0.07 <= abs(step) <= 0.13 and spread < 0.02:
            cost = float(
                np.abs(left - np.median(left)).sum() + np.abs(right - np.median(right)).sum()
            )
            best = min(best or (cost, cut, step), (cost, cut, step))
    return None if best is None else (date_text(time[enough[best[1]]]), best[2])
