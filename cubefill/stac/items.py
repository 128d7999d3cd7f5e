"""What a STAC item says of itself: its kind, bands, offset, baseline, tile and acquisition."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from cubefill.cube.bands import BANDS, canonical
from cubefill.cube.counts import SCALE
from cubefill.errors import CatalogueError

Kind = Literal["optical", "sar", "dem"]
Harmonize = bool | float | Callable[[Any], float]
"""True: by the rules of `offset_of`; False: none; a number of counts; or a function of an item."""

BASELINE_OFFSET = -1000.0
"""Counts to add since processing baseline 04.00 (25 January 2022)."""

FROM_FILE = "metadata of the file"
"""The rule where counts and scale stand in the file itself, which is read later."""

SAME_ACQUISITION = np.timedelta64(60, "s")
"""Items of one platform and tile closer than this show the same acquisition."""

SAME_PASS = np.timedelta64(300, "s")
"""Sentinel-1 slices of one orbit closer than this are one acquisition."""

SINCE = np.datetime64("2022-01-25", "ns")
"""Whatever was acquired later has baseline 04.00 or later; older scenes may be reprocessed."""

UNKNOWN_BASELINE = "acquired since baseline 04.00"
"""The rule where no metadata says the baseline of a new item."""

NOTHING = "no metadata"
"""The same of an old item."""

_BASELINE = re.compile(r"_N(\d{2})\.?(\d{2})(?:_|$|\.|/)")
_NUMBER = re.compile(r"N?(\d{3,4}|\d{1,2}(?:[.,_]\d{1,2})?)", re.IGNORECASE)
_STATED = re.compile(r"processing_?baseline", re.IGNORECASE)
_PIPELINES = ("processing:version", "processorVersion")
_DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_")
_TILE = re.compile(r"(?:^|[_-])T?(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z]{2})(?:_|-|$)")
_GSD = re.compile(r"[_-](\d+)m$", re.IGNORECASE)
_HIDDEN_ROLES = {"thumbnail", "overview", "visual"}


@dataclass(frozen=True)
class Offset:
    """How counts of one asset become reflectance: `(count + counts) * scale`."""

    counts: float
    scale: float
    rule: str
    """Which metadata decided."""


@dataclass(frozen=True)
class Dropped:
    """An item that was left out, and why."""

    item: str
    reason: str


def when(item: Any) -> np.datetime64:
    """Acquisition time in UTC.

    Raises
    ------
    CatalogueError
        The item has no datetime.
    """
    p = item.properties
    given = item.datetime or p.get("datetime") or p.get("start_datetime")
    stamp = pd.to_datetime(given, utc=True, errors="coerce") if given else pd.NaT
    if stamp is pd.NaT:
        raise CatalogueError(
            f"Item {item.id} has no datetime: expected its acquisition time in "
            "properties.datetime. Use [i for i in items if i.datetime] to leave it out."
        )
    return stamp.tz_localize(None).to_datetime64().astype("datetime64[ns]")


def kind(item: Any) -> Kind | None:
    """`optical` for Sentinel-2 L2A, `sar` for Sentinel-1 RTC, `dem` for elevation, else None."""
    names = {name_of(key, asset) for key, asset in item.assets.items()}
    collection = (item.collection_id or "").lower()
    if "DEM" in names or re.search(r"(^|[-_])(dem|dsm)([-_]|$)", collection):
        return "dem"
    if {"VV", "VH"} & names:
        unprojected = re.search(r"grd|slc", collection) and "rtc" not in collection
        return None if unprojected else "sar"
    if not (set(BANDS) | {"SCL"}) & names or "l1c" in collection:
        return None
    p = item.properties
    said = f"{collection} {p.get('constellation', '')} {p.get('platform', '')}".lower()
    other = re.search(r"landsat|modis|aster|naip|planet", said)
    return None if other and "sentinel-2" not in said else "optical"


def name_of(key: str, asset: Any) -> str | None:
    """Cubefill's name of the band in an asset, from its key, else from its band metadata."""
    if _HIDDEN_ROLES & set(asset.roles or ()):
        return None
    found = canonical(key)
    if found:
        return found
    lists = [some for field in ("bands", "eo:bands") if (some := _bands(asset, field))]
    if any(len(bands) > 1 for bands in lists):
        return None
    said = (b.get(k) for (b,) in lists for k in ("name", "eo:common_name", "common_name"))
    return next((c for s in said if s and (c := canonical(str(s)))), None)


def band_info(asset: Any) -> dict[str, Any]:
    """`scale`, `offset`, `nodata`, `data_type`, `spatial_resolution` of a single-band asset.

    From the asset itself, STAC 1.1 `bands`, or `raster:bands`; the last wins.
    """
    extra = asset.extra_fields
    keys = ("scale", "offset", "nodata", "data_type", "spatial_resolution")
    info: dict[str, Any] = {}
    for source in (extra, *_bands(asset, "bands")[:1], *_bands(asset, "raster:bands")[:1]):
        for key in keys:
            value = source.get(f"raster:{key}", source.get(key))
            if value is not None:
                info[key] = value
    return info


def _bands(asset: Any, field: str) -> list[dict[str, Any]]:
    said = asset.extra_fields.get(field)
    return [b for b in said if isinstance(b, dict)] if isinstance(said, list) else []


def find_asset(item: Any, band: str, resolution: float) -> tuple[str, Any] | None:
    """Key and asset of a band, the one that suits a resolution best, or None.

    The coarsest that is not coarser than `resolution`, else the finest; GeoTIFF before JPEG 2000
    before Zarr.
    """
    found = [
        (key, asset)
        for key, asset in item.assets.items()
        if name_of(key, asset) == band or (band == "DEM" and _is_dem(item, key, asset))
    ]
    if not found:
        return None

    def rank(pair: tuple[str, Any]) -> tuple[bool, float, bool, bool, str]:
        step = resolution_of(*pair)
        jp2 = "jp2" in (pair[1].media_type or "") or pair[1].href.lower().endswith(".jp2")
        return step > resolution * 1.001, abs(step - resolution), is_zarr(pair[1]), jp2, pair[0]

    return min(found, key=rank)


def resolution_of(key: str, asset: Any) -> float:
    """Pixel size of an asset in m, as far as its metadata says."""
    suffix = _GSD.search(key)
    transform = affine(asset.extra_fields.get("proj:transform"))
    if transform:
        return abs(transform[0])
    said = band_info(asset).get("spatial_resolution") or asset.extra_fields.get("gsd")
    if suffix or said:
        return float(suffix.group(1) if suffix else said)
    name = canonical(key) or ""
    return float(BANDS[name].resolution) if name in BANDS else 20.0


def affine(said: Any) -> tuple[float, ...] | None:
    """Six numbers of a `proj:transform`, also where they came in GDAL's order; None for others."""
    numbers = [number(v) for v in said] if isinstance(said, list | tuple) else []
    first = [v for v in numbers[:6] if v is not None]
    if len(first) < 6:
        return None
    a, b, c, d, e, f = first
    if e == 0 and a != 0:  # no grid of rows and columns: the origin came first
        return b, c, a, e, f, d
    return a, b, c, d, e, f


def offset_of(item: Any, asset: Any, harmonize: Harmonize = True) -> Offset:
    """How an asset's counts become reflectance, by the first rule that speaks.

    1. `harmonize` itself, where it is False, a number of counts, or a function of the item.
    2. `boa_offset_applied` of any catalogue is true: 0, whatever the band metadata says.
    3. The offset in `raster:bands`, STAC 1.1 `bands`, or on the asset; not where it comes with a
       scale that counts of reflectance cannot have, such as 1, which tools write by default.
    4. The metadata of a Zarr array, where STAC gives neither scale nor offset.
    5. Processing baseline 04.00 or later, stored as integers: -1000 counts.
    6. No baseline and acquired since 25 January 2022: -1000 counts, which `load` warns of.
    7. None.
    """
    info = band_info(asset)
    said = scale_in(info)
    scale = said or (1.0 if _is_float(info) else SCALE)
    if harmonize is False:
        return Offset(0.0, scale, "harmonize=False")
    if harmonize is not True:
        counts = harmonize(item) if callable(harmonize) else harmonize
        return Offset(float(counts), scale, "harmonize= of the caller")
    if offset_applied(item):
        return Offset(0.0, scale, "boa_offset_applied")
    offset = number(info.get("offset"))
    if offset is not None and (said is not None or "scale" not in info):
        counts = offset if abs(offset) >= 1 else round(offset / scale, 3)
        return Offset(counts, scale, "band metadata")
    if is_zarr(asset) and said is None:
        return Offset(0.0, 1.0, FROM_FILE)
    if _is_float(info):
        return Offset(0.0, scale, "stored as floats")
    version = baseline(item)
    if version is None:
        new = when(item) >= SINCE
        return Offset(BASELINE_OFFSET if new else 0.0, scale, UNKNOWN_BASELINE if new else NOTHING)
    if version < 4.0:
        return Offset(0.0, scale, "processing baseline < 04.00")
    return Offset(BASELINE_OFFSET, scale, "processing baseline >= 04.00")


def scale_in(info: Mapping[str, Any]) -> float | None:
    """The scale that band metadata gives, where reflectance can have it; 10000 stands for 1e-4."""
    said = number(info.get("scale")) or 0.0
    if _is_float(info):
        return said or None
    return 1 / said if said >= 100 else said if 0 < said < 0.1 else None


def offset_applied(item: Any) -> bool:
    """True where a catalogue says that it took the offset off the pixels."""
    said = (v for k, v in item.properties.items() if str(k).endswith("boa_offset_applied"))
    return any(v is True or str(v).strip().lower() in ("true", "1") for v in said)


def baseline(item: Any) -> float | None:
    """Processing baseline such as 5.09, or None where nothing says it.

    From a property of any catalogue, else from the names of products: in properties, in the id,
    in addresses of assets.
    """
    p = item.properties
    stated = (v for k, v in sorted(p.items()) if _STATED.fullmatch(k.rpartition(":")[2]))
    texts = (*p.values(), item.id, *(a.href for a in item.assets.values()))
    names = (t for t in texts if isinstance(t, str) and "L1C" not in t)
    products = ("".join(m.groups()) for t in names if (m := _BASELINE.search(t)))
    for found in map(parse_baseline, (*stated, *products)):
        if found is not None:
            return found
    pipelines = [v for k in _PIPELINES if (v := parse_baseline(p.get(k))) is not None]
    # A version below 4 of what is newer is that of some program, not the baseline.
    return next((v for v in pipelines if v >= 4.0 or when(item) < SINCE), None)


def parse_baseline(value: Any) -> float | None:
    """A processing baseline however a catalogue writes it, or None where it is none.

    Examples
    --------
    >>> [parse_baseline(v) for v in ("05.09", "5.09", 5.09, "N0509", 509, " 04.00 ", 4, "1.2.3")]
    [5.09, 5.09, 5.09, 5.09, 5.09, 4.0, 4.0, None]
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(round(value, 2) if isinstance(value, float) else value)
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    digits = match.group(1).replace(",", ".").replace("_", ".")
    found = float(digits) if len(digits) < 3 or "." in digits else int(digits) / 100
    return found if found < 90 else None  # 99.99 is what users process themselves


def number(value: Any) -> float | None:
    """A number of band metadata, also given as text; None where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def tile_of(item: Any) -> str | None:
    """MGRS tile such as `31UDS`, its zone with two digits, or None."""
    p = item.properties
    keys = ("s2:mgrs_tile", "grid:code", "tileId", "mgrs:tile")
    said = [str(p.get(k) or "").upper().removeprefix("MGRS-").removeprefix("T") for k in keys]
    for system in ("mgrs", "sentinel"):
        parts = [p.get(f"{system}:{k}") for k in ("utm_zone", "latitude_band", "grid_square")]
        said.append("".join(map(str, parts)) if all(parts) else "")
    found = _TILE.search(item.id)
    said.append(found.group(1) if found else "")
    tile = next((t for t in said if t), None)
    return f"0{tile}" if tile and re.match(r"\d\D", tile) else tile


def resolve_duplicates(items: Sequence[Any]) -> tuple[list[Any], list[Dropped]]:
    """Items of one kind without copies of the same acquisition, and what was left out.

    Of items of the same platform, tile and acquisition the highest processing baseline is kept;
    of these, where footprints agree or collections differ, the latest. Granules of two datastrips
    are parts of one acquisition, not copies: all are kept.
    """
    kept: list[Any] = []
    dropped: list[Dropped] = []
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in sorted(items, key=lambda i: (when(i), i.id)):
        platform = str(item.properties.get("platform") or "").lower()
        groups[platform, tile_of(item) or _box(item)].append(item)
    for group in groups.values():
        for same in (s for c in _clusters(group, SAME_ACQUISITION) for s in _by_datastrip(c)):
            best, out = _newest(same)
            kept += best
            dropped += out
    return sorted(kept, key=lambda i: (when(i), i.id)), dropped


def passes(items: Iterable[Any]) -> list[list[Any]]:
    """Sentinel-1 items grouped by acquisition: slices of one pass belong together."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for item in sorted(items, key=lambda i: (when(i), i.id)):
        p = item.properties
        groups[f"{p.get('platform')} {orbit_of(item)}"].append(item)
    found = [c for g in groups.values() for c in _clusters(g, SAME_PASS)]
    return sorted(found, key=lambda g: (when(g[0]), g[0].id))


def orbit_of(item: Any) -> str:
    """`ascending`, `descending`, or `unknown`."""
    return str(item.properties.get("sat:orbit_state") or "unknown").lower()


def summary(items: Iterable[Any]) -> str:
    """How many items there are of each collection."""
    count = Counter(i.collection_id or "no collection" for i in items)
    return ", ".join(f"{n} of {c}" for c, n in sorted(count.items())) or "none"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _newest(same: list[Any]) -> tuple[list[Any], list[Dropped]]:
    top = max(baseline(i) or 0.0 for i in same)
    kept: list[Any] = []
    dropped: list[Dropped] = []
    for item in sorted(same, key=_age, reverse=True):
        own = baseline(item) or 0.0
        twin = next((k for k in kept if _same_scene(k, item)), None)
        if own < top:
            winner = next(i.id for i in same if (baseline(i) or 0.0) == top)
            dropped.append(
                Dropped(
                    item.id, f"baseline {own:05.2f}: {winner} has {top:05.2f} of the same scene"
                )
            )
        elif twin is not None:
            dropped.append(Dropped(item.id, f"copy of {twin.id}, which is later"))
        else:
            kept.append(item)
    return kept, dropped


def _same_scene(one: Any, other: Any) -> bool:
    """True for one footprint, or for two collections that hold the same archive."""
    return _box(one) == _box(other) or one.collection_id != other.collection_id


def _age(item: Any) -> tuple[str, str]:
    p = item.properties
    stamps = (p.get(k) for k in ("s2:generation_time", "updated", "created", "published"))
    return max((str(s) for s in stamps if s), default=""), item.id


def _clusters(items: list[Any], gap: np.timedelta64) -> list[list[Any]]:
    out: list[list[Any]] = []
    for item in items:
        if out and when(item) - when(out[-1][0]) <= gap:
            out[-1].append(item)
        else:
            out.append([item])
    return out


def _by_datastrip(items: list[Any]) -> list[list[Any]]:
    """Items of one acquisition, apart where their datastrips began at other times."""
    starts = [_DATASTRIP.search(str(i.properties.get("s2:datastrip_id") or "")) for i in items]
    known = sorted({pd.Timestamp(m.group(1)) for m in starts if m})
    steps = [b - a > pd.Timedelta(5, "s") for a, b in pairwise(known)]
    if not any(steps):
        return [items]
    strip = dict(zip(known, np.cumsum([0, *steps]).tolist(), strict=True))
    groups: dict[int, list[Any]] = defaultdict(list)
    for item, start in zip(items, starts, strict=True):
        groups[strip[pd.Timestamp(start.group(1))] if start else -1].append(item)
    return list(groups.values())


def _box(item: Any) -> tuple[float, ...]:
    return tuple(round(number(v) or 0.0, 4) for v in item.bbox or ())


def _is_float(info: Mapping[str, Any]) -> bool:
    return str(info.get("data_type", "")).startswith("float")


def is_zarr(asset: Any) -> bool:
    """True where an asset is a Zarr array, by its media type or address."""
    return "zarr" in (asset.media_type or "") or ".zarr" in asset.href.lower()


def _is_dem(item: Any, key: str, asset: Any) -> bool:
    return key == "data" or (len(item.assets) == 1 and not _HIDDEN_ROLES & set(asset.roles or ()))
