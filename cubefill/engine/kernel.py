"""The tile kernel: gather what a method needs, let it fill, scatter what it keeps.

Both executors run this and nothing else on pixels. It knows numpy and sources, not dask.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.cube import check_values
from cubefill.cube.axes import TimeAxes
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.cube.rows import as_rows, has_infinity
from cubefill.engine.putback import finish
from cubefill.engine.work import Arrays, Region, Work
from cubefill.errors import MethodError
from cubefill.methods import Block, Bool, Filled
from cubefill.methods.windows import Axis, Span, Whole, Window
from cubefill.store.source import StoreSource

SAMPLE_SEED = 20260
SAMPLE_PATCHES = 16
SAMPLE_SIZE = 16


def region(work: Work, tile: Region) -> Region:
    """The part of the cube that must be read to fill a tile: the tile and its halo."""
    return Region(
        *(
            slice(max(0, min(w.start for w in ws)), min(n, max(w.stop for w in ws)))
            for ws, n in zip(_space(work, tile), work.shape, strict=True)
        )
    )


def read(work: Work, tile: Region) -> dict[str, NDArray[Any]]:
    """Arrays of every source over the region of a tile."""
    where = region(work, tile)
    return {n: _read_one(work, n, where) for n, s in work.sources.items() if s is not None}


def fill_tile(
    work: Work, tile: Region, given: Arrays | None = None, into: Arrays | None = None
) -> dict[str, NDArray[Any]]:
    """Filled arrays `(time, y, x)` of a tile.

    `given` holds, over the tile's region, the arrays of the variables that have no source. An
    output may come back in its array of `into`, and may come back in another.
    """
    return fill_region(work, tile, {**read(work, tile), **(given or {})}, into)


def fill_region(
    work: Work, tile: Region, arrays: Arrays, into: Arrays | None = None
) -> dict[str, NDArray[Any]]:
    """Filled arrays `(time, y, x)` of a tile, from arrays over its region.

    Raises
    ------
    MethodError
        The method returned an array of another shape or type than it declared.
    """
    arrays = {n: _declared(work, n, a) for n, a in arrays.items()}
    where = region(work, tile)
    core = tuple(
        slice(t.start - r.start, t.stop - r.start) for t, r in zip(tile, where, strict=True)
    )
    if work.counts is None:
        _check_units(work, arrays)
    filled = _fill_windows(work, tile, where, arrays, into or {})
    inner = {n: a[..., core[0], core[1]] for n, a in arrays.items()}
    return finish(work, filled, inner)


def sample(work: Work, fetch: Callable[[str, Region], NDArray[Any]] | None = None) -> Block:
    """The subsample that `prepare` sees: seeded patches at positions that only the cube decides.

    The patches stand one below the other along y. `fetch` reads variables that have no source.
    """
    sizes, corners = _patches(work)
    plain = replace(work, counts=None)
    parts = []
    for y, x in sorted(corners):
        where = Region(slice(y, y + sizes[0]), slice(x, x + sizes[1]))
        parts.append(
            {
                n: fetch(n, where) if s is None and fetch else _read_one(plain, n, where)
                for n, s in plain.sources.items()
            }
        )
    arrays = {
        n: _declared(plain, n, np.concatenate([p[n] for p in parts], axis=-2)) for n in parts[0]
    }
    _check_units(plain, arrays)
    merged = _merge(plain, arrays)
    t = work.axes.time
    return _block(plain, merged, t, t, (slice(None), slice(None), slice(None)), (0, 0, 0), {})


def _patches(work: Work) -> tuple[list[int], list[tuple[int, int]]]:
    """Size of the patches of a sample, and their first rows and columns."""
    space = work.method.needs.space
    size = space.size if isinstance(space, Span) and not space.pointwise else SAMPLE_SIZE
    sizes = [min(size, n) for n in work.shape]
    rng = np.random.default_rng(SAMPLE_SEED)
    apart = work.traits.sample_patches
    if apart:
        starts = [[*range(0, n - s, s), n - s] for n, s in zip(work.shape, sizes, strict=True)]
        cells = list(product(starts[0], starts[1]))
        chosen = rng.permutation(len(cells))[:apart]
        return sizes, [cells[i] for i in chosen]
    count = SAMPLE_PATCHES if size == SAMPLE_SIZE else max(2, SAMPLE_PATCHES // 4)
    ends = [n - s + 1 for n, s in zip(work.shape, sizes, strict=True)]
    return sizes, [(int(rng.integers(ends[0])), int(rng.integers(ends[1]))) for _ in range(count)]


# ------------------------------------------------------------------ gather


def _space(work: Work, tile: Region) -> tuple[list[Window], list[Window]]:
    rows, cols = (_windows(work, n, s) for n, s in zip(work.shape, tile, strict=True))
    return rows, cols


def _windows(work: Work, length: int, part: slice) -> list[Window]:
    axis = work.method.needs.space
    if isinstance(axis, Whole):
        return axis.windows(length)
    if axis.pointwise:
        return [Window(part.start, part.stop, part.start, part.stop)]
    return list(axis.touching(length, part.start, part.stop))


def _read_one(work: Work, name: str, where: Region) -> NDArray[Any]:
    source = work.sources[name]
    if source is None:
        raise MethodError(f"{name} has no source: expected its pixels from the executor.")
    index = (where.y, where.x) if len(source.shape) == 2 else (slice(None), where.y, where.x)
    if work.counts is not None and name in work.bands and isinstance(source, StoreSource):
        return source.read_counts(index)
    return source.read(index)


_MASKS = ("valid", "source_missing")


def _declared(work: Work, name: str, a: NDArray[Any]) -> NDArray[Any]:
    """A read-only array as methods and kernels are promised it, whatever the cube holds.

    Pixels of a row side by side, float32 (int16 for counts) or bool in native byte order, NaN for
    infinity; a view where the cube has it so.
    """
    value = np.int16 if work.counts is not None and name in work.bands else np.float32
    view = as_rows(a, np.dtype(bool if name in _MASKS else value)).view()
    if view.dtype == np.float32 and has_infinity(view):
        view = np.where(np.isinf(view), np.float32("nan"), view)
    view.flags.writeable = False
    return view


def _check_units(work: Work, arrays: Arrays) -> None:
    """Refuses digital numbers by a sample of clear values; by all where it holds none."""
    valid = arrays["valid"]
    step = tuple(
        slice(None, None, max(1, n // least))
        for n, least in zip(valid.shape, (6, 16, 16), strict=True)
    )
    for name in work.bands:
        found = arrays[name][step][valid[step]]
        if not np.isfinite(found).any():
            found = arrays[name][valid]
        check_values(name, found)


def _merge(work: Work, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Arrays on the merged time steps; the arrays themselves where nothing needs merging."""
    if work.axes.plain_in:
        return dict(arrays)
    groups = work.axes.groups
    first = [g[0] for g in groups]
    # np.take gives C order; a[first] may give any
    merged = {n: np.take(a, first, axis=0) if a.ndim == 3 else a for n, a in arrays.items()}
    for k, group in enumerate(groups):
        if len(group) > 1:
            for name in work.bands:
                merged[name][k] = _mean_clear(arrays[name], arrays["valid"], group)
            merged["valid"][k] = arrays["valid"][list(group)].any(axis=0)
    return merged


def _mean_clear(values: NDArray[Any], valid: Bool, group: tuple[int, ...]) -> NDArray[Any]:
    """Mean of the clear values of one day; the first value where none is clear."""
    part = values[list(group)]
    clear = valid[list(group)] & np.isfinite(part)
    n = clear.sum(axis=0)
    total = np.where(clear, part, 0).sum(axis=0, dtype=np.float64)
    return np.where(n > 0, total / np.maximum(n, 1), part[0]).astype(np.float32)


class _Position(NamedTuple):
    """Where a block lies, and which of its output steps are kept where."""

    t: Window
    y: Window
    x: Window
    steps: slice
    """Steps of `out_time` that the block answers for."""
    inner: slice
    """The same steps among those it returns."""
    asked: slice
    """Steps of `out_time` that it is asked for."""


def _places(work: Work, tile: Region) -> Iterator[_Position]:
    rows, cols = _space(work, tile)
    axis = work.method.needs.time
    n = len(work.axes.groups)
    times = [Window(0, n, 0, n)] if isinstance(axis, Span) and axis.pointwise else axis.windows(n)
    if times[-1].stop > n:
        raise MethodError(
            f"The method sees {times[-1].stop} time steps at once; the cube has {n}. Load a longer "
            "period, or choose another method (cubefill.list_methods())."
        )
    blend = isinstance(axis, Span) and axis.blend == "linear"
    for i, w in enumerate(times):
        steps, inner, asked = _steps(work.axes, times, i, blend)
        if steps.stop > steps.start:
            for y, x in product(rows, cols):
                yield _Position(w, y, x, steps, inner, asked)


def _steps(axes: TimeAxes, times: list[Window], i: int, blend: bool) -> tuple[slice, slice, slice]:
    w = times[i]
    if axes.same:
        kept = slice(w.start, w.stop) if blend else slice(w.keep_start, w.keep_stop)
        return kept, slice(kept.start - w.start, kept.stop - w.start), slice(w.start, w.stop)
    edges = [axes.time[v.keep_start] for v in times[1:]]
    cuts = [0, *np.searchsorted(axes.out_time, np.array(edges, "datetime64[ns]")).tolist()]
    cuts.append(len(axes.out_time))
    steps = slice(cuts[i], cuts[i + 1])
    return steps, slice(0, steps.stop - steps.start), steps


def _block(
    work: Work,
    merged: Arrays,
    time: NDArray[np.datetime64],
    out_time: NDArray[np.datetime64],
    cut: tuple[Any, Any, Any],
    origin: tuple[int, int, int],
    wanted: Arrays,
) -> Block:
    t, y, x = cut

    def take(a: NDArray[Any]) -> NDArray[Any]:
        a = a[t] if a.ndim == 3 else a
        return _take(_take(a, y, -2), x, -1)

    return Block(
        bands={n: take(merged[n]) for n in work.bands},
        valid=take(merged["valid"]),
        time=time,
        out_time=out_time,
        origin=origin,
        sar={n: take(merged[n]) for n in (*SAR_BANDS, *COHERENCE) if n in merged},
        dem=take(merged["DEM"]) if "DEM" in merged else None,
        counts=work.counts,
        std=work.std,
        quantiles=work.quantiles,
        out=wanted,
    )


def _take(a: NDArray[Any], index: slice | NDArray[np.intp], axis: int) -> NDArray[Any]:
    if isinstance(index, slice):
        return a[..., index, :] if axis == -2 else a[..., index]
    return np.take(a, index, axis=axis)


def _cut(w: Window, offset: int, length: int) -> slice | NDArray[np.intp]:
    """Index of a window in an array that starts at `offset`; reflected beyond its end."""
    if w.stop <= length:
        return slice(w.start - offset, w.stop - offset)
    return np.pad(np.arange(length), (0, w.stop - length), "reflect")[w.start :] - offset


# ------------------------------------------------------------------ fill and scatter


def _fill_windows(work: Work, tile: Region, where: Region, arrays: Arrays, into: Arrays) -> Filled:
    merged = _merge(work, arrays)
    axes, places = work.axes, list(_places(work, tile))
    out_time = axes.time if axes.same else axes.out_time
    shape = (len(out_time), *tile.shape)
    alone = len(places) == 1 and _covers(places[0], tile, len(out_time)) and not _blends(work)
    wanted = into if alone and axes.plain_out else {}

    def blocks() -> Iterator[Block]:
        for p in places:
            cut = (
                slice(p.t.start, p.t.stop),
                _cut(p.y, where.y.start, work.shape[0]),
                _cut(p.x, where.x.start, work.shape[1]),
            )
            time = axes.time[cut[0]]
            out = time if axes.same else out_time[p.asked]
            origin = (p.t.start, p.y.start, p.x.start)
            yield _block(work, merged, time, out, cut, origin, wanted)

    answers = zip(places, work.method.fill(blocks()), strict=True)
    if alone:
        _, only = next(answers)
        _check_answer(work, only, shape)
        return only
    return _scatter(work, tile, shape, answers)


def _covers(p: _Position, tile: Region, steps: int) -> bool:
    return (
        (p.y.start, p.y.stop) == (tile.y.start, tile.y.stop)
        and (p.x.start, p.x.stop) == (tile.x.start, tile.x.stop)
        and p.inner == slice(0, steps)
    )


def _scatter(
    work: Work,
    tile: Region,
    shape: tuple[int, int, int],
    answers: Iterator[tuple[_Position, Filled]],
) -> Filled:
    names = list(work.traits.gives)
    value = work.outputs[names[0]]
    out = {n: np.zeros(shape, value) for n in names}
    std = {n: np.zeros(shape, np.float32) for n in names} if work.std else {}
    quantiles = {n: np.zeros(shape, np.float32) for n in work.quantile_names}
    flag = np.full(shape, work.traits.flag, np.uint8)
    total = np.zeros(shape, np.float32) if _blends(work) else None
    flagged = True
    for p, answer in answers:
        asked = (p.asked.stop - p.asked.start, p.y.stop - p.y.start, p.x.stop - p.x.start)
        _check_answer(work, answer, asked)
        weight = _weight(work, p) if total is not None else None
        dst, src = _overlap(p, tile, wide=weight is not None)
        both = (out, answer.bands), (std, answer.std), (quantiles, answer.quantiles)
        for target, given in both:
            for n in target:
                if weight is None:
                    target[n][dst] = given[n][src] if n in given else np.nan
                else:
                    target[n][dst] += given[n][src] * weight[src]
        if total is not None and weight is not None:
            total[dst] += weight[src]
        flagged = flagged and answer.flag is not None
        if answer.flag is not None:
            dst, src = _overlap(p, tile, wide=False)
            flag[dst] = answer.flag[src]
    if total is not None:
        for target in (out, std, quantiles):
            for a in target.values():
                np.divide(a, total, out=a)
    return Filled(out, flag if flagged else None, std, quantiles)


def _overlap(
    p: _Position, tile: Region, *, wide: bool
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a block's answer goes in the tile, and which part of the answer goes there."""
    dst, src = [p.steps], [p.inner]
    for w, part in ((p.y, tile.y), (p.x, tile.x)):
        lo = max(w.start if wide else w.keep_start, part.start)
        hi = max(lo, min(w.stop if wide else w.keep_stop, part.stop))
        dst.append(slice(lo - part.start, hi - part.start))
        src.append(slice(lo - w.start, hi - w.start))
    return tuple(dst), tuple(src)


def _blends(work: Work) -> bool:
    needs = work.method.needs
    return any(isinstance(a, Span) and a.blend == "linear" for a in (needs.time, needs.space))


def _weight(work: Work, p: _Position) -> NDArray[np.float32]:
    """Weights of a block's answer along the axes that blend, 1 along the others."""
    needs = work.method.needs
    ramps = [
        _ramp(w.stop - w.start, a)
        for w, a in ((p.t, needs.time), (p.y, needs.space), (p.x, needs.space))
    ]
    if not work.axes.same:
        ramps[0] = np.ones(p.asked.stop - p.asked.start, np.float32)
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


_LEAST = 1e-6
"""Weight at the edge of a window: it counts where no other window answers, and nowhere else."""


def _ramp(size: int, axis: Axis) -> NDArray[np.float32]:
    """1 in the middle of a window, next to nothing at its edges.

    Two neighbours share `halo` steps. The outer quarter of these is left to the other one, because
    a net knows least at the edge of what it sees; in between the weight rises in equal steps.
    """
    if not isinstance(axis, Span) or axis.blend != "linear" or axis.halo == 0:
        return np.ones(size, np.float32)
    margin = axis.halo // 4
    i = np.arange(size)
    inwards = np.minimum(i, i[::-1]) - margin + 1
    return np.clip(inwards / (axis.halo - 2 * margin + 1), _LEAST, 1).astype(np.float32)


def _check_answer(work: Work, answer: Filled, shape: tuple[int, ...]) -> None:
    for name in work.traits.gives:
        a = answer.bands.get(name)
        if a is None or a.shape != shape or a.dtype != work.outputs[name]:
            got = "nothing" if a is None else f"{a.dtype} of shape {a.shape}"
            raise MethodError(
                f"{type(work.method).__name__} returned {got} for {name}: expected "
                f"{work.outputs[name]} of shape {shape}. Make fill() return it."
            )
