from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.cube import chosen_bands, spectral
from cubefill.cube.variables import doubtful, variable_of
from cubefill.errors import CubeError
from tests.shared.strategies import cube

LAYERS = (
    "view_zenith", "sunAzimuth", "AOT", "WVP_20m", "cloud_mask", "CLM", "CLP", "S2_cloud_mask",
    "S2_snow_mask", "cloud_class", "SCL_classes", "dataMask", "QA60", "pixel_qa", "Fmask",
    "oa_fmask", "MSK_CLDPRB_20m", "cloudmask", "S2_cloud_classification", "clear_probability",
    "B04_std", "B04_q05", "fill_flag", "NDVI_flag", "VV", "n_obs", "SAA", "cloud_shadow",
)  # fmt: skip
BANDS = (
    "B10", "nir08", "B04_10m", "nbart_red", "nbart_red_edge_1", "red_edge_2", "swir_3", "band_7",
    "surface_reflectance", "NDVI", "kNDVI", "EVI2", "NDWI", "NBR", "LAI", "B04_smooth",
)  # fmt: skip


def beside(name: str, dtype: str = "float32", **attrs: object) -> xr.Dataset:
    """A cube with one more variable."""
    ds = cube()
    return ds.assign({name: (ds["B04"].dims, np.ones(ds["B04"].shape, dtype), attrs)})


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "uint16", "uint8"])
def test_what_tools_put_beside_bands_is_never_filled(name: str, dtype: str) -> None:
    ds = beside(name, dtype)
    assert chosen_bands(ds) == ("B04", "B08")
    out = ds.gapfill("linear")
    assert name not in out or name == "fill_flag"


@pytest.mark.parametrize("name", BANDS)
def test_bands_and_indices_are_filled(name: str) -> None:
    assert name in spectral(beside(name))
    assert spectral(beside(name)[[name]]) == (name,)


@pytest.mark.parametrize(
    "attrs",
    [
        {"flag_values": [0, 1], "flag_meanings": "clear cloud"},
        {"units": "degrees"},
        {"standard_name": "viewing_zenith_angle"},
        {"standard_name": "surface_temperature standard_error"},
    ],
)
def test_attributes_say_what_a_strange_name_is(attrs: dict[str, Any]) -> None:
    assert doubtful(beside("thing")) == ("thing",)
    assert chosen_bands(beside("thing", **attrs)) == ("B04", "B08")
    told = beside("thing", standard_name="surface_bidirectional_reflectance")
    assert chosen_bands(told) == ("B04", "B08", "thing")
    named = beside("thing")
    named["B04"].attrs["ancillary_variables"] = "thing"
    assert chosen_bands(named) == ("B04", "B08")


@pytest.mark.parametrize("name", ["carbon_monoxide", "CO", "sif", "lst"])
def test_a_quantity_of_its_own_is_filled(name: str) -> None:
    ds = beside(name)[[name, "valid"]]
    out = ds.gapfill("linear").compute()
    assert (out[name].values[ds["valid"].values] == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16"])
def test_a_doubtful_variable_is_refused_and_both_hints_lead_on(dtype: str) -> None:
    ds = beside("thing", dtype)
    with pytest.raises(CubeError) as error:
        ds.gapfill("linear")
    text = str(error.value)
    assert text.startswith("thing may be bands or not")
    alone = ds.gapfill("linear", bands=["B04", "B08"])
    assert "Pass bands=['B04', 'B08'] to leave" in text
    np.testing.assert_array_equal(alone["thing"], ds["thing"])
    assert alone["thing"].dtype == dtype
    assert "bands=['B04', 'B08', 'thing'] to fill" in text
    if dtype == "uint16":
        with pytest.raises(CubeError, match=r"thing looks like digital.*bands=\['B04', 'B08', 'th"):
            ds.gapfill("linear", bands=["B04", "B08", "thing"])
    else:
        both = ds.gapfill("linear", bands=["B04", "B08", "thing"])
        assert "fill_flag" in both["thing"].attrs["ancillary_variables"]
        assert spectral(both) == ("B04", "B08", "thing")


def test_a_cube_of_masks_alone_says_how_to_fill_one() -> None:
    ds = beside("AOT")[["AOT", "valid"]]
    with pytest.raises(CubeError, match=r"No band to fill.*Pass bands=\['AOT'\]"):
        ds.gapfill("linear")
    assert "fill_flag" in ds.gapfill("linear", bands=["AOT"])


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([], r"bands=\[\]: expected at least one name. Pass bands=\['B04', 'B08'\]"),
        (["B4x"], r"has no 'B4x', but B04, B08, valid.* Did you mean 'B04'\?"),
        (["SCL"], r"SCL \(uint8\) holds classes or a mask"),
        ("valid", r"valid \(bool\) holds classes or a mask"),
        (["DEM"], r"DEM lies on y, x, expected time, y, x"),
    ],
)
def test_wrong_bands_are_refused(bands: list[str], message: str) -> None:
    ds = beside("SCL", "uint8").assign(DEM=cube()["B04"][0].drop_vars("time"))
    with pytest.raises(CubeError, match=message):
        ds.gapfill("linear", bands=bands)


def test_a_band_is_found_by_either_name() -> None:
    ds = cube().rename(B04="red")
    assert variable_of(ds, "B04") == variable_of(ds, "red") == "red"
    assert variable_of(ds, "B02") is None
    assert chosen_bands(cube(), "red") == ("B04",)
