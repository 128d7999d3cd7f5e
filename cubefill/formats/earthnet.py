"""Minicubes of EarthNet2021 (.npz) and GreenEarthNet (.nc) as cubes, with what lies beside them.

Requena-Mesa et al. (2021), "EarthNet2021: a large-scale dataset and challenge for Earth surface
forecasting", CVPR Workshops. A minicube is 128 x 128 pixels of 20 m, one image every five days.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.addresses import local_path
from cubefill.cube.bands import BANDS
from cubefill.errors import CubeError, StoreError

FIRST_DAY, EVERY = 4, 5
"""Image i of a minicube is that of its start date + 4 + 5 i days."""
CONTEXT = 10
"""Images of a minicube before those that a forecaster has to give."""
METRES = 20.0
"""Size of a pixel."""

_NAME = re.compile(
    r"(?:(?P<part>[a-z]+)_)?(?P<tile>\d{2}[C-X][A-Z]{2})_(?P<start>\d{4}-\d\d-\d\d)"
    r"_(?P<end>\d{4}-\d\d-\d\d)_(?P<top>\d+)_\d+_(?P<left>\d+)_\d+"
)


@dataclass(frozen=True)
class MinicubeName:
    """What the file name of an EarthNet2021 minicube says."""

    part: str
    """"context", "target", or "" for a whole one."""
    tile: str
    """MGRS tile."""
    start: np.datetime64
    """First of its 150 days."""
    row: int
    """Pixels of 20 m from the top of the MGRS tile."""
    column: int
    """Pixels of 20 m from the left of the MGRS tile."""

    @property
    def region(self) -> str:
        """UTM zone and latitude band, as clean windows are listed: "33S"."""
        return self.tile[:3]


def parse_name(path: str | Path) -> MinicubeName | None:
    """What the file name of an EarthNet2021 minicube says; None where it is of another form.

    Examples
    --------
    >>> parse_name("context_33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz").row
    4025
    """
    found = _NAME.match(Path(path).name)
    if found is None:
        return None
    start = np.datetime64(found["start"], "ns")
    return MinicubeName(
        found["part"] or "", found["tile"], start, int(found["top"]), int(found["left"])
    )


def read(path: str | Path, *, nir: str = "B08", clip: bool = True) -> xr.Dataset:
    """The cube of a minicube: B02, B03, B04, near infrared, `valid`, and DEM and SCL where it has.

    `valid` is True where the mask says clear and every band has a value. An EarthNet2021 file is
    placed by its MGRS tile and pixel offsets, which its makers know to about 2 km; one of another
    name, and a GreenEarthNet file (in degrees), is placed at 0 and has no CRS.

    Parameters
    ----------
    path
        EarthNet2021 `.npz` (whole, context or target) or GreenEarthNet `.nc`.
    nir
        Name to give the near infrared, which is B8A in both; methods of four bands ask for B08.
    clip
        True clips reflectance to 0-1, as the data sets are meant to be read.

    Raises
    ------
    StoreError
        The file is absent, or neither of the two.
    CubeError
        It lacks a variable, or has an unexpected shape.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/cube.npz"
    >>> np.savez(path, highresdynamic=np.zeros((8, 8, 5, 3), np.float16))
    >>> read(path).sizes["time"]
    3
    """
    path = local_path(path)
    if not path.is_file():
        raise StoreError(f"No file {path}: expected a minicube (.npz or .nc).")
    if path.suffix == ".npz":
        return _read_npz(path, nir, clip)
    if path.suffix == ".nc":
        return _read_nc(path, nir, clip)
    raise StoreError(f"{path.name}: expected .npz (EarthNet2021) or .nc (GreenEarthNet).")


# ------------------------------------------------------------------ EarthNet2021


def _read_npz(path: Path, nir: str, clip: bool) -> xr.Dataset:
    images = _array(path, "highresdynamic", 4)
    if images.shape[2] < 5:
        raise CubeError(
            f"{path.name}: highresdynamic has {images.shape[2]} channels, expected 4 bands and a "
            "mask, or more."
        )
    series = np.ascontiguousarray(images.transpose(3, 2, 0, 1), np.float32)
    bands = dict(zip(("B02", "B03", "B04", nir), series.swapaxes(0, 1), strict=False))
    valid = (series[:, -1] == 0) & np.isfinite(series[:, :4]).all(axis=1)
    name = parse_name(path)
    first = CONTEXT if name is not None and name.part == "target" and len(series) == 20 else 0
    start = name.start if name is not None else np.datetime64("1970-01-01", "ns")
    time = start + (FIRST_DAY + EVERY * (first + np.arange(len(series)))).astype("m8[D]")
    extra: dict[str, Any] = {}
    if images.shape[2] == 7:
        extra["SCL"] = (_DIMS, np.nan_to_num(series[:, 5]).astype(np.uint8))
    with np.load(path) as file:
        if "highresstatic" in file:
            height = file["highresstatic"][..., 0].astype(np.float32) * 4000 - 2000
            extra["DEM"] = (("y", "x"), height, {"units": "m", "long_name": "elevation"})
    ds = _dataset(bands, valid, time, extra, "the mask of the minicube, 0 = clear", clip)
    return _placed(ds, name).assign_attrs(source=str(path), format="EarthNet2021")


_DIMS = ("time", "y", "x")


def _array(path: Path, key: str, axes: int) -> NDArray[Any]:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            if key not in file:
                raise CubeError(
                    f"{path.name} holds {', '.join(file) or 'nothing'}: expected {key!r}."
                )
            a: NDArray[Any] = file[key]
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        if isinstance(error, CubeError):
            raise
        raise StoreError(f"{path} cannot be read ({error}): expected .npz of arrays.") from error
    if a.ndim != axes:
        raise CubeError(f"{path.name}: {key} has shape {a.shape}, expected {axes} axes.")
    return a


def _dataset(
    bands: Mapping[str, NDArray[np.float32]],
    valid: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    extra: Mapping[str, Any],
    comment: str,
    clip: bool,
) -> xr.Dataset:
    data: dict[str, Any] = {}
    for name, values in bands.items():
        attrs: dict[str, Any] = {
            "long_name": name,
            "units": "1",
            "standard_name": "surface_bidirectional_reflectance",
        }
        if name in BANDS:
            attrs["wavelength_nm"] = str(BANDS[name].wavelength)
        data[name] = (_DIMS, np.clip(values, 0, 1) if clip else values, attrs)
    note = {"long_name": "clear observation", "comment": comment}
    data["valid"] = (_DIMS, valid, note)
    coords = {"time": time.astype("datetime64[ns]")}
    return xr.Dataset({**data, **extra}, coords).assign_attrs(
        boa_offset_harmonized=1, nir="B8A of the minicube", history="read from a minicube"
    )


def _placed(ds: xr.Dataset, name: MinicubeName | None) -> xr.Dataset:
    """The dataset with pixel centres in metres, and a CRS where the name gives it."""
    rows, columns = np.arange(ds.sizes["y"]), np.arange(ds.sizes["x"])
    if name is None:
        middle = METRES / 2
        return ds.assign_coords(y=-middle - METRES * rows, x=middle + METRES * columns)
    from odc.geo.xr import assign_crs

    epsg, left, top = tile_corner(name.tile)
    y = top - METRES * (name.row + rows + 0.5)
    x = left + METRES * (name.column + columns + 0.5)
    ds = assign_crs(ds.assign_coords(y=y, x=x), f"EPSG:{epsg}")
    for variable in ds.data_vars.values():
        variable.encoding["grid_mapping"] = "spatial_ref"
    return ds.assign_attrs(tile=name.tile, position="within about 2 km")


def tile_corner(tile: str) -> tuple[int, float, float]:
    """EPSG code, and x and y of the upper left corner, of a Sentinel-2 MGRS tile.

    Raises
    ------
    CubeError
        The name is not that of a tile.

    Examples
    --------
    >>> tile_corner("31UDS")
    (32631, 399960.0, 5700000.0)
    """
    zone = int(tile[:2]) if tile[:2].isdigit() else 0
    columns = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3]
    rows, belts = "ABCDEFGHJKLMNPQRSTUV", "CDEFGHJKLMNPQRSTUVWX"
    if (
        len(tile) != 5
        or not 1 <= zone <= 60
        or tile[2] not in belts
        or tile[3] not in columns
        or tile[4] not in rows
    ):
        raise CubeError(f"{tile!r} is no MGRS tile: expected a name such as '31UDS'.")
    north = belts.index(tile[2]) >= 10
    latitude = math.radians(-76 + 8 * belts.index(tile[2]))
    middle = 0.9996 * (6_367_449 * latitude - 16_038.5 * math.sin(2 * latitude))
    step = 100_000 * ((rows.index(tile[4]) - 5 * (zone % 2 == 0)) % 20)
    bottom = step + 2_000_000 * round((middle - step) / 2_000_000)
    left = 60 * math.floor((columns.index(tile[3]) + 1) * 100_000 / 60)
    top = 60 * math.ceil((bottom + 100_000) / 60) + (0 if north else 10_000_000)
    return (32600 if north else 32700) + zone, float(left), float(top)


# ------------------------------------------------------------------ GreenEarthNet


def _read_nc(path: Path, nir: str, clip: bool) -> xr.Dataset:
    with _opened(path) as opened:
        mask = next((m for m in ("s2_dlmask", "s2_mask") if m in opened), "s2_dlmask")
        wanted = ["s2_B02", "s2_B03", "s2_B04", "s2_B8A", mask]
        missing = [n for n in wanted if n not in opened]
        if missing:
            raise CubeError(
                f"{path.name} lacks {', '.join(missing)}: expected a GreenEarthNet minicube with "
                f"{', '.join(wanted)}."
            )
        also = [n for n in ("s2_SCL", "cop_dem", "nasa_dem") if n in opened]
        images = opened[wanted + also].isel(time=slice(FIRST_DAY, None, EVERY)).load()
    images = images.transpose("time", "lat", "lon")
    names = zip(("B02", "B03", "B04", nir), wanted[:4], strict=True)
    bands = {name: images[n].values.astype(np.float32) for name, n in names}
    valid = images[mask].values == 0
    for a in bands.values():
        valid &= np.isfinite(a)
    extra: dict[str, Any] = {}
    if "s2_SCL" in also:
        extra["SCL"] = (_DIMS, np.nan_to_num(images["s2_SCL"].values).astype(np.uint8))
    dem = next((n for n in ("cop_dem", "nasa_dem") if n in also), None)
    if dem is not None:
        height = images[dem].values.astype(np.float32)
        extra["DEM"] = (("y", "x"), height, {"units": "m", "long_name": "elevation"})
    comment = f"{mask} 0 = clear; its classes: {' '.join(_classes(images[mask]))}"
    ds = _dataset(bands, valid, images["time"].values, extra, comment, clip)
    ds = _placed(ds, None).assign_attrs(source=str(path), format="GreenEarthNet")
    return ds.assign_coords(lat=("y", images["lat"].values), lon=("x", images["lon"].values))


def _opened(path: Path) -> xr.Dataset:
    try:
        return xr.open_dataset(path)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): expected netCDF. It takes h5netcdf: use "
            "pip install cubefill[convert]."
        ) from error


def _classes(mask: xr.DataArray) -> list[str]:
    return str(mask.attrs.get("classes", "not given")).split()


# ------------------------------------------------------------------ land cover


LANDCOVER: dict[int, tuple[str, tuple[int, int, int]]] = {
    0: ("Clouds or no data", (255, 255, 255)),
    62: ("Artificial surfaces and constructions", (210, 0, 0)),
    73: ("Cultivated areas", (253, 211, 39)),
    75: ("Vineyards", (176, 91, 16)),
    82: ("Broadleaf tree cover", (35, 152, 0)),
    83: ("Coniferous tree cover", (8, 98, 0)),
    102: ("Herbaceous vegetation", (249, 150, 39)),
    103: ("Moors and heathland", (141, 139, 0)),
    104: ("Sclerophyllous vegetation", (95, 53, 6)),
    105: ("Marshes", (149, 107, 196)),
    106: ("Peatbogs", (77, 37, 106)),
    121: ("Natural material surfaces", (154, 154, 154)),
    123: ("Permanent snow covered surfaces", (106, 255, 255)),
    162: ("Water bodies", (20, 69, 249)),
    255: ("No data", (255, 255, 255)),
}
"""Code of a class of the Sentinel-2 Global Land Cover to its name and colour."""


def read_landcover(path: str | Path) -> xr.DataArray:
    """Codes of `LANDCOVER` `(y, x)` uint8, placed as the minicube of the same name.

    Raises
    ------
    StoreError, CubeError
        The file is absent, or holds no `landcover` of one map.
    """
    path = local_path(path)
    if not path.is_file():
        raise StoreError(f"No file {path}: expected the land cover of a minicube (.npz).")
    codes = np.squeeze(_array(path, "landcover", 3))
    if codes.ndim != 2:
        raise CubeError(f"{path.name}: expected one map of land cover, got shape {codes.shape}.")
    ds = _placed(xr.Dataset({"landcover": (("y", "x"), codes.astype(np.uint8))}), parse_name(path))
    return ds["landcover"].assign_attrs(long_name="land cover")


# ------------------------------------------------------------------ clean windows


@dataclass(frozen=True)
class CleanWindow:
    """A part of a minicube that is clear on some time steps in a row."""

    path: str
    """The minicube, as the list names it."""
    size: int
    """Rows and columns."""
    row: int
    """First row."""
    column: int
    """First column."""
    steps: tuple[int, ...]
    """Time steps, one after the other."""

    def cut(self, ds: xr.Dataset) -> xr.Dataset:
        """The part of a cube, its steps in order."""
        y, x = (slice(a, a + self.size) for a in (self.row, self.column))
        return ds.isel(time=list(self.steps), y=y, x=x)


def read_clean_windows(path: str | Path) -> dict[str, tuple[CleanWindow, ...]]:
    """Region ("33S") to its clean windows, from the JSON that GANFilling's discriminator uses.

    Raises
    ------
    StoreError
        The file is absent or no JSON.
    CubeError
        An entry lacks `path`, `kernel size`, `bbox` or `time steps`.
    """
    try:
        found = json.loads(local_path(path).read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}): expected JSON.") from error
    if not isinstance(found, dict):
        raise CubeError(f"{path} holds a {type(found).__name__}: expected regions by name.")
    return {str(r): tuple(_window(w, str(r), path) for w in ws) for r, ws in found.items()}


def _window(entry: Any, region: str, path: str | Path) -> CleanWindow:
    try:
        row, column = (int(v) for v in entry["bbox"][:2])
        steps = tuple(int(t) for t in entry["time steps"])
        return CleanWindow(str(entry["path"]), int(entry["kernel size"]), row, column, steps)
    except (KeyError, TypeError, ValueError) as error:
        raise CubeError(
            f"{path}, region {region}: an entry is {entry!r}; expected path, kernel size, bbox "
            "[row, column] and time steps."
        ) from error


def clean_windows_of(
    windows: Mapping[str, tuple[CleanWindow, ...]], region: str
) -> tuple[CleanWindow, ...]:
    """Clean windows of a region, else of the zone east of it, else west of it; else none.

    Examples
    --------
    >>> clean_windows_of({"34U": (CleanWindow("a", 64, 0, 0, (1, 2)),)}, "33U")[0].path
    'a'
    """
    zone, belt = int(region[:2]), region[2:]
    near = (zone, zone % 60 + 1, (zone - 2) % 60 + 1)
    names = [f"{z:02d}{belt}" for z in near]
    return next((windows[n] for n in names if windows.get(n)), ())
