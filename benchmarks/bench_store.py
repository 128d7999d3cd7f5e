"""Codecs and layouts of a store, side by side on the same int16 counts; ratio first.

    python benchmarks/bench_store.py [--size 512] [--dates 60] [--data ../shared/data]

MB counts the int16 values. Reads come from the page cache: this is what codecs and Python cost.
The best of `--repeat` runs counts. The real patch is read from `stac_31UDS` when it is there.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import __version__ as numcodecs_version
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from cubefill.cube.counts import encode
from cubefill.simulate import scene
from cubefill.store.encoding import encoding_of

DEFAULT = "zstd-1 bitshuffle + crc32c"


def blosc(name: Any, level: int, shuffle: Any) -> BloscCodec:
    return BloscCodec(cname=name, clevel=level, shuffle=shuffle)


CODECS: dict[str, tuple[Any, ...]] = {
    DEFAULT: (blosc("zstd", 1, "bitshuffle"), Crc32cCodec()),
    "zstd-1 bitshuffle": (blosc("zstd", 1, "bitshuffle"),),
    "lz4-5 bitshuffle + crc32c": (blosc("lz4", 5, "bitshuffle"), Crc32cCodec()),
    "zstd-3 shuffle + crc32c": (blosc("zstd", 3, "shuffle"), Crc32cCodec()),
    "zstd-3 bitshuffle + crc32c": (blosc("zstd", 3, "bitshuffle"), Crc32cCodec()),
    "plain zstd-0 (zarr default)": (ZstdCodec(level=0),),
    "none + crc32c": (Crc32cCodec(),),
    "none": (),
}

LAYOUTS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int] | None]] = {
    "256 in shards of 512": ((0, 256, 256), (0, 512, 512)),
    "256, no shards": ((0, 256, 256), None),
    "128 in shards of 512": ((0, 128, 128), (0, 512, 512)),
    "64 in shards of 512": ((0, 64, 64), (0, 512, 512)),
    "512, no shards": ((0, 512, 512), None),
    "one date of 512": ((1, 512, 512), None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dates", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--data", type=Path, default=default_data())
    given = parser.parse_args()
    context(given)
    cubes = {"simulated": simulated(given.size, given.dates)}
    if (given.data / "stac_31UDS").is_dir():
        cubes["stac_31UDS"] = real(given.data / "stac_31UDS")
    for name, counts in cubes.items():
        share = float((counts == -32768).mean())
        print(
            f"\n## {name}: {counts.shape} int16, {counts.nbytes / 1e6:.0f} MB, {share:.0%} nodata"
        )
        table("codec", codecs(counts, given.repeat))
    print(f"\n## layouts on simulated, {DEFAULT}")
    table("chunk", layouts(cubes["simulated"], given.repeat))


def default_data() -> Path:
    root = Path(__file__).parents[1]
    return Path(os.environ.get("CUBEFILL_DATA", root.parent / "shared" / "data"))


def context(given: argparse.Namespace) -> None:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    print(f"python {platform.python_version()}, numpy {np.__version__}, zarr {zarr.__version__}")
    print(f"numcodecs {numcodecs_version}; {model}, {os.cpu_count()} cores, {platform.system()}")
    print(f"load {os.getloadavg()[0]:.1f}; best of {given.repeat}")


def simulated(size: int, dates: int) -> NDArray[Any]:
    """Bands B04 and B08 of a simulated scene, `(band, time, y, x)`."""
    cube = scene(size=size, dates=dates, bands=("B04", "B08"), sar=False, dem=False).cube
    return np.stack(
        [encode(cube[b].values, encoding_of(b, cube[b].dtype))[0] for b in ("B04", "B08")]
    )


def real(folder: Path) -> NDArray[Any]:
    """Bands B02 B03 B04 B08 of the patch, `(band, time, y, x)`."""
    import rasterio

    bands = []
    for band in ("B02", "B03", "B04", "B08"):
        pages = []
        for path in sorted((folder / "sentinel-2-l2a").glob(f"*/{band}.tif")):
            with rasterio.open(path) as file:
                page = file.read(1).astype(np.int32)
            pages.append(np.where(page == 0, -32768, page).astype(np.int16))
        bands.append(np.stack(pages))
    return np.stack(bands)


def codecs(counts: NDArray[Any], repeat: int) -> Iterator[tuple[str, dict[str, float]]]:
    _, steps, rows, columns = counts.shape
    chunks = (1, steps, min(256, rows), min(256, columns))
    for name, chain in CODECS.items():
        yield name, measure(counts, chunks, (1, steps, rows, columns), chain, repeat)


def layouts(counts: NDArray[Any], repeat: int) -> Iterator[tuple[str, dict[str, float]]]:
    for name, (chunk, shard) in LAYOUTS.items():
        whole = [(1, c[0] or counts.shape[1], *c[1:]) for c in (chunk, shard) if c is not None]
        shards = whole[1] if shard is not None else None
        yield name, measure(counts, whole[0], shards, CODECS[DEFAULT], repeat)


def measure(
    counts: NDArray[Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    chain: tuple[Any, ...],
    repeat: int,
) -> dict[str, float]:
    folder = tempfile.mkdtemp()
    try:
        array = zarr.create_array(
            folder,
            shape=counts.shape,
            dtype=counts.dtype,
            chunks=chunks,
            shards=shards,
            compressors=chain or None,
            fill_value=-32768,
            overwrite=True,
            config={"write_empty_chunks": True},
        )
        megabytes = counts.nbytes / 1e6

        def write() -> None:
            array[:] = counts

        wall_write, cpu_write = best(write, repeat)
        wall_read, cpu_read = best(lambda: array[:], repeat)
        series, _ = best(lambda: array[0, :, 9, 11], repeat)
        date, _ = best(lambda: array[0, 3], repeat)
        if not np.array_equal(np.asarray(array[:]), counts):
            raise RuntimeError("a store changed its values")
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        return {
            "ratio": counts.nbytes / sum(f.stat().st_size for f in files),
            "write MB/CPU-s": megabytes / cpu_write,
            "read MB/CPU-s": megabytes / cpu_read,
            "write MB/s": megabytes / wall_write,
            "read MB/s": megabytes / wall_read,
            "series ms": series * 1e3,
            "date ms": date * 1e3,
            "files": len(files) - 1,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def best(action: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """Least wall seconds and least CPU seconds."""
    wall, cpu = [], []
    for _ in range(repeat):
        start, used = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return min(wall), max(min(cpu), 1e-9)


def table(first: str, rows: Iterator[tuple[str, dict[str, float]]]) -> None:
    for i, (name, found) in enumerate(rows):
        if i == 0:
            print(f"| {first} | " + " | ".join(found) + " |\n|" + " --- |" * (len(found) + 1))
        cells = (
            f"{v:.2f}" if k == "ratio" else f"{v:.0f}" if v >= 10 or k == "files" else f"{v:.1f}"
            for k, v in found.items()
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
