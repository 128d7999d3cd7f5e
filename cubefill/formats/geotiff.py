"""Dates of a cube as Cloud Optimized GeoTIFFs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cubefill.addresses import local_path
from cubefill.cube import crs_of, settled, spectral, transform_of, unplaced
from cubefill.cube.axes import labels
from cubefill.cube.counts import Encoding, encode
from cubefill.errors import CubeError, StoreError
from cubefill.ownership import claim_files
from cubefill.store.encoding import encoding_of
from cubefill.store.ledger import tiles

TILE = 1024
"""Edge of the squares in which a cube is read; each with all dates, as chunks are."""

_COG = {
    "driver": "COG",
    "compress": "DEFLATE",
    "predictor": "YES",
    "blocksize": 512,
    "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}
_LABEL = "cubefill_label"
"""Coordinate of a date's name in its files, of the whole cube before dates are chosen."""

_OVERVIEWS = {True: "AVERAGE", False: "NEAREST"}
"""How overviews are made of numbers, and of codes."""


@dataclass(frozen=True)
class _Image:
    """One file: variables of one type at one date."""

    path: Path
    part: Path
    step: int
    names: tuple[str, ...]
    encoding: Encoding


def to_geotiff(
    ds: xr.Dataset,
    folder: str | Path,
    *,
    bands: Sequence[str] | None = None,
    time: Any = None,
    overwrite: bool = False,
) -> list[Path]:
    """Paths of new COGs, one a date: bands as int16 counts with scale, nodata and descriptions.

    Reflectance bands lie together in `<date>.tif`; any other variable that is asked for, such as
    NDVI or fill_flag, in `<date>_<name>.tif` of its own. GDAL's own COG driver writes the files;
    reflectance is count times scale, as in a store.

    Parameters
    ----------
    ds
        Cube; read once, tile by tile, with all dates.
    folder
        Folder of the files; made when it is not there.
    bands
        Variables to write; None stands for every band, or for NDVI where there is no band.
    time
        Dates to write, anything that `ds.sel(time=...)` takes; None stands for all.
    overwrite
        Replace files that are there.

    Warns
    -----
    CubefillWarning
        The cube names no CRS, or x and y were corners of pixels (`cubefill.cube.settled`).

    Raises
    ------
    CubeError
        A variable or a date is not in the cube.
    StoreError
        A file is there, or the folder cannot be written.
    """
    ds = _at(settled(ds), time)
    unplaced(ds, "the GeoTIFF")
    images = _images(ds, local_path(folder), _names(ds, bands))
    claim_files((i.path for i in images), "image", _is_ours)
    there = [i.path for i in images if i.path.exists()]
    if there and not overwrite:
        raise StoreError(
            f"{there[0]} and {len(there) - 1} other files exist: expected new files. Pass "
            "overwrite=True to replace them."
        )
    try:
        local_path(folder).mkdir(parents=True, exist_ok=True)
        _write(ds, images)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written ({error}): expected a writable folder with room for the "
            "uncompressed images. Choose another folder."
        ) from error
    return [i.path for i in images]


def _is_ours(path: Path) -> bool:
    import rasterio

    try:
        with rasterio.open(path) as file:
            return bool(file.tags().get("TIFFTAG_SOFTWARE") == "cubefill")
    except rasterio.RasterioIOError:
        return False


def _write(ds: xr.Dataset, images: list[_Image]) -> None:
    from rasterio.shutil import copy

    try:
        _write_parts(ds, images)
        for image in images:
            scaled = image.encoding.scale is not None or image.encoding.dtype.kind == "f"
            copy(str(image.part), str(image.path), **_COG, overview_resampling=_OVERVIEWS[scaled])
    finally:
        for image in images:
            image.part.unlink(missing_ok=True)


def _at(ds: xr.Dataset, time: Any) -> xr.Dataset:
    """The dates that are asked for, with the names of their files beside them."""
    if "time" not in ds.dims or "time" not in ds.coords:
        raise CubeError(
            "The dataset has no time axis: expected dates. Use ds.expand_dims(time=[...])."
        )
    ds = ds.assign_coords({_LABEL: ("time", labels(ds["time"].values))})
    try:
        chosen = ds if time is None else ds.sel(time=time)
        if not chosen["time"].size:
            raise KeyError(time)
    except pd.errors.InvalidIndexError as error:
        raise CubeError(
            f"The cube holds a time twice, and time={time!r} is a list: expected one date then. "
            "Pass time='2024-05-01'."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        days = sorted(str(t)[:10] for t in ds["time"].values) or ["no day"]
        raise CubeError(
            f"No date {time!r} in the cube: expected dates from {days[0]} to {days[-1]}. Use "
            "ds.time.values for the list."
        ) from error
    return chosen if "time" in chosen.dims else chosen.expand_dims("time")


def _names(ds: xr.Dataset, bands: Sequence[str] | None) -> list[str]:
    if bands is None:
        found = [n for n in spectral(ds) if n != "NDVI"] or list(spectral(ds))
    else:
        found = [bands] if isinstance(bands, str) else list(bands)
    absent = [n for n in found if n not in ds.data_vars]
    if absent or not found:
        raise CubeError(
            f"No variable {', '.join(absent)} to write: expected some of "
            f"{', '.join(map(str, ds.data_vars))}. Pass bands=[...] with these."
        )
    return found


def _images(ds: xr.Dataset, folder: Path, names: list[str]) -> list[_Image]:
    together = tuple(n for n in names if n != "NDVI" and _is_counts(n, ds[n].dtype))
    groups = {"": together} if together else {}
    groups |= {f"_{n}": (n,) for n in names if n not in together}
    images = []
    for step, label in enumerate(ds[_LABEL].values):
        for suffix, group in groups.items():
            encoding = encoding_of(group[0], ds[group[0]].dtype)
            name = f"{label}{suffix}.tif"
            images.append(_Image(folder / name, folder / f".part-{name}", step, group, encoding))
    return images


def _is_counts(name: str, dtype: np.dtype[Any]) -> bool:
    return encoding_of(name, dtype).dtype == np.int16 and dtype.kind == "f"


def _write_parts(ds: xr.Dataset, images: list[_Image]) -> None:
    """Uncompressed images, filled square by square."""
    import rasterio
    from rasterio.windows import Window

    profile = _profile(ds)
    for image in images:
        dtype = np.uint8 if image.encoding.dtype == bool else image.encoding.dtype
        options = {**profile, "count": len(image.names), "dtype": np.dtype(dtype).name}
        with rasterio.open(image.part, "w", nodata=_nodata(image.encoding), **options) as file:
            _describe(file, ds, image)
    names = list(dict.fromkeys(n for i in images for n in i.names))
    for tile in tiles((ds.sizes["y"], ds.sizes["x"]), TILE):
        blocks = _blocks(ds[names].isel(y=tile.y, x=tile.x))
        window = Window.from_slices(tile.y, tile.x)
        for image in images:
            with rasterio.open(image.part, "r+") as file:
                for i, name in enumerate(image.names, start=1):
                    page = blocks[name] if blocks[name].ndim == 2 else blocks[name][image.step]
                    file.write(page, i, window=window)


def _blocks(part: xr.Dataset) -> Mapping[str, NDArray[Any]]:
    loaded = part.compute(scheduler="threads")
    found = {}
    for name, variable in loaded.data_vars.items():
        ordered = variable.transpose(*(d for d in ("time", "y", "x") if d in variable.dims))
        counts, _ = encode(ordered.values, encoding_of(str(name), variable.dtype))
        found[str(name)] = counts.view(np.uint8) if counts.dtype == bool else counts
    return found


def _profile(ds: xr.Dataset) -> dict[str, Any]:
    from rasterio.crs import CRS
    from rasterio.transform import Affine

    transform, crs = transform_of(ds), crs_of(ds)
    if transform is None:
        raise CubeError("The cube has no x and y coordinates: expected pixel centres in metres.")
    return {
        "driver": "GTiff",
        "height": ds.sizes["y"],
        "width": ds.sizes["x"],
        "transform": Affine(*transform),
        "crs": CRS.from_wkt(crs.to_wkt()) if crs is not None else None,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "bigtiff": "IF_SAFER",
    }


def _nodata(encoding: Encoding) -> float | None:
    if encoding.scale is None:
        return float("nan") if encoding.dtype.kind == "f" else None
    return encoding.nodata


def _describe(file: Any, ds: xr.Dataset, image: _Image) -> None:
    stamp = pd.Timestamp(ds["time"].values[image.step])
    tags = {k: str(ds.attrs[k]) for k in ("boa_offset_harmonized", "history") if k in ds.attrs}
    file.update_tags(
        TIFFTAG_SOFTWARE="cubefill", TIFFTAG_DATETIME=stamp.strftime("%Y:%m:%d %H:%M:%S"), **tags
    )
    if image.encoding.scale is not None:
        file.scales = [image.encoding.scale] * len(image.names)
        file.offsets = [0.0] * len(image.names)
    for i, name in enumerate(image.names, start=1):
        file.set_band_description(i, name)
        keep = ("long_name", "units", "wavelength_nm", "flag_meanings", "flag_values")
        attrs = ds[name].attrs
        file.update_tags(i, **{k: _text(attrs[k]) for k in keep if k in attrs})


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray | list | tuple):
        return " ".join(str(v) for v in value)
    return str(value)


def write_cog(
    path: Path,
    values: NDArray[Any],
    *,
    transform: Any,
    crs: Any,
    nodata: float | None = None,
    level: int = 6,
) -> None:
    """A new Cloud Optimized GeoTIFF of pixels `(y, x)` or `(band, y, x)`, and its folder.

    `transform` is an `Affine`, `crs` what rasterio takes or None, `level` that of the compression.
    """
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    pages = values if values.ndim == 3 else values[None]
    size = dict(zip(("count", "height", "width"), pages.shape, strict=True))
    how = {**_COG, **size, "overview_resampling": _OVERVIEWS[False], "level": level}
    kind = {"dtype": pages.dtype, "crs": crs, "transform": transform, "nodata": nodata}
    with rasterio.open(path, "w", **how, **kind) as file:
        file.write(pages)
