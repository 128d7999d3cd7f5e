"""The dates that a layout chooses, strictly and leniently, and the search for all of them."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill import layout
from cubefill.errors import MethodError
from cubefill.layout import Draw, Index, Layout, Slot, choose


def times(*days: float) -> Any:
    return np.datetime64("2023-05-01T10:30", "ns") + (np.array(days) * 86_400e9).astype("m8[ns]")


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
