"""Samples to train on: anything that can be indexed; here random patches of cubes in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import cube as cubes_of
from cubefill import valid as validity
from cubefill.axes import time_axes
from cubefill.bands import COHERENCE, SAR_BANDS
from cubefill.errors import CubeError
from cubefill.gaps import Blobs, Blocks, Dates, EveryDate, Gaps, Trailing, Transplant
from cubefill.method import Block, Needs
from cubefill.windows import Axis, Span, Whole

Sample = dict[str, NDArray[Any]]
Bool = NDArray[np.bool_]

GAPS: dict[str, type] = {
    "transplant": Transplant,
    "blobs": Blobs,
    "dates": Dates,
    "blocks": Blocks,
    "trailing": Trailing,
    "every_date": EveryDate,
}
"""Kinds of artificial gaps that a recipe may name; "none" hides nothing."""

TRIES = 50
"""Patches that are drawn for one sample before it is given up."""


@runtime_checkable
class Samples(Protocol):
    """Training samples by index; each a dict of arrays, equal in shape from sample to sample.

    The arrays are the arguments of the net by name, `target` and `where`, and `real` for an
    adversary. Two optional members: `at(epoch) -> Samples`, other samples for another epoch;
    `digest`, a word that changes with the data.
    """

    def __len__(self) -> int:
        """Samples of an epoch."""

    def __getitem__(self, index: int) -> Sample:
        """One sample; the same for the same index."""


class Learner(Protocol):
    """What samples ask of a method."""

    @property
    def needs(self) -> Needs:
        """What the method must be given."""

    def encode(self, block: Block) -> Sample:
        """Arguments of the net."""

    def target(self, truth: Block, gapped: Block) -> Sample:
        """`target` and `where`."""


@dataclass(frozen=True)
class CubeSamples:
    """Random patches of cubes with artificial gaps, as a method's net is given them.

    A sample is decided by the seed, the epoch and its index alone. Under an artificial gap the
    bands hold the cloudy values of another date at the same pixels where `cloudy`, else NaN.

    Parameters
    ----------
    cubes
        Cubes with every band the method needs; each counts by its pixels.
    method
        Gives `needs`, `encode` and `target`.
    gaps
        What to hide; None hides nothing.
    seed
        Decides patches, gaps and turns.
    count
        Samples of an epoch.
    patch
        Edge in pixels for a method that looks at single pixels.
    dates
        Time steps for a method that sees the whole time axis; 0 for all.
    cloudy
        True puts cloudy values under artificial gaps.
    turns
        True flips and turns patches at random.
    real
        Time steps and edge of the clear windows that an adversary learns from; (0, 0) for none.

    Examples
    --------
    >>> from cubefill.gaps import Blobs
    >>> from cubefill.testing import synthetic_cube
    >>> CubeSamples([synthetic_cube()], method=None, gaps=Blobs(), count=8).at(3).epoch
    3
    """

    cubes: Sequence[xr.Dataset]
    method: Any
    gaps: Gaps | None = field(default_factory=Transplant)
    seed: int = 0
    count: int = 256
    patch: int = 16
    dates: int = 0
    cloudy: bool = False
    turns: bool = False
    real: tuple[int, int] = (0, 0)
    epoch: int = 0

    def __len__(self) -> int:
        return self.count

    def at(self, epoch: int) -> "CubeSamples":
        """The samples of another epoch."""
        made = replace(self, epoch=epoch)
        made.__dict__.update({n: self.__dict__[n] for n in _CACHED if n in self.__dict__})
        return made

    @cached_property
    def digest(self) -> str:
        """A word that changes with the cubes' grids and dates, the gaps and the seed."""
        words = [repr(self.gaps), self.seed, self.count, self.patch, self.dates, self.real]
        for ds in self.cubes:
            edges = [float(ds[d].values[i]) for d in ("y", "x") for i in (0, -1)]
            words += [dict(ds.sizes), edges, ds["time"].values.astype("M8[s]").tolist()]
        return sha256(repr(words).encode()).hexdigest()[:16]

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises
        ------
        CubeError
            No patch of many drawn could be given a gap, or no window is clear.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"Sample {index}: expected 0 to {self.count - 1}.")
        rng = np.random.default_rng([self.seed, self.epoch, index])
        truth, gapped = self._pair(rng)
        sample = self.method.encode(gapped) | self.method.target(truth, gapped)
        if self.real[0]:
            sample["real"] = self._clear_window(rng)
        return dict(sample)

    def _pair(self, rng: np.random.Generator) -> tuple[Block, Block]:
        """A block as it was seen, and with gaps."""
        reason = ""
        for _ in range(TRIES):
            truth = self._block(rng)
            if self.gaps is None:
                return truth, truth
            if not truth.valid.any():
                reason = "no clear observation"
                continue
            try:
                hidden = self.gaps.make(truth.valid, truth.days, int(rng.integers(2**31)))
            except CubeError as error:
                reason = str(error)
            else:
                return truth, _gapped(truth, hidden, rng if self.cloudy else None)
        raise CubeError(
            f"No gap in any of {TRIES} random patches of {len(self.cubes)} cubes (the last: "
            f"{reason}). Type other gaps, such as Blobs()."
        )

    def _block(self, rng: np.random.Generator) -> Block:
        k = int(rng.choice(len(self.cubes), p=self._shares))
        view, steps = self._views[k]
        needs: Needs = self.method.needs
        t = _window(rng, len(steps), needs.time, self.dates)
        patch = 0 if isinstance(needs.space, Whole) else self.patch
        y, x = (_window(rng, view.sizes[d], needs.space, patch) for d in ("y", "x"))
        return _cut(view, steps[t], (t.start, y, x), needs, self._turn(rng))

    def _turn(self, rng: np.random.Generator) -> tuple[int, bool]:
        return (int(rng.integers(4)), bool(rng.integers(2))) if self.turns else (0, False)

    def _clear_window(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Bands `(time, band, y, x)` of a window that is clear all over."""
        k, t, y, x = self._windows[int(rng.integers(len(self._windows)))]
        steps, size = self.real
        view, order = self._views[k]
        where = (t, slice(y, y + size), slice(x, x + size))
        block = _cut(view, order[t : t + steps], where, self.method.needs, self._turn(rng))
        return np.nan_to_num(block.optical)

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        pixels = np.array([ds.sizes["y"] * ds.sizes["x"] for ds in self.cubes], np.float64)
        return pixels / pixels.sum()

    @cached_property
    def _views(self) -> list[tuple[xr.Dataset, NDArray[np.intp]]]:
        """Each cube with `valid`, dims in order, and the positions of its days in order."""
        views = []
        for ds in self.cubes:
            cubes_of.check(ds)
            view = ds.assign(valid=validity.apply(ds, None))
            axes = time_axes(ds["time"].values)
            days = np.array([g[0] for g in axes.groups], np.intp)
            views.append((view.transpose("time", "y", "x", ...), days))
        return views

    @cached_property
    def _windows(self) -> list[tuple[int, int, int, int]]:
        found = [
            (k, *corner)
            for k, (view, days) in enumerate(self._views)
            for corner in clear_windows(view["valid"].values[days], *self.real)
        ]
        if not found:
            steps, size = self.real
            raise CubeError(
                f"No window of {steps} time steps and {size} px is clear all over in "
                f"{len(self.cubes)} cubes. Type a smaller real=(steps, size), or give more cubes."
            )
        return found


_CACHED = ("digest", "_shares", "_views", "_windows")


def clear_windows(valid: Bool, steps: int, size: int) -> list[tuple[int, int, int]]:
    """Corners `(time, y, x)` of windows that are clear all over, a quarter of `size` apart.

    Examples
    --------
    >>> clear_windows(np.ones((3, 4, 4), bool), 2, 4)
    [(0, 0, 0), (1, 0, 0)]
    """
    if any(n < m for n, m in zip(valid.shape, (steps, size, size), strict=True)):
        return []
    total = np.pad((~valid).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    inside = (
        total[:, size:, size:] - total[:, :-size, size:] - total[:, size:, :-size]
        + total[:, :-size, :-size]
    )  # fmt: skip
    clear = inside == 0
    run = clear[: len(clear) - steps + 1].copy()
    for i in range(1, steps):
        run &= clear[i : i + len(run)]
    apart = max(1, size // 4)
    corners = np.argwhere(run[:, ::apart, ::apart]) * [1, apart, apart]
    return [(int(t), int(y), int(x)) for t, y, x in corners]


def _window(rng: np.random.Generator, length: int, axis: Axis, other: int) -> slice:
    """A random window of the size that a method sees; `other` where it leaves that open."""
    if isinstance(axis, Span) and not axis.pointwise:
        size = axis.size
    else:
        size = min(other or length, length)
    if size > length:
        raise CubeError(
            f"A sample has {size} steps along an axis of {length}: expected a cube at least as "
            "large as what the method sees. Give larger cubes."
        )
    start = int(rng.integers(length - size + 1))
    return slice(start, start + size)


def _cut(
    view: xr.Dataset,
    steps: NDArray[np.intp],
    where: tuple[int, slice, slice],
    needs: Needs,
    turn: tuple[int, bool],
) -> Block:
    """The block of a cube at some time steps and a window in space."""
    first, y, x = where
    part = view.isel(time=steps, y=y, x=x)
    bands = needs.bands or cubes_of.spectral(view)
    time = part["time"].values.astype("datetime64[ns]")

    def read(name: str) -> NDArray[Any]:
        if name not in part:
            raise CubeError(f"The cube has no {name}: expected {', '.join(bands)}.")
        a = np.rot90(part[name].values, turn[0], axes=(-2, -1))
        return np.ascontiguousarray(a[..., ::-1] if turn[1] else a)

    return Block(
        bands={b: read(b).astype(np.float32, copy=False) for b in bands},
        valid=read("valid").astype(bool, copy=False),
        time=time,
        out_time=time,
        origin=(first, y.start, x.start),
        sar={n: read(n) for n in (*SAR_BANDS, *COHERENCE) if n in part} if needs.sar else {},
        dem=read("DEM") if needs.dem else None,
    )


def _gapped(truth: Block, hidden: Bool, rng: np.random.Generator | None) -> Block:
    """The block with observations hidden, and what lies in their place."""
    bands: Mapping[str, NDArray[Any]] = {n: a.copy() for n, a in truth.bands.items()}
    for a in bands.values():
        a[hidden] = np.nan
    if rng is not None:
        cloudy = np.flatnonzero((~truth.valid).any((1, 2)))
        for t in np.flatnonzero(hidden.any((1, 2))) if len(cloudy) else ():
            lender = int(rng.choice(cloudy))
            there = hidden[t] & ~truth.valid[lender]
            for n, a in bands.items():
                a[t][there] = truth.bands[n][lender][there]
    return replace(truth, bands=bands, valid=truth.valid & ~hidden)
