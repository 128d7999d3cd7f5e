"""What may be replaced: what carries our own mark, holds nothing else, and is not read from."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import NodeNotFoundError
from zarr.storage import LocalStore, StorePath

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
    members = set(members) if isinstance(members, list) else None
    if not isinstance(store, str | Path):
        found = sync(_listed(store))
        yield from sorted(n for n in found if members is not None and n not in {*members, *_META})
        return
    for path in sorted(Path(store).iterdir()):
        if path.name in _META:
            continue
        if not path.is_dir() or path.is_symlink() or (members and path.name not in members):
            yield path.name
        else:
            yield from (f"{path.name}/{name}" for name in _strays(path))


def _strays(node: Path) -> Iterator[str]:
    """Files of a node that are neither metadata nor chunks, nor of a node below."""
    group = not (node / ".zarray").is_file() and not _is_array(node / "zarr.json")
    for path in sorted(node.iterdir()):
        if group and path.is_dir() and not path.is_symlink():
            if _META.isdisjoint(p.name for p in path.iterdir()):
                yield path.name
            else:
                yield from (f"{path.name}/{name}" for name in _strays(path))
        elif path.is_dir() and not path.is_symlink():
            for folder, _, files in os.walk(path):
                for name in files:
                    inner = (Path(folder) / name).relative_to(node).as_posix()
                    if not _CHUNK.fullmatch(inner):
                        yield inner
        elif path.name not in _META and (group or not _CHUNK.fullmatch(path.name)):
            yield path.name


def _is_array(path: Path) -> bool:
    found = document(path)
    return found is not None and found.get("node_type") == "array"


async def _listed(store: Store) -> list[str]:
    return [name async for name in store.list_dir("")]


def remove_store(path: Path) -> None:
    """Empties a store that `claim` let pass; its mark goes last: what a kill leaves is ours."""
    for child in sorted(path.iterdir(), key=lambda p: (p.name in _META, p.name == "zarr.json")):
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def document(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


# ------------------------------------------------------------------ is it the same place


def local(url: str) -> str:
    """A `file://` URL as a path; any other text as it is."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme in ("file", "local") else url


def where(store: Any) -> tuple[str, str]:
    """What kind of place a store is, and a word for it that is equal for all its spellings."""
    if isinstance(store, StorePath):
        store = store.store
    while isinstance(inner := getattr(store, "_store", None), Store):
        store = inner
    if isinstance(store, LocalStore):
        store = store.root
    if isinstance(store, str | os.PathLike):
        text = local(os.fspath(store))
        if "://" not in text:
            return "file", os.path.realpath(os.path.expanduser(text))
        scheme, _, rest = text.partition("://")
        return scheme, rest.rstrip("/")
    if (memory := getattr(store, "_store_dict", None)) is not None:
        return "memory", str(id(memory))
    path, fs = getattr(store, "path", None), getattr(store, "fs", None)
    if fs is not None:
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        if protocol in ("file", "local"):
            return "file", os.path.realpath(str(path))
        return str(protocol), re.sub(r"^\w+://", "", str(path)).rstrip("/")
    if isinstance(path, str | os.PathLike):
        return "file", os.path.realpath(path)
    return "object", str(id(store))


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


Check = Callable[[Path], bool]
"""Says whether a file carries our mark."""


def claim_files(files: Iterable[Path], what: str, ours: Check, *, overwrite: bool = True) -> None:
    """As `claim`, for files that are replaced one by one; those that are absent pass."""
    for path in files:
        if path.exists() or path.is_symlink():
            claim(path, what, ours=path.is_file() and ours(path), overwrite=overwrite)
