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
from tqdm import tqdm

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
    local,
    marks,
    refuse_source,
    remove_store,
)
from cubefill.samples.clear_windows import mined
from cubefill.samples.clear_windows import write_clean_windows as write_clean_windows
from cubefill.samples.dates import Picks, Rules, facts, none_found, ordered, pick, season, windows
from cubefill.samples.form import KIND, Writer
from cubefill.samples.places import SPLITS, Patch, Site, assign, places
from cubefill.samples.stored import StoredSamples as StoredSamples
from cubefill.samples.stored import opened
from cubefill.samples.wanted import BANDS as BANDS
from cubefill.samples.wanted import Wanted, opened_cubes, wanted_of
from cubefill.samples.writing import attributes, footprints, hidden_bar, write_all
from cubefill.store.source import stores_of

Limits = tuple[int, int, int]


@renamed(ways="draws")
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
    real: tuple[int, int] = (0, 0),
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
    real
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
    asked = Rules(None, sar, dates, stride, draws, clear_dates, min_clear, drop_impaired)
    wanted = wanted_of(what, gaps, asked, bands, dem, patch, real, seed)
    path = _new(target, overwrite)
    sites = opened_cubes(cubes, wanted.bands, wanted.rules.sar, wanted.dem)
    read = [p for s in sites for p in stores_of(s.ds)]
    refuse_source(path, [*read, *(c for c in cubes if isinstance(c, str | Path))])
    coherence = wanted.rules.sar and all(n in s.ds for s in sites for n in COHERENCE)
    wanted = replace(wanted, coherence=coherence)
    where = places(sites, wanted.patch, block)
    found, removed, tried = _searched(sites, where, wanted, progress)
    split = _split(where, found, limits, splits, np.random.default_rng([seed, 11]), removed, tried)
    part = path.with_name(path.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    writer = Writer(part, wanted.form(dtype))
    try:
        chosen = _thinned(sites, where, found, split, limits, seasons, seed)
        write_all(writer, sites, where, chosen, split, wanted, removed, progress)
        _check_splits(writer.rows, splits, removed, tried)
        writer.end(attributes(sites, wanted, writer.rows, seed))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if path.exists():
        remove_store(path)
    part.rename(path)
    footprints(path, where, writer.rows, sites)
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


def _searched(
    sites: Sequence[Site], where: Sequence[Patch], wanted: Wanted, progress: bool | None
) -> tuple[dict[int, Picks], Counter[str], int]:
    """Picks of each place, what the conditions removed, and how many dates were tried."""
    found: dict[int, Picks] = {}
    removed: Counter[str] = Counter()
    tried = 0
    each = list(windows(where, wanted.patch))
    for k, rows, cols, members in tqdm(each, "search", disable=hidden_bar(progress), unit="window"):
        known = facts(sites[k], rows, cols, wanted.patch, wanted.rules)
        for i in members:
            fact = known[where[i].row, where[i].col]
            rng = np.random.default_rng([wanted.seed, 12, k, where[i].row, where[i].col])
            found[i] = pick(fact, wanted.rules, rng, removed)
            tried += len(fact.times)
    return found, removed, tried


def _split(
    where: Sequence[Patch],
    found: Mapping[int, Picks],
    limits: Limits,
    shares: tuple[float, float, float],
    rng: np.random.Generator,
    removed: Counter[str],
    tried: int,
) -> dict[int, int]:
    """Group to split, by the samples that the groups can give."""
    weights: Counter[int] = Counter()
    for i, picks in found.items():
        weights[where[i].group] += min(len(picks), limits[0]) if limits[0] else len(picks)
    weights = Counter({g: n for g, n in weights.items() if n})
    if not weights:
        raise none_found(removed, tried, "No sample")
    try:
        return assign(weights, shares, rng)
    except CubeError as error:
        if not removed or len(weights) == len({p.group for p in where}):
            raise
        raise none_found(removed, tried, str(error)) from error


def _thinned(
    sites: Sequence[Site],
    where: Sequence[Patch],
    found: Mapping[int, Picks],
    split: Mapping[int, int],
    limits: Limits,
    even: bool,
    seed: int,
) -> dict[int, tuple[Picks, int]]:
    """Picks of each place in the order they are taken, and how many; coinciding places share."""
    spots: dict[tuple[int, int, int], list[int]] = {}
    for i, picks in found.items():
        if len(picks):
            spots.setdefault(where[i].spot, []).append(i)
    chosen = {}
    for members in spots.values():
        limit = limits[split[where[members[0]].group]]
        for n, i in enumerate(members):
            times = sites[where[i].site].ds["time"].values
            rng = np.random.default_rng([seed, 13, i])
            order = ordered(season(times[found[i].reference]), even, rng)
            share = limit // len(members) + (n < limit % len(members))
            chosen[i] = (found[i][order], share if limit else len(order))
    return chosen


def _new(target: str | Path, overwrite: bool) -> Path:
    """The path, once all that would be replaced is known to be ours."""
    path = Path(local(str(target)))
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


def _check_splits(
    rows: Sequence[Mapping[str, Any]],
    shares: tuple[float, float, float],
    removed: Counter[str],
    tried: int,
) -> None:
    counts = Counter(int(r["split"]) for r in rows)
    empty = [SPLITS[i] for i in range(3) if shares[i] > 0 and not counts[i]]
    if empty:
        what = f"No sample in {', '.join(empty)}, which splits={shares} asks for"
        raise none_found(removed, tried, what)
