"""Where a training run stands: its state, log and averaged weights, and the batches to come."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cubefill.addresses import writing
from cubefill.errors import CubefillError, StoreError
from cubefill.nn.objective import Objective
from cubefill.nn.update import Batch, rank, world
from cubefill.ownership import claim, document
from cubefill.samples.protocol import Sample, Samples
from cubefill.train.recipe import Recipe

STATE = "state.pt"
LOG = "log.csv"
_SINCE_0_1 = {"stale": "patience_used"}


@dataclass(frozen=True)
class TrainingState:
    """Epoch, update, best score and patience of a run."""

    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done."""
    update: int = 0
    best: float = inf
    """Lowest score so far, of the weights that are kept."""
    patience_used: int = 0
    """Epochs since a score was better."""
    waited: int = 0
    """Epochs since a score was better, or since the last plateau."""
    plateaus: int = 0
    total: float = 0.0
    """Sum of the losses of the epoch's updates."""
    reference: float = inf
    """The last score that was better by `better_by`, which the next one is compared with."""

    def stepped(self, loss: float) -> "TrainingState":
        """After one more update."""
        return replace(self, batch=self.batch + 1, update=self.update + 1, total=self.total + loss)

    def judged(self, score: float, recipe: Recipe) -> tuple["TrainingState", bool]:
        """After an epoch with a score, and whether it is the lowest."""
        lowest = score < self.best
        better = score < self.reference - recipe.better_by
        patience_used = 0 if better else self.patience_used + 1
        waited = 0 if better else self.waited + 1
        plateau = recipe.schedule == "plateau" and waited >= recipe.plateau
        then = replace(
            self,
            epoch=self.epoch + 1,
            batch=0,
            total=0.0,
            best=score if lowest else self.best,
            patience_used=patience_used,
            waited=0 if plateau else waited,
            plateaus=self.plateaus + plateau,
            reference=score if better else self.reference,
        )
        return then, lowest

    @classmethod
    def taken_up(cls, held: Mapping[str, Any], path: Path) -> "TrainingState":
        """Of a state; one of version 0.1 has `stale`, one without `reference` was judged by `best`.

        Raises
        ------
        StoreError
            The state is not one of this version.
        """
        try:
            now = {_SINCE_0_1.get(n, n): v for n, v in held.items()}
            return cls(**{"reference": held["best"], **now})
        except (TypeError, KeyError) as error:
            raise StoreError(
                f"{path} is of another version ({error}): expected a state of "
                f"{', '.join(f.name for f in fields(cls))}. Pass overwrite=True to begin again."
            ) from error


class Average:
    """Moving average of a net's weights; the net's own where `decay` is 0."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay = net, decay
        self.held: dict[str, Tensor] = {}
        if decay:
            self.held = {n: t.detach().clone() for n, t in net.state_dict().items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the average towards the weights after an update."""
        for name, now in self.net.state_dict().items() if self.decay else ():
            if now.is_floating_point():
                self.held[name].lerp_(now, 1 - self.decay)
            else:
                self.held[name].copy_(now)

    def weights(self) -> dict[str, Tensor]:
        """What is scored and kept."""
        return self.held if self.decay else self.net.state_dict()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The net has the averaged weights inside."""
        if not self.decay:
            yield
            return
        own = {n: t.detach().clone() for n, t in self.net.state_dict().items()}
        self.net.load_state_dict(self.held)
        try:
            yield
        finally:
            self.net.load_state_dict(own)

    def load(self, held: Mapping[str, Tensor]) -> None:
        """Takes the average back."""
        for name, tensor in held.items():
            self.held[name].copy_(tensor)


@dataclass(frozen=True)
class Run:
    """The folder of a run: `state.pt`, `log.csv` and `recipe.json` beside the checkpoint."""

    folder: Path
    recipe: Recipe
    data: str = ""
    """Digest of the samples."""

    @property
    def begun(self) -> bool:
        """True when there is a state to go on from."""
        return (self.folder / STATE).is_file()

    def begin(self) -> None:
        """Makes the folder, and forgets an earlier run in it."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.recipe.to_dict(), indent=2) + "\n"
        (self.folder / "recipe.json").write_text(text)
        for name in (STATE, LOG):
            (self.folder / name).unlink(missing_ok=True)

    def admit(self) -> None:
        """Refuses to forget files in the folder that are of no run."""
        ours = {"method", "epochs", "batch", "rate"} <= set(
            document(self.folder / "recipe.json") or {}
        )
        if self.folder.exists() and not self.folder.is_dir():
            claim(self.folder, "run", ours=False)
        for path in (self.folder / n for n in ("recipe.json", STATE, LOG)):
            if path.exists() or path.is_symlink():
                claim(path, "file of a run", ours=ours, overwrite=True)

    def keep(self, objective: Objective, average: Average, now: TrainingState) -> None:
        """Writes the state; a kill while writing leaves the one before."""
        state = {
            "recipe": self.recipe.fingerprint,
            "data": self.data,
            "standing": asdict(now),
            "objective": objective.state_dict(),
            "average": average.held,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        scratch = self.folder / f"{STATE}.writing"
        torch.save(state, scratch)
        os.replace(scratch, self.folder / STATE)

    def take_up(self, objective: Objective, average: Average) -> TrainingState:
        """Puts everything back as `keep` found it.

        Raises
        ------
        StoreError
            The state is of another recipe or other samples, or cannot be read.
        """
        path = self.folder / STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise StoreError(
                f"{path} cannot be read ({error}): expected the state of a run. Pass "
                "overwrite=True to begin again."
            ) from error
        if state["recipe"] != self.recipe.fingerprint:
            raise StoreError(
                f"{path} is of a run with another recipe: expected that of "
                f"{self.folder / 'recipe.json'}. Pass overwrite=True to begin again, or another "
                "folder."
            )
        if state["data"] != self.data:
            raise StoreError(
                f"{path} is of a run on other samples ({state['data']}): expected those of now "
                f"({self.data}). Pass overwrite=True to begin again, or another folder."
            )
        objective.load_state_dict(state["objective"])
        average.load(state["average"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.device_count() == len(state["random_cuda"]):
            torch.cuda.set_rng_state_all(state["random_cuda"])
        return TrainingState.taken_up(state["standing"], path)


class Log:
    """Writes `log.csv`, a line per so many updates and per epoch; TensorBoard where installed."""

    def __init__(self, folder: Path, now: TrainingState, *, writes: bool = True) -> None:
        self.path, self.writes = folder / LOG, writes
        self.fields: list[str] = []
        if writes and self.path.is_file():
            self._forget_after(now)
        self.board = _board(folder) if writes else None

    def line(self, kind: str, now: TrainingState, values: Mapping[str, float]) -> None:
        """Writes one line; `kind` is "update" or "epoch"."""
        if not self.writes:
            return
        row = {"kind": kind, "epoch": now.epoch, "update": now.update}
        row |= {n: float(v) for n, v in values.items()}
        new = [n for n in row if n not in self.fields]
        if new:
            self._widen(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.fields, restval="").writerow(row)
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, now.update)

    def close(self) -> None:
        """Ends the TensorBoard file."""
        if self.board:
            self.board.close()

    def _rows(self) -> list[dict[str, str]]:
        """Lines that were written to their end."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", errors="replace") as file:
            lines = [line for line in file if line.endswith("\n")]
        return [row for row in csv.DictReader(lines) if _is_whole(row)]

    def _widen(self, new: list[str]) -> None:
        """Writes the log anew with more columns."""
        rows = self._rows()
        self.fields += new
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replaces the log; a kill while writing leaves the one before."""
        scratch = self.path.with_name(f"{LOG}.writing")
        with scratch.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.fields, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(scratch, self.path)

    def _forget_after(self, now: TrainingState) -> None:
        """Drops lines of updates that the state taken up does not hold."""
        kept = [r for r in self._rows() if int(r["update"]) <= now.update]
        kept = [r for r in kept if r["kind"] != "epoch" or int(r["epoch"]) < now.epoch]
        if kept:
            self.fields = list(kept[0])
            self._write(kept)
        else:
            self.path.unlink()


def _is_whole(row: Mapping[str | None, Any]) -> bool:
    """False for what a kill left of a line."""
    full = None not in row and None not in row.values() and "kind" in row
    return full and all(str(row.get(n, "")).isdecimal() for n in ("epoch", "update"))


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


# ------------------------------------------------------------------ batches


def batches(
    samples: Samples, recipe: Recipe, now: TrainingState, *, rows: bool = False
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
