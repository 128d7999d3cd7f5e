"""Nothing is replaced that we did not make, by any writer; what a store says is never run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import zarr

import cubefill
from cubefill import samples, stac
from cubefill.cli import run_demo as demo
from cubefill.errors import CubefillError, StoreError
from cubefill.formats.geotiff import to_geotiff
from cubefill.gaps import Blobs
from cubefill.methods import AUTO
from cubefill.methods.contract import Needs
from cubefill.nn import checkpoint
from cubefill.nn.checkpoint import Card
from cubefill.ownership import overlap
from cubefill.testing import synthetic_cube
from cubefill.train.recipe import Recipe, read
from cubefill.train.state import Run

CUBE = synthetic_cube(6, (32, 32))

Write = Callable[[Path], object]


def write(path: Path) -> object:
    return cubefill.write_cube(CUBE, path, overwrite=True, progress=False)


def fill(path: Path) -> object:
    return cubefill.run(CUBE, path, "linear", overwrite=True, progress=False)


def fill_ndvi(path: Path) -> object:
    options: dict[str, Any] = {"ndvi_store": path, "overwrite": True, "progress": False}
    return cubefill.run(CUBE, path.with_name("bands.zarr"), "linear", **options)


def make_samples(path: Path) -> object:
    options: dict[str, Any] = {"patch": 16, "dates": 6, "overwrite": True, "progress": False}
    return samples.make([synthetic_cube(12, (64, 64))], Needs(), Blobs(), path, **options)


def catalogue(path: Path) -> object:
    return stac.write_catalogue(CUBE, path, overwrite=True)


def show_demo(path: Path) -> object:
    return demo.run_demo(path, size=64, dates=6)


FOLDERS = [
    *(write, fill, fill_ndvi, make_samples, catalogue),
    pytest.param(show_demo, marks=pytest.mark.slow),
]


def save(path: Path) -> object:
    state = torch.nn.Linear(2, 1).state_dict()
    return checkpoint.save(path, state, Card("a:B"), overwrite=True)


def begin_run(path: Path) -> None:
    run = Run(path, Recipe())
    run.admit()
    run.begin()


def images(path: Path) -> object:
    return to_geotiff(CUBE.isel(time=[0]), path, overwrite=True)


def report(path: Path) -> object:
    return CUBE.gapfill.report(self_test=False).save(path / "report.html")


FILES: list[tuple[Write, str]] = [
    (save, "weights.safetensors"),
    (save, "card.json"),
    (begin_run, "log.csv"),
    (begin_run, "recipe.json"),
    (images, f"{str(CUBE.time.values[0])[:10]}.tif"),
    (report, "report.html"),
]


def content(path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def _group(path: Path) -> None:
    zarr.create_group(path)
    (path / "thesis.docx").write_text("x")


def _xarray(path: Path) -> None:
    xr.Dataset({"B02": ("x", [1.0, 2.0])}).to_zarr(path, consolidated=False)


def _ledger(path: Path) -> None:
    zarr.create_group(path)
    zarr.create_group(path, path="cubefill_job", attributes={"fingerprint": {}})


def _like_ours(path: Path) -> None:
    (path / "catalogue").mkdir(parents=True)
    for name in ("demo.json", "catalog.json", "items.json", "catalogue/books.txt"):
        (path / name).write_text("{}")


@pytest.mark.parametrize("foreign", [_group, _xarray, _ledger, _like_ours])
@pytest.mark.parametrize("door", FOLDERS)
def test_what_others_made_survives(door: Write, foreign: Write, tmp_path: Path) -> None:
    path = tmp_path / "mine.zarr"
    foreign(path)
    before = content(tmp_path)
    with pytest.raises(CubefillError, match="left alone") as caught:
        door(path)
    assert content(tmp_path) == before
    assert "overwrite=True" not in str(caught.value)


@pytest.mark.parametrize("door", FOLDERS)
def test_what_we_made_is_replaced_unless_others_put_something_in(
    door: Write, tmp_path: Path
) -> None:
    path = tmp_path / "ours"
    door(path)
    door(path)
    for name in ("thesis.docx", "extra/notes.txt"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("x")
        before = content(path)
        with pytest.raises(CubefillError, match=name.split("/")[0]):
            door(path)
        assert content(path) == before
        (path / name).unlink()


def test_files_among_chunks_and_foreign_arrays_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "ours"
    write(path)
    (path / "B02" / "c" / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match=r"B02/c/notes\.txt"):
        write(path)
    (path / "B02" / "c" / "notes.txt").unlink()
    zarr.create_group(path, path="theirs")
    with pytest.raises(StoreError, match="theirs"):
        write(path)


@pytest.mark.parametrize(("door", "name"), FILES)
def test_single_files_of_others_survive(door: Write, name: str, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / name).write_text('{"mine": 1}')
    (path / "notes.txt").write_text("x")
    before = content(path)
    with pytest.raises(CubefillError, match="left alone"):
        door(path)
    assert content(path) == before
    (path / name).unlink()
    door(path)
    door(path)
    assert (path / "notes.txt").read_text() == "x"


@pytest.mark.parametrize("door", [cubefill.write_cube, cubefill.run])
@pytest.mark.parametrize("ours", [True, False])
def test_resume_false_refuses_any_store(door: Any, ours: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    (write if ours else _xarray)(path)
    before = content(path)
    with pytest.raises(StoreError, match=r"overwrite=True" if ours else "another path"):
        door(CUBE, path, resume=False, progress=False)
    assert content(path) == before


@pytest.mark.parametrize(
    "spelling", ["{0}/real/sub/../s.zarr", "{0}/alias/s.zarr", "file://{0}/real/s.zarr",
                 "{0}/real/s.zarr/inside", "{0}/real"],
)  # fmt: skip
def test_a_source_is_never_replaced(spelling: str, tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    source = tmp_path / "real" / "s.zarr"
    write(source)
    before, target = content(tmp_path), spelling.format(tmp_path)
    ds = cubefill.open_cube(source)
    theirs = xr.open_zarr(source, consolidated=False)
    doors: list[Callable[[], object]] = [
        lambda: cubefill.write_cube(ds * 1, target, overwrite=True, progress=False),
        lambda: cubefill.write_cube(theirs, target, overwrite=True, progress=False),
        lambda: cubefill.run(ds, target, overwrite=True, progress=False),
        lambda: cubefill.run(
            ds, tmp_path / "f.zarr", ndvi_store=target, overwrite=True, progress=False
        ),
        lambda: samples.make([str(source)], Needs(), None, target, dates=6, overwrite=True),
    ]
    for door in doors:
        with pytest.raises(StoreError, match=r"another (path|target)"):
            door()
        assert content(tmp_path) == before


def test_memory_stores_are_known_by_what_they_hold() -> None:
    memory = zarr.storage.MemoryStore()
    assert overlap(memory, zarr.storage.MemoryStore(memory._store_dict))
    assert not overlap(memory, zarr.storage.MemoryStore())


# ------------------------------------------------------------------ what a file says


@pytest.mark.parametrize(
    ("method", "options"),
    [("os:system", {"command": "touch ran"}), ("no such", {}), ("linear", {"command": 1})],
)
def test_attributes_name_methods_of_the_table_alone(
    method: str, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = synthetic_cube(12, (64, 64)).gapfill("linear").compute()
    out.attrs |= {"gapfill_method": method, "gapfill_parameters": json.dumps(options)}
    found = out.gapfill.report(before=synthetic_cube(12, (64, 64)))
    assert not (tmp_path / "ran").exists()
    assert method in found.warnings[0]
    assert "Pass method=" in found.warnings[0]
    assert found.scores is not None
    assert found.scores["method_name"].values[0] == AUTO


def test_a_recipe_file_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('method = "os:system"')
    with pytest.raises(CubefillError, match="never names code"):
        read(tmp_path / "r.toml")
