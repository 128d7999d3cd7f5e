import numpy as np
import pytest

from cubefill.cube.axes import time_axes
from cubefill.errors import CubeError, CubefillWarning


def dates(*days: str) -> np.ndarray:
    return np.array(days, "datetime64[ns]")


def test_sorted_dates_are_plain() -> None:
    axes = time_axes(dates("2023-01-01", "2023-01-06"))
    assert axes.plain_in
    assert axes.plain_out
    assert axes.same


def test_unsorted_dates_keep_the_callers_order() -> None:
    axes = time_axes(dates("2023-01-06", "2023-01-01"))
    assert axes.groups == ((1,), (0,))
    assert axes.out_step == (1, 0)
    assert axes.sources == ((0,), (1,))


def test_one_day_twice_is_merged_with_a_warning() -> None:
    given = dates("2023-01-01T10:50:00", "2023-01-01T10:50:14", "2023-01-06")
    with pytest.warns(CubefillWarning, match=r"1 days hold more than one acquisition \(2023-01-01"):
        axes = time_axes(given)
    assert axes.groups == ((0, 1), (2,))
    assert axes.out_step == (0, 0, 1)


def test_a_regular_axis_takes_acquisitions_of_the_same_day() -> None:
    axes = time_axes(dates("2023-01-01T10:50", "2023-01-06T10:50", "2023-01-13T10:50"), "5D")
    days = axes.out.astype("datetime64[D]").astype(str).tolist()
    assert days == ["2023-01-01", "2023-01-06", "2023-01-11"]
    assert axes.sources == ((0,), (1,), ())
    assert axes.out_time[1] == np.datetime64("2023-01-06T10:50")


def test_dates_may_repeat_and_come_in_any_order() -> None:
    axes = time_axes(dates("2023-01-01", "2023-01-11"), ["2023-01-09", "2023-01-03", "2023-01-09"])
    assert axes.out_step == (1, 0, 1)


@pytest.mark.parametrize("times", ["5 lightyears", [], ["NaT"], 3.5])
def test_times_that_are_no_dates_are_refused(times: object) -> None:
    with pytest.raises(CubeError, match=r"expected"):
        time_axes(dates("2023-01-01", "2023-01-11"), times)
