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

from tests.recipes.clean_cube import (
    COLUMNS,
    LEFT,
    ROWS,
    STEP,
    TOP,
    assert_right,
    clear,
    recipe,
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
    sentinelhub = pytest.importorskip("sentinelhub")
    return core.EOPatch(bbox=sentinelhub.BBox(BOX, sentinelhub.CRS("32631")), timestamps=stamps())


def stamps() -> list[datetime]:
    return times().astype("datetime64[s]").tolist()


@pytest.mark.parametrize("make", [by_hand, by_eo_learn])
def test_arrays_of_a_patch(make: Any, tmp_path: Path) -> None:
    patch = make()
    patch.data["BANDS"] = reflectance().transpose(0, 2, 3, 1)
    patch.mask["IS_VALID"] = clear()[..., None]
    with said():
        out = recipe("eo-learn", 0, 1, patch=patch)["out"]
        assert_right(out, tmp_path, valid=clear())
    assert patch.data["FILLED"].shape == patch.data["BANDS"].shape
    np.testing.assert_array_equal(patch.data["FILLED"][..., 2], out["B04"].values)
