"""Recipes: what is read from TOML and flags, and a run from one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubefill import train
from cubefill.errors import CubefillError
from cubefill.gaps import Borrowed
from cubefill.methods.learned.utilise import Utilise
from cubefill.methods.registry import METHODS
from cubefill.nn import checkpoint, losses
from cubefill.store import write_cube
from cubefill.train.recipe import Recipe, from_dict, read, shipped, with_options
from tests.methods.learned.test_method import Demo
from tests.shared.strategies import cube
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.train_runs import (
    ROOT,
    Uneven,
    fit,
    free_port,
    log,
    samples,
    smooth_cube,
    state,
)


@pytest.fixture(autouse=True)
def demo_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "demo", "tests.methods.learned.test_method:Demo")


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


def test_recipes_of_nets_that_were_trained_with_keras_have_its_defaults() -> None:
    found = {n: read(n) for n in shipped()}
    keras = {"stpconv", "cnnrnn", "mowing", "ssop", "msop"}
    for name, recipe in found.items():
        assert recipe.adam.eps == (1e-7 if name in keras else 1e-8), name
    plateaus = {n for n, r in found.items() if r.schedule == "plateau"}
    assert plateaus == {"cnnrnn"}
    assert found["cnnrnn"].better_by == 1e-4
    assert (found["cnnrnn"].factor, found["cnnrnn"].plateau) == (0.5, 3)
    stopping = {n: (r.better_by, r.patience) for n, r in found.items() if r.patience}
    assert stopping == {"ssop": (1e-4, 10), "msop": (1e-4, 10)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1e-3", r"mine\.toml has unknown key 'rat': expected one of method, .*mean 'rate'"),
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


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"micro": -1}, r"micro = -1: expected 0 or more. Pass micro=0."),
        ({"workers": -1}, r"workers = -1: expected 0 or more. Pass workers=0."),
        ({"updates": -1}, r"updates = -1: expected 0 or more. Pass updates=0."),
        ({"patience": -1}, r"patience = -1: expected 0 or more. Pass patience=0."),
        ({"keep_every": -1}, r"keep_every = -1: expected 0 or more. Pass keep_every=0."),
        ({"clip": -1.0}, r"clip = -1.0: expected 0 or more. Pass clip=0.0."),
        ({"better_by": -1.0}, r"better_by = -1.0: expected 0 or more. Pass better_by=0.0."),
        ({"decay": -0.1}, r"decay = -0.1: expected 0 or more. Pass decay=0.0."),
        ({"weight": -1}, r"weight = -1: expected 0 or more. Pass weight=100.0."),
        ({"ema": 1.5}, r"ema = 1.5: expected 0 or more and less than 1. Pass ema=0.0."),
        ({"ema": 1}, r"ema = 1: expected 0 or more and less than 1"),
        ({"precision": "float16"}, r"'float16': expected one of float32, bfloat16. Pass prec"),
        ({"betas": [0.9]}, r"betas = \(0.9,\): expected two numbers .*Pass betas=\[0.9,0.999\]."),
        ({"betas": [0.9, 1.0]}, r"expected two numbers from 0 to less than 1"),
        ({"betas": ["a", "b"]}, r"expected two numbers from 0 to less than 1"),
        ({"adversary_betas": [0.5, -1]}, r"Pass adversary_betas=\[0.5,0.999\]."),
        ({"adversary_rate": 0}, r"adversary_rate = 0: expected more than 0"),
        ({"eps": 0}, r"eps = 0: expected more than 0. Pass eps=1e-08."),
        ({"rate": float("nan")}, r"rate = nan: expected a number. Pass rate=0.001."),
        ({"weight": float("inf")}, r"weight = inf: expected a number"),
        ({"milestones": ["a"]}, r"milestones = \('a',\): expected epochs that increase"),
        ({"milestones": [3, 3]}, r"expected epochs that increase.*Pass milestones=\[50,100\]."),
        ({"milestones": [0, 3]}, r"each 1 or more"),
        ({"schedule": "steps"}, r"'steps' without milestones: expected .*Pass milestones="),
        ({"plateau": 0}, r"plateau = 0: expected 1 or more. Pass plateau=3."),
        ({"log_every": 0}, r"log_every = 0: expected 1 or more. Pass log_every=10."),
        ({"factor": 0}, r"factor = 0: expected more than 0 and at most 1. Pass factor=0.5."),
        ({"least_rate": 1.0}, r"least_rate = 1.0: expected at most the rate, 0.001. Pass least_r"),
        ({"seed": -1}, r"seed = -1: expected 0 to 2\*\*63 - 1. Pass seed=0."),
        ({"batch": 1.5}, r"batch = 1.5: expected int. Pass batch=4."),
    ],
)
def test_entries_that_are_out_of_range(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(CubefillError, match=message):
        Recipe(**entries)
    with pytest.raises(CubefillError, match=f"the options: .*{message}"):
        with_options(Recipe(), entries)


def test_options_are_judged_with_the_entries_that_they_leave() -> None:
    recipe = Recipe(milestones=(2, 4), rate=0.1, least_rate=0.05)
    made = with_options(recipe, {"schedule": "steps", "least_rate": 0.06})
    assert (made.schedule, made.least_rate) == ("steps", 0.06)
    assert Recipe(ema=0.0, betas=(0, 0.5), eps=1, milestones=()).betas == (0, 0.5)


def test_an_unknown_recipe_lists_the_shipped() -> None:
    with pytest.raises(CubefillError, match=r"No recipe utilize: .*utilise"):
        read("utilize")


def test_options_replace_entries() -> None:
    assert with_options(read("utilise"), {"epochs": 2}).epochs == 2
    assert from_dict({"rate": 1}).adam.rate == 1
    with pytest.raises(CubefillError, match="the options has unknown key 'epoch'"):
        with_options(Recipe(), {"epoch": 2})


def test_options_with_a_dot_replace_entries_of_tables() -> None:
    before = Recipe(config={"patch": 64, "pad": 4}, samples={"gaps": "borrowed"})
    made = with_options(before, {"config.patch": 32, "samples.count": 3, "epochs": 2})
    assert made.config == {"patch": 32, "pad": 4}
    assert made.samples == {"gaps": "borrowed", "count": 3}
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
    assert len(one[0]["days"]) == 10
    assert (one[0]["days"][4:] == 0).all(), "four dates are filled up"


def test_one_cube_may_be_named_without_a_list(tmp_path: Path) -> None:
    write_cube(smooth_cube(), tmp_path / "0.zarr", progress=False)
    path = tmp_path / "mine.toml"
    path.write_text(
        f'method = "demo"\nepochs = 1\n[samples]\ncubes = "{tmp_path}/0.zarr"\ncount = 4\n'
    )
    assert checkpoint.read_card(train.run_recipe(path, tmp_path / "net", progress=False)).scores


UNEVEN = """
import sys
sys.path.insert(0, {root!r})
from tests.shared.train_runs import *
torch.set_num_threads(1)
as_ranks(int(sys.argv[3]), int(sys.argv[4]))
held = Uneven(CubeSamples([smooth_cube()], Demo(), Blobs(), count=8))
even = CubeSamples([smooth_cube()], Demo(), Blobs(), count=4)
train_on, judged = (held, even) if sys.argv[2] == "train" else (even, held)
fit(Path(sys.argv[1]), replace(RECIPE, batch=2), samples=train_on, validation=judged)
"""


@pytest.mark.parametrize("part", ["train", "validation"])
def test_shapes_that_differ_in_a_batch_are_refused(tmp_path: Path, part: str) -> None:
    even, uneven = samples(4), Uneven(samples())
    train_on, judged = (uneven, even) if part == "train" else (even, uneven)
    with pytest.raises(CubefillError, match=r"(?s)Samples of one batch.*equal ones. Pass dates="):
        fit(tmp_path / "net", samples=train_on, validation=judged)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("processes", [1, 2])
def test_shapes_that_differ_in_a_batch_are_refused_by_any_number_of_processes(
    tmp_path: Path, processes: int, part: str
) -> None:
    (tmp_path / "run.py").write_text(UNEVEN.format(root=str(ROOT)))
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "net"), part]
    command += [str(processes), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode != 0
    assert "CubefillError: Samples of one batch" in done.stderr
    assert "expected equal ones. Pass dates=" in done.stderr


TWICE = """
import sys
sys.path.insert(0, {root!r})
from tests.shared.train_runs import *
torch.set_num_threads(1)
for name in ("a", "b"):
    fit(Path(sys.argv[1]) / name, replace(RECIPE, batch=2), samples=samples(4))
"""


@pytest.mark.slow
def test_processes_train_one_net_after_another(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(TWICE.format(root=str(ROOT)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--nnodes=1"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command += [str(tmp_path / "run.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    a, b = (checkpoint.load(tmp_path / name)[0] for name in ("a", "b"))
    assert all(bool((a[n] == b[n]).all()) for n in a)


def test_a_recipe_runs_on_stored_cubes(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cube(smooth_cube(seed), tmp_path / f"{seed}.zarr", progress=False)
    (tmp_path / "mine.toml").write_text(
        f"""
        method = "demo"
        epochs = 1
        [config]
        width = 3
        [samples]
        cubes = ["{tmp_path}/0.zarr"]
        validation = ["{tmp_path}/1.zarr"]
        gaps = "blobs"
        count = 4
        augment = true
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
    path.write_text(f'method = "demo"\n{text}')
    with pytest.raises(CubefillError, match=message):
        train.run_recipe(path, tmp_path / "net")


def test_a_recipe_lends_gaps_between_all_its_cubes() -> None:
    cubes = [smooth_cube(i) for i in range(3)]
    held = train.cube_samples(cubes[:2], Demo(), Recipe(seed=3), {"gaps": "borrowed"}, cubes[2:])
    assert held.gaps == Borrowed()
    assert {j for j, _ in held._borrowed} == {0, 1, 2}
    found = held._gaps(1)
    assert isinstance(found, Borrowed)
    shapes = {s.tobytes() for j, part in held._borrowed if j != 1 for s in part}
    assert {s.tobytes() for s in found.shapes} == shapes
    other = train.cube_samples(cubes[:2], Demo(), Recipe(), {"gaps": "blobs"}, cubes[2:])
    assert other.donors == ()


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
