from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from cubefill.cube.counts import Counts, Encoding, decode, encode, is_rounded, limits

F4 = np.dtype(np.float32)
BAND = Encoding(np.dtype(np.int16), F4, 1e-4, -32768)
STD = Encoding(np.dtype(np.uint16), F4, 1e-4, 65535)
DECIBEL = Encoding(F4, F4)

values_of_bands = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=40),
    elements=st.floats(-4, 8, width=32) | st.just(float("nan")),
)


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


def test_infinity_is_no_data_and_huge_values_are_clipped_and_counted() -> None:
    values = np.array([np.inf, -np.inf, 3e38, -1.0, np.nan], np.float32)
    counts, clipped = encode(values, BAND)
    assert counts.tolist() == [-32768, -32768, 32767, -10000, -32768]
    assert clipped == 1
    counts, clipped = encode(values, STD)
    assert counts.tolist() == [65535, 65535, 65534, 0, 65535]
    assert clipped == 2


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
    assert encode(db, DECIBEL)[0].dtype == np.float32


def test_resampled_reflectance_is_noticed() -> None:
    exact = np.arange(10_000).astype(np.float32) * np.float32(1e-4)
    assert not is_rounded(exact, BAND)
    assert not is_rounded(np.array([np.nan, 9.0], np.float32), BAND)
    assert is_rounded(exact[1:] * np.float32(0.5), BAND)
    assert not is_rounded(exact, DECIBEL)


def test_numbers_of_no_data_and_offsets_of_foreign_cubes() -> None:
    raw = np.array([[0, 1000, 2000]], np.uint16)
    assert_allclose(
        decode(raw, Encoding(raw.dtype, F4, 1e-4, 0, offset=-0.1)),
        np.array([[np.nan, 0.0, 0.1]], np.float32),
        atol=2e-8,
    )
    floats = np.array([-9999.0, 0.25])
    assert_array_equal(
        decode(floats, Encoding(floats.dtype, F4, None, -9999)),
        np.array([np.nan, 0.25], np.float32),
    )


def test_counts_of_other_scales() -> None:
    counts: NDArray[Any] = np.array([[2, -1, 300]], np.int16)
    assert_allclose(Counts(0.5, -1).decode(counts), np.array([[1.0, np.nan, 150.0]], np.float32))
