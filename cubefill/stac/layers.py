"""What lies on the grid of a cube: Sentinel-2 with SCL and `valid`, Sentinel-1, elevation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize

from cubefill.cube import valid as clear_pixels
from cubefill.cube.bands import BANDS, SCL
from cubefill.cube.valid import UserValid
from cubefill.errors import CatalogueError
from cubefill.stac.area import Area, extent, quiet
from cubefill.stac.driver import Driver, named
from cubefill.stac.items import find_asset, listed, orbit_of, passes, summary, when
from cubefill.stac.query import Items
from cubefill.stac.reading import MISSING_CLASS, Asset, crop, layer

Orbit = Literal["ascending", "descending"]


@dataclass(frozen=True)
class Loading:
    """What all layers of one cube share."""

    driver: Driver
    geobox: Any
    chunk: tuple[int, int]
    covered: Area
    """The grid's outline in degrees."""

    @property
    def flagged(self) -> bool:
        """True when a failed read becomes `source_missing`."""
        return self.driver.options.on_error == "flag"


@dataclass(frozen=True)
class Groups:
    """Items as odc-stac grouped them into steps of time, and the assets of each."""

    empty: xr.Dataset
    """The coordinates."""
    geobox: Any
    items: list[list[Any]]
    assets: dict[str, list[list[Asset]]]


def group(
    items: Sequence[Any], bands: Sequence[str], driver: Driver, where: Any, **options: Any
) -> Groups:
    """Grid and steps of time of items, and the assets of each band, all by `odc.stac.load`.

    Its graph is left aside: it holds a task a chunk from the start, 44 000 of them for a year of a
    tile, and cannot read around a chunk; `layer` can. Decision 0004 has the measurements.
    """
    from odc.stac import load

    known = [named(i, bands, driver.resolution, where) for i in items]
    with quiet():
        ds = load(known, bands=list(bands), driver=driver, chunks={}, debug=True, **options)
    said = ds.encoding["debug"]
    assets = {
        b: [[said.srcs[i][b].driver_data["asset"] for i in step] for step in said.grouped_idx]
        for b in bands
    }
    empty = ds.drop_vars(bands).drop_attrs(deep=False)
    empty = empty.assign_coords(time=ds["time"].values.astype("datetime64[ns]"))
    empty.encoding = {}
    return Groups(
        empty, said.gbt.base, [[items[i] for i in step] for step in said.grouped_idx], assets
    )


def refuse_absent(groups: Groups, bands: Sequence[str]) -> None:
    """Raises CatalogueError, with items and band, where an item lacks an asset."""
    for band in bands:
        absent = [a.item for step in groups.assets[band] for a in step if not a.href]
        if absent:
            item = next(i for step in groups.items for i in step if i.id == absent[0])
            raise CatalogueError(
                f"{len(absent)} items have no asset for {band} ({listed(absent)}); {item.id} has "
                f"{', '.join(sorted(item.assets)) or 'no assets'}. Leave {band} out of bands=, or "
                "pass on_error='flag' to mark these dates as source_missing."
            )


def has_scl(items: Sequence[Any], *, flagged: bool, required: bool) -> bool:
    """True when SCL can be read.

    Raises
    ------
    CatalogueError
        It is required and items lack it.
    """
    without = [i.id for i in items if find_asset(i, "SCL", 20.0) is None]
    if without and required and not flagged:
        raise CatalogueError(
            f"{len(without)} of {len(items)} items have no SCL ({listed(without)}), so nothing "
            "says which pixels are clear. Pass valid=your_function (of the cube, True where "
            "clear), or on_error='flag' where some items have it."
        )
    if len(without) == len(items) and required:
        raise CatalogueError(
            "No item has SCL, so nothing says which pixels are clear: pass valid=your_function."
        )
    return len(without) < len(items) and (required or not without)


# ------------------------------------------------------------------ Sentinel-2


def add_bands(
    ds: xr.Dataset, loading: Loading, groups: Groups, names: Sequence[str]
) -> tuple[xr.Dataset, Any]:
    """The dataset with its bands, and where a read failed (None unless flagged)."""
    missing = None
    for name in names:
        data, failed = _lazy(loading, groups.assets[name], name)
        missing = failed if missing is None else missing | failed
        said = {
            "units": "1",
            "standard_name": "surface_bidirectional_reflectance",
            "wavelength_nm": BANDS[name].wavelength,
        }
        ds[name] = variable(data, f"Sentinel-2 {name}", said)
    return ds, missing


def add_scl(
    ds: xr.Dataset,
    loading: Loading,
    groups: Groups,
    missing: Any,
    options: tuple[bool, float, tuple[int, ...]],
) -> tuple[xr.Dataset, Any]:
    """The dataset with SCL and with valid, made from blocks that hold the halo of the dilation."""
    snow, dilate, clear = options
    classes = clear_pixels.clear_classes(clear, snow)
    pixel = loading.geobox.affine
    rows = clear_pixels.disk(dilate, abs(pixel.e), abs(pixel.a))
    halo = max(len(rows) - 1, rows[0])
    padded = _layer(loading, groups.assets["SCL"], "SCL", halo, np.uint8)
    cut = partial(crop, padded, loading.geobox.shape, loading.chunk, halo)
    find_clear = partial(clear_pixels.from_classes, classes=classes, rows=rows)
    clear_data = cut(find_clear, bool)
    scl = cut(_same, np.uint8)
    if loading.flagged:
        missing = missing | (scl == MISSING_CLASS)
        clear_data = clear_data & ~missing
        scl = scl.map_blocks(_no_missing, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    said = {
        "flag_values": [int(c) for c in SCL],
        "flag_meanings": " ".join(c.name.lower() for c in SCL),
    }
    ds["SCL"] = variable(scl, "scene classification of Sen2Cor", said)
    how = clear_pixels.attributes(classes, dilate)
    ds["valid"] = variable(clear_data, how["long_name"], how)
    return ds, missing


def add_valid(ds: xr.Dataset, valid: UserValid | None) -> xr.Dataset:
    """The dataset with the user's own clear pixels, where given, as `valid`."""
    if valid is None:
        return ds
    found = clear_pixels.apply(ds.drop_vars("valid", errors="ignore"), valid)
    if "source_missing" in ds:
        found = (found & ~ds["source_missing"]).assign_attrs(found.attrs)
    found.encoding["grid_mapping"] = "spatial_ref"
    return ds.assign(valid=found)


# ------------------------------------------------------------------ Sentinel-1 and elevation


def add_sar(
    ds: xr.Dataset,
    loading: Loading,
    items: list[Any],
    orbit: Orbit | None,
    *,
    own: bool,
    found: Items,
) -> xr.Dataset:
    """The dataset with VV, VH and sar_valid, on `time` from the nearest pass or on their own."""
    inside = [i for p in passes(_sar_items(items, orbit, loading, found)) for i in p]
    number = {id(i): n for n, p in enumerate(passes(inside)) for i in p}
    groups = _over(loading, inside, ("VV", "VH"), lambda i: number[id(i)])
    times = np.array([when(p[0]) for p in groups.items])
    ds = ds.assign_coords(sar_time=times) if own else ds
    nearest = np.abs(times[None] - ds["time"].values[:, None]).argmin(axis=1)
    dim = "sar_time" if own else "time"
    ok: Any = None
    for name in ("VV", "VH"):
        data = _lazy(loading, groups.assets[name], name)[0]
        data = data if own else data[nearest]
        ok = np.isfinite(data) if ok is None else ok & np.isfinite(data)
        ds[name] = variable(data, f"Sentinel-1 gamma0 {name}", {"units": "dB"}, dim)
    ds["sar_valid"] = variable(ok, "VV and VH have data", None, dim)
    if own:
        orbits = np.array([orbit_of(p[0]) for p in groups.items])
        return ds.assign_coords(orbit=("sar_time", orbits))
    gap = (times[nearest] - ds["time"].values) / np.timedelta64(1, "h")
    said = {"long_name": "hours from the optical to the SAR acquisition", "units": "h"}
    return ds.assign_coords(sar_gap_hours=("time", gap.astype(np.float32), said))


def _sar_items(items: list[Any], orbit: Orbit | None, loading: Loading, found: Items) -> list[Any]:
    if not items:
        raise CatalogueError(
            f"sar was asked for and there is no Sentinel-1 RTC item among {summary(found)}: "
            "expected assets vv and vh. Pass collections=['sentinel-2-l2a', 'sentinel-1-rtc'] in "
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
            f"sar_orbit={orbit!r}: no such pass among {dict(states)}. Pass sar_orbit=None."
        )
    inside = [i for i in chosen if loading.covered.meets(i)]
    if not inside:
        raise CatalogueError(
            f"No Sentinel-1 item reaches the grid; they span {extent(chosen)}. Pass sar=False."
        )
    return inside


def add_dem(ds: xr.Dataset, loading: Loading, items: list[Any], found: Items) -> xr.Dataset:
    """The dataset with DEM; where items overlap the latest counts."""
    inside = [i for i in items if loading.covered.meets(i)]
    inside.sort(key=lambda i: (when(i), i.id), reverse=True)
    if not inside:
        raise CatalogueError(
            f"dem=True and no DEM item reaches the grid, among {summary(found)}: expected such as "
            "cop-dem-glo-30. Pass collections=[..., 'cop-dem-glo-30'] in search, or dem=False."
        )
    groups = _over(loading, inside, ("DEM",), lambda i: 0)
    data = _lazy(loading, groups.assets["DEM"], "DEM")[0][0]
    said = {"long_name": "elevation", "units": "m", "standard_name": "surface_altitude"}
    ds["DEM"] = xr.Variable(("y", "x"), data, said, {"grid_mapping": "spatial_ref"})
    return ds


def _over(loading: Loading, items: list[Any], bands: Sequence[str], key: Any) -> Groups:
    """Items on the grid of the cube, in steps by a key of each, in the order given."""
    found = group(
        items, bands, loading.driver, loading.covered.shape, geobox=loading.geobox,
        groupby=lambda item, parsed, index: key(items[index]), preserve_original_order=True,
    )  # fmt: skip
    if not loading.flagged:
        refuse_absent(found, bands)
    return found


# ------------------------------------------------------------------ arrays


def variable(
    data: Any, name: str, attrs: dict[str, Any] | None = None, dim: str = "time"
) -> xr.Variable:
    """A variable on `(dim, y, x)` of the cube, tied to its CRS."""
    said = {"long_name": name, **(attrs or {})}
    return xr.Variable((dim, "y", "x"), data, said, {"grid_mapping": "spatial_ref"})


def _layer(
    loading: Loading, steps: list[list[Asset]], name: str, halo: int = 0, dtype: Any = np.float32
) -> Any:
    keys = [[(a.href, a.item, a.counts, a.scale, a.nodata) for a in step] for step in steps]
    options = loading.driver.options
    unique = tokenize(keys, loading.geobox, loading.chunk, repr(options), halo)
    return layer(f"{name}-{unique}", steps, loading.geobox, loading.chunk, options, halo, dtype)


def _lazy(loading: Loading, steps: list[list[Asset]], name: str) -> tuple[Any, Any]:
    """Lazy values, and where their read failed (None unless flagged)."""
    raw = _layer(loading, steps, name)
    if not loading.flagged:
        return raw, None
    meta = np.empty((0, 0, 0), np.float32)
    values = raw.map_blocks(_no_infinity, dtype=np.float32, meta=meta)
    return values, raw.map_blocks(np.isposinf, dtype=bool, meta=np.empty((0, 0, 0), bool))


def _no_infinity(block: Any) -> Any:
    return np.where(np.isposinf(block), np.float32(np.nan), block)


def _same(block: Any) -> Any:
    return block


def _no_missing(block: Any) -> Any:
    return np.where(block == MISSING_CLASS, np.uint8(0), block)
