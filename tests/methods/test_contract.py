from dataclasses import replace

import numpy as np

from cubefill.methods.contract import Block, Counts, Flag, traits
from tests.shared.strategies import Mean


def test_traits_have_defaults() -> None:
    t = traits(Mean(), ["B04"])
    assert t.gives == ("B04",)
    assert t.flag == Flag.INTERPOLATED
    assert (t.complete, t.keeps_clear, t.counts, t.gives_std) == (True, False, False, False)


def test_a_block_gives_days_and_a_stacked_array_with_nan_gaps() -> None:
    time = np.array(["2023-01-01T06", "2023-01-02T18"], "datetime64[ns]")
    values = np.ones((2, 3, 4), np.float32)
    valid = np.ones((2, 3, 4), bool)
    valid[1, 2, 3] = False
    block = Block({"B04": values, "B08": 2 * values}, valid, time, time)
    assert block.days.tolist() == [0.0, 1.5]
    assert block.optical.shape == (2, 2, 3, 4)
    assert np.isnan(block.optical[1, :, 2, 3]).all()
    assert np.isfinite(values).all()
    counts = replace(
        block,
        bands={"B04": np.array([[[5, -32768]]], np.int16)},
        valid=np.ones((1, 1, 2), bool),
        time=time[:1],
        out_time=time[:1],
        counts=Counts(),
    )
    np.testing.assert_array_equal(
        counts.optical.ravel(), np.array([5 * np.float32(1e-4), np.nan], np.float32)
    )
