"""Pixels of assets on the grid of a cube: read late, exactly, and never silently missing."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import ReadError
from cubefill.stac.faults import explain
from cubefill.stac.grid import Fit, Grid, Window, fit

log = logging.getLogger("cubefill")

GDAL_ENV: dict[str, str] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}
"""Settings of GDAL for reads; a variable of the process environment wins."""

MISSING = np.float32(np.inf)
"""Stands in an array of floats for pixels whose read failed, until it becomes `source_missing`."""

MISSING_CLASS = 255
"""The same in an array of SCL classes."""

TOLERANCE = 1e-6
"""Largest error in pixels of a reprojection, so that values do not depend on chunks."""

Float = NDArray[np.float32]
OnError = Literal["raise", "flag"]


@dataclass(frozen=True)
class Source:
    """One asset, and how its counts become values: `(count + counts) * scale`."""

    href: str
    """Empty where the item lacks the asset."""
    item: str
    asset: str
    band: str
    date: str
    counts: float = 0.0
    scale: float = 1.0
    nodata: tuple[float, ...] = ()
    grid: Grid | None = None
    """Where the asset lies, if its metadata says so."""

    def __str__(self) -> str:
        return f"asset {self.asset!r} ({self.band}) of item {self.item} of {self.date}"


@dataclass(frozen=True)
class How:
    """How assets are read."""

    resampling: str = "bilinear"
    on_error: OnError = "raise"
    sign: Callable[[str], str] | None = None
    decibel: bool = False
    """Turns linear power into dB, values of 0 and below into NaN."""
    overviews: bool = True


Steps = Sequence[Sequence[Source]]


def read_mosaic(sources: Sequence[Source], grid: Grid, how: How) -> Float:
    """Values of one time step on a grid, NaN where no source has data.

    Where sources overlap the first that has data counts. With `on_error="flag"`, pixels of a
    source that could not be read are `MISSING` unless another source has data there.

    Raises
    ------
    ReadError
        A source cannot be read and `on_error` is "raise".
    """
    out = np.full(grid.shape, np.nan, np.float32)
    failed = np.zeros(grid.shape, bool)
    for source in sources:
        roi = _reach(source, grid)
        holes = np.isnan(out)
        if roi is None or not holes[roi].any():
            continue
        try:
            values = read_one(source, grid, how)
        except ReadError as error:
            if how.on_error == "raise":
                raise
            log.warning("flagged as source_missing: %s", error)
            failed[roi] = True
            continue
        np.copyto(out, values, where=holes)
    if how.decibel:
        out = decibel(out)
    out[failed & np.isnan(out)] = MISSING
    return out


def read_one(source: Source, grid: Grid, how: How) -> Float:
    """Values of one asset on a grid, NaN outside it and where it has no data.

    Where pixels of the asset coincide with pixels of the grid they are copied, not resampled.

    Raises
    ------
    ReadError
        The asset is absent or cannot be read; names item, asset and date.
    """
    import rasterio.errors

    if not source.href:
        raise ReadError(f"Missing {source}: the item does not have it.")
    errors: tuple[type[Exception], ...] = (
        rasterio.errors.RasterioError,
        rasterio.errors.RasterioIOError,
        OSError,
        ValueError,
    )
    first = None
    for _ in range(2 if how.sign else 1):
        href = how.sign(source.href) if how.sign else source.href
        try:
            with gdal_env():
                return _read(source, href, grid, how)
        except errors as error:
            first = first or error
            _forget(href)
    assert first is not None
    retries = os.environ.get("GDAL_HTTP_MAX_RETRY", GDAL_ENV["GDAL_HTTP_MAX_RETRY"])
    raise ReadError(
        explain(str(source), href, str(first), retries)
    )  # no cause: GDAL's does not unpickle


@contextmanager
def gdal_env() -> Iterator[None]:
    """GDAL with retries and time limits, within the block."""
    import rasterio

    options = {k: os.environ.get(k, v) for k, v in GDAL_ENV.items()}
    with rasterio.Env(**options):
        yield


def _forget(href: str) -> None:
    """Makes GDAL ask again at the next read: it remembers what failed in this process."""
    import rasterio

    if not href.startswith(("http://", "https://")):
        return
    with (
        rasterio.Env(CPL_VSIL_CURL_NON_CACHED="/vsicurl/http", GDAL_HTTP_MAX_RETRY="0"),
        suppress(rasterio.errors.RasterioError),
        rasterio.open(href, driver=driver_of(href), sharing=False),
    ):
        pass


def decibel(power: Float) -> Float:
    """`10 log10` of linear power; NaN where it is 0, negative or absent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.float32(10) * np.log10(np.where(power > 0, power, np.nan))
    return out.astype(np.float32, copy=False)


def layer(name: str, steps: Steps, grid: Grid, chunk: int, how: How, halo: int = 0) -> Any:
    """Lazy values `(step, y, x)`: one task per step and spatial chunk, nothing read yet.

    With a halo every block also holds that many pixels around it, as far as the grid reaches;
    `crop` takes them off.
    """
    import dask.array as da

    wins, sizes = windows(grid.shape, chunk, halo)
    listed = np.empty((len(steps), 1, 1), object)
    for i, sources in enumerate(steps):
        listed[i, 0, 0] = tuple(sources)
    each: Any = da.from_array
    sources_array = each(listed, chunks=1, name=f"sources-{name}")
    windows_array = each(wins[None], chunks=1, name=f"windows-{name}")
    blocks: Any = da.map_blocks
    return blocks(
        partial(_block, grid=grid, how=how),
        sources_array,
        windows_array,
        chunks=((1,) * len(steps), *sizes),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        name=f"read-{name}",
    )


def crop(
    padded: Any,
    shape: tuple[int, int],
    chunk: int,
    halo: int,
    then: Callable[[Any], Any],
    dtype: Any,
) -> Any:
    """A lazy layer without its halo, after `then` was applied to every block with it."""
    import dask.array as da

    inner, sizes = windows(shape, chunk, 0)
    outer, _ = windows(shape, chunk, halo)
    cuts = np.empty((1, *inner.shape), object)
    for i in np.ndindex(inner.shape):
        cuts[(0, *i)] = tuple(
            slice(a.start - b.start, a.stop - b.start)
            for a, b in zip(inner[i], outer[i], strict=True)
        )
    each: Any = da.from_array
    blocks: Any = da.map_blocks
    return blocks(
        partial(_crop, then=then),
        padded,
        each(cuts, chunks=1, name=f"cuts-{shape}-{chunk}-{halo}"),
        chunks=(padded.chunks[0], *sizes),
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
    )


def windows(
    shape: tuple[int, int], chunk: int, halo: int
) -> tuple[NDArray[Any], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Windows of all chunks as an object array `(y, x)`, and their sizes along y and x."""
    rows, cols = (
        [slice(max(0, a - halo), min(n, a + chunk + halo)) for a in range(0, n, chunk)]
        for n in shape
    )
    out = np.empty((len(rows), len(cols)), object)
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            out[i, j] = (r, c)
    return out, (tuple(r.stop - r.start for r in rows), tuple(c.stop - c.start for c in cols))


def _block(sources: NDArray[Any], window: NDArray[Any], *, grid: Grid, how: How) -> Float:
    return read_mosaic(sources[0, 0, 0], grid[window[0, 0, 0]], how)[None]


def _crop(block: NDArray[Any], cut: NDArray[Any], *, then: Callable[[Any], Any]) -> NDArray[Any]:
    out: NDArray[Any] = then(block)[:, *cut[0, 0, 0]]
    return out


# ------------------------------------------------------------------ one asset


def _read(source: Source, href: str, grid: Grid, how: How) -> Float:
    import rasterio

    out = np.full(grid.shape, np.nan, np.float32)
    options: dict[str, Any] = {"driver": driver_of(href), "sharing": False}
    with rasterio.open(href, **options) as file:
        native = _grid_of(file)
        found = fit(native, grid)
        if found is None:
            return out
        level = _overview(file.overviews(1), found.shrink) if how.overviews else None
        if level is None:
            _fill(out, file, native, grid, found, source, how)
            return out
    with rasterio.open(href, overview_level=level, **options) as file:
        native = _grid_of(file)
        found = fit(native, grid)
        if found is not None:
            _fill(out, file, native, grid, found, source, how)
    return out


def driver_of(href: str) -> str:
    """The one GDAL driver an asset is opened with: neither of the two can name other files."""
    jp2 = urlsplit(href).path.lower().endswith((".jp2", ".j2k"))
    return "JP2OpenJPEG" if jp2 else "GTiff"


def _grid_of(file: Any) -> Grid:
    if file.crs is None:
        raise ValueError("the file has no CRS")
    return Grid(file.crs.to_string(), tuple(file.transform)[:6], (file.height, file.width))


def _fill(
    out: Float, file: Any, native: Grid, grid: Grid, found: Fit, source: Source, how: How
) -> None:
    """Writes an asset's values into `out`: copied where grids agree, else warped."""
    if found.exact:
        out[found.target] = _values(file, found.source, source)
        return
    pad = 2 * ceil(max(1.0, found.shrink)) + 2
    rows, cols = (
        slice(max(0, s.start - pad), min(n, s.stop + pad))
        for s, n in zip(found.source, native.shape, strict=True)
    )
    values = _values(file, (rows, cols), source)
    out[:] = _warp(values, native[rows, cols], grid, how.resampling, found.shrink)


def _warp(values: Float, source: Grid, grid: Grid, resampling: str, shrink: float) -> Float:
    """Values on another grid; NaN neither spreads nor is averaged in.

    GDAL would guess the ratio of pixel sizes from each window; given, it is the same for all.
    """
    from affine import Affine
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile
    from rasterio.vrt import WarpedVRT

    def profile(g: Grid) -> dict[str, Any]:
        rows, cols = g.shape
        return {"height": rows, "width": cols, "crs": g.crs, "transform": Affine(*g.transform)}

    with MemoryFile() as memory:
        kind = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan}
        with memory.open(**kind, **profile(source)) as file:
            file.write(values, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                src_nodata=np.nan,
                nodata=np.nan,
                resampling=Resampling[resampling],
                tolerance=TOLERANCE,
                XSCALE=str(1 / shrink),
                YSCALE=str(1 / shrink),
                **profile(grid),
            ) as warped,
        ):
            out: Float = warped.read(1)
            return out


def _values(file: Any, roi: Window, source: Source) -> Float:
    """Values of a window, scaled, NaN where there is no data."""
    from rasterio.windows import Window as RasterWindow

    raw = file.read(1, window=RasterWindow.from_slices(*roi))
    absent = [*source.nodata, *(v for v in (file.nodata,) if v is not None)]
    values: Float = raw.astype(np.float32)
    if source.counts:
        values += np.float32(source.counts)
    if source.scale != 1.0:
        values *= np.float32(source.scale)
    for value in absent:
        if not np.isnan(value):
            values[raw == value] = np.nan
    return values


def _overview(factors: Sequence[int], shrink: float) -> int | None:
    """The coarsest overview that is not coarser than asked for."""
    fits = [i for i, f in enumerate(factors) if f <= shrink * (1 + 1e-6)]
    return fits[-1] if fits else None


def _reach(source: Source, grid: Grid) -> Window | None:
    """Where on a grid a source can have data, or None; the whole grid where it is not known."""
    if source.grid is None:
        return grid.everything
    found = fit(source.grid, grid)
    return found.target if found else None
