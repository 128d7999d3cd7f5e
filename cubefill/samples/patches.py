"""Random patches of cubes in memory, as samples: cut, turned, reflected, with artificial gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import cube as cubes_of
from cubefill.cube import valid as validity
from cubefill.cube.axes import time_axes
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.engine.request import bands_of
from cubefill.errors import CubeError
from cubefill.gaps import GAPS as GAPS
from cubefill.gaps import Borrowed, Gaps, Transplant, covered, impaired, shapes_of
from cubefill.imports import renamed
from cubefill.methods.contract import Block, Needs
from cubefill.methods.registry import name_of
from cubefill.methods.windows import Axis, Span, Whole
from cubefill.samples.clear_windows import clear_corners
from cubefill.samples.protocol import Cubes, Sample
from cubefill.samples.protocol import Samples as Samples

Bool = NDArray[np.bool_]
View = tuple[xr.Dataset, NDArray[np.intp]]

TRIES = 50
"""Patches that are drawn for one sample before it is given up."""
FEWEST = 5
"""Dates that must be left of a series whose impaired dates are left out."""
DONORS = 16
"""Cubes whose gaps others borrow."""
SHAPES = 128
"""Gaps of all of them, all together."""


@dataclass(frozen=True)
class CubeSamples:
    """Random patches of cubes with artificial gaps, as a method's net is given them.

    A sample is decided by the seed, the epoch and its index alone. Under an artificial gap the
    bands hold cloudy values of other dates where `cloudy` (`gaps.covered`), else NaN. A
    cube smaller than the method's patch is reflected, its gaps too, as when it is filled.

    Parameters
    ----------
    cubes
        Cubes with every band the method needs; each counts by its pixels.
    method
        Gives `needs`, `encode` and `target`.
    gaps
        What to hide; None hides nothing. `Borrowed()` without shapes borrows those of the other
        cubes and of `donors`, where there are none its own cube's at other places.
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
    augment
        True flips and turns patches at random.
    discriminator_windows
        Time steps and edge of the clear windows that an adversary learns from; (0, 0) for none.
    drop_impaired
        True leaves out the dates on which a patch is `gaps.impaired`, judged by the cube's
        `cloud_probability` where it has one, before a window of dates is chosen: of `dates`
        consecutive ones, with `padded` and without `dates` of 5 or more.
    donors
        More cubes, which give gaps alone.
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
    augment: bool = False
    discriminator_windows: tuple[int, int] = (0, 0)
    epoch: int = 0
    drop_impaired: bool = False
    donors: Sequence[xr.Dataset] = ()
    clear: Cubes = ()

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
        words: list[Any] = [self.gaps, self.seed, self.count, self.patch, self.dates]
        words += [self.discriminator_windows, self.drop_impaired, self.cloudy, self.augment]
        if len(self.clear):
            words += [str(getattr(self.clear, "path", len(self.clear)))]
        for ds in (*self.cubes, *self.donors):
            edges = [float(ds[d].values[i]) for d in ("y", "x") for i in (0, -1)]
            words += [dict(ds.sizes), edges, ds["time"].values.astype("M8[s]").tolist()]
        return sha256(repr(words).replace("Borrowed(", "Lent(").encode()).hexdigest()[:16]

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
        if self.discriminator_windows[0]:
            sample["discriminator_windows"] = self._clear_window(rng)
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
            left = steps[~impaired_dates(view.isel(time=steps, y=y, x=x))]
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
        if not isinstance(self.gaps, Borrowed) or len(self.gaps.shapes):
            return self.gaps
        others = [shapes for j, shapes in self._borrowed if j != k]
        if not any(map(len, others)):
            others = [shapes for _, shapes in self._borrowed]
        return replace(self.gaps, shapes=np.concatenate(others))

    def _turn(self, rng: np.random.Generator) -> tuple[int, bool]:
        return (int(rng.integers(4)), bool(rng.integers(2))) if self.augment else (0, False)

    def _clear_window(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Bands `(time, band, y, x)` of a window that is clear all over."""
        steps, size = self.discriminator_windows
        if len(self.clear):
            view, order = viewed(self.clear[int(rng.integers(len(self.clear)))])
            found = clear_corners(view["valid"].values[order], steps, size)
            if not found:
                raise CubeError(
                    f"A clear window of {len(order)} dates and {view.sizes['y']} x "
                    f"{view.sizes['x']} px holds no {steps} clear dates of {size} px. Pass "
                    "discriminator_windows=(steps, size) for smaller ones."
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
    def _borrowed(self) -> list[tuple[int, Bool]]:
        """Gaps of some cubes, as large as the largest block, with the cube's number."""
        rng = np.random.default_rng([self.seed, 15])
        cover = self.gaps.cover if isinstance(self.gaps, Borrowed) else 0.0
        edge = max(self._edge(v.sizes[d]) for v, _ in self._views for d in ("y", "x"))
        each = [*self._views, *map(viewed, self.donors)]
        chosen = rng.permutation(len(each))[:DONORS].tolist()
        return [(j, shapes_at(each[j], edge, cover, rng)[: SHAPES // len(chosen)]) for j in chosen]

    @cached_property
    def _windows(self) -> list[tuple[int, int, int, int]]:
        found = [
            (k, *corner)
            for k, (view, days) in enumerate(self._views)
            for corner in clear_corners(view["valid"].values[days], *self.discriminator_windows)
        ]
        if not found:
            steps, size = self.discriminator_windows
            raise CubeError(
                f"No window of {steps} time steps and {size} px is clear all over in "
                f"{len(self.cubes)} cubes. Pass a smaller "
                "discriminator_windows=(steps, size), or give more cubes."
            )
        return found


# Their former names; runs that version 0.1 began find the same digest.
CubeSamples.__init__ = renamed(  # type: ignore[method-assign]
    turns="augment", lenders="donors", real="discriminator_windows"
)(CubeSamples.__init__)

_CACHED = ("digest", "_borrowed", "_shares", "_views", "_windows")


# ------------------------------------------------------------------ blocks


def viewed(ds: xr.Dataset) -> View:
    """A cube with `valid`, dims in order, and the positions of its days in order."""
    cubes_of.check(ds)
    view = ds.assign(valid=validity.apply(ds, None))
    days = np.array([g[0] for g in time_axes(ds["time"].values).groups], np.intp)
    return view.transpose("time", "y", "x", ...), days


def size_of(axis: Axis, length: int, other: int) -> int:
    """Steps that a method sees along an axis; `other` where it leaves that open."""
    if isinstance(axis, Span) and not axis.pointwise:
        return axis.size
    return min(other or length, length)


def placed(rng: np.random.Generator, length: int, size: int, align: int = 1) -> slice:
    """A random window that starts at a multiple of `align`."""
    if size > length:
        raise CubeError(
            f"A sample has {size} time steps, a cube {length}: expected a series at least as long "
            "as what the method sees. Pass longer cubes."
        )
    start = int(rng.integers(length - size + 1)) // align * align
    return slice(start, start + size)


def impaired_dates(part: xr.Dataset) -> Bool:
    """Dates on which a part of a cube is impaired, by its cloud probability where it has one."""
    found = part.get("cloud_probability")
    return impaired(part["valid"].values, None if found is None else found.values)


def shapes_at(viewed: View, edge: int, cover: float, rng: np.random.Generator) -> Bool:
    """Gaps `(n, edge, edge)` of four places of a cube, in random order."""
    (view, steps), found = viewed, []
    for _ in range(4):
        y, x = (placed(rng, n, min(n, edge)) for n in (view.sizes["y"], view.sizes["x"]))
        valid = view["valid"].isel(time=steps, y=y, x=x).values
        found.append(shapes_of(to_edge(valid, edge), cover))
    return rng.permutation(np.concatenate(found))


def to_edge(a: NDArray[Any], edge: int) -> NDArray[Any]:
    """The array reflected beyond its last row and column to `edge`, as the engine does it."""
    more = [(0, max(0, edge - n)) for n in a.shape[-2:]]
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + more, mode="reflect")


def reflected(block: Block, edge: int) -> Block:
    """The block reflected to `edge` pixels along y and x; itself where it is as large."""
    if min(block.valid.shape[1:]) >= edge:
        return block
    return replace(
        block,
        bands={n: to_edge(a, edge) for n, a in block.bands.items()},
        valid=to_edge(block.valid, edge),
        sar={n: to_edge(a, edge) for n, a in block.sar.items()},
        dem=None if block.dem is None else to_edge(block.dem, edge),
    )


def cut(
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


def gapped(truth: Block, hidden: Bool, rng: np.random.Generator | None = None) -> Block:
    """The block with observations hidden, and what lies in their place: clouds with `rng`."""
    bands = covered(truth.bands, truth.valid, hidden, rng)
    return replace(truth, bands=bands, valid=truth.valid & ~hidden)
