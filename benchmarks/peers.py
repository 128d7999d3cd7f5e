"""What is scored beside each other: methods of cubefill by name, and others from elsewhere.

A method is written NAME, NAME=CHECKPOINT or NAME:option=value,option=value. `prototype` is
`../shared/prototypes/samedate/samedate.py`, loaded from there; `satcube` is the colour transfer of
the package of that name, which `pip install --no-deps satcube opencv-python-headless tqdm` brings.
"""

import ast
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import xarray as xr

import cubefill
from cubefill.cube import spectral
from cubefill.errors import CubefillError, MethodError
from cubefill.evaluate.errors import ENDS
from cubefill.methods import METHODS, resolve, traits

Fill = Callable[[xr.Dataset, bool], xr.Dataset]
"""A cube and whether to give errors to the filled cube."""
PEERS = ("linear", "whittaker", "whittaker:lam=1e4", "savgol", "climatology", "nearest")
SIMPLE = ("savgol", "climatology", "nearest", "whittaker:lam=1e4")
"""Peers whose intervals are not scored: they would take most of the time."""
OWN = ("blend", "samedate", "utilise", "auto")
"""Scored where this version has them."""
PROTOTYPE = Path(__file__).parents[2] / "shared" / "prototypes" / "samedate" / "samedate.py"
NOT_CUBEFILL = ("prototype", "satcube")


@dataclass(frozen=True)
class Peer:
    """One row of a table."""

    label: str
    fill: Fill
    own: bool
    """True for a method of cubefill: it has flags, and must keep clear observations."""
    std: bool = True
    """True where its interval is scored too."""


def peer(text: str) -> Peer | str:
    """The method that a text stands for, or why it cannot be scored.

    Raises
    ------
    MethodError
        The name or an option is unknown.
    """
    if text == "prototype":
        return _prototype()
    if text == "satcube":
        return _satcube()
    name, _, options = text.partition(":")
    name, _, checkpoint = name.partition("=")
    chosen = {k: _value(v) for k, _, v in (o.partition("=") for o in options.split(",") if o)}
    if checkpoint:
        chosen["checkpoint"] = checkpoint
    try:
        resolve(name, **chosen)
    except CubefillError as error:
        if isinstance(error, MethodError):
            raise
        return f"{text}: {error}"
    return Peer(text, partial(_by_cubefill, name, chosen), True, text not in SIMPLE)


def default_texts() -> list[str]:
    """Peers, what this version has of its own, and what is not part of it."""
    return [*PEERS, *(n for n in OWN if n in METHODS or n == "auto"), *NOT_CUBEFILL]


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _by_cubefill(name: str, options: dict[str, object], cube: xr.Dataset, std: bool) -> xr.Dataset:
    method = resolve(name, **options)
    what = traits(method, spectral(cube))
    ends = ENDS if std and what.gives_quantiles else ()
    return cubefill.gapfill(cube, method, std=std and what.gives_std, quantiles=ends).compute()


# ------------------------------------------------------------------ the prototype


def _prototype() -> Peer | str:
    if not PROTOTYPE.is_file():
        return f"prototype: no {PROTOTYPE}"
    spec = importlib.util.spec_from_file_location("samedate_prototype", PROTOTYPE)
    if spec is None or spec.loader is None:
        return f"prototype: {PROTOTYPE} is no module"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Peer("prototype", partial(_by_prototype, module.fill), False)


def _by_prototype(
    fill: Callable[[xr.Dataset], xr.Dataset], cube: xr.Dataset, std: bool
) -> xr.Dataset:
    """It takes variables whose names begin with B."""
    names = {n: n if n.startswith("B") else f"B_{n}" for n in spectral(cube)}
    back = {v: k for k, v in names.items() if v != k}
    return fill(cube.rename({k: v for k, v in names.items() if v != k})).rename(back)


# ------------------------------------------------------------------ satcube


def _satcube() -> Peer | str:
    """The package asks for Earth Engine when it is imported; this module of it does not."""
    found = importlib.util.find_spec("satcube")
    if found is None or not found.submodule_search_locations:
        return (
            "satcube: not installed, left out "
            "(pip install --no-deps satcube opencv-python-headless tqdm)"
        )
    if "satcube" not in sys.modules:
        package = ModuleType("satcube")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["satcube"] = package
    try:
        transfer = importlib.import_module("satcube.gapfill").gapfill_fn
    except ImportError as error:
        return f"satcube: cannot be imported ({error})"
    return Peer("satcube", partial(_by_satcube, transfer), False)


def _by_satcube(transfer: Callable[..., object], cube: xr.Dataset, std: bool) -> xr.Dataset:
    """Linear colour transfer between GeoTIFFs of counts, gaps 0; what it leaves empty is NaN."""
    import rasterio

    names = spectral(cube)
    if any(float(cube[n].min()) < 0 for n in names):
        raise CubefillError("satcube takes reflectance of 0 to 1 alone.")
    clear = cube["valid"].values
    counts = np.stack([np.where(clear, cube[n].values, 0) for n in names], axis=1) * 1e4
    counts = np.clip(np.nan_to_num(counts).round(), 0, 10_000).astype(np.uint16)
    ids = [f"{i:04d}" for i in range(len(counts))]
    profile = {"driver": "GTiff", "count": len(names), "dtype": "uint16",
               "height": clear.shape[1], "width": clear.shape[2]}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        given, done = Path(folder) / "given", Path(folder) / "filled"
        given.mkdir()
        for name, image in zip(ids, counts, strict=True):
            with rasterio.open(given / f"{name}.tif", "w", **profile) as file:
                file.write(image)
        table = pd.DataFrame({"id": ids, "date": cube["time"].values})
        transfer(table, given, done, method="linear", num_workers=1, quiet=True)
        filled = np.stack([rasterio.open(done / f"{n}.tif").read() for n in ids])
    values = np.where(filled > 0, filled * np.float32(1e-4), np.nan)
    out = {n: (("time", "y", "x"), np.where(clear, cube[n].values, values[:, i]))
           for i, n in enumerate(names)}  # fmt: skip
    return cube.assign(out)


def peers(texts: Iterable[str]) -> tuple[list[Peer], list[str]]:
    """The methods that can be scored, and why the others cannot; linear comes first."""
    found = [peer(t) for t in dict.fromkeys(["linear", *texts])]
    return [p for p in found if isinstance(p, Peer)], [p for p in found if isinstance(p, str)]
