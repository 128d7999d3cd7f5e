"""The suite bites: each of these methods breaks one law and fails the tests of that law."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cubefill.cube import check, crs_of
from cubefill.methods.contract import Block, Filled, Flag, Needs
from cubefill.testing import MethodTests, synthetic_cube


def suite(method: Any) -> dict[str, str]:
    """Names of the tests that a method fails, each with what the test says."""
    case = type("Case", (MethodTests,), {"method": method})()
    failed = {}
    for name in (n for n in dir(case) if n.startswith("test_")):
        try:
            getattr(case, name)()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def fill(o: Any) -> Any:
    """Every gap takes the mean of its pixel, zero where nothing is clear."""
    seen = np.isfinite(o)
    total = np.where(seen, o, 0).sum(axis=0, dtype=np.float64)
    mean = total / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen, o, np.where(seen.any(axis=0), mean, np.nan)).astype(np.float32)


@dataclass(frozen=True)
class Good:
    flag = Flag.INTERPOLATED
    needs = Needs()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            out = fill(block.optical)
            if not block.same_axis:
                mean = out.mean(axis=0, dtype=np.float64).astype(np.float32)
                out = np.broadcast_to(mean, (len(block.out_time), *mean.shape)).copy()
            yield block.filled(out)


@dataclass(frozen=True)
class MixesPixels(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            (out,) = Good().fill([block])
            share = np.float32(block.valid.mean())
            yield Filled({n: a + share for n, a in out.bands.items()})


@dataclass(frozen=True)
class MixesBlocks(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        given = list(blocks)
        shift = float(np.mean([b.valid.mean() for b in given]))
        for block in given:
            (out,) = Good().fill([block])
            yield Filled({n: (a + np.float32(shift)) for n, a in out.bands.items()})


@dataclass(frozen=True)
class Random(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            (out,) = Good().fill([block])
            noise = np.random.default_rng().normal(0, 1e-3)
            yield Filled({n: a + np.float32(noise) for n, a in out.bands.items()})


@dataclass(frozen=True)
class ChangesClear(Good):
    keeps_clear = True

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            (out,) = Good().fill([block])
            flag = np.where(block.valid, Flag.OBSERVED, Flag.INTERPOLATED).astype(np.uint8)
            flag = flag if block.same_axis else np.ones(block.shape, np.uint8)
            flag[:, ~block.valid.any(axis=0)] = Flag.UNFILLABLE
            yield Filled({n: a * np.float32(1.0001) for n, a in out.bands.items()}, flag)


@dataclass(frozen=True)
class WritesInput(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            (out,) = Good().fill([block])
            for a in block.bands.values():
                a.flags.writeable = True
                a[...] = 0
            yield out


@dataclass(frozen=True)
class LeavesGaps(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            out = np.full((len(block.out_time), *block.optical.shape[1:]), np.nan, np.float32)
            yield block.filled(out)


@dataclass(frozen=True)
class Doubles(Good):
    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            (out,) = Good().fill([block])
            yield Filled({n: a.astype(np.float64) for n, a in out.bands.items()})


@dataclass(frozen=True)
class Heavy(Good):
    weights: bytes = bytes(200_000)


def test_a_good_method_passes() -> None:
    assert suite(Good()) == {}


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (MixesPixels(), "test_answer_does_not_depend_on_tiles"),
        (MixesPixels(), "test_answer_does_not_depend_on_where_the_pixel_stands"),
        (MixesBlocks(), "test_blocks_do_not_see_each_other"),
        (Random(), "test_same_answer_twice"),
        (ChangesClear(), "test_clear_observations_are_kept_and_gaps_filled"),
        (WritesInput(), "test_blocks_do_not_see_each_other"),
        (LeavesGaps(), "test_clear_observations_are_kept_and_gaps_filled"),
        (Doubles(), "test_clear_observations_are_kept_and_gaps_filled"),
        (Heavy(), "test_pickle_is_small"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_the_suite_bites(method: Any, test: str) -> None:
    assert test in suite(method)


def test_cube_is_one_and_is_the_same_for_the_same_seed() -> None:
    ds = synthetic_cube(sar=True, dem=True)
    check(ds)
    assert crs_of(ds) is not None
    assert ds.equals(synthetic_cube(sar=True, dem=True))
    assert not ds.equals(synthetic_cube(seed=1, sar=True, dem=True))
    assert ds["valid"].values.any(axis=0).all()
    assert 0.3 < 1 - float(ds["valid"].mean()) < 0.5
    assert all(ds[b].dtype == np.float32 for b in ("B02", "B08", "VV", "DEM"))
    assert float(ds["B08"].where(~ds["valid"]).mean()) > float(ds["B08"].where(ds["valid"]).mean())


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_cube_without_and_with_nothing_but_gaps(gap: float) -> None:
    assert (synthetic_cube(gap=gap)["valid"].values == (gap == 0)).all()
