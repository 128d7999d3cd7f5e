"""What a training run keeps beside its checkpoint: where it stands, its log, averaged weights."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cubefill.errors import StoreError
from cubefill.nn import Objective
from cubefill.ownership import claim, document
from cubefill.train.recipe import Recipe

STATE = "state.pt"
LOG = "log.csv"


@dataclass(frozen=True)
class Standing:
    """Where a run stands."""

    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done."""
    update: int = 0
    best: float = inf
    """Lowest score so far, of the weights that are kept."""
    stale: int = 0
    """Epochs since a score was better."""
    waited: int = 0
    """Epochs since a score was better, or since the last plateau."""
    plateaus: int = 0
    total: float = 0.0
    """Sum of the losses of the epoch's updates."""
    reference: float = inf
    """The last score that was better by `better_by`, which the next one is compared with."""

    def stepped(self, loss: float) -> "Standing":
        """After one more update."""
        return replace(self, batch=self.batch + 1, update=self.update + 1, total=self.total + loss)

    def judged(self, score: float, recipe: Recipe) -> tuple["Standing", bool]:
        """After an epoch with a score, and whether it is the lowest."""
        lowest = score < self.best
        better = score < self.reference - recipe.better_by
        stale = 0 if better else self.stale + 1
        waited = 0 if better else self.waited + 1
        plateau = recipe.schedule == "plateau" and waited >= recipe.plateau
        then = replace(
            self,
            epoch=self.epoch + 1,
            batch=0,
            total=0.0,
            best=score if lowest else self.best,
            stale=stale,
            waited=0 if plateau else waited,
            plateaus=self.plateaus + plateau,
            reference=score if better else self.reference,
        )
        return then, lowest

    @classmethod
    def taken_up(cls, held: Mapping[str, Any], path: Path) -> "Standing":
        """Of a state; one without `reference` was judged by its best score.

        Raises
        ------
        StoreError
            The state is not one of this version.
        """
        try:
            return cls(**{"reference": held["best"], **held})
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

    def keep(self, objective: Objective, average: Average, now: Standing) -> None:
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

    def take_up(self, objective: Objective, average: Average) -> Standing:
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
        return Standing.taken_up(state["standing"], path)


class Log:
    """Writes `log.csv`, a line per so many updates and per epoch; TensorBoard where installed."""

    def __init__(self, folder: Path, now: Standing, *, writes: bool = True) -> None:
        self.path, self.writes = folder / LOG, writes
        self.fields: list[str] = []
        if writes and self.path.is_file():
            self._forget_after(now)
        self.board = _board(folder) if writes else None

    def line(self, kind: str, now: Standing, values: Mapping[str, float]) -> None:
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

    def _forget_after(self, now: Standing) -> None:
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
