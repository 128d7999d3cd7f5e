"""Gaps as the reference systems make them: U-TILISE's simulation and STpconv's blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.reference import gapblocks
from cubefill import gaps
from cubefill.errors import CubeError
from cubefill.gaps import Borrowed, EveryDate, shapes_of

LAGS = (1, 2, 4, 8, 16, 32)


def donors(side: int = 16) -> Any:
    """Shapes that cover 5 %, 25 %, 50 % and 95 % of a square."""
    shapes = np.zeros((4, side, side), bool)
    for shape, share in zip(shapes, (0.05, 0.25, 0.5, 0.95), strict=True):
        shape.flat[: round(share * side * side)] = True
    return shapes


def test_lent_gaps_are_shapes_of_other_series_and_never_on_the_first_date() -> None:
    shapes, valid = donors(), np.ones((10, 16, 16), bool)
    seen = set()
    for seed in range(60):
        hidden = Borrowed(shapes).make(valid, np.arange(10.0), seed)
        assert not hidden[0].any()
        dates = np.flatnonzero(hidden.any((1, 2)))
        assert 1 <= len(dates) <= 5
        seen.add(len(dates))
        shares = set(hidden[dates].mean((1, 2)))
        assert shares <= {0.25, 0.5, 1.0}
        for t in dates:
            full = hidden[t].all()
            assert full or any(np.array_equal(hidden[t], s) for s in shapes[1:3])
    assert seen == {1, 2, 3, 4, 5}


def test_lent_dates_follow_half_of_a_uniform_number() -> None:
    valid = np.ones((10, 16, 16), bool)
    counts = [
        Borrowed(donors()).make(valid, np.arange(10.0), s).any((1, 2)).sum() for s in range(600)
    ]
    # ceil(U{1..10} / 2): each of 1 to 5 as often as the others
    assert np.bincount(counts, minlength=6)[1:] / 600 == pytest.approx(0.2, abs=0.06)


def test_nothing_is_hidden_whole_when_that_is_switched_off() -> None:
    hidden = Borrowed(donors()[3:], whole=1.0).make(np.ones((4, 16, 16), bool), np.arange(4.0))
    assert set(hidden.mean((1, 2))) - {0.0} == {donors()[3].mean()}


def test_larger_shapes_lend_a_window() -> None:
    shapes = np.zeros((1, 40, 40), bool)
    shapes[0, ::2] = True
    hidden = Borrowed(shapes).make(np.ones((6, 8, 8), bool), np.arange(6.0))
    assert set(hidden.mean((1, 2))) == {0.0, 0.5}


def test_lent_says_what_it_lacks() -> None:
    valid = np.ones((6, 16, 16), bool)
    with pytest.raises(CubeError, match="got 6 and 0 of 0 shapes"):
        Borrowed().make(valid, np.arange(6.0))
    with pytest.raises(CubeError, match=r"at least 16 x 16 px.* of 8 x 8 px"):
        Borrowed(donors(8)).make(valid, np.arange(6.0))
    with pytest.raises(CubeError, match="got 1 and"):
        Borrowed(donors()).make(valid[:1], np.arange(1.0))


def test_shapes_are_gaps_above_the_smallest_cover() -> None:
    valid = ~np.concatenate([donors(), np.zeros((1, 16, 16), bool), np.ones((1, 16, 16), bool)])
    found = shapes_of(valid)
    np.testing.assert_array_equal(found[:3], donors()[1:])
    assert found[3].all()
    assert len(found) == 4


@given(
    arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 6))),
    st.sampled_from([EveryDate(), EveryDate(share=0.5, keep=0), Borrowed(donors()), Borrowed()]),
    st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_any_cube_is_hidden_in_part_or_refused(valid: Any, kind: Any, seed: int) -> None:
    try:
        hidden = kind.make(valid, np.arange(len(valid)) * 5.0, seed)
    except CubeError:
        return
    assert hidden.any()
    assert not (hidden & ~valid).any()
    assert ((valid & ~hidden).sum(0) >= np.minimum(valid.sum(0), kind.keep)).all()
    np.testing.assert_array_equal(hidden, kind.make(valid, np.arange(len(valid)) * 5.0, seed))


def test_every_date_hides_the_published_shares() -> None:
    valid = np.random.default_rng(0).random((48, 64, 64)) < 0.6
    hidden = EveryDate(keep=0).make(valid, np.arange(48.0), 1)
    shares = hidden.sum((1, 2)) / valid.sum((1, 2))
    assert shares.mean() == pytest.approx(0.2, abs=0.06)
    assert np.quantile(shares, 0.5) == pytest.approx(0.16, abs=0.06)
    assert isinstance(EveryDate(), gaps.Gaps)
    assert isinstance(Borrowed(), gaps.Gaps)


def roughness(hidden: Any, valid: Any) -> list[float]:
    """Share of pixel pairs of which one is hidden, over that of unrelated pixels, by distance."""
    found = []
    for lag in LAGS:
        both = valid[:, :, lag:] & valid[:, :, :-lag]
        apart = (hidden[:, :, lag:] != hidden[:, :, :-lag]) & both
        p = hidden.sum((1, 2)) / valid.sum((1, 2))
        use = (p > 0.1) & (p < 0.9) & (both.sum((1, 2)) > 500)
        ratio = apart.sum((1, 2)) / np.maximum(both.sum((1, 2)), 1) / (2 * p * (1 - p))
        found.append(float(ratio[use].mean()))
    return found


def test_every_date_is_as_ragged_as_the_published_blocks(data_folder: Path) -> None:
    folder = data_folder / "stpconv" / "validation"
    theirs, ours, shares = [], [], []
    for name in gapblocks.names(folder)[::2]:
        block = gapblocks.read(folder, name)
        valid = np.isfinite(block.truth)
        keep = valid.mean((1, 2)) > 0.1
        valid, hidden = valid[keep], block.hidden[keep]
        made = EveryDate().make(valid, np.arange(len(valid)) * 1.0, 3)
        theirs.append(roughness(hidden, valid))
        ours.append(roughness(made, valid))
        shares.append((hidden.sum() / valid.sum(), made.sum() / valid.sum()))
    np.testing.assert_allclose(np.mean(ours, 0), np.mean(theirs, 0), atol=0.1)
    theirs_share, our_share = np.mean(shares, 0)
    assert our_share == pytest.approx(theirs_share, abs=0.05)
