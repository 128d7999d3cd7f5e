"""What a result is beside its pixels: dims, coordinates, attributes and provenance."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import xarray as xr

from cubefill.cube.coordinates import file_attrs
from cubefill.cube.flags import flag_attrs
from cubefill.cube.indices import together_attrs
from cubefill.engine.request import Request
from cubefill.engine.work import Work
from cubefill.methods import parameters
from cubefill.store.source import StoreSource
from cubefill.store.workers import GAPS
from cubefill.version import __version__


def describe_output(asked: Request, arrays: Mapping[str, Any]) -> xr.Dataset:
    """The result as a dataset: dims, coordinates, CF flags, CRS and provenance."""
    ds, work = asked.ds, asked.work
    dims = {"time", "y", "x"} if work.axes.out is work.axes.given else {"y", "x"}
    coords = {n: c for n, c in ds.coords.items() if set(c.dims) <= dims}
    coords["time"] = xr.DataArray(work.axes.out, dims="time", attrs=dict(ds["time"].attrs))
    out = xr.Dataset(coords=coords, attrs=provenance(asked))
    for name, array in arrays.items():
        variable = xr.Variable(("time", "y", "x"), array, _attrs(ds, work, name))
        if "spatial_ref" in out.coords:
            variable.encoding["grid_mapping"] = "spatial_ref"
        out[name] = variable
    out.attrs = file_attrs(out.attrs)
    for part in out.variables.values():
        part.attrs = file_attrs(part.attrs)
    return out


def with_carried(out: xr.Dataset, asked: Request) -> xr.Dataset:
    """The result with what is carried along, untouched, and its coordinates."""
    if not asked.carried:
        return out
    same = asked.work.axes.out is asked.work.axes.given
    dims = {d for v in asked.carried.values() for d in v.dims if same or d != "time"}
    coords = {
        n: c for n, c in asked.ds.coords.items() if n not in out.coords and set(c.dims) <= dims
    }
    return out.assign_coords(coords).assign(dict(asked.carried))


def _attrs(ds: xr.Dataset, work: Work, name: str) -> dict[str, Any]:
    if name == "fill_flag":
        return flag_attrs()
    if work.std and name.endswith("_std") and name not in ds:
        what = name.removesuffix("_std")
        attrs: dict[str, Any] = {
            "long_name": f"standard deviation of the filling error of {what}",
            "units": "1",
        }
        return attrs | together_attrs(work.errors_together(what))
    if name in work.quantile_names and name not in ds:
        what, level = work.quantile_names[name]
        long_name = f"quantile {level:g} of {what} where it is filled"
        told: dict[str, Any] = {"long_name": long_name, "units": "1", "quantile": level}
        return told | together_attrs(work.errors_together(name))
    band = name.removesuffix(work.traits.suffix) if work.traits.suffix else name
    attrs = dict(ds[band].attrs) if band in ds else {}
    if work.traits.suffix:
        attrs["long_name"] = f"{attrs.get('long_name', band)}, smoothed"
    extra = [f"{name}_std"] if work.std else []
    extra += [q for q, (what, _) in work.quantile_names.items() if what == name]
    return attrs | {"ancillary_variables": " ".join(["fill_flag", *extra])}


def provenance(asked: Request) -> dict[str, Any]:
    """Attributes of an output: the cube's own, and how it was filled."""
    work, ds = asked.work, asked.ds
    method = work.method
    learned: dict[str, Any] = getattr(method, "recorded", dict)()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now} cubefill {__version__}: gapfill method={asked.name}"
    attrs = {n: v for n, v in ds.attrs.items() if n != GAPS}  # those of an earlier fill
    attrs |= {
        "gapfill_method": asked.name,
        "gapfill_parameters": json.dumps(parameters(method), default=str, sort_keys=True),
        "gapfill_version": __version__,
        "gapfill_valid": _valid_words(asked.variables["valid"].attrs),
        "gapfill_observed_altered": int(bool(work.traits.suffix)),
        "history": "\n".join(filter(None, [str(ds.attrs.get("history", "")), line])),
    }
    band = work.sources[work.bands[0]]
    if isinstance(band, StoreSource) and isinstance(band.store, str):
        attrs["gapfill_source"] = band.store
    if learned:  # tables last: what shows the beginning shows the rest
        order = sorted(learned, key=lambda n: (isinstance(learned[n], dict | list), n))
        attrs["gapfill_learned"] = json.dumps({n: learned[n] for n in order}, default=float)
    return attrs


def _valid_words(said: Mapping[str, Any]) -> str:
    """How the mask was made, by its own attributes."""
    return str(said.get("description") or said["source"])
