"""Error and coverage of a method on one cube, by how it fills and the length of the gap."""

import numpy as np
import xarray as xr

from cubefill.cube import spectral
from cubefill.cube.flags import Flag
from cubefill.cube.indices import with_ndvi
from cubefill.errors import CubeError
from cubefill.evaluate.cases import Bool, MethodLike, borrowed, fill, observed, window
from cubefill.evaluate.strata import Floats, whole_days
from cubefill.evaluate.tally import ErrorSums, cells
from cubefill.gaps import Gaps, apply
from cubefill.methods import name_of, quantile_name, resolve
from cubefill.metrics import Coverage, ndvi_mae

BANDS = "bands"
"""`variable` of all bands together."""
ENDS = (0.05, 0.95)
"""Quantiles between which `tally.LEVEL` of the truth should lie."""


def errors_by_gap(
    ds: xr.Dataset,
    method: MethodLike = "auto",
    gaps: Gaps | None = None,
    *,
    baseline: MethodLike = "linear",
    seed: int = 0,
    max_px: int = 192,
) -> xr.Dataset:
    """Held-out error and coverage on this very cube by flag, gap length and position.

    Clear observations are hidden, `method` and `baseline` fill the same cube, and hidden pixels
    that both filled are scored: what to expect of a gap of some length, and how far to trust it.

    Parameters
    ----------
    ds
        A cube with `valid` or SCL.
    method, baseline
        Names, classes or objects.
    gaps
        What to hide; by default `Transplant()`, and `Blobs()` where no date lends a cloud.
    seed
        Of the window and of the gaps.
    max_px
        A larger cube is judged by one window of this side, chosen by the seed.

    Returns
    -------
    xr.Dataset
        `n`, `mae`, `bias`, `ratio` of the error to that of the baseline, `coverage` of the 90 %
        interval where the method knows its error, `interval_score` and `width`, on `(variable,
        flag, gap_length, position)`; `variable` is "bands", all bands together, and "NDVI" where
        red and near infrared are there. NaN and n = 0 where nothing was hidden. Attributes say
        `mae`, `ratio` and `coverage` of the first variable, and what was hidden.

    Raises
    ------
    CubeError
        Nothing can be hidden, or no hidden pixel was filled by both.
    MethodError
        A method is unknown or lacks what it needs in the cube.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> found = errors_by_gap(synthetic_cube(), "whittaker")
    >>> found.n.dims
    ('variable', 'flag', 'gap_length', 'position')
    """
    chosen, base = resolve(method), resolve(baseline)
    part, place = window(ds, max_px, seed)
    gaps = gaps if gaps is not None else borrowed(part, seed)
    hidden = observed(part, gaps, seed)
    test = apply(part, hidden, hidden_as="clouds", seed=seed)
    fills = fill(test, chosen, quantiles=ENDS), fill(test, base, std=False)
    tallies = of_fill(test, part, hidden, *fills)
    total = next(iter(tallies.values()), ErrorSums())
    if not total.n:
        raise CubeError(
            f"{name_of(chosen)} and {name_of(base)} filled no hidden pixel in common: expected at "
            "least one. Pass max_gap=None, or give a longer series."
        )
    out = xr.concat([t.table() for t in tallies.values()], "variable", join="outer", fill_value={
        "n": 0}).assign_coords(variable=list(tallies))  # fmt: skip
    out.attrs |= {
        "method": name_of(chosen), "baseline": name_of(base), "n": total.n,
        "mae": total.mean("error"), "ratio": total.ratio, "coverage": total.mean("inside"),
        "gaps": repr(gaps), "seed": seed, "window": place,
    }  # fmt: skip
    return out


def of_fill(
    test: xr.Dataset, truth: xr.Dataset, where: Bool, filled: xr.Dataset, baseline: xr.Dataset
) -> dict[str, ErrorSums]:
    """A tally of all bands together, and one of NDVI where the bands have it.

    Parameters
    ----------
    test
        The cube as the methods saw it; `filled` and `baseline` are its fills.
    truth
        The cube with what was hidden.
    where
        `(time, y, x)`, what is scored.
    """
    names = tuple(b for b in spectral(test) if b in filled and b in baseline)
    flag = filled["fill_flag"].values if "fill_flag" in filled else np.zeros(where.shape)
    codes = np.nan_to_num(flag, nan=Flag.NO_DATA).astype(np.uint8)
    at = cells(codes, test["valid"].values, whole_days(test["time"].values))[where]
    pair = ndvi_mae(names)
    sides = [
        with_ndvi(side[[n for n in side if str(n) != "fill_flag"]], nir=pair.nir, red=pair.red,
                  clip=True) if pair else side
        for side in (filled, truth, baseline)
    ]  # fmt: skip
    found: dict[str, ErrorSums] = {}
    for name in dict.fromkeys([*names, *(["NDVI"] if pair else [])]):
        tally = found.setdefault(name if name == "NDVI" else BANDS, ErrorSums())
        one, true, base = (side[name].transpose("time", "y", "x").values[where] for side in sides)
        tally.add(one, true, at, baseline=base, interval=interval(sides[0], name, where))
    return found


def interval(filled: xr.Dataset, name: str, where: Bool) -> tuple[Floats, Floats] | None:
    """Both ends of what should hold 90 % of the truth: quantiles, else standard deviations."""
    ends = [quantile_name(name, level) for level in ENDS]
    if all(end in filled for end in ends):
        low, high = (filled[e].transpose("time", "y", "x").values[where] for e in ends)
        return low, high
    if f"{name}_std" not in filled:
        return None
    middle, std = (
        filled[n].transpose("time", "y", "x").values[where] for n in (name, f"{name}_std")
    )
    half = np.float32(Coverage().z) * std
    return middle - half, middle + half
