"""The V-curve: how much a Whittaker curve should bend, from the series of a sample."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.pixel.bending import bending, penalty
from cubefill.methods.pixel.kernel import NAN, TABLE, VALID, Array, cube_type, kernel, load, row
from cubefill.methods.pixel.whittaker_kernel import TILE, backwards, factor, forwards, pattern

DEFAULT = 1000.0
"""`lam` where no series of the sample is long enough, in days cubed."""
LAMS = 10.0 ** np.arange(1.0, 7.1, 0.25)
"""Candidates of the V-curve, in days cubed."""
FEWEST = 6
"""Clear observations that a series needs to have a V-curve."""


@row
def _add_up(
    s: Array, y: Array, d: Array, first: Array, last: Array, misfit: Array, rough: Array
) -> None:
    """Squared distance to the observations and squared second derivative, per pixel."""
    misfit[:] = 0.0
    rough[:] = 0.0
    for i in range(s.shape[0]):
        for j in range(s.shape[1]):
            v = np.float64(s[i, j]) - y[i, j]
            misfit[j] += v * v if v == v else 0.0
    for i in range(s.shape[0] - 2):
        for j in range(s.shape[1]):
            b = d[0, i] * y[i, j] + d[1, i] * y[i + 1, j] + d[2, i] * y[i + 2, j]
            rough[j] += b * b if (i >= first[j]) & (i + 2 <= last[j]) else 0.0


def _sweep_signature(dtype: Any) -> Any:
    lams = types.Array(types.float64, 1, "C", readonly=True)
    out = types.Array(types.float64, 3, "C")
    return types.void(cube_type(dtype), VALID, TABLE, TABLE, lams, out)


@kernel(_sweep_signature)
def sweep(band: Array, valid: Array, bend: Array, d: Array, lams: Array, out: Array) -> None:
    """Misfit and roughness `(2, lam, pixel)` of the curve of every pixel for each of `lams`."""
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    w = np.empty((count, width))
    e = np.zeros((count + 2, width))
    f = np.zeros((count + 2, width))
    r = np.empty((count, width))
    y = np.zeros((count + 4, width))
    first = np.empty(width, np.int32)
    last = np.empty(width, np.int32)
    misfit = np.empty(width)
    rough = np.empty(width)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        load(band, valid, p0, n, s)
        pattern(s, w, first, last)
        for m in range(len(lams)):
            factor(bend * lams[m], w, first, last, e, f, r)
            forwards(s, w, e, f, y)
            backwards(e, f, r, y)
            _add_up(s, y, d, first, last, misfit, rough)
            out[0, m, p0 : p0 + n] = misfit[:n]
            out[1, m, p0 : p0 + n] = rough[:n]


def v_curve(bands: Iterable[Array], valid: Array, days: NDArray[np.float64]) -> float:
    """The `lam` at the bottom of the V-curve: the median over the series of all bands.

    For each series: the distance between neighbours of the L-curve (log misfit against log
    roughness over log `lam`) is smallest where more bending buys little.
    """
    best: list[NDArray[np.float64]] = []
    log_lam = np.log10(LAMS)
    for band in bands:
        out = np.empty((2, len(LAMS), band.shape[1] * band.shape[2]))
        sweep(band.dtype, band, valid, penalty(days), bending(days), LAMS, out)
        clear = (valid & np.isfinite(band)).sum(axis=0).ravel() >= FEWEST
        moves = np.diff(np.log10(np.maximum(out[:, :, clear], 1e-300)), axis=1)
        v = np.hypot(*moves) / np.diff(log_lam)[:, None]
        best.append((log_lam[:-1] + log_lam[1:])[v.argmin(axis=0)] / 2)
    found = np.concatenate(best) if best else np.empty(0)
    return float(10 ** np.median(found)) if found.size else DEFAULT
