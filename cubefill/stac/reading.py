"""Pixels of assets on the grid of a cube: read late, exactly, and never silently missing."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from cubefill.addresses import bare
from cubefill.cube.bands import SAR_BANDS
from cubefill.errors import ReadError
from cubefill.stac.grid import GridFit, Window, everything, fit, grid_of, part
from cubefill.stac.items import FROM_FILE

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
OnError = Literal["raise", "flag", "skip"]


@dataclass(frozen=True)
class Asset:
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
    grid: Any | None = None
    """Where the asset lies, if its metadata says so."""
    rule: str = ""
    """Which metadata gave counts and scale; `FROM_FILE` where the file itself has the last word."""
    zarr: bool = False
    guessed: bool = False
    """True where no metadata says type or scale: the file must hold integers."""

    def __str__(self) -> str:
        return f"asset {self.asset!r} ({self.band}) of item {self.item} of {self.date}"

    @property
    def classes(self) -> bool:
        """True where values are classes: nearest always, and never from an overview."""
        return self.band == "SCL"

    @property
    def decibel(self) -> bool:
        """True where linear power becomes dB."""
        return self.band in SAR_BANDS


@dataclass(frozen=True)
class ReadOptions:
    """How assets are read."""

    resampling: str = "bilinear"
    on_error: OnError = "raise"
    sign: Callable[[str], str] | None = None


Steps = Sequence[Sequence[Asset]]


def read_mosaic(
    assets: Sequence[Asset], grid: Any, options: ReadOptions, dtype: Any = np.float32
) -> NDArray[Any]:
    """Values of one time step on a grid, no data where no asset has any.

    Where assets overlap the first that has data counts.

    Raises
    ------
    ReadError
        An asset cannot be read and `on_error` is "raise".
    """
    out = None
    for asset in assets:
        roi = reach(asset, grid)
        if roi is None or (out is not None and not holes(out[roi]).any()):
            continue
        values = as_type(read_part(asset, grid, options)[1], dtype)
        if out is None and values.shape == grid.shape:
            out = values
            continue
        out = blank(grid.shape, dtype) if out is None else out
        fuse(out[roi], values)
    return blank(grid.shape, dtype) if out is None else out


def blank(shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """No data: NaN among floats, 0 among classes."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0, dtype)


def read_part(asset: Asset, grid: Any, options: ReadOptions) -> tuple[Window, NDArray[Any]]:
    """The window of a grid that an asset can reach, and its values there.

    Where it cannot be read: `MISSING` with `on_error="flag"`, nothing with "skip".

    Raises
    ------
    ReadError
        The asset cannot be read and `on_error` is "raise".
    """
    roi = reach(asset, grid)
    if roi is None:
        return (slice(0, 0), slice(0, 0)), np.empty((0, 0), np.float32)
    place = part(grid, roi)
    try:
        return roi, read_one(asset, place, options)
    except ReadError as error:
        if options.on_error == "raise":
            raise
        flag = options.on_error == "flag"
        log.warning("%s: %s", "flagged as source_missing" if flag else "left out", error)
        return roi, np.full(place.shape, MISSING if flag else np.nan, np.float32)


def fuse(out: NDArray[Any], values: NDArray[Any]) -> None:
    """Writes values where `out` has none; a failed read gives way to any value."""
    known = ~np.isnan(values) if values.dtype.kind == "f" else values != 0
    np.copyto(out, values, where=holes(out) & known)


def holes(out: NDArray[Any]) -> NDArray[np.bool_]:
    """Where an array of floats or classes has no data, or a failed read."""
    if out.dtype.kind == "f":
        return ~np.isfinite(out)
    return (out == 0) | (out == MISSING_CLASS)


def as_type(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Values as they are, or floats as classes: 0 without data, `MISSING_CLASS` where missing."""
    if values.dtype.kind != "f" or np.dtype(dtype).kind == "f":
        return values.astype(dtype, copy=False)
    out = np.zeros(values.shape, dtype)
    np.copyto(out, values, where=np.isfinite(values), casting="unsafe")
    out[np.isposinf(values)] = MISSING_CLASS
    return out


def read_one(asset: Asset, grid: Any, options: ReadOptions) -> NDArray[Any]:
    """Values of one asset on a grid, NaN outside it and where it has no data.

    Where pixels of the asset coincide with pixels of the grid they are copied, not resampled.

    Raises
    ------
    ReadError
        The asset is absent or cannot be read; names item, asset and date.
    """
    import rasterio.errors

    if not asset.href:
        raise ReadError(f"Missing {asset}: the item does not have it.")
    errors = (rasterio.errors.RasterioError, OSError, ValueError)
    first = None
    for _ in range(2 if options.sign else 1):
        href = options.sign(asset.href) if options.sign else asset.href
        try:
            with gdal_env():
                values = (_read_zarr if asset.zarr else _read)(asset, href, grid, options)
            return decibel(values) if asset.decibel else values
        except errors as error:
            first = first or error
            if not asset.zarr:
                _forget(href)
    assert first is not None
    retries = os.environ.get("GDAL_HTTP_MAX_RETRY", GDAL_ENV["GDAL_HTTP_MAX_RETRY"])
    # No cause: GDAL's does not unpickle.
    raise ReadError(explain(str(asset), href, str(first), retries))


@contextmanager
def gdal_env(settings: Mapping[str, str] | None = None) -> Iterator[None]:
    """GDAL with retries and time limits, or with other settings, within the block."""
    import rasterio

    with rasterio.Env(**(settings or {k: os.environ.get(k, v) for k, v in GDAL_ENV.items()})):
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


def layer(
    name: str,
    steps: Steps,
    grid: Any,
    chunk: tuple[int, int],
    options: ReadOptions,
    halo: int = 0,
    dtype: Any = np.float32,
) -> Any:
    """Lazy values `(step, y, x)`: one task per step and spatial chunk, nothing read yet.

    With a halo every block also holds that many pixels around it, as far as the grid reaches;
    `crop` takes them off.
    """
    import dask.array as da

    wins, sizes = windows(grid.shape, chunk, halo)
    listed = np.empty((len(steps), 1, 1), object)
    for i, assets in enumerate(steps):
        listed[i, 0, 0] = tuple(assets)
    each: Any = da.from_array
    blocks: Any = da.map_blocks
    return blocks(
        partial(_block, grid=grid, options=options, dtype=dtype),
        each(listed, chunks=1, name=f"assets-{name}"),
        each(wins[None], chunks=1, name=f"windows-{name}"),
        chunks=((1,) * len(steps), *sizes),
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
        name=f"read-{name}",
    )


def crop(
    padded: Any,
    shape: tuple[int, int],
    chunk: tuple[int, int],
    halo: int,
    then: Callable[[Any], Any],
    dtype: Any,
) -> Any:
    """A lazy layer without its halo, after `then` was applied to every block with it."""
    import dask.array as da

    inner, sizes = windows(shape, chunk, 0)
    cuts = np.empty((1, *inner.shape), object)
    for i in np.ndindex(inner.shape):
        first = [min(s.start, halo) for s in inner[i]]
        cuts[(0, *i)] = tuple(
            slice(k, k + s.stop - s.start) for k, s in zip(first, inner[i], strict=True)
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
    shape: tuple[int, int], chunk: tuple[int, int], halo: int
) -> tuple[NDArray[Any], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Windows of all chunks as an object array `(y, x)`, and their sizes along y and x."""
    rows, cols = (
        [slice(max(0, a - halo), min(n, a + step + halo)) for a in range(0, n, step)]
        for n, step in zip(shape, chunk, strict=True)
    )
    out = np.empty((len(rows), len(cols)), object)
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            out[i, j] = (r, c)
    return out, (tuple(r.stop - r.start for r in rows), tuple(c.stop - c.start for c in cols))


def _block(
    assets: NDArray[Any], window: NDArray[Any], *, grid: Any, options: ReadOptions, dtype: Any
) -> NDArray[Any]:
    return read_mosaic(assets[0, 0, 0], part(grid, window[0, 0, 0]), options, dtype)[None]


def _crop(block: NDArray[Any], cut: NDArray[Any], *, then: Callable[[Any], Any]) -> NDArray[Any]:
    out: NDArray[Any] = then(block)[:, *cut[0, 0, 0]]
    return out


# ------------------------------------------------------------------ one asset


def _read(asset: Asset, href: str, grid: Any, options: ReadOptions) -> NDArray[Any]:
    import rasterio

    kind: dict[str, Any] = {"driver": driver_of(href), "sharing": False}
    with rasterio.open(href, **kind) as file:
        native = _grid_of(file)
        found = fit(native, grid)
        level = _overview(file.overviews(1), found.shrink) if found and not asset.classes else None
        if found is None or level is None:
            return _values_on(file, native, grid, found, asset, options)
    with rasterio.open(href, overview_level=level, **kind) as file:
        native = _grid_of(file)
        return _values_on(file, native, grid, fit(native, grid), asset, options)


def _read_zarr(asset: Asset, href: str, grid: Any, options: ReadOptions) -> NDArray[Any]:
    from cubefill.stac.zarrfile import ZarrFile

    try:
        file = ZarrFile.opened(href, asset.grid)
        scale, counts = file.scaling if asset.rule == FROM_FILE else (asset.scale, asset.counts)
        known = replace(asset, scale=scale, counts=counts)
        return _values_on(file, file.grid, grid, fit(file.grid, grid), known, options)
    except Exception as error:  # stores and codecs raise classes of their own
        raise ValueError(f"{type(error).__name__}: {error}") from None


def driver_of(href: str) -> str:
    """The one GDAL driver an asset is opened with: neither of the two can name other files."""
    jp2 = urlsplit(href).path.lower().endswith((".jp2", ".j2k"))
    return "JP2OpenJPEG" if jp2 else "GTiff"


def _grid_of(file: Any) -> Any:
    if file.crs is None:
        raise ValueError("the file has no CRS")
    return grid_of(file.crs.to_string(), file.transform, file.shape)


def _values_on(
    file: Any, native: Any, grid: Any, found: GridFit | None, asset: Asset, options: ReadOptions
) -> NDArray[Any]:
    """An asset's values on a grid: copied where grids agree, else warped."""
    if found is None or found.exact:
        values = _values(file, found.source, asset) if found else None
        if values is not None and values.shape == grid.shape:
            return values
        out = blank(grid.shape, np.uint8 if asset.classes else np.float32)
        if found is not None:
            out[found.target] = values
        return out
    pad = 2 * ceil(max(1.0, found.shrink)) + 2
    rows, cols = (
        slice(max(0, s.start - pad), min(n, s.stop + pad))
        for s, n in zip(found.source, native.shape, strict=True)
    )
    values = _values(file, (rows, cols), asset)
    method = "nearest" if asset.classes else options.resampling
    return _warp(values, part(native, (rows, cols)), grid, method, found.shrink)


def _warp(
    values: NDArray[Any], source: Any, grid: Any, resampling: str, shrink: float
) -> NDArray[Any]:
    """Values on another grid; NaN neither spreads nor is averaged in.

    GDAL would guess the ratio of pixel sizes from each window; given, it is the same for all.
    """
    from rasterio.enums import Resampling
    from rasterio.io import MemoryFile
    from rasterio.vrt import WarpedVRT

    def profile(g: Any) -> dict[str, Any]:
        rows, cols = g.shape
        return {"height": rows, "width": cols, "crs": str(g.crs), "transform": g.affine}

    with MemoryFile() as memory:
        nodata = np.nan if values.dtype.kind == "f" else 0
        kind = {"driver": "GTiff", "count": 1, "dtype": values.dtype.name, "nodata": nodata}
        with memory.open(**kind, **profile(source)) as file:
            file.write(values, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                src_nodata=nodata,
                nodata=nodata,
                resampling=Resampling[resampling],
                tolerance=TOLERANCE,
                XSCALE=str(1 / shrink),
                YSCALE=str(1 / shrink),
                **profile(grid),
            ) as warped,
        ):
            out: NDArray[Any] = warped.read(1)
            return out


def _values(file: Any, roi: Window, asset: Asset) -> NDArray[Any]:
    """Values of a window, scaled, NaN where there is no data; classes as they are, or 0."""
    from rasterio.windows import Window as RasterWindow

    raw = file.read(1, window=RasterWindow.from_slices(*roi))
    if asset.guessed and raw.dtype.kind == "f":
        raise ValueError(
            f"the file holds {raw.dtype} and nothing says its scale: expected raster:bands with "
            "data_type and scale. Use item.assets[key].extra_fields['raster:bands'] = "
            "[{'data_type': 'float32', 'scale': 1}] where it is reflectance"
        )
    absent = {*asset.nodata, *(v for v in (file.nodata,) if v is not None)}
    if asset.classes:
        known = np.isfinite(raw) & ~np.isin(raw, list(absent))
        return np.where(known, raw, 0).astype(np.uint8, copy=False)
    values: Float = raw.astype(np.float32)
    if asset.counts:
        values += np.float32(asset.counts)
    if asset.scale != 1.0:
        values *= np.float32(asset.scale)
    for value in absent:
        if not np.isnan(value):
            np.copyto(values, np.float32(np.nan), where=raw == value)
    return values


def _overview(factors: Sequence[int], shrink: float) -> int | None:
    """The coarsest overview that is not coarser than asked for."""
    fits = [i for i, f in enumerate(factors) if f <= shrink * (1 + 1e-6)]
    return fits[-1] if fits else None


def reach(asset: Asset, grid: Any) -> Window | None:
    """Where on a grid a source can have data, or None; the whole grid where it is not known."""
    if asset.grid is None:
        return everything(grid)
    found = fit(asset.grid, grid)
    return found.target if found else None


# ------------------------------------------------------------------ why it failed


def explain(what: str, href: str, error: str, retries: str) -> str:
    """Why a read failed, what the server says to it, and what to do."""
    said = bare(" ".join(error.split()))[:300]
    if href.startswith(("http://", "https://")):
        said = f"{_answer(href)}; {said}"
    tried = f" after {retries} retries" if "HTTP 5" in said or "HTTP 429" in said else ""
    return (
        f"Could not read {what}{tried}: {said}. Address: {bare(href)}. Run it again to "
        "resume, pass sign= where URLs expire, or on_error='flag' to mark such pixels as "
        "source_missing."
    )


def _answer(href: str) -> str:
    """What a server says to one small request: its status and the type of what it sends."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(href, headers={"Range": "bytes=0-15"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            sort = reply.headers.get("Content-Type", "no type")
            return f"the server answers HTTP {reply.status} with {sort}"
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server answers HTTP {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"the server does not answer ({bare(str(error))})"
