"""Methods side by side: every method fills the same cubes and is scored on the same pixels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import metrics as table
from cubefill.cube import spectral
from cubefill.cube.indices import ndvi
from cubefill.errors import CubeError
from cubefill.evaluate.bootstrap import Totals, dataset
from cubefill.evaluate.hiding import HiddenAs, fill, gapped, names, observed, window
from cubefill.evaluate.strata import SETS, pixel_set, strata
from cubefill.gaps import Gaps
from cubefill.methods import Method, resolve
from cubefill.metrics import Metric, sees
from cubefill.metrics.formulas import Mapped

Bool = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]
Screen = Callable[[xr.Dataset], xr.DataArray]
MethodLike = str | Method | type[Method]

SCREENED = "screened"
"""Pixel set of occluded pixels that a `screen` accepts too."""


@dataclass(frozen=True)
class Case:
    """One cube under one seed, filled by every method."""

    cube: str
    seed: int
    part: xr.Dataset
    truth: Arrays
    """Band to `(time, y, x)`, NaN where there is no truth."""
    seen: Bool
    known: Bool
    """Where truth and every fill are known."""
    fills: list[Arrays]
    bands: tuple[str, ...]
    filled: list[float]
    """Share of the occluded pixels that each method filled."""
    screened: Bool | None = None
    cache: dict[tuple[int, str], Arrays] = field(default_factory=dict)
    """Maps of metrics with a local value, by method and metric."""


def compare(
    methods: Sequence[MethodLike] | Mapping[str, MethodLike],
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
        Names, classes or objects, or a mapping from the name in the table.
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
    chosen = _methods(methods)
    named = _cubes(cubes)
    truths = _truths(truth, named, gaps)
    sets = (*pixel_sets, *((SCREENED,) if screen is not None else ()))
    _check(chosen, named, pixel_sets)
    asked = None if metrics is None else list(metrics)
    wanted = None if asked is None else [table.resolve(m, convention) for m in asked]
    totals = Totals(list(chosen), sets)
    for name, ds in named.items():
        for number in np.atleast_1d(np.asarray(seed)):
            case = _case(name, int(number), ds, truths.get(name), gaps, chosen, screen, max_px,
                         wanted, hidden_as, progress)  # fmt: skip
            _add(totals, case, _used(asked, case.bands, convention))
    out = dataset(totals, baseline, resamples, int(np.atleast_1d(np.asarray(seed))[0]))
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


def _methods(methods: Sequence[MethodLike] | Mapping[str, MethodLike]) -> dict[str, Method]:
    if isinstance(methods, Mapping):
        return {str(n): resolve(m) for n, m in methods.items()}
    if isinstance(methods, str):
        methods = [methods]
    chosen = [resolve(m) for m in methods]
    return dict(zip(names(chosen), chosen, strict=True))


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
        raise CubeError(f"compare: expected a truth for every cube, got none for {absent}.")
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


# ------------------------------------------------------------------ one cube, one seed


def _case(
    name: str,
    seed: int,
    ds: xr.Dataset,
    truth: xr.Dataset | None,
    gaps: Gaps | None,
    chosen: dict[str, Method],
    screen: Screen | None,
    max_px: int,
    wanted: list[Metric] | None,
    hidden_as: HiddenAs,
    progress: Callable[[str], None] | None,
) -> Case:
    part, _ = window(ds, max_px, seed)
    test = part
    if gaps is not None:
        test = gapped(part, observed(part, gaps, seed), hidden_as, seed)
    std = any(m.name == "coverage" for m in wanted or [])
    fills = []
    for label, method in chosen.items():
        if progress is not None:
            progress(f"{name}, seed {seed}: {label}")
        fills.append(fill(test, method, std=std))
    bands = _shared(part, fills)
    true = _truth(part, truth, bands)
    seen = np.asarray(test["valid"].values)
    has = np.all([np.isfinite(a) for a in true.values()], axis=0)
    arrays = [_arrays(f, bands) for f in fills]
    done = [np.all([np.isfinite(a[b]) for b in bands], axis=0) for a in arrays]
    hidden = has & ~seen
    if not hidden.any():
        raise CubeError(
            f"{name}: expected pixels with a truth that the methods do not see, got none. "
            "Pass gaps=Transplant()."
        )
    screened = None if screen is None else np.asarray(screen(part).transpose("time", "y", "x"))
    return Case(
        name, seed, part, true, seen, has & np.all(done, axis=0), arrays, bands,
        [float(d[hidden].mean()) for d in done], screened,
    )  # fmt: skip


def _shared(part: xr.Dataset, fills: list[xr.Dataset]) -> tuple[str, ...]:
    """Bands that all methods give; NDVI alone where some give nothing else."""
    bands = tuple(b for b in spectral(part) if all(b in f for f in fills))
    if bands:
        return bands
    if all("NDVI" in f or table.ndvi_mae(map(str, f.data_vars)) for f in fills):
        return ("NDVI",)
    raise CubeError(
        f"compare: the methods give no band in common with {', '.join(spectral(part))}: expected "
        "filled bands, not a smoothed product. Pass smooth=False."
    )


def _truth(part: xr.Dataset, truth: xr.Dataset | None, bands: tuple[str, ...]) -> Arrays:
    """Clear observations, or the given truth at the same places."""
    if truth is None:
        return {b: a.where(part["valid"]).values for b, a in _bands(part, bands).items()}
    same = truth.reindex(time=part["time"], y=part["y"], x=part["x"])
    return {b: a.compute().values for b, a in _bands(same, bands).items()}


def _bands(ds: xr.Dataset, bands: tuple[str, ...]) -> dict[str, xr.DataArray]:
    if bands == ("NDVI",) and "NDVI" not in ds:
        found = table.ndvi_mae(map(str, ds.data_vars)) or table.NDVIMAE()
        return {"NDVI": ndvi(ds, nir=found.nir, red=found.red).transpose("time", "y", "x")}
    return {b: ds[b].transpose("time", "y", "x") for b in bands}


def _arrays(fill: xr.Dataset, bands: tuple[str, ...]) -> Arrays:
    found = {b: a.values for b, a in _bands(fill, bands).items()}
    return found | {f"{b}_std": fill[f"{b}_std"].values for b in bands if f"{b}_std" in fill}


# ------------------------------------------------------------------ terms


def _add(totals: Totals, case: Case, wanted: list[Metric]) -> None:
    """The terms of a case, for each method, pixel set, stratum and metric."""
    totals.start(case.cube, case.seed, case.bands, case.filled)
    kinds = strata(case.part, case.seen)
    for name in totals.sets:
        where = _where(name, case)
        cells = [("all", "all", where)]
        cells += [(k.kind, n, part) for k in kinds for n, part in k.parts(where)]
        for i, method in enumerate(totals.methods):
            flat, truth = _flat(case.fills[i], where), _flat(case.truth, where)
            for kind, stratum, part in cells:
                small = part[where]
                for m in wanted:
                    if sees(m) == "pixel":
                        terms = m.terms(flat, truth, small)
                    else:
                        terms = _terms(m, i, case, part)
                    totals.add(m, method, name, (kind, stratum), terms)


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
