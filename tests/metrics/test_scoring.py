from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import metrics
from cubefill.errors import CubeError


def example(n: int = 19) -> tuple[xr.Dataset, xr.Dataset, xr.DataArray]:
    rng = np.random.default_rng(0)
    dims = ("time", "y", "x")

    def cube(values: dict[str, Any]) -> xr.Dataset:
        return xr.Dataset({k: (dims, v) for k, v in values.items()})

    true = {b: rng.uniform(0.05, 0.4, (n, 16, 17)).astype("float32") for b in ("B04", "B08")}
    pred = {b: a + rng.normal(0, 0.02, a.shape).astype("float32") for b, a in true.items()}
    pred["B04"][2, 3] = np.nan
    where = xr.DataArray(rng.random((n, 16, 17)) < 0.5, dims=dims)
    return cube(pred), cube(true), where


def test_score_equals_the_metric_on_the_whole() -> None:
    pred, true, where = example()
    found = metrics.score(pred, true, where)
    assert set(found) == {*metrics.DEFAULT, "NDVI-MAE"}
    arrays = [{b: ds[b].values for b in ("B04", "B08")} for ds in (pred, true)]
    for name, got in found.items():
        m = metrics.resolve(name)
        whole = m.value(m.terms(arrays[0], arrays[1], where.values))
        assert got.value == pytest.approx(whole, rel=1e-9)
        assert got.higher_is_better == m.higher_is_better


def test_ndvi_is_taken_from_b8a_where_there_is_no_b08() -> None:
    pred, true, where = example()
    wide = metrics.score(pred, true, where)["NDVI-MAE"]
    p, t = (ds.rename(B08="B8A") for ds in (pred, true))
    found = metrics.score(p, t, where)
    assert set(found) == {*metrics.DEFAULT, "NDVI-MAE"}
    assert found["NDVI-MAE"].value == wide.value
    assert wide.formula == "NDVIMAE(red='B04', nir='B08')"
    assert found["NDVI-MAE"].formula == "NDVIMAE(red='B04', nir='B8A')"
    assert metrics.score(p, t, where, ["ndvi-mae"])["NDVI-MAE"] == found["NDVI-MAE"]
    p, t = (ds.assign(B8A=ds["B08"] ** 2) for ds in (pred, true))
    assert metrics.score(p, t, where)["NDVI-MAE"] == wide


@pytest.mark.parametrize("bands", [["B04"], ["B8A", "B02"], ["B08"], []])
def test_without_red_or_near_infrared_there_is_no_ndvi(bands: list[str]) -> None:
    assert metrics.ndvi_mae(bands) is None
    assert "NDVI-MAE" not in metrics.defaults(bands)
    zero = {b: np.zeros((1, 2, 2)) for b in bands or ["B02"]}
    with pytest.raises(CubeError, match="expected bands B04 and B08"):
        metrics.score(zero, zero, np.ones((1, 2, 2), bool), ["NDVI-MAE"])


def test_a_score_stores_what_it_stands_for() -> None:
    pred, true, where = example()
    got = asdict(metrics.score(pred, true, where, ["PSNR"], pixel_set="occluded")["PSNR"])
    assert got.pop("value") == pytest.approx(34, abs=1)
    missing = int(where[2, 3].sum())
    assert got == {
        "unit": "dB", "higher_is_better": True, "convention": "cubefill", "peak": 1.0,
        "pooling": "pixels, dates and bands", "pixel_set": "occluded",
        "n": 2 * int(where.sum()) - missing, "n_missing": missing,
        "formula": "PSNR(peak=1.0)",
    }  # fmt: skip


def test_dims_in_another_order_and_plain_arrays_give_the_same() -> None:
    pred, true, where = example()
    a = metrics.score(pred, true, where)
    b = metrics.score(pred.transpose("x", "time", "y"), true, where.transpose("y", "x", "time"))
    arrays = [{str(k): v.values for k, v in ds.items()} for ds in (pred, true)]
    c = metrics.score(arrays[0], arrays[1], where.values)
    assert a == b == c


def test_other_variables_are_left_out() -> None:
    pred, true, where = example()
    extra = true.assign(SCL=where.astype("uint8"), valid=where, DEM=true.B04[0])
    assert metrics.score(pred.assign(extra[["SCL", "DEM"]]), extra, where) == metrics.score(
        pred, true, where
    )
    one = metrics.score(pred, true, where, ["MAE"], bands=["B08"])["MAE"]
    assert one.n == int(where.sum())


def test_coverage_reads_the_standard_deviations_of_the_fill() -> None:
    pred, true, where = example()
    pred = pred.assign({f"{b}_std": xr.full_like(pred[b], 0.02) for b in ("B04", "B08")})
    got = metrics.score(pred, true, where, ["coverage", "MAE"], bands=["B04", "B08"])
    assert got["coverage"].value == pytest.approx(0.9, abs=0.02)
    assert got == metrics.score(pred, true, where, ["coverage", "MAE"])
    wide = metrics.score(pred, true, where, [metrics.Coverage(z=3)])["coverage"]
    assert wide.value > 0.99


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(CubeError, match=r"Unknown metric 'ssmi': .* Did you mean 'SSIM'?"):
        metrics.resolve("ssmi")
    with pytest.raises(CubeError, match="Unknown convention 'x': expected one of cubefill"):
        metrics.resolve("MAE", "x")


def test_what_does_not_fit_is_refused() -> None:
    pred, true, where = example()
    with pytest.raises(CubeError, match="bands that fill and truth both have"):
        metrics.score(pred, true, where, bands=["B11"])
    with pytest.raises(CubeError, match="bands that fill and truth both have"):
        metrics.score(pred[["B04"]], true[["B08"]], where)
    with pytest.raises(CubeError, match="expected bool `where`"):
        metrics.score(pred, true, where.astype(int))
    with pytest.raises(CubeError, match="bands of its shape"):
        metrics.score(pred, true, where[:3])


@pytest.mark.parametrize("name", list(metrics.METRICS["cubefill"]))
def test_every_metric_carries_its_facts(name: str) -> None:
    m = metrics.resolve(name)
    assert m.name == name
    assert m.convention == "cubefill"
    assert m.unit
    assert m.pooling
