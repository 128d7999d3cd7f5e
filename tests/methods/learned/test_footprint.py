import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cubefill.engine import planning
from cubefill.errors import MethodError, PlanError
from cubefill.methods.contract import Block, Scratch
from cubefill.methods.learned import footprint as _footprint
from cubefill.methods.learned.footprint import HEAP
from cubefill.methods.learned.time_windows import cut
from cubefill.methods.registry import resolve
from tests.methods.learned.test_method import Demo, DemoConfig, DemoNet, Series, blocks, trained
from tests.shared.strategies import cube


@pytest.fixture(autouse=True)
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_footprint, "passes_at_once", lambda: 1)


def conv(inputs: int, outputs: int, samples: int) -> tuple[int, int, int]:
    """Bytes of the input, weights and output of a 3 x 3 convolution of 8 x 8 pixels."""
    return 256 * samples * inputs, 4 * 9 * inputs * outputs, 256 * samples * outputs


def test_the_scratch_of_a_small_net_by_hand() -> None:
    found = Demo(device="cpu").scratch(blocks(1)[0])
    samples = 3
    x, w, hidden = conv(4, 4, samples)
    _, v, y = conv(4, 2, samples)
    first = x + hidden + (x + w + hidden)
    last = x + hidden + y + (hidden + v + y)
    weights = w + 4 * 4 + v + 4 * 2
    assert found == Scratch(weights, int(HEAP * max(first, last)), 1)


def test_a_batch_holds_as_many_activations() -> None:
    block = blocks(1)[0]
    one, four = (Demo(device="cpu", batch=n).scratch(block) for n in (1, 4))
    assert one.once == four.once
    assert 3 * one.each < four.each < 4 * one.each


def test_rows_go_in_groups_whatever_the_block() -> None:
    small, large = (replace(b, origin=(0, 0, 0)) for b in (*blocks(1), *blocks(1, size=32)))
    assert Series(device="cpu").scratch(small) == Series(device="cpu").scratch(large)
    assert (
        Series(device="cpu", batch=2).scratch(small).each > Series(device="cpu").scratch(small).each
    )


def test_a_net_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    class Counting(Demo):
        @classmethod
        def net(cls, config: DemoConfig) -> nn.Module:
            built.append(config.width)
            return DemoNet(config.width)

    method = Counting(device="cpu")
    assert method.scratch(blocks(1)[0]) == method.scratch(blocks(2)[1])
    method.configured(width=6).scratch(blocks(1)[0])
    assert built == [4, 6]


@dataclass(frozen=True)
class Windowed(Demo):
    """Cuts what it is given before the net sees it."""

    def split(self, block: Block) -> list[Block]:
        return [cut(block, 0, 2), cut(block, 2, 3)]


def test_what_counts_is_what_the_net_sees() -> None:
    whole, two = blocks(1)[0], blocks(1, dates=2)[0]
    assert Windowed(device="cpu").scratch(whole) == Demo(device="cpu").scratch(two)
    assert Windowed(device="cpu").scratch(whole) != Demo(device="cpu").scratch(whole)


@dataclass(frozen=True)
class Asking(Demo):
    """A net that the meta device cannot run."""

    @classmethod
    def net(cls, config: DemoConfig) -> nn.Module:
        class Net(DemoNet):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x * float(x.mean()))

        return Net(config.width)


def test_a_net_that_cannot_be_counted_is_planned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="cubefill"):
        assert Asking(device="cpu").scratch(blocks(1)[0]) == Scratch()
    assert "does not count the net of Asking" in caplog.text


# ------------------------------------------------------------------ in the plan


def test_a_plan_counts_weights_once_and_passes_in_turn(tmp_path: Path) -> None:
    method, ds = trained(tmp_path / "net", device="cpu"), cube(size=(64, 64))
    net = method.scratch(blocks(1, dates=7)[0])
    p = planning.plan(ds, method, tile=16, memory="4GB", workers=3)
    assert (p.workers, p.passes) == (3, 1)
    assert (p.bytes_once, p.bytes_pass) == (net.once, net.each)
    assert p.peak == 3 * p.bytes_tile + net.once + net.each
    assert "weights once, 1 x" in str(p)
    assert p.to_dict()["peak"] == p.peak


def test_workers_leave_room_for_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, ds = trained(tmp_path / "net", device="cpu"), cube(size=(64, 64))
    tile = planning.plan(ds, method, tile=16, memory="4GB").bytes_tile
    budget = 4 * tile

    def workers(**scratch: int) -> int:
        monkeypatch.setattr(Demo, "scratch", lambda self, block: Scratch(**scratch))
        return planning.plan(ds, method, tile=16, memory=budget, workers=4).workers

    assert workers() == 4
    assert workers(once=tile) == 3
    assert workers(each=tile, passes=1) == 3
    assert workers(each=tile, passes=4) == 2
    assert workers(once=tile, each=tile, passes=1) == 2


def test_a_net_larger_than_the_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = trained(tmp_path / "net", device="cpu")
    monkeypatch.setattr(Demo, "scratch", lambda self, block: Scratch(once=10**9))
    with pytest.raises(PlanError, match=r"needs 1\.0\d GB; the memory budget is 500 MB"):
        planning.plan(cube(), method, memory="500MB")


def test_no_checkpoint_is_refused_by_ready_and_not_by_the_count() -> None:
    assert Demo(device="cpu").scratch(blocks(1)[0]).once > 0
    with pytest.raises(MethodError, match="needs a trained net"):
        planning.plan(cube(), Demo(device="cpu"))


DEEP = ("ganfilling", "seq2seq", "stpconv", "utilise", "msop_unet", "ssop_mer", "ssop_unet")


@pytest.mark.parametrize("name", DEEP)
def test_every_net_of_images_can_be_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = resolve(name, device="cpu")
    monkeypatch.setattr(type(method), "ready", lambda self: None)
    bands = ("B02", "B03", "B04", "B08")
    ds = cube(dates=12, size=(40, 40), bands=bands)
    radar = np.full(ds["valid"].shape, -12, np.float32)
    ds["VV"] = ds["VH"] = (ds["valid"].dims, radar)
    ds["sar_valid"] = ds["valid"]
    p = planning.plan(ds, method, memory="20GB", workers=1)
    with torch.device("meta"):
        net = method.net(method.config)
    assert p.bytes_once == sum(4 * q.numel() for q in net.parameters())
    assert p.bytes_pass > 4 * 4 * method.needs.space.size**2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"),
    [("ganfilling", {"width": 16}), ("utilise", {"widths": (32, 32, 32, 64)})],
)
def test_the_count_is_what_a_process_takes(name: str, config: dict[str, Any]) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux to reset the peak of a process")
    command = [sys.executable, "-c", MEASURE, name, json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counted, taken = json.loads(done.stdout)
    assert counted == pytest.approx(taken, rel=0.3)


MEASURE = """
import json, sys
from dataclasses import replace
import numpy as np, torch
torch.set_num_threads(1)
from cubefill.methods.registry import resolve
from tests.methods.learned.test_method import blocks

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith(name))

name, config = sys.argv[1], json.loads(sys.argv[2])
method = resolve(name, device="cpu").configured(**config)
bands = method.needs.bands
block = blocks(1, size=128, dates=10)[0]
block = replace(block, bands={n: block.bands["B04"] for n in bands})
small = torch.rand(1, 4, 16, 16)
torch.nn.functional.conv2d(small, torch.rand(4, 4, 3, 3), padding=1)
given = {n: torch.from_numpy(a)[None] for n, a in method.encode(block).items()}
found = method.scratch(block)
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
net = method.net(method.config).eval().requires_grad_(False)
if method.channels_last:
    net.to(memory_format=torch.channels_last)
with torch.inference_mode():
    net(**given)
    net(**given)
inputs = sum(t.nbytes for t in given.values())
print(json.dumps([found.of(1), memory("VmHWM") - before + inputs]))
"""
