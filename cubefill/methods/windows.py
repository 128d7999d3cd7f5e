"""Where a method looks along an axis: all of it, what is near, or spans on a grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Window:
    """One placed span: it sees `start:stop` and answers for `keep_start:keep_stop`."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Whole:
    """A method sees the whole axis at once."""

    def windows(self, length: int) -> list[Window]:
        """One window over the axis."""
        return [Window(0, length, 0, length)]


@dataclass(frozen=True)
class Span:
    """A method sees `size` steps and keeps the middle `keep` of them.

    Windows lie on a grid that starts at the cube's origin, `keep` apart; the last one shifts
    inwards so that it ends with the axis. The grid depends on the cube alone, so an answer does
    not depend on chunks or tiles. `Span(1)` says that every step stands alone: blocks of any
    length are handed over.

    Examples
    --------
    >>> [(w.start, w.keep_start, w.keep_stop) for w in Span(8, 4).windows(14)]
    [(0, 0, 6), (4, 6, 10), (6, 10, 14)]
    """

    size: int
    """Steps that the method sees."""
    keep: int = 0
    """Steps in the middle that it answers for; 0 stands for all of `size`."""
    blend: Literal["none", "linear"] = "none"
    """`linear` weights overlapping windows in fixed order: by a ramp over the `halo` that two
    neighbours share, without its outer quarters, where a net knows least."""
    align: int = 1
    """Windows start at multiples of this, a divisor of `keep`: 2 for a net that pairs the pixels
    of a 20 m grid. The last window may reach past the end, where the axis is reflected."""

    def __post_init__(self) -> None:
        if self.keep == 0:
            object.__setattr__(self, "keep", self.size)
        if not 1 <= self.keep <= self.size:
            raise ValueError(
                f"Span(size={self.size}, keep={self.keep}): expected 1 <= keep <= size."
            )
        if self.align < 1 or self.keep % self.align:
            raise ValueError(
                f"Span(keep={self.keep}, align={self.align}): expected a divisor of keep."
            )

    @property
    def halo(self) -> int:
        """Steps that are seen but not kept, both sides together."""
        return self.size - self.keep

    @property
    def pointwise(self) -> bool:
        """True when every step stands alone."""
        return self.size == 1

    def windows(self, length: int) -> list[Window]:
        """All windows over an axis of `length` steps, in order.

        An axis shorter than `size` gets one window that is longer than the axis; the engine
        reflects the axis to fill it, as where `align` makes the last one reach past the end.
        """
        if length <= self.size:
            return [Window(0, self.size, 0, length)]
        left = self.halo // 2
        count = 1 + -(-(length - self.size) // self.keep)
        last = -(-(length - self.size) // self.align) * self.align
        starts = [min(i * self.keep, last) for i in range(count)]
        edges = [0, *(i * self.keep + left for i in range(1, count)), length]
        return [Window(s, s + self.size, edges[i], edges[i + 1]) for i, s in enumerate(starts)]

    def touching(self, length: int, start: int, stop: int) -> Iterator[Window]:
        """Windows whose answer is needed for `start:stop`."""
        for w in self.windows(length):
            lo, hi = (w.start, w.stop) if self.blend == "linear" else (w.keep_start, w.keep_stop)
            if lo < stop and hi > start:
                yield w


@dataclass(frozen=True)
class Near:
    """A method answers for any pixels and sees `reach` more on each side.

    An answer depends on nothing farther away, so that blocks of any length may be handed over.

    Examples
    --------
    >>> list(Near(3).touching(100, 10, 20))
    [Window(start=7, stop=23, keep_start=10, keep_stop=20)]
    """

    reach: int
    """Steps that are seen beyond those it answers for, on each side."""

    blend = "none"
    keep = 1
    pointwise = False

    @property
    def size(self) -> int:
        """Steps that one answer depends on."""
        return 1 + 2 * self.reach

    @property
    def halo(self) -> int:
        """Steps that are seen but not kept, both sides together."""
        return 2 * self.reach

    def windows(self, length: int) -> list[Window]:
        """One window over the axis."""
        return [Window(0, length, 0, length)]

    def touching(self, length: int, start: int, stop: int) -> Iterator[Window]:
        """The one window that answers for `start:stop`."""
        yield Window(max(0, start - self.reach), min(length, stop + self.reach), start, stop)


Axis = Whole | Span | Near
