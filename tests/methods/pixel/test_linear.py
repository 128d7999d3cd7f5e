from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.contract import Flag
from cubefill.methods.pixel.linear import Last, Linear, Linear2, Nearest, Next
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, as_counts, block, expect, one

OTHER = (-4.5, 0, 3, 10.25, 30, 31, 66.6, 90)


class TestLinear(MethodTests):
    method: ClassVar[Any] = Linear()


class TestLinearWithLimits(MethodTests):
    method: ClassVar[Any] = Linear(max_gap=12, max_extrapolate=5)


class TestNearest(MethodTests):
    method: ClassVar[Any] = Nearest()


class TestLast(MethodTests):
    method: ClassVar[Any] = Last()


class TestNext(MethodTests):
    method: ClassVar[Any] = Next()


class TestLinear2(MethodTests):
    method: ClassVar[Any] = Linear2()


def nearest(t: Series, v: Series, u: Series) -> Series:
    return v[np.abs(u[:, None] - t).argmin(axis=1)]


def last(t: Series, v: Series, u: Series) -> Series:
    i = np.searchsorted(t, u, side="right") - 1
    return np.where(i >= 0, v[i], np.nan)


def following(t: Series, v: Series, u: Series) -> Series:
    i = np.searchsorted(t, u)
    return np.where(i < len(t), v[np.minimum(i, len(t) - 1)], np.nan)


def two_dates(t: Series, v: Series, u: Series) -> Series:
    return np.interp(u, t, v, left=np.nan, right=np.nan)


@pytest.mark.parametrize("out_days", [None, OTHER], ids=["same", "other"])
@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (Linear(), lambda t, v, u: np.interp(u, t, v)),
        (Nearest(), nearest),
        (Last(), last),
        (Next(), following),
        (Linear2(), two_dates),
    ],
    ids=lambda v: type(v).__name__,
)
def test_equals_a_slow_reference_in_float64(method: Any, reference: Any, out_days: Any) -> None:
    expect(method, block(gap=0.6, out_days=out_days), reference)


def test_days_are_exact_over_decades() -> None:
    days = np.cumsum(np.tile([0.9993, 5.0007, 2.4], 1500))
    b = block(size=(1, 3), days=days, gap=0.7)
    expect(Linear(), b, lambda t, v, u: np.interp(u, t, v), atol=1e-7)


def test_ends_are_held_and_flagged() -> None:
    b = block(dates=5, size=(1, 1), gap=0.0, bands=("B04",), days=[0, 5, 10, 20, 40])
    valid = np.array([False, True, False, True, False])[:, None, None]
    out = one(Linear(), replace(b, valid=valid))
    a, band = out.bands["B04"].ravel(), b.bands["B04"].ravel()
    assert a[0] == a[1] == band[1]
    assert a[4] == a[3] == band[3]
    assert out.flag is not None
    assert out.flag.ravel().tolist() == [
        Flag.EXTRAPOLATED,
        Flag.OBSERVED,
        Flag.INTERPOLATED,
        Flag.OBSERVED,
        Flag.EXTRAPOLATED,
    ]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"max_gap": 15}, [False, False, False, False, False]),
        ({"max_gap": 14.9}, [False, False, True, False, False]),
        ({"max_extrapolate": 5}, [False, False, False, False, True]),
        ({"max_extrapolate": 0}, [True, False, False, False, True]),
        ({"max_gap": 1, "max_extrapolate": 1}, [True, False, True, False, True]),
    ],
)
def test_limits_leave_gaps(options: dict[str, Any], left: list[bool]) -> None:
    b = block(dates=5, size=(1, 1), gap=0.0, bands=("B04",), days=[0, 5, 10, 20, 40])
    valid = np.array([False, True, False, True, False])[:, None, None]
    method = Linear(**options)
    out = one(method, replace(b, valid=valid))
    assert np.isnan(out.bands["B04"].ravel()).tolist() == left
    assert out.flag is not None
    assert (out.flag.ravel() == Flag.UNFILLABLE).tolist() == left
    assert not method.complete


@pytest.mark.parametrize("out_days", [None, OTHER], ids=["same", "other"])
@pytest.mark.parametrize("method", [Linear(), Last(), Next(), Linear2()])
def test_limits_that_never_act_change_no_flag(method: Any, out_days: Any) -> None:
    b = block(gap=0.8, out_days=out_days)
    a, c = one(method, b).flag, one(replace(method, max_gap=1e6, max_extrapolate=1e6), b).flag
    assert a is not None
    np.testing.assert_array_equal(a, c)


def test_a_band_may_lack_data_where_valid_says_clear() -> None:
    b = block(gap=0.4)
    holed = b.bands["B04"].copy()
    holed[3, :, 2] = holed[7, 1] = np.nan
    b = replace(b, bands={**b.bands, "B04": holed})
    expect(Linear(), b, lambda t, v, u: np.interp(u, t, v))
    flag = one(Linear(), b).flag
    assert flag is not None
    np.testing.assert_array_equal(flag == Flag.OBSERVED, b.valid & np.isfinite(holed))


@pytest.mark.parametrize("counted", [False, True])
def test_bands_together_give_the_bits_of_each_alone(counted: bool) -> None:
    b = block(dates=20, size=(13, 90), gap=0.6, bands=("B02", "B04", "B08"))
    b = as_counts(b) if counted else b
    together = one(Linear(), b)
    for name, band in b.bands.items():
        alone = one(Linear(), replace(b, bands={name: band}))
        np.testing.assert_array_equal(alone.bands[name], together.bands[name])
        np.testing.assert_array_equal(np.asarray(alone.flag), np.asarray(together.flag))


def test_minus_zero_and_huge_values_pass() -> None:
    b = block(gap=0.0, bands=("B04",))
    band = b.bands["B04"].copy()
    band[0, 0, 0], band[1, 0, 0] = -0.0, 3e38
    for given in ({"B04": band}, {"B04": band, "B08": band}):
        out = one(Linear(), replace(b, bands=given)).bands["B04"]
        np.testing.assert_array_equal(out.view(np.int32), band.view(np.int32))


def test_a_smooth_curve_is_refused_with_the_names_that_have_one() -> None:
    with pytest.raises(MethodError, match=r"expected smooth=False.*whittaker"):
        Linear(smooth=True)


@pytest.mark.parametrize("days", [-1, float("nan")])
def test_limits_are_checked(days: float) -> None:
    with pytest.raises(MethodError, match="expected days >= 0"):
        Linear(max_gap=days)
