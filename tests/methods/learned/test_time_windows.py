"""Series in windows: where they lie, what is cut, and how answers become one series again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.learned.ganfilling import GanFilling
from cubefill.methods.learned.stpconv import ConfigSTpconv, STpconv
from cubefill.methods.learned.time_windows import (
    Places,
    WindowMethod,
    clear_windows,
    cloudy_of,
    cut,
    even_windows,
    with_dates,
)
from cubefill.methods.learned.utilise import Utilise
from tests.shared.decloud import NARROW, block, made, of_bands
from tests.shared.torch_thread import one_thread as one_thread


@dataclass(frozen=True)
class Fixed(WindowMethod):
    """Windows of three dates, two apart; the answer goes over at a date that is set."""

    left: int = 1
    needs = Needs()

    def places(self, cloudy: Any) -> Places:
        return even_windows(len(cloudy), 3, 2)

    def over(self, known: Any, part: Any) -> int:
        return min(self.left, len(known))


def answers(parts: Iterable[float], dates: int = 3) -> list[Filled]:
    return [Filled({n: np.full((dates, 2, 2), v) for n in ("A", "B")}) for v in parts]


def series(dates: int) -> Block:
    return of_bands(block(dates, 2), ("B02",))


# ------------------------------------------------------------------ blocks


def test_new_dates_join_as_hidden_ones() -> None:
    one = block()
    new = one.time[0] + np.timedelta64(3, "D")
    asked = replace(one, out_time=np.array([one.time[0], new]))
    found = with_dates(asked)
    assert found.time.tolist() == found.out_time.tolist() == sorted([*one.time.tolist(), int(new)])
    assert not found.valid[1].any()
    for a in (found.bands["B02"], found.sar["VV"]):
        assert np.isnan(a[1]).all()
    np.testing.assert_array_equal(found.valid[[0, 2, 3, 4]], one.valid)
    np.testing.assert_array_equal(found.sar["VH"][[0, 2, 3, 4]], one.sar["VH"])
    gap = 1 - one.valid.mean(axis=(1, 2))
    np.testing.assert_allclose(cloudy_of(asked), [gap[0], 1, *gap[1:]])
    np.testing.assert_allclose(cloudy_of(one), gap)


def test_a_part_knows_its_place_and_is_a_view() -> None:
    one = replace(block(), origin=(5, 6, 7), out={"B02": np.empty((4, 16, 16), np.float32)})
    part = cut(one, 1, 3)
    assert part.origin == (6, 6, 7)
    assert part.shape == (2, 16, 16)
    assert part.same_axis
    assert not part.out
    arrays = [(part.valid, one.valid), (part.bands["B02"], one.bands["B02"])]
    assert all(np.shares_memory(a, b) for a, b in [*arrays, (part.sar["VV"], one.sar["VV"])])


def test_parts_become_the_dates_asked_for() -> None:
    method, long = Fixed(), series(7)
    assert [len(b.time) for b in method.split(long)] == [3, 3, 3]
    (first, *_, last) = method.split(long)
    assert (first.origin[0], last.origin[0]) == (0, 4)
    found = method.join(long, answers([1, 2, 3])).bands["B"][:, 0, 0]
    assert found.tolist() == [1, 1, 1, 2, 2, 3, 3]
    found = replace(method, left=0).join(long, answers([1, 2, 3])).bands["A"][:, 0, 0]
    assert found.tolist() == [1, 1, 2, 2, 3, 3, 3]
    some = replace(long, out_time=long.time[[1, 4, 6]])
    assert method.join(some, answers([1, 2, 3])).bands["A"][:, 1, 1].tolist() == [1, 2, 3]


def test_a_method_of_windows_says_where_they_lie() -> None:
    class Bare(WindowMethod):
        needs = Needs()

    with pytest.raises(NotImplementedError, match="Bare has no `places"):
        Bare().split(series(3))


# ------------------------------------------------------------------ where windows lie


def test_even_windows() -> None:
    assert even_windows(4, 10, 5) == [(0, 4)]
    assert even_windows(10, 10, 5) == [(0, 10)]
    for length in range(1, 40):
        for keep in (1, 3, 10):
            found = even_windows(length, 10, keep)
            assert found[0][0] == 0
            assert found[-1][1] == length
            assert all(b - a == min(10, length) for a, b in found)
            assert all(0 < d[1] - c[1] <= keep for c, d in pairwise(found))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(2, 12))
@settings(deadline=None, max_examples=200)
def test_clear_windows_cover_the_series_and_overlap(cloudy: list[float], size: int) -> None:
    places = clear_windows(np.array(cloudy), size)
    assert places[0][0] == 0
    assert places[-1][1] == len(cloudy)
    for (a, b), (c, d) in pairwise(places):
        assert a < c < b
        assert b <= d
        assert d - c == size
    if len(cloudy) > size:
        assert max(c - a for (a, _), (c, _) in pairwise(places)) < size


def test_a_cloudy_first_date_moves_the_window() -> None:
    cloudy = np.zeros(30)
    assert [s for s, _ in clear_windows(cloudy, 10)] == [0, 5, 10, 15, 20]
    cloudy[5] = 0.1
    assert [s for s, _ in clear_windows(cloudy, 10)][1] == 5
    cloudy[5:7] = 0.9, 0.3
    cloudy[4] = 0.2
    assert [s for s, _ in clear_windows(cloudy, 10)][1] == 3
    cloudy[3] = 0.2
    assert [s for s, _ in clear_windows(cloudy, 10)][1] == 7


# ------------------------------------------------------------------ where the answer goes over


def test_utilise_goes_over_where_both_agree_best() -> None:
    method = Utilise().configured(dates=6)
    long = series(9)
    long.valid[:] = True
    first, second = answers([0, 1], dates=6)
    for a in second.bands.values():
        a[2] = 0.1
    assert [len(b.time) for b in method.split(long)] == [6, 6]
    found = method.join(long, [first, second]).bands["A"][:, 0, 0]
    np.testing.assert_allclose(found, [0, 0, 0, 0, 0, 0, 1, 1, 1])
    for a in second.bands.values():
        a[2], a[0] = 1, 0.1
    found = method.join(long, [first, second]).bands["A"][:, 0, 0]
    np.testing.assert_allclose(found, [0, 0, 0, 0, 1, 1, 1, 1, 1])


def test_ganfilling_goes_over_where_the_window_before_ends() -> None:
    method, long = GanFilling().configured(dates=6, keep=2), series(9)
    found = method.join(long, answers([1, 2, 3], dates=6)).bands["A"][:, 0, 0]
    assert found.tolist() == [1] * 6 + [2] * 2 + [3]


@pytest.mark.parametrize("steps", [1, 5, 63, 64, 65, 100, 131, 200])
def test_stpconv_keeps_what_lies_off_the_ends_of_a_window(steps: int) -> None:
    config = ConfigSTpconv(filters=(2,), kernels=(3,), strides=((2, 2, 2),), size=8)
    method = STpconv().configured(**vars(config))
    reach = config.reach[0]
    places = method.places(np.zeros(steps))
    lengths = [Filled({"A": np.full((b - a, 2, 2), i)}) for i, (a, b) in enumerate(places)]
    found = method.join(series(steps), lengths).bands["A"][:, 0, 0].astype(int)
    assert len(found) == steps
    for step, i in enumerate(found):
        start, stop = places[i]
        assert start == 0 or step - start >= reach
        assert stop == steps or stop - 1 - step >= reach
    assert all(b - a <= 64 for a, b in places)


# ------------------------------------------------------------------ through the net


def test_dates_to_give_are_filled() -> None:
    method = made(Utilise, patch=16, pad=4, widths=(8, 8, 8), dates=6)
    one = of_bands(block())
    asked = replace(one, out_time=np.array([one.time[0], one.time[0] + np.timedelta64(3, "D")]))
    (out,) = method.fill([asked])
    assert out.bands["B02"].shape == (2, 16, 16)
    assert np.isfinite(out.bands["B02"]).all()


def test_blocks_of_many_parts_come_back_in_order() -> None:
    """Also where the net is given parts of several blocks in one pass."""
    from cubefill.methods.learned.decloud_nets import SsopUnet

    method = made(SsopUnet, **NARROW)
    gappy = of_bands(block())
    clear = replace(gappy, valid=np.ones_like(gappy.valid))
    given = [clear, gappy, clear, gappy, clear]
    plain, several = list(method.fill(given)), list(replace(method, batch=3).fill(given))
    for a, b, asked in zip(plain, several, given, strict=True):
        np.testing.assert_allclose(a.bands["B04"], b.bands["B04"], atol=1e-6)
        assert np.array_equal(a.bands["B04"], asked.bands["B04"]) == (asked is clear)
