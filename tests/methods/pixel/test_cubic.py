from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator, interp1d

from cubefill.methods.pixel.cubic import Akima, Pchip, Quadratic
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, block, expect

OTHER = (-4.5, 0, 3, 10.25, 30, 31, 66.6, 90)


class TestPchip(MethodTests):
    method: ClassVar[Any] = Pchip()


class TestAkima(MethodTests):
    method: ClassVar[Any] = Akima()


class TestQuadratic(MethodTests):
    method: ClassVar[Any] = Quadratic(max_gap=80)


def held(make: Any, fewest: int) -> Any:
    """The curve of scipy, a straight line where it wants more points, held at the ends."""

    def curve(t: Series, v: Series, u: Series) -> Series:
        inside = np.clip(u, t[0], t[-1])
        if len(t) < fewest:
            return np.interp(inside, t, v)
        return np.clip(make(t, v)(inside), v.min(), v.max())  # no curve leaves what was observed

    return curve


@pytest.mark.parametrize("out_days", [None, OTHER], ids=["same", "other"])
@pytest.mark.parametrize("gap", [0.3, 0.6, 0.85])
@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (Pchip(), held(PchipInterpolator, 2)),
        (Akima(), held(Akima1DInterpolator, 3)),
        (Quadratic(), held(lambda t, v: interp1d(t, v, kind="quadratic"), 3)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_equals_scipy(method: Any, reference: Any, gap: float, out_days: Any) -> None:
    expect(method, block(dates=25, gap=gap, out_days=out_days), reference, atol=5e-7)


def test_straight_and_flat_series_stay_so() -> None:
    b = block(dates=25, gap=0.5, bands=("B04",))
    line = np.broadcast_to((b.days * 0.001)[:, None, None], b.valid.shape).astype(np.float32)
    for band in (line.copy(), np.full_like(line, 0.25)):
        given = {"B04": band}
        for method in (Pchip(), Akima(), Quadratic()):
            made = type(b)(given, b.valid, b.time, b.out_time)
            expect(method, made, lambda t, v, u: np.interp(u, t, v), atol=1e-6)


def test_pchip_does_not_overshoot() -> None:
    b = block(dates=25, gap=0.6)
    (out,) = Pchip().fill([b])
    for name, band in b.bands.items():
        seen = np.where(b.valid, band, np.nan)
        some = b.valid.any(axis=0)
        assert (out.bands[name].max(axis=0) <= np.nanmax(seen[:, some]).max() + 1e-7).all()
        top = np.nanmax(seen[:, some], axis=0)
        assert (out.bands[name][:, some].max(axis=0) <= top + 1e-7).all()
