"""Dates and bands that file names tell, in the forms of common products."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubefill.errors import CubeError
from cubefill.formats.file_names import date_in, date_of, layers_in, offset_baseline

NAMES = {
    "S2A_MSIL2A_20210301T105621_N0214_R094_T31UDS_20210302T131211": "2021-03-01T10:56:21",
    "S2A_OPER_PRD_MSIL1C_PDMC_20160108T203543_R008_V20160107T105427_20160107T105427": (
        "2016-01-07T10:54:27"
    ),
    "T31UDS_20210301T105621_B04_10m": "2021-03-01T10:56:21",
    "20210301T105621_20210301T110035_T31UDS": "2021-03-01T10:56:21",  # Earth Engine
    "S2A_31UDS_20210301_0_L2A": "2021-03-01",  # Earth Search
    "SENTINEL2A_20210301-105621-456_L2A_T31UDS_D_V2-2_FRE_B4": "2021-03-01T10:56:21",  # Theia
    "20210301_LEVEL2_SEN2A_BOA": "2021-03-01",  # FORCE
    "openEO_2021-03-01Z": "2021-03-01",
    "LC08_L2SP_198025_20210301_20210311_02_T1_SR_B4": "2021-03-01",
    "HLS.S30.T31UDS.2021060T105621.v2.0.B04": "2021-03-01T10:56:21",
    "MOD09.A2021060.h18v03": "2021-03-01",
    "image_2021_03_01": "2021-03-01",
    "2021.03.01": "2021-03-01",
    "2021-060": "2021-03-01",
    "2020366": "2020-12-31",
    "2021-03-01T105621024000_NDVI": "2021-03-01T10:56:21.024",
}


@pytest.mark.parametrize("name", NAMES)
def test_dates_of_common_products(name: str) -> None:
    found = date_in(name)
    assert found is not None
    assert found[0] == pd.Timestamp(NAMES[name])


@pytest.mark.parametrize("name", ["B04", "T31UDS", "20211301", "2021-02-30", "120210301", "2021"])
def test_no_date_is_none(name: str) -> None:
    assert date_in(name) is None


@pytest.mark.parametrize("name", ["20210301-20210331", "mean_2021-03-01_2021-04-01"])
def test_a_span_of_days_is_refused(name: str) -> None:
    with pytest.raises(CubeError, match="holds two days, 2021-03-01 and 2021-0"):
        date_in(name)


@given(day=st.dates(pd.Timestamp("1950-01-01").date(), pd.Timestamp("2099-12-31").date()))
def test_every_day_is_read_back_in_every_form(day: object) -> None:
    stamp = pd.Timestamp(str(day))
    for form in ("%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%Y%j", "%Y-%j"):
        found = date_in(f"T31UDS_{stamp.strftime(form)}_B04_10m")
        assert found == (stamp, "T31UDS__B04_10m")


def test_the_nearest_dated_folder_inside_counts() -> None:
    root = Path("/data/2019-01-01")
    assert date_of(root / "2021-03-01" / "red.tif", root) == pd.Timestamp("2021-03-01")
    assert date_of(root / "2021-03-01" / "2021-03-02_red.tif", root) == pd.Timestamp("2021-03-02")
    assert date_of(root / "red.tif", root) is None
    assert date_of(root / "red.tif", None) == pd.Timestamp("2019-01-01")


def test_bands_stand_in_names_as_words() -> None:
    assert layers_in("T31UDS_20210301T105621_B8A_20m", 1) == ("B8A",)
    assert layers_in("SENTINEL2A_20210301-105621-456_L2A_T31UDS_D_V2-2_FRE_B4", 1) == ("B04",)
    assert layers_in("blue_green_red_nir_2021-03-01", 4) == ("B02", "B03", "B04", "B08")
    assert layers_in("blue_green_2021-03-01", 1) == ()
    assert layers_in("2021-03-01", 1) == ()


def test_a_baseline_with_an_offset_is_found_in_folders() -> None:
    old, new = (f"S2A_MSIL2A_20220301T105031_N{n}_R051_T31UDS_x.SAFE" for n in ("0301", "0510"))
    assert offset_baseline([Path(old) / "a.jp2"]) is None
    assert offset_baseline([Path(old) / "a.jp2", Path(new) / "a.jp2"]) == "N0510"
