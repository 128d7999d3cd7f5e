"""Same-date regression as a method: learned once a cube, applied to any block of it."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import (
    Block,
    Bool,
    Counts,
    Filled,
    Flag,
    Float,
    Needs,
    Scratch,
    check_options,
)
from cubefill.methods.pixel.linear import Linear
from cubefill.methods.pixel.method import Axes, Classic, reflectance
from cubefill.methods.registry import resolve
from cubefill.methods.samedate.kernels import REACH, WIDTH, answer, settle, taps
from cubefill.methods.samedate.regression import Coefficients, learn
from cubefill.methods.windows import Near

COMPLETE = 0.99
"""Share of the clear pixels in which a band must hold data to be told with the others."""

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
    prior: str = "linear"
    """Method that fills what the regression cannot: the name of one that works pixel by pixel."""
    curve: Classic = field(default_factory=Linear, init=False, repr=False, compare=False)
    """That method."""
    learned: Coefficients | None = field(default=None, init=False, repr=False, compare=False)
    """What `prepare` learned."""

    needs: ClassVar[Needs] = Needs(space=Near(REACH))
    flag: ClassVar[Flag] = Flag.INTERPOLATED
    counts: ClassVar[bool] = True
    gives_std: ClassVar[bool] = True
    wants_sample: ClassVar[bool] = True
    revision: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        check_options(self)
        options = {"max_gap": self.max_gap, "max_extrapolate": self.max_extrapolate}
        object.__setattr__(self, "curve", resolve(self.prior, **options))
        for name in options:
            object.__setattr__(self, name, getattr(self.curve, name))

    @property
    def complete(self) -> bool:
        """True when every gap of a pixel with a clear observation is filled."""
        return self.curve.complete

    def prepare(self, sample: Block) -> Self:
        """The same method with what it learned from a sample of the cube."""
        made = copy.copy(self)
        object.__setattr__(made, "curve", self.curve.prepare(sample))
        bands = _complete(sample)
        if bands:
            series, clear = _series(sample, bands)
            object.__setattr__(made, "learned", learn(bands, series, clear, sample.days))
        return made

    def recorded(self) -> dict[str, Any]:
        """What was learned, as plain values for attributes."""
        told = self.learned.pixels.tolist() if self.learned else []
        return {**self.curve.recorded(), "same_date_pixels": told}

    def errors_together(self, output: str) -> dict[str, tuple[float, float]]:
        """How the filling error of an output goes with that of each other one."""
        return self.curve.errors_together(output)

    def scratch(self, block: Block) -> Scratch:
        """Two arrays of all bands as float32."""
        steps, pixels = len(block.time), block.valid[0].size
        return Scratch(each=2 * 4 * steps * pixels * len(block.bands) + 2 * steps * pixels)

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given."""
        for block in blocks:
            (found,) = self.curve.fill([block])
            yield self._better(block, found)

    def _better(self, block: Block, found: Filled) -> Filled:
        learned = self.learned
        if learned is None or found.flag is None:
            return found
        asked = _asked(block)
        series, clear = _series(block, learned.bands)
        shape = block.valid.shape[1:]
        partly = learned.told & ~clear.all(axis=1) & (asked >= 0)
        told = _told(learned, series, clear, block, partly)
        flag = found.flag
        bands = dict(found.bands)
        for t in map(int, np.flatnonzero(partly)):
            k = asked[t]
            gap = np.isin(flag[k], FILLED) & ~block.valid[t]
            for b, name in enumerate(learned.bands):
                value = told[t, b].reshape(shape)
                gap &= np.isfinite(value)
            for b, name in enumerate(learned.bands):
                value = told[t, b].reshape(shape)[gap]
                bands[name][k][gap] = block.counts.encode(value) if block.counts else value
            flag[k][gap] = Flag.SAME_DATE
        return replace(found, bands=bands, flag=flag)


def _asked(block: Block) -> NDArray[np.intp]:
    """For each date given, its place among those asked for; -1 for none."""
    at = np.searchsorted(block.out_time, block.time)
    at = np.minimum(at, len(block.out_time) - 1)
    return np.where(block.out_time[at] == block.time, at, -1)


def _complete(block: Block) -> tuple[str, ...]:
    """Bands that hold data in next to all clear pixels."""
    clear = max(1, np.count_nonzero(block.valid))
    known = {
        n: np.count_nonzero(block.valid & _has_data(a)) / clear for n, a in block.bands.items()
    }
    return tuple(n for n, share in known.items() if share >= COMPLETE)


def _has_data(band: NDArray[Any]) -> Bool:
    has: Bool = np.isfinite(band) if band.dtype.kind == "f" else band != Counts().nodata
    return has


def _series(block: Block, bands: tuple[str, ...]) -> tuple[Float, Bool]:
    """Straight lines through the clear observations `(time, band, pixel)`, and where these are."""
    steps, ny, nx = block.valid.shape
    clear = block.valid.copy()
    for name in bands:
        clear &= _has_data(block.bands[name])
    series = np.empty((steps, len(bands), ny, nx), np.float32)
    axes = Axes.of(replace(block, out_time=block.time))
    given = [reflectance(block.bands[n]) for n in bands]
    Linear().curves(given, clear, axes, [series[:, b] for b in range(len(bands))])
    return series.reshape(steps, len(bands), ny * nx), clear.reshape(steps, ny * nx)


def _told(
    learned: Coefficients, series: Float, clear: Bool, block: Block, partly: NDArray[np.bool_]
) -> Float:
    """Values `(time, band, pixel)` of the gaps of the dates `partly`; of no meaning elsewhere."""
    steps, bands, pixels = series.shape
    ny, nx = block.valid.shape[1:]
    out = np.empty_like(series)
    cells = -(-pixels // WIDTH)
    wanted = np.repeat(partly[:, None], cells, axis=1)
    s = Axes.of(replace(block, out_time=block.time)).s
    rows, beside = np.empty((bands, WIDTH), np.float32), np.empty((2, steps, WIDTH), np.int32)
    kind = np.dtype(np.float32)
    answer(
        kind, series, clear, s, wanted, learned.first, learned.last, learned.start,
        learned.weights, learned.bias, learned.remainder, beside[0], beside[1], rows, out,
    )  # fmt: skip
    room = np.empty((2, ny, nx), np.float32)
    dates = np.flatnonzero(partly)
    settle(
        kind, out, series, clear, dates, ny, nx, taps(), learned.most, room[0], room[1],
        np.empty((2, nx), np.float32),
    )  # fmt: skip
    return out
