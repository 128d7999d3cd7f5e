from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cubefill import gaps
from cubefill.errors import CubeError
from cubefill.gaps import Blobs, Blocks, Dates, Trailing, Transplant, parse_gaps

KINDS: list[gaps.Gaps] = [Transplant(), Blobs(), Dates(), Blocks(), Trailing()]


def cloudy(n: int = 24, side: int = 32, seed: int = 0) -> tuple[Any, Any]:
    """Validity of a cube: a third clear, a third with a cloudy half, a third overcast."""
    rng = np.random.default_rng(seed)
    valid = np.ones((n, side, side), bool)
    for t in range(n):
        if t % 3 == 1:
            top, left = rng.integers(0, side // 2, 2)
            valid[t, top : top + side // 2, left : left + side // 2] = False
        if t % 3 == 2:
            valid[t] = False
    return valid, np.cumsum(rng.integers(2, 9, n)).astype(float)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_gaps_are_a_seeded_subset_of_the_clear_observations(kind: gaps.Gaps) -> None:
    assert isinstance(kind, gaps.Gaps)
    valid, days = cloudy()
    before = valid.copy()
    hidden = kind.make(valid, days, 3)
    assert hidden.shape == valid.shape
    assert hidden.dtype == np.bool_
    assert hidden.any()
    assert not (hidden & ~valid).any()
    np.testing.assert_array_equal(hidden, kind.make(valid, days, 3))
    np.testing.assert_array_equal(valid, before)
    assert (valid & ~hidden).sum(0).min() >= 2


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda k: type(k).__name__)
def test_another_seed_hides_something_else(kind: gaps.Gaps) -> None:
    valid, days = cloudy()
    assert not np.array_equal(kind.make(valid, days, 1), kind.make(valid, days, 2))


@given(
    arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))),
    st.sampled_from([*KINDS, Dates(share=1.0, keep=1), Blobs(share=1.0, keep=0), Trailing(400)]),
    st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_any_cube_is_hidden_in_part_or_refused(valid: Any, kind: Any, seed: int) -> None:
    days = np.arange(len(valid)) * 5.0
    try:
        hidden = kind.make(valid, days, seed)
    except CubeError:
        return
    assert hidden.any()
    assert not (hidden & ~valid).any()
    left = (valid & ~hidden).sum(0)
    assert (left >= np.minimum(valid.sum(0), kind.keep)).all()


def test_a_transplanted_shape_is_the_gap_of_another_date() -> None:
    valid, days = cloudy()
    hidden = Transplant(share=1.0, clear=1.0, turn=False, keep=0).make(valid, days)
    shapes = [~valid[t] for t in range(24) if 0.05 < (~valid[t]).mean() < 0.95]
    taken = np.flatnonzero(hidden.any((1, 2)))
    assert set(taken) == {t for t in range(24) if t % 3 == 0}
    for t in taken:
        assert any(np.array_equal(hidden[t], s) for s in shapes)


def test_a_turned_shape_keeps_its_size() -> None:
    valid, days = cloudy()
    hidden = Transplant(share=1.0, clear=1.0, keep=0).make(valid, days)
    sizes = {int((~valid[t]).sum()) for t in range(1, 24, 3)}
    assert {int(h.sum()) for h in hidden if h.any()} <= sizes


def test_blobs_cover_what_was_asked_for() -> None:
    valid = np.ones((40, 32, 32), bool)
    hidden = Blobs(share=0.5, cover=(0.2, 0.3), keep=0).make(valid, np.arange(40.0))
    shares = hidden.mean((1, 2))
    assert (shares > 0).sum() == 20
    assert ((shares[shares > 0] > 0.17) & (shares[shares > 0] < 0.33)).all()


def test_dates_blocks_and_trailing_take_whole_dates() -> None:
    valid = np.ones((40, 4, 4), bool)
    days = np.arange(40) * 5.0
    for kind in (Dates(), Blocks(), Trailing()):
        hidden = kind.make(valid, days)
        assert set(hidden.mean((1, 2))) == {0.0, 1.0}
    assert Dates(share=0.25).make(valid, days).any((1, 2)).sum() == 10
    run = np.flatnonzero(Blocks((30, 60)).make(valid, days).any((1, 2)))
    assert (np.diff(run) == 1).all()
    assert 3 <= len(run) <= 13
    assert list(np.flatnonzero(Trailing(20).make(valid, days).any((1, 2)))) == [36, 37, 38, 39]


@pytest.mark.parametrize("kind", [*KINDS[1:], Transplant(clear=0)], ids=lambda k: type(k).__name__)
def test_a_cube_with_too_few_observations_is_refused(kind: gaps.Gaps) -> None:
    valid = np.zeros((6, 4, 4), bool)
    valid[:2] = True
    valid[0, :2] = False
    with pytest.raises(CubeError, match="Pass keep=1"):
        kind.make(valid, np.arange(6.0))


def test_transplant_says_what_it_lacks() -> None:
    with pytest.raises(CubeError, match=r"got 4 and 0 of 4 dates\. Pass clear= or cover="):
        Transplant().make(np.ones((4, 4, 4), bool), np.arange(4.0))
    with pytest.raises(CubeError, match="got 0 and 4"):
        Transplant(clear=0.9).make(~np.eye(4, dtype=bool)[None].repeat(4, 0), np.arange(4.0))


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(CubeError, match="got int64"):
        Dates().make(np.ones((4, 4, 4), int), np.arange(4.0))
    with pytest.raises(CubeError, match="3 days"):
        Dates().make(np.ones((4, 4, 4), bool), np.arange(3.0))


def slowly(valid: Any, probability: Any) -> list[bool]:
    """The rule of U-TILISE, pixel by pixel, in whole numbers."""
    found = []
    for t in range(len(valid)):
        gap = likely = 0
        for y, x in np.ndindex(valid.shape[1:]):
            gap += not valid[t, y, x]
            if probability is not None and probability[t, y, x] > 0.01:
                likely += 1
        n = valid[t].size
        if probability is None:
            bad = 100 * gap >= 5 * n
        else:
            bad = 100 * gap >= 40 * n
            bad |= 100 * likely > 1 * n and 100 * gap > 10 * n
            bad |= 100 * likely > 4 * n and 100 * gap > 8 * n
        found.append(bad)
    return found


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_impaired_dates_are_those_of_a_slow_rule(data: Any) -> None:
    ny, nx = data.draw(st.sampled_from([(10, 10), (5, 4), (20, 5), (3, 7)]))
    counts = data.draw(st.lists(st.tuples(*(st.integers(0, 45),) * 2), min_size=1, max_size=6))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    n = ny * nx
    valid = np.ones((len(counts), n), bool)
    probability = rng.choice([0, 0.005, 0.01, np.nan], (len(counts), n))
    for t, (gap, likely) in enumerate(counts):
        valid[t, rng.permutation(n)[: min(n, gap * n // 100)]] = False
        probability[t, rng.permutation(n)[: min(n, likely // 5 * n // 100)]] = 0.6
    valid, probability = (a.reshape(-1, ny, nx) for a in (valid, probability))
    for given_ in (None, probability):
        assert gaps.impaired(valid, given_).tolist() == slowly(valid, given_)


@pytest.mark.parametrize(
    ("gap", "likely", "expected"),
    [
        (5, None, True), (4, None, False), (40, 0, True), (39, 0, False), (39, 1, False),
        (11, 2, True), (10, 2, False), (10, 5, True), (9, 5, True), (8, 5, False), (9, 4, False),
    ],
)  # fmt: skip
def test_the_limits_of_impaired_dates(gap: int, likely: int | None, expected: bool) -> None:
    valid = (np.arange(100) >= gap).reshape(1, 10, 10)
    probability = None if likely is None else (np.arange(100.0) < likely).reshape(1, 10, 10) * 0.02
    assert gaps.impaired(valid, probability).tolist() == [expected]


def test_a_probability_in_percent_or_of_another_shape_is_refused() -> None:
    valid = np.ones((2, 4, 4), bool)
    with pytest.raises(CubeError, match=r"from 0 to 1, .* up to 60\. Use .*cloud_probability / 1"):
        gaps.impaired(valid, np.full((2, 4, 4), 60.0))
    with pytest.raises(CubeError, match=r"expected \(2, 4, 4\)"):
        gaps.impaired(valid, np.zeros((1, 4, 4)))
    assert gaps.impaired(valid, np.full((2, 4, 4), np.nan)).tolist() == [False, False]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("transplant", Transplant()),
        ("Blobs: share=0.2, cover=(0.1, 0.3)", Blobs(share=0.2, cover=(0.1, 0.3))),
        ("dates:share=0.3,keep=1", Dates(share=0.3, keep=1)),
        ("blocks:days=(20, 60),count=2", Blocks(days=(20, 60), count=2)),
        ("trailing:days=45", Trailing(days=45)),
        ("transplant:turn=false", Transplant(turn=False)),
    ],
)
def test_gaps_from_text(text: str, found: Any) -> None:
    assert parse_gaps(text) == found


@pytest.mark.parametrize("text", ["dates:0.3", "dates:part=0.3", "dates:share=__import__('os')"])
def test_wrong_options_of_gaps_are_refused(text: str) -> None:
    with pytest.raises(CubeError, match="with options share, clear, keep, got"):
        parse_gaps(text)
    with pytest.raises(CubeError, match="Unknown gaps 'cloud': expected one of transplant"):
        parse_gaps("cloud")
