import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.errors import CubefillWarning, StoreError
from cubefill.store import workers as store_write
from cubefill.store.ledger import Ledger
from cubefill.store.workers import memory_of
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


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


def test_workers_write_the_same_store(
    tmp_path: Path, cube: xr.Dataset, cluster_client: Any
) -> None:
    lazy = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    seen: list[int] = []
    options = SMALL | {"progress": lambda done, total, info: seen.append(done)}
    found = store.write_cube(lazy, tmp_path / "b.zarr", client=cluster_client, **options)
    same(found, cube)
    assert seen == list(range(7))
    mixed = cube.assign(B04=lazy.B04 * np.float32(2))
    found = store.write_cube(mixed, tmp_path / "c.zarr", client=cluster_client, **SMALL)
    np.testing.assert_allclose(found.B04.values, 2 * cube.B04.values, rtol=1e-5)


def broken(cube: xr.Dataset, fails: Callable[[], bool]) -> xr.Dataset:
    """B04 of a cube, whose first block that is computed while `fails` says so raises."""

    def fail(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if fails():
            raise RuntimeError("injected")
        return block

    lazy = cube[["B04"]].chunk(y=32, x=32)
    data = lazy.B04.data.map_blocks(fail, dtype="f4", meta=lazy.B04.data._meta)
    return lazy.assign(B04=lazy.B04.copy(data=data))


def test_a_failure_on_a_worker_leaves_a_store_that_resumes(
    tmp_path: Path, cube: xr.Dataset, cluster_client: Any
) -> None:
    flag = tmp_path / "fail"
    flag.touch()
    lazy = broken(cube, lambda: os.path.exists(flag))
    with pytest.raises(RuntimeError, match="injected"):
        store.write_cube(lazy, tmp_path / "a.zarr", client=cluster_client, **SMALL)
    assert not Ledger(tmp_path / "a.zarr").complete
    flag.unlink()
    found = store.write_cube(lazy, tmp_path / "a.zarr", client=cluster_client, **SMALL)
    same(found, cube[["B04"]])


def test_a_tile_that_fails_once_on_a_worker_is_tried_again(
    tmp_path: Path, cube: xr.Dataset, cluster_client: Any
) -> None:
    def once() -> bool:
        try:
            os.remove(tmp_path / "fail")
        except FileNotFoundError:
            return False
        return True

    (tmp_path / "fail").touch()
    lazy = broken(cube, once)
    same(store.write_cube(lazy, tmp_path / "a.zarr", client=cluster_client, **SMALL), cube[["B04"]])
    assert not (tmp_path / "fail").exists()


def test_a_store_in_memory_is_refused_by_a_cluster(cube: xr.Dataset, cluster_client: Any) -> None:
    with pytest.raises(StoreError, match="lives in one process"):
        store.write_cube(cube, MemoryStore(), client=cluster_client, **SMALL)


@pytest.mark.slow
def test_worker_processes_write_the_same_store(
    tmp_path: Path, cube: xr.Dataset, process_client: Any
) -> None:
    lazy = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    same(store.write_cube(lazy, tmp_path / "b.zarr", client=process_client, **SMALL), cube)


def test_the_budget_of_a_cluster_is_that_of_its_workers() -> None:
    class Client:
        def scheduler_info(self, n_workers: int) -> dict[str, dict[str, dict[str, int]]]:
            return {"workers": {"a": {"memory_limit": 10}, "b": {"memory_limit": 20}}}

    assert memory_of(Client()) == 18
