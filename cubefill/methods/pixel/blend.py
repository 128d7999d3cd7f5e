"""Blend: a line and two smoothing splines, each worth what it was worth on this very cube.

Below, in this order: what a sample says of its dates, what it says of the shares, and the method.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import Block, Bool, Codes, Float
from cubefill.methods.pixel.fit import Fit
from cubefill.methods.pixel.kernel import EPOCH
from cubefill.methods.pixel.linear import Linear
from cubefill.methods.pixel.method import Axes, reflectance
from cubefill.methods.pixel.spline import LONG, SEEN, TAIL, mixture

LAMS = (1e3, 1e4)
"""Stiffness of the curves, in days cubed."""
EDGES = (25.0, 50.0)
"""Days between two clear observations that tell short gaps, middle ones and long ones apart."""
KINDS = ("short gap", "middle gap", "long gap", "after the last", "before the first")
SHARES = np.array(
    [[0.37, 0.22, 0.41], [0.29, 0.44, 0.27], [0.55, 0.34, 0.11], [0.65, 0.24, 0.11],
     [0.65, 0.24, 0.11], [1.0, 0.0, 0.0]]
)  # fmt: skip
"""Of the line and each curve where a cube says nothing; for each kind of gap, then observed."""
PIXELS = 256
"""Of the sample that take part."""
FOLDS = 5
"""Parts of the dates that are held out in turn, to see which date is unlike those beside it."""
WINDOWS = (20.0, 40.0, 70.0)
"""Days that are hidden at once, to see what the shares are worth."""
PLACES = 6
"""Windows of each length, spread over the dates; and ends of the series."""
LAST = 20.0
"""Days hidden at an end."""
HOLD = 5.0
"""Hidden windows whose word weighs as much as the shares that hold where a cube says nothing."""
ROUNDS = 3
"""Rounds in which what is far off loses weight."""


# ------------------------------------------------------------------ what the sample says


def sampled(sample: Block) -> tuple[list[Float], Bool]:
    """Bands and `valid`, `(time, 1, pixel)`, of pixels with enough clear observations."""
    bands = [reflectance(b) for b in sample.bands.values()]
    valid = sample.valid & np.logical_and.reduce([np.isfinite(b) for b in bands])
    y, x = np.nonzero(np.count_nonzero(valid, axis=0) >= 4)
    chosen = np.unique(np.linspace(0, max(len(y) - 1, 0), PIXELS).astype(int))[: len(y)]
    at = (slice(None), y[chosen], x[chosen])
    bands, valid = [np.ascontiguousarray(b[at])[:, None] for b in bands], valid[at]
    return bands, np.ascontiguousarray(valid)[:, None]


def curves_of(bands: Sequence[Any], valid: Bool, axes: Axes, trust: Any) -> list[Float]:
    """`(band, time, pixel)` of the line and of each curve."""
    rows = [np.empty((len(bands), *valid.shape), np.float32) for _ in range(1 + len(LAMS))]
    for band, out in zip(bands, rows[0], strict=True):
        Linear().curve(band, valid, axes, out)
    for lam, out in zip(LAMS, rows[1:], strict=True):
        mixture(bands, valid, axes, list(out), [lam], trust=trust, keep=False)
    return [r[:, :, 0] for r in rows]


def trusted(bands: Sequence[Float], valid: Bool, axes: Axes) -> NDArray[np.float64]:
    """Weight of each date: 1 for one as far from what the others say as most, less beyond.

    A date that is off all over, by haze that no mask knows of, is off in the sample. The second
    round judges those beside such a date without it. The first and the last count in full.
    """
    weight = np.ones(len(valid))
    for _ in range(2):
        off = _off(bands, valid, axes, weight)
        known = np.flatnonzero(np.isfinite(off).any(axis=(0, 2)))
        if len(known):
            usual = np.nanmedian(off, axis=(1, 2))[:, None] + 1e-4
            far = (np.nanmedian(off[:, known], axis=2) / usual).mean(axis=0)
            weight[known] = 1.25 / (1 + (far / 2) ** 2)
    return weight


def _off(
    bands: Sequence[Float], valid: Bool, axes: Axes, trust: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far each observation, `(band, time, pixel)`, is from what the other dates say of it."""
    seen = np.flatnonzero(valid.any(axis=(1, 2)))
    off = np.full((len(bands), *valid.shape), np.nan)
    for part in range(FOLDS):
        others, out = valid.copy(), [np.empty(b.shape, np.float32) for b in bands]
        others[seen[part::FOLDS]] = False
        mixture(bands, others, axes, out, LAMS[:1], trust=trust, keep=False)
        before = np.logical_or.accumulate(others, axis=0)
        after = np.logical_or.accumulate(others[::-1], axis=0)[::-1]
        told = valid & ~others & before & after
        for o, band, curve in zip(off, bands, out, strict=True):
            o[told] = np.abs(band - curve)[told]
    return off[:, :, 0]


def hidings(valid: Bool, days: NDArray[np.float64]) -> Iterator[tuple[Bool, Bool]]:
    """Dates that are hidden, and those that are there at all, of windows and of ends."""
    share = np.count_nonzero(valid, axis=(1, 2)) / max(1, valid[0].size)
    clear = np.flatnonzero(share > 0.3 * share.max(initial=0))
    if len(clear) == 0:
        return
    first, last = days[clear[[0, -1]]]
    whole = share > 0
    for length in WINDOWS:
        inside = [t for t in clear if first + length / 2 < days[t] < last - length / 2]
        for t in _spread(inside):
            yield np.abs(days - days[t]) <= length / 2, whole
    for t in _spread([t for t in clear if days[t] - first >= 2.5 * LAST]):
        yield days > days[t] - LAST, whole & (days <= days[t])
    for t in _spread([t for t in clear if last - days[t] >= 2.5 * LAST]):
        yield days < days[t] + LAST, whole & (days >= days[t])


def _spread(dates: list[Any]) -> list[Any]:
    chosen = np.unique(np.linspace(0, max(len(dates) - 1, 0), PLACES).round().astype(int))
    return [dates[i] for i in chosen[: len(dates)]]


def kinds(clear: Bool, days: NDArray[np.float64]) -> NDArray[np.intp]:
    """The kind of gap `(time, pixel)` by what is clear."""
    at = np.where(clear, days[:, None], np.nan)
    before = np.fmax.accumulate(at, axis=0)
    after = np.fmin.accumulate(at[::-1], axis=0)[::-1]
    length = np.searchsorted(EDGES, np.nan_to_num(after - before))
    ends = np.where(np.isnan(after), TAIL, TAIL + 1)
    return np.where(np.isnan(after) | np.isnan(before), ends, length)


def learned_shares(
    bands: Sequence[Float], valid: Bool, axes: Axes, trust: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The table of shares with the least error where the sample's own observations are hidden."""
    found: list[list[Any]] = [[] for _ in range(LONG + 2)]
    windows = np.zeros(len(found))
    truth = np.stack(bands)[:, :, 0]
    for hidden, there in hidings(valid, axes.days):
        others = valid & (there & ~hidden)[:, None, None]
        line, *curves = curves_of(bands, others, axes, trust)
        told = (valid & (there & hidden)[:, None, None])[:, 0]
        told &= np.count_nonzero(others[:, 0], axis=0) >= 3
        kind = np.minimum(kinds(others[:, 0], axes.days), TAIL)[told]
        rows = np.stack([truth - line, *(c - line for c in curves)])[:, :, told]
        for k in np.unique(kind):
            found[k].append(rows[:, :, kind == k].reshape(len(rows), -1))
            windows[k] += 1
    table = SHARES.copy()
    for k, parts in enumerate(found):
        if parts:
            table[k, 1:] = _fitted(np.concatenate(parts, axis=1), SHARES[k, 1:], windows[k])
    table[TAIL + 1] = table[TAIL]
    table[:SEEN, 0] = 1 - table[:SEEN, 1:].sum(axis=1)
    return table


def _fitted(rows: Any, usual: Any, windows: float) -> NDArray[np.float64]:
    """Shares of the curves: least absolute error, held to the usual ones."""
    y, x = rows[0].astype(np.float64), rows[1:].astype(np.float64)
    scale = np.abs(y).mean() + 1e-6
    y, x, share = y / scale, x / scale, usual
    for _ in range(ROUNDS):
        w = 1 / np.maximum(np.abs(y - share @ x), 0.2) / len(y)
        g = (x * w) @ x.T
        hold = HOLD / windows * (np.trace(g) / len(g) + 1e-9) * np.eye(len(g))
        share = np.linalg.solve(g + hold, (x * w) @ y + hold @ usual)
    return share


# ------------------------------------------------------------------ the method


@dataclass(frozen=True)
class Blend(Fit):
    """Line and smoothing splines, blended by what each was worth on hidden dates of this cube.

    Bands of clear pixels of a sample are hidden for weeks, at the ends too, and each is told by a
    line and by two Whittaker curves, a supple and a stiff one. What they are worth by kind of gap
    (up to 25 days, up to 50, longer, at an end) follows by least absolute error, held to shares
    that hold on many places. Dates that are far from those beside them all over the sample, as
    hazy ones are, count less for the curves. Clear observations stay as they are.

    References
    ----------
    Wahba (1978), Improper priors, spline smoothing and the problem of guarding against model
    errors in regression, J. R. Stat. Soc. B 40. Breiman (1996), Stacked regressions, Machine
    Learning 24.

    Examples
    --------
    >>> Blend(max_gap=60).flag.name
    'INTERPOLATED'
    """

    table: tuple[tuple[float, ...], ...] = field(default=(), init=False, repr=False)
    """Shares of the line and the curves for each kind of gap, once `prepare` has seen a sample."""
    trust: tuple[tuple[int, float], ...] = field(default=(), init=False, repr=False)
    """Seconds of a date since `EPOCH`, and its weight, once `prepare` has seen a sample."""

    fits: ClassVar[bool] = False
    fewest: ClassVar[int] = 3
    revision: ClassVar[str] = "1"

    @property
    def wants_sample(self) -> bool:
        """True until the shares are known."""
        return not self.table

    def prepare(self, sample: Block) -> Self:
        """The same method with the shares and the weights of dates that the sample speaks for."""
        learned = self
        if not self.table:
            axes = Axes.of(replace(sample, out_time=sample.time))
            bands, valid = sampled(sample)
            weight, table = np.ones(len(valid)), SHARES
            if valid.size:
                weight = trusted(bands, valid, axes).round(3)
                table = learned_shares(bands, valid, axes, weight).round(3)
            learned = copy.copy(self)
            dates = zip((axes.start + axes.s).tolist(), weight.tolist(), strict=True)
            object.__setattr__(learned, "table", tuple(map(tuple, table.tolist())))
            object.__setattr__(learned, "trust", tuple((d, w) for d, w in dates if w != 1))
        return super(Blend, learned).prepare(sample)

    def recorded(self) -> dict[str, Any]:
        """Shares of line and curves by kind of gap, dates that count less, and expected errors."""
        if not self.table:
            return super().recorded()
        less = {str(EPOCH.astype("M8[s]") + np.timedelta64(d, "s")): w for d, w in self.trust}
        return {
            "shares_lam": list(LAMS),
            "shares_edges_days": list(EDGES),
            "shares": {k: list(r) for k, r in zip(KINDS, self.table, strict=False)},
            "trust": {d: w for d, w in less.items() if w < 0.5},
            **super().recorded(),
        }

    def curve(self, band: Any, valid: Bool, axes: Axes, out: Any) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        return int(self._mixed([band], valid, axes, [out])[0])

    def curves(
        self, bands: Sequence[Any], valid: Bool, axes: Axes, outs: Sequence[Any]
    ) -> tuple[Codes, list[int]]:
        """`curve` for all bands, which share what follows from when a pixel was clear."""
        return self.flags(valid, axes), self._mixed(bands, valid, axes, outs).tolist()

    def _mixed(
        self, bands: Sequence[Any], valid: Bool, axes: Axes, outs: Sequence[Any]
    ) -> NDArray[np.int64]:
        known = dict(self.trust)
        trust = np.array([known.get(d, 1.0) for d in (axes.start + axes.s).tolist()])
        shares = np.array(self.table) if self.table else SHARES
        return mixture(
            bands, valid, axes, outs, LAMS, shares=shares, edges=EDGES, trust=trust,
            keep=self.keeps(axes),
        )  # fmt: skip
