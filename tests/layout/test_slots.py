"""Layouts: the published ones, reading and refusing JSON, drawing bounds, choosing dates."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubefill import layout
from cubefill.errors import MethodError
from cubefill.layout import Draw

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
        ({"max_gap": 3}, "has 'max_gap': expected one of"),
        ({"timeframe_end_hour": 3}, "did you mean 'timeframe_end_hours'"),
        ({"acquisition": {}}, "'target' has no sensor"),
        ({"acquisition": {"S3": {}}}, "has 'S3': expected one of S1, S2"),
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


def test_a_name_that_comes_twice_is_refused() -> None:
    text = layout.dumps(layout.load("ssop"))
    assert '"target"' in text
    with pytest.raises(MethodError, match="expected each name once, got 't' twice"):
        layout.load(text.replace('"target":', '"t":', 1))


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
