"""Hints about catalogues, items and the grid that they are loaded on."""

import copy
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pystac
import xarray as xr
from odc.geo.geobox import GeoBox

from cubefill import stac
from tests.hints.typing import Case
from tests.shared.stac_cases import cube

BOX = (3.0, 50.5512, 3.0013, 50.5519)
CORNERS = dict(zip("WSEN", BOX, strict=True))
WGS = GeoBox.from_bbox(BOX, "EPSG:4326", resolution=1e-4)
UTM = GeoBox.from_bbox((500_000, 5_599_700, 500_300, 5_600_000), "EPSG:32631", resolution=10)


@cache
def catalogue() -> str:
    place = tempfile.mkdtemp()
    return str(stac.write_catalogue(cube(8, 9, 3, sar=True), Path(place) / "items"))


def items(change: Any = None, radar: bool = True) -> stac.Items:
    """The items of the catalogue, each changed."""
    found = copy.deepcopy(stac.search(catalogue()))
    found[:] = [i for i in found if radar or "sentinel-2" in (i.collection_id or "")]
    for one in found if change else ():
        change(one)
    return found


def load(items: Any, **options: Any) -> xr.Dataset:
    return stac.load(items, **{"bands": ["B04"], **options})


def given(**options: Any) -> Any:
    return lambda: {"items": items(), **options}


def optical_alone(**options: Any) -> Any:
    return lambda: {"items": items(radar=False), **options}


def placeless(one: pystac.Item) -> pystac.Item:
    one.bbox = one.geometry = None
    for key in ("proj:bbox", "proj:geometry", "proj:transform", "proj:shape"):
        one.properties.pop(key, None)
        for asset in one.assets.values():
            asset.extra_fields.pop(key, None)
    return one


def nameless(one: pystac.Item) -> None:
    for key in ("proj:code", "proj:epsg"):
        one.properties.pop(key, None)


def timeless(one: pystac.Item) -> None:
    if "0506" in one.id:
        one.datetime = one.properties["datetime"] = None


def new(one: pystac.Item) -> None:
    one.datetime = one.datetime and one.datetime.replace(year=2023)
    one.properties["datetime"] = "2023-05-01T10:50:31Z"
    one.properties.pop("s2:processing_baseline", None)
    one.properties.pop("processing:version", None)
    for asset in one.assets.values():
        asset.extra_fields.pop("raster:bands", None)
        asset.extra_fields.pop("bands", None)


SEARCH = [
    Case(
        "Pass bbox=None or geometry=None",
        stac.search,
        lambda: {
            "source": catalogue(),
            "bbox": BOX,
            "geometry": {"type": "Point", "coordinates": [3.0005, 50.5515]},
        },
        put={" or geometry=None": ""},
    ),
    Case(
        "expected west <= east",
        stac.search,
        lambda: {"source": catalogue(), "bbox": (BOX[2], BOX[1], BOX[0], BOX[3])},
        names=CORNERS,
    ),
    Case(
        "ends before it starts",
        stac.search,
        lambda: {"source": catalogue(), "datetime": "2021-06/2021-01"},
        takes="datetime",
    ),
    Case(
        "expected a number from {} to {}",
        stac.search,
        lambda: {"source": catalogue(), "max_cloud": 101},
    ),
    Case(
        "expected a number from {} to {}",
        stac.search,
        lambda: {"source": catalogue(), "max_items": 0},
    ),
    Case(
        "expected conditions by property",
        stac.search,
        lambda: {"source": catalogue(), "query": "clear"},
        then=len,
        put={"eo:cloud_cover": "view:off_nadir", "'lt': 30": "'lt': 90"},
    ),
    Case(
        "or a list of items, got",
        lambda source: source if isinstance(source, stac.Items) else stac.search(source),
        lambda: {"source": 3},
        put={"catalog.json": catalogue},
    ),
    Case(
        "holds no catalogue",
        lambda source: source if isinstance(source, stac.Items) else stac.search(source),
        lambda: {"source": tempfile.mkdtemp()},
        put={"folder/your_items.json": catalogue},
    ),
]
LOAD = [
    Case("expected one time step a chunk", load, given(chunks={"time": 2, "x": 64})),
    Case("expected names. Pass bands=", load, given(bands=4), put={", 'B08'": ""}),
    Case(
        "expected bands of Sentinel-2, got {}",
        load,
        given(bands=["B04", "VV"]),
        put={"sar=True": "sar=True, bands=['B04']"},
    ),
    Case("expected metres above 0", load, given(resolution=0)),
    Case("expected metres, 0 or more", load, given(dilate=-1)),
    Case("to follow the metadata", load, given(harmonize="yes")),
    Case(
        "No items to load",
        load,
        {"items": []},
        put={
            " and see print(items.report())": "",
            "url, bbox=..., datetime=...": lambda: repr(catalogue()),
        },
    ),
    Case("a property that items have", load, given(groupby="orbit")),
    Case("expected pixels along a side", load, given(chunks=-5)),
    Case("expected {} or fewer", load, given(bbox=(2.5, 50.0, 3.5, 51.0), chunks=8), names=CORNERS),
    Case("they span {}. Pass bbox=None", load, given(bbox=(8, 50, 9, 51))),
    Case("No item says its CRS", load, lambda: {"items": items(nameless)}),
    Case(
        "is in degrees: expected a projected CRS",
        load,
        given(crs="EPSG:4326"),
    ),
    Case("is no CRS: expected a code", load, given(crs="utm")),
    Case(
        "An item has neither bbox nor geometry",
        load,
        lambda: {"items": [placeless(i) for i in items(radar=False)]},
        names=CORNERS,
    ),
    Case(
        "The grid is of type",
        load,
        given(like=cube(8, 9, 1).drop_vars("spatial_ref")),
        takes="like",
        names={"ds": cube(8, 9, 1).drop_vars("spatial_ref")},
    ),
    Case(
        "The geobox has CRS",
        load,
        given(geobox=WGS),
        takes="geobox",
        names={"GeoBox": GeoBox, "bounds": UTM.boundingbox.bbox},
    ),
    Case(
        "without rotation",
        load,
        given(geobox=UTM.flipy()),
        takes="geobox",
        put={"resolution=...": "resolution=10"},
        names={"GeoBox": GeoBox},
    ),
    Case("has no datetime", load, lambda: {"items": items(timeless)}),
    Case(
        "have no SCL",
        load,
        lambda: {"items": items(lambda i: i.assets.pop("scl", None))},
        names={"your_function": lambda ds: ds["B04"] > 0},
    ),
    Case(
        "there is no Sentinel-1 RTC item",
        load,
        optical_alone(sar=True),
        put={"collections=['sentinel-2-l2a', 'sentinel-1-rtc'] in search, or ": ""},
    ),
    Case("no such pass among", load, given(sar=True, sar_orbit="descending")),
    Case(
        "no DEM item reaches the grid",
        load,
        optical_alone(dem=True),
        put={"collections=[..., 'cop-dem-glo-30'] in search, or ": ""},
    ),
    Case("say no processing baseline", load, lambda: {"items": items(new, radar=False)}),
]
CASES = SEARCH + LOAD
