import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubefill.methods.windows import Near, Span, Whole, Window


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_every_step_is_kept_once_and_seen_by_its_window(length: int, a: int, b: int) -> None:
    size, keep = max(a, b), min(a, b)
    kept = np.zeros(length, int)
    windows = Span(size, keep).windows(length)
    for w in windows:
        assert w.stop - w.start == size
        assert w.start <= w.keep_start < w.keep_stop <= max(w.stop, w.keep_stop)
        assert length < size or (w.start >= 0 and w.stop <= length)
        assert w.keep_stop <= w.stop
        kept[w.keep_start : w.keep_stop] += 1
    assert (kept == 1).all()


@given(st.integers(10, 60), st.integers(0, 50), st.integers(1, 10))
def test_touching_gives_exactly_the_windows_that_answer_for_a_part(
    length: int, start: int, width: int
) -> None:
    start = min(start, length - 1)
    stop = min(start + width, length)
    span = Span(8, 4)
    expected = [w for w in span.windows(length) if w.keep_start < stop and w.keep_stop > start]
    assert list(span.touching(length, start, stop)) == expected


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 5))
def test_aligned_windows_start_at_multiples(length: int, keep: int, pad: int) -> None:
    span = Span(2 * (keep + pad), 2 * keep, align=2)
    windows = span.windows(length)
    kept = np.zeros(length, int)
    for w in windows:
        assert w.start % 2 == 0
        assert w.start <= w.keep_start < w.keep_stop <= min(w.stop, length)
        assert length < span.size or w.stop <= length + 1
        kept[w.keep_start : w.keep_stop] += 1
    assert (kept == 1).all()


def test_align_must_divide_keep() -> None:
    with pytest.raises(ValueError, match=r"Span\(keep=3, align=2\): expected a divisor of keep"):
        Span(8, 3, align=2)


def test_inner_windows_keep_the_middle() -> None:
    w = Span(8, 4).windows(20)[1]
    assert (w.start, w.stop, w.keep_start, w.keep_stop) == (4, 12, 6, 10)


def test_whole_is_one_window() -> None:
    (w,) = Whole().windows(7)
    assert (w.start, w.stop, w.keep_start, w.keep_stop) == (0, 7, 0, 7)


def test_keep_must_fit_in_size() -> None:
    with pytest.raises(ValueError, match=r"expected 1 <= keep <= size"):
        Span(4, 5)


def test_size_one_is_pointwise() -> None:
    assert Span(1).pointwise
    assert not Span(3).pointwise
    assert Span(8, 4).halo == 4


@given(st.integers(1, 60), st.integers(0, 59), st.integers(1, 60), st.integers(0, 20))
def test_near_sees_its_reach_around_any_part(
    length: int, start: int, width: int, reach: int
) -> None:
    start = min(start, length - 1)
    stop = min(start + width, length)
    (w,) = Near(reach).touching(length, start, stop)
    assert (w.keep_start, w.keep_stop) == (start, stop)
    seen = [i for i in range(length) if start - reach <= i < stop + reach]
    assert list(range(w.start, w.stop)) == seen


def test_near_is_no_grid() -> None:
    near = Near(3)
    assert (near.size, near.halo, near.keep, near.pointwise) == (7, 6, 1, False)
    assert near.windows(9) == [Window(0, 9, 0, 9)]
