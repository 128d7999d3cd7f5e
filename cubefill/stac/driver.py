"""Cubefill as a driver of `odc.stac.load`: what items say of each band, and its pixels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from cubefill.addresses import is_url, local
from cubefill.cube.bands import BANDS
from cubefill.stac.area import crs_of_item, footprint, native_grid
from cubefill.stac.items import (
    FROM_FILE,
    Harmonize,
    band_info,
    find_asset,
    is_zarr,
    name_of,
    number,
    offset_of,
    scale_in,
    when,
)
from cubefill.stac.reading import GDAL_ENV, Asset, ReadOptions, as_type, gdal_env, read_part

KEY = "cubefill:asset"
"""Where an item as `named` gives it keeps the key that the catalogue has for an asset."""

ABSENT = "absent:"
"""Stands for the address of an asset that an item lacks."""


class Driver:
    """A driver of odc-stac that takes offsets off per item and names what it cannot read.

    Offset, scale and nodata of each item are applied inside `read`, before any mosaic; pixels
    that coincide with the grid are copied; SCL is nearest whatever is asked for.

    Parameters
    ----------
    options
        How assets are read.
    harmonize
        As `cubefill.load` takes it.
    resolution
        Pixel size in m for which assets are chosen where a band has several.

    Examples
    --------
    >>> import odc.stac, tempfile
    >>> from cubefill.stac import search, write_catalogue
    >>> from cubefill.testing import synthetic_cube
    >>> items = search(write_catalogue(synthetic_cube(), tempfile.mkdtemp()))
    >>> ds = odc.stac.load(items, bands=["B04"], driver="cubefill.stac.Driver", chunks={})
    >>> ds["B04"].dtype
    dtype('float32')
    """

    dask_reader = None
    aux_reader = None

    def __init__(
        self,
        options: ReadOptions | None = None,
        harmonize: Harmonize = True,
        resolution: float = 10.0,
    ) -> None:
        self.options = options or ReadOptions()
        self.harmonize = harmonize
        self.resolution = resolution

    @property
    def md_parser(self) -> "Driver":
        """The parser of metadata: the driver itself."""
        return self

    def extract(self, item: Any) -> Any:
        """Bands of an item, and cubefill's names for them."""
        from odc.loader.types import RasterBandMetadata, RasterGroupMetadata

        names = {k: n for k, a in item.assets.items() if (n := name_of(k, a))}
        placed = {k for k in names if native_grid(item, item.assets[k])}
        kept = {k: n for k, n in names.items() if not placed or k in placed}
        bands = {
            (k, 1): RasterBandMetadata("uint8", 0) if n == "SCL" else RasterBandMetadata("float32")
            for k, n in kept.items()
        }
        best = {n: find_asset(item, n, self.resolution) for n in kept.values() if n not in kept}
        return RasterGroupMetadata(bands, {n: [(a[0], 1)] for n, a in best.items() if a})

    def driver_data(self, item: Any, band_key: tuple[str, int]) -> dict[str, Any]:
        """The asset of a band in an item, with its offset, scale, nodata and place.

        odc-loader names tasks by address, band and subdataset alone, so what else changes values
        stands in the subdataset.
        """
        key = band_key[0]
        asset = asset_of(item, key, item.assets[key], self.harmonize)
        said = f"{asset.counts}|{asset.scale}|{asset.nodata}|{self.options.on_error}"
        return {"asset": asset, "subdataset": said}

    def new_load(self, geobox: Any, *, chunks: Any = None) -> None:
        """Nothing is shared by the reads of a load."""

    def finalise_load(self, load_state: Any) -> Any:
        """What `new_load` gave."""
        return load_state

    def capture_env(self) -> dict[str, Any]:
        """Settings of GDAL that go with the tasks."""
        return {k: os.environ.get(k, v) for k, v in GDAL_ENV.items()}

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: Any) -> Iterator[Any]:
        """GDAL with these settings, within the block."""
        with gdal_env(env):
            yield load_state

    def open(self, src: Any, ctx: Any) -> "Reader":
        """A reader of one asset; nothing is opened yet."""
        return Reader(src.driver_data["asset"], self.options)


class Reader:
    """Pixels of one asset on any grid."""

    def __init__(self, asset: Asset, options: ReadOptions) -> None:
        self.asset = asset
        self.options = options

    def read(
        self, cfg: Any, dst_geobox: Any, *, dst: Any = None, selection: Any = None
    ) -> tuple[tuple[slice, slice], NDArray[Any]]:
        """Where on a grid the asset has data, and its values there."""
        options = replace(self.options, resampling=cfg.resampling)
        if not cfg.fail_on_error and options.on_error == "raise":
            options = replace(options, on_error="skip")
        roi, values = read_part(self.asset, dst_geobox, options)
        return roi, as_type(values, cfg.dtype)


def asset_of(item: Any, key: str, asset: Any, harmonize: Harmonize) -> Asset:
    """What the reader must know of one asset of an item."""
    band = name_of(key, asset) or key
    info = band_info(asset)
    said = number(info.get("nodata"))
    nodata = set() if said is None else {said}
    counts, scale, rule, guessed = 0.0, 1.0, "", False
    if band in BANDS:
        offset = offset_of(item, asset, harmonize)
        counts, scale, rule = offset.counts, offset.scale, offset.rule
        if not str(info.get("data_type", "")).startswith("float"):
            nodata.add(0.0)
        guessed = not info.get("data_type") and scale_in(info) is None and rule != FROM_FILE
    return Asset(
        "" if asset.href.startswith(ABSENT) else asset.href,
        item.id,
        asset.extra_fields.get(KEY, key),
        band,
        str(when(item).astype("datetime64[s]")),
        counts,
        scale,
        tuple(sorted(nodata)),
        native_grid(item, asset),
        rule,
        zarr=is_zarr(asset),
        guessed=guessed,
    )


def named(item: Any, bands: Sequence[str], resolution: float, where: Any) -> Any:
    """An item with one asset a band under cubefill's name, so that all catalogues look the same.

    An asset that the item lacks is there as well, without address: odc-stac would pass over it.
    """
    import pystac
    from pystac.extensions.projection import ProjectionExtension

    found = {b: find_asset(item, b, resolution) for b in bands}
    grids = {b: native_grid(item, f[1]) for b, f in found.items() if f}
    grid = next((g for g in grids.values() if g), None)
    placed = grid is not None and all(grids.values())
    crs = crs_of_item(item) or ""
    field = "proj:code" if crs.upper().startswith("EPSG") else "proj:wkt2"
    shape = footprint(item) or where
    out = pystac.Item(
        item.id,
        None if shape is None else shape.__geo_interface__,
        None,
        when(item).astype("datetime64[us]").item(),
        {**item.properties, **({field: crs} if crs else {})},
        stac_extensions=[ProjectionExtension.get_schema_uri()] if placed else [],
        collection="cubefill",
    )
    for band, pair in found.items():
        key, asset = pair or ("none", pystac.Asset(f"{ABSENT}{band}"))
        extra = {**asset.extra_fields, KEY: key}
        own = grids.get(band) or grid
        if own is not None:
            extra |= {"proj:transform": list(own.affine)[:6], "proj:shape": list(own.shape)}
        href = local(asset.href) or f"{ABSENT}{band}"
        href = href if is_url(href) or href.startswith(ABSENT) else os.path.abspath(href)
        out.add_asset(band, pystac.Asset(href, media_type=asset.media_type, extra_fields=extra))
    return out
