"""The main job on the real catalogue: search, load, write, fill, NDVI; by API, CLI and cluster."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import cubefill
from cubefill.cli import main
from cubefill.cube.indices import ndvi

CLASSICAL = [
    name
    for name, target in cubefill.methods.METHODS.items()
    if target.startswith("cubefill.methods.pixel.")
]
"""Methods without a checkpoint; deep ones meet the same law in tests/methods."""


@pytest.fixture(scope="module")
def stored(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = cubefill.search(data_folder / "stac_31UDS" / "items.json")
    ds = cubefill.load(items, sar=True, dem=True)
    target = tmp_path_factory.mktemp("real") / "cube.zarr"
    cubefill.write_cube(ds, target, progress=False)
    return target


@pytest.fixture(scope="module")
def filled(stored: Path) -> xr.Dataset:
    target = stored.parent / "filled.zarr"
    return cubefill.run(stored, target, "linear", ndvi=True, progress=False)


def test_the_real_cube_has_118_dates_with_sar_and_dem(stored: Path) -> None:
    ds = cubefill.open_cube(stored)
    assert dict(ds.sizes) == {"time": 118, "y": 64, "x": 64}
    assert {"VV", "VH", "sar_valid", "DEM", "SCL", "valid"} <= set(ds.data_vars)
    assert ds["sar_gap_hours"].dims == ("time",)
    assert np.isfinite(ds["DEM"].values).all()
    crs = cubefill.cube.crs_of(ds)
    assert crs is not None
    assert crs.epsg == 32631
    vv = ds["VV"].values[ds["sar_valid"].values]
    assert -25 < float(np.median(vv)) < -3


def test_clear_pixels_keep_their_bits_and_gaps_are_filled(stored: Path, filled: xr.Dataset) -> None:
    ds = cubefill.open_cube(stored).compute()
    clear = ds["valid"].values
    flag = filled["fill_flag"].values
    for band in ("B02", "B03", "B04", "B08"):
        values = filled[band].values
        seen = clear & np.isfinite(ds[band].values)
        np.testing.assert_array_equal(values[seen], ds[band].values[seen])
        np.testing.assert_array_equal(np.isnan(values), np.isin(flag, [7, 8, 255]))
        assert values.dtype == np.float32
    assert 0.2 < clear.mean() < 0.8
    assert np.isin(flag, [0, 1, 5]).mean() > 0.999


def test_ndvi_of_clear_pixels_is_that_of_the_input(stored: Path, filled: xr.Dataset) -> None:
    ds = cubefill.open_cube(stored).compute()
    before, clear = ndvi(ds).values, ds["valid"].values
    known = clear & np.isfinite(before)
    np.testing.assert_allclose(filled["NDVI"].values[known], before[known], atol=0.5001e-4)
    blue = filled["B02"].where(filled["fill_flag"] == 0)
    april, may = (float(np.nanmedian(blue.sel(time=t).values)) for t in ("2018-04", "2018-05"))
    assert abs(april - may) < 0.05, "the offset of 0.1 from May 2018 on shows"


@pytest.mark.parametrize(
    "method",
    [
        "linear",
        "whittaker",
        *(
            pytest.param(m, marks=pytest.mark.slow)
            for m in CLASSICAL
            if m not in ("linear", "whittaker")
        ),
    ],
)
def test_odd_chunks_and_tiles_of_24_px_give_the_same_bits(stored: Path, method: str) -> None:
    ds = cubefill.open_cube(stored)
    whole = ds.gapfill(method, tile=64).compute()
    odd = ds.chunk({"time": 17, "y": 13, "x": 29}).gapfill(method, tile=24).compute()
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name].values, odd[name].values)


def test_the_command_line_and_a_cluster_write_the_same_bits(
    stored: Path, filled: xr.Dataset, tmp_path: Path, cluster_client: Any
) -> None:
    target = tmp_path / "cli.zarr"
    done = CliRunner().invoke(
        main, ["fill", str(stored), str(target), "--method", "linear", "--ndvi", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert isinstance(json.loads(done.stdout), dict)
    results = [cubefill.open_cube(target)]
    results.append(
        cubefill.run(
            stored,
            tmp_path / "cluster.zarr",
            "linear",
            ndvi=True,
            client=cluster_client,
            tile=24,
            progress=False,
        )
    )
    for result in results:
        for name in filled.data_vars:
            np.testing.assert_array_equal(result[name].values, filled[name].values)


def test_a_regular_axis_for_forecasters(stored: Path) -> None:
    ds = cubefill.open_cube(stored)
    out = ds.gapfill("linear", times="5D").compute()
    steps = np.diff(out["time"].values) / np.timedelta64(1, "D")
    assert (steps == 5).all()
    assert {0, 9} <= set(np.unique(out["fill_flag"].values).tolist())
