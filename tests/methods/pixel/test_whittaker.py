from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.contract import Flag
from cubefill.methods.pixel import Whittaker
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, as_counts, block, expect, one


class TestWhittaker(MethodTests):
    method: ClassVar[Any] = Whittaker(lam=2000.0)


class TestWhittakerThatChooses(MethodTests):
    method: ClassVar[Any] = Whittaker(robust=2)


class TestWhittakerSmooth(MethodTests):
    method: ClassVar[Any] = Whittaker(lam=2000.0, smooth=True)


def bends(days: Series) -> Series:
    """Second derivatives at the inner dates, each times the root of the days it stands for."""
    rows = np.zeros((max(len(days) - 2, 0), len(days)))
    for i in range(len(rows)):
        line = np.polynomial.polynomial.polyfit(days[i : i + 3], np.eye(3), 2)
        rows[i, i : i + 3] = 2 * line[2] * np.sqrt((days[i + 2] - days[i]) / 2)
    return rows


def dense(axis: Series, lam: float, weights: Any = None) -> Any:
    """The Whittaker curve of a pixel by a dense solution, held at its ends."""

    def curve(t: Series, v: Series, u: Series) -> Series:
        at = np.searchsorted(axis, t)
        if len(t) == 1:
            return np.full(len(axis), v[0])
        w = np.zeros(len(axis))
        w[at] = 1 if weights is None else weights
        right = np.zeros(len(axis))
        right[at] = v * w[at]
        d = bends(axis)
        z: Any = np.linalg.solve(np.diag(w) + lam * d.T @ d, right)
        z[: at[0]], z[at[-1] :] = z[at[0]], z[at[-1]]
        return np.asarray(z)

    return curve


@pytest.mark.parametrize("lam", [1.0, 300.0, 1e6])
@pytest.mark.parametrize("smooth", [False, True])
def test_whittaker_equals_a_dense_solution(lam: float, smooth: bool) -> None:
    b = block(dates=30, gap=0.7)
    method = Whittaker(lam=lam, smooth=smooth)
    expect(method, b, dense(b.days, lam), restore=not smooth)


def test_whittaker_reads_other_dates_from_the_same_curve() -> None:
    b = block(dates=30, gap=0.5)
    whole = one(Whittaker(lam=500.0, smooth=True), b).bands["B08_smooth"]
    middle = (b.days[1:] + b.days[:-1]) / 2
    days = np.sort(np.concatenate([b.days, middle, [-3.0, b.days[-1] + 3]]))
    out_time = b.time[0] + np.rint(days * 86_400e9).astype("m8[ns]")
    out = one(Whittaker(lam=500.0, smooth=True), replace(b, out_time=out_time)).bands["B08_smooth"]
    np.testing.assert_array_equal(out[np.isin(days, b.days)], whole)
    np.testing.assert_array_equal(out[[0, -1]], whole[[0, -1]])
    between = out[np.isin(days, middle)]
    low, high = np.minimum(whole[1:], whole[:-1]), np.maximum(whole[1:], whole[:-1])
    assert (between > low - 0.02).all()
    assert (between < high + 0.02).all()


def test_whittaker_lam_does_not_depend_on_how_often_the_satellite_passes() -> None:
    days = np.arange(0, 300.0, 1.0)
    wave = np.sin(days / 30)[:, None, None].astype(np.float32)
    answers = []
    for step in (1, 2, 5):
        time = np.datetime64("2023-01-01", "ns") + (days * 86_400e9).astype("m8[ns]")
        b = block(dates=3, size=(1, 1), bands=("B04",))
        keep = slice(None, None, step)
        valid = np.zeros((300, 1, 1), bool)
        valid[::10] = True
        b = replace(b, bands={"B04": wave[keep]}, valid=valid[keep], time=time[keep],
                    out_time=time[keep])  # fmt: skip
        out = one(Whittaker(lam=1e4, smooth=True), b).bands["B04_smooth"]
        answers.append(out[:: 10 // step].ravel())
    np.testing.assert_allclose(answers[0], answers[1], atol=3e-3)
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-2)


def test_whittaker_lam_is_that_of_a_daily_axis() -> None:
    """On daily dates the penalty is the plain sum of squared second differences."""
    days = np.arange(40.0)
    b = block(size=(2, 3), gap=0.6, days=days)
    d = np.diff(np.eye(40), n=2, axis=0)

    def curve(t: Series, v: Series, u: Series) -> Series:
        w, y = np.zeros(40), np.zeros(40)
        at = t.astype(int)
        w[at], y[at] = 1, v
        z: Any = np.linalg.solve(np.diag(w) + 50.0 * d.T @ d, y)
        z[: at[0]], z[at[-1] :] = z[at[0]], z[at[-1]]
        return np.asarray(z)

    expect(Whittaker(lam=50.0, smooth=True), b, curve, fewest=2, restore=False)


def robust(axis: Series, lam: float, rounds: int) -> Any:
    def curve(t: Series, v: Series, u: Series) -> Series:
        z = dense(axis, lam)(t, v, u)
        for _ in range(rounds):
            r = v - z[np.searchsorted(axis, t)]
            spread = np.sort(np.abs(r))[(len(r) - 1) // 2]
            near = r / (4.685 * max(1.4826 * spread, 1e-4))
            w = np.where(np.abs(near) < 1, (1 - near**2) ** 2, 0)
            z = dense(axis, lam, w)(t, v, u)
        return np.asarray(z)

    return curve


def test_whittaker_robust_equals_a_dense_solution_with_bisquare_weights() -> None:
    b = block(dates=30, gap=0.4)
    expect(Whittaker(lam=300.0, robust=2), b, robust(b.days, 300.0, 2), fewest=6)


def test_whittaker_robust_forgets_a_cloud_that_the_mask_missed() -> None:
    b = block(dates=40, gap=0.5, size=(5, 5), bands=("B04",))
    band, valid = b.bands["B04"].copy(), b.valid.copy()
    valid[19], valid[20], valid[21] = False, True, False
    clean = replace(b, bands={"B04": band}, valid=valid & (np.arange(40) != 20)[:, None, None])
    band[20] = 0.7
    dirty = replace(b, bands={"B04": band}, valid=valid)
    truth = one(Whittaker(lam=1000.0, smooth=True), clean).bands["B04_smooth"]
    plain = one(Whittaker(lam=1000.0, smooth=True), dirty).bands["B04_smooth"]
    kept = one(Whittaker(lam=1000.0, smooth=True, robust=3), dirty).bands["B04_smooth"]
    assert np.abs(kept - truth).max() < 0.1 * np.abs(plain - truth).max()


@pytest.mark.parametrize("out_days", [None, (-3, 0, 4.5, 31, 200)], ids=["same", "other"])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("robust", [0, 1])
def test_bands_together_give_the_bits_of_each_alone(
    robust: int, counted: bool, out_days: Any
) -> None:
    b = block(dates=20, size=(13, 90), gap=0.7, bands=("B02", "B04", "B08"), out_days=out_days)
    holed = b.bands["B04"].copy()
    holed[3, :, 2] = holed[7, 1] = np.nan
    valid = b.valid.copy()
    valid[:, 4, :30], valid[:, 5], valid[11, 5] = False, False, True
    b = replace(b, bands={**b.bands, "B04": holed}, valid=valid)
    b = as_counts(b) if counted else b
    method = Whittaker(lam=1000.0, robust=robust)
    together = one(method, b)
    for name, band in b.bands.items():
        alone = one(method, replace(b, bands={name: band}))
        assert alone.bands[name].tobytes() == together.bands[name].tobytes()


def test_v_curve_follows_the_noise_and_is_recorded() -> None:
    b = block(dates=60, size=(12, 12), gap=0.4, bands=("B04",), days=np.arange(60) * 5.0)
    season = 0.2 + 0.1 * np.sin(b.days / 25)[:, None, None]
    rng = np.random.default_rng(0)
    chosen = []
    for noise in (0.001, 0.02):
        band = (season + rng.normal(0, noise, b.valid.shape)).astype(np.float32)
        method = Whittaker().prepare(replace(b, bands={"B04": band}))
        assert isinstance(method.lam, float)
        assert method.recorded() == {"lam": method.lam}
        assert not method.wants_sample
        chosen.append(method.lam)
    assert 10 <= chosen[0] < chosen[1] <= 1e7


def test_v_curve_is_that_of_a_dense_solution() -> None:
    b = block(dates=30, size=(1, 1), gap=0.3, bands=("B08",))
    clear = b.valid[:, 0, 0]
    t, v = b.days[clear], b.bands["B08"][clear, 0, 0].astype(float)
    lams = 10 ** np.arange(1.0, 7.1, 0.25)
    at, moves = np.searchsorted(b.days, t), []
    for lam in lams:
        z = dense(b.days, lam)(t, v, b.days)
        inner = bends(b.days)[at[0] : at[-1] - 1] @ z
        moves.append([np.log10(((z[at] - v) ** 2).sum()), np.log10((inner**2).sum())])
    k = np.hypot(*np.diff(moves, axis=0).T).argmin()
    lam = Whittaker().prepare(b).lam
    np.testing.assert_allclose(float(lam), np.sqrt(lams[k] * lams[k + 1]))


def test_v_curve_without_a_long_series_has_a_default() -> None:
    assert Whittaker().prepare(block(dates=3)).lam == 1000.0


def test_whittaker_wants_a_number_or_a_sample() -> None:
    with pytest.raises(MethodError, match=r"method\.prepare\(sample\), or lam=1000"):
        one(Whittaker(), block())
    for lam in (0, -1.0, "gcv"):
        with pytest.raises(MethodError, match="above 0 or 'vcurve'"):
            Whittaker(lam=lam)


def test_smooth_product_is_the_curve_and_flagged_so() -> None:
    b = block(dates=20, gap=0.5)
    out = one(Whittaker(lam=1e4, smooth=True), b)
    assert set(out.bands) == {"B04_smooth", "B08_smooth"}
    assert out.flag is not None
    some = b.valid.any(axis=0)
    assert (out.flag[:, some] == Flag.SMOOTHED).all()
    assert (out.flag[:, ~some] == Flag.UNFILLABLE).all()
    assert not np.array_equal(out.bands["B04_smooth"][b.valid], b.bands["B04"][b.valid])
