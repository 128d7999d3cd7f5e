"""Time axes of a fill: the caller's dates, the merged days a method sees, and the dates to give."""

import logging
import warnings
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cubefill.errors import CubeError, CubefillWarning

log = logging.getLogger("cubefill")

Times = NDArray[np.datetime64]

SAME_DAY = np.timedelta64(12, "h")
"""Acquisitions closer than this are one time step for a method."""

YEAR, LIFETIME = np.timedelta64(366, "D"), np.timedelta64(36525, "D")
"""Dates farther than this from a cube's are warned of, and refused."""

MOST = 100_000
"""Dates that a frequency may give."""


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
        None for the acquisition dates, a frequency such as "5D" or a timedelta for a regular axis
        from the first to the last acquisition, or dates. A date on the day of an acquisition is
        that acquisition.

    Raises
    ------
    CubeError
        `times` is neither a frequency nor dates, is empty, or lies a hundred years off.
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
    """The dates that were asked for, which lie not far from those of the cube."""
    if isinstance(times, str | timedelta | np.timedelta64 | pd.offsets.BaseOffset):
        dates = _regular(times, time)
    else:
        # to_numpy keeps the zone of pandas' dates, which `values` drops.
        given = np.atleast_1d(times.to_numpy() if hasattr(times, "to_numpy") else np.asarray(times))
        if given.ndim > 1 or (given.size and given.dtype.kind not in "MOUS"):
            raise CubeError(
                f"times={_short(times)}: expected dates or a frequency, not numbers. Use "
                "times='10D' for every 10 days, or times=['2024-05-01', ...] for dates."
            )
        dates = naive_utc(given, f"times={_short(times)}") if given.size else given[:0]
    if not len(dates) or np.isnat(dates).any():
        raise CubeError(
            f"times={_short(times)}: expected at least one date and no NaT, or a frequency. Use "
            "times='10D' for every 10 days, or times=['2024-05-01', ...] for dates."
        )
    _check_near(dates, time)
    return dates


def _regular(every: Any, time: Times) -> Times:
    start, end = pd.Timestamp(time[0]).normalize(), pd.Timestamp(time[-1])
    wanted = f"times={every!r}: expected a frequency such as '5D' or an array of dates"
    try:
        every = pd.Timedelta(every) if isinstance(every, timedelta | np.timedelta64) else every
        offset = pd.tseries.frequencies.to_offset(every)
        dates = pd.date_range(start, periods=2, freq=offset)
        step = dates[1] - dates[0]
    except (ValueError, TypeError, ArithmeticError) as error:
        fix = "Use times='10D' for every 10 days, or times=['2024-05-01'] for one date."
        raise CubeError(f"{wanted} ({error}). {fix}") from error
    if step <= pd.Timedelta(0) or (end - start) / step > MOST:
        raise CubeError(
            f"{wanted}, at most {MOST} of them. Use times='1D' or longer for the days from "
            f"{start:%Y-%m-%d} to {end:%Y-%m-%d}."
        )
    return pd.date_range(start, end, freq=offset).to_numpy("datetime64[ns]")


def _check_near(dates: Times, time: Times) -> None:
    """Refuses dates a lifetime away from every acquisition; warns of those more than a year off."""
    off = np.maximum(time[0] - dates, dates - time[-1])
    first, last = (str(time[i].astype("datetime64[D]")) for i in (0, -1))
    far = dates[off > LIFETIME]
    if far.size:
        raise CubeError(
            f"times holds {far[0].astype('datetime64[D]')}, the cube {first} to {last}: expected "
            f"dates of these years. Use times=['{first}'], or check the unit of the numbers that "
            "the dates were made from."
        )
    far = dates[off > YEAR]
    if far.size:
        warnings.warn(
            f"{far.size} of {dates.size} dates asked for, such as "
            f"{far[0].astype('datetime64[D]')}, lie more than a year outside of "
            f"{first} to {last}: no observation tells of them.",
            CubefillWarning,
            stacklevel=2,
        )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ------------------------------------------------------------------ dates of other tools


def naive_utc(values: NDArray[Any], name: str = "time") -> Times:
    """Dates as datetime64[ns] of UTC, from texts, Python's, cftime's or datetime64 in any unit.

    Raises
    ------
    CubeError
        A value is no date of the Gregorian calendar between 1678 and 2262, or a text not ISO 8601.
    """
    flat = np.asarray(values)
    if flat.size and isinstance(flat.flat[0], pd.Period):
        raise CubeError(
            f"{name} holds periods such as {flat.flat[0]}: expected dates of acquisition. "
            "Use ds.assign_coords(time=ds.indexes['time'].to_timestamp())."
        )
    try:
        if flat.dtype.kind == "M":
            made = pd.DatetimeIndex(pd.to_datetime(flat.ravel())).as_unit("ns")
        else:
            texts = [_iso(v) for v in flat.ravel()]
            made = pd.to_datetime(texts, format="ISO8601", utc=True).tz_localize(None).as_unit("ns")
    except (ValueError, TypeError, OverflowError) as error:
        why = str(error).splitlines()[0]
        raise CubeError(
            f"{name} holds what is no date from 1678 to 2262 ({why}): expected dates such as "
            "2024-05-01T10:30:00. Use pandas.to_datetime(texts, format='%d/%m/%Y') with your own "
            "format."
        ) from error
    return made.to_numpy("datetime64[ns]").reshape(flat.shape)


def _iso(value: Any) -> Any:
    """A date as pandas reads it: cftime's by its text, if its calendar is the common one."""
    calendar = getattr(value, "calendar", None)
    if isinstance(calendar, str):
        if calendar not in ("standard", "gregorian", "proleptic_gregorian"):
            raise ValueError(f"calendar {calendar!r}; use ds.convert_calendar('standard')")
        return value.isoformat()
    if value is None or isinstance(value, str | bytes | date | np.datetime64):
        return value.decode() if isinstance(value, bytes) else value
    if value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    raise TypeError(f"{type(value).__name__} {value!r}")


def dated(ds: xr.Dataset) -> tuple[xr.Dataset, str]:
    """The dataset with `time` as datetime64 of UTC, and what is to be said of it, or "".

    Numbers and a missing time are left for `check` to refuse.

    Raises
    ------
    CubeError
        The times are no dates, or lie more than a hundred years apart.
    """
    if "time" not in ds.coords or not ds["time"].size or not ds["time"].ndim:
        return ds, ""
    time, said = ds["time"], ""
    levels = ds.indexes.get("time")
    if isinstance(levels, pd.MultiIndex):
        found = [n for n in levels.names if ds[n].dtype.kind == "M"] or list(levels.names)
        raise CubeError(
            f"The time coordinate has several levels ({', '.join(map(str, levels.names))}): "
            f"expected dates. Use ds.drop_vars({['time', *levels.names]!r})"
            f".assign_coords(time=ds[{found[0]!r}].values)."
        )
    dtype: Any = time.dtype  # pandas' own where it has a zone
    if not isinstance(dtype, np.dtype) or dtype.kind in "OUS":
        values = time.to_index().to_numpy(object)
        made = naive_utc(values, "The time coordinate")
        zones = {str(v.utcoffset()) for v in values if getattr(v, "tzinfo", None)}
        ds = ds.assign_coords(time=xr.Variable(time.dims, made, time.attrs))
        if zones - {"0:00:00"}:
            said = (
                "The time coordinate has a zone: made UTC. Use ds = cubefill.cube.settled(ds) to "
                "have the same times on the cube."
            )
        else:
            log.info("time was %s: taken as datetime64 of UTC", dtype)
    _check_span(ds["time"].values)
    return ds, said


def _check_span(time: NDArray[Any]) -> None:
    if time.dtype.kind != "M" or np.isnat(time).all():
        return
    known = np.sort(time[~np.isnat(time)].ravel())
    days = known.astype("M8[D]") - np.datetime64("1970-01-01")
    if days[0] == np.timedelta64(0) and (
        days[-1] > np.timedelta64(3653, "D") or (days.size > 1 and days[-1] == days[0])
    ):
        raise CubeError(
            "The cube has dates of 1970-01-01, as numbers become that are read as nanoseconds: "
            "expected those of acquisitions. Use ds.isel(time=ds.time.dt.year.values > 1970), or "
            "ds.assign_coords(time=dates)."
        )
    if known[-1].astype("M8[Y]") - known[0].astype("M8[Y]") > np.timedelta64(100, "Y"):
        raise CubeError(
            f"The dates of the cube reach from {known[0].astype('M8[D]')} to "
            f"{known[-1].astype('M8[D]')}: expected those of one sensor, at most 100 years apart. "
            "Use ds.isel(time=ds.time.dt.year.values >= 1972)."
        )


def labels(times: NDArray[Any]) -> list[str]:
    """A name for each time, no two alike: its day; with time of day where a day comes twice.

    Times that are equal are numbered from the second on.

    Examples
    --------
    >>> labels(np.array(["2024-05-01", "2024-05-01", "2024-05-06"], "datetime64[ns]"))
    ['2024-05-01T000000000000', '2024-05-01T000000000000_2', '2024-05-06T000000000000']
    """
    stamps = pd.DatetimeIndex(times)
    days = [s.strftime("%Y-%m-%d") for s in stamps]
    if len(set(days)) == len(days):
        return days
    names = [s.strftime("%Y-%m-%dT%H%M%S%f") for s in stamps]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = f"{name}_{seen[name]}" if seen[name] > 1 else name
    return names
