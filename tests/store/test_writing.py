import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.storage import MemoryStore

from cubefill import store
from cubefill.cube.counts import Counts
from cubefill.errors import CubeError, StoreError
from cubefill.store.ledger import Ledger
from cubefill.store.source import GROUP, StoreSource, find
from tests.shared.store_cube import SMALL, same, store_cube

cube = pytest.fixture(store_cube)


def test_a_cube_comes_back_as_it_was(tmp_path: Path, cube: xr.Dataset) -> None:
    before = cube.copy(deep=True)
    written = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    opened = store.open_cube(tmp_path / "a.zarr")
    for found in (written, opened):
        same(found, cube)
    assert cube.identical(before)
    shares = opened.attrs.pop("gapfill_shares")
    assert opened.attrs == cube.attrs
    assert set(json.loads(shares)) == {"same_date", "interpolated"}
    assert opened.encoding["source"] == str(tmp_path / "a.zarr")
    assert opened.time.dtype == "datetime64[ns]"
    assert set(opened.coords) == set(cube.coords)
    assert opened.B04.attrs == cube.B04.attrs
    assert opened.fill_flag.attrs["flag_values"].dtype == np.uint8
    assert {v.encoding["grid_mapping"] for v in opened.data_vars.values()} == {"spatial_ref"}
    source = find(opened.B04)
    assert isinstance(source, StoreSource)
    assert source.counts == Counts()
    assert source.shards == (5, 32, 32)


@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(1, 45),
    columns=st.integers(1, 45),
    dates=st.integers(1, 3),
    chunk=st.integers(1, 12),
    per_shard=st.integers(1, 3),
    dask_chunk=st.integers(3, 50) | st.none(),
    profile=st.sampled_from(["default", "fast"]),
)
def test_any_shape_chunk_and_shard(
    rows: int,
    columns: int,
    dates: int,
    chunk: int,
    per_shard: int,
    dask_chunk: int | None,
    profile: Any,
) -> None:
    cube = store_cube(dates, rows, columns)[["B04", "valid", "DEM"]]
    given_cube = cube if dask_chunk is None else cube.chunk(time=1, y=dask_chunk, x=dask_chunk)
    memory = MemoryStore()
    shard = max(chunk * per_shard, chunk * (-(-max(rows, columns) // (chunk * 4))))
    options = {"chunk": chunk, "shard": shard, "profile": profile, "progress": False}
    same(store.write_cube(given_cube, memory, **options), cube)
    assert Ledger(memory).complete


def test_a_store_of_counts_can_be_copied_exactly(tmp_path: Path, cube: xr.Dataset) -> None:
    first = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    store.write_cube(first, tmp_path / "b.zarr", chunk=8, shard=24, progress=False)
    for name in ("B04", "B04_std", "SCL"):
        a, b = (zarr.open_array(tmp_path / s, path=name)[:] for s in ("a.zarr", "b.zarr"))
        assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_other_software_reads_it(tmp_path: Path, cube: xr.Dataset) -> None:
    import rioxarray  # noqa: F401
    from odc.geo.xr import ODCExtension  # noqa: F401

    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    plain = xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False)
    assert set(plain.data_vars) == set(cube.data_vars)
    assert set(plain.coords) == set(cube.coords)
    for name in cube.data_vars:
        np.testing.assert_allclose(plain[name].values, cube[name].values, rtol=1e-6, atol=1e-9)
    assert plain.B04.rio.crs.to_epsg() == 32631
    assert plain.B04.rio.transform(recalc=True)[:6] == (10, 0, 500_000, 0, -10, 5_600_000)
    assert plain.spatial_ref.attrs["GeoTransform"] == "500000.0 10.0 0.0 5600000.0 0.0 -10.0"
    assert_array_equal(plain.time.values, cube.time.values)
    opened = store.open_cube(tmp_path / "a.zarr")
    assert opened.B04.rio.crs.to_epsg() == opened.odc.crs.epsg == 32631
    assert opened.odc.geobox == cube.odc.geobox


def test_dims_in_another_order(tmp_path: Path, cube: xr.Dataset) -> None:
    turned = cube[["B04"]].transpose("y", "x", "time")
    store.write_cube(turned, tmp_path / "a.zarr", **SMALL)
    found = store.open_cube(tmp_path / "a.zarr")
    assert_array_equal(found.B04.transpose("time", "y", "x").values, cube.B04.values)


def test_the_ledger_is_no_variable(tmp_path: Path, cube: xr.Dataset) -> None:
    store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    assert GROUP in zarr.open_group(tmp_path / "a.zarr")
    assert GROUP not in store.open_cube(tmp_path / "a.zarr")


def test_other_content_on_the_same_path_is_refused(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    store.write_cube(cube, path, **SMALL)
    changes: dict[str, Callable[[], xr.Dataset]] = {
        r"variables.SCL is .* there, absent here": lambda: cube.drop_vars("SCL"),
        r"time.steps is 5 there, 4 here": lambda: cube.isel(time=slice(4)),
        r"variables.valid.attrs.comment is 'made up' there, 'other' here": lambda: cube.assign(
            valid=cube.valid.assign_attrs(comment="other")
        ),
        r"variables.B04 with other values": lambda: cube.assign(B04=cube.B04 + np.float32(0.01)),
        r"grid.transform": lambda: cube.assign_coords(x=cube.x + 10),
        r"coordinates.orbit with other values": lambda: cube.assign_coords(
            orbit=cube.orbit + np.int16(1)
        ),
    }
    for message, change in changes.items():
        with pytest.raises(StoreError, match=message):
            store.write_cube(change(), path, **SMALL)
    with pytest.raises(StoreError, match="profile is 'default' there, 'fast' here"):
        store.write_cube(cube, path, profile="fast", **SMALL)
    with pytest.raises(StoreError, match=r"exists.*resume=True.*overwrite=True"):
        store.write_cube(cube, path, resume=False, **SMALL)
    newer = cube.assign_attrs(history="made again")
    same(store.write_cube(newer, path, **SMALL), cube)
    less = cube.drop_vars("SCL")
    same(store.write_cube(less, path, overwrite=True, **SMALL), less)


def test_a_changed_input_is_refused(tmp_path: Path, cube: xr.Dataset) -> None:
    first = store.write_cube(cube, tmp_path / "a.zarr", **SMALL)
    store.write_cube(first * np.float32(0.5), tmp_path / "b.zarr", **SMALL)
    again = store.open_cube(tmp_path / "a.zarr") * np.float32(0.5)
    store.write_cube(again, tmp_path / "b.zarr", **SMALL)
    newer = store.write_cube(cube, tmp_path / "a.zarr", overwrite=True, **SMALL)
    with pytest.raises(StoreError, match=r"variables.B04.* with other values"):
        store.write_cube(newer * np.float32(0.5), tmp_path / "b.zarr", **SMALL)


def test_an_overwritten_store_is_another_source(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    first = store.write_cube(cube, path, **SMALL)
    first_name = first.B04.data.name
    darker = cube.assign(B04=cube.B04 * 0)
    second = store.write_cube(darker, path, overwrite=True, **SMALL)
    assert second.B04.data.name != first_name
    same(second, darker)


def test_a_cube_is_not_written_into_its_own_store(tmp_path: Path, cube: xr.Dataset) -> None:
    path = tmp_path / "a.zarr"
    opened = store.write_cube(cube, path, **SMALL)
    with pytest.raises(StoreError, match="is where the cube is read from"):
        store.write_cube(opened * 2, path, overwrite=True, **SMALL)
    same(store.open_cube(path), cube)


def test_no_grid_and_odd_shards(tmp_path: Path, cube: xr.Dataset) -> None:
    with pytest.raises(CubeError, match=r"Missing dimension y: .*Use ds.expand_dims\(\['y'\]\)"):
        store.write_cube(cube[["B04"]].isel(y=0), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"multiple of the chunk. Pass shard=768"):
        store.write_cube(cube, tmp_path / "a.zarr", shard=1000)
