"""The kernels of the harmonic regression: normal equations by Cholesky, a tile of pixels at a time.

The matrix follows from when a pixel was clear, the right side from its values: bands that share
`valid` share the factor. Both ways of getting there do the same arithmetic in the same order.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.methods.pixel.kernel import (
    NAN,
    TABLE,
    VALID,
    Array,
    as_row,
    cube_type,
    keep_clear,
    kernel,
    load,
    reach,
    row,
    store,
)
from cubefill.methods.pixel.robust import bisquare

TILE = 256
EIGHT = 8
"""Dates that are added up at once."""
CUBES = types.Array(types.float64, 3, "C", readonly=True)


def products(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(group, term + pair, 8)`: the design and the products of its terms, eight dates a group.

    Pairs go row by row through the lower triangle; dates are filled up with zeros.
    """
    rows, columns = np.tril_indices(x.shape[1])
    wide = np.concatenate([x, x[:, rows] * x[:, columns]], axis=1)
    wide = np.concatenate([wide, np.zeros((-len(x) % EIGHT, wide.shape[1]))])
    return np.ascontiguousarray(wide.reshape(-1, EIGHT, wide.shape[1]).transpose(0, 2, 1))


@row
def _weights(s: Array, q: Array, v: Array) -> None:
    for j in range(s.shape[0]):
        a = np.float64(s[j])
        clear = a == a
        q[j] = 1.0 if clear else 0.0
        v[j] = a if clear else 0.0


@row
def _weighted(s: Array, w: Array, q: Array, v: Array) -> None:
    for j in range(s.shape[0]):
        a = np.float64(s[j])
        q[j] = w[j] if a == a else 0.0
        v[j] = w[j] * a if a == a else 0.0


@row
def _add(x: Array, q: Array, g: Array) -> None:
    """Adds eight dates to a sum."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for j in range(g.shape[0]):
        a = (x0 * q[0, j] + x1 * q[1, j]) + (x2 * q[2, j] + x3 * q[3, j])
        b = (x4 * q[4, j] + x5 * q[5, j]) + (x6 * q[6, j] + x7 * q[7, j])
        g[j] += a + b


@row
def _subtract(a: Array, b: Array, c: Array) -> None:
    for j in range(a.shape[0]):
        c[j] -= a[j] * b[j]


@row
def _root(a: Array, b: Array) -> None:
    """The diagonal of the factor, and one over it."""
    for j in range(a.shape[0]):
        b[j] = 1.0 / np.sqrt(a[j])


@row
def _times(a: Array, b: Array) -> None:
    for j in range(a.shape[0]):
        b[j] *= a[j]


@row
def _first(x0: float, c0: Array, x1: float, c1: Array, a: Array) -> None:
    for j in range(a.shape[0]):
        a[j] = x0 * c0[j] + x1 * c1[j]


@row
def _more(x0: float, c0: Array, x1: float, c1: Array, a: Array) -> None:
    for j in range(a.shape[0]):
        a[j] += x0 * c0[j] + x1 * c1[j]


@row
def _round(a: Array, r: Array) -> None:
    for j in range(r.shape[0]):
        r[j] = np.float32(a[j])


@row
def _normal(
    s: Array, pairs: Array, w: Array, weighted: bool, q: Array, v: Array, g: Array, c: Array
) -> None:
    """Adds up the normal equations: `g` row by row of the lower triangle, `c` the right side."""
    terms = c.shape[0]
    for i in range(pairs.shape[0]):
        for b in range(EIGHT):
            k = i * EIGHT + b
            if weighted:
                _weighted(s[k], w[k], q[b], v[b])
            else:
                _weights(s[k], q[b], v[b])
        for k in range(terms):
            _add(pairs[i, k], v, c[k])
        for m in range(g.shape[0]):
            _add(pairs[i, terms + m], q, g[m])


@row
def _factor(g: Array, terms: int) -> None:
    """Cholesky factor in `g`, one over its diagonal there instead of it."""
    for k in range(terms):
        rk = k * (k + 1) // 2
        for m in range(k + 1):
            rm = m * (m + 1) // 2
            for i in range(m):
                _subtract(g[rk + i], g[rm + i], g[rk + m])
            if m == k:
                _root(g[rk + k], g[rk + k])
            else:
                _times(g[rm + m], g[rk + m])


@row
def _solve(g: Array, c: Array, terms: int) -> None:
    """The solution in `c`, by the factor `g`."""
    for k in range(terms):
        rk = k * (k + 1) // 2
        for m in range(k):
            _subtract(g[rk + m], c[m], c[k])
        _times(g[rk + k], c[k])
    for k in range(terms - 1, -1, -1):
        for m in range(k + 1, terms):
            _subtract(g[m * (m + 1) // 2 + k], c[m], c[k])
        _times(g[k * (k + 1) // 2 + k], c[k])


@row
def _predict(x: Array, i: int, c: Array, a: Array) -> None:
    """The curve at one date; a lone last term is added to nothing."""
    terms = x.shape[1]
    _first(x[i, 0], c[0], x[i, 1], c[1], a)
    for k in range(2, terms, 2):
        other = min(k + 1, terms - 1)
        _more(x[i, k], c[k], x[i, other] if other > k else 0.0, c[other], a)


@row
def _fit(
    s: Array, pairs: Array, ridge: Array, w: Array, weighted: bool,
    q: Array, v: Array, g: Array, c: Array,
) -> None:  # fmt: skip
    terms = c.shape[0]
    g[:] = 0.0
    c[:] = 0.0
    for k in range(terms):
        g[k * (k + 1) // 2 + k] = ridge[0, k]
    _normal(s, pairs, w, weighted, q, v, g, c)
    _factor(g, terms)
    _solve(g, c, terms)


def _signature(dtype: Any) -> Any:
    return types.int64(
        cube_type(dtype), VALID, CUBES,
        TABLE, TABLE, TABLE, types.int64, types.boolean,
        cube_type(dtype, out=True),
    )  # fmt: skip


@kernel(_signature)
def harmonic(
    band: Array, valid: Array, pairs: Array, x: Array, xo: Array, ridge: Array,
    rounds: int, keep: bool, out: Array,
) -> int:  # fmt: skip
    """Fills `out`; gives the number of clear values that held no data.

    `x (time, term)` is the design at the dates given, `xo` at those asked for, `pairs` is `x` as
    `products` gives it, `ridge (1, term)` is added to the diagonal.
    """
    count, terms, pixels = x.shape[0], x.shape[1], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((pairs.shape[0] * EIGHT, width), NAN, np.float32)
    y = np.empty((count if rounds > 0 else 1, width))
    w = np.zeros((s.shape[0] if rounds > 0 else 1, width))
    q = np.empty((EIGHT, width))
    v = np.empty((EIGHT, width))
    g = np.empty((terms * (terms + 1) // 2, width))
    c = np.empty((terms, width))
    a = np.empty(width)
    r = np.empty(width, np.float32)
    work = np.empty(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        for k in range(rounds + 1):
            if k > 0:
                for i in range(count):
                    _predict(x, i, c, y[i])
                bisquare(s[:count], y, w, work)
            _fit(s, pairs, ridge, w, k > 0, q, v, g, c)
        for k in range(len(xo)):
            _predict(xo, k, c, a)
            _round(a, r)
            if keep:
                keep_clear(s[k], r)
            store(r, k, p0, n, out)
    return lost


# ------------------------------------------------------------------ bands that share `valid`


@row
def _clear(valid: Array, q: Array) -> None:
    for j in range(q.shape[0]):
        q[j] = 1.0 if valid[j] else 0.0


@row
def _clear_tile(valid: Array, i: int, p0: int, n: int, q: Array) -> None:
    if i >= valid.shape[0]:
        q[:] = 0.0
        return
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        _clear(as_row(valid[i, y, x : x + m]), q[j : j + m])
        j += m


def _factor_signature(dtype: Any) -> Any:
    return types.void(VALID, CUBES, TABLE, types.Array(types.float64, 2, "C"))


@kernel(_factor_signature)
def factors(valid: Array, pairs: Array, ridge: Array, out: Array) -> None:
    """Writes the factor `(pair, pixel)` of every pixel to `out`."""
    terms, pixels = ridge.shape[1], valid.shape[1] * valid.shape[2]
    width = min(TILE, pixels)
    q = np.zeros((EIGHT, width))
    g = np.empty((out.shape[0], width))
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        g[:] = 0.0
        for k in range(terms):
            g[k * (k + 1) // 2 + k] = ridge[0, k]
        for i in range(pairs.shape[0]):
            for b in range(EIGHT):
                _clear_tile(valid, i * EIGHT + b, p0, n, q[b])
            for m in range(g.shape[0]):
                _add(pairs[i, terms + m], q, g[m])
        _factor(g, terms)
        for m in range(g.shape[0]):
            out[m, p0 : p0 + n] = g[m, :n]


@row
def _known(s: Array, v: Array) -> None:
    for j in range(s.shape[0]):
        a = np.float64(s[j])
        v[j] = a if a == a else 0.0


def _apply_signature(dtype: Any) -> Any:
    factor = types.Array(types.float64, 2, "C", readonly=True)
    out = cube_type(dtype, out=True)
    return types.int64(cube_type(dtype), VALID, CUBES, TABLE, factor, types.boolean, out)


@kernel(_apply_signature)
def apply_factors(
    band: Array, valid: Array, pairs: Array, xo: Array, factor: Array, keep: bool, out: Array
) -> int:
    """Fills `out` with the factors of `valid`; wrong where the answer is not 0 (see `load`)."""
    terms, pixels = xo.shape[1], band.shape[1] * band.shape[2]
    width = min(TILE, pixels)
    s = np.full((pairs.shape[0] * EIGHT, width), NAN, np.float32)
    v = np.empty((EIGHT, width))
    g = np.zeros((factor.shape[0], width))
    c = np.empty((terms, width))
    a = np.empty(width)
    r = np.empty(width, np.float32)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        c[:] = 0.0
        for i in range(pairs.shape[0]):
            for b in range(EIGHT):
                _known(s[i * EIGHT + b], v[b])
            for k in range(terms):
                _add(pairs[i, k], v, c[k])
        for m in range(g.shape[0]):
            g[m, :n] = factor[m, p0 : p0 + n]
        _solve(g, c, terms)
        for k in range(len(xo)):
            _predict(xo, k, c, a)
            _round(a, r)
            if keep:
                keep_clear(s[k], r)
            store(r, k, p0, n, out)
    return lost
