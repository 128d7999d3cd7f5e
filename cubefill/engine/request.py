"""A request: a cube checked against what a method needs, as both executors take it."""

import logging
import warnings
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from cubefill import cube as cubes
from cubefill.cube import valid as validity
from cubefill.cube.axes import time_axes
from cubefill.cube.bands import BANDS, COHERENCE, SAR_BANDS, canonical
from cubefill.cube.conforming import foreign_names, in_own_names, mask_in_own_names
from cubefill.engine.kernel import sample
from cubefill.engine.work import Work
from cubefill.errors import CubefillError, CubefillWarning, DeviceError, MethodError
from cubefill.imports import import_module
from cubefill.methods import (
    AUTO,
    Method,
    Needs,
    Traits,
    name_of,
    options_of,
    resolve,
    table,
    traits,
)
from cubefill.methods.windows import Span
from cubefill.store import source

log = logging.getLogger("cubefill")


@dataclass(frozen=True)
class Request:
    """A checked request: the kernel's work, and the cube's variables in kernel order."""

    work: Work
    ds: xr.Dataset
    """The caller's dataset, in cubefill's names and settled in its place."""
    variables: Mapping[str, xr.Variable]
    """What the method needs, transposed to `(time, y, x)`."""
    name: str
    carried: Mapping[Hashable, xr.Variable] = field(default_factory=dict)
    """What comes back untouched beside the result: with `bands`, all that is not filled."""


def request(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    quantiles: Iterable[float] = (),
    device: str = "auto",
    bands: Iterable[str] | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Request:
    """Checks a cube against what a method needs; reads no pixel of a lazy cube.

    Names of other libraries are taken in cubefill's, and that is said.

    Raises
    ------
    CubeError, MethodError, DeviceError
        What is missing or wrong, and what to type.
    """
    given, ds = ds, cubes.accept(ds, bands)
    valid = mask_in_own_names(valid, given, foreign_names(given))
    valid = cubes.follow(valid, in_own_names(given), ds)
    chosen = _on_device(resolve(method, **dict(options or {})), device)
    getattr(chosen, "ready", lambda: None)()
    needs = chosen.needs
    filled = bands_of(_without_masks(ds, valid), needs, name_of(chosen), bands)
    what = traits(chosen, filled)
    if std and not what.gives_std:
        raise MethodError(
            f"Method {name_of(chosen)!r} gives no standard deviation: expected std=False. "
            "Use ds.gapfill('linear', std=True) for a method that does."
        )
    levels = _levels(quantiles, what, name_of(chosen))
    axes = time_axes(ds["time"].values, times)
    _check_lengths(needs, len(axes.groups), name_of(chosen))
    variables = _variables(ds, needs, filled, valid)
    found = {n: source.find(v) for n, v in variables.items()}
    shape = (ds.sizes["y"], ds.sizes["x"])
    work = Work(chosen, what, filled, shape, axes, found, std, levels)
    carried = {} if bands is None else _carried(ds, work)
    return Request(work, ds, variables, name_of(chosen), carried)


def announce(method: Any, asked: Request) -> None:
    """Says once in the log which method "auto" stands for, and which bands become float32."""
    if method == "auto":
        log.info("method 'auto' is %r", AUTO)
    types = {b: asked.variables[b].dtype.newbyteorder("=") for b in asked.work.bands}
    other = [f"{b} ({d})" for b, d in types.items() if d != np.float32]
    if other:
        log.info("%s: read as float32, and so is the result", ", ".join(other))


def prepared(asked: Request) -> Work:
    """The work with what its method learned from the subsample, if it learns."""
    work = asked.work
    prepare = getattr(work.method, "prepare", None)
    if prepare is None:
        return work
    if work.std or work.quantiles or getattr(work.method, "wants_sample", True):
        data = asked.variables
        method = prepare(sample(work, lambda n, t: np.asarray(data[n][..., t.y, t.x].values)))
        return replace(work, method=method, traits=traits(method, work.bands))
    return work


def _levels(quantiles: Any, what: Traits, name: str) -> tuple[float, ...]:
    """The quantiles asked for, increasing, each once."""
    try:
        given = [quantiles] if isinstance(quantiles, str) else list(quantiles)
        levels = tuple(sorted({round(float(q), 6) for q in given}))
        if not all(0 < q < 1 and round(q, 3) == q for q in levels):
            raise ValueError("a level lies outside, or has more digits")
    except (TypeError, ValueError) as error:
        raise MethodError(
            f"quantiles={quantiles!r}: expected levels between 0 and 1 with at most three digits "
            f"({error}). Pass quantiles=(0.05, 0.95) for an interval of 90 %."
        ) from None
    if levels and not what.gives_quantiles:
        raise MethodError(
            f"Method {name!r} gives no quantiles of its error: expected quantiles=(). "
            "Use ds.gapfill('linear', quantiles=(0.05, 0.95)) for a method that does."
        )
    return levels


def _carried(ds: xr.Dataset, work: Work) -> dict[Hashable, xr.Variable]:
    """What is filled by nothing and replaced by nothing; on other dates it has no place."""
    rest = [n for n in ds.data_vars if n not in work.bands and n not in work.outputs]
    same = work.axes.out is work.axes.given
    lost = [n for n in rest if "time" in ds[n].dims and not same]
    if lost:
        warnings.warn(
            f"{', '.join(map(str, lost))} left out of the result: expected the dates of the cube, "
            "and times= gives others. Use ds.interp or ds.sel to bring them there.",
            CubefillWarning,
            stacklevel=4,
        )
    return {n: ds[n].variable for n in rest if n not in lost}


def _without_masks(ds: xr.Dataset, valid: Any) -> xr.Dataset:
    """The cube without the variables that `valid` names as masks or classes: they are no bands."""
    named = list(valid) if isinstance(valid, Mapping) else [valid] if isinstance(valid, str) else []
    return ds.drop_vars([n for n in named if n in ds.data_vars and canonical(str(n)) not in BANDS])


def bands_of(
    ds: xr.Dataset, needs: Needs, name: str, bands: Iterable[str] | str | None = None
) -> tuple[str, ...]:
    """Bands of a cube that a method is given: its own, else `bands`, else those of the cube.

    Raises
    ------
    CubeError
        Without `bands`, a variable may be a band or not.
    MethodError
        A band, Sentinel-1 or elevation is missing; the message says what would do without.
    """
    own = needs.bands and bands is None
    found = cubes.spectral(ds) if own else cubes.chosen_bands(ds, bands)
    beyond = [b for b in found if needs.bands and bands is not None and b not in needs.bands]
    if beyond:
        raise MethodError(
            f"Method {name!r} fills {', '.join(needs.bands)}, and not {', '.join(beyond)}. "
            f"Pass bands={list(needs.bands)!r}, or choose a method that fills any band: 'linear'."
        )
    missing = [b for b in needs.bands if b not in found]
    if missing:
        raise MethodError(
            f"Method {name!r} needs band {', '.join(missing)}; the cube has {', '.join(found)}. "
            f"{_band_advice(found, missing)}"
        )
    if needs.sar:
        _check_sar(ds, name)
    if needs.coherence and not set(COHERENCE) <= set(ds.data_vars):
        raise MethodError(
            f"Method {name!r} needs coherence of Sentinel-1: the cube lacks "
            f"{', '.join(n for n in COHERENCE if n not in ds.data_vars)} (0 to 1, on time, y and "
            "x). Pass assumed_coherence=0.3 to take that value everywhere, or train a net without "
            "it ([config] coherence = false)."
        )
    if needs.dem and ("DEM" not in ds or set(ds["DEM"].dims) != {"y", "x"}):
        came = f"has it on {', '.join(map(str, ds['DEM'].dims))}" if "DEM" in ds else "has none"
        raise MethodError(
            f"Method {name!r} needs DEM on y and x: the cube {came}. Load it with dem=True."
        )
    return needs.bands or found


def _band_advice(found: tuple[str, ...], missing: list[str]) -> str:
    """What to type to get bands that a cube lacks."""
    foreign = [n for n in found if canonical(n) in missing]
    if len(foreign) == len(missing):
        return f"Use cubefill.cube.conform(ds) to rename {', '.join(foreign)}."
    if "NDVI" in missing:
        return "Fill the cube, then use cubefill.cube.indices.with_ndvi(filled)."
    return f"Load it with bands={(*found, *missing)!r}."


def _check_sar(ds: xr.Dataset, name: str) -> None:
    """Refuses a cube without Sentinel-1 on its own dates; says which methods do without."""
    wanted = (*SAR_BANDS, "sar_valid")
    lacking = [n for n in wanted if n not in ds.data_vars]
    apart = [n for n in wanted if n not in lacking and set(ds[n].dims) != {"time", "y", "x"}]
    if not lacking and not apart:
        return
    came = f"lacks {', '.join(lacking)}"
    if len(lacking) == len(wanted):
        came = "has no Sentinel-1"
    elif apart:
        came = f"has {apart[0]} on {', '.join(map(str, ds[apart[0]].dims))}"
    takes = _has_sar_config(name)
    family = f", or train {name!r} without it ([config] sar = false)" if takes else ""
    raise MethodError(
        f"Method {name!r} needs VV, VH and sar_valid on time: the cube {came}. Load it with "
        f"sar=True{family}, or choose a method that needs none: {', '.join(_without_sar())}."
    )


def _has_sar_config(name: str) -> bool:
    """True where the net of a method can be built without SAR."""
    if name not in table():
        return False
    config = getattr(type(resolve(name)), "Config", None)
    return is_dataclass(config) and "sar" in [f.name for f in fields(config)]


def _without_sar() -> list[str]:
    """Names of the methods that fill without SAR; those that need options are left out."""
    names = []
    for name in table():
        try:
            needed = resolve(name).needs
        except (CubefillError, TypeError):
            continue
        if not needed.sar:
            names.append(name)
    return names


def _check_lengths(needs: Needs, dates: int, name: str) -> None:
    least = needs.time.size if isinstance(needs.time, Span) else 1
    least = max(least, needs.min_dates)
    if dates < least:
        raise MethodError(
            f"Method {name!r} needs {least} distinct dates; the cube has {dates}. "
            "Load a longer period, or choose another method (cubefill.list_methods())."
        )


def _variables(
    ds: xr.Dataset, needs: Needs, bands: tuple[str, ...], valid: Any
) -> dict[str, xr.Variable]:
    order = ("time", "y", "x")
    chosen = {b: ds[b] for b in bands}
    chosen["valid"] = validity.apply(ds, valid, bands)
    if needs.sar:
        chosen |= {n: ds[n] for n in (*SAR_BANDS, *COHERENCE) if n in ds}
    if "source_missing" in ds:
        chosen["source_missing"] = ds["source_missing"]
    variables = {n: v.variable.transpose(*order) for n, v in chosen.items()}
    if needs.dem:
        variables["DEM"] = ds["DEM"].variable.transpose("y", "x")
    return variables


def _on_device(method: Any, device: str) -> Method:
    if device not in ("auto", "cpu"):
        torch = import_module("torch")
        kind = device.split(":")[0]
        mps = torch.backends.mps
        present: dict[str, Any] = {"cuda": torch.cuda.is_available, "mps": mps.is_available}
        if kind not in present:
            raise DeviceError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'mps'.")
        if not present[kind]():
            raise DeviceError(
                f"device={device!r}: this machine has no such accelerator for torch. "
                "Pass device='auto' to use what is there."
            )
    takes = is_dataclass(method) and "device" in options_of(type(method))
    chosen: Method = replace(method, device=device) if takes and device != "auto" else method
    return chosen
