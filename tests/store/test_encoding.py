from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from cubefill.errors import StoreError
from cubefill.store.encoding import (
    array_options,
    decode,
    encode,
    encoding_of,
    is_rounded,
    limits,
    plain,
)

F4 = np.dtype(np.float32)
BAND = encoding_of("B04", F4)
STD = encoding_of("B04_std", F4)

values_of_bands = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=40),
    elements=st.floats(-4, 8, width=32) | st.just(float("nan")),
)


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
        ("VV", "f4", "float32", "float32"),
        ("VH", "f8", "float32", "float32"),
        ("DEM", "f4", "float32", "float32"),
        ("temperature", "f8", "float32", "float32"),
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
    with pytest.raises(StoreError, match=r"'note' has use <U3.*drop_vars\('note'\)"):
        encoding_of("note", np.dtype("U3"))


def test_every_count_survives_a_round_trip() -> None:
    counts: NDArray[Any] = np.arange(-32768, 32768).astype(np.int16)
    again, clipped = encode(decode(counts, BAND), BAND)
    assert_array_equal(again, counts)
    assert clipped == 0
    wide: NDArray[Any] = np.arange(65536).astype(np.uint16)
    again, clipped = encode(decode(wide, STD), STD)
    assert_array_equal(again, wide)
    assert clipped == 0


@given(values_of_bands)
def test_encode_is_the_formula_of_the_contract(values: NDArray[Any]) -> None:
    scaled = values * np.float32(1e4)
    expected = np.rint(np.clip(scaled, -32767, 32767))
    expected = np.where(np.isnan(values), -32768, expected).astype(np.int16)
    counts, clipped = encode(values, BAND)
    assert counts.dtype == np.int16
    assert_array_equal(counts, expected)
    assert clipped == np.count_nonzero(np.abs(scaled) > 32767.5)


@given(values_of_bands)
def test_a_round_trip_moves_no_value_by_more_than_half_a_count(values: NDArray[Any]) -> None:
    for encoding in (BAND, STD):
        low, high = limits(encoding)
        decoded = decode(encode(values, encoding)[0], encoding)
        assert_array_equal(np.isnan(decoded), np.isnan(values))
        expected = np.clip(values.astype(float), low * 1e-4, high * 1e-4)
        allowed = 0.5e-4 + 2 * np.abs(expected) * np.finfo(np.float32).eps
        assert np.all(np.isnan(values) | (np.abs(decoded - expected) <= allowed))


def test_infinities_are_clipped_and_counted() -> None:
    values = np.array([np.inf, -np.inf, 3e38, -1.0, np.nan], np.float32)
    counts, clipped = encode(values, BAND)
    assert counts.tolist() == [32767, -32767, 32767, -10000, -32768]
    assert clipped == 3
    counts, clipped = encode(values, STD)
    assert counts.tolist() == [65534, 0, 65534, 0, 65535]
    assert clipped == 4


def test_pieces_do_not_show() -> None:
    size = 200_001
    values = np.random.default_rng(0).normal(0.3, 2, size).astype(np.float32)
    whole, clipped = encode(values, BAND)
    parts = [encode(values[i : i + 777], BAND) for i in range(0, size, 777)]
    assert_array_equal(whole, np.concatenate([p[0] for p in parts]))
    assert clipped == sum(p[1] for p in parts) > 0
    strided = values.reshape(3, -1).T
    assert_array_equal(encode(strided, BAND)[0], whole.reshape(3, -1).T)


def test_counts_and_other_types_pass_through() -> None:
    counts: NDArray[Any] = np.arange(4).astype(np.int16)
    assert encode(counts, BAND)[0] is counts
    db = np.array([-12.5, np.nan])
    assert encode(db, encoding_of("VV", db.dtype))[0].dtype == np.float32


def test_resampled_reflectance_is_noticed() -> None:
    exact = np.arange(10_000).astype(np.float32) * np.float32(1e-4)
    assert not is_rounded(exact, BAND)
    assert not is_rounded(np.array([np.nan, 9.0], np.float32), BAND)
    assert is_rounded(exact[1:] * np.float32(0.5), BAND)
    assert not is_rounded(exact, encoding_of("VV", F4))


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
