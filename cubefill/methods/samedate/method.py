"""Same-date regression as a method: learned once a cube, applied to any block of it."""

import copy
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.flags import in_words
from cubefill.errors import MethodError
from cubefill.methods.contract import (
    Block,
    Bool,
    Filled,
    Flag,
    Float,
    Needs,
    Scratch,
    check_options,
)
from cubefill.methods.pixel.blend import Blend
from cubefill.methods.pixel.intervals import ErrorTable, learn
from cubefill.methods.pixel.linear import Linear
from cubefill.methods.pixel.method import Axes, Classic, absent
from cubefill.methods.registry import resolve
from cubefill.methods.samedate.kernels import REACH, WIDTH, answer, settle, taps
from cubefill.methods.samedate.regression import Coefficients, regressed
from cubefill.methods.samedate.suspects import suspects, usual_change
from cubefill.methods.windows import Near

log = logging.getLogger("cubefill")

COMPLETE = 0.99
"""Share of the clear pixels in which a band must hold data to be told with the others."""

SUPPORTS = (150, 600)
"""Clear pixels of a date in the sample that tell weak, fair and good support apart."""

EVERY = 1 << 16
"""More passes at once than there are workers."""

FILLED = (Flag.INTERPOLATED, Flag.EXTRAPOLATED, Flag.FEW_OBSERVATIONS)
"""What a regression may better."""


@dataclass(frozen=True)
class SameDate:
    """Gaps take what the clear pixels of the same date say of them; else the curve of `prior`.

    For every date, what its clear pixels show is regressed on their series on the other dates, in
    all bands: a gap gets what pixels with such a series show on that date, and the smoothed
    remainder of clear pixels nearby. Dates with next to no clear pixel in the whole cube get
    what `prior` says. Nothing is trained; what is learned of a cube depends on the cube alone.

    Examples
    --------
    >>> SameDate(max_gap=60).max_gap
    60
    """

    max_gap: float | str | timedelta | np.timedelta64 | None = None
    """Longest gap between two clear observations that is filled, in whole days: a number, "30D" or
    a Timedelta; None for any."""
    max_extrapolate: float | str | timedelta | np.timedelta64 | None = None
    """Whole days filled before the first and after the last clear observation; None for any."""
    prior: str = "blend"
    """Method that fills what the regression cannot: the name of one that works pixel by pixel."""
    curve: Classic = field(default_factory=Blend, init=False, repr=False, compare=False)
    """That method."""
    learned: Coefficients | None = field(default=None, init=False, repr=False, compare=False)
    """What `prepare` learned."""
    usual: NDArray[np.float64] | None = field(default=None, init=False, repr=False, compare=False)
    """Usual change of each of its bands from one observation to the next."""
    suspect: float = field(default=0.0, init=False, repr=False, compare=False)
    """Share of the clear observations of the sample that look like a cloud or its shadow."""
    errors: ErrorTable | None = field(default=None, init=False, repr=False, compare=False)
    """Expected errors, once `prepare` has seen a sample that asks for them."""
    dates: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)
    """Dates of the sample, ISO."""

    needs: ClassVar[Needs] = Needs(space=Near(REACH))
    flag: ClassVar[Flag] = Flag.INTERPOLATED
    counts: ClassVar[bool] = True
    gives_std: ClassVar[bool] = True
    gives_quantiles: ClassVar[bool] = True
    wants_sample: ClassVar[bool] = True
    sample_patches: ClassVar[int] = 32
    revision: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        check_options(self)
        options = {"max_gap": self.max_gap, "max_extrapolate": self.max_extrapolate}
        curve = resolve(self.prior, **options)
        if not isinstance(curve, Classic):
            raise MethodError(
                f"SameDate(prior={self.prior!r}): expected a method that works pixel by pixel. "
                "Pass prior='blend'."
            )
        object.__setattr__(self, "curve", curve)
        for name in options:
            object.__setattr__(self, name, getattr(self.curve, name))

    @property
    def complete(self) -> bool:
        """True when every gap of a pixel with a clear observation is filled."""
        return self.curve.complete

    def prepare(self, sample: Block) -> Self:
        """The same method with what it learned from a sample of the cube."""
        plain = replace(sample, std=False, quantiles=())
        made, doubtful = self._fitted(plain)
        curve = self.curve.prepare(_without(plain, doubtful))
        share = doubtful.sum() / max(1, sample.valid.sum())
        dates = tuple(np.datetime_as_string(sample.time, unit="D").tolist())
        made = made._with(curve=curve, suspect=float(share), dates=dates)
        log.info("%s", made._said())
        if not sample.std and not sample.quantiles:
            return made
        limits = dict.fromkeys(("max_gap", "max_extrapolate"))
        free = made._with(**limits, curve=_changed(curve, **limits))

        def fill(block: Block) -> Filled:
            dates = np.flatnonzero((sample.valid & ~block.valid).any(axis=(1, 2)))
            return free._fitted(block, dates)[0]._fill(block)

        return made._with(errors=learn(fill, sample, sample.quantiles))

    def _with(self, **values: Any) -> Self:
        return _changed(self, **values)

    def _fitted(self, sample: Block, dates: NDArray[np.intp] | None = None) -> tuple[Self, Bool]:
        """What the sample says of its dates, or of some, and its suspect observations."""
        bands = _complete(sample)
        if not bands:
            return self._with(learned=None, usual=None), np.zeros_like(sample.valid)
        axes = _own_axes(sample)
        values, clear = _values(sample, bands)
        usual = usual_change(values, clear)
        doubtful = suspects(values, clear, axes.s, usual)
        clear &= ~doubtful
        series = _lines(values, clear, axes, sample.valid.shape)
        learned = regressed(bands, series, clear, sample.days, dates)
        return self._with(learned=learned, usual=usual), doubtful

    def recorded(self) -> dict[str, Any]:
        """What was learned, as plain values for attributes.

        How many dates tell of their gaps, the clear pixels of the sample that each was learned from
        (0 for one that tells nothing), and the share of suspect observations.
        """
        pixels = self.learned.pixels.tolist() if self.learned else [0] * len(self.dates)
        own = {
            "same_date_dates": f"{np.count_nonzero(pixels)} of {len(self.dates)}",
            "same_date_pixels": dict(zip(self.dates, pixels, strict=True)),
            "suspect_share": round(self.suspect, 6),
        }
        return {**self.curve.recorded(), **own, **(self.errors.recorded() if self.errors else {})}

    def _said(self) -> str:
        told = self.recorded()["same_date_dates"]
        return (
            f"{told} dates have enough clear pixels to tell of their gaps; "
            f"{in_words(self.suspect)} of the clear observations look like a cloud or its shadow "
            "and tell nothing"
        )

    def errors_together(self, output: str) -> dict[str, tuple[float, float]]:
        """How the error of an output, or its quantile, goes with those of the others."""
        return self.errors.errors_together(output) if self.errors else {}

    def scratch(self, block: Block) -> Scratch:
        """Two arrays of all bands as float32, of every worker: none waits for another."""
        steps, pixels = len(block.time), block.valid[0].size
        each = 2 * 4 * steps * pixels * len(block.bands) + 2 * steps * pixels
        return Scratch(each=each, passes=EVERY)

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given."""
        for block in blocks:
            yield self._fill(block)

    def _fill(self, block: Block) -> Filled:
        plain = replace(block, std=False, quantiles=())
        learned, usual = self.learned, self.usual
        if learned is None or usual is None:
            (found,) = self.curve.fill([plain])
            return self._spread(block, found)
        axes = _own_axes(block)
        values, clear = _values(block, learned.bands)
        doubtful = suspects(values, clear, axes.s, usual)
        (found,) = self.curve.fill([_without(plain, doubtful)])
        clear &= ~doubtful
        series = _lines(values, clear, axes, block.valid.shape)
        asked = _asked(block)
        partly = learned.told & ~clear.all(axis=1) & (asked >= 0)
        told = _told(learned, series, clear, axes, np.flatnonzero(partly), block.valid.shape[2])
        return self._spread(block, _better(found, told, block, learned, asked, partly))

    def _spread(self, block: Block, found: Filled) -> Filled:
        """The same with what is expected of its errors, where that was asked for."""
        if not block.std and not block.quantiles:
            return found
        if self.errors is None or found.flag is None:
            raise MethodError(
                "SameDate was asked for <band>_std before it saw the cube: expected a prepared "
                "method. Use method = method.prepare(sample)."
            )
        told = (block.valid, Axes.of(block), found.flag, found.support)
        spread = self.errors.spread(*told, std=block.std)
        return replace(found, std=spread.std, quantiles=spread.quantiles)


def _changed(method: Any, **values: Any) -> Any:
    """A copy of a method with other values, whatever its options say."""
    made = copy.copy(method)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _better(
    found: Filled,
    told: Float,
    block: Block,
    learned: Coefficients,
    asked: NDArray[np.intp],
    partly: NDArray[np.bool_],
) -> Filled:
    """What the curve filled, with what was told of the gaps of the dates `partly`."""
    flag, shape = found.flag, block.valid.shape[1:]
    if flag is None:
        raise MethodError("The prior gave no flags: expected a method that works pixel by pixel.")
    support = np.zeros(flag.shape, np.uint8) if block.std or block.quantiles else None
    classes = np.searchsorted(SUPPORTS, learned.pixels, side="right").astype(np.uint8)
    for t in map(int, np.flatnonzero(partly)):
        k = asked[t]
        values = told[t].reshape(len(learned.bands), *shape)
        gap = np.isin(flag[k], FILLED) & ~block.valid[t] & np.isfinite(values).all(axis=0)
        for name, value in zip(learned.bands, values, strict=True):
            here = value[gap]
            found.bands[name][k][gap] = block.counts.encode(here) if block.counts else here
        flag[k][gap] = Flag.SAME_DATE
        if support is not None:
            support[k][gap] = classes[t]
    return replace(found, support=support)


def _asked(block: Block) -> NDArray[np.intp]:
    """For each date given, its place among those asked for; -1 for none."""
    at = np.searchsorted(block.out_time, block.time)
    at = np.minimum(at, len(block.out_time) - 1)
    return np.where(block.out_time[at] == block.time, at, -1)


def _complete(block: Block) -> tuple[str, ...]:
    """Bands that hold data in next to all clear pixels."""
    clear = max(1, int(np.count_nonzero(block.valid)))
    known = {n: np.count_nonzero(block.valid & ~absent(a)) / clear for n, a in block.bands.items()}
    return tuple(n for n, share in known.items() if share >= COMPLETE)


def _own_axes(block: Block) -> Axes:
    """The dates given, whatever dates are asked for."""
    return Axes.of(replace(block, out_time=block.time))


def _values(block: Block, bands: tuple[str, ...]) -> tuple[Float, Bool]:
    """Values `(time, band, pixel)`, and where all of them were observed `(time, pixel)`."""
    values = replace(block, bands={n: block.bands[n] for n in bands}).optical
    values = values.reshape(*values.shape[:2], -1)
    return values, np.asarray(np.isfinite(values).all(axis=1))


def _lines(values: Float, clear: Bool, axes: Axes, shape: tuple[int, ...]) -> Float:
    """Straight lines between clear values `(time, band, pixel)`, written in their place."""
    bands = [values[:, i].reshape(shape) for i in range(values.shape[1])]
    Linear().curves(bands, clear.reshape(shape), axes, bands)
    return values


def _without(block: Block, doubtful: Bool) -> Block:
    """The block with such observations hidden."""
    return replace(block, valid=block.valid & ~doubtful.reshape(block.valid.shape))


def _told(
    learned: Coefficients,
    series: Float,
    clear: Bool,
    axes: Axes,
    dates: NDArray[np.intp],
    width: int,
) -> Float:
    """Values `(time, band, pixel)` of the gaps of some dates; of no meaning elsewhere."""
    steps, bands, pixels = series.shape
    out = np.empty_like(series)
    rows, beside = np.empty((bands, WIDTH), np.float32), np.empty((2, steps, WIDTH), np.int32)
    tents = np.empty((steps, steps + 2, bands, bands), np.float32)
    kind = np.dtype(np.float32)
    answer(
        kind, series, clear, axes.s, dates, learned.first, learned.last, learned.start,
        learned.weights, learned.bias, learned.remainder, beside[0], beside[1], rows, tents, out,
    )  # fmt: skip
    height = pixels // width
    room = np.empty((2, height, width), np.float32)
    settle(
        kind, out, series, clear, dates, height, width, taps(), learned.most, room[0], room[1],
        np.empty((1, width), np.float32), np.zeros(width + 2 * REACH, np.float32),
    )  # fmt: skip
    return out
