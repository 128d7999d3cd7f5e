"""STpconv: the author's weights on the author's blocks, and the laws of a method."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.reference import gapblocks
from cubefill.engine import gapfill
from cubefill.errors import CubefillError, CubefillWarning, MethodError, StoreError
from cubefill.methods.contract import Block, Flag
from cubefill.methods.learned.method import card_of
from cubefill.methods.learned.stpconv import ConfigSTpconv, STpconv, original_config
from cubefill.nn import checkpoint
from cubefill.nn.partialconv import PartialUNet3d
from cubefill.testing import MethodTests, synthetic_cube
from tests.nn.test_keras import keras_file
from tests.shared import decloud
from tests.shared.torch_thread import one_thread as one_thread

TINY = ConfigSTpconv(filters=(2, 3), size=20)
SHORT = ConfigSTpconv(filters=(2,), kernels=(3,), strides=((2, 2, 2),), size=8, offset=0.1, scale=2)


@cache
def made(config: ConfigSTpconv) -> STpconv:
    """The method with a checkpoint of first weights."""
    method: STpconv = decloud.made(STpconv, **vars(config))
    return method


@pytest.fixture(scope="module")
def published(reference_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> STpconv:
    """The method with the author's weights."""
    state = STpconv.from_original(reference_folder / "weights" / "stpconv_S5P_CO_model.h5")
    folder = tmp_path_factory.mktemp("stpconv") / "net"
    return STpconv(str(checkpoint.save(folder, state, card_of(STpconv(), licence="MIT"))))


class TestSTpconv(MethodTests):
    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(SHORT)


class TestSTpconvWithMargins(MethodTests):
    dates: ClassVar[int] = 7
    size: ClassVar[tuple[int, int]] = (28, 24)

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(replace(SHORT, size=16, ratio="features"))


# ------------------------------------------------------------------ the author's blocks


@pytest.mark.slow
def test_scores_on_the_authors_validation_blocks(data_folder: Path, published: STpconv) -> None:
    folder = data_folder / "stpconv" / "validation"
    pairs: list[NDArray[np.float64]] = []
    for name in gapblocks.names(folder):
        block = gapblocks.read(folder, name)
        (out,) = published.fill([gapblocks.to_blocks(block)[1]])
        pairs.append(np.stack([out.bands["CO"], block.truth], -1)[block.hidden].astype(float))
    pred, true = np.concatenate(pairs).T
    off = pred - true
    assert len(true) == 373_046
    assert round(float(np.abs(off).mean()), 6) == 0.002432
    assert round(float(np.sqrt((off**2).mean())), 6) == 0.004645
    assert round(1 - float((off**2).sum() / ((true - true.mean()) ** 2).sum()), 4) == 0.8182


def test_fill_gives_what_the_net_gives(data_folder: Path, published: STpconv) -> None:
    folder = data_folder / "stpconv" / "validation"
    block = gapblocks.read(folder, gapblocks.names(folder)[0])
    net = PartialUNet3d(ConfigSTpconv()).eval()
    net.load_state_dict(checkpoint.load(published.checkpoint)[0])
    x, clear = np.nan_to_num(block.given), block.valid.astype(np.float32)
    with torch.inference_mode():
        want = net(*(torch.from_numpy(a[None, None]) for a in (x, clear)))[0, 0].numpy()
    (out,) = published.fill([gapblocks.to_blocks(block)[1]])
    filled = out.bands["CO"]
    np.testing.assert_allclose(filled[np.isfinite(filled)], want[np.isfinite(filled)], atol=1e-7)
    assert np.isfinite(filled).mean() > 0.9


def test_a_cube_of_the_author_is_filled(data_folder: Path, published: STpconv) -> None:
    folder = data_folder / "stpconv" / "validation"
    block = gapblocks.read(folder, gapblocks.names(folder)[0])
    ds = gapblocks.to_cube(block).drop_vars("spatial_ref")
    out = gapfill(ds, published).compute()
    seen = out["fill_flag"].values == Flag.OBSERVED
    np.testing.assert_array_equal(seen, block.valid)
    np.testing.assert_array_equal(out["CO"].values[seen], block.given[seen])


# ------------------------------------------------------------------ inputs and answers


def block_of(shape: tuple[int, int, int], seed: int = 0, bands: tuple[str, ...] = ("A",)) -> Block:
    rng = np.random.default_rng(seed)
    time = np.datetime64("2020-01-01", "ns") + np.arange(shape[0]) * gapblocks.DAY
    data = {b: rng.random(shape).astype(np.float32) for b in bands}
    return Block(data, rng.random(shape) < 0.5, time, time)


def test_bands_go_by_themselves_and_dates_are_completed_with_gaps() -> None:
    block = block_of((5, 8, 8), bands=("A", "B"))
    block.bands["B"][2] = np.nan
    arrays = made(SHORT).encode(block)
    assert arrays["x"].shape == arrays["clear"].shape == (2, 1, 6, 8, 8)
    assert not arrays["clear"][:, 0, 5].any()
    assert not arrays["clear"][1, 0, 2].any()
    np.testing.assert_array_equal(arrays["clear"][0, 0, :5] > 0, block.valid)
    want = np.where(block.valid, (block.bands["A"] - np.float32(0.1)) / 2, 0)
    np.testing.assert_allclose(arrays["x"][0, 0, :5], want, atol=1e-7)


def test_long_series_go_in_parts_with_the_same_answer() -> None:
    method, block = made(SHORT), block_of((131, 8, 8))
    parts = [method.encode(part)["x"].shape for part in method.split(block)]
    assert parts == [(1, 1, 64, 8, 8)] * 3
    net = PartialUNet3d(SHORT).eval()
    net.load_state_dict(checkpoint.load(method.checkpoint)[0])
    x = np.where(block.valid, (block.bands["A"] - np.float32(0.1)) / 2, 0).astype(np.float32)
    whole = [np.concatenate([a, np.zeros((1, 8, 8))]) for a in (x, block.valid)]
    with torch.inference_mode():
        want = net(*(torch.from_numpy(a[None, None].astype(np.float32)) for a in whole))
    (out,) = method.fill([block])
    found = out.bands["A"]
    np.testing.assert_allclose(found, want[0, 0, :131].numpy() * 2 + 0.1, atol=1e-6)


def test_dates_to_give_are_steps_without_observation() -> None:
    block = block_of((4, 8, 8))
    between = block.time[1] + np.timedelta64(12, "h")
    asked = replace(block, out_time=np.array([block.time[0], between, block.time[3]]))
    (series,) = made(SHORT).split(asked)
    assert made(SHORT).encode(series)["clear"].shape[2] == 6
    (out,) = made(SHORT).fill([asked])
    assert out.bands["A"].shape == (3, 8, 8)
    assert np.isfinite(out.bands["A"]).all()


def test_nothing_clear_gives_nothing() -> None:
    block = block_of((40, 8, 8))
    block.valid[:] = False
    block.valid[0, 0, 0] = True
    (out,) = made(SHORT).fill([block])
    filled = np.isfinite(out.bands["A"])
    assert filled[0, 0, 0]
    assert not filled[30:].any()


def test_target_is_what_was_hidden() -> None:
    truth = block_of((5, 8, 8), bands=("A", "B"))
    gapped = replace(truth, valid=truth.valid & (np.arange(8) > 3))
    method = made(SHORT)
    found, given = method.target(truth, gapped), method.encode(gapped)
    assert found["target"].shape == found["where"].shape == given["x"].shape
    hidden = truth.valid & ~gapped.valid
    np.testing.assert_array_equal(found["where"][1, 0, :5] > 0, hidden)
    want = (truth.bands["B"][hidden] - np.float32(0.1)) / 2
    np.testing.assert_allclose(found["target"][1, 0, :5][hidden], want, atol=1e-7)


def test_margins_leave_no_seam() -> None:
    """What is kept of a patch does not depend on where the patch ends."""
    assert (ConfigSTpconv().keep, TINY.keep) == (104, 4)
    method = made(replace(SHORT, size=16))
    ds = synthetic_cube(6, (64, 64), ("B04",), gap=0.5)
    wide = gapfill(ds, method).compute()
    whole = gapfill(ds, made(replace(SHORT, size=64))).compute()
    np.testing.assert_allclose(wide["B04"], whole["B04"], atol=1e-6)


# ------------------------------------------------------------------ bad input


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(MethodError, match=r"size=18.*multiple of 4.*size=16"):
        ConfigSTpconv(size=18)
    with pytest.raises(MethodError, match=r"scale=0"):
        ConfigSTpconv(scale=0)


def test_weights_of_another_net(reference_folder: Path) -> None:
    path = reference_folder / "weights"
    with pytest.raises(MethodError, match=r"4 partial convolutions: expected 2"):
        STpconv.from_original(path / "stpconv_S5P_CO_model.h5", SHORT)
    with pytest.raises(MethodError, match=r"down.0.0.weight.*\(2, 1, 3, 3, 3\)"):
        STpconv.from_original(path / "stpconv_S5P_CO_model.h5", TINY)
    with pytest.raises(CubefillError, match=r"0 partial convolutions"):
        STpconv.from_original(path / "sf_fusion_model_weights.h5")


def test_layers_that_keras_numbered_later(tmp_path: Path) -> None:
    """A net built second in one session has other numbers in its layers' names."""
    rng = np.random.default_rng(0)
    layers = {
        "s_tpconv_11": {
            "s_tpconv_11/STpconv_kernel:0": rng.random((3, 3, 3, 3, 1)),
            "s_tpconv_11/bias:0": rng.random(1),
        },
        "s_tpconv_9": {
            "s_tpconv_9/STpconv_kernel:0": rng.random((3, 3, 3, 1, 2)),
            "s_tpconv_9/bias:0": rng.random(2),
        },
        "conv3d_4": {
            "conv3d_4/kernel:0": rng.random((1, 1, 1, 1, 1)),
            "conv3d_4/bias:0": rng.random(1),
        },
    }
    state = STpconv.from_original(keras_file(tmp_path / "net.h5", layers), SHORT)
    kernel = layers["s_tpconv_9"]["s_tpconv_9/STpconv_kernel:0"]
    got = state["down.0.0.weight"][1, 0].numpy()
    np.testing.assert_allclose(got, kernel[..., 0, 1].transpose(2, 0, 1), rtol=1e-6)
    PartialUNet3d(SHORT).load_state_dict(state)


def test_configuration_of_the_author(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    entries: dict[str, Any] = {
        "nx": 64, "ny": 64, "nt": 16, "n_conv_layers": 2, "inference_only": False,
        "net_name": "x", "kernel_sizes": [3, [5, 5, 5]], "n_filters": [16, 32],
        "learning_rate": 0.01, "n_conv_per_block": 2, "strides": [[2, 2, 1], [4, 4, 2]],
    }  # fmt: skip
    path.write_text(json.dumps(entries))
    wanted = ConfigSTpconv((16, 32), (3, 5), ((1, 2, 2), (2, 4, 4)), 2, size=64)
    assert original_config(path) == wanted
    several: list[Any] = [{"nx": 64}, {**entries, "kernel_sizes": [3, [3, 3, 5]]}, []]
    for broken in several:
        path.write_text(json.dumps(broken))
        with pytest.raises(StoreError, match="describes no STpconv net"):
            original_config(path)


def test_a_net_that_learned_another_quantity_warns_once_a_call(tmp_path: Path) -> None:
    assert STpconv.published == {"quantity": "carbon monoxide", "sensor": "Sentinel-5P"}
    method = made(SHORT)
    ds = synthetic_cube(6, (9, 10), ("B04",))
    own = card_of(method)
    assert (own.quantity, own.sensor) == ("reflectance", "Sentinel-2")
    state = method.net(SHORT).state_dict()
    checkpoint.save(tmp_path / "own", state, own)
    gapfill(ds, "stpconv", checkpoint=tmp_path / "own").compute()
    others: list[dict[str, Any]] = [{**STpconv.published}, {"quantity": "", "sensor": "Landsat 8"}]
    for n, entries in enumerate(others):
        folder = checkpoint.save(tmp_path / f"{n}", state, replace(own, **entries))
        with pytest.warns(CubefillWarning, match="and fills reflectance of Sentinel-2") as said:
            out = gapfill(ds.chunk(y=4), "stpconv", checkpoint=folder, tile=8).compute()
        assert len(said) == 1
        assert np.isfinite(out["B04"].values).any()
    nothing = checkpoint.save(tmp_path / "old", state, replace(own, quantity="", sensor=""))
    gapfill(ds, "stpconv", checkpoint=nothing).compute()
