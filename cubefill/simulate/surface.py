"""The land of a simulated scene: its parcels, what grows on them, and how that goes through a year.

Parcels are cut in numpy, once. What changes with time is a pure function of arrays that runs on
numpy and torch alike (`double_logistic`, `regrowth`, `growth`).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.simulate.noise import Array, fractal, namespace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Float = NDArray[np.float32]


class Crop(IntEnum):
    """What covers a parcel."""

    WHEAT = 0
    MAIZE = 1
    RAPESEED = 2
    BEET = 3
    POTATO = 4
    GRASS = 5
    DECIDUOUS = 6
    EVERGREEN = 7
    WATER = 8
    SETTLEMENT = 9
    ROAD = 10


ARABLE = {
    Crop.WHEAT: 0.38,
    Crop.MAIZE: 0.22,
    Crop.BEET: 0.14,
    Crop.POTATO: 0.12,
    Crop.RAPESEED: 0.14,
}
"""Shares of the arable parcels."""


@dataclass(frozen=True)
class Land:
    """The unchanging map of a scene."""

    parcel: Ints
    """`(y, x)` number of the parcel."""
    crop: Ints
    """`(parcel,)` codes of `Crop`."""
    rows: Float
    """`(y, x)` stripes along the working direction of each field, about -1 to 1."""


# ------------------------------------------------------------------ the map


def land(shape: tuple[int, int], resolution: float, rng: np.random.Generator) -> Land:
    """Parcels of 0.2 to 20 ha with roads, forest, water and settlements between them.

    Blocks of fields are Voronoi cells whose borders partly carry roads; within a block, fields are
    rectangles along a direction of its own, in columns of different width.
    """
    ny, nx = shape
    bend = [8 * fractal(rng.standard_normal(shape), 3.0, inner=40 / resolution) for _ in "yx"]
    y = (np.arange(ny)[:, None] * resolution + bend[0]).ravel()
    x = (np.arange(nx)[None, :] * resolution + bend[1]).ravel()
    block, border, pair = _blocks(y, x, (ny * resolution, nx * resolution), rng)
    key, across = _fields(y, x, block, rng)
    parcel = np.unique(key, return_inverse=True)[1].reshape(shape)
    crop = _uses(parcel, y, x, shape, resolution, rng)
    is_road = _chance(pair, rng) < 0.5
    special = np.full(ny * nx, -1)
    special[is_road & (border < 6)] = Crop.ROAD
    special[_river(y, x, ny * resolution, nx * resolution, rng)] = Crop.WATER
    special = special.reshape(shape)
    for code in (Crop.ROAD, Crop.WATER):
        parcel = np.where(special == code, len(crop), parcel)
        crop = np.append(crop, code)
    spacing = max(30.0, 3 * resolution)
    rows = np.sin(2 * np.pi * across / spacing).reshape(shape).astype(np.float32)
    return Land(parcel, crop, rows)


def _blocks(
    y: Floats, x: Floats, extent: tuple[float, float], rng: np.random.Generator
) -> tuple[Ints, Floats, Ints]:
    """Number of each pixel's block, its distance to the border in m, and which border that is."""
    from scipy.spatial import cKDTree

    height, width = extent
    side = 620.0
    gy, gx = (np.arange(-1.5, e / side + 1.5) for e in (height, width))
    points = np.stack(np.meshgrid(gy, gx, indexing="ij"), -1).reshape(-1, 2)
    points = (points + rng.uniform(-0.45, 0.45, points.shape)) * side
    distance, which = cKDTree(points).query(np.stack([y, x], -1), k=2)
    between = np.linalg.norm(points[which[:, 0]] - points[which[:, 1]], axis=1)
    border = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * between)
    low, high = which.min(1), which.max(1)
    return which[:, 0], border, low * len(points) + high


def _fields(y: Floats, x: Floats, block: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """A key of each pixel's field, and its position in m across the working direction."""
    count = int(block.max()) + 1
    angle = (rng.normal(0.4, 0.35, count) + np.pi / 2 * (rng.random(count) < 0.3))[block]
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        -x * np.sin(angle) + y * np.cos(angle),
    )
    length = np.clip(rng.lognormal(np.log(300), 0.35, count), 120, 700)[block]
    column = np.floor(along / length).astype(np.int64)
    of_column = np.unique(block * 4096 + column + 2048, return_inverse=True)[1]
    columns = int(of_column.max()) + 1
    width = np.clip(rng.lognormal(np.log(110), 0.5, columns), 40, 400)[of_column]
    offset = rng.uniform(0, 400, columns)[of_column]
    strip = np.floor((across + offset) / width).astype(np.int64)
    return of_column * 8192 + strip + 4096, across


def _chance(key: Ints, rng: np.random.Generator) -> Floats:
    """One uniform draw for each distinct value of `key`."""
    index = np.unique(key, return_inverse=True)[1]
    return rng.random(int(index.max()) + 1)[index]


def _uses(
    parcel: Ints,
    y: Floats,
    x: Floats,
    shape: tuple[int, int],
    resolution: float,
    rng: np.random.Generator,
) -> Ints:
    """What each parcel carries: forest and villages lie together, crops are scattered."""
    flat, count = parcel.ravel(), int(parcel.max()) + 1
    size = np.bincount(flat, minlength=count)

    def mean(a: Any) -> Floats:
        return np.asarray(np.bincount(flat, np.ravel(a), minlength=count) / size)

    crop = rng.choice([int(c) for c in ARABLE], count, p=list(ARABLE.values()))
    moist = mean(fractal(rng.standard_normal(shape), 3.5, inner=100 / resolution))
    crop[moist + rng.normal(0, 0.6, count) > 0.9] = Crop.GRASS
    wooded = mean(fractal(rng.standard_normal(shape), 3.2, outer=0.4, inner=80 / resolution))
    forest = wooded > np.quantile(wooded, 0.86)
    crop[forest] = np.where(rng.random(forest.sum()) < 0.6, Crop.DECIDUOUS, Crop.EVERGREEN)
    py, px = mean(y), mean(x)
    area = shape[0] * shape[1] * resolution**2
    for _ in range(rng.poisson(1.0 + area / 9e6)):
        cy, cx = rng.uniform(y.min(), y.max()), rng.uniform(x.min(), x.max())
        near = np.hypot(py - cy, px - cx) < rng.uniform(200, 420) * rng.uniform(0.6, 1.2, count)
        crop[near] = Crop.SETTLEMENT
    ponds = (size * resolution**2 < 2e4) & (rng.random(count) < 0.01)
    crop[ponds] = Crop.WATER
    return crop


def _river(
    y: Floats, x: Floats, height: float, width: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """True on a meandering river about 25 m wide."""
    phase = rng.uniform(0, 2 * np.pi, 3)
    t = x / 1000
    bends = 160 * np.sin(t * 2.1 + phase[0]) + 60 * np.sin(t * 5.3 + phase[1])
    course = rng.uniform(0.1, 0.9) * height + rng.uniform(-0.3, 0.3) * (x - width / 2) + bends
    slope = np.abs(336 * np.cos(t * 2.1 + phase[0]) + 318 * np.cos(t * 5.3 + phase[1])) / 1000
    return np.asarray(np.abs(y - course) < 13 * np.hypot(1, slope))


# ------------------------------------------------------------------ the year


class Cycles(NamedTuple):
    """Rise and fall of a quantity, arrays `(parcel, cycle)`; days count from the scene's start."""

    amount: Array
    up: Array
    up_days: Array
    down: Array
    down_days: Array


class Cuts(NamedTuple):
    """Mowing events, arrays `(parcel, event)`."""

    day: Array
    depth: Array
    recovery: Array


class Calendar(NamedTuple):
    """What happens on every parcel over the years of a scene."""

    base: Array
    """`(parcel,)` green leaf area that never leaves."""
    green: Cycles
    brown: Cycles
    flower: Cycles
    cuts: Cuts


class Growth(NamedTuple):
    """What a sensor meets on some days; each `(day, parcel)`."""

    green: Array
    """Green leaf area index, m2/m2."""
    brown: Array
    """Share of the ground under dry plants or straw, 0 to 1."""
    flower: Array
    """Share of the canopy in flower, 0 to 1."""


def double_logistic(day: Array, c: Cycles) -> Array:
    """Sum over cycles of a logistic rise and a logistic fall.

    `day` is `(day,)`; the answer is `(day, parcel)`. Fisher et al. (2006) use the same curve.
    """
    xp = namespace(day)
    t = day[:, None, None]
    rise = 1 / (1 + xp.exp(-xp.clip((t - c.up) / c.up_days, -30, 30)))
    fall = 1 / (1 + xp.exp(-xp.clip((t - c.down) / c.down_days, -30, 30)))
    return (c.amount * xp.clip(rise - fall, 0, 1)).sum(-1)


def regrowth(day: Array, cuts: Cuts) -> Array:
    """Share of the canopy that stands, `(day, parcel)`: cut at once, back in `recovery` days."""
    xp = namespace(day)
    since = day[:, None, None] - cuts.day
    missing = cuts.depth * xp.exp(-xp.clip(since, 0, 1e4) / (cuts.recovery / 2))
    standing = 1 - xp.where(since >= 0, missing, 0 * missing)
    return standing.prod(-1)


def growth(day: Array, year: Calendar) -> Growth:
    """Green leaf area, dry cover and flowers of every parcel on `day` `(day,)`."""
    xp = namespace(day)
    green = (year.base + double_logistic(day, year.green)) * regrowth(day, year.cuts)
    brown = xp.clip(double_logistic(day, year.brown), 0, 1)
    return Growth(green, brown, xp.clip(double_logistic(day, year.flower), 0, 1))


# name: (amount, its spread, up, days of rise, down, days of fall); days of the year
_GREEN: dict[Crop, tuple[tuple[float, float, float, float, float, float], ...]] = {
    Crop.WHEAT: ((1.0, 0.3, -45, 9, 172, 6), (4.0, 0.6, 100, 8, 178, 5)),
    Crop.MAIZE: ((4.3, 0.6, 172, 6, 264, 4),),
    Crop.RAPESEED: ((1.6, 0.4, -95, 9, 165, 7), (3.3, 0.5, 93, 7, 172, 6)),
    Crop.BEET: ((4.3, 0.5, 160, 7, 298, 2),),
    Crop.POTATO: ((4.2, 0.6, 158, 6, 238, 4),),
    Crop.GRASS: ((2.6, 0.6, 85, 10, 305, 14),),
    Crop.DECIDUOUS: ((4.4, 0.5, 117, 4, 298, 7),),
    Crop.EVERGREEN: ((0.7, 0.2, 130, 12, 290, 15),),
    Crop.SETTLEMENT: ((1.1, 0.4, 105, 9, 296, 10),),
    Crop.ROAD: ((0.3, 0.1, 105, 9, 296, 10),),
}
_BROWN: dict[Crop, tuple[tuple[float, float, float, float, float, float], ...]] = {
    Crop.WHEAT: ((0.9, 0.05, 178, 5, 205, 1), (0.55, 0.12, 205, 1, 238, 5)),
    Crop.MAIZE: ((0.7, 0.1, 264, 4, 279, 1), (0.45, 0.12, 279, 1, 315, 8)),
    Crop.RAPESEED: ((0.85, 0.05, 172, 6, 200, 1), (0.5, 0.12, 200, 1, 228, 5)),
    Crop.POTATO: ((0.4, 0.1, 238, 4, 262, 2),),
    Crop.DECIDUOUS: ((0.55, 0.1, -70, 10, 125, 6), (0.55, 0.1, 295, 10, 490, 6)),
}
_FLOWER: dict[Crop, tuple[tuple[float, float, float, float, float, float], ...]] = {
    Crop.RAPESEED: ((0.75, 0.1, 110, 2.5, 136, 3),),
}
_BASE = {
    Crop.GRASS: 1.5,
    Crop.DECIDUOUS: 0.6,
    Crop.EVERGREEN: 3.4,
    Crop.SETTLEMENT: 0.6,
    Crop.ROAD: 0.2,
}
_CATCH_CROP = (1.9, 0.5, 268, 6, 335, 7)
_ENDS_WITH_HARVEST = {
    Crop.WHEAT: 8,
    Crop.RAPESEED: 7,
    Crop.MAIZE: 10,
    Crop.POTATO: 12,
    Crop.BEET: 20,
}
_SUDDEN = 2
_FALLOW = 1e6


def calendar(crop: Ints, start_doy: int, days: int, rng: np.random.Generator) -> Calendar:
    """Dates and amounts for every parcel: each has its own sowing, vigour, cuts and harvest.

    Parameters
    ----------
    crop
        `(parcel,)` codes of `Crop`.
    start_doy
        Day of the year on which the scene starts.
    days
        Length of the scene.
    """
    years = range(-1, (start_doy + days) // 365 + 2)
    count = len(crop)
    early = rng.normal(0, 6, count)
    late = early + rng.normal(0, 4, count)
    spread = np.array([_ENDS_WITH_HARVEST.get(Crop(c), 0) for c in crop])
    harvest = np.clip(rng.normal(0, 1, count), -2, 2) * spread
    vigour = np.clip(rng.normal(1, 0.12, count), 0.6, 1.4)
    catch = rng.random(count) < 0.4
    parts: list[list[Cycles]] = [[], [], []]
    for shift in (365.0 * n - start_doy for n in years):
        season = rng.normal(0, 3)
        for part, table in zip(parts, (_GREEN, _BROWN, _FLOWER), strict=True):
            part += _cycles(
                table, crop, early + season + shift, late + season + shift, harvest + shift, rng
            )
        winter = np.isin(crop, (Crop.WHEAT, Crop.RAPESEED)) & catch
        table = {Crop(c): (_CATCH_CROP,) for c in (Crop.WHEAT, Crop.RAPESEED)}
        extra = _cycles(table, crop, early + shift, late + shift, harvest + shift, rng)
        parts[0] += [c._replace(amount=c.amount * winter) for c in extra]
    green, brown, flower = (_join(p, count) for p in parts)
    base = np.array([_BASE.get(Crop(c), 0.0) for c in crop]) * vigour
    green = green._replace(amount=green.amount * vigour[:, None])
    return Calendar(base, green, brown, flower, _cuts(crop, start_doy, days, rng))


def _cycles(
    table: dict[Crop, tuple[tuple[float, float, float, float, float, float], ...]],
    crop: Ints,
    early: Floats,
    late: Floats,
    harvest: Floats,
    rng: np.random.Generator,
) -> list[Cycles]:
    """One `Cycles` with a single column for each row of the table's longest entry."""
    found = []
    for i in range(max(len(rows) for rows in table.values())):
        rows = [table.get(Crop(c), ())[i : i + 1] for c in crop]
        amount, sd, up, up_days, down, down_days = np.array(
            [r[0] if r else (0, 0, _FALLOW, 1, _FALLOW, 1) for r in rows]
        ).T
        amount = np.clip(amount + sd * rng.normal(size=len(crop)), 0, None) * (amount > 0)
        up = up + np.where(up_days <= _SUDDEN, harvest, early)
        down = down + np.where(down_days <= _SUDDEN, harvest, late)
        found.append(Cycles(amount, up, up_days, down, down_days))
    return found


def _join(parts: list[Cycles], count: int) -> Cycles:
    return Cycles(*(np.stack([p[i] for p in parts], -1).reshape(count, -1) for i in range(5)))


def _cuts(crop: Ints, start_doy: int, days: int, rng: np.random.Generator) -> Cuts:
    """One to five cuts a year of each meadow; a third of them is grazed and never cut."""
    years = range((start_doy + days) // 365 + 1)
    count, most = len(crop), 5
    number = rng.integers(1, most + 1, count) * (rng.random(count) < 0.67)
    number = np.where(crop == Crop.GRASS, number, 0)
    day = np.full((count, most * len(years)), _FALLOW)
    for y in years:
        step = 165 / np.maximum(number, 1)
        nth = np.arange(most)[None, :]
        when = 125 + step[:, None] * (nth + rng.normal(0, 0.15, (count, most)))
        when = np.where(nth < number[:, None], when, _FALLOW) + 365 * y - start_doy
        day[:, y * most : (y + 1) * most] = when
    depth = rng.uniform(0.55, 0.85, day.shape)
    return Cuts(day, depth, rng.uniform(25, 60, day.shape))
