"""What is hidden from a real place, and where a fill is scored: partly cloudy dates, gaps, the end.

Clear dates have more than 98 % of the pixels that are ever clear, and a date with more than 50 %
before and after them.

    partly      every second clear date takes the clouds of a random date of the series that is
                10 to 90 % clear, of other places where it has fewer than three such dates
    omission    the same, and a quarter of the cloudy dates missing from the mask
    gap30/60    30 and 60 days around the clear dates at .3, .5 and .7 of their list are hidden
    last20      the last 20 days are hidden

Hidden pixels hold NaN. A fill is scored where the pixel has another clear observation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.places import Place
from cubefill.cube import spectral

Bool = NDArray[np.bool_]
SCENARIOS = ("partly", "omission", "gap30", "gap60", "last20")
FEWEST = 500
"""Values to score, below which a scenario of a place is left out."""


@dataclass(frozen=True)
class Hidden:
    """A place with a part of its observations hidden."""

    scenario: str
    cube: xr.Dataset
    """What a method is given."""
    scored: Bool
    """`(time, y, x)`: hidden, and the pixel was seen clear on another date."""


@dataclass(frozen=True)
class _Dates:
    clear: Bool
    ever: Bool
    share: NDArray[np.float64]
    days: NDArray[np.float64]
    cloudless: NDArray[np.intp]


def _dates(cube: xr.Dataset) -> _Dates:
    clear = cube["valid"].values
    ever = clear.any(0)
    share = clear[:, ever].mean(1)
    days = (cube["time"].values - cube["time"].values[0]) / np.timedelta64(1, "D")
    good = np.flatnonzero(share > 0.5)
    found = np.flatnonzero(share > 0.98)
    inside = (found > good.min()) & (found < good.max()) if len(good) else found < 0
    return _Dates(clear, ever, share, days, found[inside])


def fitted(mask: Bool, shape: tuple[int, int], rng: np.random.Generator) -> Bool:
    """A random window of a mask, mirrored where it is smaller than `shape`."""
    times = [-(-s // m) for s, m in zip(shape, mask.shape, strict=True)]
    pad = [(0, m * (t - 1)) for m, t in zip(mask.shape, times, strict=True)]
    wide = np.pad(mask, pad, mode="symmetric")
    y, x = (int(rng.integers(0, m - s + 1)) for m, s in zip(wide.shape, shape, strict=True))
    return wide[y : y + shape[0], x : x + shape[1]]


def _partly(dates: _Dates, lent: Sequence[Bool], rng: np.random.Generator) -> Bool | None:
    own = (dates.share > 0.1) & (dates.share < 0.9)
    masks = [dates.clear[t] | ~dates.ever for t in np.flatnonzero(own)]
    if len(masks) < 3:
        masks += [fitted(m, dates.ever.shape, rng) for m in lent]
    if len(dates.cloudless) < 2 or not masks:
        return None
    seen = dates.clear.copy()
    for t in dates.cloudless[::2]:
        seen[t] &= masks[rng.integers(len(masks))]
    return seen


def _window(dates: _Dates, length: int) -> Bool | None:
    if len(dates.cloudless) < 3:
        return None
    seen = dates.clear.copy()
    for f in (0.3, 0.5, 0.7):
        centre = dates.days[dates.cloudless[int(f * (len(dates.cloudless) - 1))]]
        seen[np.abs(dates.days - centre) <= length / 2] = False
    return seen


def _end(dates: _Dates, length: int = 20) -> Bool | None:
    if dates.days[-1] <= 60:
        return None
    return dates.clear & (dates.days <= dates.days[-1] - length)[:, None, None]


def _unmasked(place: Place, dates: _Dates, seen: Bool, rng: np.random.Generator) -> Bool | None:
    """What the mask calls clear where it misses a quarter of the cloudy dates."""
    cloudy = np.flatnonzero(dates.share < 0.9)
    if not place.under_clouds or len(cloudy) < 4:
        return None
    known = np.all([np.isfinite(place.cube[b].values) for b in spectral(place.cube)], axis=0)
    shown = seen.copy()
    for t in rng.choice(cloudy, round(len(cloudy) / 4), replace=False):
        shown[t] = known[t]
    return shown


def scenarios(
    place: Place, lent: Sequence[Bool], seed: int = 0, which: Sequence[str] = SCENARIOS
) -> Iterator[Hidden]:
    """Every scenario that a place has the dates for, one after the other."""
    dates, rng = _dates(place.cube), np.random.default_rng(seed)
    partly = _partly(dates, lent, rng)
    known = {"partly": partly, "gap30": _window(dates, 30), "gap60": _window(dates, 60)}
    known |= {"omission": partly, "last20": _end(dates)}
    for name in SCENARIOS:
        seen = known[name]
        if name not in which or seen is None:
            continue
        shown = _unmasked(place, dates, seen, rng) if name == "omission" else seen
        hidden = dates.clear & ~seen
        scored = hidden & seen.any(0)
        if shown is None or scored.sum() * len(spectral(place.cube)) < FEWEST:
            continue
        cube = place.cube.where(xr.DataArray(~hidden, dims=("time", "y", "x")))
        yield Hidden(name, cube.assign(valid=(("time", "y", "x"), shown & ~hidden)), scored)
