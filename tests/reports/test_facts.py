"""Numbers of a report against slower ways to get them; warnings where they are due."""

import numpy as np
import pytest
import xarray as xr

from cubefill.cube.flags import in_words
from cubefill.methods.contract import Flag, days_since
from cubefill.reports.facts import BINS, gap_lengths, summarise, warnings_of
from tests.shared import pictures_scene as scenes


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return scenes.cube(dates=24, size=40)


def test_gap_lengths_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    clear = rng.random((20, 6, 5)) < 0.3
    clear[:, 0, 0] = False
    days = np.cumsum(rng.integers(1, 20, 20)).astype(float)
    lengths, ends = [], 0
    for y, x in np.ndindex(6, 5):
        seen = days[clear[:, y, x]]
        for day in days[~clear[:, y, x]]:
            left, right = seen[seen < day], seen[seen > day]
            if left.size and right.size:
                lengths.append(right.min() - left.max())
                continue
            ends += 1
            lengths.append(min([*(day - left), *(right - day), np.inf]))
    shares = [np.mean([lo < v <= hi for v in lengths]) for lo, hi in BINS]
    found, at_ends = gap_lengths(clear, days)
    assert found == pytest.approx(shares)
    assert at_ends == pytest.approx(ends / len(lengths))
    assert sum(found) == pytest.approx(1)


def test_no_gap_at_all() -> None:
    assert gap_lengths(np.ones((3, 1, 1), bool), np.arange(3.0)) == ((0.0,) * len(BINS), 0.0)


def test_a_large_cube_is_thinned() -> None:
    found = summarise(scenes.cube(dates=4, size=400), max_px=100)
    assert found.every == 4


def test_small_shares_do_not_read_as_none() -> None:
    assert [in_words(v) for v in (0, 0.0004, 0.05, 0.999, 1)] == [
        "0 %", "< 0.1 %", "5.0 %", "100 %", "100 %",
    ]  # fmt: skip


class TestWarnings:
    def said(self, ds: xr.Dataset, out: xr.Dataset | None = None) -> str:
        return " | ".join(warnings_of(summarise(ds, out)))

    def test_nothing_stands_out(self) -> None:
        ds = scenes.cube(dates=30)
        ds["valid"][[0, -1]] = True
        ds["valid"][::3] = True
        assert self.said(ds) == ""

    def test_long_gaps_and_ends(self, cube: xr.Dataset) -> None:
        ds = cube.copy(deep=True)
        ds["valid"][6:20] = False
        ds["valid"][-3:] = False
        text = self.said(ds)
        assert "longer than 60 days" in text
        assert "extrapolated, not interpolated" in text

    def test_never_seen(self, cube: xr.Dataset) -> None:
        ds = cube.copy(deep=True)
        ds["valid"][:, :4] = False
        assert "10 % of the pixels were never seen clear" in self.said(ds)

    def test_few_clear_dates(self, cube: xr.Dataset) -> None:
        assert "median pixel has" in self.said(cube.isel(time=slice(0, 6)))

    @pytest.mark.parametrize("size", [0.1, -0.1])
    def test_a_missed_offset(self, cube: xr.Dataset, size: float) -> None:
        ds = cube.copy(deep=True)
        for band in scenes.BANDS:
            ds[band][12:] += size
        found = summarise(ds).floor_jump
        assert found is not None
        assert found[1] == pytest.approx(size, abs=0.02)
        near = np.array([np.datetime64(found[0])], "datetime64[ns]")
        assert abs(days_since(near, cube.time.values[12])[0]) < 12
        assert f"jumps by {found[1]:+.2f}" in self.said(ds)
        assert summarise(cube).floor_jump is None

    def test_source_missing(self, cube: xr.Dataset) -> None:
        missing = xr.zeros_like(cube["valid"])
        missing[4, :2] = True
        text = self.said(cube.assign(source_missing=missing))
        assert f"could not be read on 1 dates ({scenes.dates_of(cube)[4]})" in text

    def test_unfillable(self, cube: xr.Dataset) -> None:
        out = scenes.filled(cube)
        out["fill_flag"][:, :4] = Flag.UNFILLABLE
        assert "10 % of the values could not be filled (NaN)" in self.said(cube, out)

    def test_dates_half_a_day_apart(self, cube: xr.Dataset) -> None:
        time = cube.time.values.copy()
        time[5] = time[4] + np.timedelta64(1, "h")
        assert "less than half a day apart" in self.said(cube.assign_coords(time=time))
