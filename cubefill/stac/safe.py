"""A STAC item of a SAFE folder, as ESA delivers Sentinel-2 L2A."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cubefill.addresses import local_path
from cubefill.cube.bands import BANDS
from cubefill.errors import CatalogueError

_FILE = re.compile(r"T(?P<tile>\w{5})_\d{8}T\d{6}_(?P<band>B\w\w|SCL)_(?P<gsd>\d+)m\.jp2$")


def from_safe(folder: str | Path) -> Any:
    """A `pystac.Item` of a SAFE folder, with the offset and grid that its metadata gives.

    Assets are the JPEG 2000 files that are there, named as CDSE names them: `B02_10m`, `SCL_20m`.

    Raises
    ------
    CatalogueError
        The folder is no Level-2A product, or its metadata cannot be read.

    Examples
    --------
    >>> from_safe("nowhere.SAFE")
    Traceback (most recent call last):
        ...
    cubefill.errors.CatalogueError: nowhere.SAFE holds no MTD_MSIL2A.xml: expected a ...
    """
    import pystac

    root = local_path(folder)
    product, granule = _metadata(root)
    epsg = int(_text(granule, "HORIZONTAL_CS_CODE", root).split(":")[1])
    ring = _ring(product)
    item = pystac.Item(
        id=_text(product, "PRODUCT_URI", root).removesuffix(".SAFE"),
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=[f(p[k] for p in ring) for f in (min, max) for k in (0, 1)],
        datetime=_date(_text(product, "PRODUCT_START_TIME", root)),
        properties=_properties(product, root) | {"proj:code": f"EPSG:{epsg}"},
        collection="sentinel-2-l2a",
    )
    bands = _bands(product)
    for path in sorted(root.glob("GRANULE/*/IMG_DATA/R*m/*.jp2")):
        match = _FILE.search(path.name)
        if match:
            item.properties["s2:mgrs_tile"] = match["tile"]
            asset = _asset(path, match["band"], int(match["gsd"]), granule, bands)
            item.add_asset(f"{match['band']}_{match['gsd']}m", asset)
    if not item.assets:
        raise CatalogueError(f"{root} holds no image: expected GRANULE/*/IMG_DATA/R*m/*.jp2.")
    return item


def _metadata(root: Path) -> tuple[Any, Any]:
    path = root / "MTD_MSIL2A.xml"
    tiles = sorted(root.glob("GRANULE/*/MTD_TL.xml"))
    if not path.is_file() or len(tiles) != 1:
        what = "MTD_MSIL2A.xml" if not path.is_file() else "single GRANULE/*/MTD_TL.xml"
        raise CatalogueError(
            f"{root} holds no {what}: expected a SAFE folder of Sentinel-2 Level-2A with one "
            "granule, such as S2A_MSIL2A_*.SAFE."
        )
    try:
        return ElementTree.parse(path).getroot(), ElementTree.parse(tiles[0]).getroot()
    except ElementTree.ParseError as error:
        raise CatalogueError(f"The metadata of {root} cannot be read as XML: {error}.") from error


def _properties(product: Any, root: Path) -> dict[str, Any]:
    datastrip = product.find(".//Granule")
    return {
        "platform": _text(product, "SPACECRAFT_NAME", root).lower(),
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": float(_text(product, "Cloud_Coverage_Assessment", root)),
        "s2:processing_baseline": _text(product, "PROCESSING_BASELINE", root),
        "s2:product_uri": _text(product, "PRODUCT_URI", root),
        "s2:generation_time": _text(product, "GENERATION_TIME", root),
        "s2:datastrip_id": "" if datastrip is None else datastrip.get("datastripIdentifier", ""),
    }


def _bands(product: Any) -> dict[str, tuple[float, float]]:
    """Scale and offset in reflectance of each band."""
    ids = {
        e.get("bandId"): _pad(e.get("physicalBand"))
        for e in product.iterfind(".//Spectral_Information")
    } or dict(zip(map(str, range(13)), (*list(BANDS)[:10], "B10", "B11", "B12"), strict=True))
    quantity = product.findtext(".//BOA_QUANTIFICATION_VALUE") or "10000"
    scale = 1 / float(quantity)
    offsets = {
        ids.get(e.get("band_id")): float(e.text) for e in product.iterfind(".//BOA_ADD_OFFSET")
    }
    return {b: (scale, offsets.get(b, 0.0) * scale) for b in BANDS}


def _asset(
    path: Path, band: str, gsd: int, granule: Any, bands: dict[str, tuple[float, float]]
) -> Any:
    import pystac

    corner = granule.find(f".//Geoposition[@resolution='{gsd}']")
    size = granule.find(f".//Size[@resolution='{gsd}']")
    x, y = (float(corner.findtext(k)) for k in ("ULX", "ULY"))
    raster: dict[str, Any] = {"nodata": 0, "data_type": "uint8", "spatial_resolution": gsd}
    if band in bands:
        scale, offset = bands[band]
        raster |= {"data_type": "uint16", "scale": scale, "offset": round(offset, 6)}
    return pystac.Asset(
        href=str(path.absolute()),
        media_type="image/jp2",
        roles=["data"],
        extra_fields={
            "proj:shape": [int(size.findtext("NROWS")), int(size.findtext("NCOLS"))],
            "proj:transform": [gsd, 0, x, 0, -gsd, y],
            "raster:bands": [raster],
        },
    )


def _ring(product: Any) -> list[list[float]]:
    values = [float(v) for v in (product.findtext(".//EXT_POS_LIST") or "").split()]
    return [[lon, lat] for lat, lon in zip(values[::2], values[1::2], strict=True)]


def _pad(band: str) -> str:
    """`B2` as `B02`."""
    return f"B{band[1:]:0>2}"


def _date(text: str) -> Any:
    import datetime

    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _text(root: Any, tag: str, path: Path) -> str:
    found = root.findtext(f".//{tag}")
    if not found:
        raise CatalogueError(f"The metadata of {path} holds no {tag}: expected a Level-2A product.")
    return str(found).strip()
