"""What the default must reach on simulated farmland; `benchmarks.score_default` has real places."""

import pytest

from benchmarks import gates, peers, score_default
from benchmarks.places import Place
from benchmarks.score_default import Scores
from cubefill import simulate
from cubefill.methods import METHODS

LIMITS = {
    ("partly", "bands"): 0.48,
    ("partly", "NDVI"): 0.62,
    ("omission", "bands"): 0.22,
    ("gap30", "bands"): 1.0,
    ("last20", "bands"): 1.03,
}
"""Largest error over that of linear on the same values, by scenario and what is judged. Here whole
dates are as fast to change as the simulator has it; no curve beats the last value at the end."""
WORSE = 1.06
"""Largest ratio of a stratum of many values: these are two small places."""

pytestmark = pytest.mark.skipif("samedate" not in METHODS, reason="there is no same-date to judge")


def place(seed: int) -> Place:
    scene = simulate.scene(size=64, dates=60, days=300, seed=seed, cloud=0.4, sar=False, dem=False,
                           bands=("B02", "B03", "B04", "B08"))  # fmt: skip
    return Place(f"scene {seed}", scene.cube[["B02", "B03", "B04", "B08", "valid"]])


@pytest.fixture(scope="module")
def scores() -> Scores:
    methods, absent = peers.peers(["auto"])
    assert not absent
    scenarios = list(dict.fromkeys(scenario for scenario, _ in LIMITS))
    return score_default.measure([place(1), place(2)], methods, [], [0], scenarios, say=False)


def test_every_scenario_is_measured(scores: Scores) -> None:
    assert set(scores.names(0)) == {scenario for scenario, _ in LIMITS}
    assert all(scores.pooled(s, "auto").main.n > 10_000 for s in scores.names(0))


@pytest.mark.parametrize(("scenario", "what"), LIMITS)
def test_error_against_linear(scores: Scores, scenario: str, what: str) -> None:
    assert scores.pooled(scenario, "auto").tallies[what].ratio <= LIMITS[scenario, what]


def test_no_stratum_is_much_worse_than_linear(scores: Scores) -> None:
    for scenario in scores.names(0):
        for variable, tally in scores.pooled(scenario, "auto").tallies.items():
            for stratum, found in gates.strata_of(tally):
                if found["n"] > gates.MANY:
                    assert found["ratio"] <= WORSE, (scenario, variable, stratum)


def test_clear_values_are_kept(scores: Scores) -> None:
    assert not any(row.changed for row in scores.rows.values())


def test_intervals_hold_what_they_say(scores: Scores) -> None:
    rows = [scores.pooled(scenario, "auto") for scenario in scores.names(0)]
    inside = sum(r.tallies["bands"].total("inside") for r in rows)
    assert 0.85 <= inside / sum(r.tallies["bands"].total("known") for r in rows) <= 0.95
