"""Training: one loop for every net, from samples to a checkpoint that fills.

The best weights are a checkpoint, `weights.safetensors` and `card.json`; what a run needs to go on
after a kill lies apart, in the folder `training` beside them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cubefill import checkpoint
from cubefill.errors import CubefillError, MethodError, StoreError
from cubefill.method import resolve
from cubefill.methods._pass import check_precision, device_of
from cubefill.methods._torch import TorchMethod, card_of
from cubefill.nn.objective import Objective
from cubefill.nn.update import rank, sum_of_processes, world
from cubefill.train_recipe import Recipe, read, with_options
from cubefill.train_samples import GAPS, CubeSamples, Sample, Samples
from cubefill.train_state import Average, Log, Run, Standing

Batch = dict[str, Tensor]


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
    weights that it would have had. Under `torchrun` each process takes its share of every batch.

    Parameters
    ----------
    method
        A deep method: its name, class or object. An object with a checkpoint is trained further.
    samples
        Training samples by index; see `train_samples.Samples`.
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
    folder, run = Path(folder), Run(Path(folder) / "training", recipe)
    with _processes(recipe) as device:
        learner = _learner(method, recipe)
        torch.manual_seed(recipe.seed)
        net = _net(learner).to(device)
        objective = learner.objective(net, recipe)
        average = Average(net, recipe.ema)
        now = _begin(run, objective, average, folder, resume=resume, overwrite=overwrite)
        torch.manual_seed(torch.initial_seed() + rank()) if now.update == 0 and rank() else None
        log = Log(run.folder, now, writes=rank() == 0)
        bar = _bar(recipe, samples, now, progress)
        while not _finished(now, recipe):
            rate = recipe.scheduled(now.epoch, now.plateaus)
            objective.rate(rate)
            for batch in batches(samples, recipe, now, rows=bool(learner.rows)):
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
                    _keep_best(folder, average, learner, samples, recipe, now)
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
    """The checkpoint that a recipe gives on random patches of cubes.

    Parameters
    ----------
    path
        A TOML file, or the name of a shipped recipe.
    folder
        Folder of the checkpoint.
    cubes, validation
        Cubes or their stores; by default the entries `cubes` and `validation` of the recipe's
        table `[samples]`, whose other entries are options of `CubeSamples` and `gaps`, a name of
        `train_samples.GAPS` or "none".
    resume, overwrite, progress
        As for `fit`.
    **options
        Entries of the recipe to replace.

    Raises
    ------
    CubefillError
        The recipe or an option is unknown, or there is no cube.
    """
    recipe = with_options(read(path), options)
    entries = dict(recipe.samples)
    train, held = entries.pop("cubes", ()), entries.pop("validation", ())
    learner = _learner(recipe.method, recipe)
    samples = cube_samples(cubes or train, learner, recipe, entries)
    apart = list(validation or held)
    scored = cube_samples(apart, learner, replace(recipe, seed=recipe.seed + 1), entries)
    return fit(
        learner,
        samples,
        recipe,
        folder,
        validation=scored if apart else None,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )


def cube_samples(
    cubes: Sequence[str | Path | xr.Dataset],
    learner: TorchMethod,
    recipe: Recipe,
    entries: Mapping[str, Any],
) -> CubeSamples:
    """Samples of cubes or stores, as the table `[samples]` of a recipe says.

    Raises
    ------
    CubefillError
        There is no cube, or an entry is unknown.
    """
    from cubefill.store import open_cube

    values = dict(entries)
    name = str(values.pop("gaps", "blobs"))
    known = ["count", "patch", "dates", "cloudy", "turns", "real"]
    unknown = [n for n in values if n not in known]
    if unknown or name not in (*GAPS, "none"):
        what = f"key {unknown[0]!r}" if unknown else f"gaps = {name!r}"
        raise CubefillError(
            f"[samples] has unknown {what}: expected of cubes, validation, {', '.join(known)}, and "
            f"gaps of {', '.join(GAPS)}, none."
        )
    if "real" in values:
        values["real"] = tuple(values["real"])
    opened = [c if isinstance(c, xr.Dataset) else open_cube(c) for c in cubes]
    gaps = GAPS[name]() if name != "none" else None
    return CubeSamples(opened, learner, gaps, recipe.seed, **values)
