"""From STAC items to a lazy cube: Sentinel-2, Sentinel-1 and elevation on one grid."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from cubefill.cube import valid as clear_pixels
from cubefill.cube.bands import BANDS, require
from cubefill.cube.valid import UserValid
from cubefill.errors import CatalogueError, CubefillWarning
from cubefill.stac.area import (
    Area,
    area,
    check_grid,
    choose_crs,
    choose_grid,
    extent,
    outline,
    quiet,
)
from cubefill.stac.grid import Grid
from cubefill.stac.items import (
    Dropped,
    Harmonize,
    band_info,
    baseline,
    find_asset,
    kind,
    listed,
    offset_of,
    resolve_duplicates,
    solar_days,
    summary,
    when,
)
from cubefill.stac.layers import Plan, variable
from cubefill.stac.offsets import offset_jumps
from cubefill.stac.optical import add_bands, add_scl, add_valid, has_scl
from cubefill.stac.query import Items, search
from cubefill.stac.radar import Orbit, add_dem, add_sar
from cubefill.stac.reading import How, OnError
from cubefill.stac.safe import from_safe
from cubefill.stac.writing import QUIRKS, write_catalogue

log = logging.getLogger("cubefill")

Sar = bool | Literal["own"]

CHUNK = 1024
"""Pixels of a spatial chunk: one shard of the default store."""

RESAMPLING = (
    "nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "med",
)  # fmt: skip
"""What bands may be resampled by; SCL is always nearest."""


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
        the coordinate `sar_gap_hours` (hours from the optical to the SAR acquisition, negative
        where SAR came first); "own" keeps their dates on `sar_time`, with the coordinate `orbit`.
    sar_orbit
        Takes only ascending or descending passes.
    dem
        Adds DEM in m.
    valid
        The user's own clear pixels, see `cubefill.cube.valid.apply`; by default from SCL.
    snow, dilate, clear
        How `valid` comes from SCL, see `cubefill.cube.valid.from_scl`.
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
    >>> import tempfile
    >>> from cubefill.testing import synthetic_cube
    >>> folder = write_catalogue(synthetic_cube(), tempfile.mkdtemp())
    >>> dict(load(search(folder), bands=("B04", "B08")).sizes)
    {'y': 20, 'x': 24, 'time': 12}
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
    with_scl = has_scl(days, plan, required=valid is None)
    ds, missing = add_bands(ds, plan, days, names)
    if with_scl:
        ds, missing = add_scl(ds, plan, days, missing, (snow, dilate, tuple(clear)))
    if plan.flagged:
        ds["source_missing"] = variable(plan, missing, "an asset could not be read here")
    ds = add_valid(ds, valid)
    if sar:
        ds = add_sar(ds, plan, groups["sar"], sar_orbit, own=sar == "own", found=found)
    if dem:
        ds = add_dem(ds, plan, groups["dem"], found)
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
            f"Use {option}."
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
            "No items to load: expected Sentinel-2 L2A items. Use "
            "items = cubefill.search(url, bbox=..., datetime=...) and see print(items.report())."
        )
    return search(items)


def _optical(
    found: Items, optical: list[Any], where: Area | None
) -> tuple[list[Any], list[Dropped]]:
    if not optical:
        raise CatalogueError(
            f"No Sentinel-2 L2A item among {len(found)} items ({summary(found)}): expected assets "
            "such as B04 or red, and SCL. Pass collections=['sentinel-2-l2a'] in search."
        )
    inside = [i for i in optical if where is None or where.meets(i)]
    if where is not None and not inside:
        raise CatalogueError(
            f"All {len(optical)} Sentinel-2 items lie outside bbox {where.bounds}: they span "
            f"{extent(optical)}. Pass bbox=None to load all of them."
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


# ------------------------------------------------------------------ the dataset


def _empty(geobox: Any, days: list[list[Any]]) -> xr.Dataset:
    from odc.geo.xr import xr_coords

    times = np.array([when(d[0]) for d in days], "datetime64[ns]")
    with quiet():
        coords = xr_coords(geobox)
    return xr.Dataset(coords={"time": times, **coords})


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
            "show reflectance above 0.1, pass harmonize=-1000.",
            CubefillWarning,
            stacklevel=4,
        )


__all__ = ["QUIRKS", "Items", "from_safe", "load", "offset_jumps", "search", "write_catalogue"]
