"""The tree: thin faces, names of files, sizes of folders."""

import ast
from pathlib import Path

import pytest

import cubefill
from cubefill.imports import MOVED

ROOT = Path(cubefill.__file__).parent
FACES = sorted(ROOT.rglob("__init__.py"))
LAZY = [face for face in FACES if "on_first_use(__name__" in face.read_text()]
MOST = 14
"""Files of a folder beside its face."""


def label(face: Path) -> str:
    return ".".join(face.parent.relative_to(ROOT.parent).parts)


def imports(tree: ast.AST) -> set[tuple[str, str]]:
    """Module and name of every import of a face; each must bear its own name."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    pairs = {(str(n.module), a.name, a.asname) for n in found for a in n.names}
    return {(module, name) for module, name, alias in pairs if alias == name}


def tables(tree: ast.AST) -> dict[str, object]:
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Assign)]
    return {
        n.targets[0].id: ast.literal_eval(n.value)
        for n in found
        if isinstance(n.targets[0], ast.Name) and n.targets[0].id in ("_PUBLIC", "_PACKAGES")
    }


@pytest.mark.parametrize("face", LAZY, ids=label)
def test_a_lazy_face_offers_what_type_checkers_see(face: Path) -> None:
    tree = ast.parse(face.read_text())
    named = tables(tree)
    public, packages = named["_PUBLIC"], str(named.get("_PACKAGES", "")).split()
    assert isinstance(public, dict)
    lazy = {(f"{label(face)}.{m}", name) for m, names in public.items() for name in names.split()}
    seen = imports(tree)
    assert {pair for pair in seen if pair[0] != label(face)} == lazy
    assert {name for module, name in seen if module == label(face)} <= set(packages)
    assert all(
        (face.parent / name).exists() or (face.parent / f"{name}.py").exists() for name in packages
    )


def test_the_first_face_knows_every_package() -> None:
    named = tables(ast.parse((ROOT / "__init__.py").read_text()))
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages <= set(str(named["_PACKAGES"]).split())


@pytest.mark.parametrize("face", FACES, ids=label)
def test_a_face_holds_no_logic(face: Path) -> None:
    tree = ast.parse(face.read_text())
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.With, ast.Try)
    assert not [n for n in ast.walk(tree) if isinstance(n, logic)]
    assert len((ast.get_docstring(tree) or "").splitlines()) >= 3


@pytest.mark.parametrize("face", FACES, ids=label)
def test_no_module_bears_the_name_of_a_public_function_of_its_package(face: Path) -> None:
    names = {name for module, name in imports(ast.parse(face.read_text())) if module != label(face)}
    modules = {p.stem for p in face.parent.glob("*.py")}
    former = {path.rpartition(".")[2] for path in MOVED if path.rpartition(".")[0] == label(face)}
    assert names & (modules | former) == set()


def test_a_folder_has_few_files() -> None:
    counts = {f.parent.name: len(list(f.parent.glob("*.py"))) - 1 for f in FACES}
    assert {name: n for name, n in counts.items() if n > MOST} == {}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_and_its_functions_are_short(path: Path) -> None:
    text = path.read_text()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    assert len(text.splitlines()) <= 500
    body = {n.name: (n.end_lineno or 0) - _after_docstring(n) for n in found}
    assert {name: lines for name, lines in body.items() if lines > 60} == {}


def _after_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The line before the first statement."""
    told = ast.get_docstring(function) is not None
    return function.body[0].end_lineno or 0 if told else function.body[0].lineno - 1


def test_a_public_class_name_means_one_class() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert found
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
