"""The demo runs the whole line, offline, and says what it did."""

import json
import shutil
from pathlib import Path

import pytest

import cubefill
from cubefill.cli import run_demo as demo
from cubefill.errors import CubefillError


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> demo.DemoResult:
    folder = tmp_path_factory.mktemp("demo") / "here"
    return demo.run_demo(folder, size=64, dates=8, say=lines.append)


def test_it_leaves_what_it_names(shown: demo.DemoResult) -> None:
    for path in (shown.catalogue, shown.cube, shown.filled, shown.report, shown.picture):
        assert path.exists()
        assert str(path) in shown.next_steps
    assert shown.report.read_text().count("<img") >= 2
    assert shown.report.stat().st_size < 5_000_000


def test_the_filled_cube_is_complete(shown: demo.DemoResult) -> None:
    out = cubefill.open_cube(shown.filled)
    assert dict(out.sizes) == {"time": 8, "y": 64, "x": 64}
    assert {"B02", "B03", "B04", "B08", "NDVI", "NDVI_flag", "fill_flag"} <= set(out.data_vars)
    assert float(out["NDVI"].isnull().mean()) < 0.05


def test_it_measures_each_step_and_says_it(shown: demo.DemoResult, lines: list[str]) -> None:
    assert [line.rsplit(None, 2)[0] for line in lines] == list(shown.seconds)
    assert all(seconds > 0 for seconds in shown.seconds.values())
    assert json.loads((shown.folder / demo.MARKER).read_text())["seconds"] == shown.seconds


def test_errors_are_those_of_the_truth(shown: demo.DemoResult) -> None:
    assert list(shown.errors) == ["B02", "B03", "B04", "B08", "NDVI"]
    assert all(0 < error < 0.2 for error in shown.errors.values())


def test_it_replaces_an_earlier_demo(shown: demo.DemoResult, tmp_path: Path) -> None:
    shutil.copytree(shown.folder, tmp_path / "demo")
    again = demo.run_demo(tmp_path / "demo", size=32, dates=5, seed=1)
    assert cubefill.open_cube(again.filled).sizes["time"] == 5


def test_it_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CubefillError, match="left alone"):
        demo.run_demo(tmp_path, size=48, dates=4)
    with pytest.raises(CubefillError, match="left alone"):
        demo.run_demo(tmp_path / "thesis.txt", size=48, dates=4)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_it_serves_the_catalogue(tmp_path: Path) -> None:
    pytest.importorskip("rustac")
    shown = demo.run_demo(tmp_path, size=32, dates=4, serve=True)
    assert cubefill.open_cube(shown.filled).sizes["time"] == 4
