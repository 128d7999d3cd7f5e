"""Synthetic Sentinel-2, Sentinel-1 and DEM scenes with known truth.

The surface is in `simulate/surface.py`, its spectra in `simulate/spectra.py`, the sky in
`simulate/clouds.py`, random fields in `simulate/noise.py`; this file draws their numbers and puts
a cube together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import bands as table
from cubefill.cube import valid as validity
from cubefill.cube.axes import day_of_year
from cubefill.errors import CubeError
from cubefill.simulate import clouds
from cubefill.simulate.noise import stream
from cubefill.simulate.spectra import BANDS
from cubefill.simulate.surface import Crop
from cubefill.simulate.world import DAY, World, optical, quantised, radar, radar_passes

Float = NDArray[np.float32]
Times = NDArray[np.datetime64]

_DATES, _SKY = 100, 101


@dataclass(frozen=True)
class Scene:
    """A simulated scene."""

    cube: xr.Dataset
    """What a catalogue would give: clouds and shadows included, `valid` made from SCL."""
    truth: xr.Dataset
    """The same bands under a clear sky, with `clear`, `cloud`, `shadow`, `opacity`, `LAI`
    `(time, y, x)` and `parcel`, `crop` `(y, x)`."""


def scene(
    *,
    size: int | tuple[int, int] = (384, 384),
    dates: int | Iterable[Any] | None = None,
    start: str = "2023-01-01",
    days: int = 365,
    seed: int = 0,
    bands: Sequence[str] = BANDS,
    sar: bool | Literal["own"] = True,
    dem: bool = True,
    cloud: float = 0.55,
    persistence: float = 3.0,
    omission: float = 0.1,
    swath_edge: bool = False,
    resolution: float = 10,
    crs: str = "EPSG:32631",
    origin: tuple[float, float] = (500_000, 5_600_000),
    latitude: float = 50.5,
) -> Scene:
    """A scene of farmland in north-west Europe, the same for the same arguments.

    Parameters
    ----------
    size
        Pixels along y and x.
    dates
        None for every acquisition of two satellites on two orbits, some of them missing; a number
        of them; or times.
    start, days
        The period, where `dates` gives no times.
    bands
        Names out of `BANDS`; each is the same whichever others are asked for.
    sar
        True puts VV and VH of the nearest acquisition on `time`; "own" keeps their own dates.
    cloud
        Mean share of pixels under cloud, 0 to 1. Shadows and the dilation of `valid` come on top.
    persistence
        Memory of the weather in days.
    omission
        Share of dates with thin haze that SCL calls clear.
    swath_edge
        True lets the second orbit see a part of the scene only; the rest is NaN, SCL 0.
    resolution, crs, origin
        Pixel size in m, and the upper left corner in `crs`.
    latitude
        For the sun, in degrees.

    Returns
    -------
    Scene
        Reflectance is quantised to 1e-4, and equal in cube and truth where `truth.clear`. On
        another machine it may differ by one count, where arithmetic rounds differently.

    Raises
    ------
    CubeError
        A band is unknown, a number is out of its range, or the period has too few acquisitions.

    Examples
    --------
    >>> s = scene(size=64, dates=6, bands=("B04", "B08"), sar=False)
    >>> dict(s.cube.sizes)
    {'time': 6, 'y': 64, 'x': 64}
    """
    shape = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    names = tuple(table.require(b) for b in bands)
    _check(shape, names, cloud, days)
    time, orbit = _times(dates, np.datetime64(start, "ns"), days, seed)
    world = World(shape, float(resolution), time[0], _span(time), seed, latitude)
    sky = clouds.weather(
        world.days(time), day_of_year(time), cloud, persistence, latitude, omission,
        stream(seed, _SKY),
    )  # fmt: skip
    observed, truth = optical(world, sky, time, orbit, names)
    if swath_edge:
        _cut_swath(observed, orbit, world)
    if dem:
        observed["DEM"] = (("y", "x"), world.crop_to(world.terrain))
    if sar:
        observed |= _sar(world, time, own=sar == "own")
    where = _Grid(shape, float(resolution), crs, origin)
    note = f"cubefill.simulate.scene(seed={seed}, cloud={cloud})"
    cube = where.dataset(observed, time, note)
    cube = cube.assign(valid=validity.from_scl(cube["SCL"], resolution=resolution))
    return Scene(cube, where.dataset(truth, time, note))


def acquisitions(
    start: np.datetime64, days: int, rng: np.random.Generator, missing: float = 0.12
) -> tuple[Times, NDArray[np.int64]]:
    """Times and orbit number (0 or 1) of two satellites seen from two orbits.

    Each orbit comes every five days, the second two days after the first; `missing` is the share
    of acquisitions that never arrived.
    """
    first = int(rng.integers(0, 5))
    steps = [(d, o) for d in range(days) for o in (0, 1) if (d - first - 2 * o) % 5 == 0]
    kept = [s for s in steps if rng.random() >= missing]
    hours = np.array([10.773, 10.942])
    day = np.array([d for d, _ in kept], dtype=np.float64)
    orbit = np.array([o for _, o in kept], dtype=np.int64)
    seconds = np.rint(day * 86_400 + hours[orbit] * 3600 + rng.normal(0, 3, len(kept)))
    midnight = start.astype("datetime64[D]").astype("datetime64[ns]")
    return midnight + seconds.astype(np.int64) * np.timedelta64(10**9, "ns"), orbit


# ------------------------------------------------------------------ arguments


def _check(shape: tuple[int, int], names: tuple[str, ...], cloud: float, days: int) -> None:
    unknown = [n for n in names if n not in BANDS]
    if unknown or not names:
        raise CubeError(
            f"bands={names}: expected some of {', '.join(BANDS)}, got {unknown or 'none'}."
        )
    if min(shape) < 8:
        raise CubeError(f"size={shape}: expected at least 8 pixels along y and x.")
    if not 0 <= cloud <= 1:
        raise CubeError(f"cloud={cloud}: expected a share between 0 and 1.")
    if days < 1:
        raise CubeError(f"days={days}: expected at least 1.")


def _times(
    dates: int | Iterable[Any] | None, start: np.datetime64, days: int, seed: int
) -> tuple[Times, NDArray[np.int64]]:
    rng = stream(seed, _DATES)
    if dates is not None and not isinstance(dates, int):
        time = np.array([np.datetime64(d, "ns") for d in np.asarray(list(dates))])
        if len(time) == 0 or (np.diff(time) <= np.timedelta64(0)).any():
            raise CubeError("dates: expected increasing times, at least one.")
        return time, (time.astype("datetime64[D]").astype(np.int64) % 5 > 1).astype(np.int64)
    time, orbit = acquisitions(start, days, rng)
    if dates is None:
        return time, orbit
    if not 1 <= dates <= len(time):
        raise CubeError(
            f"dates={dates}: expected 1 to {len(time)}, the acquisitions of {days} days. "
            f"Pass a larger days=."
        )
    edges = np.linspace(0, len(time), dates + 1)
    lowest, highest = edges[:-1].astype(int), np.ceil(edges[1:]).astype(int) - 1
    pick = np.unique(rng.integers(lowest, highest, endpoint=True))
    rest = np.setdiff1d(np.arange(len(time)), pick)
    pick = np.sort(np.append(pick, rng.permutation(rest)[: dates - len(pick)]))
    return time[pick], orbit[pick]


def _span(time: Times) -> int:
    return int((time[-1] - time[0]) / DAY) + 1


# ------------------------------------------------------------------ parts of the cube


def _cut_swath(observed: dict[str, Any], orbit: NDArray[np.int64], world: World) -> None:
    """Takes away what lies beyond the western edge of the second orbit's swath."""
    ny, nx = world.shape
    edge = stream(world.seed, _SKY, 1).uniform(0.2, 0.6) * nx
    outside = np.arange(nx)[None, :] < edge - 0.21 * (np.arange(ny)[:, None] - ny / 2)
    away = (orbit == 1)[:, None, None] & outside
    for name, (_, values) in observed.items():
        values[away] = 0 if name == "SCL" else np.nan


def _sar(world: World, time: Times, own: bool) -> dict[str, Any]:
    """VV and VH on `time` with the gap in hours, or on their own dates with the orbit."""
    passes, directions = radar_passes(world)
    if own:
        inside = (passes >= time[0] - DAY) & (passes <= time[-1] + DAY)
        passes, directions = passes[inside], list(np.array(directions)[inside])
        dims = ("sar_time", "y", "x")
        found: dict[str, Any] = {n: (dims, a) for n, a in radar(world, passes, directions).items()}
        found["sar_time"] = ("sar_time", passes)
        found["orbit"] = ("sar_time", directions)
        everywhere = np.ones((len(passes), *world.shape), bool)
        return found | {"sar_valid": (dims, everywhere)}
    nearest = np.abs(passes[None, :] - time[:, None]).argmin(1)
    used, place = np.unique(nearest, return_inverse=True)
    values = radar(world, passes[used], [directions[i] for i in used])
    dims = ("time", "y", "x")
    gap = ((passes[nearest] - time) / np.timedelta64(3_600_000_000_000, "ns")).astype(np.float32)
    found = {n: (dims, a[place]) for n, a in values.items()}
    said = {"long_name": "hours from the optical to the SAR acquisition", "units": "h"}
    found["sar_gap_hours"] = ("time", gap, said)
    return found | {"sar_valid": (dims, np.ones((len(time), *world.shape), bool))}


@dataclass(frozen=True)
class _Grid:
    """Where a scene lies."""

    shape: tuple[int, int]
    resolution: float
    crs: str
    origin: tuple[float, float]

    def dataset(self, variables: dict[str, Any], time: Times, note: str) -> xr.Dataset:
        """A dataset on this grid with coordinates, attributes and CRS."""
        from odc.geo.xr import assign_crs

        (ny, nx), r, (left, top) = self.shape, self.resolution, self.origin
        coords: dict[str, Any] = {
            "time": ("time", time),
            "y": ("y", top - (np.arange(ny) + 0.5) * r, {"units": "metre"}),
            "x": ("x", left + (np.arange(nx) + 0.5) * r, {"units": "metre"}),
        }
        for name in ("sar_gap_hours", "orbit", "sar_time"):
            if name in variables:
                coords[name] = variables.pop(name)
        ds = assign_crs(xr.Dataset(variables, coords), self.crs)
        for key, variable in ds.data_vars.items():
            variable.attrs.update(_attributes(str(key)))
            variable.encoding["grid_mapping"] = "spatial_ref"
        ds.attrs.update(title="Simulated Sentinel-2 scene", history=note, boa_offset_harmonized=1)
        return ds


def _attributes(name: str) -> dict[str, Any]:
    if name in table.BANDS:
        return {
            "long_name": f"surface reflectance {name}",
            "standard_name": "surface_bidirectional_reflectance",
            "units": "1",
            "wavelength_nm": table.BANDS[name].wavelength,
        }
    if name == "crop":
        return {
            "flag_values": [c.value for c in Crop],
            "flag_meanings": " ".join(c.name.lower() for c in Crop),
        }
    return _OTHER.get(name, {})


_OTHER: dict[str, dict[str, Any]] = {
    "SCL": {"long_name": "scene classification"},
    "VV": {"long_name": "backscatter VV", "units": "dB"},
    "VH": {"long_name": "backscatter VH", "units": "dB"},
    "DEM": {"long_name": "elevation", "units": "m"},
    "LAI": {"long_name": "green leaf area index", "units": "1"},
    "clear": {"long_name": "no cloud, veil or shadow touches the 20 m block"},
    "cloud": {"long_name": "under cloud, haze or veil of more than 5 % opacity"},
    "shadow": {"long_name": "darkened by more than 5 % of a full shadow"},
    "opacity": {"long_name": "opacity of cloud, haze and veil", "units": "1"},
    "parcel": {"long_name": "number of the parcel"},
}

__all__ = ["BANDS", "Crop", "Scene", "acquisitions", "quantised", "scene"]
