"""Every gap gets what a slow reference says of it, and every clear pixel stays."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.methods.contract import Block, Filled, Flag
from cubefill.methods.samedate import SameDate
from tests.methods.samedate import slow
from tests.methods.samedate.scenes import block, scene
from tests.shared.series_reference import as_counts, decode, one


def trained(b: Block, **learned: Any) -> SameDate:
    """The method that saw a block, with other numbers learned where they are given."""
    method = SameDate().prepare(b)
    assert method.learned is not None
    object.__setattr__(method, "learned", replace(method.learned, **learned))
    return method


def hidden(method: SameDate, b: Block) -> Block:
    """The block without its suspect observations, by the reference."""
    assert method.usual is not None
    doubtful = slow.suspect(b.days, slow.block_values(b), b.valid, method.usual)
    return replace(b, valid=b.valid & ~doubtful)


def compare(method: SameDate, b: Block, *, atol: float = 3e-6) -> tuple[Filled, int]:
    """Compares what the method gives with the reference; gives it, and the values told."""
    learned, out, seen = method.learned, one(method, b), 0
    assert learned is not None
    assert out.flag is not None
    less = hidden(method, b)
    rest = one(method.curve, less)
    values = slow.block_values(b)
    for t in range(len(b.time)):
        told = out.flag[t] == Flag.SAME_DATE
        if learned.told[t]:
            answers, gap = slow.told(learned, b.days, values, less.valid, t)
            np.testing.assert_array_equal(told, gap & ~b.valid[t])
            for i, name in enumerate(b.bands):
                got, right = out.bands[name][t][told], answers[told][:, i]
                np.testing.assert_allclose(got, right, rtol=3e-6, atol=atol)
                seen += got.size
        else:
            assert not told.any()
        for name, band in rest.bands.items():
            kept = ~told & ~b.valid[t]
            np.testing.assert_array_equal(out.bands[name][t][kept], band[t][kept])
    return out, seen


@pytest.fixture(scope="module")
def whole() -> Block:
    return block(scene()[0])


def test_gaps_equal_a_slow_reference(whole: Block) -> None:
    _, seen = compare(SameDate().prepare(whole), whole)
    assert seen > 2_000


def test_the_remainder_nearby_and_both_limits_take_part(whole: Block) -> None:
    method = SameDate().prepare(whole)
    learned, usual = method.learned, one(method, whole).bands["B08"]
    assert learned is not None
    for name in ("remainder", "most"):
        tight = trained(whole, **{name: getattr(learned, name) * np.float32(0.2)})
        out, _ = compare(tight, whole)
        assert not np.array_equal(out.bands["B08"], usual)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 7), st.tuples(st.integers(1, 7), st.integers(1, 30)), st.integers(1, 3),
    st.sampled_from([0.2, 0.6, 0.9]), st.integers(0, 99),
)  # fmt: skip
def test_any_coefficients_on_any_block(
    dates: int, size: tuple[int, int], bands: int, gap: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (dates, *size)
    values = rng.uniform(0.1, 0.5, (bands, *shape)).astype(np.float32)
    time = np.datetime64("2023-03-01", "ns") + np.cumsum(rng.integers(1, 9, dates)).astype("m8[D]")
    names = [f"B0{i + 2}" for i in range(bands)]
    b = Block(dict(zip(names, values, strict=True)), rng.random(shape) > gap, time, time)
    method = SameDate().prepare(b)
    if method.learned is None:
        return
    own = np.arange(dates)
    first, last = rng.integers(0, own + 1), rng.integers(own + 1, dates + 1)
    last = np.where(rng.random(dates) < 0.2, first, last)
    rows = (last - first) * bands
    weights = rng.normal(0, 0.3, (int(rows.sum()), bands)).astype(np.float32)
    small = rng.uniform(0, 0.2, (3, dates, bands)).astype(np.float32)
    method = trained(
        b, first=first, last=last, start=np.cumsum(rows) - rows, weights=weights,
        bias=small[0], most=small[1] + 1, remainder=small[2],
    )  # fmt: skip
    compare(method, b, atol=2e-5)


def test_counts_give_what_reflectance_gives(whole: Block) -> None:
    method = SameDate().prepare(whole)
    out, counts = one(method, whole), one(method, as_counts(whole))
    np.testing.assert_array_equal(out.flag, counts.flag)
    for name, band in out.bands.items():
        gap = ~whole.valid
        got = decode(counts.bands[name])
        np.testing.assert_allclose(got[gap], band[gap], rtol=0, atol=0.6e-4)


def test_a_part_of_the_block_with_its_reach_gives_the_same_bits(whole: Block) -> None:
    method = SameDate().prepare(whole)
    out = one(method, whole)
    part = (slice(None), slice(1, 28), slice(1, 28))
    cut = {n: a[part] for n, a in whole.bands.items()}
    got = one(method, replace(whole, bands=cut, valid=whole.valid[part]))
    assert got.flag is not None
    gap = ~whole.valid[:, 13:16, 13:16]
    for name, band in got.bands.items():
        here, there = band[:, 12:15, 12:15], out.bands[name][:, 13:16, 13:16]
        np.testing.assert_array_equal(here[gap], there[gap])


def test_it_knows_what_the_dates_beside_do_not() -> None:
    ds, truth = scene()
    b = block(ds)
    out = one(SameDate().prepare(b), b)
    assert out.flag is not None
    for name, band in out.bands.items():
        told = out.flag == Flag.SAME_DATE
        lines = slow_lines(b, name)
        error, usual = (np.abs(a - truth[name])[told].mean() for a in (band, lines))
        assert error < 0.35 * usual


def slow_lines(b: Block, name: str) -> Any:
    """Straight lines in every gap."""
    out = np.full(b.valid.shape, np.nan)
    for at in np.ndindex(b.valid.shape[1:]):
        clear = b.valid[(slice(None), *at)]
        if clear.any():
            own = b.bands[name][(slice(None), *at)]
            out[(slice(None), *at)] = np.interp(b.days, b.days[clear], own[clear])
    return out


def test_a_cloud_that_no_mask_knows_tells_nothing_and_stays() -> None:
    ds, truth = scene(shares=np.tile([0.0, 0.4], 6)[:11])
    b = block(ds)
    bands = {n: a.copy() for n, a in b.bands.items()}
    hit = np.zeros(b.valid.shape, bool)
    hit[4, 5:12, 6:14] = hit[8, 18:26, 20:30] = True
    for a in bands.values():
        a[hit] = 0.7
    dirty = replace(b, bands=bands)
    method = SameDate().prepare(dirty)
    doubtful = b.valid & ~hidden(method, dirty).valid
    assert doubtful[hit].all()
    assert doubtful[~hit].mean() < 0.01
    assert method.recorded()["suspect_share"] == pytest.approx(
        doubtful.sum() / b.valid.sum(), rel=0.01
    )
    out, _ = compare(method, dirty)
    beside = ~b.valid
    for name, band in out.bands.items():
        assert np.abs(band - truth[name])[beside].mean() < 0.02


def test_dates_of_next_to_no_clear_pixel_take_the_prior() -> None:
    shares, pixels = np.tile([0.0, 0.5], 6)[:11], 28 * 30
    shares[[3, 5, 7, 10]] = 1 - np.array([14, 15, 0, 3]) / pixels
    b = block(scene(shares=shares)[0])
    method = SameDate().prepare(b)
    out, _ = compare(method, b)
    told = list(method.recorded()["same_date_pixels"].values())
    assert told[3:8] == [0, pixels, 15, pixels, 0]
    assert out.flag is not None
    same = (out.flag == Flag.SAME_DATE).any(axis=(1, 2))
    assert same[5]
    assert not same[[3, 7, 10]].any()
    assert set(np.unique(out.flag[7])) == {Flag.INTERPOLATED}
    assert set(np.unique(out.flag[10][~b.valid[10]])) == {Flag.EXTRAPOLATED}


def test_the_prior_is_a_choice(whole: Block) -> None:
    method = SameDate(prior="linear").prepare(whole)
    assert type(method.curve).__name__ == "Linear"
    compare(method, whole)
