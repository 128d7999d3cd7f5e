"""One command trains a net on a cube, the next fills the cube with it."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import cubefill
from cubefill.cli import main
from tests.strategies import cube

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
        "utilise",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "needs a trained net: expected checkpoint='FOLDER'" in done.stderr
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
