"""What hiding means: which observations are taken, and what lies in their place.

`hide` chooses observations of a cube, `apply` takes them out of it; `covered` is what both cubes
and blocks of samples hold under hidden pixels, no data or the cloudy values of other dates.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import spectral
from cubefill.cube import valid as validity
from cubefill.errors import CubeError
from cubefill.gaps.kinds import Bool, Gaps

HiddenAs = Literal["clouds", "nodata"]
"""What is shown of hidden pixels."""
TURNS = 4
"""Times that each date is turned at random to cover what lies bare otherwise."""
_CLOUDS = 8


def hide(ds: xr.Dataset, gaps: Gaps, seed: int = 0) -> xr.DataArray:
    """The observations of a cube that `gaps` hides: bool `(time, y, x)`, a subset of `ds.valid`."""
    valid = _valid(ds)
    days = (ds["time"].values - ds["time"].values[0]) / np.timedelta64(86_400_000_000_000, "ns")
    hidden = gaps.make(valid.values, np.asarray(days, dtype=np.float64), seed)
    return xr.DataArray(
        hidden, coords=valid.coords, dims=valid.dims, name="hidden",
        attrs={"long_name": "clear observation that was hidden", "gaps": repr(gaps), "seed": seed},
    )  # fmt: skip


def apply(
    ds: xr.Dataset,
    hidden: xr.DataArray | Bool,
    *,
    hidden_as: HiddenAs = "nodata",
    seed: int = 0,
) -> xr.Dataset:
    """The cube with `hidden` taken out of `valid`, and out of its bands, so that nothing sees it.

    Parameters
    ----------
    ds
        A cube with `valid`; lazy bands stay lazy for "nodata".
    hidden
        bool `(time, y, x)`, such as `hide` gives.
    hidden_as
        What lies in its place: "nodata", NaN; or "clouds", cloudy values of other dates, NaN where
        there are none.
    seed
        Of the dates whose clouds are shown.

    Raises
    ------
    CubeError
        The cube has no `valid`, `hidden` has another shape, or `hidden_as` is unknown.
    """
    if hidden_as not in ("clouds", "nodata"):
        raise CubeError(f"hidden_as: expected 'clouds' or 'nodata', got {hidden_as!r}.")
    valid = _valid(ds)
    values = np.asarray(hidden)
    if values.dtype != np.bool_ or values.shape != valid.shape:
        raise CubeError(
            f"hidden: expected bool of shape {valid.shape}, got {values.dtype} {values.shape}. "
            "Use gaps.hide(ds, Transplant()) to make it."
        )
    out = valid.copy(data=valid.data & ~values)
    out.attrs["hidden"] = int(values.sum())
    whole = {n: ds[n].transpose("time", "y", "x") for n in spectral(ds)}
    if hidden_as == "clouds":
        rng = np.random.default_rng([seed, _CLOUDS])
        found = covered({n: a.values for n, a in whole.items()}, valid.values, values, rng)
        bands = {n: a.copy(data=found[n]) for n, a in whole.items()}
    else:
        shown = xr.DataArray(~values, dims=("time", "y", "x"))
        bands = {n: a.where(shown) for n, a in whole.items()}
    for name, band in bands.items():
        bands[name] = band.transpose(*ds[name].dims)
        bands[name].encoding = dict(ds[name].encoding)
    return ds.assign({**bands, "valid": out})


def covered(
    bands: Mapping[str, NDArray[Any]],
    valid: Bool,
    hidden: Bool,
    rng: np.random.Generator | None = None,
) -> dict[str, NDArray[Any]]:
    """Bands `(time, y, x)` with NaN where `hidden`; with `rng`, cloudy values of other dates.

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
        Chooses dates and turns; None for no data.

    Examples
    --------
    >>> valid = np.array([[[True, True]], [[False, True]]])
    >>> bands = {"B04": np.array([[[0.1, 0.2]], [[0.9, 0.3]]])}
    >>> hidden = np.array([[[True, False]], [[False, False]]])
    >>> covered(bands, valid, hidden, np.random.default_rng(0))["B04"][0].tolist()
    [[0.9, 0.2]]
    """
    out = {n: np.where(hidden, np.nan, a).astype(a.dtype) for n, a in bands.items()}
    if rng is None:
        return out
    cloudy = ~valid & np.logical_and.reduce([np.isfinite(a) for a in bands.values()])
    donors = np.flatnonzero(cloudy.any((1, 2)))
    for t in np.flatnonzero(hidden.any((1, 2))):
        left = hidden[t].copy()
        for turned in range(TURNS + 1):
            for donor in rng.permutation(donors):
                turn = _turn(rng, left.shape) if turned else _AS_IT_LIES
                there = left & _placed(cloudy[donor], turn)
                for n, a in out.items():
                    a[t][there] = _placed(bands[n][donor], turn)[there]
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


def _valid(ds: xr.Dataset) -> xr.DataArray:
    if "valid" not in ds:
        raise CubeError(
            "Expected a cube with `valid`, got none. Use "
            "ds.assign(valid=cubefill.cube.valid.from_scl(ds.SCL))."
        )
    return validity.apply(ds)
