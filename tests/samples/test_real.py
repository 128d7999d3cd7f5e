"""Samples of real catalogues and stores."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill import layout, samples, stac
from cubefill.gaps import EveryDate
from cubefill.methods.contract import Needs
from cubefill.stac.area import quiet
from tests.shared.stac_cases import cube


def test_a_catalogue_gives_the_samples_of_its_cube(tmp_path: Path) -> None:
    folder = stac.write_catalogue(cube(ny=48, nx=48, dates=6), tmp_path / "catalogue")
    loaded = stac.load(stac.search(folder), bands=("B02", "B04"))
    made = [
        samples.make(
            [c], Needs(("B02", "B04")), None, tmp_path / f"{n}.zarr", patch=16, dates=3,
            splits=(0.5, 0.25, 0.25),
        )
        for n, c in enumerate((folder, loaded))
    ]  # fmt: skip
    assert len(made[0]) == len(made[1]) > 0
    for i in range(len(made[0])):
        np.testing.assert_array_equal(made[0][i]["optical"], made[1][i]["optical"])


@pytest.fixture(scope="module")
def real(data_folder: Path) -> xr.Dataset:
    """The real catalogue's cube in memory, read once for all samples."""
    items = stac.search(data_folder / "stac_31UDS")
    with quiet():
        return stac.load(items, bands=("B02", "B03", "B04", "B08"), sar=True, dem=True).compute()


@pytest.mark.slow
def test_the_real_catalogue_by_layout(real: xr.Dataset, tmp_path: Path) -> None:
    made = samples.make(
        [real], layout.load("msop"), None, tmp_path / "a.zarr", patch=32, dem=True,
        splits=(0.5, 0.25, 0.25), max_per_place=8, seasons=True,
    )  # fmt: skip
    parts = [samples.open(made.path, s) for s in ("train", "validation", "test")]
    assert sum(len(p) for p in parts) > 10
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    lon, lat = np.array([f["geometry"]["coordinates"][0] for f in features]).reshape(-1, 2).T
    assert 1 < lon.min() < lon.max() < 5
    assert 50 < lat.min() < lat.max() < 53
    for part in parts:
        time = part.table["time"].values
        hours = (time - part.table["reference"].values[:, None]) / np.timedelta64(1, "h")
        assert (hours[:, 0] >= -432).all()
        assert (hours[:, 0] <= -240).all()
        clear = part.table["clear"].values[:, part.form.dates.index("target")]
        np.testing.assert_array_equal(clear, 1)
        sample = part[0]
        assert 0 < np.nanmedian(sample["s2_target"]) < 0.5
        assert -35 < np.nanmedian(sample["s1_t"]) < 0
        assert -20 < sample["dem"].mean() < 200
    seasons = np.bincount(made.table["season"].values, minlength=4)
    assert seasons.max() <= 3 * max(1, seasons[seasons > 0].min())


@pytest.mark.slow
def test_the_real_catalogue_by_windows(real: xr.Dataset, tmp_path: Path) -> None:
    made = samples.make(
        [real], Needs(("B04", "B08")), EveryDate(), tmp_path / "a.zarr", patch=32, dates=8,
        splits=(0.5, 0.25, 0.25), max_per_place=5, min_clear=0.2,
    )  # fmt: skip
    sample = made[0]
    assert sample["optical"].shape == (8, 2, 32, 32)
    share = sample["where"][:, 0].sum() / (sample["where"][:, 0] | sample["valid"]).sum()
    assert share == pytest.approx(0.2, abs=0.2)
