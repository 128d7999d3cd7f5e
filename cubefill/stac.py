"""From STAC items to a lazy cube: Sentinel-2, Sentinel-1 and elevation on one grid."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize

from cubefill import valid as clear_pixels
from cubefill.bands import BANDS, require
from cubefill.errors import CatalogueError, CubefillWarning
from cubefill.stac_area import (
    Area,
    area,
    check_grid,
    choose_crs,
    choose_grid,
    crs_of_item,
    extent,
    native_grid,
    outline,
    quiet,
)
from cubefill.stac_grid import Grid
from cubefill.stac_items import (
    Dropped,
    Harmonize,
    band_info,
    baseline,
    find_asset,
    kind,
    listed,
    offset_of,
    orbit_of,
    passes,
    resolve_duplicates,
    solar_days,
    summary,
    when,
)
from cubefill.stac_read import MISSING_CLASS, How, OnError, Source, crop, layer, read_mosaic
from cubefill.stac_safe import from_safe
from cubefill.stac_search import Items, search
from cubefill.stac_write import QUIRKS, write_catalogue
from cubefill.valid import UserValid

log = logging.getLogger("cubefill")

Sar = bool | Literal["own"]
Orbit = Literal["ascending", "descending"]

CHUNK = 1024
"""Pixels of a spatial chunk: one shard of the default store."""

RESAMPLING = (
    "nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "med",
)  # fmt: skip
"""What bands may be resampled by; SCL is always nearest."""


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


def load(
    items: Any,
    *,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
    resolution: float = 10.0,
    crs: Any = None,
    geobox: Any = None,
    sar: Sar = False,
    sar_orbit: Orbit | None = None,
    dem: bool = False,
    valid: UserValid | None = None,
    snow: bool = False,
    dilate: float = 30.0,
    clear: Iterable[int] = clear_pixels.CLEAR,
    harmonize: Harmonize = True,
    resampling: str = "bilinear",
    on_error: OnError = "raise",
    sign: Callable[[str], str] | None = None,
    chunks: int = CHUNK,
) -> xr.Dataset:
    """A lazy cube of reflectance, one time step per solar day; reads no pixel.

    Offsets of the processing baseline are taken off per item, copies of an acquisition are left
    out, and granules of one solar day become one mosaic. Cloudy values stay; `valid` says which
    pixels are clear.

    Parameters
    ----------
    items
        What `search` returned, or anything that `search` takes.
    bbox, geometry
        The area in degrees; by default that of the search, else all items. The grid is the
        rectangle around it.
    bands
        Bands by any catalogue's name. SCL is always read.
    resolution
        Pixel size in m.
    crs
        A projected CRS; by default that of the items, or, where they differ, the UTM zone of the
        area's centre, else of most items.
    geobox
        The exact grid (`odc.geo.geobox.GeoBox`), in place of area, resolution and crs.
    sar
        True adds VV and VH in dB from the nearest acquisition to each date, with `sar_valid` and
        the coordinate `sar_gap_hours` (hours between the two, not signed); "own" keeps their
        dates on `sar_time`, with the coordinate `orbit`.
    sar_orbit
        Takes only ascending or descending passes.
    dem
        Adds DEM in m.
    valid
        The user's own clear pixels, see `cubefill.valid.apply`; by default from SCL.
    snow, dilate, clear
        How `valid` comes from SCL, see `cubefill.valid.from_scl`.
    harmonize
        True follows the metadata of each item; False adds no offset; a number is the counts to
        add to every item; a function gives them for an item.
    resampling
        For assets that do not lie on the grid: `bilinear`, `nearest`, `cubic`, `average`. Pixels
        that coincide with the grid are copied. SCL is always nearest.
    on_error
        "raise" stops at an asset that is absent or cannot be read; "flag" marks its pixels in
        `source_missing` and takes them out of `valid`.
    sign
        Function from href to signed href, called at every read.
    chunks
        Pixels of a spatial chunk; a chunk holds one time step.

    Returns
    -------
    xr.Dataset
        dims (time, y, x), y descending; `time` is the UTC time of the first item of the day.

    Raises
    ------
    CatalogueError
        No items, none in the area, a band or SCL that items lack, no SAR or DEM among them.
    CubeError
        An unknown band, or a grid that is not in metres.
    ReadError
        While computing: an asset cannot be read; names item, asset and date.

    Examples
    --------
    >>> load([])
    Traceback (most recent call last):
        ...
    cubefill.errors.CatalogueError: No items to load: expected Sentinel-2 L2A items...
    """
    names = _band_names(bands, resampling, on_error)
    found = _items(items)
    where = area(bbox, geometry) or (found.area if geobox is None else None)
    groups = {k: [i for i in found if kind(i) == k] for k in ("optical", "sar", "dem")}
    inside, left_out = _optical(found, groups["optical"], where)
    box, said = _grid(inside, where, geobox, resolution, crs, (*names, "SCL"))
    covered = outline(box)
    inside, outside = _on_grid(inside, box, covered)
    how = How(resampling=resampling, on_error=on_error, sign=sign or found.sign)
    plan = Plan(Grid.of(box), how, int(chunks), harmonize, covered)
    days = solar_days(inside, covered.centre[0])
    ds = _empty(box, days)
    with_scl = _has_scl(days, plan, required=valid is None)
    ds, missing = _add_bands(ds, plan, days, names)
    if with_scl:
        ds, missing = _add_scl(ds, plan, days, missing, (snow, dilate, tuple(clear)))
    if plan.flagged:
        ds["source_missing"] = _variable(plan, missing, "an asset could not be read here")
    ds = _add_valid(ds, valid)
    if sar:
        ds = _add_sar(ds, plan, groups["sar"], sar_orbit, own=sar == "own", found=found)
    if dem:
        ds = _add_dem(ds, plan, groups["dem"], found)
    ds.attrs = _attributes(plan, days, said, harmonize, names, [*left_out, *outside], resampling)
    log.info("%s", ds.attrs["history"])
    return ds


# ------------------------------------------------------------------ which items, which grid


def _band_names(bands: Sequence[str], resampling: str, on_error: str) -> tuple[str, ...]:
    given = (bands,) if isinstance(bands, str) else bands
    names = tuple(dict.fromkeys(require(b) for b in given))
    spectral = tuple(n for n in names if n in BANDS)
    other = [n for n in names if n not in BANDS and n != "SCL"]
    if other:
        option = "dem=True" if other == ["DEM"] else "sar=True"
        raise CatalogueError(
            f"bands={list(given)}: expected bands of Sentinel-2, got {', '.join(other)}. "
            f"Type {option}."
        )
    if not spectral:
        raise CatalogueError("bands is empty: expected at least one, such as bands=('B04', 'B08').")
    if resampling not in RESAMPLING:
        raise CatalogueError(f"resampling={resampling!r}: expected one of {', '.join(RESAMPLING)}.")
    if on_error not in ("raise", "flag"):
        raise CatalogueError(f"on_error={on_error!r}: expected 'raise' or 'flag'.")
    return spectral


def _items(items: Any) -> Items:
    if isinstance(items, Items) and items:
        return items
    if hasattr(items, "__len__") and len(items) == 0:
        raise CatalogueError(
            "No items to load: expected Sentinel-2 L2A items. Type "
            "items = cubefill.search(url, bbox=..., datetime=...) and see print(items.report())."
        )
    return search(items)


def _optical(
    found: Items, optical: list[Any], where: Area | None
) -> tuple[list[Any], list[Dropped]]:
    if not optical:
        raise CatalogueError(
            f"No Sentinel-2 L2A item among {len(found)} items ({summary(found)}): expected assets "
            "such as B04 or red, and SCL. Type collections=['sentinel-2-l2a'] in search."
        )
    inside = [i for i in optical if where is None or where.meets(i)]
    if where is not None and not inside:
        raise CatalogueError(
            f"All {len(optical)} Sentinel-2 items lie outside bbox {where.bounds}: they span "
            f"{extent(optical)}. Type bbox=None to load all of them."
        )
    return resolve_duplicates(inside)


def _grid(
    items: list[Any],
    where: Area | None,
    geobox: Any,
    resolution: float,
    crs: Any,
    bands: Sequence[str],
) -> tuple[Any, str]:
    if geobox is not None:
        grid = check_grid(geobox)
        return grid, choose_crs(items, grid.crs, where)[1]
    chosen, said = choose_crs(items, crs, where)
    log.info("CRS %s", said)
    return choose_grid(items, chosen, float(resolution), where, bands), said


def _on_grid(items: list[Any], geobox: Any, covered: Area) -> tuple[list[Any], list[Dropped]]:
    """Items that reach the grid; those known to lie off it are left out."""
    inside = [i for i in items if covered.meets(i)]
    if not inside:
        raise CatalogueError(
            f"No item reaches the grid {geobox.boundingbox.bbox} in {geobox.crs}: items span "
            f"{extent(items)}. Check bbox= and geobox=."
        )
    kept = {id(i) for i in inside}
    return inside, [Dropped(i.id, "outside the grid") for i in items if id(i) not in kept]


# ------------------------------------------------------------------ Sentinel-2


def _has_scl(days: list[list[Any]], plan: Plan, *, required: bool) -> bool:
    items = [i for day in days for i in day]
    without = [i.id for i in items if find_asset(i, "SCL", plan.step) is None]
    if without and required and not plan.flagged:
        raise CatalogueError(
            f"{len(without)} of {len(items)} items have no SCL ({listed(without)}), so nothing "
            "says which pixels are clear. Type valid=your_function (of the cube, True where "
            "clear), or on_error='flag' where some items have it."
        )
    if len(without) == len(items) and required:
        raise CatalogueError(
            "No item has SCL, so nothing says which pixels are clear: type valid=your_function."
        )
    return len(without) < len(items) and (required or not without)


def _add_bands(
    ds: xr.Dataset, plan: Plan, days: list[list[Any]], names: tuple[str, ...]
) -> tuple[xr.Dataset, Any]:
    """The dataset with its bands, and where a read failed (None unless flagged)."""
    steps = {n: [[_source(i, n, plan) for i in day] for day in days] for n in names}
    if not plan.flagged:
        _refuse_absent(steps, days)
    missing = None
    for name, sources in steps.items():
        raw = layer(_token(name, sources, plan), sources, plan.grid, plan.chunk, plan.how)
        data, failed = _split(raw, plan)
        missing = failed if missing is None else missing | failed
        ds[name] = _variable(plan, data, f"Sentinel-2 {name}", _band_attributes(name))
    return ds, missing


def _add_scl(
    ds: xr.Dataset,
    plan: Plan,
    days: list[list[Any]],
    missing: Any,
    options: tuple[bool, float, tuple[int, ...]],
) -> tuple[xr.Dataset, Any]:
    """The dataset with SCL and with valid, made from blocks that hold the halo of the dilation."""
    snow, dilate, clear = options
    classes = clear_pixels.clear_classes(clear, snow)
    rows = clear_pixels.disk(dilate, plan.step, plan.step)
    halo = max(len(rows) - 1, rows[0])
    sources = [[_source(i, "SCL", plan) for i in day] for day in days]
    how = replace(plan.how, resampling="nearest", overviews=False)
    name = _token("SCL", sources, plan, halo)
    padded = layer(name, sources, plan.grid, plan.chunk, how, halo).map_blocks(
        _to_classes, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    cut = partial(crop, padded, plan.shape, plan.chunk, halo)
    find_clear = partial(clear_pixels.from_classes, classes=classes, rows=rows)
    clear_data = cut(find_clear, bool)
    scl = cut(_same, np.uint8)
    if plan.flagged:
        missing = missing | (scl == MISSING_CLASS)
        clear_data = clear_data & ~missing
        scl = scl.map_blocks(_no_missing, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    ds["SCL"] = _variable(plan, scl, "scene classification of Sen2Cor", _scl_attributes())
    said = clear_pixels.attributes(classes, dilate)
    ds["valid"] = _variable(plan, clear_data, said["long_name"], said)
    return ds, missing


def _add_valid(ds: xr.Dataset, valid: UserValid | None) -> xr.Dataset:
    if valid is None:
        return ds
    found = clear_pixels.apply(ds.drop_vars("valid", errors="ignore"), valid)
    if "source_missing" in ds:
        found = (found & ~ds["source_missing"]).assign_attrs(found.attrs)
    found.encoding["grid_mapping"] = "spatial_ref"
    return ds.assign(valid=found)


def _source(item: Any, band: str, plan: Plan) -> Source:
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


def _refuse_absent(steps: dict[str, list[list[Source]]], days: list[list[Any]]) -> None:
    for band, sources in steps.items():
        absent = [s.item for day in sources for s in day if not s.href]
        if absent:
            item = next(i for day in days for i in day if i.id == absent[0])
            raise CatalogueError(
                f"{len(absent)} items have no asset for {band} ({listed(absent)}); {item.id} has "
                f"{', '.join(sorted(item.assets)) or 'no assets'}. Leave {band} out of bands=, or "
                "type on_error='flag' to mark these dates as source_missing."
            )


def _split(raw: Any, plan: Plan) -> tuple[Any, Any]:
    """Values, and where their read failed."""
    if not plan.flagged:
        return raw, None
    meta = np.empty((0, 0, 0), np.float32)
    values = raw.map_blocks(_no_infinity, dtype=np.float32, meta=meta)
    return values, raw.map_blocks(np.isposinf, dtype=bool, meta=np.empty((0, 0, 0), bool))


def _same(block: Any) -> Any:
    return block


def _no_infinity(block: Any) -> Any:
    return np.where(np.isposinf(block), np.float32(np.nan), block)


def _no_missing(block: Any) -> Any:
    return np.where(block == MISSING_CLASS, np.uint8(0), block)


def _to_classes(block: Any) -> Any:
    """SCL as uint8: 0 where there is no data, `MISSING_CLASS` where the read failed."""
    out = np.zeros(block.shape, np.uint8)
    known = np.isfinite(block)
    out[known] = block[known].astype(np.uint8)
    out[np.isposinf(block)] = MISSING_CLASS
    return out


# ------------------------------------------------------------------ Sentinel-1 and elevation


def _add_sar(
    ds: xr.Dataset,
    plan: Plan,
    items: list[Any],
    orbit: Orbit | None,
    *,
    own: bool,
    found: Items,
) -> xr.Dataset:
    groups = passes(_sar_items(items, orbit, plan, found))
    times = np.array([when(g[0]) for g in groups])
    ds = ds.assign_coords(sar_time=times) if own else ds
    nearest = np.abs(times[None] - ds["time"].values[:, None]).argmin(axis=1)
    ok: Any = None
    for name in ("VV", "VH"):
        sources = [[_source(i, name, plan) for i in g] for g in groups]
        if not plan.flagged:
            _refuse_absent({name: sources}, groups)
        how = replace(plan.how, decibel=True)
        raw = layer(_token(name, sources, plan), sources, plan.grid, plan.chunk, how)
        data = _split(raw, plan)[0]
        data = data if own else data[nearest]
        ok = np.isfinite(data) if ok is None else ok & np.isfinite(data)
        said = {"long_name": f"Sentinel-1 gamma0 {name}", "units": "dB"}
        ds[name] = _variable(plan, data, said["long_name"], said, "sar_time" if own else "time")
    dim = "sar_time" if own else "time"
    ds["sar_valid"] = _variable(plan, ok, "VV and VH have data", None, dim)
    if own:
        return ds.assign_coords(orbit=("sar_time", np.array([orbit_of(g[0]) for g in groups])))
    gap = np.abs(times[nearest] - ds["time"].values) / np.timedelta64(1, "h")
    said = {"long_name": "hours between optical and SAR acquisition", "units": "h"}
    return ds.assign_coords(sar_gap_hours=("time", gap.astype(np.float32), said))


def _sar_items(items: list[Any], orbit: Orbit | None, plan: Plan, found: Items) -> list[Any]:
    if not items:
        raise CatalogueError(
            f"sar was asked for and there is no Sentinel-1 RTC item among {summary(found)}: "
            "expected assets vv and vh. Type collections=['sentinel-2-l2a', 'sentinel-1-rtc'] in "
            "search, or sar=False."
        )
    if orbit not in (None, "ascending", "descending"):
        raise CatalogueError(
            f"sar_orbit={orbit!r}: expected 'ascending', 'descending' or None for both."
        )
    chosen = [i for i in items if orbit is None or orbit_of(i) == orbit]
    if not chosen:
        states = Counter(orbit_of(i) for i in items)
        raise CatalogueError(
            f"sar_orbit={orbit!r}: no such pass among {dict(states)}. Type sar_orbit=None."
        )
    inside = [i for i in chosen if plan.covered.meets(i)]
    if not inside:
        raise CatalogueError(
            f"No Sentinel-1 item reaches the grid; they span {extent(chosen)}. Type sar=False."
        )
    return inside


def _add_dem(ds: xr.Dataset, plan: Plan, items: list[Any], found: Items) -> xr.Dataset:
    inside = [i for i in items if plan.covered.meets(i)]
    inside.sort(key=lambda i: (when(i), i.id), reverse=True)
    if not inside:
        raise CatalogueError(
            f"dem=True and no DEM item reaches the grid, among {summary(found)}: expected such as "
            "cop-dem-glo-30. Type collections=[..., 'cop-dem-glo-30'] in search, or dem=False."
        )
    sources = [[_source(i, "DEM", plan) for i in inside]]
    if not plan.flagged:
        _refuse_absent({"DEM": sources}, [inside])
    raw = layer(_token("DEM", sources, plan), sources, plan.grid, plan.chunk, plan.how)
    data = _split(raw, plan)[0][0]
    ds["DEM"] = xr.DataArray(
        data,
        dims=("y", "x"),
        coords={"y": ds["y"], "x": ds["x"]},
        attrs={"long_name": "elevation", "units": "m", "standard_name": "surface_altitude"},
    )
    ds["DEM"].encoding["grid_mapping"] = "spatial_ref"
    return ds


# ------------------------------------------------------------------ the dataset


def _empty(geobox: Any, days: list[list[Any]]) -> xr.Dataset:
    from odc.geo.xr import xr_coords

    times = np.array([when(d[0]) for d in days], "datetime64[ns]")
    with quiet():
        coords = xr_coords(geobox)
    return xr.Dataset(coords={"time": times, **coords})


def _variable(
    plan: Plan, data: Any, name: str, attrs: dict[str, Any] | None = None, dim: str = "time"
) -> xr.Variable:
    said = {"long_name": name, **(attrs or {})}
    return xr.Variable((dim, "y", "x"), data, said, {"grid_mapping": "spatial_ref"})


def _band_attributes(name: str) -> dict[str, Any]:
    return {
        "units": "1",
        "standard_name": "surface_bidirectional_reflectance",
        "wavelength_nm": BANDS[name].wavelength,
    }


def _scl_attributes() -> dict[str, Any]:
    from cubefill.bands import SCL

    return {
        "flag_values": [int(c) for c in SCL],
        "flag_meanings": " ".join(c.name.lower() for c in SCL),
    }


def _token(name: str, sources: list[list[Source]], plan: Plan, *more: Any) -> str:
    keys = [[(s.href, s.item, s.counts, s.scale, s.nodata) for s in day] for day in sources]
    return f"{name}-{tokenize(keys, repr(plan.grid), plan.chunk, repr(plan.how), *more)}"


def _attributes(
    plan: Plan,
    days: list[list[Any]],
    said: str,
    harmonize: Harmonize,
    names: tuple[str, ...],
    left_out: list[Dropped],
    resampling: str,
) -> dict[str, Any]:
    items = [i for day in days for i in day]
    offsets = Counter(_offset_words(i, names, plan) for i in items)
    _warn_contradictions(items, names, plan)
    words = "; ".join(f"{n} items: {text}" for text, n in sorted(offsets.items()))
    history = (
        f"cubefill.load: {len(items)} items, {len(days)} dates, {len(left_out)} left out; CRS "
        f"{said}; offsets {words}"
    )
    return {
        "boa_offset_harmonized": int(harmonize is not False),
        "offset_items": words,
        "crs_choice": said,
        "resampling": f"{resampling}; SCL nearest",
        "items": ["+".join(i.id for i in day) for day in days],
        "items_left_out": [f"{d.item}: {d.reason}" for d in left_out],
        "history": history,
    }


def _offset_words(item: Any, names: tuple[str, ...], plan: Plan) -> str:
    found = next((a for n in names if (a := find_asset(item, n, plan.step))), None)
    if found is None:
        return "no asset"
    offset = offset_of(item, found[1], plan.harmonize)
    return f"{offset.counts:+g} counts ({offset.rule})"


def _warn_contradictions(items: list[Any], names: tuple[str, ...], plan: Plan) -> None:
    """Says once that band metadata of new items claims no offset while nothing removed it."""
    odd = []
    for item in items:
        found = find_asset(item, names[0], plan.step)
        applied = item.properties.get("earthsearch:boa_offset_applied")
        new = (baseline(item) or 0.0) >= 4.0
        if found and new and applied is not True and band_info(found[1]).get("offset") == 0:
            odd.append(item.id)
    if odd and plan.harmonize is True:
        warnings.warn(
            f"{len(odd)} items of processing baseline 04.00 or later say offset 0 in their band "
            f"metadata and not that it was applied ({listed(odd, 3)}): 0 is taken. If dark pixels "
            "show reflectance above 0.1, type harmonize=-1000.",
            CubefillWarning,
            stacklevel=4,
        )


__all__ = [
    "CHUNK", "QUIRKS", "Items", "Plan", "crs_of_item", "from_safe", "load", "read_mosaic",
    "search", "write_catalogue",
]  # fmt: skip
