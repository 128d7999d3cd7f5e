import datetime as dt
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cubefill import gapfill
from cubefill.cube.axes import dated, labels, naive_utc, time_axes
from cubefill.errors import CubeError, CubefillWarning
from tests.shared.strategies import cube


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


DAYS = pd.date_range("2023-01-01", periods=7, freq="5D")


@pytest.mark.parametrize(
    "times",
    [
        "5 lightyears", "10", "0D", "-5D", "ns", "2023-01-01", [], ["NaT"], [None], 3.5, 10,
        [10, 20], np.arange(3), [True], np.timedelta64("NaT"), [["2023-01-01"]], ["01/02/2023"],
        {"a": 1}, ["2200-01-01"], ["1200-01-01"], [np.datetime64("4000-01-01", "s")],
    ],
)  # fmt: skip
def test_times_that_are_no_dates_are_refused_and_the_advice_is_taken(times: Any) -> None:
    given = dates("2023-01-01", "2023-01-11")
    with pytest.raises(CubeError, match=r"expected") as refused:
        time_axes(given, times)
    text = str(refused.value)
    assert len(text.splitlines()) == 1
    if "Use times=" in text:
        typed = text.split("Use times=")[1].split(" ")[0].rstrip(",")
        assert time_axes(given, eval(typed)).out.size


@pytest.mark.parametrize(
    "times",
    [
        "10D", dt.timedelta(10), pd.Timedelta("10D"), np.timedelta64(10, "D"), pd.offsets.Day(10),
        ["2023-01-01", "2023-01-11"], [dt.datetime(2023, 1, 1), dt.date(2023, 1, 11)],
        pd.DatetimeIndex(["2023-01-01", "2023-01-11"], tz="UTC"), pd.Series(DAYS[:3:2]),
        xr.DataArray(DAYS[:3:2]), np.array(["2023-01-01", "2023-01-11"], "M8[s]"),
    ],
)  # fmt: skip
def test_times_may_be_any_kind_of_dates_or_of_steps(times: Any) -> None:
    axes = time_axes(dates("2023-01-01", "2023-01-11"), times)
    assert axes.out.astype("M8[D]").astype(str).tolist() == ["2023-01-01", "2023-01-11"]


def test_dates_more_than_a_year_away_are_said() -> None:
    with pytest.warns(CubefillWarning, match=r"1 of 2 dates asked for, such as 2025-06-01"):
        time_axes(dates("2023-01-01", "2023-01-11"), ["2023-01-05", "2025-06-01"])


# ------------------------------------------------------------------ dates of other tools


def objects(values: Any) -> Any:
    values = list(values)
    made = np.empty(len(values), object)
    made[:] = values
    return made


KINDS = {
    "pandas, aware": DAYS.tz_localize("UTC"),
    "datetimes, aware": objects(d.to_pydatetime() for d in DAYS.tz_localize("UTC")),
    "dates": objects(d.date() for d in DAYS),
    "text": [d.strftime("%Y-%m-%dT%H:%M:%SZ") for d in DAYS],
    "days as text": [d.strftime("%Y%m%d") for d in DAYS],
    "bytes": np.array([d.strftime("%Y-%m-%d") for d in DAYS], "S"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_times_of_other_types_are_taken_as_utc(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    ds = cube().assign_coords(time=("time", KINDS[kind]), made=("time", KINDS[kind]))
    with caplog.at_level(logging.INFO, "cubefill"):
        out = gapfill(ds, "linear", times="5D")
    np.testing.assert_array_equal(out.time.values, DAYS.to_numpy("M8[ns]"))
    assert "taken as datetime64 of UTC" in caplog.text


def test_a_zone_other_than_utc_is_said() -> None:
    given = cube().assign_coords(time=("time", objects(DAYS.tz_localize("Europe/Paris"))))
    with pytest.warns(CubefillWarning, match="has a zone: made UTC"):
        out = gapfill(given, "linear")
    assert out.time.values[0] == np.datetime64("2022-12-31T23:00")
    assert dated(out) == (out, "")


class Cftime:
    """A date as cftime gives it."""

    def __init__(self, day: str, calendar: str) -> None:
        self.day, self.calendar = day, calendar

    def isoformat(self) -> str:
        return self.day


def test_dates_of_cftime_are_taken_in_the_common_calendar() -> None:
    found = naive_utc(objects([Cftime("2023-01-01T10:00:00", "standard")]))
    assert found[0] == np.datetime64("2023-01-01T10:00")
    with pytest.raises(CubeError, match=r"calendar 'noleap'; use ds.convert_calendar"):
        naive_utc(objects([Cftime("2023-01-01", "noleap")]))


def text_of(days: Any) -> list[str]:
    return [d.strftime("%d/%m/%Y") for d in days]


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (text_of(DAYS), r"no date from 1678.*pandas\.to_datetime\(texts, format"),
        (np.array(["1750-01-01", *DAYS[1:]], "M8[s]"), r"at most 100 years apart"),
        (np.array(["1200-01-01", *DAYS[1:]], "M8[s]"), r"at most 100 years apart"),
        (np.array(["1970-01-01", *DAYS[1:]], "M8[s]"), r"1970-01-01, as numbers become"),
        (np.array(["NaT", *DAYS[1:]], "M8[s]"), r"NaT at positions \[0\]"),
        (np.arange(7), r"dtype int64: expected datetime64"),
    ],
)
def test_times_that_are_none_are_refused_and_the_advice_is_taken(time: Any, message: str) -> None:
    ds = cube().assign_coords(time=("time", time))
    with pytest.raises(CubeError, match=message) as refused:
        gapfill(ds, "linear")
    assert len(str(refused.value).splitlines()) == 1
    typed = str(refused.value).split("Use ")[1].split(", or")[0].split(" with")[0].rstrip(".")
    found = eval(typed, {"ds": ds, "pandas": pd, "texts": time})
    mended = found if isinstance(found, xr.Dataset) else ds.assign_coords(time=found)
    assert gapfill(mended, "linear").sizes["time"] in (6, 7)


@pytest.mark.parametrize("time", [objects([1] * 7), np.arange(7).astype("M8[ns]")])
def test_numbers_in_disguise_are_refused(time: Any) -> None:
    with pytest.raises(CubeError, match=r"int 1|1970-01-01, as numbers become"):
        gapfill(cube().assign_coords(time=("time", time)), "linear")


def test_toy_axes_of_days_since_1970_pass() -> None:
    ds = cube().assign_coords(time=np.arange(7).astype("M8[D]"))
    assert gapfill(ds, "linear").sizes["time"] == 7


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.sampled_from([1, 3600, 86400]))
def test_no_two_dates_have_one_name(seconds: list[int], unit: int) -> None:
    times = np.datetime64("2023-01-01", "ns") + np.array(seconds) * np.timedelta64(unit, "s")
    names = labels(times)
    assert len(set(names)) == len(names)
    assert all(n.startswith(str(t)[:10]) for n, t in zip(names, times, strict=True))
