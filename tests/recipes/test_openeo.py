"""openEO: netCDF of a variable a band on t, y, x and `crs`; arrays (t, bands, y, x) in UDFs.

Its servers make the files; the client package asks for pandas below 3, so the project does not
install it. The files are written here as the servers write them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from cubefill.errors import CubeError
from tests.recipes.clean_cube import (
    BANDS,
    assert_right,
    classes,
    counts,
    recipe,
    reflectance,
    said,
    times,
    x_centres,
    y_centres,
)


def file(folder: Path) -> xr.Dataset:
    """The result of a batch job of counts and SCL, opened with xarray."""
    layers: dict[str, NDArray[Any]] = {**counts(), "SCL": classes()}
    dims = ("t", "y", "x")
    encoding = {n: {"dtype": "int16", "_FillValue": -32768} for n in layers}
    ds = xr.Dataset(
        {n: (dims, a.astype(np.float32), {"grid_mapping": "crs"}) for n, a in layers.items()},
        {"t": times(), "y": y_centres(), "x": x_centres()},
        {"Conventions": "CF-1.9", "institution": "openEO platform"},
    )
    ds["t"].attrs = {"standard_name": "t", "long_name": "t", "axis": "T"}
    ds["crs"] = xr.DataArray(b"", attrs={"crs_wkt": CRS.from_epsg(32631).to_wkt()})
    ds.to_netcdf(folder / "openEO.nc", encoding=encoding)
    return xr.open_dataset(folder / "openEO.nc")


def test_counts_are_refused_and_the_printed_line_leads_on(tmp_path: Path) -> None:
    ds = file(tmp_path)
    with (
        said("t as time"),
        pytest.raises(CubeError, match=r"Use cubefill.*conform\(ds, scale=1e-4\)"),
    ):
        ds.gapfill().compute()
    with said():
        assert_right(recipe("openEO", ds=ds)["out"], tmp_path)


def test_reflectance_with_one_call(tmp_path: Path) -> None:
    ds = file(tmp_path)
    ds = ds.assign({b: ds[b] * np.float32(1e-4) for b in BANDS})
    with said("t as time"):
        assert_right(ds.gapfill(), tmp_path)


def test_the_array_of_a_udf(tmp_path: Path) -> None:
    values = np.concatenate([reflectance(), classes()[:, None].astype(np.float32)], axis=1)
    coords = {"t": times(), "bands": [*BANDS, "SCL"], "y": y_centres(), "x": x_centres()}
    array = xr.DataArray(values, coords, ("t", "bands", "y", "x"))
    with said("CRS"):
        assert_right(recipe("openEO", 2, da=array)["out"], tmp_path, crs=None)
