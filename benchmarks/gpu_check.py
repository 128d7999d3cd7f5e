"""What a GPU gives: the same answers, how fast, how busy, and what happens when its memory ends.

    python -m benchmarks.gpu_check --write docs/gpu.md      on a GPU, at most 8 minutes
    python -m benchmarks.gpu_check --toy                    on a CPU, in half a minute

Without a GPU it says so in one line and ends with 3; with a check that fails it ends with 1.

    parity      every net, with random weights, fills a simulated cube on the CPU and on the device
    rate        published widths: values filled a second, share of the peak of a matrix product of
                the same type, share of the time that the device computes, bfloat16 beside float32
    memory      a batch that does not fit is halved, and the answers stay
    job         Zarr, fill, Zarr
    training    updates and samples a second of `utilise`, and whether its loss falls

Where an accelerator is absent every method runs on the CPU. Methods without a net, the default
among them, run on the CPU in any case; their rate stands beside the others.
"""

import argparse
import csv
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import torch
import xarray as xr
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import cubefill
from benchmarks.context import context
from benchmarks.precision import gpu_name, precisions
from benchmarks.score_nets import NETS
from cubefill import simulate, train
from cubefill.cube import spectral
from cubefill.gaps import Blobs
from cubefill.methods import AUTO, METHODS, resolve
from cubefill.methods.learned import TorchMethod
from cubefill.methods.learned.method import card_of
from cubefill.methods.learned.passes import _FITS, Pass, device_of
from cubefill.nn import checkpoint
from cubefill.samples.patches import CubeSamples
from cubefill.train.recipe import Recipe
from cubefill.train.state import LOG

NO_GPU = 3
"""How the command ends where there is no GPU."""
ALIKE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of reflectance between CPU and device, by type."""
TOY = {
    "ganfilling": {"width": 1}, "seq2seq": {"width": 1}, "stpconv": {"size": 32},
    "utilise": {"widths": (4, 4, 4, 8), "patch": 32, "pad": 4},
    "ssop_mer": {"width": 8, "patch": 32, "pad": 4},
    "ssop_unet": {"widths": (4, 4, 4), "patch": 32, "pad": 4},
    "msop_unet": {"widths": (4, 4, 4), "patch": 32, "pad": 4},
    "msop_david": {"patch": 32, "pad": 4},
}  # fmt: skip
"""Changes to the configurations of `score_nets` that make a check of seconds on a CPU."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    parity: int = 192
    rate: int = 512
    dates: int = 20
    product: int = 8192
    rounds: int = 3
    seconds: float = 60.0
    """Of training."""
    toy: bool = False
    nets: tuple[str, ...] = tuple(NETS)
    """Whose parity is checked."""


FULL = Size()
SMALL = Size(32, 32, 4, 256, 1, 0.5, True)


@dataclass
class Report:
    """Lines of the table, and those that failed."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def say(self, part: str, what: str, found: str, good: bool | None = None) -> None:
        verdict = "" if good is None else (" ok" if good else " **failed**")
        self.lines.append((part, what, found + verdict))
        print(f"{part:9} {what}: {found}{verdict}", file=sys.stderr, flush=True)
        if good is False:
            self.failed.append(f"{part}, {what}")

    def markdown(self, title: str, facts: Mapping[str, Any]) -> str:
        rows = "\n".join(f"| {a} | {b} | {c} |" for a, b, c in self.lines)
        told = f"{len(self.failed)} checks failed" + (f": {'; '.join(self.failed)}." if self.failed
                                                      else ".")  # fmt: skip
        table = f"| part | what | found |\n|---|---|---|\n{rows}"
        record = f"```json\n{json.dumps(facts, indent=1)}\n```"
        return "\n\n".join([f"# {title}", (__doc__ or "").strip(), told, table, record]) + "\n"


# ------------------------------------------------------------------ what is filled


def cube_of(size: int, dates: int) -> xr.Dataset:
    """Simulated farmland with Sentinel-1 and elevation, in memory."""
    return simulate.scene(size=size, dates=dates, days=12 * dates, seed=7, cloud=0.4).cube


def nets(size: Size) -> dict[str, dict[str, Any]]:
    """Name of every net to check to its configuration."""
    return {n: {**NETS[n].config, **NETS[n].sar, **(TOY.get(n, {}) if size.toy else {})}
            for n in size.nets}  # fmt: skip


def with_weights(name: str, config: Mapping[str, Any], folder: Path) -> TorchMethod:
    """A method with random weights in a checkpoint."""
    found = resolve(name)
    if not isinstance(found, TorchMethod):
        raise TypeError(f"{name} has no net.")
    method = found.configured(**config)
    torch.manual_seed(3)
    state = method.net(method.config).state_dict()
    where = checkpoint.save(folder / name, state, card_of(method), overwrite=True)
    return replace(method, checkpoint=str(where))


def filled(cube: xr.Dataset, method: Any) -> xr.Dataset:
    return cubefill.gapfill(cube, method).compute(scheduler="synchronous")


def apart(a: xr.Dataset, b: xr.Dataset) -> float:
    """Largest difference of two fills; infinite where one has a value and the other has none."""
    worst = 0.0
    for name in (str(n) for n in a.data_vars if a[n].dtype.kind == "f" and a[n].ndim == 3):
        one, other = a[name].values, b[name].values
        if not np.array_equal(np.isnan(one), np.isnan(other)):
            return float("inf")
        worst = max(worst, float(np.nanmax(np.abs(one - other), initial=0)))
    return worst


# ------------------------------------------------------------------ parts


def parity(say: Report, size: Size, device: str, folder: Path) -> None:
    """The same answer from CPU and device, for every net and every method that takes a device."""
    cube = cube_of(size.parity, size.dates)
    for name, config in nets(size).items():
        method = with_weights(name, config, folder)
        here = filled(cube, replace(method, device="cpu"))
        for kind in precisions(torch.device(device)) if name in ("utilise", "ganfilling") else ():
            if kind == "bfloat16":
                there = filled(cube, replace(method, device=device, precision=kind))
                gap = apart(here, there)
                say.say("parity", f"{name}, bfloat16", f"{gap:.1e}", gap <= ALIKE[kind])
        gap = apart(here, filled(cube, replace(method, device=device)))
        say.say("parity", f"{name}, float32", f"{gap:.1e}", gap <= ALIKE["float32"])
    for name in dict.fromkeys(n for n in ("samedate", AUTO) if n in METHODS):
        if not hasattr(resolve(name), "device"):
            say.say("parity", name, "has no form for a GPU")
            continue
        here, there = (filled(cube, resolve(name, device=d)) for d in ("cpu", device))
        say.say("parity", name, f"{apart(here, there):.1e}", apart(here, there) <= 1e-4)


@contextmanager
def _exact_or_tf32(precision: str) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def peak(side: int, device: str, precision: str) -> float:
    """GFLOP/s of a large matrix product of a type."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.rand(side, side, device=device, dtype=kind)
    with _exact_or_tf32(precision), torch.inference_mode():
        took = min(_seconds(lambda: a @ a, device) for _ in range(6))
    return 2 * side**3 / 1e9 / took


def _seconds(work: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def busy(work: Callable[[], Any], device: str) -> float:
    """Share of the time of some work that the device computes; on a CPU, of its cores for torch."""
    if device == "cpu":
        start, cpu = time.perf_counter(), time.process_time()
        work()
        return (time.process_time() - cpu) / (time.perf_counter() - start) / torch.get_num_threads()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        took = _seconds(work, device)
    spans = sorted(
        (e.time_range.start, e.time_range.end)
        for e in seen.events()
        if "memcpy" not in e.name.lower() and "memset" not in e.name.lower()
    )
    end, total = float("-inf"), 0.0
    for first, last in spans:
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total / 1e6 / took


def work_of(cube: xr.Dataset, method: TorchMethod) -> float:
    """GFLOP of the passes that fill a cube, counted on shapes alone."""
    shapes: Counter[tuple[tuple[str, tuple[int, ...]], ...]] = Counter()
    launched = Pass._try

    def seen(self: Pass, arrays: Mapping[str, Any]) -> Any:
        shapes[tuple((n, a.shape) for n, a in arrays.items())] += 1
        return launched(self, arrays)

    with mock.patch.object(Pass, "_try", seen):
        filled(cube, method)
    total = 0
    for given, times in shapes.items():
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            method.net(method.config)(**{n: torch.empty(s) for n, s in given})
        total += times * counter.get_total_flops()
    return total / 1e9


def rates(say: Report, size: Size, device: str, folder: Path) -> None:
    """How fast `ganfilling`, `utilise` and the default fill a cube in memory."""
    cube = cube_of(size.rate, size.dates)
    values = len(spectral(cube)[:4]) * cube["valid"].size
    cube = cube[["B02", "B03", "B04", "B08", "valid"]]
    tops = {p: peak(size.product, device, p) for p in precisions(torch.device(device))}
    for kind, top in tops.items():
        say.say("rate", f"matrix product, {kind}", f"{top:,.0f} GFLOP/s")
    for name in ("ganfilling", "utilise"):
        config = TOY[name] if size.toy else {}
        method = replace(with_weights(name, config, folder), device=device)
        gflop = work_of(cube, method)
        for kind in (k for k in ("float32", "bfloat16") if k in tops):
            one = replace(method, precision=kind)
            took = _best(lambda one=one: filled(cube, one), size.rounds, device)
            share = busy(lambda one=one: filled(cube, one), device)
            found = f"{values / took / 1e6:.2f} million values/s, {gflop / took:,.4g} GFLOP/s, "
            found += (
                f"{100 * gflop / took / tops[kind]:.2g} % of the product, busy {100 * share:.0f} %"
            )
            say.say("rate", f"{name}, {kind}", found)
    took = _best(lambda: filled(cube, "auto"), size.rounds, device)
    say.say("rate", f"the default ({AUTO})", f"{values / took / 1e6:.2f} million values/s")


def _best(work: Callable[[], Any], rounds: int, device: str) -> float:
    work()
    return min(_seconds(work, device) for _ in range(rounds))


class _Narrow(torch.nn.Module):
    """A net that has memory for a few samples only, where a device has no limit to set."""

    def __init__(self, net: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.net, self.most = net, most

    def forward(self, **given: torch.Tensor) -> torch.Tensor:
        if len(next(iter(given.values()))) > self.most:
            raise torch.OutOfMemoryError("out of memory: so many samples do not fit")
        return self.net(**given)


def memory(say: Report, size: Size, device: str) -> None:
    """A batch of 8 where only a part fits: smaller passes, the same answers."""
    method = resolve("utilise").configured(**(TOY["utilise"] if size.toy else {}))
    net = method.net(method.config).to(device).eval()
    bands, edge = len(method.config.bands), method.config.patch
    block = _block(bands, edge, method.config.dates)
    arrays = {n: np.repeat(a[None], 8, 0) for n, a in method.encode(block).items()}
    whole = Pass(net, torch.device(device), "float32", ("whole", device, 8))
    _FITS.pop(whole.key, None)
    expected = torch.cat([a.wait() for a in whole.launch(arrays, 1)])
    narrow = Pass(net, whole.device, "float32", ("narrow", device, 8))
    _FITS.pop(narrow.key, None)
    with _limited(narrow, arrays) as limited:
        found = torch.cat([a.wait() for a in limited.launch(arrays, 8)])
    gap, fits = float((found - expected).abs().max()), _FITS.get(narrow.key, 8)
    said = f"batch 8 became {fits}, answers differ by {gap:.1e}"
    say.say("memory", "utilise", said, fits < 8 and gap <= ALIKE["float32"])


@contextmanager
def _limited(run: Pass, arrays: Mapping[str, Any]) -> Iterator[Pass]:
    """Memory for about three samples of eight."""
    if run.device.type != "cuda":
        yield replace(run, net=_Narrow(run.net, 3))
        return
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(run.device)
    torch.cuda.reset_peak_memory_stats(run.device)
    run.launch({n: a[:3] for n, a in arrays.items()}, 3)[0].wait()
    most = torch.cuda.max_memory_reserved(run.device) - held
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(run.device).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 1.3 * most) / total, run.device)
    try:
        yield run
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, run.device)


def _block(bands: int, edge: int, dates: int) -> cubefill.Block:
    rng = np.random.default_rng(0)
    names = ("B02", "B03", "B04", "B08")[:bands]
    shape = (dates, edge, edge)
    day = np.datetime64("2023-05-01", "ns") + (5 * np.arange(dates)).astype("m8[D]")
    values = {b: rng.random(shape, np.float32) for b in names}
    return cubefill.Block(values, rng.random(shape) > 0.3, day, day)


def job(say: Report, size: Size, device: str, folder: Path) -> None:
    """A store is filled into a store by `utilise`, and equals the fill in memory."""
    cube = cube_of(size.rate, size.dates)[["B02", "B03", "B04", "B08", "valid"]]
    cubefill.write_cube(cube, folder / "cube.zarr", progress=False, overwrite=True)
    config = TOY["utilise"] if size.toy else {}
    method = replace(with_weights("utilise", config, folder), device=device)
    start = time.perf_counter()
    made = cubefill.run(
        folder / "cube.zarr", folder / "filled.zarr", method, progress=False, overwrite=True
    )
    took = time.perf_counter() - start
    opened = cubefill.open_cube(folder / "cube.zarr")
    gap = apart(made.compute(), filled(opened, method))
    rate = 4 * cube["valid"].size / took / 1e6
    said = f"{took:.1f} s, {rate:.2f} million values/s, from memory it differs by {gap:.1e}"
    say.say("job", "utilise, Zarr to Zarr", said, gap <= 1.1e-4)


def training(say: Report, size: Size, device: str, folder: Path) -> None:
    """`utilise` learns for a while; its loss must fall."""
    config = TOY["utilise"] if size.toy else {}
    method = resolve("utilise").configured(**config)
    cubes = [cube_of(96 if size.toy else 256, 24)[["B02", "B03", "B04", "B08", "valid"]]]
    data = CubeSamples(cubes, method, Blobs(), count=256, patch=1, dates=method.config.dates)
    recipe = Recipe(method="utilise", rate=1e-3, batch=4, clip=1.0, device=device, log_every=1)

    def fit(updates: int) -> tuple[float, list[float]]:
        where = folder / f"trained{updates}"
        epochs = -(-updates * recipe.batch // len(data))
        chosen = replace(recipe, updates=updates, epochs=epochs)
        took = _seconds(
            lambda: train.fit(method, data, chosen, where, progress=False, overwrite=True), device
        )
        with (where / "training" / LOG).open(newline="") as file:
            return took, [float(r["loss"]) for r in csv.DictReader(file) if r["kind"] == "update"]

    each = max(1e-3, (-fit(2)[0] + fit(12)[0]) / 10)
    updates = int(min(20_000, max(12, size.seconds / each)))
    took, losses = fit(updates)
    tenth = max(1, len(losses) // 10)
    first, last = np.mean(losses[:tenth]), np.mean(losses[-tenth:])
    said = f"{updates} updates in {took:.1f} s, {4 * updates / took:.1f} samples/s, "
    said += f"loss {first:.4f} to {last:.4f}"
    say.say("training", "utilise, batch 4, float32", said, bool(last < first))


# ------------------------------------------------------------------ command


def check(size: Size, device: str, minutes: float) -> Report:
    """Every part after the other; what would begin after `minutes` is left out."""
    say, start = Report(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        parts: dict[str, Callable[[], None]] = {
            "parity": lambda: parity(say, size, device, folder),
            "memory": lambda: memory(say, size, device),
            "rate": lambda: rates(say, size, device, folder),
            "job": lambda: job(say, size, device, folder),
            "training": lambda: training(say, size, device, folder),
        }
        for part, work in parts.items():
            if time.perf_counter() - start > 60 * minutes:
                say.say(part, "left out", f"{minutes:g} minutes are over")
                continue
            took = _seconds(work, device)
            say.say(part, "seconds", f"{took:.1f}")
    return say


def main(arguments: list[str] | None = None) -> int:
    """Checks, prints a table, and writes it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="small, on a CPU where there is no GPU")
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=tuple(NETS))
    parser.add_argument("--minutes", type=float, default=6, help="after which no part begins")
    parser.add_argument("--write", type=Path, help="file of Markdown")
    asked = parser.parse_args(arguments)
    device = str(device_of("auto"))
    if device == "cpu" and not asked.toy:
        print("No GPU: torch sees no CUDA device here, nothing was checked. Pass --toy for a CPU.")
        return NO_GPU
    logging.getLogger("cubefill").setLevel(logging.WARNING)
    start = time.perf_counter()
    with dask.config.set(scheduler="synchronous"):
        size = replace(SMALL if asked.toy else FULL, nets=tuple(asked.nets))
        say = check(size, device, asked.minutes)
    card = gpu_name(torch.device(device)) or f"no GPU, {context()['cpu']}"
    facts = {"device": card, "toy": asked.toy, "seconds": round(time.perf_counter() - start),
             **context()}  # fmt: skip
    text = say.markdown(f"GPU check: {card}", facts)
    print(text)
    if asked.write:
        asked.write.write_text(text, encoding="utf-8")
    return 1 if say.failed else 0


if __name__ == "__main__":
    sys.exit(main())
