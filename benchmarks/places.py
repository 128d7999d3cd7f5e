"""Real places as cubes: bands, cloudy values as they came, and `valid`.

Each place is read from a folder of `CUBEFILL_DATA`; what is absent there is left out, with the
reason. Places are split once: methods are tuned on one part and reported on the other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import spectral, valid
from cubefill.errors import CubefillError
from cubefill.formats import earthnet

_DIMS = ("time", "y", "x")


@dataclass(frozen=True)
class Place:
    """One real place."""

    name: str
    cube: xr.Dataset
    """Bands `(time, y, x)` and `valid`, in memory."""
    under_clouds: bool = True
    """True where the bands hold what was measured under clouds too."""
    lends: bool = False
    """True where its clouds are lent to places that have too few of their own."""


@dataclass(frozen=True)
class Source:
    """Where a place is read from."""

    read: Callable[[Path], xr.Dataset]
    path: str
    under_clouds: bool = True
    lends: bool = False


# ------------------------------------------------------------------ readers


def _cube(
    bands: Mapping[str, NDArray[np.float32]], clear: NDArray[np.bool_], time: NDArray, step: float
) -> xr.Dataset:
    """A cube on a grid of `step` metres without a place."""
    ny, nx = clear.shape[1:]
    data = {n: (_DIMS, a.astype(np.float32)) for n, a in bands.items()}
    grid = {"y": -step * np.arange(ny), "x": step * np.arange(nx)}
    ds = xr.Dataset({**data, "valid": (_DIMS, clear)}, {"time": time.astype("M8[ns]"), **grid})
    return ds.sortby("time")


def _worldcereal(folder: Path, bands: tuple[str, ...], resolution: int, grow: float) -> xr.Dataset:
    """Bands of one resolution, scene classification of 20 m."""
    fine, coarse = (
        xr.open_dataset(next(iter(sorted(folder.glob(f"S2_L2A_{r}m_*.nc")))), mask_and_scale=False)
        for r in (resolution, 20)
    )
    times = 20 // resolution
    scl = coarse["SCL"].transpose("timestamp", "y", "x").values.repeat(times, 1).repeat(times, 2)
    classes = xr.DataArray(scl.astype(np.uint8), dims=_DIMS)
    clear = valid.from_scl(classes, dilate=grow, resolution=resolution).values
    counts = {b: fine[b].transpose("timestamp", "y", "x").values for b in bands}
    known = np.all([c > 0 for c in counts.values()], axis=0)
    values = {b: np.where(c > 0, c * np.float32(1e-4), np.nan) for b, c in counts.items()}
    return _cube(values, clear & known, fine["timestamp"].values, resolution)


def _fusets(path: Path) -> xr.Dataset:
    """A field, NaN outside and where cloudy."""
    ds = xr.open_dataset(path).rename(t="time")
    values = {b: ds[b].transpose(*_DIMS).values for b in ("B04", "B08")}
    counts = max(np.nanmedian(v) for v in values.values()) > 2
    clear = np.all([np.isfinite(v) & (v > 0) for v in values.values()], axis=0)
    scaled = {b: np.where(clear, v * (1e-4 if counts else 1), np.nan) for b, v in values.items()}
    return _cube(scaled, clear, ds["time"].values, 10)


def _minicube(path: Path) -> xr.Dataset:
    """Dates without an acquisition are left out."""
    ds = earthnet.read(path).compute()
    names = spectral(ds)
    there = np.any([np.isfinite(ds[b].values).any((1, 2)) for b in names], axis=0)
    ds = ds[[*names, "valid"]].isel(time=there)
    return _cube({b: ds[b].values for b in names}, ds["valid"].values, ds["time"].values, 20)


def _eolearn(folder: Path) -> xr.Dataset:
    """NDVI; of two acquisitions of a day the first."""
    import json

    from scipy.ndimage import binary_dilation

    ndvi, cloudy, there = (
        np.load(folder / f"{n}.npy").squeeze() for n in ("NDVI", "CLM", "IS_DATA")
    )
    disk = np.hypot(*np.mgrid[-2:3, -2:3])[None] <= 2.1
    clear = there.astype(bool) & np.isfinite(ndvi) & ~binary_dilation(cloudy.astype(bool), disk)
    time = np.array(json.loads((folder / "timestamps.json").read_text()), "M8[ns]")
    first = np.concatenate([[True], np.diff(time) > np.timedelta64(12, "h")])
    return _cube({"NDVI": ndvi[first]}, clear[first], time[first], 10)


_uds = partial(_worldcereal, bands=("B02", "B03", "B04", "B08"), resolution=10, grow=20)
_ues = partial(_worldcereal, bands=("B05", "B07", "B8A", "B11"), resolution=20, grow=40)
_SND = "earthnet2021/target_29SND_2017-06-"

TUNE = {
    "31UDS": Source(_uds, "worldcereal_31UDS", lends=True),
    "fusets_bids": Source(_fusets, "fusets/bids_field.nc", under_clouds=False),
    "fusets_foss": Source(_fusets, "fusets/foss4g_field.nc", under_clouds=False),
    "29SND_1977": Source(
        _minicube, f"{_SND}20_2017-11-16_1977_2105_1721_1849_30_110_26_106.npz"
    ),
    "29SND_953": Source(_minicube, f"{_SND}20_2017-11-16_953_1081_3641_3769_14_94_56_136.npz"),
    "29SND_JAS": Source(
        _minicube, "greenearthnet/JAS2021_replicated_minicube_0_29SND_39.29_-8.56.nc"
    ),
}  # fmt: skip
"""Places that methods may be tuned on."""
REPORT = {
    "31UES": Source(_ues, "worldcereal_31UES_20m", lends=True),
    "eolearn": Source(_eolearn, "eolearn", lends=True),
    "fusets_meadow": Source(_fusets, "fusets/s2_meadow.nc", under_clouds=False),
    "33SXD": Source(
        _minicube,
        "earthnet2021/context_33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz",
    ),
    "29SND_1081": Source(_minicube, f"{_SND}30_2017-11-26_1081_1209_1721_1849_16_96_26_106.npz"),
    "29SND_1209": Source(_minicube, f"{_SND}30_2017-11-26_1209_1337_1977_2105_18_98_30_110.npz"),
    "29SND_2617": Source(_minicube, f"{_SND}20_2017-11-16_2617_2745_1465_1593_40_120_22_102.npz"),
    "34VCL_MJJ": Source(
        _minicube, "greenearthnet/MJJ2021_replicated_minicube_241_34VCL_59.04_17.96.nc"
    ),
}
"""Places that are looked at once a method stands."""
PARTS = {"tune": TUNE, "report": REPORT, "all": {**TUNE, **REPORT}}


def read(name: str, folder: Path) -> Place | str:
    """A place, or why there is none."""
    source = PARTS["all"][name]
    path = folder / source.path
    if not path.exists():
        return f"{name}: no {source.path} in {folder}"
    try:
        return Place(name, source.read(path), source.under_clouds, source.lends)
    except (CubefillError, OSError, KeyError, StopIteration) as error:
        return f"{name}: {path} cannot be read ({type(error).__name__}: {error})"


def lent(folder: Path) -> Iterator[NDArray[np.bool_]]:
    """What is clear `(y, x)` on the partly cloudy dates of the places that lend their clouds."""
    for name, source in PARTS["all"].items():
        place = read(name, folder) if source.lends else ""
        if isinstance(place, Place):
            clear = place.cube["valid"].values
            share = clear.mean((1, 2))
            yield from clear[(share > 0.1) & (share < 0.9)]
