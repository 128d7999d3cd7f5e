"""The benchmark of the default: what is hidden, what is counted, and what its gates say."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cubefill
from benchmarks import gates, hidden, peers, score_default
from benchmarks.places import Place
from benchmarks.score_default import Row, Scores
from cubefill import simulate
from cubefill.cube.flags import Flag
from cubefill.evaluate.tally import LEVEL, ErrorSums, cells
from cubefill.methods import METHODS

Case = tuple[Place, list[Any]]


@pytest.fixture(scope="module")
def place() -> Place:
    """Farmland whose mask is spoilt on every third date, so that there are clouds to lend."""
    scene = simulate.scene(size=24, dates=24, days=240, seed=3, cloud=0.2, bands=("B04", "B08"),
                           sar=False, dem=False, omission=0.0)  # fmt: skip
    clear = np.ones(scene.truth["B04"].shape, bool)
    for i, t in enumerate(range(0, 24, 3)):
        clear[t, :, : 6 + 2 * i] = False
    bands = {b: scene.truth[b] for b in ("B04", "B08")}
    cloud = xr.DataArray(clear, dims=("time", "y", "x"))
    cube = xr.Dataset({b: a.where(cloud, 0.9) for b, a in bands.items()})
    return Place("farmland", cube.assign(valid=(("time", "y", "x"), clear)))


def test_hidden_values_are_clear_and_not_shown(place: Place) -> None:
    found = {h.scenario: h for h in hidden.scenarios(place, [])}
    assert list(found) == list(hidden.SCENARIOS)
    clear = place.cube["valid"].values
    for name, test in found.items():
        assert test.scored.any()
        assert clear[test.scored].all()
        assert not test.cube["valid"].values[test.scored].any()
        assert np.isnan(test.cube["B04"].values[test.scored]).all()
        false = test.cube["valid"].values & ~clear
        assert false.any() == (name == "omission")
    days = place.cube.time.values
    late = days > days[-1] - np.timedelta64(20, "D")
    assert found["last20"].scored.any((1, 2)).tolist() == (late & clear.any((1, 2))).tolist()
    again = next(hidden.scenarios(place, []))
    assert again.cube.identical(found["partly"].cube)
    other = next(hidden.scenarios(place, [], seed=1))
    assert not np.array_equal(other.scored, again.scored)


def test_a_place_without_values_under_clouds_has_no_omission(place: Place) -> None:
    dry = Place("dry", place.cube, under_clouds=False)
    assert "omission" not in [h.scenario for h in hidden.scenarios(dry, [])]


def test_clouds_are_lent_to_a_place_with_too_few(place: Place) -> None:
    bare = place.cube.isel(time=place.cube["valid"].all(("y", "x")))
    assert not list(hidden.scenarios(Place("bare", bare), [], which=["partly"]))
    lent = np.zeros((10, 10), bool)
    lent[:, :4] = True
    (found,) = hidden.scenarios(Place("bare", bare), [lent], which=["partly"])
    assert found.scored.any((1, 2)).sum() == len(range(1, bare.sizes["time"] - 1, 2))


def test_ratios_are_those_of_the_values_themselves(place: Place) -> None:
    methods, absent = peers.peers(["nearest", "whittaker:lam=1e4"])
    assert not absent
    scores = score_default.measure(
        [place, Place("again", place.cube)], methods, [], [0, 1], ["gap30"], say=False
    )
    assert scores.names(2) == ["linear", "nearest", "whittaker:lam=1e4"]
    errors = {}
    for name in ("linear", "nearest"):
        errors[name] = 0.0
        for seed in (0, 1):
            (test,) = hidden.scenarios(place, [], seed, ["gap30"])
            filled = cubefill.gapfill(test.cube, name).compute()
            for band in ("B04", "B08"):
                miss = (filled[band] - place.cube[band]).values[test.scored]
                errors[name] += np.abs(miss).sum(dtype=float)
    row = scores.pooled("gap30", "nearest")
    assert row.main.ratio == pytest.approx(errors["nearest"] / errors["linear"])
    assert row.main.n == 2 * 2 * 2 * int(test.scored.sum())
    assert scores.pooled("gap30", "linear").main.ratio == 1
    assert row.changed == 0
    assert 0.3 < scores.pooled("gap30", "linear").main.mean("inside") <= 1
    table = score_default.places_table(scores, "gap30")
    assert f"| nearest | {row.main.ratio:.3f} ({row.tallies['NDVI'].ratio:.3f})" in table


def test_a_method_that_cannot_fill_a_place_is_said(place: Place) -> None:
    methods, _ = peers.peers(["last"])
    refusing = peers.Peer("refusing", _refuses, True)
    scores = score_default.measure([place], [*methods, refusing], [], [0], ["last20"], say=False)
    assert scores.left_out == ["refusing at farmland: It has no B08"]
    shown = score_default.report(scores, ["absent: no folder"], {}, "Toy")
    assert "- absent: no folder\n- refusing at farmland: It has no B08" in shown


def _refuses(cube: xr.Dataset, std: bool) -> xr.Dataset:
    raise cubefill.CubefillError("It has no B08. Use another.")


def _row(ratio: float, n: int = 2000, changed: int = 0) -> Row:
    """A fill whose error is `ratio` of linear's, with an interval that holds `inside`."""
    day, seen = np.array([0.0, 5, 10]), np.zeros((3, 1, 1), bool)
    seen[[0, 2]] = True
    where = np.full(n, cells(np.full(seen.shape, Flag.SAME_DATE), seen, day)[1, 0, 0])
    tally, truth = ErrorSums(), np.zeros(n)
    value = np.linspace(0, 2 * ratio, n)
    end = np.quantile(value, LEVEL)
    tally.add(value, truth, where, baseline=np.ones(n), interval=(value - end, value + end))
    return Row({"bands": tally}, changed=changed)


def _scores(ratio: float, **more: Any) -> Scores:
    scores = Scores()
    for label, value in (("linear", 1.0), ("prototype", 0.5), ("auto", ratio)):
        scores.add("partly", "here", label, _row(value, **(more if label == "auto" else {})))
    return scores


def test_a_gate_that_fails_is_said() -> None:
    good, bad = _scores(0.40), _scores(0.50)
    assert not gates.missed(good)
    assert [g.what for g in gates.missed(bad)] == [
        "partly, bands pooled", "each place and scenario over the prototype",
    ]  # fmt: skip
    text = gates.markdown(bad)
    assert "| default | partly, bands pooled | 0.43 | 0.500 | **missed by 0.070** |" in text
    assert "| default | partly, worst place | 0.60 | 0.500 here | met by 0.100 |" in text
    assert "| default | gap30, bands pooled | 0.84 | – | not measured |" in text
    assert "samedate is not in this run" in text
    (changed,) = gates.missed(_scores(0.40, changed=3))
    assert (changed.what, changed.found) == ("clear values that were changed", "3")


def test_a_stratum_that_is_worse_than_linear_is_said() -> None:
    scores = _scores(1.2)
    found = next(g for g in gates.missed(scores) if "stratum of n" in g.what)
    assert found.found == "1.200 bands partly, same_date 0-10 d interior"
    few = next(g for g in gates.gates(_scores(1.2, n=900)) if "stratum of n" in g.what)
    assert few.verdict == "not measured"


def test_the_command_needs_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEFILL_DATA", str(tmp_path))
    assert score_default.main(["--places", "31UDS"]) == 2
    assert f"31UDS: no worldcereal_31UDS in {tmp_path}" in capsys.readouterr().err
    monkeypatch.setenv("CUBEFILL_DATA", str(tmp_path / "none"))
    assert score_default.main([]) == 2


def test_one_real_place(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CUBEFILL_DATA", str(data_folder))
    given = ["--places", "fusets_foss", "--only", "--scenario", "partly", "gap30"]
    more = ["--method", "auto", "--method", "satcube", "--no-intervals"]
    expected = 1 if METHODS["linear"] == METHODS[cubefill.methods.AUTO] else 0
    path = tmp_path / "default.md"
    done = score_default.main([*given, *more, "--strict", "--write", str(path)])
    shown = path.read_text()
    assert shown in capsys.readouterr().out
    assert done == expected or "missed by" in shown
    assert "| n |  |  |  |  | 3,078 |" in shown
    if "satcube" not in sys.modules:
        assert "satcube: not installed" in shown
