"""What a method is: what it needs, what it is given and what it gives back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.counts import Counts as Counts
from cubefill.cube.flags import Flag as Flag
from cubefill.errors import MethodError
from cubefill.methods.windows import Axis, Span, Whole

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Needs:
    """What a method must be given."""

    bands: tuple[str, ...] = ()
    """Bands it works on, in its order; empty stands for every band of the cube, each by itself."""
    time: Axis = field(default_factory=Whole)
    """How much of the time axis it sees."""
    space: Axis = field(default_factory=lambda: Span(1))
    """How much of y and x it sees; `Span(1)` stands for pixel by pixel."""
    sar: bool = False
    """VV and VH in dB."""
    coherence: bool = False
    """Coherence of Sentinel-1; comes with `sar` where a cube has it, and is asked for by True."""
    dem: bool = False
    """Elevation in m."""
    min_dates: int = 1
    """Fewest distinct acquisition days it works with."""


@dataclass(frozen=True)
class Block:
    """What a method is given: a window of the cube in memory, of the declared size.

    Arrays are `(time, y, x)` views with unit stride along x, often read-only and not contiguous
    as a whole. Time steps are distinct, sorted, and stand at their real days.
    """

    bands: Mapping[str, NDArray[Any]]
    """Band name to `(time, y, x)`: float32 reflectance, NaN where there is no data, cloudy values
    as they came; int16 counts instead where `counts` is set."""
    valid: Bool
    """`(time, y, x)`, True = a clear observation."""
    time: NDArray[np.datetime64]
    """Acquisition times, increasing."""
    out_time: NDArray[np.datetime64]
    """Times to give, increasing; equal to `time` unless other dates were asked for."""
    origin: tuple[int, int, int] = (0, 0, 0)
    """Index of the first time step, row and column in the cube."""
    sar: Mapping[str, Float] = field(default_factory=dict)
    """VV and VH `(time, y, x)` in dB, NaN where absent; COH_VV and COH_VH where there are any."""
    dem: Float | None = None
    """`(y, x)` elevation in m."""
    counts: Counts | None = None
    """Set when bands are int16 counts (only for methods with `counts = True`)."""
    std: bool = False
    """True when the caller asked for `<band>_std`."""
    quantiles: tuple[float, ...] = ()
    """Quantiles of the error that the caller asked for, increasing, between 0 and 1."""
    out: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays that the executor would like an output to be written into, see `empty`."""

    def empty(self, name: str, dtype: Any) -> NDArray[Any]:
        """An array for an output: where the executor wants it, else a new one."""
        wanted = self.out.get(name)
        if wanted is not None and wanted.shape == self.shape and wanted.dtype == dtype:
            return wanted
        return np.empty(self.shape, dtype)

    @cached_property
    def days(self) -> NDArray[np.float64]:
        """Days of `time` since its first step."""
        return days_since(self.time, self.time[0])

    @cached_property
    def out_days(self) -> NDArray[np.float64]:
        """Days of `out_time` since the first step of `time`."""
        return days_since(self.out_time, self.time[0])

    @property
    def same_axis(self) -> bool:
        """True when the dates to give are the acquisition dates."""
        return self.out_time is self.time or np.array_equal(self.out_time, self.time)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an output array: `(out_time, y, x)`."""
        return (len(self.out_time), *self.valid.shape[1:])

    def of(self, needs: Needs) -> "Block":
        """The block with the bands and layers that a method needs, bands in the method's order."""
        return replace(
            self,
            bands={n: self.bands[n] for n in needs.bands or self.bands},
            sar=self.sar if needs.sar else {},
            dem=self.dem if needs.dem else None,
        )

    @cached_property
    def optical(self) -> Float:
        """A new `(time, band, y, x)` array of float32, NaN in every gap."""
        stack = np.stack([self._float(a) for a in self.bands.values()], axis=1)
        stack[~np.broadcast_to(self.valid[:, None], stack.shape)] = np.nan
        return stack

    def filled(self, optical: Float, flag: Codes | None = None) -> "Filled":
        """A `Filled` from a stacked `(out_time, band, y, x)` array."""
        return Filled({n: optical[:, i] for i, n in enumerate(self.bands)}, flag)

    def _float(self, a: NDArray[Any]) -> Float:
        return self.counts.decode(a) if self.counts else a.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Filled:
    """What a method gives back for one block."""

    bands: Mapping[str, NDArray[Any]]
    """Name to `(out_time, y, x)`, NaN where it could not fill."""
    flag: Codes | None = None
    """`(out_time, y, x)` codes of `Flag`; None lets the engine write the method's own code."""
    std: Mapping[str, Float] = field(default_factory=dict)
    """Name of a band to the standard deviation of its error, NaN where observed or unknown."""
    quantiles: Mapping[str, Float] = field(default_factory=dict)
    """Name of a band and its quantile, `B04_q05` (see `quantile_name`), to how far the quantile
    lies above the value filled; NaN where observed or unknown."""
    support: Codes | None = None
    """`(out_time, y, x)`, small numbers from 0 that tell how well a value is supported: the error
    is learned for each of them apart. None where a method has no such classes."""


@runtime_checkable
class Method(Protocol):
    """Anything that fills: a frozen dataclass with `needs` and `fill`.

    Optional members, read by `traits`: `gives`, `complete`, `flag`, `keeps_clear`, `counts`,
    `gives_std`, `gives_quantiles`, `suffix`, `sample_patches`, and `revision`, which changes
    whenever its numbers do (`std_revision` where those of its errors do). And
    `prepare(sample) -> Method`, called once per cube with a subsample (with `wants_sample = False`
    only where errors are asked for); `recorded() -> dict`, what it learned as plain values;
    `errors_together(output) -> dict`, how the error of one output, `B04` or its quantile `B04_q05`,
    goes with those of the others;
    `ready()`, which raises while planning what would fail later; `scratch(block) -> Scratch`, what
    it holds beside its blocks.
    """

    @property
    def needs(self) -> Needs:
        """What the method must be given."""

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given, in their order."""


@dataclass(frozen=True)
class Traits:
    """The optional members of a method, with their defaults."""

    gives: tuple[str, ...]
    """Variables it returns; by default the bands it was given."""
    complete: bool
    """True when it fills every gap of a pixel that has a clear observation (default True)."""
    flag: Flag
    """Code written where it filled, unless it says otherwise (default LEARNED)."""
    keeps_clear: bool
    """True when its own kernel copies clear observations, so that the engine need not."""
    counts: bool
    """True when it takes and gives int16 counts."""
    gives_std: bool
    """True when it can give `<band>_std`."""
    gives_quantiles: bool
    """True when it can give quantiles of its error."""
    suffix: str
    """Appended to the names of the bands: `_smooth` for a product that alters observations."""
    revision: str = "1"
    """Changes whenever the method gives other numbers; a job of another revision is another job."""
    std_revision: str = "1"
    """The same for `<band>_std` and quantiles alone."""
    sample_patches: int = 0
    """Patches of the sample that `prepare` sees, none of them twice; 0 for a few at random."""


@dataclass(frozen=True)
class Scratch:
    """What a method holds beside the arrays of its blocks, as its `scratch(block)` says.

    Examples
    --------
    >>> Scratch(once=100, each=10, passes=2).of(8)
    120
    """

    once: int = 0
    """Bytes that a process holds once, whatever its workers: the weights of a net."""
    each: int = 0
    """Bytes of a worker while it runs a pass: its activations."""
    passes: int = 1
    """Passes at once; the other workers wait, and hold only their tile."""

    def of(self, workers: int) -> int:
        """Bytes of a process with so many workers."""
        return self.once + min(workers, self.passes) * self.each


def traits(method: Method, bands: Iterable[str]) -> Traits:
    """What a method says of itself, for a cube with `bands`."""
    suffix = str(getattr(method, "suffix", ""))
    gives = getattr(method, "gives", ()) or tuple(b + suffix for b in method.needs.bands or bands)
    return Traits(
        gives=tuple(gives),
        complete=bool(getattr(method, "complete", True)),
        flag=Flag(getattr(method, "flag", Flag.LEARNED)),
        keeps_clear=bool(getattr(method, "keeps_clear", False)),
        counts=bool(getattr(method, "counts", False)),
        gives_std=bool(getattr(method, "gives_std", False)),
        gives_quantiles=bool(getattr(method, "gives_quantiles", False)),
        suffix=suffix,
        revision=str(getattr(method, "revision", "1")),
        std_revision=str(getattr(method, "std_revision", "1")),
        sample_patches=int(getattr(method, "sample_patches", 0)),
    )


def quantile_name(name: str, level: float) -> str:
    """The name of a variable's quantile.

    Examples
    --------
    >>> quantile_name("B04", 0.05), quantile_name("NDVI", 0.5), quantile_name("B04", 0.975)
    ('B04_q05', 'NDVI_q50', 'B04_q975')
    """
    return f"{name}_q{f'{level:.3f}'[2:].rstrip('0').ljust(2, '0')}"


def days_since(time: NDArray[np.datetime64], start: np.datetime64) -> NDArray[np.float64]:
    """Real days, with fractions, from `start` to each time."""
    ns = (time.astype("datetime64[ns]") - start.astype("datetime64[ns]")).astype(np.int64)
    return ns / 86_400e9


# ------------------------------------------------------------------ options


def check_options(method: Any) -> None:
    """Refuses an option of a method, a dataclass, of another type than it declares, and no numbers.

    Methods call it when they are made, whoever makes them; the limits of a value are their own.

    Raises
    ------
    MethodError
        The option, what was expected and what can be passed.
    """
    hints = get_type_hints(type(method))
    for f in fields(method):
        value = getattr(method, f.name)
        if f.init and not _fits(value, hints[f.name]):
            given = "" if f.default is MISSING else f"; pass {f.name}={f.default!r}"
            raise MethodError(
                f"{type(method).__name__}({f.name}={value!r}): expected {_words(hints[f.name])}"
                f"{given}."
            )


_NAMES = {
    NoneType: "None", bool: "True or False", int: "a whole number", float: "a number", str: "text"
}  # fmt: skip


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    return any(_is(value, kind) for kind in _kinds(hint))


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is int or kind is float:
        number = isinstance(value, Integral if kind is int else Real)
        return number and not isinstance(value, bool) and isfinite(value)
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(hint: Any) -> str:
    named = [
        " or ".join(map(repr, get_args(k)))
        if get_origin(k) is Literal
        else _NAMES.get(k, getattr(k, "__name__", str(k)))
        for k in _kinds(hint)
    ]
    return " or ".join(named)
