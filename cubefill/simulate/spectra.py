"""What a sensor measures over a simulated surface: reflectance of ten bands, and backscatter.

Canopies are turbid layers over a background: each band tends from the background's reflectance to
that of an infinitely deep canopy as `exp(-k LAI)`. End members are set by hand to the ranges that
Sentinel-2 shows over farmland of north-west Europe.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cubefill.simulate.noise import Array, like, namespace
from cubefill.simulate.surface import Crop

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Bands the simulator knows; the columns of every table below."""

CANOPY = {
    Crop.WHEAT: (0.027, 0.058, 0.027, 0.085, 0.32, 0.43, 0.46, 0.48, 0.190, 0.085),
    Crop.MAIZE: (0.029, 0.063, 0.031, 0.090, 0.30, 0.38, 0.41, 0.43, 0.200, 0.095),
    Crop.RAPESEED: (0.030, 0.063, 0.032, 0.100, 0.34, 0.44, 0.47, 0.49, 0.200, 0.090),
    Crop.BEET: (0.031, 0.070, 0.032, 0.100, 0.37, 0.48, 0.52, 0.54, 0.210, 0.100),
    Crop.POTATO: (0.033, 0.073, 0.035, 0.110, 0.36, 0.46, 0.49, 0.51, 0.210, 0.100),
    Crop.GRASS: (0.031, 0.068, 0.037, 0.098, 0.29, 0.37, 0.40, 0.42, 0.220, 0.110),
    Crop.DECIDUOUS: (0.016, 0.038, 0.018, 0.070, 0.27, 0.36, 0.39, 0.41, 0.170, 0.075),
    Crop.EVERGREEN: (0.014, 0.028, 0.016, 0.045, 0.145, 0.185, 0.20, 0.215, 0.090, 0.042),
    Crop.WATER: (0.035, 0.045, 0.030, 0.025, 0.018, 0.016, 0.013, 0.012, 0.006, 0.004),
    Crop.SETTLEMENT: (0.033, 0.066, 0.039, 0.090, 0.25, 0.31, 0.33, 0.35, 0.190, 0.100),
    Crop.ROAD: (0.035, 0.068, 0.040, 0.095, 0.26, 0.32, 0.35, 0.37, 0.210, 0.110),
}
"""Reflectance of a canopy so deep that nothing shines through, in flower excepted."""

SOIL = (
    (0.050, 0.070, 0.093, 0.108, 0.123, 0.137, 0.152, 0.163, 0.225, 0.190),
    (0.098, 0.132, 0.172, 0.195, 0.213, 0.232, 0.252, 0.268, 0.350, 0.305),
)
"""Dry soil, dark and bright."""

WATER = CANOPY[Crop.WATER]
PAVED = (0.085, 0.100, 0.112, 0.122, 0.135, 0.145, 0.155, 0.165, 0.195, 0.175)
LITTER = (0.032, 0.045, 0.058, 0.075, 0.100, 0.118, 0.135, 0.148, 0.190, 0.125)
STRAW = (0.070, 0.108, 0.155, 0.190, 0.225, 0.255, 0.280, 0.300, 0.340, 0.240)
BLOSSOM = (0.045, 0.150, 0.125, 0.185, 0.33, 0.40, 0.44, 0.45, 0.220, 0.110)
EXTINCTION = (0.80, 0.75, 0.80, 0.68, 0.52, 0.45, 0.43, 0.43, 0.55, 0.65)
"""Decay of the background's share per unit of leaf area; leaves scatter most in the NIR."""

HAZE = (1.0, 0.82, 0.62, 0.56, 0.51, 0.47, 0.43, 0.40, 0.17, 0.10)
"""Path radiance of aerosol relative to blue."""


class Ground(NamedTuple):
    """The unchanging optical map of a scene on one grid; bands first."""

    canopy: Array
    """`(band, y, x)` reflectance of a deep canopy."""
    soil: Array
    """`(band, y, x)` reflectance of the dry background."""
    wettable: Array
    """`(y, x)` how much moisture darkens the background, 0 to 1."""


def ground(crop: NDArray[np.int64], colour: NDArray[np.float64], bands: tuple[int, ...]) -> Ground:
    """End members of every pixel.

    Parameters
    ----------
    crop
        `(y, x)` codes of `Crop`.
    colour
        `(y, x)` brightness of the soil, about 0 (dark) to 1 (bright).
    bands
        Columns of `BANDS`.
    """
    pick = list(bands)
    canopy = np.array([CANOPY[c] for c in Crop])[:, pick].T[:, crop]
    dark, bright = (np.array(s)[pick][:, None, None] for s in SOIL)
    soil = dark + (bright - dark) * colour
    wettable = np.ones(crop.shape)
    fixed = {
        Crop.WATER: (WATER, 0.0, 0.05),
        Crop.SETTLEMENT: (PAVED, 0.2, 0.9),
        Crop.ROAD: (PAVED, 0.2, 0.2),
        Crop.DECIDUOUS: (LITTER, 0.5, 0.2),
        Crop.EVERGREEN: (LITTER, 0.5, 0.2),
    }
    for code, (spectrum, wet, contrast) in fixed.items():
        here = crop == code
        gain = np.clip(1 + contrast * (colour[here] - 0.5), 0.3, 2.5)
        soil[:, here] = np.array(spectrum)[pick][:, None] * gain
        wettable[here] = wet
    return Ground(canopy.astype(np.float32), soil.astype(np.float32), wettable.astype(np.float32))


def reflectance(
    green: Array, brown: Array, flower: Array, moisture: Array, g: Ground, bands: tuple[int, ...]
) -> Array:
    """Reflectance `(band, y, x)` of the surface, 0 to 1, before view and atmosphere.

    Parameters
    ----------
    green, brown, flower
        `(y, x)` leaf area index, dry cover 0 to 1 and share in flower 0 to 1.
    moisture
        `(y, x)` wetness of the topsoil, 0 (dry) to 1 (soaked).
    g
        End members from `ground` for the same `bands`.
    """
    xp = namespace(green)
    pick = list(bands)

    def column(table: tuple[float, ...]) -> Array:
        return like(np.array(table)[pick][:, None, None], green)

    drying = 1 - 0.4 * moisture * g.wettable
    background = g.soil * drying
    background = background + brown * (column(STRAW) * (1 - 0.15 * moisture) - background)
    canopy = g.canopy + flower * (column(BLOSSOM) - g.canopy)
    return canopy + (background - canopy) * xp.exp(-column(EXTINCTION) * green)


def measured(
    rho: Array, view: Array, haze: Array, gain: Array, noise: Array, bands: tuple[int, ...]
) -> Array:
    """Reflectance `(band, y, x)` as the sensor gives it under a clear sky.

    Parameters
    ----------
    rho
        `(band, y, x)` reflectance of the surface.
    view
        `(band,)` factor of the orbit's view direction.
    haze, gain
        `(y, x)` what the atmospheric correction left: added, blue most, and multiplied.
    noise
        `(band, y, x)` standard normal.
    bands
        Columns of `BANDS`.
    """
    column = like(np.array(HAZE)[list(bands)][:, None, None], rho)
    seen = rho * view[:, None, None] * (1 + gain) + column * haze
    return seen + noise * (0.0008 + 0.008 * seen)


def resampled(rho: Array, dy: float, dx: float, blur: float = 0.12) -> Array:
    """`rho` seen through the sensor's point spread and shifted by a part of a pixel.

    `dy` and `dx` lie between -0.4 and 0.4 pixel; `blur` is the share each neighbour adds.
    """
    xp = namespace(rho)
    for axis, shift in ((-2, dy), (-1, dx)):
        after, before = blur + max(shift, 0.0), blur + max(-shift, 0.0)
        n = rho.shape[axis]
        first, last = (slice(0, 1), slice(n - 1, n))
        inner = [slice(None)] * rho.ndim
        parts = []
        for edge in (first, slice(0, n), last):
            inner[axis] = edge
            parts.append(rho[tuple(inner)])
        wide = xp.concatenate(parts, axis)
        pieces = []
        for i in range(3):
            inner[axis] = slice(i, i + n)
            pieces.append(wide[tuple(inner)])
        rho = before * pieces[0] + (1 - before - after) * pieces[1] + after * pieces[2]
    return rho


# ------------------------------------------------------------------ Sentinel-1

_RADAR = {
    Crop.WHEAT: (-14.0, -13.5, -23.0, -19.5),
    Crop.MAIZE: (-14.0, -10.0, -23.0, -15.5),
    Crop.RAPESEED: (-14.0, -10.5, -23.0, -15.0),
    Crop.BEET: (-14.0, -9.5, -23.0, -15.0),
    Crop.POTATO: (-13.0, -9.5, -22.0, -15.0),
    Crop.GRASS: (-14.5, -12.5, -23.5, -19.0),
    Crop.DECIDUOUS: (-11.0, -10.5, -17.0, -15.5),
    Crop.EVERGREEN: (-11.0, -10.5, -17.0, -15.5),
    Crop.WATER: (-20.0, -20.0, -28.0, -28.0),
    Crop.SETTLEMENT: (-6.0, -7.0, -14.0, -14.0),
    Crop.ROAD: (-13.0, -12.0, -22.0, -19.0),
}
"""VV of dry soil, VV of a deep canopy, then the same of VH, in dB."""


def radar(crop: NDArray[np.int64]) -> NDArray[np.float32]:
    """Linear backscatter `(soil VV, canopy VV, soil VH, canopy VH; y, x)` of every pixel."""
    table = 10 ** (np.array([_RADAR[c] for c in Crop]) / 10)
    return np.asarray(table.T[:, crop], dtype=np.float32)


def backscatter(green: Array, moisture: Array, soil: Array, canopy: Array, speckle: Array) -> Array:
    """Backscatter in dB: wet soil seen through the canopy, plus the canopy, times speckle.

    A water cloud over soil (Attema and Ulaby, 1978). All `(y, x)`; `speckle` has mean 1.
    """
    xp = namespace(green)
    through = xp.exp(-0.45 * green)
    wet = 10 ** (0.6 * moisture)
    power = (soil * wet * through + canopy * (1 - through)) * speckle
    return 10 * xp.log10(xp.clip(power, 1e-5, 10.0))
