"""The default method against its peers on real places: error, intervals, time, and the gates.

    CUBEFILL_DATA=../shared/data python -m benchmarks.score_default --part tune
    ... --part report --write default-scores.md      at the end, once a method stands
    ... --method blend --method utilise=CHECKPOINT   other methods beside the peers

What is hidden and scored says `hidden.py`, which places there are `places.py`, what is compared
`peers.py`. Every ratio is the mean absolute error over that of `linear` on the same values, pooled
over pixels, bands, seeds and places; NDVI alone where a place has nothing else. A method that
cannot fill a place is left out there, and its n says so. Times are CPU seconds, without the
compilation of kernels.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dask
import numpy as np
import xarray as xr

from benchmarks import gates, places
from benchmarks.context import context
from benchmarks.hidden import SCENARIOS, Hidden, scenarios
from benchmarks.peers import Peer, default_texts, peers
from benchmarks.places import Place
from cubefill.cube import spectral
from cubefill.errors import CubefillError
from cubefill.evaluate.errors import BANDS, of_fill
from cubefill.evaluate.tally import ErrorSums
from cubefill.methods import AUTO

NDVI = "NDVI"


@dataclass
class Row:
    """One method on one scenario of one place."""

    tallies: dict[str, ErrorSums] = field(default_factory=dict)
    """Of `BANDS` and `NDVI`, as the place has them."""
    seconds: float = 0.0
    with_interval: float = float("nan")
    asked: int = 0
    """Values that were to be filled."""
    changed: int = 0
    """Clear values that the fill altered."""

    def __add__(self, other: "Row") -> "Row":
        names = dict.fromkeys([*self.tallies, *other.tallies])
        return Row(
            {
                n: self.tallies.get(n, ErrorSums()) + other.tallies.get(n, ErrorSums())
                for n in names
            },
            self.seconds + other.seconds,
            np.nansum([self.with_interval, other.with_interval]) or float("nan"),
            self.asked + other.asked,
            self.changed + other.changed,
        )

    @property
    def main(self) -> ErrorSums:
        """Of the bands, of NDVI where there is nothing else."""
        return self.tallies.get(BANDS) or self.tallies.get(NDVI) or ErrorSums()


@dataclass
class Scores:
    """Every row by scenario, place and method, and what was left out."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, scenario: str, place: str, label: str, row: Row) -> None:
        key = (scenario, place, label)
        self.rows[key] = self.rows[key] + row if key in self.rows else row

    def with_label(self, label: str, other: str) -> "Scores":
        """The same with the rows of a method under another name too."""
        again = {(s, p, other): r for (s, p, m), r in self.rows.items() if m == label}
        return Scores({**self.rows, **again}, self.left_out)

    def pooled(self, scenario: str, label: str) -> Row:
        """Over places: a place with NDVI alone counts for NDVI alone."""
        total = Row()
        for row in self.by_place(scenario, label).values():
            total = total + row
        return total

    def by_place(self, scenario: str, label: str) -> dict[str, Row]:
        """Row of each place."""
        return {p: r for (s, p, m), r in self.rows.items() if (s, m) == (scenario, label)}

    def names(self, which: int) -> list[str]:
        """Scenarios, places or methods, in the order of the run."""
        return list(dict.fromkeys(key[which] for key in self.rows))


# ------------------------------------------------------------------ one fill


def cropped(place: Place, size: int) -> Place:
    """The middle of a place, at most `size` pixels wide and high; all of it for 0."""
    part = {}
    for dim in ("y", "x"):
        n = place.cube.sizes[dim]
        start = max(0, n - size) // 4 * 2
        part[dim] = slice(start, start + (size or n)) if n > size else slice(None)
    return Place(place.name, place.cube.isel(part), place.under_clouds, place.lends)


def scored(test: Hidden, truth: xr.Dataset, fill: xr.Dataset, base: xr.Dataset) -> Row:
    """The sums of one fill."""
    row = Row(of_fill(test.cube, truth, test.scored, fill, base))
    row.asked = int(test.scored.sum()) * len(spectral(test.cube))
    return row


def timed(one: Peer, cube: xr.Dataset, std: bool) -> tuple[xr.Dataset, float]:
    start = time.process_time()
    out = one.fill(cube, std)
    return out, time.process_time() - start


def row_of(one: Peer, test: Hidden, truth: xr.Dataset, base: xr.Dataset | None, std: bool) -> tuple[
    Row, xr.Dataset
]:  # fmt: skip
    fill, seconds = timed(one, test.cube, False)
    slow = float("nan")
    if std and one.std and one.own:
        fill, slow = timed(one, test.cube, True)
    row = scored(test, truth, fill, fill if base is None else base)
    row.seconds, row.with_interval = seconds, slow
    if one.own:
        clear = test.cube["valid"].values
        row.changed = sum(
            int((fill[b].values[clear] != test.cube[b].values[clear]).sum())
            for b in spectral(test.cube)
        )
    return row, fill


def measure(
    found: Iterable[Place], methods: Sequence[Peer], lent: Sequence[np.ndarray],
    seeds: Sequence[int], which: Sequence[str], *, std: bool = True, say: bool = True,
) -> Scores:  # fmt: skip
    """Every method on every scenario of every place; `methods` begins with linear."""
    scores, warm = Scores(), False
    twice = {"auto", AUTO} <= {m.label for m in methods}
    methods = [m for m in methods if not (twice and m.label == "auto")]
    for place in found:
        truth = place.cube.where(place.cube["valid"])
        for seed in seeds:
            for test in scenarios(place, lent, seed, which):
                if not warm:
                    _compile(methods, test.cube, std)
                    warm = True
                base = None
                for one in methods:
                    try:
                        row, fill = row_of(one, test, truth, base, std)
                    except CubefillError as error:
                        why = f"{one.label} at {place.name}: {str(error).split('. ')[0]}"
                        scores.left_out += [why] if why not in scores.left_out else []
                        continue
                    base = fill if base is None else base
                    scores.add(test.scenario, place.name, one.label, row)
                if say:
                    _progress(scores, test.scenario, place.name)
    return scores.with_label(AUTO, "auto") if twice else scores


def _progress(scores: Scores, scenario: str, place: str) -> None:
    done = [(m, scores.rows.get((scenario, place, m))) for m in scores.names(2)]
    text = " ".join(f"{m} {r.main.ratio:.3f}" for m, r in done if r)
    print(f"{place} {scenario}: {text}", file=sys.stderr, flush=True)


def _compile(methods: Sequence[Peer], cube: xr.Dataset, std: bool) -> None:
    small = cube.isel(y=slice(0, 32), x=slice(0, 32))
    for one in (m for m in methods if m.own):
        for wanted in {False, std}:
            try:
                one.fill(small, wanted)
            except CubefillError:
                break


# ------------------------------------------------------------------ tables


def _two(row: Row) -> str:
    """Ratio, and that of NDVI in brackets."""
    ndvi = row.tallies.get(NDVI)
    if BANDS not in row.tallies:
        return f"({ndvi.ratio:.3f})" if ndvi else "–"
    return f"{row.main.ratio:.3f}" + (f" ({ndvi.ratio:.3f})" if ndvi else "")


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def places_table(scores: Scores, scenario: str) -> str:
    """One row a method, one column a place; ratios to linear, NDVI in brackets."""
    there = [p for p in scores.names(1) if (scenario, p, "linear") in scores.rows]
    head = [
        "method",
        "pooled",
        "n",
        "geometric mean",
        "worst place",
        *there,
        "s",
        "s with interval",
    ]
    rows = []
    for label in scores.names(2):
        found = scores.by_place(scenario, label)
        if not found:
            continue
        total = scores.pooled(scenario, label)
        ratios = {p: r.main.ratio for p, r in found.items()}
        worst = max(ratios, key=lambda p: ratios[p])
        cells_ = [_two(found[p]) if p in found else "–" for p in there]
        n = f"{total.main.n:,}"
        if total.main.n < sum(r.asked for r in found.values() if BANDS in r.tallies):
            n += " of " + f"{sum(r.asked for r in found.values() if BANDS in r.tallies):,}"
        slow = "–" if np.isnan(total.with_interval) else f"{total.with_interval:.1f}"
        rows.append([
            label, _two(total), n, f"{np.exp(np.mean(np.log(list(ratios.values())))):.3f}",
            f"{ratios[worst]:.3f} {worst}", *cells_, f"{total.seconds:.1f}", slow,
        ])  # fmt: skip
    linear = scores.by_place(scenario, "linear")
    rows.append([
        "MAE of linear", f"{scores.pooled(scenario, 'linear').main.mean('error'):.4f}", "", "", "",
        *(f"{linear[p].main.mean('error'):.4f}" for p in there), "", "",
    ])  # fmt: skip
    rows.append(["n", "", "", "", "", *(f"{linear[p].main.n:,}" for p in there), "", ""])
    return _grid(head, rows)


def intervals_table(scores: Scores) -> str:
    """Coverage of the 90 % interval, its score over that of linear, by scenario."""
    head = ["method", "variable", *scores.names(0)]
    rows = []
    for label in scores.names(2):
        for variable in (BANDS, NDVI):
            cells_ = []
            for scenario in scores.names(0):
                own, linear = (
                    scores.pooled(scenario, m).tallies.get(variable, ErrorSums())
                    for m in (label, "linear")
                )
                known = own.total("known")
                score = own.mean("score") / linear.mean("score") if known else 0
                cells_.append(f"{100 * own.mean('inside'):.1f} % ({score:.2f})" if known else "–")
            if set(cells_) != {"–"}:
                rows.append([label, variable, *cells_])
    return _grid(head, rows)


def strata_table(scores: Scores, label: str, scenario: str) -> str:
    """One row a stratum of flag, gap length and position: n, ratio, coverage."""
    rows = []
    for variable, tally in scores.pooled(scenario, label).tallies.items():
        for keys, cell in gates.strata_of(tally):
            inside = "–" if np.isnan(cell["coverage"]) else f"{100 * cell['coverage']:.1f} %"
            rows.append([
                variable, *keys, f"{int(cell['n']):,}", f"{cell['mae']:.4f}",
                f"{cell['ratio']:.3f}", inside,
            ])  # fmt: skip
    head = ["variable", "flag", "gap", "position", "n", "MAE", "ratio to linear", "coverage"]
    return _grid(head, rows)


def report(scores: Scores, reasons: Sequence[str], facts: dict[str, object], title: str) -> str:
    """Markdown of all tables, gates first."""
    parts = [f"# {title}", (__doc__ or "").strip(), gates.markdown(scores)]
    if reasons or scores.left_out:
        parts.append("Left out:\n" + "\n".join(f"- {r}" for r in [*reasons, *scores.left_out]))
    for scenario in scores.names(0):
        parts += [f"## {scenario}", places_table(scores, scenario)]
    if any(r.main.total("known") for r in scores.rows.values()):
        parts += ["## Coverage of the 90 % interval (its score over that of linear)"]
        parts.append(intervals_table(scores))
    for label in gates.judged(scores):
        for scenario in scores.names(0):
            parts += [f"## {label}, {scenario}, by stratum", strata_table(scores, label, scenario)]
    parts.append(f"```json\n{json.dumps(facts, indent=1)}\n```")
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------ command


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=tuple(places.PARTS), default="tune")
    parser.add_argument("--places", nargs="+", help="only these of the part")
    parser.add_argument("--method", action="append", default=[], help="beside the peers")
    parser.add_argument("--only", action="store_true", help="linear and --method alone")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=128, help="pixels of a side; 64 for crops")
    parser.add_argument("--no-intervals", action="store_true", help="about half the time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a gate is missed")
    parser.add_argument("--write", type=Path, help="file of Markdown")
    return parser.parse_args(given)


def main(arguments: list[str] | None = None) -> int:
    """Reads, fills, scores, prints; 2 where there is no place to score."""
    asked = _arguments(arguments)
    folder = Path(os.environ.get("CUBEFILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        print(f"No folder {folder}: pass CUBEFILL_DATA=FOLDER.", file=sys.stderr)
        return 2
    names = [n for n in places.PARTS[asked.part] if not asked.places or n in asked.places]
    read = [places.read(n, folder) for n in names]
    found = [cropped(p, asked.size) for p in read if isinstance(p, Place)]
    reasons = [p for p in read if isinstance(p, str)]
    if not found:
        print("\n".join(["No place to score.", *reasons]), file=sys.stderr)
        return 2
    methods, absent = peers([*([] if asked.only else default_texts()), *asked.method])
    _one_thread(asked.threads)
    start = time.perf_counter()
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore")
        scores = measure(
            found, methods, list(places.lent(folder)), asked.seeds, asked.scenario,
            std=not asked.no_intervals,
        )  # fmt: skip
    facts = {"part": asked.part, "size": asked.size, "seeds": asked.seeds, "places": names,
             "seconds": round(time.perf_counter() - start), **context()}  # fmt: skip
    title = f"The default on real places, part {asked.part}, sides up to {asked.size} pixels"
    text = report(scores, [*reasons, *absent], facts, title)
    print(text)
    if asked.write:
        asked.write.write_text(text, encoding="utf-8")
    return 1 if asked.strict and gates.missed(scores) else 0


def _one_thread(threads: int) -> None:
    import numba
    import torch

    numba.set_num_threads(threads)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
