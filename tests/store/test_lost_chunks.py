"""A chunk of ours that is gone is an error; one that was never written reads as no data."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.engine.job import run
from cubefill.errors import CubefillWarning, JobError, StoreError
from cubefill.store.template import consolidate
from tests.shared.store_cube import SMALL, same, store_cube

CUBE = store_cube(3, 70, 50)
EMPTY = CUBE.assign(B04=CUBE.B04 * np.float32("nan"), SCL=CUBE.SCL * 0, valid=CUBE.valid & False)


@pytest.mark.parametrize(
    ("name", "zarr_format", "emptied"),
    [("B04", 3, False), ("B04", 3, True), ("SCL", 2, False), ("valid", 3, True), ("VV", 2, False),
     ("DEM", 3, False)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:zarr_format=2")
def test_a_lost_chunk_names_its_window(
    tmp_path: Path, name: str, zarr_format: Any, emptied: bool
) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(EMPTY, path, zarr_format=zarr_format, **SMALL)
    same(store.open_cube(path), EMPTY)
    unit = 32 if zarr_format == 3 else 16
    files = [p for p in (path / name).rglob("*") if p.is_file() and p.name[0] not in ".z"]
    lost = next(f for f in files if f.relative_to(path / name).as_posix()[-3:] in ("1/1", "1.1"))
    lost.write_bytes(b"") if emptied else lost.unlink()
    ds = store.open_cube(path, chunks={"y": unit, "x": unit})
    window = rf"{name} at .*{unit}:{2 * unit}, {unit}:{min(2 * unit, 50)} is recorded as written"
    for y in (slice(unit, unit + 1), slice(0, 70)):
        with pytest.raises(StoreError, match=window):
            ds[name].isel(y=y).compute(scheduler="synchronous")
    ds[name].isel(y=slice(0, unit)).compute(scheduler="synchronous")


def test_a_job_does_not_fill_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(CUBE, path, **SMALL)
    (path / "B08" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(JobError, match=r"has lost B08/c/0/0/0"):
        run(path, tmp_path / "f.zarr", "linear", progress=False)


def test_what_was_never_written_reads_as_no_data() -> None:
    memory = MemoryStore()
    store.create(memory, CUBE, chunk=16, shard=32, fingerprint={"a": 1})
    with pytest.warns(CubefillWarning, match="6 of 6 tiles"):
        assert np.isnan(store.open_cube(memory).B04).all()


def test_stores_of_others_may_leave_chunks_out(tmp_path: Path) -> None:
    EMPTY.to_zarr(tmp_path / "a.zarr", consolidated=False)
    shutil.rmtree(tmp_path / "a.zarr" / "B04" / "c", ignore_errors=True)
    assert np.isnan(store.open_cube(tmp_path / "a.zarr").B04).all()


def test_metadata_is_gathered_when_complete_and_never_before(tmp_path: Path) -> None:
    memory = MemoryStore()
    store.create(memory, CUBE, chunk=16, shard=32, fingerprint={"a": 1})
    consolidate(memory)
    assert zarr.open_group(memory, mode="r").metadata.consolidated_metadata is None
    store.write_cube(CUBE, tmp_path / "a.zarr", **SMALL)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.metadata.consolidated_metadata is not None
