import re
import time as clock
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill.engine import gapfill
from cubefill.engine.memory import halo_of
from cubefill.engine.planning import plan, plan_work
from cubefill.engine.request import request
from cubefill.errors import PlanError
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.windows import Near, Span, Whole
from tests.shared.strategies import Mean, cube


def test_a_plan_says_tiles_tasks_and_bytes() -> None:
    p = plan(cube(size=(100, 90)), "linear", tile=32, memory="1GB", workers=2)
    assert (p.tile, p.tiles, p.halo, p.tasks) == (32, 12, 0, 12 * 4)
    assert p.bytes_cube == 7 * 100 * 90 * 9
    assert p.bytes_out == 7 * 100 * 90 * 9
    assert p.peak <= p.memory
    assert "12 of 32 px" in str(p)
    assert "<table>" in p._repr_html_()
    assert p.to_dict()["tiles"] == 12


def test_a_plan_over_the_budget_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        PlanError, match=r"A tile of 16 px needs 67.* MB; the memory budget is 1 MB"
    ):
        plan(cube(), "linear", memory="1MB")


def test_the_plan_of_a_job_keeps_to_its_budget() -> None:
    asked = request(cube(size=(70, 50)), "linear")
    p = plan_work(asked, memory="1GB", tile=32, workers=4, job=True)
    assert (p.tile, p.step, p.tiles) == (32, 32, 6)
    assert p.workers * p.bytes_tile <= p.memory
    words = r"6 tiles of 32 px in steps of 32 px; 4 workers x 67.\d MB of 1 GB"
    assert re.fullmatch(words, str(p))
    assert p.to_dict()["bytes_net"] == 0
    with pytest.raises(PlanError, match=r"tile=0: expected"):
        plan_work(asked, tile=0, job=True)
    with pytest.raises(PlanError, match=r"memory budget is 1 MB"):
        plan_work(asked, memory="1MB", job=True)


@pytest.mark.parametrize(
    ("size", "workers", "tile"), [(200, 2, 1024), (384, 2, 256), (1100, 2, 1024)]
)
def test_tiles_are_large_and_every_worker_has_one(size: int, workers: int, tile: int) -> None:
    asked = request(cube(dates=2, size=(size, size)), "linear")
    assert plan_work(asked, memory="8GB", workers=workers, job=True).tile == tile


def test_no_tile_of_no_pixels() -> None:
    with pytest.raises(PlanError, match=r"tile=0: expected"):
        plan(cube(), "linear", tile=0)


def test_less_memory_means_smaller_tiles() -> None:
    ds = cube(dates=9, size=(600, 600)).chunk({"y": 256, "x": 256})
    wide = plan(ds, "linear", memory="2GB", workers=2)
    tight = plan(ds, "linear", memory="150MB", workers=2)
    assert tight.tile < wide.tile
    assert tight.peak <= 150_000_000


def test_workers_shrink_to_what_fits() -> None:
    ds = cube(dates=9, size=(600, 600))
    assert plan(ds, "linear", tile=64, memory="140MB", workers=8).workers == 2


def test_halos() -> None:
    assert halo_of(Span(1)) == 0
    assert halo_of(Whole()) == 0
    assert halo_of(Span(8, 4)) == 5
    assert halo_of(Span(8, 4, "linear")) == 7
    assert halo_of(Near(12)) == 12


def test_a_method_that_looks_around_says_how_far_and_is_given_it() -> None:
    class Around(Mean):
        needs = Needs(space=Near(3))

    seen: list[tuple[int, int]] = []

    class Noting(Around):
        def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
            given = list(blocks)
            seen.extend(b.valid.shape[1:] for b in given)
            yield from super().fill(given)

    found = plan(cube(size=(40, 30)), Around(), tile=16)
    assert "space 3 px around" in str(found)
    assert (found.halo, found.tiles) == (3, 6)
    pixel = plan(cube(size=(40, 30)), Mean(), tile=16)
    assert found.bytes_tile > pixel.bytes_tile
    gapfill(cube(size=(40, 30)), Noting(), tile=16).compute(scheduler="synchronous")
    tiles = [(y, x) for y in (19, 22, 11) for x in (19, 17)]
    assert sorted(seen) == sorted(tiles)


def test_a_method_that_needs_the_whole_scene_gets_one_tile() -> None:
    class Scene(Mean):
        needs = Needs(space=Whole())

    assert plan(cube(size=(40, 30)), Scene()).tiles == 1


@pytest.mark.parametrize(("tile", "most"), [(512, 3_500), (1024, 1_000)])
def test_a_whole_mgrs_tile_is_few_tasks_built_in_a_second(
    tmp_path: Path, tile: int, most: int
) -> None:
    from cubefill.store import create, open_cube

    create(tmp_path / "big.zarr", big())
    ds = open_cube(tmp_path / "big.zarr")
    start = clock.process_time()
    out = gapfill(ds, "linear", tile=tile, memory="1TB")
    took = clock.process_time() - start
    graph = out.__dask_graph__()
    tasks = sum(len(layer) for name, layer in graph.layers.items() if "gapfill" in name)
    assert len(graph) == tasks
    assert tasks <= most
    assert plan(ds, "linear", tile=tile, memory="1TB").tasks + 1 == tasks
    assert took < 5


def big(n: int = 10_980) -> xr.Dataset:
    import dask.array as da

    one = cube(dates=73, size=(2, 2), bands=("B02", "B03", "B04", "B08"))
    shape = (73, n, n)
    data = {b: (("time", "y", "x"), da.zeros(shape, chunks=shape, dtype=one[b].dtype)) for b in one}
    coords = {
        "time": one["time"].values,
        "y": 5_700_000.0 - 10 * np.arange(n),
        "x": 500_000.0 + 10 * np.arange(n),
    }
    return type(one)(data, coords=coords)
