"""One command trains a net on a cube, the next fills the cube with it."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import cubefill
from cubefill import simulate
from cubefill.cli import main
from cubefill.evaluate.decloud import BANDS
from cubefill.nn import checkpoint
from tests.methods.learned.test_convert import CASES, write_utilise
from tests.shared.strategies import cube
from tests.shared.torch_thread import one_thread as one_thread

RECIPE = """
method = "utilise"
loss = "l1"
rate = 1e-3
batch = 2
epochs = 2
updates = 4

[config]
widths = [4, 4, 4, 8]
heads = 2
dates = 5
patch = 32
pad = 4

[samples]
gaps = "transplant"
count = 4
"""


def test_train_and_fill(tmp_path: Path) -> None:
    bands = ("B02", "B03", "B04", "B08")
    ds = cube(dates=8, size=(40, 44), bands=bands, gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    (tmp_path / "mine.toml").write_text(RECIPE)
    runner, net = CliRunner(), str(tmp_path / "net")
    source = str(tmp_path / "cube.zarr")
    arguments = ["train", str(tmp_path / "mine.toml"), net, "--cube", source, "--json", "-q"]
    done = runner.invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["checkpoint"] == net
    target = str(tmp_path / "filled.zarr")
    choose = ["--method", "utilise", "--option", f"checkpoint={net}"]
    done = runner.invoke(main, ["fill", source, target, *choose, "--json", "-q"])
    assert done.exit_code == 0, done.output
    out = cubefill.open_cube(target).compute()
    clear = ds["valid"].values
    for band in bands:
        np.testing.assert_allclose(out[band].values[clear], ds[band].values[clear], atol=1e-7)
        assert np.isfinite(out[band].values).all()
    assert set(np.unique(out["fill_flag"].values)) == {0, 3}


def test_a_deep_method_without_a_checkpoint_is_refused_while_planning(tmp_path: Path) -> None:
    ds = cube(bands=("B02", "B03", "B04", "B08"))
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    arguments = [
        "fill",
        str(tmp_path / "cube.zarr"),
        str(tmp_path / "f.zarr"),
        "--method",
        "ganfilling",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "needs a trained net: expected checkpoint='FOLDER'" in done.stderr
    assert "Use ds.gapfill('utilise') for a net whose weights come with cubefill." in done.stderr
    assert not (tmp_path / "f.zarr").exists()


def test_an_unknown_recipe_key_lists_the_valid_ones(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('method = "utilise"\nsteps = 3\n')
    done = CliRunner().invoke(main, ["train", str(tmp_path / "bad.toml"), str(tmp_path / "net")])
    assert done.exit_code == 1
    assert "unknown key 'steps'" in done.stderr


def test_score_prints_a_table_and_writes_it(tmp_path: Path) -> None:
    ds = cube(dates=14, size=(40, 40), gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    saved = tmp_path / "scores.md"
    arguments = ["score", str(tmp_path / "cube.zarr"), "--method", "linear", "--method", "nearest"]
    done = CliRunner().invoke(main, [*arguments, "--gaps", "dates", "--save", str(saved), "-q"])
    assert done.exit_code == 0, done.output
    assert "nearest" in done.stdout
    assert saved.read_text().count("|") > 20
    scores = {}
    for shown in ("clouds", "nodata"):
        table = call(*arguments, "--gaps", "dates", "--hidden-as", shown, "--json").stdout
        scores[shown] = json.loads(table)["data_vars"]["mae"]["data"]
        assert json.loads(table)["attrs"]["hidden_as"] == shown
    assert scores["clouds"] == scores["nodata"]
    refused = call(*arguments, "--protocol", "decloud", "--hidden-as", "nodata", code=2).stderr
    assert "--hidden-as says nothing to --protocol decloud" in refused


# ------------------------------------------------------------------ recipes and their entries


def call(*arguments: Any, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == code, f"{done.output}{done.exception!r}"
    return done


@pytest.fixture
def trains(tmp_path: Path) -> list[str]:
    """Arguments that train the recipe on a small cube into the folder `net`."""
    ds = cube(dates=8, size=(40, 44), bands=BANDS, gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    (tmp_path / "mine.toml").write_text(RECIPE)
    paths = ("mine.toml", "net", "cube.zarr")
    recipe, net, source = (str(tmp_path / p) for p in paths)
    return ["train", recipe, net, "--cube", source]


def test_an_unknown_loss_lists_those_that_there_are(trains: list[str], tmp_path: Path) -> None:
    said = call(*trains, "--set", "loss=l3", code=1).stderr
    assert said.startswith("error: Unknown loss 'l3': expected one of l1, l2, ssim, l1_ssim")
    assert said.count("\n") == 1
    assert "median and scale" in call(*trains, "--set", "loss=laplace", code=1).stderr
    assert not (tmp_path / "net" / "card.json").exists()


def test_messages_name_flags(trains: list[str], tmp_path: Path) -> None:
    said = call(*trains[:3], code=1).stderr
    assert said.endswith("Pass --cube cube.zarr.\n")
    call(*trains, "--set", "updates=1", "-q")
    said = call(*trains, "--no-resume", code=1).stderr
    assert "Pass --overwrite to replace it, or --resume to go on." in said
    said = call(*trains, "--set", "rate=0.5", code=1).stderr
    assert "Pass --overwrite to begin again" in said
    call(*trains, "--set", "rate=0.5", "--set", "updates=1", "--overwrite", "-q")
    assert checkpoint.read_card(tmp_path / "net").recipe["rate"] == 0.5


def test_a_dot_reaches_into_tables(trains: list[str], tmp_path: Path) -> None:
    call(
        *trains,
        "--set",
        "config.patch=40",
        "--set",
        "samples.count=2",
        "--set",
        "samples.augment=true",
        "-q",
    )
    card = checkpoint.read_card(tmp_path / "net")
    assert card.config["patch"] == 40
    assert card.config["widths"] == [4, 4, 4, 8]
    assert card.recipe["samples"] == {"gaps": "transplant", "count": 2, "augment": True}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "config.patc=32",
            "no configuration 'patc': expected one of bands, .*Did you mean 'patch'",
        ),
        ("config.patch=big", "config has patch = 'big': expected a value such as 128"),
        ("samples.cuont=2", "unknown key 'cuont'.*Did you mean 'count'"),
        ("samples.count=many", r"\[samples\] has count = 'many': expected a value such as 256"),
        ("samples.augment=1", r"\[samples\] has augment = 1: expected a value such as False"),
        ("samples.gaps=blob", "unknown gaps = 'blob': .*Did you mean 'blobs'"),
        ("epohcs=2", "unknown key 'epohcs': .*Did you mean 'epochs'"),
        ("loss.kind=2", "unknown key 'loss.kind': expected an entry of a table of config, samples"),
        ("milestones=5", "milestones = 5: expected tuple"),
        ("rate=0", "rate = 0: expected more than 0"),
    ],
)
def test_entries_that_are_wrong(trains: list[str], setting: str, message: str) -> None:
    import re

    assert re.search(message, call(*trains, "--set", setting, code=1).stderr)


def test_a_finished_run_says_so_and_goes_on(trains: list[str], tmp_path: Path) -> None:
    call(*trains, "-q")
    kept = (tmp_path / "net" / "weights.safetensors").read_bytes()
    again = call(*trains)
    lines = [x for x in again.stderr.splitlines() if "finished" in x]
    assert len(lines) == 1
    assert "finished at update 4, epoch 2; nothing is left to do." in lines[0]
    assert lines[0].endswith("Use --set epochs=4 --set updates=8 to go on.")
    assert (tmp_path / "net" / "weights.safetensors").read_bytes() == kept
    assert "finished" not in call(*trains, "-q").stderr
    more = call(*trains, "--set", "epochs=3", "--set", "updates=0")
    assert "finished" not in more.stderr
    recipe = json.loads((tmp_path / "net" / "training" / "recipe.json").read_text())
    assert (recipe["epochs"], recipe["updates"]) == (3, 0)
    call(*trains, "--set", "rate=0.5", code=1)
    recipe = json.loads((tmp_path / "net" / "training" / "recipe.json").read_text())
    assert recipe["rate"] == 1e-3


# ------------------------------------------------------------------ series with known answers


def series_file(path: Path, inputs: int, **left_out: Any) -> Path:
    """Series of 8 steps, 24 to learn from and 16 to score."""
    rng = np.random.default_rng(0)
    event = rng.random((40, 8)) < 0.2
    data = {
        "X": rng.random((40, 8, inputs)).astype(np.float32),
        "y": event.astype(np.float32),
        "training_weights": np.where(event, 1, 0.2).astype(np.float32),
        "training_instances": np.arange(24),
        "validation_instances": np.arange(24, 40),
    }
    with h5py.File(path, "w") as file:
        for name in set(data) - set(left_out):
            file[name] = data[name]
    return path


SMALL = [
    argument
    for entry in ("steps=8", "convs=(2, 3)", "features=4", "units=3")
    for argument in ("--set", f"config.{entry}")
]


@pytest.mark.parametrize(("name", "inputs"), [("mowing", 11), ("cnnrnn", 8)])
def test_shipped_recipes_learn_from_series(tmp_path: Path, name: str, inputs: int) -> None:
    data = series_file(tmp_path / "series.h5", inputs)
    arguments = ["train", name, tmp_path / "net", *SMALL, "--set", f"samples.hdf5={data}"]
    few = ["--set", "batch=1", "--set", "epochs=2", "-q"]
    call(*arguments, *few)
    card = checkpoint.read_card(tmp_path / "net")
    assert card.config["steps"] == 8
    assert card.scores["update"] in (1, 2), "16 series are a sample, so one of 24 an epoch"
    wrong = ["train", name, tmp_path / "other", "--set", f"samples.hdf5={data}"]
    said = call(*wrong, code=1).stderr
    assert f"has X of shape (40, 8, {inputs})" in said
    assert f"expected (series, 29, {inputs})" in said
    both = call(*arguments, "--cube", tmp_path / "absent.zarr", code=1).stderr
    assert "and cubes were given: expected one of them" in both
    odd = call(*arguments, "--set", "samples.augment=True", code=1).stderr
    assert "unknown key 'augment': expected one of hdf5, patch" in odd


def test_series_without_weights_are_refused(tmp_path: Path) -> None:
    data = series_file(tmp_path / "series.h5", 11, training_weights=None)
    arguments = ["train", "mowing", tmp_path / "net", *SMALL, "--set", f"samples.hdf5={data}"]
    assert "lacks training_weights" in call(*arguments, code=1).stderr


def test_mowing_says_what_it_learns_from_before_a_cube_is_opened(tmp_path: Path) -> None:
    absent = tmp_path / "absent.zarr"
    said = call("train", "mowing", tmp_path / "net", "--cube", absent, code=1).stderr
    assert "learns from series with known answers, which no cube holds" in said
    assert said.endswith("Pass --set samples.hdf5=FILE.h5.\n")


def test_series_are_for_methods_of_series(trains: list[str], tmp_path: Path) -> None:
    data = series_file(tmp_path / "series.h5", 11)
    said = call(*trains[:3], "--set", f"samples.hdf5={data}", code=1).stderr
    assert "expected a method of single series, cnnrnn or mowing, got 'utilise'" in said


# ------------------------------------------------------------------ weights of the authors


def test_convert(tmp_path: Path) -> None:
    method: Any = cubefill.methods.resolve("utilise")
    config = CASES["utilise"][1]
    small = method.configured(**config)
    path = write_utilise(tmp_path, small, small.net(small.config))
    sets = [a for n, v in config.items() for a in ("--set", f"config.{n}={v}")]
    folder = tmp_path / "net"
    done = call("convert", "utilise", path, folder, *sets, "--licence", "MIT", "--json", "-q")
    assert json.loads(done.stdout) == {"checkpoint": str(folder)}
    card = checkpoint.read_card(folder)
    assert (card.licence, card.config["heads"]) == ("MIT", 2)
    said = call("convert", "utilise", path, folder, *sets, code=1).stderr
    assert "Use --overwrite to replace it." in said
    assert call("convert", "utilise", path, folder, *sets, "--overwrite").stdout == f"{folder}\n"
    bare = call("convert", "utilise", path, folder, "--set", "heads=2", code=2).stderr
    assert "--set heads=2: expected config.heads." in bare
    assert "linear has no net" in call("convert", "linear", path, folder, code=1).stderr
    assert "No file" in call("convert", "utilise", tmp_path / "no.pth", folder, code=1).stderr


def test_convert_the_mowing_net_of_the_authors(tmp_path: Path, reference_folder: Path) -> None:
    file = reference_folder / "weights" / "mowing_model_weights.h5"
    call("convert", "mowing", file, tmp_path / "net", "-q")
    assert checkpoint.read_card(tmp_path / "net").config["formulas"] == "authors"


# ------------------------------------------------------------------ the tables of Decloud


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ds: xr.Dataset = simulate.scene(size=64, dates=140, days=700, seed=5, bands=BANDS).cube
    path = tmp_path_factory.mktemp("wide") / "wide.zarr"
    cubefill.write_cube(ds, path, progress=False)
    return path


def test_decloud_is_saved_in_every_form(wide: Path, tmp_path: Path) -> None:
    arguments = ["score", wide, "--protocol", "decloud", "--method", "linear2"]
    arguments += ["--patch", 32, "--most", 2, "--no-sar", "-q"]
    done = call(*arguments, "--json", "--save", tmp_path / "t.nc")
    found = json.loads(done.stdout, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    mse = found["data_vars"]["mse"]["data"]
    assert mse[0] == [None]
    assert mse[2][0] > 0
    with xr.open_dataset(tmp_path / "t.nc", engine="h5netcdf") as ds:
        assert float(ds["mse"][2, 0]) == mse[2][0]
    shown = call(*arguments, "--save", tmp_path / "t.md").stdout
    assert (tmp_path / "t.md").read_text().strip() == shown.strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gaps", "blobs"], "--gaps says nothing to --protocol decloud"),
        (["--convention", "cubefill"], "--convention says nothing"),
        (["--screen"], "--screen says nothing"),
        (["--seed", "0", "--seed", "1"], "2 seeds with --protocol decloud: expected one"),
        (["--save", "scores.png"], "ends in .md, .html, .csv, .json, .nc with --protocol decloud"),
        (["--save", "absent/scores.md"], "there is no folder absent"),
    ],
)
def test_decloud_refuses_what_it_would_ignore(options: list[str], message: str) -> None:
    said = call("score", "absent.zarr", "--protocol", "decloud", *options, code=2).stderr
    assert message in said


def test_compare_refuses_the_options_of_decloud() -> None:
    for option in (["--patch", "32"], ["--most", "3"], ["--dem"], ["--no-sar"]):
        said = call("score", "absent.zarr", *option, code=2).stderr
        assert f"{option[0]} says nothing to --protocol compare" in said
        assert "pass --protocol decloud" in said
    said = call("score", "absent.zarr", "--save", "scores.doc", code=2).stderr
    assert "with --protocol compare" in said
