"""Impaired dates are left out of windows, place by place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubefill import samples
from cubefill.errors import CubeError
from cubefill.gaps import impaired
from cubefill.methods.contract import Needs
from cubefill.testing import synthetic_cube


@pytest.mark.parametrize("probability", [False, True])
def test_impaired_dates_are_left_out_of_windows(tmp_path: Path, probability: bool) -> None:
    ds = synthetic_cube(16, (32, 32))
    rng = np.random.default_rng(0)
    share = rng.choice([0.0, 0.02, 0.06, 0.12, 0.5], (16, 2, 2)).repeat(16, 1).repeat(16, 2)
    ds["valid"][:] = rng.random(share.shape) >= share
    if probability:
        likely = rng.choice([0.0, 0.02, 0.1], (16, 2, 2)).repeat(16, 1).repeat(16, 2)
        high = np.where(rng.random(share.shape) < likely, 0.3, 0.0)
        ds = ds.assign(cloud_probability=(ds["valid"].dims, high))
    options: Any = {"patch": 16, "dates": 3, "stride": 1, "splits": (1, 0, 0)}
    options |= {"bands": ("B04",), "max_per_place": 0}
    made = samples.make([ds], Needs(), None, tmp_path / "a.zarr", drop_impaired=True, **options)
    shown: dict[tuple[int, int], set[Any]] = {}
    for i in range(len(made)):
        fact = made.table.isel(sample=i)
        place = int(fact["row"]), int(fact["col"])
        shown.setdefault(place, set()).update(fact["time"].values.tolist())
    for row, col in np.ndindex(2, 2):
        part = ds.isel(y=slice(row * 16, row * 16 + 16), x=slice(col * 16, col * 16 + 16))
        judged = part["cloud_probability"].values if probability else None
        left = ~impaired(part["valid"].values, judged)
        times = ds["time"].values.astype("M8[ns]")[left].tolist()
        assert 0 < left.sum() < 16
        assert shown.get((row * 16, col * 16), set()) == (set(times) if len(times) >= 3 else set())
    ds["valid"][:, ::4] = False
    if not probability:
        with pytest.raises(CubeError, match="fewer than 3 dates that are not impaired"):
            samples.make([ds], Needs(), None, tmp_path / "b.zarr", drop_impaired=True, **options)
