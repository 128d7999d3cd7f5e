"""The plan before anything runs: needs against the cube, tiles, halo, bytes, tasks."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import xarray as xr

from cubefill.engine.memory import fitting, halo_of, scratch_of, tile_bytes
from cubefill.engine.request import Request, request
from cubefill.engine.work import Work
from cubefill.errors import PlanError
from cubefill.machine import Memory, budget_bytes, cores, refuse_above, size
from cubefill.methods import Method, Needs, Scratch
from cubefill.methods.windows import Axis, Near, Whole
from cubefill.store.encoding import encoding_of

TILES = (512, 256, 128, 64, 32, 16)
"""Edges of a tile that the planner tries, in pixels."""

JOB_TILES = (1024, 512, 256)
"""Edges of a job's tile, and of a shard of its target, that the planner tries."""

STEP = 256
"""Edge of the part of a job's tile that is filled at once where a method looks at single pixels."""


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
    """Edge of a tile of output in pixels; in a job one shard of the target."""
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
    """Bytes of one pass of a net, or of what a method holds beside its arrays."""
    passes: int = 0
    """Passes at once; a worker beyond them waits for its turn with its tile alone."""
    step: int | None = None
    """Edge of what a job fills at once within a tile; None for `gapfill`, which fills it whole."""

    @property
    def peak(self) -> int:
        """Peak bytes of all workers in one process."""
        return self.bytes_tile * self.workers + self.bytes_net

    @property
    def bytes_net(self) -> int:
        """Bytes of a net for all workers of a process: its weights, and the passes at once."""
        return self.bytes_once + self.bytes_pass * self.passes

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for machines."""
        rows = asdict(self)
        rows["needs"] = {k: str(v) for k, v in rows["needs"].items()}
        return {**rows, "peak": self.peak, "bytes_net": self.bytes_net}

    def __str__(self) -> str:
        if self.step is None:
            return "\n".join(f"{k:<9}{v}" for k, v in self._rows().items())
        return (
            f"{self.tiles} tiles of {self.tile} px in steps of {self.step} px; {self._workers} of "
            f"{size(self.memory)}"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in self._rows().items())
        return f"<table>{rows}</table>"

    @property
    def _workers(self) -> str:
        net = f" + {self._scratch} {size(self.bytes_net)}" if self.bytes_net else ""
        return f"{self.workers} workers x {size(self.bytes_tile)}{net}"

    @property
    def _scratch(self) -> str:
        """What to call that which is held beside the tiles."""
        return "net" if self.bytes_once else "scratch"

    def _rows(self) -> dict[str, str]:
        ny, nx = self.shape
        once = f"{size(self.bytes_once)} of weights once, " if self.bytes_once else ""
        passes = f"{self.passes} x {size(self.bytes_pass)}"
        rows = {
            "method": f"{self.method} -> {', '.join(self.gives)}",
            "needs": _needs_line(self.needs),
            "cube": f"{self.dates_in} dates x {ny} x {nx} px, {size(self.bytes_cube)}",
            "result": f"{self.dates_out} dates, {size(self.bytes_out)}",
            "tiles": f"{self.tiles} of {self.tile} px, halo {self.halo} px, {self.tasks} tasks",
            self._scratch: f"{once}{passes} of passes at once",
            "memory": f"{self._workers} = {size(self.peak)} of {size(self.memory)}",
        }
        return {k: v for k, v in rows.items() if self.bytes_net or k != self._scratch}


def plan(
    ds: xr.Dataset,
    method: str | Method | type[Method] = "auto",
    *,
    times: Any = None,
    valid: Any = None,
    std: bool = False,
    quantiles: Iterable[float] = (),
    tile: int | None = None,
    memory: Memory = None,
    workers: int | None = None,
    device: str = "auto",
    bands: Iterable[str] | str | None = None,
    **options: Any,
) -> Plan:
    """What a fill will read, hold and write, before it does.

    Parameters
    ----------
    ds
        A cube.
    method, times, valid, std, quantiles, device, bands, **options
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
    asked = request(
        ds, method, times=times, valid=valid, std=std, quantiles=quantiles, device=device,
        bands=bands, options=options,
    )  # fmt: skip
    return plan_work(asked, tile=tile, memory=memory, workers=workers)


def plan_work(
    asked: Request,
    *,
    tile: int | None = None,
    memory: Memory = None,
    workers: int | None = None,
    job: bool = False,
) -> Plan:
    """The plan of a checked request; of a job, which writes its tiles to a store, with `job`.

    Raises
    ------
    PlanError
        The smallest tile does not fit the budget; the message gives both numbers.
    """
    work = asked.work
    budget, most = budget_bytes(memory), workers or cores()

    def cost(edge: int) -> tuple[int, Scratch]:
        step = _step(work, edge) if job else edge
        held = _held(asked, edge) if job else 0
        return held + tile_bytes(work, step), scratch_of(work, step)

    edge = _edge(work, tile, job)
    edge = edge or _choose(work, JOB_TILES if job else TILES, budget, most, cost)
    needed, scratch = cost(edge)
    refuse_above(needed + scratch.of(1), budget, edge, tile)
    total = _count(work.shape, edge)
    at_work = fitting(min(most, total), budget, needed, scratch)
    n_in, n_out = len(work.axes.given), len(work.axes.out)
    pixels = work.shape[0] * work.shape[1]
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
        tasks=total if job else total * (1 + len(work.outputs)),
        workers=at_work,
        bytes_cube=n_in * pixels * (4 * len(work.bands) + 1),
        bytes_out=n_out * pixels * sum(d.itemsize for d in work.outputs.values()),
        bytes_tile=needed,
        memory=budget,
        bytes_once=scratch.once,
        bytes_pass=scratch.each,
        passes=min(at_work, scratch.passes) if scratch.each else 0,
        step=_step(work, edge) if job else None,
    )


def _edge(work: Work, tile: int | None, job: bool) -> int | None:
    """The tile that the caller or the method asks for; None leaves the choice."""
    if tile is not None and tile < 1:
        raise PlanError(f"tile={tile}: expected a number of pixels, 1 or more. Pass tile=256.")
    whole = isinstance(work.method.needs.space, Whole) and not job
    return max(work.shape) if whole else tile


def _choose(
    work: Work,
    edges: tuple[int, ...],
    budget: int,
    workers: int,
    cost: Callable[[int], tuple[int, Scratch]],
) -> int:
    """The largest tile that fits the budget and gives every worker one."""
    space = work.method.needs.space
    keep = 1 if isinstance(space, Whole) else space.keep
    wide = [e for e in edges if e >= keep] or edges[:1]
    for edge in wide[:-1]:
        needed, scratch = cost(edge)
        # smaller tiles than 256 px cost more than an idle worker
        busy = _count(work.shape, edge) >= min(workers, _count(work.shape, 256))
        if busy and needed * workers + scratch.of(workers) <= budget:
            return edge
    return wide[-1]


def _count(shape: tuple[int, int], edge: int) -> int:
    return -(-shape[0] // edge) * -(-shape[1] // edge)


def _step(work: Work, edge: int) -> int:
    space = work.method.needs.space
    if isinstance(space, Whole):
        return max(work.shape)
    return min(edge, STEP if space.pointwise else 2 * STEP)


def _held(asked: Request, edge: int) -> int:
    """Bytes of a tile that is about to be written: encoded, and twice its largest variable."""
    work = asked.work
    ny, nx = (min(edge, n) for n in work.shape)
    each = [encoding_of(n, d).dtype.itemsize for n, d in work.outputs.items()]
    each += [v.dtype.itemsize for v in asked.carried.values() if {"y", "x"} <= set(v.dims)]
    return len(work.axes.out) * ny * nx * (sum(each) + 2 * max(each))


def _needs_line(needs: Needs) -> str:
    def axis(a: Axis) -> str:
        if isinstance(a, Whole):
            return "whole"
        if isinstance(a, Near):
            return f"{a.reach} px around"
        return "pixel by pixel" if a.pointwise else f"{a.size} px, keeps {a.keep}"

    extra = [n for n, on in (("SAR", needs.sar), ("DEM", needs.dem)) if on]
    time = axis(needs.time).replace("px", "dates").replace("pixel by pixel", "date by date")
    return "; ".join(
        [", ".join(needs.bands) or "any band", f"time {time}", f"space {axis(needs.space)}", *extra]
    )
