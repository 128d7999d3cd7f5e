"""What a straight line says of every date, which a net that learns a residual adds its answer to.

A clear value is also compared with the line through the clear ones before and after it, itself left
out: what a date differs by is known where it is clear, and is what a net carries into its gaps.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import Bool, Float
from cubefill.methods.pixel.flags import neighbours

SCALE = 10.0
"""Differences of reflectance are multiplied by this, so that a net is given numbers of order 1."""
AROUND = (5, 17, 49)
"""Edges in pixels of the squares over which a date's differences are averaged."""
END = 25.0
"""Days from the nearest observation up to which a residual at an end of a series is believed."""
HALF = 0.05
"""Share of clear pixels in the largest square at which half of a residual is believed."""
FEWEST = np.float32(1e-3)
"""Share of clear pixels below which such a mean goes to 0."""
MEMORY = 20.0
"""Days after which an observation counts a third in what a net is told of its distance."""


@dataclass(frozen=True)
class Prior:
    """A series on straight lines, date by date."""

    values: Float
    """`(date, band, y, x)`: clear values, and straight lines between them, held at the ends; NaN
    for a pixel that is never clear."""
    differs: Float
    """`(date, band, y, x)`: a clear value minus the line without it; 0 in a gap."""
    change: Float
    """`(date, band, y, x)`: the next other clear value minus the last one; 0 at the ends."""
    last: Float
    """`(date, band, y, x)`: `differs` of the last other clear date; 0 where there is none."""
    following: Float
    """`(date, band, y, x)`: that of the next one."""
    clear: Bool
    """`(date, y, x)`."""
    before: Float
    """`(date, y, x)`: days to the last other clear value, infinite where there is none."""
    after: Float
    """`(date, y, x)`: days to the next one."""

    def part(self, start: int, stop: int) -> "Prior":
        """Some dates of it, as views."""
        return Prior(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    def known(self) -> Float:
        """`values` with the mean of the date's other pixels for those that are never clear."""
        lost = np.isnan(self.values)
        if not lost.any():
            return self.values
        filled = np.where(lost, np.float32(0), self.values)
        mean = filled.sum((2, 3)) / np.maximum(1, (~lost).sum((2, 3)))
        return np.where(lost, mean[..., None, None].astype(np.float32), self.values)

    def support(self) -> Float:
        """`(date, 1, y, x)`, 0 to 1: how far a residual is to be believed.

        Between two clear observations it is as good as what the date itself shows around the
        pixel. On dates that show nothing a net that was trained on simulations did no better than
        the line on real places. At an end of the series, where the line is a held value, it is good
        for as many days as were hidden in training, and falls to nothing in as many more.
        """
        share = self._shares(AROUND[-1])
        ends = np.isinf(np.maximum(self.before, self.after))[:, None]
        away = np.minimum(self.before, self.after)[:, None]
        held = np.clip(2 - away / np.float32(END), 0, 1)
        return np.where(ends, np.maximum(held, share), share / (share + np.float32(HALF)))

    def _shares(self, size: int) -> Float:
        """`(date, 1, y, x)`: share of the square around that is clear and compared with a line."""
        from scipy.ndimage import uniform_filter

        known = (self.clear & np.isfinite(np.minimum(self.before, self.after)))[:, None]
        shares: Float = uniform_filter(known.astype(np.float32), (1, 1, size, size))
        return shares.clip(0, 1)

    def nearby(self) -> list[Float]:
        """For each of `AROUND`, the mean `differs` of what is clear there, and the share of it."""
        from scipy.ndimage import uniform_filter

        found: list[Float] = []
        for size in AROUND:
            around, share = (1, 1, size, size), self._shares(size)
            mean = uniform_filter(self.differs, around) / np.maximum(share, FEWEST)
            found += [mean * np.float32(SCALE), share]
        return found

    def features(self) -> Float:
        """`(date, features_of(band), y, x)`: all of it in numbers of order 1."""
        near = [np.exp(-days / np.float32(MEMORY)) for days in (self.before, self.after)]
        told = np.stack([self.clear.astype(np.float32), *near], axis=1)
        small = (self.differs, self.change, self.last, self.following)
        parts = [self.known(), *(a * np.float32(SCALE) for a in small), told, *self.nearby()]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def features_of(bands: int) -> int:
    """Count of the features of a prior of so many bands."""
    return 5 * bands + 3 + len(AROUND) * (bands + 1)


def prior_of(bands: Float, valid: Bool, days: NDArray[np.float64]) -> Prior:
    """The prior of `bands (date, band, y, x)`, clear where `valid (date, y, x)`, on `days (date,)`.

    Examples
    --------
    >>> values = np.array([0.1, 0.9, 0.3], np.float32).reshape(3, 1, 1, 1)
    >>> clear = np.array([True, False, True]).reshape(3, 1, 1)
    >>> prior_of(values, clear, np.array([0.0, 5.0, 10.0])).values.ravel().round(3).tolist()
    [0.1, 0.2, 0.3]
    """
    clear = valid & np.isfinite(bands).all(axis=1)
    seen = np.where(clear[:, None], bands, np.float32(0)).astype(np.float32, copy=False)
    last, following = neighbours(clear)
    none_before, none_after = last < 0, following == len(days)
    following = np.where(none_after, 0, following)
    day = (days - days[0]).astype(np.float32)
    here, endless = day[:, None, None], np.float32(np.inf)
    before = np.where(none_before, endless, here - day[last])
    after = np.where(none_after, endless, day[following] - here)
    a, b = (np.take_along_axis(seen, i[:, None], axis=0) for i in (last, following))
    inside = ~none_before & ~none_after
    change = np.where(inside[:, None], b - a, np.float32(0))
    share = np.zeros_like(before)
    np.divide(before, before + after, out=share, where=inside)
    line = np.where(none_before[:, None], b, a + change * share[:, None])
    alone = (none_before & none_after)[:, None]
    values = np.where(clear[:, None], seen, np.where(alone, np.float32(np.nan), line))
    differs = np.where(clear[:, None] & ~alone, seen - line, np.float32(0))
    of_last, of_next = (
        np.where(none[:, None], np.float32(0), np.take_along_axis(differs, i[:, None], axis=0))
        for none, i in ((none_before, last), (none_after, following))
    )
    return Prior(values, differs, change, of_last, of_next, clear, before, after)
