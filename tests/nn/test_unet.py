"""Decloud nets against the originals' outputs, and against TensorFlow's rules of padding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cubefill.errors import MethodError
from cubefill.nn.unet import (
    SMALL,
    DecloudNet,
    Kind,
    ResidualNet,
    SameConv,
    SameDeconv,
    Wiring,
    from_keras,
    initialise,
    layer_names,
    same_pad,
)
from tests.nn.formula import Float, formula_field, formula_weights, keras_fan_in, shapes_of
from tests.shared.torch_thread import one_thread as one_thread

BOTH: tuple[Kind, ...] = ("s1s2",)
THREE: tuple[Kind, ...] = ("s1s2", "s1s2", "s1s2")
OS1: tuple[Kind, ...] = ("s1s2", "s1", "s1s2")
SIX: tuple[Kind, ...] = ("s2",) * 6
TWELVE: tuple[Kind, ...] = ("s2",) * 6 + ("s1",) * 6


def small(dates: tuple[Kind, ...], bands_20m: int = 0, dem: bool = False) -> Wiring:
    """The small net."""
    return Wiring(dates, bands_20m=bands_20m, dem=dem, widths=SMALL, skips=False, rectified=True)


# ------------------------------------------------------------------ parity


def raw_inputs(names: list[str]) -> dict[str, torch.Tensor]:
    """Inputs of the fixtures as stored on disk, scaled as the nets want them."""
    found = {}
    for j, name in enumerate(sorted(names)):
        size, bands, top, scale = 64, 4, 10000.0, 1e-4
        if name == "dem":
            size, bands, top = 32, 1, 1500.0
        elif name.startswith("s1"):
            bands, top, scale = 2, 65535.0, 1 / 65535
        field = formula_field((1, size, size, bands)) * np.float32(top)
        rolled = np.roll(field, 17 * (j + 1), axis=1) * np.float32(scale)
        found[name] = torch.from_numpy(rolled.transpose(0, 3, 1, 2).copy())
    return found


def difference(folder: Path, name: str, net: DecloudNet | ResidualNet, slots: list[str]) -> float:
    """Largest difference to the original's output, with formula weights."""
    shapes = shapes_of(folder / "parity" / f"{name}_weights.txt")
    weights = {n: formula_weights(n, s, keras_fan_in(n, s)) for n, s in shapes.items()}
    net.load_state_dict(from_keras(net, weights))
    given = raw_inputs(
        [f"{s}_{t}" for s in ("s1", "s2") for t in slots] + (["dem"] if net.wiring.dem else [])
    )
    optical = torch.stack([given[f"s2_{t}"] for t in slots], dim=1)
    sar = torch.stack([given[f"s1_{t}"] for t in slots], dim=1)
    with torch.inference_mode():
        y = net.eval()(optical, sar, None, given.get("dem"))
    expected: Float = np.load(folder / "parity" / f"{name}.npz")["y"]
    return float(np.abs(y.numpy().transpose(0, 2, 3, 1) - expected).max())


def test_small_net_equals_the_original(reference_folder: Path) -> None:
    net = DecloudNet(small(THREE, dem=True))
    assert difference(reference_folder, "crga_os2_david_dem", net, ["tm1", "t", "tp1"]) < 1e-5


def test_one_date_unet_equals_the_original(reference_folder: Path) -> None:
    net = DecloudNet(Wiring(BOTH, dem=True))
    assert difference(reference_folder, "meraner_unet_dem", net, ["t"]) < 1e-5


def test_three_date_unet_equals_the_original(reference_folder: Path) -> None:
    net = DecloudNet(Wiring(THREE, dem=True))
    assert difference(reference_folder, "crga_os2_unet_dem", net, ["tm1", "t", "tp1"]) < 1e-5


def test_residual_net_equals_the_original(reference_folder: Path) -> None:
    assert difference(reference_folder, "meraner_original", ResidualNet(Wiring(BOTH)), ["t"]) < 1e-4


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("wiring", "count"),
    [
        (Wiring(BOTH), 16_467_204),
        (Wiring(BOTH, dem=True), 16_652_164),
        (Wiring(BOTH, bands_20m=6, dem=True, full_skip=False), 17_353_354),
        (Wiring(THREE), 29_013_764),
        (Wiring(THREE, dem=True), 29_272_452),
        (Wiring(THREE, bands_20m=6, dem=True), 30_496_138),
        (Wiring(OS1), 29_017_028),
        (Wiring(OS1, dem=True), 29_275_716),
        (Wiring(OS1, bands_20m=6, dem=True), 29_614_666),
        (Wiring(SIX), 47_830_404),
        (Wiring(TWELVE, dem=True, raw_dem=True, own_second=True), 85_556_420),
        (small(THREE), 1_343_748),
        (small(THREE, dem=True), 1_491_844),
        (small(THREE, bands_20m=6, dem=True), 1_941_386),
        (small(SIX), 2_225_284),
        (small(TWELVE, dem=True), 4_146_116),
    ],
)
def test_parameters(wiring: Wiring, count: int) -> None:
    with torch.device("meta"):
        net = DecloudNet(wiring)
    assert sum(p.numel() for p in net.parameters()) == count


def test_parameters_of_the_residual_net() -> None:
    with torch.device("meta"):
        net = ResidualNet(Wiring(BOTH))
    assert sum(p.numel() for p in net.parameters()) == 18_905_860


# ------------------------------------------------------------------ shapes and wiring


@pytest.mark.parametrize("dem", [False, True])
@pytest.mark.parametrize("bands_20m", [0, 6])
@pytest.mark.parametrize("dates", [BOTH, ("s2",), THREE, OS1, ("s2", "s2"), TWELVE])
def test_every_input_of_a_net_counts(dates: tuple[Kind, ...], bands_20m: int, dem: bool) -> None:
    torch.manual_seed(0)
    wiring = Wiring(
        dates,
        bands_20m=bands_20m,
        dem=dem,
        widths=(6, 6, 6, 6),
        raw_dem=dates == TWELVE,
        own_second=dates == TWELVE,
    )
    optical, radar = len(wiring.optical_dates), len(wiring.sar_dates)
    given = {"optical": torch.rand(2, optical, 4, 16, 24, requires_grad=True)}
    if radar:
        given["sar"] = torch.rand(2, radar, 2, 16, 24, requires_grad=True)
    if bands_20m:
        given["optical_20m"] = torch.rand(2, optical, 6, 8, 12, requires_grad=True)
    if dem:
        given["dem"] = torch.rand(2, 1, 8, 12, requires_grad=True)
    net = DecloudNet(wiring)
    y = net(**given)
    assert y.shape == (2, 4 + bands_20m, 16, 24)
    y.square().sum().backward()
    for name, x in given.items():
        assert x.grad is not None, f"{name} is not used"
        used = x.grad.abs().sum(dim=(0, -1, -2))
        assert bool((used > 0).all()), f"part of {name} is not used"
    assert all(p.grad is not None for p in net.parameters())
    assert set(layer_names(net)) >= {n.rsplit(".", 1)[0] for n in net.state_dict()}


def test_residual_net_with_everything() -> None:
    net = ResidualNet(Wiring(BOTH, bands_20m=6, dem=True), width=4, blocks=2)
    y = net(
        torch.rand(1, 1, 4, 8, 8),
        torch.rand(1, 1, 2, 8, 8),
        torch.rand(1, 1, 6, 4, 4),
        torch.rand(1, 1, 4, 4),
    )
    assert y.shape == (1, 10, 8, 8)


def test_residual_net_starts_from_its_input() -> None:
    net = ResidualNet(Wiring(("s2",)), width=4, blocks=1)
    for p in net.conv2.parameters():
        torch.nn.init.zeros_(p)
    x = torch.rand(1, 1, 4, 8, 8)
    torch.testing.assert_close(net(x), x[:, 0])


# ------------------------------------------------------------------ TensorFlow's "same"


def slow_same_conv(x: Float, kernel: Float, stride: int) -> Float:
    """`same` by its definition, pixel by pixel, one channel."""
    n, k = x.shape[0], kernel.shape[0]
    out = -(-n // stride)
    total = max((out - 1) * stride + k - n, 0)
    padded = np.zeros((n + total, n + total))
    padded[total // 2 : total // 2 + n, total // 2 : total // 2 + n] = x
    y = np.empty((out, out), np.float32)
    for i in range(out):
        for j in range(out):
            seen = padded[i * stride : i * stride + k, j * stride : j * stride + k]
            y[i, j] = (seen * kernel).sum()
    return y


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 1), (9, 3, 1)])
def test_convolution_is_padded_as_same(size: int, kernel: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=(n, n)).astype(np.float32) for n in (size, kernel))
    conv = SameConv(1, 1, kernel, stride)
    with torch.no_grad():
        conv.weight[0, 0] = torch.from_numpy(w)
        torch.nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        y = conv(torch.from_numpy(x)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(y, slow_same_conv(x, w, stride), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution_is_the_adjoint_of_the_convolution(stride: int) -> None:
    torch.manual_seed(1)
    conv, deconv = SameConv(3, 5, 3, stride), SameDeconv(5, 3, stride)
    with torch.no_grad():
        deconv.weight.copy_(conv.weight)
        torch.nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        torch.nn.init.zeros_(deconv.bias)  # type: ignore[arg-type]
    x, y = torch.randn(1, 3, 12, 8), torch.randn(1, 5, 12 // stride, 8 // stride)
    assert deconv(y).shape == x.shape
    torch.testing.assert_close((conv(x) * y).sum(), (x * deconv(y)).sum())


def test_padding_goes_right_and_below_on_even_sizes() -> None:
    assert same_pad(64, 3, 2) == (0, 1)
    assert same_pad(64, 5, 1) == (2, 2)


# ------------------------------------------------------------------ Keras weights


def keras_weights(net: DecloudNet | ResidualNet) -> dict[str, Float]:
    """Random weights as Keras would hand them over."""
    rng = np.random.default_rng(0)
    layers, found = layer_names(net), {}
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        shape = tuple(tensor.shape)
        shape = (shape[2], shape[3], shape[1], shape[0]) if len(shape) == 4 else shape
        key = f"{layers[module]}/{'kernel' if part == 'weight' else 'bias'}:0"
        found[key] = rng.normal(size=shape).astype(np.float32)
    return found


def test_kernels_are_transposed() -> None:
    net = DecloudNet(Wiring(BOTH, widths=(3, 4)))
    weights = keras_weights(net)
    state = from_keras(net, weights)
    first = weights["conv1_relu/kernel:0"]
    assert state["conv1.s1s2.weight"][2, 1, 0, 4] == first[0, 4, 1, 2]
    up = weights["deconv1_bn_relu/kernel:0"]
    assert state["up.0.weight"][3, 1, 0, 2] == up[0, 2, 1, 3]


def test_wrong_weights_say_what_is_wrong() -> None:
    net = DecloudNet(Wiring(BOTH, widths=(3, 4)))
    weights = keras_weights(net)
    with pytest.raises(MethodError, match=r"'conv1_dem_relu' are missing \(conv1_dem_relu/kernel"):
        from_keras(DecloudNet(Wiring(BOTH, widths=(3, 4), dem=True)), weights)
    with pytest.raises(MethodError, match=r"conv1_relu/kernel:0: expected shape \(5, 5, 4, 3\)"):
        from_keras(DecloudNet(Wiring(("s2",), widths=(3, 4))), weights)
    with pytest.raises(MethodError, match="extra/bias:0 have no place"):
        from_keras(net, {**weights, "extra/bias:0": np.zeros(3, np.float32)})


def test_first_weights_have_the_variance_of_keras() -> None:
    torch.manual_seed(0)
    net = DecloudNet(Wiring(BOTH, widths=(32, 32)))
    kernel = net.state_dict()["conv2.all.weight"]
    initialise(net, "lecun")
    assert kernel.var().item() == pytest.approx(1 / (9 * 32), rel=0.1)
    initialise(net, "glorot")
    assert kernel.var().item() == pytest.approx(2 / (9 * 64), rel=0.1)
    assert float(F.relu(kernel).max()) <= (6 / (9 * 64)) ** 0.5
