"""Sentinel-2 bands, the classes of SCL, and the names that catalogues give to both."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum

from cubefill.errors import CubeError


@dataclass(frozen=True)
class Band:
    """One spectral band of the Sentinel-2 multispectral instrument."""

    name: str
    """Official name, `B02`."""
    wavelength: int
    """Central wavelength of Sentinel-2A in nm."""
    resolution: int
    """Native ground sampling distance in m."""
    common: tuple[str, ...]
    """Names in catalogues: Earth Search asset keys and STAC common names."""


BANDS: dict[str, Band] = {
    b.name: b
    for b in (
        Band("B01", 443, 60, ("coastal",)),
        Band("B02", 492, 10, ("blue",)),
        Band("B03", 560, 10, ("green",)),
        Band("B04", 665, 10, ("red",)),
        Band("B05", 704, 20, ("rededge1", "rededge071")),
        Band("B06", 741, 20, ("rededge2", "rededge075")),
        Band("B07", 783, 20, ("rededge3", "rededge078")),
        Band("B08", 833, 10, ("nir",)),
        Band("B8A", 865, 20, ("nir08", "nir8a")),
        Band("B09", 945, 60, ("nir09",)),
        Band("B11", 1614, 20, ("swir16", "swir1")),
        Band("B12", 2202, 20, ("swir22", "swir2")),
    )
}

SAR_BANDS = ("VV", "VH")
"""Sentinel-1 backscatter variables of a cube, in dB."""

COHERENCE = ("COH_VV", "COH_VH")
"""Interferometric coherence of Sentinel-1, 0 to 1; optional, for methods that can use it."""

NOT_SPECTRAL = frozenset(
    {
        *SAR_BANDS,
        *COHERENCE,
        "SCL",
        "valid",
        "DEM",
        "sar_valid",
        "source_missing",
        "cloud_probability",
        "fill_flag",
        "spatial_ref",
    }
)
"""Variables of a cube that no method fills."""


class SCL(IntEnum):
    """Classes of the Sen2Cor scene classification layer."""

    NO_DATA = 0
    SATURATED = 1
    DARK = 2
    CLOUD_SHADOW = 3
    VEGETATION = 4
    BARE = 5
    WATER = 6
    UNCLASSIFIED = 7
    CLOUD_MEDIUM = 8
    CLOUD_HIGH = 9
    THIN_CIRRUS = 10
    SNOW = 11


def _aliases() -> dict[str, str]:
    table: dict[str, str] = {}
    for band in BANDS.values():
        number = band.name[1:].lstrip("0")
        for alias in (band.name, f"B{number}", *band.common):
            table[alias.lower()] = band.name
    for sar in SAR_BANDS:
        table[sar.lower()] = sar
    table |= {"scl": "SCL", "dem": "DEM", "elevation": "DEM"}
    return table


_ALIASES = _aliases()
_SUFFIX = re.compile(r"[_-](10|20|60)m$|-jp2$", re.IGNORECASE)


def canonical(name: str) -> str | None:
    """Cubefill's name of a band, or None where `name` is no band of Sentinel-2 or Sentinel-1.

    Case does not matter. Knows the names of Earth Search (`red`, `red-jp2`), Planetary Computer
    (`B04`), CDSE (`B04_10m`) and EOPF (`b04`).

    Examples
    --------
    >>> canonical("red"), canonical("b8a"), canonical("SCL_20m"), canonical("visual")
    ('B04', 'B8A', 'SCL', None)
    """
    key = name.lower()
    while (shorter := _SUFFIX.sub("", key)) != key:
        key = shorter
    return _ALIASES.get(key)


def require(name: str) -> str:
    """Cubefill's name of a band that a user typed.

    Raises
    ------
    CubeError
        The name is unknown; the message suggests the nearest one.
    """
    found = canonical(name)
    if found is None:
        near = get_close_matches(name.lower(), _ALIASES, n=1)
        hint = f" Did you mean {near[0]!r} ({_ALIASES[near[0]]})?" if near else ""
        raise CubeError(
            f"Unknown band {name!r}: expected one of {', '.join(BANDS)}, VV, VH, SCL, DEM "
            f"or a catalogue's name such as 'red'.{hint}"
        )
    return found
