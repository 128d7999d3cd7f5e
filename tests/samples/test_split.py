import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import samples, store
from cubefill.errors import MethodError, StoreError
from cubefill.gaps import Blobs, Dates
from cubefill.methods.contract import Needs
from cubefill.samples import StoredSamples
from cubefill.testing import synthetic_cube
from tests.shared.samples_cases import (
    NEEDS,
    every,
    refused,
)


def footprints(found: StoredSamples) -> list[Any]:
    return list(json.loads(Path(found.path).with_suffix(".geojson").read_text())["features"])


def test_splits_share_no_ground(by_layout: StoredSamples, by_window: StoredSamples) -> None:
    from shapely.geometry import shape
    from shapely.ops import unary_union

    for found in (by_layout, by_window):
        area = {
            part.split: unary_union(
                [
                    shape(f["geometry"])
                    for f in footprints(found)
                    if f["properties"]["split"] == part.split
                ]
            )
            for part in every(found)
        }
        assert all(a.area > 0 for a in area.values())
        assert area["train"].intersection(area["validation"]).area == 0
        assert area["train"].intersection(area["test"]).area == 0
        assert area["validation"].intersection(area["test"]).area == 0
        counts = [len(p) for p in every(found)]
        assert sum(f["properties"]["samples"] for f in footprints(found)) == sum(counts)
        assert counts[0] / sum(counts) == pytest.approx(0.6, abs=0.15)


def test_at_most_n_of_a_place(by_window: StoredSamples, by_layout: StoredSamples) -> None:
    for part in every(by_window):
        assert np.bincount(part.table["place"].values).max() <= 7
    most = [np.bincount(part.table["place"].values).max() for part in every(by_layout)]
    assert most[0] == most[1] == 50
    assert most[2] > 50


def test_a_later_year_of_a_place_stays_in_its_split(tmp_path: Path) -> None:
    years = [synthetic_cube(8, (64, 64), ("B04",), seed=s) for s in (0, 1)]
    shifted = synthetic_cube(8, (64, 64), ("B04",), seed=2)
    shifted = shifted.assign_coords(y=shifted["y"] - 24 * 10, x=shifted["x"] + 12 * 10)
    options: Any = {"patch": 16, "dates": 4, "splits": (0.5, 0.25, 0.25), "max_per_place": 4}
    made = samples.make([*years, shifted], Needs(("B04",)), None, tmp_path / "a.zarr", **options)
    seen: dict[tuple[float, ...], set[str]] = {}
    counts: dict[tuple[float, ...], int] = {}
    for part in every(made):
        for box in part.table["bbox"].values:
            key = tuple(box.round(6))
            seen.setdefault(key, set()).add(part.split)
            counts[key] = counts.get(key, 0) + 1
    assert all(len(s) == 1 for s in seen.values())
    assert max(counts.values()) <= 4
    cubes = [set(p.table["cube"].values) for p in every(made)]
    assert set.union(*cubes) == {0, 1, 2}


def test_seasons_are_taken_in_turns(tmp_path: Path) -> None:
    days = np.concatenate([np.arange(0, 60, 2), [100, 105, 110, 115], [200, 205], [290, 300]])
    cube = synthetic_cube(size=(32, 32), bands=("B04",), days=days.tolist())
    options: Any = {"patch": 16, "dates": 1, "splits": (1, 0, 0), "max_per_place": 8}
    made = samples.make([cube], Needs(("B04",)), None, tmp_path / "a.zarr", seasons=True, **options)
    np.testing.assert_array_equal(np.bincount(made.table["season"].values), [8, 8, 8, 8])
    made = samples.make([cube], Needs(("B04",)), None, tmp_path / "b.zarr", **options)
    few = np.bincount(made.table["season"].values, minlength=4)
    assert few[1] > 16
    drawn = samples.open(made.path, seasons=True).at(3)
    counts = np.zeros(4)
    times = made.table["season"].values
    for i in range(400):
        number = drawn._drawn(np.random.default_rng(i))
        counts[times[number]] += 1
    present = counts[few > 0] / 400
    np.testing.assert_allclose(present, 1 / len(present), atol=0.08)


# ------------------------------------------------------------------ refusals


def test_an_empty_search_says_what_removed_how_many(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    summer = cube.isel(time=slice(0, 1))
    refused(
        r"No sample: of \d+ dates .*slot 'tm1': no date at", [summer], "msop", None, path, patch=32
    )
    cloudy = cube.assign(valid=cube["valid"] & False)
    refused(r"slot 'target': clouds not 0 %", [cloudy], "ssop", None, path, patch=32)
    none = cube.assign(SCL=cube["SCL"] * 0)
    refused(r"\d+ x slot 't': pixels without data", [none], "ssop", None, path, patch=32)
    far = cube.assign_coords(sar_time=cube["sar_time"] + np.timedelta64(4000, "D"))
    refused(r"\d+ x slot 't': S1 not within 72 h", [far], "ssop", None, path, patch=32)
    refused(r"6 x places with fewer than 200 dates", [cube], NEEDS, None, path, dates=200, patch=32)
    few = cube.assign(valid=cube["valid"] & (np.arange(96) % 3 > 0))
    refused(r"less than 90% clear \(min_clear\)", [few], NEEDS, None, path, min_clear=0.9)
    refused("no gap: ", [cube], NEEDS, Dates(keep=99), path)
    assert not any(tmp_path.iterdir())


def test_a_split_that_would_be_empty_is_refused(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    refused("1 separate places.*expected at least 3", [cube], NEEDS, None, path, patch=64)
    refused("1 separate places", [cube], NEEDS, None, path, block=96)
    refused("multiple of patch=16", [cube], NEEDS, None, path, block=40)
    refused("add up to 1", [cube], NEEDS, None, path, splits=(0.5, 0.1, 0.1))
    made = samples.make([cube], NEEDS, None, path, patch=64, splits=(1, 0, 0))
    with pytest.raises(StoreError, match=r"no test samples \(it holds .*splits="):
        samples.open(made.path, "test")
    with pytest.raises(StoreError, match="expected one of train, validation, test"):
        samples.open(made.path, "val")


def test_what_cannot_be_is_refused(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    refused("no B11: expected", [cube], Needs(("B11",)), None, path, dates=4)
    refused("No place of 512 x 512 px", [cube], NEEDS, None, path, patch=512)
    refused("got none", [], NEEDS, None, path)
    refused("got a single one", cube, NEEDS, None, path)
    nowhere = synthetic_cube().drop_vars("spatial_ref").drop_encoding()
    refused("no CRS", [nowhere], NEEDS, None, path)
    refused("Pass dates=10", [cube], Needs(), None, path, error=MethodError)
    refused("gaps=None", [cube], "ssop", Blobs(), path, error=MethodError)
    refused("Expected a layout", [cube], 3, None, path, error=MethodError)
    with pytest.raises(StoreError, match="no store"):
        samples.open(path)
    samples.make([cube], NEEDS, None, path, max_per_place=1)
    refused("overwrite=True", [cube], NEEDS, None, path, error=StoreError)
    assert len(samples.make([cube], NEEDS, None, path, max_per_place=1, overwrite=True)) > 0
    other = store.write_cube(cube.drop_dims("sar_time"), tmp_path / "cube.zarr")
    assert other is not None
    refused("left alone", [cube], NEEDS, None, tmp_path / "cube.zarr", error=StoreError,
            overwrite=True)  # fmt: skip
