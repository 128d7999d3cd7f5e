"""Same-date regression written anew, in float64 and by plain means.

What was learned is given: `Coefficients`. The answer of a clear pixel is that of the same pixel
with the observation really taken away.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.samedate.regression import Coefficients

Series = NDArray[np.float64]
Mask = NDArray[np.bool_]
REACH, SIGMA, LEAST = 12, 4.0, 0.02


def line(days: Series, values: Series, clear: Mask) -> Series:
    """Straight lines `(time, band)` between the clear values of a pixel, its ends held."""
    return np.stack([np.interp(days, days[clear], v[clear]) for v in values.T], axis=1)


def told(
    learned: Coefficients, days: Series, values: Series, clear: Mask, t: int
) -> tuple[Series, Mask]:
    """Values `(y, x, band)` of date `t`, and where they are those of a gap.

    `values` are `(time, y, x, band)`, `clear` is `(time, y, x)`.
    """
    seen = clear.copy()
    seen[t] = False
    series = np.full(values.shape, np.nan)
    for at in map(tuple, np.argwhere(seen.any(axis=0))):
        here = (slice(None), *at)
        series[here] = line(days, values[here], seen[here])
    dates = slice(learned.first[t], learned.last[t])
    count = (dates.stop - dates.start) * values.shape[-1]
    rows = learned.weights[learned.start[t] : learned.start[t] + count].astype(float)
    told_from = np.moveaxis(series[dates], 0, 2).reshape(*clear.shape[1:], count)
    answers = told_from @ rows + learned.bias[t]
    rest = np.clip(values[t] - answers, -learned.remainder[t], learned.remainder[t])
    known = clear[t] & np.isfinite(answers).all(axis=-1)
    answers = answers + nearby(np.where(known[..., None], rest, 0.0), known)
    limit = learned.most[t]
    answers = np.clip(answers, series[t] - limit, series[t] + limit)
    return answers, ~clear[t] & np.isfinite(answers).all(axis=-1)


def nearby(remainder: Series, known: Mask) -> Series:
    """The mean remainder around each pixel, shrunk where little is known."""
    away = np.arange(-REACH, REACH + 1)
    bell = np.exp(-((away / SIGMA) ** 2) / 2)
    ny, nx = known.shape
    edge = ((REACH, REACH), (REACH, REACH))
    padded, has = np.pad(remainder, (*edge, (0, 0))), np.pad(known.astype(float), edge)
    total, share = np.zeros(remainder.shape), np.zeros(known.shape)
    for i, y in enumerate(bell / bell.sum()):
        for j, x in enumerate(bell / bell.sum()):
            total += y * x * padded[i : i + ny, j : j + nx]
            share += y * x * has[i : i + ny, j : j + nx]
    return np.asarray(total / (share + LEAST)[..., None])


def suspect(days: Series, values: Series, clear: Mask, scales: Series) -> Mask:
    """Observations `(time, y, x)` far above, or far below, those beside them in every band."""
    found = np.zeros_like(clear)
    for at in np.ndindex(clear.shape[1:]):
        seen = np.flatnonzero(clear[(slice(None), *at)])
        own = values[(seen, *at)]
        if len(seen) < 4 or (np.ptp(own, axis=0) <= 5 * scales).any():
            continue
        for i, when in enumerate(days[seen]):
            sides = np.arange(max(0, i - 3), min(len(seen), i + 4))
            near = sides[(sides != i) & (np.abs(days[seen[sides]] - when) <= 45)]
            if (near < i).any() and (near > i).any():
                off = (own[i] - np.median(own[near], axis=0)) / scales
                found[(seen[i], *at)] = (off > 5).all() or (off < -5).all()
    return found


def block_values(block: Any) -> Series:
    """Values `(time, y, x, band)` of a block."""
    return np.stack([a.astype(float) for a in block.bands.values()], axis=-1)
