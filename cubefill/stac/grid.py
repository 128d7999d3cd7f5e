"""A raster grid in plain numbers, and how two of them lie on each other."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Any

Window = tuple[slice, slice]
Bounds = tuple[float, float, float, float]

SAME = 0.02
"""Largest shift in pixels at which two grids of one pixel size count as one."""


@dataclass(frozen=True)
class Grid:
    """Where pixels lie: CRS, affine transform and shape. Plain, hashable, and quick to send."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + e * row + f."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, geobox: Any) -> "Grid":
        """The grid of an `odc.geo.geobox.GeoBox`."""
        rows, cols = geobox.shape
        a, b, c, d, e, f = (float(v) for v in tuple(geobox.affine)[:6])
        return cls(str(geobox.crs), (a, b, c, d, e, f), (int(rows), int(cols)))

    @property
    def straight(self) -> bool:
        """True when x ascends, y descends, and nothing is rotated."""
        a, b, _, d, e, _ = self.transform
        return b == 0 and d == 0 and a > 0 and e < 0

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in units of the CRS."""
        a, b, c, d, e, f = self.transform
        rows, cols = self.shape
        xs = (c, c + a * cols, c + b * rows, c + a * cols + b * rows)
        ys = (f, f + d * cols, f + e * rows, f + d * cols + e * rows)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def everything(self) -> Window:
        """The window of all pixels."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def __getitem__(self, window: Window) -> "Grid":
        rows, cols = window
        a, b, c, d, e, f = self.transform
        x = a * cols.start + b * rows.start + c
        y = d * cols.start + e * rows.start + f
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        return Grid(self.crs, (a, b, x, d, e, y), shape)


@dataclass(frozen=True)
class Fit:
    """How a source grid lies under a target grid."""

    source: Window
    """Pixels of the source that the target needs, without margin."""
    target: Window
    """Pixels of the target that the source reaches."""
    exact: bool
    """True when the pixels coincide one to one."""
    shrink: float
    """Source pixels along one target pixel."""


def fit(source: Grid, target: Grid) -> Fit | None:
    """How a source lies under a target, or None where they do not meet."""
    if not same_crs(source.crs, target.crs) or not source.straight or not target.straight:
        return _fit_bounds(source, target)
    x = _axis(source, target, 0)
    y = _axis(source, target, 1)
    if x is None or y is None:
        return None
    return Fit((y[0], x[0]), (y[1], x[1]), x[2] and y[2], max(x[3], y[3]))


def same_crs(one: str, other: str) -> bool:
    """True when two texts name the same CRS."""
    return one == other or _crs(one) == _crs(other)


def _axis(source: Grid, target: Grid, axis: int) -> tuple[slice, slice, bool, float] | None:
    """Source slice, target slice, whether exact, and shrink, along x (0) or y (1)."""
    step = (0, 4)[axis]
    origin = (2, 5)[axis]
    have, want = source.shape[1 - axis], target.shape[1 - axis]
    ratio = target.transform[step] / source.transform[step]
    shift = (target.transform[origin] - source.transform[origin]) / source.transform[step]
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


def _fit_bounds(source: Grid, target: Grid) -> Fit | None:
    """The same for grids of two CRS, from transformed bounds: may be larger than needed."""
    reach = _window(target, _transform(source, target.crs))
    needed = _window(source, _transform(target, source.crs))
    if reach is None or needed is None:
        return None
    a, b = source.shape[0] * source.shape[1], 1.0
    w, s, e, n = _transform(source, target.crs)
    if e > w and n > s:
        pixel = abs(target.transform[0] * target.transform[4])
        b = (e - w) * (n - s) / pixel
    return Fit(needed, reach, False, max((a / max(b, 1e-9)) ** 0.5, 1e-6))


def _window(grid: Grid, bounds: Bounds) -> Window | None:
    if not grid.straight:
        return grid.everything
    a, _, c, _, e, f = grid.transform
    w, s, east, n = bounds
    cols = slice(max(0, floor((w - c) / a) - 1), min(grid.shape[1], ceil((east - c) / a) + 1))
    rows = slice(max(0, floor((n - f) / e) - 1), min(grid.shape[0], ceil((s - f) / e) + 1))
    return (rows, cols) if rows.stop > rows.start and cols.stop > cols.start else None


def _transform(grid: Grid, crs: str) -> Bounds:
    from rasterio.warp import transform_bounds

    w, s, e, n = transform_bounds(_crs(grid.crs), _crs(crs), *grid.bounds, densify_pts=21)
    return w, s, e, n


@lru_cache(maxsize=256)
def _crs(text: str) -> Any:
    from rasterio.crs import CRS

    return CRS.from_user_input(text)
