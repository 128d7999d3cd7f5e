"""The same job is known again however its cube is opened; another one never is."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, ZipStore

from cubefill import store
from cubefill.engine import gapfill
from cubefill.engine.job import run
from cubefill.errors import StoreError
from cubefill.store.fingerprint import content_of, digest, fingerprint_of
from cubefill.store.ledger import RECORD, differences, untracked
from cubefill.testing import synthetic_cube
from tests.shared.store_cube import SMALL, store_cube, twice

CUBE = synthetic_cube(6, (40, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ours, one of xarray's, both zipped, and a netCDF file."""
    path = tmp_path_factory.mktemp("sources")
    store.write_cube(CUBE, path / "ours.zarr", **SMALL)
    CUBE.to_zarr(path / "theirs.zarr", consolidated=False)
    for name in ("ours", "theirs"):
        with zipfile.ZipFile(path / f"{name}.zip", "w") as file:
            for one in sorted((path / f"{name}.zarr").rglob("*")):
                file.write(one, one.relative_to(path / f"{name}.zarr"))
    CUBE[["B04"]].drop_encoding().to_netcdf(path / "one.nc", engine="h5netcdf")
    return path


def theirs(place: Any, **options: Any) -> xr.Dataset:
    return xr.open_zarr(place, consolidated=False, **options)


OPENED: dict[str, Callable[[Path], xr.DataArray]] = {
    "ours": lambda p: store.open_cube(p / "ours.zarr").B04,
    "ours by xarray": lambda p: theirs(p / "ours.zarr").B04,
    "ours by URL": lambda p: store.open_cube(f"file://{p}/ours.zarr").B04 * 2,
    "ours zipped": lambda p: store.open_cube(ZipStore(p / "ours.zip")).B04 * 2,
    "theirs": lambda p: store.open_cube(p / "theirs.zarr").B04 * 2,
    "theirs by xarray": lambda p: theirs(LocalStore(p / "theirs.zarr")).B04.isel(time=[0, 2]) * 2,
    "theirs zipped": lambda p: theirs(ZipStore(p / "theirs.zip")).B04 * 2,
    "theirs, no dask": lambda p: theirs(p / "theirs.zarr", chunks=None).B04.isel(x=slice(3)),
    "netCDF": lambda p: xr.open_dataset(p / "one.nc", engine="h5netcdf").B04,
    "netCDF chunked": lambda p: xr.open_dataset(p / "one.nc", engine="h5netcdf", chunks={}).B04 + 1,
    "memory": lambda p: CUBE.B04,
    "memory chunked": lambda p: CUBE.chunk(time=1).B04.rolling(time=2).mean(),
    "a function": lambda p: twice(store.open_cube(p / "ours.zarr").B04),
    "filled": lambda p: gapfill(CUBE, "linear").B04,
    "filled and chunked": lambda p: gapfill(CUBE.chunk(time=1), "linear").B04 * 2,
    "unnamed": lambda p: CUBE.B04.copy(data=da.from_array(CUBE.B04.values, 8, name=False)),
    "random": lambda p: CUBE.B04.copy(data=da.random.default_rng(7).random(CUBE.B04.shape)),
}


@pytest.mark.parametrize("how", OPENED)
def test_the_same_cube_opened_again_is_the_same(how: str, folder: Path) -> None:
    a, b = (content_of(OPENED[how](folder).variable) for _ in range(2))
    assert a == b
    assert a != content_of((OPENED[how](folder) + 0.5).variable)
    assert not untracked({"B04": {"content": a}})


def test_no_two_of_them_are_the_same(folder: Path) -> None:
    apart = [how for how in OPENED if how not in ("memory", "unnamed")]
    assert len({content_of(OPENED[how](folder).variable) for how in apart}) == len(apart)


AGAIN = """
import sys
import tests.store.test_fingerprint as t
from pathlib import Path
for how in t.OPENED:
    print(how, t.content_of(t.OPENED[how](Path(sys.argv[1])).variable), sep="=")
"""


def test_another_process_finds_the_same(folder: Path) -> None:
    command = [sys.executable, "-c", AGAIN, str(folder)]
    hashed = os.environ | {"PYTHONHASHSEED": "5"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=hashed)
    found = dict(line.split("=") for line in out.stdout.splitlines())
    assert found == {how: content_of(OPENED[how](folder).variable) for how in OPENED}


def test_spelling_and_chunks_do_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ways = [folder / "ours.zarr", "ours.zarr", f"file://{folder}/ours.zarr"]
    found = {content_of(store.open_cube(way).B04.variable) for way in ways}
    found |= {content_of(store.open_cube(w, chunks={"y": 10}).B04.variable) for w in ways}
    assert len(found) == 1
    assert len({content_of((theirs(w).B04 * 2).variable) for w in ways}) == 1
    tiles = {content_of(gapfill(CUBE, "linear", tile=t).B04.variable) for t in (16, 32)}
    assert len(tiles) == 1


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_one_value_more_or_less_is_another_array(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    kind = data.draw(st.sampled_from(["f4", "f8", "i2", "u1", "?", "M8[ns]", "U3"]))
    array = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    other = array.copy()
    at = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    other[at] = np.ones((), kind)[()] if other[at] == np.zeros((), kind)[()] else np.zeros((), kind)
    assert digest(array) != digest(other)
    for same_values in (np.asfortranarray(array), array[::-1].copy()[::-1]):
        assert digest(same_values) == digest(array)
    if kind not in ("u1", "?"):
        assert digest(array.astype(array.dtype.newbyteorder(">"))) == digest(array)


def test_values_changed_in_place_are_others(tmp_path: Path) -> None:
    memory = MemoryStore()
    for target in (tmp_path / "a.zarr", memory):
        store.write_cube(CUBE, target, **SMALL)
        run(target, tmp_path / "f.zarr", "linear", overwrite=True, progress=False)
        run(target, tmp_path / "f.zarr", "linear", progress=False)
        zarr.open_array(target, path="B04", mode="r+")[:] = 5000
        with pytest.raises(StoreError, match=r"variables.B04 with other values"):
            run(target, tmp_path / "f.zarr", "linear", progress=False)


def test_what_changes_no_value_is_left_out() -> None:
    ds = store_cube(2, 8, 8)
    first = fingerprint_of(ds)
    noted = ds.assign_attrs(history="again", gapfill_version="9", created="today")
    turned = noted[list(ds.data_vars)[::-1]]
    assert differences(first, fingerprint_of(turned)) == []
    odd = ds.assign_attrs(nodata=float("nan"), names={"b", "a", "c"}, reader=object())
    again = ds.assign_attrs(nodata=float("nan"), names={"c", "b", "a"}, reader=object())
    assert differences(fingerprint_of(odd), fingerprint_of(again)) == []


def test_order_of_variables_is_no_other_job(tmp_path: Path) -> None:
    names = ["valid", "B08", "B02", "B04", "B03"]
    run(CUBE, tmp_path / "f.zarr", "linear", progress=False)
    out = run(CUBE[names], tmp_path / "f.zarr", "linear", progress=False)
    assert out.B02.shape == CUBE.B02.shape


def test_another_mask_is_another_job(tmp_path: Path) -> None:
    half = CUBE.valid.copy(deep=True)
    half[::2] = False
    for i, given_cube in enumerate((CUBE, CUBE.chunk(time=2))):
        run(given_cube, tmp_path / f"{i}.zarr", "linear", progress=False)
        for valid in (half, lambda ds: ds.valid & (ds.B04 < 9), ~half):
            with pytest.raises(StoreError, match=r"variables.valid"):
                run(given_cube, tmp_path / f"{i}.zarr", "linear", valid=valid, progress=False)


class Unlike:
    """No two of them have one token."""

    def __call__(self, a: Any) -> Any:
        return a

    def __reduce__(self) -> Any:
        raise TypeError("stays here")


def test_what_cannot_be_told_again_is_never_resumed(tmp_path: Path) -> None:
    ds = CUBE.chunk(time=2)
    ds = ds.assign(B04=ds.B04.copy(data=ds.B04.data.map_blocks(Unlike(), dtype="f4")))
    written = store.write_cube(ds, tmp_path / "a.zarr", **SMALL)
    with pytest.raises(StoreError, match=r"whether B04 still has.*overwrite=True.*write_cube"):
        store.write_cube(ds, tmp_path / "a.zarr", **SMALL)
    store.write_cube(ds, tmp_path / "a.zarr", overwrite=True, **SMALL)
    for _ in range(2):
        again = store.open_cube(tmp_path / "a.zarr")
        out = run(again, tmp_path / "f.zarr", "linear", progress=False)
        clear = again.valid.values
        np.testing.assert_array_equal(out.B04.values[clear], written.B04.values[clear])


def test_a_record_of_version_0_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(CUBE, path, **SMALL)
    group = zarr.open_group(path, path="cubefill_job", mode="r+")
    old = {k: v for k, v in group.attrs["fingerprint"].items() if k != "record"}  # type: ignore[union-attr]
    group.attrs["fingerprint"] = old
    with pytest.raises(StoreError, match=r"another version of cubefill.*overwrite=True"):
        store.write_cube(CUBE, path, **SMALL)
    assert store.open_cube(path).B04.shape == CUBE.B04.shape
    store.write_cube(CUBE, path, overwrite=True, **SMALL)
    assert zarr.open_group(path, path="cubefill_job").attrs["fingerprint"]["record"] == RECORD  # type: ignore[index,call-overload]
