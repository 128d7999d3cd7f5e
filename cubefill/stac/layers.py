"""What the readers of one cube share: its grid, how it reads, and the assets it reads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from cubefill.cube.bands import BANDS
from cubefill.errors import CatalogueError
from cubefill.stac.area import Area, native_grid
from cubefill.stac.grid import Grid
from cubefill.stac.items import Harmonize, band_info, find_asset, listed, offset_of, when
from cubefill.stac.reading import How, Source


@dataclass(frozen=True)
class Plan:
    """What the readers of one cube share."""

    grid: Grid
    how: How
    chunk: int
    harmonize: Harmonize
    covered: Area
    """The grid's outline in degrees."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.grid.shape

    @property
    def step(self) -> float:
        """Pixel size in m."""
        return abs(self.grid.transform[0])

    @property
    def flagged(self) -> bool:
        """True when a failed read becomes `source_missing`."""
        return self.how.on_error == "flag"


def source_of(item: Any, band: str, plan: Plan) -> Source:
    """The asset of a band in an item, with its offset; without href where the item lacks it."""
    found = find_asset(item, band, plan.step)
    date = str(when(item).astype("datetime64[s]"))
    if found is None:
        return Source("", item.id, "none", band, date)
    key, asset = found
    info = band_info(asset)
    said = info.get("nodata")
    nodata = {float(said)} if isinstance(said, int | float) else set()
    counts, scale = 0.0, 1.0
    if band in BANDS:
        offset = offset_of(item, asset, plan.harmonize)
        counts, scale = offset.counts, offset.scale
        if not str(info.get("data_type", "")).startswith("float"):
            nodata.add(0.0)
    grid = native_grid(item, asset)
    return Source(asset.href, item.id, key, band, date, counts, scale, tuple(sorted(nodata)), grid)


def refuse_absent(steps: dict[str, list[list[Source]]], days: list[list[Any]]) -> None:
    """Raises CatalogueError, with items and band, where an item lacks an asset."""
    for band, sources in steps.items():
        absent = [s.item for day in sources for s in day if not s.href]
        if absent:
            item = next(i for day in days for i in day if i.id == absent[0])
            raise CatalogueError(
                f"{len(absent)} items have no asset for {band} ({listed(absent)}); {item.id} has "
                f"{', '.join(sorted(item.assets)) or 'no assets'}. Leave {band} out of bands=, or "
                "pass on_error='flag' to mark these dates as source_missing."
            )


def split(raw: Any, plan: Plan) -> tuple[Any, Any]:
    """Values, and where their read failed."""
    if not plan.flagged:
        return raw, None
    meta = np.empty((0, 0, 0), np.float32)
    values = raw.map_blocks(_no_infinity, dtype=np.float32, meta=meta)
    return values, raw.map_blocks(np.isposinf, dtype=bool, meta=np.empty((0, 0, 0), bool))


def _no_infinity(block: Any) -> Any:
    return np.where(np.isposinf(block), np.float32(np.nan), block)


def variable(
    plan: Plan, data: Any, name: str, attrs: dict[str, Any] | None = None, dim: str = "time"
) -> xr.Variable:
    """A variable on `(dim, y, x)` of the cube, tied to its CRS."""
    said = {"long_name": name, **(attrs or {})}
    return xr.Variable((dim, "y", "x"), data, said, {"grid_mapping": "spatial_ref"})


def token(name: str, sources: list[list[Source]], plan: Plan, *more: Any) -> str:
    """A name for a layer: equal for equal sources, grid and options."""
    keys = [[(s.href, s.item, s.counts, s.scale, s.nodata) for s in day] for day in sources]
    return f"{name}-{tokenize(keys, repr(plan.grid), plan.chunk, repr(plan.how), *more)}"
