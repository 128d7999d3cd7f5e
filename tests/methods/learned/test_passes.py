import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cubefill.errors import DeviceError, MethodError, PlanError
from cubefill.methods.contract import Block
from cubefill.methods.learned import passes as _pass
from tests.methods.learned.test_method import Demo, DemoNet, blocks, trained
from tests.shared.torch_thread import nothing_loaded as nothing_loaded
from tests.shared.torch_thread import one_thread as one_thread


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    made: Demo = trained(tmp_path / "demo")
    return made


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_give_the_same_answers_in_order(demo: Demo, batch: int) -> None:
    expected = [a.bands["B08"] for a in demo.fill(blocks(5))]
    found = [a.bands["B08"] for a in replace(demo, batch=batch).fill(blocks(5))]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blocks_of_other_shapes_go_in_a_batch_of_their_own(demo: Demo) -> None:
    mixed = [*blocks(2), *blocks(3, size=12), *blocks(1)]
    answers = list(replace(demo, batch=4).fill(mixed))
    assert [a.bands["B04"].shape[1] for a in answers] == [8, 8, 12, 12, 12, 8]


def test_blocks_are_taken_as_they_are_needed(demo: Demo) -> None:
    taken: list[int] = []

    def source() -> Iterator[Block]:
        for i, block in enumerate(blocks(6)):
            taken.append(i)
            yield block

    answers = demo.fill(source())
    next(answers)
    assert taken == [0]
    answers = replace(demo, batch=2).fill(source())
    next(answers)
    assert taken == [0, 0, 1]


def test_every_pass_has_the_same_size(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = spy(monkeypatch)
    list(replace(demo, batch=4).fill(blocks(6)))
    assert sizes == [4, 4]


def spy(monkeypatch: pytest.MonkeyPatch, limit: int = 10**9, words: str = "") -> list[int]:
    """Sizes of passes; a pass of more than `limit` samples runs out of memory."""
    sizes: list[int] = []
    forward = DemoNet.forward

    def watched(self: DemoNet, x: Tensor) -> Tensor:
        if len(x) > limit:
            raise RuntimeError(words) if words else torch.OutOfMemoryError("out of memory")
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(DemoNet, "forward", watched)
    return sizes


@pytest.mark.parametrize("words", ["", "DefaultCPUAllocator: can't allocate memory"])
def test_memory_that_runs_out_halves_the_batch(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    expected = [a.bands["B08"] for a in demo.fill(blocks(9))]
    sizes = spy(monkeypatch, limit=3, words=words)
    batched = replace(demo, batch=8)
    found = [a.bands["B08"] for a in batched.fill(blocks(9))]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert set(sizes) == {2}
    sizes.clear()
    list(batched.fill(blocks(2)))
    assert sizes == [2]


def test_one_block_too_many_says_so(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    spy(monkeypatch, limit=0)
    with pytest.raises(PlanError, match=r"One block needs more memory than cpu has"):
        list(replace(demo, batch=4).fill(blocks(4)))


def test_another_error_of_the_net_is_not_swallowed(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy(monkeypatch, limit=0, words="a lamp is out")
    with pytest.raises(RuntimeError, match="a lamp is out"):
        list(demo.fill(blocks(1)))


def test_passes_at_once_are_bounded(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    admission = threading.BoundedSemaphore(1)
    monkeypatch.setattr(_pass, "_admission", lambda _: admission)
    inside, most = [0], [0]
    forward = DemoNet.forward

    def watched(self: DemoNet, x: Tensor) -> Tensor:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        answer = forward(self, x)
        inside[0] -= 1
        return answer

    monkeypatch.setattr(DemoNet, "forward", watched)
    threads = [threading.Thread(target=lambda: list(demo.fill(blocks(5)))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert most == [1]


# ------------------------------------------------------------------ devices and precision


def test_bfloat16_is_refused_where_it_is_emulated(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: False)
    with pytest.raises(MethodError, match=r"AVX512-BF16 nor AMX.*precision='float32'"):
        replace(demo, precision="bfloat16").fill(blocks(1))
    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: True)
    exact = next(iter(demo.fill(blocks(1)))).bands["B08"]
    near = next(iter(replace(demo, precision="bfloat16").fill(blocks(1)))).bands["B08"]
    assert near.dtype == np.float32
    assert not np.array_equal(near, exact)
    np.testing.assert_allclose(near, exact, atol=0.02)


def test_devices() -> None:
    assert _pass.device_of("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="expected 'auto'"):
        _pass.device_of("abacus")
    if not torch.cuda.is_available():
        assert _pass.device_of("auto") == torch.device("cpu")
        with pytest.raises(DeviceError, match="no such accelerator"):
            _pass.device_of("cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_a_cpu_gives(demo: Demo) -> None:
    expected = [a.bands["B08"] for a in demo.fill(blocks(11))]
    found = [a.bands["B08"] for a in replace(demo, device="cuda").fill(blocks(11))]
    np.testing.assert_allclose(found, expected, atol=1e-5)
