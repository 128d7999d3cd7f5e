"""How one raster grid lies under another; grids are `odc.geo.geobox.GeoBox`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

Window = tuple[slice, slice]
Bounds = tuple[float, float, float, float]

SAME = 0.02
"""Largest shift in pixels at which two grids of one pixel size count as one."""


@dataclass(frozen=True)
class GridFit:
    """How a source grid lies under a target grid."""

    source: Window
    """Pixels of the source that the target needs, without margin."""
    target: Window
    """Pixels of the target that the source reaches."""
    exact: bool
    """True when the pixels coincide one to one."""
    shrink: float
    """Source pixels along one target pixel."""


def grid_of(crs: Any, transform: Sequence[Any], shape: Sequence[Any]) -> Any:
    """The grid of a CRS, six numbers of an affine transform, rows and columns."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    rows, cols = map(int, shape)
    return GeoBox((rows, cols), Affine(*map(float, transform[:6])), crs)


def part(grid: Any, window: Window) -> Any:
    """The grid of a window, without the product of transforms at which affine 3 warns."""
    rows, cols = window
    a, b, c, d, e, f, *_ = grid.affine
    x = a * cols.start + b * rows.start + c
    y = d * cols.start + e * rows.start + f
    shape = rows.stop - rows.start, cols.stop - cols.start
    return grid_of(grid.crs, (a, b, x, d, e, y), shape)


def straight(grid: Any) -> bool:
    """True when x ascends, y descends, and nothing is rotated."""
    a, b, _, d, e, *_ = grid.affine
    return bool(b == 0 and d == 0 and a > 0 and e < 0)


def everything(grid: Any) -> Window:
    """The window of all pixels."""
    return slice(0, grid.shape[0]), slice(0, grid.shape[1])


def fit(source: Any, target: Any) -> GridFit | None:
    """How a source lies under a target, or None where they do not meet."""
    if source.crs != target.crs or not straight(source) or not straight(target):
        return _fit_bounds(source, target)
    a, _, c, _, e, f, *_ = source.affine
    to = target.affine
    y = _axis(source.shape[0], target.shape[0], to.e / e, (to.f - f) / e)
    x = _axis(source.shape[1], target.shape[1], to.a / a, (to.c - c) / a)
    if x is None or y is None:
        return None
    return GridFit((y[0], x[0]), (y[1], x[1]), x[2] and y[2], max(x[3], y[3]))


def _axis(
    have: int, want: int, ratio: float, shift: float
) -> tuple[slice, slice, bool, float] | None:
    """Source slice, target slice, whether exact, and shrink, along one axis."""
    if abs(ratio - 1) * max(have, want) < SAME and abs(shift - round(shift)) < SAME:
        whole = round(shift)
        a, b = max(0, -whole), min(want, have - whole)
        return (slice(a + whole, b + whole), slice(a, b), True, 1.0) if b > a else None
    tiny = 1e-6
    a = max(0, floor(-shift / ratio + tiny))
    b = min(want, ceil((have - shift) / ratio - tiny))
    if b <= a:
        return None
    first = max(0, floor(shift + a * ratio + tiny))
    last = min(have, ceil(shift + b * ratio - tiny))
    return slice(first, last), slice(a, b), False, ratio


def _fit_bounds(source: Any, target: Any) -> GridFit | None:
    """The same for grids of two CRS, from transformed bounds: may be larger than needed."""
    w, s, e, n = there = _bounds(source, target.crs)
    reach, needed = _window(target, there), _window(source, _bounds(target, source.crs))
    if reach is None or needed is None:
        return None
    pixels = 1.0
    if e > w and n > s:
        pixels = (e - w) * (n - s) / abs(target.affine.a * target.affine.e)
    rows, cols = source.shape
    return GridFit(needed, reach, False, max((rows * cols / max(pixels, 1e-9)) ** 0.5, 1e-6))


def _window(grid: Any, bounds: Bounds) -> Window | None:
    if not straight(grid):
        return everything(grid)
    a, _, c, _, e, f, *_ = grid.affine
    w, s, east, n = bounds
    cols = slice(max(0, floor((w - c) / a) - 1), min(grid.shape[1], ceil((east - c) / a) + 1))
    rows = slice(max(0, floor((n - f) / e) - 1), min(grid.shape[0], ceil((s - f) / e) + 1))
    return (rows, cols) if rows.stop > rows.start and cols.stop > cols.start else None


def _bounds(grid: Any, crs: Any) -> Bounds:
    from rasterio.warp import transform_bounds

    w, s, e, n = transform_bounds(str(grid.crs), str(crs), *grid.boundingbox, densify_pts=21)
    return w, s, e, n
