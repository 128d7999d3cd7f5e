"""What is expected of the error of a filled value, learned on the cube that is filled.

Observations of a sample are hidden as clouds hide them, filled, and compared: `learn` gives an
`ErrorTable` of standard deviations and quantiles by how a value came about (code of `fill_flag`),
how well it is supported, where it lies (between two observations, before the first, after the last)
and how many days these are away. `ErrorTable.spread` looks them up for a block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.indices import normalized_difference, normalized_difference_std
from cubefill.methods.contract import Block, Bool, Codes, Filled, Flag, Float, quantile_name
from cubefill.methods.pixel.flags import Axes, expected
from cubefill.methods.pixel.kernel import DAY, FAR, addresses

EDGES = (6.0, 11.0, 16.0, 21.0, 31.0, 46.0, 61.0, 91.0, 121.0)
"""Days between the bins of the expected error."""
BINS = len(EDGES) + 1
POSITIONS = ("between", "before", "after")
"""Between two clear observations, before the first, after the last."""
WIDTH = 1024
SEED = 20_261
FEWEST = 5
"""Held-out observations below which a stratum says nothing."""
FLOOR = 1e-4
"""Reflectance below which errors are rounding."""
HELD = 0.99
"""Quantile of the errors beyond which they count as equal."""
SCALES = (0.1, 4.0)
"""Limits of how much the error of an index may differ from what the errors of its bands say."""
CLIP = 3.0
"""Standard deviations beyond which errors count as equal where bands are compared."""
PAIRED = 20_000
"""Held-out observations that are enough to compare bands."""
OWN, ROW = 6.0, 10.0
"""Dates of which a stratum, and a row or source, tell as much as those above them."""
MOST = 20.0
"""Dates beyond which a stratum weighs no more among others."""
MIDDLES = np.array([4, 8.5, 13.5, 18.5, 26, 38.5, 53.5, 76, 106, 160])
GROWTH = np.sqrt(1 + MIDDLES / np.array([45.0, 12.0, 12.0])[:, None])
"""`(position, bin)`: how errors grow with days where a cube does not say."""
EMPTY = (Flag.OBSERVED, Flag.SOURCE_MISSING, Flag.UNFILLABLE, Flag.NO_DATA)
"""Codes without an error."""

Fill = Callable[[Block], Filled]
_FLOAT = np.dtype(np.float32)


class Together(NamedTuple):
    """How the errors of two outputs go together."""

    one: str
    other: str
    correlation: float
    scales: tuple[float, ...]
    """Of the standard deviation and of each level: the error of the normalised difference as a
    multiple of what follows from the correlation to first order."""


class Spread(NamedTuple):
    """What is expected of the errors of a block."""

    std: dict[str, Float]
    """Name of an output to the standard deviation of its error, NaN where observed or unknown."""
    quantiles: dict[str, Float]
    """Name of a quantile, `B04_q05`, to how far it lies above the value filled."""


@dataclass(frozen=True)
class ErrorTable:
    """Standard deviation and quantiles of the error of each band, by stratum."""

    names: tuple[str, ...]
    """Names of the outputs."""
    levels: tuple[float, ...]
    """Quantiles that are known."""
    sources: tuple[int, ...]
    """Codes of `fill_flag` that have rows of their own; one more row stands for all others."""
    supports: int
    """How many classes of support there are."""
    packed: bytes
    """float32 `(name, 1 + level, source, support, position, bin)`."""
    together: tuple[Together, ...] = ()
    """How the errors of two outputs go together."""

    @property
    def values(self) -> NDArray[np.float32]:
        """`(name, 1 + level, source, support, position, bin)`: standard deviation, then levels."""
        shape = (len(self.names), 1 + len(self.levels), len(self.sources) + 1, self.supports)
        return np.frombuffer(self.packed, np.float32).reshape(*shape, len(POSITIONS), BINS)

    def spread(
        self,
        valid: Bool,
        axes: Axes,
        flag: Codes,
        support: Codes | None = None,
        names: Sequence[str] | None = None,
        std: bool = True,
    ) -> Spread:
        """What is expected of the errors of some outputs, of all without `names`.

        Parameters
        ----------
        valid
            `(time, y, x)`, True where the bands of these outputs were clear and held data.
        axes
            `Axes.of(block)`.
        flag
            `(out_time, y, x)`, how the values came about; there is no error where observed.
        support
            `(out_time, y, x)`, as `learn` was given them by `Filled.support`.
        std
            False leaves the standard deviation out.
        """
        chosen = list(self.names if names is None else names)
        kinds = range(0 if std else 1, 1 + len(self.levels))
        rows = self.values[[self.names.index(n) for n in chosen], kinds.start :]
        outs = [np.empty(flag.shape, np.float32) for _ in range(rows.shape[0] * rows.shape[1])]
        rows = rows.reshape(len(outs), -1)
        if outs:
            _look_up(rows, self.sources, self.supports, valid, axes, flag, support, outs)
        found = dict(zip(((n, k) for n in chosen for k in kinds), outs, strict=True))
        return Spread(
            {n: a for (n, k), a in found.items() if k == 0},
            {quantile_name(n, self.levels[k - 1]): a for (n, k), a in found.items() if k > 0},
        )

    def errors_together(self, output: str) -> dict[str, tuple[float, float]]:
        """How the error of an output, or its quantile, goes with those of the others.

        That is the correlation, and the error of the normalised difference of both as a multiple
        of what follows from it to first order.
        """
        kinds = [{n: n for n in self.names}]
        kinds += [{quantile_name(n, q): n for n in self.names} for q in self.levels]
        found = {}
        for k, known in enumerate(kinds):
            for t in self.together:
                for one, other in ((t.one, t.other), (t.other, t.one)):
                    if known.get(output) == one:
                        found[other] = t.correlation, t.scales[k]
        return found

    def recorded(self) -> dict[str, Any]:
        """The table as plain values for attributes."""
        rows: dict[str, dict[str, list[float]]] = {}
        for i, name in enumerate(self.names):
            rows[name] = {}
            for row in np.ndindex(len(self.sources), self.supports, len(POSITIONS)):
                told = [float(f"{v:.4g}") for v in self.values[i, 0][row]]
                words = [Flag(self.sources[row[0]]).name.lower(), POSITIONS[row[2]]]
                words += [f"support {row[1]}"] if self.supports > 1 else []
                rows[name][" ".join(words)] = told
        return {"std_edges_days": list(EDGES), "std": rows}


def _look_up(
    rows: NDArray[np.float32],
    sources: Sequence[int],
    supports: int,
    valid: Bool,
    axes: Axes,
    flag: Codes,
    support: Codes | None,
    outs: Sequence[Float],
) -> None:
    """Fills `outs` with what each row of `rows` has at the stratum of a pixel and date."""
    step = len(POSITIONS) * BINS
    size = step * supports
    first = np.full(258, len(sources) * size, np.int32)
    for i, code in enumerate(sources):
        first[code] = i * size
    first[list(EMPTY)] = -FAR
    first[256:] = (len(sources) + 1) * size, step
    tables = np.full((len(rows), first[256] + 1), np.nan, np.float32)
    tables[:, :-1] = rows
    edges = np.array([e * DAY for e in EDGES], np.int32)
    classes = np.empty((0, *flag.shape[1:]), np.uint8)
    if support is not None:
        classes = np.minimum(support, np.uint8(supports - 1))
    told = (edges, first, WIDTH, flag, classes, tables, addresses(outs))
    expected(_FLOAT, valid, axes.s, axes.so, axes.lo, *told)


# ------------------------------------------------------------------ what is hidden


def thinned(sample: Block, step: int = 2) -> Block:
    """Every so many pixels of a sample, for methods that look at one pixel at a time."""

    def part(a: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(a[..., ::step, ::step])

    bands = {n: part(a) for n, a in sample.bands.items()}
    return replace(sample, bands=bands, valid=part(sample.valid), out={})


def hidings(sample: Block) -> Iterator[Bool]:
    """What to hide of a sample, one after the other: dates, clouds of other dates, weeks, ends."""
    valid, days = sample.valid, sample.days
    rng = np.random.default_rng(SEED)
    seen = valid.any(axis=(1, 2))
    if not seen.any():
        return
    first, last = days[np.flatnonzero(seen)[[0, -1]]]
    days = days - first
    every = np.cumsum(seen) - 1
    for k in range(8):
        yield _dates(valid, every % 8 == k)
    yield from _lent(valid, rng)
    whole = last - first
    for length in (15.0, 30.0, 60.0):
        if whole < 2.5 * length:
            continue
        for phase in (0.0, 1.0, 2.0):
            at = (days + phase * length * 2.5 / 3) % (2.5 * length)
            yield _dates(valid, at < length)
    for share in (0.3, 0.45, 0.6, 0.75, 0.9):
        yield _dates(valid, days > share * whole)
        yield _dates(valid, days < (1 - share) * whole)


def _dates(valid: Bool, chosen: Bool) -> Bool:
    hidden: Bool = valid & chosen[:, None, None]
    return hidden


def _lent(valid: Bool, rng: np.random.Generator) -> Iterator[Bool]:
    """Clouds of other dates, laid on every second date."""
    ever = valid.any(axis=0)
    share = valid.sum(axis=(1, 2)) / max(1, ever.sum())
    clouds = np.flatnonzero((share > 0.1) & (share < 0.9))
    seen = np.flatnonzero(valid.any(axis=(1, 2)))
    for k in range(8 if len(clouds) else 0):
        hidden = np.zeros_like(valid)
        for i in seen[k % 2 :: 2]:
            hidden[i] = valid[i] & ~valid[rng.choice(clouds)]
        yield hidden


# ------------------------------------------------------------------ what is learned


class Events(NamedTuple):
    """Held-out observations, and what was filled in their place."""

    stratum: NDArray[np.int32]
    """Code of `fill_flag`, support, position and bin, as one number of `_SHAPE`."""
    date: NDArray[np.int32]
    error: NDArray[np.float32]
    """`(band, event)`: the truth less the value filled, NaN where either is none."""
    truth: NDArray[np.float32]


_SHAPE = (Flag.CLIPPED + 1, 8, len(POSITIONS), BINS)


def held_out(fill: Fill, sample: Block, suffix: str = "") -> Events:
    """Errors of the observations of a sample, hidden in several ways and filled."""
    axes = Axes.of(sample)
    truth = {n: sample._float(a) for n, a in sample.bands.items()}
    none = np.empty((len(truth), 0), np.float32)
    found = [Events(np.empty(0, np.int32), np.empty(0, np.int32), none, none)]
    found += [_told(fill, sample, axes, truth, h, suffix) for h in hidings(sample) if h.any()]
    return Events(*(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)))


def _told(
    fill: Fill, sample: Block, axes: Axes, truth: dict[str, Float], hidden: Bool, suffix: str
) -> Events:
    """What a method says of hidden observations."""
    seen = sample.valid & ~hidden
    bands = {n: np.where(hidden, np.float32(np.nan), a) for n, a in truth.items()}
    given = replace(
        sample, bands=bands, valid=seen, out_time=sample.time, std=False, quantiles=(), counts=None
    )
    filled = fill(given)
    flag = np.full(seen.shape, Flag.LEARNED, np.uint8) if filled.flag is None else filled.flag
    stratum = np.empty(seen.shape, np.float32)
    rows = np.arange((_SHAPE[0] + 1) * np.prod(_SHAPE[1:]), dtype=np.float32)[None]
    sources = tuple(range(_SHAPE[0]))
    _look_up(rows, sources, _SHAPE[1], seen, axes, flag, filled.support, [stratum])
    told = hidden & np.isfinite(stratum)
    errors = [truth[n][told] - filled.bands[n + suffix][told] for n in truth]
    date = np.broadcast_to(np.arange(len(seen), dtype=np.int32)[:, None, None], seen.shape)[told]
    values = np.stack([truth[n][told] for n in truth])
    return Events(stratum[told].astype(np.int32), date, np.stack(errors), values)


def learn(fill: Fill, sample: Block, levels: Sequence[float] = (), suffix: str = "") -> ErrorTable:
    """What is expected of the errors of `fill` on a cube, from a sample of it.

    Parameters
    ----------
    fill
        Fills a block of the sample's size on its own dates, in which more is hidden: hidden values
        are NaN and not valid. Its `Filled` tells flags and, where there are classes, support.
    sample
        As `prepare` gets it.
    levels
        Quantiles to learn beside the standard deviation.
    suffix
        Appended to the names of the bands in what `fill` gives.
    """
    events = held_out(fill, sample, suffix)
    return tabled(events, tuple(n + suffix for n in sample.bands), tuple(levels))


def tabled(events: Events, names: tuple[str, ...], levels: Sequence[float]) -> ErrorTable:
    """The table of held-out errors."""
    code, support, position, bins = np.unravel_index(events.stratum, _SHAPE)
    sources = tuple(map(int, np.unique(code)))
    supports = int(support.max(initial=0)) + 1
    shape = (len(sources), supports, len(POSITIONS), BINS)
    where = (np.searchsorted(sources, code), support, position, bins)
    row = np.ravel_multi_index(where, shape).astype(np.int16)
    seen = np.zeros((int(np.prod(shape)), int(events.date.max(initial=0)) + 1), bool)
    seen[row, events.date] = True
    dates = seen.sum(axis=1).reshape(shape).astype(float)
    order = np.argsort(row, kind="stable")
    cuts = np.searchsorted(row[order], np.arange(seen.shape[0] + 1))
    kinds = [None, *levels]
    found = np.empty((len(names), len(kinds), *shape))
    values = np.empty((len(names), len(kinds), len(sources) + 1, *shape[1:]), np.float32)
    for i, k in np.ndindex(found.shape[:2]):
        if k == 0:
            size = np.abs(events.error[i][order])
            parts = [_known(size[a:b]) for a, b in pairwise(cuts)]
        found[i, k] = np.array([_width(e, kinds[k]) for e in parts]).reshape(shape)
        values[i, k] = _side(kinds[k]) * smoothed(found[i, k], dates, kinds[k])
    together = _pairs(events, row, names, found.reshape(*found.shape[:2], -1), kinds)
    return ErrorTable(names, tuple(levels), sources, supports, values.tobytes(), tuple(together))


def _known(size: NDArray[np.float32]) -> NDArray[np.float32]:
    return size[np.isfinite(size)]


def _side(level: float | None) -> float:
    """-1 for quantiles below the value filled, 1 above, 0 for the median."""
    return 1.0 if level is None else float(np.sign(level - 0.5))


def _width(size: NDArray[np.float32], level: float | None) -> float:
    """Standard deviation of errors of these sizes, or how far the quantile is from the middle.

    The largest hundredth counts as what is below it: clouds that no mask knows are no error of a
    method.
    """
    if size.size < FEWEST:
        return np.nan
    if level is not None:
        return max(FLOOR, _beyond(size, level))
    held = np.minimum(size, np.quantile(size, HELD))
    return max(FLOOR, float(np.sqrt(np.square(held, dtype=np.float64).mean())))


# ------------------------------------------------------------------ two bands


def _pairs(
    events: Events,
    row: NDArray[np.int16],
    names: tuple[str, ...],
    found: NDArray[np.float64],
    kinds: Sequence[float | None],
) -> Iterator[Together]:
    """Every two bands; `found` has the widths of each band, kind and row."""
    some = slice(None, None, max(1, len(row) // PAIRED))
    error, truth, widths = events.error[:, some], events.truth[:, some], found[:, :, row[some]]
    for i, j in combinations(range(len(names)), 2):
        both = np.isfinite(error[[i, j]]).all(axis=0) & np.isfinite(widths[[i, j], 0]).all(axis=0)
        if both.sum() >= FEWEST:
            e, v = (a[[i, j]][:, both] for a in (error, truth))
            w = widths[[i, j]][..., both]
            yield Together(names[i], names[j], *_together(e, v, w, kinds))


def _together(
    error: NDArray[np.float32],
    truth: NDArray[np.float32],
    widths: NDArray[np.float64],
    kinds: Sequence[float | None],
) -> tuple[float, tuple[float, ...]]:
    """Correlation of the errors of two bands, and how large the error of their index is.

    The latter as a multiple of what follows from the correlation to first order: few large errors,
    which undetected clouds cause, are in both bands at once and hardly show in an index. Arrays are
    `(band, event)`, `widths` `(band, kind, event)`.
    """
    u, v = np.clip(error, -CLIP * widths[:, 0], CLIP * widths[:, 0]).astype(np.float64)
    size = np.sqrt((u @ u) * (v @ v))
    correlation = float(u @ v / size) if size > 0 else 0.0
    told = truth - error
    away = np.abs(normalized_difference(*truth) - normalized_difference(*told))
    scales = []
    for k, level in enumerate(kinds):
        pair = told[0], told[1], widths[0, k], widths[1, k]
        first = normalized_difference_std(*pair, correlation)
        known = np.isfinite(away) & (first > 0)
        if known.sum() < FEWEST or level == 0.5:
            scales.append(1.0)
            continue
        ratio = away[known] / first[known]
        held = np.minimum(ratio, np.quantile(ratio, HELD)).astype(np.float64)
        told_by = np.sqrt(np.square(held).mean()) if level is None else _beyond(ratio, level)
        scales.append(float(np.clip(told_by, *SCALES)))
    return correlation, tuple(scales)


def _beyond(size: NDArray[Any], level: float) -> float:
    """Sizes of errors at a level, as far from the middle as that is."""
    return float(np.quantile(size, abs(2 * level - 1)))


# ------------------------------------------------------------------ thin strata


def smoothed(
    found: NDArray[np.float64], dates: NDArray[np.float64], level: float | None
) -> NDArray[np.float64]:
    """Widths `(source, support, position, bin)`, one more source for those that are not known.

    What few dates tell is drawn to what the row, the source and all together tell, which grow with
    the days as errors do elsewhere; it never falls with the days; and where dates are few, it is
    as much wider as Student's distribution is than the normal one.
    """
    known = np.isfinite(found)
    if not known.any():
        return np.full((found.shape[0] + 1, *found.shape[1:]), np.nan)
    n = np.where(known, dates, 0.0)
    growth = np.log(GROWTH)
    ratio = np.where(known, np.log(np.where(known, found, 1.0)) - growth, 0.0)
    weight = np.minimum(n, MOST)
    everywhere = (weight * ratio).sum() / weight.sum()
    by_source = _drawn(ratio, weight, (1, 2, 3), everywhere)
    by_row = _drawn(ratio, weight, (3,), by_source)
    own = by_row + (ratio - by_row) * n / (n + OWN)
    behind = n + 0.5 * weight.sum(axis=3, keepdims=True) * OWN / (n + OWN)
    own = np.concatenate([own, np.full_like(own[:1], everywhere)])
    n, behind = (np.concatenate([a, np.zeros_like(a[:1])]) for a in (n, behind))
    out = np.empty_like(own)
    for row in np.ndindex(own.shape[:3]):
        out[row] = never_falling(own[row] + growth[row[2]], n[row] + 0.5)
    return np.exp(out) * _wider(behind, level)


def _drawn(
    ratio: NDArray[np.float64], weight: NDArray[np.float64], axes: tuple[int, ...], to: Any
) -> NDArray[np.float64]:
    """Weighted means over some axes, drawn to those of more strata where weights are small."""
    total = weight.sum(axis=axes, keepdims=True)
    mean = (weight * ratio).sum(axis=axes, keepdims=True) / np.maximum(total, 1e-9)
    drawn: NDArray[np.float64] = to + (mean - to) * total / (total + ROW)
    return drawn


def _wider(dates: NDArray[np.float64], level: float | None) -> NDArray[np.float64]:
    """How much wider an interval is for being known from few dates: Student's t over the normal."""
    z = 1.0 if level is None else abs(NormalDist().inv_cdf(level))
    n = np.maximum(dates, 2.0)
    return 1 + (z**2 + 1) / (4 * n) + (5 * z**4 + 16 * z**2 + 3) / (96 * n**2)


def never_falling(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest series that never falls: neighbours that fall are joined, by their weights."""
    runs: list[tuple[float, float, int]] = []
    for v, w in zip(values.tolist(), weights.tolist(), strict=True):
        runs.append((v, w, 1))
        while len(runs) > 1 and runs[-2][0] > runs[-1][0]:
            (a, u, m), (b, t, n) = runs[-2:]
            runs[-2:] = [((a * u + b * t) / (u + t), u + t, m + n)]
    return np.repeat([r[0] for r in runs], [r[2] for r in runs])
