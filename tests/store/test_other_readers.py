"""What we wrote opens elsewhere without a warning, and goes on to other files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import store
from cubefill.engine.job import run
from cubefill.testing import synthetic_cube
from tests.shared.store_cube import SMALL

CUBE = synthetic_cube(4, (40, 20))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a job wrote."""
    path = tmp_path_factory.mktemp("readers") / "f.zarr"
    run(CUBE, path, "linear", std=True, ndvi=True, progress=False)
    return path


def test_xarray_opens_it_without_a_warning(filled: Path, tmp_path: Path) -> None:
    store.write_cube(CUBE, tmp_path / "a.zarr", **SMALL)
    for path in (filled, tmp_path / "a.zarr"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ds = xr.open_zarr(path)
            tree = xr.open_datatree(path, engine="zarr")
        assert "B04" in ds
        assert "B04" in tree


@pytest.mark.filterwarnings("ignore:zarr_format=2")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_trees_open_before_the_store_is_complete(tmp_path: Path, zarr_format: Any) -> None:
    options: dict[str, Any] = {"chunk": 16, "shard": 32, "zarr_format": zarr_format}
    store.create(tmp_path / "a.zarr", CUBE, fingerprint={"a": 1}, **options)
    tree = xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=False)
    assert tree["cubefill_job"].done.dims == ("tile_row", "tile_column")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_results_are_written_by_xarray(filled: Path, tmp_path: Path, suffix: str) -> None:
    for i, ds in enumerate((store.open_cube(filled), CUBE.gapfill("linear"))):
        path = tmp_path / f"{i}.{suffix}"
        if suffix == "nc":
            ds.to_netcdf(path, engine="h5netcdf")
            again = xr.open_dataset(path, engine="h5netcdf", decode_coords="all")
        else:
            ds.to_zarr(path)
            again = xr.open_zarr(path, decode_coords="all")
        for name in ds.data_vars:
            np.testing.assert_array_equal(again[name].values, ds[name].values)
