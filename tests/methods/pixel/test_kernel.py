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
import json, time
import numpy as np
from cubefill.methods.contract import Block
import cubefill.methods.pixel.linear as m
t = np.array(["2023-01-01", "2023-01-06"], "datetime64[ns]")
a = np.ones((2, 256, 256), "float32")
b = Block({"B04": a, "B08": a}, np.ones(a.shape, bool), t, t)
start = time.perf_counter(), time.process_time()
list(m.Linear().fill([b]))
took = min(time.perf_counter() - start[0], time.process_time() - start[1])
print(json.dumps({"took": took, "file": m.__file__, **m.lines.stats()}))
"""
SMALL = """
from cubefill.methods.pixel.kernel import kernel

@kernel("like")
def count(a):
    return a.size
"""
CALL = """
import json
import numpy as np
import cubefill.methods.pixel.small as m
assert m.count(np.dtype("float32"), np.zeros(3, "float32")) == 3
print(json.dumps({"file": m.__file__, **m.count.stats()}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that holds a copy of the package without compiled kernels."""
    source = Path(cubefill.__file__).parent
    shutil.copytree(source, tmp_path / "cubefill", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def with_small(installed: Path) -> Path:
    """The same with one more kernel, which takes no time to compile."""
    (installed / "cubefill/methods/pixel/small.py").write_text(SMALL)
    return installed


def said(folder: Path, code: str = CALL, **env: str) -> dict[str, float]:
    """What a new process, which imports the package from `folder`, says of its first call."""
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    assert str(found["file"]).startswith(str(folder))
    return found


def test_a_second_process_compiles_nothing_and_starts_at_once(installed: Path) -> None:
    first, second = said(installed, FILL), said(installed, FILL)
    assert first["misses"] == 1
    assert (second["misses"], second["hits"]) == (0, 1)
    assert second["took"] < first["took"] / 4


def test_a_changed_source_is_compiled_again(with_small: Path) -> None:
    source = with_small / "cubefill/methods/pixel/flags.py"  # beside the kernel, not its own file
    assert said(with_small)["misses"] == 1
    source.write_text(source.read_text() + "\n# changed\n")
    assert said(with_small)["misses"] == 1


def test_an_unwritable_install_uses_the_users_cache(with_small: Path, tmp_path: Path) -> None:
    (with_small / "cubefill/methods/pixel/__pycache__").write_text(
        "a file: nothing can be put in here"
    )
    home = tmp_path / "home"
    env = {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
    assert said(with_small, **env)["misses"] == 1
    assert list(home.rglob("*.nbi"))
    again = said(with_small, **env)
    assert (again["misses"], again["hits"]) == (0, 1)


def test_with_no_folder_at_all_kernels_are_compiled_each_time(
    with_small: Path, tmp_path: Path
) -> None:
    (with_small / "cubefill/methods/pixel/__pycache__").write_text(
        "a file: nothing can be put in here"
    )
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    assert said(with_small, XDG_CACHE_HOME=str(nowhere), HOME=str(nowhere))["hits"] == 0
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
