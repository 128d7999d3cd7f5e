"""Time axes of a fill: the caller's dates, the merged days a method sees, and the dates to give."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cubefill.errors import CubeError, CubefillWarning

Times = NDArray[np.datetime64]

SAME_DAY = np.timedelta64(12, "h")
"""Acquisitions closer than this are one time step for a method."""


def day_of_year(time: Any) -> NDArray[np.float64]:
    """Day of the year of each time, with fractions; noon of the first of January is 1.5.

    Examples
    --------
    >>> float(day_of_year(np.datetime64("2024-03-01T12:00")))
    61.5
    """
    now = np.asarray(time).astype("datetime64[ns]")
    since = now - now.astype("datetime64[Y]").astype("datetime64[ns]")
    return np.asarray(since / np.timedelta64(86_400_000_000_000, "ns") + 1)


@dataclass(frozen=True)
class TimeAxes:
    """How input dates, merged steps and output dates belong together."""

    given: Times
    """Dates of the cube in the caller's order."""
    groups: tuple[tuple[int, ...], ...]
    """For each merged step, in order of time, the positions in `given` that it holds."""
    out: Times
    """Dates of the result in the caller's order."""
    out_time: Times
    """Dates that a method is asked for: distinct and increasing."""
    out_step: tuple[int, ...]
    """For each date of `out`, its position in `out_time`."""
    sources: tuple[tuple[int, ...], ...]
    """For each date of `out`, the positions in `given` whose clear pixels it shows."""

    @cached_property
    def time(self) -> Times:
        """Merged time steps, increasing."""
        return self.given[[g[0] for g in self.groups]]

    @property
    def plain_in(self) -> bool:
        """True when the merged steps are the given dates in their order."""
        return all(g == (i,) for i, g in enumerate(self.groups))

    @property
    def plain_out(self) -> bool:
        """True when a method's dates are the dates of the result in their order."""
        return self.out_step == tuple(range(len(self.out_time)))

    @property
    def same(self) -> bool:
        """True when a method is asked for the dates it is given."""
        return np.array_equal(self.time, self.out_time)


def time_axes(given: Times, times: Any = None) -> TimeAxes:
    """The axes of a fill.

    Parameters
    ----------
    given
        Acquisition dates, in any order; those of one day are merged with a warning.
    times
        None for the acquisition dates, a frequency such as "5D" for a regular axis from the first
        to the last acquisition, or dates. A date on the day of an acquisition is that acquisition.

    Raises
    ------
    CubeError
        `times` is neither a frequency nor dates, or is empty.
    """
    given = given.astype("datetime64[ns]")
    groups = _merge(given)
    time = given[[g[0] for g in groups]]
    if times is None:
        step = {i: k for k, g in enumerate(groups) for i in g}
        return TimeAxes(
            given,
            groups,
            given,
            time,
            tuple(step[i] for i in range(len(given))),
            tuple((i,) for i in range(len(given))),
        )
    out = _dates(times, time)
    day = {d: k for k, d in reversed(list(enumerate(time.astype("datetime64[D]"))))}
    hit = [day.get(d) for d in out.astype("datetime64[D]")]
    asked = np.array(
        [time[k] if k is not None else t for k, t in zip(hit, out, strict=True)], "datetime64[ns]"
    )
    out_time, steps = np.unique(asked, return_inverse=True)
    sources = tuple(groups[k] if k is not None else () for k in hit)
    return TimeAxes(given, groups, out, out_time, tuple(map(int, steps.ravel())), sources)


def _merge(given: Times) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(given, kind="stable")
    groups: list[list[int]] = []
    for i in map(int, order):
        if groups and given[i] - given[groups[-1][0]] < SAME_DAY:
            groups[-1].append(i)
        else:
            groups.append([i])
    twice = [g for g in groups if len(g) > 1]
    if twice:
        days = ", ".join(str(given[g[0]].astype("datetime64[D]")) for g in twice[:5])
        warnings.warn(
            f"{len(twice)} days hold more than one acquisition ({days}): methods see the mean of "
            "their clear values; every acquisition keeps its own clear pixels.",
            CubefillWarning,
            stacklevel=2,
        )
    return tuple(map(tuple, groups))


def _dates(times: Any, time: Times) -> Times:
    try:
        if isinstance(times, str):
            start = pd.Timestamp(time[0]).normalize()
            dates = pd.date_range(start, pd.Timestamp(time[-1]), freq=times)
        else:
            dates = pd.DatetimeIndex(np.atleast_1d(np.asarray(times, "datetime64[ns]")))
    except (ValueError, TypeError) as error:
        raise CubeError(
            f"times={times!r}: expected a frequency such as '5D' or an array of dates ({error})."
        ) from error
    if not len(dates) or dates.hasnans:
        raise CubeError(f"times={times!r}: expected at least one date and no NaT.")
    return dates.to_numpy("datetime64[ns]")
