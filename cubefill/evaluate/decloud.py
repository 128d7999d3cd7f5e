"""The three test sets of Cresson et al. (2022) from any cubes, and their three tables.

SSOP: one cloudy date and its SAR image. MSOP: with the dates before and after, clouds as they come.
MSOP_cld: the date wholly cloudy, its neighbours clear. The target of each is a clear image near the
date. Formulas are those of `convention="decloud"`; a net's output is scored as it is, clear pixels
of the date included.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubefill import samples
from cubefill.errors import CubeError, MethodError
from cubefill.evaluate.bootstrap import facts_of
from cubefill.evaluate.cases import MethodLike, methods_of
from cubefill.evaluate.tables import markdown as markdown
from cubefill.evaluate.tables import write as write
from cubefill.methods.contract import Block, Filled, Method
from cubefill.methods.registry import name_of
from cubefill.metrics import Terms, add
from cubefill.metrics import resolve as metric
from cubefill.samples.stored import StoredSamples

SETS = ("ssop", "msop", "msop_cld")
"""Names of the layouts, in the order of the paper's tables 7 to 9."""
METRICS = {"MSE": 0, "SSIM": 4, "PSNR": 3, "SAM": 4}
"""Metrics in the paper's order, with their digits."""
BANDS = ("B02", "B03", "B04", "B08")


def compare_decloud(
    methods: MethodLike | Sequence[MethodLike] | Mapping[str, MethodLike],
    cubes: Sequence[Any],
    *,
    sets: Sequence[str] = SETS,
    patch: int = 256,
    sar: bool = True,
    dem: bool = False,
    most: int = 50,
    seed: int = 0,
    folder: str | Path = "",
) -> xr.Dataset:
    """MSE, SSIM, PSNR and SAM on `(test_set, method_name)`, with the samples and values of each.

    `<metric>_n` is the number of values that a metric was computed from, `values` that of MSE.

    Parameters
    ----------
    methods
        Methods with checkpoints, one alone too, or a mapping from the name in the table. Without
        names a row says what its net is given, in this order within a method: "ssop_unet (without
        SAR)", "ssop_unet (SAR)", "ssop_unet (SAR + DEM)"; where two rows would read alike, their
        checkpoints too: "ssop_unet=FOLDER (SAR)". "linear2" joins MSOP_cld.
    cubes
        Cubes, stores of cubes, catalogues, or items, as `samples.make` takes them.
    sets
        Names or files of layouts.
    patch
        Edge of a sample in pixels.
    sar, dem
        What the samples hold; nets that need what is not there have no row.
    most
        Most samples of one place.
    seed
        Of the draws of dates.
    folder
        Where the samples are kept; by default they are thrown away.

    Raises
    ------
    CubeError
        No set can be made of these cubes; the message says for each which condition removed how
        many dates.
    MethodError
        A method is unknown.
    """
    chosen = _rows(methods)
    rows = list(chosen)
    values = {m: np.full((len(sets), len(rows)), np.nan) for m in METRICS}
    named = ("samples", "values", *(f"{m.lower()}_n" for m in METRICS))
    counts = {n: np.zeros((len(sets), len(rows)), np.int64) for n in named}
    reasons = [""] * len(sets)
    with tempfile.TemporaryDirectory(prefix="cubefill-decloud-") as scratch:
        for i, name in enumerate(sets):
            target = Path(folder or scratch) / f"{Path(name).stem}.zarr"
            try:
                stored = _stored(cubes, name, target, patch, sar, dem, most, seed)
            except CubeError as error:
                reasons[i] = str(error)
                continue
            for j, method in enumerate(chosen.values()):
                if not _fits(method, stored, name):
                    continue
                sums = _sums(stored, method)
                for m in METRICS:
                    values[m][i, j] = metric(m, "decloud").value(sums[m])
                    counts[f"{m.lower()}_n"][i, j] = int(sums[m]["n"].sum())
                counts["samples"][i, j] = len(stored)
                counts["values"][i, j] = counts["mse_n"][i, j]
    if all(reasons):
        alike: dict[str, list[str]] = {}
        for name, reason in zip(sets, reasons, strict=True):
            alike.setdefault(reason, []).append(Path(name).stem)
        why = " ".join(f"{', '.join(names)}: {reason}" for reason, names in alike.items())
        raise CubeError(f"No test set can be made of these cubes. {why}")
    return _dataset(rows, list(sets), values, counts, reasons)


def _rows(methods: Any) -> dict[str, Method]:
    found = methods_of(methods, _labelled)
    if not found:
        raise MethodError("compare_decloud: expected methods, got none. Use ['linear2'].")
    return found


def _labelled(methods: list[Method]) -> dict[str, Method]:
    """Rows of the paper: variants of a method together, that without SAR first."""
    names = [name_of(m) for m in methods]
    plain = [name + _variant(m) for name, m in zip(names, methods, strict=True)]
    order = sorted(range(len(methods)), key=lambda i: (names.index(names[i]), _layers(methods[i])))
    found: dict[str, Method] = {}
    counts: Counter[str] = Counter()
    for i in order:
        label = plain[i]
        if plain.count(label) > 1 and (folder := getattr(methods[i], "checkpoint", "")):
            label = f"{names[i]}={folder}{_variant(methods[i])}"
        counts[label] += 1
        found[f"{label} ({counts[label]})" if counts[label] > 1 else label] = methods[i]
    return found


def _layers(method: Any) -> tuple[bool, bool]:
    """Whether a net is given SAR and elevation."""
    config = getattr(method, "config", None)
    return bool(getattr(config, "sar", False)), bool(getattr(config, "dem", False))


def _variant(method: Any) -> str:
    """What a net is given besides optical images, as the paper says it."""
    if not hasattr(getattr(method, "config", None), "sar"):
        return ""
    sar, dem = _layers(method)
    if sar:
        return " (SAR + DEM)" if dem else " (SAR)"
    return " (DEM, without SAR)" if dem else " (without SAR)"


def _stored(
    cubes: Sequence[Any],
    name: str,
    target: Path,
    patch: int,
    sar: bool,
    dem: bool,
    most: int,
    seed: int,
) -> StoredSamples:
    return samples.make(
        cubes, name, None, target, bands=BANDS, sar=sar, dem=dem, patch=patch, splits=(0, 0, 1),
        max_per_place=most, seed=seed, overwrite=True, progress=False,
    )  # fmt: skip


def _fits(method: Method, stored: StoredSamples, name: str) -> bool:
    """True where a method belongs in the table of a set and the samples hold what it needs.

    Methods without a layout fill from the neighbours: they are rows of MSOP_cld alone.
    """
    needs, form = method.needs, stored.form
    if (needs.sar and not any(form.sar)) or (needs.dem and not form.dem):
        return False
    if not set(needs.bands) <= set(form.bands):
        return False
    plan: Any = getattr(method, "layout", None)
    if plan is None:
        return len(form.dates) > 2 and Path(name).stem == "msop_cld"
    return len(plan.inputs) <= sum(d != "target" for d in form.dates)


def _sums(stored: StoredSamples, method: Method) -> dict[str, Terms]:
    """Sums over all samples, each a test image."""
    sums: dict[str, Terms] = {}
    truths: list[Block] = []

    def shown() -> Iterator[Block]:
        for i in range(len(stored)):
            truth, gapped = stored.blocks(i)
            truths.append(truth)
            yield gapped.of(method.needs)

    for filled in method.fill(shown()):
        _add(sums, filled, truths.pop(0))
    return sums


def _add(sums: dict[str, Terms], filled: Filled, truth: Block) -> None:
    where = truth.valid & np.all([np.isfinite(truth.bands[b]) for b in BANDS], axis=0)
    where &= np.all([np.isfinite(filled.bands[b]) for b in BANDS], axis=0)
    fill, true = ({b: side.bands[b] for b in BANDS} for side in (filled, truth))
    for name in METRICS:
        terms = metric(name, "decloud").terms(fill, true, where)
        sums[name] = add(sums[name], terms) if name in sums else terms


def _dataset(
    rows: list[str], sets: list[str], values: Any, counts: Any, reasons: list[str]
) -> xr.Dataset:
    dims = ("test_set", "method_name")
    out: dict[str, Any] = {
        n.lower(): (dims, a, facts_of(metric(n, "decloud")) | {"digits": METRICS[n]})
        for n, a in values.items()
    }
    out |= {name: (dims, array) for name, array in counts.items()}
    return xr.Dataset(
        out,
        {"test_set": sets, "method_name": rows, "reason": ("test_set", reasons)},
        {
            "bands": " ".join(BANDS),
            "pixel_set": "clear pixels of the target image",
            "convention": "decloud",
        },
    )
