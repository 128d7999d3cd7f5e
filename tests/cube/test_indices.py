import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cubefill.cube.flags import Flag
from cubefill.cube.indices import (
    errors_together,
    index_flag,
    ndvi,
    normalized_difference,
    normalized_difference_std,
    together_attrs,
    with_ndvi,
)
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


@pytest.mark.parametrize("clip", [False, True])
def test_one_pixel_on_one_date(clip: bool) -> None:
    ds = cube(gap=0.0).assign(fill_flag=lambda d: d["valid"].astype(np.uint8))
    ds = ds.assign({f"{b}_std": ds[b] / 10 for b in ("B04", "B08")})
    one = with_ndvi(ds.isel(time=1, y=2, x=3), clip=clip)
    for name in ("NDVI", "NDVI_std", "NDVI_flag"):
        expected = with_ndvi(ds, clip=clip)[name].isel(time=1, y=2, x=3)
        np.testing.assert_allclose(one[name], expected)
        assert one[name].dtype == expected.dtype


def test_error_follows_a_simulation() -> None:
    rng = np.random.default_rng(0)
    n, r, sn, sr = 0.35, 0.08, 0.01, 0.006
    simulated = normalized_difference(rng.normal(n, sn, 200_000), rng.normal(r, sr, 200_000)).std()
    a, b, a_std, b_std = (np.array([v], np.float32) for v in (n, r, sn, sr))
    assert normalized_difference_std(a, b, a_std, b_std)[0] == pytest.approx(
        float(simulated), rel=0.02
    )


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
    assert out["NDVI_flag"].chunks is not None
    np.testing.assert_array_equal(out["NDVI_flag"], ds["fill_flag"])


NIR, RED = [0.4, 0.4, 0.4, -0.1, 0.1, np.nan, np.nan], [0.05, -0.001, np.nan, 0.05, -0.1, 0.1, 0.1]
CODES = [1, 0, 11, 0, 0, 7, 255]


@pytest.mark.parametrize(
    ("clip", "flags", "values"),
    [(False, [1, 8, 8, 8, 8, 7, 255], [1]), (True, [1, 12, 8, 8, 8, 7, 255], [1, 1])],
)
def test_the_flag_of_ndvi_says_how_it_came_about(
    clip: bool, flags: list[int], values: list[int]
) -> None:
    """NaN exactly where it is 7, 8 or 255; a clipped value has a code of its own."""
    dims = ("time", "y", "x")
    arrays = {"B08": NIR, "B04": RED}
    ds = xr.Dataset(
        {n: (dims, np.array(a, np.float32).reshape(1, 1, -1)) for n, a in arrays.items()}
    )
    ds["fill_flag"] = (dims, np.array(CODES, np.uint8).reshape(1, 1, -1))
    out = with_ndvi(ds, clip=clip)
    assert out["NDVI_flag"].values.ravel().tolist() == flags
    assert out["NDVI_flag"].dtype == np.uint8
    found = out["NDVI"].values.ravel()
    np.testing.assert_array_equal(np.isnan(found), np.isin(flags, (7, 8, 255)))
    assert np.isfinite(found).sum() == len(values)
    assert not clip or found[1] == 1
    means = dict(
        zip(
            out["NDVI_flag"].attrs["flag_values"].tolist(),
            out["NDVI_flag"].attrs["flag_meanings"].split(),
            strict=True,
        )
    )
    assert (means[8], means[12]) == ("undefined", "clipped")


@given(values, values, hnp.arrays(np.uint8, 8, elements=st.sampled_from(list(map(int, Flag)))))
def test_the_flag_of_ndvi_is_8_wherever_it_is_nan(
    a: np.ndarray, b: np.ndarray, flag: np.ndarray
) -> None:
    for clip in (False, True):
        empty = np.isnan(normalized_difference(a, b, clip=clip))
        found = index_flag(a, b, flag, clip=clip)
        assert np.isin(found[empty], (7, 8, 255)).all()
        known = ~empty & (found != Flag.CLIPPED)
        np.testing.assert_array_equal(found[known], flag[known])


def test_error_follows_a_simulation_of_errors_that_go_together() -> None:
    rng = np.random.default_rng(0)
    n, r, sn, sr = 0.35, 0.08, 0.01, 0.006
    for rho in (-0.6, 0.8):
        u, v = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 200_000).T
        simulated = normalized_difference(n + sn * u, r + sr * v).std()
        a, b, a_std, b_std = (np.array([x], np.float32) for x in (n, r, sn, sr))
        found = normalized_difference_std(a, b, a_std, b_std, rho)[0]
        assert found == pytest.approx(float(simulated), rel=0.02)
        assert normalized_difference_std(a, b, a_std, b_std, rho, 0.5)[0] == pytest.approx(
            found / 2
        )


def test_what_is_known_of_errors_survives_attributes() -> None:
    assert together_attrs({}) == {}
    assert errors_together({}, "B04") == (0.0, 1.0)
    attrs = together_attrs({"B04": (0.25, 0.5)})
    assert errors_together(attrs, "B04") == (0.25, 0.5)
    single = {**attrs, "error_correlation": 0.25, "error_scale_of_index": 0.5}  # as netCDF gives it
    assert errors_together(single, "B04") == (0.25, 0.5)
    assert errors_together(attrs, "B03") == (0.0, 1.0)


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
