"""Acquisition layouts: which dates, seen by which sensors, make one sample.

A layout names its slots (`tm1`, `t`, `tp1`, `target`) and says of each how far from the reference
it lies, how cloudy it may be, and how far its SAR image may be from its optical one. The same
layout draws training samples (`Index.search`, `choose`) and chooses dates when a method fills
(`choose(..., strict=False)`). Layouts are JSON files of the form that Cresson et al. (2022)
published; theirs ship with cubefill: `load("msop")`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.layout.slots import TARGET, Draw, Layout, Slot

Times = NDArray[np.datetime64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAME_DAY = 12.0
"""Hours by which an acquisition may miss the reference and still be it."""
WORTH = 240.0
"""Hours outside a time frame that weigh as much as a wholly cloudy image."""


@dataclass(frozen=True)
class Index:
    """The acquisitions over one place, ready to be searched.

    Examples
    --------
    >>> from cubefill.layout import load
    >>> days = np.array([0, 5, 14, 19, 28], "m8[D]") + np.datetime64("2023-05-01", "ns")
    >>> index = Index(days, np.array([1.0, 0.2, 0.0, 1.0, 0.9]))
    >>> index.choose(load("msop"), 2)
    {'tm1': 0, 't': 2, 'target': 3, 'tp1': 4}
    """

    times: Times
    """Times of the optical images."""
    clear: Floats
    """Share of clear pixels of each, 0 to 1."""
    sar_times: Times | None = None
    """Times of the SAR images that are valid here; None for one with every optical image."""
    complete: NDArray[np.bool_] | None = None
    """False for optical images that lack pixels here; None for none."""
    gap_hours: Floats | None = None
    """Hours to the SAR image of each, where they are known and `sar_times` are not."""

    def __post_init__(self) -> None:
        n = len(self.times)
        for name in ("clear", "complete", "gap_hours"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != (n,):
                raise MethodError(
                    f"{name}: expected one value for each of {n} times, got {np.shape(values)}."
                )

    @cached_property
    def hours(self) -> Floats:
        """Hours of the optical images after the first."""
        return _hours(self.times, self._zero)

    @cached_property
    def clouds(self) -> Floats:
        """Clouds of the optical images in percent."""
        return 100 * (1 - np.asarray(self.clear, np.float64))

    @cached_property
    def nearest_sar(self) -> tuple[Ints, Floats]:
        """Index of the nearest SAR image of each optical one, and the hours between them.

        Where every optical image has its own, that is itself.
        """
        n = len(self.times)
        if self.sar_times is None:
            gap = np.zeros(n) if self.gap_hours is None else np.abs(self.gap_hours)
            return np.arange(n), np.where(np.isnan(gap), np.inf, gap)
        if len(self.sar_times) == 0:
            return np.full(n, -1), np.full(n, np.inf)
        from scipy.spatial import cKDTree

        gap, found = cKDTree(self._sar_hours[:, None]).query(self.hours[:, None])
        return np.asarray(found, np.int64), np.asarray(gap, np.float64)

    @property
    def _zero(self) -> np.datetime64:
        return self.times[0] if len(self.times) else np.datetime64(0, "ns")

    @cached_property
    def _sar_hours(self) -> Floats:
        return _hours(self.times if self.sar_times is None else self.sar_times, self._zero)

    # -------------------------------------------------------------- searching

    def candidates(
        self, slot: Slot, reference: float, rng: np.random.Generator | None = None
    ) -> Ints:
        """Acquisitions that may take a slot, in time order.

        Indices into `times`, or into `sar_times` for a slot without an optical image;
        `reference` in hours as `hours` are.
        """
        met = [met for *_, met in self.conditions(slot, reference, rng)]
        return np.flatnonzero(np.logical_and.reduce(met))

    def conditions(
        self, slot: Slot, reference: float, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
        """Each condition of a slot, what is wrong where none is left, and which meet it."""
        start, stop = _frame(slot, reference)
        hours = self.hours if slot.optical else self._sar_hours
        image = "date" if slot.optical else "S1 image"
        inside = (hours >= start) & (hours <= stop)
        yield f"the time frame {slot.frame}", f"no {image} at {slot.frame}", inside
        if not slot.optical:
            return
        if self.complete is not None:
            yield "missing pixels", "pixels without data", self.complete
        low, high = _clouds(slot, rng)
        inside = (self.clouds >= low - 1e-6) & (self.clouds <= high + 1e-6)
        yield f"clouds {slot.clouds}", f"clouds not {slot.clouds}", inside
        if slot.sar:
            gap = f"{slot.max_gap:g} h"
            yield (
                f"the S1 gap of {gap}",
                f"S1 not within {gap}",
                self.nearest_sar[1] <= slot.max_gap,
            )

    def search(
        self, layout: Layout, rng: np.random.Generator | None = None, most: int | None = None
    ) -> Iterator[dict[str, int]]:
        """Every way to fill every slot, each acquisition in turn as the reference.

        At most `most` are given for each reference.
        """
        for i in range(len(self.times)):
            reference = float(self.hours[i])
            found = {s.name: self.candidates(s, reference, rng) for s in layout.slots}
            found[layout.origin.name] = found[layout.origin.name][found[layout.origin.name] == i]
            for count, chosen in enumerate(_combinations(layout, found)):
                if count == most:
                    break
                yield chosen

    def choose(
        self,
        layout: Layout,
        reference: int | np.datetime64,
        rng: np.random.Generator | None = None,
        *,
        strict: bool = True,
    ) -> dict[str, int]:
        """One way to fill every slot; see `choose` of this module."""
        if len(self.times) == 0:
            raise MethodError(
                f"Layout {layout.name!r}: expected acquisitions to choose from, got none."
            )
        at = self._at(reference)
        if not strict:
            return self._lenient(layout, at)
        found = {s.name: self.candidates(s, at, rng) for s in layout.slots}
        for slot in layout.slots:
            if len(found[slot.name]) == 0:
                raise MethodError(self._why(layout, slot, at))
            found[slot.name] = self._ordered(slot, found[slot.name], at, rng)
        chosen = next(_combinations(layout, found), None)
        if chosen is None:
            counts = ", ".join(f"{n} {len(c)}" for n, c in found.items())
            raise MethodError(
                f"Layout {layout.name!r}: expected a different image for each slot at "
                f"{self._date(at)}, got only shared ones (candidates: {counts}). Use "
                "options.siblings to name the slots that may share one."
            )
        return chosen

    def _at(self, reference: int | np.datetime64) -> float:
        if isinstance(reference, np.datetime64):
            return float(_hours(np.array([reference]), self._zero)[0])
        return float(self.hours[reference])

    def _date(self, at: float) -> str:
        return str((self._zero + np.timedelta64(round(at * 3600), "s")).astype("M8[D]"))

    def _ordered(self, slot: Slot, found: Ints, at: float, rng: np.random.Generator | None) -> Ints:
        """Candidates in random order, or the best first."""
        if rng is not None:
            return rng.permutation(found)
        if not slot.optical:
            return found[np.argsort(np.abs(self._sar_hours[found] - at), kind="stable")]
        return found[np.argsort(self._cost(slot, at)[found], kind="stable")]

    def _cost(self, slot: Slot, at: float) -> Floats:
        """What each optical image lacks for a slot: time frame first, then clouds, then time."""
        start, stop = _frame(slot, at)
        outside = np.maximum(np.maximum(start - self.hours, self.hours - stop), 0)
        away = np.abs(self.hours - at)
        if slot.origin:
            return away
        return outside / WORTH + self.clouds / 100 + 1e-6 * away

    def _lenient(self, layout: Layout, at: float) -> dict[str, int]:
        """The best acquisition of each slot, those outside its conditions included."""
        chosen: dict[str, int] = {}
        usable = np.ones(len(self.times), bool) if self.complete is None else self.complete
        usable = usable if usable.any() else np.ones(len(self.times), bool)
        sides = {
            s.name: (self.hours - at) * s.side > 0 if s.side else np.ones(len(usable), bool)
            for s in layout.slots
        }
        shown = [s.name for s in layout.slots if not (s.origin and layout.generates)]
        first = sorted(layout.slots, key=lambda s: (not s.origin, not sides[s.name].any()))
        for slot in first:
            if slot.name == TARGET:
                continue
            cost, side = self._cost(slot, at), sides[slot.name]
            taken = [
                i for n, i in chosen.items()
                if n in shown and not layout.may_share(n, slot.name)
            ]  # fmt: skip
            free = np.isin(np.arange(len(cost)), taken, invert=True)
            tiers = (usable & free & side, usable & side, usable & free, usable)
            allowed = next(a for a in tiers if a.any())
            cost = np.abs(self.hours - at) if allowed is usable else cost
            chosen[slot.name] = int(np.argmin(np.where(allowed, cost, np.inf)))
        return {s.name: chosen[s.name] for s in layout.slots if s.name in chosen}

    def _why(self, layout: Layout, slot: Slot, at: float) -> str:
        """Which condition removed how many acquisitions."""
        left: Any = True
        removed = []
        for what, _, met in self.conditions(slot, at):
            removed.append(f"{what} {int((left & ~met).sum())}")
            left = left & met
        return (
            f"Layout {layout.name!r} finds nothing for slot {slot.name!r} at {self._date(at)}. Of "
            f"{len(met)} acquisitions {', '.join(removed)} were removed. Widen that condition "
            "in the layout, or give a longer cube."
        )


def choose(
    layout: Layout,
    times: Times,
    clear_fraction: Any,
    sar_times: Times | None = None,
    target: int | np.datetime64 = 0,
    rng: np.random.Generator | None = None,
    *,
    strict: bool = True,
) -> dict[str, int]:
    """Slot to index of its acquisition, for one reference date.

    Parameters
    ----------
    layout
        What each slot must be.
    times, clear_fraction
        Optical images over the place and their shares of clear pixels, 0 to 1.
    sar_times
        SAR images that are valid there; None for one with every optical image.
    target
        The reference: an index into `times`, or a date.
    rng
        Draws one of the ways at random; without it the clearest image of each time frame is
        taken, the nearest of equally clear ones.
    strict
        False, for filling, takes the next best image where none meets the conditions: on the
        slot's side of the reference where there is one, there one that no other slot is shown
        before one that is. The target is then left out.

    Raises
    ------
    MethodError
        A slot has no candidate; the message says which condition removed how many.
    """
    index = Index(times, np.asarray(clear_fraction, np.float64), sar_times)
    return index.choose(layout, target, rng, strict=strict)


def clearest(
    times: Times, clear_fraction: Any, target: np.datetime64, count: int = 6, days: float = 22.0
) -> Ints:
    """The `count` clearest acquisitions within `days` of a date, in time order.

    The clearest stands in for those that are missing; without any in reach the nearest does.
    This is how Cresson et al. (2022) choose dates for a monthly synthesis around the 15th.

    Examples
    --------
    >>> days = np.array([0, 10, 20, 90], "m8[D]") + np.datetime64("2023-05-01", "ns")
    >>> clearest(days, [0.1, 0.9, 0.5, 1.0], days[1], count=4)
    array([0, 1, 1, 2])
    """
    clear = np.asarray(clear_fraction, np.float64)
    away = np.abs(_hours(times, target))
    near = np.flatnonzero(away <= 24 * days)
    near = near if len(near) else np.array([np.argmin(away)])
    best = near[np.lexsort((away[near], -clear[near]))][:count]
    return np.sort(np.concatenate([best, np.repeat(best[:1], count - len(best))]))


def _combinations(
    layout: Layout, found: Mapping[str, Ints], chosen: dict[str, int] | None = None
) -> Iterator[dict[str, int]]:
    """Every choice of one candidate a slot, no image twice but among siblings."""
    chosen = chosen or {}
    left = [s for s in layout.slots if s.name not in chosen]
    if not left:
        yield {s.name: chosen[s.name] for s in layout.slots}
        return
    slot = min(left, key=lambda s: len(found[s.name]))
    for i in found[slot.name]:
        clash = any(
            j == i and layout[n].optical == slot.optical and not layout.may_share(n, slot.name)
            for n, j in chosen.items()
        )
        if not clash:
            yield from _combinations(layout, found, {**chosen, slot.name: int(i)})


def _frame(slot: Slot, reference: float) -> tuple[float, float]:
    if slot.origin:
        return reference - SAME_DAY, reference + SAME_DAY
    return reference + slot.start, reference + slot.stop


def _clouds(slot: Slot, rng: np.random.Generator | None) -> tuple[float, float]:
    low, high = (
        b.value(rng) if isinstance(b, Draw) else b for b in (slot.min_cloud, slot.max_cloud)
    )
    return (low, high) if low <= high else (high, high)


def _hours(times: Times, zero: np.datetime64) -> Floats:
    ns = times.astype("M8[ns]") - zero.astype("M8[ns]")
    return ns.astype(np.int64) / 3.6e12
