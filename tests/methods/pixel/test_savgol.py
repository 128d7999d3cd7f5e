from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.pixel import Savgol
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, block, expect


class TestSavgol(MethodTests):
    method: ClassVar[Any] = Savgol()


class TestSavgolSmooth(MethodTests):
    method: ClassVar[Any] = Savgol(window=30, order=1, smooth=True)


def local_polynomial(axis: Series, window: float, order: int) -> Any:
    def curve(t: Series, v: Series, u: Series) -> Series:
        line = np.interp(axis, t, v)
        out = []
        for day in u:
            apart = np.abs(axis - day)
            near = apart <= max(window / 2, np.sort(apart)[min(order + 1, len(axis) - 1)])
            c = np.polynomial.Polynomial.fit(axis[near], line[near], min(order, near.sum() - 1))
            out.append(c(day))
        return np.array(out)

    return curve


@pytest.mark.parametrize("out_days", [None, (-2, 0, 7.5, 31, 77)], ids=["same", "other"])
@pytest.mark.parametrize(("window", "order"), [(45, 2), (20, 1), (3, 2), (60, 3)])
def test_savgol_equals_a_polynomial_fit(window: float, order: int, out_days: Any) -> None:
    b = block(dates=25, gap=0.5, out_days=out_days)
    method = Savgol(window=window, order=order)
    expect(method, b, local_polynomial(b.days, window, order), atol=1e-6)


def test_savgol_options_are_checked() -> None:
    with pytest.raises(MethodError, match="days above 0"):
        Savgol(window=0)
