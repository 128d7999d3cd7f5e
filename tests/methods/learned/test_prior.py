"""Straight lines as a prior: equal to `linear`, and what a clear value differs from them by."""

import numpy as np
import pytest

from cubefill.methods import resolve
from cubefill.methods.learned.prior import features_of, prior_of
from tests.shared.decloud import block, of_bands

BANDS = ("B02", "B03", "B04", "B08")


def given(seed: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clear = rng.random((9, 5, 7)) < share
    return rng.random((9, 2, 5, 7), np.float32), clear, np.cumsum(rng.integers(1, 20, 9)) * 1.0


def test_the_values_are_those_of_linear() -> None:
    one = of_bands(block(9))
    one.valid[:, 0, 0] = False
    stack = np.stack([one.bands[b] for b in BANDS], axis=1)
    found = prior_of(stack, one.valid, one.days)
    (line,) = resolve("linear").fill([one])
    for i, band in enumerate(BANDS):
        np.testing.assert_allclose(found.values[:, i], line.bands[band], atol=2e-6)
    assert np.isnan(found.values[:, :, 0, 0]).all()
    assert np.isfinite(found.known()).all()


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_clear_value_is_compared_with_the_line_without_it(share: float) -> None:
    values, clear, days = given(3, share)
    found = prior_of(values, clear, days)
    for t in range(len(days)):
        without = clear.copy()
        without[t] = False
        line = prior_of(values, without, days).values[t]
        wanted = np.where(clear[t] & without.any(0), values[t] - line, 0)
        np.testing.assert_allclose(found.differs[t], np.nan_to_num(wanted), atol=1e-6)


def test_what_a_gap_is_told_of_its_neighbours() -> None:
    values, clear, days = given(4)
    found = prior_of(values, clear, days)
    for t, y, x in zip(*np.nonzero(np.ones_like(clear)), strict=True):
        earlier = [s for s in range(t) if clear[s, y, x]]
        later = [s for s in range(t + 1, 9) if clear[s, y, x]]
        assert found.before[t, y, x] == (days[t] - days[earlier[-1]] if earlier else np.inf)
        assert found.after[t, y, x] == (days[later[0]] - days[t] if later else np.inf)
        if earlier and later:
            change = values[later[0], :, y, x] - values[earlier[-1], :, y, x]
            np.testing.assert_allclose(found.change[t, :, y, x], change, atol=1e-6)
        wanted = found.differs[earlier[-1], :, y, x] if earlier else 0
        np.testing.assert_array_equal(found.last[t, :, y, x], wanted)
        wanted = found.differs[later[0], :, y, x] if later else 0
        np.testing.assert_array_equal(found.following[t, :, y, x], wanted)


def test_features_are_numbers_whatever_is_clear() -> None:
    values, clear, days = given(5)
    values[~clear.repeat(2).reshape(9, 5, 7, 2).transpose(0, 3, 1, 2)] = np.nan
    for shown in (clear, np.zeros_like(clear), np.ones_like(clear)):
        features = prior_of(np.nan_to_num(values, nan=0.3), shown, days).features()
        assert features.shape == (9, features_of(2), 5, 7)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
    part = prior_of(values, clear, days).part(2, 5)
    np.testing.assert_array_equal(part.clear, clear[2:5])


def test_a_residual_is_believed_where_its_date_shows_something() -> None:
    values, clear = np.full((12, 1, 60, 60), 0.2, np.float32), np.ones((12, 60, 60), bool)
    clear[4], clear[6, :30], clear[9:] = False, False, False
    found = prior_of(values, clear, np.arange(0.0, 120.0, 10.0)).support()[:, 0]
    assert not found[4].any(), "nothing is clear on this date"
    assert found[6, 29].min() > 0.85
    assert found[6, 0].max() == 0
    assert (np.diff(found[6, :40, 30]) > -1e-6).all(), "no edge that could be seen"
    np.testing.assert_allclose(found[9:, 5, 5], [1, 1, 0.8], atol=1e-6)
