"""One pass of a net over samples: device, precision, passes at once, memory that runs out."""

import importlib
import os
import shutil
import threading
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.errors import DeviceError, MethodError, PlanError
from cubefill.machine import cores
from cubefill.nn.update import autocast

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
            "Pass device='auto' to use what is there."
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
            "60 times slower than float32. Pass precision='float32', or device='cuda'."
        )


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """True where this CPU multiplies bfloat16 in hardware."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


# ------------------------------------------------------------------ compiled nets

COMPILERS = ("g++", "clang++", "c++", "cl")


def check_compiler(device: torch.device) -> None:
    """Refuses to compile for a CPU where torch finds no C++ compiler.

    Raises
    ------
    DeviceError
        There is none.
    """
    names = [*filter(None, [os.environ.get("CXX")]), *COMPILERS]
    if device.type == "cpu" and not any(map(shutil.which, names)):
        raise DeviceError(
            f"compiled=True needs a C++ compiler: expected one of {', '.join(names)} on the path. "
            "Pass compiled=False, or install one."
        )


@lru_cache(maxsize=4)
def compiled_net(net: nn.Module) -> Any:
    """The net, compiled anew for each shape when it is given it first; one per process.

    No kernel is shared by several shapes, so that an answer does not depend on which came before.
    """
    with warnings.catch_warnings():  # a module that the compiler loads warns of torch's own use
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch.utils.mkldnn")
    return torch.compile(net, dynamic=False)


# ------------------------------------------------------------------ a pass


def passes_at_once() -> int:
    """Passes that the cores can run at once, each with torch's threads."""
    return max(1, cores() // torch.get_num_threads())


@lru_cache(maxsize=8)
def _admission(device: str) -> threading.BoundedSemaphore:
    """Lets in so many passes at once; a GPU is given its work by one thread at a time."""
    return threading.BoundedSemaphore(passes_at_once() if device == "cpu" else 1)


_FITS: dict[tuple[str, str, int], int] = {}
"""Samples per pass that fitted, by weights, device and asked batch, once memory has run out."""


class Answer(NamedTuple):
    """An answer on its way to the host."""

    host: Tensor
    copied: "torch.cuda.Event | None" = None

    def wait(self) -> Tensor:
        """The answer in float32, once it is there."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.host


@dataclass
class Pass:
    """A net on a device, and how many samples fit in one pass."""

    net: nn.Module
    device: torch.device
    precision: str
    key: tuple[str, str, int]

    def launch(self, arrays: Mapping[str, NDArray[Any]], size: int) -> list[Answer]:
        """The net's answers for samples along the first axis, in passes of `size` samples.

        On a GPU the work may still be under way: a pass and the copies before and after it run
        beside what the host does, and beside the next pass. Where memory runs out the size is
        halved, for this and every later pass.
        """
        count = len(next(iter(arrays.values())))
        parts: list[Answer] = []
        start = 0
        while start < count:
            now = min(size, _FITS.get(self.key, size))
            answer = self._try({n: _cut(a, start, now) for n, a in arrays.items()})
            if answer is None:
                self._shrink(now)
            else:
                parts.append(_sent(answer[: count - start]))
                start += now
        return parts

    def _try(self, arrays: Mapping[str, NDArray[Any]]) -> Tensor | None:
        """The answer, or None where memory ran out.

        The caller tries again outside the except block, which keeps the failed pass alive.
        """
        try:
            with (
                _admission(str(self.device)),
                torch.inference_mode(),
                _exact(self.device),
                autocast(self.device, self.precision),
            ):
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
                f"One block needs more memory than {self.device} has. Pass device='cpu', or close "
                "what else runs there."
            )
        _FITS[self.key] = size // 2

    def _moved(self, a: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(a))
        if self.device.type != "cuda":
            return tensor.to(self.device)
        upload = _stream(str(self.device), "up")
        with torch.cuda.stream(upload):
            moved = tensor.pin_memory().to(self.device, non_blocking=True)
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(upload)
        moved.record_stream(here)
        return moved


@lru_cache(maxsize=16)
def _stream(device: str, way: str) -> "torch.cuda.Stream":
    """A stream of copies to a device ("up") or from it ("down")."""
    return torch.cuda.Stream(device)


def _sent(answer: Tensor) -> Answer:
    """The answer on its way to the host, in float32."""
    answer = answer.float()
    if answer.device.type != "cuda":
        return Answer(answer.cpu())
    down = _stream(str(answer.device), "down")
    down.wait_stream(torch.cuda.current_stream(answer.device))
    with torch.cuda.stream(down):
        host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
        host.copy_(answer, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(down)
    answer.record_stream(down)
    return Answer(host, copied)


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """Float32 as it is on a GPU: no TF32 in convolutions, no algorithm chosen by timing."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def _out_of_memory(error: RuntimeError) -> bool:
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _cut(a: NDArray[Any], start: int, size: int) -> NDArray[Any]:
    """`size` samples from `start` on; the last sample fills what is missing."""
    part = a[start : start + size]
    missing = size - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
