"""What the methods without learning share: options, axes, flags, limits and expected errors."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
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
    check_options,
)
from cubefill.methods.pixel.flags import Axes as Axes
from cubefill.methods.pixel.flags import flags
from cubefill.methods.pixel.intervals import ErrorTable, Spread, learn, thinned
from cubefill.methods.pixel.kernel import DAY as DAY

NEVER = -1
ALWAYS = 2**31 - 1
WIDTH = 1024
"""Pixels of a tile; any width gives the same answer."""


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
    errors: ErrorTable | None = field(default=None, init=False, repr=False)
    """Expected errors, once `prepare` has seen a sample."""

    needs: ClassVar[Needs] = Needs()
    flag: ClassVar[Flag] = Flag.INTERPOLATED
    beyond: ClassVar[Flag] = Flag.EXTRAPOLATED
    keeps_clear: ClassVar[bool] = True
    counts: ClassVar[bool] = True
    gives_std: ClassVar[bool] = True
    gives_quantiles: ClassVar[bool] = True
    std_revision: ClassVar[str] = "2"
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
        if not sample.std and not sample.quantiles:
            return self
        free = copy.copy(self)
        for name in ("max_gap", "max_extrapolate"):
            object.__setattr__(free, name, None)
        learned = copy.copy(self)
        found = learn(free._fill, thinned(sample), sample.quantiles, self.suffix)
        object.__setattr__(learned, "errors", found)
        return learned

    def recorded(self) -> dict[str, Any]:
        """What was learned, as plain values for attributes."""
        return {} if self.errors is None else self.errors.recorded()

    def errors_together(self, output: str) -> dict[str, tuple[float, float]]:
        """How the error of an output, or its quantile, goes with those of the others."""
        return self.errors.errors_together(output) if self.errors else {}

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
        codes: dict[str, Codes] = {}
        own_valid: dict[str, Bool] = {}
        few = self.few(block.valid)
        for (name, band), out, holes in zip(block.bands.items(), outs, lost, strict=True):
            valid, own, short = block.valid, flag, few
            if holes:
                valid = own_valid[name + self.suffix] = valid & ~absent(band)
                own, short = self.flags(valid, axes), self.few(valid)
            if short is not None:
                self.replace_few(band, valid, axes, short, out)
                own[:, short] = _told_few(own[:, short])
            codes[name + self.suffix] = own
            if not self.complete:
                out[own == Flag.UNFILLABLE] = Counts().nodata if block.counts else np.nan
            bands[name + self.suffix] = out
        spread = self._spread(block, axes, codes, own_valid)
        return Filled(bands, worst(list(codes.values())), spread.std, spread.quantiles)

    def _spread(
        self, block: Block, axes: Axes, codes: Mapping[str, Codes], own: Mapping[str, Bool]
    ) -> Spread:
        """What is expected of errors; `own` says where a band that lacks data was clear."""
        errors = self.errors
        if errors is None or not (block.std or block.quantiles):
            return Spread({}, {})
        whole = [n for n in codes if n not in own]
        parts = [(block.valid, whole), *((valid, [n]) for n, valid in own.items())]
        found = [
            errors.spread(valid, axes, codes[names[0]], names=names, std=block.std)
            for valid, names in parts
            if names
        ]
        return Spread(*({k: v for f in found for k, v in f[i].items()} for i in (0, 1)))

    def few(self, valid: Bool) -> Bool | None:
        """Pixels `(y, x)` with too few observations for the curve; None where there are none."""
        return None

    def replace_few(self, band: Any, valid: Bool, axes: Axes, few: Bool, out: Any) -> None:
        """Writes what such pixels get instead of the curve to `out`."""

    def _check(self, block: Block) -> None:
        if (block.std or block.quantiles) and self.errors is None:
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
        flags(_FLOAT, valid, axes.s, axes.so, axes.lo, limits, of, WIDTH, out)
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


def absent(band: NDArray[Any]) -> Bool:
    """True where a band, reflectance or counts, holds no data."""
    if band.dtype.kind == "f":
        return np.isnan(band)
    absent: Bool = band == Counts().nodata
    return absent


def reflectance(band: NDArray[Any]) -> Float:
    """A new array of reflectance, NaN without data, from reflectance or counts."""
    if band.dtype.kind == "f":
        return np.array(band, np.float32, order="C")
    return Counts().decode(band)
