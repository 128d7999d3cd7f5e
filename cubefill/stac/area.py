"""Where: an area of interest in degrees, and the one grid in metres that a cube lies on."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cubefill.errors import CatalogueError, CubeError
from cubefill.stac.grid import Bounds, grid_of, straight
from cubefill.stac.items import affine, find_asset, listed, tile_of

log = logging.getLogger("cubefill")


_MOMENTS = ("datetime", "start_datetime")


@dataclass(frozen=True)
class Area:
    """An area of interest in longitude and latitude."""

    shape: Any
    """A shapely geometry in EPSG:4326."""

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in degrees."""
        w, s, e, n = (float(v) for v in self.shape.bounds)
        return w, s, e, n

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle of the bounds."""
        w, s, e, n = self.bounds
        return (w + e) / 2, (s + n) / 2

    def meets(self, item: Any) -> bool:
        """True when an item's footprint shares area with this one, as far as it says."""
        shape = footprint(item)
        return shape is None or bool(shape.intersects(self.shape))


def area(bbox: Any = None, geometry: Any = None) -> Area | None:
    """The area that `bbox` or `geometry` describes, or None where both are None.

    Raises
    ------
    CatalogueError
        Both are given, or the coordinates are not longitude and latitude.
    """
    if bbox is not None and geometry is not None:
        raise CatalogueError(
            "Both bbox and geometry were given: expected one. Pass bbox=None or geometry=None."
        )
    if bbox is None and geometry is None:
        return None
    found = Area(_box(bbox) if bbox is not None else _shape(geometry))
    w, s, e, n = found.bounds
    if not (-180 <= w <= e <= 180 and -90 <= s <= n <= 90):
        raise CatalogueError(
            f"The area spans {w:g}, {s:g} to {e:g}, {n:g}: expected degrees, west south east "
            "north. Reproject it to EPSG:4326, or pass geobox= for a grid in metres."
        )
    return found


def _box(bbox: Any) -> Any:
    from shapely.geometry import box

    try:
        w, s, e, n = (float(v) for v in bbox)
        if not np.isfinite((w, s, e, n)).all():
            raise ValueError("not finite")
    except (TypeError, ValueError) as error:
        raise CatalogueError(
            f"bbox={bbox!r}: expected four numbers, west, south, east, north in degrees, such as "
            "bbox=(3.02, 50.81, 3.03, 50.82)."
        ) from error
    if w > e or s > n:
        raise CatalogueError(
            f"bbox={bbox!r}: expected west <= east and south <= north. Pass bbox=(W, S, E, N); "
            "split an area that crosses the antimeridian in two."
        )
    return box(w, s, e, n)


def _shape(geometry: Any) -> Any:
    from shapely import union_all
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    if getattr(geometry, "crs", None) is not None:
        geometry = geometry.to_crs("EPSG:4326")
    given = getattr(geometry, "__geo_interface__", geometry)
    try:
        if given["type"] == "FeatureCollection":
            return union_all([shape(f["geometry"]) for f in given["features"]])
        return shape(given["geometry"] if given["type"] == "Feature" else given)
    except (TypeError, KeyError, AttributeError, ValueError, ShapelyError) as error:
        raise CatalogueError(
            f"geometry of type {type(geometry).__name__} is not understood ({error!r}): expected "
            "GeoJSON, a dict with type and coordinates in degrees, or an object with "
            "__geo_interface__."
        ) from error


def footprint(item: Any) -> Any | None:
    """An item's footprint as a shapely geometry in degrees, or None where nothing tells it.

    An item without geometry and bbox lies where the grid of its first asset does.
    """
    from shapely.errors import ShapelyError
    from shapely.geometry import box, shape

    try:
        if item.geometry:
            return shape(item.geometry)
        if item.bbox:
            west, south, *_ = item.bbox
            east, north = item.bbox[len(item.bbox) // 2 :][:2]
            return box(west, south, east, north)
    except (ArithmeticError, LookupError, TypeError, ValueError, ShapelyError) as error:
        raise CatalogueError(
            f"Item {item.id} lies nowhere: its geometry and bbox are {str(item.geometry)[:60]} and "
            f"{item.bbox} ({error!r}): expected GeoJSON and four numbers in degrees."
        ) from error
    grids = (native_grid(item, asset) for asset in item.assets.values())
    grid = next((g for g in grids if g is not None), None)
    return None if grid is None else outline(grid).shape


def extent(items: Sequence[Any]) -> str:
    """Bounds in degrees and dates that items span, in words."""
    from shapely import union_all

    shapes = [s for s in map(footprint, items) if s is not None]
    given = ((i.datetime, *(i.properties.get(k) for k in _MOMENTS)) for i in items)
    dates = sorted(str(next((t for t in times if t), "no date"))[:10] for times in given)
    where = ", ".join(f"{v:.4f}" for v in union_all(shapes).bounds) if shapes else "nowhere"
    return f"bbox {where}; {dates[0]} to {dates[-1]}" if dates else "nothing"


def crs_of_item(item: Any) -> str | None:
    """`EPSG:32631` or another text of an item's CRS, from `proj:` fields or its MGRS tile."""
    sources = [item.properties, *(a.extra_fields for a in item.assets.values())]
    if said := next((c for p in sources if (c := _crs_in(p))), None):
        return said
    tile = tile_of(item) or ""
    if len(tile) == 5 and tile[:2].isdigit():
        return f"EPSG:{'326' if tile[2] >= 'N' else '327'}{tile[:2]}"
    return None


def _crs_in(fields: Mapping[str, Any]) -> str | None:
    """The CRS that `proj:` fields name, as text."""
    if fields.get("proj:code"):
        return str(fields["proj:code"])
    if fields.get("proj:epsg"):
        return f"EPSG:{fields['proj:epsg']}"
    if fields.get("proj:projjson"):
        return json.dumps(fields["proj:projjson"])
    return str(fields["proj:wkt2"]) if fields.get("proj:wkt2") else None


def choose_crs(items: Sequence[Any], crs: Any, where: Area | None) -> tuple[Any, str]:
    """The CRS of a cube (`odc.geo.crs.CRS`) and one line on how it was chosen.

    The caller's; else the one all items share; else, of those the items have, the UTM zone of the
    area's centre; else that of most items.

    Raises
    ------
    CatalogueError
        No item says its CRS and none was given.
    CubeError
        The CRS is in degrees.
    """
    count = Counter(c for i in items if (c := crs_of_item(i)))
    if crs is None and not count:
        raise CatalogueError(
            f"No item says its CRS ({listed([i.id for i in items])}): expected proj:code, "
            "proj:epsg or an MGRS tile. Pass crs='EPSG:32631' with your UTM zone."
        )
    chosen = parse_crs(crs if crs is not None else _vote(count, where))
    if chosen.geographic:
        raise CubeError(
            f"crs={crs or chosen!s} is in degrees: expected a projected CRS in metres, so that "
            "resolution and dilation mean metres. Pass crs='EPSG:32631' with your UTM zone, or "
            "crs=None."
        )
    other = sum(n for c, n in count.items() if parse_crs(c) != chosen)
    how = "given" if crs is not None else "of every item" if len(count) == 1 else "chosen"
    return chosen, f"{chosen} ({how}; {other} of {len(items)} items are reprojected)"


def parse_crs(text: Any) -> Any:
    """The CRS (`odc.geo.crs.CRS`) of a code, WKT or whatever odc-geo takes.

    Raises
    ------
    CubeError
        It is none.
    """
    from odc.geo.crs import CRS

    try:
        return CRS(text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CubeError(
            f"{str(text)[:60]!r} is no CRS: expected a code of EPSG or WKT. Pass crs='EPSG:32631' "
            "with your UTM zone."
        ) from error


def _vote(count: Counter[str], where: Area | None) -> str:
    if len(count) > 1 and where is not None:
        lon, lat = where.centre
        zone = f"EPSG:{326 if lat >= 0 else 327}{int((lon + 180) // 6) % 60 + 1:02d}"
        if zone in count:
            return zone
    return min(count, key=lambda c: (-count[c], c))


def grid_options(
    items: Sequence[Any], crs: Any, resolution: float, where: Area | None, bands: Sequence[str]
) -> dict[str, Any]:
    """What `odc.stac.load` needs for the grid of a cube: pixel edges on those of the items.

    Covers the area, or all items where none is given.

    Raises
    ------
    CatalogueError
        An item says nothing of its place and no area is given.
    """
    from odc.geo.geom import Geometry
    from odc.geo.types import xy_

    anchor = xy_(*_anchor(items, crs, resolution, bands))
    options = {"crs": crs, "resolution": resolution, "anchor": anchor}
    if where is not None:
        with quiet():
            options["geopolygon"] = Geometry(where.shape, "EPSG:4326").segmented(0.05).to_crs(crs)
    elif any(footprint(i) is None for i in items):
        raise CatalogueError(
            "An item has neither bbox nor geometry: expected the area. Pass bbox=(W, S, E, N)."
        )
    return options


def check_grid(geobox: Any) -> Any:
    """The same grid, if a cube can lie on it.

    Raises
    ------
    CubeError
        It has no CRS, is in degrees, is rotated, or y does not descend.
    """
    if not hasattr(geobox, "affine") or not hasattr(geobox, "crs"):
        raise CubeError(
            f"The grid is of type {type(geobox).__name__}: expected an odc.geo.geobox.GeoBox, or a "
            "cube with a CRS for like=. Use odc.geo.xr.assign_crs(ds, 'EPSG:32631')."
        )
    if geobox.crs is None or geobox.crs.geographic:
        raise CubeError(
            f"The geobox has CRS {geobox.crs}: expected a projected CRS in metres. "
            "Use GeoBox.from_bbox(bounds, 'EPSG:32631', resolution=10)."
        )
    if not straight(geobox):
        raise CubeError(
            f"The geobox has transform {tuple(geobox.affine)[:6]}: expected x to ascend and y to "
            "descend, without rotation. Use GeoBox.from_bbox(geobox.boundingbox, resolution=...)."
        )
    return geobox


def native_grid(item: Any, asset: Any) -> Any | None:
    """The grid of an asset as its metadata gives it, or None."""
    extra, p = asset.extra_fields, item.properties
    transform = affine(extra.get("proj:transform") or p.get("proj:transform"))
    shape = extra.get("proj:shape") or p.get("proj:shape")
    crs = _crs_in(extra) or crs_of_item(item)
    if not transform or not shape or not crs:
        return None
    return grid_of(crs, transform, shape)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of affine 3 and shapely 2.1 about what odc-geo calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The 'shapely.ops.transform", DeprecationWarning)
        warnings.filterwarnings("ignore", "Use `@` matmul", PendingDeprecationWarning)
        yield


def outline(geobox: Any) -> Area:
    """The area that a grid covers."""
    with quiet():
        return Area(geobox.extent.to_crs("EPSG:4326").geom)


def _anchor(
    items: Sequence[Any], crs: Any, resolution: float, bands: Sequence[str]
) -> tuple[float, float]:
    """Where pixel edges lie, as fractions of a pixel, so that native pixels are hit exactly."""
    votes: Counter[tuple[float, float]] = Counter()
    for item in items:
        assets = (find_asset(item, b, resolution) for b in bands)
        grids = [g for a in assets if a and (g := native_grid(item, a[1])) is not None]
        for grid in (g for g in grids if g.crs == crs):
            a, _, c, _, _, f, *_ = grid.affine
            if round(abs(a), 6) <= resolution:
                votes[_fraction(c / resolution), _fraction(f / resolution)] += 1
    return votes.most_common(1)[0][0] if votes else (0.0, 0.0)


def _fraction(value: float) -> float:
    return round(value % 1.0, 6) % 1.0
