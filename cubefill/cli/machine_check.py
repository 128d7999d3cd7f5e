"""What this machine offers to cubefill, one line per finding, each with its fix."""

import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cubefill.machine import cores

CORE = (
    "cubefill",
    "numpy",
    "xarray",
    "dask",
    "zarr",
    "numba",
    "torch",
    "pystac-client",
    "odc-stac",
    "rasterio",
)
"""Packages that every installation has."""

EXTRAS = {"matplotlib": "viz", "pillow": "viz", "distributed": "distributed"}
"""Optional packages and the extra that installs them."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What was looked at."""
    ok: bool
    """False where something is absent or will hurt."""
    found: str
    """What was found."""
    fix: str = ""
    """What to type, where `ok` is False."""

    def __str__(self) -> str:
        line = f"{'ok' if self.ok else 'warn':<5} {self.name}: {self.found}"
        return f"{line}\n      fix: {self.fix}" if self.fix else line


def examine() -> list[Finding]:
    """Findings on versions, cores, memory, disk, torch, GDAL, the numba cache and codecs.

    Examples
    --------
    >>> any(f.name == "cores" and f.ok for f in examine())
    True
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _machine,
        _torch,
        _gdal,
        _numba_cache,
        _codecs,
    )
    return [finding for check in checks for finding in check()]


def warm(names: str) -> Iterator[Finding]:
    """A finding for each method whose kernels are now compiled: a small cube was filled with it.

    Reflectance in memory and counts from store to store, with errors where the method gives them.

    Parameters
    ----------
    names
        Methods with commas between them, or "all" for those that need no checkpoint.

    Raises
    ------
    MethodError
        No method has such a name.
    """
    import cubefill
    from cubefill.methods import resolve
    from cubefill.testing import synthetic_cube

    chosen = names.split(",")
    if names == "all":
        chosen = [n for n, row in cubefill.list_methods().items() if row["kind"] == "classical"]
    methods = {name: resolve(name) for name in chosen}
    cube = synthetic_cube(size=(16, 16))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = f"{folder}/cube.zarr"
        cubefill.write_cube(cube, source)
        for name, method in methods.items():
            start = time.perf_counter()
            std = bool(getattr(method, "gives_std", False))
            cubefill.gapfill(cube, method, std=std).compute()
            cubefill.run(source, f"{folder}/{name}.zarr", method)
            took = time.perf_counter() - start
            yield Finding(f"kernels of {name}", True, f"ready after {took:.1f} s")


def _python() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Iterator[Finding]:
    for name, extra in {**dict.fromkeys(CORE, ""), **EXTRAS}.items():
        found, optional = _version(name), " (optional)" if extra else ""
        fix = f"pip install 'cubefill[{extra}]'" if extra else f"pip install {name}"
        what = found or f"not installed{optional}"
        yield Finding(name, found is not None, what, "" if found else fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    yield Finding("cores", True, str(cores()))
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    small = total < 4e9
    yield Finding(
        "memory",
        not small,
        f"{total / 1e9:.1f} GB",
        "pass --memory 1GB so that tiles get smaller" if small else "",
    )
    free = shutil.disk_usage(Path.cwd()).free
    full = free < 5e9
    yield Finding(
        "disk",
        not full,
        f"{free / 1e9:.1f} GB free in {Path.cwd()}",
        "write stores to another disk" if full else "",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = f"pip install {'--force-reinstall ' if _version('torch') else ''}torch"
        yield Finding("torch devices", False, f"{error} (learned methods need it)", fix)
        return
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    yield Finding("torch devices", True, ", ".join(["cpu", *names]))


def _gdal() -> Iterator[Finding]:
    try:
        import rasterio
        from rasterio.drivers import raster_driver_extensions
    except (ImportError, OSError) as error:
        fix = "pip install --force-reinstall rasterio"
        yield Finding("GDAL", False, str(error), fix)
        return
    drivers = set(raster_driver_extensions().values())
    wanted = {"GTiff", "JP2OpenJPEG"} - drivers
    yield Finding(
        "GDAL",
        not wanted,
        rasterio.__gdal_version__ + (f", without {', '.join(sorted(wanted))}" if wanted else ""),
        "conda install -c conda-forge libgdal-jp2openjpeg" if wanted else "",
    )


def _numba_cache() -> Iterator[Finding]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(chosen) if chosen else Path(__file__).parents[1] / "methods/pixel/__pycache__"
    writable = _writable(folder)
    yield Finding(
        "numba cache",
        writable,
        f"{folder} is {'writable' if writable else 'not writable'}",
        "" if writable else "export NUMBA_CACHE_DIR=~/.cache/cubefill",
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _codecs() -> Iterator[Finding]:
    import numpy as np
    import zarr
    from zarr.codecs import BloscCodec

    data = np.arange(64, dtype=np.int16).reshape(8, 8)
    try:
        array = zarr.create_array(
            zarr.storage.MemoryStore(),
            data=data,
            chunks=(4, 4),
            shards=(8, 8),
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        )
        good = bool(np.array_equal(np.asarray(array[:]), data))
        found = "blosc zstd in shards" if good else "a round trip changed values"
    except (ImportError, RuntimeError, ValueError) as error:
        good, found = False, str(error)
    yield Finding("codecs", good, found, "" if good else "pip install --upgrade zarr numcodecs")
