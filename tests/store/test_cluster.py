import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.errors import StoreError
from cubefill.store.ledger import Ledger
from cubefill.store.workers import memory_of
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


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
