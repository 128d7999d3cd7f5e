import logging
import os
from collections.abc import Callable
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
from cubefill.store import workers as store_write
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


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
        assert "Stopped. Use cubefill.write_cube(ds" in caplog.text
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


def test_a_cube_is_not_written_into_its_own_store(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    opened = store.write_cube(cube, path, **SMALL)
    with pytest.raises(StoreError, match="is where the cube is read from"):
        store.write_cube(opened * 2, path, overwrite=True, **SMALL)
    same(store.open_cube(path), cube)


def test_no_grid_and_odd_shards(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="no dimension y: expected y and x, found time, x"):
        store.write_cube(cube[["B04"]].isel(y=0), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"multiple of the chunk. Pass shard=768"):
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
