"""The samples of every place, read from the cubes and written one by one."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.errors import CubeError
from cubefill.gaps import Borrowed, Gaps, shapes_of
from cubefill.methods.contract import days_since
from cubefill.samples.clear_windows import clear_squares
from cubefill.samples.dates import Picks, season, windows
from cubefill.samples.form import Writer
from cubefill.samples.places import SPLITS, Patch, Site, write_footprints
from cubefill.samples.wanted import Wanted

DONORS = 16
"""Places whose gaps others borrow."""
SHAPES = 8
"""Gaps of each."""


def write_all(
    writer: Writer,
    sites: Sequence[Site],
    where: Sequence[Patch],
    chosen: Mapping[int, tuple[Picks, int]],
    split: Mapping[int, int],
    wanted: Wanted,
    removed: Counter[str],
    progress: bool | None,
) -> None:
    """Writes every sample that was chosen; `removed` counts those that no gap could be made in."""
    writer.begin(sum(min(len(p), n) for p, n in chosen.values()))
    borrowed = _donors(sites, where, chosen, wanted)
    each = list(windows(where, wanted.patch))
    for k, rows, cols, members in tqdm(each, "write", disable=hidden_bar(progress), unit="window"):
        taken = [i for i in members if i in chosen and chosen[i][1]]
        if not taken:
            continue
        area = _read(sites[k], rows, cols, [chosen[i][0] for i in taken], wanted)
        for i in taken:
            p = where[i]
            code = split[p.group]
            gaps = _given(wanted.gaps, borrowed, p.group)
            square = area.at(p, rows, cols, wanted.patch)
            _place(writer, square, p, i, code, chosen[i], replace(wanted, gaps=gaps), removed)
            if wanted.real[0]:
                _real(writer, sites[k], p, code, wanted)
    if wanted.real[0] and 0 in set(split.values()) and 0 not in writer.real_codes:
        steps, size = wanted.real
        raise CubeError(
            f"No place of the {SPLITS[0]} split is clear on {steps} time steps in a row over "
            f"{size} px. Pass a smaller real=(steps, size), or give more cubes."
        )


def hidden_bar(progress: bool | None) -> bool | None:
    """What tqdm's `disable` is for the argument `progress`."""
    return None if progress is None else not progress


@dataclass(frozen=True)
class _Area:
    """Pixels of a cube in memory: all dates that some sample needs."""

    site: Site
    step: Mapping[int, int]
    """Position on the cube's time axis to that in `optical`."""
    sar_step: Mapping[int, int]
    optical: NDArray[np.float32]
    valid: NDArray[np.bool_]
    sar: NDArray[np.float32]
    dem: NDArray[np.float32]

    def at(self, p: Patch, rows: slice, cols: slice, patch: int) -> "_Area":
        """One square of it."""
        y, x = p.row - rows.start, p.col - cols.start
        cut = (..., slice(y, y + patch), slice(x, x + patch))
        return replace(
            self, optical=self.optical[cut], valid=self.valid[cut], sar=self.sar[cut],
            dem=self.dem[cut],
        )  # fmt: skip

    def arrays(self, optical: NDArray[np.int64], sar: NDArray[np.int64]) -> dict[str, Any]:
        """The parts of a sample of some dates."""
        shown = [self.step[i] for i in optical.tolist() if i >= 0]
        empty = np.full((self.sar.shape[1], *self.dem.shape), np.nan, np.float32)
        radar = [self.sar[self.sar_step[i]] if i >= 0 else empty for i in sar.tolist()]
        images = np.stack(radar) if radar else self.sar[:0]
        return {
            "optical": self.optical[shown],
            "valid": self.valid[shown],
            "sar": images[:, :2],
            "coherence": images[:, 2:],
            "dem": self.dem,
        }


def _read(site: Site, rows: slice, cols: slice, picks: Sequence[Picks], wanted: Wanted) -> _Area:
    """Reads a window of a cube on the dates that its samples need."""
    ds = site.ds.isel(y=rows, x=cols)
    steps = np.unique(np.concatenate([p.optical.ravel() for p in picks]))
    steps = steps[steps >= 0]
    radar = np.unique(np.concatenate([p.sar.ravel() for p in picks]))
    radar = radar[radar >= 0]
    names = [*wanted.bands, "valid"]
    seen = ds[names].isel(time=steps).compute()
    shape = (ds.sizes["y"], ds.sizes["x"])
    sar = np.zeros((0, 2, *shape), np.float32)
    if wanted.rules.sar:
        axis = "sar_time" if "sar_time" in ds["VV"].dims else "time"
        bands = [*SAR_BANDS, *(COHERENCE if wanted.coherence else ())]
        found = ds[bands].isel({axis: radar}).compute()
        sar = np.stack([found[n].values for n in bands], axis=1).astype(np.float32)
    dem = ds["DEM"].values.astype(np.float32) if wanted.dem else np.zeros(shape, np.float32)
    return _Area(
        site,
        {int(t): n for n, t in enumerate(steps)},
        {int(t): n for n, t in enumerate(radar)},
        np.stack([seen[b].values for b in wanted.bands], axis=1).astype(np.float32, copy=False),
        seen["valid"].values,
        sar,
        dem,
    )


def _place(
    writer: Writer,
    area: _Area,
    p: Patch,
    number: int,
    code: int,
    chosen: tuple[Picks, int],
    wanted: Wanted,
    removed: Counter[str],
) -> None:
    """Writes the samples of one place until there are as many as may be."""
    picks, most = chosen
    count = 0
    for row in range(len(picks)):
        if count == most:
            break
        optical, sar = picks.optical[row], picks.sar[row]
        needed = [s for s, on in zip(sar.tolist(), writer.form.sar, strict=True) if on]
        arrays = area.arrays(optical, np.array(needed, np.int64))
        times = area.site.ds["time"].values.astype("datetime64[ns]")
        if wanted.gaps is not None:
            days = days_since(times[optical], times[optical[0]])
            try:
                gap_seed = int(
                    np.random.default_rng([wanted.seed, 14, number, row]).integers(2**31)
                )
                arrays["hidden"] = wanted.gaps.make(arrays["valid"], days, gap_seed)
            except CubeError as error:
                removed[f"no gap: {str(error).split(': expected')[0]}"] += 1
                continue
        reference = times[picks.reference[row]]
        entry = _facts(area.site, arrays, picks.optical[row], picks.sar[row])
        writer.add(arrays, {
            **entry, "split": np.int8(code), "place": np.int64(number), "group": np.int64(p.group),
            "cube": np.int32(p.site), "row": np.int32(p.row), "col": np.int32(p.col),
            "reference": reference, "season": season(np.array([reference]))[0],
            "bbox": np.concatenate([np.min(p.ring, 0), np.max(p.ring, 0)]),
        })  # fmt: skip
        count += 1


def _real(writer: Writer, site: Site, p: Patch, code: int, wanted: Wanted) -> None:
    """Writes the longest clear window of a place, where there is one of the length."""
    (steps, size), edge = wanted.real, wanted.patch
    square = site.ds.isel(y=slice(p.row, p.row + edge), x=slice(p.col, p.col + edge))
    if size > edge:
        raise CubeError(f"real={wanted.real}: expected windows of at most {edge} px, the patch.")
    found, _ = clear_squares(square["valid"].values, size, steps, 1)
    for row, col, start, stop in found:
        rng = np.random.default_rng([wanted.seed, 16, p.site, p.row, p.col])
        first = start + int(rng.integers(stop - start - steps + 1))
        part = square[list(wanted.bands)].isel(
            time=slice(first, first + steps), y=slice(row, row + size), x=slice(col, col + size)
        )
        part = part.compute()
        writer.add_real(np.stack([part[b].values for b in wanted.bands], axis=1), code)


def _facts(
    site: Site, arrays: Mapping[str, Any], optical: NDArray[np.int64], sar: NDArray[np.int64]
) -> dict[str, Any]:
    """Dates of a sample, of its SAR images too, and shares of clear pixels."""
    ds = site.ds
    none = np.datetime64("NaT", "ns")
    times = ds["time"].values.astype("datetime64[ns]")
    time = np.array([times[i] if i >= 0 else none for i in optical], "datetime64[ns]")
    if "sar_time" in ds:
        passes = ds["sar_time"].values.astype("datetime64[ns]")
    elif "sar_gap_hours" in ds:
        passes = times + (ds["sar_gap_hours"].values * 3.6e12).astype("timedelta64[ns]")
    else:
        passes = times
    orbits = ds["orbit"].values if "orbit" in ds else np.full(len(passes), "")
    clear = np.full(len(optical), np.nan, np.float32)
    clear[optical >= 0] = arrays["valid"].mean((1, 2))
    return {
        "time": time,
        "sar_time": np.array([passes[i] if i >= 0 else none for i in sar], "datetime64[ns]"),
        "ascending": np.array([_ascending(orbits[i]) if i >= 0 else -1 for i in sar], np.int8),
        "clear": clear,
    }


def _ascending(orbit: Any) -> int:
    return {"a": 1, "d": 0}.get(str(orbit)[:1].lower(), -1)


def _donors(
    sites: Sequence[Site],
    where: Sequence[Patch],
    chosen: Mapping[int, tuple[Picks, int]],
    wanted: Wanted,
) -> list[tuple[int, NDArray[np.bool_]]]:
    """Gaps of some places, with their groups."""
    if not isinstance(wanted.gaps, Borrowed) or len(wanted.gaps.shapes):
        return []
    rng = np.random.default_rng([wanted.seed, 15])
    pool: list[tuple[int, NDArray[np.bool_]]] = []
    for i in rng.permutation(sorted(chosen)).tolist()[:DONORS]:
        p = where[i]
        square = {
            "y": slice(p.row, p.row + wanted.patch), "x": slice(p.col, p.col + wanted.patch)
        }  # fmt: skip
        shapes = shapes_of(sites[p.site].ds["valid"].isel(square).values)
        pool += [(p.group, s) for s in rng.permutation(shapes)[:SHAPES]]
    return pool


def _given(
    gaps: Gaps | None, borrowed: Iterable[tuple[int, NDArray[np.bool_]]], group: int
) -> Gaps | None:
    """The gaps of a place, with the shapes of others."""
    shapes = [s for g, s in borrowed if g != group]
    return replace(gaps, shapes=np.stack(shapes)) if shapes and isinstance(gaps, Borrowed) else gaps


# ------------------------------------------------------------------ what is kept of it all


def attributes(
    sites: Sequence[Site], wanted: Wanted, rows: Sequence[Mapping[str, Any]], seed: int
) -> dict[str, Any]:
    """How the samples were made, and all acquisition dates of every cube."""
    counts = Counter(int(r["split"]) for r in rows)
    words = [wanted, *((r["time"].tolist(), r["bbox"].tolist(), int(r["split"])) for r in rows)]
    return {
        "samples": {n: counts[i] for i, n in enumerate(SPLITS)},
        "gaps": repr(wanted.gaps),
        "seed": seed,
        "cubes": [s.name for s in sites],
        "acquisitions": {
            str(k): [str(t) for t in s.ds["time"].values.astype("datetime64[s]")]
            for k, s in enumerate(sites)
        },
        "sar_acquisitions": {
            str(k): [str(t) for t in s.ds["sar_time"].values.astype("datetime64[s]")]
            for k, s in enumerate(sites)
            if "sar_time" in s.ds
        },
        "digest": hashlib.sha256(repr(words).encode()).hexdigest()[:16],
    }


def footprints(
    path: Path, where: Sequence[Patch], rows: Sequence[Mapping[str, Any]], sites: Sequence[Site]
) -> None:
    """Writes the places beside the store."""
    of_place: dict[int, list[Mapping[str, Any]]] = {}
    for r in rows:
        of_place.setdefault(int(r["place"]), []).append(r)
    features = [
        (
            where[i],
            {
                "split": SPLITS[int(found[0]["split"])],
                "samples": len(found),
                "cube": sites[where[i].site].name,
                "row": where[i].row,
                "col": where[i].col,
                "dates": sorted({str(r["reference"].astype("datetime64[D]")) for r in found}),
            },
        )
        for i, found in sorted(of_place.items())
    ]
    write_footprints(path.with_suffix(".geojson"), features)
