"""Where items come from: files, folders, lists, and servers that fail now and then."""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from cubefill.addresses import bare, is_url, local, local_path
from cubefill.errors import CatalogueError
from cubefill.stac.items import name_of

log = logging.getLogger("cubefill")

RETRIES = 5
"""Attempts after the first for a request to a server, with back-off."""

RETRY_CODES = (429, 500, 502, 503, 504)

PAGES = (100, 50, 20, 5)
"""Items asked for in one page; the next where a server answers that a page is too large."""

REMOTE = {"http", "https", "s3", "gs"}
"""Schemes that an item of a server may point to."""

_KNOWN = ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-1-rtc", "cop-dem-glo-30")
_FILES = ("catalog.json", "collection.json", "items.json")


def read_source(
    source: Any, wanted: Any, *, headers: Mapping[str, str] | None, timeout: float
) -> tuple[Iterable[Any], str]:
    """Items of a source with absolute hrefs, and what to call the source.

    `wanted` is the `Query`; only a server is told of it. Items are not yet filtered.
    """
    if isinstance(source, str | os.PathLike):
        text = local(os.fspath(source))
        if urlsplit(text).scheme in ("http", "https"):
            return _remote(text, wanted, headers, timeout), bare(text)
        if is_url(text):
            raise CatalogueError(
                f"{bare(text)} is no address of a catalogue: expected a path or a URL that starts "
                "with https:// or file://. Download it and pass its path."
            )
        path = _file(local_path(text))
        return _document(_json(path), str(path)), str(path)
    if isinstance(source, Mapping):
        return _document(source, ""), "a dict"
    if hasattr(source, "get_items") and hasattr(source, "get_children"):
        return (_absolute(i) for i in source.get_items(recursive=True)), f"catalogue {source.id}"
    return _items(source), "the list"


def item_from(given: Any, base: str, number: int = 0) -> Any:
    """A `pystac.Item` from an item or a dict, hrefs made absolute against `base`.

    Raises
    ------
    CatalogueError
        It is not a STAC item.
    """
    import pystac

    if isinstance(given, pystac.Item):
        return _absolute(given)
    where = bare(base) or "the list"
    try:
        item = pystac.Item.from_dict(dict(given), migrate=False)
    except KeyError as error:
        raise CatalogueError(
            f"Item {number} of {where} is not a STAC item: {error} is missing. Expected a GeoJSON "
            "Feature with id, geometry, properties, links and assets."
        ) from error
    except Exception as error:  # pystac raises its own and foreign classes for broken JSON
        raise CatalogueError(
            f"Item {number} of {where} is not a STAC item ({type(error).__name__}: {error}). "
            "Expected a GeoJSON Feature with id, properties and assets."
        ) from error
    for asset in item.assets.values():
        asset.href = absolute(asset.href, base)
    return item


def absolute(href: str, base: str) -> str:
    """An href resolved against the file or URL that holds it.

    Examples
    --------
    >>> absolute("./B02.tif", "/data/items.json"), absolute("b.tif", "https://h/c/item.json")
    ('/data/B02.tif', 'https://h/c/b.tif')
    """
    if not href or len(urlsplit(href).scheme) > 1:
        return href
    if urlsplit(base).scheme in ("http", "https"):
        return urljoin(base, href)
    if not base or href.startswith("/"):
        return href
    return os.path.normpath(Path(local(base)).parent / href)


def _items(source: Any) -> Iterator[Any]:
    try:
        listed = list(source)
    except TypeError as error:
        raise CatalogueError(
            f"Expected a URL, a path, an ItemCollection or a list of items, got "
            f"{type(source).__name__}. Use cubefill.search('catalog.json')."
        ) from error
    for number, given in enumerate(listed):
        yield item_from(given, "", number)


def _absolute(item: Any) -> Any:
    own = item.get_self_href()
    if own:
        for asset in item.assets.values():
            asset.href = absolute(asset.href, own)
    return item


def _file(path: Path) -> Path:
    if path.is_dir():
        found = [path / n for n in _FILES if (path / n).is_file()]
        if not found:
            raise CatalogueError(
                f"Folder {path} holds no catalogue: expected one of {', '.join(_FILES)}. "
                "Use cubefill.search('folder/your_items.json')."
            )
        return found[0].absolute()
    if not path.exists():
        raise CatalogueError(
            f"No file or folder {path}: expected a catalogue, an ItemCollection, or the URL of a "
            "STAC API that starts with https://."
        )
    return path.absolute()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path} cannot be read as JSON: {error}.") from error


def _document(doc: Any, base: str, read: Any = None, seen: set[str] | None = None) -> Iterator[Any]:
    """Items of a STAC document: an item, an ItemCollection, or a catalogue and what it links to."""
    sort = doc.get("type") if isinstance(doc, Mapping) else None
    if sort == "FeatureCollection":
        for number, feature in enumerate(doc.get("features") or ()):
            yield item_from(feature, base, number)
    elif sort == "Feature":
        yield item_from(doc, base)
    elif sort in ("Catalog", "Collection"):
        seen, read = set() if seen is None else seen, read or _linked
        for link in doc.get("links") or ():
            href = absolute(str(link.get("href")), base)
            if link.get("rel") in ("child", "item", "items") and href not in seen:
                seen.add(href)
                yield from _document(read(href), href, read, seen)
    else:
        raise CatalogueError(
            f"{bare(base) or 'The dict'} is no STAC document (type {sort!r}): expected Catalog, "
            "Collection, Feature or FeatureCollection."
        )


def _linked(href: str) -> Any:
    path = Path(local(href))
    if not path.is_file():
        raise CatalogueError(
            f"The catalogue links to ./{path.name}, which is not there: expected the file {path}."
        )
    return _json(path)


# ------------------------------------------------------------------ servers


def _remote(
    url: str, wanted: Any, headers: Mapping[str, str] | None, timeout: float
) -> Iterator[Any]:
    """Items of a URL: an ItemCollection, a static catalogue, or a live API."""
    import requests

    io = _io(headers, timeout)
    try:
        doc = json.loads(io.read_text(url))
        collection = doc.get("type") == "FeatureCollection"
        searched = any(x.get("rel") == "search" for x in doc.get("links", ()))
        if searched and (doc.get("conformsTo") or not collection):
            found = _api(url, io, wanted)
        else:
            found = _document(doc, url, lambda href: json.loads(io.read_text(href)))
        for item in found:
            yield _safe(item, url)
    except CatalogueError:
        raise
    except (requests.RequestException, ValueError, OSError) as error:
        raise _unreachable(url, error) from error
    except Exception as error:
        if type(error).__name__ != "APIError":
            raise
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> CatalogueError:
    text = bare(" ".join(str(error).split()))[:300]
    return CatalogueError(
        f"{bare(url)} did not answer as a STAC API or catalogue after {RETRIES} retries: {text}. "
        "Check the address; `curl -I` it; raise timeout= for a slow server."
    )


def _io(headers: Mapping[str, str] | None, timeout: float) -> Any:
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util.retry import Retry

    retry = Retry(
        total=RETRIES,
        backoff_factor=0.3,
        backoff_max=30,
        status_forcelist=RETRY_CODES,
        allowed_methods=None,
        respect_retry_after_header=True,
    )
    return StacApiIO(headers=dict(headers or {}), timeout=timeout, max_retries=retry)


def _api(url: str, io: Any, wanted: Any) -> Iterator[Any]:
    import pystac_client

    with warnings.catch_warnings():  # what a server lacks is found out and handled here
        warnings.simplefilter("ignore", pystac_client.warnings.PystacClientWarning)
        client = pystac_client.Client.open(url, stac_io=io)
        names = list(wanted.collections or _collections(client, url))
        requests = list(_requests(client, wanted, names))
    for options in requests:
        for number, doc in enumerate(_pages(client, options)):
            yield item_from(doc, _own(doc, url), number)


def _own(doc: Mapping[str, Any], url: str) -> str:
    links = (x.get("href") for x in doc.get("links", ()) if x.get("rel") == "self")
    return next((absolute(h, url) for h in links if h), url)


def _collections(client: Any, url: str) -> list[str]:
    held = sorted(c.id for c in client.get_collections())
    found = [c for c in _KNOWN if c in held] or [c for c in held if _looks_known(c)]
    if not found:
        raise CatalogueError(
            f"{bare(url)} has no collection of Sentinel-2 L2A, Sentinel-1 RTC or a DEM that "
            f"cubefill knows: it holds {', '.join(held[:20]) or 'none'}. Pass collections=['...']."
        )
    return found


def _looks_known(name: str) -> bool:
    low = name.lower()
    s2 = "sentinel" in low and "2" in low and "l2a" in low
    return s2 or ("sentinel" in low and "1" in low and "rtc" in low) or "dem" in low.split("-")


def _requests(client: Any, wanted: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    """One request a collection: dates do not bind a DEM, nor clouds Sentinel-1."""
    geometry = wanted.where.shape.__geo_interface__ if wanted.where else None
    links = [x for x in client.links if x.rel == "search"]
    post = any(x.extra_fields.get("method") == "POST" for x in links)
    for name in names:
        low = name.lower()
        dem = "dem" in low.split("-")
        options: dict[str, Any] = {"collections": [name], "method": "POST" if post else "GET"}
        if geometry is not None:
            options["intersects"] = geometry
        if wanted.datetime and not dem:
            options["datetime"] = _interval(wanted)
        if not dem and "sentinel-1" not in low:
            options |= _conditions(client, wanted)
        yield options


def _interval(wanted: Any) -> str:
    ends = (wanted.start, wanted.end)
    return "/".join(".." if t is None else t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in ends)


def _conditions(client: Any, wanted: Any) -> dict[str, Any]:
    """Conditions on properties, only in a language that the server says it speaks."""
    query = {k: dict(v) for k, v in wanted.query.items()}
    if wanted.max_cloud is not None:
        query.setdefault("eo:cloud_cover", {})["lte"] = wanted.max_cloud
    if not query:
        return {}
    if client.conforms_to("QUERY"):
        return {"query": query}
    if client.conforms_to("FILTER"):
        signs = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
        args = [
            {"op": signs[op], "args": [{"property": key}, value]}
            for key, tests in query.items()
            for op, value in tests.items()
            if op in signs
        ]
        return {"filter": {"op": "and", "args": args}, "filter_lang": "cql2-json"} if args else {}
    log.info("the server declares neither query nor filter: properties are checked here")
    return {}


def _pages(client: Any, options: Mapping[str, Any]) -> Iterator[Any]:
    """Items of a search as dicts, asked for again in smaller pages where they are too large."""
    given: set[str] = set()
    for limit in PAGES:
        try:
            for doc in client.search(**options, limit=limit).items_as_dicts():
                if doc.get("id") not in given:
                    given.add(str(doc.get("id")))
                    yield doc
            return
        except Exception as error:
            if limit == PAGES[-1] or not _too_large(error):
                raise
            log.info("a page of %d items was too large for the server: %s", limit, error)


def _too_large(error: Exception) -> bool:
    return getattr(error, "status_code", None) in (413, 502, 504)


def _safe(item: Any, url: str) -> Any:
    """The item, unless a server points to files of this machine."""
    for key, asset in item.assets.items():
        if name_of(key, asset) and urlsplit(asset.href).scheme not in REMOTE:
            raise CatalogueError(
                f"Item {item.id} of {bare(url)} points to {bare(asset.href)!r} for {key!r}: "
                f"expected {', '.join(sorted(REMOTE))}. A server must not name files of this "
                "machine; download its items and pass them as a list if you trust them."
            )
    return item
