"""What the clear pixels of a date say of the others: one ridge regression a date.

For a date, what every clear pixel of the sample shows is regressed on the series of that pixel,
straight lines in its gaps and the date itself left out, of all bands at once. The answer is one
weight for every band and date near it: they hold for any pixel of the cube.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import Float
from cubefill.methods.pixel.flags import neighbours

Array = NDArray[Any]
Days = NDArray[np.float64]

FEWEST = 15
"""Clear pixels of a date below which the sample says nothing of it."""
MOST = 1500
"""Clear pixels of a date that are regressed."""
INPUTS = 160
"""Values of a series that a date is told from: so many of the nearest dates, times bands."""
FAR = 150.0
"""Days beyond which a date says nothing of another one."""
MEMORY = 50.0
"""Days over which what a date says of another one falls to a third."""
RIDGE = 3e-4
"""Penalty of 128 values, as a share of the largest variance of the series; more with more."""
EXTRA = 200
"""Pixels of a date that the penalty adds to those it was learned from."""
ROUNDS = 2
"""Times that pixels far from the answer lose weight."""
SEED = 20263


@dataclass(frozen=True)
class Coefficients:
    """What was learned of every date of a cube; row `start[t] + (date - first[t]) * bands + band`.

    A date of which nothing was learned has `first == last`.
    """

    bands: tuple[str, ...]
    """Bands that tell, and are told, together."""
    first: NDArray[np.int64]
    """First date that each date is told from."""
    last: NDArray[np.int64]
    """The one after the last."""
    start: NDArray[np.int64]
    """Row of each date in `weights`."""
    weights: Float
    """`(row, band)`; what they make of a series is the value itself, not its change."""
    bias: Float
    """`(date, band)`."""
    most: Float
    """`(date, band)` how far an answer may be from the straight line."""
    remainder: Float
    """`(date, band)` how far an observation may be from its answer and still count in full."""
    pixels: NDArray[np.int64]
    """Clear pixels that each date was learned from."""

    @property
    def told(self) -> NDArray[np.bool_]:
        """True for dates of which something was learned."""
        known: NDArray[np.bool_] = self.last > self.first
        return known


def left_out(
    series: Float, date: int, dates: slice, days: Days, before: Array, after: Array
) -> Any:
    """`series (time, band, pixel)` over `dates` as if no pixel had been clear on `date`.

    `before` and `after` are the clear dates of each pixel beside it. Straight lines in gaps.
    """
    count, pixels = len(days), np.arange(series.shape[2])
    has_a, has_b = before >= 0, after < count
    a, b = np.clip(before, 0, count - 1), np.clip(after, 0, count - 1)
    va, vb = (series[i, :, pixels].T for i in (a, b))
    va, vb = np.where(has_a, va, vb), np.where(has_b, vb, va)
    steps = np.arange(dates.start, dates.stop)[:, None]
    share = (days[steps] - days[a]) / np.maximum(days[b] - days[a], 1e-9)
    share = np.where(has_a & has_b, share, 0.0).astype(np.float32)
    line = va + (vb - va) * share[:, None]
    return np.where(((before < steps) & (steps < after))[:, None], line, series[dates])


def regressed(
    bands: tuple[str, ...], series: Float, clear: Array, days: Days, dates: Array | None = None
) -> Coefficients:
    """The regression of every date of a sample, or of some `dates`.

    Parameters
    ----------
    bands
        Names of the bands.
    series
        `(time, band, pixel)`, straight lines in the gaps, NaN where a pixel was never clear.
    clear
        `(time, pixel)`, True where all bands were observed.
    days
        Real days of the dates.
    """
    known = np.isfinite(series).all(axis=(0, 1))
    series, clear = series[..., known], clear[:, known]
    before, after = neighbours(clear)
    count, shape = len(days), (len(days), len(bands))
    first, last, start, pixels = np.zeros((4, count), np.int64)
    bias, most, remainder = np.zeros((3, *shape), np.float32)
    rows: list[Float] = []
    for t in range(count) if dates is None else map(int, dates):
        usable = clear[t] & ((before[t] >= 0) | (after[t] < count))
        chosen = np.flatnonzero(usable)
        if len(chosen) < FEWEST:
            continue
        if len(chosen) > MOST:
            rng = np.random.default_rng((SEED, t))
            chosen = np.sort(rng.choice(chosen, MOST, replace=False))
        near = _near(days, t, len(bands))
        part = np.ascontiguousarray(series[..., chosen])
        told = left_out(part, t, near, days, before[t, chosen], after[t, chosen])
        found = _regress(told, told[t - near.start], part[t], np.abs(days[near] - days[t]))
        first[t], last[t], start[t] = near.start, near.stop, sum(map(len, rows))
        pixels[t] = len(chosen)
        weights, bias[t], most[t], remainder[t] = found
        here = (t - near.start) * len(bands)
        weights[here : here + len(bands)] += np.eye(len(bands), dtype=np.float32)
        rows.append(weights)
    weights = np.concatenate(rows) if rows else np.zeros((0, len(bands)), np.float32)
    return Coefficients(bands, first, last, start, weights, bias, most, remainder, pixels)


def _near(days: Days, t: int, bands: int) -> slice:
    """The dates that tell of a date: those within `FAR` days, the nearest ones of these."""
    away = np.abs(days - days[t])
    most = max(3, INPUTS // bands)
    if len(days) > most:
        away[away > np.sort(away, kind="stable")[most - 1]] = np.inf
    near = np.flatnonzero(away <= FAR)
    return slice(int(near[0]), int(near[-1]) + 1)


def _regress(told: Float, line: Float, seen: Float, away: Days) -> tuple[Float, ...]:
    """Weights, bias and limits of one date.

    `told (date, band, pixel)` is what pixels are told from, `line (band, pixel)` the straight line
    of the date and `seen` what was observed. Pixels far from the answer lose weight.
    """
    pixels = seen.shape[1]
    z = told.reshape(-1, pixels).astype(np.float64)
    falls = np.repeat(np.exp(-away / MEMORY), seen.shape[0])[:, None]
    mean = z.mean(axis=1, keepdims=True)
    z = (z - mean) * falls
    r = (seen - line).astype(np.float64)
    share = 1 + EXTRA / pixels
    weight = np.ones(pixels)
    penalty = RIDGE * len(z) / 128 * share * max(float(np.linalg.eigvalsh(z @ z.T)[-1]), 1e-12)
    for turn in range(ROUNDS + 1):
        total = weight.sum()
        zm, middle = z @ weight / total, r @ weight / total
        zw = (z - zm[:, None]) * weight
        gram = zw @ z.T
        gram[np.diag_indices_from(gram)] += penalty
        beta = np.linalg.solve(gram, zw @ (r - middle[:, None]).T)
        middle = middle - zm @ beta
        off = np.abs(r - beta.T @ z - middle[:, None])
        if turn < ROUNDS:
            far = off.mean(axis=0)
            weight = 1 / (1 + (far / (4.5 * np.median(far) + 1e-12)) ** 2)
    weights = beta * falls
    bias = middle - mean[:, 0] @ weights
    most = 6 * np.sqrt((weight * r**2).sum(axis=1) / weight.sum())
    remainder = 6 * np.median(off, axis=1)
    found = (weights, bias, most, remainder)
    return tuple(a.astype(np.float32) for a in found)
