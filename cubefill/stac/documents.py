"""The JSON of a static STAC catalogue: relative hrefs, each against the file that holds it."""

import json
from pathlib import Path
from typing import Any

from cubefill.ownership import WRITER


def write_documents(root: Path, items: list[dict[str, Any]], bbox: list[float]) -> None:
    """Writes `catalog.json`, a folder a collection with its items, and `items.json`."""
    collections = sorted({i["collection"] for i in items})
    links = [{"rel": "child", "href": f"./{c}/collection.json", "type": _JSON} for c in collections]
    root_link = {"rel": "root", "href": "./catalog.json", "type": _JSON}
    catalogue = {
        "type": "Catalog",
        "id": root.name or "cubefill",
        "stac_version": "1.1.0",
        "description": WRITER,
        "links": [root_link, *links],
    }
    _write(root / "catalog.json", catalogue)
    for name in collections:
        own = [i for i in items if i["collection"] == name]
        _write(root / name / "collection.json", _collection(name, own, bbox))
        for item in own:
            up = {"rel": "collection", "href": "../collection.json", "type": _JSON}
            top = {"rel": "root", "href": "../../catalog.json", "type": _JSON}
            path = root / name / item["id"] / f"{item['id']}.json"
            _write(path, {**item, "links": [top, up, {**up, "rel": "parent"}]})
    together = [{**i, "assets": _from_root(i)} for i in items]
    _write(root / "items.json", {"type": "FeatureCollection", "features": together})


def _from_root(item: dict[str, Any]) -> dict[str, Any]:
    folder = f"./{item['collection']}/{item['id']}"
    return {k: {**a, "href": f"{folder}/{Path(a['href']).name}"} for k, a in item["assets"].items()}


def _collection(name: str, items: list[dict[str, Any]], bbox: list[float]) -> dict[str, Any]:
    dates = sorted(i["properties"]["datetime"] for i in items)
    rows = [{"rel": "item", "href": f"./{i['id']}/{i['id']}.json", "type": _GEO} for i in items]
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.1.0",
        "description": f"{name}, written by cubefill",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [bbox]},
            "temporal": {"interval": [[dates[0], dates[-1]]]},
        },
        "links": [{"rel": "root", "href": "../catalog.json", "type": _JSON}, *rows],
    }


_JSON, _GEO = "application/json", "application/geo+json"


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
