"""The plan before anything runs: needs against the cube, tiles, halo, bytes, tasks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import xarray as xr

from cubefill import cube as cubes
from cubefill.cube import valid as validity
from cubefill.cube.axes import time_axes
from cubefill.cube.bands import COHERENCE, SAR_BANDS, canonical
from cubefill.engine.memory import fitting, scratch_of
from cubefill.engine.memory import halo_of as halo_of
from cubefill.engine.memory import tile_bytes as tile_bytes
from cubefill.engine.work import Work
from cubefill.errors import CubefillError, DeviceError, MethodError, PlanError
from cubefill.imports import import_module
from cubefill.machine import Memory, budget_bytes, cores, refuse_above, size
from cubefill.methods import Method, Needs, name_of, options_of, resolve, table, traits
from cubefill.methods.windows import Axis, Span, Whole
from cubefill.store import source

TILES = (512, 256, 128, 64, 32, 16)
"""Area edges that the planner tries, in pixels."""


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
    """Peak bytes of one worker, without what all share."""
    memory: int
    """Budget in bytes."""
    bytes_once: int = 0
    """Bytes held once for all workers of a process: the weights of a net."""
    bytes_pass: int = 0
    """Bytes of one pass of a net."""
    passes: int = 0
    """Passes at once; a worker beyond them waits for its turn with its tile alone."""

    @property
    def peak(self) -> int:
        """Peak bytes of all workers in one process."""
        return self.bytes_tile * self.workers + self._net

    @property
    def _net(self) -> int:
        return self.bytes_once + self.bytes_pass * self.passes

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
        shared = f" + net {size(self._net)}" if self._net else ""
        net = f"{size(self.bytes_once)} of weights once, {self.passes} x {size(self.bytes_pass)}"
        rows = {
            "method": f"{self.method} -> {', '.join(self.gives)}",
            "needs": _needs_line(self.needs),
            "cube": f"{self.dates_in} dates x {ny} x {nx} px, {size(self.bytes_cube)}",
            "result": f"{self.dates_out} dates, {size(self.bytes_out)}",
            "tiles": f"{self.tiles} of {self.tile} px, halo {self.halo} px, {self.tasks} tasks",
            "net": f"{net} of passes at once",
            "memory": f"{self.workers} workers x {size(self.bytes_tile)}{shared} = "
            f"{size(self.peak)} of {size(self.memory)}",
        }
        return rows if self._net else {k: v for k, v in rows.items() if k != "net"}


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
    bands = bands_of(ds, needs, name_of(chosen))
    what = traits(chosen, bands)
    if std and not what.gives_std:
        raise MethodError(
            f"Method {name_of(chosen)!r} gives no standard deviation: expected std=False. "
            "Use ds.gapfill('linear', std=True) for a method that does."
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
    needed, scratch = tile_bytes(work, edge), scratch_of(work, edge)
    refuse_above(needed + scratch.of(1), budget, edge, tile)
    total = _count(work.shape, edge)
    at_work = fitting(min(count, total), budget, needed, scratch)
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
        workers=at_work,
        bytes_cube=n_in * ny * nx * (4 * len(work.bands) + 1),
        bytes_out=n_out * ny * nx * sum(d.itemsize for d in work.outputs.values()),
        bytes_tile=needed,
        memory=budget,
        bytes_once=scratch.once,
        bytes_pass=scratch.each,
        passes=min(at_work, scratch.passes) if scratch.each else 0,
    )


def _choose(work: Work, tile: int | None, budget: int, workers: int) -> int:
    space = work.method.needs.space
    if isinstance(space, Whole):
        return max(work.shape)
    if tile is not None:
        if tile < 1:
            raise PlanError(f"tile={tile}: expected a number of pixels, 1 or more. Pass tile=256.")
        return int(tile)
    smallest = next((t for t in reversed(TILES) if t >= space.keep), TILES[0])
    for edge in TILES:
        fits = tile_bytes(work, edge) * workers + scratch_of(work, edge).of(workers) <= budget
        if edge >= smallest and fits and (_count(work.shape, edge) >= workers or edge <= 256):
            return edge
    return smallest


def _count(shape: tuple[int, int], edge: int) -> int:
    return -(-shape[0] // edge) * -(-shape[1] // edge)


def bands_of(ds: xr.Dataset, needs: Needs, name: str) -> tuple[str, ...]:
    """Bands of a cube that a method is given.

    Raises
    ------
    MethodError
        A band, Sentinel-1 or elevation is missing; the message says what would do without.
    """
    found = cubes.spectral(ds)
    missing = [b for b in needs.bands if b not in found]
    if missing:
        raise MethodError(
            f"Method {name!r} needs band {', '.join(missing)}; the cube has {', '.join(found)}. "
            f"{_band_advice(found, missing)}"
        )
    if needs.sar:
        _check_sar(ds, name)
    if needs.coherence and not set(COHERENCE) <= set(ds.data_vars):
        raise MethodError(
            f"Method {name!r} needs coherence of Sentinel-1: the cube lacks "
            f"{', '.join(n for n in COHERENCE if n not in ds.data_vars)} (0 to 1, on time, y and "
            "x). Pass assumed_coherence=0.3 to take that value everywhere, or train a net without "
            "it ([config] coherence = false)."
        )
    if needs.dem and ("DEM" not in ds or set(ds["DEM"].dims) != {"y", "x"}):
        came = f"has it on {', '.join(map(str, ds['DEM'].dims))}" if "DEM" in ds else "has none"
        raise MethodError(
            f"Method {name!r} needs DEM on y and x: the cube {came}. Load it with dem=True."
        )
    return needs.bands or found


def _band_advice(found: tuple[str, ...], missing: list[str]) -> str:
    """What to type to get bands that a cube lacks."""
    foreign = [n for n in found if canonical(n) in missing]
    if len(foreign) == len(missing):
        return f"Use cubefill.cube.conform(ds) to rename {', '.join(foreign)}."
    if "NDVI" in missing:
        return "Fill the cube, then use cubefill.cube.indices.with_ndvi(filled)."
    return f"Load it with bands={(*found, *missing)!r}."


def _check_sar(ds: xr.Dataset, name: str) -> None:
    """Refuses a cube without Sentinel-1 on its own dates; says which methods do without."""
    wanted = (*SAR_BANDS, "sar_valid")
    lacking = [n for n in wanted if n not in ds.data_vars]
    apart = [n for n in wanted if n not in lacking and set(ds[n].dims) != {"time", "y", "x"}]
    if not lacking and not apart:
        return
    came = f"lacks {', '.join(lacking)}"
    if len(lacking) == len(wanted):
        came = "has no Sentinel-1"
    elif apart:
        came = f"has {apart[0]} on {', '.join(map(str, ds[apart[0]].dims))}"
    takes = _has_sar_config(name)
    family = f", or train {name!r} without it ([config] sar = false)" if takes else ""
    raise MethodError(
        f"Method {name!r} needs VV, VH and sar_valid on time: the cube {came}. Load it with "
        f"sar=True{family}, or choose a method that needs none: {', '.join(_without_sar())}."
    )


def _has_sar_config(name: str) -> bool:
    """True where the net of a method can be built without SAR."""
    if name not in table():
        return False
    config = getattr(type(resolve(name)), "Config", None)
    return is_dataclass(config) and "sar" in [f.name for f in fields(config)]


def _without_sar() -> list[str]:
    """Names of the methods that fill without SAR; those that need options are left out."""
    names = []
    for name in table():
        try:
            needed = resolve(name).needs
        except (CubefillError, TypeError):
            continue
        if not needed.sar:
            names.append(name)
    return names


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
        torch = import_module("torch")
        kind = device.split(":")[0]
        mps = torch.backends.mps
        present: dict[str, Any] = {"cuda": torch.cuda.is_available, "mps": mps.is_available}
        if kind not in present:
            raise DeviceError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'mps'.")
        if not present[kind]():
            raise DeviceError(
                f"device={device!r}: this machine has no such accelerator for torch. "
                "Pass device='auto' to use what is there."
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
