"""Any cube as a static STAC catalogue of cloud-optimised GeoTIFFs, with the quirks of real ones."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.addresses import local_path, writing
from cubefill.cube import crs_of, settled, transform_of
from cubefill.cube.bands import BANDS, SAR_BANDS, SCL
from cubefill.cube.counts import SCALE
from cubefill.cube.valid import apply
from cubefill.errors import CatalogueError, CubeError
from cubefill.formats import write_cog
from cubefill.ownership import WRITER, claim, document, refuse_source
from cubefill.stac.area import outline, quiet
from cubefill.stac.items import BASELINE_OFFSET
from cubefill.store.source import stores_of

COG = "image/tiff; application=geotiff; profile=cloud-optimized"

OPTICAL, RADAR, ELEVATION = "sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"

SAR_NODATA, DEM_NODATA = -32768.0, -9999.0

DEM_DATE = "2021-04-22T00:00:00Z"

CLOUDS = (SCL.CLOUD_MEDIUM, SCL.CLOUD_HIGH, SCL.THIN_CIRRUS)

_EARTH_SEARCH = {b.name: b.common[0] for b in BANDS.values()} | {"SCL": "scl"}
_PLANETARY = {name: name for name in (*BANDS, "SCL")}
_CDSE = {b.name: f"{b.name}_{b.resolution}m" for b in BANDS.values()} | {"SCL": "SCL_20m"}


@dataclass(frozen=True)
class Quirk:
    """How one kind of catalogue stores reflectance and what it says about it."""

    names: Mapping[str, str] = field(default_factory=lambda: _EARTH_SEARCH)
    """Band to asset key."""
    baseline: str = "05.09"
    added: float = -BASELINE_OFFSET
    """Counts that were added to the pixels."""
    says: str | None = "raster:bands"
    """The field that holds scale and offset, or None where none does."""
    offset: float = BASELINE_OFFSET * SCALE
    """The offset it says."""
    applied: bool | None = None
    """`earthsearch:boa_offset_applied`, absent where None."""


PLAIN = Quirk(baseline="03.01", added=0.0, offset=0.0, applied=False)

QUIRKS: dict[str, Quirk] = {
    "offset": Quirk(applied=False),
    "offset_applied": Quirk(added=0.0, applied=True),
    "no_raster_bands": Quirk(says=None),
    "stac11_bands": Quirk(says="bands"),
    "planetary_computer": Quirk(names=_PLANETARY, says=None),
    "cdse": Quirk(names=_CDSE, says="bands"),
    "duplicates": PLAIN,
}
"""What `write_catalogue(quirk=)` takes, each as some real catalogue has it."""

DUPLICATED = 3
"""With "duplicates", every so many dates are there again, reprocessed."""


def write_catalogue(
    cube: xr.Dataset, folder: str | Path, *, quirk: str | None = None, overwrite: bool = False
) -> Path:
    """The folder, now a static STAC catalogue that `search` and `load` give the cube back from.

    Holds `catalog.json`, one folder a collection, and `items.json` with every item; all hrefs are
    relative. Bands become uint16 counts, VV and VH linear power, all at the cube's resolution.

    Parameters
    ----------
    cube
        Bands on (time, y, x) with SCL, or with `valid` (written as classes 4 and 9); optionally
        VV and VH on `time` or `sar_time`, and DEM. Dask cubes are computed date by date.
    folder
        New, empty, or an earlier catalogue (nothing else in it) with `overwrite=True`.
    quirk
        One of `QUIRKS`: "offset" (counts + 1000 and metadata that says so), "offset_applied"
        (metadata says -0.1, pixels need none), "no_raster_bands", "stac11_bands",
        "planetary_computer" and "cdse" (their names of assets), "duplicates" (every third date
        again, reprocessed). None writes baseline 03.01 without offset, where reflectance of 0 and
        below becomes one count.
    overwrite
        Replaces an earlier catalogue.

    Raises
    ------
    CubeError
        The dataset is no cube on a projected grid.
    CatalogueError
        The folder holds a catalogue, or the quirk is unknown.

    Examples
    --------
    >>> import tempfile
    >>> from cubefill.testing import synthetic_cube
    >>> sorted(p.name for p in write_catalogue(synthetic_cube(), tempfile.mkdtemp()).iterdir())
    ['catalog.json', 'items.json', 'sentinel-2-l2a']
    """
    if quirk is not None and quirk not in QUIRKS:
        raise CatalogueError(f"quirk={quirk!r}: expected one of {', '.join(QUIRKS)}, or None.")
    cube = settled(cube)
    place = _place(cube)
    bands = _bands(cube)
    root = _claim(local_path(folder), overwrite, cube)
    try:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            items = list(pool.map(lambda make: make(), _makers(cube, bands, root, place, quirk)))
        _write_documents(root, items, place.bbox)
    except BaseException:
        # Without its list of items nobody could tell what is of the catalogue: nothing stays.
        for name in (OPTICAL, RADAR, ELEVATION):
            shutil.rmtree(root / name, ignore_errors=True)
        for name in ("items.json", "catalog.json"):
            (root / name).unlink(missing_ok=True)
        raise
    return root


def _claim(root: Path, overwrite: bool, cube: xr.Dataset) -> Path:
    """The folder, emptied of an earlier catalogue of ours; any other file in it is refused."""
    there = sorted(root.rglob("*")) if root.is_dir() else []
    if there or (root.exists() and not root.is_dir()):
        items = document(root / "items.json")
        ours = document(root / "catalog.json")
        known = _files(root, items) if items is not None else set()
        files = (p.relative_to(root).as_posix() for p in there if p.is_symlink() or not p.is_dir())
        claim(
            root, "catalogue", ours=ours is not None and ours.get("description") == WRITER,
            foreign=(f for f in files if f not in known), overwrite=overwrite, error=CatalogueError,
        )  # fmt: skip
        refuse_source(root, stores_of(cube))
        # The mark goes last: what a kill leaves is known as ours.
        for path in sorted(there, key=lambda p: (p.name == "items.json", p.name == "catalog.json")):
            if not path.is_dir():
                path.unlink()
        for path in reversed(there):
            if path.is_dir():
                path.rmdir()
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    return root


def _files(root: Path, items: Mapping[str, Any]) -> set[str]:
    """Files of a catalogue, as its list of items names them."""
    found = {"catalog.json", "items.json"}
    for item in items.get("features", []):
        folder = f"{item['collection']}/{item['id']}"
        found |= {f"{item['collection']}/collection.json", f"{folder}/{item['id']}.json"}
        found |= {a["href"].removeprefix("./") for a in item["assets"].values()}
    return found


@dataclass(frozen=True)
class _Place:
    """Where all assets of a catalogue lie."""

    code: str
    transform: Any
    shape: tuple[int, int]
    ring: list[list[float]]

    @property
    def bbox(self) -> list[float]:
        return [f(p[k] for p in self.ring) for f in (min, max) for k in (0, 1)]

    @property
    def projection(self) -> dict[str, Any]:
        return {"proj:shape": list(self.shape), "proj:transform": list(self.transform)[:6]}

    def write(self, path: Path, values: NDArray[Any], nodata: float) -> None:
        write_cog(path, values, transform=self.transform, crs=self.code, nodata=nodata, level=1)


def _place(cube: xr.Dataset) -> _Place:
    from affine import Affine
    from odc.geo.geobox import GeoBox

    missing = [d for d in ("time", "y", "x") if d not in cube.dims]
    if missing:
        raise CubeError(f"The dataset lacks dimension {', '.join(missing)}: expected a cube.")
    with quiet():
        transform, crs = transform_of(cube), crs_of(cube)
        if transform is None or crs is None:
            raise CubeError(
                "The cube has no CRS or no x and y: expected both. "
                "Use ds = ds.assign_attrs(crs='EPSG:32631') with the cube's own code."
            )
        geobox = GeoBox((cube.sizes["y"], cube.sizes["x"]), Affine(*transform), crs)
        ring = [[float(x), float(y)] for x, y in outline(geobox).shape.exterior.coords]
        code = f"EPSG:{crs.epsg}" if crs.epsg else str(crs)
        rows, cols = geobox.shape
        return _Place(code, geobox.affine, (int(rows), int(cols)), ring)


# ------------------------------------------------------------------ items


def _bands(cube: xr.Dataset) -> list[str]:
    bands = [str(n) for n in cube.data_vars if n in BANDS]
    if not bands:
        raise CubeError(f"No band to write among {', '.join(map(str, cube.data_vars))}.")
    if "SCL" not in cube and "valid" not in cube:
        raise CubeError("The cube has neither SCL nor valid: expected one, to write as SCL.")
    return bands


def _makers(
    cube: xr.Dataset, bands: list[str], root: Path, place: _Place, quirk: str | None
) -> Iterator[Any]:
    """Functions without arguments, each of which writes one item and returns it."""
    style = QUIRKS[quirk] if quirk else PLAIN
    cube = cube if "SCL" in cube else cube.assign(valid=apply(cube))
    new = QUIRKS["offset"]
    seen: dict[str, int] = {}
    for i, time in enumerate(cube["time"].values):
        day = str(time.astype("datetime64[D]"))
        number = seen.get(day, 0)
        seen[day] = number + 1
        step = cube[[n for n in (*bands, "SCL", "valid") if n in cube]].isel(time=i)
        yield lambda a=(step, time, number, style): _optical(root, place, bands, *a)
        if quirk == "duplicates" and i % DUPLICATED == 0:
            seen[day] += 1
            yield lambda a=(step, time, number + 1, new): _optical(root, place, bands, *a)
    if set(SAR_BANDS) & set(cube.data_vars):
        yield from _radar_makers(cube, root, place)
    if "DEM" in cube:
        yield lambda: _elevation(root, place, cube["DEM"])


def _optical(
    root: Path,
    place: _Place,
    bands: list[str],
    step: xr.Dataset,
    time: np.datetime64,
    number: int,
    style: Quirk,
) -> dict[str, Any]:
    step = step.compute()
    scl = _classes(step, bands[0])
    stamp = str(time.astype("datetime64[us]"))
    name = f"S2A_{place.code.split(':')[-1]}_{stamp[:10].replace('-', '')}_{number}_L2A"
    assets = {}
    for band in bands:
        path = root / OPTICAL / name / f"{band}.tif"
        counts = np.rint(step[band].values.astype(np.float64) / SCALE + style.added)
        counts = np.where(np.isfinite(counts), np.clip(counts, 1, 65535), 0).astype(np.uint16)
        place.write(path, counts, 0)
        assets[style.names[band]] = _asset(path, place, ["data", "reflectance"]) | _says(
            style, band, "uint16", place
        )
    path = root / OPTICAL / name / "SCL.tif"
    place.write(path, scl, 0)
    assets[style.names["SCL"]] = _asset(path, place, ["data"]) | _says(style, "SCL", "uint8", place)
    seen = scl > 0
    cloud = float(100 * np.isin(scl, CLOUDS)[seen].mean()) if seen.any() else 100.0
    properties: dict[str, Any] = {
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(cloud, 2),
        "s2:processing_baseline": style.baseline,
        "updated": "2024-01-01T00:00:00Z" if number else f"{stamp}Z",
        "datetime": f"{stamp}Z",
    }
    if style.applied is not None:
        properties["earthsearch:boa_offset_applied"] = style.applied
    return _item(name, OPTICAL, properties, assets, place)


def _classes(step: xr.Dataset, band: str) -> NDArray[np.uint8]:
    if "SCL" in step:
        return step["SCL"].fillna(SCL.NO_DATA).values.astype(np.uint8)
    found = np.where(step["valid"].values, SCL.VEGETATION, SCL.CLOUD_HIGH)
    return np.where(np.isnan(step[band].values), SCL.NO_DATA, found).astype(np.uint8)


def _says(style: Quirk, band: str, dtype: str, place: _Place) -> dict[str, Any]:
    """What a style says of one band, in the field where it says it."""
    info: dict[str, Any] = {"data_type": dtype, "nodata": 0}
    info["spatial_resolution"] = abs(place.transform.a)
    numbers = {"scale": SCALE, "offset": style.offset} if dtype == "uint16" else {}
    if style.says == "raster:bands":
        return {"raster:bands": [info | numbers]}
    if style.says == "bands":
        step = info.pop("spatial_resolution")
        prefixed = {f"raster:{k}": v for k, v in numbers.items()}
        return {"bands": [{"name": band, "raster:spatial_resolution": step} | info | prefixed]}
    return {}


def _radar_makers(cube: xr.Dataset, root: Path, place: _Place) -> Iterator[Any]:
    names = [n for n in SAR_BANDS if n in cube]
    dim = "sar_time" if "sar_time" in cube[names[0]].dims else "time"
    times = cube[dim].values.astype("datetime64[ns]")
    if dim == "time" and "sar_gap_hours" in cube.coords:
        gap = cube["sar_gap_hours"].values.astype(np.float64) * 3600
        times = times + np.rint(gap).astype("timedelta64[s]")
    orbits = cube["orbit"].values if dim == "sar_time" and "orbit" in cube else None
    for i, time in enumerate(times):
        orbit = str(orbits[i]) if orbits is not None else "ascending"
        step = cube[names].isel({dim: i})
        yield lambda a=(step, time, i, orbit): _radar(root, place, *a)


def _radar(
    root: Path, place: _Place, step: xr.Dataset, time: np.datetime64, number: int, orbit: str
) -> dict[str, Any]:
    step = step.compute()
    stamp = str(time.astype("datetime64[us]"))
    day = stamp[:10].replace("-", "")
    name = f"S1A_{place.code.split(':')[-1]}_{day}_{number}_rtc"
    assets = {}
    for band in step.data_vars:
        power = np.float32(10) ** (step[band].values.astype(np.float32) / np.float32(10))
        path = root / RADAR / name / f"{band}.tif"
        place.write(path, np.where(np.isfinite(power), power, SAR_NODATA), SAR_NODATA)
        assets[str(band).lower()] = _asset(path, place, ["data"]) | _float(SAR_NODATA, place)
    properties = {
        "platform": "sentinel-1a",
        "constellation": "sentinel-1",
        "sar:polarizations": [str(b) for b in step.data_vars],
        "sar:instrument_mode": "IW",
        "sat:orbit_state": orbit,
        "datetime": f"{stamp}Z",
    }
    return _item(name, RADAR, properties, assets, place)


def _elevation(root: Path, place: _Place, dem: xr.DataArray) -> dict[str, Any]:
    name = f"DEM_{place.code.split(':')[-1]}"
    path = root / ELEVATION / name / "DEM.tif"
    values = dem.values.astype(np.float32)
    place.write(path, np.where(np.isfinite(values), values, DEM_NODATA), DEM_NODATA)
    asset = _asset(path, place, ["data"]) | _float(DEM_NODATA, place)
    return _item(name, ELEVATION, {"datetime": DEM_DATE}, {"data": asset}, place)


def _float(nodata: float, place: _Place) -> dict[str, Any]:
    step = abs(place.transform.a)
    return {
        "raster:bands": [{"data_type": "float32", "nodata": nodata, "spatial_resolution": step}]
    }


def _asset(path: Path, place: _Place, roles: list[str]) -> dict[str, Any]:
    return {"href": f"./{path.name}", "type": COG, "roles": roles, **place.projection}


def _item(
    name: str,
    collection: str,
    properties: dict[str, Any],
    assets: dict[str, Any],
    place: _Place,
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [place.ring]},
        "bbox": place.bbox,
        "properties": {**properties, "proj:code": place.code},
        "links": [],
        "assets": assets,
    }


def _write_documents(root: Path, items: list[dict[str, Any]], bbox: list[float]) -> None:
    """Writes `catalog.json`, a folder a collection with its items, and `items.json`."""
    import pystac

    catalogue = pystac.Catalog(root.name or "cubefill", WRITER)
    for name in sorted({i["collection"] for i in items}):
        own = [pystac.Item.from_dict(i, migrate=False) for i in items if i["collection"] == name]
        dates = sorted(i.datetime for i in own if i.datetime)
        when = pystac.TemporalExtent([[dates[0], dates[-1]]])
        extent = pystac.Extent(pystac.SpatialExtent([bbox]), when)
        said = f"{name}, written by cubefill"
        collection = pystac.Collection(name, said, extent, license="other")
        collection.add_items(own)
        catalogue.add_child(collection)
    catalogue.normalize_and_save(str(root), pystac.CatalogType.SELF_CONTAINED)
    together = {"type": "FeatureCollection", "features": [_from_root(i) for i in items]}
    (root / "items.json").write_text(json.dumps(together, indent=1), encoding="utf-8")


def _from_root(item: dict[str, Any]) -> dict[str, Any]:
    folder = f"./{item['collection']}/{item['id']}"
    named = {
        k: {**a, "href": f"{folder}/{Path(a['href']).name}"} for k, a in item["assets"].items()
    }
    return {**item, "assets": named}
