"""Batches of samples: their order, each process's share, and tensors of equal shape."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cubefill.errors import CubefillError
from cubefill.nn.update import Batch, rank, world
from cubefill.samples.protocol import Sample, Samples
from cubefill.train.recipe import Recipe
from cubefill.train.state import Standing


def batches(
    samples: Samples, recipe: Recipe, now: Standing, *, rows: bool = False
) -> Iterator[Batch]:
    """Shares of the batches of an epoch that fall to one process, from where the run stands.

    The order is drawn from the seed and the epoch alone; what is left over after the last whole
    batch waits for another epoch.

    Raises
    ------
    CubefillError
        A batch cannot be shared out evenly, or its samples differ in shape.
    """
    source = samples.at(now.epoch) if hasattr(samples, "at") else samples
    order = np.random.default_rng([recipe.seed, now.epoch]).permutation(len(source))
    size = min(recipe.batch, len(order))
    if size % world():
        raise CubefillError(
            f"A batch of {size} samples for {world()} processes: expected as many for each. Pass "
            f"batch={world() * -(-size // world())}, or give more samples."
        )
    whole = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    shares = [g[rank() :: world()].tolist() for g in whole[now.batch :]]
    yield from loader(source, shares, recipe, rows)


def loader(
    source: Samples, groups: list[list[int]], recipe: Recipe, rows: bool
) -> "DataLoader[Batch]":
    """Batches of samples by index, prepared by `recipe.workers` processes."""
    return DataLoader(
        cast(Any, _Indexed(source)),
        batch_sampler=groups,
        num_workers=recipe.workers,
        collate_fn=_Joined(rows),
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )


class _Indexed(Dataset[Sample]):
    """Samples as torch wants them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class _Joined:
    """Samples as one batch: along a new first axis, or along their axis of rows."""

    def __init__(self, rows: bool) -> None:
        self.rows = rows

    def __call__(self, found: list[Sample]) -> Batch:
        join: Any = np.concatenate if self.rows else np.stack
        batch = {}
        for name in found[0]:
            arrays = [sample[name] for sample in found]
            if len({a.shape[self.rows :] for a in arrays}) > 1:
                raise CubefillError(
                    f"Samples of one batch have {name!r} of shapes "
                    f"{', '.join(str(a.shape) for a in arrays)}: expected equal ones. Pass dates=, "
                    "so that every sample has as many time steps, or batch=1."
                )
            batch[name] = torch.from_numpy(join(arrays))
        return batch
