import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cubefill.cube.indices import ndvi, normalized_difference, normalized_difference_std, with_ndvi
from cubefill.errors import CubeError
from tests.shared.strategies import cube

values = hnp.arrays(np.float32, 8, elements=st.floats(-1, 2, width=32) | st.just(float("nan")))


@given(values, values)
def test_ndvi_is_in_range_or_nan(a: np.ndarray, b: np.ndarray) -> None:
    r = normalized_difference(a, b)
    assert r.dtype == np.float32
    fine = np.isfinite(r)
    assert (np.abs(r[fine]) <= 1).all()
    exact = (a.astype(float) - b) / np.where(a.astype(float) + b > 0, a.astype(float) + b, np.nan)
    np.testing.assert_allclose(r[fine], exact[fine], atol=1e-5)
    assert not fine[~np.isfinite(a) | ~np.isfinite(b)].any()


def test_zero_over_zero_and_negative_sums_are_nan() -> None:
    r = normalized_difference(np.array([0, -0.1, 0.5]), np.array([0, 0.05, 0.1]))
    assert np.isnan(r[:2]).all()
    assert r[2] == pytest.approx(0.4 / 0.6)


def test_error_follows_a_simulation() -> None:
    rng = np.random.default_rng(0)
    n, r, sn, sr = 0.35, 0.08, 0.01, 0.006
    simulated = normalized_difference(rng.normal(n, sn, 200_000), rng.normal(r, sr, 200_000)).std()
    one = [np.array([v], np.float32) for v in (n, r, sn, sr)]
    assert normalized_difference_std(*one)[0] == pytest.approx(float(simulated), rel=0.02)


def test_other_near_infrared() -> None:
    ds = cube(bands=("B04", "B8A"))
    assert ndvi(ds, nir="B8A").attrs["bands"] == "B8A B04"
    with pytest.raises(CubeError, match=r"B08 is missing.*nir='B8A'"):
        ndvi(ds)


def test_lazy_bands_give_lazy_ndvi_with_flag_and_std() -> None:
    ds = cube()
    ds["fill_flag"] = ds["valid"].astype("uint8")
    ds["B04_std"] = ds["B04"] * 0 + np.float32(0.01)
    ds["B08_std"] = ds["B04_std"]
    out = with_ndvi(ds.chunk({"y": 5}))
    assert out["NDVI"].chunks is not None
    assert out["NDVI"].attrs["ancillary_variables"] == "NDVI_flag NDVI_std"
    assert float(out["NDVI_std"].min()) > 0
    np.testing.assert_array_equal(out["NDVI_flag"], ds["fill_flag"])


def test_names_of_catalogues_are_found() -> None:
    ds = cube()
    for names in ({"B04": "red", "B08": "nir"}, {"B04": "b04", "B08": "B08_10m"}):
        foreign = ds.rename(names)
        xr.testing.assert_equal(ndvi(foreign), ndvi(ds))
        np.testing.assert_array_equal(with_ndvi(foreign)["NDVI"], ndvi(ds))
    lacking = ds.rename(B08="B8A")
    with pytest.raises(CubeError, match=r"B08 is missing.*pass nir='B8A'"):
        ndvi(lacking)
    assert ndvi(lacking, nir="B8A").attrs["bands"] == "B8A B04"
