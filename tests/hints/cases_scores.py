"""Hints about gaps to hide, scores and pictures."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubefill import evaluate, gaps
from cubefill.evaluate import tables
from cubefill.methods import resolve
from cubefill.plot import compare as picture
from cubefill.plot import ndvi, rgb
from cubefill.plot.curves import curve
from cubefill.testing import synthetic_cube
from tests.hints.cases_cube import CUBE
from tests.hints.typing import Case

OUT = CUBE.gapfill("linear")
X, Y = float(CUBE["x"].mean()), float(CUBE["y"].mean())
HERE = {"x": X, "y": Y}
missing: Any = curve
CLOUDY = CUBE.assign(cloud_probability=100.0 * ~CUBE["valid"])


def scored(methods: Any = ("linear",), cubes: Any = CUBE, gaps: Any = None, **options: Any) -> Any:
    if isinstance(methods, xr.Dataset):
        return methods
    return evaluate.compare(methods, cubes, gaps, **options)


def saved(ds: xr.Dataset, name: str) -> Any:
    return tables.write(ds, Path(tempfile.mkdtemp()) / name)


SCORES = {"compare": scored, "cube": CUBE, "gaps": gaps}
COMPARE = [
    Case("or a cloudless truth, got neither", scored, {"methods": ["linear"]}),
    Case(
        "expected a truth for every cube",
        scored,
        {"methods": ["linear"], "cubes": {"a": CUBE, "b": CUBE}, "truth": {"a": CUBE}},
        put={", ...}": ", 'a': cube}"},
        names=SCORES,
    ),
    Case(
        "expected methods and cubes, got",
        scored,
        {"methods": [], "gaps": gaps.Blobs()},
        put={"Transplant()": "Blobs()"},
        names=SCORES,
    ),
    Case(
        "expected cubes of one set of bands",
        scored,
        {"methods": ["linear"], "cubes": [CUBE, CUBE.drop_vars("B02")], "gaps": gaps.Blobs()},
        names={"cubes": [CUBE, CUBE.drop_vars("B02")]},
    ),
    Case(
        "expected pixels with a truth that the methods do not see",
        scored,
        {"methods": ["linear"], "truth": CUBE.where(CUBE["valid"])},
        put={"Transplant()": "Blobs()"},
    ),
    Case(
        "self_test compares methods",
        lambda methods: evaluate.self_test(CUBE, methods),
        {"methods": []},
    ),
    Case(
        "hidden: expected bool",
        lambda hidden: hidden if isinstance(hidden, xr.Dataset) else gaps.apply(CUBE, hidden),
        {"hidden": np.ones(3)},
        names={"ds": CUBE, "gaps": gaps},
        put={"Transplant()": "Blobs()"},
    ),
    Case(
        "Expected a cube with `valid`, got none",
        lambda ds: gaps.hide(ds, gaps.Blobs()),
        {"ds": synthetic_cube(6, gap=0.02).drop_vars("valid")},
    ),
    Case(
        "got one without pixel_set",
        lambda ds: tables.scores(ds),
        {"ds": CUBE},
        put={"Transplant()": "Blobs()"},
        names=SCORES,
    ),
    Case(
        "expected a name that ends in",
        saved,
        {"ds": scored(gaps=gaps.Blobs()), "name": "scores"},
        takes="name",
        put={"scores.md": "'scores.md'"},
    ),
]
CURVES = [
    Case(
        "got neither. Use ndvi(ds)",
        lambda ds: ds if not isinstance(ds, xr.Dataset) else missing(None, None, None),
        {"ds": CUBE},
        names={"ndvi": ndvi},
    ),
    Case(
        "not a smoothed product. Pass smooth=False",
        lambda smooth: scored([resolve("savgol", smooth=smooth)], gaps=gaps.Blobs()),
        {"smooth": True},
    ),
]
PICTURES = [
    Case(
        "three or more corners of a polygon",
        lambda point: ndvi(CUBE, point=point),
        {"point": "here"},
        names=HERE,
    ),
    Case(
        "holds no pixel centre",
        lambda point: ndvi(CUBE, point=point),
        {"point": [(0, 0), (1, 0), (1, 1)]},
        names=HERE,
    ),
    Case(
        "lies outside the cube: expected {} from",
        lambda point: ndvi(CUBE, point=point),
        {"point": (0, 0)},
    ),
    Case(
        "compare shows a filled cube",
        lambda out: picture(out) if isinstance(out, xr.Dataset) else out,
        {"out": CUBE},
        names={"ds": CUBE},
    ),
    Case("max_px={}: expected at least 1", rgb, {"ds": CUBE, "max_px": 0}),
    Case(
        "Pass bands=(...) with three of them",
        rgb,
        {"ds": CUBE, "bands": ("B11", "B04", "B03")},
        put={"(...)": "('B08', 'B04', 'B03')"},
    ),
    Case("time={}: expected a date", rgb, {"ds": CUBE, "time": "soon"}),
    Case("lies outside the cube: expected {} to", rgb, {"ds": CUBE, "time": "1999-01-01"}),
    Case(
        "before= does not cover the filled cube",
        picture,
        {"out": OUT, "before": CUBE.isel(x=slice(2))},
        names={"ds": CUBE},
    ),
]
CASES = COMPARE + CURVES + PICTURES
