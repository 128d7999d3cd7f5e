import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.errors import CubeError, CubefillWarning, StoreError
from cubefill.methods.contract import Counts
from cubefill.store.ledger import GROUP, Ledger
from cubefill.store.source import StoreSource, find
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


# --- write and open ----------------------------------------------------------------------------


def test_a_cube_comes_back_as_it_was(tmp_path: Path, cube: xr.Dataset) -> None:
    before = cube.copy(deep=True)
    written = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    opened = store.open_cube(tmp_path / "a.zarr")
    for found in (written, opened):
        same(found, cube)
    assert cube.identical(before)
    assert opened.attrs == cube.attrs
    assert opened.encoding["source"] == str(tmp_path / "a.zarr")
    assert opened.time.dtype == "datetime64[ns]"
    assert set(opened.coords) == set(cube.coords)
    assert opened.B04.attrs == cube.B04.attrs
    assert opened.fill_flag.attrs["flag_values"].dtype == np.uint8
    assert {v.encoding["grid_mapping"] for v in opened.data_vars.values()} == {"spatial_ref"}
    source = find(opened.B04)
    assert isinstance(source, StoreSource)
    assert source.counts == Counts()
    assert source.shards == (5, 32, 32)


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 45),
    columns=st.integers(1, 45),
    dates=st.integers(1, 3),
    chunk=st.integers(1, 12),
    per_shard=st.integers(1, 3),
    dask_chunk=st.integers(3, 50) | st.none(),
    profile=st.sampled_from(["default", "fast"]),
)
def test_any_shape_chunk_and_shard(
    rows: int,
    columns: int,
    dates: int,
    chunk: int,
    per_shard: int,
    dask_chunk: int | None,
    profile: Any,
) -> None:
    cube = store_cube(dates, rows, columns)[["B04", "valid", "DEM"]]
    given_cube = cube if dask_chunk is None else cube.chunk(time=1, y=dask_chunk, x=dask_chunk)
    memory = MemoryStore()
    shard = max(chunk * per_shard, chunk * (-(-max(rows, columns) // (chunk * 4))))
    options = {"chunk": chunk, "shard": shard, "profile": profile, "progress": False}
    same(store.write_cube(given_cube, memory, **options), cube)
    assert Ledger(memory).complete


def test_a_store_of_counts_can_be_copied_exactly(tmp_path: Path, cube: xr.Dataset) -> None:
    first = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    store.write_cube(first, tmp_path / "b.zarr", chunk=8, shard=24, progress=False)
    for name in ("B04", "B04_std", "SCL"):
        a, b = (zarr.open_array(tmp_path / s, path=name)[:] for s in ("a.zarr", "b.zarr"))
        assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_other_software_reads_it(tmp_path: Path, cube: xr.Dataset) -> None:
    import rioxarray  # noqa: F401
    from odc.geo.xr import ODCExtension  # noqa: F401

    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    plain = xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False)
    assert set(plain.data_vars) == set(cube.data_vars)
    assert set(plain.coords) == set(cube.coords)
    for name in cube.data_vars:
        np.testing.assert_allclose(plain[name].values, cube[name].values, rtol=1e-6, atol=1e-9)
    assert plain.B04.rio.crs.to_epsg() == 32631
    assert plain.B04.rio.transform(recalc=True)[:6] == (10, 0, 500_000, 0, -10, 5_600_000)
    assert plain.spatial_ref.attrs["GeoTransform"] == "500000.0 10.0 0.0 5600000.0 0.0 -10.0"
    assert_array_equal(plain.time.values, cube.time.values)
    opened = store.open_cube(tmp_path / "a.zarr")
    assert opened.B04.rio.crs.to_epsg() == opened.odc.crs.epsg == 32631
    assert opened.odc.geobox == cube.odc.geobox


def test_geozarr_attributes_and_layout(tmp_path: Path, cube: xr.Dataset) -> None:
    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    root = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]
    assert root["proj:code"] == "EPSG:32631"
    assert root["spatial:transform"] == [10, 0, 500_000, 0, -10, 5_600_000]
    assert root["spatial:bbox"] == [500_000, 5_599_300, 500_500, 5_600_000]
    assert root["spatial:shape"] == [70, 50]
    assert {c["name"] for c in root["zarr_conventions"]} == {"proj", "spatial"}
    array = zarr.open_array(tmp_path / "a.zarr", path="B04")
    assert (array.chunks, array.shards) == ((5, 16, 16), (5, 32, 32))
    meta = json.loads((tmp_path / "a.zarr" / "B04" / "zarr.json").read_text())
    inner = meta["codecs"][0]["configuration"]["codecs"]
    assert [c["name"] for c in inner] == ["bytes", "blosc", "crc32c"]
    blosc = inner[1]["configuration"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"]) == ("zstd", 1, "bitshuffle")
    assert meta["fill_value"] == meta["attributes"]["_FillValue"] == -32768
    scl = json.loads((tmp_path / "a.zarr" / "SCL" / "zarr.json").read_text())
    assert "_FillValue" not in scl["attributes"]


def test_empty_chunks_are_written(tmp_path: Path, cube: xr.Dataset) -> None:
    cube["B04"] = cube.B04 * np.float32("nan")
    store.write_cube(cube[["B04"]], tmp_path / "a.zarr", **SMALL)
    assert len(list((tmp_path / "a.zarr" / "B04" / "c").rglob("*/*/*"))) == 3 * 2


def test_format_2_says_what_it_lacks_and_opens(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.warns(CubefillWarning, match="zarr_format=2 writes no shards") as said:
        store.write_cube(cube, tmp_path / "a.zarr", zarr_format=2, **SMALL)
    assert len(said) == 1
    same(store.open_cube(tmp_path / "a.zarr"), cube)
    plain = xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False)
    for name in cube.data_vars:
        np.testing.assert_allclose(plain[name].values, cube[name].values, rtol=1e-6, atol=1e-9)
    assert (tmp_path / "a.zarr" / "B04" / ".zarray").is_file()


def test_a_tiny_cube_and_one_without_crs(tmp_path: Path) -> None:
    cube = store_cube(1, 1, 1).drop_vars("spatial_ref")
    for variable in cube.variables.values():
        variable.encoding = {}
    opened = store.write_cube(cube, tmp_path / "a.zarr", progress=False)
    same(opened, cube)
    assert "proj:code" not in zarr.open_group(tmp_path / "a.zarr").attrs


def test_dims_in_another_order(tmp_path: Path, cube: xr.Dataset) -> None:
    turned = cube[["B04"]].transpose("y", "x", "time")
    store.write_cube(turned, tmp_path / "a.zarr", **SMALL)
    found = store.open_cube(tmp_path / "a.zarr")
    assert_array_equal(found.B04.transpose("time", "y", "x").values, cube.B04.values)


def test_times_of_any_resolution_come_back(tmp_path: Path, cube: xr.Dataset) -> None:
    for i, extra in enumerate((0, 1, 1_000, 1_000_000)):
        times = cube.time.values + np.timedelta64(extra, "ns")
        moved = cube[["DEM", "B04"]].assign_coords(time=times)
        store.write_cube(moved, tmp_path / f"{i}.zarr", **SMALL)
        found = store.open_cube(tmp_path / f"{i}.zarr")
        assert_array_equal(found.time.values.astype("M8[ns]"), times.astype("M8[ns]"))


def test_the_ledger_is_no_variable(tmp_path: Path, cube: xr.Dataset) -> None:
    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    assert GROUP in zarr.open_group(tmp_path / "a.zarr")
    assert GROUP not in store.open_cube(tmp_path / "a.zarr")


# --- chunks and graphs -------------------------------------------------------------------------


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
    from cubefill.store.reading import aligned_edge

    assert aligned_edge(edge, chunk, shard, size) == expected


# --- foreign cubes -----------------------------------------------------------------------------


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
