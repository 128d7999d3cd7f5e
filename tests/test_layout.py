"""Layouts: the published ones, reading and refusing JSON, drawing bounds, choosing dates."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill import layout
from cubefill.errors import MethodError
from cubefill.layout import Draw, Index, Layout, Slot, choose

PUBLISHED: dict[str, dict[str, tuple[Any, ...]]] = {
    # slot: (start d, stop d, low %, high %, S1 gap h or None)
    "ssop": {"t": (0, 0, 0, 100, 72), "target": (-10, 10, 0, 0, None)},
    "msop": {
        "tm1": (-18, -10, 0, 100, 72), "t": (0, 0, 0, 100, 72),
        "target": (-10, 10, 0, 0, None), "tp1": (10, 18, 0, 100, 72),
    },
    "msop_cld": {
        "tm1": (-18, -10, 0, 0, 72), "t": (0, 0, 100, 100, 72),
        "target": (-5, 5, 0, 0, 72), "tp1": (10, 18, 0, 0, 72),
    },
    "meraner-burkina": {"t": (0, 0, 1, 100, 144), "target": (-14, 14, 0, 0, None)},
    "crga-os2-occitanie": {
        "tm1": (-30, -10, 0, 100, 72), "t": (0, 0, 1, 100, 72),
        "target": (-10, 10, 0, 0, None), "tp1": (10, 30, 0, 100, 72),
    },
    "crga-os2-gf-burkina": {
        "tm1": (-28, -16, 0, 0, 144), "t": (0, 0, 100, 100, 144),
        "target": (-7, 7, 0, 0, 144), "tp1": (16, 28, 0, 0, 144),
    },
    "crga-os1-occitanie": {
        "tm1": (-23, -3, 0, 0, 72), "t": (0, 0, 0, 0, 72), "tp1": (3, 23, 0, 0, 72),
    },
}  # fmt: skip


def minimal(**changes: Any) -> dict[str, Any]:
    """The JSON object of a small layout, with changes to its second slot."""
    target: dict[str, Any] = {
        "acquisition": {"S2": {"type": "S2", "min_cloud_percent": 0, "max_cloud_percent": 0}},
        "timeframe_start_hours": -240,
        "timeframe_end_hours": 240,
    }
    reference = {
        "acquisition": {"S2": {"type": "S2"}, "S1": {"type": "S1"}},
        "max_s1s2_gap_hours": 72,
        "timeframe_origin": "True",
    }
    return {"t": reference, "target": {**target, **changes}}


def times(*days: float) -> Any:
    return np.datetime64("2023-05-01T10:30", "ns") + (np.array(days) * 86_400e9).astype("m8[ns]")


# ------------------------------------------------------------------ published layouts


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts(name: str) -> None:
    found = layout.load(name)
    assert [s.name for s in found.slots] == list(PUBLISHED[name])
    for slot in found.slots:
        start, stop, low, high, gap = PUBLISHED[name][slot.name]
        assert (slot.start, slot.stop) == (24 * start, 24 * stop)
        assert (slot.min_cloud, slot.max_cloud) == (low, high)
        assert slot.sar == (gap is not None)
        assert slot.max_gap == (np.inf if gap is None else gap)
        assert slot.origin == (slot.name == "t")


def test_all_published_layouts_can_be_read_and_written() -> None:
    assert len(layout.names()) == 14
    for name in layout.names():
        found = layout.load(name)
        assert layout.load(layout.dumps(found)) == found
        assert str(found).startswith(name)


def test_monthly_layouts_draw_their_cloud_bound() -> None:
    found = layout.load("monthly")
    assert found.inputs == ("t0", "t1", "t2", "t3", "t4", "t5")
    assert found["t5"].start == 580
    assert found["t1"].min_cloud == Draw("random.randint(0, 2)")
    assert found.synthesis
    assert not found.generates
    assert layout.load("monthly-difficult")["target"].stop == 650


def test_table() -> None:
    lines = str(layout.load("msop_cld")).splitlines()
    assert lines[1].split() == ["slot", "time", "sensors", "clouds", "S1", "gap"]
    assert lines[2].split() == [
        "tm1",
        "-18",
        "to",
        "-10",
        "d",
        "S1",
        "+",
        "S2",
        "0",
        "%",
        "72",
        "h",
    ]
    assert "reference" in lines[3]


def test_inputs_are_in_time_order() -> None:
    assert layout.load("msop").inputs == ("tm1", "t", "tp1")
    assert layout.load("crga-os1-burkina").generates
    assert layout.load("msop").only("t", "target").inputs == ("t",)


# ------------------------------------------------------------------ JSON


def test_numbers_as_strings_and_ends_in_any_order(tmp_path: Path) -> None:
    content = minimal(
        timeframe_start_hours="120", timeframe_end_hours="-360", max_s1s2_gap_hours="24"
    )
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    found = layout.load(path)
    assert found.name == "mine"
    assert (found["target"].start, found["target"].stop) == (-360, 120)
    assert found["target"].max_gap == 24


@pytest.mark.parametrize("key", ["siblings", "sibling"])
def test_siblings_by_both_names(key: str) -> None:
    found = layout.read({**minimal(), "options": {key: [["t", "target"]]}})
    assert found.siblings == (("t", "target"),)
    assert "t = target may be one image" in str(found)
    assert layout.load(layout.dumps(found)) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timeframe_origin": "True", "timeframe_start_hours": 1}, "expected no time frame"),
        ({"timeframe_start_hours": "soon"}, "timeframe_start_hours: expected a number, got 'soon'"),
        ({"timeframe_start_hours": True}, "expected a number, got True"),
        ({"max_gap": 3}, "has 'max_gap': expected of"),
        ({"timeframe_end_hour": 3}, "did you mean 'timeframe_end_hours'"),
        ({"acquisition": {}}, "'target' has no sensor"),
        ({"acquisition": {"S3": {}}}, "has 'S3': expected of S1, S2"),
        ({"acquisition": {"S2": {}, "S1": {}}}, "expected max_s1s2_gap_hours"),
        ({"acquisition": {"S2": {"min_cloud_percent": 60, "max_cloud_percent": 40}}}, "0 <= min"),
        ({"acquisition": {"S2": {"max_cloud_percent": 140}}}, "got 0 to 140 %"),
        ({"acquisition": {"S2": {"min_cloud_percent": "random.seed(3)"}}}, "random.seed with 1"),
        ({"timeframe_origin": "perhaps"}, "expected timeframe_origin true or false"),
    ],
)
def test_wrong_layouts_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        layout.read(minimal(**changes), "mine")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="Did you mean 'msop'"):
        layout.load("mosp")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(MethodError, match="is not JSON"):
        layout.load(tmp_path / "a.json")
    with pytest.raises(MethodError, match="expected an object of slots, got list"):
        layout.read([])  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="expected one slot with timeframe_origin, got none"):
        layout.read({"target": minimal()["target"]})
    with pytest.raises(MethodError, match=r"siblings \['tm9'\] are no slots"):
        layout.read({**minimal(), "options": {"siblings": [["t", "tm9"]]}})
    with pytest.raises(MethodError, match="list of lists"):
        layout.read({**minimal(), "options": {"siblings": ["t", "target"]}})
    with pytest.raises(MethodError, match="has no slot 'tm1': expected one of t, target"):
        layout.read(minimal())["tm1"]


# ------------------------------------------------------------------ random bounds


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("random.randint(0, 2)", 0, 2),
        ("random.randint(1, 10)", 1, 10),
        ("random.randrange(3, 5)", 3, 4),
        ("random.uniform(0.5, 2)", 0.5, 2),
        ("100 * random.random() / 2", 0, 50),
        ("random.choice([5, 10, 20])", 5, 20),
        ("-random.randint(1, 3) + 5", 2, 4),
    ],
)
def test_draws_stay_in_their_range(text: str, low: float, high: float) -> None:
    draw, rng = Draw(text), np.random.default_rng(0)
    found = [draw.value(rng) for _ in range(300)]
    assert low <= min(found)
    assert max(found) <= high
    assert len(set(found)) > 1
    assert draw.bounds == (low, high)
    assert draw.value(None) == low
    if draw.text.startswith("random"):
        assert min(found) == pytest.approx(low, abs=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "random.__class__",
        "random.randint(0, 2).__class__",
        "random.seed()",
        "random.randint(*[1, 2])",
        "random.randint(a=0, b=2)",
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "[1 for _ in range(9)]",
        "2 ** 99999999",
        "random.randint(5, 2)",
        "1 / 0",
        "'a' + 'b'",
        "random.choice([])",
        "9" * 300,
        "",
    ],
)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(MethodError, match="expected a number or a draw"):
        Draw(text)


# ------------------------------------------------------------------ choosing


def test_choose_takes_the_clearest_of_each_frame() -> None:
    when = times(0, 4, 8, 20, 25, 31, 35, 70)
    clear = [0.2, 0.9, 0.9, 0.0, 1.0, 0.3, 0.8, 1.0]
    found = choose(layout.load("msop"), when, clear, None, 3)
    assert found == {"tm1": 2, "t": 3, "target": 4, "tp1": 6}


def test_choose_at_a_date() -> None:
    when = times(0, 8, 20, 25, 32)
    found = choose(layout.load("msop"), when, np.ones(5), None, when[2] + np.timedelta64(3, "h"))
    assert found["t"] == 2


def test_choose_at_random_meets_every_condition() -> None:
    rng = np.random.default_rng(0)
    when = times(*range(0, 60, 2))
    clear = rng.choice([0.0, 0.5, 1.0], len(when))
    msop = layout.load("msop")
    seen = set()
    for _ in range(60):
        found = choose(msop, when, clear, when[::3], 14, rng)
        seen.add(tuple(found.values()))
        assert len(set(found.values())) == 4
        assert clear[found["target"]] == 1
        days = [(when[i] - when[14]) / np.timedelta64(1, "D") for i in found.values()]
        assert -18 <= days[0] <= -10
        assert 10 <= days[3] <= 18
        assert days[1] == 0
    assert len(seen) > 10


def test_the_error_counts_what_each_condition_removed() -> None:
    when = times(0, 8, 20, 25, 32)
    msop_cld = layout.load("msop_cld")
    with pytest.raises(
        MethodError, match=r"'tm1' at 2023-05-01\. Of 5 acquisitions the time frame"
    ):
        choose(msop_cld, when, [0, 1, 0, 1, 1], None, 0)
    with pytest.raises(MethodError) as error:
        choose(msop_cld, when, [1, 0.4, 0, 1, 1], None, 2)
    text = str(error.value)
    assert "slot 'tm1'" in text
    assert "-18 to -10 d 4, clouds 0 % 1, the S1 gap of 72 h 0 were removed" in text
    with pytest.raises(MethodError, match="the S1 gap of 72 h 1 were removed"):
        choose(msop_cld, when, [1, 1, 0, 1, 1], times(20, 25, 32), 2)
    index = Index(when, np.array([1.0, 1, 0, 1, 1]), complete=np.array([1, 0, 1, 1, 1], bool))
    with pytest.raises(MethodError, match="missing pixels 1"):
        index.choose(msop_cld, 2)
    with pytest.raises(MethodError, match="expected acquisitions to choose from, got none"):
        choose(msop_cld, when[:0], [], None, 0)
    with pytest.raises(MethodError, match="clear: expected one value for each of 5 times"):
        choose(msop_cld, when, [1, 0], None, 0)


def test_siblings_may_share_an_image() -> None:
    when, ssop = times(0, 40), layout.load("ssop")
    with pytest.raises(MethodError, match="expected a different image for each slot"):
        choose(ssop, when, [1, 1], None, 0)
    shared = Layout(ssop.slots, (("t", "target"),), "shared")
    assert choose(shared, when, [1, 1], None, 0) == {"t": 0, "target": 0}


def test_lenient_choice_takes_the_next_best() -> None:
    when, msop = times(0, 5, 60), layout.load("msop")
    found = choose(msop, when, [0, 0, 0], None, 1, strict=False)
    assert found == {"tm1": 0, "t": 1, "tp1": 2}
    assert choose(msop, when, [0, 0, 0], None, 0, strict=False) == {"tm1": 2, "t": 0, "tp1": 1}
    assert choose(msop, when[:1], [1], None, 0, strict=False) == {"tm1": 0, "t": 0, "tp1": 0}


@pytest.mark.parametrize(
    ("name", "days", "wanted", "expected"),
    [
        ("crga-os1-occitanie", (0, 30), 10, {"tm1": 0, "t": 0, "tp1": 30}),
        ("crga-os1-occitanie", (0, 30, 60), 10, {"tm1": 0, "t": 0, "tp1": 30}),
        ("crga-os1-occitanie", (0, 20, 40), 28, {"tm1": 20, "t": 20, "tp1": 40}),
        ("msop", (0, 30), 10, {"tm1": 0, "t": 0, "tp1": 30}),
        ("msop", (0, 30, 60), 10, {"tm1": 0, "t": 0, "tp1": 30}),
        ("msop", (0, 20, 40), 28, {"tm1": 0, "t": 20, "tp1": 40}),
    ],
)
def test_between_acquisitions_each_slot_keeps_its_side(
    name: str, days: tuple[int, ...], wanted: int, expected: dict[str, int]
) -> None:
    when, at = times(*days), times(wanted)[0]
    found = choose(layout.load(name), when, np.ones(len(days)), None, at, strict=False)
    assert {n: days[i] for n, i in found.items()} == expected


def test_what_is_drawn_stays_within_0_and_100() -> None:
    text = layout.dumps(layout.load("msop"))
    bound = '"min_cloud_percent": 0.0'
    assert bound in text
    for drawn in ("randint(0, 300)", "uniform(0, 101)", "random() * 200", "choice([1, 1e30])"):
        with pytest.raises(MethodError, match="expected 0 <= min_cloud_percent"):
            layout.load(text.replace(bound, f'"min_cloud_percent": "random.{drawn}"', 1))
    with pytest.raises(MethodError, match="expected 0 <= min_cloud_percent"):
        layout.load(text.replace(bound, '"min_cloud_percent": "10 - random.randint(0, 20)"', 1))
    with pytest.raises(MethodError, match="a division by 0"):
        Draw("1 / random.randint(-1, 1)")


def test_a_name_that_comes_twice_is_refused() -> None:
    text = layout.dumps(layout.load("ssop"))
    assert '"target"' in text
    with pytest.raises(MethodError, match="expected each name once, got 't' twice"):
        layout.load(text.replace('"target":', '"t":', 1))


def test_nearest_sar() -> None:
    when, radar = times(0, 5, 10), times(-1, 4.5, 11)
    found, hours = Index(when, np.ones(3), radar).nearest_sar
    assert found.tolist() == [0, 1, 2]
    np.testing.assert_allclose(hours, [24, 12, 24])
    assert Index(when, np.ones(3), radar[:0]).nearest_sar[1].tolist() == [np.inf] * 3
    known = Index(when, np.ones(3), gap_hours=np.array([-80.0, 3, np.nan]))
    assert known.nearest_sar[1].tolist() == [80, 3, np.inf]


def test_slots_with_sar_alone() -> None:
    slots = (Slot("t", origin=True), Slot("s", -48, 48, optical=False, sar=True))
    index = Index(times(0, 10), np.ones(2), times(-30, 9, 12))
    assert index.candidates(slots[1], 240.0).tolist() == [1, 2]
    assert index.choose(Layout(slots), 1) == {"t": 1, "s": 1}


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()),
        min_size=1, max_size=14, unique_by=lambda row: row[0],
    ),
    st.lists(st.integers(0, 50), max_size=6, unique=True),
    st.sampled_from(["ssop", "msop", "msop_cld", "crga-os1-occitanie"]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_search_finds_what_a_plain_search_finds(
    rows: list[tuple[int, float, bool]], radar: list[int], name: str
) -> None:
    rows = sorted(rows)
    days = np.array([r[0] for r in rows], np.float64)
    clear, complete = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    chosen = layout.load(name)
    index = Index(times(*days), clear, times(*sorted(radar)), complete)
    found = {tuple(f[s.name] for s in chosen.slots) for f in index.search(chosen)}

    def fits(slot: Slot, i: int, t0: float) -> bool:
        inside = slot.origin or slot.start <= 24 * (days[i] - t0) <= slot.stop
        clouds = 100 * (1 - clear[i])
        assert not isinstance(slot.min_cloud, Draw)
        assert not isinstance(slot.max_cloud, Draw)
        gap = min((abs(days[i] - r) for r in radar), default=np.inf) * 24
        close = not slot.sar or gap <= slot.max_gap
        return bool(inside and slot.min_cloud <= clouds <= slot.max_cloud and close)

    expected = set()
    for ids in product(range(len(rows)), repeat=len(chosen.slots)):
        origin = next(i for s, i in zip(chosen.slots, ids, strict=True) if s.origin)
        if len(set(ids)) == len(ids) and all(
            complete[i] and fits(s, i, float(days[origin]))
            for s, i in zip(chosen.slots, ids, strict=True)
        ):
            expected.add(ids)
    assert found == expected


def test_search_can_be_cut() -> None:
    index = Index(times(*range(0, 60, 4)), np.ones(15))
    every = list(index.search(layout.load("msop")))
    some = list(index.search(layout.load("msop"), most=2))
    references = {f["t"] for f in every}
    assert len(some) == 2 * len(references) < len(every)


def test_clearest_duplicates_what_is_missing() -> None:
    when = times(0, 3, 6, 60)
    assert layout.clearest(when, [0.2, 0.9, 0.5, 1], when[0], 6).tolist() == [0, 1, 1, 1, 1, 2]
    assert layout.clearest(when, [1, 1, 1, 1], times(200)[0], 2).tolist() == [3, 3]
