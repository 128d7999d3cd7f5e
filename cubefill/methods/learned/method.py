"""What deep methods share: a checkpoint, a device, batches across blocks, and memory that runs out.

A forward pass runs with all of torch's threads, and only as many passes at once as there are cores
for: tiles that the engine fills on several threads wait for each other here, so cores are not
oversubscribed and the activations of one pass are held at a time. A process whose torch has one
thread (`torch.set_num_threads(1)`, a dask worker) runs one pass a core.

On a CPU one block is one pass, so an answer does not depend on how tiles share out the blocks. On a
GPU blocks go in batches of one fixed size, the last one padded; the next batch is prepared and
copied while the device works on the last.
"""

import logging
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cubefill.errors import CubefillWarning, MethodError, did_you_mean
from cubefill.methods.contract import Block, Filled, Flag, Needs, Scratch, check_options
from cubefill.methods.learned.footprint import footprint, on_meta, state_of
from cubefill.methods.learned.passes import (
    Answer,
    Pass,
    check_compiler,
    check_precision,
    compiled_net,
    device_of,
)
from cubefill.methods.registry import APPLICATIONS, WITH_WEIGHTS, listed, name_for, name_of
from cubefill.nn import checkpoint, losses
from cubefill.nn.checkpoint import Card
from cubefill.nn.objective import Learning, Objective, Supervised
from cubefill.nn.original import check_shapes, shapes_of

Arrays = dict[str, NDArray[Any]]

_READY: set[tuple[type, str, str, str, str]] = set()
"""What `fill` has found ready in this process; weights that change later are seen as they load."""

_CONFIGURED = "_configured"
"""In the state of a method whose net is yet to be trained, whatever weights come with cubefill."""

log = logging.getLogger("cubefill")

GPU_BATCH = 8
"""Blocks per pass that a GPU starts with; halved where its memory runs out."""


@dataclass(frozen=True)
class TorchMethod:
    """A method whose answer a trained net gives, read from a checkpoint.

    A subclass gives `name`, `Config`, `needs`, `net(config)` and `encode(block)`; it may replace
    `decode`, `split`, `join`, `target` and `objective`. The names of the arrays that `encode`
    returns are the names of the arguments of the net's `forward`, which returns one tensor.
    """

    checkpoint: str = ""
    """Folder of a checkpoint; "" for the weights that come with cubefill, where there are any."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", "mps"; "auto" for a CUDA device where there is one."""
    batch: int = 0
    """Blocks per pass; 0 for one on a CPU and for what fits on a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type that the net computes in."""
    compiled: bool = False
    """True compiles the net by torch for each shape it is given: tens of seconds for the first
    pass of a process, then faster on a CPU. Answers differ by rounding, about 1e-7."""
    digest: str = field(default="", init=False)
    """SHA-256 of the weights, from the checkpoint's card."""

    name: ClassVar[str]
    Config: ClassVar[type]
    flag: ClassVar[Flag] = Flag.LEARNED
    rows: ClassVar[int] = 0
    """More than 0 where a block holds many samples (pixels): arrays of `encode` then have an axis
    of samples first, which is cut into padded groups of this many, one group a pass."""
    learns_from: ClassVar[Literal["cubes", "series"]] = "cubes"
    """"series" where a cube does not hold what the net is to give: see `train.sources`."""
    channels_last: ClassVar[bool] = False
    """True where the net was measured to be faster with its weights channels last."""
    quantity: ClassVar[str] = "reflectance"
    """What the values are that it learns from."""
    sensor: ClassVar[str] = "Sentinel-2"
    """What takes them."""
    published: ClassVar[Mapping[str, str]] = {}
    """`quantity` and `sensor` of the authors' weights, where they differ."""

    def __post_init__(self) -> None:
        if isinstance(self.checkpoint, PathLike):
            object.__setattr__(self, "checkpoint", fspath(self.checkpoint))
        check_options(self)
        if self.batch < 0:
            raise MethodError(f"batch={self.batch}: expected 0 or more blocks. Pass batch=0.")
        if self.folder:
            object.__setattr__(self, "digest", self._card().digest)
            _ = self.config

    # -------------------------------------------------------------- what a subclass gives

    @property
    def needs(self) -> Needs:
        """What the method must be given."""
        raise NotImplementedError(f"{type(self).__name__} has no `needs`: expected a property.")

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        raise NotImplementedError(f"{cls.__name__} has no `net(config)`.")

    def encode(self, block: Block) -> Arrays:
        """Name of an argument of the net to its array, float32 without NaN, no batch axis."""
        raise NotImplementedError(f"{type(self).__name__} has no `encode(block)`.")

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        """What the net's answer says of a block; by default `(out_time, band, y, x)` as it is."""
        return block.filled(output)

    def split(self, block: Block) -> list[Block]:
        """Blocks that go through the net one by one, in order; by default the block as it is.

        None for a block that the net need not see.
        """
        return [block]

    def join(self, block: Block, answers: list[Filled]) -> Filled:
        """The answer for a block from those for the blocks that `split` gave, in order."""
        return answers[0]

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """`target` and `where` of a training sample, in the layout of the net's answer.

        `truth` is a block as it was seen, `gapped` the same one with artificial gaps. By default
        the bands `(time, band, y, x)`, scored where they are clear and were hidden.
        """
        bands = truth.optical
        known = np.isfinite(bands)
        where = known & (truth.valid & ~gapped.valid)[:, None]
        return {"target": np.where(known, bands, np.float32(0)), "where": where}

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        """How the net learns; by default to give the target, by the loss that the recipe names."""
        return Supervised(net, losses.named(recipe.loss), recipe)

    # -------------------------------------------------------------- what it does with them

    @classmethod
    def shipped(cls) -> Path | None:
        """Folder of the checkpoint that comes with cubefill; None where none does."""
        name = name_for(path_of(cls))
        return Path(__file__).with_name("weights") / name if name in WITH_WEIGHTS else None

    @property
    def folder(self) -> str:
        """Folder of the checkpoint that fills; "" for a net that is yet to be trained."""
        if self.checkpoint or _CONFIGURED in self.__dict__:
            return self.checkpoint
        return fspath(self.shipped() or "")

    @cached_property
    def config(self) -> Any:
        """The configuration of the net: the checkpoint's, else the default."""
        return checkpoint.config_of(self._card(), self.Config) if self.folder else self.Config()

    def configured(self, **values: Any) -> Self:
        """The method with an untrained net of another configuration, as training makes it.

        Raises
        ------
        MethodError
            `Config` has no such field, or one of another type, or the net comes from a checkpoint.
        """
        known = [f.name for f in fields(self.Config)]
        unknown = [n for n in values if n not in known]
        if unknown:
            raise MethodError(
                f"{self._named()!r} has no configuration {unknown[0]!r}: expected one of "
                f"{', '.join(known)}.{did_you_mean(unknown[0], known)}"
            )
        if self.checkpoint:
            raise MethodError(
                f"config={values!r} for a net from {self.checkpoint}: expected its own, "
                f"{self.config!r}. Leave out config, or train without a checkpoint."
            )
        base = self.config if _CONFIGURED in self.__dict__ else self.Config()
        for n, v in values.items():
            if not checkpoint.is_like(v, default := getattr(base, n)):
                raise MethodError(f"config has {n} = {v!r}: expected a value such as {default!r}.")
        values = {n: checkpoint.tuples(v) for n, v in values.items()}
        made = replace(self)
        made.__dict__.update({"config": replace(base, **values), "digest": "", _CONFIGURED: True})
        return made

    # -------------------------------------------------------------- the authors' weights

    @classmethod
    def from_original(cls, path: str | Path, config: Any = None) -> dict[str, torch.Tensor]:
        """The state of the net from a file that the authors published.

        Raises
        ------
        MethodError
            They published none, or it is of another net.
        """
        name = getattr(cls, "name", cls.__name__)
        raise MethodError(
            f"{name!r} reads no weights of its authors: expected a method with `from_original`. "
            f"Use `cubefill train RECIPE.toml FOLDER` to make a checkpoint of {name!r}."
        )

    @classmethod
    def original_settings(cls, path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fields of `Config` that the authors' file asks for, and how it says it was trained."""
        return {}, {}

    @classmethod
    def convert(
        cls,
        path: str | Path,
        folder: str | Path,
        *,
        licence: str = "",
        overwrite: bool = False,
        **config: Any,
    ) -> Path:
        """The folder of a checkpoint made from the authors' weights; runs no code of their file.

        Parameters
        ----------
        path
            A file that the authors published.
        folder
            Folder of the checkpoint.
        licence
            Licence of the weights, for the card.
        overwrite
            True replaces a checkpoint that is there.
        **config
            Fields of `Config` that differ from those of the authors' net.

        Raises
        ------
        StoreError, MethodError
            As `from_original`; a field is unknown; a checkpoint is there.
        """
        found, recipe = cls.original_settings(path)
        method = cls().configured(**{**found, **config})
        state = cls._checked(cls.from_original(path, method.config), method.config, path)
        card = card_of(method, recipe=recipe, licence=licence, **cls.published)
        return checkpoint.save(folder, state, card, overwrite=overwrite)

    @classmethod
    def _checked(
        cls, state: dict[str, torch.Tensor], config: Any, path: str | Path
    ) -> dict[str, torch.Tensor]:
        """The state from a file, refused unless it is that of the net of a configuration."""
        wanted = shapes_of(on_meta(cls, config).state_dict())
        check_shapes(shapes_of(state), wanted, str(path), getattr(cls, "name", cls.__name__))
        return state

    def ready(self) -> None:
        """Refuses while planning what `fill` would refuse later.

        That is no checkpoint, a broken one or another net's, and a device or precision not there.
        Warns of a net that learned another quantity, or that of another sensor.
        """
        self._check_net()
        card = self._card()
        known = {n: getattr(card, n) for n in ("quantity", "sensor")}
        if any(v and v != getattr(type(self), n) for n, v in known.items()):
            learned, wanted = _taught(**known), _taught(self.quantity, self.sensor)
            warnings.warn(
                f"The net in {self.folder} was trained on {learned}, and fills {wanted} here: "
                "check what it gives against held-out values. Use `cubefill train "
                f"{self._named()} FOLDER --cube STORE` to train one on {wanted}.",
                CubefillWarning,
                stacklevel=2,
            )

    def _check_net(self) -> None:
        if not self.folder:
            raise MethodError(
                f"Method {self._named()!r} needs a trained net: expected checkpoint='FOLDER'. Use "
                "`cubefill train RECIPE.toml FOLDER` to make one, then "
                f"ds.gapfill({self._named()!r}, checkpoint='FOLDER').{self._instead()}"
            )
        checkpoint.check(self.folder, *state_of(type(self), self.config))
        check_precision(self.precision, device_of(self.device))
        if self.compiled:
            check_compiler(device_of(self.device))

    def scratch(self, block: Block) -> Scratch:
        """Bytes of the net: its weights once, and the activations of one pass for each at once.

        `block` is as large as those to fill; its pixels do not matter. Counted for float32, of the
        configuration alone, so that it needs no checkpoint.
        """
        device = device_of(self.device)
        rows = self._size(device) * max(1, self.rows)
        try:
            arrays = self.encode(self.split(block)[0])
            shapes = tuple((n, (rows, *a.shape[bool(self.rows) :])) for n, a in arrays.items())
            return footprint(type(self), self.config, shapes, device.type == "cpu")
        except Exception as error:  # a made-up block is no reason to refuse a plan
            log.info("The plan does not count the net of %s: %s", type(self).__name__, error)
            return Scratch()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given, in their order.

        Raises
        ------
        MethodError
            No checkpoint was given, or the net gives no number for finite input.
        PlanError
            One block needs more memory than the device has.
        """
        checked = (type(self), self.checkpoint, self.digest, self.device, self.precision)
        if checked not in _READY:
            self._check_net()
            _READY.add(checked)
        return self._fill(blocks)

    def _fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        waiting: deque[tuple[Block, int]] = deque()
        needs = self.needs

        def parts() -> Iterator[Block]:
            for block in (b.of(needs) for b in blocks):
                split = self.split(block)
                waiting.append((block, len(split)))
                yield from split

        ready: deque[Filled] = deque()
        for answer in chain(self._passes(parts()), (None,)):
            ready.extend([] if answer is None else [answer])
            while waiting and len(ready) >= waiting[0][1]:
                block, count = waiting.popleft()
                yield self.join(block, [ready.popleft() for _ in range(count)])

    def _passes(self, blocks: Iterator[Block]) -> Iterator[Filled]:
        """What the net says of each block."""
        first = next(blocks, None)
        if first is None:
            return
        device = device_of(self.device)
        net = checkpoint.load_net(
            self.folder,
            lambda card: self.net(checkpoint.config_of(card, self.Config)),
            device=str(device),
            expected=self.digest,
            channels_last=self.channels_last,
        )
        net = compiled_net(net) if self.compiled else net
        run = Pass(net, device, self.precision, (self.digest, str(device), self.batch))
        size = self._size(device)
        ahead = 0 if device.type == "cpu" else 1
        running: deque[tuple[list[_Item], list[Answer]]] = deque()
        for group in self._groups(chain([first], blocks), 1 if self.rows else size):
            running.append((group, run.launch(self._joined(group), size * max(1, self.rows))))
            if len(running) > ahead:
                yield from self._answers(*running.popleft())
        while running:
            yield from self._answers(*running.popleft())

    def _size(self, device: torch.device) -> int:
        """Blocks, or groups of rows, of a pass."""
        return self.batch or (1 if device.type == "cpu" else GPU_BATCH)

    def _groups(self, blocks: Iterator[Block], size: int) -> Iterator[list["_Item"]]:
        """Blocks of equal shape that go together, as soon as there are `size` of them."""
        group: list[_Item] = []
        for block in blocks:
            item = _Item(block, self._encoded(block))
            if group and item.shapes != group[0].shapes:
                yield group
                group = []
            group.append(item)
            if len(group) == size:
                yield group
                group = []
        if group:
            yield group

    def _joined(self, group: list["_Item"]) -> Arrays:
        if self.rows:
            return group[0].arrays
        return {n: np.stack([item.arrays[n] for item in group]) for n in group[0].arrays}

    def _encoded(self, block: Block) -> Arrays:
        arrays = self.encode(block)
        for n, a in arrays.items():
            if a.dtype != np.float32 or not np.isfinite(a).all():
                what = f"{a.dtype}" if a.dtype != np.float32 else "values that are no number"
                raise MethodError(
                    f"{type(self).__name__}.encode gave {what} in {n!r} for {_place(block)}: "
                    "expected float32 without NaN."
                )
        return arrays

    def _answers(self, group: list["_Item"], parts: list[Answer]) -> Iterator[Filled]:
        arrived = [p.wait().numpy() for p in parts]
        values = arrived[0] if len(arrived) == 1 else np.concatenate(arrived)
        for (block, _), answer in zip(group, [values] if self.rows else values, strict=True):
            if not np.isfinite(answer).all():
                raise MethodError(
                    f"The net of {self._named()!r} gave no number for {_place(block)}, though its "
                    "input is finite: expected finite values. Its weights or its precision are "
                    f"at fault: pass precision='float32', or train {self.checkpoint} again."
                )
            yield self.decode(answer, block)

    def _named(self) -> str:
        return getattr(type(self), "name", "") or name_of(self)

    def _instead(self) -> str:
        """Which methods need no checkpoint, for one that fills gaps."""
        if self._named() in APPLICATIONS or not WITH_WEIGHTS:
            return ""
        known = " or ".join(f"ds.gapfill({n!r})" for n in WITH_WEIGHTS)
        return f" Use {known} for a net whose weights come with cubefill."

    def _card(self) -> Card:
        card = checkpoint.read_card(self.folder)
        if card.method != path_of(type(self)):
            # A card may come from anybody: only a name of our own table is worth typing.
            name = name_for(card.method)
            known = f"ds.gapfill({name!r}, checkpoint={self.checkpoint!r})"
            raise MethodError(
                f"{self.checkpoint} is a checkpoint of {card.method}: expected one of "
                f"{path_of(type(self))}. Use {known if listed(name) else 'another folder'}."
            )
        return card


class _Item(NamedTuple):
    """A block and what its net is given."""

    block: Block
    arrays: Arrays

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the arrays, in order."""
        return [a.shape for a in self.arrays.values()]


def path_of(method: type) -> str:
    """The `module:Class` by which a card names the method that reads it."""
    return f"{method.__module__}:{method.__qualname__}"


def card_of(method: TorchMethod, **entries: Any) -> Card:
    """A card for the net of a method; `entries` are further fields of `Card`."""
    needs = {n: str(v) for n, v in asdict(method.needs).items()}
    entries = {"quantity": method.quantity, "sensor": method.sensor, **entries}
    return Card(method=path_of(type(method)), config=asdict(method.config), needs=needs, **entries)


def _taught(quantity: str, sensor: str) -> str:
    return f"{quantity or 'a quantity not named'} of {sensor or 'a sensor not named'}"


def _place(block: Block) -> str:
    t, y, x = block.origin
    return f"the block at time step {t}, row {y}, column {x}"
