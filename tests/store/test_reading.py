import os
import time
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cubefill import store
from cubefill.cube.counts import Counts
from cubefill.errors import CubeError, CubefillWarning, StoreError
from cubefill.store.reading import aligned_edge
from cubefill.store.source import StoreSource, find
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


def big_template() -> xr.Dataset:
    shape = (73, 10980, 10980)
    names = dict.fromkeys(("B02", "B03", "B04", "B08"), np.float32) | {"SCL": np.uint8}
    return xr.Dataset(
        {
            n: (("time", "y", "x"), da.zeros(shape, dtype=t, chunks=(73, 1024, 1024)))
            for n, t in names.items()
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(73) * np.timedelta64(5, "D"),
            "y": 5_600_000 - 10.0 * np.arange(10980) - 5,
            "x": 500_000 + 10.0 * np.arange(10980) + 5,
        },
    )


def test_a_whole_mgrs_tile_is_laid_out_and_opened_in_a_second(tmp_path: Path) -> None:
    start = time.perf_counter()
    store.create(tmp_path / "a.zarr", big_template(), fingerprint={"a": 1}, finish="more()")
    laid_out = time.perf_counter()
    with pytest.warns(CubefillWarning, match=r"121 of 121 tiles are missing.*Use more\(\)"):
        ds = store.open_cube(tmp_path / "a.zarr")
    tasks = len(ds[["B02", "B03", "B04", "B08"]].__dask_graph__())
    assert time.perf_counter() - laid_out < 1
    assert laid_out - start < 1
    assert tasks == 4 * 22 * 22
    assert ds.B04.data.chunksize == (73, 512, 512)
    assert not list((tmp_path / "a.zarr" / "B04").glob("c"))
    assert np.isnan(ds.B04[3, 5000, 5000].values)


def test_chunks_can_be_given(tmp_path: Path, cube: xr.Dataset) -> None:
    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    ds = store.open_cube(tmp_path / "a.zarr", chunks={"y": 20, "x": -1, "time": 2})
    assert ds.B04.data.chunksize == (2, 20, 50)
    assert ds.DEM.data.chunksize == (20, 50)


@pytest.mark.parametrize(
    ("chunk", "shard", "size", "edge", "expected"),
    [
        (256, 1024, 10980, 678, 512),
        (256, 1024, 10980, 5000, 1024),
        (256, 768, 10980, 678, 256),
        (64, 64, 64, 678, 64),
        (1024, 1024, 10980, 678, 1024),
        (10980, 10980, 10980, 678, 678),
    ],
)
def test_dask_chunks_align(chunk: int, shard: int, size: int, edge: int, expected: int) -> None:

    assert aligned_edge(edge, chunk, shard, size) == expected


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_cubes_that_xarray_wrote(tmp_path: Path, cube: xr.Dataset, zarr_format: Any) -> None:
    packed = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768}
    encoding: dict[str, Any] = {"B08": packed}
    foreign = cube.drop_vars(["VV", "sar_time", "orbit"])
    foreign["B12"] = foreign.B04.astype("f8")
    encoding["B12"] = {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1} | {
        "_FillValue": 0
    }
    foreign["B12"] = foreign["B12"].clip(0, 2)
    foreign.to_zarr(
        tmp_path / "a.zarr", zarr_format=zarr_format, encoding=encoding, consolidated=False
    )
    ds = store.open_cube(tmp_path / "a.zarr")
    assert {str(v.dtype) for v in ds.data_vars.values()} == {"float32", "uint8", "bool"}
    for name in foreign.data_vars:
        np.testing.assert_allclose(ds[name].values, foreign[name].values, atol=6e-5)
    source = find(ds.B08)
    assert isinstance(source, StoreSource)
    assert source.counts == Counts()
    assert ds.odc.crs.epsg == 32631


def test_consolidated_stores_open_without_a_warning(tmp_path: Path, cube: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cube.to_zarr(tmp_path / "a.zarr", consolidated=True)
    same(store.open_cube(tmp_path / "a.zarr")[list(cube.data_vars)], cube)


def test_a_foreign_store_changes_its_identity(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    cube.to_zarr(path, consolidated=False)
    first = store.open_cube(path)
    assert store.open_cube(path).B04.data.name == first.B04.data.name
    os.utime(path / "zarr.json", (2e9, 2e9))
    assert store.open_cube(path).B04.data.name != first.B04.data.name


def test_no_store_and_no_cube(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none.zarr is no zarr store"):
        store.open_cube(tmp_path / "none.zarr")
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "b.zarr", consolidated=False)
    with pytest.raises(CubeError):
        store.open_cube(tmp_path / "b.zarr")


def test_a_flipped_byte_is_an_error(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(cube, path, **SMALL)
    shard = path / "B04" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 11).astype(int):
        broken = bytearray(whole)
        broken[at] ^= 0b100
        shard.write_bytes(bytes(broken))
        with pytest.raises(StoreError, match=r"B04 of .*a.zarr cannot be read at"):
            store.open_cube(path).B04[:, :32, :32].compute(scheduler="synchronous")
    shard.write_bytes(whole)
    same(store.open_cube(path), cube)
