"""What the methods without learning share: options, axes, flags, limits and expected errors."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

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
    days_since,
)
from cubefill.methods.pixel.flags import flags

DAY = 86_400
NEVER = -1
ALWAYS = 2**31 - 1
WIDTH = 1024
"""Pixels of a tile; any width gives the same answer."""

EDGES = (6.0, 11.0, 16.0, 21.0, 31.0, 46.0, 61.0, 91.0, 121.0)
"""Days between the bins of the expected error."""
ENOUGH = 20
"""Held-out observations that a bin of the expected error needs to stand by itself."""


@dataclass(frozen=True)
class Axes:
    """The dates given and asked for, as kernels want them."""

    s: NDArray[np.int32]
    """Seconds of the dates given, since the first."""
    so: NDArray[np.int32]
    """Seconds of the dates asked for."""
    lo: NDArray[np.int64]
    """Last date given that is not after each date asked for, or -1."""
    same: bool
    """True when both are the same dates."""

    @classmethod
    def of(cls, block: Block) -> "Axes":
        """The axes of a block."""
        s, so = (_seconds(t, block.time[0]) for t in (block.time, block.out_time))
        return cls(s, so, np.searchsorted(s, so, side="right") - 1, block.same_axis)

    @property
    def days(self) -> NDArray[np.float64]:
        """Real days of the dates given, since the first."""
        return self.s / DAY

    @property
    def out_days(self) -> NDArray[np.float64]:
        """Real days of the dates asked for."""
        return self.so / DAY


def _seconds(time: NDArray[np.datetime64], start: np.datetime64) -> NDArray[np.int32]:
    return np.rint(days_since(time, start) * DAY).astype(np.int32)


@dataclass(frozen=True)
class Errors:
    """Root mean square error of held-out observations, by the days that they were away."""

    between: tuple[tuple[str, tuple[float, ...]], ...]
    """Band and its error for gaps between two observations, one for each bin of `EDGES`."""
    beyond: tuple[tuple[str, tuple[float, ...]], ...]
    """The same before the first and after the last observation."""

    def table(self, band: str) -> NDArray[np.float64]:
        """Both rows of a band, NaN where no observation could be held out."""
        unknown = (np.nan,) * (len(EDGES) + 1)
        return np.array([dict(e)[band] or unknown for e in (self.between, self.beyond)])


@dataclass(frozen=True)
class Classic:
    """A method that works pixel by pixel and band by band, on real days."""

    max_gap: float | None = None
    """Longest gap between two clear observations that is filled, in days; None for any."""
    max_extrapolate: float | None = None
    """Days filled before the first and after the last clear observation; None for any."""
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
        if self.smooth and not self.fits:
            raise MethodError(
                f"{type(self).__name__} passes through the observations: expected smooth=False, "
                "got True. Use savgol, whittaker, harmonic or climatology for a fitted curve."
            )
        for name in ("max_gap", "max_extrapolate"):
            days = getattr(self, name)
            if days is not None and not days >= 0:
                raise MethodError(
                    f"{type(self).__name__}({name}={days!r}): expected days >= 0 or None; "
                    f"pass {name}=60 for two months."
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
        }

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
        merged = flag
        bands: dict[str, NDArray[Any]] = {}
        std: dict[str, Float] = {}
        for (name, band), out, holes in zip(block.bands.items(), outs, lost, strict=True):
            valid, own = block.valid, flag
            if holes:
                valid = valid & ~_absent(band)
                own = self.flags(valid, axes)
                merged = np.maximum(merged, own)
            if not self.complete:
                out[own == Flag.UNFILLABLE] = Counts().nodata if block.counts else np.nan
            bands[name + self.suffix] = out
            if block.std and self.errors is not None:
                std[name + self.suffix] = _spread(self.errors, name, valid, axes, own)
        return Filled(bands, merged, std)

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


def _limit(days: float | None) -> int:
    return ALWAYS if days is None else min(ALWAYS, round(days * DAY))


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
    rows = {n: _errors_of(free, b, sample.valid, axes) for n, b in sample.bands.items()}
    return Errors(
        tuple((n, r[0]) for n, r in rows.items()), tuple((n, r[1]) for n, r in rows.items())
    )


def _errors_of(
    method: Classic, band: NDArray[Any], valid: Bool, axes: Axes
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    clear = valid & ~_absent(band)
    value = reflectance(band)
    square = np.zeros((2, len(EDGES) + 1))
    count = np.zeros((2, len(EDGES) + 1))
    out = np.empty_like(value)
    for i in range(len(axes.s)):
        if not clear[i].any():
            continue
        others = clear.copy()
        others[i] = False
        method.curve(value, others, axes, out)
        error = (out[i].astype(np.float64) - value[i])[clear[i]]
        past, coming = _neighbours(others[:, clear[i]], axes.days, i)
        _add(square, count, error, past, coming)
    return _pooled(square[0], count[0]), _pooled(square[1], count[1])


def _neighbours(clear: Bool, days: NDArray[np.float64], i: int) -> tuple[Float, Float]:
    """Days from date `i` to the clear observation before and to the one after, inf for none."""
    past = np.where(clear[:i], days[i] - days[:i, None], np.inf).min(axis=0, initial=np.inf)
    coming = np.where(clear[i:], days[i:, None] - days[i], np.inf).min(axis=0, initial=np.inf)
    return past, coming


def _add(square: Any, count: Any, error: Any, past: Any, coming: Any) -> None:
    inside = np.isfinite(past) & np.isfinite(coming)
    span = np.where(inside, past + coming, np.minimum(past, coming))
    known = np.isfinite(error) & np.isfinite(span)
    bins = np.searchsorted(EDGES, span)
    for which, chosen in enumerate((inside & known, ~inside & known)):
        np.add.at(square[which], bins[chosen], error[chosen] ** 2)
        np.add.at(count[which], bins[chosen], 1)


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
