"""Windows of cubes that are clear all over, which a discriminator learns from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.addresses import local_path, writing
from cubefill.errors import CubeError
from cubefill.formats.earthnet import CleanWindow, parse_name
from cubefill.samples.places import Site

ClearWindows = Mapping[str, tuple[CleanWindow, ...]]

LETTERS = "CDEFGHJKLMNPQRSTUVWX"
"""Latitude bands of the military grid, 8 degrees each from 80 degrees south."""


def clear_corners(valid: NDArray[np.bool_], steps: int, size: int) -> list[tuple[int, int, int]]:
    """Corners `(time, y, x)` of windows that are clear all over, a quarter of `size` apart.

    Where there is none, those at every pixel.

    Examples
    --------
    >>> clear_corners(np.ones((3, 4, 4), bool), 2, 4)
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
    if not run[:, ::apart, ::apart].any():
        apart = 1
    corners = np.argwhere(run[:, ::apart, ::apart]) * [1, apart, apart]
    return [(int(t), int(y), int(x)) for t, y, x in corners]


def longest_runs(
    valid: NDArray[np.bool_], size: int, apart: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First step and length of the longest clear run of squares `apart` pixels from each other.

    Examples
    --------
    >>> valid = np.ones((5, 4, 4), bool)
    >>> valid[1, 0, 0] = False
    >>> [a.tolist() for a in longest_runs(valid, 4, 1)]
    [[[2]], [[3]]]
    """
    bad = np.pad((~valid).cumsum(1, dtype=np.int32).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    top, low = bad[:, :-size:apart], bad[:, size::apart]
    inside = low[..., size::apart] - low[..., :-size:apart]
    clear = inside == top[..., size::apart] - top[..., :-size:apart]
    run, best, stop = (np.zeros(clear.shape[1:], np.int64) for _ in range(3))
    for t, now in enumerate(clear):
        run = np.where(now, run + 1, 0)
        longer = run > best
        best, stop = np.where(longer, run, best), np.where(longer, t + 1, stop)
    return stop - best, best


def mined(
    sites: Sequence[Site], size: int, frames: int, most: int
) -> dict[str, tuple[CleanWindow, ...]]:
    """The longest clear windows of each cube by region, at most `most` a cube, none over another.

    Raises
    ------
    CubeError
        There is none; the message says how near the cubes come.
    """
    if size < 1 or frames < 1:
        raise CubeError(f"size={size}, frames={frames}: expected 1 or more of each.")
    found: dict[str, tuple[CleanWindow, ...]] = {}
    longest, small = 0, 0
    for s in sites:
        if min(s.size) < size:
            small += 1
            continue
        best, longest_here = clear_squares(s.ds["valid"].values, size, frames, most)
        longest = max(longest, longest_here)
        made = tuple(
            CleanWindow(s.name, size, row, col, s.steps[start:stop])
            for row, col, start, stop in best
        )
        if made:
            found[region_of(s)] = (*found.get(region_of(s), ()), *made)
    if not found:
        raise CubeError(
            f"No clear window of {size} px on {frames} time steps in {len(sites)} cubes: {small} "
            f"are smaller than {size} px, the longest clear run in the others has {longest} steps. "
            "Pass a smaller size= or frames=, or give more cubes."
        )
    return found


def clear_squares(
    valid: NDArray[np.bool_], size: int, frames: int, most: int
) -> tuple[list[tuple[int, int, int, int]], int]:
    """Row, column, first step and stop of the longest clear squares; and the longest run of all.

    Every fourth of `size` is looked at, and every pixel where none is found there.
    """
    longest = 0
    for apart in dict.fromkeys((max(1, size // 4), 1)):
        first, length = longest_runs(valid, size, apart)
        found = [
            (row * apart, col * apart, int(first[row, col]), int((first + length)[row, col]))
            for row, col in _apart(length, frames, most, apart, size)
        ]
        longest = int(length.max(initial=0))
        if found:
            break
    return found, longest


def _apart(
    length: NDArray[np.int64], frames: int, most: int, apart: int, size: int
) -> list[tuple[int, int]]:
    """Positions of the longest runs that do not overlap in space."""
    taken: list[tuple[int, int]] = []
    order = np.argsort(-length, axis=None, kind="stable")
    for row, col in zip(*np.unravel_index(order, length.shape), strict=True):
        if length[row, col] < frames or len(taken) == most:
            break
        near = (max(abs(row - r), abs(col - c)) * apart < size for r, c in taken)
        if not any(near):
            taken.append((int(row), int(col)))
    return taken


def region_of(site: Site) -> str:
    """UTM zone and latitude band of a cube, by the name of a minicube, else its middle: `31U`.

    Raises
    ------
    CubeError
        It has neither such a name nor a CRS.
    """
    named = parse_name(site.name)
    if named is not None:
        return named.region
    if site.crs is None:
        raise CubeError(
            f"Cube {site.name} has no CRS: expected one, or the file name of an EarthNet2021 "
            "minicube, to tell its region. Use odc.geo.xr.assign_crs(ds, 'EPSG:32631')."
        )
    from pyproj import Transformer

    turn: Any = Transformer.from_crs(site.crs.proj, "EPSG:4326", always_xy=True)
    (dy, dx), (top, left), (ny, nx) = site.step, site.corner, site.size
    lon, lat = turn.transform(left + nx * dx / 2, top - ny * dy / 2)
    epsg = site.crs.epsg or 0
    zone = epsg % 100 if 32601 <= epsg <= 32760 else int((lon + 180) // 6) + 1
    return f"{zone:02d}{LETTERS[int(np.clip((lat + 80) // 8, 0, 19))]}"


def write_clean_windows(path: str | Path, windows: ClearWindows) -> Path:
    """The JSON list of clean windows that `minicube.read_clean_windows` reads."""
    text = json.dumps({region: list(_entries(found)) for region, found in windows.items()})
    target = local_path(path)
    with writing(target):
        target.write_text(text)
    return target


def _entries(windows: Iterable[CleanWindow]) -> Iterable[dict[str, Any]]:
    for w in windows:
        yield {
            "path": w.path,
            "kernel size": w.size,
            "bbox": [w.row, w.column],
            "time steps": list(w.steps),
        }
