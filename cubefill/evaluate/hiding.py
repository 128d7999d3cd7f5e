"""What every evaluation does first: a window in memory, what is hidden in it, and the fills."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import gaps as artificial
from cubefill.cube import spectral
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.cube.valid import apply
from cubefill.engine import gapfill
from cubefill.errors import CubeError
from cubefill.gaps import Gaps
from cubefill.gaps.clouds import overcast
from cubefill.methods import Flag, Method, name_of, traits

_TRIES = 12
_SEED = 20_170
_CLOUDS = 8

HiddenAs = Literal["clouds", "nodata"]
"""What methods are shown of hidden pixels."""


def window(ds: xr.Dataset, side: int, seed: int = 0) -> tuple[xr.Dataset, str]:
    """A part of the cube in memory, at most `side` pixels wide and high, and where it lies.

    Several places are drawn, at even rows and columns, so that the pixels of a 20 m grid stay
    together; the first that is seen clear as often as the median one is taken.
    """
    if "valid" not in ds:
        ds = ds.assign(valid=apply(ds))
    names = [*spectral(ds), *(n for n in _EXTRA if n in ds)]
    ds = ds[names].sortby("time").transpose("time", "y", "x", ...)
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    if max(ny, nx) <= side:
        return ds.compute(), "the whole cube"
    rng = np.random.default_rng([_SEED, seed])
    tops = [
        tuple(int(rng.integers(max(1, n - side + 1))) // 2 * 2 for n in (ny, nx))
        for _ in range(_TRIES)
    ]
    step = max(1, side // 16)
    parts = {
        str(i): ds["valid"].isel(y=slice(y, y + side, step), x=slice(x, x + side, step)).mean()
        for i, (y, x) in enumerate(tops)
    }
    clear = [float(share) for share in xr.Dataset(parts).compute().values()]
    y, x = tops[next(i for i, c in enumerate(clear) if c >= np.median(clear))]
    part = ds.isel(y=slice(y, y + side), x=slice(x, x + side)).compute()
    return part, f"rows {y} to {y + part.sizes['y']}, columns {x} to {x + part.sizes['x']}"


_EXTRA = ("valid", "DEM", *SAR_BANDS, *COHERENCE, "sar_valid", "source_missing", "land_cover")


def observed(part: xr.Dataset, gaps: Gaps, seed: int) -> NDArray[np.bool_]:
    """Hidden pixels whose bands are all known, so that there is a truth."""
    hidden = artificial.hide(part, gaps, seed).values
    known = np.all([np.isfinite(part[b].values) for b in spectral(part)], axis=0)
    both: NDArray[np.bool_] = hidden & known
    return both


def gapped(
    part: xr.Dataset, hidden: NDArray[np.bool_], hidden_as: HiddenAs, seed: int
) -> xr.Dataset:
    """The window with clear pixels hidden under cloudy values of its other dates, or as no data."""
    if hidden_as not in ("clouds", "nodata"):
        raise CubeError(f"hidden_as: expected 'clouds' or 'nodata', got {hidden_as!r}.")
    test = artificial.apply(part, hidden)
    if hidden_as == "nodata":
        return test
    bands = {n: part[n].values for n in spectral(part)}
    shown = overcast(bands, part["valid"].values, hidden, np.random.default_rng([seed, _CLOUDS]))
    return test.assign({n: test[n].copy(data=a) for n, a in shown.items()})


def fill(test: xr.Dataset, method: Method, *, std: bool = True) -> xr.Dataset:
    """The filled window, NaN where the method gave up; `std` where it knows its error."""
    wanted = std and traits(method, spectral(test)).gives_std
    out = gapfill(test, method, std=wanted).compute()
    if "fill_flag" not in out:
        return out
    left = out["fill_flag"].isin([int(Flag.SOURCE_MISSING), int(Flag.UNFILLABLE)])
    return out.where(~left) if bool(left.any()) else out


def names(chosen: Iterable[Method]) -> list[str]:
    """Registered names; equal ones are numbered."""
    found: list[str] = []
    for method in chosen:
        name = name_of(method)
        count = sum(n.split(" ")[0] == name for n in found)
        found.append(f"{name} ({count + 1})" if count else name)
    return found
