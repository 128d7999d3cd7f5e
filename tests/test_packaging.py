"""The project's files agree with each other: pyproject, constraints, environment.yml, wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cubefill
from cubefill.methods.registry import WITH_WEIGHTS

ROOT = Path(__file__).parents[1]

CONDA_NAMES = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base"}
"""Names on conda-forge where they differ from PyPI's."""

IN_ENVIRONMENT = ("distributed", "viz")
"""Extras that environment.yml carries beside the core."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def everything(project: dict[str, Any]) -> list[Requirement]:
    extras = [r for lines in project["optional-dependencies"].values() for r in requirements(lines)]
    return requirements(project["dependencies"]) + extras


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pin for name, pin in pairs}


def test_no_upper_caps(project: dict[str, Any]) -> None:
    found = {str(r): s.operator for r in everything(project) for s in r.specifier}
    assert set(found.values()) <= {">="}
    assert project["requires-python"] == ">=3.11"


def test_constraints_pin_the_core_and_the_tests(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["test"], *extras["viz"], *extras["distributed"]]
    wanted = {canonicalize_name(r.name): r for r in requirements(lines) if r.name != "cubefill"}
    assert sorted(set(wanted) - set(pins())) == []
    outside = [str(r) for n, r in wanted.items() if not r.specifier.contains(pins()[n])]
    assert outside == [], "constraints.txt pins versions that pyproject.toml does not allow"


def test_constraints_pin_torch_for_every_build() -> None:
    assert "+" not in pins()["torch"], "a local version would exclude other builds of torch"


def environment() -> tuple[dict[str, str], list[str]]:
    lines = (ROOT / "environment.yml").read_text().splitlines()
    conda = [m[1] for line in lines if (m := re.match(r"  - ([^:]+)$", line))]
    pip = [m[1] for line in lines if (m := re.match(r"      - (.+)$", line))]
    split = [re.match(r"([\w.-]+)(.*)", line) for line in conda if line != "conda-forge"]
    return {m[1]: m[2] for m in split if m}, pip


def test_environment_equals_pyproject(project: dict[str, Any]) -> None:
    conda, pip = environment()
    assert pip[-1] == "-e ."
    from_pip = {r.name: str(r.specifier) for r in requirements(pip[:-1])}
    lines = list(project["dependencies"])
    for extra in IN_ENVIRONMENT:
        lines += project["optional-dependencies"][extra]
    wanted = {r.name: str(r.specifier) for r in requirements(lines)}
    expected = {CONDA_NAMES.get(n, n): s for n, s in wanted.items() if n not in from_pip}
    found = {n: s for n, s in conda.items() if n not in ("python", "pip")}
    assert found == expected
    assert from_pip == {n: wanted[n] for n in from_pip}
    assert conda["python"] == project["requires-python"]


def test_requirements_without_torch_equal_pyproject(project: dict[str, Any]) -> None:
    lines = (ROOT / "requirements-without-torch.txt").read_text().splitlines()
    wanted = [*project["dependencies"], *project["optional-dependencies"]["viz"]]
    found = [line for line in lines if not line.startswith("#")]
    assert found == [line for line in wanted if not line.startswith("torch")]
    advice = next(line for line in lines if "pip install" in line).removeprefix("#").strip()
    assert advice in (ROOT / "README.md").read_text()


def test_version_is_told_once(project: dict[str, Any]) -> None:
    try:
        installed = installed_version("cubefill")
    except Exception:
        pytest.skip("cubefill is not installed; use pip install -e .")
    assert cubefill.__version__ == installed == project["version"]


def test_changelog_names_the_version(project: dict[str, Any]) -> None:
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_licence(project: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_wheel_has_types_and_no_tests(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "cubefill/py.typed" in names
    assert "cubefill/cli/commands.py" in names
    assert {n for n in names if "/weights/" in n} == {
        f"cubefill/methods/learned/weights/{m}/{n}"
        for m in WITH_WEIGHTS
        for n in ("weights.safetensors", "card.json")
    }
    assert wheel.stat().st_size < 8e6
    assert any(n.endswith("licenses/LICENSE") for n in names)
    outside = [n for n in names if not n.startswith(("cubefill/", "cubefill-"))]
    assert outside == []
    assert [n for n in names if n.endswith((".nbi", ".nbc", ".pyc"))] == []


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make --no-print-directory test" in script.read_text()


def test_make_installs_torch_first_and_takes_an_index() -> None:
    plan = subprocess.run(
        ["make", "-n", "demo", "VENV=absent", "PYTHON=python3", "TORCH_INDEX=https://example.org"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    pip = [line for line in plan if " pip install " in line]
    assert "torch==" in pip[0]
    assert "--extra-index-url https://example.org" in pip[0]
    assert '-e ".[viz]"' in pip[1]
    assert all("-c constraints.txt" in line for line in pip)
    assert plan[-1].startswith("absent/bin/cubefill demo")
