"""Methods side by side: every method fills the same cubes and is scored on the same pixels.

`compare` judges any methods on any cubes, `score_stores` the same from names and paths, and
`self_test` one cube of a user's own, for a report.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import metrics as table
from cubefill.errors import CubeError
from cubefill.evaluate.bootstrap import Totals, dataset, key_of
from cubefill.evaluate.cases import (
    Arrays,
    Bool,
    Case,
    MethodLike,
    Screen,
    Trial,
    able,
    borrowed,
    methods_of,
    numbered,
    window,
)
from cubefill.evaluate.strata import SETS, Strata, pixel_set, robust, strata
from cubefill.evaluate.tables import counted
from cubefill.gaps import Gaps, HiddenAs, parse_gaps
from cubefill.metrics import Coverage, Metric, sees
from cubefill.metrics.formulas import Mapped
from cubefill.store import open_cube

SCREENED = "screened"
"""Pixel set of occluded pixels that a `screen` accepts too."""
TESTED = ("MAE", "RMSE", "PSNR", "SAM", "NDVI-MAE", "coverage")
"""Metrics of `self_test`, where bands and methods allow."""
PIXEL_SET = "clear pixels that were hidden and that every method filled"


def compare(
    methods: MethodLike | Sequence[MethodLike] | Mapping[str, MethodLike],
    cubes: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset],
    gaps: Gaps | None = None,
    *,
    seed: int | Sequence[int] = 0,
    convention: str = "cubefill",
    metrics: Iterable[str | Metric] | None = None,
    pixel_sets: Sequence[str] = ("occluded", "observed"),
    truth: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset] | None = None,
    screen: Screen | None = None,
    baseline: str = "linear",
    resamples: int = 300,
    max_px: int = 256,
    hidden_as: HiddenAs = "clouds",
    progress: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Scores of methods: one variable a metric on `(method_name, pixel_set, stratum)`.

    Clear observations are hidden, every method fills the same cubes, and all are scored on the
    pixels that all of them filled. Beside each metric stand its 95 % interval (`<metric>_low`,
    `<metric>_high`), from a bootstrap over cubes, or over seeds where there is one cube; the number
    of values (`<metric>_n`), and the value of each case (`<metric>_case`).

    Parameters
    ----------
    methods
        Names, classes or objects, one alone too, or a mapping from the name in the table.
    cubes
        Cubes with `valid` or SCL; `land_cover(y, x)` in a cube adds strata. A larger cube than
        `max_px` is judged by one window, chosen by the seed.
    gaps
        What to hide, such as `Transplant()`. None hides nothing: then `truth` is needed, and the
        real gaps are scored.
    seed
        Of windows and gaps; with several, each cube is judged once for each.
    convention
        Whose formulas, see `cubefill.metrics`. Attributes of each variable say its peak, pooling
        and unit.
    metrics
        Names or objects; by default those of the convention.
    pixel_sets
        Among "occluded" (hidden from the methods), "observed" and "all".
    truth
        Cloudless cubes like `cubes`, where the truth is known under clouds too. Without it, the
        truth is what was clear.
    screen
        A function of a cube that gives a stricter truth, bool `(time, y, x)`; it adds the pixel set
        "screened", the occluded pixels where it is True.
    baseline
        Method that `skill` = 1 - MAE / MAE of the baseline is relative to; the first method where
        it does not take part.
    resamples
        Draws of the bootstrap.
    max_px
        Largest side in pixels of what is judged.
    hidden_as
        What lies under hidden pixels: "clouds", cloudy values of other dates of the same window,
        as in a real cube, and NaN where there are none; or "nodata", NaN everywhere. Methods that
        look at valid pixels alone answer the same.
    progress
        Called with one line before each fill.

    Returns
    -------
    xr.Dataset
        `stratum` runs over "all" and the strata of gap length, position, season, clear share of
        the date and land cover, `kind(stratum)`; NaN and n = 0 where a set is empty. `filled` is
        the share of the occluded pixels that a method filled.

    Raises
    ------
    CubeError
        Nothing can be hidden or scored, or names are unknown.
    MethodError
        A method is unknown or lacks what it needs.

    Examples
    --------
    >>> from cubefill.gaps import Dates
    >>> from cubefill.testing import synthetic_cube
    >>> found = compare(["linear", "nearest"], synthetic_cube(), Dates(), resamples=20)
    >>> best = found.mae.sel(pixel_set="occluded", stratum="all").idxmin()
    >>> str(best.values)
    'linear'
    """
    chosen = methods_of(methods, numbered)
    named = _cubes(cubes)
    truths = _truths(truth, named, gaps)
    sets = (*pixel_sets, *((SCREENED,) if screen is not None else ()))
    _check(chosen, named, pixel_sets)
    asked = None if metrics is None else list(metrics)
    wanted = None if asked is None else [table.resolve(m, convention) for m in asked]
    seeds = np.atleast_1d(np.asarray(seed)).tolist()
    std = any(m.name == "coverage" for m in wanted or [])
    trial = Trial(chosen, gaps, max_px, hidden_as, screen, std, progress)
    totals = Totals(list(chosen), sets)
    for name, ds in named.items():
        for number in seeds:
            case = trial.case(name, number, ds, truths.get(name))
            kinds = strata(case.part, case.seen)
            _add(totals, case, _used(asked, case.bands, convention), kinds)
    out = dataset(totals, baseline, resamples, seeds[0])
    out.attrs |= {
        "gaps": repr(gaps),
        "hidden_as": hidden_as,
        "convention": convention,
        "truth": _said(truth),
    }
    return out


def _said(truth: Any) -> str:
    return "clear observations" if truth is None else "given, cloudless"


def _used(
    asked: list[str | Metric] | None, bands: tuple[str, ...], convention: str
) -> list[Metric]:
    """The metrics asked for, else the defaults, as the bands allow."""
    chosen = asked or table.defaults(bands, convention)
    found = [table.resolve(m, convention, bands) for m in chosen]
    if asked or bands != ("NDVI",):
        return found
    return [m for m in found if m.name not in ("SAM", "ERGAS", "OLS", "EMD", "ENS")]


def _cubes(cubes: Any) -> dict[str, xr.Dataset]:
    if isinstance(cubes, xr.Dataset):
        return {"cube 1": cubes}
    if isinstance(cubes, Mapping):
        return {str(n): c for n, c in cubes.items()}
    return {f"cube {i + 1}": c for i, c in enumerate(cubes)}


def _truths(truth: Any, named: dict[str, xr.Dataset], gaps: Gaps | None) -> dict[str, xr.Dataset]:
    if truth is None and gaps is None:
        raise CubeError(
            "compare: expected gaps to hide or a cloudless truth, got neither. "
            "Pass gaps=Transplant()."
        )
    if truth is None:
        return {}
    found = _cubes(truth)
    if isinstance(truth, Mapping):
        absent = [n for n in named if n not in found]
    else:
        found = dict(zip(named, found.values(), strict=False))
        absent = list(named)[len(found) :]
    if absent:
        raise CubeError(
            f"compare: expected a truth for every cube, got none for {absent}. Pass "
            f"truth={{{absent[0]!r}: cube, ...}}."
        )
    return found


def _check(chosen: Any, named: Any, pixel_sets: Sequence[str]) -> None:
    if not chosen or not named:
        raise CubeError(
            f"compare: expected methods and cubes, got {len(chosen)} and {len(named)}. "
            "Use compare(['linear'], cube, Transplant())."
        )
    unknown = [s for s in pixel_sets if s not in SETS]
    if unknown or not pixel_sets:
        raise CubeError(f"pixel_sets: expected some of {', '.join(SETS)}, got {pixel_sets!r}.")


def self_test(
    ds: xr.Dataset,
    methods: MethodLike | Sequence[MethodLike] | Mapping[str, MethodLike] = ("linear",),
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
        Names, classes or objects, one alone too, or a mapping from the name in the table; each sees
        the same hidden pixels and is scored on the same ones.
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
    chosen = methods_of(methods, numbered)
    if not chosen:
        raise CubeError("self_test compares methods: expected one or more. Use ('linear',).")
    part, place = window(ds, max_px, seed)
    gaps = gaps if gaps is not None else borrowed(part, seed)
    case = Trial(chosen, gaps, max_px, std=True).case("The cube", seed, part)
    if not case.known[case.hidden].any():
        raise CubeError(
            "The methods filled no hidden pixel in common: expected at least one. "
            "Pass max_gap=None, or give a longer series."
        )
    wanted = [m for m in TESTED if m != "NDVI-MAE" or table.ndvi_mae(case.bands)]
    if not any(_knows_error(f, case.bands) for f in case.fills):
        wanted.remove("coverage")
    totals = Totals(list(chosen), ("occluded",))
    _add(totals, case, [table.resolve(m, bands=case.bands) for m in wanted])
    found = dataset(totals, "", 0, seed).isel(pixel_set=0, stratum=0, drop=True)
    out = found[[*map(key_of, wanted), "filled"]]
    for name in map(key_of, wanted):
        out[name].attrs |= {"pixel_set": PIXEL_SET, "n": int(found[f"{name}_n"])}
    if "coverage" in out:
        out["coverage"].attrs["target"] = 0.9
    n, dates = out["mae"].attrs["n"], int(case.hidden.any((1, 2)).sum())
    peak, pooling = out["psnr"].attrs["peak"], out["mae"].attrs["pooling"]
    out.attrs = {
        "n": n, "hidden": int(case.hidden.sum()), "hidden_dates": dates, "gaps": repr(gaps),
        "seed": seed, "window": place, "bands": " ".join(case.bands), "pixel_set": PIXEL_SET,
        "peak": peak,
        "comment": (
            f"{counted(n)} values of {len(case.bands)} bands on {dates} dates ({place}); "
            f"{PIXEL_SET}; peak {peak:g}; pooled over {pooling}."
        ),
    }  # fmt: skip
    return out


def score_stores(
    stores: Iterable[str | Path],
    methods: MethodLike | Sequence[MethodLike] | Mapping[str, MethodLike] = ("linear",),
    gaps: str | Gaps = "transplant",
    *,
    every: bool = False,
    seeds: Sequence[int] = (0,),
    convention: str = "cubefill",
    metrics: Sequence[str] = (),
    pixel_sets: Sequence[str] = ("occluded", "observed"),
    screen: bool = False,
    baseline: str = "linear",
    resamples: int = 300,
    max_px: int = 256,
    hidden_as: HiddenAs = "clouds",
    progress: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """The table of `compare` for cubes in stores, named after their files.

    Parameters
    ----------
    stores
        Paths or addresses of cubes.
    methods
        Names, classes or objects, one alone too, or a mapping from the name in the table.
    every
        True scores every method beside them that fills all gaps of these cubes as it ships; the
        log says which are left out, and why.
    gaps
        What to hide, as `parse_gaps` reads it.
    seeds
        Of windows and gaps.
    metrics
        Names; by default those of the convention.
    screen
        True adds the pixel set "screened": a truth without haze and shadow that SCL missed.
    convention, pixel_sets, baseline, resamples, max_px, hidden_as, progress
        As in `compare`.

    Raises
    ------
    CubeError, StoreError, MethodError
        A store cannot be read, a name is unknown, or nothing can be scored.
    """
    named: dict[str, xr.Dataset] = {}
    for store in stores:
        name = Path(str(store)).name
        named[name if name not in named else str(store)] = open_cube(store)
    chosen = (able(named) if every else {}) | methods_of(methods, numbered)
    return compare(
        chosen,
        named,
        parse_gaps(gaps) if isinstance(gaps, str) else gaps,
        seed=tuple(seeds),
        convention=convention,
        metrics=tuple(metrics) or None,
        pixel_sets=pixel_sets,
        screen=robust if screen else None,
        baseline=baseline,
        resamples=resamples,
        max_px=max_px,
        hidden_as=hidden_as,
        progress=progress,
    )


# ------------------------------------------------------------------ terms


def _add(totals: Totals, case: Case, wanted: list[Metric], kinds: Sequence[Strata] = ()) -> None:
    """The terms of a case, for each method, pixel set, stratum and metric."""
    totals.start(case.cube, case.seed, case.bands, case.filled)
    silent = [i for i, f in enumerate(case.fills) if not _knows_error(f, case.bands)]
    silent = silent if len(silent) < len(case.fills) else []
    for name in totals.sets:
        where = _where(name, case)
        cells = [("all", "all", where)]
        cells += [(k.kind, n, part) for k in kinds for n, part in k.parts(where)]
        for i, method in enumerate(totals.methods):
            flat, truth = _flat(case.fills[i], where), _flat(case.truth, where)
            for kind, stratum, part in cells:
                small = part[where]
                for m in wanted:
                    if isinstance(m, Coverage) and i in silent:
                        continue
                    if sees(m) == "pixel":
                        terms = m.terms(flat, truth, small)
                    else:
                        terms = _terms(m, i, case, part)
                    totals.add(m, method, name, (kind, stratum), terms)


def _knows_error(fill: Arrays, bands: Iterable[str]) -> bool:
    return all(f"{b}_std" in fill for b in bands)


def _where(name: str, case: Case) -> Bool:
    if name != SCREENED or case.screened is None:
        return pixel_set(name, case.seen, case.known)
    return pixel_set("occluded", case.seen, case.known) & case.screened


def _flat(side: Arrays, where: Bool) -> Arrays:
    return {b: a[where] for b, a in side.items()}


def _terms(m: Metric, i: int, case: Case, where: Bool) -> dict[str, NDArray[np.float64]]:
    """Terms of a metric that looks at images, or at the whole series."""
    if sees(m) == "series":
        return m.terms(case.fills[i], case.truth, where)
    if not isinstance(m, Mapped):
        some = where.any((1, 2))
        sides = [{b: a[some] for b, a in s.items()} for s in (case.fills[i], case.truth)]
        return m.terms(sides[0], sides[1], where[some])
    key = (i, repr(m))
    if key not in case.cache:
        case.cache[key] = m.maps(case.fills[i], case.truth)
    return m.terms_of(case.cache[key], where)
