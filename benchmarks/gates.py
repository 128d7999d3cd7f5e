"""The gates that a default method must pass, and by how much it passes or misses each.

A gate that was not measured counts as neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cubefill.evaluate.tally import ErrorSums
from cubefill.methods import AUTO

if TYPE_CHECKING:
    from benchmarks.score_default import Scores

MANY = 1000
"""Values of a stratum above which it is judged."""
WORSE = 1.03
"""Largest ratio to linear of any stratum."""
COVERAGE, COVERAGE_STRATUM = (0.87, 0.93), (0.80, 0.97)
LIMITS = {
    "samedate": {
        ("partly", "bands"): 0.46, ("partly", "NDVI"): 0.50, ("partly", "worst"): 0.65,
        ("omission", "bands"): 0.37,
        ("gap30", "bands"): 0.88, ("gap30", "NDVI"): 0.94, ("gap60", "bands"): 0.94,
        ("last20", "bands"): 0.87,
    },
    "default": {
        ("partly", "bands"): 0.43, ("partly", "NDVI"): 0.47, ("partly", "worst"): 0.60,
        ("omission", "bands"): 0.34,
        ("gap30", "bands"): 0.84, ("gap30", "NDVI"): 0.84, ("gap60", "bands"): 0.91,
        ("last20", "bands"): 0.84,
    },
}  # fmt: skip
"""Largest ratio to linear by scenario and what is judged."""
PROTOTYPE = {"samedate": 0.97, "default": 0.94}
"""Largest ratio to the prototype, each place by itself."""


@dataclass(frozen=True)
class Gate:
    """What was asked and what was found."""

    of: str
    what: str
    limit: str
    found: str
    by: float
    """How far on the right side of the limit, below 0 where it is missed; NaN for not measured."""

    @property
    def verdict(self) -> str:
        if self.by != self.by:
            return "not measured"
        return f"met by {self.by:.3f}" if self.by >= 0 else f"**missed by {-self.by:.3f}**"


def judged(scores: "Scores") -> list[str]:
    """Labels of the methods that gates are for, in the run."""
    labels = scores.names(2)
    return [n for n in ("samedate", "auto") if n in labels]


def gates(scores: "Scores") -> list[Gate]:
    """Every gate of `samedate` and of the default."""
    found: list[Gate] = []
    for kind, label in (("samedate", "samedate"), ("default", "auto")):
        if label not in scores.names(2):
            found.append(Gate(kind, "all", "", f"{label} is not in this run", float("nan")))
            continue
        found += [_limit(scores, kind, label, *key, limit) for key, limit in LIMITS[kind].items()]
        found.append(_against_prototype(scores, kind, label))
        found += [_strata(scores, kind, label), _clear(scores, kind, label)]
        found += _intervals(scores, kind, label)
    return found


def missed(scores: "Scores") -> list[Gate]:
    """Gates that were measured and not passed."""
    return [g for g in gates(scores) if g.by < 0]


def markdown(scores: "Scores") -> str:
    """A table of all gates, with how many were missed above it."""
    rows = gates(scores)
    lines = ["| of | gate | limit | found | verdict |", "|---|---|---:|---:|---|"]
    lines += [f"| {g.of} | {g.what} | {g.limit} | {g.found} | {g.verdict} |" for g in rows]
    measured = [g for g in rows if g.by == g.by]
    told = f"{sum(g.by < 0 for g in measured)} of {len(measured)} measured gates are missed; "
    told += f"the default is `{AUTO}`."
    return "\n".join(["## Gates", "", told, "", *lines])


def strata_of(tally: ErrorSums) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Flag, gap length and position, and the figures, of each stratum that holds a value."""
    table = tally.table()
    for key in ((f, g, p) for f in table.flag.values for g in table.gap_length.values
                for p in table.position.values):  # fmt: skip
        cell = table.sel(flag=key[0], gap_length=key[1], position=key[2])
        if int(cell.n):
            yield tuple(map(str, key)), {str(n): float(v) for n, v in cell.data_vars.items()}


def _limit(
    scores: "Scores", kind: str, label: str, scenario: str, what: str, limit: float
) -> Gate:  # fmt: skip
    if what == "worst":
        places = scores.by_place(scenario, label)
        ratios = {p: r.main.ratio for p, r in places.items()}
        worst = max(ratios, key=lambda p: ratios[p]) if ratios else ""
        value, where = ratios.get(worst, float("nan")), f" {worst}"
    else:
        value = scores.pooled(scenario, label).tallies.get(what, ErrorSums()).ratio
        where = ""
    name = f"{scenario}, {'worst place' if what == 'worst' else what + ' pooled'}"
    found = f"{value:.3f}{where}" if value == value else "–"
    return Gate(kind, name, f"{limit:.2f}", found, limit - value)


def _against_prototype(scores: "Scores", kind: str, label: str) -> Gate:
    """The place and scenario where the method stands worst against the prototype."""
    limit, worst = PROTOTYPE[kind], ("–", float("nan"))
    over = every = 0
    for (scenario, place, method), row in scores.rows.items():
        other = scores.rows.get((scenario, place, "prototype"))
        if method != label or other is None:
            continue
        ratio = row.main.ratio / other.main.ratio
        every, over = every + 1, over + (ratio > limit)
        if not ratio <= worst[1]:
            worst = (f"{ratio:.3f} {place} {scenario}; {{}} of {{}} above", ratio)
    what = "each place and scenario over the prototype"
    return Gate(kind, what, f"{limit:.2f}", worst[0].format(over, every), limit - worst[1])


def _strata(scores: "Scores", kind: str, label: str) -> Gate:
    worst, said = float("nan"), "–"
    for scenario in scores.names(0):
        for variable, tally in scores.pooled(scenario, label).tallies.items():
            for keys, cell in strata_of(tally):
                if cell["n"] > MANY and not cell["ratio"] <= worst:
                    worst = cell["ratio"]
                    said = f"{worst:.3f} {variable} {scenario}, {' '.join(keys)}"
    return Gate(kind, f"every stratum of n > {MANY} over linear", f"{WORSE}", said, WORSE - worst)


def _clear(scores: "Scores", kind: str, label: str) -> Gate:
    changed = sum(row.changed for (_, _, m), row in scores.rows.items() if m == label)
    return Gate(kind, "clear values that were changed", "0", str(changed), float(-changed))


def _intervals(scores: "Scores", kind: str, label: str) -> Iterator[Gate]:
    """Coverage over all scenarios, the stratum that is farthest off, and the interval score."""
    for variable in ("bands", "NDVI"):
        own, base = ErrorSums(), ErrorSums()
        for scenario in scores.names(0):
            own = own + scores.pooled(scenario, label).tallies.get(variable, ErrorSums())
            base = base + scores.pooled(scenario, "linear").tallies.get(variable, ErrorSums())
        if not own.total("known"):
            yield Gate(kind, f"coverage, {variable}", "", "no interval", float("nan"))
            continue
        yield _within(
            kind, f"coverage of 90 %, {variable} pooled", COVERAGE, own.mean("inside"), ""
        )
        off = [
            (min(c["coverage"] - COVERAGE_STRATUM[0], COVERAGE_STRATUM[1] - c["coverage"]), k, c)
            for k, c in strata_of(own)
            if c["n"] > MANY and c["coverage"] == c["coverage"]
        ]
        if off:
            _, keys, cell = min(off, key=lambda o: o[0])
            what = f"coverage of each stratum, {variable}"
            yield _within(kind, what, COVERAGE_STRATUM, cell["coverage"], " ".join(keys))
        ratio = own.mean("score") / base.mean("score")
        what = f"interval score over linear's, {variable}"
        yield Gate(kind, what, "1", f"{ratio:.3f}", 1 - ratio)


def _within(kind: str, what: str, limits: tuple[float, float], value: float, where: str) -> Gate:
    by = min(value - limits[0], limits[1] - value)
    return Gate(kind, what, f"{limits[0]:.2f}-{limits[1]:.2f}", f"{value:.3f} {where}".strip(), by)
