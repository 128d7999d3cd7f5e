"""stub"""
from typing import Any
import xarray as xr
from cubefill.errors import CubefillError
def self_test(ds: xr.Dataset, methods: Any = ("linear",)) -> xr.Dataset:
    raise CubefillError("stub")
