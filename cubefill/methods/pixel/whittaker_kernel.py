"""The kernel of the V-curve: smoothing splines of many stiffnesses, how far and how bent they are.

The curve that minimises the squared distance to the observations plus `lam` times the integral of
its squared second derivative is a natural cubic spline with its knots at the observations (Reinsch
1967). Its second derivatives follow from a pentadiagonal system, factorised as L D L' in float64
(float32 was measured unusable). `spline.py` fills, and needs them not.
"""

import numpy as np
from numba import types

from cubefill.methods.pixel.kernel import (
    DAYS,
    NAN,
    SECONDS,
    VALID,
    Array,
    kernel,
    load,
    row,
)

TILE = 64
PER_DAY = 1 / 86_400
LEAST = 1e-6
"""Weight of an observation that a robust round forgets."""
ROWS = types.Array(types.float64, 3, "C")


@row
def knots(s: Array, j: int, seconds: Array, t: Array) -> int:
    """Seconds of the observations of pixel `j` of `s (time, pixel)`, in `t`, and their number."""
    n = 0
    for i in range(s.shape[0]):
        t[n] = seconds[i]
        n += 1 if s[i, j] == s[i, j] else 0
    return n


@row
def steps(t: Array, n: int, h: Array) -> None:
    """Days between neighbours of `n` observations."""
    for i in range(n - 1):
        h[i] = (t[i + 1] - t[i]) * PER_DAY


@row
def factor(n: int, lam: float, h: Array, v: Array, l1: Array, l2: Array, d: Array) -> None:
    """Factor of the system of the inner observations; `v` is one over the weight of each.

    `d` holds one over the diagonal.
    """
    for i in range(1, n - 1):
        a, b = 1 / h[i - 1], 1 / h[i]
        c = -a - b
        g = (h[i - 1] + h[i]) / 3 + lam * (a * a * v[i - 1] + c * c * v[i] + b * b * v[i + 1])
        l1[i] = 0.0
        l2[i] = 0.0
        if i > 1:
            q = 1 / h[i - 2]
            e = h[i - 1] / 6 + lam * ((-q - a) * a * v[i - 1] + a * c * v[i])
            if i > 2:
                f = lam * q * a * v[i - 1]
                l2[i] = f * d[i - 2]
                e -= f * l1[i - 1]
                g -= f * l2[i]
            l1[i] = e * d[i - 1]
            g -= e * l1[i]
        d[i] = 1 / g


@row
def solve(
    n: int, lam: float, h: Array, v: Array, l1: Array, l2: Array, d: Array,
    y: Array, g: Array, z: Array,
) -> None:  # fmt: skip
    """Second derivatives `g` and values `z` of the curve at `n` observations `y`."""
    for i in range(n):
        g[i] = 0.0
        z[i] = y[i]
    for i in range(1, n - 1):
        b = (y[i + 1] - y[i]) / h[i] - (y[i] - y[i - 1]) / h[i - 1]
        if i > 1:
            b -= l1[i] * g[i - 1]
        if i > 2:
            b -= l2[i] * g[i - 2]
        g[i] = b
    for i in range(n - 2, 0, -1):
        b = g[i] * d[i]
        if i < n - 2:
            b -= l1[i + 1] * g[i + 1]
        if i < n - 3:
            b -= l2[i + 2] * g[i + 2]
        g[i] = b
    before = 0.0
    for i in range(n - 1):
        bend = (g[i + 1] - g[i]) / h[i]
        z[i] -= lam * v[i] * (bend - before)
        before = bend
    if n > 0:
        z[n - 1] += lam * v[n - 1] * before


@row
def _observed(s: Array, j: int, y: Array) -> None:
    n = 0
    for i in range(s.shape[0]):
        y[n] = np.float64(s[i, j])
        n += 1 if s[i, j] == s[i, j] else 0


@kernel("band", VALID, SECONDS, DAYS, ROWS, gives=types.void)
def sweep(band: Array, valid: Array, seconds: Array, lams: Array, out: Array) -> None:
    """Misfit and roughness `(2, lam, pixel)` of the curve of every pixel for each of `lams`.

    These are the sum of squared distances to the observations and the integral of the squared
    second derivative.
    """
    count, pixels = band.shape[0], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((count, width), NAN, np.float32)
    t = np.empty(count + 1, np.int32)
    v = np.ones(count + 1)
    h, l1, l2 = np.empty(count + 1), np.empty(count + 1), np.empty(count + 1)
    d, y, g, z = np.empty_like(h), np.empty_like(h), np.empty_like(h), np.empty_like(h)
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        load(band, valid, p0, n, s)
        for j in range(n):
            many = knots(s, j, seconds, t)
            steps(t, many, h)
            _observed(s, j, y)
            for m in range(len(lams)):
                factor(many, lams[m], h, v, l1, l2, d)
                solve(many, lams[m], h, v, l1, l2, d, y, g, z)
                misfit, rough = 0.0, 0.0
                for i in range(many):
                    misfit += (y[i] - z[i]) * (y[i] - z[i])
                for i in range(many - 1):
                    rough += h[i] / 3 * (g[i] * g[i] + g[i] * g[i + 1] + g[i + 1] * g[i + 1])
                out[0, m, p0 + j] = misfit
                out[1, m, p0 + j] = rough
