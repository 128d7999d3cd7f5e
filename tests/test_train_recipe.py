"""Recipes: what is read from TOML and flags, and a run from one."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubefill import checkpoint, train
from cubefill.errors import CubefillError
from cubefill.gaps import Lent
from cubefill.methods.utilise import Utilise
from cubefill.nn import losses
from cubefill.store import write_cube
from cubefill.train_recipe import Recipe, from_dict, read, shipped, with_options
from tests.methods.test_torch import Demo
from tests.strategies import cube
from tests.torch_thread import one_thread as one_thread
from tests.train_runs import ROOT, log, smooth_cube, state


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), [1, 1, 1, 1]),
        (Recipe(schedule="steps", milestones=(1, 3)), [1, 0.5, 0.5, 0.25]),
        (Recipe(schedule="cosine", epochs=4), [1, 0.8536, 0.5, 0.1464]),
        (Recipe(schedule="plateau", rate=1e-3, least_rate=4e-4), [1, 0.5, 0.4, 0.4]),
    ],
)
def test_schedules(recipe: Recipe, expected: list[float]) -> None:
    found = [recipe.scheduled(e, plateaus=e) for e in range(4)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_shipped_recipes_have_the_settings_of_their_papers() -> None:
    assert {"ganfilling", "seq2seq", "stpconv", "cnnrnn", "mowing", "ssop", "msop", "utilise"} <= (
        set(shipped())
    )
    found = {n: read(n) for n in shipped()}
    gan = found["ganfilling"]
    assert (gan.rate, gan.betas, gan.adversary.betas, gan.weight) == (
        2e-4, (0.5, 0.999), (0.5, 0.999), 100
    )  # fmt: skip
    assert (found["stpconv"].rate, found["stpconv"].batch, found["stpconv"].epochs) == (0.01, 2, 50)
    assert found["cnnrnn"].least_rate == 1e-4
    assert found["mowing"].loss == "bce"
    assert (found["msop"].rate, found["msop"].batch) == (1.2e-4, 128)
    assert found["utilise"].milestones == (50, 100, 150, 200, 250)
    assert all(r.loss in losses.LOSSES for r in found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1e-3", r"mine\.toml has unknown key 'rat': expected of method, .*mean 'rate'"),
        ("batch = 'four'", r"batch = 'four': expected int"),
        ("batch = true", r"batch = True: expected int"),
        ("schedule = 'wild'", r"expected one of constant, steps, cosine, plateau"),
        ("epochs = 0", r"epochs = 0: expected 1 or more"),
        ("epochs = ", r"is not TOML"),
    ],
)
def test_recipes_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(CubefillError, match=message):
        read(tmp_path / "mine.toml")


def test_an_unknown_recipe_lists_the_shipped() -> None:
    with pytest.raises(CubefillError, match=r"No recipe utilize: .*utilise"):
        read("utilize")


def test_options_replace_entries() -> None:
    assert with_options(read("utilise"), {"epochs": 2}).epochs == 2
    assert from_dict({"rate": 1}).adam.rate == 1
    with pytest.raises(CubefillError, match="the options has unknown key 'epoch'"):
        with_options(Recipe(), {"epoch": 2})


def test_options_with_a_dot_replace_entries_of_tables() -> None:
    before = Recipe(config={"patch": 64, "pad": 4}, samples={"gaps": "lent"})
    made = with_options(before, {"config.patch": 32, "samples.count": 3, "epochs": 2})
    assert made.config == {"patch": 32, "pad": 4}
    assert made.samples == {"gaps": "lent", "count": 3}
    assert (made.epochs, before.config["patch"]) == (2, 64)
    both = with_options(before, {"config.patch": 32, "config": {"dates": 6}})
    assert both.config == {"patch": 32, "dates": 6}
    for wrong in ("config.", "loss.kind", ".patch"):
        with pytest.raises(CubefillError, match="expected an entry of a table"):
            with_options(before, {wrong: 1})


def test_samples_have_the_dates_of_the_configuration() -> None:
    ds = cube(dates=16, size=(16, 16), bands=("B02", "B03", "B04", "B08"))
    small = {"patch": 16, "pad": 4, "widths": [4, 4, 8], "heads": 2}

    def dates(entries: dict[str, Any], **config: Any) -> int:
        learner = Utilise().configured(**small, **config)
        return len(train.cube_samples([ds], learner, Recipe(), entries)[0]["days"])

    assert dates({}) == 10
    assert dates({}, dates=7) == 7
    assert dates({"dates": 5}, dates=7) == 5
    assert dates({"dates": 0}, dates=7) == 16
    assert train.cube_samples([smooth_cube()], Demo(), Recipe(), {}).dates == 0
    one = train.cube_samples(
        [ds.isel(time=slice(0, 4))], Utilise().configured(**small), Recipe(), {}
    )
    assert len(one[0]["days"]) == 4


def test_one_cube_may_be_named_without_a_list(tmp_path: Path) -> None:
    write_cube(smooth_cube(), tmp_path / "0.zarr", progress=False)
    path = tmp_path / "mine.toml"
    path.write_text(
        f'method = "tests.methods.test_torch:Demo"\nepochs = 1\n[samples]\n'
        f'cubes = "{tmp_path}/0.zarr"\ncount = 4\n'
    )
    assert checkpoint.read_card(train.run_recipe(path, tmp_path / "net", progress=False)).scores


UNEVEN = """
import sys
sys.path.insert(0, {root!r})
from tests.train_runs import *
torch.set_num_threads(1)

class Uneven(Watched):
    def __getitem__(self, index):
        return {{n: a[: 6 - index % 2] for n, a in super().__getitem__(index).items()}}

held = Uneven(CubeSamples([smooth_cube()], Demo(), Blobs(), count=8))
even = CubeSamples([smooth_cube()], Demo(), Blobs(), count=4)
train_on, judged = (held, even) if sys.argv[2] == "train" else (even, held)
fit(Path(sys.argv[1]), replace(RECIPE, batch=2), samples=train_on, validation=judged)
"""


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("processes", [1, 2])
def test_shapes_that_differ_in_a_batch_are_refused_by_any_number_of_processes(
    tmp_path: Path, processes: int, part: str
) -> None:
    (tmp_path / "run.py").write_text(UNEVEN.format(root=str(ROOT)))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--nnodes=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command += [str(tmp_path / "run.py"), str(tmp_path / "net"), part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode != 0
    assert "CubefillError: Samples of one batch" in done.stderr
    assert "expected equal ones. Type dates=" in done.stderr


def test_a_recipe_runs_on_stored_cubes(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cube(smooth_cube(seed), tmp_path / f"{seed}.zarr", progress=False)
    (tmp_path / "mine.toml").write_text(
        f"""
        method = "tests.methods.test_torch:Demo"
        epochs = 1
        [config]
        width = 3
        [samples]
        cubes = ["{tmp_path}/0.zarr"]
        validation = ["{tmp_path}/1.zarr"]
        gaps = "blobs"
        count = 4
        turns = true
        """
    )
    folder = train.run_recipe(tmp_path / "mine.toml", tmp_path / "net", progress=False, batch=2)
    assert len(log(folder, "epoch")) == 1
    assert checkpoint.read_card(folder).recipe["batch"] == 2
    assert state(folder)["first.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no cubes"),
        ("[samples]\ncubes = ['a']\nholes = 3", r"\[samples\] has unknown key 'holes'"),
        ("[samples]\ncubes = ['a']\ngaps = 'none of it'", r"unknown gaps = 'none of it'"),
    ],
)
def test_recipes_without_good_samples(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'method = "tests.methods.test_torch:Demo"\n{text}')
    with pytest.raises(CubefillError, match=message):
        train.run_recipe(path, tmp_path / "net")


def test_a_recipe_lends_gaps_between_all_its_cubes() -> None:
    cubes = [smooth_cube(i) for i in range(3)]
    held = train.cube_samples(cubes[:2], Demo(), Recipe(seed=3), {"gaps": "lent"}, cubes[2:])
    assert held.gaps == Lent()
    assert {j for j, _ in held._lent} == {0, 1, 2}
    found = held._gaps(1)
    assert isinstance(found, Lent)
    shapes = {s.tobytes() for j, part in held._lent if j != 1 for s in part}
    assert {s.tobytes() for s in found.shapes} == shapes
    other = train.cube_samples(cubes[:2], Demo(), Recipe(), {"gaps": "blobs"}, cubes[2:])
    assert other.lenders == ()


def test_the_recipe_of_utilise_makes_the_gaps_of_its_authors(tmp_path: Path) -> None:
    bands = ("B02", "B03", "B04", "B08")
    for seed in (0, 1):
        ds = cube(dates=16, size=(16, 16), bands=bands, seed=seed)
        ds["valid"][:] = True
        ds["valid"][::4, : 4 + 4 * seed] = False
        write_cube(ds, tmp_path / f"{seed}.zarr", progress=False)
    config = {"patch": 16, "pad": 4, "widths": [4, 4, 8], "heads": 2}
    entries = dict(read("utilise").samples) | {"count": 3}
    options: dict[str, Any] = {"epochs": 1, "config": config, "samples": entries}
    stores = [tmp_path / f"{seed}.zarr" for seed in (0, 1)]
    folder = train.run_recipe(
        "utilise", tmp_path / "net", cubes=stores[:1], validation=stores[1:], progress=False,
        **options,
    )  # fmt: skip
    assert len(log(folder, "epoch")) == 1
    learner = Utilise().configured(**config)
    held = train.cube_samples(stores[:1], learner, read("utilise"), entries, stores[1:])
    truth, gapped = held._pair(np.random.default_rng(0))
    assert len(truth.time) == 10
    assert truth.valid.all()
    taken = (~gapped.valid).mean((1, 2))
    assert taken[0] == 0
    assert set(taken) == {0, 0.5}
