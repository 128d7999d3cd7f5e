"""Items of a catalogue: a live API, a static catalogue, an ItemCollection, or a list."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cubefill.addresses import local_path, writing
from cubefill.errors import CatalogueError
from cubefill.stac.area import Area, area, extent
from cubefill.stac.items import Dropped, kind, listed, summary, when
from cubefill.stac.sources import read_source

log = logging.getLogger("cubefill")

_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "startsWith": lambda a, b: str(a).startswith(b),
    "endsWith": lambda a, b: str(a).endswith(b),
    "contains": lambda a, b: b in a,
}


class Items(list[Any]):
    """A list of `pystac.Item` with absolute hrefs, and the report of the search that found them."""

    def __init__(
        self,
        items: Iterable[Any] = (),
        *,
        source: str = "list",
        dropped: Iterable[Dropped] = (),
        sign: Callable[[str], str] | None = None,
        area: Area | None = None,
    ) -> None:
        super().__init__(items)
        self.source = source
        self.dropped = list(dropped)
        self.sign = sign
        self.area = area

    def __repr__(self) -> str:
        return f"<Items: {summary(self)}; {len(self.dropped)} left out; from {self.source}>"

    def __getitem__(self, index: Any, /) -> Any:
        got = super().__getitem__(index)
        if not isinstance(index, slice):
            return got
        return Items(got, source=self.source, dropped=self.dropped, sign=self.sign, area=self.area)

    def report(self) -> str:
        """What was found and what was left out, with the reasons, as text."""
        reasons = Counter(d.reason for d in self.dropped)
        lines = [f"{summary(self)} from {self.source}"]
        lines += [f"  left out {n}: {reason}" for reason, n in reasons.most_common()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """A GeoJSON ItemCollection."""
        features = [i.to_dict(include_self_link=False, transform_hrefs=False) for i in self]
        return {"type": "FeatureCollection", "features": features}

    def save(self, path: str | Path) -> Path:
        """Writes the items as one ItemCollection file, which `search` and `load` read."""
        target = local_path(path)
        with writing(target):
            target.write_text(json.dumps(self.to_dict()), encoding="utf-8")
        return target


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    where: Area | None = None
    start: pd.Timestamp | None = None
    end: pd.Timestamp | None = None
    datetime: str | None = None
    collections: tuple[str, ...] | None = None
    max_cloud: float | None = None
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def refuses(self, item: Any) -> str | None:
        """Why an item does not belong, or None where it does."""
        sort = kind(item)
        if self.collections is None and sort is None:
            return "neither Sentinel-2 L2A, Sentinel-1 RTC nor a DEM"
        if self.collections is not None and item.collection_id not in self.collections:
            return "another collection"
        if self.where is not None and not self.where.meets(item):
            return "outside the area"
        if sort == "dem":
            return None
        time = pd.Timestamp(when(item), tz="UTC")
        if (self.start is not None and time < self.start) or (
            self.end is not None and time > self.end
        ):
            return "outside the dates"
        if sort == "sar":
            return None
        cloud = item.properties.get("eo:cloud_cover")
        if self.max_cloud is not None and cloud is not None and cloud > self.max_cloud:
            return f"more than {self.max_cloud:g} % cloud"
        return next((r for k, v in self.query.items() if (r := _fails(item, k, v))), None)

    def __str__(self) -> str:
        parts = {
            "bbox": self.where.bounds if self.where else None,
            "datetime": self.datetime,
            "collections": self.collections,
            "max_cloud": self.max_cloud,
            "query": dict(self.query) or None,
        }
        return ", ".join(f"{k}={v}" for k, v in parts.items() if v is not None) or "what load takes"


def search(
    source: Any,
    *,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    datetime: str | None = None,
    collections: str | Sequence[str] | None = None,
    max_cloud: float | None = None,
    max_items: int | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
    sign: Callable[[str], str] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Items:
    """Items of a catalogue that match, oldest first, with absolute hrefs.

    Every condition is checked here, whatever a server did with it.

    Parameters
    ----------
    source
        URL of a STAC API; path or URL of a static catalogue (`catalog.json`, `collection.json`) or
        of an ItemCollection; a folder that holds one of them; an ItemCollection; or a list of
        items or dicts. Relative hrefs resolve against the file that holds them.
    bbox, geometry
        The area in degrees: west, south, east, north; or GeoJSON.
    datetime
        `2018-01-01/2018-06-30`, `2018-05`, `2018-05-01/..`; whole days are included. Does not
        apply to a DEM.
    collections
        Ids of collections; by default every Sentinel-2 L2A, Sentinel-1 RTC and DEM.
    max_cloud
        Highest `eo:cloud_cover` in percent of an optical item.
    max_items
        Stops after so many matching items.
    query
        Conditions on properties of optical items, as in the STAC query extension:
        `{"s2:mgrs_tile": {"eq": "31UDS"}}`.
    sign
        Function from href to signed href, kept for `load`, which calls it at every read. It must
        pickle to be used on a cluster.
    headers, timeout
        HTTP headers and seconds per request to a server.

    Returns
    -------
    Items
        A list of `pystac.Item` with `.report()`, `.dropped` and `.save(path)`.

    Raises
    ------
    CatalogueError
        The source cannot be read, or nothing matches; the message holds the query and what the
        catalogue spans.

    Examples
    --------
    >>> import tempfile
    >>> from cubefill.stac import write_catalogue
    >>> from cubefill.testing import synthetic_cube
    >>> items = search(write_catalogue(synthetic_cube(), tempfile.mkdtemp()), max_cloud=100)
    >>> len(items), len(search(items, max_items=5))
    (12, 5)
    """
    start, end = interval(datetime)
    names = (collections,) if isinstance(collections, str) else collections
    wanted = Query(
        where=area(bbox, geometry),
        start=start,
        end=end,
        datetime=datetime,
        collections=tuple(names) if names is not None else None,
        max_cloud=max_cloud,
        query=query or {},
    )
    _check_numbers(max_cloud, max_items, timeout, query)
    found, label = read_source(source, wanted, headers=headers, timeout=timeout)
    kept, dropped, seen = _sift(found, wanted, max_items)
    if not kept:
        raise CatalogueError(_nothing(label, wanted, seen, dropped))
    out = Items(kept, source=label, dropped=dropped, sign=sign, area=wanted.where)
    log.info("%s", out.report())
    return out


def _check_numbers(max_cloud: Any, max_items: Any, timeout: Any, query: Any) -> None:
    for name, value, least, most in (
        ("max_cloud", max_cloud, 0, 100), ("max_items", max_items, 1, 1e9),
        ("timeout", timeout, 1e-3, 1e6),
    ):  # fmt: skip
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if value is not None and not (number and least <= value <= most):
            raise CatalogueError(
                f"{name}={value!r}: expected a number from {least:g} to {most:g}. Pass "
                f"{name}={50 if name != 'max_items' else 10}."
            )
    if not isinstance(query or {}, Mapping):
        raise CatalogueError(
            f"query={query!r}: expected conditions by property. Pass "
            "query={'eo:cloud_cover': {'lt': 30}}."
        )


def interval(text: str | None) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """First and last moment that a datetime expression spans, in UTC.

    Raises
    ------
    CatalogueError
        It is no date, month, year or interval.

    Examples
    --------
    >>> interval("2018-05")[1]
    Timestamp('2018-05-31 23:59:59.999999+0000', tz='UTC')
    """
    if text is None:
        return None, None
    try:
        first, *rest = str(text).split("/")
        if len(rest) > 1:
            raise ValueError("more than one /")
        last = rest[0] if rest else first
        start, end = _moment(first, False), _moment(last, True)
    except ValueError as error:
        raise CatalogueError(
            f"datetime={text!r} is not understood ({error}): expected a day, month or year, or two "
            "with a slash, such as '2018-01-01/2018-06-30' or '2018-05/..'."
        ) from error
    if start is not None and end is not None and start > end:
        raise CatalogueError(f"datetime={text!r} ends before it starts. Use '{last}/{first}'.")
    return start, end


def _moment(text: str, last: bool) -> pd.Timestamp | None:
    if text in ("", ".."):
        return None
    if len(text) <= 10:
        period: Any = pd.Period(text)
        if period is pd.NaT:
            raise ValueError("no date")
        stamp = period.end_time.floor("us") if last else period.start_time
    else:
        stamp = pd.Timestamp(text)
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


def _sift(
    found: Iterable[Any], wanted: Query, max_items: int | None
) -> tuple[list[Any], list[Dropped], list[Any]]:
    kept: list[Any] = []
    dropped: list[Dropped] = []
    seen: list[Any] = []
    ids: set[tuple[str | None, str, str]] = set()
    for item in found:
        key = (item.collection_id, item.id, str(item.datetime))
        seen.append(item)
        reason = "given twice" if key in ids else wanted.refuses(item)
        ids.add(key)
        if reason:
            dropped.append(Dropped(item.id, reason))
            continue
        kept.append(item)
        if max_items is not None and len(kept) >= max_items:
            break
    return sorted(kept, key=lambda i: (when(i), i.id)), dropped, seen


def _nothing(label: str, wanted: Query, seen: list[Any], dropped: list[Dropped]) -> str:
    reasons = Counter(d.reason for d in dropped)
    why = "; ".join(f"{n} {r}" for r, n in reasons.most_common())
    if not seen:
        return (
            f"{label} holds no item: expected some that match {wanted}. Check the address, and "
            "bbox=, datetime= or max_cloud= where it is a server."
        )
    ids = sorted({str(i.collection_id) for i in seen if i.collection_id})[:3]
    return (
        f"No item of {label} matches {wanted}: it holds {summary(seen)}; {extent(seen)}. Left "
        f"out: {why} ({listed([d.item for d in dropped], 3)}). Widen bbox=, datetime= or "
        f"max_cloud={f', or pass collections={ids}' if ids else ''}."
    )


def _fails(item: Any, key: str, tests: Mapping[str, Any]) -> str | None:
    value = item.properties.get(key)
    for name, bound in tests.items():
        if name not in _TESTS:
            raise CatalogueError(
                f"query={{{key!r}: {{{name!r}: ...}}}}: expected one of {', '.join(_TESTS)}."
            )
        try:
            met = value is not None and _TESTS[name](value, bound)
        except TypeError as error:
            raise CatalogueError(
                f"query={{{key!r}: {{{name!r}: {bound!r}}}}} cannot be compared with the item's "
                f"{value!r}: expected a {type(value).__name__}."
            ) from error
        if not met:
            return f"{key} not {name} {bound}"
    return None
