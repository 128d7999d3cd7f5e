"""Parts of an update: settings, passes of a batch, bfloat16, clipping, several processes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Settings of torch's Adam; a weight decay above 0 makes it AdamW."""

    rate: float = 1e-3
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.0
    eps: float = 1e-8


def adam(settings: Adam, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer of parameters."""
    kind = torch.optim.AdamW if settings.decay else torch.optim.Adam
    return kind(
        list(parameters),
        settings.rate,
        settings.betas,
        eps=settings.eps,
        weight_decay=settings.decay,
    )


def cut(batch: Batch, micro: int) -> Iterator[Batch]:
    """Passes of at most `micro` samples of a batch; the batch itself for 0."""
    count = len(next(iter(batch.values())))
    size = micro or count
    for start in range(0, count, size):
        yield {n: t[start : start + size] for n, t in batch.items()}


def moved(batch: Batch, net: nn.Module) -> Batch:
    """The batch on the net's device."""
    device = next(net.parameters()).device
    return {n: t.to(device, non_blocking=True) for n, t in batch.items()}


def forward(net: nn.Module, batch: Batch, precision: str, leave: set[str]) -> Tensor:
    """The net's answer in float32 to the entries of a batch, without those to `leave`."""
    given = {n: t for n, t in batch.items() if n not in leave}
    with autocast(next(iter(batch.values())).device, precision):
        answer: Tensor = net(**given)
    return answer.float()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Passes in bfloat16 where the precision says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def clip(net: nn.Module, largest: float) -> None:
    """Scales the gradient of a net down to a norm; 0 leaves it."""
    if largest:
        nn.utils.clip_grad_norm_(net.parameters(), largest)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


# ------------------------------------------------------------------ several processes


def rank() -> int:
    """Number of this process among those that train together, from 0."""
    return torch.distributed.get_rank() if _running() else 0


def world() -> int:
    """Processes that train together."""
    return torch.distributed.get_world_size() if _running() else 1


def _running() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def distributed(net: nn.Module) -> nn.Module:
    """The net, wrapped by torch's DistributedDataParallel where several processes train it."""
    if world() == 1:
        return net
    return nn.parallel.DistributedDataParallel(net)


def last_syncs(net: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients travel between processes with the last pass of an update only."""
    if last or not isinstance(net, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return net.no_sync()


def shares(weights: list[float]) -> list[float]:
    """Factors that turn means of passes into the mean of the batch over all processes.

    DistributedDataParallel takes the mean over processes, hence the factor of their number.
    """
    total = sum_of_processes(sum(weights))
    return [w * world() / total if total else 0.0 for w in weights]


def sum_of_processes(value: float) -> float:
    """Sum over the processes that train together."""
    if world() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64)
    if torch.distributed.get_backend() == "nccl":
        summed = summed.cuda()
    torch.distributed.all_reduce(summed)
    return float(summed)


def mean_of_processes(value: float) -> float:
    """Mean over the processes that train together."""
    return sum_of_processes(value) / world()
