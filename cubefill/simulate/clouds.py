"""The sky of a simulated scene: weather from date to date, clouds, their shadows, and SCL.

`weather` draws a few numbers per date. What is done to pixels is a pure function of arrays that
runs on numpy and torch alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.bands import SCL
from cubefill.simulate.noise import Array, fractal, like, namespace, smooth

Floats = NDArray[np.float64]

FULLY_COVERED = 0.55
"""Share of the cloudy dates on which nothing is seen, where the request allows it."""

_PARTIAL = (0.04, 0.9)
"""Smallest and largest cover of a date that is neither clear nor fully covered."""

CLOUD_COLOUR = (1.0, 0.98, 0.97, 0.98, 0.99, 1.0, 1.0, 1.0, 0.68, 0.52)
"""Reflectance of a thick cloud relative to the visible, in the order of simulate_spectra.BANDS."""

SHADOW_DEPTH = (0.62, 0.68, 0.74, 0.76, 0.79, 0.80, 0.82, 0.83, 0.88, 0.90)
"""How much of the light a full shadow takes; skylight fills in the blue."""


@dataclass(frozen=True)
class Sky:
    """The weather of each acquisition; arrays `(date,)`."""

    fraction: Floats
    """Share of the scene under cloud."""
    slope: Floats
    """Spectral slope of the cloud field: 2.4 is broken cumulus, 3.4 a smooth deck."""
    thickness: Floats
    """Optical thickness per unit of the field."""
    height: Floats
    """Height of the cloud in m, which sets how far shadows fall."""
    haze: Floats
    """Opacity of thin cloud that SCL does not see; mostly 0."""
    threshold: Floats
    """Opacity above which SCL says cloud."""
    shadow_threshold: Floats
    """Darkening above which SCL says shadow."""
    zenith: Floats
    """Sun zenith angle in degrees."""
    azimuth: Floats
    """Sun azimuth in degrees, clockwise from north."""


def weather(
    days: Floats, day_of_year: Floats, cloud: float, persistence: float, latitude: float,
    omission: float, rng: np.random.Generator,
) -> Sky:  # fmt: skip
    """Cloudiness of every date, kept up from date to date, with mean `cloud`.

    A hidden first-order Markov process with a memory of `persistence` days puts the dates in an
    order; their covers are the quantiles of a mixture of clear, partly and fully covered dates
    whose mean is `cloud`.
    """
    fraction = covers(latent(days, persistence, rng), cloud)
    n = len(days)
    smoothness = rng.uniform(2.3, 3.5, n)
    zenith, azimuth = sun(day_of_year, latitude)
    hazy = rng.random(n) < omission
    return Sky(
        fraction=fraction,
        slope=smoothness,
        thickness=rng.lognormal(np.log(6.0), 0.6, n),
        height=rng.uniform(600, 2600, n),
        haze=np.where(hazy, rng.uniform(0.03, 0.16, n), 0.0),
        threshold=rng.uniform(0.1, 0.35, n),
        shadow_threshold=rng.uniform(0.25, 0.6, n),
        zenith=zenith,
        azimuth=azimuth,
    )


def latent(days: Floats, persistence: float, rng: np.random.Generator) -> Floats:
    """A standard normal Markov process at `days`: correlation `exp(-gap / persistence)`."""
    draws = rng.standard_normal(len(days))
    z = draws.copy()
    for i in range(1, len(days)):
        r = np.exp(-(days[i] - days[i - 1]) / persistence)
        z[i] = r * z[i - 1] + np.sqrt(1 - r * r) * draws[i]
    return z


def covers(z: Floats, cloud: float) -> Floats:
    """Cloud cover of each date, in the order of `z`, with mean `cloud`.

    Of the cloudy dates `FULLY_COVERED` are fully covered; beyond a mean of about 0.76 more of
    them must be.
    """
    n = len(z)
    low, high = _PARTIAL
    middle = (low + high) / 2
    full = FULLY_COVERED
    cloudy = min(1.0, cloud / (full + (1 - full) * middle))
    if cloudy == 1.0:
        full = min(1.0, max(0.0, (cloud - middle) / (1 - middle)))
    rank = (np.argsort(np.argsort(z)) + 0.5) / n
    partial = cloudy * (1 - full)
    along = (rank - (1 - cloudy)) / max(partial, 1e-9)
    cover = np.where(along <= 0, 0.0, np.where(along >= 1, 1.0, low + (high - low) * along))
    return _exact_mean(cover, cloud)


def _exact_mean(cover: Floats, cloud: float) -> Floats:
    """`cover` with the covers of its partly covered dates moved until the mean is `cloud`."""
    part = (cover > 0) & (cover < 1)
    if not part.any():
        part = np.abs(np.cumsum(np.ones_like(cover)) - 1 - np.argmax(cover)) < 0.5
        part &= 0 < cloud < 1
    if part.any():
        rest = cloud * len(cover) - cover[~part].sum()
        low, high = _PARTIAL
        for _ in range(20):
            cover[part] = np.clip(cover[part] + (rest - cover[part].sum()) / part.sum(), low, high)
    return cover


def sun(day_of_year: Floats, latitude: float) -> tuple[Floats, Floats]:
    """Sun zenith and azimuth in degrees at half past ten, local solar time."""
    declination = np.radians(23.44) * np.sin(2 * np.pi * (day_of_year - 81) / 365.25)
    lat, hour = np.radians(latitude), np.radians(-22.5)
    up = np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(hour)
    east = -np.cos(declination) * np.sin(hour)
    north = np.cos(lat) * np.sin(declination) - np.sin(lat) * np.cos(declination) * np.cos(hour)
    return np.degrees(np.arccos(up)), np.degrees(np.arctan2(east, north)) % 360


# ------------------------------------------------------------------ pixels


def opacity(
    white: Array, window: tuple[int, int], fraction: float, slope: float, thickness: float
) -> Array:
    """Opacity 0 to 1 of the clouds over a domain, periodic; exactly 0 between them.

    Parameters
    ----------
    white
        `(y, x)` standard normal values over the domain.
    window
        Rows and columns of the scene, the first corner of the domain, for which `fraction` holds.
    fraction
        Share of the window that is covered.
    slope, thickness
        See `Sky`.
    """
    xp = namespace(white)
    if fraction <= 0:
        return 0 * white
    field = fractal(white, slope, outer=0.5, inner=2.0)
    if fraction >= 1:
        depth = thickness * xp.clip(1.2 + 0.5 * field, 0.35, 10.0)
    else:
        edge = xp.quantile(field[: window[0], : window[1]], 1 - fraction)
        over = xp.clip(field - edge, 0.0, 10.0)
        depth = thickness * over * over / (over + 0.25)
    return xp.clip((1 - xp.exp(-depth)) * 1.004 - 0.004, 0.0, 1.0)


def displacement(
    zenith: float, azimuth: float, height: float, resolution: float
) -> tuple[int, int]:
    """Rows and columns from a cloud to its shadow, away from the sun; rows grow southwards.

    Examples
    --------
    >>> displacement(45.0, 180.0, 1000.0, 10.0)
    (-100, 0)
    """
    reach = height * np.tan(np.radians(min(zenith, 80.0))) / resolution
    angle = np.radians(azimuth)
    return round(float(reach * np.cos(angle))), round(float(-reach * np.sin(angle)))


def shadow(cloud: Array, shift: tuple[int, int]) -> Array:
    """Darkening 0 to 1 by the clouds of a periodic domain, where their shadows fall."""
    xp = namespace(cloud)
    return xp.roll(smooth_edges(cloud), shift, (0, 1))


def smooth_edges(cloud: Array) -> Array:
    """`cloud` with edges about two pixels wide, and nothing where nothing was near."""
    xp = namespace(cloud)
    return xp.clip(smooth(cloud, 1.0) * 1.02 - 0.02, 0.0, 1.0)


def halo(cloud: Array, reach: float) -> Array:
    """Opacity of the thin veil around clouds that classifiers miss, within about `reach` pixels."""
    xp = namespace(cloud)
    return xp.clip(0.14 * smooth(cloud, reach / 2) - 0.012, 0.0, 0.12)


def through(
    truth: Array, cloud: Array, dark: Array, texture: Array, bands: tuple[int, ...]
) -> Array:
    """Reflectance `(band, y, x)` as seen through cloud and in shadow; `truth` where neither is.

    Parameters
    ----------
    truth
        `(band, y, x)` what a clear sky would show.
    cloud, dark
        `(y, x)` opacity and darkening, 0 to 1.
    texture
        `(y, x)` standard normal structure of the cloud tops.
    bands
        Columns of simulate_spectra.BANDS.
    """
    xp = namespace(truth)
    pick = list(bands)
    colour = like(np.array(CLOUD_COLOUR)[pick][:, None, None], truth)
    depth = like(np.array(SHADOW_DEPTH)[pick][:, None, None], truth)
    top = xp.clip(0.24 + 0.3 * cloud * cloud + 0.1 * cloud * texture, 0.1, 1.2)
    return truth * (1 - depth * dark) * (1 - cloud) + colour * top * cloud


def classes(
    cloud: Array,
    dark: Array,
    wander: Array,
    cover: Array,
    bright: Array,
    threshold: float,
    shadow_threshold: float,
) -> Array:
    """SCL classes `(y, x)`, with the omissions and commissions of a real classifier.

    Parameters
    ----------
    cloud, dark
        `(y, x)` opacity and darkening on SCL's own grid.
    wander
        `(y, x)` standard normal, smooth: where the classifier is more or less willing.
    cover
        `(y, x)` class of the clear ground: 4, 5 or 6.
    bright
        `(y, x)` 0 to 1, how easily the ground itself is taken for cloud.
    threshold, shadow_threshold
        See `Sky`.
    """
    xp = namespace(cloud)
    seen = cloud + 0.07 * wander * xp.clip(cloud * 8, 0.0, 1.0)
    seen = seen + 0.5 * bright * xp.clip(wander - 0.8, 0.0, 1.0)
    out = cover + 0 * cloud
    out = xp.where((seen > 0.6 * threshold) & (wander > 1.0), 0 * out + SCL.UNCLASSIFIED.value, out)
    darker = dark - 0.1 * wander
    out = xp.where(darker > shadow_threshold, 0 * out + SCL.CLOUD_SHADOW.value, out)
    out = xp.where((cover == SCL.WATER.value) & (dark < 0.1), 0 * out + SCL.WATER.value, out)
    for level, code in (
        (threshold, SCL.THIN_CIRRUS),
        (0.45, SCL.CLOUD_MEDIUM),
        (0.8, SCL.CLOUD_HIGH),
    ):
        out = xp.where(seen > max(level, threshold), 0 * out + code.value, out)
    return out
