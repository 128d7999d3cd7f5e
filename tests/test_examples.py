"""Every example runs, offline and fast; notebooks are committed without outputs."""

import importlib.util
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


def test_notebooks_run(tmp_path: Path) -> None:
    """Each one's cells as a program, each cell's last expression shown, warnings as errors.

    One interpreter for all of them: to import what they use takes longer than to run them.
    """
    pytest.importorskip("matplotlib")
    books = {}
    for path in NOTEBOOKS:
        (tmp_path / path.stem).mkdir()
        cells = [c.source for c in read(path).cells if c.cell_type == "code"]
        books[str(tmp_path / path.stem)] = cells
    program = tmp_path / "notebooks.py"
    program.write_text(RUNNER.format(books=books))
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]


RUNNER = """
import os
from IPython.core.interactiveshell import InteractiveShell

for folder, cells in {books!r}.items():
    print("notebook", folder)
    os.chdir(folder)
    shell = InteractiveShell.instance()
    for cell in cells:
        shell.run_cell(cell).raise_error()
    InteractiveShell.clear_instance()
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


def loaded(path: Path) -> Any:
    """A script as a module: what it defines, without its `main`."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem[:2]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TestMedian: Any = loaded(next(p for p in SCRIPTS if p.name.startswith("04"))).TestMedian
"""The contract suite in the example: its tests are collected here."""


@pytest.mark.slow
def test_the_suite_of_example_04_passes() -> None:
    """The same suite, run as its reader would run it."""
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
