"""rioxarray: arrays (band, y, x) of dated GeoTIFFs, concatenated; or the folder as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

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
    recipe,
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
        da.gapfill(valid="finite")
    with said():
        assert_right(recipe("rioxarray", da=da)["out"], tmp_path, valid=clear())


def test_the_folder_of_the_same_files(stack: Path, tmp_path: Path) -> None:
    with said():
        out = cubefill.from_geotiffs(stack).gapfill(valid="finite")
        assert_right(out, tmp_path, valid=clear())


def test_a_folder_of_single_bands_with_scl(tmp_path: Path) -> None:
    layers: dict[str, NDArray[Any]] = {**counts(), "SCL": classes()}
    for step, stamp in enumerate(pd.DatetimeIndex(times())):
        for name, values in layers.items():
            path = tmp_path / "s2" / f"T31UDS_{stamp:%Y%m%dT%H%M%S}_{name}_10m.tif"
            write_cog(path, values[step], **PLACE)
    with said():
        out = recipe("A folder of GeoTIFFs", folder=tmp_path / "s2")["out"]
        assert_right(out, tmp_path)
    plain = cubefill.from_geotiffs(tmp_path / "s2")
    with pytest.raises(CubeError, match=r"Use cubefill.*conform\(ds, scale=1e-4\)"):
        plain.gapfill()
    again = cubefill.conform(plain, scale=1e-4).gapfill()
    np.testing.assert_array_equal(again["B04"], out["B04"])
