from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline, make_smoothing_spline

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


def spline(lam: float, weights: Any = None, held: bool = True) -> Any:
    """The smoothing spline of a pixel, by its dense normal equations, held at its ends."""

    def curve(t: Series, v: Series, u: Series) -> Series:
        n = len(t)
        if n < 3:
            return np.asarray(np.interp(u, t, v))
        w = np.ones(n) if weights is None else weights
        unit = [make_interp_spline(t, e, k=3, bc_type="natural") for e in np.eye(n)]
        bent = np.stack([s.derivative(2)(t) for s in unit], axis=1)  # (knot, value)
        h = np.diff(t)
        mass = np.diag(np.append(h, 0) + np.append(0, h)) / 3
        mass += np.diag(h, 1) / 6 + np.diag(h, -1) / 6
        z = np.linalg.solve(np.diag(w) + lam * bent.T @ mass @ bent, w * v)
        found = make_interp_spline(t, z, k=3, bc_type="natural")(np.clip(u, t[0], t[-1]))
        return np.asarray(np.clip(found, v.min(), v.max()) if held else found)

    return curve


@pytest.mark.parametrize("out_days", [None, (-3, 0, 4.5, 31, 300)], ids=["same", "other"])
@pytest.mark.parametrize("lam", [1.0, 300.0, 1e6])
@pytest.mark.parametrize("smooth", [False, True])
def test_whittaker_is_the_smoothing_spline(lam: float, smooth: bool, out_days: Any) -> None:
    b = block(dates=30, gap=0.7, out_days=out_days)
    method = Whittaker(lam=lam, smooth=smooth)
    expect(method, b, spline(lam), restore=not smooth, atol=1e-6)


def test_whittaker_equals_scipy() -> None:
    b = block(dates=30, gap=0.5, size=(3, 4))

    def curve(t: Series, v: Series, u: Series) -> Series:
        found = make_smoothing_spline(t, v, lam=500.0)(np.clip(u, t[0], t[-1]))
        return np.asarray(np.clip(found, v.min(), v.max()))

    expect(Whittaker(lam=500.0, smooth=True), b, curve, fewest=5, restore=False, atol=1e-5)


def test_whittaker_lam_is_that_of_a_daily_axis() -> None:
    """On daily observations the penalty is the plain sum of squared second differences."""
    days = np.arange(60.0)
    b = block(size=(2, 3), gap=0.0, days=days)
    d = np.diff(np.eye(60), n=2, axis=0)

    def curve(t: Series, v: Series, u: Series) -> Series:
        z = np.linalg.solve(np.eye(60) + 5e4 * d.T @ d, v)
        return np.asarray(np.clip(z, v.min(), v.max()))

    expect(Whittaker(lam=5e4, smooth=True), b, curve, restore=False, atol=2e-3)


def robust(lam: float, rounds: int) -> Any:
    def curve(t: Series, v: Series, u: Series) -> Series:
        w = np.ones(len(t))
        for _ in range(rounds):
            r = v - spline(lam, w, held=False)(t, v, t)
            spread = np.sort(np.abs(r))[(len(r) - 1) // 2]
            near = r / (4.685 * max(1.4826 * spread, 1e-4))
            w = np.maximum(np.where(np.abs(near) < 1, (1 - near**2) ** 2, 0), 1e-6)
        return np.asarray(spline(lam, w)(t, v, u))

    return curve


def test_whittaker_robust_is_the_spline_with_bisquare_weights() -> None:
    b = block(dates=30, gap=0.4, size=(3, 4))
    expect(Whittaker(lam=300.0, robust=2), b, robust(300.0, 2), fewest=6, atol=1e-5)


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
    moves = []
    for lam in lams:
        curve = make_smoothing_spline(t, v, lam=lam)
        fine = np.linspace(t[0], t[-1], 20_001)
        rough = np.trapezoid(curve.derivative(2)(fine) ** 2, fine)
        moves.append([np.log10(((curve(t) - v) ** 2).sum()), np.log10(rough)])
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
    assert np.isin(out.flag[:, some], (Flag.SMOOTHED, Flag.FEW_OBSERVATIONS)).all()
    assert (out.flag[:, b.valid.sum(axis=0) >= 3] == Flag.SMOOTHED).all()
    assert (out.flag[:, ~some] == Flag.UNFILLABLE).all()
    assert not np.array_equal(out.bands["B04_smooth"][b.valid], b.bands["B04"][b.valid])
