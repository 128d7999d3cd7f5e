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


def local_polynomial(window: float, order: int) -> Any:
    """The polynomial fitted to many points of the line between the observations."""
    away = (np.arange(4000) + 0.5) / 4000 * window - window / 2

    def curve(t: Series, v: Series, u: Series) -> Series:
        if len(t) <= order:
            return np.asarray(np.interp(u, t, v))
        fits = (
            np.polynomial.Polynomial.fit(away, np.interp(day + away, t, v), order)(0.0) for day in u
        )
        return np.clip(list(fits), v.min(), v.max())

    return curve


@pytest.mark.parametrize("out_days", [None, (-2, 0, 7.5, 31, 77)], ids=["same", "other"])
@pytest.mark.parametrize(("window", "order"), [(45, 2), (20, 1), (3, 2), (60, 4), (30, 0)])
def test_savgol_is_a_polynomial_fitted_to_the_line(
    window: float, order: int, out_days: Any
) -> None:
    b = block(dates=25, gap=0.5, size=(3, 4), out_days=out_days)
    method = Savgol(window=window, order=order)
    expect(method, b, local_polynomial(window, order), atol=2e-6)


def test_savgol_options_are_checked() -> None:
    wrong: tuple[dict[str, Any], ...] = ({"window": 0}, {"order": 10})
    for options in wrong:
        with pytest.raises(MethodError, match="days above 0"):
            Savgol(**options)
