import json
import socket
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pystac
import pytest

from cubefill.errors import CatalogueError
from cubefill.stac.query import Items, search
from tests.shared.stac_cases import item, reply, server


class Api:
    """A STAC API in a few lines, with the faults that are asked for."""

    def __init__(self, items: list[pystac.Item], conforms: tuple[str, ...] = ()) -> None:
        self.items = [i.to_dict(include_self_link=False) for i in items]
        self.conforms = ["https://api.stacspec.org/v1.0.0/core", *conforms]
        self.conforms.append("https://api.stacspec.org/v1.0.0/item-search")
        self.asked: list[dict[str, Any]] = []
        self.faults: list[int] = []
        self.largest = 1000

    def __call__(self, handler: BaseHTTPRequestHandler) -> bool:
        url = f"http://{handler.headers['Host']}"
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.faults:
            reply(handler, self.faults.pop(0), headers={"Retry-After": "0"})
            return True
        if handler.path.startswith("/search"):
            self._search(handler, json.loads(body), url)
        elif handler.path.startswith("/collections"):
            names = sorted({i["collection"] for i in self.items})
            self._json(handler, {"collections": [_collection(n) for n in names], "links": []})
        else:
            self._json(handler, self._root(url))
        return True

    def _root(self, url: str) -> dict[str, Any]:
        links = {"self": url, "root": url, "data": f"{url}/collections", "search": f"{url}/search"}
        return {
            "type": "Catalog",
            "id": "test",
            "stac_version": "1.0.0",
            "description": "test",
            "conformsTo": [*self.conforms, "https://api.stacspec.org/v1.0.0/collections"],
            "links": [
                {"rel": k, "href": v, "type": "application/json"}
                | ({"method": "POST"} if k == "search" else {})
                for k, v in links.items()
            ],
        }

    def _search(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], url: str) -> None:
        self.asked.append(body)
        if body["limit"] > self.largest:
            reply(handler, 413)
            return
        found = [i for i in self.items if i["collection"] in body["collections"]]
        start = body.get("start", 0)
        stop = start + body["limit"]
        links = []
        if stop < len(found):
            links = [
                {"rel": "next", "href": f"{url}/search", "method": "POST", "merge": True}
                | {"body": {"start": max(stop - 1, 1)}}
            ]
        page = {"type": "FeatureCollection", "features": found[start:stop], "links": links}
        self._json(handler, page)

    @staticmethod
    def _json(handler: BaseHTTPRequestHandler, doc: dict[str, Any]) -> None:
        reply(handler, 200, json.dumps(doc).encode(), {"Content-Type": "application/json"})


def _collection(name: str) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    return {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name,
        "license": "other", "extent": extent, "links": [],
    }  # fmt: skip


def remote(name: str, **options: Any) -> pystac.Item:
    one = item(name, **options)
    for asset in one.assets.values():
        asset.href = f"https://example.org{asset.href}"
    return one


def mixture() -> list[pystac.Item]:
    return [
        *(remote(f"s2_{n:03}", **{"eo:cloud_cover": n}) for n in range(40)),
        remote("s1", collection="sentinel-1-rtc", keys=("vv", "vh")),
        remote("dem", collection="cop-dem-glo-30", keys=("data",), time="2011-01-01T00:00:00Z"),
        remote("cover", collection="esa-worldcover", keys=("map",)),
    ]


def test_a_server_without_query_is_not_sent_one(tmp_path: Path) -> None:
    api = Api(mixture())
    with server(tmp_path, api) as url:
        found = search(url, max_cloud=9, datetime="2021")
    assert len(found) == 12
    assert not [b for b in api.asked if "query" in b or "filter" in b]
    by = {b["collections"][0]: b for b in api.asked}
    assert set(by) == {"sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"}
    assert "datetime" not in by["cop-dem-glo-30"]


@pytest.mark.parametrize(
    ("conformance", "word"),
    [
        ("https://api.stacspec.org/v1.0.0/item-search#query", "query"),
        ("https://api.stacspec.org/v1.0.0/item-search#filter", "filter"),
    ],
)
def test_a_server_that_declares_it_is_sent_the_condition(
    tmp_path: Path, conformance: str, word: str
) -> None:
    api = Api(mixture(), (conformance,))
    with server(tmp_path, api) as url:
        found = search(url, max_cloud=9)
    assert len(found) == 12
    by = {b["collections"][0]: b for b in api.asked}
    assert "eo:cloud_cover" in json.dumps(by["sentinel-2-l2a"][word])
    assert word not in by["sentinel-1-rtc"]


@pytest.mark.parametrize("faults", [[503, 503], [429], [500, 502, 504]])
def test_a_server_that_recovers(tmp_path: Path, faults: list[int]) -> None:
    api = Api(mixture())
    with server(tmp_path, api) as url:
        api.faults = list(faults)
        assert len(search(url, collections=["sentinel-2-l2a"])) == 40


def test_posts_are_tried_again(tmp_path: Path) -> None:
    api = Api(mixture())
    plain = api._search

    def flaky(handler: BaseHTTPRequestHandler, body: dict[str, Any], url: str) -> None:
        if len(api.asked) < 2:
            api.asked.append(body)
            reply(handler, 503, headers={"Retry-After": "0"})
        else:
            plain(handler, body, url)

    api._search = flaky  # type: ignore[method-assign]
    with server(tmp_path, api) as url:
        assert len(search(url, collections=["sentinel-2-l2a"])) == 40


def test_large_pages_are_asked_for_again_in_parts(tmp_path: Path) -> None:
    api = Api(mixture())
    api.largest = 20
    with server(tmp_path, api) as url:
        found = search(url, collections=["sentinel-2-l2a"])
    assert len(found) == 40
    assert [b["limit"] for b in api.asked][:3] == [100, 50, 20]


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cubefill.stac.sources.RETRIES", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(CatalogueError, match=r"did not answer as a STAC API.*raise timeout="):
        search(f"http://127.0.0.1:{port}")
    api = Api(mixture())
    with server(tmp_path, api) as url:
        api.faults = [404]
        with pytest.raises(CatalogueError, match="did not answer"):
            search(url)


def test_a_server_must_not_name_local_files(tmp_path: Path) -> None:
    one = item()
    one.assets["red"].href = "file:///etc/secret.tif"
    (tmp_path / "items.json").write_text(json.dumps(Items([one]).to_dict()))
    with (
        server(tmp_path) as url,
        pytest.raises(CatalogueError, match="must not name files of this machine"),
    ):
        search(f"{url}/items.json")
