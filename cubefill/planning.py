"""The plan before anything runs: needs against the cube, tiles, halo, bytes, tasks."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import xarray as xr

from cubefill import cube as cubes
from cubefill import source
from cubefill import valid as validity
from cubefill.axes import time_axes
from cubefill.bands import COHERENCE, SAR_BANDS
from cubefill.budget import Memory, budget_bytes, refuse_above, size
from cubefill.errors import DeviceError, MethodError, PlanError
from cubefill.method import Method, Needs, name_of, options_of, resolve, traits
from cubefill.tiles import region
from cubefill.windows import Axis, Span, Whole
from cubefill.work import Area, Work

TILES = (512, 256, 128, 64, 32, 16)
"""Area edges that the planner tries, in pixels."""

BASE_BYTES = 64 * 2**20
"""Scratch of one worker beside its arrays."""


@dataclass(frozen=True)
class Plan:
    """What a fill will do: printed by `ds.gapfill.plan(...)`, checked before a pixel is read."""

    method: str
    needs: Needs
    gives: tuple[str, ...]
    dates_in: int
    dates_out: int
    shape: tuple[int, int]
    tile: int
    """Edge of a tile of output in pixels."""
    tiles: int
    halo: int
    """Pixels read beyond a tile on each side."""
    tasks: int
    """Tasks of the lazy graph: one a tile, and one an output variable and tile."""
    workers: int
    bytes_cube: int
    """Bytes of the cube in memory as float32."""
    bytes_out: int
    """Bytes of the result in memory."""
    bytes_tile: int
    """Peak bytes of one worker."""
    memory: int
    """Budget in bytes."""

    @property
    def peak(self) -> int:
        """Peak bytes of all workers."""
        return self.bytes_tile * self.workers

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for machines."""
        rows = asdict(self)
        rows["needs"] = {k: str(v) for k, v in rows["needs"].items()}
        return {**rows, "peak": self.peak}

    def __str__(self) -> str:
        return "\n".join(f"{k:<9}{v}" for k, v in self._rows().items())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in self._rows().items())
        return f"<table>{rows}</table>"

    def _rows(self) -> dict[str, str]:
        ny, nx = self.shape
        return {
            "method": f"{self.method} -> {', '.join(self.gives)}",
            "needs": _needs_line(self.needs),
            "cube": f"{self.dates_in} dates x {ny} x {nx} px, {size(self.bytes_cube)}",
            "result": f"{self.dates_out} dates, {size(self.bytes_out)}",
            "tiles": f"{self.tiles} of {self.tile} px, halo {self.halo} px, {self.tasks} tasks",
            "memory": f"{self.workers} workers x {size(self.bytes_tile)} = {size(self.peak)} "
            f"of {size(self.memory)}",
        }


@dataclass(frozen=True)
class Request:
    """A checked request: the kernel's work, and the cube's variables in kernel order."""

    work: Work
    ds: xr.Dataset
    """The caller's dataset."""
    variables: Mapping[str, xr.Variable]
    """What the method needs, transposed to `(time, y, x)`."""
    name: str


def request(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
) -> Request:
    """Checks a cube against what a method needs; reads no pixel of a lazy cube.

    Raises
    ------
    CubeError, MethodError, DeviceError
        What is missing or wrong, and what to type.
    """
    cubes.check(ds)
    chosen = _on_device(resolve(method, **dict(options or {})), device)
    getattr(chosen, "ready", lambda: None)()
    needs = chosen.needs
    bands = _bands(ds, needs, name_of(chosen))
    what = traits(chosen, bands)
    if std and not what.gives_std:
        raise MethodError(
            f"Method {name_of(chosen)!r} gives no standard deviation: expected std=False. "
            "Type ds.gapfill('linear', std=True) for a method that does."
        )
    axes = time_axes(ds["time"].values, times)
    _check_lengths(needs, len(axes.groups), name_of(chosen))
    variables = _variables(ds, needs, bands, valid)
    found = {n: source.find(v) for n, v in variables.items()}
    shape = (ds.sizes["y"], ds.sizes["x"])
    work = Work(chosen, what, bands, shape, axes, found, std)
    return Request(work, ds, variables, name_of(chosen))


def plan(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    tile: int | None = None,
    memory: Memory = None,
    workers: int | None = None,
    device: str = "auto",
    **options: Any,
) -> Plan:
    """What a fill will read, hold and write, before it does.

    Parameters
    ----------
    ds
        A cube.
    method, times, valid, std, device, **options
        As for `gapfill`.
    tile
        Edge of a tile in pixels; chosen to fit the memory where None.
    memory
        Budget of all workers, "4GB" or bytes; None for 60 % of the memory that is free.
    workers
        Tiles at work at once; None for the number of cores.

    Raises
    ------
    PlanError
        The smallest tile does not fit the budget; the message gives both numbers.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> plan(synthetic_cube(), "linear", memory="1GB").tiles
    1
    """
    asked = request(ds, method, times=times, valid=valid, std=std, device=device, options=options)
    return plan_work(asked, tile=tile, memory=memory, workers=workers)


def plan_work(
    asked: Request, *, tile: int | None = None, memory: Memory = None, workers: int | None = None
) -> Plan:
    """The plan of a checked request."""
    work = asked.work
    budget, count = budget_bytes(memory), workers or cores()
    edge = _choose(work, tile, budget, count)
    needed = tile_bytes(work, edge)
    refuse_above(needed, budget, edge, tile)
    total = _count(work.shape, edge)
    ny, nx = work.shape
    n_in, n_out = len(work.axes.given), len(work.axes.out)
    return Plan(
        method=asked.name,
        needs=work.method.needs,
        gives=tuple(work.outputs),
        dates_in=n_in,
        dates_out=n_out,
        shape=work.shape,
        tile=edge,
        tiles=total,
        halo=halo_of(work.method.needs.space),
        tasks=total * (1 + len(work.outputs)),
        workers=max(1, min(count, total, budget // needed)),
        bytes_cube=n_in * ny * nx * (4 * len(work.bands) + 1),
        bytes_out=n_out * ny * nx * sum(d.itemsize for d in work.outputs.values()),
        bytes_tile=needed,
        memory=budget,
    )


def tile_bytes(work: Work, edge: int) -> int:
    """Peak bytes of one worker on a tile: what it reads, what it gives, its windows, scratch."""
    ny, nx = (min(edge, n) for n in work.shape)
    where = region(work, Area(slice(0, ny), slice(0, nx)))
    halo = halo_of(work.method.needs.space)
    ry, rx = (min(n, r + halo) for n, r in zip(work.shape, where.shape, strict=True))
    n_in, n_out = len(work.axes.given), len(work.axes.out)
    cell = 2 if work.counts else 4
    read = sum(_read_bytes(work, n, cell) for n in work.sources)
    copies = 1 if work.axes.plain_in else 2
    out = sum(d.itemsize for d in work.outputs.values())
    space = work.method.needs.space
    window = 0
    if isinstance(space, Whole) or not space.pointwise:
        edge = max(ny, nx) if isinstance(space, Whole) else space.size
        window = (
            8 * n_in * len(work.bands) * 4 * min(edge, ry) * min(edge, rx) + out * n_out * ny * nx
        )
    return BASE_BYTES + read * copies * n_in * ry * rx + out * n_out * ny * nx + window


def _read_bytes(work: Work, name: str, cell: int) -> int:
    if isinstance(work.sources[name], source.ArraySource):
        return 0
    return cell if name in work.bands else 1 if name.endswith("valid") else 4


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def halo_of(space: Axis) -> int:
    """Pixels read beyond a tile on each side."""
    if isinstance(space, Whole) or space.pointwise:
        return 0
    return space.size - 1 if space.blend == "linear" else space.keep - 1 + (space.halo + 1) // 2


def _choose(work: Work, tile: int | None, budget: int, workers: int) -> int:
    space = work.method.needs.space
    if isinstance(space, Whole):
        return max(work.shape)
    if tile is not None:
        if tile < 1:
            raise PlanError(f"tile={tile}: expected a number of pixels, 1 or more. Type tile=256.")
        return int(tile)
    smallest = next((t for t in reversed(TILES) if t >= space.keep), TILES[0])
    for edge in TILES:
        fits = tile_bytes(work, edge) * workers <= budget
        if edge >= smallest and fits and (_count(work.shape, edge) >= workers or edge <= 256):
            return edge
    return smallest


def _count(shape: tuple[int, int], edge: int) -> int:
    return -(-shape[0] // edge) * -(-shape[1] // edge)


def _bands(ds: xr.Dataset, needs: Needs, name: str) -> tuple[str, ...]:
    found = cubes.spectral(ds)
    missing = [b for b in needs.bands if b not in found]
    if missing:
        raise MethodError(
            f"Method {name!r} needs band {', '.join(missing)}; the cube has {', '.join(found)}. "
            f"Load it with bands={(*found, *missing)!r}."
        )
    if needs.sar and not {"VV", "VH", "sar_valid"} <= set(ds.data_vars):
        raise MethodError(
            f"Method {name!r} needs VV, VH and sar_valid on time: the cube has no Sentinel-1. "
            "Load it with sar=True, or choose a method without SAR (cubefill.list_methods())."
        )
    if needs.dem and "DEM" not in ds:
        raise MethodError(f"Method {name!r} needs DEM: the cube has none. Load it with dem=True.")
    return needs.bands or found


def _check_lengths(needs: Needs, dates: int, name: str) -> None:
    least = needs.time.size if isinstance(needs.time, Span) else 1
    least = max(least, needs.min_dates)
    if dates < least:
        raise MethodError(
            f"Method {name!r} needs {least} distinct dates; the cube has {dates}. "
            "Load a longer period, or choose another method (cubefill.list_methods())."
        )


def _variables(
    ds: xr.Dataset, needs: Needs, bands: tuple[str, ...], valid: Any
) -> dict[str, xr.Variable]:
    order = ("time", "y", "x")
    chosen = {b: ds[b] for b in bands}
    chosen["valid"] = validity.apply(ds, valid)
    if needs.sar:
        chosen |= {n: ds[n] for n in (*SAR_BANDS, *COHERENCE) if n in ds}
    if "source_missing" in ds:
        chosen["source_missing"] = ds["source_missing"]
    variables = {n: v.variable.transpose(*order) for n, v in chosen.items()}
    if needs.dem:
        variables["DEM"] = ds["DEM"].variable.transpose("y", "x")
    return variables


def _on_device(method: Any, device: str) -> Method:
    if device not in ("auto", "cpu"):
        import torch

        kind = device.split(":")[0]
        mps = torch.backends.mps
        present: dict[str, Any] = {"cuda": torch.cuda.is_available, "mps": mps.is_available}
        if kind not in present:
            raise DeviceError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'mps'.")
        if not present[kind]():
            raise DeviceError(
                f"device={device!r}: this machine has no such accelerator for torch. "
                "Type device='auto' to use what is there."
            )
    takes = is_dataclass(method) and "device" in options_of(type(method))
    chosen: Method = replace(method, device=device) if takes and device != "auto" else method
    return chosen


def _needs_line(needs: Needs) -> str:
    def axis(a: Axis) -> str:
        if isinstance(a, Whole):
            return "whole"
        return "pixel by pixel" if a.pointwise else f"{a.size} px, keeps {a.keep}"

    extra = [n for n, on in (("SAR", needs.sar), ("DEM", needs.dem)) if on]
    time = axis(needs.time).replace("px", "dates").replace("pixel by pixel", "date by date")
    return "; ".join(
        [", ".join(needs.bands) or "any band", f"time {time}", f"space {axis(needs.space)}", *extra]
    )
