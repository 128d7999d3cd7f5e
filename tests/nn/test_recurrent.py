from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cubefill.methods.learned.cnnrnn import CnnRnn, ConfigCnnRnn
from cubefill.methods.learned.mowing import ConfigMowing, Mowing
from cubefill.nn.recurrent import (
    BiLstm,
    Lstm,
    SeriesNet,
    SeriesSizes,
    cut,
    joined,
    keras_names,
    starts,
)
from tests.shared.torch_thread import one_thread as one_thread


def test_parity_of_the_fusion_net(reference_folder: Path) -> None:
    net = CnnRnn.net(ConfigCnnRnn()).eval()
    path = reference_folder / "weights" / "sf_fusion_model_weights.h5"
    net.load_state_dict(CnnRnn.from_original(path))
    fixture = np.load(reference_folder / "parity" / "sf_original_weights.npz")
    with torch.inference_mode():
        y = net(torch.from_numpy(fixture["x"])).numpy()
    assert np.abs(y - fixture["y"]).max() < 1e-5


def test_parity_of_the_mowing_net(reference_folder: Path) -> None:
    """Unbounded cells amplify rounding: the fixture itself is 1.5e-5 off what float64 gives."""
    net = Mowing.net(ConfigMowing()).eval()
    net.load_state_dict(
        Mowing.from_original(reference_folder / "weights" / "mowing_model_weights.h5")
    )
    fixture = np.load(reference_folder / "parity" / "mowing_original_weights.npz")
    with torch.inference_mode():
        y = net(torch.from_numpy(fixture["x"])).numpy()
        exact = net.double()(torch.from_numpy(fixture["x"]).double()).numpy()
    off = np.abs(y - fixture["y"])
    assert np.mean(off < 1e-5) > 0.99
    assert off.max() < 4e-5
    theirs = np.abs(fixture["y"] - exact).max()
    assert 1e-5 < theirs < 2e-5
    assert np.abs(y - exact).max() < 2 * theirs


def test_parameter_counts() -> None:
    counts = {
        kind.name: sum(p.numel() for p in kind.net(kind.Config()).parameters())
        for kind in (CnnRnn, Mowing)
    }
    assert counts == {"cnnrnn": 82_881, "mowing": 581_153}


def test_tanh_lstm_is_torchs() -> None:
    ours, theirs = Lstm(4, 3, "tanh"), torch.nn.LSTM(4, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "weight_ih_l0": ours.inward,
            "weight_hh_l0": ours.recurrent,
            "bias_ih_l0": ours.bias,
            "bias_hh_l0": torch.zeros(12),
        }
    )
    x = torch.randn(5, 4)
    with torch.inference_mode():
        want, _ = theirs(x[:, None].expand(-1, 7, -1))
        torch.testing.assert_close(ours(x, 7), want)


def test_bidirectional_is_torchs() -> None:
    ours = BiLstm(4, 3, "tanh")
    theirs = torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    state: dict[str, torch.Tensor] = {}
    for cell, end in ((ours.ahead, ""), (ours.back, "_reverse")):
        state |= {
            f"weight_ih_l0{end}": cell.inward,
            f"weight_hh_l0{end}": cell.recurrent,
            f"bias_ih_l0{end}": cell.bias,
            f"bias_hh_l0{end}": torch.zeros(12),
        }
    theirs.load_state_dict(state)
    x = torch.randn(5, 4)
    with torch.inference_mode():
        want, (last, _) = theirs(x[:, None].expand(-1, 7, -1))
        torch.testing.assert_close(ours(x, 7), want)
        torch.testing.assert_close(ours.last(x, 7), torch.cat(list(last), dim=1))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("steps", [3, 8, 41])
def test_any_number_of_steps_and_both_kinds(steps: int, attention: bool) -> None:
    small: dict[str, Any] = {"convs": (2, 3), "branch": (4,), "units": 3, "head": (4,)}
    net = SeriesNet(SeriesSizes(inputs=2, steps=steps, attention=attention, **small))
    y = net(torch.rand(5, steps, 2))
    assert y.shape == (5, steps, 1)
    assert ((y >= 0) & (y <= 1)).all()
    y.sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None]
    assert not dead


def test_series_of_a_batch_do_not_mix() -> None:
    net = SeriesNet(replace(SeriesSizes(), inputs=2, steps=6)).eval()
    x = torch.rand(4, 6, 2)
    with torch.inference_mode():
        torch.testing.assert_close(net(x)[2:3], net(x[2:3]))


def test_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"28 steps of 8 series: expected 29 of 8"):
        SeriesNet(SeriesSizes())(torch.zeros(1, 28, 8))


def test_names_of_the_authors() -> None:
    names = keras_names(SeriesSizes(), paired=False, last="time_distributed_1")
    assert names["conv1d_15/kernel:0"] == "branches.7.conv2.weight"
    assert names["dense_7/bias:0"] == "branches.7.dense.0.bias"
    assert (
        names["bidirectional_1/backward_lstm_1/lstm_cell_5/recurrent_kernel:0"]
        == "decoder.back.recurrent"
    )
    assert sorted(names.values()) == sorted(SeriesNet(SeriesSizes()).state_dict())


# ------------------------------------------------------------------ series of any length


@pytest.mark.parametrize("steps", [4, 5, 8, 9, 12, 13, 31])
def test_windows_cover_and_join(steps: int) -> None:
    size = 5
    series: NDArray[np.float32] = np.random.default_rng(0).random(
        (3, max(steps, size), 2), np.float32
    )
    parts = cut(series, size, steps)
    assert parts.shape == (3 * len(starts(steps, size)), size, 2)
    back = joined(parts, size, steps)
    assert back.shape == (3, steps, 2)
    np.testing.assert_allclose(back, series[:, :steps], rtol=1e-6)


def test_windows_blend_without_a_step() -> None:
    size, steps = 9, 40
    count = len(starts(steps, size))
    levels = np.repeat(np.arange(count, dtype=np.float32), size).reshape(count, size)
    whole = joined(levels, size, steps)[0]
    assert np.abs(np.diff(whole)).max() < 0.5
