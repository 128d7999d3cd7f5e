"""Plain `odc.stac.load` and `cubefill.load` of the same real items, side by side: time and memory.

    python -m benchmarks.bench_load [--repeat 3] [--size 2048] [--dates 4]

Two sets of items: the real SAFE granule (JPEG 2000, 4 bands at 60 m and SCL at 20 m, 1830 x 1830),
and a catalogue of cloud-optimised GeoTIFFs that `write_catalogue` makes of the real patch
`stac_31UDS`, laid side by side up to `--size`, at its own 10 m and, resampled, at 20 m.

Three ways in turn, each in a process of its own: `plain` gives counts as float32 and SCL;
`plain, same product` also takes offset and scale off and makes `valid` from SCL, by hand;
`cubefill` gives that product. Time is planning and reading until all is in memory, memory the peak
of the process above what imports took; the best of `--repeat` counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cubefill
from benchmarks.bench_store import default_data
from benchmarks.context import context
from cubefill import stac
from cubefill.cube import valid

WAYS = ("plain", "plain, same product", "cubefill")

CHUNKS = {"x": 1024, "y": 1024}

BANDS = ("B02", "B03", "B04", "B8A")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--one", nargs=4, metavar=("WAY", "ITEMS", "RESOLUTION", "KEYS"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.one:
        way, path, resolution, keys = given.one
        print(json.dumps(measure(way, Path(path), float(resolution), keys.split(","))))
        return
    if not (given.data / "stac_31UDS").is_dir():
        parser.error(f"no real data in {given.data}: set CUBEFILL_DATA or --data")
    print(json.dumps(context("odc-stac", "odc-loader", "rasterio"), indent=1))
    with tempfile.TemporaryDirectory() as folder:
        for name, path, resolution, keys in cases(given, Path(folder)):
            print(f"\n## {name}\n\n| way | s | CPU s | MB | time | CPU time | memory |")
            print("|---|---|---|---|---|---|---|")
            best = run(path, resolution, keys, given.repeat)
            for way, (s, cpu, mb) in best.items():
                ratios = " | ".join(f"{r:.2f}" for r in best[way] / best["plain"])
                print(f"| {way} | {s:.2f} | {cpu:.2f} | {mb:.0f} | {ratios} |", flush=True)


def cases(given: Any, folder: Path) -> list[tuple[str, Path, float, Sequence[str]]]:
    """Name, items, pixel size and keys of the assets of each comparison."""
    safe = next((given.data / "safe_T29UNU").glob("*.SAFE"))
    granule = stac.Items([stac.from_safe(safe)]).save(folder / "safe.json")
    real = cubefill.load(stac.search(given.data / "stac_31UDS"), bands=("B02", "B03", "B04", "B8A"))
    clear = real["valid"].mean(("y", "x")).compute()
    seen = real.isel(time=np.sort(np.argsort(clear.values)[-given.dates :])).compute()
    catalogue = stac.write_catalogue(wide(seen, given.size), folder / "cog", quirk="offset")
    keys = ("blue", "green", "red", "nir08", "scl")
    cog = catalogue / "items.json"
    return [
        ("SAFE granule, JPEG 2000", granule, 60.0, [f"{b}_60m" for b in BANDS] + ["SCL_20m"]),
        (f"{given.dates} dates of {given.size}, COG, copied at 10 m", cog, 10.0, keys),
        (f"{given.dates} dates of {given.size}, COG, resampled to 20 m", cog, 20.0, keys),
    ]


def wide(cube: xr.Dataset, size: int) -> xr.Dataset:
    """A patch laid side by side until it is `size` pixels wide and high."""
    times = -(-size // cube.sizes["x"])
    index = np.tile(np.arange(cube.sizes["x"]), times)[:size]
    out = cube.isel(y=index, x=index)
    x0, y0 = float(cube["x"][0]), float(cube["y"][0])
    steps = np.arange(size) * 10.0
    return out.assign_coords(x=x0 + steps, y=y0 - steps)


def run(path: Path, resolution: float, keys: Sequence[str], repeat: int) -> dict[str, Any]:
    """Seconds, seconds of the CPU and MB of each way: the least of some processes, in turn."""
    command = [sys.executable, "-m", "benchmarks.bench_load", "--one"]
    found: dict[str, list[Any]] = {w: [] for w in WAYS}
    for way in WAYS * repeat:
        args = [*command, way, str(path), str(resolution), ",".join(keys)]
        done = subprocess.run(args, stdout=subprocess.PIPE, text=True, check=True)
        found[way].append(json.loads(done.stdout.splitlines()[-1]))
    return {w: np.min(f, axis=0) for w, f in found.items()}


def measure(way: str, path: Path, resolution: float, keys: Sequence[str]) -> list[float]:
    """One way, in this process."""
    import odc.geo.xr
    import odc.stac
    import rasterio.vrt  # noqa: F401  what imports take is no part of the comparison

    items = stac.search(path)
    grid = cubefill.load(items, bands=BANDS, resolution=resolution).odc.geobox
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
    before = memory("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    if way == "cubefill":
        cubefill.load(items, bands=BANDS, geobox=grid).load()
    else:
        *names, scl = keys
        types = {**dict.fromkeys(names, "float32"), scl: "uint8"}
        assets = {k: {"data_type": t, "nodata": 0} for k, t in types.items()}
        ds = odc.stac.load(
            items,
            bands=list(keys),
            geobox=grid,
            groupby="solar_day",
            chunks=CHUNKS,
            resampling={scl: "nearest", "*": "bilinear"},
            stac_cfg={"*": {"assets": assets}},
        )
        (same_product(ds, keys) if way == WAYS[1] else ds).load()
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return [seconds, cpu, memory("VmHWM") - before]


def memory(what: str) -> float:
    """A figure of this process in MB, on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def same_product(ds: xr.Dataset, keys: Sequence[str]) -> xr.Dataset:
    """Reflectance, SCL and `valid`, where every item has the same offset."""
    *bands, scl = keys
    out = {b: (ds[b].where(ds[b] != 0) - np.float32(1000)) * np.float32(1e-4) for b in bands}
    return xr.Dataset({**out, "SCL": ds[scl], "valid": valid.from_scl(ds[scl])})


if __name__ == "__main__":
    main()
