"""Held-out errors of methods on a user's own cube: hide clear pixels, fill, compare."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import gaps as artificial
from cubefill import metrics
from cubefill.cube import spectral
from cubefill.engine import gapfill
from cubefill.errors import CubeError
from cubefill.gaps import Gaps, Transplant
from cubefill.method import Flag, Method, name_of, resolve, traits
from cubefill.metrics import Score
from cubefill.valid import apply

METRICS = ("MAE", "RMSE", "PSNR", "SAM", "NDVI-MAE")
"""Metrics of the table; `coverage` joins where a method knows the error of its fill."""

PIXEL_SET = "clear pixels that were hidden and that every method filled"

_DIGITS = {"PSNR": 1, "SAM": 2, "coverage": 2}
_TRIES = 12
_SEED = 20_170


def self_test(
    ds: xr.Dataset,
    methods: Sequence[str | Method | type[Method]] = ("linear",),
    gaps: Gaps | None = None,
    seed: int = 0,
    max_px: int = 192,
) -> xr.Dataset:
    """Held-out errors on this very cube, a dataset of one variable per metric along `method_name`.

    Clear observations are hidden under real cloud shapes of other dates, every method fills the
    same cube, and hidden pixels alone are scored. The error is that of gaps like the hidden ones,
    where the sky was clear; under real clouds, undetected haze comes on top.

    Parameters
    ----------
    ds
        A cube with `valid` or SCL.
    methods
        Names, classes or objects; each sees the same hidden pixels and is scored on the same ones.
    gaps
        What to hide; by default `Transplant()`, and `Blobs()` where no date lends a cloud.
    seed
        Of the window and of the gaps.
    max_px
        A larger cube is judged by one window of this side, chosen by the seed.

    Returns
    -------
    xr.Dataset
        Variables `mae`, `rmse`, `psnr`, `sam`, `ndvi_mae` and `coverage` of the 90 % interval where
        they can be had, and `filled`, the share of the hidden values that a method filled. Each
        carries its convention, peak, pooling, pixel set and `n`; attributes say what was hidden.

    Raises
    ------
    CubeError
        Nothing can be hidden: too few clear dates, or none at all.
    MethodError
        A method is unknown or lacks what it needs in the cube.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> found = self_test(synthetic_cube(), ("linear", "nearest"))
    >>> [str(m) for m in found.method_name.values]
    ['linear', 'nearest']
    """
    chosen = [resolve(m) for m in methods]
    if not chosen:
        raise CubeError("self_test compares methods: expected one or more. Type ('linear',).")
    part, where = window(ds, max_px, seed)
    hidden, used = _hide(part, gaps, seed)
    test = artificial.apply(part, hidden)
    fills = [_fill(test, m) for m in chosen]
    bands = [b for b in spectral(part) if all(b in f for f in fills)]
    if not bands:
        raise CubeError(
            f"The methods give no band in common with {', '.join(spectral(part))}: expected "
            "filled bands, not a smoothed product. Type smooth=False."
        )
    known = [np.all([np.isfinite(f[b].values) for b in bands], axis=0) for f in fills]
    scored = hidden & np.all(known, axis=0)
    if not scored.any():
        raise CubeError(
            "The methods filled no hidden pixel in common: expected at least one. "
            "Type max_gap=None, or give a longer series."
        )
    rows = [_score(f, part, scored, bands) for f in fills]
    shares = [float(k[hidden].mean()) for k in known]
    out = _table(_names(chosen), rows, shares)
    out.attrs = _attrs(out, hidden, used, seed, where, bands)
    return out


def window(ds: xr.Dataset, side: int, seed: int = 0) -> tuple[xr.Dataset, str]:
    """A part of the cube in memory, at most `side` pixels wide and high, and where it lies.

    Several places are drawn; the first that is seen clear as often as the median one is taken.
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
        (int(rng.integers(max(1, ny - side + 1))), int(rng.integers(max(1, nx - side + 1))))
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


_EXTRA = ("valid", "DEM", "VV", "VH", "sar_valid", "source_missing")


def _hide(part: xr.Dataset, gaps: Gaps | None, seed: int) -> tuple[NDArray[np.bool_], Gaps]:
    """What is hidden, and by what; blobs stand in where no cloud can be borrowed."""
    if gaps is not None:
        return _observed(part, gaps, seed), gaps
    try:
        return _observed(part, Transplant(), seed), Transplant()
    except CubeError:
        return _observed(part, artificial.Blobs(), seed), artificial.Blobs()


def _observed(part: xr.Dataset, gaps: Gaps, seed: int) -> NDArray[np.bool_]:
    """Hidden pixels whose bands are all known, so that there is a truth."""
    hidden = artificial.hide(part, gaps, seed).values
    known = np.all([np.isfinite(part[b].values) for b in spectral(part)], axis=0)
    both: NDArray[np.bool_] = hidden & known
    return both


def _fill(test: xr.Dataset, method: Method) -> xr.Dataset:
    """The filled window, NaN where the method gave up."""
    std = traits(method, spectral(test)).gives_std
    out = gapfill(test, method, std=std).compute()
    left = out["fill_flag"].isin([int(Flag.SOURCE_MISSING), int(Flag.UNFILLABLE)])
    return out.where(~left) if bool(left.any()) else out


def _score(
    fill: xr.Dataset, truth: xr.Dataset, scored: NDArray[np.bool_], bands: list[str]
) -> dict[str, Score]:
    wanted = [m for m in METRICS if m != "NDVI-MAE" or {"B04", "B08"} <= set(bands)]
    wanted += ["coverage"] if all(f"{b}_std" in fill for b in bands) else []
    return metrics.score(fill, truth, scored, wanted, bands=bands, pixel_set=PIXEL_SET)


def _names(chosen: Iterable[Method]) -> list[str]:
    """Registered names; equal ones are numbered."""
    names: list[str] = []
    for method in chosen:
        name = name_of(method)
        count = sum(n.split(" ")[0] == name for n in names)
        names.append(f"{name} ({count + 1})" if count else name)
    return names


def _table(names: list[str], rows: list[dict[str, Score]], shares: list[float]) -> xr.Dataset:
    found = list(dict.fromkeys(m for r in rows for m in r))
    variables: dict[str, Any] = {}
    for name in found:
        values = [r[name].value if name in r else np.nan for r in rows]
        fact = next(r[name] for r in rows if name in r)
        attrs = {
            "long_name": name,
            "units": fact.unit,
            "higher_is_better": int(fact.higher_is_better),
            "convention": fact.convention,
            "peak": fact.peak,
            "pooling": fact.pooling,
            "pixel_set": fact.pixel_set,
            "n": fact.n,
            "digits": _DIGITS.get(name, 4),
        }
        variables[name.lower().replace("-", "_")] = ("method_name", np.array(values), attrs)
    if "coverage" in variables:
        variables["coverage"][2]["target"] = 0.9
    variables["filled"] = (
        "method_name",
        np.array(shares),
        {"long_name": "share of the hidden pixels that the method filled", "units": "1"},
    )
    return xr.Dataset(variables, {"method_name": names})


def _attrs(
    out: xr.Dataset,
    hidden: NDArray[np.bool_],
    used: Gaps,
    seed: int,
    where: str,
    bands: list[str],
) -> dict[str, Any]:
    n, peak = int(out["mae"].attrs["n"]), float(out["psnr"].attrs["peak"])
    dates = int(hidden.any((1, 2)).sum())
    number = f"{n:,}".replace(",", "\u2009")
    return {
        "n": n,
        "hidden": int(hidden.sum()),
        "hidden_dates": dates,
        "gaps": repr(used),
        "seed": seed,
        "window": where,
        "bands": " ".join(bands),
        "pixel_set": PIXEL_SET,
        "peak": peak,
        "comment": (
            f"{number} values of {len(bands)} bands on {dates} dates ({where}); {PIXEL_SET}; peak "
            f"{peak:g}; pooled over {out['mae'].attrs['pooling']}."
        ),
    }
