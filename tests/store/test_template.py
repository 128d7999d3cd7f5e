import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.storage import LocalStore, MemoryStore

from cubefill import store
from cubefill.errors import CubefillWarning, StoreError
from cubefill.store import template as store_template
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


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
    with pytest.warns(CubefillWarning, match=r"names no CRS, so the store has none.*assign_attrs"):
        opened = store.write_cube(cube, tmp_path / "a.zarr", progress=False)
    same(opened, cube)
    assert "proj:code" not in zarr.open_group(tmp_path / "a.zarr").attrs


def test_times_of_any_resolution_come_back(tmp_path: Path, cube: xr.Dataset) -> None:
    for i, extra in enumerate((0, 1, 1_000, 1_000_000)):
        times = cube.time.values + np.timedelta64(extra, "ns")
        moved = cube[["DEM", "B04"]].assign_coords(time=times)
        store.write_cube(moved, tmp_path / f"{i}.zarr", **SMALL)
        found = store.open_cube(tmp_path / f"{i}.zarr")
        assert_array_equal(found.time.values.astype("M8[ns]"), times.astype("M8[ns]"))


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


def test_a_target_that_exists(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    cube.to_zarr(path, consolidated=False)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"no store that cubefill wrote.*another path"):
            store.create(path, cube, overwrite=overwrite)
    path = tmp_path / "b.zarr"
    store.create(path, cube)
    with pytest.raises(StoreError, match=r"b.zarr exists.*overwrite=True"):
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
