"""Samples to train on: anything that can be indexed; here random patches of cubes in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import gaps as artificial
from cubefill.engine.request import bands_of
from cubefill.errors import CubeError
from cubefill.gaps import Gaps, Lent, Transplant
from cubefill.methods import Block, Needs, name_of
from cubefill.methods.windows import Whole
from cubefill.samples.blocks import (
    View,
    clear_windows,
    cut,
    gapped,
    impaired,
    placed,
    reflected,
    shapes_at,
    size_of,
    viewed,
)

Sample = dict[str, NDArray[Any]]
Bool = NDArray[np.bool_]

GAPS: dict[str, type] = {
    "transplant": Transplant,
    "blobs": artificial.Blobs,
    "dates": artificial.Dates,
    "blocks": artificial.Blocks,
    "trailing": artificial.Trailing,
    "every_date": artificial.EveryDate,
    "lent": Lent,
}
"""Kinds of artificial gaps that a recipe may name; "none" hides nothing."""

TRIES = 50
"""Patches that are drawn for one sample before it is given up."""
FEWEST = 5
"""Dates that must be left of a series whose impaired dates are left out."""
LENDERS = 16
"""Cubes whose gaps are lent to others."""
SHAPES = 128
"""Gaps that they lend, all together."""


class Windows(Protocol):
    """Cubes by number."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> xr.Dataset:
        """One of them."""


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


@dataclass(frozen=True)
class CubeSamples:
    """Random patches of cubes with artificial gaps, as a method's net is given them.

    A sample is decided by the seed, the epoch and its index alone. Under an artificial gap the
    bands hold cloudy values of other dates where `cloudy` (`gaps.clouds.overcast`), else NaN. A
    cube smaller than the method's patch is reflected, its gaps too, as when it is filled.

    Parameters
    ----------
    cubes
        Cubes with every band the method needs; each counts by its pixels.
    method
        Gives `needs`, `encode` and `target`.
    gaps
        What to hide; None hides nothing. `Lent()` without shapes is lent those of the other cubes
        and of `lenders`, where there are none its own cube's at other places.
    seed
        Decides patches, gaps and turns.
    count
        Samples of an epoch.
    patch
        Edge in pixels for a method that looks at single pixels.
    dates
        Time steps for a method that sees the whole time axis; 0 for all. Where fewer are left, a
        method with `padded` has its samples filled up to them.
    cloudy
        True puts cloudy values under artificial gaps.
    turns
        True flips and turns patches at random.
    real
        Time steps and edge of the clear windows that an adversary learns from; (0, 0) for none.
    drop_impaired
        True leaves out the dates on which a patch is `gaps.impaired`, judged by the cube's
        `cloud_probability` where it has one, before a window of dates is chosen: of `dates`
        consecutive ones, with `padded` and without `dates` of 5 or more.
    lenders
        More cubes, which lend gaps alone.
    clear
        Cubes that are clear all over, such as `train.sources.CleanWindows` lists: the adversary
        learns from parts of these, and none is looked for in `cubes`.

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
    drop_impaired: bool = False
    lenders: Sequence[xr.Dataset] = ()
    clear: Windows = ()

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
        words: list[Any] = [self.gaps, self.seed, self.count, self.patch, self.dates, self.real]
        words += [self.drop_impaired, self.cloudy, self.turns]
        if len(self.clear):
            words += [str(getattr(self.clear, "path", len(self.clear)))]
        for ds in (*self.cubes, *self.lenders):
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
        if self._pads:
            sample = self.method.padded(sample, self.dates)
        if self.real[0]:
            sample["real"] = self._clear_window(rng)
        return dict(sample)

    def _pair(self, rng: np.random.Generator) -> tuple[Block, Block]:
        """A block as it was seen, and with gaps."""
        reason = ""
        for _ in range(TRIES):
            k = int(rng.choice(len(self.cubes), p=self._shares))
            truth = self._block(k, rng)
            if truth is None:
                reason = "too few dates that are not impaired"
                continue
            gaps = self._gaps(k)
            if gaps is None:
                return (self._whole(truth),) * 2
            if not truth.valid.any():
                reason = "no clear observation"
                continue
            try:
                hidden = gaps.make(truth.valid, truth.days, int(rng.integers(2**31)))
            except CubeError as error:
                reason = str(error)
            else:
                shown = gapped(truth, hidden, rng if self.cloudy else None)
                return self._whole(truth), self._whole(shown)
        raise CubeError(
            f"No gap in any of {TRIES} random patches of {len(self.cubes)} cubes (the last: "
            f"{reason}). Pass other gaps, such as Blobs()"
            f"{', fewer dates=, or drop_impaired=False' if self.drop_impaired else ''}."
        )

    def _block(self, k: int, rng: np.random.Generator) -> Block | None:
        """A random block as far as the cube reaches; None where too few dates are left of it."""
        view, steps = self._views[k]
        needs: Needs = self.method.needs
        align = getattr(needs.space, "align", 1)
        y, x = (placed(rng, n, self._edge(n), align) for n in (view.sizes["y"], view.sizes["x"]))
        left = steps
        if self.drop_impaired:
            left = steps[~impaired(view.isel(time=steps, y=y, x=x))]
            fewest = FEWEST if self._pads or not self.dates else self.dates
            if len(left) < size_of(needs.time, len(steps), min(fewest, self.dates or len(steps))):
                return None
        t = placed(rng, len(left), size_of(needs.time, len(left), self.dates))
        first = int(np.searchsorted(steps, left[t.start]))
        return cut(view, left[t], (first, y, x), needs, self._turn(rng))

    @property
    def _pads(self) -> bool:
        """True where the method's net takes series that are filled up to `dates`."""
        return bool(self.dates) and hasattr(self.method, "padded")

    def _edge(self, length: int) -> int:
        """Pixels of a block along an axis of y or x, at most its length."""
        space = self.method.needs.space
        return min(length, size_of(space, length, 0 if isinstance(space, Whole) else self.patch))

    def _whole(self, block: Block) -> Block:
        """The block as large as the method sees it."""
        space = self.method.needs.space
        return block if isinstance(space, Whole) else reflected(block, space.size)

    def _gaps(self, k: int) -> Gaps | None:
        """What hides observations of a cube."""
        if not isinstance(self.gaps, Lent) or len(self.gaps.shapes):
            return self.gaps
        others = [shapes for j, shapes in self._lent if j != k]
        if not any(map(len, others)):
            others = [shapes for _, shapes in self._lent]
        return replace(self.gaps, shapes=np.concatenate(others))

    def _turn(self, rng: np.random.Generator) -> tuple[int, bool]:
        return (int(rng.integers(4)), bool(rng.integers(2))) if self.turns else (0, False)

    def _clear_window(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Bands `(time, band, y, x)` of a window that is clear all over."""
        steps, size = self.real
        if len(self.clear):
            view, order = viewed(self.clear[int(rng.integers(len(self.clear)))])
            found = clear_windows(view["valid"].values[order], steps, size)
            if not found:
                raise CubeError(
                    f"A clear window of {len(order)} dates and {view.sizes['y']} x "
                    f"{view.sizes['x']} px holds no {steps} clear dates of {size} px. Pass "
                    "real=(steps, size) for smaller ones."
                )
            t, y, x = found[int(rng.integers(len(found)))]
        else:
            k, t, y, x = self._windows[int(rng.integers(len(self._windows)))]
            view, order = self._views[k]
        where = (t, slice(y, y + size), slice(x, x + size))
        block = cut(view, order[t : t + steps], where, self.method.needs, self._turn(rng))
        return np.nan_to_num(block.optical)

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        pixels = np.array([ds.sizes["y"] * ds.sizes["x"] for ds in self.cubes], np.float64)
        return pixels / pixels.sum()

    @cached_property
    def _views(self) -> list[View]:
        for ds in self.cubes:
            bands_of(ds, self.method.needs, name_of(self.method))
        return [viewed(ds) for ds in self.cubes]

    @cached_property
    def _lent(self) -> list[tuple[int, Bool]]:
        """Gaps of some cubes, as large as the largest block, with the cube's number."""
        rng = np.random.default_rng([self.seed, 15])
        cover = self.gaps.cover if isinstance(self.gaps, Lent) else 0.0
        edge = max(self._edge(v.sizes[d]) for v, _ in self._views for d in ("y", "x"))
        each = [*self._views, *map(viewed, self.lenders)]
        chosen = rng.permutation(len(each))[:LENDERS].tolist()
        return [(j, shapes_at(each[j], edge, cover, rng)[: SHAPES // len(chosen)]) for j in chosen]

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
                f"{len(self.cubes)} cubes. Pass a smaller real=(steps, size), or give more cubes."
            )
        return found


_CACHED = ("digest", "_lent", "_shares", "_views", "_windows")
