"""Training: one loop for every net, from samples to a checkpoint that fills.

The best weights are a checkpoint, `weights.safetensors` and `card.json`; what a run needs to go on
after a kill lies apart, in the folder `training` beside them.
"""

import atexit
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import xarray as xr
from torch import nn
from tqdm import tqdm

from cubefill.addresses import local_path
from cubefill.errors import CubefillError, MethodError, StoreError
from cubefill.methods import resolve
from cubefill.methods.learned import TorchMethod, card_of, check_precision, device_of
from cubefill.nn import Objective, checkpoint
from cubefill.nn.update import Batch, rank, sum_of_processes, world
from cubefill.samples.protocol import Samples
from cubefill.train.recipe import Recipe, read, with_options
from cubefill.train.sources import cube_samples as cube_samples
from cubefill.train.sources import parts_of
from cubefill.train.state import Average, Log, Run, TrainingState, batches, loader

_log = logging.getLogger(__name__)


def fit(
    method: str | TorchMethod | type[TorchMethod],
    samples: Samples,
    recipe: Recipe,
    folder: str | Path,
    *,
    validation: Samples | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """The checkpoint of a trained net: the weights with the lowest score.

    The score of an epoch is the loss on the validation samples, else the mean loss of its updates.
    A run that was killed goes on from its last state when it is called again, and ends with the
    weights that it would have had. Under `torchrun` each process takes its share of every batch;
    what processes beside the first draw at random is then drawn anew after a kill.

    Parameters
    ----------
    method
        A deep method: its name, class or object. An object with a checkpoint is trained further.
    samples
        Training samples by index; see `samples.Samples`.
    recipe
        How to train.
    folder
        Folder of the checkpoint.
    validation
        Samples that choose the best weights.
    resume
        True goes on with a run that the folder holds.
    overwrite
        True replaces what the folder holds.
    progress
        None draws a bar on a terminal; True and False force it.

    Raises
    ------
    StoreError
        The folder holds another run or a finished checkpoint.
    MethodError
        The method cannot be trained, or the loss is no longer a number.

    Examples
    --------
    >>> recipe = Recipe(method="mine", epochs=3)
    >>> fit(Mine(), CubeSamples(cubes, Mine(), Blobs()), recipe, "net")  # doctest: +SKIP
    PosixPath('net')
    """
    folder, data = local_path(folder), str(getattr(samples, "digest", ""))
    run = Run(folder / "training", recipe, data)
    with _processes(recipe) as device:
        learner = _learner(method, recipe)
        torch.manual_seed(recipe.seed)
        net = _net(learner).to(device)
        objective = learner.objective(net, recipe)
        average = Average(net, recipe.ema)
        now = _begin(run, objective, average, folder, resume=resume, overwrite=overwrite)
        log = Log(run.folder, now, writes=rank() == 0)
        bar = _bar(recipe, samples, now, progress)
        if now.update and _finished(now, recipe) and rank() == 0:
            _log.info("%s", _what_is_left(folder, now, recipe))
        while not _finished(now, recipe):
            rate = recipe.scheduled(now.epoch, now.plateaus)
            objective.rate(rate)
            for batch in batches(samples, recipe, now, rows=bool(learner.rows)):
                check_shapes(batch)
                losses = objective.step(batch)
                average.follow()
                now = now.stepped(_number(losses, now))
                bar.update()
                bar.set_postfix({n: f"{v:.4g}" for n, v in losses.items()}, refresh=False)
                if now.update % recipe.log_every == 0:
                    log.line("update", now, {"rate": rate * recipe.rate, **losses})
                if recipe.keep_every and now.update % recipe.keep_every == 0 and rank() == 0:
                    run.keep(objective, average, now)
                if now.update == recipe.updates:
                    break
            with average.in_place():
                score = _score(objective, validation, recipe, bool(learner.rows), now)
            log.line("epoch", now, {"rate": rate * recipe.rate, "score": score})
            now, better = now.judged(score, recipe)
            if rank() == 0:
                if better:
                    _keep_best(folder, average, learner, run, now)
                run.keep(objective, average, now)
        log.close()
        bar.close()
    return folder


def run_recipe(
    path: str | Path,
    folder: str | Path,
    *,
    cubes: Sequence[str | Path | xr.Dataset] = (),
    validation: Sequence[str | Path | xr.Dataset] = (),
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Path:
    """The checkpoint that a recipe gives on the samples it names, or on random patches of cubes.

    Parameters
    ----------
    path
        A TOML file, or the name of a shipped recipe.
    folder
        Folder of the checkpoint.
    cubes, validation
        Cubes or their stores; by default the entries `cubes` and `validation` of the recipe's
        table `[samples]`, whose other entries are options of `CubeSamples` and `gaps`, a name of
        `cubefill.gaps.GAPS` or "none". With `store = "samples.zarr"` there, the samples of
        `cubefill.samples.make` are read, and its other entries are options of `samples.open`.
        With `hdf5 = "series.h5"` there, series with known answers are read: of single-series
        methods, `patch * patch` to a sample.
    resume, overwrite, progress
        As for `fit`.
    **options
        Entries of the recipe to replace; "config.patch" is one of a table.

    Raises
    ------
    CubefillError
        The recipe or an option is unknown, or there are no samples.
    """
    recipe = with_options(read(path), options)
    learner = _learner(recipe.method, recipe)
    samples, held = parts_of(recipe, learner, cubes, validation, str(path))
    return fit(
        learner,
        samples,
        recipe,
        folder,
        validation=held,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )


# ------------------------------------------------------------------ parts of the loop


def _learner(method: str | TorchMethod | type[TorchMethod], recipe: Recipe) -> TorchMethod:
    found = resolve(method or recipe.method)
    if not isinstance(found, TorchMethod):
        raise MethodError(
            f"{method!r} has no net to train: expected a deep method. Use cubefill.list_methods()."
        )
    return found if found.checkpoint and not recipe.config else found.configured(**recipe.config)


def _net(learner: TorchMethod) -> nn.Module:
    net = learner.net(learner.config)
    if learner.checkpoint:
        checkpoint.load_state(net, checkpoint.load(learner.checkpoint)[0], learner.checkpoint)
    return net


@contextmanager
def _processes(recipe: Recipe) -> Iterator[torch.device]:
    """The device of this process, and torch's process group where `torchrun` started several.

    The group stays until the process ends: a second one would wait for the keys of the first.
    """
    device = device_of(recipe.device)
    check_precision(recipe.precision, device)
    together = torch.distributed.is_available() and not torch.distributed.is_initialized()
    several = together and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if several:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(torch.distributed.destroy_process_group)
    yield device
    _wait()


def _wait() -> None:
    if world() > 1:
        torch.distributed.barrier()


def _begin(
    run: Run,
    objective: Objective,
    average: Average,
    folder: Path,
    *,
    resume: bool,
    overwrite: bool,
) -> TrainingState:
    """Where the run starts: at its last state, or at nothing in an empty folder."""
    goes_on = run.begun and resume and not overwrite
    if not goes_on and not overwrite and (run.begun or (folder / checkpoint.CARD).exists()):
        what = "a run" if run.begun else "a checkpoint"
        raise StoreError(
            f"{folder} holds {what}: expected a new folder. Pass overwrite=True to replace it"
            f"{', or resume=True to go on' if run.begun else ''}."
        )
    if not goes_on:
        run.admit()
        checkpoint.admit(folder, overwrite)
    _wait()
    if goes_on:
        now = run.take_up(objective, average)
        if rank() == 0:
            text = json.dumps(run.recipe.to_dict(), indent=2) + "\n"
            (run.folder / "recipe.json").write_text(text)
    else:
        now = TrainingState()
        if rank() == 0:
            run.begin()
    _wait()
    if rank():
        torch.manual_seed(run.recipe.seed + 1_000_003 * rank() + now.update)
    return now


def _finished(now: TrainingState, recipe: Recipe) -> bool:
    out_of_patience = bool(recipe.patience) and now.patience_used >= recipe.patience
    done = bool(recipe.updates) and now.update >= recipe.updates
    return out_of_patience or done or now.epoch >= recipe.epochs


def _what_is_left(folder: Path, now: TrainingState, recipe: Recipe) -> str:
    """One line on a run that is finished, and what lets it go on."""
    more = []
    if now.epoch >= recipe.epochs:
        more.append(f"epochs={now.epoch + recipe.epochs}")
    if recipe.updates and now.update >= recipe.updates:
        more.append(f"updates={now.update + recipe.updates}")
    if recipe.patience and now.patience_used >= recipe.patience:
        more.append(f"patience={now.patience_used + recipe.patience}")
    return (
        f"{folder} finished at update {now.update}, epoch {now.epoch}; nothing is left to do. "
        f"Use {' '.join(more)} to go on."
    )


def check_shapes(batch: Batch | None) -> None:
    """Refuses a batch whose samples differ in shape from one process to another.

    Every process calls it, one without samples with None.

    Raises
    ------
    CubefillError
        In every process, where two of them have other shapes.
    """
    if world() == 1:
        return
    shapes = {n: tuple(t.shape[1:]) for n, t in (batch or {}).items()}
    mine = float(crc32(repr(shapes).encode())) if batch else 0.0
    count, total = sum_of_processes(float(bool(batch))), sum_of_processes(mine)
    if sum_of_processes(abs(mine * count - total) if batch else 0.0):
        raise CubefillError(
            f"Samples of one batch differ in shape between processes; process {rank()} has "
            f"{shapes}: expected equal ones. Pass dates=, so that every sample has as many time "
            "steps, or batch=1 with one process."
        )


def _number(losses: Mapping[str, float], now: TrainingState) -> float:
    name, value = next(iter(losses.items()))
    if not isfinite(value):
        raise MethodError(
            f"{name} is {value} at update {now.update + 1}: expected a number. Pass a lower rate, "
            "clip=1.0, or precision='float32'; the last state is kept."
        )
    return value


def _score(
    objective: Objective, validation: Samples | None, recipe: Recipe, rows: bool, now: TrainingState
) -> float:
    """Mean loss over the validation samples, else over the updates of the epoch."""
    if validation is None:
        return now.total / max(1, now.batch)
    mine = list(range(rank(), len(validation), world()))
    size = max(1, recipe.batch // world())
    groups = [mine[i : i + size] for i in range(0, len(mine), size)]
    total = weight = 0.0
    for batch in loader(validation, groups, recipe, rows):
        check_shapes(batch)
        loss, share = objective.score(batch)
        total += loss * share
        weight += share
    for _ in range(len(groups), -(-len(validation) // (size * world()))):
        check_shapes(None)
    total, weight = sum_of_processes(total), sum_of_processes(weight)
    if not weight:
        raise CubefillError(
            f"None of {len(validation)} validation samples has a value to score: expected gaps "
            "over clear observations. Pass other gaps, or leave out validation."
        )
    return total / weight


def _keep_best(
    folder: Path,
    average: Average,
    learner: TorchMethod,
    run: Run,
    now: TrainingState,
) -> None:
    card = card_of(
        learner,
        recipe=run.recipe.to_dict(),
        data=run.data,
        scores={"loss": now.best, "epoch": now.epoch, "update": now.update},
    )
    checkpoint.save(folder, average.weights(), card, overwrite=True)


def _bar(recipe: Recipe, samples: Samples, now: TrainingState, progress: bool | None) -> Any:
    each = max(1, len(samples) // min(recipe.batch, max(1, len(samples))))
    total = recipe.epochs * each
    hidden = (None if progress is None else not progress) if rank() == 0 else True
    return tqdm(
        total=min(total, recipe.updates or total),
        initial=now.update,
        disable=hidden,
        desc=f"train {recipe.method}",
        unit="update",
    )
