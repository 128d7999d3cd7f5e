"""What cubefill raises: one class per thing that a caller may want to catch."""

from collections.abc import Iterable
from difflib import get_close_matches


class CubefillError(Exception):
    """Something that cubefill refuses or cannot do; the message says what to do."""


class CubeError(CubefillError, ValueError):
    """A dataset is not a cube: a dimension, variable, unit or coordinate is missing or wrong."""


class MethodError(CubefillError, ValueError):
    """A method is unknown, was given an unknown option, or lacks what it needs in the cube."""


class PlanError(CubefillError, MemoryError):
    """A plan cannot run: it does not fit the memory budget, or tiles and chunks do not match."""


class StoreError(CubefillError, OSError):
    """A store cannot be read, written, or resumed."""


class CatalogueError(CubefillError, ValueError):
    """A STAC search or its items cannot give the cube that was asked for."""


class ReadError(CubefillError, OSError):
    """An asset could not be read; names the item, the asset and the date."""


class DeviceError(CubefillError, RuntimeError):
    """An accelerator was asked for and is absent."""


class JobError(CubefillError, RuntimeError):
    """Tiles of a job failed; `tiles` lists them with their errors."""

    def __init__(self, message: str, tiles: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.tiles = tiles or {}


class CubefillWarning(UserWarning):
    """A choice was made on the user's behalf, or a result needs attention."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, "" where none is near.

    Examples
    --------
    >>> did_you_mean("liner", ["linear", "nearest"])
    " Did you mean 'linear'?"
    """
    near = get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
