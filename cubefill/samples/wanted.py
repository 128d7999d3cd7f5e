"""What a sample is to be, from a layout, needs or a method, and the cubes it is taken from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

from cubefill import layout as layouts
from cubefill import stac
from cubefill.cube import spectral
from cubefill.cube.bands import SAR_BANDS
from cubefill.errors import CubeError, MethodError
from cubefill.formats import earthnet as minicube
from cubefill.gaps import Gaps
from cubefill.layout import Layout
from cubefill.methods.contract import Needs
from cubefill.methods.windows import Span
from cubefill.samples.dates import Picks, Rules, windows, without_sar
from cubefill.samples.form import Form
from cubefill.samples.places import Patch, Site, site
from cubefill.store import open_cube

BANDS = ("B02", "B03", "B04", "B08")
"""Bands of a sample where nothing else says which."""

Limits = tuple[int, int, int]
"""Most samples of one place in each split; 0 for any number."""


@dataclass(frozen=True)
class Wanted:
    """What is taken from every place, as `samples.make` is asked for it.

    The digest of a store is of the `repr`, which leaves out what shows in the samples anyway.
    """

    rules: Rules
    bands: tuple[str, ...]
    dem: bool
    patch: int
    gaps: Gaps | None
    discriminator_windows: tuple[int, int]
    """Time steps and edge of clear windows for an adversary; (0, 0) for none."""
    seed: int
    coherence: bool = False
    """With the coherence of SAR images, which every cube has."""
    splits: tuple[float, float, float] = field(default=(1, 0, 0), repr=False)
    block: int = field(default=0, repr=False)
    limits: Limits = field(default=(0, 0, 0), repr=False)
    seasons: bool = field(default=False, repr=False)
    dtype: str = field(default="int16", repr=False)
    progress: bool | None = field(default=None, repr=False)

    @property
    def form(self) -> Form:
        """What the layers of a sample are."""
        r, chosen = self.rules, self.rules.layout
        if chosen is None:
            names = tuple(map(str, range(r.dates)))
            every = (True,) * r.dates
            return Form(
                self.bands, names, self.patch, every, tuple(r.sar for _ in every), self.dem,
                self.gaps is not None, dtype=self.dtype, coherence=self.coherence,
            )  # fmt: skip
        return Form(
            self.bands,
            tuple(s.name for s in chosen.slots),
            self.patch,
            tuple(s.optical for s in chosen.slots),
            tuple(s.sar for s in chosen.slots),
            self.dem,
            False,
            layouts.dumps(chosen),
            chosen.name,
            self.dtype,
            self.coherence,
        )


@dataclass(frozen=True)
class Search:
    """The places where samples are looked for, and what is found there."""

    wanted: Wanted
    sites: Sequence[Site]
    where: Sequence[Patch]
    found: dict[int, Picks] = field(default_factory=dict)
    """Picks of each place, by its number."""
    removed: Counter[str] = field(default_factory=Counter)
    """How many each condition removed."""

    def windows(self, doing: str) -> Iterator[tuple[int, slice, slice, list[int]]]:
        """Cube, rows, columns and places that are read together, under a bar."""
        each, progress = list(windows(self.where, self.wanted.patch)), self.wanted.progress
        hidden = None if progress is None else not progress
        yield from tqdm(each, doing, disable=hidden, unit="window")

    def nothing(self, what: str) -> CubeError:
        """An error that says which condition removed how many."""
        tried = sum(self.sites[p.site].ds.sizes["time"] for p in self.where)
        most = self.removed.most_common(8)
        listed = "; ".join(f"{n} x {r}" for r, n in most) or "nothing was removed"
        return CubeError(
            f"{what.rstrip('.')}: of {tried} dates at all places these were removed: {listed}. "
            "Widen the condition that removed most, or give more or longer cubes."
        )


def wanted_of(what: Any, asked: Wanted) -> Wanted:
    """What was asked for, completed by a layout, its name, needs, or a method.

    Raises
    ------
    MethodError
        Gaps for a layout, or nothing says how many dates a window has.
    """
    chosen, needs = _asked(what)
    if chosen is not None and asked.gaps is not None:
        raise MethodError(
            f"Layout {chosen.name!r} shows a net one date and scores another: expected gaps=None, "
            f"got {type(asked.gaps).__name__}. Use Needs(...) in place of the layout to hide "
            "observations."
        )
    radar = asked.rules.sar and (needs.sar if chosen is None else any(s.sar for s in chosen.slots))
    if not isinstance(what, str | Layout | Needs):
        radar = asked.rules.sar and needs.sar
    if chosen is not None and not radar:
        chosen = without_sar(chosen)
    size = needs.space.size if isinstance(needs.space, Span) and not needs.space.pointwise else 64
    steps = needs.time.size if isinstance(needs.time, Span) and needs.time.size > 1 else 0
    dates = asked.rules.dates or steps
    if chosen is None and dates < 1:
        raise MethodError(
            f"dates={dates}: expected the time steps of a sample, which a method that sees the "
            "whole time axis leaves open. Pass dates=10."
        )
    stride = asked.rules.stride or max(1, dates // 2)
    return replace(
        asked,
        rules=replace(asked.rules, layout=chosen, sar=radar, dates=dates, stride=stride),
        bands=asked.bands or needs.bands or BANDS,
        dem=asked.dem or needs.dem,
        patch=asked.patch or size,
    )


def _asked(what: Any) -> tuple[Layout | None, Needs]:
    if isinstance(what, str):
        return layouts.load(what), Needs()
    if isinstance(what, Layout):
        return what, Needs()
    if isinstance(what, Needs):
        return None, what
    if isinstance(getattr(what, "needs", None), Needs):
        needs: Needs = what.needs
        if isinstance(needs.time, Span) or not isinstance(getattr(what, "layout", None), Layout):
            return None, needs
        return what.layout, needs
    raise MethodError(
        f"Expected a layout, the name of one, Needs or a method, got {type(what).__name__}. Use "
        "'msop' or cubefill.layout.load('msop')."
    )


def opened_cubes(
    cubes: Sequence[Any], bands: Sequence[str], sar: bool, dem: bool, *, placed: bool = True
) -> list[Site]:
    """Cubes as samples are taken from them: opened, or loaded from catalogues.

    Raises
    ------
    CubeError
        There is none, or one lacks a band, SAR or elevation.
    """
    if isinstance(cubes, str | Path | xr.Dataset) or len(cubes) == 0:
        got = "none" if not isinstance(cubes, str | Path | xr.Dataset) else "a single one"
        raise CubeError(f"cubes: expected a list of cubes, stores or catalogues, got {got}.")
    found = []
    for k, cube in enumerate(cubes):
        name = str(cube) if isinstance(cube, str | Path) else f"{k}"
        s = site(_opened(cube, bands, sar, dem), name, placed=placed)
        lacking = [b for b in bands if b not in spectral(s.ds)]
        lacking += [n for n in SAR_BANDS if sar and n not in s.ds]
        lacking += ["DEM"] if dem and "DEM" not in s.ds else []
        if lacking:
            raise CubeError(
                f"Cube {name} has no {', '.join(lacking)}: expected "
                f"{', '.join(bands)}{' with VV and VH' * sar}{' and DEM' * dem}. Pass bands= or "
                "sar=False to do without."
            )
        found.append(s)
    return found


def _opened(cube: Any, bands: Sequence[str], sar: bool, dem: bool) -> xr.Dataset:
    if isinstance(cube, xr.Dataset):
        return cube
    local = Path(cube) if isinstance(cube, str | Path) else None
    if local is not None and (local.suffix == ".zarr" or (local / "zarr.json").exists()):
        return open_cube(cube)
    if local is not None and local.suffix in (".npz", ".nc"):
        return minicube.read(local)
    return stac.load(cube if local is None else str(cube), bands=bands or BANDS, sar=sar, dem=dem)
