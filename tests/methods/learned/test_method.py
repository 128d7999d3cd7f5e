import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill import engine
from cubefill.engine import job
from cubefill.errors import MethodError, StoreError
from cubefill.methods.contract import Block, Filled, Flag, Needs
from cubefill.methods.learned.method import TorchMethod, card_of
from cubefill.methods.windows import Span, Whole
from cubefill.nn import checkpoint
from cubefill.store import open_cube, write_cube
from tests.shared.strategies import cube
from tests.shared.torch_thread import nothing_loaded as nothing_loaded
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.torch_thread import watched

# ------------------------------------------------------------------ methods of the tests


@dataclass(frozen=True)
class DemoConfig:
    width: int = 4
    size: int = 8
    keep: int = 4


class DemoNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)  # (batch * time, channel, y, x)
        return self.last(self.first(flat).relu()).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Demo(TorchMethod):
    """Gaps get what two convolutions make of the clear values around them."""

    name: ClassVar[str] = "demo"
    Config: ClassVar[type] = DemoConfig

    @property
    def needs(self) -> Needs:
        return Needs(bands=("B04", "B08"), space=Span(self.config.size, self.config.keep))

    @classmethod
    def net(cls, config: DemoConfig) -> nn.Module:
        return DemoNet(config.width)

    def encode(self, block: Block) -> dict[str, NDArray[Any]]:
        bands = block.optical
        seen = np.isfinite(bands)
        return {"x": np.concatenate([np.where(seen, bands, np.float32(0)), seen], axis=1)}


@dataclass(frozen=True)
class Blending(Demo):
    """The same net on patches that overlap and blend."""

    @property
    def needs(self) -> Needs:
        return Needs(bands=("B04", "B08"), space=Span(8, 4, "linear"))


class SeriesNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 3, padding=1)
        self.last = nn.Conv1d(8, 1, 3, padding=1)

    def forward(self, series: Tensor) -> Tensor:
        return self.last(self.first(series).relu())[:, 0]


@dataclass(frozen=True)
class Series(TorchMethod):
    """Gaps of a pixel get what a net makes of its series."""

    name: ClassVar[str] = "series"
    Config: ClassVar[type] = DemoConfig
    rows: ClassVar[int] = 32

    needs = Needs(bands=("B08",), time=Whole())

    @classmethod
    def net(cls, config: DemoConfig) -> nn.Module:
        return SeriesNet()

    def encode(self, block: Block) -> dict[str, NDArray[Any]]:
        series = block.optical[:, 0].reshape(len(block.time), -1).T
        seen = np.isfinite(series)
        stacked = np.stack([np.where(seen, series, np.float32(0)), seen], axis=1)
        return {"series": stacked.astype(np.float32)}

    def target(self, truth: Block, gapped: Block) -> dict[str, NDArray[Any]]:
        found = super().target(truth, gapped)
        return {n: a[:, 0].reshape(len(a), -1).T for n, a in found.items()}

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        return Filled({"B08": np.ascontiguousarray(output.T).reshape(block.shape)})


def trained(folder: Path, kind: type[TorchMethod] = Demo, **options: Any) -> Any:
    torch.manual_seed(3)
    method = kind()
    net = method.net(method.config)
    checkpoint.save(folder, net.state_dict(), card_of(method))
    return kind(checkpoint=str(folder), **options)


def blocks(count: int, size: int = 8, dates: int = 3) -> list[Block]:
    rng = np.random.default_rng(0)
    time = np.arange("2023-01-01", dates, dtype="datetime64[D]").astype("datetime64[ns]")
    shape = (dates, size, size)
    return [
        Block(
            {b: rng.random(shape, np.float32) for b in ("B04", "B08")},
            rng.random(shape) > 0.4,
            time,
            time,
            origin=(0, 8 * i, 0),
        )
        for i in range(count)
    ]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    made: Demo = trained(tmp_path / "demo")
    return made


def equal(a: xr.Dataset, b: xr.Dataset) -> None:
    assert set(a.data_vars) == set(b.data_vars)
    for name in b.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


# ------------------------------------------------------------------ through the engine


@pytest.mark.parametrize("kind", [Demo, Blending, Series])
@pytest.mark.parametrize("tile", [5, 16])
def test_the_same_bits_for_any_tiles_and_chunks(
    tmp_path: Path, kind: type[TorchMethod], tile: int
) -> None:
    method, ds = trained(tmp_path / "net", kind), cube(size=(22, 17))
    whole = engine.gapfill(ds, method, tile=64).compute()
    equal(engine.gapfill(ds, method, tile=tile).compute(), whole)
    chunked = ds.chunk({"time": 3, "y": 7, "x": 5})
    equal(engine.gapfill(chunked, method, tile=tile).compute(scheduler="threads"), whole)


def test_clear_pixels_come_back_and_flags_are_set(demo: Demo) -> None:
    ds = cube(size=(22, 17))
    out = engine.gapfill(ds, demo).compute()
    clear = ds["valid"].values
    for band in ("B04", "B08"):
        np.testing.assert_array_equal(out[band].values[clear], ds[band].values[clear])
        assert np.isfinite(out[band].values).all()
    np.testing.assert_array_equal(
        out["fill_flag"].values, np.where(clear, Flag.OBSERVED, Flag.LEARNED)
    )
    assert f'"digest": "{demo.digest}"' in out.attrs["gapfill_parameters"]


def test_the_engine_gives_what_the_net_says_of_a_patch(demo: Demo) -> None:
    ds = cube(size=(8, 8))
    ds["valid"][:] = False
    ds["valid"][0, 0, 0] = True
    out = engine.gapfill(ds, demo).compute()
    values = np.stack([ds["B04"].values, ds["B08"].values], axis=1)
    seen = np.broadcast_to(ds["valid"].values[:, None], values.shape)
    x = np.concatenate([np.where(seen, values, 0), seen], axis=1).astype(np.float32)
    net = DemoNet(4)
    checkpoint.load_state(net, checkpoint.load(demo.checkpoint)[0])
    with torch.inference_mode():
        expected = net(torch.from_numpy(x)[None])[0].numpy()
    gaps = ~ds["valid"].values
    np.testing.assert_array_equal(out["B04"].values[gaps], expected[:, 0][gaps])
    np.testing.assert_array_equal(out["B08"].values[gaps], expected[:, 1][gaps])


def test_a_job_gives_the_bits_of_the_lazy_result(demo: Demo, tmp_path: Path) -> None:
    write_cube(cube(size=(40, 30)), tmp_path / "cube.zarr", progress=False)
    lazy = engine.gapfill(open_cube(tmp_path / "cube.zarr"), demo, tile=16)
    expected = write_cube(lazy, tmp_path / "lazy.zarr", progress=False)
    out = job.run(
        tmp_path / "cube.zarr", tmp_path / "job.zarr", demo, tile=32, workers=2, progress=False
    )
    for name in expected.data_vars:
        np.testing.assert_array_equal(out[name].values, expected[name].values)


def test_it_resolves_from_a_path_and_a_checkpoint(demo: Demo) -> None:
    ds = cube(size=(9, 9))
    by_name = engine.gapfill(ds, f"{__name__}:Demo", checkpoint=demo.checkpoint)
    equal(by_name.compute(), engine.gapfill(ds, demo).compute())


def test_it_pickles_small_and_works_after(demo: Demo) -> None:
    data = pickle.dumps(demo)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert again == demo
    for a, b in zip(again.fill(blocks(2)), demo.fill(blocks(2)), strict=True):
        np.testing.assert_array_equal(a.bands["B04"], b.bands["B04"])


# ------------------------------------------------------------------ what is refused


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import cubefill, cubefill.methods.learned
for name in ("utilise", "ssop_unet", "stpconv", "cnnrnn"):
    try:
        cubefill.methods.resolve(name)
    except cubefill.MethodError as error:
        print("torch" in str(error))
assert cubefill.methods.resolve("linear")
"""


def test_without_torch_a_deep_method_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * 4


def test_no_checkpoint_says_how_to_get_one() -> None:
    with pytest.raises(MethodError, match=r"'demo' needs a trained net.*cubefill train RECIPE"):
        Demo().fill([])


def test_a_checkpoint_of_another_method(tmp_path: Path) -> None:
    trained(tmp_path / "net", Series)
    with pytest.raises(MethodError, match=r"is a checkpoint of .*:Series: expected .*:Demo"):
        Demo(checkpoint=str(tmp_path / "net"))


def test_a_checkpoint_is_checked_once_and_not_for_every_tile(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch, checkpoint, "read_card", "check")
    iterate(demo, blocks(1))
    before = len(seen)
    assert before > 0
    for _ in range(3):
        iterate(demo, blocks(1))
    assert len(seen) == before


def test_an_absent_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No checkpoint at"):
        Demo(checkpoint=str(tmp_path / "nothing"))


def test_weights_that_changed_since_the_method_was_made(demo: Demo) -> None:
    other = DemoNet(4)
    checkpoint.save(demo.checkpoint, other.state_dict(), card_of(demo), overwrite=True)
    with pytest.raises(StoreError, match=r"Use resolve\(\.\.\.\) to make it again"):
        list(demo.fill(blocks(1)))


def test_weights_of_another_width(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "net", DemoNet(5).state_dict(), card_of(Demo()))
    with pytest.raises(
        MethodError, match=r"'first\.weight' of shape \(5, 4, 3, 3\): expected \(4, 4, 3, 3\)"
    ):
        list(Demo(checkpoint=str(tmp_path / "net")).fill(blocks(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "float16"}, "expected 'float32' or 'bfloat16'"), ({"batch": -1}, "batch=-1")],
)
def test_options_that_are_no_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        Demo(**options)


def test_a_net_that_gives_no_number_names_the_block(tmp_path: Path) -> None:
    net = DemoNet(4)
    nn.init.constant_(net.last.weight, float("inf"))
    checkpoint.save(tmp_path / "net", net.state_dict(), card_of(Demo()))
    with pytest.raises(MethodError, match=r"'demo' gave no number for .*row 0, column 0"):
        list(Demo(checkpoint=str(tmp_path / "net")).fill(blocks(2)))


@dataclass(frozen=True)
class Careless(Demo):
    """Hands NaN to its net."""

    def encode(self, block: Block) -> dict[str, NDArray[Any]]:
        return {"x": np.concatenate([block.optical, block.optical], axis=1)}


def test_an_encode_that_gives_nan_is_named(tmp_path: Path) -> None:
    method = trained(tmp_path / "net", Careless)
    with pytest.raises(
        MethodError, match=r"Careless\.encode gave values that are no number in 'x'"
    ):
        list(method.fill(blocks(1)))


def test_a_training_target_is_what_was_clear_and_hidden(demo: Demo) -> None:
    truth = blocks(1)[0]
    hidden = np.zeros_like(truth.valid)
    hidden[1] = True
    found = demo.target(truth, replace(truth, valid=truth.valid & ~hidden))
    assert found["target"].shape == found["where"].shape == (3, 2, 8, 8)
    np.testing.assert_array_equal(found["where"][:, 0], truth.valid & hidden)
    np.testing.assert_array_equal(found["target"][found["where"]], truth.optical[found["where"]])


def iterate(method: TorchMethod, given: Iterable[Block]) -> list[Filled]:
    return list(method.fill(given))


def test_no_block_no_answer(demo: Demo) -> None:
    assert iterate(demo, []) == []
