"""A folder of dated GeoTIFFs as a lazy cube."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.bands import BANDS, NOT_SPECTRAL, Band, canonical
from cubefill.errors import CubeError, CubefillWarning, ReadError, StoreError
from cubefill.formats.file_names import date_of, layers_in, offset_baseline, rest_of
from cubefill.formats.geotiff import TILE

SUFFIXES = (".tif", ".tiff", ".jp2")
"""Endings of the files that a folder is searched for."""

Dates = Sequence[Any] | Callable[[Path], Any]
Bands = Sequence[str] | Callable[[Path], str | Sequence[str]]


@dataclass(frozen=True)
class _Header:
    """What the head of a file says."""

    path: Path
    shape: tuple[int, int]
    transform: tuple[float, ...]
    crs: str
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    stamp: tuple[int, int]
    """Time of change in ns and size in bytes, so that a changed file is another file."""

    @property
    def grid(self) -> tuple[Any, ...]:
        return self.shape, tuple(round(v, 6) for v in self.transform), self.crs


@dataclass(frozen=True)
class _Layer:
    """One band of one file, and how its counts become values."""

    path: Path
    index: int
    dtype: np.dtype[Any]
    nodata: float | None
    scale: float
    offset: float

    @property
    def plain(self) -> bool:
        return (self.scale, self.offset) == (1.0, 0.0)


def from_geotiffs(
    folder: str | Path | Iterable[str | Path],
    *,
    dates: Dates | None = None,
    bands: Bands | None = None,
    pattern: str = "*",
    scale: float | None = None,
    offset: float | None = None,
) -> xr.Dataset:
    """A lazy cube `(time, y, x)` of dated images on one grid: one variable a band, NaN for nodata.

    A file may hold one band or all bands of a date. Scale and offset tags are applied. Classes
    such as SCL stay integers. Two acquisitions of one date stay two time steps.

    Parameters
    ----------
    folder
        Folder that is searched with its subfolders for `.tif`, `.tiff` and `.jp2`; or the path of
        one file, or those of several.
    dates
        One date a file, in the order of the files' names or of the paths given, or a function of
        a file's path; None reads them from the names of files, else of their folders.
    bands
        Names of the bands of every file, in order, or a function of a file's path that gives
        them; None reads them from band descriptions, else from the names of files.
    pattern
        Files to take, such as `"*_10m.jp2"`.
    scale, offset
        Reflectance is count x scale + offset in bands whose files do not say it, such as
        scale=1e-4 for Sentinel-2, and offset=-0.1 from processing baseline 04.00 on; count 0 is
        then nodata where a file names none.

    Raises
    ------
    StoreError
        There is no such file, or one is not an image; the message names it.
    CubeError
        Dates or bands cannot be told, or a file lies on another grid.
    ReadError
        On computing: a part of a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from cubefill.testing import synthetic_cube
    >>> folder = tempfile.mkdtemp()
    >>> files = synthetic_cube().gapfill.to_geotiff(folder)
    >>> from_geotiffs(folder).sizes["time"]
    12
    """
    root, paths = _paths(folder, pattern)
    stamps = _stamps(paths, root, dates)
    headers = [_header(path) for path in paths]
    _check_grid(headers)
    names = _names(headers, stamps, bands)
    steps, layers = _steps(headers, stamps, names)
    if scale is not None:
        layers = _scaled(layers, scale, offset or 0.0)
    elif offset is not None:
        raise CubeError(f"offset={offset} without a scale. Pass scale=1e-4 with it.")
    _tell(paths, layers, steps, offset)
    changed = [h.stamp for h in headers]
    data = {n: _variable(n, found, headers[0].shape, changed) for n, found in layers.items()}
    time = pd.DatetimeIndex(steps).to_numpy("datetime64[ns]")
    ds = _placed(xr.Dataset(data, {"time": time}), headers[0])
    return ds.assign_attrs(source=str(root or paths[0].parent))


def _paths(
    folder: str | Path | Iterable[str | Path], pattern: str
) -> tuple[Path | None, list[Path]]:
    if not isinstance(folder, str | Path):
        root, paths = None, [Path(p) for p in folder]
    else:
        root = Path(folder)
        if root.is_file():
            return None, [root]
        if not root.is_dir():
            raise StoreError(f"No folder {root}: expected one with images of one grid.")
        inside = (p for p in sorted(root.rglob(pattern)) if p.suffix.lower() in SUFFIXES)
        paths = [p for p in inside if p.is_file() and "/." not in f"/{p.relative_to(root)}"]
    if not paths:
        raise StoreError(
            f"No image in {folder} matches {pattern!r}: expected files ending in "
            f"{', '.join(SUFFIXES)}. Pass the paths of the files instead."
        )
    return root, paths


def _stamps(paths: list[Path], root: Path | None, dates: Dates | None) -> list[pd.Timestamp]:
    if dates is None:
        found: list[Any] = [date_of(path, root) for path in paths]
    elif callable(dates):
        found = [dates(path) for path in paths]
    else:
        found = list(dates)
        if len(found) != len(paths):
            raise CubeError(
                f"dates has {len(found)} dates for {len(paths)} files: expected one a file, "
                f"{paths[0].name} first, {paths[-1].name} last."
            )
    stamps = [_stamp(given, path) for given, path in zip(found, paths, strict=True)]
    timed: dict[pd.Timestamp, set[pd.Timestamp]] = {}
    for stamp in stamps:
        if stamp != stamp.normalize():
            timed.setdefault(stamp.normalize(), set()).add(stamp)
    # a mask named by its day belongs to the one image of that day that is named with its time
    return [next(iter(timed[s])) if len(timed.get(s, ())) == 1 else s for s in stamps]


def _stamp(given: Any, path: Path) -> pd.Timestamp:
    try:
        stamp = pd.NaT if isinstance(given, int | float) else pd.Timestamp(given)
    except (ValueError, TypeError):
        stamp = pd.NaT
    if pd.isna(stamp):
        came = "none in its name" if given is None else repr(given)
        raise CubeError(
            f"{path} has no date ({came}): expected a name with a day such as 2021-03-01, 20210301 "
            "or 2021060. Pass dates= a list of one date a file, or a function of a file's path."
        )
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tz is not None else stamp


def _header(path: Path) -> _Header:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(path)
        stat = path.stat()
    except (rasterio.RasterioIOError, OSError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): expected an image. Fetch it again, or pass the "
            "paths of the others."
        ) from error
    with file:
        transform = tuple(file.transform)[:6]
        if transform[1] or transform[3] or file.transform.is_identity:
            raise CubeError(
                f"{path} has {'no' if file.transform.is_identity else 'a turned'} georeference: "
                "expected rows and columns along x and y of a CRS. Use gdalwarp to lay it so."
            )
        return _Header(
            path,
            file.shape,
            transform,
            file.crs.to_wkt() if file.crs else "",
            tuple(file.dtypes),
            tuple(file.nodatavals),
            tuple(file.scales),
            tuple(file.offsets),
            tuple(file.descriptions),
            (stat.st_mtime_ns, stat.st_size),
        )


def _check_grid(headers: list[_Header]) -> None:
    first = headers[0]
    for other in headers[1:]:
        if other.grid != first.grid:
            raise CubeError(
                f"{other.path} lies on another grid ({_grid_text(other)}) than {first.path.name} "
                f"({_grid_text(first)}): expected one. Pass pattern='...' to leave it out, or use "
                f"rio warp {other.path.name} new.tif --like {first.path.name}"
            )


def _grid_text(header: _Header) -> str:
    from rasterio.crs import CRS

    step, _, left, _, _, top = header.transform
    crs = CRS.from_wkt(header.crs).to_string()[:40] if header.crs else "no CRS"
    rows, columns = header.shape
    return f"{rows} x {columns} px of {step:g}, upper left {left:.10g} {top:.10g}, {crs}"


def _names(
    headers: list[_Header], stamps: list[pd.Timestamp], bands: Bands | None
) -> list[tuple[str, ...]]:
    if bands is None:
        found = [_told(header) for header in headers]
    else:
        given = (bands(h.path) if callable(bands) else bands for h in headers)
        found = [(g,) if isinstance(g, str) else tuple(g) for g in given]
    for header, names in zip(headers, found, strict=True):
        if len(names) != len(header.dtypes) or len(set(names)) != len(names):
            raise CubeError(
                f"{header.path.name} holds {len(header.dtypes)} bands and its names are "
                f"{', '.join(names) or 'not told'}: expected a name for each. Pass bands=[...] "
                "in the order of the file, a function of a file's path, or pattern='...' that "
                "leaves it out."
            )
    _check_rests(headers, stamps, found)
    return found


def _told(header: _Header) -> tuple[str, ...]:
    """Names by descriptions or the file's name; () where neither says."""
    count, stem = len(header.dtypes), header.path.stem
    described = tuple(d.strip() for d in header.descriptions if d and d.strip())
    known = tuple(canonical(d) or d for d in described)
    by_name = layers_in(stem, count)
    if len(known) == count and not (by_name and canonical(known[0]) is None):
        return known
    return by_name or ((rest_of(stem),) if count == 1 and rest_of(stem) else ())


def _check_rests(
    headers: list[_Header], stamps: list[pd.Timestamp], names: list[tuple[str, ...]]
) -> None:
    """Refuses leftovers of file names that change from date to date: numbers, not layers."""
    seen: dict[str, set[pd.Timestamp]] = {}
    for header, stamp, found in zip(headers, stamps, names, strict=True):
        if len(found) == 1 and found[0] == rest_of(header.path.stem) and not canonical(found[0]):
            seen.setdefault(found[0], set()).add(stamp)
    for rest, at in seen.items():
        if len(seen) > 1 and len(at) < len(set(stamps)):
            raise CubeError(
                f"Nothing tells the band of the file of {min(at)} named {rest!r}: expected a band "
                "description or a name such as B04. Pass bands=['B04'], or a function of a "
                "file's path."
            )


def _steps(
    headers: list[_Header], stamps: list[pd.Timestamp], names: list[tuple[str, ...]]
) -> tuple[list[pd.Timestamp], dict[str, list[_Layer | None]]]:
    """Time steps, and the layer of every variable at each: the n-th of a date at its n-th step."""
    found: dict[str, dict[pd.Timestamp, list[_Layer]]] = {}
    for header, stamp, layers in zip(headers, stamps, names, strict=True):
        for i, name in enumerate(layers):
            layer = _Layer(
                header.path,
                i + 1,
                np.dtype(header.dtypes[i]),
                header.nodata[i],
                header.scales[i],
                header.offsets[i],
            )
            found.setdefault(name, {}).setdefault(stamp, []).append(layer)
    most = {s: max(len(by.get(s, ())) for by in found.values()) for s in sorted(set(stamps))}
    for name, by in found.items():
        for stamp, number in most.items():
            if 0 < len(by.get(stamp, ())) < number:
                raise CubeError(
                    f"{stamp} has {number} files of some bands and {len(by[stamp])} of {name} "
                    f"({by[stamp][0].path.name}): expected as many of each, since nothing tells "
                    "which belong together. Pass dates= with times of day that tell them apart."
                )
    steps = [s for s, number in most.items() for _ in range(number)]
    none: list[_Layer | None] = [None]
    return steps, {
        name: [v for s, number in most.items() for v in by.get(s, none * number)]
        for name, by in found.items()
    }


def _band(name: str) -> Band | None:
    """The band of Sentinel-2 that a variable is, whichever name a user gave it."""
    return BANDS.get(canonical(name) or "")


def _scaled(
    layers: dict[str, list[_Layer | None]], scale: float, offset: float
) -> dict[str, list[_Layer | None]]:
    """The layers, bands of plain counts turned to reflectance."""

    def turned(layer: _Layer | None) -> _Layer | None:
        if layer is None or not layer.plain or layer.dtype.kind not in "iu":
            return layer
        nodata = 0.0 if layer.nodata is None else layer.nodata
        return _Layer(layer.path, layer.index, layer.dtype, nodata, scale, offset)

    return {n: [turned(v) for v in found] if _band(n) else found for n, found in layers.items()}


def _tell(
    paths: list[Path],
    layers: dict[str, list[_Layer | None]],
    steps: list[pd.Timestamp],
    offset: float | None,
) -> None:
    """Warns of what a user may not expect: layers that lack dates, an offset not taken off."""
    for name, found in layers.items():
        present = [v for v in found if v is not None]
        kinds = {v.plain for v in present if v.dtype.kind in "iu"}
        if _band(name) and len(kinds) > 1:
            odd = next(v.path for v in present if v.plain)
            raise CubeError(
                f"{name} has a scale in some files and none in {odd}: expected it in all or none. "
                "Pass scale=1e-4 for those without."
            )
        absent = [f"{steps[i]:%Y-%m-%d}" for i, v in enumerate(found) if v is None]
        if absent and _missing(name, present, _dtype(name, present)) is None:
            raise CubeError(
                f"{absent[0]} has no file of {name}, whose numbers name no nodata: expected one at "
                "every date. Pass the paths of the other files, or add it."
            )
        if absent:
            warnings.warn(
                f"{len(absent)} dates have no file of {name} ({', '.join(absent[:5])}): no data "
                "there.",
                CubefillWarning,
                stacklevel=3,
            )
    counts = any(
        v is not None and v.dtype.kind in "iu" and v.offset == 0
        for n, found in layers.items()
        if _band(n)
        for v in found
    )
    baseline = offset_baseline(paths)
    if baseline and counts and offset is None:
        warnings.warn(
            f"Names tell the processing baseline {baseline}, whose counts stand 1000 too high, and "
            "no file says that it was taken off. Pass scale=1e-4 and offset=-0.1, or offset=0 "
            "where it was.",
            CubefillWarning,
            stacklevel=3,
        )


def _variable(
    name: str,
    layers: list[_Layer | None],
    shape: tuple[int, int],
    changed: list[tuple[int, int]],
) -> Any:
    import dask.array as da
    from dask.base import tokenize

    present = [v for v in layers if v is not None]
    dtype = _dtype(name, present)
    chunks = (
        (1,) * len(layers),
        *((TILE,) * (n // TILE) + (n % TILE,) * (n % TILE > 0) for n in shape),
    )
    tasks: Any = da.map_blocks(
        _read,
        layers=tuple(layers),
        to=dtype,
        missing=_missing(name, present, dtype),
        chunks=chunks,
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
        name=f"geotiffs-{tokenize(name, layers, str(dtype), shape, changed)}",
    )
    attrs: dict[str, Any] = {"long_name": name}
    if (band := _band(name)) is not None:
        attrs["wavelength_nm"] = str(band.wavelength)
    return ("time", "y", "x"), tasks, attrs


def _dtype(name: str, layers: list[_Layer]) -> np.dtype[Any]:
    """The type of a variable: classes and counts without nodata stay as they are."""
    stored = np.result_type(*(v.dtype for v in layers))
    if name == "valid" and stored.kind in "iu":
        return np.dtype(bool)
    plain = all(v.plain for v in layers) and stored.kind in "iu"
    known = canonical(name) or name
    classes = known in NOT_SPECTRAL or (known not in BANDS and stored.itemsize == 1)
    if plain and (classes or all(v.nodata is None for v in layers)):
        return stored
    return np.dtype(np.float32)


def _missing(name: str, layers: list[_Layer], to: np.dtype[Any]) -> float | None:
    """The value of a date without a file; None where a number of the layer could mean it."""
    if to.kind == "f":
        return float("nan")
    nodata = {v.nodata for v in layers}
    known = nodata.pop() if len(nodata) == 1 else None
    return 0.0 if known is None and (canonical(name) or name) in {*BANDS, "SCL", "valid"} else known


def _read(
    layers: tuple[_Layer | None, ...], to: np.dtype[Any], missing: float | None, block_info: Any
) -> NDArray[Any]:
    """One block of a variable."""
    steps, y, x = block_info[None]["array-location"]
    out = np.full((steps[1] - steps[0], y[1] - y[0], x[1] - x[0]), missing or 0, to)
    for i, layer in enumerate(layers[slice(*steps)]):
        if layer is not None:
            out[i] = _values(layer, (y, x), to)
    return out


def _values(layer: _Layer, window: tuple[tuple[int, int], ...], to: np.dtype[Any]) -> NDArray[Any]:
    import rasterio

    try:
        with rasterio.open(layer.path) as file:
            counts: NDArray[Any] = file.read(layer.index, window=window)
    except (rasterio.RasterioIOError, OSError) as error:
        raise ReadError(
            f"{layer.path}, band {layer.index}, cannot be read at rows {window[0]} and columns "
            f"{window[1]} ({error}). Fetch it again, or pass the paths of the others."
        ) from error
    if to.kind != "f":
        return counts.astype(to, copy=False)
    exact = np.float64 if counts.dtype.itemsize > 4 else np.float32
    values = (
        counts.astype(exact) if layer.plain else counts * exact(layer.scale) + exact(layer.offset)
    )
    if layer.nodata is not None:
        values[counts == layer.nodata] = np.nan
    return values.astype(to, copy=False)


def _placed(ds: xr.Dataset, header: _Header) -> xr.Dataset:
    step_x, _, left, _, step_y, top = header.transform
    rows, columns = (np.arange(n) + 0.5 for n in header.shape)
    ds = ds.assign_coords(y=top + step_y * rows, x=left + step_x * columns)
    if header.crs:
        from odc.geo.xr import assign_crs

        ds = assign_crs(ds, header.crs)
        for variable in ds.data_vars.values():
            variable.encoding["grid_mapping"] = "spatial_ref"
    return ds
