"""The kernels against the packages that do the same, and against a plain copy of the cube.

    python -m benchmarks.bench_kernels [--size 256] [--dates 73] [--peers FOLDER]

Everything runs in one process on one thread, in turn; figures are CPU seconds, best of several
rounds, ratios first. One value is one pixel on one date in one band, filled or not. Peers that
need minutes get a corner of the cube and are compared by value. A peer that does not import is
named and left out; `--peers` is a folder of packages that cannot live beside the others (modape
builds with setuptools < 61 only).
"""

# ruff: noqa: E402  the threads of BLAS are set before numpy loads it

import os

# One thread for everything: a BLAS that spins on a second core makes a peer look slow in CPU time.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import datetime
import gc
import importlib
import json
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.context import context
from cubefill.methods import Block, Counts, Method, resolve
from cubefill.methods.pixel.harmonic import design

LAM = 1000.0
BANDS = ("B02", "B03", "B04", "B08")
Work = Callable[[], Any]


@dataclass
class Case:
    """One thing to time, on a corner of `size` pixels of the cube."""

    name: str
    run: Work
    values: int
    best: float = float("inf")

    def once(self) -> None:
        """Times one run."""
        gc.collect()
        start = time.process_time()
        self.run()
        self.best = min(self.best, time.process_time() - start)

    @property
    def speed(self) -> float:
        """Million values a CPU second."""
        return self.values / self.best / 1e6


def smooth_noise(rng: np.random.Generator, size: int, scale: int) -> NDArray[np.float64]:
    """A field in 0..1 that varies over `scale` pixels."""
    n = size // scale + 2
    grid, at = rng.random((n, n)), np.arange(size) / scale
    i, f = at.astype(int), at % 1
    rows = grid[i] * (1 - f)[:, None] + grid[i + 1] * f[:, None]
    field: NDArray[np.float64] = rows[:, i] * (1 - f) + rows[:, i + 1] * f
    return field


def cube(size: int, dates: int, seed: int = 0) -> Block:
    """A season with noise; clouds are coherent, and many dates are all clear or all cloudy."""
    rng = np.random.default_rng(seed)
    days = 5 * np.arange(dates) + rng.integers(0, 2, dates)
    valid = np.empty((dates, size, size), bool)
    for t, cover in enumerate(rng.beta(0.45, 0.45, dates)):
        field = 0.65 * smooth_noise(rng, size, 64) + 0.35 * smooth_noise(rng, size, 12)
        valid[t] = field > np.quantile(field, cover)
    peak = 120 + 100 * smooth_noise(rng, size, 24)
    season = np.exp(-0.5 * ((days[:, None, None] % 365 - peak) / 45) ** 2)
    bands = {}
    for i, band in enumerate(BANDS):
        v = 0.05 + 0.06 * i + (0.25 if band == "B08" else -0.03) * season
        bands[band] = (v + rng.normal(0, 0.006, valid.shape)).astype(np.float32)
    time_axis = np.datetime64("2023-01-01", "ns") + days.astype("m8[D]")
    return Block(bands, valid, time_axis, time_axis)


def corner(block: Block, size: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """`(band, time, y, x)` of a corner, NaN in gaps, and the days."""
    parts = [np.where(block.valid, a, np.nan)[:, :size, :size] for a in block.bands.values()]
    return np.stack(parts).astype(np.float32), block.days


def series(block: Block, size: int) -> NDArray[np.float64]:
    """`(pixel, time)` in float64 of a corner, NaN in gaps."""
    a, _ = corner(block, size)
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1).reshape(-1, a.shape[1]), np.float64)


# ------------------------------------------------------------------ ours


def ours(block: Block, name: str, method: Method) -> Case:
    """`fill`, flags included, into arrays that are used again as a job does."""
    dtype = np.int16 if block.counts else np.float32
    out = {n: np.zeros(block.shape, dtype) for n in block.bands}
    given = Block(block.bands, block.valid, block.time, block.out_time, counts=block.counts)
    object.__setattr__(given, "out", out)
    return Case(name, lambda: list(method.fill([given])), len(out) * block.valid.size)


def counted(block: Block) -> Block:
    """The cube as int16 counts."""
    bands = {n: np.rint(a * 1e4).astype(np.int16) for n, a in block.bands.items()}
    return Block(bands, block.valid, block.time, block.out_time, counts=Counts())


def plain_copy(block: Block) -> Case:
    """The same bytes read and written."""
    out = {n: np.zeros_like(a) for n, a in block.bands.items()}

    def run() -> None:
        for n, a in block.bands.items():
            np.copyto(out[n], a)

    return Case("plain copy", run, len(out) * block.valid.size)


# ------------------------------------------------------------------ peers


def data_array(block: Block, size: int) -> xr.DataArray:
    a, _ = corner(block, size)
    return xr.DataArray(a, dims=("band", "time", "y", "x"), coords={"time": block.time})


def interpolate_na(block: Block) -> Case:
    da = data_array(block, 64)
    return Case("xarray interpolate_na", lambda: da.interpolate_na("time"), da.size)


def ffill_bfill(block: Block) -> Case:
    importlib.import_module("bottleneck")
    da = data_array(block, 256)
    return Case("xarray ffill+bfill (not linear)", lambda: da.ffill("time").bfill("time"), da.size)


def eolearn_linear(block: Block) -> Case:
    from eolearn.core import EOPatch, FeatureType
    from eolearn.features.extra.interpolation import LinearInterpolationTask
    from sentinelhub import CRS, BBox

    a, days = corner(block, 128)
    start = datetime.datetime(2023, 1, 1)
    stamps = [start + datetime.timedelta(days=float(d)) for d in days]
    patch = EOPatch(bbox=BBox((0, 0, 1, 1), CRS.WGS84), timestamps=stamps)
    patch[FeatureType.DATA, "B"] = np.ascontiguousarray(a.transpose(1, 2, 3, 0))
    task = LinearInterpolationTask((FeatureType.DATA, "B", "R"), parallel=False)
    return Case("eo-learn LinearInterpolationTask", lambda: task.execute(patch), a.size)


def modape(block: Block) -> Case:
    from modape.whittaker import ws2d

    y = series(block, 32)

    def run() -> None:
        for v in y:
            ok = np.isfinite(v)
            ws2d(np.where(ok, v, 0), LAM, ok.astype(np.float64))

    return Case("modape ws2d", run, y.size)


def whitsmooth(block: Block) -> Case:
    import whitsmooth_rust

    y, x = series(block, 64), block.days

    def run() -> None:
        whitsmooth_rust.whittaker_solve_f64(x, y, None, LAM, 2, 1e-10, "median", 1e-10, True)

    return Case("whitsmooth-rust", run, y.size)


def normal_equations(block: Block) -> Case:
    """Batched in numpy, float32, as one writes them by hand."""
    a, days = corner(block, 96)
    y = np.ascontiguousarray(a.transpose(1, 0, 2, 3).reshape(len(days), -1))
    x = design(days - days[-1] / 2, 2, trend=True).astype(np.float32)
    k = x.shape[1]
    squares = (x[:, :, None] * x[:, None]).reshape(len(days), -1)

    def run() -> None:
        ok = np.isfinite(y)
        v = np.where(ok, y, 0)
        g = (ok.T.astype(np.float32) @ squares).reshape(-1, k, k) + 1e-3 * np.eye(k, dtype="f4")
        c = np.linalg.solve(g, (v.T @ x)[..., None])[..., 0]
        np.where(ok, y, x @ c.T)

    return Case("numpy batched normal equations", run, y.size)


def scipy_loop(kind: str) -> Callable[[Block], Case]:
    """A loop over pixels, as users of scipy write it."""

    def make(block: Block) -> Case:
        from scipy import interpolate

        y, t = series(block, 16), block.days
        curves = {
            "pchip": interpolate.PchipInterpolator,
            "akima": interpolate.Akima1DInterpolator,
            "quadratic": lambda x, v: interpolate.interp1d(x, v, "quadratic", bounds_error=False),
        }

        def run() -> None:
            for v in y:
                ok = np.isfinite(v)
                curves[kind](t[ok], v[ok])(t)

        return Case(f"scipy {kind} in a loop", run, y.size)

    return make


def linear_savgol(block: Block) -> Case:
    from scipy.signal import savgol_filter

    y, t = series(block, 32), block.days

    def run() -> None:
        lines = np.stack(
            [np.interp(t, t[ok], v[ok]) for v, ok in zip(y, np.isfinite(y), strict=True)]
        )
        savgol_filter(lines, 9, 2, axis=1)

    return Case("np.interp + scipy savgol (by index)", run, y.size)


PEERS: dict[str, list[tuple[Callable[[Block], Case], str]]] = {
    "linear": [
        (interpolate_na, ">= 150"),
        (eolearn_linear, ">= 35"),
        (ffill_bfill, ">= 4"),
    ],
    "whittaker": [(modape, ">= 17"), (whitsmooth, ">= 8")],
    "harmonic": [(normal_equations, ">= 6")],
    "pchip": [(scipy_loop("pchip"), "")],
    "akima": [(scipy_loop("akima"), "")],
    "quadratic": [(scipy_loop("quadratic"), "")],
    "savgol": [(linear_savgol, "")],
}
OURS: dict[str, dict[str, Any]] = {
    "linear": {},
    "whittaker": {"lam": LAM},
    "blend": {},
    "harmonic": {},
    "pchip": {},
    "akima": {},
    "quadratic": {},
    "savgol": {},
    "nearest": {},
    "climatology": {},
}


def measure(block: Block, rounds: int) -> list[dict[str, Any]]:
    """Rows of ratios: each kernel beside its peers and a copy, in turn."""
    rows = []
    counts = counted(block)
    for name, options in OURS.items():
        method = resolve(name, **options)
        mine, copy = ours(block, name, method), plain_copy(block)
        small = ours(counts, f"{name} int16", method)
        peers: list[tuple[Case, str]] = []
        for make, target in PEERS.get(name, []):
            try:
                peers.append((make(block), target))
            except ImportError as error:
                print(f"absent: {make.__name__} ({error})", file=sys.stderr)
        cases = [mine, small, copy, *(p for p, _ in peers)]
        for _ in range(rounds + 1):
            for case in cases:
                case.once()
        for peer, target in peers:
            rows.append(_row(name, peer.name, mine.speed / peer.speed, target, mine, peer))
        target = "<= 4" if name == "linear" else ""
        rows.append(_row(name, "x a plain copy", copy.speed / mine.speed, target, mine, copy))
        rows.append(_row(small.name, "x float32", small.speed / mine.speed, "", small, mine))
    return rows


def _row(
    name: str, peer: str, ratio: float, target: str, mine: Case, other: Case
) -> dict[str, Any]:
    return {
        "method": name,
        "against": peer,
        "ratio": round(ratio, 2),
        "target": target,
        "mval_per_cpu_s": round(mine.speed, 1),
        "other_mval_per_cpu_s": round(other.speed, 3),
    }


def extra_memory(block: Block) -> float:
    """Peak of what `fill` allocates for linear, as a share of the cube; the output is 1."""
    method = resolve("linear")
    list(method.fill([block]))
    tracemalloc.start()
    out = list(method.fill([block]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del out
    return peak / sum(a.nbytes for a in block.bands.values())


def main() -> None:
    """Prints ratios first, then figures, then where they were measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dates", type=int, default=73)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="folder of packages that live elsewhere")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.peers:
        sys.path.append(args.peers)
    warnings.simplefilter("ignore")
    block = cube(args.size, args.dates)
    rows = measure(block, args.rounds)
    where = context("eo-learn", "modape", "whitsmooth-rust", "Bottleneck") | {
        "cube": [len(BANDS), args.dates, args.size, args.size],
        "gap": round(1 - float(block.valid.mean()), 3),
        "extra_memory_x_cube": round(extra_memory(block), 3),
    }
    if args.json:
        print(json.dumps({"rows": rows, "context": where}))
        return
    for r in rows:
        print(
            f"{r['ratio']:>9.2f}  {r['target']:<7} {r['method']:<17} {r['against']:<36}"
            f"{r['mval_per_cpu_s']:>8.1f} : {r['other_mval_per_cpu_s']:.3f} Mval per CPU second"
        )
    print(json.dumps(where, indent=1))


if __name__ == "__main__":
    main()
