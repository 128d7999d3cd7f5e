"""README and docs say what the code does: examples run, tables agree, links lead somewhere."""

import re
import runpy
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cubefill
from cubefill.methods.contract import Flag

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHIPS = {True: "comes with it", False: "no"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_readme_example_runs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    example = blocks(README)[0]
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) == 12
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "compare.png").exists()
    assert "NDVI" in cubefill.open_cube(tmp_path / "filled.zarr")


def test_readme_example_of_an_endpoint_compiles() -> None:
    compile(blocks(README)[1], "README.md", "exec")
    assert "https://" in blocks(README)[1]


def test_readme_lists_the_methods() -> None:
    table = re.findall(
        r"^\| `(\w+)` \| (.+) \| (.+) \| (yes|no|comes with it) \|$", README, flags=re.MULTILINE
    )
    rows = [
        (name, row["summary"], row["needs"], "yes" if row["checkpoint"] else SHIPS[row["weights"]])
        for kind in ("classical", "deep")
        for name, row in cubefill.list_methods().items()
        if row["kind"] == kind
    ]
    wanted = "\n".join(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows)
    assert table == rows, f"the tables of README.md should be:\n{wanted}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_picture_of_the_design_shows_the_import_contract() -> None:
    pytest.importorskip("PIL")
    scope = runpy.run_path(str(ROOT / "docs/make_pictures.py"))
    drawn = (ROOT / "docs/img/design.svg").read_text()
    assert scope["design"](drawn) == drawn, "run python docs/make_pictures.py"
    packages = {p.parent.name for p in (ROOT / "cubefill").glob("*/__init__.py")}
    assert packages <= {name for layer in scope["layers"]() for name in layer}


def test_vocabulary_lists_the_codes_of_fill_flag() -> None:
    text = (ROOT / "docs" / "vocabulary.md").read_text()
    found = re.findall(r"^\| (\d+) \| (\w+) \|", text, flags=re.MULTILINE)
    assert found == [(str(int(flag)), flag.name.lower()) for flag in Flag]


def test_scaling_tells_the_tasks_of_a_plan() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    rows = re.findall(r"^\| .* \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 2
    cube = granule()
    for tile, tasks in rows:
        assert cubefill.plan(cube, "linear", tile=int(tile), memory="64GB").tasks == int(tasks)


def granule(dates: int = 73, side: int = 10980) -> xr.Dataset:
    """A lazy cube of the size of an MGRS tile that holds nothing."""
    shape, chunks = (dates, side, side), (dates, 1024, 1024)
    bands = {
        name: (("time", "y", "x"), da.zeros(shape, chunks=chunks, dtype=np.float32))
        for name in ("B02", "B03", "B04", "B08")
    }
    valid = (("time", "y", "x"), da.ones(shape, chunks=chunks, dtype=bool))
    return xr.Dataset(
        {**bands, "valid": valid},
        coords={
            "time": pd.date_range("2023-01-01", periods=dates, freq="5D"),
            "y": 5_600_000 - 10.0 * np.arange(side),
            "x": 500_000 + 10.0 * np.arange(side),
        },
    )


def test_authors_page_shows_a_method_that_works() -> None:
    text = (ROOT / "docs" / "method-authors.md").read_text()
    scope: dict[str, object] = {"__name__": "docs_method"}
    exec(compile(blocks(text)[0], "method-authors.md", "exec"), scope)
    from cubefill.testing import synthetic_cube

    median = scope["Median"]
    assert isinstance(median, type)
    out = cubefill.gapfill(synthetic_cube(), median()).compute()
    assert not bool(out["B04"].isnull().any())
