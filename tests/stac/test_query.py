import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest

import cubefill
from cubefill import stac
from cubefill.errors import CatalogueError
from cubefill.stac.query import Items, interval, search
from tests.shared.stac_cases import BANDS, cube, item, server


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stac.write_catalogue(cube(sar=True), tmp_path_factory.mktemp("catalogue"))


def ids(items: Items) -> list[str]:
    return sorted(i.id for i in items)


@pytest.mark.parametrize("name", ["", "catalog.json", "items.json"])
def test_files_and_folders(catalogue: Path, name: str) -> None:
    items = search(catalogue / name)
    assert len(items) == 11
    assert all(Path(a.href).is_file() for i in items for a in i.assets.values())
    times = [i.datetime for i in items]
    assert times == sorted(times)


def test_a_collection_a_relative_path_and_a_string(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(search(catalogue / "sentinel-1-rtc" / "collection.json")) == 5
    monkeypatch.chdir(catalogue.parent)
    items = search(f"{catalogue.name}/items.json")
    assert all(Path(a.href).is_file() for i in items for a in i.assets.values())


def test_objects_in_memory(catalogue: Path) -> None:
    want = ids(search(catalogue))
    documents = search(catalogue).to_dict()
    assert ids(search(documents)) == want
    assert ids(search(documents["features"])) == want
    assert ids(search(pystac.ItemCollection(list(search(catalogue))))) == want
    assert ids(search(pystac.Catalog.from_file(str(catalogue / "catalog.json")))) == want
    assert ids(cubefill.search(list(search(catalogue)))) == want


def test_saved_items_are_found_from_anywhere(catalogue: Path, tmp_path: Path) -> None:
    saved = search(catalogue).save(tmp_path / "mine.json")
    again = search(saved)
    assert ids(again) == ids(search(catalogue))
    assert all(Path(a.href).is_file() for i in again for a in i.assets.values())


def test_conditions_are_checked_here(catalogue: Path) -> None:
    items = search(catalogue, datetime="2021-05-06/2021-05-11", collections="sentinel-2-l2a")
    assert [i.id for i in items] == ["S2A_32631_20210506_0_L2A", "S2A_32631_20210511_0_L2A"]
    assert len(search(catalogue, max_items=3)) == 3
    assert len(search(catalogue, bbox=(3.0, 50.5, 3.001, 50.6))) == 11
    some = search(catalogue, query={"eo:cloud_cover": {"gte": 0, "lt": 101}})
    assert len(some) == 11


def test_neither_clouds_nor_dates_drop_what_they_do_not_concern() -> None:
    items = [
        item("clear", **{"eo:cloud_cover": 3}),
        item("cloudy", **{"eo:cloud_cover": 90}),
        item("unknown"),
        item("radar", collection="sentinel-1-rtc", keys=("vv", "vh")),
        item("dem", collection="cop-dem-glo-30", keys=("data",), time="2011-01-01T00:00:00Z"),
        item("late", time="2023-01-01T00:00:00Z"),
        item("cover", collection="esa-worldcover", keys=("map",)),
    ]
    found = search(items, max_cloud=20, datetime="2021")
    assert ids(found) == ["clear", "dem", "radar", "unknown"]
    reasons = {d.item: d.reason for d in found.dropped}
    assert reasons == {
        "cloudy": "more than 20 % cloud",
        "late": "outside the dates",
        "cover": "neither Sentinel-2 L2A, Sentinel-1 RTC nor a DEM",
    }
    assert "left out 1: more than 20 % cloud" in found.report()
    assert ids(search(items, collections=["esa-worldcover"])) == ["cover"]
    assert isinstance(found[1:], Items)


def test_an_item_given_twice_counts_once() -> None:
    found = search([item("a"), item("a"), item("b")])
    assert ids(found) == ["a", "b"]
    assert found.dropped[0].reason == "given twice"


def test_geometry_is_more_than_its_box() -> None:
    triangle = {"type": "Polygon", "coordinates": [[[3, 50], [4, 50], [4, 51], [3, 50]]]}
    inside, corner = item("in", box=(3.9, 50.1, 3.95, 50.2)), item("out", box=(3, 50.8, 3.1, 51))
    for given in (triangle, {"type": "Feature", "geometry": triangle, "properties": {}}):
        assert ids(search([inside, corner], geometry=given)) == ["in"]
    assert ids(search([inside, corner], bbox=(3, 50, 4, 51))) == ["in", "out"]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2018-05-04", "2018-05-04", "2018-05-04T23:59:59.999999"),
        ("2018-05", "2018-05-01", "2018-05-31T23:59:59.999999"),
        ("2018", "2018-01-01", "2018-12-31T23:59:59.999999"),
        ("2018-01-01/2018-06-30", "2018-01-01", "2018-06-30T23:59:59.999999"),
        ("2018-01-01T10:00:00Z/2018-02", "2018-01-01T10", "2018-02-28T23:59:59.999999"),
        ("2018-05/..", "2018-05-01", None),
        ("../2018-05", None, "2018-05-31T23:59:59.999999"),
    ],
)
def test_interval(text: str, start: str | None, end: str | None) -> None:
    got = interval(text)
    want = tuple(None if t is None else pd.Timestamp(t, tz="UTC") for t in (start, end))
    assert got == want


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datetime": "last year"}, r"'last year' is not understood.*2018-01-01/2018-06-30"),
        ({"datetime": "2019/2018"}, r"ends before it starts\. Use '2018/2019'"),
        ({"datetime": "2018/2019/2020"}, "more than one /"),
        ({"bbox": (1, 2, 3)}, "expected four numbers, west, south, east, north"),
        ({"bbox": (4, 50, 3, 51)}, "expected west <= east"),
        ({"bbox": (500000, 5e6, 600000, 5.1e6)}, r"expected degrees.*Reproject it to EPSG:4326"),
        ({"bbox": (1, 2, 3, 4), "geometry": {}}, "Both bbox and geometry"),
        ({"geometry": "POINT (1 2)"}, r"geometry of type str.*expected GeoJSON"),
        ({"query": {"gsd": {"near": 3}}}, "expected one of eq, neq"),
        ({"query": {"gsd": {"lt": "a"}}}, "cannot be compared with the item's 10: expected a int"),
        ({"query": 3}, r"query=3: expected conditions by property\. Pass query="),
        ({"bbox": (1, float("inf"), 3, 4)}, "expected four numbers"),
        ({"bbox": (1, 2, float("nan"), 4)}, "expected four numbers"),
        ({"geometry": {"type": "Catalog"}}, "is not understood"),
        ({"datetime": "nan"}, "is not understood"),
        ({"max_cloud": float("inf")}, r"max_cloud=inf: expected a number from 0 to 100"),
        ({"max_cloud": float("nan")}, r"max_cloud=nan: .*Pass max_cloud=50"),
        ({"max_cloud": -1}, "expected a number from 0 to 100"),
        ({"max_cloud": "20"}, "max_cloud='20': expected a number"),
        ({"max_items": 0}, r"expected a number from 1 .*Pass max_items=10"),
        ({"timeout": 0}, "timeout=0: expected a number"),
    ],
)
def test_bad_conditions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        search([item(gsd=10)], **options)


def test_nothing_found_says_query_and_extent() -> None:
    with pytest.raises(CatalogueError) as caught:
        search([item()], bbox=(8, 50, 9, 51), datetime="2021")
    text = str(caught.value)
    assert "bbox=(8.0, 50.0, 9.0, 51.0), datetime=2021" in text
    assert "3.0000, 50.0000, 3.1000, 50.1000; 2021-05-01 to 2021-05-01" in text
    assert "1 outside the area" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"type": "Topology"}', r"no STAC document \(type 'Topology'\)"),
        ('{"type": "FeatureCollection", "features": [{"id": 1}]}', "Item 0 of .* is not a STAC"),
        ('{"type": "FeatureCollection", "features": []}', "holds no item"),
        ('{"type": "FeatureCollection", "features": null}', "holds no item"),
        (
            '{"type": "Catalog", "links": [{"rel": "item", "href": "./gone.json"}]}',
            r"links to \./gone\.json, which is not there",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "items.json").write_text(content)
    with pytest.raises(CatalogueError, match=message):
        search(tmp_path / "items.json")


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"holds no catalogue: expected one of catalog\.json"):
        search(tmp_path)
    with pytest.raises(CatalogueError, match="No file or folder"):
        search(tmp_path / "absent.json")
    with pytest.raises(CatalogueError, match="got int"):
        search(3)
    with pytest.raises(CatalogueError, match=r"s3://b/c\.json is no address of a catalogue"):
        search("s3://b/c.json")


def test_one_id_at_two_times_is_two_items() -> None:
    later = item("a", time="2021-05-06T10:50:31Z")
    assert ids(search([item("a"), later, item("a")])) == ["a", "a"]


def test_the_hint_of_an_empty_search_leads_on() -> None:
    cover = item("cover", collection="esa-worldcover", keys=("map",))
    with pytest.raises(CatalogueError) as caught:
        search([cover])
    assert "pass collections=['esa-worldcover']" in str(caught.value)
    assert ids(search([cover], collections=["esa-worldcover"])) == ["cover"]


def test_static_files_over_http(catalogue: Path) -> None:
    with server(catalogue) as url:
        one = search(f"{url}/items.json")
        other = search(f"{url}/catalog.json")
        ds = stac.load(one, bands=BANDS).compute()
    assert len(one) == len(other) == 11
    assert one[0].assets["blue" if "blue" in one[0].assets else "data"].href.startswith(url)
    np.testing.assert_array_equal(ds["B04"], cube()["B04"])


# ------------------------------------------------------------------ a live server


@pytest.fixture
def rustac(catalogue: Path, tmp_path: Path) -> Iterator[str]:
    program = shutil.which("rustac", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no live STAC API: rustac is not installed")
    with server(catalogue) as files:
        document = json.loads((catalogue / "items.json").read_text())
        for feature in document["features"]:
            for asset in feature["assets"].values():
                asset["href"] = f"{files}/{asset['href'].removeprefix('./')}"
        (tmp_path / "items.json").write_text(json.dumps(document))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [program, "serve", "-a", address, "--create-collections"]
        process = subprocess.Popen(
            [*command, str(tmp_path / "items.json")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait(address)
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


def wait(address: str) -> None:
    host, port = address.split(":")
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    pytest.fail("rustac does not listen")


def test_a_live_api_gives_the_cube_back(rustac: str) -> None:
    ds = cube(sar=True)
    items = search(rustac, bbox=(3.0, 50.5, 3.01, 50.6), datetime="2021-05", max_cloud=100)
    got = stac.load(items, bbox=None, bands=BANDS, sar=True, dem=True).compute()
    assert got.sizes["time"] == 5
    got = got.reindex_like(ds[["x", "y"]], fill_value={"SCL": 0})
    inside = ds
    for name in (*BANDS, "SCL", "DEM"):
        np.testing.assert_array_equal(got[name], inside[name])
    np.testing.assert_allclose(got["VV"], inside["VV"], atol=1e-5)
    with pytest.raises(CatalogueError, match="max_cloud=-1"):
        search(rustac, max_cloud=-1, collections=["sentinel-2-l2a"])
