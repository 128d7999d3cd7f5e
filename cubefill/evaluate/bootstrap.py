"""From sums of many cases to one table: values, intervals, counts and skill."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.errors import CubeError
from cubefill.evaluate.strata import KINDS, SEASONS, SETS
from cubefill.metrics import Metric, Terms, formula

Floats = NDArray[np.float64]
Cell = tuple[str, str]
"""Kind of strata and name of one; ("all", "all") for all."""

DIGITS = {"PSNR": 2, "SAM": 2, "ERGAS": 2, "MSE": 0, "coverage": 2, "R2": 3, "SSIM": 4}
"""Digits of a value in a table; 4 for the others."""
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap."""


@dataclass
class Totals:
    """Terms of each case, by metric, method, pixel set and stratum."""

    methods: list[str]
    sets: tuple[str, ...]
    cases: list[tuple[str, int]] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    terms: dict[tuple[str, str, str, Cell], dict[int, Terms]] = field(default_factory=dict)
    filled: list[list[float]] = field(default_factory=list)
    bands: tuple[str, ...] = ()

    def start(self, cube: str, seed: int, bands: tuple[str, ...], filled: list[float]) -> None:
        """A new case.

        Raises
        ------
        CubeError
            Its bands are not those of the first.
        """
        if self.cases and bands != self.bands:
            raise CubeError(
                f"compare: expected cubes of one set of bands, got {', '.join(self.bands)} and "
                f"{', '.join(bands)}. Pass cubes=[ds[['B04', 'B08', 'valid']] for ds in cubes]."
            )
        self.bands = bands
        self.cases.append((cube, seed))
        self.filled.append(filled)

    def add(self, metric: Metric, method: str, pixels: str, cell: Cell, terms: Terms) -> None:
        """The terms of the last case."""
        self.metrics.setdefault(metric.name, metric)
        key = (metric.name, method, pixels, cell)
        self.terms.setdefault(key, {})[len(self.cases) - 1] = terms

    @property
    def cells(self) -> list[Cell]:
        """Strata in the order of a table."""
        order = {k: i for i, k in enumerate(("all", *KINDS))}
        found = dict.fromkeys(cell for *_, cell in self.terms)
        return sorted(found, key=lambda c: (order[c[0]], _rank(c[1])))


def _rank(name: str) -> tuple[int, float, str]:
    """Ranges by their lower bound, seasons from winter on, other names by letter."""
    if name in SEASONS:
        return (0, SEASONS.index(name), "")
    number = name.lstrip(">").split("-")[0].split(" ")[0]
    return (0, float(number), "") if number.isdigit() else (1, 0, name)


def dataset(totals: Totals, baseline: str, resamples: int, seed: int) -> xr.Dataset:
    """The table of `evaluate.compare`."""
    units, by = _units(totals.cases)
    weights = _weights(units, resamples, seed)
    cells = totals.cells
    shape = (len(totals.methods), len(totals.sets), len(cells))
    out: dict[str, Any] = {}
    draws: dict[tuple[int, int, int], Floats] = {}
    for name, metric in totals.metrics.items():
        value, low, high = (np.full(shape, np.nan) for _ in range(3))
        count = np.zeros(shape[1:], np.int64)
        single = np.full((*shape[:2], len(totals.cases)), np.nan)
        for i, method in enumerate(totals.methods):
            for j, pixels in enumerate(totals.sets):
                for k, cell in enumerate(cells):
                    found = totals.terms.get((name, method, pixels, cell))
                    if not found:
                        continue
                    value[i, j, k], drawn, n = _cell(metric, found, units, weights)
                    low[i, j, k], high[i, j, k] = _interval(drawn)
                    count[j, k] = count[j, k] or n
                    if name == "MAE":
                        draws[i, j, k] = drawn
                    if cell == ("all", "all"):
                        for c, terms in found.items():
                            single[i, j, c] = metric.value(terms) if terms["n"].sum() else np.nan
        out |= _variables(metric, value, low, high, count, single)
    if "MAE" in totals.metrics:
        out |= _skill(out, draws, totals.methods, baseline)
    out["filled"] = _filled(totals)
    ds = xr.Dataset(out, _coordinates(totals, cells))
    ds.attrs = _attrs(totals, by, len(set(units)), resamples)
    return ds


def key_of(metric: str) -> str:
    """Name of the variable of a metric, such as `ndvi_mae`."""
    return metric.lower().replace("-", "_")


def _units(cases: list[tuple[str, int]]) -> tuple[list[int], str]:
    """What is drawn: cubes, or seeds where there is one cube."""
    cubes = list(dict.fromkeys(c for c, _ in cases))
    if len(cubes) > 1:
        return [cubes.index(c) for c, _ in cases], "cubes"
    return list(range(len(cases))), "seeds"


def _weights(units: list[int], resamples: int, seed: int) -> Floats:
    """How often each case counts, `(resample, case)`."""
    count = max(units) + 1
    rng = np.random.default_rng([seed, 31])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples if count > 1 else 0)
    return drawn[:, units].astype(np.float64)


def _cell(
    metric: Metric, found: dict[int, Terms], units: list[int], weights: Floats
) -> tuple[float, Floats, int]:
    """Value of all cases together, its draws, and how many values were scored."""
    cases = list(found)
    stacked = {k: np.stack([found[c][k] for c in cases]) for k in found[cases[0]]}
    n = int(stacked["n"].sum())
    value = metric.value({k: v.sum(0) for k, v in stacked.items()}) if n else np.nan
    if n == 0 or len({units[c] for c in cases}) < 2:
        return value, np.full(len(weights), np.nan), n
    summed = {k: weights[:, cases] @ v for k, v in stacked.items()}
    drawn = np.full(len(weights), np.nan)
    for r in np.flatnonzero(summed["n"].sum(-1) > 0):
        drawn[r] = metric.value({k: v[r] for k, v in summed.items()})
    return value, drawn, n


def _interval(drawn: Floats) -> tuple[float, float]:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, INTERVAL)
    return float(low), float(high)


def _variables(
    m: Metric, value: Floats, low: Floats, high: Floats, n: NDArray[np.int64], single: Floats
) -> dict[str, Any]:
    key, dims = key_of(m.name), ("method_name", "pixel_set", "stratum")
    return {
        key: (dims, value, facts_of(m)),
        f"{key}_low": (dims, low, {"long_name": f"2.5 % percentile of {m.name}"}),
        f"{key}_high": (dims, high, {"long_name": f"97.5 % percentile of {m.name}"}),
        f"{key}_n": (dims[1:], n, {"long_name": f"values that {m.name} was computed from"}),
        f"{key}_case": ((*dims[:2], "case"), single, {"long_name": f"{m.name} of each case"}),
    }


def facts_of(m: Metric) -> dict[str, Any]:
    """What stands beside the values of a metric."""
    ideal = getattr(m, "ideal", None)
    facts = {
        "long_name": m.name,
        "units": m.unit,
        "higher_is_better": int(m.higher_is_better),
        "convention": m.convention,
        "peak": float(getattr(m, "peak", 1.0)),
        "pooling": m.pooling,
        "formula": formula(m),
        "digits": DIGITS.get(m.name, 4),
    }
    return facts if ideal is None else facts | {"ideal": float(ideal)}


def _skill(
    scored: dict[str, Any],
    draws: dict[tuple[int, int, int], Floats],
    methods: list[str],
    baseline: str,
) -> dict[str, Any]:
    """1 - MAE / MAE of the baseline, drawn in pairs; the facts are those of MAE."""
    dims, mae, facts = scored["mae"]
    base = methods.index(baseline) if baseline in methods else 0
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(mae[base] > 0, 1 - mae / mae[base], np.nan)
        low, high = np.full(mae.shape, np.nan), np.full(mae.shape, np.nan)
        for (i, j, k), drawn in draws.items():
            other = draws.get((base, j, k))
            if other is not None and i != base:
                low[i, j, k], high[i, j, k] = _interval(
                    np.where(other > 0, 1 - drawn / other, np.nan)
                )
    attrs = {
        "long_name": "skill", "units": "1", "higher_is_better": 1, "digits": 3,
        "baseline": methods[base], "comment": f"1 - MAE / MAE of {methods[base]}",
    } | {n: facts[n] for n in ("convention", "peak", "pooling")}  # fmt: skip
    return {
        "skill": (dims, value, attrs),
        "skill_low": (dims, low, {"long_name": "2.5 % percentile of skill"}),
        "skill_high": (dims, high, {"long_name": "97.5 % percentile of skill"}),
        "skill_n": (*scored["mae_n"][:2], {"long_name": "values that skill was computed from"}),
    }


def _filled(totals: Totals) -> Any:
    return (
        "method_name",
        np.mean(totals.filled, axis=0),
        {"long_name": "share of the occluded pixels that the method filled", "units": "1"},
    )


def _coordinates(totals: Totals, cells: list[Cell]) -> dict[str, Any]:
    sets = [SETS.get(s, "occluded pixels that the screen accepts") for s in totals.sets]
    return {
        "method_name": totals.methods,
        "pixel_set": list(totals.sets),
        "meaning": ("pixel_set", sets),
        "stratum": [name for _, name in cells],
        "kind": ("stratum", [kind for kind, _ in cells]),
        "case": np.arange(len(totals.cases)),
        "cube": ("case", [c for c, _ in totals.cases]),
        "seed": ("case", [s for _, s in totals.cases]),
    }


def _attrs(totals: Totals, by: str, units: int, resamples: int) -> dict[str, Any]:
    drawn = f"bootstrap over {units} {by}, {resamples} draws" if units > 1 else "none: one case"
    return {
        "bands": " ".join(totals.bands),
        "cases": len(totals.cases),
        "interval": drawn,
        "comment": (
            "every method is scored on the same pixels: those that all of them filled; the number "
            "of values stands beside each metric"
        ),
    }
