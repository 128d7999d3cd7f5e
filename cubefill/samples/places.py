"""Where samples lie: places on the cubes' grids, and a split that is exclusive in space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import cube as cubes_of
from cubefill.cube import valid as validity
from cubefill.cube.axes import time_axes
from cubefill.errors import CubeError

SPLITS = ("train", "validation", "test")
"""Names of the splits, in the order of their codes."""
OVERLAP = 0.01
"""Share of a place that another may cover and still be apart: grids of two zones never fit."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """A cube that samples are taken from: dims in order, `valid`, distinct days in order."""

    name: str
    """Its file, or its number."""
    ds: xr.Dataset
    crs: Any
    """`odc.geo.crs.CRS`."""
    steps: tuple[int, ...] = ()
    """Position of each time step in the cube as it was given."""

    @property
    def step(self) -> tuple[float, float]:
        """Pixel size along y and x in units of the CRS."""
        y, x = self.ds["y"].values, self.ds["x"].values
        return float(abs(y[1] - y[0])), float(abs(x[1] - x[0]))

    @property
    def corner(self) -> tuple[float, float]:
        """Upper left corner, y and x."""
        dy, dx = self.step
        return float(self.ds["y"].values[0]) + dy / 2, float(self.ds["x"].values[0]) - dx / 2

    @property
    def size(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return self.ds.sizes["y"], self.ds.sizes["x"]


@dataclass(frozen=True)
class Patch:
    """A square of a cube's grid; samples are taken from the whole of it."""

    site: int
    """Number of the cube."""
    row: int
    col: int
    """Its first pixel."""
    spot: tuple[int, int, int]
    """Grid and cell on it: the same for places of several cubes that coincide."""
    ring: tuple[tuple[float, float], ...]
    """Longitude and latitude of its corners."""
    group: int = -1
    """Places of one group share ground or lie in one block: they belong to one split."""


def site(ds: xr.Dataset, name: str, *, placed: bool = True) -> Site:
    """A checked cube as samples are taken from it; not `placed`, it needs no CRS.

    Raises
    ------
    CubeError
        It is no cube, has no CRS, or is a single row or column.
    """
    ds = cubes_of.check(cubes_of.settled(ds))
    crs = cubes_of.crs_of(ds)
    if (placed and crs is None) or min(ds.sizes["y"], ds.sizes["x"]) < 2:
        what = "no CRS" if crs is None else f"{ds.sizes['y']} x {ds.sizes['x']} px"
        raise CubeError(
            f"Cube {name} has {what}: samples of one place must stay in one split, so its ground "
            "must be known. Use odc.geo.xr.assign_crs(ds, 'EPSG:32631')."
        )
    view = ds.assign(valid=validity.apply(ds, None))
    days = [g[0] for g in time_axes(ds["time"].values).groups]
    view = view.isel(time=days).transpose("time", "sar_time", "y", "x", ..., missing_dims="ignore")
    return Site(name, view, crs, tuple(map(int, days)))


# ------------------------------------------------------------------ places


def places(sites: Sequence[Site], patch: int, block: int = 0) -> list[Patch]:
    """Every whole square of `patch` pixels, each with the group that its split goes by.

    A group is a block of `block` pixels (a multiple of `patch`; 0 for one square) with all that
    overlaps it in other cubes, whatever their CRS. Cubes on one pixel grid that overlap share
    their squares.

    Raises
    ------
    CubeError
        No cube holds a square, or `block` is no multiple of `patch`.
    """
    block = block or patch
    if block % patch:
        raise CubeError(f"block={block}: expected a multiple of patch={patch} pixels.")
    found: list[Patch] = []
    keys: list[tuple[int, int, int]] = []
    anchors: list[tuple[int, int, int]] = []
    for k, s in enumerate(sites):
        anchors.append(_anchor(sites, anchors, k, patch))
        grid, down, right = anchors[k]
        for row in range(-down % patch, s.size[0] - patch + 1, patch):
            for col in range(-right % patch, s.size[1] - patch + 1, patch):
                y, x = down + row, right + col
                found.append(Patch(k, row, col, (grid, y // patch, x // patch), ()))
                keys.append((grid, y // block, x // block))
    if not found:
        sizes = ", ".join(f"{s.size[0]} x {s.size[1]}" for s in sites[:5])
        raise CubeError(
            f"No place of {patch} x {patch} px in {len(sites)} cubes ({sizes} px): expected "
            "cubes at least as large as a patch. Pass a smaller patch=, or give larger cubes."
        )
    rings = _rings(sites, found, patch)
    groups = _groups(found, keys, rings)
    return [
        replace(p, ring=tuple(map(tuple, r.tolist())), group=int(g))
        for p, r, g in zip(found, rings, groups, strict=True)
    ]


def _anchor(
    sites: Sequence[Site], anchors: Sequence[tuple[int, int, int]], k: int, patch: int
) -> tuple[int, int, int]:
    """The grid of a cube, and its corner's pixel on it: that of an earlier cube it overlaps."""
    s = sites[k]
    for j, (grid, down, right) in enumerate(anchors):
        o = sites[j]
        if o.crs != s.crs or not np.allclose(o.step, s.step):
            continue
        dy = (o.corner[0] - s.corner[0]) / s.step[0]
        dx = (s.corner[1] - o.corner[1]) / s.step[1]
        aligned = abs(dy - round(dy)) < 0.01 and abs(dx - round(dx)) < 0.01
        apart = dy >= o.size[0] or dx >= o.size[1] or dy <= -s.size[0] or dx <= -s.size[1]
        y, x = down + round(dy), right + round(dx)
        fits = all(-a % patch + patch <= n for a, n in zip((y, x), s.size, strict=True))
        if aligned and not apart and fits:
            return grid, y, x
    return k, 0, 0


def _rings(sites: Sequence[Site], found: Sequence[Patch], patch: int) -> Floats:
    """Longitude and latitude of the corners of each place, `(place, 4, 2)`."""
    from pyproj import Transformer

    rings = np.empty((len(found), 4, 2))
    numbers = np.array([p.site for p in found])
    for k, s in enumerate(sites):
        mine = np.flatnonzero(numbers == k).tolist()
        (dy, dx), (top, left) = s.step, s.corner
        rows = np.array([found[i].row for i in mine])[:, None] + [0, patch, patch, 0]
        cols = np.array([found[i].col for i in mine])[:, None] + [0, 0, patch, patch]
        turn = Transformer.from_crs(s.crs.proj, "EPSG:4326", always_xy=True)
        rings[mine, :, 0], rings[mine, :, 1] = turn.transform(left + cols * dx, top - rows * dy)
    return rings


def _groups(
    found: Sequence[Patch], keys: Sequence[tuple[int, int, int]], rings: Floats
) -> NDArray[np.int64]:
    """Number of the group of each place."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first: dict[tuple[int, int, int], int] = {}
    pairs = [(i, first.setdefault(key, i)) for i, key in enumerate(keys)]
    grids = np.array([p.spot[0] for p in found])
    if len(np.unique(grids)) > 1:
        pairs += _overlaps(grids, rings)
    a, b = np.array(pairs).T
    n = len(found)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _overlaps(grids: NDArray[np.int64], rings: Floats) -> list[tuple[int, int]]:
    """Pairs of places of different grids that share ground."""
    import shapely

    shapes = shapely.polygons(rings)
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    other = (grids[a] != grids[b]) & (a < b)
    a, b = a[other], b[other]
    shared = shapely.area(shapely.intersection(shapes[a], shapes[b]))
    smaller = np.minimum(shapely.area(shapes[a]), shapely.area(shapes[b]))
    near = shared > OVERLAP * smaller
    return list(zip(a[near].tolist(), b[near].tolist(), strict=True))


# ------------------------------------------------------------------ split


def assign(
    weights: dict[int, int], shares: tuple[float, float, float], rng: np.random.Generator
) -> dict[int, int]:
    """Group to code of its split: shares of the weight as near as whole groups allow.

    Every split with a share gets a group.

    Raises
    ------
    CubeError
        The shares are no shares, or there are fewer groups than splits.

    Examples
    --------
    >>> found = assign(dict.fromkeys(range(100), 1), (0.8, 0.05, 0.15), np.random.default_rng(0))
    >>> np.bincount(list(found.values())).tolist()
    [80, 5, 15]
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise CubeError(
            f"splits={shares}: expected shares of {', '.join(SPLITS)} that add up to 1. Pass "
            "splits=(0.8, 0.05, 0.15)."
        )
    used = [i for i in range(3) if shares[i] > 0]
    if len(weights) < len(used):
        raise CubeError(
            f"{len(weights)} separate places have samples: expected at least {len(used)}, one for "
            f"each of {', '.join(SPLITS[i] for i in used)}, which may not share ground. Pass more "
            "cubes, a smaller patch= or block=, or splits=(1, 0, 0)."
        )
    order = rng.permutation(sorted(weights)).tolist()
    lacking = [shares[i] * sum(weights.values()) for i in range(3)]
    empty = sorted(used, key=lambda i: shares[i])
    found: dict[int, int] = {}
    for n, group in enumerate(order):
        i = empty[n] if n < len(empty) else max(used, key=lambda i: lacking[i])
        found[group] = i
        lacking[i] -= weights[group]
    return found
