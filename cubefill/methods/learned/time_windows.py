"""Series in windows: what is cut out of a block for a net, and how its answers become one again.

A net sees so many dates at once. A method says where windows lie and where the answer goes over
from one to the next; dates to give that are no acquisition join the series as wholly hidden ones.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import Block, Filled, Float
from cubefill.methods.learned.method import TorchMethod

CLOUDY = 0.1
"""Share of gap from which a date is a poor first one of a window."""

Places = list[tuple[int, int]]
"""Start and stop of each window over a series, in order; the last one ends with it."""


@dataclass(frozen=True)
class WindowMethod(TorchMethod):
    """A method whose net gives every date of a series, in windows where it is a long one.

    A subclass gives `places` and may replace `over`.
    """

    def places(self, cloudy: NDArray[np.float64]) -> Places:
        """Start and stop of each window over a series, by the share of gap of each date."""
        raise NotImplementedError(f"{type(self).__name__} has no `places(cloudy)`.")

    def over(self, known: Float, part: Float) -> int:
        """Dates that a window leaves to those before it, of those `known (date, band, y, x)`.

        `part` is the window's own answer for these dates; by default it leaves them all.
        """
        return len(known)

    def split(self, block: Block) -> list[Block]:
        """One block for each window; its dates are those to give."""
        series = with_dates(block)
        return [cut(series, start, stop) for start, stop in self.places(cloudy_of(block))]

    def join(self, block: Block, answers: list[Filled]) -> Filled:
        """The dates asked for, each from the window that answers for it."""
        names, axis = list(answers[0].bands), axis_of(block)
        out = np.empty((len(axis), len(names), *block.valid.shape[1:]), np.float32)
        known = 0
        for (start, stop), answer in zip(self.places(cloudy_of(block)), answers, strict=True):
            part = np.stack([answer.bands[n] for n in names], axis=1)
            left = self.over(out[start:known], part[: known - start]) if known else 0
            out[start + left : stop] = part[left:]
            known = stop
        asked = out[np.searchsorted(axis, block.out_time)]
        return Filled({n: asked[:, i] for i, n in enumerate(names)})


def axis_of(block: Block) -> NDArray[np.datetime64]:
    """The dates of a block and those to give, increasing."""
    return block.time if block.same_axis else np.union1d(block.time, block.out_time)


def with_dates(block: Block) -> Block:
    """The block with the dates to give among its own, wholly hidden where they are new."""
    time = axis_of(block)
    if len(time) == len(block.time):
        return replace(block, out_time=time)
    at = np.searchsorted(time, block.time)

    def spread(a: NDArray[Any], empty: Any) -> NDArray[Any]:
        out = np.full((len(time), *a.shape[1:]), empty, a.dtype)
        out[at] = a
        return out

    return replace(
        block,
        time=time,
        out_time=time,
        valid=spread(block.valid, False),
        bands={n: spread(a, np.nan) for n, a in block.bands.items()},
        sar={n: spread(a, np.nan) for n, a in block.sar.items()},
    )


def cloudy_of(block: Block) -> NDArray[np.float64]:
    """Share of gap of each date of `with_dates(block)`."""
    time = axis_of(block)
    cloudy = np.ones(len(time))
    cloudy[np.searchsorted(time, block.time)] -= block.valid.mean(axis=(1, 2))
    return cloudy


def cut(block: Block, start: int, stop: int) -> Block:
    """Some dates of a block, which are those to give; its arrays are views."""
    time = block.time[start:stop]
    return replace(
        block,
        time=time,
        out_time=time,
        valid=block.valid[start:stop],
        bands={n: a[start:stop] for n, a in block.bands.items()},
        sar={n: a[start:stop] for n, a in block.sar.items()},
        origin=(block.origin[0] + start, *block.origin[1:]),
        out={},
    )


# ------------------------------------------------------------------ where windows lie


def even_windows(length: int, size: int, keep: int) -> Places:
    """Windows that start `keep` dates apart.

    Examples
    --------
    >>> even_windows(17, 10, 5)
    [(0, 10), (5, 15), (7, 17)]
    """
    if length <= size:
        return [(0, length)]
    return [(s, s + size) for s in [*range(0, length - size, keep), length - size]]


def clear_windows(cloudy: NDArray[np.float64], size: int) -> Places:
    """Windows half their length apart that start at a clear date, where one is near.

    A window whose first date is more than `CLOUDY` starts at the least cloudy date within a quarter
    of its length.

    Examples
    --------
    >>> clear_windows(np.array([0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]), 8)
    [(0, 8), (3, 11)]
    """
    length = len(cloudy)
    if length <= size:
        return [(0, length)]
    stride, reach = max(1, size // 2), size // 4
    starts = [0]
    for nominal in range(stride, length - size, stride):
        start = nominal
        if cloudy[nominal] > CLOUDY:
            near = np.arange(nominal - reach, nominal + reach + 1)
            near = near[(near > starts[-1]) & (near < min(length - size, starts[-1] + size))]
            best = np.lexsort((np.abs(near - nominal), cloudy[near]))
            start = int(near[best[0]])
        starts.append(start)
    return [(s, s + size) for s in [*starts, length - size]]
