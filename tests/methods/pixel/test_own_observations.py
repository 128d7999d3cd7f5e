"""An answer follows from the clear observations of its pixel: no other date, none beyond them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.methods import METHODS, Flag, resolve
from cubefill.methods.contract import Block
from tests.shared.series_reference import block, one
from tests.shared.strategies import cube

CLASSIC = [n for n, target in METHODS.items() if ".pixel." in target]
FITS: dict[str, dict[str, Any]] = {
    "savgol": {},
    "whittaker": {"lam": 800.0},
    "harmonic": {"orders": 1, "trend": False},
    "climatology": {},
}
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((n, FITS.get(n, {})) for n in CLASSIC),
    *((n, {**o, "smooth": True}) for n, o in FITS.items()),
    ("whittaker", {"lam": 50.0, "robust": 2}),
    ("harmonic", {"robust": 2}),
    ("climatology", {"statistic": "median"}),
]
IDS = [" ".join([n, *map(str, o)]) for n, o in KINDS]
every = pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)

DAYS = np.cumsum([0, 2.5, 5, 5.01, 12, 3, 20, 40, 1, 2.3, 9, 5, 5, 30, 2, 8, 16, 5, 5, 60, 7.7])


def parts(dates: list[int], b: Block) -> Block:
    """The block without the other dates."""
    bands = {n: a[dates] for n, a in b.bands.items()}
    same = b.out_time is b.time
    time = b.time[dates]
    return replace(
        b, bands=bands, valid=b.valid[dates], time=time, out_time=time if same else b.out_time
    )


@every
@settings(max_examples=6, deadline=None)
@given(cloudy=st.sets(st.integers(0, len(DAYS) - 1), min_size=1, max_size=15), other=st.booleans())
def test_a_date_without_a_clear_pixel_changes_nothing(
    name: str, options: dict[str, Any], cloudy: set[int], other: bool
) -> None:
    """To the last bit, first and last dates and fractions of a second included."""
    b = block(len(DAYS), (2, 9), gap=0.4, days=DAYS)
    time = b.time + np.arange(len(DAYS)) * np.timedelta64(123_456_789, "ns")
    asked = time[0] + np.arange(-9, 300, 7).astype("m8[D]") if other else time
    valid = b.valid.copy()
    valid[list(cloudy)] = False
    whole = replace(b, valid=valid, time=time, out_time=asked)
    kept = [i for i in range(len(DAYS)) if i not in cloudy]
    method = resolve(name, **options)
    with_all, without = one(method, whole), one(method, parts(kept, whole))
    at = slice(None) if other else kept
    for band, a in without.bands.items():
        np.testing.assert_array_equal(with_all.bands[band][at], a)
    np.testing.assert_array_equal(with_all.flag[at], without.flag)  # type: ignore[index]


@pytest.mark.parametrize("name", ["whittaker", "harmonic"])
def test_nor_does_it_change_what_is_learned(name: str) -> None:
    ds = cube(14, (8, 9), gap=0.5)
    ds["valid"][[0, 5, 13]] = False
    kept = [i for i in range(14) if i not in (0, 5, 13)]
    options: dict[str, Any] = {"orders": 1, "trend": False} if name == "harmonic" else {}
    whole = gapfill(ds, name, std=True, **options).compute()
    without = gapfill(ds.isel(time=kept), name, std=True, **options).compute()
    assert whole.attrs["gapfill_learned"] == without.attrs["gapfill_learned"]
    for n in without.data_vars:
        np.testing.assert_array_equal(whole[n].values[kept], without[n].values)


@every
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_nothing_lies_beyond_what_was_observed(
    name: str, options: dict[str, Any], data: st.DataObject
) -> None:
    """Whatever the observations: no negative reflectance from positive ones."""
    b = block(len(DAYS), (1, 12), gap=data.draw(st.sampled_from([0.2, 0.6, 0.85])), days=DAYS)
    seed = data.draw(st.integers(0, 99))
    values = np.random.default_rng(seed).beta(0.3, 0.3, b.valid.shape).astype(np.float32)
    b = replace(
        b, bands={"B04": values}, out_time=b.time[0] + np.arange(-40, 400, 9).astype("m8[D]")
    )
    (out,) = one(resolve(name, **options), b).bands.values()
    seen = np.where(b.valid, values, np.nan)[:, b.valid.any(axis=0)]
    found = out[:, b.valid.any(axis=0)]
    low, high = np.nanmin(seen, axis=0) - 1e-6, np.nanmax(seen, axis=0) + 1e-6
    assert ((found >= low) & (found <= high) | np.isnan(found)).all()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("name", "fewest"), [("harmonic", 12), ("whittaker", 3), ("savgol", 3)])
def test_few_observations_get_a_line_and_a_code(name: str, fewest: int, smooth: bool) -> None:
    b = block(30, (6, 40), gap=0.65)
    valid = b.valid.copy()
    valid[:, 0] = False
    for n in range(1, 20):
        valid[:n, 0, n] = True
    b = replace(b, valid=valid)
    options = {"lam": 100.0} if name == "whittaker" else {}
    method: Any = resolve(name, smooth=smooth, **options)
    assert method.fewest == fewest
    out, line = one(method, b), one(resolve("linear"), b)
    few = (valid.sum(axis=0) < fewest) & valid.any(axis=0)
    assert few.any()
    for band in b.bands:
        found = out.bands[band + method.suffix]
        np.testing.assert_array_equal(found[:, few], line.bands[band][:, few])
        assert not np.array_equal(found[:, ~few], line.bands[band][:, ~few])
    assert out.flag is not None
    told = out.flag == Flag.FEW_OBSERVATIONS
    np.testing.assert_array_equal(told, few & (smooth | ~valid))


def test_few_observations_keep_to_the_limits_and_to_each_band() -> None:
    b = block(30, (1, 1), gap=0.0)
    valid = np.ones((30, 1, 1), bool)
    valid[10:20] = False
    holed = b.bands["B08"].copy()
    holed[3:] = np.nan
    b = replace(b, valid=valid, bands={"B04": b.bands["B04"], "B08": holed})
    out = one(resolve("harmonic", max_extrapolate=10), b)
    assert out.flag is not None
    assert out.flag[0] == Flag.OBSERVED
    assert (out.flag[10:20] == Flag.INCOMPLETE).all()
    assert np.isfinite(out.bands["B04"]).all()
    assert np.isnan(out.bands["B08"][-1])


@pytest.mark.parametrize(
    "limit", [30, 30.0, "30D", "720h", pd.Timedelta(days=30), np.timedelta64(30, "D")]
)
@pytest.mark.parametrize("minutes", [-300, 0, 300])
def test_limits_count_whole_days_however_they_are_given(limit: Any, minutes: int) -> None:
    ds = cube(4, (1, 1), gap=0.0).assign_coords(
        time=pd.to_datetime(["2023-01-01", "2023-01-20", "2023-01-31", "2023-03-03"])
        + pd.to_timedelta([0, 0, minutes, 0], "min")
    )
    ds["valid"][:] = np.array([True, False, True, False])[:, None, None]
    out = gapfill(ds, "linear", max_gap=limit, max_extrapolate="29D").compute()
    assert out["fill_flag"].values.ravel().tolist() == [0, 1, 0, 8]
    out = gapfill(ds, "linear", max_gap="29D").compute()
    assert out["fill_flag"].values.ravel().tolist() == [0, 8, 0, 5]


def test_no_limit_is_infinite() -> None:
    assert resolve("linear", max_gap=np.inf, max_extrapolate=np.inf) == resolve("linear")


@pytest.mark.parametrize("limit", [-1, np.nan, "30", "a while", "NaT", pd.NaT, True, [3], -np.inf])
def test_what_is_no_number_of_days_is_refused(limit: Any) -> None:
    for name in ("max_gap", "max_extrapolate"):
        with pytest.raises(MethodError, match=f"{name}=.*expected days >= 0.*Pass {name}=60"):
            resolve("linear", **{name: limit})
