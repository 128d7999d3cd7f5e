import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
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
from zarr.storage import LocalStore, MemoryStore

from cubefill import store, store_template, store_write
from cubefill.errors import CubeError, CubefillWarning, StoreError
from cubefill.ledger import GROUP, Ledger
from cubefill.method import Counts
from cubefill.source import StoreSource, find
from tests.store_cube import store_cube

SMALL: dict[str, Any] = {"chunk": 16, "shard": 32, "progress": False}


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert list(found.data_vars) == list(expected.data_vars)
    for name in expected.variables:
        assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))
    for name in expected.data_vars:
        assert found[name].dtype == expected[name].dtype
        assert found[name].dims == expected[name].dims


@pytest.fixture
def cube() -> xr.Dataset:
    return store_cube()


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
    with pytest.warns(CubefillWarning, match=r"121 of 121 tiles are missing.*Type more\(\)"):
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
    from cubefill.store_open import aligned_edge

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


# --- resume ------------------------------------------------------------------------------------


class Failing:
    """`write_tile` that fails at its n-th call, and counts."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at, self.error, self.calls = at, error, 0
        self.real = store_write.write_tile

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.error("injected")
        return self.real(*args)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_broken_run_goes_on_where_it_stopped(
    tmp_path: Path,
    cube: xr.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing = Failing(4, error)
    with monkeypatch.context() as patch:
        patch.setattr(store_write, "write_tile", failing)
        with pytest.raises(error, match="injected"):
            store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    if error is KeyboardInterrupt:
        assert "Stopped. Type cubefill.write_cube(ds" in caplog.text
    with pytest.warns(CubefillWarning, match=r"3 of 6 tiles are missing.*write_cube\(ds, '/"):
        part = store.open_cube(tmp_path / "a.zarr")
    assert np.isnan(part.B04[:, -1, -1]).all()
    steps: list[tuple[int, int]] = []
    counting = Failing(-1, error)
    monkeypatch.setattr(store_write, "write_tile", counting)
    options = SMALL | {"progress": lambda done, total, info: steps.append((done, total))}
    same(store.write_cube(cube, tmp_path / "a.zarr", **options), cube)
    assert counting.calls == 3
    assert steps == [(3, 6), (4, 6), (5, 6), (6, 6)]
    same(store.write_cube(cube, tmp_path / "a.zarr", **SMALL), cube)
    assert counting.calls == 3


def test_other_content_on_the_same_path_is_refused(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(cube, path, **SMALL)
    changes: dict[str, Callable[[], xr.Dataset]] = {
        r"variables.SCL is .* there, absent here": lambda: cube.drop_vars("SCL"),
        r"time.steps is 5 there, 4 here": lambda: cube.isel(time=slice(4)),
        r"variables.valid.attrs.comment is 'made up' there, 'other' here": lambda: cube.assign(
            valid=cube.valid.assign_attrs(comment="other")
        ),
        r"variables.B04.sample": lambda: cube.assign(B04=cube.B04 + np.float32(0.01)),
        r"grid.transform": lambda: cube.assign_coords(x=cube.x + 10),
    }
    for message, change in changes.items():
        with pytest.raises(StoreError, match=message):
            store.write_cube(change(), path, **SMALL)
    with pytest.raises(StoreError, match="profile is 'default' there, 'fast' here"):
        store.write_cube(cube, path, profile="fast", **SMALL)
    with pytest.raises(StoreError, match=r"exists.*resume=True.*overwrite=True"):
        store.write_cube(cube, path, resume=False, **SMALL)
    newer = cube.assign_attrs(history="made again")
    same(store.write_cube(newer, path, **SMALL), cube)
    less = cube.drop_vars("SCL")
    same(store.write_cube(less, path, overwrite=True, **SMALL), less)


def test_a_changed_input_is_refused(tmp_path: Path, cube: xr.Dataset) -> None:
    first = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    store.write_cube(first * np.float32(0.5), tmp_path / "b.zarr", **SMALL)
    again = store.open_cube(tmp_path / "a.zarr") * np.float32(0.5)
    store.write_cube(again, tmp_path / "b.zarr", **SMALL)
    newer = store.write_cube(cube, tmp_path / "a.zarr", overwrite=True, **SMALL)
    with pytest.raises(StoreError, match=r"variables.B04.sources is \['B04 of"):
        store.write_cube(newer * np.float32(0.5), tmp_path / "b.zarr", **SMALL)


def test_an_overwritten_store_is_another_source(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    first = store.write_cube(cube, path, **SMALL)
    first_name = first.B04.data.name
    darker = cube.assign(B04=cube.B04 * 0)
    second = store.write_cube(darker, path, overwrite=True, **SMALL)
    assert second.B04.data.name != first_name
    same(second, darker)


def test_a_creation_that_was_cut_short_counts_as_absent(
    tmp_path: Path, cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store_template._create_array

    def fail(group: Any, template: xr.DataArray, *args: Any) -> None:
        if template.name == "SCL":
            raise KeyboardInterrupt
        real(group, template, *args)

    with monkeypatch.context() as patch:
        patch.setattr(store_template, "_create_array", fail)
        with pytest.raises(KeyboardInterrupt):
            store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    same(store.write_cube(cube, tmp_path / "a.zarr", **SMALL), cube)


# --- refusals ----------------------------------------------------------------------------------


def test_a_target_that_exists(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    cube.to_zarr(path, consolidated=False)
    with pytest.raises(StoreError, match=r"a.zarr exists.*overwrite=True"):
        store.create(path, cube)
    with pytest.raises(StoreError, match=r"no record of tiles.*overwrite=True"):
        store.write_cube(cube, path, **SMALL)
    same(store.write_cube(cube, path, overwrite=True, **SMALL), cube)


def test_what_is_no_store_is_never_removed(tmp_path: Path, cube: xr.Dataset) -> None:
    folder, file = tmp_path / "photos", tmp_path / "file"
    folder.mkdir()
    (folder / "cat.jpg").write_text("meow")
    file.write_text("text")
    for path in (folder, file):
        with pytest.raises(StoreError, match=r"is no zarr store.*left"):
            store.write_cube(cube, path, overwrite=True, **SMALL)
    assert (folder / "cat.jpg").read_text() == "meow"
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    same(store.write_cube(cube, empty, **SMALL), cube)


def test_a_parent_that_is_missing(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.raises(StoreError, match=r"no parent folder.*os.makedirs\("):
        store.write_cube(cube, tmp_path / "no" / "such" / "a.zarr", **SMALL)
    assert not (tmp_path / "no").exists()


def test_a_target_that_cannot_be_written(
    tmp_path: Path, cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(StoreError, match=r"cannot be written.*write permission"):
            store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    locked = LocalStore(tmp_path, read_only=True)
    with pytest.raises(StoreError, match="read-only"):
        store.write_cube(cube, locked, **SMALL)

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(StoreError, match=r"cannot be written \(OSError.*No space left"):
        store.write_cube(cube, tmp_path / "a.zarr", **SMALL)


def test_a_cube_is_not_written_into_its_own_store(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    opened = store.write_cube(cube, path, **SMALL)
    with pytest.raises(StoreError, match="is where the cube is read from"):
        store.write_cube(opened * 2, path, overwrite=True, **SMALL)
    same(store.open_cube(path), cube)


def test_no_grid_and_odd_shards(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="no dimension y: expected y and x, found time, x"):
        store.write_cube(cube[["B04"]].isel(y=0), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"multiple of the chunk. Type shard=768"):
        store.write_cube(cube, tmp_path / "a.zarr", shard=1000)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_regions_are_whole_shards_or_refused(data: st.DataObject) -> None:
    memory = aligned_store()
    size, unit = 50, 32
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    index = (slice(0, 5), slice(0, 64), slice(start, stop))
    values = np.ones((5, 64, stop - start), np.float32)
    if start % unit == 0 and (stop % unit == 0 or stop == size):
        assert store.write_region(memory, "B04", index, values) == 0
        return
    with pytest.raises(StoreError, match=rf"dimension 'x' \(size 50\).*whole shards of {unit}"):
        store.write_region(memory, "B04", index, values)


def aligned_store() -> MemoryStore:
    if "aligned" not in _STORES:
        _STORES["aligned"] = MemoryStore()
        cube = store_cube(5, 70, 50)[["B04"]]
        store.create(_STORES["aligned"], cube, chunk=16, shard=32)
    return _STORES["aligned"]


_STORES: dict[str, MemoryStore] = {}


def test_a_region_of_another_shape_or_name(cube: xr.Dataset) -> None:
    memory = aligned_store()
    index = (slice(None), slice(0, 32), slice(0, 32))
    with pytest.raises(StoreError, match=r"shape \(5, 32, 32\), got \(5, 32, 31\)"):
        store.write_region(memory, "B04", index, np.ones((5, 32, 31), np.float32))
    with pytest.raises(StoreError, match=r"3 slices \(time, y, x\), got 2"):
        store.write_region(memory, "B04", index[1:], np.ones((32, 32), np.float32))
    with pytest.raises(StoreError, match="no variable 'B99'"):
        store.write_region(memory, "B99", index, np.ones((5, 32, 32), np.float32))


def test_counts_are_written_as_they_are() -> None:
    memory = aligned_store()
    index = (slice(None), slice(64, 70), slice(0, 32))
    counts = np.full((5, 6, 32), -7, np.int16)
    assert store.write_region(memory, "B04", index, counts) == 0
    assert_array_equal(zarr.open_array(memory, path="B04")[index], counts)
    assert store.write_region(memory, "B04", index, np.full((5, 6, 32), 4.0)) == 5 * 6 * 32


def test_a_flipped_byte_is_an_error(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(cube, path, **SMALL)
    shard = path / "B04" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 25).astype(int):
        broken = bytearray(whole)
        broken[at] ^= 0b100
        shard.write_bytes(bytes(broken))
        with pytest.raises(StoreError, match=r"B04 of .*a.zarr cannot be read at"):
            store.open_cube(path).B04[:, :32, :32].compute(scheduler="synchronous")
    shard.write_bytes(whole)
    same(store.open_cube(path), cube)


# --- what is said ------------------------------------------------------------------------------


def test_clipped_values_are_counted_and_said_once(tmp_path: Path, cube: xr.Dataset) -> None:
    values = cube.B04.values.copy()
    values[:, ::10, ::10] = 5.0
    values[0, 1, 1] = -4.0
    many = cube[["B04", "B08"]].assign(B04=cube.B04.copy(data=values))
    expected = 5 * 7 * 5 + 1
    with pytest.warns(CubefillWarning, match=rf"{expected} values .*B04: {expected}") as said:
        found = store.write_cube(many.chunk(y=16), tmp_path / "a.zarr", **SMALL)
    assert len(said) == 1
    assert found.B04.attrs["clipped_values"] == expected
    assert "clipped_values" not in found.B08.attrs
    np.testing.assert_allclose(found.B04.values[0, 0, 0], 3.2767)


def test_resampled_reflectance_is_said_once_and_recorded(
    tmp_path: Path, cube: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    exact = cube[["B04", "B08", "VV"]]
    with caplog.at_level(logging.INFO, "cubefill"):
        store.write_cube(exact, tmp_path / "a.zarr", **SMALL)
        assert "rounded" not in caplog.text
        resampled = exact.assign(B04=cube.B04 * np.float32(0.37))
        found = store.write_cube(resampled, tmp_path / "b.zarr", **SMALL)
    assert [r.message for r in caplog.records if "rounded" in r.message] == [
        "B04: values lie between counts (resampled?); they are rounded to multiples of 0.0001."
    ]
    assert found.B04.attrs["rounded_to"] == 1e-4
    assert "rounded_to" not in found.B08.attrs
    np.testing.assert_allclose(found.B04.values, resampled.B04.values, atol=0.5001e-4)


# --- a cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client

    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"
    ) as opened:
        yield opened


def test_workers_write_the_same_store(tmp_path: Path, cube: xr.Dataset, client: Any) -> None:
    lazy = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    seen: list[int] = []
    options = SMALL | {"progress": lambda done, total, info: seen.append(done)}
    found = store.write_cube(lazy, tmp_path / "b.zarr", client=client, **options)
    same(found, cube)
    assert seen == list(range(7))
    mixed = cube.assign(B04=lazy.B04 * np.float32(2))
    found = store.write_cube(mixed, tmp_path / "c.zarr", client=client, **SMALL)
    np.testing.assert_allclose(found.B04.values, 2 * cube.B04.values, rtol=1e-5)


def test_a_failure_on_a_worker_leaves_a_store_that_resumes(
    tmp_path: Path, cube: xr.Dataset, client: Any
) -> None:
    flag = tmp_path / "fail"
    flag.touch()

    def fail_once(block: np.ndarray[Any, Any], path: str) -> np.ndarray[Any, Any]:
        if os.path.exists(path):
            os.remove(path)
            raise RuntimeError("injected")
        return block

    lazy = cube[["B04"]].chunk(y=32, x=32)
    data = lazy.B04.data.map_blocks(fail_once, path=str(flag), dtype="f4", meta=lazy.B04.data._meta)
    lazy = lazy.assign(B04=lazy.B04.copy(data=data))
    with pytest.raises(RuntimeError, match="injected"):
        store.write_cube(lazy, tmp_path / "a.zarr", client=client, **SMALL)
    assert not Ledger(tmp_path / "a.zarr").complete
    same(store.write_cube(lazy, tmp_path / "a.zarr", client=client, **SMALL), cube[["B04"]])


def test_a_store_in_memory_is_refused_by_a_cluster(cube: xr.Dataset, client: Any) -> None:
    with pytest.raises(StoreError, match="lives in one process"):
        store.write_cube(cube, MemoryStore(), client=client, **SMALL)


@pytest.mark.slow
def test_worker_processes_write_the_same_store(tmp_path: Path, cube: xr.Dataset) -> None:
    from distributed import Client

    lazy = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as opened:
        same(store.write_cube(lazy, tmp_path / "b.zarr", client=opened, **SMALL), cube)


def test_the_ledger_is_no_variable(tmp_path: Path, cube: xr.Dataset) -> None:
    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    assert GROUP in zarr.open_group(tmp_path / "a.zarr")
    assert GROUP not in store.open_cube(tmp_path / "a.zarr")
