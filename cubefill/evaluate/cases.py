"""One cube under one seed, filled by every method: a window in memory, hidden pixels, fills."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill import gaps as artificial
from cubefill.cube import accept, spectral
from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.cube.indices import ndvi
from cubefill.cube.valid import apply
from cubefill.engine import gapfill, plan
from cubefill.errors import CubeError, CubefillError
from cubefill.gaps import Blobs, Gaps, HiddenAs, Transplant
from cubefill.methods import Flag, Method, list_methods, name_of, resolve, traits
from cubefill.metrics import NDVIMAE, ndvi_mae

Bool = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]
MethodLike = str | Method | type[Method]
Screen = Callable[[xr.Dataset], xr.DataArray]

log = logging.getLogger("cubefill")

_TRIES = 12
_SEED = 20_170


@dataclass(frozen=True)
class Case:
    """One cube under one seed, filled by every method."""

    cube: str
    seed: int
    part: xr.Dataset
    truth: Arrays
    """Band to `(time, y, x)`, NaN where there is no truth."""
    seen: Bool
    hidden: Bool
    """Where there is a truth that the methods did not see."""
    known: Bool
    """Where truth and every fill are known."""
    fills: list[Arrays]
    bands: tuple[str, ...]
    filled: list[float]
    """Share of the occluded pixels that each method filled."""
    screened: Bool | None = None
    cache: dict[tuple[int, str], Arrays] = field(default_factory=dict)
    """Maps of metrics with a local value, by method and metric."""


@dataclass(frozen=True)
class Trial:
    """What every case has in common."""

    methods: dict[str, Method]
    gaps: Gaps | None
    max_px: int
    hidden_as: HiddenAs = "clouds"
    screen: Screen | None = None
    std: bool = False
    """True asks methods for the error of their fill, where they know it."""
    progress: Callable[[str], None] | None = None

    def case(self, name: str, seed: int, ds: xr.Dataset, truth: xr.Dataset | None = None) -> Case:
        """One cube under one seed, filled by every method.

        Raises
        ------
        CubeError
            Nothing can be hidden, or the methods give no band in common.
        """
        part, _ = window(ds, self.max_px, seed)
        test = part
        if self.gaps is not None:
            hidden = observed(part, self.gaps, seed)
            test = artificial.apply(part, hidden, hidden_as=self.hidden_as, seed=seed)
        fills = []
        for label, method in self.methods.items():
            if self.progress is not None:
                self.progress(f"{name}, seed {seed}: {label}")
            fills.append(fill(test, method, std=self.std))
        bands = _shared(part, fills)
        true = _truth(part, truth, bands)
        seen = np.asarray(test["valid"].values)
        has = np.all([np.isfinite(a) for a in true.values()], axis=0)
        arrays = [_arrays(f, bands) for f in fills]
        done = [np.all([np.isfinite(a[b]) for b in bands], axis=0) for a in arrays]
        hidden = has & ~seen
        if not hidden.any():
            raise CubeError(
                f"{name}: expected pixels with a truth that the methods do not see, got none. "
                "Pass gaps=Transplant()."
            )
        screened = None
        if self.screen is not None:
            screened = np.asarray(self.screen(part).transpose("time", "y", "x"))
        return Case(
            name, seed, part, true, seen, hidden, has & np.all(done, axis=0), arrays, bands,
            [float(d[hidden].mean()) for d in done], screened,
        )  # fmt: skip


def window(ds: xr.Dataset, side: int, seed: int = 0) -> tuple[xr.Dataset, str]:
    """A part of the cube in memory, at most `side` pixels wide and high, and where it lies.

    Several places are drawn, at even rows and columns, so that the pixels of a 20 m grid stay
    together; the first that is seen clear as often as the median one is taken.
    """
    ds = accept(ds)
    ds = ds.assign(valid=apply(ds))
    names = [*spectral(ds), *(n for n in _EXTRA if n in ds)]
    ds = ds[names].sortby("time").transpose("time", "y", "x", ...)
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    if max(ny, nx) <= side:
        return ds.compute(), "the whole cube"
    rng = np.random.default_rng([_SEED, seed])
    tops = [
        tuple(int(rng.integers(max(1, n - side + 1))) // 2 * 2 for n in (ny, nx))
        for _ in range(_TRIES)
    ]
    step = max(1, side // 16)
    parts = {
        str(i): ds["valid"].isel(y=slice(y, y + side, step), x=slice(x, x + side, step)).mean()
        for i, (y, x) in enumerate(tops)
    }
    clear = [float(share) for share in xr.Dataset(parts).compute().values()]
    y, x = tops[next(i for i, c in enumerate(clear) if c >= np.median(clear))]
    part = ds.isel(y=slice(y, y + side), x=slice(x, x + side)).compute()
    return part, f"rows {y} to {y + part.sizes['y']}, columns {x} to {x + part.sizes['x']}"


_EXTRA = ("valid", "DEM", *SAR_BANDS, *COHERENCE, "sar_valid", "source_missing", "land_cover")


def observed(part: xr.Dataset, gaps: Gaps, seed: int) -> NDArray[np.bool_]:
    """Hidden pixels whose bands are all known, so that there is a truth."""
    hidden = artificial.hide(part, gaps, seed).values
    known = np.all([np.isfinite(part[b].values) for b in spectral(part)], axis=0)
    both: NDArray[np.bool_] = hidden & known
    return both


def fill(
    test: xr.Dataset, method: Method, *, std: bool = True, quantiles: Iterable[float] = ()
) -> xr.Dataset:
    """The filled window, NaN where the method gave up; errors where it knows them."""
    what = traits(method, spectral(test))
    wanted = quantiles if what.gives_quantiles else ()
    out = gapfill(test, method, std=std and what.gives_std, quantiles=wanted).compute()
    if "fill_flag" not in out:
        return out
    left = out["fill_flag"].isin([int(Flag.SOURCE_MISSING), int(Flag.UNFILLABLE)])
    return out.where(~left) if bool(left.any()) else out


def borrowed(part: xr.Dataset, seed: int) -> Gaps:
    """Real cloud shapes, and blobs where no cloud can be borrowed."""
    try:
        artificial.hide(part, Transplant(), seed)
    except CubeError:
        return Blobs()
    return Transplant()


def able(cubes: Mapping[str, xr.Dataset]) -> dict[str, Method]:
    """Every method that fills all gaps of some cubes as it ships; the log says which do not."""
    found, partly = {}, []
    for name, facts in list_methods().items():
        if facts["checkpoint"]:
            continue
        method = resolve(name)
        if not traits(method, ()).complete:
            partly.append(name)
            continue
        try:
            for ds in cubes.values():
                plan(ds, method)
        except CubefillError as error:
            log.info("left out: %s (%s)", name, error)
            continue
        found[name] = method
    if partly:
        log.info("left out: %s, which fill a part of the gaps alone", ", ".join(partly))
    return found


def methods_of(
    methods: Any, labelled: Callable[[list[Method]], dict[str, Method]]
) -> dict[str, Method]:
    """Methods by the names of a mapping, else as `labelled` names those of a list, or the one."""
    if isinstance(methods, Mapping):
        return {str(n): resolve(m) for n, m in methods.items()}
    alone = isinstance(methods, str | type | Method)
    return labelled([resolve(m) for m in ([methods] if alone else methods)])


def numbered(chosen: list[Method]) -> dict[str, Method]:
    """Methods by their registered names; equal ones are numbered."""
    found: dict[str, Method] = {}
    for method in chosen:
        name = name_of(method)
        count = sum(n.split(" ")[0] == name for n in found)
        found[f"{name} ({count + 1})" if count else name] = method
    return found


def _shared(part: xr.Dataset, fills: list[xr.Dataset]) -> tuple[str, ...]:
    """Bands that all methods give; NDVI alone where some give nothing else."""
    bands = tuple(b for b in spectral(part) if all(b in f for f in fills))
    if bands:
        return bands
    if all("NDVI" in f or ndvi_mae(map(str, f.data_vars)) for f in fills):
        return ("NDVI",)
    raise CubeError(
        f"compare: the methods give no band in common with {', '.join(spectral(part))}: expected "
        "filled bands, not a smoothed product. Pass smooth=False."
    )


def _truth(part: xr.Dataset, truth: xr.Dataset | None, bands: tuple[str, ...]) -> Arrays:
    """Clear observations, or the given truth at the same places."""
    if truth is None:
        return {b: a.where(part["valid"]).values for b, a in _bands(part, bands).items()}
    same = truth.reindex(time=part["time"], y=part["y"], x=part["x"])
    return {b: a.compute().values for b, a in _bands(same, bands).items()}


def _bands(ds: xr.Dataset, bands: tuple[str, ...]) -> dict[str, xr.DataArray]:
    if bands == ("NDVI",) and "NDVI" not in ds:
        found = ndvi_mae(map(str, ds.data_vars)) or NDVIMAE()
        return {"NDVI": ndvi(ds, nir=found.nir, red=found.red).transpose("time", "y", "x")}
    return {b: ds[b].transpose("time", "y", "x") for b in bands}


def _arrays(fill: xr.Dataset, bands: tuple[str, ...]) -> Arrays:
    found = {b: a.values for b, a in _bands(fill, bands).items()}
    return found | {f"{b}_std": fill[f"{b}_std"].values for b in bands if f"{b}_std" in fill}
