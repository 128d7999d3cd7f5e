"""A trained net on disk: a folder of weights (safetensors) and a card (JSON) that describes them.

Nothing here unpickles: weights are safetensors, an author's `.pt` goes through `original_pt`.
"""

import hashlib
import json
import os
import platform
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cubefill.addresses import local_path, writing
from cubefill.errors import MethodError, StoreError
from cubefill.imports import current
from cubefill.nn.original import Shape, StateDict, check_shapes, shapes_of, unwrapped
from cubefill.nn.original import original_pt as original_pt
from cubefill.ownership import claim, document

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "weights.safetensors"
CARD = "card.json"

NETS_KEPT = 4
"""Nets that a process keeps; the one used longest ago goes first."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself; plain values, stored as JSON."""

    method: str
    """"module:Class" of the method that reads it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the method's `Config`."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What the method must be given, in words."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained."""
    data: str = ""
    """Digest of the samples it was trained on."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages that wrote it."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores at the step that was kept."""
    licence: str = ""
    quantity: str = ""
    """What the values were that it was trained on, such as "reflectance"; "" for not known."""
    sensor: str = ""
    """What they were taken with, such as "Sentinel-2"; "" for not known."""
    digest: str = ""
    """SHA-256 of the weights file; `save` writes it."""


# ------------------------------------------------------------------ write and read


def save(
    folder: str | Path,
    state: Mapping[str, "Tensor"],
    card: Card,
    *,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """The folder, with `weights.safetensors` and `card.json` in it.

    Both files are complete before either replaces an older one.

    Parameters
    ----------
    folder
        Folder to write; made where absent.
    state
        Name to tensor, as `net.state_dict()` gives it.
    card
        What the weights are; `digest`, and `versions` where empty, are written here.
    precision
        Type of floating-point tensors in the file; "bfloat16" and "float16" halve it.
    overwrite
        True replaces a checkpoint that is there.

    Raises
    ------
    StoreError
        A checkpoint is there and `overwrite` is False.

    Examples
    --------
    >>> import tempfile, torch
    >>> net = torch.nn.Linear(2, 1)
    >>> folder = save(tempfile.mkdtemp() + "/net", net.state_dict(), Card("package.module:Mine"))
    >>> sorted(load(folder)[0])
    ['bias', 'weight']
    """
    import torch
    from safetensors.torch import save_file

    folder = local_path(folder)
    admit(folder, overwrite)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    floats = getattr(torch, precision)
    tensors = {
        n: t.detach()
        .to("cpu", floats if t.is_floating_point() else t.dtype, copy=True)
        .contiguous()
        for n, t in state.items()
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        weights, text = Path(scratch) / WEIGHTS, Path(scratch) / CARD
        save_file(tensors, str(weights))
        card = replace(card, digest=_sha256(weights), versions=card.versions or versions())
        text.write_text(
            json.dumps(
                asdict(card), indent=2, default=lambda v: v.item() if hasattr(v, "item") else str(v)
            )
            + "\n"
        )
        weights.chmod(text.stat().st_mode)  # safetensors writes for the owner alone
        os.replace(weights, folder / WEIGHTS)
        os.replace(text, folder / CARD)
    return folder


def admit(folder: str | Path, overwrite: bool) -> None:
    """Refuses to write over files that no `save` wrote; over a checkpoint without `overwrite`."""
    folder = local_path(folder)
    if folder.exists() and not folder.is_dir():
        claim(folder, "checkpoint", ours=False)
    there = [p for p in (folder / CARD, folder / WEIGHTS) if p.exists() or p.is_symlink()]
    if there:
        claim(there[0], "checkpoint", ours=_is_card(folder / CARD), overwrite=overwrite)


def _is_card(path: Path) -> bool:
    found = document(path)
    known = {f.name for f in fields(Card)}
    return found is not None and {"method", "config", "digest"} <= set(found) <= known


def load(folder: str | Path) -> tuple[StateDict, Card]:
    """Weights and card of a checkpoint; runs no code of the file.

    Raises
    ------
    StoreError
        The folder or a file is absent, the card is no JSON or lacks an entry, the weights are cut
        short, or they are not those that the card describes.
    """
    from safetensors.torch import load_file

    path, card = local_path(folder) / WEIGHTS, read_card(folder)
    with _whole(path, card):
        state: StateDict = load_file(str(path))
    return state, replace(card, digest=_signed(folder, card))


def check(folder: str | Path, name: str = "", shapes: Mapping[str, Shape] | None = None) -> None:
    """Refuses a checkpoint whose weights are absent, cut short or of another net than `name`.

    Reads the header of the weights alone; `shapes` are those of the net's state, None for any.

    Raises
    ------
    StoreError, MethodError
        As `load` and `load_state`, but for other weights of the right shapes.
    """
    from safetensors import safe_open

    path, card = local_path(folder) / WEIGHTS, read_card(folder)
    with _whole(path, card), safe_open(str(path), framework="numpy") as file:
        found = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    if shapes is None or found == shapes:
        return
    _signed(folder, card)
    check_shapes(unwrapped(found, shapes), shapes, str(path), name)


def _signed(folder: str | Path, card: Card) -> str:
    """Digest of the weights; refuses weights that are not those of the card."""
    found, path = digest(folder), local_path(folder) / WEIGHTS
    if card.digest and found != card.digest:
        raise StoreError(
            f"{path} has SHA-256 {found[:12]}...: expected {card.digest[:12]}... as {CARD} says. "
            f"The two files are of different checkpoints. {_COPY}"
        )
    return found


@contextmanager
def _whole(path: Path, card: Card) -> Iterator[None]:
    """Says what is wrong with a file of weights that safetensors cannot read."""
    from safetensors import SafetensorError

    if not path.is_file():
        raise StoreError(f"{path} is absent: expected the weights of {card.method}. {_COPY}")
    try:
        yield
    except SafetensorError as error:
        raise StoreError(
            f"{path} ({path.stat().st_size} bytes) is cut short or not a safetensors file "
            f"({error}): expected the weights of {card.method}. {_COPY}"
        ) from error


def read_card(folder: str | Path) -> Card:
    """The card of a checkpoint, without its weights; a former path of its method is today's.

    Raises
    ------
    StoreError
        The folder or the card is absent, or the card is not a JSON object with a card's entries,
        each of its kind.
    """
    folder = local_path(folder)
    path = folder / CARD
    if not folder.is_dir():
        raise StoreError(
            f"No checkpoint at {folder}: expected a folder with {WEIGHTS} and {CARD}. Use "
            f"cubefill train RECIPE.toml {folder} to make one."
        )
    if not path.is_file():
        inside = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise StoreError(
            f"{path} is absent: expected a checkpoint's folder ({WEIGHTS}, {CARD}), which holds "
            f"{inside}. Pass the folder that `cubefill train` printed."
        )
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not JSON ({error}): expected a card. {_COPY}") from error
    known = [f.name for f in fields(Card)]
    if not isinstance(values, dict) or "method" not in values or set(values) - set(known):
        got = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise StoreError(
            f"{path} holds {got or 'nothing'}: expected `method` and of {', '.join(known)}. {_COPY}"
        )
    for f in fields(Card):
        kind = dict if f.default_factory is dict else str
        if not isinstance(values.get(f.name, kind()), kind):
            raise StoreError(
                f"{path} has {f.name}={values[f.name]!r}: expected "
                f"{'an object' if kind is dict else 'a string'}. {_COPY}"
            )
    return Card(**{**values, "method": current(values["method"])})


def digest(folder: str | Path) -> str:
    """SHA-256 of the weights of a checkpoint, as hex digits.

    Raises
    ------
    StoreError
        The folder holds no weights.
    """
    path = local_path(folder) / WEIGHTS
    key = _stamp(path)
    if key not in _DIGESTS:
        _DIGESTS[key] = _sha256(path)
    return _DIGESTS[key]


def _stamp(path: Path) -> "Stamp":
    """What changes when a file is written again."""
    try:
        found = path.stat()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error}): expected a file of a checkpoint. {_COPY}"
        ) from error
    return str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns


_COPY = "Try to copy the whole folder again, or use `cubefill train` to train again."
Stamp = tuple[str, int, int, int]
_DIGESTS: dict[Stamp, str] = {}
_CARDS: dict[tuple[Stamp, Stamp], Card] = {}
"""Cards whose weights were checked, with their digest, by the files that both were read from."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of python and of the packages that shape a checkpoint."""
    found = {"python": platform.python_version()}
    for name in ("cubefill", "torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


# ------------------------------------------------------------------ into a net


def config_of(card: Card, kind: Callable[..., Config]) -> Config:
    """The method's `Config` as the card records it; lists come back as tuples.

    Raises
    ------
    MethodError
        The card has an entry that `Config` does not know or of another kind than its default, or
        lacks one without a default.
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(card.config) - set(known))
    missing = [
        n
        for n, f in known.items()
        if n not in card.config and f.default is MISSING and f.default_factory is MISSING
    ]
    if unknown or missing:
        raise MethodError(
            f"The card of a {card.method} checkpoint has config {sorted(card.config)}: expected "
            f"{', '.join(known)}. It was written by another version "
            f"({card.versions.get('cubefill', 'unknown')}). Use `cubefill train` to train again."
        )
    for n, value in card.config.items():
        if not is_like(value, known[n].default):
            raise MethodError(
                f"The card of a {card.method} checkpoint has config {n}={value!r}: expected a "
                f"value such as {known[n].default!r}. {_COPY}"
            )
    return kind(**{n: tuples(v) for n, v in card.config.items()})


def is_like(value: Any, default: Any) -> bool:
    """True where a value is of the kind of a default; anything is, without a default."""
    if default is MISSING or default is None:
        return True
    if isinstance(default, tuple):
        listed = isinstance(value, list | tuple) and len(value) >= min(1, len(default))
        return listed and all(is_like(v, d) for v in value for d in default[:1])
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def tuples(value: Any) -> Any:
    """The value with tuples for lists, as a `Config` has them."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def load_state(net: "nn.Module", state: Mapping[str, "Tensor"], source: str = "the state") -> None:
    """Copies a state into a net, every key and every shape checked first.

    Raises
    ------
    MethodError
        The first tensor that is missing, unexpected or of another shape, by name.
    """
    own = net.state_dict()
    state = unwrapped(state, own)
    check_shapes(shapes_of(state), shapes_of(own), source, type(net).__name__)
    net.load_state_dict(state)


def load_net(
    folder: str | Path,
    build: Callable[[Card], "nn.Module"],
    *,
    device: str = "cpu",
    expected: str = "",
    channels_last: bool = False,
) -> "nn.Module":
    """The net of a checkpoint, in evaluation mode on a device; one per process and device.

    Threads that ask for the same weights at the same time wait for one load.

    Parameters
    ----------
    folder
        A checkpoint.
    build
        Gives an untrained net for a card.
    device
        "cpu", "cuda", "cuda:1", "mps".
    expected
        Digest that the weights must have; "" accepts any.
    channels_last
        True lays the net's four-dimensional weights out channels last.

    Raises
    ------
    StoreError, MethodError
        As `load` and `load_state`; also weights that changed since the method was made.
    """
    import torch

    with _LOCK:
        card = _checked(local_path(folder))
        if expected and card.digest != expected:
            raise StoreError(
                f"{folder} changed: its weights have SHA-256 {card.digest[:12]}..., expected "
                f"{expected[:12]}... as when the method was made. Use resolve(...) to make it "
                "again."
            )
        config = json.dumps(dict(card.config), sort_keys=True, default=str)
        key = (card.digest, card.method, config, device, channels_last)
        if key not in _NETS:
            state, card = load(folder)
            net = build(card)
            load_state(net, state, str(local_path(folder) / WEIGHTS))
            net.eval().requires_grad_(False)
            if channels_last:
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            _NETS[key] = net.to(device)
            while len(_NETS) > NETS_KEPT:
                _NETS.popitem(last=False)
        _NETS.move_to_end(key)
        return _NETS[key]


def _checked(folder: Path) -> Card:
    """The card of a checkpoint; neither it nor its weights are read again until they change."""
    try:
        key = _stamp(folder / CARD), _stamp(folder / WEIGHTS)
    except StoreError:
        check(folder)
        raise
    if key not in _CARDS:
        card = read_card(folder)
        check(folder)
        _CARDS[key] = replace(card, digest=_signed(folder, card))
    return _CARDS[key]


_LOCK = threading.RLock()
_NETS: "OrderedDict[tuple[str, str, str, str, bool], nn.Module]" = OrderedDict()
