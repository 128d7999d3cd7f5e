"""Held-out errors of methods: hide clear pixels, fill, compare.

`self_test` judges a user's own cube for a report, `compare` any methods on any cubes, and
`score_stores` the same from names and paths, for the command line.
"""

import re
from ast import literal_eval
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import metrics
from cubefill.cube import spectral
from cubefill.errors import CubeError
from cubefill.evaluate.comparison import MethodLike
from cubefill.evaluate.comparison import compare as compare
from cubefill.evaluate.hiding import HiddenAs, fill, gapped, names, observed
from cubefill.evaluate.hiding import window as window
from cubefill.evaluate.strata import robust
from cubefill.gaps import Blobs, Blocks, Dates, Gaps, Trailing, Transplant
from cubefill.methods import Method, resolve
from cubefill.metrics import Score
from cubefill.store import open_cube

METRICS = ("MAE", "RMSE", "PSNR", "SAM", "NDVI-MAE")
"""Metrics of the table; `coverage` joins where a method knows the error of its fill."""

PIXEL_SET = "clear pixels that were hidden and that every method filled"

_DIGITS = {"PSNR": 1, "SAM": 2, "coverage": 2}


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
        raise CubeError("self_test compares methods: expected one or more. Use ('linear',).")
    part, where = window(ds, max_px, seed)
    hidden, used = _hide(part, gaps, seed)
    test = gapped(part, hidden, "clouds", seed)
    fills = [fill(test, m) for m in chosen]
    bands = [b for b in spectral(part) if all(b in f for f in fills)]
    if not bands:
        raise CubeError(
            f"The methods give no band in common with {', '.join(spectral(part))}: expected "
            "filled bands, not a smoothed product. Pass smooth=False."
        )
    known = [np.all([np.isfinite(f[b].values) for b in bands], axis=0) for f in fills]
    scored = hidden & np.all(known, axis=0)
    if not scored.any():
        raise CubeError(
            "The methods filled no hidden pixel in common: expected at least one. "
            "Pass max_gap=None, or give a longer series."
        )
    rows = [_score(f, part, scored, bands) for f in fills]
    shares = [float(k[hidden].mean()) for k in known]
    out = _table(names(chosen), rows, shares)
    out.attrs = _attrs(out, hidden, used, seed, where, bands)
    return out


def _hide(part: xr.Dataset, gaps: Gaps | None, seed: int) -> tuple[NDArray[np.bool_], Gaps]:
    """What is hidden, and by what; blobs stand in where no cloud can be borrowed."""
    if gaps is not None:
        return observed(part, gaps, seed), gaps
    try:
        return observed(part, Transplant(), seed), Transplant()
    except CubeError:
        return observed(part, Blobs(), seed), Blobs()


def _score(
    fill: xr.Dataset, truth: xr.Dataset, scored: NDArray[np.bool_], bands: list[str]
) -> dict[str, Score]:
    wanted = [m for m in METRICS if m != "NDVI-MAE" or metrics.ndvi_mae(bands)]
    wanted += ["coverage"] if all(f"{b}_std" in fill for b in bands) else []
    return metrics.score(fill, truth, scored, wanted, bands=bands, pixel_set=PIXEL_SET)


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
            "formula": fact.formula,
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


# ------------------------------------------------------------------ from names and paths

GAPS: dict[str, type[Gaps]] = {
    "transplant": Transplant,
    "blobs": Blobs,
    "dates": Dates,
    "blocks": Blocks,
    "trailing": Trailing,
}
"""Name to a kind of gaps."""


def parse_gaps(text: str) -> Gaps:
    """Gaps from a name and options, such as `blocks:days=(20, 60),count=2`.

    Raises
    ------
    CubeError
        The name, an option or its value is unknown.

    Examples
    --------
    >>> parse_gaps("dates:share=0.3").share
    0.3
    """
    name, _, options = text.strip().partition(":")
    if name.lower() not in GAPS:
        raise CubeError(f"Unknown gaps {name!r}: expected one of {', '.join(GAPS)}.")
    kind: Any = GAPS[name.lower()]
    known = [f.name for f in fields(kind)]
    try:
        call: Any = literal_eval(f"{{{_quoted(options)}}}")
        return kind(**call)
    except (ValueError, SyntaxError, TypeError) as error:
        raise CubeError(
            f"gaps: expected {name}:option=value,... with options {', '.join(known)}, got "
            f"{text!r}. Try {name}:{known[0]}={getattr(kind(), known[0])!r}."
        ) from error


def _quoted(options: str) -> str:
    """`a=1,b=(2, 3)` as the inside of a dictionary."""
    parts = re.sub(r"(?:^|,)\s*([A-Za-z_]+)\s*=", r",'\1':", options)
    return parts.removeprefix(",").replace(":true", ":True").replace(":false", ":False")


def score_stores(
    stores: Iterable[str | Path],
    methods: Sequence[MethodLike] | Mapping[str, MethodLike] = ("linear",),
    gaps: str | Gaps = "transplant",
    *,
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
        Names, classes or objects, or a mapping from the name in the table.
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
    return compare(
        methods,
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
