"""docs/training.md says what the code does: recipes, Python and commands run in their order.

Blocks marked ```toml are files named in their first line; unmarked blocks are commands; ```bash
blocks need several processes or large cubes and stay text.
"""

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import cubefill
from cubefill import metrics, samples
from cubefill.cli import main
from cubefill.gaps import GAPS
from cubefill.methods.learned.method import TorchMethod
from cubefill.methods.registry import METHODS, resolve
from cubefill.nn import checkpoint
from cubefill.nn.losses import LOSSES
from cubefill.samples.patches import CubeSamples
from cubefill.testing import synthetic_cube
from cubefill.train.recipe import SCHEDULES, Recipe, shipped
from tests.shared.torch_thread import one_thread as one_thread

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "training.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def rows(head: str) -> dict[str, tuple[str, ...]]:
    """Cells of a table of the page by the first of each row."""
    lines = PAGE.split(f"| {head} |", 1)[1].splitlines()[2:]
    table = [line for line in lines[: lines.index("")] if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in table]
    return {first.strip("`"): tuple(rest) for first, *rest in cells}


def written(text: str) -> None:
    name = text.splitlines()[0].removeprefix("# ").strip()
    Path(name).write_text(text)


def typed(text: str) -> None:
    for line in text.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "cubefill"
        done = CliRunner().invoke(main, [*arguments, "-q"])
        assert done.exit_code == 0, f"{line}\n{done.output}"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "docs_training"}

    def ran(text: str) -> None:
        exec(compile(text, "training.md", "exec"), scope)

    run: dict[str, Callable[[str], None]] = {"toml": written, "": typed, "python": ran}
    for kind, text in BLOCKS:
        if kind != "bash":
            run[kind](text)
    clear = cubefill.open_cube("held.zarr")["valid"].values
    for out in (cubefill.open_cube("filled.zarr"), scope["out"]):
        assert np.isfinite(out["B04"].values).all()
        assert (out["fill_flag"].values[~clear] == 3).all()
    log = [line.split(",") for line in Path("net/training/log.csv").read_text().splitlines()]
    assert [line[1] for line in log if line[0] == "epoch"] == ["0", "1", "2"]
    assert checkpoint.read_card("net-gan").config["width"] == 2
    assert samples.open("windows.zarr").form.gaps
    assert "utilise" in Path("scores.md").read_text()
    assert {"msop_david", "linear2"} == set(scope["table"]["method_name"].values.tolist())
    assert scope["windows"]
    assert checkpoint.read_card("net-mowing").recipe["samples"]["hdf5"] == "mown.h5"
    assert Path("decloud.md").read_text().count("msop_david") >= 1


def test_its_recipe_entries_are_those_of_a_recipe() -> None:
    found = {name: cells[0] for name, cells in rows("entry | default | what").items()}
    values = {name: repr(value).replace("'", '"') for name, value in asdict(Recipe()).items()}
    assert found == {name: f"`{value}`" for name, value in values.items()}


def test_its_names_are_those_of_the_code() -> None:
    table = rows("entry | default | what")
    assert re.findall(r"`(\w+)`", table["loss"][1]) == list(LOSSES)
    assert re.findall(r'"(\w+)"', " ".join(table["schedule"])) == list(SCHEDULES)
    named = re.search(r"without `.toml`: (.*?)\. They", PAGE, flags=re.DOTALL)
    assert named is not None
    assert sorted(re.findall(r"`(\w+)`", named[1])) == shipped()
    entries = PAGE.split("Entries of `[samples]`")[1]
    gaps = re.search(r"^\| `gaps` \|.*$", entries, flags=re.MULTILINE)
    assert gaps is not None
    assert re.findall(r"`(\w+)`", gaps[0])[1:] == [*GAPS, "none"]
    scored = re.search(r"- `--gaps`: (.*?), with options", PAGE, flags=re.DOTALL)
    assert scored is not None
    assert re.findall(r"`(\w+)`", scored[1]) == list(GAPS)


def test_its_entries_of_samples_have_the_defaults_of_the_code() -> None:
    entries = PAGE.split("Entries of `[samples]`")[1].split("Cubes with")[0]
    made = CubeSamples([synthetic_cube()], None)
    found = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", entries, flags=re.MULTILINE)
    assert [n for n, _ in found] == [
        "gaps", "count", "patch", "dates", "cloudy", "augment", "drop_impaired",
        "discriminator_windows"
    ]  # fmt: skip
    for name, value in found[1:]:
        held = getattr(made, name)
        shown = list(held) if isinstance(held, tuple) else held
        assert str(shown).lower() == value


def test_its_conventions_are_those_of_the_code() -> None:
    table = rows("`--convention` | whose | metrics")
    bands = ("B02", "B03", "B04", "B08")
    assert list(table) == list(metrics.METRICS)
    for name, (_, said) in table.items():
        assert set(said.split(", ")) == set(metrics.defaults(bands, name))


def test_its_files_of_the_authors_convert_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference_folder: Path
) -> None:
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    weights = reference_folder / "weights"
    typed(f"cubefill convert cnnrnn {weights / 'sf_fusion_model_weights.h5'} cnnrnn --licence MIT")
    typed(f"cubefill convert mowing {weights / 'mowing_model_weights.h5'} mowing")
    assert checkpoint.read_card("cnnrnn").licence == "MIT"
    ds = synthetic_cube(40, (3, 4), ("B04", "B08"), sar=True)
    found = functions()["mown"](ds, "cnnrnn", "mowing").values
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_its_table_of_the_authors_names_every_method_with_a_net_and_its_fields() -> None:
    table = rows("method | file | `--set`")
    said = {n: re.findall(r"`(\w+)`", cells[1]) for n, cells in table.items()}
    named = {n: fields for key, fields in said.items() for n in re.split(r"`, `", key)}
    nets = {n for n in METHODS if isinstance(resolve(n), TorchMethod)}
    assert set(named) == nets | {"mowing"}
    for name, fields in named.items():
        config: Any = resolve(name)
        assert all(hasattr(config.config, f) for f in fields)


def functions() -> dict[str, Any]:
    """What the page defines, with the names that it imports."""
    scope: dict[str, Any] = {"checkpoint": checkpoint, "resolve": resolve}
    for kind, text in BLOCKS:
        if kind == "python" and "def " in text:
            exec(compile(text, "training.md", "exec"), scope)
    return scope


def test_the_net_of_the_authors_page_trains_and_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "method-authors.md").read_text().split("## With a net")[1]
    module, use = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[:2]
    (tmp_path / "tiny.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny", raising=False)
    scope: dict[str, Any] = {}
    exec(compile(use, "method-authors.md", "exec"), scope)
    gap = ~scope["ds"]["valid"].values
    out = scope["out"].compute()
    assert np.isfinite(out["B04"].values).all()
    assert (out["fill_flag"].values[gap] == 3).all()
    assert checkpoint.read_card("net").method == "tiny:Tiny"
