from itertools import pairwise, permutations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.applications import Event, mowing_events
from cubefill.applications import mowing as events
from cubefill.errors import CubefillError

DAY = np.timedelta64(1, "D")
START = np.datetime64("2020-04-09")
GRID = START + 6 * np.arange(29)


def on(*days: int) -> list[Event]:
    return [Event(START + d * DAY) for d in days]


def days_of(found: list[Event]) -> list[int]:
    return [int((e.date - START) / DAY) for e in found]


# ------------------------------------------------------------------ post-processing


def test_an_event_is_a_likely_step_and_18_days_apart() -> None:
    p = np.zeros(29)
    p[[2, 3, 5, 6, 20]] = [0.6, 0.9, 0.7, 0.5, 0.51]
    p[9] = np.nan
    found = events.detect(p, GRID)
    assert days_of(found) == [12, 30, 120]
    assert [e.probability for e in found] == [0.6, 0.7, 0.51]
    assert (found[0].end - found[0].date) / DAY == 6
    assert days_of(events.detect(p, GRID, apart=0)) == [12, 18, 30, 120]
    assert days_of(events.detect(p, GRID, threshold=0.4)) == [12, 30, 120]


@given(st.lists(st.floats(0, 1), min_size=29, max_size=29))
def test_kept_events_are_apart_and_the_first_likely_step_is_kept(p: list[float]) -> None:
    found = days_of(events.detect(np.array(p), GRID))
    likely = [6 * i for i, v in enumerate(p) if v > 0.5]
    assert found[:1] == likely[:1]
    assert all(b - a >= 18 for a, b in pairwise(found))
    assert all(any(0 <= d - f < 18 for f in found) for d in likely)


def test_a_parcel_has_what_half_of_its_pixels_have() -> None:
    pixels = [on(30, 90), on(36), on(33, 150), on(31, 95), on(170), []]
    found = events.vote(pixels)
    assert days_of(found) == [31]
    assert found[0].probability == pytest.approx(4 / 6)
    assert days_of(events.vote(pixels, share=1 / 3)) == [31, 90, 150]
    assert events.vote([]) == []
    assert events.vote([[], []]) == []


def test_a_vote_does_not_depend_on_the_order_of_the_pixels() -> None:
    pixels = [on(30, 90), on(58), on(33, 110), on(61)]
    first = events.vote(pixels)
    assert all(events.vote(list(p)) == first for p in permutations(pixels))


def test_pixels_of_a_cube() -> None:
    p = np.zeros((29, 2, 3))
    p[4, 1, 2] = 0.9
    p[8, 0, 0] = np.nan
    da = xr.DataArray(p, dims=("time", "y", "x"), coords={"time": GRID.astype("M8[ns]")})
    found = events.mowing_events(da.transpose("y", "x", "time"))
    assert list(found) == [(1, 2)]
    assert days_of(found[1, 2]) == [24]


def test_parcels_have_what_their_pixels_agree_on() -> None:
    p = np.zeros((29, 2, 3))
    p[4, :, 0], p[5, 0, 1], p[20, 1, 2] = 0.9, 0.8, 0.7
    da = xr.DataArray(p, dims=("time", "y", "x"), coords={"time": GRID.astype("M8[ns]")})
    parcels = xr.DataArray([[3, 3, 0], [3, 3, 5]], dims=("y", "x"))
    found = mowing_events(da, parcels)
    assert {n: days_of(e) for n, e in found.items()} == {3: [24], 5: [120]}
    assert found[3][0].probability == pytest.approx(0.75)
    assert mowing_events(da, parcels.transpose("x", "y"), share=0.8)[3] == []
    with pytest.raises(
        CubefillError, match=r"parcels: expected numbers \(y, x\) of shape \(2, 3\)"
    ):
        mowing_events(da, parcels[:1])


def test_labels_weigh_quiet_steps_less() -> None:
    target, where = events.labels(on(13, 24), GRID)
    assert np.flatnonzero(target[:, 0]).tolist() == [2, 4]
    assert where[2, 0] == 1
    assert where[3, 0] == np.float32(0.2)
    assert target.shape == where.shape == (29, 1)


# ------------------------------------------------------------------ scores


def test_scores_by_hand() -> None:
    true = [on(30, 90), on(40), on(60), []]
    found = [on(33, 100, 150), on(28), [], on(5)]
    s = events.score(found, true)
    assert (s.true, s.found, s.hits) == (4, 5, 2)
    assert (s.recall, s.precision) == (0.5, 0.4)
    assert s.f1 == pytest.approx(4 / 9)
    assert (s.mean_error, s.mae) == (6.5, 6.5)
    assert s.pearson == pytest.approx(1)
    early = events.score([on(27)], [on(30)])
    assert (early.mean_error, early.mae) == (-3, 3)
    assert np.isnan(early.pearson)


def test_twelve_days_off_is_no_hit() -> None:
    assert events.score([on(42)], [on(30)]).hits == 0
    assert events.score([on(41)], [on(30)]).hits == 1
    assert events.tolerance_curve([on(41)], [on(30)]) == {
        0: 0, 3: 0, 6: 0, 9: 0, 12: 1, 15: 1, 18: 1,
    }  # fmt: skip


def test_each_event_is_matched_once() -> None:
    assert events.score([on(28, 33)], [on(30)]).hits == 1
    assert events.score([on(30)], [on(28, 33)]).hits == 1
    assert events.score([on(28, 33)], [on(30)]).mean_error == -2


def test_no_events_at_all() -> None:
    s = events.score([[]], [[]])
    assert s.hits == 0
    assert np.isnan([s.recall, s.precision, s.f1, s.mean_error, s.mae]).all()
    assert events.score([on(3)], [[]]).f1 == 0


def test_mappings_may_leave_out_series_without_events() -> None:
    s = events.score({"b": on(30), "c": on(1)}, {"a": on(5), "b": on(31)})
    assert (s.true, s.found, s.hits) == (2, 2, 1)
    with pytest.raises(CubefillError, match="2 series and true events of 1"):
        events.score([[], []], [[]])
    with pytest.raises(CubefillError, match="one length"):
        events.score({"a": []}, [[]])


def test_recall_by_month() -> None:
    true = [on(30, 60), on(32)]  # 9 May, 8 June; 11 May
    assert events.recall_by_month([on(31), []], true) == {5: 0.5, 6: 0.0}


_DAYS = st.lists(st.integers(0, 170), max_size=4, unique=True).map(sorted)


@given(_DAYS, _DAYS, st.integers(0, 30))
@settings(deadline=None)
def test_scores_are_those_of_a_slow_matching(a: list[int], b: list[int], tolerance: int) -> None:
    """Nearest pairs first, by looking at all that is left each time."""
    left_a, left_b, errors = list(a), list(b), []
    while True:
        pairs = [(abs(x - y), i, j) for i, x in enumerate(left_a) for j, y in enumerate(left_b)]
        near = [p for p in pairs if p[0] < tolerance]
        if not near:
            break
        _, i, j = min(near)
        errors.append(left_a.pop(i) - left_b.pop(j))
    s = events.score([on(*a)], [on(*b)], tolerance=tolerance)
    assert s.hits == len(errors)
    if errors:
        assert s.mae == pytest.approx(np.abs(errors).mean())
        assert s.mean_error == pytest.approx(np.mean(errors))
    curve = events.tolerance_curve([on(*a)], [on(*b)])
    if b:
        assert list(curve.values()) == sorted(curve.values())


def test_the_pixel_level_scores_are_consistent() -> None:
    """F1 is the harmonic mean of recall and precision."""
    rng = np.random.default_rng(0)
    true = [on(*sorted(rng.choice(160, 2, replace=False))) for _ in range(50)]
    found = [[Event(e.date + int(rng.integers(-20, 20)) * DAY) for e in t] for t in true]
    s = events.score(found, true)
    assert s.f1 == pytest.approx(2 * s.recall * s.precision / (s.recall + s.precision))
