import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.errors import StoreError
from cubefill.store.ledger import Ledger
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


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
