"""Training samples in a Zarr store: from cubes or catalogues, split by place, read lazily.

A sample is a square of a cube on some dates. The dates are those that a layout chooses around each
acquisition (Cresson et al., 2022), or windows of consecutive dates with artificial gaps. Splits
share no ground: places that touch the same ground, in whatever cube, CRS or year, are in one split.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cubefill.addresses import local_path
from cubefill.cube.bands import COHERENCE
from cubefill.errors import CubeError, StoreError
from cubefill.formats.earthnet import CleanWindow
from cubefill.gaps import Gaps
from cubefill.imports import renamed
from cubefill.methods.contract import Needs
from cubefill.ownership import (
    ID,
    WRITER,
    claim,
    claim_files,
    document,
    foreign_in_store,
    marks,
    refuse_source,
    remove_store,
)
from cubefill.samples.clear_windows import mined
from cubefill.samples.clear_windows import write_clean_windows as write_clean_windows
from cubefill.samples.dates import Rules, facts, ordered, pick, season
from cubefill.samples.form import KIND, Writer
from cubefill.samples.places import SPLITS, Site, assign, places
from cubefill.samples.stored import StoredSamples as StoredSamples
from cubefill.samples.stored import opened
from cubefill.samples.wanted import BANDS as BANDS
from cubefill.samples.wanted import Limits, Search, Wanted, opened_cubes, wanted_of
from cubefill.samples.writing import Chosen, attributes, footprints, write_all
from cubefill.store.source import stores_of


@renamed(ways="draws", real="discriminator_windows")
def make(
    cubes: Sequence[Any],
    what: Any,
    gaps: Gaps | None = None,
    target: str | Path = "samples.zarr",
    *,
    bands: Sequence[str] = (),
    sar: bool = True,
    dem: bool = False,
    patch: int = 0,
    dates: int = 0,
    stride: int = 0,
    draws: int = 1,
    clear_dates: float = 0.0,
    min_clear: float = 0.0,
    drop_impaired: bool = False,
    splits: tuple[float, float, float] = (0.8, 0.05, 0.15),
    block: int = 0,
    max_per_place: int | Limits = (50, 50, 0),
    seasons: bool = False,
    discriminator_windows: tuple[int, int] = (0, 0),
    dtype: str = "int16",
    seed: int = 0,
    overwrite: bool = False,
    progress: bool | None = None,
) -> StoredSamples:
    """The training samples of a new store; `open` reads the other splits.

    Beside the store lies a GeoJSON file of the places, their splits and dates.

    Parameters
    ----------
    cubes
        Cubes, stores of cubes, catalogues (folders, files or URLs of STAC), or items.
    what
        What a sample is: a `Layout` or the name of a published one; `Needs`; or a method, whose
        `needs` and, where it has one, `layout` are taken.
    gaps
        Observations to hide in windows of consecutive dates. `Borrowed()` without shapes borrows
        those of other places. A layout hides nothing: its target is another date.
    target
        Folder of the store, `.zarr`.
    bands
        Bands; by default those that `what` needs, else `BANDS`.
    sar
        False leaves SAR out, and the layout's conditions on it. Coherence comes with SAR where
        every cube has it.
    dem
        True adds elevation where `what` does not ask for it.
    patch
        Edge in pixels; by default that of `what`, else 64.
    dates
        Time steps of a window, where `what` sees the whole time axis.
    stride
        Time steps from one window to the next; 0 for half a window.
    draws
        Choices of dates drawn for one reference date of a layout.
    clear_dates
        Dates with a smaller share of clear pixels at a place are left out before windows are cut;
        U-TILISE trains on those above 0.95.
    min_clear
        Smallest share of clear observations over the dates of a sample.
    drop_impaired
        True leaves out dates that are `gaps.impaired` at a place before windows are cut, judged by
        `cloud_probability` in cubes that have it.
    splits
        Shares of samples in train, validation and test.
    block
        Edge in pixels of the squares that go to one split as a whole; 0 for a patch.
    max_per_place
        Most samples of one place, for all splits or for each; 0 for any number.
    seasons
        True takes the seasons of a place in turns where `max_per_place` leaves some out.
    discriminator_windows
        Time steps and edge of the clear windows that an adversary learns from: (4, 64) for
        GANFilling; (0, 0) for none. Each lies in a place, and is shown in its split alone.
    dtype
        "int16" stores reflectance to 1e-4, SAR to 0.002 dB, elevation to 0.25 m; "float32" all.
    seed
        Decides the split, draws of dates, and gaps.
    overwrite
        True replaces a store of samples.
    progress
        None draws a bar on a terminal; True and False force it.

    Raises
    ------
    CubeError
        No place, no sample, or a split without any; the message says which condition removed how
        many. A cube lacks a band, SAR or elevation.
    MethodError
        A window without its number of dates, or gaps for a layout.
    StoreError
        The target exists.

    Examples
    --------
    >>> import tempfile
    >>> from cubefill import samples
    >>> from cubefill.gaps import Blobs
    >>> from cubefill.methods.contract import Needs
    >>> from cubefill.testing import synthetic_cube
    >>> path = tempfile.mkdtemp() + "/samples.zarr"
    >>> cube = synthetic_cube(12, (64, 64))
    >>> train = samples.make([cube], Needs(), Blobs(), path, patch=16, dates=6)
    >>> sorted(train[0])
    ['days', 'optical', 'target', 'valid', 'where']
    """
    limits = max_per_place if isinstance(max_per_place, tuple) else (max_per_place,) * 3
    rules = Rules(None, sar, dates, stride, draws, clear_dates, min_clear, drop_impaired)
    asked = Wanted(
        rules, tuple(bands), dem, patch, gaps, discriminator_windows, seed, splits=splits,
        block=block, limits=limits, seasons=seasons, dtype=dtype, progress=progress,
    )  # fmt: skip
    wanted = wanted_of(what, asked)
    path = _new(target, overwrite)
    sites = opened_cubes(cubes, wanted.bands, wanted.rules.sar, wanted.dem)
    read = [p for s in sites for p in stores_of(s.ds)]
    refuse_source(path, [*read, *(c for c in cubes if isinstance(c, str | Path))])
    coherence = wanted.rules.sar and all(n in s.ds for s in sites for n in COHERENCE)
    search = _searched(replace(wanted, coherence=coherence), sites)
    split = _split(search)
    part = path.with_name(path.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    writer = Writer(part, search.wanted.form)
    try:
        write_all(writer, search, _thinned(search, split))
        _check_splits(writer.rows, search)
        writer.end(attributes(search, writer.rows))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if path.exists():
        remove_store(path)
    part.rename(path)
    footprints(path, search, writer.rows)
    first = next(n for n, share in zip(SPLITS, splits, strict=True) if share)
    return StoredSamples(str(path), first)


@renamed(turns="augment")
def open(
    path: str | Path,
    split: str = "train",
    method: Any = None,
    *,
    augment: bool = False,
    seasons: bool = False,
    seed: int = 0,
) -> StoredSamples:
    """Samples of one split, each read when it is asked for; a dataset for torch's `DataLoader`.

    Without a method a sample is a dict of float32 arrays, NaN where there is no data, and bool
    ones: of a layout `s2_<slot> (band, y, x)`, `s1_<slot> (2, y, x)` in dB, `valid_<slot> (y, x)`;
    of a window `optical (date, band, y, x)`, `valid (date, y, x)`, `sar (date, 2, y, x)`, `target`
    and `where (date, band, y, x)`; `days (date,)` after the first, and `dem (1, y, x)` in m.

    Parameters
    ----------
    path
        A store that `make` wrote.
    split
        "train", "validation" or "test".
    method
        Gives `encode` and `target`: a sample is then what its net is trained on.
    augment
        True flips and turns samples, anew in each epoch.
    seasons
        True draws each sample's season first, so that all have the same weight.
    seed
        Decides turns and draws.

    Raises
    ------
    StoreError
        The path holds no samples, the split is unknown or empty, or the method needs other bands.
    """
    group = opened(path)
    if split not in SPLITS:
        raise StoreError(f"split={split!r}: expected one of {', '.join(SPLITS)}.")
    found = StoredSamples(str(path), split, method, augment, seasons, seed)
    if len(found) == 0:
        counts = group.attrs["samples"]
        raise StoreError(
            f"{path} has no {split} samples (it holds {counts}): expected a split with a share. "
            "Use samples.make(..., splits=(0.8, 0.05, 0.15))."
        )
    wanted = getattr(method, "needs", Needs()).bands
    if not set(wanted) <= set(held := found.form.bands):
        raise StoreError(
            f"{path} holds samples of {', '.join(held)}: expected {', '.join(wanted)}, which "
            f"{type(method).__name__} needs. Use samples.make(..., bands={wanted}) to write them."
        )
    return found


def mine_clean_windows(
    cubes: Sequence[Any], size: int = 64, frames: int = 4, *, most: int = 8
) -> dict[str, tuple[CleanWindow, ...]]:
    """Region ("31U") to squares of cubes that are clear on `frames` time steps in a row or more.

    The longest runs of each cube, at most `most`, none over another: what GANFilling's
    discriminator learns real images from. `write_clean_windows` writes the list as its authors do.

    Raises
    ------
    CubeError
        There is none; the message says how near the cubes come.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> cube = synthetic_cube(6, (32, 32), gap=0.0)
    >>> mine_clean_windows([cube], 32)["31U"][0].steps
    (0, 1, 2, 3, 4, 5)
    """
    return mined(opened_cubes(cubes, (), False, False, placed=False), size, frames, most)


# ------------------------------------------------------------------ searching


def _searched(wanted: Wanted, sites: Sequence[Site]) -> Search:
    """Every place of the cubes, its picks, and what the conditions removed."""
    search = Search(wanted, sites, places(sites, wanted.patch, wanted.block))
    for k, rows, cols, members in search.windows("search"):
        known = facts(sites[k], rows, cols, wanted.patch, wanted.rules)
        for i in members:
            p = search.where[i]
            rng = np.random.default_rng([wanted.seed, 12, k, p.row, p.col])
            search.found[i] = pick(known[p.row, p.col], wanted.rules, rng, search.removed)
    return search


def _split(search: Search) -> dict[int, int]:
    """Group to split, by the samples that the groups can give."""
    wanted, limit = search.wanted, search.wanted.limits[0]
    weights: Counter[int] = Counter()
    for i, picks in search.found.items():
        weights[search.where[i].group] += min(len(picks), limit) if limit else len(picks)
    weights = Counter({g: n for g, n in weights.items() if n})
    if not weights:
        raise search.nothing("No sample")
    try:
        return assign(weights, wanted.splits, np.random.default_rng([wanted.seed, 11]))
    except CubeError as error:
        if not search.removed or len(weights) == len({p.group for p in search.where}):
            raise
        raise search.nothing(str(error)) from error


def _thinned(search: Search, split: Mapping[int, int]) -> dict[int, Chosen]:
    """What is taken of each place, in order; coinciding places share."""
    where, wanted = search.where, search.wanted
    spots: dict[tuple[int, int, int], list[int]] = {}
    for i, picks in search.found.items():
        if len(picks):
            spots.setdefault(where[i].spot, []).append(i)
    chosen = {}
    for members in spots.values():
        code = split[where[members[0]].group]
        limit = wanted.limits[code]
        for n, i in enumerate(members):
            picks, times = search.found[i], search.sites[where[i].site].ds["time"].values
            rng = np.random.default_rng([wanted.seed, 13, i])
            order = ordered(season(times[picks.reference]), wanted.seasons, rng)
            share = limit // len(members) + (n < limit % len(members))
            chosen[i] = Chosen(picks[order], share if limit else len(order), code)
    return chosen


def _new(target: str | Path, overwrite: bool) -> Path:
    """The path, once all that would be replaced is known to be ours."""
    path = local_path(target)
    path = path.resolve() if path.is_symlink() else path
    for place, again in ((path, overwrite), (path.with_name(path.name + ".part"), True)):
        if place.is_dir() and not any(place.iterdir()):
            continue
        if place.exists() or place.is_symlink():
            attrs = marks(str(place)) or {}
            ours = attrs.get("kind") == KIND or (place != path and ID in attrs)
            foreign = foreign_in_store(place, attrs) if ours else ()
            claim(place, "store of samples", ours=ours, foreign=foreign, overwrite=again)
    beside = path.with_suffix(".geojson")
    claim_files([beside], "map of samples", lambda p: WRITER in (document(p) or {}).values())
    return path


def _check_splits(rows: Sequence[Mapping[str, Any]], search: Search) -> None:
    shares, counts = search.wanted.splits, Counter(int(r["split"]) for r in rows)
    empty = [SPLITS[i] for i in range(3) if shares[i] > 0 and not counts[i]]
    if empty:
        raise search.nothing(f"No sample in {', '.join(empty)}, which splits={shares} asks for")
