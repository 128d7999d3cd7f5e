"""What deep methods share: a checkpoint, a device, batches across blocks, and memory that runs out.

A forward pass runs with all of torch's threads, and only as many passes at once as there are cores
for: tiles that the engine fills on several threads wait for each other here, so cores are not
oversubscribed and the activations of one pass are held at a time. A process whose torch has one
thread (`torch.set_num_threads(1)`, a dask worker) runs one pass a core.

On a CPU one block is one pass, so an answer does not depend on how tiles share out the blocks. On a
GPU blocks go in batches of one fixed size, the last one padded; the next batch is prepared and
copied while the device works on the last.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill import checkpoint
from cubefill.errors import DeviceError, MethodError, PlanError
from cubefill.method import Block, Filled, Flag, Needs, name_of
from cubefill.nn import losses
from cubefill.nn.objective import Learning, Objective, Supervised
from cubefill.planning import cores

Arrays = dict[str, NDArray[Any]]

GPU_BATCH = 8
"""Blocks per pass that a GPU starts with; halved where its memory runs out."""


@dataclass(frozen=True)
class TorchMethod:
    """A method whose answer a trained net gives, read from a checkpoint.

    A subclass gives `name`, `Config`, `needs`, `net(config)` and `encode(block)`; it may replace
    `decode`, `target` and `objective`. The names of the arrays that `encode` returns are the names
    of the arguments of the net's `forward`, which returns one tensor.
    """

    checkpoint: str = ""
    """Folder of a checkpoint."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", "mps"; "auto" for a CUDA device where there is one."""
    batch: int = 0
    """Blocks per pass; 0 for one on a CPU and for what fits on a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type that the net computes in."""
    digest: str = field(default="", init=False)
    """SHA-256 of the weights, from the checkpoint's card."""

    name: ClassVar[str]
    Config: ClassVar[type]
    flag: ClassVar[Flag] = Flag.LEARNED
    rows: ClassVar[int] = 0
    """More than 0 where a block holds many samples (pixels): arrays of `encode` then have an axis
    of samples first, which is cut into padded groups of this many, one group a pass."""
    channels_last: ClassVar[bool] = False
    """True where the net was measured to be faster with its weights channels last."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise MethodError(
                f"precision={self.precision!r}: expected 'float32' or 'bfloat16'. "
                "Type precision='float32'."
            )
        if self.batch < 0:
            raise MethodError(f"batch={self.batch}: expected 0 or more blocks. Type batch=0.")
        if self.checkpoint:
            object.__setattr__(self, "checkpoint", str(self.checkpoint))
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

    @cached_property
    def config(self) -> Any:
        """The configuration of the net: the checkpoint's, else the default."""
        return checkpoint.config_of(self._card(), self.Config) if self.checkpoint else self.Config()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given, in their order.

        Raises
        ------
        MethodError
            No checkpoint was given, or the net gives no number for finite input.
        PlanError
            One block needs more memory than the device has.
        """
        if not self.checkpoint:
            raise MethodError(
                f"Method {self._named()!r} needs a trained net: expected checkpoint='FOLDER'. Type "
                "`cubefill train RECIPE.toml --out FOLDER` to make one, then "
                f"ds.gapfill({self._named()!r}, checkpoint='FOLDER')."
            )
        device = device_of(self.device)
        check_precision(self.precision, device)
        return self._fill(blocks, device)

    def _fill(self, blocks: Iterable[Block], device: torch.device) -> Iterator[Filled]:
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            return
        net = checkpoint.load_net(
            self.checkpoint,
            lambda card: self.net(checkpoint.config_of(card, self.Config)),
            device=str(device),
            expected=self.digest,
            channels_last=self.channels_last,
        )
        run = _Pass(net, device, self.precision, (self.digest, str(device), self.batch))
        size = self.batch or (1 if device.type == "cpu" else GPU_BATCH)
        ahead = 0 if device.type == "cpu" else 1
        running: deque[tuple[list[_Item], list[Tensor]]] = deque()
        for group in self._groups(chain([first], blocks), 1 if self.rows else size):
            running.append((group, run.launch(self._joined(group), size * max(1, self.rows))))
            if len(running) > ahead:
                yield from self._answers(*running.popleft())
        while running:
            yield from self._answers(*running.popleft())

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

    def _answers(self, group: list["_Item"], parts: list[Tensor]) -> Iterator[Filled]:
        output = torch.cat(parts) if len(parts) > 1 else parts[0]
        values = output.float().cpu().numpy()
        answers = [values] if self.rows else list(values)
        for (block, _), answer in zip(group, answers, strict=True):
            if not np.isfinite(answer).all():
                raise MethodError(
                    f"The net of {self._named()!r} gave no number for {_place(block)}, though its "
                    "input is finite: expected finite values. Its weights or its precision are "
                    f"at fault: type precision='float32', or train {self.checkpoint} again."
                )
            yield self.decode(answer, block)

    def _named(self) -> str:
        return getattr(type(self), "name", "") or name_of(self)

    def _card(self) -> checkpoint.Card:
        card = checkpoint.read_card(self.checkpoint)
        if card.method != path_of(type(self)):
            raise MethodError(
                f"{self.checkpoint} is a checkpoint of {card.method}: expected one of "
                f"{path_of(type(self))}. Type ds.gapfill({card.method!r}, "
                f"checkpoint={self.checkpoint!r})."
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
    """"module:Class", as a card names the method that reads it."""
    return f"{method.__module__}:{method.__qualname__}"


def card_of(method: TorchMethod, **entries: Any) -> checkpoint.Card:
    """A card for the net of a method; `entries` are further fields of `Card`."""
    needs = {n: str(v) for n, v in asdict(method.needs).items()}
    return checkpoint.Card(
        method=path_of(type(method)), config=asdict(method.config), needs=needs, **entries
    )


def _place(block: Block) -> str:
    t, y, x = block.origin
    return f"the block at time step {t}, row {y}, column {x} ({block.time[0]:%Y})" if False else (
        f"the block at time step {t}, row {y}, column {x}"
    )


# ------------------------------------------------------------------ device and precision


def device_of(name: str) -> torch.device:
    """The torch device of a name.

    Raises
    ------
    DeviceError
        The device is absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"device={name!r}: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not there.get(device.type, False):
        raise DeviceError(
            f"device={name!r}: this machine has no such accelerator for torch. "
            "Type device='auto' to use what is there."
        )
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses bfloat16 where it is emulated, which is tens of times slower than float32.

    Raises
    ------
    MethodError
        The device is a CPU without AVX512-BF16 or AMX.
    """
    if precision == "bfloat16" and device.type == "cpu" and not fast_bfloat16():
        raise MethodError(
            "precision='bfloat16' on this CPU, which has neither AVX512-BF16 nor AMX, is about "
            "60 times slower than float32. Type precision='float32', or device='cuda'."
        )


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """True where this CPU multiplies bfloat16 in hardware."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


# ------------------------------------------------------------------ a pass


@lru_cache(maxsize=1)
def _turns() -> threading.BoundedSemaphore:
    """One turn for each pass that the cores can run at once."""
    return threading.BoundedSemaphore(max(1, cores() // torch.get_num_threads()))


_FITS: dict[tuple[str, str, int], int] = {}
"""Samples per pass that fitted, by weights, device and asked batch, once memory has run out."""


@dataclass
class _Pass:
    """A net on a device, and how many samples fit in one pass."""

    net: nn.Module
    device: torch.device
    precision: str
    key: tuple[str, str, int]

    def launch(self, arrays: Mapping[str, NDArray[Any]], size: int) -> list[Tensor]:
        """The net's answers for samples along the first axis, in passes of `size` samples.

        The work may still be under way on a GPU. Where memory runs out the size is halved, for
        this and every later pass.
        """
        count = len(next(iter(arrays.values())))
        parts: list[Tensor] = []
        start = 0
        while start < count:
            now = min(size, _FITS.get(self.key, size))
            answer = self._try({n: _cut(a, start, now) for n, a in arrays.items()})
            if answer is None:
                self._shrink(now)
            else:
                parts.append(answer[: count - start])
                start += now
        return parts

    def _try(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor | None:
        """The answer, or None where memory ran out.

        The caller tries again outside the except block, which keeps the failed pass alive.
        """
        try:
            with _turns(), torch.inference_mode(), _exact(self.device), self._autocast():
                answer: Tensor = self.net(**{n: self._moved(a) for n, a in arrays.items()})
                return answer
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        return None

    def _shrink(self, size: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise PlanError(
                f"One block needs more memory than {self.device} has. Type device='cpu', or close "
                "what else runs there."
            )
        _FITS[self.key] = size // 2

    def _moved(self, a: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(a))
        if self.device.type != "cuda":
            return tensor.to(self.device)
        upload = _upload_stream(str(self.device))
        with torch.cuda.stream(upload):
            moved = tensor.pin_memory().to(self.device, non_blocking=True)
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(upload)
        moved.record_stream(here)
        return moved

    def _autocast(self) -> torch.autocast:
        wanted = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)


@lru_cache(maxsize=8)
def _upload_stream(device: str) -> "torch.cuda.Stream":
    return torch.cuda.Stream(device)


def _exact(device: torch.device) -> Any:
    """Float32 as it is on a GPU: no TF32 in convolutions, no algorithm chosen by timing."""
    on = device.type == "cuda"
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=on, allow_tf32=not on
    )


def _out_of_memory(error: RuntimeError) -> bool:
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _cut(a: NDArray[Any], start: int, size: int) -> NDArray[Any]:
    """`size` samples from `start` on; the last sample fills what is missing."""
    part = a[start : start + size]
    missing = size - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
