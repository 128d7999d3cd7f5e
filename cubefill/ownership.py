"""What may be replaced: what carries our own mark, holds nothing else, and is not read from."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore, StorePath

from cubefill.addresses import local
from cubefill.errors import CubefillError, StoreError

ID = "cubefill_id"
"""Root attribute: the mark of a store that we made; new at each creation."""

UNFINISHED = "cubefill_creating"
"""Root attribute while the template is being written; such a store counts as absent."""

MEMBERS = "cubefill_members"
"""Root attribute: names of all arrays and groups that we put into a store."""

WRITER = "Written by cubefill"
"""The mark in JSON files."""

_META = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata", ".zarray"}
_CHUNK = re.compile(r"(c([./]\d+)*|\d+([./]\d+)*)")


def claim(
    path: Any,
    what: str,
    *,
    ours: bool,
    foreign: Iterable[str] = (),
    overwrite: bool = False,
    hint: str = "",
    error: type[CubefillError] = StoreError,
) -> None:
    """Refuses to replace what is at `path`, unless we made it, all of it, and `overwrite` is True.

    Every writer asks here about what is there. `ours` says whether it carries our mark, `foreign`
    names files in it that we did not write; `hint` is a further way out.

    Raises
    ------
    CubefillError
        Of type `error`. It says overwrite=True only where that then works.
    """
    if not ours:
        raise error(
            f"{path} is there and is no {what} that cubefill wrote: it is left alone. "
            "Choose another path."
        )
    if (other := next(iter(foreign), None)) is not None:
        raise error(
            f"{path} also holds {other}, which cubefill did not write: expected a {what} and "
            "nothing else in it. It is left alone; move that elsewhere or choose another path."
        )
    if not overwrite:
        raise error(
            f"{path} exists: expected a new {what}. Use {hint}overwrite=True to replace it."
        )


def marks(store: Any) -> dict[str, Any] | None:
    """Root attributes of the zarr store at a path or in a zarr store; None where there is none."""
    try:
        return dict(zarr.open_group(store, mode="r").attrs)
    except (FileNotFoundError, NodeNotFoundError, ValueError, KeyError):
        return None


def foreign_in_store(store: Any, attrs: dict[str, Any]) -> Iterator[str]:
    """Names of what lies in a store of ours and is not of it; the whole tree of a local one."""
    members = attrs.get(MEMBERS)
    known = {*members, *_META} if isinstance(members, list) else None
    if not isinstance(store, str | Path):
        yield from sorted(n for n in sync(_listed(store)) if known and n not in known)
        return
    root = Path(store)

    @cache
    def array(folder: Path) -> Path | None:
        """The array that a folder is or lies in."""
        if folder != root and (above := array(folder.parent)):
            return above
        kind = (document(folder / "zarr.json") or {}).get("node_type")
        return folder if kind == "array" or (folder / ".zarray").is_file() else None

    for path in sorted(root.rglob("*")):
        name, inside = path.relative_to(root), array(path.parent)
        foreign = known is not None and name.parts[0] not in known
        if path.is_symlink() or not path.is_dir():
            chunk = inside and _CHUNK.fullmatch(path.relative_to(inside).as_posix())
            meta = path.name in _META and inside in (None, path.parent)
            foreign = foreign or path.is_symlink() or not (chunk or meta)
        if foreign:
            yield name.as_posix()


async def _listed(store: Store) -> list[str]:
    return [name async for name in store.list_dir("")]


def remove_store(path: Path) -> None:
    """Empties a store that `claim` let pass; its mark goes last: what a kill leaves is ours."""
    for child in sorted(path.iterdir(), key=lambda p: (p.name in _META, p.name == "zarr.json")):
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def is_meta(name: str) -> bool:
    """True for the name of a file that holds metadata of an array or a group."""
    return name in _META


def document(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


# ------------------------------------------------------------------ is it the same place


def where(store: Any) -> tuple[str, str]:
    """What kind of place a store is, and a word for it that is equal for all its spellings."""
    store = store.store if isinstance(store, StorePath) else store
    while isinstance(inner := getattr(store, "_store", None), Store):
        store = inner
    if (memory := getattr(store, "_store_dict", None)) is not None:
        return "memory", str(id(memory))
    if isinstance(store, LocalStore):
        store = store.root
    elif isinstance(store, Store) and (path := getattr(store, "path", None)) is not None:
        fs = getattr(store, "fs", None)
        store = path
        if fs is not None and not {"file", "local"} & {*np.atleast_1d(fs.protocol)}:
            store = fs.unstrip_protocol(path)
    if not isinstance(store, str | os.PathLike):
        return "object", str(id(store))
    text = local(os.fspath(store))
    if "://" not in text:
        return "file", os.path.realpath(os.path.expanduser(text))
    scheme, _, rest = text.partition("://")
    return scheme, rest.rstrip("/")


def same_place(a: Any, b: Any) -> bool:
    """True when two stores are one place, however they are spelled."""
    return where(a) == where(b)


def overlap(a: Any, b: Any) -> bool:
    """True when two stores are one place, or one lies in the other.

    Examples
    --------
    >>> overlap("/data/sub/../s.zarr", "file:///data/s.zarr"), overlap("/data/s.zarr", "/data/t")
    (True, False)
    """
    (kind, one), (other, two) = where(a), where(b)
    one, two = one.rstrip("/") + "/", two.rstrip("/") + "/"
    return kind == other and (one.startswith(two) or two.startswith(one))


def refuse_source(target: Any, sources: Iterable[Any], name: str = "") -> None:
    """Raises StoreError when a target is, holds or lies in a place that is read from."""
    if any(overlap(target, s) for s in sources):
        raise StoreError(
            f"{name or target} is where the cube is read from, holds it or lies in it: expected "
            "another target. Choose another path; a store is never filled in place."
        )


def claim_files(
    files: Iterable[Path], what: str, ours: Callable[[Path], bool], *, overwrite: bool = True
) -> None:
    """As `claim`, for files that are replaced one by one; `ours` looks for our mark in a file."""
    for path in files:
        if path.exists() or path.is_symlink():
            claim(path, what, ours=path.is_file() and ours(path), overwrite=overwrite)
