"""One scene, told of by many catalogues in their own ways, is one cube; what cannot be is said."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cubefill import stac
from cubefill.cube.bands import BANDS
from cubefill.errors import CatalogueError, CubefillError, CubefillWarning, ReadError
from tests.shared.stac_cases import cube

Change = Callable[[dict[str, Any]], object]
CODE = "EPSG:32631"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Items of baseline 05.09 in 2023, offset not taken off, absolute hrefs."""
    ds = cube(8, 9, dates=2)
    ds = ds.assign_coords(time=ds["time"] + np.timedelta64(730, "D"))
    folder = stac.write_catalogue(ds, tmp_path_factory.mktemp("scene"), quirk="offset")
    doc: dict[str, Any] = json.loads((folder / "items.json").read_text())
    for asset in assets(doc):
        asset["href"] = str((folder / asset["href"]).resolve())
    return doc


@pytest.fixture(scope="module")
def truth(scene: dict[str, Any]) -> xr.Dataset:
    return load(scene)


def load(doc: dict[str, Any], **options: Any) -> xr.Dataset:
    return stac.load(doc, bands=("B04", "B8A"), chunks=None, **options)


def assets(doc: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for feature in doc["features"]:
        yield from feature["assets"].values()


def changed(scene: dict[str, Any], *changes: Change) -> dict[str, Any]:
    doc = copy.deepcopy(scene)
    for feature in doc["features"]:
        for change in changes:
            change(feature)
    return doc


def said(**properties: Any) -> Change:
    """Properties that are set; a name with __ is one with a colon; None takes one away."""

    def change(feature: dict[str, Any]) -> None:
        named = {k.replace("__", ":"): v for k, v in properties.items()}
        kept = {**feature["properties"], **named}
        feature["properties"] = {k: v for k, v in kept.items() if v is not None}

    return change


def each(of: Callable[[dict[str, Any]], object], *, classes: bool = False) -> Change:
    """The same done to every asset of counts, or to all."""

    def change(feature: dict[str, Any]) -> None:
        for key, asset in feature["assets"].items():
            if classes or key != "scl":
                of(asset)

    return change


def raster(**values: Any) -> Change:
    return each(lambda a: a["raster:bands"][0].update(values))


def renamed(field: str, name: str) -> Change:
    """Assets under other keys, their common names in band metadata."""

    def change(feature: dict[str, Any]) -> None:
        old = feature["assets"]
        feature["assets"] = {"scl": old.pop("scl")}
        for number, (key, asset) in enumerate(old.items()):
            asset[field] = [{"name": f"band {number}", name: key}]
            feature["assets"][f"image{number}"] = asset

    return change


def as_bands(feature: dict[str, Any]) -> None:
    """STAC 1.1: numbers in `bands`."""
    for asset in feature["assets"].values():
        numbers = asset.pop("raster:bands")[0]
        asset["bands"] = [{f"raster:{k}" if k == "scale" else k: v for k, v in numbers.items()}]
        asset["bands"][0]["raster:offset"] = asset["bands"][0].pop("offset", None)


def in_gdal_order(asset: dict[str, Any]) -> None:
    a, b, c, d, e, f = asset["proj:transform"]
    asset["proj:transform"] = [c, a, b, f, d, e]


def interval(feature: dict[str, Any]) -> None:
    when = feature["properties"]["datetime"]
    feature["properties"] |= {"datetime": None, "start_datetime": when, "end_datetime": when}


NO_NUMBERS = each(lambda a: a.pop("raster:bands"))
NO_BASELINE = said(s2__processing_baseline=None, earthsearch__boa_offset_applied=None)
NO_CODE = said(proj__code=None)

NUMBERS: dict[str, tuple[Change, ...]] = {
    "as it is": (),
    "in text": (raster(scale="0.0001", offset="-0.1", nodata="0"),),
    "in counts": (raster(offset=-1000),),
    "as GDAL's defaults": (raster(scale=1.0, offset=0.0),),
    "as the quantification value": (raster(scale=10000, offset=-1000),),
    "on the asset": (each(lambda a: a.update(a.pop("raster:bands")[0])),),
    "in bands": (as_bands,),
    "nonsense": (raster(scale="?", offset=[], nodata={}, data_type="uint16"),),
    "empty": (each(lambda a: a.update({"raster:bands": []})),),
    "null": (each(lambda a: a.update({"raster:bands": None, "bands": ["B04"]})),),
    "none": (NO_NUMBERS,),
}
PLACES: dict[str, tuple[Change, ...]] = {
    "as it is": (),
    "no outline": (lambda f: f.update(geometry=None), lambda f: f.pop("bbox")),
    "a box alone": (lambda f: f.update(geometry=None),),
    "epsg": (NO_CODE, said(proj__epsg=32631)),
    "wkt": (NO_CODE, said(proj__wkt2=pyproj.CRS(CODE).to_wkt())),
    "projjson": (NO_CODE, said(proj__projjson=pyproj.CRS(CODE).to_json_dict())),
    "epsg on assets": (NO_CODE, each(lambda a: a.update({"proj:epsg": 32631}), classes=True)),
    "a tile": (NO_CODE, said(grid__code="MGRS-31UDS")),
    "GDAL's order": (each(in_gdal_order, classes=True),),
    "no transform": (each(lambda a: a.pop("proj:transform"), classes=True),),
    "a short transform": (each(lambda a: a.update({"proj:transform": [1, 2]}), classes=True),),
}
NAMES: dict[str, tuple[Change, ...]] = {
    "as it is": (),
    "eo:bands": (renamed("eo:bands", "common_name"),),
    "bands": (NO_NUMBERS, renamed("bands", "eo:common_name")),
    "file://": (each(lambda a: a.update(href=f"file://{a['href']}"), classes=True),),
    "file://localhost": (each(lambda a: a.update(href=f"FILE://localhost{a['href']}")),),
    "an interval": (interval,),
    "no collection": (lambda f: f.pop("collection"),),
    "odd properties": (said(platform=5, grid__code=5, eo__cloud_cover="12"),),
}
BASELINES = ["05.09", "5.09", 5.09, "N0509", "0509", 509, " 05.09 "]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    numbers=st.sampled_from(sorted(NUMBERS)),
    place=st.sampled_from(sorted(PLACES)),
    names=st.sampled_from(sorted(NAMES)),
    key=st.sampled_from(["s2__processing_baseline", "sentinel__processing_baseline"]),
    baseline=st.sampled_from(BASELINES),
)
def test_a_scene_is_the_same_from_every_catalogue(
    scene: dict[str, Any],
    truth: xr.Dataset,
    numbers: str,
    place: str,
    names: str,
    key: str,
    baseline: Any,
) -> None:
    own = (NO_BASELINE, said(**{key: baseline}))
    # The place comes last: odd properties would take the tile away, the only place there is.
    changes = (*own, *NUMBERS[numbers], *NAMES[names], *PLACES[place])
    if numbers != "as it is" and names == "bands":
        changes = (*own, *NAMES[names], *PLACES[place])
    got = load(changed(scene, *changes))
    for band in ("B04", "B8A", "SCL", "valid"):
        np.testing.assert_array_equal(got[band], truth[band])
    np.testing.assert_array_equal(got["time"], truth["time"])


def test_a_new_item_without_baseline_is_right_and_named(
    scene: dict[str, Any], truth: xr.Dataset
) -> None:
    doc = changed(scene, NO_BASELINE, NO_NUMBERS)
    with pytest.warns(CubefillWarning, match="2 items say no processing baseline") as caught:
        got = load(doc)
    assert len(caught) == 1
    assert doc["features"][0]["id"] in str(caught[0].message)
    np.testing.assert_array_equal(got["B04"], truth["B04"])
    assert got.attrs["offset_items"] == "2 items: -1000 counts (acquired since baseline 04.00)"
    np.testing.assert_array_equal(load(doc, harmonize=-1000)["B04"], truth["B04"])
    raw = load(doc, harmonize=False)["B04"]
    np.testing.assert_allclose(raw, truth["B04"] + 0.1, atol=1e-6)


def test_old_items_without_baseline_are_taken_as_they_are(scene: dict[str, Any]) -> None:
    old = said(datetime="2021-05-01T10:50:31Z")
    got = load(changed(scene, NO_BASELINE, NO_NUMBERS, old))
    assert got.attrs["offset_items"].endswith("+0 counts (no metadata)")


def test_floats_of_no_known_scale_are_refused_and_the_hint_leads_on(
    scene: dict[str, Any], truth: xr.Dataset, tmp_path: Path
) -> None:
    doc = changed(scene, NO_NUMBERS)
    del doc["features"][1]
    for key, asset in doc["features"][0]["assets"].items():
        if key == "red":
            with rasterio.open(asset["href"]) as file:
                profile = file.profile | {"dtype": "float32", "driver": "GTiff", "nodata": None}
            asset["href"] = str(tmp_path / "red.tif")
            with rasterio.open(asset["href"], "w", **profile) as file:
                file.write(truth["B04"].values[0], 1)
    with pytest.raises(ReadError, match="nothing says its scale"):
        load(doc)
    items = stac.search(doc)
    red = items[0].assets["red"]
    red.extra_fields["raster:bands"] = [{"data_type": "float32", "scale": 1}]
    got = stac.load(items, bands=("B04",))
    np.testing.assert_array_equal(got["B04"][0], truth["B04"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (said(proj__code="nope"), r"'nope' is no CRS.*Pass crs='EPSG:32631'"),
        (NO_CODE, r"No item says its CRS.*Pass crs='EPSG:32631'"),
        (lambda f: f.update(geometry={"type": "Polygon"}), "lies nowhere: its geometry"),
        (lambda f: f.update(geometry=None, bbox=[None] * 4), "lies nowhere: its geometry"),
        (lambda f: f["assets"]["red"].update(href=""), "2 items have no asset for B04"),
        (lambda f: f["assets"]["red"].update(href="file://host/b.tif"), "names the machine 'host'"),
        (lambda f: f.update(properties=None), "is not a STAC item"),
        (lambda f: f.update(assets={}), "neither Sentinel-2 L2A"),
    ],
)
def test_items_that_cannot_be_read(scene: dict[str, Any], change: Change, message: str) -> None:
    with pytest.raises(CubefillError, match=message):
        load(changed(scene, change))


def test_the_hint_for_a_crs_leads_on(scene: dict[str, Any], truth: xr.Dataset) -> None:
    got = load(changed(scene, NO_CODE), crs="EPSG:32631")
    np.testing.assert_array_equal(got["B04"], truth["B04"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": float("inf")}, r"resolution=inf: .*Pass resolution=10"),
        ({"resolution": 0}, "expected metres above 0"),
        ({"resolution": "10"}, "expected metres above 0"),
        ({"dilate": float("nan")}, r"dilate=nan: expected metres, 0 or more\. Pass dilate=30"),
        ({"harmonize": "no"}, r"harmonize='no': expected True, False, a number"),
        ({"harmonize": float("nan")}, "expected True, False, a number"),
        ({"harmonize": 10**400}, "expected True, False, a number"),
        ({"groupby": "day"}, r"groupby='day': expected one of .*Pass groupby='solar_day'"),
        ({"chunks": -5}, r"chunks=-5: expected pixels .*Pass chunks=1024"),
        ({"chunks": "auto"}, "chunks='auto': expected pixels"),
        ({"geobox": 3}, "The grid is of type int: expected an odc"),
        ({"like": 3}, "The grid is of type int: expected an odc"),
        ({"crs": "nan"}, "'nan' is no CRS"),
        ({"bbox": (-179, -80, 179, 80)}, r"in \d+ chunks: expected 50000 or fewer"),
    ],
)
def test_options_that_cannot_be(scene: dict[str, Any], options: Any, message: str) -> None:
    with pytest.raises(CubefillError, match=message):
        stac.load(scene, **{"bands": ("B04",), **options})


@pytest.mark.parametrize("bands", [(), [], None, "B99", [3]])
def test_bands_that_cannot_be(scene: dict[str, Any], bands: Any) -> None:
    with pytest.raises(CubefillError):
        stac.load(scene, bands=bands)


def test_minus_one_is_one_chunk(scene: dict[str, Any]) -> None:
    assert stac.load(scene, bands=("B04",), chunks=-1).chunksizes["y"] == (8,)


def test_every_common_name_of_a_band_is_known() -> None:
    from cubefill.stac.items import name_of
    from tests.shared.stac_cases import item

    for band in BANDS.values():
        for common in (band.name, *band.common):
            for field, key in (("eo:bands", "common_name"), ("bands", "eo:common_name")):
                one = item(keys=("image",), asset={field: [{"name": "b", key: common}]})
                assert name_of("image", one.assets["image"]) == band.name


def test_an_item_without_place_asks_for_the_area(scene: dict[str, Any]) -> None:
    off = (lambda f: f.update(geometry=None), lambda f: f.pop("bbox"), PLACES["no transform"][0])
    with pytest.raises(CatalogueError, match="Pass bbox="):
        load(changed(scene, *off))
