from dataclasses import dataclass, field, replace
from typing import Any, Optional

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Counts, Flag, check_options, traits
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


@dataclass(frozen=True)
class WithOptions:
    """Options of every form that a method of one's own may declare."""

    seen: list[Block] = field(default_factory=list)
    pair: tuple[float, float] = (0.5, 1.0)
    names: dict[str, int] | None = None
    old: Optional[int] = None  # noqa: UP045 - people write it
    days: float = 3.0


def test_options_of_any_declared_form_are_taken() -> None:
    check_options(WithOptions())
    check_options(WithOptions(names={"a": 1}, old=3, pair=(0.1, 0.2)))
    wrong: Any = "three"
    for name in ("days", "old"):
        with pytest.raises(MethodError, match=rf"WithOptions\({name}='three'\): expected a"):
            check_options(WithOptions(**{name: wrong}))
