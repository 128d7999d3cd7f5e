"""Which dates of a place make a sample, by a layout or as windows of consecutive dates."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.cube import spectral
from cubefill.errors import MethodError
from cubefill.gaps import impaired
from cubefill.layout import Index, Layout
from cubefill.samples.places import Patch, Site

WINDOW = 256
"""Pixels along y and x that are read at once, as many as a chunk of a store."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bool = NDArray[np.bool_]
Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Rules:
    """Which dates are chosen."""

    layout: Layout | None
    """None for windows of consecutive dates."""
    sar: bool
    """With SAR."""
    dates: int = 0
    """Time steps of a window; 0 asks for those that a method sees."""
    stride: int = 1
    """Time steps from one window to the next; 0 asks for half a window."""
    draws: int = 1
    """Choices for one reference date of a layout."""
    clear_dates: float = 0.0
    """Dates with a smaller share of clear pixels are left out before windows are cut."""
    min_clear: float = 0.0
    """Smallest share of clear observations of all dates of a sample."""
    drop_impaired: bool = False
    """Dates that are `gaps.impaired` at a place are left out before windows are cut."""


@dataclass(frozen=True)
class Candidates:
    """What is known of every date at one place."""

    times: Times
    clear: Floats
    """Share of clear pixels."""
    complete: Bool
    """False where pixels have no data."""
    sar_ids: Ints
    """Positions on the cube's SAR dates that are valid here; with SAR on `time`, those dates."""
    sar_times: Times | None = None
    """Times of `sar_ids`, for cubes whose SAR has its own dates."""
    gap_hours: Floats | None = None
    """Hours to the SAR image of each date, for cubes whose SAR lies on `time`."""
    impaired: Bool | None = None
    """True for dates to leave out; None for none."""

    @property
    def index(self) -> Index:
        """The same, ready to be searched."""
        return Index(self.times, self.clear, self.sar_times, self.complete, self.gap_hours)


@dataclass(frozen=True)
class Picks:
    """Dates that were chosen at one place, one row a sample."""

    optical: Ints
    """`(sample, date)` positions on the cube's time axis, -1 for none."""
    sar: Ints
    """`(sample, date)` positions on the cube's SAR dates, -1 for none."""
    reference: Ints
    """`(sample,)` position of the date that a sample is about."""

    def __len__(self) -> int:
        return len(self.reference)

    def __getitem__(self, rows: Any) -> "Picks":
        return Picks(self.optical[rows], self.sar[rows], self.reference[rows])


# ------------------------------------------------------------------ facts


def windows(places: Sequence[Patch], patch: int) -> Iterator[tuple[int, slice, slice, list[int]]]:
    """Cube, rows, columns and places (their numbers) that are read together."""
    edge = max(1, WINDOW // patch) * patch
    grouped: dict[tuple[int, int, int], list[int]] = {}
    for i, p in enumerate(places):
        grouped.setdefault((p.site, p.row // edge, p.col // edge), []).append(i)
    for (k, _, _), members in grouped.items():
        rows, cols = [places[i].row for i in members], [places[i].col for i in members]
        y, x = slice(min(rows), max(rows) + patch), slice(min(cols), max(cols) + patch)
        yield k, y, x, members


def facts(
    site: Site, rows: slice, cols: slice, patch: int, rules: Rules
) -> dict[tuple[int, int], Candidates]:
    """What is known of each place of a window, by its first row and column."""
    ds = site.ds
    radar = "sar_valid" if "sar_valid" in ds else "VV"
    data = "SCL" if "SCL" in ds else spectral(ds)[0]
    names = ["valid", data, *([radar] if rules.sar else [])]
    judged = ["cloud_probability"] if rules.drop_impaired and "cloud_probability" in ds else []
    names += judged
    part = ds[names].isel(y=rows, x=cols).compute()
    clear = _shares(part["valid"].values, patch)
    seen = part[data].values
    complete = _shares(seen != 0 if data == "SCL" else np.isfinite(seen), patch) == 1
    times = ds["time"].values.astype("datetime64[ns]")
    own = rules.sar and "sar_time" in part[radar].dims
    sar = part[radar].values if rules.sar else np.zeros((0, *clear.shape[1:]), bool)
    usable = _shares(sar if sar.dtype == bool else np.isfinite(sar), patch) == 1
    found = {}
    for i, j in np.ndindex(*clear.shape[1:]):
        ids = np.flatnonzero(usable[:, i, j]) if rules.sar else np.zeros(0, np.int64)
        fact = Candidates(times, clear[:, i, j], complete[:, i, j], ids)
        if own:
            fact = replace(fact, sar_times=ds["sar_time"].values[ids].astype("datetime64[ns]"))
        elif rules.sar:
            gaps = ds["sar_gap_hours"].values if "sar_gap_hours" in ds else np.zeros(len(times))
            fact = replace(fact, gap_hours=np.where(usable[:, i, j], gaps, np.inf))
        if rules.drop_impaired:
            square = (..., slice(i * patch, (i + 1) * patch), slice(j * patch, (j + 1) * patch))
            likely = part[judged[0]].values[square] if judged else None
            fact = replace(fact, impaired=impaired(part["valid"].values[square], likely))
        found[rows.start + i * patch, cols.start + j * patch] = fact
    return found


def _shares(a: Bool, patch: int) -> Floats:
    """Share of True in each square, `(time, row, col)`."""
    t, ny, nx = a.shape
    squares = a.reshape(t, ny // patch, patch, nx // patch, patch)
    return squares.mean(axis=(2, 4), dtype=np.float64)


# ------------------------------------------------------------------ choosing


def pick(found: Candidates, rules: Rules, rng: np.random.Generator, removed: Counter[str]) -> Picks:
    """Every sample of a place; `removed` counts what fails each condition."""
    picks = (
        _by_layout(found, rules, rules.layout, rng, removed)
        if rules.layout
        else _by_windows(found, rules, removed)
    )
    if rules.min_clear and len(picks):
        shown = np.where(picks.optical >= 0, found.clear[picks.optical], np.nan)
        enough = np.nanmean(shown, axis=1) >= rules.min_clear
        removed[f"less than {rules.min_clear:.0%} clear (min_clear)"] += int((~enough).sum())
        picks = picks[enough]
    return picks


def _by_layout(
    found: Candidates, rules: Rules, layout: Layout, rng: np.random.Generator, removed: Counter[str]
) -> Picks:
    index, rows, references = found.index, [], []
    for i in range(len(found.times)):
        chosen: set[tuple[int, ...]] = set()
        try:
            for _ in range(rules.draws):
                way = index.choose(layout, i, rng)
                chosen.add(tuple(way[s.name] for s in layout.slots))
        except MethodError:
            if not chosen:
                removed[_reason(index, layout, i)] += 1
        rows += sorted(chosen)
        references += [i] * len(chosen)
    picked = np.array(rows, np.int64).reshape(-1, len(layout.slots))
    optical, sar = picked.copy(), np.full_like(picked, -1)
    own = found.sar_times is not None
    for n, slot in enumerate(layout.slots):
        if not slot.optical:
            optical[:, n] = -1
            sar[:, n] = found.sar_ids[picked[:, n]] if own else picked[:, n]
        elif slot.sar:
            sar[:, n] = nearest_sar(found)[picked[:, n]]
    return Picks(optical, sar, np.array(references, np.int64))


def _by_windows(found: Candidates, rules: Rules, removed: Counter[str]) -> Picks:
    left = found.clear >= rules.clear_dates
    kept = np.flatnonzero(left if found.impaired is None else left & ~found.impaired)
    starts = np.arange(0, len(kept) - rules.dates + 1, rules.stride)
    if len(starts) == 0:
        what = f"of {rules.clear_dates:.0%} clear pixels " if rules.clear_dates else ""
        what += "that are not impaired " if rules.drop_impaired else ""
        removed[f"places with fewer than {rules.dates} dates {what}(dates)"] += 1
    optical = kept[starts[:, None] + np.arange(rules.dates)].reshape(-1, rules.dates)
    sar = nearest_sar(found)[optical] if rules.sar else np.full_like(optical, -1)
    return Picks(optical, sar, optical[:, rules.dates // 2])


def nearest_sar(found: Candidates) -> Ints:
    """Position of the SAR image of each date on the cube's SAR dates, -1 where there is none."""
    if found.sar_times is None:
        gaps = np.zeros(len(found.times)) if found.gap_hours is None else found.gap_hours
        return np.where(np.isfinite(gaps), np.arange(len(gaps)), -1)
    if len(found.sar_ids) == 0:
        return np.full(len(found.times), -1)
    return found.sar_ids[found.index.nearest_sar[0]]


def without_sar(layout: Layout) -> Layout:
    """The layout without its SAR images.

    Raises
    ------
    MethodError
        A slot has nothing else.
    """
    for s in layout.slots:
        if not s.optical:
            raise MethodError(
                f"Slot {s.name!r} of layout {layout.name!r} is a SAR image alone, and "
                "sar=False leaves it out. Pass sar=True."
            )
    slots = tuple(replace(s, sar=False, max_gap=np.inf) for s in layout.slots)
    return replace(layout, slots=slots)


def _reason(index: Index, layout: Layout, i: int) -> str:
    """The first slot without a candidate, and the condition that removed the last."""
    for slot in layout.slots:
        left: Any = True
        for _, wrong, met in index.conditions(slot, float(index.hours[i])):
            left = left & met
            if not left.any():
                return f"slot {slot.name!r}: {wrong}"
    return "slots that would share an image"


# ------------------------------------------------------------------ thinning


def season(times: Times) -> NDArray[np.int8]:
    """0 for December to February, 1 for March to May, and so on.

    Examples
    --------
    >>> season(np.array(["2023-01-01", "2023-03-01", "2023-11-30"], "M8[ns]")).tolist()
    [0, 1, 3]
    """
    months = times.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return (months % 12 // 3).astype(np.int8)


def ordered(seasons: NDArray[np.int8], even: bool, rng: np.random.Generator) -> Ints:
    """A random order of samples; `even` takes the seasons in turns while they last."""
    order = rng.permutation(len(seasons))
    if not even:
        return order
    rank = np.empty(len(order))
    for s in range(4):
        mine = order[seasons[order] == s]
        rank[mine] = np.arange(len(mine)) + rng.random()
    return order[np.argsort(rank[order], kind="stable")]
