import pickle
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.testing import assert_array_equal
from zarr.storage import LocalStore, MemoryStore

from cubefill.errors import StoreError
from cubefill.methods.contract import Counts
from cubefill.store.source import (
    ArraySource,
    LazySource,
    Source,
    StoreSource,
    as_dask,
    describe,
    find,
    place,
    sources_of,
)

ALL = slice(None)
SHAPE = (4, 30, 20)
DIMS = ("time", "y", "x")


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.integers(-32768, 32768, SHAPE).astype(np.int16)
    values[0, :3] = -32768
    return values


@pytest.fixture
def stored(tmp_path: Path, counts: np.ndarray) -> StoreSource:
    path = str(tmp_path / "a.zarr")
    array = zarr.create_array(path, name="B04", data=counts, chunks=(4, 8, 8))
    return StoreSource(
        path, "B04", SHAPE, np.dtype("f4"), array.dtype, array.chunks, None, 1e-4, 0.0, -32768, "v1"
    )


def test_values_follow_the_formula_of_the_contract(
    stored: StoreSource,
    counts: np.ndarray,
) -> None:
    index = (ALL, slice(2, 17), slice(5, 20))
    expected = counts[index].astype(np.float32) * np.float32(1e-4)
    expected[counts[index] == -32768] = np.nan
    found = stored.read(index)
    assert found.dtype == np.float32
    assert_array_equal(found, expected)
    assert_array_equal(stored.read_counts(index), counts[index])
    assert stored.counts == Counts(1e-4, -32768)
    assert isinstance(stored, Source)


@pytest.mark.parametrize(
    ("stored_type", "decoded"),
    [("bool", "bool"), ("uint8", "uint8"), ("float32", "float32"), ("int8", "bool")],
)
def test_other_types_pass_through(stored_type: str, decoded: str) -> None:
    memory = MemoryStore()
    values = (np.arange(20).reshape(4, 5) % 2).astype(stored_type)
    zarr.create_array(memory, name="DEM", data=values)
    source = StoreSource(memory, "DEM", values.shape, np.dtype(decoded), values.dtype, values.shape)
    assert source.counts is None
    assert source.read((slice(1, 3), ALL)).dtype == decoded
    assert_array_equal(source.read((slice(1, 3), ALL)), values[1:3].astype(decoded))


def test_pickles_without_data_and_without_the_open_array(stored: StoreSource) -> None:
    stored.read((ALL, ALL, ALL))
    assert len(pickle.dumps(stored)) < 1000
    again = pickle.loads(pickle.dumps(stored))
    assert again == stored
    assert_array_equal(again.read((ALL, ALL, ALL)), stored.read((ALL, ALL, ALL)))
    assert dask.base.tokenize(again) == dask.base.tokenize(stored)


def test_a_new_identity_opens_the_array_anew(stored: StoreSource) -> None:
    assert stored.read((ALL, ALL, ALL)).shape == SHAPE
    zarr.create_array(
        stored.store, name="B04", data=np.zeros(SHAPE, np.int16), chunks=(4, 30, 20), overwrite=True
    )
    other = StoreSource(**{**vars(stored), "identity": "v2", "chunks": (4, 30, 20)})
    assert not other.read((ALL, ALL, ALL)).any()
    assert dask.base.tokenize(other) != dask.base.tokenize(stored)


def test_a_damaged_chunk_is_named(tmp_path: Path, stored: StoreSource) -> None:
    chunk = tmp_path / "a.zarr" / "B04" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(StoreError, match=r"B04 of .*a.zarr cannot be read at 0:4, 0:8, 0:8"):
        stored.read((slice(0, 4), slice(0, 8), slice(0, 8)))


def test_views_of_an_array_are_read_only() -> None:
    values = np.zeros(SHAPE, np.float32)
    view = ArraySource(values).read((ALL, slice(0, 2), ALL))
    assert np.shares_memory(view, values)
    with pytest.raises(ValueError, match="read-only"):
        view[:] = 1
    values[:] = 1
    assert isinstance(ArraySource(values), Source)


def test_find_sees_an_untouched_array_and_nothing_else(stored: StoreSource) -> None:
    ds = xr.Dataset({"B04": (DIMS, as_dask(stored, (4, 16, 16)))})
    untouched = {
        "itself": ds.B04,
        "variable": ds.B04.variable,
        "rename": ds.rename(B04="red").red,
        "rename dims": ds.rename(y="northing").B04,
        "assign_attrs": ds.B04.assign_attrs(units="1"),
        "assign_coords": ds.assign_coords(time=np.arange(4)).B04,
        "copy": ds.copy().B04,
        "deep copy": ds.copy(deep=True).B04,
        "selection": ds[["B04"]].B04,
        "same chunks": ds.chunk(x=16).B04,
        "whole isel": ds.isel(x=slice(None)).B04,
    }
    for name, found in untouched.items():
        assert find(found) == stored, name
    touched = {
        "isel": ds.B04.isel(x=slice(0, 16)),
        "isel int": ds.B04.isel(time=0),
        "sum": ds.B04 + 0,
        "where": ds.B04.where(ds.B04 > 0),
        "rechunk": ds.B04.chunk(x=-1),
        "transpose": ds.B04.transpose("y", "x", "time"),
        "astype": ds.B04.astype("f8"),
        "fillna": ds.B04.fillna(0),
        "map_blocks": ds.B04.copy(data=ds.B04.data.map_blocks(np.abs, dtype="f4")),
        "foreign": ds.B04.copy(data=da.zeros(SHAPE, chunks=(4, 16, 16))),
    }
    for name, found in touched.items():
        assert find(found) is None, name


def test_find_after_pickling_in_the_same_process(stored: StoreSource) -> None:
    variable = xr.Variable(DIMS, as_dask(stored, (4, 16, 16)))
    again = pickle.loads(pickle.dumps(variable))
    assert find(again) in (stored, None)
    assert_array_equal(again.values, stored.read((ALL, ALL, ALL)))


def test_find_forgets_what_no_graph_holds(counts: np.ndarray) -> None:
    source = ArraySource(counts)
    array = as_dask(source, SHAPE)
    assert find(xr.Variable(DIMS, array)) is source
    name = array.name
    del array, source
    fake = da.zeros(SHAPE, chunks=SHAPE, dtype=np.int16, name=name)
    assert find(xr.Variable(DIMS, fake)) is None


def test_find_gives_values_in_memory_and_lazy_files(tmp_path: Path) -> None:
    memory = xr.Variable(DIMS, np.ones(SHAPE, np.float32))
    found = find(memory)
    assert isinstance(found, ArraySource)
    assert np.shares_memory(found.read((ALL, ALL, ALL)), memory.values)
    xr.Dataset({"a": memory}).to_zarr(tmp_path / "a.zarr", consolidated=False)
    lazy = xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False).a
    source = find(lazy)
    assert isinstance(source, LazySource)
    assert source.read((slice(1, 3), ALL, ALL)).shape == (2, 30, 20)
    assert not lazy.variable._in_memory
    assert_array_equal(as_dask(source, (4, 16, 16)).compute(), 1)


def test_one_task_a_chunk_and_slices_reach_the_store(stored: StoreSource) -> None:
    array = as_dask(stored, (4, 16, 16))
    assert len(array.__dask_graph__()) == 2 * 2
    assert array.dtype == np.float32
    whole = stored.read((ALL, ALL, ALL))
    assert_array_equal(array.compute(), whole)
    for index in ((2, 5, 7), (ALL, slice(3, 9), 4), (slice(0, 4, 2), slice(1, 30, 3), ALL)):
        assert_array_equal(array[index].compute(), whole[index])
    assert_array_equal(array[:, None, [3, 9]].compute(), whole[:, None, [3, 9]])
    assert as_dask(stored, (4, 16, 16)).name == array.name


def test_sources_are_seen_through_operations(stored: StoreSource) -> None:
    ds = xr.Dataset({"B04": (DIMS, as_dask(stored, (4, 16, 16)))})
    assert sources_of((ds * 2).isel(x=slice(0, 3))) == [stored]
    assert sources_of(xr.Dataset({"a": ("x", np.zeros(3))})) == []


def test_place_keeps_what_can_be_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place("a.zarr") == str(tmp_path / "a.zarr") == place(Path("a.zarr"))
    assert place(LocalStore(tmp_path / "a.zarr")) == str(tmp_path / "a.zarr")
    memory = MemoryStore()
    assert place(memory) is memory
    assert describe("/x/a.zarr") == "/x/a.zarr"
    assert describe(memory) == "MemoryStore"
    with pytest.raises(StoreError, match="Expected a store"):
        place(3)
    with pytest.raises(StoreError, match="expected a URL"):
        place("a.zarr", {"anon": True})
    remote = place("memory://bucket/a.zarr")
    assert "bucket" in describe(remote)
