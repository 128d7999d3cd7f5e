"""sentle: a Zarr store with one array `sentle` (time, band, y, x), newest first, x and y float32.

The package asks for another zarr than the project and makes its cubes over the network; the form
is that of its writer: classes of clouds (0 clear, 1 thick, 2 thin, 3 shadow) along `band`, or NaN
where its masks were applied.
"""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS

from cubefill.errors import CubeError
from tests.recipes.clean_cube import (
    BANDS,
    COLUMNS,
    LEFT,
    ROWS,
    STEP,
    TOP,
    assert_right,
    clear,
    counts,
    masked,
    recipe,
    said,
    times,
)


def store(folder: Path, values: np.ndarray, bands: list[str], *, corner: bool = True) -> xr.Dataset:
    """What `xr.open_zarr` gives of a store of sentle."""
    shift, mode = (0.0, "top-left") if corner else (STEP / 2, "center")
    x = (LEFT + STEP * np.arange(COLUMNS) + shift).astype(np.float32)
    y = (TOP - STEP * np.arange(ROWS) - shift).astype(np.float32)
    wkt = CRS.from_epsg(32631).to_wkt()
    ds = xr.Dataset(
        {"sentle": (("time", "band", "y", "x"), values[::-1])},
        {
            "time": times().astype("datetime64[s]")[::-1],
            "band": np.array(bands, object),
            "y": ("y", y, {"coord_save_mode": mode}),
            "x": ("x", x, {"coord_save_mode": mode}),
            "spatial_ref": ((), 0, {"crs_wkt": wkt, "spatial_ref": wkt}),
        },
        {"crs_wkt": wkt},
    )
    ds["sentle"].encoding["grid_mapping"] = "spatial_ref"
    ds["time"].encoding["units"] = "seconds since 1970-01-01 00:00:00"
    path = folder / "sentle.zarr"
    ds.to_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False, decode_coords="all")


def raw() -> np.ndarray:
    """Counts as float32 and the classes of clouds."""
    layers = [*counts().values(), np.where(clear(), 0, 1)]
    return np.stack(layers, axis=1).astype(np.float32)


def test_nan_after_mask(tmp_path: Path) -> None:
    ds = store(tmp_path, masked(), list(BANDS))
    with said("corner"):
        assert_right(recipe("sentle", ds=ds)["out"], tmp_path, valid=clear())


def test_coordinates_of_centres_stay(tmp_path: Path) -> None:
    ds = store(tmp_path, masked(), list(BANDS), corner=False)
    with said():
        assert_right(recipe("sentle", ds=ds)["out"], tmp_path, valid=clear())


def test_class_layer(tmp_path: Path) -> None:
    bands = [*BANDS, "S2_cloud_classification"]
    ds = store(tmp_path, raw(), bands)
    with said("corner"):
        out = recipe("sentle", 2, ds=ds)["out"]
        assert_right(out, tmp_path, valid=clear())


def test_the_stacked_dataset_is_refused_with_the_line_to_type(tmp_path: Path) -> None:
    ds = store(tmp_path, masked(), list(BANDS))
    line = r"Use ds\['sentle'\].to_dataset\(dim='band'\)"
    with said(), pytest.raises(CubeError, match=line):
        ds.gapfill(valid="finite")
    with said("corner"):
        out = ds["sentle"].to_dataset(dim="band").gapfill(valid="finite")
        assert_right(out, tmp_path, valid=clear())
