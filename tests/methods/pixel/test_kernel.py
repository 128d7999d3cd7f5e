"""Compiled kernels outlive the process: counted in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cubefill
from cubefill.methods.pixel.kernel import Kernel
from cubefill.methods.pixel.linear import scan

CACHE = "cubefill/methods/pixel/__pycache__"
FILL = """
import json, sys, time
import numpy as np
from cubefill.methods.contract import Block, Counts
import cubefill.methods.pixel.linear as m
dtype = sys.argv[1]
t = np.array(["2023-01-01", "2023-01-06"], "datetime64[ns]")
a = np.ones((2, 256, 256), dtype)
counts = Counts() if dtype == "int16" else None
b = Block({"B04": a, "B08": a}, np.ones(a.shape, bool), t, t, counts=counts)
start = time.perf_counter(), time.process_time()
list(m.Linear().fill([b]))
took = min(time.perf_counter() - start[0], time.process_time() - start[1])
stats = [m.lines.stats()]
print(json.dumps({"took": took, "file": m.__file__,
    "hits": sum(s["hits"] for s in stats), "misses": sum(s["misses"] for s in stats)}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that holds a copy of the package without compiled kernels."""
    source = Path(cubefill.__file__).parent
    shutil.copytree(source, tmp_path / "cubefill", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def fill(folder: Path, dtype: str = "float32", **env: str) -> dict[str, float]:
    """What a new process, which imports the package from `folder`, says of its first block."""
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FILL, dtype],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, float] = json.loads(done.stdout)
    assert str(said["file"]).startswith(str(folder))
    return said


def test_a_second_process_compiles_nothing_until_a_source_changes(installed: Path) -> None:
    first, second = fill(installed), fill(installed)
    assert first["misses"] == 1
    assert (second["misses"], second["hits"]) == (0, 1)
    assert second["took"] < first["took"] / 4
    source = installed / "cubefill/methods/pixel/flags.py"  # linear inlines a part of it
    source.write_text(source.read_text() + "\n# changed\n")
    assert fill(installed)["misses"] == 1


def test_an_unwritable_install_uses_the_users_cache(installed: Path, tmp_path: Path) -> None:
    (installed / "cubefill/methods/pixel/__pycache__").write_text(
        "a file: nothing can be put in here"
    )
    home = tmp_path / "home"
    env = {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
    assert fill(installed, **env)["misses"] == 1
    assert list(home.rglob("*.nbi"))
    again = fill(installed, **env)
    assert (again["misses"], again["hits"]) == (0, 1)


@pytest.mark.slow
def test_with_no_folder_at_all_kernels_are_compiled_each_time(
    installed: Path, tmp_path: Path
) -> None:
    (installed / "cubefill/methods/pixel/__pycache__").write_text(
        "a file: nothing can be put in here"
    )
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    said = fill(installed, XDG_CACHE_HOME=str(nowhere), HOME=str(nowhere))
    assert said["hits"] == 0
    assert not list(tmp_path.rglob("*.nbi"))


def test_one_signature_for_each_type_of_data() -> None:
    assert isinstance(scan, Kernel)
    s = np.zeros(1, np.int32)
    for dtype in (np.float32, np.int16):
        band, out = np.ones((1, 4, 6), dtype), np.empty((1, 4, 6), dtype)
        frozen = band.copy()
        frozen.flags.writeable = False
        for given in (band, frozen, band[:, 1:, 2:5], frozen[:, ::2]):
            n, m = given.shape[1:]
            valid = np.ones((1, n, m), bool)
            scan(band.dtype, given, valid, s, s, s.astype(np.int64), 3, 8, out[:, :n, :m])
            np.testing.assert_array_equal(out[:, :n, :m], 1)
    made = scan._made
    assert all(len(d.signatures) == 1 for d in made.values())
