"""Mowing events of grassland: what is kept of a net's probabilities, and how right that is.

The rules of Tsardanidis et al. (2024), arXiv 2403.09554: an event lasts a step of 6 days, events
less than 18 days after another are dropped, a parcel has an event where half of its pixels agree
within a month, and a found event is a hit less than 12 days off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.axes import day_of_year
from cubefill.engine import gapfill
from cubefill.errors import CubefillError

QUIET = 0.2
"""Weight of a step without an event while training."""


@dataclass(frozen=True, order=True)
class Event:
    """One mowing, some time from `date` to `days` later."""

    date: np.datetime64
    """First day."""
    days: int = 6
    """Length of the step that it fell into."""
    probability: float = 1.0
    """What the net gave, or the share of pixels that agree."""

    @property
    def end(self) -> np.datetime64:
        """Last day."""
        return self.date + np.timedelta64(self.days, "D")


def detect(
    probability: NDArray[Any],
    dates: NDArray[np.datetime64],
    *,
    threshold: float = 0.5,
    apart: int = 18,
    days: int = 6,
) -> list[Event]:
    """Events of one series: steps above the threshold, none less than `apart` days after another.

    Parameters
    ----------
    probability
        `(step,)`; NaN is no event.
    dates
        First day of each step, increasing.
    threshold
        Least probability of an event, itself not enough.
    apart
        Days after a kept event within which others are dropped.
    days
        Length of a step.

    Examples
    --------
    >>> days = np.datetime64("2020-05-01") + 6 * np.arange(5)
    >>> [str(e.date) for e in detect(np.array([0.9, 0.8, 0.1, 0.7, 0.2]), days)]
    ['2020-05-01', '2020-05-19']
    """
    kept: list[Event] = []
    for p, day in zip(probability, dates.astype("datetime64[D]"), strict=True):
        if p > threshold and (not kept or _days(day, kept[-1].date) >= apart):
            kept.append(Event(day, days, float(p)))
    return kept


def vote(
    pixels: Sequence[Sequence[Event]], *, share: float = 0.5, within: int = 30, apart: int = 18
) -> list[Event]:
    """Events of a parcel: those of its pixels that enough of them agree on.

    The day that most pixels have an event near is taken first, at the median of those events; each
    pixel counts once for an event, and each of its events for one event only.

    Parameters
    ----------
    pixels
        Events of each pixel.
    share
        Least share of the pixels that have an event near.
    within
        Days that "near" spans in all.
    apart
        Least days between two events of the parcel.
    """
    left = [list(events) for events in pixels]
    found: list[Event] = []
    while True:
        best = _agreed(left, within)
        if not best or len(best) < share * len(pixels):
            return sorted(found)
        dates = np.array([e.date for e in best.values()], "datetime64[D]")
        middle = np.sort(dates)[(len(dates) - 1) // 2]
        if all(abs(_days(middle, e.date)) >= apart for e in found):
            found.append(Event(middle, next(iter(best.values())).days, len(best) / len(pixels)))
        for pixel, event in best.items():
            left[pixel].remove(event)


def _agreed(pixels: Sequence[Sequence[Event]], within: int) -> dict[int, Event]:
    """First event of each pixel in the span of `within` days that most pixels have one in."""
    best: dict[int, Event] = {}
    for start in sorted({e.date for events in pixels for e in events}):
        near: dict[int, Event] = {}
        for i, events in enumerate(pixels):
            there = [e for e in events if 0 <= _days(e.date, start) <= within]
            if there:
                near[i] = min(there)
        if len(near) > len(best):
            best = near
    return best


def mowing_probability(
    ds: xr.Dataset, checkpoint: str | Path, *, times: Any = None, **options: Any
) -> xr.DataArray:
    """Probability `(time, y, x)` that grass was mown in each step, 0-1, lazy; NaN without input.

    Parameters
    ----------
    ds
        A cube with `NDVI` without gaps, `VV`, `VH` and `sar_valid`, and the coherence of Sentinel-1
        or `assumed_coherence=0.3`.
    checkpoint
        Folder of a trained net, as `cubefill train mowing` or `cubefill convert mowing` makes it.
    times
        Dates of the result; None for those of the cube, "6D" for the steps of the net.
    **options
        As for `gapfill`, and of the method `mowing`.

    Raises
    ------
    MethodError, CubeError, StoreError
        As `gapfill`.
    """
    return gapfill(ds, "mowing", checkpoint=checkpoint, times=times, **options)["mowing"]


def mowing_events(
    probability: xr.DataArray,
    parcels: xr.DataArray | None = None,
    *,
    share: float = 0.5,
    threshold: float = 0.5,
    apart: int = 18,
    days: int = 6,
) -> dict[Any, list[Event]]:
    """Mowing events of what the net `mowing` gives: of each pixel by row and column, or parcel.

    Parameters
    ----------
    probability
        `(time, y, x)`, what `mowing_probability` gives.
    parcels
        `(y, x)` number of the parcel of each pixel, 0 and NaN for none. Without it pixels stand
        alone, and those without an event are left out.
    share
        Least share of the pixels of a parcel that must agree within a month, see `vote`.
    threshold, apart, days
        As in `detect`.

    Raises
    ------
    CubefillError
        `parcels` lies on another grid.

    Examples
    --------
    >>> time = np.datetime64("2020-05-01") + 6 * np.arange(5)
    >>> likely = xr.DataArray(np.zeros((5, 2, 2)), coords={"time": time}, dims=("time", "y", "x"))
    >>> likely[3, :, 0] = 0.9
    >>> [str(e.date) for e in mowing_events(likely)[1, 0]]
    ['2020-05-19']
    >>> sorted(mowing_events(likely, xr.DataArray([[7, 7], [7, 8]], dims=("y", "x"))))
    [7, 8]
    """
    series = probability.transpose("time", "y", "x")
    dates = series["time"].values.astype("datetime64[D]")
    values = series.values
    found: dict[tuple[int, int], list[Event]] = {
        (int(y), int(x)): detect(
            values[:, y, x], dates, threshold=threshold, apart=apart, days=days
        )
        for y, x in np.argwhere((values > threshold).any(axis=0))
    }
    if parcels is None:
        return dict(found)
    numbers = np.nan_to_num(parcels.transpose("y", "x").values)
    if numbers.shape != values.shape[1:]:
        raise CubefillError(
            f"parcels: expected numbers (y, x) of shape {values.shape[1:]}, got {numbers.shape}. "
            "Use parcels.reindex_like(probability.isel(time=0), method='nearest')."
        )
    pixels = {int(n): np.argwhere(numbers == n) for n in np.unique(numbers[numbers != 0])}
    return {
        n: vote([found.get((int(y), int(x)), []) for y, x in at], share=share, apart=apart)
        for n, at in pixels.items()
    }


def labels(
    events: Sequence[Event], dates: NDArray[np.datetime64], *, days: int = 6
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`target` and `where`, both `(step, 1)`: 1 in the steps that an event began in, 0.2 elsewhere.

    A step without an event has target 0 and weighs 0.2, one with an event weighs 1.
    """
    first = dates.astype("datetime64[D]")
    target = np.zeros((len(first), 1), np.float32)
    for event in events:
        into = np.array([_days(event.date, d) for d in first])
        target[(into >= 0) & (into < days)] = 1
    return target, np.where(target > 0, 1, QUIET).astype(np.float32)


def _days(a: np.datetime64, b: np.datetime64) -> int:
    return int((a - b) / np.timedelta64(1, "D"))


# ------------------------------------------------------------------ scores


@dataclass(frozen=True)
class EventScore:
    """How right events are; a hit is a found event near enough to a true one."""

    true: int
    """True events."""
    found: int
    """Found events."""
    hits: int
    recall: float
    """Share of the true events that were found; NaN without any."""
    precision: float
    """Share of the found events that are true; NaN without any."""
    f1: float
    mean_error: float
    """Mean of found minus true date of the hits in days."""
    mae: float
    """Mean absolute difference of the dates of the hits in days."""
    pearson: float
    """Correlation of the days of the year of the hits, which the authors call R2."""


Series = Mapping[Any, Sequence[Event]] | Sequence[Sequence[Event]]


def score(found: Series, true: Series, *, tolerance: float = 12) -> EventScore:
    """Scores of events, series by series; a hit is less than `tolerance` days off.

    Each event is matched once, the nearest pairs first.

    Raises
    ------
    CubefillError
        The two do not hold the same series.

    Examples
    --------
    >>> truth = [[Event(np.datetime64("2020-05-10"))]]
    >>> score([[Event(np.datetime64("2020-05-13"))]], truth).mean_error
    3.0
    """
    pairs: list[tuple[Event, Event]] = []
    n_found = n_true = 0
    for f, t in _together(found, true):
        pairs += _matched(f, t, tolerance)
        n_found, n_true = n_found + len(f), n_true + len(t)
    errors = np.array([_days(f.date, t.date) for f, t in pairs], np.float64)
    recall = len(pairs) / n_true if n_true else float("nan")
    precision = len(pairs) / n_found if n_found else float("nan")
    return EventScore(
        true=n_true,
        found=n_found,
        hits=len(pairs),
        recall=recall,
        precision=precision,
        f1=2 * len(pairs) / (n_true + n_found) if n_true + n_found else float("nan"),
        mean_error=float(errors.mean()) if len(errors) else float("nan"),
        mae=float(np.abs(errors).mean()) if len(errors) else float("nan"),
        pearson=_correlation(pairs),
    )


def tolerance_curve(
    found: Series, true: Series, tolerances: Iterable[float] = (0, 3, 6, 9, 12, 15, 18)
) -> dict[float, float]:
    """Tolerance in days to the recall with it."""
    return {t: score(found, true, tolerance=t).recall for t in tolerances}


def recall_by_month(found: Series, true: Series, *, tolerance: float = 12) -> dict[int, float]:
    """Month of the true event to the share of its events that were found."""
    hits: dict[int, int] = {}
    total: dict[int, int] = {}
    for f, t in _together(found, true):
        for event in t:
            total[_month(event)] = total.get(_month(event), 0) + 1
        for _, event in _matched(f, t, tolerance):
            hits[_month(event)] = hits.get(_month(event), 0) + 1
    return {m: hits.get(m, 0) / n for m, n in sorted(total.items())}


def _together(found: Series, true: Series) -> list[tuple[Sequence[Event], Sequence[Event]]]:
    """Found and true events of each series; a mapping may leave out series without any."""
    if isinstance(found, Mapping) and isinstance(true, Mapping):
        names = [*true, *(n for n in found if n not in true)]
        return [(found.get(n, ()), true.get(n, ())) for n in names]
    if isinstance(found, Mapping) or isinstance(true, Mapping) or len(found) != len(true):
        raise CubefillError(
            f"Found events of {len(found)} series and true events of {len(true)}: expected two "
            "lists of one length, or two mappings by series."
        )
    return list(zip(found, true, strict=True))


def _matched(
    found: Sequence[Event], true: Sequence[Event], tolerance: float
) -> list[tuple[Event, Event]]:
    """Pairs of a found and a true event, the nearest first, each event once."""
    near = sorted(
        (abs(_days(f.date, t.date)), i, j)
        for i, f in enumerate(found)
        for j, t in enumerate(true)
        if abs(_days(f.date, t.date)) < tolerance
    )
    used_found: set[int] = set()
    used_true: set[int] = set()
    pairs = []
    for _, i, j in near:
        if i not in used_found and j not in used_true:
            used_found.add(i)
            used_true.add(j)
            pairs.append((found[i], true[j]))
    return pairs


def _month(event: Event) -> int:
    return int(event.date.astype("datetime64[M]").astype(int)) % 12 + 1


def _correlation(pairs: Sequence[tuple[Event, Event]]) -> float:
    days: Any = day_of_year(np.array([[f.date, t.date] for f, t in pairs], "M8[D]").reshape(-1, 2))
    if len(days) < 2 or (days.std(axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(days.T)[0, 1])
