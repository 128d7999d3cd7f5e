"""Weights that take outliers out of a fit: a bad cloud mask leaves some in every series."""

import numpy as np

from cubefill.methods.pixel.kernel import Array, row

BISQUARE = 4.685
"""Distance, in standard deviations, at which an observation loses all weight (95 % efficiency)."""
MAD = 1.4826
"""Standard deviations in a median absolute distance."""
FLOOR = 1e-4
"""Reflectance below which distances are rounding, not outliers."""


@row
def middle(a: Array, n: int) -> float:
    """The lower median of the first `n` values, which it reorders."""
    k = (n - 1) // 2
    lo, hi = 0, n - 1
    while lo < hi:
        pivot = a[(lo + hi) // 2]
        i, j = lo, hi
        while i <= j:
            while a[i] < pivot:
                i += 1
            while a[j] > pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if k <= j:
            hi = j
        elif k >= i:
            lo = i
        else:
            break
    return float(a[k])


@row
def bisquare(s: Array, y: Array, w: Array, work: Array) -> None:
    """Weights `w (time, pixel)` of the observations `s`, from their distance to the curve `y`."""
    count = s.shape[0]
    for j in range(s.shape[1]):
        n = 0
        for i in range(count):
            if s[i, j] == s[i, j]:
                work[n] = abs(np.float64(s[i, j]) - y[i, j])
                n += 1
        reach = BISQUARE * max(MAD * middle(work, n), FLOOR) if n > 0 else 1.0
        for i in range(count):
            u = (np.float64(s[i, j]) - y[i, j]) / reach
            near = (1.0 - u * u) * (1.0 - u * u)
            w[i, j] = near if abs(u) < 1.0 else 0.0
