"""Error and coverage of fills by how a value was made, the length of its gap and its position.

`ErrorSums` is a table of sums: those of several bands, dates and cubes add up, and `table` turns
their sum into errors. `cells` says which row of the table each pixel belongs to.
"""

from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.flags import Flag
from cubefill.evaluate.strata import GAP_LENGTHS, POSITIONS, Bool, Floats, gap_length, position

FLAGS = tuple(Flag)
_SUMS = ("n", "error", "signed", "baseline", "known", "inside", "score", "width")
_SHAPE = (len(FLAGS), len(GAP_LENGTHS), len(POSITIONS))
_NONE = int(np.prod(_SHAPE))
LEVEL = 0.9
"""Share of the truth that an interval should hold."""


def cells(flag: NDArray[np.integer], seen: Bool, days: Floats) -> NDArray[np.intp]:
    """The cell of each pixel `(time, y, x)`: index into the flattened table of `ErrorSums`.

    Parameters
    ----------
    flag
        Codes of `fill_flag`.
    seen
        True where the method was shown a clear observation.
    days
        Day of each time step.
    """
    code = np.searchsorted([int(f) for f in FLAGS], np.asarray(flag))
    gap, place = gap_length(seen, days), position(seen, days)
    found = (code * _SHAPE[1] + gap) * _SHAPE[2] + place
    return np.where((gap < 0) | (place < 0), _NONE, found)


@dataclass
class ErrorSums:
    """Sums over values by cell; empty at first.

    Examples
    --------
    >>> day = np.array([0.0, 5, 10])
    >>> seen = np.array([True, False, True]).reshape(3, 1, 1)
    >>> where = cells(np.full(seen.shape, Flag.INTERPOLATED), seen, day)
    >>> found = ErrorSums()
    >>> found.add(np.array([0.25]), np.array([0.5]), where[~seen], baseline=np.array([0.0]))
    >>> float(found.ratio), found.table().mae.sel(flag="interpolated").max().item()
    (0.5, 0.25)
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(_SUMS), _NONE + 1)))

    def add(
        self,
        filled: Floats,
        truth: Floats,
        where: NDArray[np.intp],
        *,
        baseline: Floats | None = None,
        interval: tuple[Floats, Floats] | None = None,
    ) -> None:
        """Adds values, all of one length; those that are not finite in fill or truth do not count.

        Parameters
        ----------
        filled, truth
            Values.
        where
            Their cells.
        baseline
            Values of the method to compare with; only what both filled counts.
        interval
            Lower and upper ends that should hold `LEVEL` of the truth; NaN for not known.
        """
        both = np.isfinite(filled) & np.isfinite(truth)
        if baseline is not None:
            both &= np.isfinite(baseline)
        at, true = where[both], truth[both].astype(np.float64)
        error = filled[both] - true
        terms = [np.ones(len(error)), np.abs(error), error]
        terms.append(np.zeros(len(error)) if baseline is None else np.abs(baseline[both] - true))
        if interval is not None:
            low, high = (end[both].astype(np.float64) for end in interval)
            known = np.isfinite(low) & np.isfinite(high)
            low, high = np.where(known, low, 0), np.where(known, high, 0)
            outside = np.maximum(low - true, 0) + np.maximum(true - high, 0)
            width = high - low
            terms += [known, known & (outside == 0), known * (width + 2 / (1 - LEVEL) * outside)]
            terms.append(known * width)
        for i, term in enumerate(terms):
            self.sums[i] += np.bincount(at, weights=term, minlength=_NONE + 1)

    def __add__(self, other: "ErrorSums") -> "ErrorSums":
        return ErrorSums(self.sums + other.sums)

    def total(self, name: str) -> float:
        """One of the sums over all cells."""
        return float(self.sums[_SUMS.index(name)].sum())

    def mean(self, name: str) -> float:
        """A sum per value; those of intervals per value that has one. NaN for none."""
        n = self.total("n" if name in _SUMS[:4] else "known")
        return self.total(name) / n if n else float("nan")

    @property
    def n(self) -> int:
        """Values."""
        return int(self.total("n"))

    @property
    def ratio(self) -> float:
        """Error over that of the baseline, NaN for none."""
        base = self.total("baseline")
        return self.total("error") / base if base else float("nan")

    def table(self) -> xr.Dataset:
        """Errors by `flag`, `gap_length` and `position`; NaN where `n` is 0.

        Returns
        -------
        xr.Dataset
            `n`; `mae` and `bias`, in the units of the values; `ratio` of the error to that of the
            baseline; `coverage`, share of the truth within the interval; `interval_score` (smaller
            is better) and `width` of the interval.
        """
        found = self.sums[:, :_NONE].reshape(len(_SUMS), *_SHAPE)
        used = found[0].any((1, 2))
        s = dict(zip(_SUMS, found[:, used], strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "n": s["n"].astype(np.int64),
                "mae": s["error"] / s["n"],
                "bias": s["signed"] / s["n"],
                "ratio": s["error"] / np.where(s["baseline"] > 0, s["baseline"], np.nan),
                "coverage": s["inside"] / s["known"],
                "interval_score": s["score"] / s["known"],
                "width": s["width"] / s["known"],
            }
        dims = ("flag", "gap_length", "position")
        names = [f.name.lower() for f, u in zip(FLAGS, used, strict=True) if u]
        return xr.Dataset(
            {k: (dims, v) for k, v in values.items()},
            {"flag": names, "gap_length": list(GAP_LENGTHS), "position": list(POSITIONS)},
            {"interval": LEVEL},
        )
