"""What the methods without learning share: options, axes, flags, limits and expected errors."""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import combinations
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cubefill.cube.indices import normalized_difference, normalized_difference_std
from cubefill.errors import MethodError
from cubefill.methods.contract import (
    Block,
    Bool,
    Codes,
    Counts,
    Filled,
    Flag,
    Float,
    Needs,
    check_options,
)
from cubefill.methods.pixel.flags import flags

DAY = 86_400
EPOCH = np.datetime64("2020-01-01", "ns")
NEVER = -1
ALWAYS = 2**31 - 1
WIDTH = 1024
"""Pixels of a tile; any width gives the same answer."""

EDGES = (6.0, 11.0, 16.0, 21.0, 31.0, 46.0, 61.0, 91.0, 121.0)
"""Days between the bins of the expected error."""
SCALES = (0.2, 2.0)
"""Limits of how much the error of an index may differ from what the errors of its bands say."""
ENOUGH = 20
"""Held-out observations that a bin of the expected error needs to stand by itself."""


@dataclass(frozen=True)
class Axes:
    """The dates given and asked for, as kernels want them: in whole seconds.

    Differences of seconds are exact, so that what follows from them does not depend on the date
    that they are counted from.
    """

    s: NDArray[np.int32]
    """Seconds of the dates given, since the first."""
    so: NDArray[np.int32]
    """Seconds of the dates asked for."""
    lo: NDArray[np.int64]
    """Last date given that is not after each date asked for, or -1."""
    same: bool
    """True when both are the same dates."""
    start: int
    """Seconds of the first date given since `EPOCH`."""

    @classmethod
    def of(cls, block: Block) -> "Axes":
        """The axes of a block."""
        given, asked = _seconds(block.time), _seconds(block.out_time)
        s, so = ((a - given[0]).astype(np.int32) for a in (given, asked))
        lo = np.searchsorted(s, so, side="right") - 1
        return cls(s, so, lo, block.same_axis, int(given[0]))

    @property
    def days(self) -> NDArray[np.float64]:
        """Real days of the dates given, since the first."""
        return self.s / DAY

    @property
    def out_days(self) -> NDArray[np.float64]:
        """Real days of the dates asked for."""
        return self.so / DAY


def _seconds(time: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Whole seconds since `EPOCH`, each date rounded by itself."""
    half = np.timedelta64(500, "ms")
    return ((time - EPOCH + half) // np.timedelta64(1, "s")).astype(np.int64)


@dataclass(frozen=True)
class Errors:
    """Root mean square error of held-out observations, by the days that they were away."""

    between: tuple[tuple[str, tuple[float, ...]], ...]
    """Band and its error for gaps between two observations, one for each bin of `EDGES`."""
    beyond: tuple[tuple[str, tuple[float, ...]], ...]
    """The same before the first and after the last observation."""
    together: tuple[tuple[str, str, float, float], ...] = ()
    """Two bands, the correlation of their errors, and the error of their normalised difference as
    a multiple of what follows from it."""

    def table(self, band: str) -> NDArray[np.float64]:
        """Both rows of a band, NaN where no observation could be held out."""
        unknown = (np.nan,) * (len(EDGES) + 1)
        return np.array([dict(e)[band] or unknown for e in (self.between, self.beyond)])


@dataclass(frozen=True)
class Classic:
    """A method that works pixel by pixel and band by band, on real days."""

    max_gap: float | str | timedelta | np.timedelta64 | None = None
    """Longest gap between two clear observations that is filled, in whole days: a number, "30D" or
    a Timedelta; None for any."""
    max_extrapolate: float | str | timedelta | np.timedelta64 | None = None
    """Whole days filled before the first and after the last clear observation; None for any."""
    smooth: bool = False
    """True gives the fitted curve itself, as `<band>_smooth`."""
    errors: Errors | None = field(default=None, init=False, repr=False)
    """Expected errors, once `prepare` has seen a sample."""

    needs: ClassVar[Needs] = Needs()
    flag: ClassVar[Flag] = Flag.INTERPOLATED
    beyond: ClassVar[Flag] = Flag.EXTRAPOLATED
    keeps_clear: ClassVar[bool] = True
    counts: ClassVar[bool] = True
    gives_std: ClassVar[bool] = True
    fits: ClassVar[bool] = False
    """True when there is a curve that `smooth` can give."""
    holds: ClassVar[tuple[bool, bool]] = (True, True)
    """Whether it fills before the first and after the last clear observation."""

    def __post_init__(self) -> None:
        for name in ("max_gap", "max_extrapolate"):
            object.__setattr__(self, name, _days(self, name))
        check_options(self)
        if self.smooth and not self.fits:
            raise MethodError(
                f"{type(self).__name__} passes through the observations: expected smooth=False, "
                "got True. Use savgol, whittaker, harmonic or climatology for a fitted curve."
            )

    @property
    def suffix(self) -> str:
        """`_smooth` for a product that alters observations."""
        return "_smooth" if self.smooth else ""

    @property
    def complete(self) -> bool:
        """True when every gap of a pixel with a clear observation is filled."""
        return self.max_gap is None and self.max_extrapolate is None and all(self.holds)

    @property
    def wants_sample(self) -> bool:
        """True when `prepare` must see a sample even where no `<band>_std` is asked for."""
        return False

    def prepare(self, sample: Block) -> Self:
        """The same method with what it learned from a sample of the cube."""
        if not sample.std:
            return self
        learned = copy.copy(self)
        object.__setattr__(learned, "errors", _held_out(self, sample))
        return learned

    def recorded(self) -> dict[str, Any]:
        """What was learned, as plain values for attributes."""
        if self.errors is None:
            return {}
        return {
            "std_edges_days": list(EDGES),
            "std_between": {b: list(e) for b, e in self.errors.between},
            "std_beyond": {b: list(e) for b, e in self.errors.beyond},
            "std_together": {f"{a} {b}": list(r) for a, b, *r in self.errors.together},
        }

    def errors_together(self, output: str) -> dict[str, tuple[float, float]]:
        """How the filling error of an output goes with that of each other one.

        That is the correlation, and the error of the normalised difference of both as a multiple
        of what follows from it to first order.
        """
        pairs = self.errors.together if self.errors else ()
        both = [*pairs, *((b, a, r, scale) for a, b, r, scale in pairs)]
        band = output.removesuffix(self.suffix) if self.suffix else output
        return {b + self.suffix: (r, scale) for a, b, r, scale in both if a == band}

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given."""
        for block in blocks:
            yield self._fill(block)

    def curve(self, band: NDArray[Any], valid: Bool, axes: Axes, out: NDArray[Any]) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        raise NotImplementedError

    def curves(
        self,
        bands: Sequence[NDArray[Any]],
        valid: Bool,
        axes: Axes,
        outs: Sequence[NDArray[Any]],
    ) -> tuple[Codes, list[int]]:
        """The flags of a block, and `curve` of all its bands."""
        pairs = zip(bands, outs, strict=True)
        return self.flags(valid, axes), [self.curve(b, valid, axes, o) for b, o in pairs]

    def _fill(self, block: Block) -> Filled:
        self._check(block)
        axes = Axes.of(block)
        given = list(block.bands.values())
        outs = [block.empty(n + self.suffix, b.dtype) for n, b in block.bands.items()]
        flag, lost = self.curves(given, block.valid, axes, outs)
        bands: dict[str, NDArray[Any]] = {}
        std: dict[str, Float] = {}
        codes = []
        few = self.few(block.valid)
        for (name, band), out, holes in zip(block.bands.items(), outs, lost, strict=True):
            valid, own, short = block.valid, flag, few
            if holes:
                valid = valid & ~_absent(band)
                own, short = self.flags(valid, axes), self.few(valid)
            if short is not None:
                self.replace_few(band, valid, axes, short, out)
                own[:, short] = _told_few(own[:, short])
            codes.append(own)
            if not self.complete:
                out[own == Flag.UNFILLABLE] = Counts().nodata if block.counts else np.nan
            bands[name + self.suffix] = out
            if block.std and self.errors is not None:
                std[name + self.suffix] = _spread(self.errors, name, valid, axes, own)
        return Filled(bands, worst(codes), std)

    def few(self, valid: Bool) -> Bool | None:
        """Pixels `(y, x)` with too few observations for the curve; None where there are none."""
        return None

    def replace_few(self, band: Any, valid: Bool, axes: Axes, few: Bool, out: Any) -> None:
        """Writes what such pixels get instead of the curve to `out`."""

    def _check(self, block: Block) -> None:
        if block.std and self.errors is None:
            raise MethodError(
                f"{type(self).__name__} was asked for <band>_std before it saw the cube: expected "
                "a prepared method. Use method = method.prepare(sample)."
            )
        if block.counts not in (None, Counts()):
            raise MethodError(
                f"{type(self).__name__} was given counts as {block.counts}: expected {Counts()}. "
                "Pass counts=None and give reflectance."
            )

    def flags(self, valid: Bool, axes: Axes) -> Codes:
        """Codes of every pixel and date, from when the pixel was clear."""
        out = np.empty((len(axes.so), *valid.shape[1:]), np.uint8)
        codes = (Flag.OBSERVED, self.flag, self.beyond)
        if self.smooth:
            codes = (Flag.SMOOTHED, Flag.SMOOTHED, Flag.SMOOTHED)
        gap, far = (_limit(d) for d in (self.max_gap, self.max_extrapolate))
        limits = np.array([gap, *(far if holds else NEVER for holds in self.holds)], np.int32)
        of = np.array(codes, np.uint8)
        no_edges, no_table = np.empty(0, np.int32), np.empty((2, 0))
        none = np.empty((0, *out.shape[1:]), np.float32)
        told = (limits, of, no_edges, no_table, WIDTH, out, none)
        flags(_FLOAT, valid, axes.s, axes.so, axes.lo, *told)
        return out

    def keeps(self, axes: Axes) -> bool:
        """True where clear observations are dates to give, and stay."""
        return axes.same and not self.smooth


_FLOAT = np.dtype(np.float32)


def _days(method: Any, name: str) -> float | None:
    """An option that is a number of days, "30D" or a Timedelta, as days; None for no limit."""
    value = days = getattr(method, name)
    try:
        if isinstance(value, str) and not _UNIT.search(value):
            raise ValueError("it has no unit")
        if isinstance(value, str | timedelta | np.timedelta64):
            days = pd.Timedelta(value) / pd.Timedelta(days=1)
        if value is None or (not isinstance(days, bool) and days == np.inf):
            return None
        if isinstance(days, bool) or not days >= 0:
            raise ValueError("it is no number of days from 0 on")
        return days
    except (ValueError, TypeError, OverflowError) as error:
        raise MethodError(
            f"{type(method).__name__}({name}={value!r}): expected days >= 0, such as 60, '60D' or "
            f"a Timedelta, or None ({error}). Pass {name}=60 for two months."
        ) from None


_UNIT = re.compile("[a-zA-Z]")


def _limit(days: Any) -> int:
    """Seconds up to which two dates are no more than so many whole days apart."""
    return ALWAYS if days is None else int(min(ALWAYS, (days // 1 + 0.5) * DAY))


def _told_few(codes: Codes) -> Codes:
    """The codes of pixels whose gaps were filled in another way, for lack of observations."""
    told = np.isin(codes, (Flag.OBSERVED, Flag.UNFILLABLE))
    return np.where(told, codes, np.uint8(Flag.FEW_OBSERVATIONS))


def worst(codes: Sequence[Codes]) -> Codes:
    """One code for all bands: that of the band least well known, `INCOMPLETE` where one is NaN."""
    first = codes[0]
    if all(c is first for c in codes):
        return first
    empty = [c == Flag.UNFILLABLE for c in codes]
    known = [np.where(e, np.uint8(0), c) for c, e in zip(codes, empty, strict=True)]
    out: Codes = np.maximum.reduce(known)
    out[np.logical_or.reduce(empty)] = Flag.INCOMPLETE
    out[np.logical_and.reduce(empty)] = Flag.UNFILLABLE
    return out


def _absent(band: NDArray[Any]) -> Bool:
    if band.dtype.kind == "f":
        return np.isnan(band)
    absent: Bool = band == Counts().nodata
    return absent


def _spread(errors: Errors, name: str, valid: Bool, axes: Axes, flag: Codes) -> Float:
    out = np.empty(flag.shape, np.float32)
    edges = np.array([e * DAY for e in EDGES], np.int32)
    no_limits, no_codes = np.empty(0, np.int32), np.empty(0, np.uint8)
    none = np.empty((0, *out.shape[1:]), np.uint8)
    told = (no_limits, no_codes, edges, errors.table(name), WIDTH, none, out)
    flags(_FLOAT, valid, axes.s, axes.so, axes.lo, *told)
    out[flag == Flag.UNFILLABLE] = np.nan
    return out


# ------------------------------------------------------------------ expected errors


def _held_out(method: Classic, sample: Block) -> Errors:
    """Errors of every observation of the sample, told by the others of its pixel."""
    axes = Axes.of(replace(sample, out_time=sample.time))
    free = copy.copy(method)
    for name in ("max_gap", "max_extrapolate"):
        object.__setattr__(free, name, None)
    names = list(sample.bands)
    found = [_told(free, b, sample.valid, axes) for b in sample.bands.values()]
    between, beyond = (
        tuple((n, _pooled(f.square[k], f.known[k])) for n, f in zip(names, found, strict=True))
        for k in (0, 1)
    )
    errors = Errors(between, beyond)
    spread = [
        np.append(errors.table(n).ravel(), np.nan)[f.bin] for n, f in zip(names, found, strict=True)
    ]
    pairs = combinations(range(len(names)), 2)
    together = (_together(found[i], found[k], spread[i], spread[k]) for i, k in pairs)
    named = zip(combinations(names, 2), together, strict=True)
    return replace(errors, together=tuple((*n, *t) for n, t in named if t is not None))


class _Told(NamedTuple):
    """What a method told of the observations of a band, each held out in turn."""

    square: NDArray[np.float64]
    """Squared errors `(between or beyond, bin)`, added up."""
    known: NDArray[np.float64]
    """How many they are."""
    value: Float
    """`(time, y, x)`, NaN where there is no observation."""
    error: Float
    bin: NDArray[np.int8]
    """Place in the table of expected errors, -1 for none."""


def _told(method: Classic, band: NDArray[Any], valid: Bool, axes: Axes) -> _Told:
    clear = valid & ~_absent(band)
    value = reflectance(band)
    square, count = np.zeros((2, 2, len(EDGES) + 1))
    out, error = np.empty_like(value), np.full_like(value, np.nan)
    bins = np.full(value.shape, -1, np.int8)
    for i in map(int, np.flatnonzero(clear.any(axis=(1, 2)))):
        others = clear.copy()
        others[i] = False
        method.curve(value, others, axes, out)
        few = method.few(others)
        if few is not None:
            method.replace_few(value, others, axes, few, out)
        found = (out[i].astype(np.float64) - value[i])[clear[i]]
        past, coming = _neighbours(others[:, clear[i]], axes.days, i)
        error[i][clear[i]] = found
        bins[i][clear[i]] = _add(square, count, found, past, coming)
    return _Told(square, count, value, error, bins)


def _together(
    a: _Told, b: _Told, a_std: NDArray[np.float64], b_std: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Correlation of the errors of two bands, and how large the error of their index is.

    The latter as a multiple of what follows from the correlation to first order: few large errors,
    which undetected clouds cause, are in both bands at once and hardly show in an index.
    """
    both = np.isfinite(a.error) & np.isfinite(b.error)
    u, v = (e.error[both].astype(np.float64) for e in (a, b))
    if not u.any() or not v.any():
        return None
    correlation = float(u @ v / np.sqrt((u @ u) * (v @ v)))
    p, q = a.value[both], b.value[both]
    told = p + a.error[both], q + b.error[both]
    error = normalized_difference(*told) - normalized_difference(p, q)
    s = normalized_difference_std(told[0], told[1], a_std[both], b_std[both], correlation)
    known = np.isfinite(error) & np.isfinite(s)
    if not s[known].any():
        return correlation, 1.0
    mean = [np.square(x[known], dtype=np.float64).mean() for x in (error, s)]
    return correlation, float(np.clip(np.sqrt(mean[0] / mean[1]), *SCALES))


def _neighbours(clear: Bool, days: NDArray[np.float64], i: int) -> tuple[Float, Float]:
    """Days from date `i` to the clear observation before and to the one after, inf for none."""
    past = np.where(clear[:i], days[i] - days[:i, None], np.inf).min(axis=0, initial=np.inf)
    coming = np.where(clear[i:], days[i:, None] - days[i], np.inf).min(axis=0, initial=np.inf)
    return past, coming


def _add(square: Any, count: Any, error: Any, past: Any, coming: Any) -> NDArray[np.intp]:
    """Adds errors to their bins; gives the place of each in the table, -1 for none."""
    inside = np.isfinite(past) & np.isfinite(coming)
    span = np.where(inside, past + coming, np.minimum(past, coming))
    known = np.isfinite(error) & np.isfinite(span)
    bins = np.searchsorted(EDGES, span)
    for which, chosen in enumerate((inside & known, ~inside & known)):
        np.add.at(square[which], bins[chosen], error[chosen] ** 2)
        np.add.at(count[which], bins[chosen], 1)
    return np.where(known, bins + np.where(inside, 0, len(EDGES) + 1), -1)


def _pooled(square: Any, count: Any) -> tuple[float, ...]:
    """Root mean squares; a bin with few observations takes its neighbours in, then never falls.

    Empty where there is no observation at all.
    """
    if not count.any():
        return ()
    out = np.empty(len(count))
    for b in range(len(count)):
        reach = next(
            (r for r in range(len(count)) if count[max(0, b - r) : b + r + 1].sum() >= ENOUGH),
            len(count),
        )
        near = slice(max(0, b - reach), b + reach + 1)
        out[b] = np.sqrt(square[near].sum() / count[near].sum())
    return tuple(float(v) for v in np.maximum.accumulate(out))


def reflectance(band: NDArray[Any]) -> Float:
    """A new array of reflectance, NaN without data, from reflectance or counts."""
    if band.dtype.kind == "f":
        return np.array(band, np.float32, order="C")
    return Counts().decode(band)
