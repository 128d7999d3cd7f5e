"""Which tiles of a store are written: what makes a broken run go on where it stopped."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from zarr.errors import NodeNotFoundError

from cubefill.errors import StoreError
from cubefill.store.encoding import plain
from cubefill.store.source import GROUP, UNTRACKED, StoreLike, describe, place

RECORD = 2
"""Version of what `fingerprint_of` records; version 0.1 of cubefill wrote no number."""

OTHERS = "with other values, or made in another way"
CONTENT = ".content"
"""End of the entries of a fingerprint that stand for values."""

ProgressCallback = Callable[[int, int, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Tile:
    """A square of output with one owner."""

    row: int
    """Position of the tile down the grid of tiles."""
    column: int
    """Position of the tile across the grid of tiles."""
    y: slice
    """Rows of the cube."""
    x: slice
    """Columns of the cube."""

    @property
    def index(self) -> tuple[int, int]:
        """Row and column in the grid of tiles."""
        return (self.row, self.column)

    @property
    def name(self) -> str:
        """`row-column`, for messages and tables."""
        return f"{self.row}-{self.column}"


def tiles(shape: tuple[int, int], size: int | tuple[int, int]) -> list[Tile]:
    """Every tile of a grid of `shape` (y, x) pixels, row by row; edge tiles are smaller.

    Examples
    --------
    >>> [(t.name, t.y.stop, t.x.stop) for t in tiles((100, 60), 64)]
    [('0-0', 64, 60), ('1-0', 100, 60)]
    """
    height, width = (size, size) if isinstance(size, int) else size
    return [
        Tile(i, j, slice(y, min(y + height, shape[0])), slice(x, min(x + width, shape[1])))
        for i, y in enumerate(range(0, shape[0], height))
        for j, x in enumerate(range(0, shape[1], width))
    ]


class Ledger:
    """The record of finished tiles in a store: a group `cubefill_job` beside the variables.

    A tile is marked after its data are written, in a chunk of its own, so that any number of
    workers can mark tiles at the same time. xarray does not see the group as a variable.
    """

    def __init__(self, store: Any) -> None:
        self.store: StoreLike = place(store)

    @property
    def exists(self) -> bool:
        """True when the store has a ledger that was begun."""
        group = self._group()
        return group is not None and "fingerprint" in group.attrs

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What was asked for when the store was begun."""
        return dict(self._attrs().get("fingerprint", {}))

    @property
    def finish(self) -> str:
        """What to type to finish the store."""
        return str(self._attrs().get("finish", ""))

    @property
    def tile(self) -> int:
        """Edge of a tile in pixels, as it was begun (edge tiles are smaller)."""
        return int(max(self._attrs()["tile"]))

    @property
    def grid(self) -> list[Tile]:
        """Every tile of the store."""
        attrs = self._attrs()
        return tiles(tuple(attrs["shape"]), tuple(attrs["tile"]))

    def begin(
        self,
        fingerprint: Mapping[str, Any],
        shape: tuple[int, int],
        tile: int | tuple[int, int],
        *,
        resume: bool = True,
        finish: str = "",
    ) -> list[Tile]:
        """Tiles that are still to be written; a new ledger when there is none.

        `fingerprint` is plain JSON that says what was asked for; `finish` is what to type to
        finish the store.

        Raises
        ------
        StoreError
            A ledger is there and `resume` is False, or it was begun with another fingerprint:
            the message lists what differs.
        """
        tile = (tile, tile) if isinstance(tile, int) else tile
        if self.exists:
            self._check(fingerprint, resume)
            return self.missing()
        try:
            group = zarr.create_group(
                self.store, path=GROUP, zarr_format=_format(self.store), overwrite=True
            )
            count = (-(-shape[0] // tile[0]), -(-shape[1] // tile[1]))
            dims: dict[str, Any] = {"dimension_names": ("tile_row", "tile_column")}
            if group.metadata.zarr_format == 2:
                dims = {"attributes": {"_ARRAY_DIMENSIONS": list(dims["dimension_names"])}}
            group.create_array(
                "done",
                shape=count,
                chunks=(1, 1),
                dtype="uint8",
                fill_value=0,
                compressors=None,
                **dims,
            )
            group.update_attributes(
                {
                    "fingerprint": as_json(fingerprint),
                    "shape": [int(n) for n in shape],
                    "tile": [int(n) for n in tile],
                    "finish": finish,
                }
            )
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{describe(self.store)} cannot be written ({error}): expected a writable store. "
                "Choose another path."
            ) from error
        return tiles(shape, tile)

    def mark(self, tile: Tile) -> None:
        """Records that the data of a tile are written."""
        self._done("r+")[tile.row, tile.column] = 1

    def done(self, tile: Tile) -> bool:
        """True when the tile is written."""
        return bool(self._done("r")[tile.row, tile.column])

    def missing(self) -> list[Tile]:
        """Tiles that are still to be written, row by row."""
        grid, done = self.grid, np.asarray(self._done("r")[:])
        return [t for t in grid if not done[t.row, t.column]]

    @property
    def complete(self) -> bool:
        """True when every tile is written."""
        return not self.missing()

    def _check(self, fingerprint: Mapping[str, Any], resume: bool) -> None:
        where = describe(self.store)
        if not resume:
            raise StoreError(
                f"{where} exists: expected a new store. Pass resume=True to finish it or "
                "overwrite=True to replace it."
            )
        there, here = self.fingerprint, as_json(fingerprint)
        again = "Pass overwrite=True to replace it, or choose another path."
        if there.get("record") != here.get("record"):
            raise StoreError(
                f"{where} was begun by another version of cubefill, which recorded what went into "
                f"it in another way: it cannot be told whether this is the same job. {again}"
            )
        if names := untracked(here):
            raise StoreError(
                f"{where} cannot be finished: nothing tells whether {', '.join(names)} still has "
                "the values it had, because something in its graph or file has no lasting "
                f"identity. {again} Use cubefill.write_cube to store the cube first: what is "
                "filled from a store can be finished."
            )
        if found := differences(there, here):
            values = [f.removesuffix(f" {OTHERS}") for f in found if f.endswith(OTHERS)]
            found = [f for f in found if not f.endswith(OTHERS)]
            found += [f"{', '.join(values)} {OTHERS}"] if values else []
            raise StoreError(
                f"{where} holds something else than what is to be written: "
                f"{'; '.join(found)}. {again}"
            )

    def _group(self) -> "zarr.Group | None":
        try:
            return zarr.open_group(self.store, path=GROUP, mode="r")
        except (FileNotFoundError, NodeNotFoundError):
            return None

    def _attrs(self) -> dict[str, Any]:
        group = self._group()
        if group is None:
            raise StoreError(
                f"{describe(self.store)} has no record of finished tiles: expected a store that "
                "cubefill.write_cube or cubefill.run began."
            )
        return dict(group.attrs)

    def _done(self, mode: Any) -> "zarr.Array[Any]":
        array = zarr.open_array(self.store, path=f"{GROUP}/done", mode=mode)
        return array.with_config({"write_empty_chunks": True})


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """What differs between two plain JSON values, one line each.

    Examples
    --------
    >>> differences({"tile": 512, "std": True}, {"tile": 256, "std": True})
    ['tile is 512 there, 256 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        lines = []
        for key in dict.fromkeys([*there, *here]):
            below = f"{path}.{key}" if path else str(key)
            lines += differences(there.get(key, _ABSENT), here.get(key, _ABSENT), below)
        return lines
    if repr(there) == repr(here):
        return []
    if path.endswith(CONTENT) and isinstance(there, str) and isinstance(here, str):
        return [f"{path.removesuffix(CONTENT)} {OTHERS}"]
    return [f"{path or 'content'} is {_short(there)} there, {_short(here)} here"]


def untracked(fingerprint: Mapping[str, Any]) -> list[str]:
    """Names in a fingerprint of values of which nothing tells whether they are the same again."""
    found = []
    for name, value in fingerprint.items():
        if isinstance(value, Mapping):
            alone = str(value.get("content", "")).startswith(UNTRACKED)
            found += [name] if alone else untracked(value)
        elif str(value).startswith(UNTRACKED):
            found.append(name)
    return found


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it comes back from a JSON file."""
    found: dict[str, Any] = json.loads(json.dumps(value, default=plain))
    return found


class Progress:
    """A line that shows how many tiles are done, or calls to a function of the caller.

    `show`: None draws a bar on a terminal only, True always, False never; a callable gets
    `(done, total, info)` at the start and after each tile.
    """

    def __init__(
        self,
        show: "bool | ProgressCallback | None",
        total: int,
        done: int = 0,
        label: str = "tiles",
    ) -> None:
        self.done = done
        self.total = total
        self._report = show if callable(show) else None
        self._bar: Any = None
        if show is True or (show is None and sys.stderr.isatty()):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, unit="tile", dynamic_ncols=True)
        if self._report is not None:
            self._report(done, total, {})

    def step(self, info: Mapping[str, Any] | None = None) -> None:
        """One more tile is done; `info` says which and what happened in it."""
        self.done += 1
        if self._bar is not None:
            self._bar.update(1)
        if self._report is not None:
            self._report(self.done, self.total, dict(info or {}))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _format(store: StoreLike) -> Any:
    try:
        return zarr.open_group(store, mode="r").metadata.zarr_format
    except (FileNotFoundError, NodeNotFoundError):
        return 3
