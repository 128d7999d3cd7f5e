from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.pixel import Harmonic
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, block, expect

YEARS = np.arange(0, 3 * 365, 13.0)


class TestHarmonic(MethodTests):
    method: ClassVar[Any] = Harmonic()


class TestHarmonicRobust(MethodTests):
    method: ClassVar[Any] = Harmonic(orders=1, robust=2, trend=False)


class TestHarmonicSmooth(MethodTests):
    method: ClassVar[Any] = Harmonic(smooth=True)


def columns(days: Series, orders: int, trend: bool) -> Series:
    phase = 2 * np.pi * days / 365.25
    waves = [f(k * phase) for k in range(1, orders + 1) for f in (np.cos, np.sin)]
    return np.stack([np.ones_like(days), *([days / 365.25] if trend else []), *waves], axis=1)


def ridge_fit(middle: float, orders: int, trend: bool, ridge: float, rounds: int = 0) -> Any:
    """Least squares with `ridge` as extra rows, and bisquare weights."""

    def curve(t: Series, v: Series, u: Series) -> Series:
        x, xo = columns(t - middle, orders, trend), columns(u - middle, orders, trend)
        extra = np.sqrt(ridge) * np.eye(x.shape[1])[1:]
        w = np.ones(len(t))
        for k in range(rounds + 1):
            root = np.sqrt(w)
            a = np.concatenate([x * root[:, None], extra])
            c = np.linalg.lstsq(a, np.concatenate([v * root, np.zeros(len(extra))]))[0]
            if k < rounds:
                r = v - x @ c
                spread = np.sort(np.abs(r))[(len(r) - 1) // 2]
                near = r / (4.685 * max(1.4826 * spread, 1e-4))
                w = np.where(np.abs(near) < 1, (1 - near**2) ** 2, 0)
        fewest = 2 * columns(t[:1], orders, trend).shape[1]
        found = np.clip(xo @ c, v.min(), v.max())
        return np.asarray(found if len(t) >= fewest else np.interp(u, t, v))

    return curve


@pytest.mark.parametrize("out_days", [None, (-9, 0, 100.5, 400, 1200)], ids=["same", "other"])
@pytest.mark.parametrize(("orders", "trend"), [(1, False), (2, True), (3, True)])
def test_harmonic_equals_least_squares(orders: int, trend: bool, out_days: Any) -> None:
    b = block(size=(4, 5), days=YEARS, gap=0.5, out_days=out_days)
    method = Harmonic(orders=orders, trend=trend)
    expect(method, b, ridge_fit(b.days[-1] / 2, orders, trend, 1e-3), atol=1e-6)


def test_harmonic_with_much_ridge_equals_ridge_regression() -> None:
    b = block(size=(6, 6), days=YEARS, gap=0.8)
    expect(Harmonic(ridge=0.1), b, ridge_fit(b.days[-1] / 2, 2, True, 0.1), atol=2e-6)


def test_harmonic_robust_equals_reweighted_least_squares() -> None:
    b = block(size=(4, 5), days=YEARS, gap=0.4)
    method = Harmonic(robust=2, smooth=True)
    expect(method, b, ridge_fit(b.days[-1] / 2, 2, True, 1e-3, 2), atol=1e-6, restore=False)


def test_harmonic_options_are_checked() -> None:
    for options in ({"orders": 0}, {"ridge": 0.0}, {"robust": -1}, {"orders": 40}):
        with pytest.raises(MethodError, match="expected orders 1 to 12"):
            Harmonic(**options)
