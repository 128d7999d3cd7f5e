"""A new store in the place of an old one: laid out beside it, put in its place when it stands."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from cubefill.errors import StoreError
from cubefill.ownership import ID, MEMBERS, UNFINISHED, is_meta, marks
from cubefill.store.source import StoreLike, describe

log = logging.getLogger("cubefill")

NEW, OLD = ".cubefill-new", ".cubefill-old"
"""Ends of the names of what lies beside a store while it is replaced."""


@contextmanager
def replaced(store: StoreLike) -> Iterator[StoreLike]:
    """Where to lay out a store that takes the place of `store` when the block ends without error.

    A folder gets a neighbour and two renames: whatever stops that, the old store is there or
    beside. Other stores know no rename: the layout is made in memory, then what is there is
    deleted and the layout copied, so that only a failure of the store itself can lose the old one.
    """
    if isinstance(store, str):
        with _beside(Path(os.path.realpath(store))) as new:
            yield str(new)
        return
    memory = MemoryStore()
    yield memory
    _copy(memory, store)


def settle(store: StoreLike) -> None:
    """Ends a replacement that a kill cut short: the old store is put back, or removed."""
    if not isinstance(store, str):
        return
    path = Path(os.path.realpath(store))
    old, new = _neighbour(path, OLD), _neighbour(path, NEW)
    if _is_ours(old) and not path.exists():
        os.rename(old, path)
        log.warning("%s was being replaced when that was stopped; it is put back.", path)
    for left in (old, new):
        if _is_ours(left):
            shutil.rmtree(left)


def stopped(store: StoreLike) -> Path | None:
    """Where the old store lies, when a replacement was stopped before the new one stood."""
    path = Path(os.path.realpath(store)) if isinstance(store, str) else None
    if path is None or path.exists() or not _is_ours(old := _neighbour(path, OLD)):
        return None
    return old


def refuse_fixed(store: StoreLike) -> None:
    """Raises StoreError where a store is there and cannot be renamed."""
    if isinstance(store, str):
        path = Path(os.path.realpath(store))
        if path.exists() and (os.path.ismount(path) or not os.access(path.parent, os.W_OK)):
            raise StoreError(
                f"{store} cannot be replaced: expected write permission for {path.parent}, where "
                "the new store is laid out first. Choose another path."
            )


def refuse_write_once(store: StoreLike) -> None:
    """Raises StoreError for a store that takes each key once, as a zip file does."""
    if not isinstance(store, str) and not store.supports_deletes:
        raise StoreError(
            f"{describe(store)} takes each key once, and finished tiles are recorded one by one: "
            "expected a folder or a store that can be written again. Choose a folder, and zip it "
            "when it is complete; open_cube reads a ZipStore."
        )


def _neighbour(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}{end}")


def _is_ours(path: Path) -> bool:
    if not path.is_dir() or path.is_symlink():
        return False
    return not any(path.iterdir()) or bool({ID, UNFINISHED} & set(marks(str(path)) or ()))


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    new, old = _neighbour(path, NEW), _neighbour(path, OLD)
    for left in (new, old):
        if left.exists():
            raise StoreError(
                f"{left} is there, and cubefill did not make it: expected that name to be free "
                f"for the new {path.name}. Move it elsewhere or choose another path."
            )
    try:
        yield new
        if path.exists():
            shutil.copymode(path, new)
            os.rename(path, old)
        try:
            os.rename(new, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _copy(memory: MemoryStore, store: Store) -> None:
    """The layout copied into a store, its root last: what a kill leaves is known as unfinished."""
    layout, there = dict(memory._store_dict), marks(store)
    known = (there or {}).get(MEMBERS)
    members = {*(known or ()), *(k.split("/")[0] for k in layout if "/" in k)}
    begun: dict[str, Any] = {UNFINISHED: True, MEMBERS: sorted(members)}
    if there is None:
        zarr.create_group(store, attributes=begun, overwrite=True)
    else:
        zarr.open_group(store, mode="r+").attrs.update(begun)
    for name in sync(_names(store)):
        if not is_meta(name):
            sync(store.delete_dir(name))
    root = [k for k in layout if is_meta(k)]
    for key in [k for k in layout if k not in root] + root:
        sync(store.set(key, layout[key]))
    for name in sync(_names(store)):
        if is_meta(name) and name not in root:
            sync(store.delete(name))


async def _names(store: Store) -> list[str]:
    return [name.rstrip("/") async for name in store.list_dir("")]
