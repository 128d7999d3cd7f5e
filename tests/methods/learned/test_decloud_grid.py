"""Cubes of odd size: pixels of the 20 m grid stay together, and no value stops a net."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.engine import gapfill
from cubefill.methods.learned.decloud import BANDS, BANDS_20M
from cubefill.methods.learned.msop import MsopUnet
from cubefill.methods.learned.ssop import SsopUnet
from cubefill.methods.windows import Span
from cubefill.samples.patches import CubeSamples, placed
from cubefill.testing import synthetic_cube
from tests.shared.decloud import NARROW, made
from tests.shared.torch_thread import one_thread as one_thread


def cube(size: tuple[int, int]) -> xr.Dataset:
    """All gap; the 20 m bands are repeats of 2 x 2 pixels."""
    ds = synthetic_cube(3, size, bands=(*BANDS, *BANDS_20M))
    for name in BANDS_20M:
        even = ds[name].values[:, ::2, ::2].repeat(2, 1).repeat(2, 2)[:, : size[0], : size[1]]
        ds[name] = ds[name].copy(data=even)
    return ds.assign(valid=ds["valid"] & False)


@pytest.mark.parametrize("kind", [SsopUnet, MsopUnet])
@pytest.mark.parametrize("size", [(36, 52), (37, 53), (45, 31), (15, 17)])
@pytest.mark.parametrize("blend", ["none", "linear"])
def test_pixels_of_20_m_are_filled_as_one(kind: Any, size: tuple[int, int], blend: str) -> None:
    method = made(kind, **NARROW, bands_20m=BANDS_20M, sar=False, blend=blend)
    filled = gapfill(cube(size), method)["B05"].values
    cells = filled[:, : size[0] // 2 * 2, : size[1] // 2 * 2]
    cells = cells.reshape(3, size[0] // 2, 2, size[1] // 2, 2).swapaxes(2, 3)
    spread = np.ptp(cells.reshape(*cells.shape[:3], 4), axis=-1)
    assert np.isfinite(filled).all()
    assert float(np.std(filled)) > 1e-3
    assert float(spread.max()) <= (0 if blend == "none" else 0.2 * float(np.ptp(filled)))


@pytest.mark.parametrize("blend", ["none", "linear"])
def test_an_odd_cube_does_not_show_its_chunks(blend: str) -> None:
    ds = cube((37, 53))
    method = made(SsopUnet, **NARROW, bands_20m=BANDS_20M, sar=False, blend=blend)
    whole = gapfill(ds, method).compute()
    parts = gapfill(ds.chunk(time=2, y=11, x=16), method, tile=16).compute()
    xr.testing.assert_equal(whole, parts)


def test_values_without_bound_are_no_data() -> None:
    ds = cube((20, 20))
    ds = ds.assign(valid=ds["valid"] | True)
    ds["B02"][1] = np.inf
    ds["B03"][1, 4:9] = np.nan
    hidden = ds.assign(valid=ds["valid"].where(ds["time"] != ds["time"][2], False))
    for kind in (SsopUnet, MsopUnet):
        out = gapfill(hidden, made(kind, **NARROW, sar=False)).compute()
        assert all(np.isfinite(out[b].values[2]).all() for b in BANDS)


def test_patches_to_learn_from_lie_on_the_grid() -> None:
    method = made(SsopUnet, **NARROW, bands_20m=BANDS_20M, sar=False)
    assert method.needs.space == Span(16, 8, align=2)
    ds = cube((37, 53))
    starts = {placed(np.random.default_rng(i), 37, 16, 2).start for i in range(50)}
    assert len(starts) > 3
    assert all(s % 2 == 0 for s in starts)
    given = CubeSamples([ds.assign(valid=ds["valid"] | True)], method, None, count=8)
    for sample in (given[i] for i in range(len(given))):
        cells = sample["target"][4:].reshape(6, 8, 2, 8, 2)
        assert float(np.ptp(cells, axis=(2, 4)).max()) == 0
