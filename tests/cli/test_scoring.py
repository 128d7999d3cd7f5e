"""`cubefill score` says what each row and each number stands for."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cubefill
from cubefill import simulate
from cubefill.cli import main
from cubefill.evaluate.decloud import BANDS
from cubefill.methods.learned.decloud_nets import SsopUnet
from tests.shared.decloud import made
from tests.shared.strategies import cube
from tests.shared.torch_thread import one_thread as one_thread

SMALL: dict[str, Any] = {"patch": 32, "pad": 0, "widths": (2, 2, 2, 2, 2, 2), "layout": "ssop"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def call(*arguments: Any) -> str:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return done.stdout


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ds = simulate.scene(size=64, dates=140, days=700, seed=5, bands=BANDS).cube
    path = tmp_path_factory.mktemp("wide") / "wide.zarr"
    cubefill.write_cube(ds, path, progress=False)
    return path


def test_rows_of_decloud_are_those_of_the_paper(wide: Path, tmp_path: Path) -> None:
    nets = [made.__wrapped__(SsopUnet, **SMALL, **more).checkpoint
            for more in ({"dem": True}, {}, {"sar": False}, {})]  # fmt: skip
    methods = [a for net in nets for a in ("--method", f"ssop_unet={net}")]
    sizes = ["--patch", 32, "--most", 2, "--dem"]
    arguments = ["score", wide, "--protocol", "decloud", "-q", *sizes]
    shown = call(*arguments, *methods[:6], "--save", tmp_path / "t.csv")
    table = shown.split("**MSOP**")[0]
    labels = ["ssop_unet (without SAR)", "ssop_unet (SAR)", "ssop_unet (SAR + DEM)"]
    lines = [line for line in table.splitlines() if line.startswith("| ssop_unet")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == labels
    assert "Peak 10000 (MSE, PSNR)" in table
    rows = rows_of(tmp_path / "t.csv")
    assert list(dict.fromkeys(r["method"] for r in rows)) == labels
    assert {r["unit"] for r in rows} == {"count^2", "dB", "1", "radian"}
    assert all(r["peak"] and r["pooling"] and r["pixel_set"] and int(r["n"]) for r in rows)
    found = json.loads(call(*arguments, *methods, "--json"))["coords"]["method_name"]["data"]
    assert found == [
        labels[0], f"ssop_unet={nets[1]} (SAR)", f"ssop_unet={nets[3]} (SAR)", labels[2],
    ]  # fmt: skip


def test_compare_says_peak_pooling_and_n(tmp_path: Path) -> None:
    ds = cube(dates=14, size=(40, 40), gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    arguments = ["score", tmp_path / "cube.zarr", "--gaps", "dates", "--method", "linear", "-q"]
    shown = call(*arguments, "--method", "nearest", "--save", tmp_path / "t.csv")
    assert re.match(r"Best of 2 on .+ hidden values \(pixels, dates and bands\): (\w+), MAE", shown)
    assert "Peak 1. Pooling: pixels, dates and bands (MAE, " in shown
    rows = rows_of(tmp_path / "t.csv")
    assert {r["pooling"] for r in rows} > {"pixels, dates and bands", "pixels and dates"}
    assert all(r["peak"] == "1.0" and r["n"] and r["pixel_set"] for r in rows)


def test_a_line_before_each_fill_unless_quiet(tmp_path: Path) -> None:
    ds = cube(dates=14, size=(40, 40), gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    given = ["score", str(tmp_path / "cube.zarr"), "--gaps", "dates", "--method", "nearest"]
    assert "cube.zarr, seed 0: nearest\n" in CliRunner().invoke(main, given).stderr
    assert not CliRunner().invoke(main, [*given, "-q"]).stderr


@pytest.mark.slow
def test_all_methods_that_need_no_checkpoint(tmp_path: Path) -> None:
    ds = cube(dates=14, size=(40, 40), gap=0.3)
    cubefill.write_cube(ds, tmp_path / "cube.zarr", progress=False)
    given = ["score", str(tmp_path / "cube.zarr"), "--gaps", "dates"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Best of ")
    assert "left out: last, linear2, next" in done.stderr
    for name in ("linear", "whittaker", "savgol", "climatology", "nearest"):
        assert f"| {name} |" in done.stdout
    more = call(*given, "--method", "all", "--method", "last", "-q")
    assert "| last |" in more
    assert "| savgol |" in more
