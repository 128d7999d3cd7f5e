"""U-TILISE's net against the original's output, and its laws."""

from pathlib import Path

import numpy as np
import torch

from cubefill.methods.learned.utilise import from_names
from cubefill.nn.attention import AttentionSizes, TemporalAttentionUNet, mix, positions
from tests.nn.formula import formula_field, formula_weights, shapes_of, torch_fan_in
from tests.shared.torch_thread import one_thread as one_thread


def count(sizes: AttentionSizes) -> int:
    with torch.device("meta"):
        net = TemporalAttentionUNet(sizes)
    return sum(p.numel() for p in net.parameters())


def test_equals_the_original(reference_folder: Path) -> None:
    folder = reference_folder / "parity"
    shapes = shapes_of(folder / "utilise_state_dict.txt")
    theirs = {
        n: torch.from_numpy(formula_weights(n, s, torch_fan_in(s))) for n, s in shapes.items()
    }
    net = TemporalAttentionUNet(AttentionSizes())
    net.load_state_dict(from_names(theirs))
    fixture = np.load(folder / "utilise.npz")
    x = torch.from_numpy(formula_field((1, 5, 4, 64, 64)))
    with torch.inference_mode():
        y = net.eval()(x, torch.from_numpy(fixture["positions"]))
    assert float(np.abs(y.numpy() - fixture["y"]).max()) < 1e-4


def test_parameters() -> None:
    deep = (64, 64, 64, 64, 128)
    assert count(AttentionSizes()) == 1_075_972
    assert count(AttentionSizes(bands=13, widths=deep)) == 1_357_133
    assert count(AttentionSizes(bands=13, sar=2, widths=deep)) == 1_358_285


def tiny() -> TemporalAttentionUNet:
    torch.manual_seed(0)
    net = TemporalAttentionUNet(AttentionSizes(widths=(8, 8, 16)))
    return net.eval()


def test_a_padded_series_gives_what_it_gives_alone() -> None:
    net, x = tiny(), torch.rand(1, 4, 4, 16, 16)
    days = torch.tensor([[10.0, 20.0, 25.0, 60.0]])
    padded = torch.cat([x, torch.rand(1, 2, 4, 16, 16)], dim=1)
    present = torch.tensor([[True] * 4 + [False] * 2])
    with torch.inference_mode():
        alone = net(x, days)
        among = net(padded, torch.cat([days, torch.zeros(1, 2)], dim=1), present)
    torch.testing.assert_close(among[:, :4], alone)
    assert float(among[:, 4:].abs().max()) == 0


def test_every_date_sees_every_other() -> None:
    net, x = tiny(), torch.rand(1, 3, 4, 16, 16, requires_grad=True)
    net(x, torch.tensor([[1.0, 11.0, 31.0]]))[:, 0].sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all())


def test_positions_by_their_definition() -> None:
    found = positions(torch.tensor([[0.0, 7.0]]), 4, 1000.0)[0, 1].numpy()
    expected = [np.sin(7), np.cos(7), np.sin(7 / 1000**0.5), np.cos(7 / 1000**0.5)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mixing_by_one_hot_weights_copies_dates() -> None:
    x = torch.rand(3, 4, 8, 8)
    order = torch.tensor([2, 0, 1])
    attention = torch.zeros(1, 2, 3, 3, 4, 4)
    attention[:, :, torch.arange(3), order] = 1
    torch.testing.assert_close(mix(x, attention), x[order])
