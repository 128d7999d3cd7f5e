import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cubefill.engine.memory import example, fitting, scratch_of
from cubefill.engine.request import request
from cubefill.engine.work import Work
from cubefill.methods.contract import Needs, Scratch
from cubefill.methods.windows import Near, Span, Whole
from tests.shared.strategies import Mean, cube


def work(needs: Needs, dates: int = 9, size: tuple[int, int] = (40, 30), **asked: Any) -> Work:
    class Asking(Mean):
        pass

    Asking.needs = needs
    ds = cube(dates=dates, size=size)
    if needs.sar:
        ds["VV"] = ds["VH"] = ds["B04"]
        ds["sar_valid"] = ds["valid"]
    if needs.dem:
        ds["DEM"] = ds["B04"][0]
    return request(ds, Asking(), **asked).work


@pytest.mark.parametrize(
    ("needs", "shape"),
    [
        (Needs(), (9, 16, 16)),
        (Needs(space=Whole()), (9, 40, 30)),
        (Needs(space=Span(8, 4)), (9, 8, 8)),
        (Needs(time=Span(5, 3), space=Span(8, 4)), (5, 8, 8)),
        (Needs(time=Span(1)), (9, 16, 16)),
        (Needs(space=Near(5)), (9, 26, 26)),
        (Needs(space=Near(9)), (9, 34, 30)),
    ],
)
def test_an_example_is_as_large_as_the_blocks(needs: Needs, shape: tuple[int, int, int]) -> None:
    block = example(work(needs), 16)
    assert block.valid.shape == shape == (len(block.time), *shape[1:])
    assert {n: a.shape for n, a in block.bands.items()} == {"B04": shape, "B08": shape}
    assert all(a.dtype == np.float32 for a in block.bands.values())
    assert block.shape == shape


def test_an_example_is_half_clear_and_differs_from_pixel_to_pixel() -> None:
    block = example(work(Needs(space=Span(24), sar=True, dem=True)), 16)
    assert 0.3 < block.valid.mean() < 0.7
    assert block.optical.shape == (9, 2, 24, 24)
    for a in (*block.bands.values(), *block.sar.values()):
        assert min(a.std(axis=i).min() for i in range(3)) > 0
    assert all(-20 <= a.min() < a.max() <= 0 for a in block.sar.values())
    assert set(block.sar) == {"VV", "VH"}
    assert block.dem is not None
    assert block.dem.shape == (24, 24)
    assert not np.array_equal(block.bands["B04"], block.bands["B08"])


def test_an_example_has_the_dates_that_are_asked_for() -> None:
    asked = work(Needs(), times="10D")
    block = example(asked, 16)
    np.testing.assert_array_equal(block.out_time, asked.axes.out_time)
    assert not block.same_axis
    assert example(work(Needs()), 16).same_axis


def test_an_example_takes_no_memory() -> None:
    large = replace(work(Needs(space=Whole())), shape=(5_000, 4_000))
    tracemalloc.start()
    block = example(large, 16)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert block.bands["B04"].nbytes > 700_000_000
    assert most < 10_000_000


def test_workers_wait_for_their_turn() -> None:
    scratch = Scratch(once=50, each=10, passes=2)
    assert [scratch.of(n) for n in (1, 2, 3, 9)] == [60, 70, 70, 70]
    assert Scratch().of(5) == 0


@pytest.mark.parametrize("budget", [0, 59, 99, 100, 140, 1000])
def test_as_many_workers_as_fit(budget: int) -> None:
    scratch = Scratch(once=50, each=10, passes=2)
    found = fitting(6, budget, 20, scratch)
    fits = [n for n in range(1, 7) if 20 * n + scratch.of(n) <= budget]
    assert found == max(fits, default=1)


def test_a_method_without_scratch_holds_none() -> None:
    assert scratch_of(work(Needs()), 16) == Scratch()


def test_a_method_says_what_it_holds_by_the_size_of_its_blocks() -> None:
    asked = work(Needs())

    class Buffered(Mean):
        def scratch(self, block: Any) -> Scratch:
            return Scratch(each=block.valid.size)

    asked = replace(asked, method=Buffered())
    assert [scratch_of(asked, n).each for n in (8, 16, 99)] == [9 * 64, 9 * 256, 9 * 1200]


def test_planning_a_classical_method_imports_no_torch() -> None:
    code = (
        "import sys, cubefill; from cubefill.testing import synthetic_cube; "
        "print(synthetic_cube().gapfill.plan('whittaker')); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "whittaker" in done.stdout
    assert "net" not in done.stdout
