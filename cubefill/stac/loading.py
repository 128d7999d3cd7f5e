"""From STAC items to a lazy cube: Sentinel-2, Sentinel-1 and elevation on one grid."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from cubefill.cube import valid as clear_pixels
from cubefill.cube.bands import BANDS, require
from cubefill.cube.valid import UserValid
from cubefill.errors import CatalogueError, CubeError, CubefillWarning
from cubefill.stac.area import (
    Area,
    area,
    check_grid,
    choose_crs,
    extent,
    grid_options,
    outline,
    quiet,
)
from cubefill.stac.driver import Driver
from cubefill.stac.items import (
    FROM_FILE,
    UNKNOWN_BASELINE,
    Dropped,
    Harmonize,
    baseline,
    find_asset,
    kind,
    listed,
    number,
    offset_of,
    resolve_duplicates,
    summary,
)
from cubefill.stac.layers import (
    Groups,
    Loading,
    Orbit,
    add_bands,
    add_dem,
    add_sar,
    add_scl,
    add_valid,
    group,
    has_scl,
    refuse_absent,
    variable,
)
from cubefill.stac.query import Items, search
from cubefill.stac.reading import Asset, OnError, ReadOptions

log = logging.getLogger("cubefill")

Sar = bool | Literal["own"]

CHUNK = 1024
"""Pixels of a spatial chunk: one shard of the default store."""

MOST_CHUNKS = 50_000
"""Spatial chunks of a cube: four UTM zones at 10 m; dask plans no more in reasonable time."""

WHOLE = 1 << 30
"""More pixels than a grid has."""

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
    like: Any = None,
    geopolygon: Any = None,
    groupby: Any = "solar_day",
    preserve_original_order: bool = False,
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
    patch_url: Callable[[str], str] | None = None,
    chunks: int | Mapping[str, int] | None = CHUNK,
) -> xr.Dataset:
    """A lazy cube of reflectance, one time step per solar day; reads no pixel.

    Grid and steps of time come from `odc.stac.load`, with `cubefill.stac.Driver`; options of the
    same name mean the same.

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
    like
        A cube or a DataArray whose grid is taken, in place of geobox.
    geopolygon
        Another name for geometry; geometries that know their CRS may be in any.
    groupby
        What makes one time step: "solar_day", "time", "id", a property of the items, or a function
        as odc-stac takes it.
    preserve_original_order
        Where items of a step overlap the first as given counts, not the earliest.
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
    patch_url
        Another name for sign.
    chunks
        Pixels of a spatial chunk, or pixels along y and x as a dict; a chunk holds one time step.
        None reads the cube at once.

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
    >>> from cubefill.stac import write_catalogue
    >>> from cubefill.testing import synthetic_cube
    >>> folder = write_catalogue(synthetic_cube(), tempfile.mkdtemp())
    >>> dict(load(search(folder), bands=("B04", "B08")).sizes)
    {'y': 20, 'x': 24, 'time': 12}
    """
    names = _band_names(bands, resampling, on_error)
    _check_numbers(resolution, dilate, harmonize)
    found = _items(items)
    box = _given_grid(geobox, like)
    where = area(bbox, geometry if geopolygon is None else geopolygon)
    where = where or (found.area if box is None else None)
    groups = {k: [i for i in found if kind(i) == k] for k in ("optical", "sar", "dem")}
    inside, left_out = _optical(found, groups["optical"], where, box)
    _check_groupby(groupby, inside)
    chosen, said = choose_crs(inside, crs if box is None else box.crs, where)
    log.info("CRS %s", said)
    with_scl = has_scl(inside, flagged=on_error == "flag", required=valid is None)
    wanted = (*names, "SCL") if with_scl else names
    options = ReadOptions(resampling, on_error, sign or patch_url or found.sign)
    if preserve_original_order:
        inside = _as_given(inside, items)
    step = float(resolution) if box is None else abs(box.affine.a)
    driver = Driver(options, harmonize, step)
    grid = {"geobox": box} if box is not None else grid_options(inside, chosen, step, where, wanted)
    steps = group(
        inside, wanted, driver, where and where.shape, groupby=groupby,
        preserve_original_order=preserve_original_order, **grid,
    )  # fmt: skip
    shared = Loading(driver, steps.geobox, _chunk(chunks), outline(steps.geobox))
    _check_size(shared)
    if not shared.flagged:
        refuse_absent(steps, names)
    ds, missing = add_bands(steps.empty, shared, steps, names)
    if with_scl:
        ds, missing = add_scl(ds, shared, steps, missing, (snow, dilate, tuple(clear)))
    if shared.flagged:
        ds["source_missing"] = variable(missing, "an asset could not be read here")
    ds = add_valid(ds, valid)
    if sar:
        ds = add_sar(ds, shared, groups["sar"], sar_orbit, own=sar == "own", found=found)
    if dem:
        ds = add_dem(ds, shared, groups["dem"], found)
    ds.attrs = _attributes(steps, said, harmonize, names, left_out, resampling)
    log.info("%s", ds.attrs["history"])
    return ds if chunks is not None else ds.load()


# ------------------------------------------------------------------ which items, which grid


def _band_names(bands: Sequence[str], resampling: str, on_error: str) -> tuple[str, ...]:
    given: Any = (bands,) if isinstance(bands, str) else bands
    if not isinstance(given, Iterable) or not all(isinstance(b, str) for b in given):
        raise CatalogueError(f"bands={bands!r}: expected names. Pass bands=['B04', 'B08'].")
    names = tuple(dict.fromkeys(require(b) for b in given))
    spectral = tuple(n for n in names if n in BANDS)
    other = [n for n in names if n not in BANDS and n != "SCL"]
    if other:
        option = "dem=True" if other == ["DEM"] else "sar=True"
        raise CatalogueError(
            f"bands={list(given)}: expected bands of Sentinel-2, got {', '.join(other)}. "
            f"Pass {option}."
        )
    if not spectral:
        raise CatalogueError("bands is empty: expected at least one, such as bands=('B04', 'B08').")
    if resampling not in RESAMPLING:
        raise CatalogueError(f"resampling={resampling!r}: expected one of {', '.join(RESAMPLING)}.")
    if on_error not in ("raise", "flag"):
        raise CatalogueError(f"on_error={on_error!r}: expected 'raise' or 'flag'.")
    return spectral


def _check_numbers(resolution: Any, dilate: Any, harmonize: Any) -> None:
    def finite(value: Any) -> bool:
        return isinstance(value, int | float | np.number) and number(value) is not None

    if not finite(resolution) or not 0 < resolution < 1e6:
        raise CubeError(f"resolution={resolution}: expected metres above 0. Pass resolution=10.")
    if not finite(dilate) or not 0 <= dilate < 1e6:
        raise CubeError(f"dilate={dilate}: expected metres, 0 or more. Pass dilate=30.")
    if not finite(harmonize) and not callable(harmonize):
        raise CatalogueError(
            f"harmonize={harmonize!r}: expected True, False, a number of counts such as -1000, or "
            "a function of an item. Pass harmonize=True to follow the metadata."
        )


def _items(items: Any) -> Items:
    if isinstance(items, Items) and items:
        return items
    if hasattr(items, "__len__") and len(items) == 0:
        raise CatalogueError(
            "No items to load: expected Sentinel-2 L2A items. Use "
            "items = cubefill.search(url, bbox=..., datetime=...) and see print(items.report())."
        )
    return search(items)


def _check_groupby(groupby: Any, items: list[Any]) -> None:
    known = ("solar_day", "time", "id")
    if not isinstance(groupby, str) or groupby in known:
        return
    if not any(groupby in i.properties for i in items):
        raise CatalogueError(
            f"groupby={groupby!r}: expected one of {', '.join(known)}, a property that items have, "
            "or a function. Pass groupby='solar_day'."
        )


def _as_given(inside: list[Any], items: Any) -> list[Any]:
    """Items in the order of the list that gave them."""
    listed = [] if isinstance(items, str | Path | Mapping) else items
    rank = {i["id"] if isinstance(i, Mapping) else i.id: n for n, i in enumerate(listed)}
    return sorted(inside, key=lambda i: rank.get(i.id, 0))


def _given_grid(geobox: Any, like: Any) -> Any:
    """The grid that the caller gives, or None."""
    if geobox is None and like is not None:
        import odc.geo.xr  # noqa: F401  registers .odc

        with quiet():
            grid = getattr(getattr(like, "odc", None), "geobox", None)
        geobox = like if getattr(grid, "crs", None) is None else grid
    return None if geobox is None else check_grid(geobox)


def _chunk(chunks: int | Mapping[str, int] | None) -> tuple[int, int]:
    """Rows and columns of a spatial chunk."""
    given: Any = chunks if isinstance(chunks, Mapping) else dict.fromkeys("yx", chunks or CHUNK)
    for value in given.values():
        if not isinstance(value, int) or (value < 1 and value != -1):
            raise CatalogueError(
                f"chunks={chunks!r}: expected pixels along a side, 1 or more, or -1 for all. Pass "
                f"chunks={CHUNK}."
            )
    if given.get("time", 1) != 1:
        rest = {d: n for d, n in given.items() if d != "time"} or CHUNK
        raise CatalogueError(
            f"chunks={dict(given)}: expected one time step a chunk. Pass chunks={rest}; "
            "ds.chunk(time=...) makes longer ones of the cube."
        )
    sizes = (given.get(d, CHUNK) for d in ("y", "x"))
    rows, cols = (n if n > 0 else WHOLE for n in sizes)
    return rows, cols


def _check_size(shared: Loading) -> None:
    (rows, cols), (high, wide) = shared.geobox.shape, shared.chunk
    count = -(-rows // high) * -(-cols // wide)
    if count > MOST_CHUNKS:
        raise CatalogueError(
            f"The grid has {rows} x {cols} pixels in {count} chunks: expected {MOST_CHUNKS} or "
            "fewer. Pass bbox=(W, S, E, N) of a smaller area, or a coarser resolution=."
        )


def _optical(
    found: Items, optical: list[Any], where: Area | None, box: Any
) -> tuple[list[Any], list[Dropped]]:
    """Items to load and those left out: off the area or the grid, and copies."""
    if not optical:
        raise CatalogueError(
            f"No Sentinel-2 L2A item among {len(found)} items ({summary(found)}): expected assets "
            "such as B04 or red, and SCL. Pass collections=['sentinel-2-l2a'] in search."
        )
    covered = where if box is None else outline(box)
    inside = [i for i in optical if covered is None or covered.meets(i)]
    if not inside and box is not None:
        raise CatalogueError(
            f"No item reaches the grid {box.boundingbox.bbox} in {box.crs}: items span "
            f"{extent(optical)}. Check bbox= and geobox=."
        )
    if not inside and where is not None:
        raise CatalogueError(
            f"All {len(optical)} Sentinel-2 items lie outside bbox {where.bounds}: they span "
            f"{extent(optical)}. Pass bbox=None to load all of them."
        )
    kept = {id(i) for i in inside}
    inside, copies = resolve_duplicates(inside)
    off = optical if box is not None else []
    return inside, [*copies, *(Dropped(i.id, "outside the grid") for i in off if id(i) not in kept)]


# ------------------------------------------------------------------ attributes


def _attributes(
    steps: Groups,
    said: str,
    harmonize: Harmonize,
    names: tuple[str, ...],
    left_out: list[Dropped],
    resampling: str,
) -> dict[str, Any]:
    items = [i for step in steps.items for i in step]
    offsets = Counter(
        _offset_words([steps.assets[n][t][k] for n in names])
        for t, step in enumerate(steps.items)
        for k in range(len(step))
    )
    if harmonize is True:
        _warn_contradictions(items, names[0])
        _warn_unknown(steps.assets[names[0]])
    words = "; ".join(f"{n} items: {text}" for text, n in sorted(offsets.items()))
    history = (
        f"cubefill.load: {len(items)} items, {len(steps.items)} dates, {len(left_out)} left out; "
        f"CRS {said}; offsets {words}"
    )
    return {
        "boa_offset_harmonized": int(harmonize is not False),
        "offset_items": words,
        "crs_choice": said,
        "resampling": f"{resampling}; SCL nearest",
        "items": ["+".join(i.id for i in step) for step in steps.items],
        "items_left_out": [f"{d.item}: {d.reason}" for d in left_out],
        "history": history,
    }


def _offset_words(assets: list[Asset]) -> str:
    """Offset of an item and the rule that gave it, from the first of its assets that is there."""
    found = next((a for a in assets if a.href), None)
    if found is None:
        return "no asset"
    if found.rule == FROM_FILE:
        return f"from the {FROM_FILE}"
    return f"{found.counts:+g} counts ({found.rule})"


def _warn_unknown(steps: list[list[Asset]]) -> None:
    """Says once which items are taken for baseline 04.00 by nothing but their date."""
    unknown = [a.item for step in steps for a in step if a.rule == UNKNOWN_BASELINE]
    if unknown:
        warnings.warn(
            f"{len(unknown)} items say no processing baseline ({listed(unknown, 3)}): 1000 counts "
            "are taken off, as ESA adds them since 25 January 2022. Pass harmonize=False where "
            "the catalogue took them off, harmonize=-1000 to agree.",
            CubefillWarning,
            stacklevel=4,
        )


def _warn_contradictions(items: list[Any], name: str) -> None:
    """Says once that band metadata of new items claims no offset while nothing removed it."""
    odd = []
    for item in items:
        found = find_asset(item, name, 10.0)
        new = (baseline(item) or 0.0) >= 4.0
        if not found or not new:
            continue
        taken = offset_of(item, found[1])
        if taken.rule == "band metadata" and taken.counts == 0:
            odd.append(item.id)
    if odd:
        warnings.warn(
            f"{len(odd)} items of processing baseline 04.00 or later say offset 0 in their band "
            f"metadata and not that it was applied ({listed(odd, 3)}): 0 is taken. If dark pixels "
            "show reflectance above 0.1, pass harmonize=-1000.",
            CubefillWarning,
            stacklevel=4,
        )
