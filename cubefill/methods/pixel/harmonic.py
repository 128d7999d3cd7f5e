"""Harmonic regression: what a pixel does at this time of the year.

Normal equations by Cholesky, a tile of pixels at a time. Days are counted from one date, whatever
the cube: what a date is in the equations does not depend on the others. The matrix follows from
when a pixel was clear, the right side from its values: bands that share `valid` share the factor.
Both ways of getting there do the same arithmetic in the same order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import types
from numpy.typing import NDArray

from cubefill.errors import MethodError
from cubefill.methods.contract import Codes
from cubefill.methods.pixel.fit import MOST_ROUNDS, Fit
from cubefill.methods.pixel.kernel import (
    NAN,
    TABLE,
    TABLES,
    VALID,
    Array,
    as_row,
    bisquare,
    copied,
    give,
    inlined,
    kernel,
    load,
    reach,
    rounded,
    row,
    span,
    weigh_clear,
    within,
)
from cubefill.methods.pixel.method import DAY, Axes

YEAR = 365.25
MOST_ORDERS = 12
LEAST_RIDGE = 1e-9
"""Share of the diagonal below which rounding may make it negative."""
TOGETHER = 1 << 14
"""Pixels whose factors are kept for all bands."""
TILE = 256
EIGHT = 8
"""Dates that are added up at once."""


def design(days: NDArray[np.float64], orders: int, trend: bool) -> NDArray[np.float64]:
    """`(time, term)`: one, years where `trend`, then cosine and sine of each order."""
    out = np.ones((len(days), 1 + trend + 2 * orders))
    for terms, day in zip(out, days.tolist(), strict=True):  # math, not numpy: a date's own bits
        waves = [k * 2 * math.pi * (day % YEAR) / YEAR for k in range(1, orders + 1)]
        terms[1:] = [day / YEAR] * trend + [f(w) for w in waves for f in (math.cos, math.sin)]
    return out


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
    """Adds eight dates to a sum, one after the other: one without weight changes no bit."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for j in range(g.shape[0]):
        a = g[j] + x0 * q[0, j] + x1 * q[1, j] + x2 * q[2, j] + x3 * q[3, j]
        g[j] = a + x4 * q[4, j] + x5 * q[5, j] + x6 * q[6, j] + x7 * q[7, j]


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


@inlined
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


@inlined
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


@kernel("band", VALID, TABLES, TABLE, TABLE, TABLE, types.int64, types.boolean, "out")
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
    low = np.empty(width, np.float32)
    high = np.empty(width, np.float32)
    work = np.empty(count)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        span(s[:count], low, high)
        for k in range(rounds + 1):
            if k > 0:
                for i in range(count):
                    _predict(x, i, c, y[i])
                bisquare(s[:count], y, w, work)
            _fit(s, pairs, ridge, w, k > 0, q, v, g, c)
        for k in range(len(xo)):
            _predict(xo, k, c, a)
            rounded(a, r)
            within(r, low, high)
            give(s, r, k, keep, p0, n, out)
    return lost


# ------------------------------------------------------------------ bands that share `valid`


@inlined
def _clear_tile(valid: Array, i: int, p0: int, n: int, q: Array) -> None:
    if i >= valid.shape[0]:
        q[:] = 0.0
        return
    j = 0
    while j < n:
        y, x, m = reach(p0 + j, n - j, valid.shape[2])
        weigh_clear(as_row(valid[i, y, x : x + m]), q[j : j + m])
        j += m


@kernel(VALID, TABLES, TABLE, types.Array(types.float64, 2, "C"), gives=types.void)
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
            copied(g[m], n, out[m, p0:])


@row
def _known(s: Array, v: Array) -> None:
    for j in range(s.shape[0]):
        a = np.float64(s[j])
        v[j] = a if a == a else 0.0


@kernel("band", VALID, TABLES, TABLE, TABLE, types.boolean, "out")
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
    low = np.empty(width, np.float32)
    high = np.empty(width, np.float32)
    lost = 0
    for p0 in range(0, pixels, width):
        n = min(width, pixels - p0)
        lost += load(band, valid, p0, n, s)
        span(s, low, high)
        c[:] = 0.0
        for i in range(pairs.shape[0]):
            for b in range(EIGHT):
                _known(s[i * EIGHT + b], v[b])
            for k in range(terms):
                _add(pairs[i, k], v, c[k])
        for m in range(g.shape[0]):
            copied(factor[m, p0:], n, g[m])
        _solve(g, c, terms)
        for k in range(len(xo)):
            _predict(xo, k, c, a)
            rounded(a, r)
            within(r, low, high)
            give(s, r, k, keep, p0, n, out)
    return lost


# ------------------------------------------------------------------ the method


@dataclass(frozen=True)
class Harmonic(Fit):
    """Harmonic regression: yearly waves and a trend fitted to the pixel's clear observations.

    Least squares in float64, with a little `ridge` on all terms but the mean so that few
    observations give a calm curve. `robust` is the number of rounds in which observations far
    from the curve lose weight (bisquare). The curve is held within the range of the observations;
    a pixel with fewer than two of them for each term gets a straight line.

    References
    ----------
    Roerink et al. (2000), Reconstructing cloudfree NDVI composites using Fourier analysis of time
    series, International Journal of Remote Sensing 21.
    """

    orders: int = 2
    """Waves: one a year, two a year, and so on."""
    trend: bool = True
    """True adds a straight line."""
    robust: int = 0
    """Rounds of robust reweighting."""
    ridge: float = 1e-3
    """Added to the diagonal of the normal equations, the mean's apart."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = 1 <= self.orders <= MOST_ORDERS and 0 <= self.robust <= MOST_ROUNDS
        if not known or not LEAST_RIDGE <= self.ridge <= 1 / LEAST_RIDGE:
            raise MethodError(
                f"Harmonic(orders={self.orders}, ridge={self.ridge}, robust={self.robust}): "
                f"expected orders 1 to {MOST_ORDERS}, ridge {LEAST_RIDGE} to {1 / LEAST_RIDGE:g} "
                f"and robust 0 to {MOST_ROUNDS}; pass orders=2, ridge=1e-3."
            )

    @property
    def fewest(self) -> int:
        """Two for each term of the curve."""
        return 2 * (1 + self.trend + 2 * self.orders)

    def curve(self, band: Array, valid: Array, axes: Axes, out: Array) -> int:
        """Fills `out`, limits aside; gives the number of clear values that held no data."""
        x, xo, ridge = self._designs(axes)
        keep = self.keeps(axes)
        args = (band, valid, products(x), x, xo, ridge, self.robust, keep, out)
        return int(harmonic(band.dtype, *args))

    def curves(
        self, bands: Sequence[Array], valid: Array, axes: Axes, outs: Sequence[Array]
    ) -> tuple[Codes, list[int]]:
        """`curve` for all bands, which share the factors of the normal equations."""
        if self.robust or len(bands) == 1:
            return super().curves(bands, valid, axes, outs)
        x, xo, ridge = self._designs(axes)
        pairs, keep = products(x), self.keeps(axes)
        height, width = valid.shape[1:]
        rows = max(1, TOGETHER // max(1, width))
        factor = np.empty((pairs.shape[1] - x.shape[1], min(rows, height) * width))
        lost = [0] * len(bands)
        for y in range(0, height, rows):
            part = (slice(None), slice(y, y + rows))
            factors(np.dtype(np.float32), valid[part], pairs, ridge, factor)
            for i, (band, out) in enumerate(zip(bands, outs, strict=True)):
                args = (band[part], valid[part], pairs, xo, factor, keep, out[part])
                lost[i] += apply_factors(band.dtype, *args)
        for i, (band, out) in enumerate(zip(bands, outs, strict=True)):
            if lost[i]:
                self.curve(band, valid, axes, out)
        return self.flags(valid, axes), lost

    def _designs(self, axes: Axes) -> tuple[Array, Array, Array]:
        """The design at the dates given and asked for, and the ridge of each term."""
        given, asked = ((axes.start + a.astype(np.int64)) / DAY for a in (axes.s, axes.so))
        x = design(given, self.orders, self.trend)
        xo = design(asked, self.orders, self.trend)
        ridge = np.full((1, x.shape[1]), float(self.ridge))
        ridge[0, 0] = 0
        return x, xo, ridge
