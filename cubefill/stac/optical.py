"""Sentinel-2 on the grid of a cube: bands, SCL, and `valid` with the halo of its dilation."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from cubefill.cube import valid as clear_pixels
from cubefill.cube.bands import BANDS, SCL
from cubefill.cube.valid import UserValid
from cubefill.errors import CatalogueError
from cubefill.stac.items import find_asset, listed
from cubefill.stac.layers import Plan, refuse_absent, source_of, split, token, variable
from cubefill.stac.reading import MISSING_CLASS, crop, layer


def has_scl(days: list[list[Any]], plan: Plan, *, required: bool) -> bool:
    """True when SCL can be read.

    Raises
    ------
    CatalogueError
        It is required and items lack it.
    """
    items = [i for day in days for i in day]
    without = [i.id for i in items if find_asset(i, "SCL", plan.step) is None]
    if without and required and not plan.flagged:
        raise CatalogueError(
            f"{len(without)} of {len(items)} items have no SCL ({listed(without)}), so nothing "
            "says which pixels are clear. Pass valid=your_function (of the cube, True where "
            "clear), or on_error='flag' where some items have it."
        )
    if len(without) == len(items) and required:
        raise CatalogueError(
            "No item has SCL, so nothing says which pixels are clear: pass valid=your_function."
        )
    return len(without) < len(items) and (required or not without)


def add_bands(
    ds: xr.Dataset, plan: Plan, days: list[list[Any]], names: tuple[str, ...]
) -> tuple[xr.Dataset, Any]:
    """The dataset with its bands, and where a read failed (None unless flagged)."""
    steps = {n: [[source_of(i, n, plan) for i in day] for day in days] for n in names}
    if not plan.flagged:
        refuse_absent(steps, days)
    missing = None
    for name, sources in steps.items():
        raw = layer(token(name, sources, plan), sources, plan.grid, plan.chunk, plan.how)
        data, failed = split(raw, plan)
        missing = failed if missing is None else missing | failed
        ds[name] = variable(plan, data, f"Sentinel-2 {name}", _band_attributes(name))
    return ds, missing


def add_scl(
    ds: xr.Dataset,
    plan: Plan,
    days: list[list[Any]],
    missing: Any,
    options: tuple[bool, float, tuple[int, ...]],
) -> tuple[xr.Dataset, Any]:
    """The dataset with SCL and with valid, made from blocks that hold the halo of the dilation."""
    snow, dilate, clear = options
    classes = clear_pixels.clear_classes(clear, snow)
    rows = clear_pixels.disk(dilate, plan.step, plan.step)
    halo = max(len(rows) - 1, rows[0])
    sources = [[source_of(i, "SCL", plan) for i in day] for day in days]
    how = replace(plan.how, resampling="nearest", overviews=False)
    name = token("SCL", sources, plan, halo)
    padded = layer(name, sources, plan.grid, plan.chunk, how, halo).map_blocks(
        _to_classes, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    cut = partial(crop, padded, plan.shape, plan.chunk, halo)
    find_clear = partial(clear_pixels.from_classes, classes=classes, rows=rows)
    clear_data = cut(find_clear, bool)
    scl = cut(_same, np.uint8)
    if plan.flagged:
        missing = missing | (scl == MISSING_CLASS)
        clear_data = clear_data & ~missing
        scl = scl.map_blocks(_no_missing, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    ds["SCL"] = variable(plan, scl, "scene classification of Sen2Cor", _scl_attributes())
    said = clear_pixels.attributes(classes, dilate)
    ds["valid"] = variable(plan, clear_data, said["long_name"], said)
    return ds, missing


def add_valid(ds: xr.Dataset, valid: UserValid | None) -> xr.Dataset:
    """The dataset with the user's own clear pixels, where given, as `valid`."""
    if valid is None:
        return ds
    found = clear_pixels.apply(ds.drop_vars("valid", errors="ignore"), valid)
    if "source_missing" in ds:
        found = (found & ~ds["source_missing"]).assign_attrs(found.attrs)
    found.encoding["grid_mapping"] = "spatial_ref"
    return ds.assign(valid=found)


def _same(block: Any) -> Any:
    return block


def _no_missing(block: Any) -> Any:
    return np.where(block == MISSING_CLASS, np.uint8(0), block)


def _to_classes(block: Any) -> Any:
    """SCL as uint8: 0 where there is no data, `MISSING_CLASS` where the read failed."""
    out = np.zeros(block.shape, np.uint8)
    known = np.isfinite(block)
    out[known] = block[known].astype(np.uint8)
    out[np.isposinf(block)] = MISSING_CLASS
    return out


def _band_attributes(name: str) -> dict[str, Any]:
    return {
        "units": "1",
        "standard_name": "surface_bidirectional_reflectance",
        "wavelength_nm": BANDS[name].wavelength,
    }


def _scl_attributes() -> dict[str, Any]:
    return {
        "flag_values": [int(c) for c in SCL],
        "flag_meanings": " ".join(c.name.lower() for c in SCL),
    }
