"""A store that is there stays until the new one stands, whatever stops that."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from cubefill import store
from cubefill.errors import StoreError
from cubefill.store import swap
from cubefill.store import template as store_template
from cubefill.store.ledger import Ledger
from tests.shared.store_cube import SMALL, same, store_cube

CUBE = store_cube(3, 40, 20)[["B04", "SCL", "DEM", "VV"]]
OTHER = (CUBE.isel(time=[0, 1]) * 2)[["B04", "DEM"]]

STORES: dict[str, Callable[[Path], Any]] = {
    "path": lambda p: p / "a.zarr",
    "memory": lambda p: MemoryStore(),
    "local": lambda p: LocalStore(p / "a.zarr"),
    "file url": lambda p: f"file://{p}/a.zarr",
    "object url": lambda p: FsspecStore.from_url(f"memory://{p}/a.zarr"),
}


@pytest.fixture(params=STORES)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of any kind that holds CUBE."""
    target = STORES[request.param](tmp_path)
    store.write_cube(CUBE, target, **SMALL)
    return target


def fail(name: str, error: BaseException) -> Callable[..., None]:
    real = store_template._create_array

    def create(group: Any, template: xr.DataArray, *args: Any) -> None:
        if template.name == name:
            raise error
        real(group, template, *args)

    return create


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_creation_that_fails_leaves_what_was_there(
    there: Any, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_template, "_create_array", fail("DEM", error))
        with pytest.raises((StoreError, KeyboardInterrupt)) as caught:
            store.write_cube(OTHER, there, overwrite=True, **SMALL)
    if isinstance(error, OSError):
        assert "What was there before is left as it was" in str(caught.value)
    same(store.open_cube(there), CUBE)
    assert Ledger(there).complete
    same(store.write_cube(OTHER, there, overwrite=True, **SMALL), OTHER)
    assert sorted(zarr.open_group(store_place(there), mode="r").array_keys()) == sorted(
        map(str, OTHER.variables)
    )
    assert {p.name for p in tmp_path.iterdir()} <= {"a.zarr"}


def store_place(target: Any) -> Any:
    return target if isinstance(target, Store) else str(target).removeprefix("file://")


class Killed(BaseException):
    """Stands for a kill: nothing that runs after it is run."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Replaces the store and dies at a rename or a removal, without cleaning up."""
    left = iter(range(step))
    dead: list[bool] = []

    def die_or(real: Callable[..., Any]) -> Callable[..., Any]:
        def one(*args: Any, **options: Any) -> Any:
            ours = any(str(a).endswith((swap.NEW, swap.OLD)[len(args) == 1 :]) for a in args)
            if dead or (ours and next(left, None) is None):
                dead.append(True)
                raise Killed
            return real(*args, **options)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die_or(os.rename))
        patch.setattr(shutil, "rmtree", die_or(shutil.rmtree))
        with pytest.raises(Killed):
            store.write_cube(OTHER, path, overwrite=True, **SMALL)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_kill_leaves_the_old_or_the_new_store(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(CUBE, path, **SMALL)
    killed_at(step, monkeypatch, path)
    assert len(list(tmp_path.iterdir())) > 1
    if step == 1:
        with pytest.raises(StoreError, match=r"being replaced.*Use os\.rename\(") as caught:
            store.open_cube(path)
        exec(str(caught.value).split("Use ")[1].removesuffix("."), {"os": os})
        same(store.open_cube(path), CUBE)
        os.rename(path, tmp_path / ".a.zarr.cubefill-old")
    done = OTHER if step == 2 else CUBE
    same(store.write_cube(done, path, **SMALL), done)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_neighbour_of_others_is_left_alone(tmp_path: Path) -> None:
    path, theirs = tmp_path / "a.zarr", tmp_path / ".a.zarr.cubefill-new"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match=r"cubefill did not make it.*another path"):
        store.write_cube(CUBE, path, **SMALL)
    assert (theirs / "thesis.txt").exists()


def test_a_link_to_a_store_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "a.zarr"
    link.symlink_to(tmp_path / "real" / "b.zarr")
    (tmp_path / "real" / "b.zarr").mkdir()
    store.write_cube(CUBE, link, **SMALL)
    store.write_cube(OTHER, link, overwrite=True, **SMALL)
    assert link.is_symlink()
    same(store.open_cube(tmp_path / "real" / "b.zarr"), OTHER)


def test_a_zip_file_is_read_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"each key once.*Choose a folder, and zip it"):
        store.write_cube(CUBE, ZipStore(tmp_path / "a.zip", mode="w"), **SMALL)
    store.write_cube(CUBE, tmp_path / "a.zarr", **SMALL)
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a.zarr")
    with ZipStore(tmp_path / "b.zip", mode="r") as file:
        same(store.open_cube(file), CUBE)
