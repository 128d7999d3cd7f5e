"""Weights as their authors published them: read without running code, checked by name and shape."""

import re
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cubefill.addresses import local_path
from cubefill.errors import MethodError, StoreError

if TYPE_CHECKING:
    from torch import Tensor

StateDict = dict[str, "Tensor"]
Shape = tuple[int, ...]

_BROKEN = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
"""What torch raises for files that are cut short or are something else."""


def shapes_of(state: "Mapping[str, Tensor]") -> dict[str, Shape]:
    """Shape of each tensor by name."""
    return {n: tuple(t.shape) for n, t in state.items()}


def check_shapes(
    found: Mapping[str, Shape], wanted: Mapping[str, Shape], source: str, name: str
) -> None:
    """Raises if tensor shapes differ from the expected ones.

    Raises
    ------
    MethodError
        The first name that is missing, unexpected or of another shape.
    """
    hint = "Pass the checkpoint of this method and configuration."
    missing = [n for n in wanted if n not in found]
    if missing:
        raise MethodError(
            f"{source} lacks {missing[0]!r}{_more(missing)}: expected the {len(wanted)} tensors of "
            f"{name}, got {len(found)}. {hint}"
        )
    unknown = [n for n in found if n not in wanted]
    if unknown:
        raise MethodError(
            f"{source} has {unknown[0]!r}{_more(unknown)}, which {name} does not: expected "
            f"{len(wanted)} tensors, got {len(found)}. {hint}"
        )
    for n, shape in wanted.items():
        if found[n] != shape:
            raise MethodError(
                f"{source} has {n!r} of shape {found[n]}: expected {shape} for {name}. {hint}"
            )


WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch's wrappers of nets (for several devices, compiled) put into the names of tensors."""

Value = TypeVar("Value")


def unwrapped(state: Mapping[str, Value], wanted: Iterable[str] = ()) -> dict[str, Value]:
    """The state under the names of the net itself, without those of wrappers around it or in it.

    As it is where its names are those `wanted`, or where two tensors would get one name.

    Examples
    --------
    >>> unwrapped({"module._orig_mod.first.weight": 1, "module.head._orig_mod.bias": 2})
    {'first.weight': 1, 'head.bias': 2}
    """
    if set(state) == set(wanted):
        return dict(state)
    found = {".".join(p for p in n.split(".") if p not in WRAPPERS): t for n, t in state.items()}
    return found if len(found) == len(state) and "" not in found else dict(state)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def original_pt(
    path: str | Path,
    expected: Mapping[str, Shape] | None = None,
    key: str = "",
) -> tuple[StateDict, dict[str, Any]]:
    """Tensors of an author's `.pt` file, and what lay beside them; runs no code of the file.

    Names that a wrapper of torch put before those of the net are left out (`unwrapped`).
    Only tensors, plain values and `argparse.Namespace` (given back as a dict) are let in.

    Parameters
    ----------
    path
        A file that `torch.save` wrote: a state dict, or a dict that holds one under `key`.
    expected
        Name to shape that the tensors must have; None checks nothing.
    key
        Entry that holds the state dict, such as "model"; "" where the file is one.

    Raises
    ------
    StoreError
        The file is absent, a git-lfs pointer, cut short, or a pickle that asks for code.
    MethodError
        A tensor is missing, unexpected or of another shape.
    """
    path = local_path(path)
    found = _restricted(path)
    held = found.get(key) if key and isinstance(found, dict) else found
    if not isinstance(held, dict) or not all(hasattr(t, "shape") for t in held.values()):
        got = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        want = f"a state dict under {key!r}" if key else "a state dict"
        raise StoreError(f"{path} holds {got}: expected {want}.")
    state: StateDict = unwrapped(held, expected or ())
    if expected is not None:
        check_shapes(shapes_of(state), expected, str(path), "the original")
    others = {n: v for n, v in found.items() if n != key} if key else {}
    return state, {n: vars(v) if isinstance(v, Namespace) else v for n, v in others.items()}


def published(path: Path) -> bytes:
    """The first bytes of a file that authors published, refused where it is a pointer to one."""
    if not path.is_file():
        raise StoreError(f"No file {path}: expected the weights that the authors published.")
    with path.open("rb") as file:
        head = file.read(24)
    if head == b"version https://git-lfs.":
        raise StoreError(
            f"{path} is a git-lfs pointer of {path.stat().st_size} bytes: expected the weights "
            "themselves. Use `git lfs pull` where it was cloned."
        )
    return head


def _restricted(path: Path) -> Any:
    """What torch's restricted reader gives, with one class allowed besides tensors."""
    import pickle

    import torch

    published(path)
    try:
        with torch.serialization.safe_globals([Namespace]), _quiet():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"{path} is refused: it asks for more than tensors and plain values "
            f"({_found(str(error))}). Nothing in it was run. Expected a state dict; ask its "
            "authors for safetensors."
        ) from None
    except _BROKEN as error:
        raise StoreError(
            f"{path} ({path.stat().st_size} bytes) cannot be read ({_found(str(error))}): expected "
            "a file that torch.save wrote. Try to copy it again."
        ) from None


_ADVICE = re.compile(r"weights_only|safe_globals|torch\.load|file an issue|[Dd]ocumentation")
"""What tells torch's advice from what it found."""


def _found(text: str) -> str:
    """What torch found in a file, without its advice to read the file unrestricted."""
    if "TorchScript" in text:
        return "it is a TorchScript archive, which holds a program"
    if named := re.search(r"GLOBAL [\w.]+", text):
        return named[0]
    sentences = re.split(r"\n+|(?<=\.)\s+", text.rpartition("WeightsUnpickler error:")[2])
    told = [x.strip(" .") for x in sentences if not _ADVICE.search(x)]
    return ". ".join(x for x in told if x) or "torch does not say at what"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without two warnings of torch on files that it then refuses, or reads as it should."""
    with warnings.catch_warnings():
        for start in ("Detected pickle protocol", "'torch.load' received a zip file that looks"):
            warnings.filterwarnings("ignore", message=start, category=UserWarning)
        yield
