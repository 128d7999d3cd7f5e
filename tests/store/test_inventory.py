"""What a cube holds: sizes, dates, grid, shares, provenance."""

import json
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import cubefill
from cubefill.store import inventory
from cubefill.store.ledger import Ledger
from cubefill.testing import synthetic_cube


def test_a_cube_in_memory() -> None:
    ds = synthetic_cube()
    found = inventory.take(ds)
    assert found.bands == cubefill.cube.spectral(ds)
    assert found.sizes == {str(d): n for d, n in ds.sizes.items()}
    assert len(found.dates) == ds.sizes["time"]
    assert found.clear == pytest.approx(float(ds["valid"].mean()))
    assert found.flags == {}
    assert found.complete is None
    json.dumps(found.as_dict(), default=str)


def test_a_filled_cube_has_shares_of_flags() -> None:
    out = synthetic_cube().gapfill("linear").compute()
    found = inventory.take(out)
    codes, counts = np.unique(out["fill_flag"], return_counts=True)
    wanted = {
        cubefill.Flag(c).name.lower(): n / counts.sum() for c, n in zip(codes, counts, strict=True)
    }
    assert found.flags == pytest.approx(wanted)
    assert "gapfill_method" in str(found)


def test_a_large_cube_is_sampled() -> None:
    ds = synthetic_cube()
    side = 256 * 20
    read: list[tuple[int, ...]] = []

    def block(values: np.ndarray) -> np.ndarray:
        read.append(values.shape)
        return values

    zeros = da.zeros((2, side, side), chunks=(2, 256, 256), dtype=bool)
    valid = zeros.map_blocks(block, dtype=bool, meta=np.empty((0, 0, 0), bool))
    large = (
        ds[["B04"]]
        .isel(time=slice(0, 2), y=[0] * side, x=[0] * side)
        .chunk({"y": 256, "x": 256})
        .assign(valid=(("time", "y", "x"), valid))
    )
    assert inventory.take(large).clear == 0
    assert len(read) <= inventory.WINDOWS**2


def test_a_store_knows_whether_it_is_complete(tmp_path: Path) -> None:
    cubefill.write_cube(synthetic_cube(), tmp_path / "c.zarr", progress=False)
    found = inventory.of_store(tmp_path / "c.zarr")
    assert found.complete is Ledger(tmp_path / "c.zarr").complete is True
    assert "complete    yes" in str(found)


def test_without_shares_no_pixel_is_read() -> None:
    def refuse(values: np.ndarray) -> np.ndarray:
        raise AssertionError("a pixel was read")

    ds = synthetic_cube()
    lazy = ds.chunk().map(lambda v: v.copy(data=v.data.map_blocks(refuse, meta=v.data._meta)))
    assert inventory.take(lazy, shares=False).clear is None
