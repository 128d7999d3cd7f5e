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
from cubefill.methods.pixel.kernel import Kernel, addresses
from cubefill.methods.pixel.linear import FREE, lines, scan

CACHE = "cubefill/methods/pixel/__pycache__"
SMALL = """
from cubefill.methods.pixel.kernel import kernel

@kernel("like")
def count(a):
    return a.size
"""
CALL = """
import json, logging, sys, time
import numpy as np
import numba
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
import cubefill.methods.pixel.small as m
numba.njit(lambda: 0)()  # what numba itself needs to start
start = time.process_time()
assert m.count(np.dtype("float32"), np.zeros(3, "float32")) == 3
took = time.process_time() - start
print(json.dumps({"took": took, "file": m.__file__, **m.count.stats()}))
"""


@pytest.fixture
def with_small(tmp_path: Path) -> Path:
    """A folder with a copy of the package, no compiled kernels, and one that compiles quickly."""
    source = Path(cubefill.__file__).parent
    shutil.copytree(source, tmp_path / "cubefill", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "cubefill/methods/pixel/small.py").write_text(SMALL)
    return tmp_path


def said(folder: Path, **env: str) -> dict[str, float]:
    """What a new process, which imports the package from `folder`, says of its first call."""
    clean = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALL],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    found["told"] = done.stderr.count("Compiling kernels, once")
    assert str(found["file"]).startswith(str(folder))
    return found


def test_a_second_process_compiles_nothing_and_starts_at_once(with_small: Path) -> None:
    first, second = said(with_small), said(with_small)
    assert first["misses"] == 1
    assert (second["misses"], second["hits"]) == (0, 1)
    assert second["took"] < first["took"] / 4
    assert (first["told"], second["told"]) == (1, 0)


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


def test_both_types_of_data_share_what_goes_to_addresses() -> None:
    bands = np.ones((2, 3, 4, 5), np.float32)
    counts = np.full(bands.shape, 10_000, np.int16)
    valid, seconds = np.ones((3, 4, 5), bool), np.arange(3, dtype=np.int32)
    for given in (bands, counts):
        out = np.empty_like(given)
        args = (addresses(list(given)), addresses(list(out)), given.itemsize, valid, seconds)
        room = np.empty((3, 3, 8), np.float32), np.empty((4, 8), np.int32)
        lines(given.dtype, *args, FREE, *room, np.empty(valid.shape, np.uint8), np.zeros(2, int))
        np.testing.assert_array_equal(out, given)
    float32, int16 = (d.signatures for d in lines._made.values())
    assert float32 == int16


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
