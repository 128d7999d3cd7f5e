"""A simulated cube that samples are taken from, and what a store of them is asked for."""

from typing import Any

import pytest
import xarray as xr

from cubefill import samples, simulate
from cubefill.errors import CubeError
from cubefill.methods.contract import Needs
from cubefill.methods.windows import Span
from cubefill.samples import StoredSamples

BANDS = ("B02", "B03", "B04", "B08")
NEEDS = Needs(bands=BANDS, time=Span(6), space=Span(16))


def scene_cube() -> xr.Dataset:
    """A scene of 240 days with SAR on its own dates and elevation."""
    return simulate.scene(
        size=(64, 96), days=240, seed=3, cloud=0.4, bands=BANDS, sar="own", dem=True
    ).cube


def every(found: StoredSamples) -> list[StoredSamples]:
    """The three splits of a store."""
    return [samples.open(found.path, s) for s in ("train", "validation", "test")]


def refused(match: str, *args: Any, error: type[Exception] = CubeError, **options: Any) -> None:
    """Fails unless `samples.make` raises what is expected."""
    with pytest.raises(error, match=match):
        samples.make(*args, **options)
