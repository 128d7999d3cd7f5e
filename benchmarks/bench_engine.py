"""What the engine adds to a kernel, and Zarr -> fill -> Zarr against xarray's whole-cube way.

    python benchmarks/bench_engine.py [--size 768] [--dates 73]

Every pair is measured in turn in one run; ratios first. `--json` for machines.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.array as da
import numpy as np
import xarray as xr

import cubefill
from benchmarks.context import context, show
from cubefill.engine import job
from cubefill.machine import cores
from cubefill.methods.contract import Block
from cubefill.methods.pixel.linear import Linear
from cubefill.store import workers as scheduler
from cubefill.store.source import StoreSource

BANDS = ("B02", "B03", "B04", "B08")


def cube(size: int, dates: int, seed: int = 0) -> xr.Dataset:
    """A cube of smooth fields with coherent gaps, about half of all values."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((dates, size // 16 + 2, size // 16 + 2)).repeat(16, 1).repeat(16, 2)
    valid = coarse[:, :size, :size] > rng.beta(0.45, 0.45, dates)[:, None, None]
    field = rng.random((size // 8 + 1, size // 8 + 1)).repeat(8, 0).repeat(8, 1)[:size, :size]
    season = np.sin(np.linspace(0, np.pi, dates))[:, None, None]
    data: dict[str, Any] = {"valid": (("time", "y", "x"), valid)}
    for i, band in enumerate(BANDS):
        v = 0.05 + 0.1 * i + 0.2 * season * field + rng.normal(0, 0.006, valid.shape)
        data[band] = (("time", "y", "x"), np.round(v, 4).astype(np.float32))
    coords = {
        "time": np.datetime64("2023-01-01T10:30", "ns") + (5 * np.arange(dates)).astype("m8[D]"),
        "y": 5_600_000.0 - 10 * np.arange(size),
        "x": 500_000.0 + 10 * np.arange(size),
    }
    return xr.Dataset(data, coords=coords)


def alternate(pair: dict[str, Callable[[], object]], runs: int = 5) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each, run in turn after one warm-up."""
    took: dict[str, list[tuple[float, float]]] = {n: [] for n in pair}
    for i in range(runs + 1):
        for name, function in pair.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if i:
                took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        n: {
            "wall": float(np.median([t[0] for t in ts])),
            "cpu": float(np.median([t[1] for t in ts])),
        }
        for n, ts in took.items()
    }


def accessor(size: int, dates: int) -> dict[str, Any]:
    """`ds.gapfill("linear")` in memory against the bare kernel over the same tiles."""
    ds = cube(size, dates)
    time_axis = ds["time"].values
    arrays = {b: ds[b].values for b in BANDS}
    valid = ds["valid"].values
    method = Linear()
    threads = cores()

    def one(corner: tuple[int, int], out: dict[str, Any]) -> None:
        y, x = (slice(c, c + 256) for c in corner)
        bands = {b: a[:, y, x] for b, a in arrays.items()}
        block = Block(bands, valid[:, y, x], time_axis, time_axis)
        filled = next(iter(method.fill([block])))
        for name, a in filled.bands.items():
            out[name][:, y, x] = a
        out["fill_flag"][:, y, x] = filled.flag

    corners = [(y, x) for y in range(0, size, 256) for x in range(0, size, 256)]

    def bare() -> None:
        out = {n: np.empty_like(a) for n, a in arrays.items()}
        out["fill_flag"] = np.empty(valid.shape, np.uint8)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda c: one(c, out), corners))

    def assembled() -> None:
        out = ds.gapfill("linear", tile=256, memory="64GB")
        names = list(out.data_vars)
        into = [np.empty(out[n].shape, out[n].dtype) for n in names]
        stored = da.store([out[n].data for n in names], into, lock=False, compute=False)
        dask.compute(stored, scheduler="threads", num_workers=threads)

    def computed() -> None:
        ds.gapfill("linear", tile=256, memory="64GB").compute(
            scheduler="threads", num_workers=threads
        )

    took = alternate({"accessor": assembled, "compute()": computed, "kernel": bare}, runs=9)
    copy = alternate({"copy": lambda: [a.copy() for a in arrays.values()]})["copy"]
    return {
        "ratio_wall": took["accessor"]["wall"] / took["kernel"]["wall"],
        "ratio_cpu": took["accessor"]["cpu"] / took["kernel"]["cpu"],
        "target": "<= 1.2",
        "compute()_ratio_wall": took["compute()"]["wall"] / took["kernel"]["wall"],
        "compute()_note": "dask holds every tile and then copies it into one new array",
        "accessor_over_copy": took["accessor"]["cpu"] / copy["cpu"],
        **took,
    }


def whole_cube(source: Path, target: Path) -> None:
    """What people write with xarray alone: the cube in memory, filled forwards and backwards."""
    ds = xr.open_zarr(source, consolidated=False, chunks=None)
    out = ds[list(BANDS)].where(ds["valid"]).load().ffill("time").bfill("time")
    encoding = {b: {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768} for b in BANDS}
    out.drop_encoding().to_zarr(target, mode="w", encoding=encoding, consolidated=False)


def interpolated(source: Path, target: Path) -> None:
    """The same with `interpolate_na`, which is linear as cubefill's `linear` is."""
    ds = xr.open_zarr(source, consolidated=False, chunks=None)
    small = ds.isel(y=slice(0, 128), x=slice(0, 128))
    out = small[list(BANDS)].where(small["valid"]).load().interpolate_na("time")
    encoding = {b: {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768} for b in BANDS}
    out.drop_encoding().to_zarr(target, mode="w", encoding=encoding, consolidated=False)


def codec_share(run_once: Callable[[], object]) -> float:
    """Share of a one-worker job's CPU time that is spent reading and writing its stores."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent += time.process_time() - start

        return inner

    shares = []
    with (
        mock.patch.object(StoreSource, "read_counts", timed(StoreSource.read_counts)),
        mock.patch.object(scheduler, "write_region", timed(scheduler.write_region)),
    ):
        for i in range(4):
            spent, start = 0.0, time.process_time()
            run_once()
            if i:
                shares.append(spent / (time.process_time() - start))
    return float(np.median(shares))


def zarr_to_zarr(size: int, dates: int, folder: Path) -> dict[str, Any]:
    """The job against xarray's way, and the share of its time that codecs take."""
    source = folder / "cube.zarr"
    ds = cube(size, dates)
    mb = size * size * dates * len(BANDS) * 2 / 1e6
    cubefill.write_cube(ds, source, progress=False, shard=512)
    del ds

    def ours(profile: str, workers: int) -> Callable[[], object]:
        return lambda: job.run(
            source,
            folder / f"{profile}.zarr",
            "linear",
            overwrite=True,
            progress=False,
            workers=workers,
            profile=profile,
            memory="64GB",
            tile=min(size, 512),
        )

    took = alternate(
        {
            "cubefill": ours("default", cores()),
            "cubefill fast": ours("fast", cores()),
            "xarray ffill+bfill": lambda: whole_cube(source, folder / "x.zarr"),
        },
        runs=3,
    )
    small = alternate({"interpolate_na": lambda: interpolated(source, folder / "i.zarr")}, runs=1)
    factor = (size / 128) ** 2
    linear = {k: v * factor for k, v in small["interpolate_na"].items()}
    return {
        "times_faster_wall": took["xarray ffill+bfill"]["wall"] / took["cubefill"]["wall"],
        "times_faster_cpu": took["xarray ffill+bfill"]["cpu"] / took["cubefill"]["cpu"],
        "times_faster_than_interpolate_na_wall": linear["wall"] / took["cubefill"]["wall"],
        "target": ">= 5",
        "codec_share_cpu": codec_share(ours("default", 1)),
        "codec_target": ">= 0.8",
        "mb_int16_per_cpu_s": {n: mb / t["cpu"] for n, t in took.items()},
        "mb_int16_per_wall_s": {n: mb / t["wall"] for n, t in took.items()},
        **took,
    }


def peak(size: int, dates: int, folder: Path) -> dict[str, Any]:
    """Peak memory of a job on a cube and on one 8 x larger, in processes of their own."""
    peaks = []
    for n, shape in enumerate([(size, size), (2 * size, 4 * size)]):
        ds = cube(max(shape), dates).isel(y=slice(0, shape[0]), x=slice(0, shape[1]))
        source = folder / f"peak{n}.zarr"
        cubefill.write_cube(ds, source, progress=False, shard=512)
        del ds
        args = [sys.executable, __file__, "--peak", str(source), str(folder / f"out{n}.zarr")]
        peaks.append(int(subprocess.run(args, capture_output=True, text=True, check=True).stdout))
    return {"ratio": peaks[1] / peaks[0], "target": "<= 1.2", "peak_mb": [p / 1e3 for p in peaks]}


def high_water() -> int:
    """Peak memory of this process in kB; ru_maxrss would show the parent's where that is higher."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Runs everything and prints ratios, then figures, then the context."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--dates", type=int, default=73)
    parser.add_argument("--peak", nargs=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.peak:
        job.run(*args.peak, "linear", tile=256, workers=2, memory="4GB", progress=False)
        print(high_water())
        return
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = {
            "accessor over kernel, 256 px tiles": accessor(args.size, args.dates),
            "Zarr to Zarr": zarr_to_zarr(args.size, args.dates, Path(folder)),
            "peak memory, cube 8 x larger": peak(512, 30, Path(folder)),
            "context": context() | {"size": args.size, "dates": args.dates, "bands": len(BANDS)},
        }
    show(rows, args.json)


if __name__ == "__main__":
    main()
