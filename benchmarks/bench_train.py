"""Does reading keep up with learning: what the small nets take of samples, and what two cores give.

    python -m benchmarks.bench_train [--device cpu] [--nets utilise,stpconv] [--seconds 4]

Samples are random patches of simulated cubes in memory (`CubeSamples`), and a store of samples of
the same cubes (`samples.make`); a method with a layout is read from its store alone. For each:

    reader      samples/s that the loader gives while nothing learns
    net         samples/s that updates take of one batch in memory
    ratio       reader / net: 1 or more feeds the net
    waits       share of the time of the training loop that it waits for a batch, after the first
    start       seconds to the first batch

with 0 and 2 processes that prepare samples. With 0 the loop reads and learns in turn, so it waits
for every batch. On a GPU the same in float32, TF32 and bfloat16. Wall seconds; peak memory is that
of this process (resident, above what it held before) and, on a GPU, of torch's allocator.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from benchmarks.context import context
from benchmarks.precision import computing, gpu_name, precisions
from cubefill import samples, simulate
from cubefill.gaps import Blobs
from cubefill.methods.learned.method import TorchMethod
from cubefill.methods.learned.passes import device_of
from cubefill.methods.registry import resolve
from cubefill.nn.objective import Objective
from cubefill.samples.patches import CubeSamples
from cubefill.samples.protocol import Samples
from cubefill.train.recipe import Recipe
from cubefill.train.state import loader

BANDS = ("B02", "B03", "B04", "B08")
WORKERS = (0, 2)
TARGET = 1.0
"""Least ratio of samples/s of the reader with two processes to those of the net."""


@dataclass(frozen=True)
class Net:
    """One net, as small as it is trained on two cores."""

    config: Mapping[str, Any] = field(default_factory=dict)
    dates: int = 10
    """Time steps of a sample."""
    batch: int = 4
    patch: int = 0
    """Edge of a sample in pixels for a method that looks at single pixels."""


SMALL = {"patch": 64, "pad": 8}
NETS = {
    "utilise": Net({**SMALL, "widths": (16, 16, 16, 32)}),
    "stpconv": Net({"size": 64, "offset": 0.1, "scale": 0.1}, dates=16, batch=2),
    "seq2seq": Net({"width": 8}, batch=1),
    "msop_david": Net({**SMALL, "sar": False}, batch=16),
    "ssop_unet": Net({**SMALL, "widths": (16, 32, 64, 128, 128)}, batch=16),
    "cnnrnn": Net({"coherence": False}, dates=20, batch=16, patch=4),
}


# ------------------------------------------------------------------ samples


def scenes(size: int, dates: int) -> list[xr.Dataset]:
    """Simulated cubes with Sentinel-1, apart from each other."""
    return [
        simulate.scene(
            size=size, dates=dates, days=240, seed=s, bands=BANDS, dem=False, cloud=0.4,
            origin=(500_000 + 50_000 * s, 5_600_000),
        ).cube
        for s in (1, 2)
    ]  # fmt: skip


def sources(net: Net, method: TorchMethod, cubes: list[xr.Dataset], path: Path) -> dict[str, Any]:
    """Samples to read, by where they come from."""
    laid_out = hasattr(method, "layout")
    size = net.patch or 16
    made = samples.make(
        cubes, method, None if laid_out else Blobs(), path, dates=0 if laid_out else net.dates,
        patch=net.patch, splits=(1.0, 0.0, 0.0), max_per_place=20, overwrite=True, progress=False,
    )  # fmt: skip
    found: dict[str, Any] = {
        f"store of {len(made)} samples": samples.open(path, "train", method, augment=True)
    }
    if not laid_out:
        found["cubes in memory"] = CubeSamples(
            cubes, method, Blobs(), count=4096, patch=size, dates=net.dates, augment=True
        )
    return found


def batches(source: Samples, recipe: Recipe, workers: int, rows: bool) -> Iterator[Any]:
    """Batches in random order, as many as anyone wants, as the training loop gets them."""
    order = np.random.default_rng(0).integers(len(source), size=(100_000, recipe.batch))
    return iter(loader(source, order.tolist(), replace(recipe, workers=workers), rows))


# ------------------------------------------------------------------ measures


def reader(given: Iterator[Any], batch: int, seconds: float) -> dict[str, float]:
    """Samples/s of a loader alone, and the seconds to its first batch."""
    begin = time.perf_counter()
    next(given)
    first = time.perf_counter()
    count = 0
    while time.perf_counter() - first < seconds:
        next(given)
        count += 1
    return {
        "start": first - begin,
        "samples_per_s": count * batch / (time.perf_counter() - first),
    }


def update(objective: Objective, batch: Any, seconds: float) -> float:
    """Seconds of an update by a batch in memory: the median after one that warms up."""
    objective.step(batch)
    took: list[float] = []
    while len(took) < 3 or sum(took) < seconds:
        begin = time.perf_counter()
        objective.step(batch)
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def waits(objective: Objective, given: Iterator[Any], seconds: float) -> float:
    """Share of the time of the loop that it waits for batches, the first one left out."""
    objective.step(next(given))
    waited = 0.0
    now = begin = time.perf_counter()
    while now - begin < seconds:
        batch = next(given)
        waited += time.perf_counter() - now
        objective.step(batch)
        now = time.perf_counter()
    return waited / (now - begin)


def resident(entry: str) -> int:
    """`VmRSS` or `VmHWM` of this process in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith(entry)), 0)


def reset_peak(device: torch.device) -> int:
    """Starts the peaks anew; the bytes resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("The peak of this process cannot be reset: it is that of all so far", file=sys.stderr)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return resident("VmRSS")


def peak_mb(before: int, device: torch.device) -> dict[str, float]:
    """Peak memory since `reset_peak`."""
    found = {"process": (resident("VmHWM") - before) / 1e6}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.max_memory_allocated(device) / 1e6
    return found


def measure(
    name: str, cubes: list[xr.Dataset], device: torch.device, seconds: float, folder: Path
) -> dict[str, Any]:
    """Everything about one net."""
    print(name, file=sys.stderr, flush=True)
    net = NETS[name]
    method: Any = resolve(name).configured(**net.config)  # type: ignore[attr-defined]
    rows = bool(method.rows)
    recipe = Recipe(method=name, batch=net.batch, device=str(device))
    made = sources(net, method, cubes, folder / f"{name}.zarr")
    readers = {
        source: {
            f"{n} workers": reader(batches(s, recipe, n, rows), net.batch, seconds) for n in WORKERS
        }
        for source, s in made.items()
    }
    before = reset_peak(device)
    torch.manual_seed(0)
    built = method.net(method.config).to(device)
    one = next(batches(next(iter(made.values())), recipe, 0, rows))
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in built.parameters()),
        "batch": net.batch,
        "shapes": {n: tuple(t.shape) for n, t in one.items()},
        "reader": readers,
    }
    for precision in precisions(device):
        kind = "bfloat16" if precision == "bfloat16" else "float32"
        objective = method.objective(built, replace(recipe, precision=kind))
        with computing(precision, device):
            took = update(objective, one, seconds)
            speed = net.batch / took
            found[precision] = {
                "ms_per_update": 1e3 * took,
                "net_samples_per_s": speed,
                "ratio": {
                    source: {w: r["samples_per_s"] / speed for w, r in by.items()}
                    for source, by in readers.items()
                },
                "waits": {
                    source: {
                        f"{n} workers": waits(objective, batches(s, recipe, n, rows), seconds)
                        for n in WORKERS
                    }
                    for source, s in made.items()
                },
            }
    return found | {"peak_mb": peak_mb(before, device)}


# ------------------------------------------------------------------ the answer


def report(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each net, precision and source; details are in the JSON."""
    yield (
        "net          source                    precision  ms/update  net/s  reader/s 0, 2"
        "    ratio 0, 2    waits 0, 2    start 2"
    )
    for name, row in found.items():
        for precision in (p for p in ("float32", "TF32", "bfloat16") if p in row):
            one = row[precision]
            for source, by in row["reader"].items():
                speeds = [by[f"{n} workers"]["samples_per_s"] for n in WORKERS]
                ratios = [one["ratio"][source][f"{n} workers"] for n in WORKERS]
                waited = [one["waits"][source][f"{n} workers"] for n in WORKERS]
                yield (
                    f"{name:<13}{source:<26}{precision:<10}{one['ms_per_update']:>10.1f}"
                    f"{one['net_samples_per_s']:>7.1f}{speeds[0]:>9.0f}{speeds[1]:>7.0f}"
                    f"{ratios[0]:>9.2f}{ratios[1]:>6.2f}{waited[0]:>9.0%}{waited[1]:>6.0%}"
                    f"{by['2 workers']['start']:>10.2f}"
                )
        peaks = ", ".join(f"{n} {v:.0f} MB" for n, v in row["peak_mb"].items())
        yield f"{'':<13}{row['parameters']} parameters, batch {row['batch']}, peak {peaks}"
    yield f"target of the ratio with 2 workers: {TARGET}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--nets", default=",".join(NETS), help="of " + ", ".join(NETS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measure")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 for its own choice")
    parser.add_argument("--size", type=int, default=256, help="edge of a simulated cube")
    parser.add_argument("--dates", type=int, default=40, help="of a simulated cube")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = device_of(args.device)
    cubes = scenes(args.size, args.dates)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: measure(name, cubes, device, args.seconds, Path(folder))
            for name in args.nets.split(",")
        }
    facts = context("zarr") | {
        "device": str(device),
        "gpu": gpu_name(device),
        "threads": torch.get_num_threads(),
        "cubes": f"{len(cubes)} of {args.dates} dates x {args.size} x {args.size} px",
        "seconds": args.seconds,
    }
    if args.json:
        print(json.dumps({**found, "context": facts}, indent=1))
        return
    print("\n".join(report(found)))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
