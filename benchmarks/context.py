"""What a figure was measured on: no figure without it."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("cubefill", "numpy", "numba", "llvmlite", "xarray", "dask", "zarr", "scipy", "torch")


def context(*packages: str) -> dict[str, Any]:
    """When, on what machine, with which versions; `packages` are added to the usual ones."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "command": " ".join(sys.argv),
        "cpu": _cpu(),
        "cores": cores,
        "memory_gb": _memory_gb(),
        "load": [round(v, 2) for v in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {p: v for p in (*PACKAGES, *packages) if (v := _version(p))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    found = {k.strip(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
    flags = found.get("flags", "").split()
    wide = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return f"{found.get('model name', 'unknown')} {wide}".strip()


def _memory_gb() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return float("nan")


def show(rows: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Prints figures by title and name, or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for title, row in rows.items():
        print(f"\n{title}")
        for name, value in row.items():
            if isinstance(value, Mapping):
                print(f"  {name}", *(f"    {n:<38}{v}" for n, v in value.items()), sep="\n")
            else:
                print(f"  {name:<40}{value}")
