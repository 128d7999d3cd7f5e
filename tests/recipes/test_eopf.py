"""EOPF Zarr: one product a store, bands `b02` on 10 m and `scl` on 20 m in groups of a tree.

The products are written here with the groups, names, encodings and attributes of ESA's samples.
"""

from pathlib import Path
from typing import Any

import xarray as xr

from tests.recipes.clean_cube import (
    DATES,
    assert_right,
    classes,
    counts,
    recipe,
    said,
    times,
    x_centres,
    y_centres,
)

R10M, SCL = "measurements/reflectance/r10m", "conditions/mask/l2a_classification/r20m"


def write_product(folder: Path, step: int) -> Path:
    """One date: uint16 with scale and offset of the baseline, and SCL at 20 m."""
    x, y = x_centres(), y_centres()
    stamp = str(times()[step].astype("datetime64[ms]"))
    names = {"proj:epsg": 32631, "proj:transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5600000.0]}
    bands = {
        n.lower(): (("y", "x"), c[step] * 1e-4, dict(names, long_name=f"BOA reflectance {n}"))
        for n, c in counts().items()
    }
    r10m = xr.Dataset(bands, {"y": y, "x": x})
    for v in r10m.data_vars.values():
        v.encoding = {"dtype": "u2", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    middle = {"y": y.reshape(-1, 2).mean(1), "x": x.reshape(-1, 2).mean(1)}
    attrs: dict[str, Any] = {"flag_values": list(range(12)), "proj:epsg": 32631}
    r20m = xr.Dataset({"scl": (("y", "x"), classes()[step, ::2, ::2], attrs)}, middle)
    root = xr.Dataset(
        attrs={
            "stac_discovery": {"properties": {"datetime": stamp + "Z", "proj:code": "EPSG:32631"}},
            "other_metadata": {"horizontal_CRS_code": "EPSG:32631"},
        }
    )
    tree = xr.DataTree.from_dict({"/": root, f"/{R10M}": r10m, f"/{SCL}": r20m})
    path = folder / f"S2A_MSIL2A_{stamp[:10]}.zarr"
    tree.to_zarr(path, zarr_format=2)
    return path


def test_products_of_several_dates(tmp_path: Path) -> None:
    paths = [write_product(tmp_path, step) for step in range(DATES)]
    with said("b04 as B04"):
        assert_right(recipe("EOPF Zarr", 0, 1, paths=paths)["out"], tmp_path)
