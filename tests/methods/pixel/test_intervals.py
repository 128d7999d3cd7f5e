"""Standard deviations and quantiles of errors: what is learned, and that it is true."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill import simulate
from cubefill.engine import gapfill
from cubefill.methods.contract import Block, Filled, Flag
from cubefill.methods.pixel import intervals
from cubefill.methods.pixel.flags import Axes
from cubefill.methods.pixel.linear import Linear
from tests.shared.series_reference import as_counts, block, one

LEVELS = (0.05, 0.95)
SEEN = replace(block(dates=30, size=(24, 24), gap=0.4, seed=2), std=True, quantiles=LEVELS)


def linear(b: Block) -> Filled:
    return one(Linear(), b)


# ------------------------------------------------------------------ what is hidden and learned


def test_only_what_was_seen_is_hidden_and_never_all_of_it() -> None:
    found = list(intervals.hidings(SEEN))
    assert len(found) > 20
    for hidden in found:
        assert not (hidden & ~SEEN.valid).any()
        assert (SEEN.valid & ~hidden).any()
    ever = np.logical_or.reduce(found)
    assert (ever == SEEN.valid).all()


def test_errors_are_the_truth_less_what_is_filled() -> None:
    """A fill that gives 0 has errors as large as the values; one stratum's width is a quantile."""

    def nothing(b: Block) -> Filled:
        assert all(np.isnan(a[~b.valid]).any() for a in b.bands.values())
        zeros = {n: np.zeros(b.shape, np.float32) for n in b.bands}
        return Filled(zeros, np.where(b.valid, 0, Flag.LEARNED).astype(np.uint8))

    events = intervals.held_out(nothing, SEEN)
    np.testing.assert_array_equal(events.error, events.truth)
    table = intervals.tabled(events, ("B04", "B08"), LEVELS)
    assert table.sources == (Flag.LEARNED,)
    values = np.sort(np.abs(SEEN.bands["B08"][SEEN.valid]))
    low, high = table.values[1, 1:, 0]
    np.testing.assert_array_equal(low, -high)
    assert np.quantile(values, 0.8) < np.median(high) < 1.5 * np.quantile(values, 0.97)


def test_classes_of_support_and_sources_have_errors_of_their_own() -> None:
    """Class 1 is wrong by 0.1, class 0 by 0.01; same-date values by 0.003."""
    rng = np.random.default_rng(0)
    truth = {n: np.array(a) for n, a in SEEN.bands.items()}

    def known(b: Block) -> Filled:
        support = (np.arange(b.shape[2]) % 2 * np.ones(b.shape)).astype(np.uint8)
        code = np.where(np.arange(b.shape[1])[:, None] < 12, Flag.SAME_DATE, Flag.INTERPOLATED)
        flag = np.where(b.valid, 0, code).astype(np.uint8)
        size = np.where(flag == Flag.SAME_DATE, 0.003, np.where(support == 1, 0.1, 0.01))
        off = {n: a + (size * rng.standard_normal(b.shape)).astype("f4") for n, a in truth.items()}
        return Filled(off, flag, support=support)

    table = intervals.learn(known, SEEN, LEVELS)
    assert table.sources == (Flag.INTERPOLATED, Flag.SAME_DATE)
    assert table.supports == 2
    filled = known(SEEN)
    assert filled.flag is not None
    spread = table.spread(SEEN.valid, Axes.of(SEEN), filled.flag, filled.support)
    assert set(spread.quantiles) == {"B04_q05", "B04_q95", "B08_q05", "B08_q95"}
    gap = ~SEEN.valid & np.isfinite(spread.std["B04"])
    for code, support, size in ((1, 0, 0.01), (1, 1, 0.1), (2, 0, 0.003), (2, 1, 0.003)):
        here = gap & (filled.flag == code) & (filled.support == support)
        assert np.median(spread.std["B04"][here]) == pytest.approx(size, rel=0.3)
        assert np.median(spread.quantiles["B08_q95"][here]) == pytest.approx(1.645 * size, rel=0.3)
    assert np.isnan(spread.std["B04"][SEEN.valid]).all()


def test_a_cube_in_which_nothing_can_be_hidden_has_no_known_error() -> None:
    never = replace(SEEN, valid=np.zeros_like(SEEN.valid))
    table = intervals.learn(linear, never, LEVELS)
    assert np.isnan(table.values).all()
    assert table.together == ()
    filled = linear(replace(SEEN, std=False, quantiles=()))
    assert filled.flag is not None
    assert np.isnan(table.spread(SEEN.valid, Axes.of(SEEN), filled.flag).std["B04"]).all()


# ------------------------------------------------------------------ thin strata


widths = st.lists(st.floats(1e-4, 1) | st.just(float("nan")), min_size=30, max_size=30)
dates = st.lists(st.integers(1, 40), min_size=30, max_size=30)


@settings(max_examples=50, deadline=None)
@given(widths, dates, st.sampled_from([None, 0.05, 0.9]))
def test_widths_are_known_everywhere_and_never_fall_by_much(
    found: list[float], n: list[int], level: float | None
) -> None:
    shape = (1, 1, 3, intervals.BINS)
    made = intervals.smoothed(np.reshape(found, shape), np.reshape(n, shape).astype(float), level)
    assert made.shape == (2, *shape[1:])
    known = np.isfinite(found)
    assert np.isfinite(made).all() == bool(known.any())
    if known.any():
        assert made.min() > 0.2 * np.nanmin(found) / intervals.GROWTH.max()
        plain = made / intervals._wider(np.array(2.0), level)
        assert (plain[..., 1:] > plain[..., :-1] / intervals._wider(np.array(2.0), level)).all()


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.5, 9)), min_size=1, max_size=12))
def test_the_nearest_series_that_never_falls(rows: list[tuple[float, float]]) -> None:
    values, weights = np.transpose(rows)
    out = intervals.never_falling(values, weights)
    assert (np.diff(out) >= -1e-12).all()
    assert (weights * out).sum() == pytest.approx((weights * values).sum(), abs=1e-9)
    rising = np.sort(values)
    np.testing.assert_array_equal(intervals.never_falling(rising, weights), rising)


def test_what_many_dates_tell_stays_and_what_one_tells_is_drawn_to_it() -> None:
    found = np.full((1, 1, 3, intervals.BINS), 0.02) * intervals.GROWTH
    n = np.full(found.shape, 60.0)
    found[0, 0, 0, 3], n[0, 0, 0, 3] = 0.4, 1.0
    made = intervals.smoothed(found, n, 0.95)[0, 0, 0]
    np.testing.assert_allclose(made[:3], found[0, 0, 0, :3], rtol=0.05)
    assert made[3] < 0.06


# ------------------------------------------------------------------ whether it is true


@pytest.fixture(scope="module")
def world() -> Any:
    return simulate.scene(size=48, dates=60, days=365, seed=4, cloud=0.5, sar=False, dem=False,
                          bands=("B04", "B08"))  # fmt: skip


@pytest.mark.parametrize("method", ["linear", "whittaker"])
def test_nine_of_ten_truths_lie_between_the_quantiles(world: Any, method: str) -> None:
    names = ["B04", "B08"]
    out = gapfill(world.cube[[*names, "valid"]], method, std=True, quantiles=LEVELS)
    out = out.gapfill.with_ndvi().compute()
    truth = world.truth[names].gapfill.with_ndvi().compute()
    gap = out["fill_flag"].values != Flag.OBSERVED
    for name in (*names, "NDVI"):
        low, high, std = (out[f"{name}_{e}"].values for e in ("q05", "q95", "std"))
        here = gap & np.isfinite(low) & np.isfinite(high)
        true = truth[name].values
        inside = (true >= low) & (true <= high)
        assert 0.82 < inside[here].mean() < 0.97, name
        error = np.square(true - out[name].values, dtype=np.float64)[here].mean() ** 0.5
        assert 0.6 < np.sqrt(np.square(std[here], dtype=np.float64).mean()) / error < 1.7, name


def test_a_job_tile_or_part_of_a_cube_says_the_same(world: Any) -> None:
    ds: xr.Dataset = world.cube[["B04", "B08", "valid"]]
    whole = gapfill(ds, "linear", std=True, quantiles=LEVELS).compute()
    tiles = gapfill(ds.chunk(y=20, x=11), "linear", std=True, quantiles=LEVELS, tile=13).compute()
    xr.testing.assert_equal(whole, tiles)
    odd = ds.transpose("x", "time", "y").copy(deep=True)
    turned = gapfill(odd, "linear", std=True, quantiles=LEVELS).compute()
    xr.testing.assert_equal(whole, turned.transpose(*whole["B04"].dims))


def test_counts_have_the_errors_of_reflectance() -> None:
    method = Linear().prepare(SEEN)
    plain = one(method, SEEN)
    stored = one(method, replace(as_counts(SEEN), std=True, quantiles=LEVELS))
    assert set(plain.std) == {"B04", "B08"}
    for a, b in ((plain.std, stored.std), (plain.quantiles, stored.quantiles)):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
