import time as clock
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill.engine.planning import halo_of, plan
from cubefill.errors import CubeError, DeviceError, MethodError, PlanError
from cubefill.methods.contract import Needs
from cubefill.methods.windows import Span, Whole
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


def test_a_method_that_needs_the_whole_scene_gets_one_tile() -> None:
    class Scene(Mean):
        needs = Needs(space=Whole())

    assert plan(cube(size=(40, 30)), Scene()).tiles == 1


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs(bands=("B04", "B11")), r"needs band B11; the cube has B04, B08. Load it with bands"),
        (Needs(sar=True), r"no Sentinel-1. Load it with sar=True"),
        (Needs(dem=True), r"needs DEM.*dem=True"),
        (Needs(min_dates=20), r"needs 20 distinct dates; the cube has 7"),
    ],
)
def test_what_a_method_lacks_is_named(needs: Needs, message: str) -> None:
    class Picky(Mean):
        pass

    Picky.needs = needs
    with pytest.raises(MethodError, match=message):
        plan(cube(), Picky())


def test_other_refusals() -> None:
    with pytest.raises(MethodError, match=r"gives no standard deviation"):
        plan(cube(), Mean(), std=True)
    with pytest.raises(PlanError, match=r"tile=0: expected"):
        plan(cube(), "linear", tile=0)
    with pytest.raises(CubeError, match=r"valid"):
        plan(cube().drop_vars("valid"), "linear")
    with pytest.raises(DeviceError, match=r"expected 'auto', 'cpu', 'cuda' or 'mps'"):
        plan(cube(), "linear", device="tpu")


def test_an_absent_accelerator_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"no such accelerator.*device='auto'"):
        plan(cube(), "linear", device="cuda")


@pytest.mark.parametrize(("tile", "most"), [(512, 3_500), (1024, 1_000)])
def test_a_whole_mgrs_tile_is_few_tasks_built_in_a_second(
    tmp_path: Path, tile: int, most: int
) -> None:
    from cubefill.engine import gapfill
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
