"""Every example runs, offline and fast; notebooks are committed without outputs."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SCRIPTS = sorted(FOLDER.glob("*.py"))

nbformat = pytest.importorskip("nbformat")


def name(path: Path) -> str:
    return path.stem


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def environment() -> dict[str, str]:
    return {**os.environ, "MPLBACKEND": "agg", "IPYTHONDIR": tempfile.gettempdir()}


def test_examples_are_numbered() -> None:
    numbers = sorted(p.name[:2] for p in [*NOTEBOOKS, *SCRIPTS])
    assert numbers == [f"{n:02d}" for n in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_stripped(path: Path) -> None:
    book = read(path)
    nbformat.validate(book)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert all(c.outputs == [] and c.execution_count is None for c in code)
    assert book.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """The cells as one program, each cell's last expression shown, warnings as errors."""
    pytest.importorskip("matplotlib")
    cells = [c.source for c in read(path).cells if c.cell_type == "code"]
    program = tmp_path / f"{path.stem}.py"
    program.write_text(RUNNER.format(cells=cells))
    command = [sys.executable, str(program)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]


RUNNER = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in {cells!r}:
    shell.run_cell(cell).raise_error()
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_runs_in_a_kernel(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read(path), timeout=200, resources=resources).execute()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    assert done.stdout


def test_the_suite_of_example_04_passes() -> None:
    """The contract suite in the example is run as its reader would run it."""
    script = next(p for p in SCRIPTS if p.name.startswith("04"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(script)]
    done = subprocess.run(
        command,
        cwd=script.parents[1],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
