from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill import stac
from cubefill.errors import CubefillWarning
from cubefill.stac.offsets import offset_jumps


def steady(dates: int = 14) -> xr.Dataset:
    rng = np.random.default_rng(3)
    time = np.datetime64("2021-01-01", "ns") + np.arange(dates) * np.timedelta64(5, "D")
    ds = xr.Dataset(coords={"time": time, "y": -10.0 * np.arange(20), "x": 10.0 * np.arange(20)})
    for name in ("B02", "B03", "B04"):
        ds[name] = (("time", "y", "x"), rng.uniform(0.02, 0.2, (dates, 20, 20)))
    return ds.assign(valid=ds["B02"].notnull())


def test_a_steady_cube_has_no_jump() -> None:
    assert offset_jumps(steady()) == []
    assert offset_jumps(steady(1)) == []


@pytest.mark.parametrize("step", [0.1, -0.1])
def test_a_jump_in_every_band_is_found(step: float) -> None:
    ds = steady()
    shift = xr.where(ds["time"] >= np.datetime64("2021-02-10"), np.float32(step), np.float32(0))
    for name in ("B02", "B03", "B04"):
        ds[name] = ds[name] + shift
    with pytest.warns(CubefillWarning, match=r"jump by about 0\.1 at 2021-02-10"):
        assert offset_jumps(ds) == ["2021-02-10"]


def test_a_jump_in_one_band_is_none() -> None:
    ds = steady()
    ds["B02"] = ds["B02"] + xr.where(ds["time"] >= np.datetime64("2021-02-10"), 0.1, 0.0)
    assert offset_jumps(ds) == []


@pytest.mark.slow  # the quick one: test_the_real_catalogue_equals_its_source_to_the_last_count
def test_the_real_catalogue(data_folder: Path) -> None:
    items = stac.search(data_folder / "stac_31UDS", datetime="2018-03/2018-07")
    names = ("B02", "B03", "B04")
    assert offset_jumps(stac.load(items, bands=names)) == []
    with pytest.warns(CubefillWarning):
        found = offset_jumps(stac.load(items, bands=names, harmonize=False))
    assert len(found) == 1
    assert found[0].startswith("2018-05")
