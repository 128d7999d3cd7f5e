"""The samples of every place, read from the cubes and written one by one."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.errors import CubeError
from cubefill.gaps import Borrowed, Gaps, shapes_of
from cubefill.methods.contract import days_since
from cubefill.ownership import WRITER
from cubefill.samples.clear_windows import clear_squares
from cubefill.samples.dates import Picks, season
from cubefill.samples.form import Writer
from cubefill.samples.places import SPLITS, Patch, Site
from cubefill.samples.wanted import Search, Wanted

DONORS = 16
"""Places whose gaps others borrow."""
SHAPES = 8
"""Gaps of each."""


class Chosen(NamedTuple):
    """What is taken of a place."""

    picks: Picks
    most: int
    """How many of them, in their order."""
    split: int


def write_all(writer: Writer, search: Search, chosen: Mapping[int, Chosen]) -> None:
    """Writes all that was chosen; `search.removed` counts what no gap could be made in."""
    wanted = search.wanted
    writer.begin(sum(min(len(c.picks), c.most) for c in chosen.values()))
    borrowed = _donors(search, chosen)
    for k, rows, cols, members in search.windows("write"):
        taken = [i for i in members if i in chosen and chosen[i].most]
        if not taken:
            continue
        area = _read(search.sites[k], rows, cols, [chosen[i].picks for i in taken], wanted)
        for i in taken:
            p = search.where[i]
            gaps = _given(wanted.gaps, borrowed, p.group)
            _place(writer, search, area.at(p, rows, cols, wanted.patch), i, chosen[i], gaps)
            if wanted.discriminator_windows[0]:
                _clear_window(writer, search.sites[k], p, chosen[i].split, wanted)
    trained = any(c.split == 0 for c in chosen.values())
    steps, size = wanted.discriminator_windows
    if steps and trained and 0 not in writer.window_splits:
        raise CubeError(
            f"No place of the {SPLITS[0]} split is clear on {steps} time steps in a row over "
            f"{size} px. Pass a smaller discriminator_windows=(steps, size), or give more cubes."
        )


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
    writer: Writer, search: Search, area: _Area, number: int, chosen: Chosen, gaps: Gaps | None
) -> None:
    """Writes the samples of one place until there are as many as may be."""
    p, picks, seed = search.where[number], chosen.picks, search.wanted.seed
    times = area.site.ds["time"].values.astype("datetime64[ns]")
    count = 0
    for row in range(len(picks)):
        if count == chosen.most:
            break
        optical, sar = picks.optical[row], picks.sar[row]
        needed = [s for s, on in zip(sar.tolist(), writer.form.sar, strict=True) if on]
        arrays = area.arrays(optical, np.array(needed, np.int64))
        if gaps is not None:
            days = days_since(times[optical], times[optical[0]])
            try:
                drawn = np.random.default_rng([seed, 14, number, row]).integers(2**31)
                arrays["hidden"] = gaps.make(arrays["valid"], days, int(drawn))
            except CubeError as error:
                search.removed[f"no gap: {str(error).split(': expected')[0]}"] += 1
                continue
        reference = times[picks.reference[row]]
        entry = _facts(area.site, arrays, optical, sar)
        writer.add(arrays, {
            **entry, "split": np.int8(chosen.split), "place": np.int64(number),
            "group": np.int64(p.group), "cube": np.int32(p.site),
            "row": np.int32(p.row), "col": np.int32(p.col),
            "reference": reference, "season": season(np.array([reference]))[0],
            "bbox": np.concatenate([np.min(p.ring, 0), np.max(p.ring, 0)]),
        })  # fmt: skip
        count += 1


def _clear_window(writer: Writer, site: Site, p: Patch, code: int, wanted: Wanted) -> None:
    """Writes the longest clear window of a place, where there is one of the length."""
    (steps, size), edge = wanted.discriminator_windows, wanted.patch
    square = site.ds.isel(y=slice(p.row, p.row + edge), x=slice(p.col, p.col + edge))
    if size > edge:
        raise CubeError(
            f"discriminator_windows=({steps}, {size}): expected windows of at most {edge} px, the "
            f"patch. Pass discriminator_windows=({steps}, {edge})."
        )
    found, _ = clear_squares(square["valid"].values, size, steps, 1)
    for row, col, start, stop in found:
        rng = np.random.default_rng([wanted.seed, 16, p.site, p.row, p.col])
        first = start + int(rng.integers(stop - start - steps + 1))
        part = square[list(wanted.bands)].isel(
            time=slice(first, first + steps), y=slice(row, row + size), x=slice(col, col + size)
        )
        part = part.compute()
        writer.add_window(np.stack([part[b].values for b in wanted.bands], axis=1), code)


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


def _donors(search: Search, chosen: Iterable[int]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Gaps of some places, with their groups."""
    wanted = search.wanted
    if not isinstance(wanted.gaps, Borrowed) or len(wanted.gaps.shapes):
        return []
    rng = np.random.default_rng([wanted.seed, 15])
    pool: list[tuple[int, NDArray[np.bool_]]] = []
    for i in rng.permutation(sorted(chosen)).tolist()[:DONORS]:
        p, edge = search.where[i], wanted.patch
        square = {"y": slice(p.row, p.row + edge), "x": slice(p.col, p.col + edge)}
        shapes = shapes_of(search.sites[p.site].ds["valid"].isel(square).values)
        pool += [(p.group, s) for s in rng.permutation(shapes)[:SHAPES]]
    return pool


def _given(
    gaps: Gaps | None, borrowed: Iterable[tuple[int, NDArray[np.bool_]]], group: int
) -> Gaps | None:
    """The gaps of a place, with the shapes of others."""
    shapes = [s for g, s in borrowed if g != group]
    return replace(gaps, shapes=np.stack(shapes)) if shapes and isinstance(gaps, Borrowed) else gaps


# ------------------------------------------------------------------ what is kept of it all


def attributes(search: Search, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the samples were made, and all acquisition dates of every cube."""
    wanted = search.wanted
    counts = Counter(int(r["split"]) for r in rows)
    words = [wanted, *((r["time"].tolist(), r["bbox"].tolist(), int(r["split"])) for r in rows)]
    # Version 0.1 called the windows "real": equal samples keep their digest.
    known = repr(words).replace("discriminator_windows=", "real=")
    return {
        "samples": {n: counts[i] for i, n in enumerate(SPLITS)},
        "gaps": repr(wanted.gaps),
        "seed": wanted.seed,
        "cubes": [s.name for s in search.sites],
        "acquisitions": _acquisitions(search.sites, "time"),
        "sar_acquisitions": _acquisitions(search.sites, "sar_time"),
        "digest": hashlib.sha256(known.encode()).hexdigest()[:16],
    }


def _acquisitions(sites: Sequence[Site], axis: str) -> dict[str, list[str]]:
    """Number of each cube that has the axis to its dates."""
    return {
        str(k): s.ds[axis].values.astype("datetime64[s]").astype(str).tolist()
        for k, s in enumerate(sites)
        if axis in s.ds
    }


def footprints(path: Path, search: Search, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a GeoJSON file of the places beside the store."""
    of_place: dict[int, list[Mapping[str, Any]]] = {}
    for r in rows:
        of_place.setdefault(int(r["place"]), []).append(r)
    features = []
    for i, found in sorted(of_place.items()):
        p = search.where[i]
        ring = [[round(v, 7) for v in corner] for corner in (*p.ring, p.ring[0])]
        properties = {
            "split": SPLITS[int(found[0]["split"])],
            "samples": len(found),
            "cube": search.sites[p.site].name,
            "row": p.row,
            "col": p.col,
            "dates": sorted({str(r["reference"].astype("datetime64[D]")) for r in found}),
        }
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    made = {"type": "FeatureCollection", "description": WRITER, "features": features}
    path.with_suffix(".geojson").write_text(json.dumps(made))
