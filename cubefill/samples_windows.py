"""Windows of cubes that are clear all over, which a discriminator learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import CubeError
from cubefill.samples_places import Source

LETTERS = "CDEFGHJKLMNPQRSTUVWX"
"""Latitude bands of the military grid, 8 degrees each from 80 degrees south."""


@dataclass(frozen=True)
class CleanWindow:
    """A square that is clear on consecutive time steps."""

    path: str
    """Name of the cube."""
    region: str
    """UTM zone and latitude band: `31U`."""
    size: int
    """Edge in pixels."""
    row: int
    col: int
    """Its first pixel."""
    steps: tuple[int, ...]
    """Positions on the cube's time axis, of consecutive days that it was seen on."""


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


def mined(sources: Sequence[Source], size: int, frames: int, most: int) -> list[CleanWindow]:
    """The longest clear windows of each cube, at most `most` of them, none over another.

    Raises
    ------
    CubeError
        There is none; the message says how near the cubes come.
    """
    if size < 1 or frames < 1:
        raise CubeError(f"size={size}, frames={frames}: expected 1 or more of each.")
    apart = max(1, size // 4)
    found: list[CleanWindow] = []
    longest, small = 0, 0
    for s in sources:
        if min(s.size) < size:
            small += 1
            continue
        first, length = longest_runs(s.ds["valid"].values, size, apart)
        longest = max(longest, int(length.max(initial=0)))
        for row, col in _apart(length, frames, most, apart, size):
            n = int(length[row, col])
            start = int(first[row, col])
            y, x = row * apart, col * apart
            run = s.steps[start : start + n]
            found.append(CleanWindow(s.name, region_of(s), size, y, x, run))
    if not found:
        raise CubeError(
            f"No clear window of {size} px on {frames} time steps in {len(sources)} cubes: {small} "
            f"are smaller than {size} px, the longest clear run in the others has {longest} steps. "
            "Type a smaller size= or frames=, or give more cubes."
        )
    return found


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


def region_of(source: Source) -> str:
    """UTM zone and latitude band of the middle of a cube: `31U`."""
    from pyproj import Transformer

    turn: Any = Transformer.from_crs(source.crs.proj, "EPSG:4326", always_xy=True)
    (dy, dx), (top, left), (ny, nx) = source.step, source.corner, source.size
    lon, lat = turn.transform(left + nx * dx / 2, top - ny * dy / 2)
    epsg = source.crs.epsg or 0
    zone = epsg % 100 if 32601 <= epsg <= 32760 else int((lon + 180) // 6) + 1
    return f"{zone:02d}{LETTERS[int(np.clip((lat + 80) // 8, 0, 19))]}"
