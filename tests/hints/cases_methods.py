"""Hints about methods, their nets and their options, and about gaps to hide."""

import dataclasses
from typing import Any

import xarray as xr

import cubefill
from cubefill import gaps
from cubefill.methods import resolve
from cubefill.methods.learned import passes
from tests.hints.cases_cube import CUBE, fill
from tests.hints.typing import Case
from tests.shared import bad_cases

WIDE = bad_cases.cube()


def made(name: str) -> Any:
    """What makes a method of a name: it is refused while that is done."""

    def method(**options: Any) -> Any:
        kind: Any = resolve(name)
        return kind.configured(**options)

    return method


def net(name: str = "utilise") -> str:
    return bad_cases.net(name)


def taken(ds: xr.Dataset, **options: Any) -> xr.Dataset:
    """A cube as it is once it is filled; else filled."""
    return ds if "fill_flag" in ds else fill(ds, **options)


def named(method: Any, **options: Any) -> Any:
    return method if isinstance(method, list | dict) else resolve(method, **options)


def hide(ds: xr.Dataset, kind: Any, **options: Any) -> Any:
    kind = kind if not isinstance(kind, type) else kind(**options)
    return gaps.hide(ds, kind)


ONE = CUBE.isel(time=[0, 1, 2])
CLEAR = CUBE.assign(valid=CUBE["valid"] | True)
METHODS = [
    Case("expected a number of pixels, 1 or more", cubefill.plan, {"ds": CUBE, "tile": 0}),
    Case("the memory budget is {}. Pass", cubefill.plan, {"ds": CUBE, "memory": "1B"}),
    Case("for the names.", named, {"method": 3}),
    Case(
        "came with a method object",
        lambda method: method if method.max_gap else resolve(method, max_gap=30),
        {"method": resolve("linear")},
        names={"dataclasses": dataclasses},
    ),
    Case("expected days >= 0, such as 60", fill, {"ds": CUBE, "max_gap": "soon"}),
    Case(
        "works pixel by pixel. Pass prior=",
        lambda prior: resolve("samedate", prior=prior),
        {"prior": "samedate"},
    ),
    Case(
        "gives no quantiles of its error",
        taken,
        {"ds": WIDE, "method": "utilise", "quantiles": (0.1,)},
    ),
    Case("expected levels between 0 and 1", fill, {"ds": CUBE, "quantiles": (5, 95)}),
    Case("The dataset has no fill_flag", lambda ds: cubefill.cube.fill_shares(ds), {"ds": CUBE}),
    Case("needs a trained net", taken, {"ds": WIDE, "method": "ganfilling"}),
    Case(
        "needs a trained net",
        taken,
        {"ds": WIDE, "method": "ganfilling"},
        put={
            "`cubefill train RECIPE.toml FOLDER` to make one, then ": "",
            "'FOLDER').": lambda: f"{net('ganfilling')!r}).",
            "Use ds.gapfill('utilise') for a net whose weights come with cubefill.": "",
        },
    ),
    Case(
        "is a checkpoint of",
        taken,
        lambda: {"ds": WIDE, "method": "msop_unet", "checkpoint": net()},
    ),
    Case(
        "batch={}: expected 0 or more", lambda batch: resolve("utilise", batch=batch), {"batch": -1}
    ),
    Case(
        "fills {}, and not {}",
        fill,
        lambda: {
            "ds": WIDE.assign(B05=WIDE["B04"]),
            "method": "ssop_unet",
            "bands": ["B04", "B05"],
            "checkpoint": net("ssop_unet"),
        },
    ),
    Case(
        "neither AVX512-BF16 nor AMX",
        fill,
        lambda: {"ds": WIDE, "method": "utilise", "precision": "bfloat16", "checkpoint": net()},
    ),
    Case(
        "no such accelerator for torch",
        passes.device_of,
        {"name": "cuda"},
        put={"device=": "name="},
    ),
]
OPTIONS = [
    Case(
        "patch={}, pad={}: expected a patch of a multiple",
        lambda **o: made("msop_unet")(**o).wiring,
        {"patch": 17},
    ),
    Case("patch={}, patch_keep={}", made("ganfilling"), {"patch": 100}),
    Case("keep={}, dates={}", made("ganfilling"), {"keep": 9, "dates": 5}),
    Case("by which the net shrinks a patch", made("stpconv"), {"size": 17}),
    Case("scale={}: expected more than 0", made("stpconv"), {"scale": 0}),
    Case("and widths of multiples of heads", made("utilise"), {"heads": 3}),
    Case(
        "passes through the observations",
        lambda method, **o: resolve(method, smooth=True),
        {"method": "linear"},
        put={"savgol, whittaker, harmonic or climatology": "'savgol'"},
    ),
]
GAPS = [
    Case(
        "hides nothing",
        hide,
        {
            "ds": CUBE.assign(valid=CUBE["valid"] & (CUBE["valid"].cumsum("time") < 3)),
            "kind": gaps.Blobs,
        },
    ),
    Case(
        "Transplant: expected a date",
        hide,
        {"ds": CLEAR, "kind": gaps.Transplant},
        takes="kind",
        put={"Pass clear= or cover= to allow more, or use": "Use"},
    ),
    Case(
        "Borrowed: expected two dates",
        hide,
        {"ds": CLEAR, "kind": gaps.Borrowed},
        takes="kind",
        names={"other": CUBE},
    ),
    Case(
        "with options {}, got",
        lambda text: gaps.parse_gaps(text),
        {"text": "blobs:big=1"},
        put={"Try ": "Try '", "5.": "5'."},
    ),
]
CASES = METHODS + OPTIONS + GAPS
