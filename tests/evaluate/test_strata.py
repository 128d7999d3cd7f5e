"""Pixel sets part the cube; strata follow from what was seen; the screen finds haze."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.errors import CubeError
from cubefill.evaluate.strata import Strata, pixel_set, reach, robust, strata


def part(seen: Any, days: Any, **more: Any) -> xr.Dataset:
    time = np.datetime64("2021-01-10", "ns") + (np.asarray(days) * 86_400e9).astype("m8[ns]")
    return xr.Dataset({"valid": (("time", "y", "x"), seen), **more}, {"time": time})


def names_of(kind: str, seen: Any, days: Any, **more: Any) -> list[list[str]]:
    """Name of the stratum of each `(time, pixel)`; empty for none."""
    found = next(s for s in strata(part(seen, days, **more), seen) if s.kind == kind)
    codes = np.broadcast_to(found.codes, seen.shape)
    return [[found.names[c] if c >= 0 else "" for c in row.ravel()] for row in codes]


def column(text: str) -> Any:
    """One pixel, `x` where it was seen."""
    return np.array([c == "x" for c in text])[:, None, None]


def test_sets_part_the_known_pixels() -> None:
    rng = np.random.default_rng(0)
    seen, known = rng.random((2, 3, 4, 5)) < 0.5
    hidden, shown, every = (pixel_set(s, seen, known) for s in ("occluded", "observed", "all"))
    np.testing.assert_array_equal(hidden | shown, every)
    assert not (hidden & shown).any()
    assert not (hidden & seen).any()
    np.testing.assert_array_equal(every, known)
    with pytest.raises(CubeError, match="Unknown pixel set 'hidden': expected one of occluded"):
        pixel_set("hidden", seen, known)


def test_gap_length_is_between_the_observations_around() -> None:
    found = names_of("gap length", column("x.x..x.x"), [0, 5, 10, 20, 30, 51, 90, 132])
    assert [f[0] for f in found] == ["", "0-10 d", "", "40-80 d", "40-80 d", "", ">80 d", ""]


def test_edges_belong_to_the_shorter_stratum() -> None:
    for days, name in ((10, "0-10 d"), (11, "10-20 d"), (20, "10-20 d"), (40, "20-40 d"),
                       (80, "40-80 d"), (81, ">80 d")):  # fmt: skip
        assert names_of("gap length", column("x.x"), [0, 4, days])[1] == [name]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_time_of_day_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((9, 2, 3)) < 0.5
    days = np.cumsum(rng.choice([5, 10, 20, 40], 9))
    hours = rng.uniform(0, 1, 9)
    assert names_of("gap length", seen, days) == names_of("gap length", seen, days + hours)
    assert names_of("position", seen, days) == names_of("position", seen, days + hours)


@pytest.mark.parametrize("seconds", [-7, 0, 7])
def test_a_gap_of_ten_days_is_one_whatever_the_seconds(seconds: int) -> None:
    middle = [0.456, 5.456, 10.456 + seconds / 86_400]
    assert names_of("gap length", column("x.x"), middle)[1] == ["0-10 d"]
    assert names_of("gap length", column("x.."), middle)[2] == ["0-10 d"]


def test_at_the_ends_the_only_neighbour_counts() -> None:
    seen, days = column(".x.."), [0, 15, 20, 120]
    assert names_of("gap length", seen, days) == [["10-20 d"], [""], ["0-10 d"], [">80 d"]]
    assert names_of("position", seen, days) == [["leading"], [""], ["trailing"], ["trailing"]]
    assert names_of("position", column("x.x"), [0, 1, 2])[1] == ["interior"]


def test_a_pixel_never_seen_is_in_no_stratum_of_gaps() -> None:
    for kind in ("gap length", "position"):
        assert names_of(kind, column("..."), [0, 1, 2]) == [[""]] * 3


def test_seasons_and_clear_share() -> None:
    seen = np.zeros((4, 2, 2), bool)
    seen[1, 0, 0] = seen[2] = True
    seen[3, :, 0] = seen[3, 0, 1] = True
    assert names_of("season", seen, [0, 60, 160, 250])[1][0] == "MAM"
    assert [n[0] for n in names_of("season", seen, [0, 60, 160, 250])] == [
        "DJF", "MAM", "JJA", "SON",
    ]  # fmt: skip
    found = [n[0] for n in names_of("clear share", seen, [0, 1, 2, 3])]
    assert found == ["0-25 %", "0-25 %", "75-100 %", "50-75 %"]


def test_land_cover_has_the_names_of_its_flags() -> None:
    cover = xr.DataArray([[10, 20], [10, 40]], dims=("y", "x"))
    plain = names_of("land cover", np.ones((1, 2, 2), bool), [0], land_cover=cover)
    assert plain == [["10", "20", "10", "40"]]
    cover.attrs = {"flag_values": [10, 20, 40], "flag_meanings": "tree shrub crop"}
    said = names_of("land cover", np.ones((1, 2, 2), bool), [0], land_cover=cover)
    assert said == [["tree", "shrub", "tree", "crop"]]
    assert "land cover" not in {s.kind for s in strata(part(column("x"), [0]), column("x"))}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_reach_equals_a_slow_search(seed: int, dates: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((dates, 2, 2)) < 0.5
    days = np.cumsum(rng.integers(1, 30, dates)).astype(float)
    before, after = reach(seen, days)
    for t, y, x in np.ndindex(*seen.shape):
        clear = days[seen[:, y, x]]
        past, coming = clear[clear <= days[t]], clear[clear >= days[t]]
        assert before[t, y, x] == (days[t] - past.max() if len(past) else np.inf)
        assert after[t, y, x] == (coming.min() - days[t] if len(coming) else np.inf)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_strata_part_what_they_are_given(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((7, 3, 3)) < 0.5
    seen[0, 0] = True
    where = ~seen & seen.any(0)
    for kind in strata(part(seen, np.cumsum(rng.integers(1, 40, 7))), seen):
        pieces = [p for _, p in kind.parts(where)]
        np.testing.assert_array_equal(sum(p.astype(int) for p in pieces), where.astype(int))


def test_empty_strata_are_left_out() -> None:
    kind = Strata("position", ("interior", "leading"), np.zeros((2, 1, 1), np.int16))
    assert [n for n, _ in kind.parts(np.ones((2, 1, 1), bool))] == ["interior"]
    assert list(kind.parts(np.zeros((2, 1, 1), bool))) == []


# ------------------------------------------------------------------ the screen


def scene(dates: int = 30) -> xr.Dataset:
    rng = np.random.default_rng(1)
    shape = (dates, 12, 12)
    season = np.sin(np.arange(dates) / 6)[:, None, None]
    blue = 0.05 + 0.01 * season + rng.normal(0, 0.003, shape)
    nir = 0.3 + 0.1 * season + rng.normal(0, 0.005, shape)
    dims = ("time", "y", "x")
    valid = rng.random(shape) < 0.8
    return part(valid, np.arange(dates) * 5.0, B02=(dims, blue), B08=(dims, nir))


def test_a_plain_series_is_kept_and_nothing_is_added() -> None:
    ds = scene()
    kept = robust(ds)
    assert not bool((kept & ~ds.valid).any())
    assert float(kept.sum() / ds.valid.sum()) > 0.97


def test_haze_shadow_and_hazy_dates_are_left_out() -> None:
    ds = scene()
    ds["valid"][11] = ds["valid"][17] = True
    ds["B02"][11, :3, :3] += 0.06
    ds["B08"][17, :3, 6:9] -= 0.12
    ds["B02"][22] += 0.06
    kept = robust(ds)
    assert not bool(kept[11, :3, :3].any())
    assert not bool(kept[17, :3, 6:9].any())
    assert not bool(kept[22].any())
    assert float(kept[11, 3:].mean()) > 0.95


def test_a_change_that_stays_is_kept() -> None:
    ds = scene()
    ds["B02"][15:] += 0.05
    ds["B08"][15:] -= 0.1
    assert float(robust(ds).sum() / ds.valid.sum()) > 0.95


def test_the_screen_works_with_pixels_never_clear_and_other_bands() -> None:
    ds = scene()
    ds["valid"][:, 0, 0] = False
    ds["B02"][3, 1, 1] = np.nan
    assert not bool(robust(ds)[:, 0, 0].any())
    other = robust(ds.rename(B02="B11").drop_vars("B08"))
    assert float(other.mean()) > 0.5
