"""rioxarray: arrays (band, y, x) of dated GeoTIFFs, concatenated; or the folder as it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

import cubefill
from cubefill.errors import CubeError
from cubefill.formats import write_cog
from tests.recipes.clean_cube import (
    BANDS,
    LEFT,
    STEP,
    TOP,
    assert_right,
    classes,
    clear,
    counts,
    masked,
    said,
    times,
)

PLACE = {"transform": rasterio.Affine(STEP, 0, LEFT, 0, -STEP, TOP), "crs": "EPSG:32631"}


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A file a date of four bands of float32, NaN where it is cloudy."""
    for stamp, values in zip(pd.DatetimeIndex(times()), masked(), strict=True):
        path = tmp_path / "stack" / f"{stamp:%Y%m%dT%H%M%S}.tif"
        write_cog(path, values, nodata=float("nan"), **PLACE)
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            for i, name in enumerate(BANDS, start=1):
                file.set_band_description(i, name)
    return tmp_path / "stack"


def rioxarray_stack(folder: Path) -> xr.DataArray:
    rioxarray = pytest.importorskip("rioxarray")
    paths = sorted(folder.glob("*.tif"))
    dates = pd.DatetimeIndex([path.stem for path in paths])
    arrays = [rioxarray.open_rasterio(path, masked=True) for path in paths]
    return xr.concat(arrays, pd.Index(dates, name="time"))


def test_a_stack_with_numbers_of_bands(stack: Path, tmp_path: Path) -> None:
    da = rioxarray_stack(stack)
    with pytest.raises(CubeError, match=r"Use da.assign_coords\(band="):
        da.gapfill("linear", valid="finite")
    named = da.assign_coords(band=["B02", "B03", "B04", "B08"])
    with said():
        out = named.gapfill("linear", valid="finite")
    assert_right(out, tmp_path, valid=clear())


def test_the_folder_of_the_same_files(stack: Path, tmp_path: Path) -> None:
    with said():
        out = cubefill.from_geotiffs(stack).gapfill("linear", valid="finite")
    assert_right(out, tmp_path, valid=clear())


def test_a_folder_of_single_bands_with_scl(tmp_path: Path) -> None:
    layers = {**counts(), "SCL": classes()}
    for step, stamp in enumerate(pd.DatetimeIndex(times())):
        for name, values in layers.items():
            path = tmp_path / "s2" / f"T31UDS_{stamp:%Y%m%dT%H%M%S}_{name}_10m.tif"
            write_cog(path, values[step], **PLACE)
    with said():
        out = cubefill.from_geotiffs(tmp_path / "s2", scale=1e-4).gapfill("linear")
    assert_right(out, tmp_path)
    with pytest.raises(CubeError, match=r"Use cubefill.cube.conform\(ds, scale=1e-4\)"):
        cubefill.from_geotiffs(tmp_path / "s2").gapfill("linear")
    ds = cubefill.cube.conform(cubefill.from_geotiffs(tmp_path / "s2"), scale=1e-4)
    np.testing.assert_array_equal(ds.gapfill("linear")["B04"], out["B04"])
