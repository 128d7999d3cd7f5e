"""What the machine offers: every finding has a name, and every warning a fix."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from cubefill.cli import machine_check as doctor
from cubefill.errors import CubefillError


def named(name: str) -> doctor.Finding:
    return next(f for f in doctor.examine() if f.name == name)


def test_findings_are_plain_and_warnings_have_a_fix() -> None:
    found = doctor.examine()
    assert len({f.name for f in found}) == len(found)
    assert all(f.ok == (f.fix == "") for f in found)
    json.dumps([asdict(f) for f in found])


def test_core_packages_are_listed_with_versions() -> None:
    for name in doctor.CORE:
        assert named(name).ok
        assert named(name).found[0].isdigit()


def test_codecs_make_a_round_trip() -> None:
    assert named("codecs").found == "blosc zstd in shards"


def test_an_absent_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"no-such-package": "viz"})
    finding = named("no-such-package")
    assert str(finding).splitlines() == [
        "warn  no-such-package: not installed (optional)",
        "      fix: pip install 'cubefill[viz]'",
    ]


def test_an_unwritable_cache_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked / "below"))
    assert "not writable" in named("numba cache").found


def test_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if "PAGES" in name else 2**30)
    assert not named("memory").ok


def test_importing_it_is_light() -> None:
    code = (
        "import sys, cubefill.cli.machine_check; "
        "print('torch' in sys.modules, 'rasterio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_warming_fills_in_both_types_of_data() -> None:
    from cubefill.methods.pixel.linear import lines

    (found,) = doctor.warm("linear")
    assert (found.name, found.ok) == ("kernels of linear", True)
    assert found.found.startswith("ready after ")
    assert set(lines._ready) == {"float32", "int16"}


def test_warming_knows_the_methods() -> None:
    with pytest.raises(CubefillError, match="no-such"):
        next(doctor.warm("no-such"))
