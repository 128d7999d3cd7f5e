"""What tests of bad input share: deep methods as small as they get, and small cubes."""

from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from cubefill.methods import Flag, resolve
from cubefill.testing import synthetic_cube
from tests.shared.decloud import made

BANDS = ("B02", "B03", "B04", "B08")
PATCH = {"patch": 16, "pad": 4}
TINY: dict[str, dict[str, Any]] = {
    "ssop_mer": {**PATCH, "width": 4, "blocks": 2},
    "ssop_unet": {**PATCH, "widths": (4, 4, 4)},
    "msop_unet": {**PATCH, "widths": (4, 4, 4)},
    "msop_david": {**PATCH, "widths": (4, 4, 4)},
    "utilise": {**PATCH, "widths": (8, 8, 8), "dates": 6},
    "ganfilling": {"width": 2},
    "seq2seq": {"width": 2},
    "stpconv": {"filters": (2,), "kernels": (3,), "strides": ((2, 2, 2),), "size": 16},
    "cnnrnn": {"steps": 8, "coherence": False, "convs": (2, 3), "features": 4, "units": 3},
}
"""Every deep method that fills a cube, as small as it gets."""
WITH_SAR = ("ssop_mer", "ssop_unet", "msop_unet", "msop_david", "cnnrnn")
PATCHES = tuple(n for n in TINY if n != "cnnrnn")


@cache
def net(name: str, **config: Any) -> str:
    """Folder of a checkpoint with first weights."""
    kind: Any = type(resolve(name))
    return str(made(kind, **TINY[name], **config).checkpoint)


def cube(dates: int = 6, size: tuple[int, int] = (9, 11), **options: Any) -> xr.Dataset:
    return synthetic_cube(dates, size, **{"sar": True, **options})


def filled(ds: xr.Dataset, name: str = "utilise", place: Any = None, **options: Any) -> xr.Dataset:
    """As a user types it, in memory."""
    given = net(name) if place is None else str(place)
    out: xr.Dataset = ds.gapfill(name, checkpoint=given, **options).compute()
    return out


def gives(out: xr.Dataset) -> list[str]:
    return [str(n) for n in out.data_vars if n != "fill_flag"]


def whole(out: xr.Dataset, ds: xr.Dataset) -> None:
    """Every gap has a value and a code, every clear value is as it was."""
    clear = ds["valid"].values
    assert (~clear).any()
    np.testing.assert_array_equal(out["fill_flag"].values == Flag.OBSERVED, clear)
    for name in gives(out):
        assert np.isfinite(out[name].values).all(), name
        if name in ds:
            np.testing.assert_array_equal(out[name].values[clear], ds[name].values[clear])


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))
