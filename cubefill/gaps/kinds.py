"""Artificial gaps: clear observations that are hidden so that a fill can be scored or learned.

Each kind is a frozen dataclass with `make(valid, days, seed)`, which gives the observations to
hide, always a subset of `valid`. None takes everything: a pixel keeps at least `keep` clear
observations, or all it has where it has fewer; what is above that stays hidden.
"""

import math
import re
import warnings
from ast import literal_eval
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import CubeError, CubefillWarning
from cubefill.simulate.noise import fractal

Bool = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


@runtime_checkable
class Gaps(Protocol):
    """Anything that chooses observations to hide."""

    def make(self, valid: Bool, days: Floats, seed: int = 0) -> Bool:
        """Observations to hide, `(time, y, x)`, a subset of `valid`."""


class _Kind:
    """What all kinds do alike: numbers of their own for a seed, and what pixels keep."""

    keep: int
    _stream: ClassVar[int]
    """Tells the numbers of a kind from those of the others."""

    def make(self, valid: Bool, days: Floats, seed: int = 0) -> Bool:
        """Observations to hide, `(time, y, x)`, a subset of `valid`.

        Raises
        ------
        CubeError
            No date or shape will do, or nothing is clear beyond what pixels keep.
        """
        _check(valid, days)
        rng = np.random.default_rng([seed, self._stream])
        return _leave(valid, self._chosen(valid, days, rng), self.keep, rng, self)

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        """The observations that would be hidden if pixels had to keep none."""
        raise NotImplementedError


@dataclass(frozen=True)
class Transplant(_Kind):
    """Real cloud shapes: the gap of one date is pasted on a clear date of the same cube.

    U-TILISE (Stucker et al., 2023) trains and scores with gaps of this kind.

    Examples
    --------
    >>> valid = np.ones((6, 8, 8), bool)
    >>> valid[::2, :4] = False
    >>> hidden = Transplant(share=1.0).make(valid, np.arange(6.0))
    >>> bool(hidden.any()), bool((hidden & ~valid).any())
    (True, False)
    """

    share: float = 0.5
    """Share of the clear-enough dates that get a gap."""
    clear: float = 0.7
    """Share of clear pixels from which a date is clear enough to get one."""
    cover: tuple[float, float] = (0.05, 0.95)
    """Smallest and largest share of gap on the dates whose shape is borrowed."""
    turn: bool = True
    """Shapes are flipped and rolled at random, so that they lie elsewhere than they did."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 1

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        part = valid.mean((1, 2))
        takers = np.flatnonzero(part >= self.clear)
        donors = np.flatnonzero((1 - part >= self.cover[0]) & (1 - part <= self.cover[1]))
        if len(takers) == 0 or len(donors) < 1 + (len(takers) == 1 and takers[0] in donors):
            raise CubeError(
                f"Transplant: expected a date with at least {self.clear:.0%} clear pixels and "
                f"another whose gap covers {self.cover[0]:.0%} to {self.cover[1]:.0%}, got "
                f"{len(takers)} and {len(donors)} of {len(valid)} dates. Pass clear= or cover= "
                "to allow more, or use Blobs()."
            )
        hidden = np.zeros_like(valid)
        for t in _some(takers, self.share, rng):
            others = donors[donors != t]
            if len(others):
                hidden[t] = valid[t] & self._turned(~valid[rng.choice(others)], rng)
        return hidden

    def _turned(self, shape: Bool, rng: np.random.Generator) -> Bool:
        if not self.turn:
            return shape
        flips = rng.random(2) < 0.5
        shape = shape[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        return np.roll(shape, [int(rng.integers(n)) for n in shape.shape], (0, 1))


@dataclass(frozen=True)
class Blobs(_Kind):
    """Fractal shapes like clouds, where a cube has no cloudy date to borrow from."""

    share: float = 0.5
    """Share of the dates with clear pixels that get a gap."""
    cover: tuple[float, float] = (0.1, 0.8)
    """Smallest and largest share of a date under the shape."""
    slope: float = 3.0
    """Spectral slope: 2 is ragged, 4 is smooth."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 2

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        hidden = np.zeros_like(valid)
        for t in _some(np.flatnonzero(valid.any((1, 2))), self.share, rng):
            ny, nx = valid.shape[1:]
            field = fractal(rng.standard_normal((2 * ny, 2 * nx)), self.slope)[:ny, :nx]
            edge = np.quantile(field, 1 - rng.uniform(*self.cover))
            hidden[t] = valid[t] & (field >= edge)
        return hidden


@dataclass(frozen=True)
class Dates(_Kind):
    """Whole dates, as under an overcast sky."""

    share: float = 0.2
    """Share of the dates with clear pixels that are hidden."""
    clear: float = 0.0
    """Share of clear pixels that a date must have to be chosen."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 3

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        part = valid.mean((1, 2))
        chosen = _some(np.flatnonzero((part > 0) & (part >= self.clear)), self.share, rng)
        return _at(valid, chosen)


@dataclass(frozen=True)
class Blocks(_Kind):
    """Runs of days without any observation: long gaps."""

    days: tuple[float, float] = (15, 90)
    """Shortest and longest run in days."""
    count: int = 1
    """How many runs; they may meet."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 4

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        usable = days[valid.any((1, 2))]
        inside = np.zeros(len(days), bool)
        for _ in range(self.count if len(usable) else 0):
            length, middle = rng.uniform(*self.days), rng.choice(usable)
            inside |= np.abs(days - middle) <= length / 2
        return _at(valid, np.flatnonzero(inside))


@dataclass(frozen=True)
class Trailing(_Kind):
    """The last days of the series, as a forecaster or an early user meets them."""

    days: float = 30
    """Length of the end that is hidden."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 5

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        chosen = np.flatnonzero(days > days.max() - self.days)
        return _at(valid, chosen)


@dataclass(frozen=True)
class Borrowed(_Kind):
    """Gaps of other series on some dates, never on the first.

    This is how U-TILISE is trained and scored (Stucker et al., 2023): half of a random number of
    dates is hidden; `samples.make` and `samples.patches.CubeSamples` take the shapes of other
    places where none are given.

    Examples
    --------
    >>> shapes = np.zeros((1, 8, 8), bool)
    >>> shapes[0, :4] = True
    >>> hidden = Borrowed(shapes).make(np.ones((6, 8, 8), bool), np.arange(6.0))
    >>> bool(hidden.any()), bool(hidden[0].any()), bool(hidden[:, 4:].any())
    (True, False, False)
    """

    shapes: Bool = field(
        default_factory=lambda: np.zeros((0, 1, 1), bool), repr=False, compare=False
    )
    """`(n, y, x)`, True in a gap, at least as large as what is hidden; see `shapes_of`.
    Without any, those of the series itself."""
    share: float = 0.5
    """Share that is hidden of a number of dates drawn from 1 to all."""
    cover: float = 0.1
    """Smallest share of a shape under its gap."""
    whole: float = 0.9
    """A shape with a larger gap hides the whole date; 1 for none."""
    keep: int = 0
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 6

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        shapes = self.shapes if len(self.shapes) else shapes_of(valid)
        (steps, ny, nx), (_, high, wide) = valid.shape, shapes.shape
        part = shapes.mean((1, 2)) if high >= ny and wide >= nx else np.zeros(0)
        usable = np.flatnonzero((part >= self.cover) & (part > 0))
        if steps < 2 or len(usable) == 0:
            raise CubeError(
                f"Borrowed: expected two dates or more and shapes of at least {ny} x {nx} px whose "
                f"gap covers {self.cover:.0%}, got {steps} and {len(usable)} of "
                f"{len(shapes)} shapes of {high} x {wide} px. Use "
                "Borrowed(shapes_of(other.valid.values))."
            )
        count = min(steps - 1, math.ceil(self.share * int(rng.integers(1, steps + 1))))
        hidden = np.zeros_like(valid)
        for t in 1 + rng.permutation(steps - 1)[:count]:
            y, x = int(rng.integers(high - ny + 1)), int(rng.integers(wide - nx + 1))
            shape = shapes[rng.choice(usable), y : y + ny, x : x + nx]
            hidden[t] = valid[t] & (shape | bool(shape.mean() > self.whole))
        return hidden


class Lent(Borrowed):
    """`Borrowed` under its former name, kept for one minor release."""

    def __init__(self, *given: Any, **options: Any) -> None:
        warnings.warn("Lent is now Borrowed: use that.", CubefillWarning, stacklevel=2)
        super().__init__(*given, **options)


@dataclass(frozen=True)
class EveryDate(_Kind):
    """A ragged gap on every date, as in the blocks that Appel (2024) publishes with STpconv.

    Their gaps are independent from date to date. The hidden share of the clear pixels of a date
    follows Beta(1, 4) (measured on 40 blocks: median 0.16, nine in ten below 0.44), the texture a
    fractal field with single pixels about its edges.
    """

    share: float = 0.2
    """Mean share of the clear pixels of a date that are hidden."""
    slope: float = 2.75
    """Spectral slope of the shapes."""
    speckle: float = 0.2
    """Noise of single pixels against the field."""
    keep: int = 1
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 7

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        ny, nx = valid.shape[1:]
        hidden = np.zeros_like(valid)
        for t in np.flatnonzero(valid.any((1, 2))):
            rough = fractal(rng.standard_normal((2 * ny, 2 * nx)), self.slope)[:ny, :nx]
            rough = rough + self.speckle * rng.standard_normal((ny, nx))
            edge = np.quantile(rough[valid[t]], 1 - rng.beta(1, 1 / self.share - 1))
            hidden[t] = valid[t] & (rough > edge)
        return hidden


@dataclass(frozen=True)
class Mixed(_Kind):
    """Several kinds at once, each with its own chance: what a filler meets in one series.

    Examples
    --------
    >>> valid = np.ones((20, 8, 8), bool)
    >>> valid[::3, :4] = False
    >>> Mixed().make(valid, 5.0 * np.arange(20)).shape
    (20, 8, 8)
    """

    kinds: tuple[_Kind, ...] = (
        Transplant(share=0.6, clear=0.3),
        Blobs(share=0.3),
        Blocks(days=(15, 75)),
        Trailing(days=20),
    )
    """What may be hidden."""
    chances: tuple[float, ...] = (0.8, 0.2, 0.5, 0.2)
    """Probability of each kind; where chance picks none, the first one that can be made."""
    keep: int = 2
    """Clear observations that every pixel keeps, where it has as many."""

    _stream: ClassVar[int] = 8

    def _chosen(self, valid: Bool, days: Floats, rng: np.random.Generator) -> Bool:
        hidden = np.zeros_like(valid)
        picked = rng.random(len(self.kinds)) < self.chances
        for kind in (k for k, p in zip(self.kinds, picked, strict=True) if p):
            with suppress(CubeError):  # another kind may do where this one cannot
                hidden |= kind._chosen(valid & ~hidden, days, rng)
        return hidden if hidden.any() else Blobs()._chosen(valid, days, rng)


def shapes_of(valid: Bool, cover: float = 0.1) -> Bool:
    """Gaps `(n, y, x)` of the dates with at least `cover` of it, for other series to borrow.

    Examples
    --------
    >>> shapes_of(np.eye(4, dtype=bool)[None]).shape
    (1, 4, 4)
    """
    share = 1 - valid.mean((1, 2))
    return ~valid[(share >= cover) & (share > 0)]


def impaired(valid: Bool, probability: Floats | None = None) -> Bool:
    """Dates `(time,)` that U-TILISE leaves out before it cuts series (Stucker et al., 2023).

    Without `probability` those with 5 % of gap or more. With it (cloud probability `(time, y, x)`,
    0 to 1, NaN where unknown) those with 40 % of gap or more, with more than 10 % where over 1 %
    of the pixels have a probability above 0.01, or with more than 8 % where over 4 % of them have.

    Raises
    ------
    CubeError
        The probability has another shape, or lies outside 0 to 1.

    Examples
    --------
    >>> valid = np.arange(100).reshape(1, 10, 10) >= 9
    >>> impaired(valid).tolist(), impaired(valid, np.zeros((1, 10, 10))).tolist()
    ([True], [False])
    """
    gap = (~valid).mean((1, 2))
    if probability is None:
        return gap >= 0.05
    top = np.nanmax(probability, initial=0)
    if probability.shape != valid.shape or top > 1:
        raise CubeError(
            f"probability: expected {valid.shape} from 0 to 1, got {probability.shape} up to "
            f"{top:g}. Use ds.cloud_probability / 100 for percent."
        )
    likely = (probability > 0.01).mean((1, 2))
    some, many = (likely > 0.01) & (gap > 0.1), (likely > 0.04) & (gap > 0.08)
    return (gap >= 0.4) | some | many


GAPS: dict[str, type[Gaps]] = {
    "transplant": Transplant,
    "blobs": Blobs,
    "dates": Dates,
    "blocks": Blocks,
    "trailing": Trailing,
    "every_date": EveryDate,
    "borrowed": Borrowed,
    "mixed": Mixed,
}
"""Name to a kind of gaps."""
FORMER = {"lent": "borrowed"}
"""Former name of a kind to that of today."""


def parse_gaps(text: str) -> Gaps:
    """Gaps from a name and options, such as `blocks:days=(20, 60),count=2`.

    Raises
    ------
    CubeError
        The name, an option or its value is unknown.

    Examples
    --------
    >>> parse_gaps("dates:share=0.3").share
    0.3
    """
    name, _, options = text.strip().partition(":")
    name = FORMER.get(name.lower(), name.lower())
    if name not in GAPS:
        raise CubeError(f"Unknown gaps {name!r}: expected one of {', '.join(GAPS)}.")
    kind: Any = GAPS[name]
    known = [f.name for f in fields(kind)]
    try:
        call: Any = literal_eval(f"{{{_quoted(options)}}}")
        return kind(**call)
    except (ValueError, SyntaxError, TypeError) as error:
        raise CubeError(
            f"gaps: expected {name}:option=value,... with options {', '.join(known)}, got "
            f"{text!r}. Try {name}:{known[0]}={getattr(kind(), known[0])!r}."
        ) from error


def _quoted(options: str) -> str:
    """`a=1,b=(2, 3)` as the inside of a dictionary."""
    parts = re.sub(r"(?:^|,)\s*([A-Za-z_]+)\s*=", r",'\1':", options)
    return parts.removeprefix(",").replace(":true", ":True").replace(":false", ":False")


def _check(valid: Any, days: Floats) -> None:
    if valid.dtype != np.bool_ or valid.ndim != 3 or len(days) != len(valid):
        raise CubeError(
            f"valid: expected bool (time, y, x) with one day per time step, got {valid.dtype} "
            f"{valid.shape} and {len(days)} days."
        )


def _some(dates: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random `share` of the dates, at least one of them if there is any."""
    count = min(len(dates), max(1, round(share * len(dates))))
    return np.sort(rng.permutation(dates)[:count])


def _at(valid: Bool, dates: NDArray[np.int64]) -> Bool:
    hidden = np.zeros_like(valid)
    hidden[dates] = valid[dates]
    return hidden


def _leave(valid: Bool, hidden: Bool, keep: int, rng: np.random.Generator, gaps: Any) -> Bool:
    """`hidden` without those observations that pixels must keep, given back on random dates."""
    missing = np.minimum(valid.sum(0), keep) - (valid & ~hidden).sum(0)
    for t in rng.permutation(len(valid)):
        back = hidden[t] & (missing > 0)
        hidden[t] &= ~back
        missing -= back
    if not hidden.any():
        raise CubeError(
            f"{gaps!r} hides nothing: expected clear observations beyond the {keep} that every "
            f"pixel keeps, got {int(valid.sum())} of {valid.size} clear. Pass keep=1, or give a "
            "longer series."
        )
    return hidden
