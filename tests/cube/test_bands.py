import pytest

from cubefill.cube.bands import BANDS, canonical, require
from cubefill.errors import CubeError


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("red", "B04"),
        ("B04", "B04"),
        ("b04", "B04"),
        ("B4", "B04"),
        ("B04_10m", "B04"),
        ("red-jp2", "B04"),
        ("nir08", "B8A"),
        ("B8A_20m", "B8A"),
        ("b8a", "B8A"),
        ("SCL_20m", "SCL"),
        ("swir22", "B12"),
        ("vv", "VV"),
        ("elevation", "DEM"),
        ("visual", None),
        ("B10", None),
    ],
)
def test_catalogues_names_become_bands(name: str, band: str | None) -> None:
    assert canonical(name) == band


def test_no_two_bands_share_a_name() -> None:
    names = [n for b in BANDS.values() for n in (b.name, *b.common)]
    assert len(names) == len(set(names))


def test_an_unknown_band_suggests_the_nearest() -> None:
    with pytest.raises(CubeError, match=r"Unknown band 'rad': expected one of B01.*mean 'red'"):
        require("rad")
