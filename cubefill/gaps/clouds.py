"""What lies under artificial gaps: the cloudy values of other dates, as in a real cube."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]

TURNS = 4
"""Times that each date is turned at random to cover what lies bare otherwise."""


def overcast(
    bands: Mapping[str, NDArray[Any]], valid: Bool, hidden: Bool, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Bands `(time, y, x)` with cloudy values of other dates where `hidden`, NaN where none are.

    Every date with hidden pixels takes what random dates hold at the same pixels where they are
    not valid, then what they hold there when flipped and rolled, `TURNS` times. No value comes
    from a clear observation.

    Parameters
    ----------
    bands
        Name to `(time, y, x)` float, cloudy values included.
    valid
        Clear observations `(time, y, x)`, those that are hidden included.
    hidden
        Observations to cover, a subset of `valid`.
    rng
        Chooses dates and turns.

    Examples
    --------
    >>> valid = np.array([[[True, True]], [[False, True]]])
    >>> bands = {"B04": np.array([[[0.1, 0.2]], [[0.9, 0.3]]])}
    >>> hidden = np.array([[[True, False]], [[False, False]]])
    >>> overcast(bands, valid, hidden, np.random.default_rng(0))["B04"][0].tolist()
    [[0.9, 0.2]]
    """
    out = {n: np.where(hidden, np.nan, a).astype(a.dtype) for n, a in bands.items()}
    cloudy = ~valid & np.logical_and.reduce([np.isfinite(a) for a in bands.values()])
    lenders = np.flatnonzero(cloudy.any((1, 2)))
    for t in np.flatnonzero(hidden.any((1, 2))):
        left = hidden[t].copy()
        for turned in range(TURNS + 1):
            for lender in rng.permutation(lenders):
                turn = _turn(rng, left.shape) if turned else _AS_IT_LIES
                there = left & _placed(cloudy[lender], turn)
                for n, a in out.items():
                    a[t][there] = _placed(bands[n][lender], turn)[there]
                left &= ~there
                if not left.any():
                    break
    return out


_Turn = tuple[tuple[int, int], tuple[int, int]]
_AS_IT_LIES: _Turn = ((1, 1), (0, 0))


def _turn(rng: np.random.Generator, shape: tuple[int, ...]) -> _Turn:
    """Steps of the axes, 1 or -1, and how far to roll them."""
    flip = [-1 if rng.random() < 0.5 else 1 for _ in range(2)]
    roll = [int(rng.integers(n)) for n in shape]
    return (flip[0], flip[1]), (roll[0], roll[1])


def _placed(a: NDArray[Any], turn: _Turn) -> NDArray[Any]:
    """An image `(y, x)`, flipped and rolled."""
    (fy, fx), roll = turn
    if turn == _AS_IT_LIES:
        return a
    return np.roll(a[::fy, ::fx], roll, (0, 1))
