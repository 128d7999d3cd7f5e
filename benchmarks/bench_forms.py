"""Which form of a net is fastest: layout of weights, compiled or not, precision, batch, transfer.

    python -m benchmarks.bench_forms [--width 64] [--nets ganfilling,utilise,msop_unet]
        [--threads 1] [--device cpu] [--batches 1 2 4 8] [--no-compile] [--json]

All forms of a net run in turn in one process on the same input with the same weights; a figure is
the best of its rounds, CPU seconds on a CPU with one thread, wall seconds else, after one pass that
warms up. Ratios over the plain form: float32, contiguous weights, eager; above 1 is faster.

On a CPU: channels last, `torch.compile` (where there is a compiler; its first pass is given apart),
bfloat16 (where the CPU multiplies it). On CUDA as well: TF32, every batch, and what a batch takes
from host to host with its transfers in turn and overlapped, as `TorchMethod` runs them. `--width`
scales every net: 64 is as published.
"""

import argparse
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.bench_infer import alternate
from benchmarks.context import context, show
from benchmarks.precision import computing, gpu_name, precisions
from cubefill.methods import Block, resolve
from cubefill.methods.learned import Arrays, TorchMethod, device_of
from cubefill.methods.learned.passes import Pass
from cubefill.methods.learned.utilise import UtiliseConfig
from cubefill.methods.windows import Span
from cubefill.nn.unet import WIDTHS

PLAIN = "float32"
TRANSFERS = 8
"""Batches that go from host to host."""


def config_of(name: str, width: int) -> dict[str, Any]:
    """Configuration of a net with `width` for every 64 features of the published one."""
    if name in ("ganfilling", "seq2seq"):
        return {"width": width, "unused": False}
    widths = {"utilise": UtiliseConfig().widths, "msop_unet": WIDTHS}[name]
    return {"widths": tuple(max(4, n * width // 64) for n in widths)}


def method_of(name: str, width: int) -> TorchMethod:
    """The method with an untrained net."""
    found: Any = resolve(name)
    configured: TorchMethod = found.configured(**config_of(name, width))
    return configured


def inputs_of(method: TorchMethod, dates: int) -> Arrays:
    """What one pass is given of a block of random pixels, without the axis of samples."""
    needs, rng = method.needs, np.random.default_rng(0)
    edge = needs.space.size if isinstance(needs.space, Span) else 64
    shape = (dates, edge, edge)
    time = np.datetime64("2023-01-05", "ns") + 5 * np.arange(dates).astype("m8[D]")
    block = Block(
        {n: rng.random(shape, np.float32) for n in needs.bands},
        rng.random(shape) > 0.4,
        time,
        time,
        sar={n: -20 * rng.random(shape, np.float32) for n in ("VV", "VH")} if needs.sar else {},
        dem=np.zeros(shape[1:], np.float32) if needs.dem else None,
    )
    return method.encode(method.split(block)[0])


def batch_of(arrays: Arrays, count: int) -> Arrays:
    """A batch of `count` equal samples."""
    return {n: np.ascontiguousarray(np.stack([a] * count)) for n, a in arrays.items()}


def answer(net: nn.Module, given: Mapping[str, Tensor], precision: str) -> Callable[[], Tensor]:
    """One pass at a precision."""
    device = next(iter(given.values())).device

    def run() -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(computing(precision, device))
            stack.enter_context(
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
            )
            out: Tensor = net(**given)
            return out

    return run


# ------------------------------------------------------------------ forms of a net


def forms_of(
    net: nn.Module, given: Mapping[str, Tensor], device: torch.device, compiled: nn.Module | None
) -> dict[str, Callable[[], Tensor]]:
    """Every form by name, the plain one first."""
    last: nn.Module = deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forms = {}
    for precision in precisions(device):
        forms[precision] = answer(net, given, precision)
        forms[f"{precision}, channels last"] = answer(last, given, precision)
    if compiled is not None:
        forms["float32, compiled"] = answer(compiled, given, PLAIN)
    return forms


def compiled_of(net: nn.Module, given: Mapping[str, Tensor]) -> tuple[Any, float, str]:
    """The net compiled, seconds of its first pass, and why there is none."""
    device = next(iter(given.values())).device
    if device.type == "cpu" and not any(shutil.which(c) for c in ("c++", "g++", "clang++")):
        return None, 0.0, "no C++ compiler"
    made = torch.compile(deepcopy(net))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer(made, given, PLAIN)()
    except Exception as error:  # whatever stops the compiler is the finding
        return None, 0.0, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return made, time.perf_counter() - start, ""


def compare(
    net: nn.Module, arrays: Arrays, batch: int, device: torch.device, clock: Any, compiling: bool
) -> dict[str, Any]:
    """Ratios of every form at one batch, and how far its answer is from the plain one."""
    given = {n: torch.from_numpy(a).to(device) for n, a in batch_of(arrays, batch).items()}
    compiled, took, why = compiled_of(net, given) if compiling else (None, 0.0, "not asked for")
    forms = forms_of(net, given, device, compiled)
    best = alternate(forms, clock, device.type)
    exact = forms[PLAIN]()
    return {
        "ratio": {n: best[PLAIN] / t for n, t in best.items() if n != PLAIN},
        "seconds_per_sample": {n: t / batch for n, t in best.items()},
        "largest_difference": {
            n: float((run().float() - exact).abs().max()) for n, run in forms.items() if n != PLAIN
        },
        "compile": why or {"first_pass_s": took},
    }


# ------------------------------------------------------------------ transfers


def transfers(net: nn.Module, arrays: Arrays, batch: int, device: torch.device) -> dict[str, Any]:
    """Seconds a batch from host to host, its transfers in turn, overlapped, and without them."""
    host = batch_of(arrays, batch)
    there = {n: torch.from_numpy(a).to(device) for n, a in host.items()}
    found: dict[str, Any] = {}
    for precision in [p for p in precisions(device) if p != "TF32"]:
        run = Pass(net, device, precision, ("bench", str(device), batch))
        inside = answer(net, there, precision)
        works: dict[str, Callable[[], Any]] = {
            "overlapped": lambda run=run: _pipelined(run, host, batch, 1),  # type: ignore[misc]
            "in turn": lambda run=run: _pipelined(run, host, batch, 0),  # type: ignore[misc]
            "without": lambda work=inside: [work() for _ in range(TRANSFERS)],  # type: ignore[misc]
        }
        best = alternate(works, time.perf_counter, device.type)
        found[precision] = {
            "ratio": best["in turn"] / best["overlapped"],
            "overlapped_over_without": best["overlapped"] / best["without"],
            "seconds_per_batch": {n: t / TRANSFERS for n, t in best.items()},
        }
    return found


def _pipelined(run: Pass, host: Arrays, batch: int, ahead: int) -> None:
    """Batches from host to host, `ahead` of them started before an answer is taken."""
    running: list[list[Tensor]] = []
    for _ in range(TRANSFERS):
        running.append(run.launch(host, batch))
        if len(running) > ahead:
            running.pop(0)[0].cpu()
    for parts in running:
        parts[0].cpu()


# ------------------------------------------------------------------ all nets


def measure(name: str, args: Any, device: torch.device, clock: Any) -> dict[str, Any]:
    """Everything about one net, by batch."""
    method = method_of(name, args.width)
    torch.manual_seed(0)
    net = method.net(method.config).to(device).eval().requires_grad_(False)
    arrays = inputs_of(method, args.dates)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "sample": {n: a.shape for n, a in arrays.items()},
        "as_shipped": "channels last" if method.channels_last else "contiguous",
    }
    for batch in args.batches:
        print(f"{name}, batch {batch}", file=sys.stderr, flush=True)
        compiling = not args.no_compile and batch == args.batches[0]
        row = compare(net, arrays, batch, device, clock, compiling)
        if device.type == "cuda":
            row["transfers"] = transfers(net, arrays, batch, device)
        found[f"batch {batch}"] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="ganfilling,utilise,msop_unet")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dates", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", help="by default 1, on CUDA 1 2 4 8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # else a second run compiles nothing
    torch.set_num_threads(args.threads)
    device = device_of(args.device)
    args.batches = args.batches or ([1, 2, 4, 8] if device.type == "cuda" else [1])
    alone = device.type == "cpu" and args.threads == 1
    clock = time.process_time if alone else time.perf_counter
    rows = {name: measure(name, args, device, clock) for name in args.nets.split(",")}
    rows["context"] = context() | {
        "device": str(device),
        "gpu": gpu_name(device),
        "threads": args.threads,
        "width": args.width,
        "dates": args.dates,
    }
    show(rows, args.json)


if __name__ == "__main__":
    main()
