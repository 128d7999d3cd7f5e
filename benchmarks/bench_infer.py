"""The GANFilling generator layer by layer against step by step, and what the engine adds to it.

    python -m benchmarks.bench_infer [--width 64] [--dates 10] [--threads 1] [--device cpu]

Both forms run in turn in one process with the same weights; a figure is the best of its rounds,
CPU seconds on a CPU with one thread, wall seconds else. Ratios first. GFLOP are those of the step
by step form, so that both have the same work. Layouts of weights, precisions, compiled nets and
transfers are in `bench_forms.py`.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import cubefill
from benchmarks.context import context, show
from cubefill.methods.learned.ganfilling import (
    GanFilling,
    GeneratorConfig,
    from_names,
    original_shapes,
    sizes_of,
)
from cubefill.nn import checkpoint
from cubefill.nn.convlstm import Generator
from cubefill.testing import synthetic_cube
from tests.nn.convlstm_reference import by_formula, generate

TARGETS = {1: 1.6, 4: 1.25}
"""Least ratio of step by step to layer by layer, by batch."""
ENGINE_TARGET = 1.15
ROUNDS = 4

Tensors = dict[str, Tensor]


def seconds(work: Callable[[], Any], clock: Callable[[], float], device: str) -> float:
    """Time of one run, the device's own work included."""
    start = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def alternate(
    works: Mapping[str, Callable[[], Any]], clock: Callable[[], float], device: str
) -> dict[str, float]:
    """Best of some rounds of each, run in turn after one warm-up."""
    best: dict[str, float] = {}
    for i in range(ROUNDS + 1):
        for name, work in works.items():
            took = seconds(work, clock, device)
            if i:
                best[name] = min(took, best.get(name, took))
    return best


def nets(config: GeneratorConfig, device: str) -> tuple[Tensors, Generator]:
    """The authors' tensors, filled by formula, and our net with the same."""
    sizes = sizes_of(config)
    theirs = {n: by_formula(n, s).to(device) for n, s in original_shapes(sizes).items()}
    with torch.device("meta"):
        net = Generator(sizes)
    checkpoint.load_state(net.to_empty(device=device), from_names(theirs, sizes))
    net.eval().requires_grad_(False)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return theirs, net


def work_of(config: GeneratorConfig, dates: int) -> float:
    """GFLOP of one series, step by step."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        w = {n: torch.empty(s) for n, s in original_shapes(sizes_of(config)).items()}
        generate(w, torch.empty(1, dates, 4, 128, 128))
    return counter.get_total_flops() / 1e9


def peaks(clock: Callable[[], float], device: str) -> dict[str, float]:
    """GFLOP/s of a large product and of a large 3 x 3 convolution, channels last."""
    a = torch.rand(2048, 2048, device=device)
    x = torch.rand(4, 256, 64, 64, device=device).to(memory_format=torch.channels_last)
    w = torch.rand(256, 256, 3, 3, device=device).to(memory_format=torch.channels_last)
    took = alternate(
        {"product": lambda: a @ a, "convolution": lambda: F.conv2d(x, w, padding=1)}, clock, device
    )
    work = {"product": 2 * 2048**3 / 1e9, "convolution": 2 * 9 * 256**2 * 4 * 64**2 / 1e9}
    return {n: work[n] / t for n, t in took.items()}


def forms(
    weights: Tensors, net: nn.Module, batch: int, dates: int, gflop: float, clock: Any, device: str
) -> dict[str, Any]:
    """Layer by layer against step by step at one batch."""
    x = torch.rand(batch, dates, 4, 128, 128, device=device)
    answers: dict[str, Tensor] = {}

    def run(name: str, work: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        return lambda: answers.update({name: work(x)})

    took = alternate(
        {"step": run("step", lambda x: generate(weights, x)), "layer": run("layer", net)},
        clock,
        device,
    )
    return {
        "ratio": took["step"] / took["layer"],
        "target": TARGETS.get(batch),
        "largest_difference": float((answers["step"] - answers["layer"]).abs().max()),
        "seconds": took,
        "gflops": {n: batch * gflop / t for n, t in took.items()},
    }


def engine(net: Generator, config: GeneratorConfig, dates: int, clock: Any) -> dict[str, Any]:
    """`gapfill` from Zarr against the bare net on the same four patches in memory."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        card = checkpoint.Card("cubefill.methods.learned.ganfilling:GanFilling", asdict(config))
        saved = checkpoint.save(Path(folder) / "net", net.state_dict(), card)
        edge = config.patch + config.patch_keep
        ds = synthetic_cube(dates=dates, size=(edge, edge), gap=0.4)
        cubefill.write_cube(ds, Path(folder) / "cube.zarr", progress=False)
        opened = cubefill.open_cube(Path(folder) / "cube.zarr")
        method = GanFilling(checkpoint=str(saved), device="cpu")
        series = np.stack([ds[b].values for b in config.bands], axis=1)
        patches = [
            torch.from_numpy(
                np.ascontiguousarray(series[:, :, y : y + config.patch, x : x + config.patch])
            )[None].clamp(0, 1)
            for y in (0, config.patch_keep)
            for x in (0, config.patch_keep)
        ]

        def filled() -> None:
            out = cubefill.gapfill(opened, method, tile=edge)
            out.compute(scheduler="synchronous")

        took = alternate({"engine": filled, "net": lambda: [net(p) for p in patches]}, clock, "cpu")
    return {"ratio": took["engine"] / took["net"], "target": ENGINE_TARGET, "seconds": took}


def main() -> None:
    """Runs everything and prints ratios, then figures, then the context."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dates", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-engine", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    alone = args.device == "cpu" and args.threads == 1
    clock = time.process_time if alone else time.perf_counter
    config = GeneratorConfig(width=args.width, unused=False)
    rows: dict[str, Any] = {}
    with torch.inference_mode():
        weights, net = nets(config, args.device)
        gflop = work_of(config, args.dates)
        for batch in args.batches:
            rows[f"layer by layer, batch {batch}"] = forms(
                weights, net, batch, args.dates, gflop, clock, args.device
            )
        del weights
        found = peaks(clock, args.device)
        for row in rows.values():
            row["of_peak"] = {
                f"{form} / {peak}": speed / top
                for form, speed in row["gflops"].items()
                for peak, top in found.items()
            }
        if alone and not args.no_engine:
            rows["engine from Zarr over the bare net"] = engine(net, config, args.dates, clock)
    rows["peaks, GFLOP/s"] = found
    rows["context"] = context() | {
        "width": args.width,
        "dates": args.dates,
        "patch": config.patch,
        "threads": args.threads,
        "device": args.device,
        "gflop_per_series": gflop,
    }
    show(rows, args.json)


if __name__ == "__main__":
    main()
