from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.contract import Flag
from cubefill.methods.pixel import Climatology
from cubefill.testing import MethodTests
from tests.shared.series_reference import Series, block, expect, one

YEARS = np.arange(0, 3 * 365, 13.0)


class TestClimatology(MethodTests):
    method: ClassVar[Any] = Climatology()


class TestClimatologyMedian(MethodTests):
    method: ClassVar[Any] = Climatology(statistic="median", smooth=True)


def same_days_of_the_year(window: float, median: bool) -> Any:
    def curve(t: Series, v: Series, u: Series) -> Series:
        out = []
        for day in u:
            apart = np.abs(day - t) % 365.25
            apart = np.minimum(apart, 365.25 - apart)
            half = window / 2
            while not (apart < half).any():
                half *= 2
            near = apart < half
            if median:
                out.append(np.median(v[near]))
            else:
                out.append(np.average(v[near], weights=1 - apart[near] / half))
        return np.array(out)

    return curve


@pytest.mark.parametrize("out_days", [None, (-9, 0, 100.5, 400, 1200)], ids=["same", "other"])
@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("days", [YEARS, YEARS[:20]], ids=["three-years", "one-year"])
def test_climatology_is_that_of_near_days(days: Any, statistic: str, out_days: Any) -> None:
    b = block(size=(3, 4), days=days, gap=0.7, out_days=out_days)
    reference = same_days_of_the_year(31, statistic == "median")
    expect(Climatology(statistic=statistic), b, reference, atol=1e-6)


def test_climatology_is_flagged() -> None:
    b = block(days=YEARS, gap=0.5)
    valid = b.valid.copy()
    valid[:, 0, 0] = False
    out = one(Climatology(), replace(b, valid=valid))
    assert out.flag is not None
    gap = ~valid & valid.any(axis=0)
    assert (out.flag[gap] == Flag.CLIMATOLOGY).all()
    assert (out.flag[:, 0, 0] == Flag.UNFILLABLE).all()
    assert (out.flag[valid] == Flag.OBSERVED).all()


def test_climatology_options_are_checked() -> None:
    with pytest.raises(MethodError, match="'mean' or 'median'"):
        Climatology(statistic="mode")
