"""How much a curve on irregular days bends, and what it is between them."""

import numpy as np
from numpy.typing import NDArray


def bending(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)`: row i of D holds `[:, i]` at dates i, i + 1, i + 2.

    Rows are second derivatives at each inner date (twice the divided difference), weighted so
    that their squares add up to the integral over time.
    """
    out = np.zeros((3, len(days)))
    if len(days) < 3:
        return out
    h = np.diff(days)
    both = h[:-1] + h[1:]
    out[0, :-2] = np.sqrt(2 / both) / h[:-1]
    out[2, :-2] = np.sqrt(2 / both) / h[1:]
    out[1] = -out[0] - out[2]
    return out


def penalty(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, time)` diagonals of D'D: itself, first and second above it."""
    a, b, c = bending(days)
    out = np.array([a * a, a * b, a * c])
    out[0, 1:] += (b * b)[:-1]
    out[0, 2:] += (c * c)[:-2]
    out[1, 1:] += (b * c)[:-1]
    return out


def local_cubic(
    days: NDArray[np.float64], out_days: NDArray[np.float64], lo: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First of four dates given, and their weights, for each date asked for.

    A cubic Hermite polynomial between two dates, its slopes from parabolas through three.
    """
    start = np.zeros(len(out_days), np.int64)
    weights = np.zeros((len(out_days), 4))
    for k, (day, i) in enumerate(zip(out_days, lo, strict=True)):
        if i < 0 or days[i] == day or i == len(days) - 1:
            start[k] = max(i, 0)
            weights[k, 0] = 1
            continue
        start[k] = max(i - 1, 0)
        near = days[start[k] : start[k] + 4]
        weights[k, : len(near)] = _hermite(near, i - start[k], day)
    return start, weights


def _hermite(x: NDArray[np.float64], i: int, day: float) -> NDArray[np.float64]:
    unit = np.eye(len(x))
    secant = np.diff(unit, axis=0) / np.diff(x)[:, None]
    slopes = np.concatenate([secant[:1], secant[-1:]]) if len(x) == 2 else _slopes(x, secant)
    h = x[i + 1] - x[i]
    u = (day - x[i]) / h
    ends = (1 + 2 * u) * (1 - u) ** 2 * unit[i] + u * u * (3 - 2 * u) * unit[i + 1]
    bent = u * (1 - u) ** 2 * slopes[i] - u * u * (1 - u) * slopes[i + 1]
    weights: NDArray[np.float64] = ends + h * bent
    return weights


def _slopes(x: NDArray[np.float64], secant: NDArray[np.float64]) -> NDArray[np.float64]:
    h = np.diff(x)[:, None]
    inner = (h[1:] * secant[:-1] + h[:-1] * secant[1:]) / (h[:-1] + h[1:])
    return np.concatenate([2 * secant[:1] - inner[:1], inner, 2 * secant[-1:] - inner[-1:]])
