"""What this machine gives a fill: cores and memory; sizes in words."""

import math
import os
from pathlib import Path

from cubefill.errors import PlanError

Memory = str | int | float | None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def refuse_above(needed: int, budget: int, edge: int, tile: int | None) -> None:
    """Raises `PlanError` with both numbers where a tile does not fit the budget."""
    if needed > budget:
        fix = f"a smaller tile= than {tile}, or " if tile else ""
        raise PlanError(
            f"A tile of {edge} px needs {size(needed)}; the memory budget is {size(budget)}. "
            f"Pass {fix}memory={size(needed, up=True)!r}, or choose fewer dates or bands."
        )


def budget_bytes(memory: Memory) -> int:
    """Bytes of a memory budget; None stands for 60 % of what is free now."""
    if memory is None:
        return int(0.6 * free_memory())
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(memory))
    except (ValueError, TypeError, OverflowError) as error:
        raise PlanError(
            f"memory={memory!r}: expected a size such as '4GB' or a number of bytes ({error})."
        ) from error


def free_memory() -> int:
    """Bytes that this process may take now, limits of its container included."""
    limits = [_meminfo()]
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit.isdigit():
            limits.append(int(limit) - int((cgroup / "memory.current").read_text()))
    except OSError:
        pass
    return max(min(limits), 0)


def _meminfo() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def size(n: float, *, up: bool = False) -> str:
    """Bytes in words: `1.23 GB`; with `up` rounded upwards in the form that can be typed."""
    power = 0
    while n >= 1000 and power < 4:
        n, power = n / 1000, power + 1
    unit = ("B", "kB", "MB", "GB", "TB")[power]
    return f"{math.ceil(n * 10) / 10:.1f}{unit}" if up else f"{n:.3g} {unit}"
