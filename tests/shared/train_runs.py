"""Small training runs: a cube to learn from, samples, a recipe, and what a run left behind."""

import csv
import os
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from cubefill import train
from cubefill.gaps import Blobs
from cubefill.methods.learned.method import TorchMethod
from cubefill.nn import checkpoint
from cubefill.nn.objective import Adversarial, Learning, Objective
from cubefill.samples.patches import CubeSamples
from cubefill.samples.protocol import Sample
from cubefill.train.recipe import Recipe
from tests.methods.learned.test_method import Demo
from tests.shared.strategies import cube

ROOT = Path(__file__).parents[2]


def smooth_cube(seed: int = 0, dates: int = 6, size: int = 24) -> xr.Dataset:
    """Bands that rise in time and space, with random gaps: something to learn."""
    ds = cube(dates=dates, size=(size, size), gap=0.25, seed=seed)
    t, y, x = np.meshgrid(np.arange(dates), np.arange(size), np.arange(size), indexing="ij")
    for i, b in enumerate(("B04", "B08")):
        ds[b][:] = (0.1 + 0.1 * i + 0.01 * t + 0.004 * y + 0.003 * x).astype(np.float32)
    return ds


def samples(count: int = 8, seed: int = 0, **options: Any) -> CubeSamples:
    return CubeSamples([smooth_cube(seed)], Demo(), Blobs(), seed, count, **options)


RECIPE = Recipe(rate=1e-2, epochs=3, batch=4, log_every=1, seed=5)


def fit(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> Path:
    given: dict[str, Any] = {"method": Demo(), "samples": samples(), "progress": False}
    given |= options
    return train.fit(recipe=recipe, folder=folder, **given)


def as_ranks(count: int, port: int) -> None:
    """Goes on in `count` processes that see what torchrun tells each; this one waits and ends."""
    children = []
    for rank in map(str, range(count)):
        if not (child := os.fork()):
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(count)}
            os.environ.update(told, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            return
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port


def state(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder)[0]


def close(a: Path, b: Path, atol: float = 1e-6) -> None:
    found, expected = state(a), state(b)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=0)


def log(folder: Path, kind: str) -> list[dict[str, str]]:
    with (folder / "training" / "log.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Opposed(Demo):
    """The demo net against an adversary."""

    name: ClassVar[str] = "opposed"

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        return Adversarial(net, Judge(), recipe)


class Watched:
    """Samples that note which were asked for, and may fail."""

    def __init__(self, held: CubeSamples, fails: int = -1) -> None:
        self.held, self.fails = held, fails
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        if len(self.seen) == self.fails:
            raise InterruptedError("the lights went out")
        self.seen.append(index)
        return self.held[index]


class Uneven(Watched):
    """Samples of which every other one has a date less."""

    def __getitem__(self, index: int) -> Sample:
        return {n: a[: 6 - index % 2] for n, a in super().__getitem__(index).items()}


class Real(Watched):
    """Samples with a real window as large as the answer, so that no window is drawn at random."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return found | {"discriminator_windows": found["target"]}


def two(folder: Path, kind: type[TorchMethod]) -> None:
    """A run whose batches can be shared out; nothing in it depends on the process."""
    held = CubeSamples([smooth_cube()], kind(), Blobs(), count=8)
    given = held if kind is Demo else Real(held)
    apart = replace(held, seed=4, count=4)
    fit(folder, replace(RECIPE, epochs=2), method=kind(), samples=given, validation=apart)
