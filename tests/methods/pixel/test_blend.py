from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from cubefill.engine import gapfill
from cubefill.methods import Flag
from cubefill.methods.contract import Block
from cubefill.methods.pixel import Blend, Linear, Whittaker
from cubefill.methods.pixel.blend import EDGES, LAMS, SHARES, hidings, kinds
from cubefill.testing import MethodTests, synthetic_cube
from tests.methods.pixel.test_whittaker import spline
from tests.shared.series_reference import Series, as_counts, block, expect, one


class TestBlend(MethodTests):
    method: ClassVar[Any] = Blend()


def share_of(t: Series, day: float) -> NDArray[np.float64]:
    """The row of shares of a day, as its docstring says."""
    if day > t[-1] or day < t[0]:
        return SHARES[3] if day > t[-1] else SHARES[4]
    if day in t:
        return SHARES[5]
    length = t[t > day].min() - t[t < day].max()
    return SHARES[int(length > EDGES[0]) + int(length > EDGES[1])]


def mixed(t: Series, v: Series, u: Series) -> Series:
    parts = [np.interp(u, t, v), *(spline(lam, held=False)(t, v, u) for lam in LAMS)]
    shares = np.stack([share_of(t, day) for day in u], axis=1)
    return np.asarray(np.clip((shares * parts).sum(axis=0), v.min(), v.max()))


@pytest.mark.parametrize("out_days", [None, (-3, 0, 4.5, 31, 300)], ids=["same", "other"])
@pytest.mark.parametrize("gap", [0.4, 0.8])
def test_blend_is_line_and_splines_by_kind_of_gap(gap: float, out_days: Any) -> None:
    expect(Blend(), block(dates=30, gap=gap, out_days=out_days), mixed, fewest=3, atol=1e-6)


def test_few_observations_get_a_line() -> None:
    b = block(dates=20, size=(2, 9), gap=0.9)
    out, line = one(Blend(), b), one(Linear(), b)
    few = (b.valid.sum(axis=0) < 3) & b.valid.any(axis=0)
    assert few.any()
    for name in b.bands:
        np.testing.assert_array_equal(out.bands[name][:, few], line.bands[name][:, few])
    assert (out.flag[:, few] != Flag.INTERPOLATED).all()  # type: ignore[index]


def sample(dates: int = 60, seed: int = 0, noise: float = 0.004, haze: int | None = None) -> Block:
    """A season with noise, on dates six days apart; one date may be brighter all over."""
    rng = np.random.default_rng(seed)
    days = np.arange(dates) * 6.0
    b = block(dates, (16, 16), gap=0.3, bands=("B04", "B08"), days=days, seed=seed)
    season = np.sin(2 * np.pi * days / 300)[:, None, None]
    bands = {}
    for i, n in enumerate(b.bands):
        a = 0.25 + (0.05 + 0.1 * i) * season + rng.normal(0, noise, b.valid.shape)
        if haze is not None:
            a[haze] += 0.08
        bands[n] = a.astype(np.float32)
    return replace(b, bands=bands)


def test_what_is_learned_follows_the_noise_of_the_cube() -> None:
    """Where dates are noisy the stiff curve is worth more, and the line less."""
    calm, noisy = (np.array(Blend().prepare(sample(noise=n)).table) for n in (0.0005, 0.03))
    assert noisy[0, 0] < calm[0, 0] - 0.05
    assert noisy[0, 2] > calm[0, 2]
    np.testing.assert_allclose(noisy.sum(axis=1), 1, atol=2e-3)
    np.testing.assert_array_equal(noisy[5], [1, 0, 0])


def test_blend_is_nearer_to_what_was_hidden_than_the_line() -> None:
    b = sample(noise=0.02)
    hidden = (b.days > 120) & (b.days < 150)
    seen = replace(b, valid=b.valid & ~hidden[:, None, None])
    at = hidden[:, None, None] & b.valid
    error = [
        np.abs(one(m, seen).bands["B08"] - b.bands["B08"])[at].mean()
        for m in (Linear(), Blend().prepare(seen))
    ]
    assert error[1] < 0.95 * error[0]


def test_a_hazy_date_counts_less_and_is_named() -> None:
    learned = Blend().prepare(sample(haze=20))
    weights = dict(learned.trust)
    assert len(weights) > 50
    assert sorted(weights.values())[0] < 0.1 < 0.4 < sorted(weights.values())[1]
    (date,) = (d for d, w in learned.recorded()["trust"].items() if w < 0.1)
    assert np.datetime64(date) == sample().time[20].astype("M8[s]")


def test_what_is_learned_is_the_same_on_counts_and_needs_no_gap() -> None:
    learned = Blend().prepare(as_counts(sample()))
    close = np.array(Blend().prepare(sample()).table)
    np.testing.assert_allclose(np.array(learned.table), close, atol=0.05)
    for valid in (np.zeros((8, 4, 5), bool), np.ones((8, 4, 5), bool)):
        b = replace(block(8, (4, 5), gap=0.0), valid=valid)
        assert len(Blend().prepare(b).table) == 6


def test_kinds_are_those_of_the_kernel() -> None:
    clear = np.zeros((9, 1), bool)
    clear[[1, 3, 4, 7]] = True
    days = np.array([0, 10, 20, 30, 70, 75, 130, 140, 150.0])
    assert kinds(clear, days)[~clear].tolist() == [4, 0, 2, 2, 3]
    days[7:] -= 30
    assert kinds(clear, days)[5, 0] == 1


def test_hidings_leave_dates_on_both_sides() -> None:
    b = sample()
    for hidden, there in hidings(b.valid, b.days):
        assert (there & ~hidden).sum() > 3
        assert (there & hidden).any()


@pytest.mark.parametrize("chunks", [{"y": 5, "x": 20}, {"y": 20, "x": 7}])
def test_chunks_change_no_bit(chunks: dict[str, int]) -> None:
    ds = synthetic_cube(20, (20, 20), ("B04", "B08"))
    whole = gapfill(ds, "blend").compute()
    parts = gapfill(ds.chunk({"time": -1, **chunks}), "blend").compute()
    for n in whole.data_vars:
        np.testing.assert_array_equal(whole[n].values, parts[n].values)
    assert "shares" in whole.attrs["gapfill_learned"]


def test_a_date_that_the_sample_did_not_have_counts_in_full() -> None:
    learned, b = Blend().prepare(sample()), block(dates=12, gap=0.3)
    later = b.time + np.timedelta64(3, "h")
    b = replace(b, time=later, out_time=later)
    fresh = Blend()
    object.__setattr__(fresh, "table", learned.table)
    for n, a in one(learned, b).bands.items():
        np.testing.assert_array_equal(a, one(fresh, b).bands[n])


def test_with_one_curve_alone_it_is_whittaker() -> None:
    b = block(dates=25, gap=0.5)
    alone = Blend()
    object.__setattr__(alone, "table", ((0.0, 0.0, 1.0),) * 5 + ((1.0, 0.0, 0.0),))
    for n, a in one(alone, b).bands.items():
        right = one(Whittaker(lam=LAMS[1]), b).bands[n]
        np.testing.assert_allclose(a, right, atol=2e-7)
