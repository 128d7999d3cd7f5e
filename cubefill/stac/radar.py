"""Sentinel-1 and elevation on the grid of a cube."""

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from cubefill.errors import CatalogueError
from cubefill.stac.area import extent
from cubefill.stac.items import orbit_of, passes, summary, when
from cubefill.stac.layers import Plan, refuse_absent, source_of, split, token, variable
from cubefill.stac.query import Items
from cubefill.stac.reading import layer

Orbit = Literal["ascending", "descending"]


def add_sar(
    ds: xr.Dataset,
    plan: Plan,
    items: list[Any],
    orbit: Orbit | None,
    *,
    own: bool,
    found: Items,
) -> xr.Dataset:
    """The dataset with VV, VH and sar_valid, on `time` from the nearest pass or on their own."""
    groups = passes(_sar_items(items, orbit, plan, found))
    times = np.array([when(g[0]) for g in groups])
    ds = ds.assign_coords(sar_time=times) if own else ds
    nearest = np.abs(times[None] - ds["time"].values[:, None]).argmin(axis=1)
    ok: Any = None
    for name in ("VV", "VH"):
        sources = [[source_of(i, name, plan) for i in g] for g in groups]
        if not plan.flagged:
            refuse_absent({name: sources}, groups)
        how = replace(plan.how, decibel=True)
        raw = layer(token(name, sources, plan), sources, plan.grid, plan.chunk, how)
        data = split(raw, plan)[0]
        data = data if own else data[nearest]
        ok = np.isfinite(data) if ok is None else ok & np.isfinite(data)
        said = {"long_name": f"Sentinel-1 gamma0 {name}", "units": "dB"}
        ds[name] = variable(plan, data, said["long_name"], said, "sar_time" if own else "time")
    dim = "sar_time" if own else "time"
    ds["sar_valid"] = variable(plan, ok, "VV and VH have data", None, dim)
    if own:
        return ds.assign_coords(orbit=("sar_time", np.array([orbit_of(g[0]) for g in groups])))
    gap = (times[nearest] - ds["time"].values) / np.timedelta64(1, "h")
    said = {"long_name": "hours from the optical to the SAR acquisition", "units": "h"}
    return ds.assign_coords(sar_gap_hours=("time", gap.astype(np.float32), said))


def _sar_items(items: list[Any], orbit: Orbit | None, plan: Plan, found: Items) -> list[Any]:
    if not items:
        raise CatalogueError(
            f"sar was asked for and there is no Sentinel-1 RTC item among {summary(found)}: "
            "expected assets vv and vh. Pass collections=['sentinel-2-l2a', 'sentinel-1-rtc'] in "
            "search, or sar=False."
        )
    if orbit not in (None, "ascending", "descending"):
        raise CatalogueError(
            f"sar_orbit={orbit!r}: expected 'ascending', 'descending' or None for both."
        )
    chosen = [i for i in items if orbit is None or orbit_of(i) == orbit]
    if not chosen:
        states = Counter(orbit_of(i) for i in items)
        raise CatalogueError(
            f"sar_orbit={orbit!r}: no such pass among {dict(states)}. Pass sar_orbit=None."
        )
    inside = [i for i in chosen if plan.covered.meets(i)]
    if not inside:
        raise CatalogueError(
            f"No Sentinel-1 item reaches the grid; they span {extent(chosen)}. Pass sar=False."
        )
    return inside


def add_dem(ds: xr.Dataset, plan: Plan, items: list[Any], found: Items) -> xr.Dataset:
    """The dataset with DEM; where items overlap the latest counts."""
    inside = [i for i in items if plan.covered.meets(i)]
    inside.sort(key=lambda i: (when(i), i.id), reverse=True)
    if not inside:
        raise CatalogueError(
            f"dem=True and no DEM item reaches the grid, among {summary(found)}: expected such as "
            "cop-dem-glo-30. Pass collections=[..., 'cop-dem-glo-30'] in search, or dem=False."
        )
    sources = [[source_of(i, "DEM", plan) for i in inside]]
    if not plan.flagged:
        refuse_absent({"DEM": sources}, [inside])
    raw = layer(token("DEM", sources, plan), sources, plan.grid, plan.chunk, plan.how)
    data = split(raw, plan)[0][0]
    ds["DEM"] = xr.DataArray(
        data,
        dims=("y", "x"),
        coords={"y": ds["y"], "x": ds["x"]},
        attrs={"long_name": "elevation", "units": "m", "standard_name": "surface_altitude"},
    )
    ds["DEM"].encoding["grid_mapping"] = "spatial_ref"
    return ds
