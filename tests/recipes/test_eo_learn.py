"""eo-learn: an EOPatch of arrays (time, height, width, depth), time stamps and a box.

The package brings OpenCV, fiona and an old geopandas, so the project does not install it. A patch
is read by its attributes alone; where the package is, the real class is filled too.
"""

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.recipes.clean_cube import (
    BANDS,
    COLUMNS,
    LEFT,
    ROWS,
    STEP,
    TOP,
    assert_right,
    clear,
    reflectance,
    said,
    times,
)

BOX = (LEFT, TOP - STEP * ROWS, LEFT + STEP * COLUMNS, TOP)


class Box(tuple):  # type: ignore[type-arg]
    """`sentinelhub.BBox`: iterates over its corners and knows its CRS."""

    crs = SimpleNamespace(epsg=32631)


def by_hand() -> Any:
    return SimpleNamespace(data={}, mask={}, bbox=Box(BOX), timestamps=stamps())


def by_eo_learn() -> Any:
    core = pytest.importorskip("eolearn.core", reason="brings OpenCV, fiona, old geopandas")
    import sentinelhub

    return core.EOPatch(bbox=sentinelhub.BBox(BOX, sentinelhub.CRS("32631")), timestamps=stamps())


def stamps() -> list[datetime]:
    return times().astype("datetime64[s]").tolist()


def cube_of(patch: Any) -> xr.Dataset:
    """The recipe's dataset of a patch."""
    dims, values = ("time", "y", "x"), patch.data["BANDS"]
    left, bottom, right, top = patch.bbox
    step_y, step_x = (top - bottom) / values.shape[1], (right - left) / values.shape[2]
    return xr.Dataset(
        {name: (dims, values[..., i]) for i, name in enumerate(["B02", "B03", "B04", "B08"])}
        | {"clear": (dims, patch.mask["IS_VALID"][..., 0])},
        {
            "time": np.array(patch.timestamps, "datetime64[ns]"),
            "y": top - step_y * (np.arange(values.shape[1]) + 0.5),
            "x": left + step_x * (np.arange(values.shape[2]) + 0.5),
            "epsg": patch.bbox.crs.epsg,
        },
    )


@pytest.mark.parametrize("make", [by_hand, by_eo_learn])
def test_arrays_of_a_patch(make: Any, tmp_path: Path) -> None:
    patch = make()
    patch.data["BANDS"] = reflectance().transpose(0, 2, 3, 1)
    patch.mask["IS_VALID"] = clear()[..., None]
    with said():
        out = cube_of(patch).gapfill("linear", valid="clear")
    assert_right(out, tmp_path, valid=clear())
    patch.data["FILLED"] = np.stack([out[b] for b in BANDS], axis=-1).astype(np.float32)
    assert patch.data["FILLED"].shape == patch.data["BANDS"].shape
    assert not np.isnan(patch.data["FILLED"]).any()
