"""Hints about cubes, masks, bands, dates and what a method needs."""

import tempfile
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import cubefill
from cubefill.cube.dataset import check
from cubefill.testing import synthetic_cube
from tests.hints.typing import Case
from tests.shared.strategies import Neighbours

CUBE = synthetic_cube(6, (8, 9))
BARE = CUBE.drop_vars("spatial_ref").drop_attrs()
for _v in BARE.variables.values():
    _v.encoding.pop("grid_mapping", None)
COUNTS = CUBE.assign(B04=(CUBE["B04"] * 1e4).astype("uint16"))
MASK = CUBE["valid"]
SQUARE = synthetic_cube(6, (6, 6))
MONTHS = pd.period_range("2024-01", periods=6, freq="M")
PARIS = pd.DatetimeIndex(CUBE["time"].values).tz_localize("Europe/Paris")


def fill(ds: Any, **options: Any) -> xr.Dataset:
    out: xr.Dataset = cubefill.gapfill(ds, **options)
    return out


def filled(da: Any, **options: Any) -> xr.DataArray:
    out: xr.DataArray = da.gapfill(**options)
    return out


def dated(*dates: str) -> xr.Dataset:
    """The cube with its last dates replaced."""
    kept = list(CUBE["time"].values[: 6 - len(dates)])
    return CUBE.assign_coords(time=np.array([*kept, *np.array(dates, "M8[ns]")]))


def moved(dim: str, index: int, value: float) -> xr.Dataset:
    values = CUBE[dim].values.copy()
    values[index] = value
    return CUBE.assign_coords({dim: values})


def stored() -> str:
    place = f"{tempfile.mkdtemp()}/cube.zarr"
    cubefill.write_cube(CUBE[["B04", "valid"]], place, shard=256)
    return place


def job(source: Any, **options: Any) -> xr.Dataset:
    return cubefill.run(source, f"{tempfile.mkdtemp()}/filled.zarr", **options)


def corners() -> xr.Dataset:
    """The cube as stackstac gives it: corners, and the transform that says so."""
    return CUBE.assign_coords(x=CUBE["x"] - 5, y=CUBE["y"] + 5).assign_attrs(
        transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_600_010.0)
    )


def has_no_gap(out: xr.Dataset) -> bool:
    return bool(np.isfinite(out["B04"]).all())


DATES = [
    Case(
        "expected at least one date and no NaT",
        fill,
        {"ds": CUBE, "times": []},
        put={", ...]": "]"},
    ),
    Case(
        "expected dates or a frequency, not numbers",
        fill,
        {"ds": CUBE, "times": 10},
        put={", ...]": "]"},
    ),
    Case("for one date.", fill, {"ds": CUBE, "times": "ten days"}),
    Case("or longer for the days from", fill, {"ds": CUBE, "times": "1ms"}),
    Case("check the unit of the numbers", fill, {"ds": CUBE, "times": ["1890-01-01"]}),
    Case(
        "The time coordinate has a zone",
        fill,
        {"ds": CUBE.assign_coords(time=PARIS)},
    ),
    Case("expected those of acquisitions", fill, {"ds": dated("1970-01-01")}),
    Case("at most 100 years apart", fill, {"ds": dated("1890-05-01")}),
    Case(
        "The time dimension has no coordinate",
        fill,
        {"ds": CUBE.drop_vars("time")},
        names={"dates": CUBE["time"].values},
    ),
    Case("expected datetime64.", fill, {"ds": CUBE.assign_coords(time=np.arange(6))}),
    Case("holds periods such as", fill, {"ds": CUBE.assign_coords(time=MONTHS)}),
    Case("expected 'raise' or 'skip'.", job, {"source": CUBE, "on_error": "no"}),
    Case("Pass workers=None for all cores.", job, {"source": CUBE, "workers": 0}),
    Case("holds NaT at positions", fill, {"ds": dated("NaT")}),
]
NAMES = [
    Case(
        "both stand for", fill, {"ds": CUBE.rename(B04="red").assign(b04=CUBE["B04"])}, takes="ds"
    ),
    Case("choose them yourself", fill, {"ds": CUBE.rename(B04="red")}),
    Case("after any offset of the processing baseline", fill, {"ds": COUNTS}, then=has_no_gap),
    Case(
        "names no bands",
        filled,
        {"da": CUBE[["B03", "B04"]].to_array("band").drop_vars("band"), "valid": MASK},
        takes="da",
    ),
    Case(
        "xarray.open_zarr(...)",
        fill,
        {"ds": CUBE["B04"].values},
        put={"xarray.open_zarr(...) or": "cube or"},
        names={"cube": CUBE},
    ),
    Case(
        "or da.to_dataset(",
        fill,
        {"ds": CUBE["B04"], "valid": MASK},
        put={"da.gapfill(...), or ": ""},
        names={"da": CUBE["B04"]},
    ),
    Case("Use ds.rename({})", fill, {"ds": CUBE.rename(x="col")}),
    Case("numpy.datetime64('2024-06-01')", fill, {"ds": CUBE.isel(time=0, drop=True)}),
    Case("Use ds.expand_dims({})", fill, {"ds": CUBE.isel(x=0)}),
    Case(
        "The cube is empty",
        fill,
        {"ds": CUBE.sel(y=slice(5.5e6, 5.7e6))},
        put={"ds.sel": "cube.sel"},
        names={"cube": CUBE, "top": 5.7e6, "bottom": 5.5e6},
    ),
    Case(
        "has its bands along the dimension",
        check,
        {"ds": CUBE[["B03", "B04"]].to_array("band").to_dataset(name="s2")},
    ),
    Case(
        "to add a band.",
        fill,
        {"ds": CUBE[["valid"]]},
        put={"= ...": "= band"},
        names={"band": CUBE["B04"]},
    ),
    Case(
        "what looks like a mask or an angle",
        fill,
        {"ds": CUBE[["B04", "valid"]].rename(B04="cloud_probability")},
    ),
    Case("leave them as they are", fill, {"ds": CUBE.assign(what=CUBE["B04"].drop_attrs())}),
    Case("Pass bands={}.", fill, {"ds": CUBE, "bands": ["B99"]}),
]
PLACES = [
    Case("expected one pixel size", fill, {"ds": CUBE.isel(x=[0, 1, 2, 4, 5])}),
    Case("holds no number at positions", fill, {"ds": moved("x", 8, np.nan)}),
    Case("holds the same place twice", fill, {"ds": moved("x", 8, 500075.0)}),
    Case("is out of order", fill, {"ds": CUBE.isel(x=[1, 0, *range(2, 9)])}),
    Case(
        "expected numbers. Use",
        fill,
        {"ds": CUBE.assign_coords(x=CUBE["x"].astype(str))},
        takes="ds",
    ),
]
MASKS = [
    Case(
        "is a Dataset: expected one array",
        fill,
        {"ds": CUBE, "valid": MASK.to_dataset(name="name")},
        takes="valid",
        names={"mask": MASK.to_dataset(name="name")},
    ),
    Case(
        "which leaves what the mask does not cover as a gap",
        fill,
        {"ds": CUBE, "valid": MASK.isel(x=slice(2, None))},
        takes="valid",
        names={"mask": MASK.isel(x=slice(2, None))},
    ),
    Case(
        "where both are the same {} in the same order",
        fill,
        {"ds": CUBE, "valid": MASK.assign_coords(x=np.arange(9.0))},
        takes="valid",
        names={"mask": MASK.assign_coords(x=np.arange(9.0))},
    ),
    Case("expected a variable of the cube", fill, {"ds": CUBE, "valid": "clouds"}),
    Case(
        "so nothing says which pixels are clear: expected one of them",
        fill,
        {"ds": CUBE.drop_vars(["valid", "SCL"])},
    ),
    Case(
        "SCL has dtype",
        fill,
        {"ds": CUBE.drop_vars("valid").assign(SCL=CUBE["SCL"].astype(str))},
    ),
    Case(
        "to read the pixel size from",
        fill,
        {"ds": CUBE.drop_vars(["valid", "x", "y"])},
    ),
    Case(
        "expected an array that names its dimensions",
        fill,
        {"ds": SQUARE.transpose("x", "y", "time"), "valid": SQUARE["valid"].values},
        names={"mask": SQUARE["valid"].values},
    ),
    Case(
        "by its name, 1 is what is not clear",
        fill,
        {"ds": CUBE.assign(cloud_mask=(~MASK).astype("u1")), "valid": "cloud_mask"},
    ),
    Case(
        "does not lie on y and x",
        fill,
        {
            "ds": CUBE.assign(cover=CUBE["valid"].astype("u1").max(("y", "x"))),
            "valid": {"cover": (0,), "dilate": 30},
        },
        put={"dilate=0": "valid={'cover': (1,), 'dilate': 0}"},
    ),
]
NEEDS = [
    Case(
        "gives no standard deviation",
        lambda ds, **o: ds if "fill_flag" in ds else fill(ds, **o),
        {"ds": CUBE, "method": Neighbours(), "std": True},
        takes="ds",
    ),
    Case("no such accelerator for torch", fill, {"ds": CUBE, "device": "cuda"}),
]
FURTHER = [
    Case("Use cubefill.open_cube({})", cubefill.conform, lambda: {"ds": stored()}),
    Case(
        "or da.to_dataset(",
        job,
        {"source": CUBE["B04"], "valid": MASK},
        put={"da.gapfill(...), or ": ""},
        names={"da": CUBE["B04"]},
    ),
    Case("Use cubefill.cube.conform(ds) to rename {}", check, {"ds": CUBE.rename(time="t")}),
    Case("x and y are corners of pixels", fill, {"ds": corners()}),
    Case(
        "NDVI needs {}",
        cubefill.ndvi,
        {"ds": CUBE.drop_vars("B08").assign(B8A=CUBE["B08"])},
        put={"Use cubefill.load(items, bands=('B08', 'B04')), or pass": "Pass"},
    ),
]
CASES = FURTHER + DATES + NAMES + PLACES + MASKS + NEEDS
