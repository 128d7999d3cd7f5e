"""An infinite value is no value: it reaches no method, spreads nowhere and never comes out."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cubefill
from cubefill.methods import METHODS, Block, Filled, Flag, Needs
from cubefill.testing import synthetic_cube
from tests.shared.bad_cases import TINY, WITH_SAR, net
from tests.shared.bad_cases import cube as small
from tests.shared.torch_thread import one_thread as one_thread

PIXEL = sorted(set(METHODS) - {*TINY, *WITH_SAR, "mowing"})
PLACES = [(3, 4, 5, np.inf), (5, 4, 5, -np.inf), (6, 8, 2, np.inf)]


def spoiled(ds: xr.Dataset, bands: list[str]) -> tuple[xr.Dataset, xr.Dataset]:
    """The cube with infinite values that count as clear, and with NaN in their place."""
    infinite, missing = ds.copy(deep=True), ds.copy(deep=True)
    for band in bands:
        for t, y, x, value in PLACES:
            infinite[band][t, y, x], missing[band][t, y, x] = value, np.nan
    for t, y, x, _ in PLACES:
        infinite["valid"][t, y, x] = missing["valid"][t, y, x] = True
    return infinite, missing


ONE, FOUR = ["B04"], ["B02", "B03", "B04", "B08"]


# One band alone runs kernels of its own, which are compiled for this: slow, but for one method.
@pytest.mark.parametrize(
    ("name", "bands"),
    [(n, FOUR) for n in PIXEL]
    + [pytest.param(n, ONE, marks=pytest.mark.slow if n != "linear" else ()) for n in PIXEL],
)
def test_a_pixel_method_takes_infinity_for_nan(name: str, bands: list[str]) -> None:
    infinite, missing = spoiled(synthetic_cube(dates=14), bands)
    out = infinite.gapfill(name).compute()
    xr.testing.assert_equal(out, missing.gapfill(name).compute())
    assert not any(np.isinf(v).any() for v in out.data_vars.values())


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_net_takes_infinity_for_nan(name: str) -> None:
    ds = small(dates=12, size=(16, 16))
    infinite, missing = spoiled(ds, ["B04"])
    for n in ("VV", "VH"):
        infinite[n][3, 4, 5], missing[n][3, 4, 5] = -np.inf, np.nan
    out = infinite.gapfill(name, checkpoint=net(name)).compute()
    xr.testing.assert_equal(out, missing.gapfill(name, checkpoint=net(name)).compute())
    assert not any(np.isinf(v).any() for v in out.data_vars.values())


@pytest.mark.parametrize("chunks", [None, {"y": 7, "x": 5}])
def test_a_store_and_its_fill_hold_no_infinity(
    tmp_path: Path, chunks: dict[str, int] | None
) -> None:
    infinite, missing = spoiled(synthetic_cube(), ["B04", "B08"])
    for k, ds in enumerate((infinite, missing)):
        lazy = ds if chunks is None else ds.chunk(chunks)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cubefill.write_cube(lazy, tmp_path / f"{k}.zarr", progress=False)
        cubefill.run(
            tmp_path / f"{k}.zarr", tmp_path / f"{k}f.zarr", "linear", ndvi=True, progress=False
        )
    for end in (".zarr", "f.zarr"):
        one, other = (cubefill.open_cube(tmp_path / f"{k}{end}").compute() for k in (0, 1))
        xr.testing.assert_equal(one, other)


def test_ndvi_of_infinity_is_nan() -> None:
    infinite, missing = spoiled(synthetic_cube(), ["B08"])
    xr.testing.assert_equal(infinite.gapfill.ndvi(), missing.gapfill.ndvi())


def test_infinity_that_a_method_makes_never_comes_out() -> None:
    class Beyond:
        needs = Needs()
        flag = Flag.INTERPOLATED

        def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
            for block in blocks:
                made = np.where(np.isfinite(block.optical), block.optical, np.float32("inf"))
                yield block.filled(made)

    ds = synthetic_cube()
    out = ds.gapfill(Beyond()).compute()
    gap = ~ds["valid"].values
    assert np.isnan(out["B04"].values[gap]).all()
    assert (out["fill_flag"].values[gap] == Flag.UNFILLABLE).all()
