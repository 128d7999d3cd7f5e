import numpy as np
import pytest

from cubefill.errors import StoreError
from cubefill.store.encoding import array_options, encoding_of, plain

F4 = np.dtype(np.float32)
BAND = encoding_of("B04", F4)
STD = encoding_of("B04_std", F4)


@pytest.mark.parametrize(
    ("name", "given_type", "stored", "decoded"),
    [
        ("B04", "f4", "int16", "float32"),
        ("B8A", "f8", "int16", "float32"),
        ("B04_smooth", "f4", "int16", "float32"),
        ("NDVI", "f4", "int16", "float32"),
        ("NDVI_smooth", "f4", "int16", "float32"),
        ("B04_std", "f4", "uint16", "float32"),
        ("NDVI_std", "f4", "uint16", "float32"),
        ("B04_smooth_std", "f4", "uint16", "float32"),
        ("B04_q05", "f4", "int16", "float32"),
        ("B8A_smooth_q975", "f4", "int16", "float32"),
        ("VV", "f4", "float32", "float32"),
        ("VH", "f8", "float32", "float32"),
        ("DEM", "f4", "float32", "float32"),
        ("temperature", "f8", "float64", "float64"),
        ("temperature", "f2", "float32", "float32"),
        ("temperature_std", "f4", "float32", "float32"),
        ("EVI_std", "f4", "float32", "float32"),
        ("VV_std", "f4", "float32", "float32"),
        ("SCL", "u1", "uint8", "uint8"),
        ("fill_flag", "u1", "uint8", "uint8"),
        ("NDVI_flag", "u1", "uint8", "uint8"),
        ("valid", "?", "bool", "bool"),
        ("source_missing", "?", "bool", "bool"),
        ("count", "i4", "int32", "int32"),
        ("B04", "u2", "uint16", "uint16"),
    ],
)
def test_the_table(name: str, given_type: str, stored: str, decoded: str) -> None:
    encoding = encoding_of(name, np.dtype(given_type))
    assert (encoding.dtype, encoding.decoded) == (np.dtype(stored), np.dtype(decoded))
    assert (encoding.scale is None) == ("_FillValue" not in encoding.attrs)


def test_what_was_never_written_reads_as_no_data() -> None:
    assert encoding_of("fill_flag", np.dtype("u1")).fill == 255
    assert encoding_of("SCL", np.dtype("u1")).fill == 0
    assert BAND.fill == BAND.nodata == -32768
    assert STD.fill == STD.nodata == 65535
    assert np.isnan(encoding_of("VV", F4).fill)


def test_text_is_refused() -> None:
    with pytest.raises(StoreError, match=r"'note' has type <U3.*drop_vars\('note'\)"):
        encoding_of("note", np.dtype("U3"))


def test_unknown_profile_and_format() -> None:
    with pytest.raises(StoreError, match="Unknown profile 'tiny': expected 'default' or 'fast'"):
        array_options("tiny", 3)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="zarr_format=4: expected 3 or 2"):
        array_options("default", 4)


def test_attributes_become_plain() -> None:
    mixed = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": (np.bool_(True), None),
        "d": {1: np.datetime64("2020-01-01")},
    }
    assert plain(mixed) == {"a": 0.5, "b": [0, 1], "c": [True, None], "d": {"1": "2020-01-01"}}
