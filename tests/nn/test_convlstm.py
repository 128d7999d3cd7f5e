from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cubefill.nn.convlstm import (
    ConvLSTM,
    Discriminator,
    Generator,
    GeneratorSizes,
    original_names,
)
from tests.nn import convlstm_reference as reference
from tests.nn.convlstm_reference import by_formula, discriminator_names
from tests.nn.formula import formula_field
from tests.shared.torch_thread import one_thread as one_thread

Names = dict[str, tuple[str, ...]]


def theirs(net: nn.Module, names: Names) -> dict[str, Tensor]:
    """The net's tensors under the authors' names."""
    ours = net.state_dict()
    return {n: torch.cat([ours[o] for o in own], 1) if len(own) > 1 else ours[own[0]]
            for n, own in names.items()}  # fmt: skip


def fill_by_formula(net: nn.Module, names: Names) -> dict[str, tuple[int, ...]]:
    """Every tensor filled in place, one at a time; the shapes under the authors' names."""
    ours = dict(net.named_parameters())
    shapes = {}
    with torch.no_grad():
        for name, own in names.items():
            parts = [ours.pop(o) for o in own]
            first = parts[0].shape
            inputs = [sum(p.shape[1] for p in parts)] if len(first) > 1 else []
            shapes[name] = (first[0], *inputs, *first[2:])
            whole = by_formula(name, shapes[name])
            pieces = whole.split([p.shape[1] for p in parts], 1) if len(parts) > 1 else [whole]
            for p, piece in zip(parts, pieces, strict=True):
                p.copy_(piece)
    assert not ours, f"no original name for {sorted(ours)}"
    return shapes


def field(shape: tuple[int, ...]) -> Tensor:
    """The input of a fixture, whose layout is (batch, band, y, x, time)."""
    return torch.from_numpy(formula_field(shape)).permute(0, 4, 1, 2, 3)


def listed(folder: Path, part: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the generator (0) or the discriminator (1) of the authors."""
    text = (folder / "ganfilling_state_dict.txt").read_text()
    found: list[dict[str, tuple[int, ...]]] = [{}, {}]
    where = 0
    for line in text.splitlines():
        where = 1 if "discriminator (never saved" in line else where
        if line and not line.startswith("#"):
            name, shape = line.split("\t")[:2]
            found[where][name] = tuple(int(n) for n in shape.strip("()").split(",") if n)
    return found[part]


# ------------------------------------------------------------------ cell


@pytest.mark.parametrize(
    ("size", "t", "b"), [(1, 3, 2), (2, 4, 1), (8, 2, 3), (9, 3, 2), (13, 1, 1)]
)
def test_cell_is_the_step_by_step_cell(size: int, t: int, b: int) -> None:
    torch.manual_seed(size)
    cell = ConvLSTM(5, 3).double()
    x = torch.randn(t, b, 5, size, size + (size > 1), dtype=torch.float64)
    slow = reference._Cell(torch.cat([cell.inward, cell.recurrent], 1))
    expected = torch.stack([slow(step) for step in x])
    y, state = cell(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.cell, slow.c, rtol=0, atol=1e-12)


def test_cell_goes_on_from_a_state() -> None:
    cell = ConvLSTM(2, 3)
    x = torch.randn(5, 1, 2, 4, 4)
    whole, _ = cell(x)
    first, state = cell(x[:2])
    rest, _ = cell(x[2:], state)
    torch.testing.assert_close(torch.cat([first, rest]), whole)


def test_cell_refuses_no_steps() -> None:
    with pytest.raises(ValueError, match="0 time steps"):
        ConvLSTM(2, 3)(torch.zeros(0, 1, 2, 4, 4))


def test_gradients_are_those_of_the_step_by_step_cell() -> None:
    for size in (1, 3, 10):
        cell = ConvLSTM(2, 3).double()
        x = torch.randn(4, 2, 2, size, size, dtype=torch.float64)
        fast = torch.autograd.grad(cell(x)[0].square().sum(), [cell.inward, cell.recurrent])
        slow = reference._Cell(torch.cat([cell.inward, cell.recurrent], 1))
        total = sum(slow(step).square().sum() for step in x)
        assert isinstance(total, Tensor)
        expected = torch.autograd.grad(total, [cell.inward, cell.recurrent])
        for a, b in zip(fast, expected, strict=True):
            torch.testing.assert_close(a, b)


# ------------------------------------------------------------------ nets, small


@pytest.mark.parametrize("channels_last", [False, True])
def test_generator_is_the_step_by_step_one(channels_last: bool) -> None:
    net = Generator(GeneratorSizes(width=8)).eval()
    fill_by_formula(net, original_names(net.sizes))
    slow = {n: t.double() for n, t in theirs(net, original_names(net.sizes)).items()}
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = field((2, 4, 128, 128, 3))
    with torch.inference_mode():
        y = net(x)
        expected = reference.generate(slow, x.double())
    assert float(expected.std()) > 0.05, "a test on a dead output proves nothing"
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-6)
    with torch.inference_mode():
        single = reference.generate({n: t.float() for n, t in slow.items()}, x)
    torch.testing.assert_close(y, single, rtol=0, atol=1e-5)


def test_generator_in_double_is_exact() -> None:
    net = Generator(GeneratorSizes(width=4)).eval()
    names = original_names(net.sizes)
    fill_by_formula(net, names)
    net.double()
    x = field((1, 4, 128, 256, 3)).double()
    with torch.inference_mode():
        expected = reference.generate(theirs(net, names), x)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


def test_blocks_of_steps_change_nothing() -> None:
    torch.manual_seed(0)
    net = Generator(GeneratorSizes(width=4)).eval()
    fill_by_formula(net, original_names(net.sizes))
    x = field((1, 4, 128, 128, 5))
    with torch.inference_mode():
        whole = net(x)
        net.steps = 2
        torch.testing.assert_close(net(x), whole, rtol=0, atol=1e-6)


def test_generator_looks_back_only() -> None:
    net = Generator(GeneratorSizes(width=4)).eval()
    fill_by_formula(net, original_names(net.sizes))
    x = field((1, 4, 128, 128, 4))
    other = x.clone()
    other[:, 3] = 1
    with torch.inference_mode():
        a, b = net(x), net(other)
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=1e-6)
    assert not torch.equal(a[:, 3], b[:, 3])


@pytest.mark.parametrize("size", [(96, 128), (128, 64), (200, 200)])
def test_generator_refuses_other_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 128"):
        Generator(GeneratorSizes(width=1))(torch.zeros(1, 1, 4, *size))


def test_unused_tensors_change_nothing_and_are_not_learnt() -> None:
    net = Generator(GeneratorSizes(width=2)).eval()
    x = field((1, 4, 128, 128, 2))
    with torch.inference_mode():
        before = net(x)
        net.unused.inward.zero_()
        assert torch.equal(net(x), before)
    idle = [n for n, p in net.named_parameters() if not p.requires_grad]
    assert idle == ["unused.inward", "unused.recurrent"]


def test_discriminator_is_the_step_by_step_one() -> None:
    net = Discriminator(GeneratorSizes(width=8)).eval()
    names = discriminator_names(net.sizes)
    fill_by_formula(net, names)
    x = field((3, 4, 64, 64, 4))
    with torch.inference_mode():
        y = net(x)
        expected = reference.judge(
            {n: t.double() for n, t in theirs(net, names).items()}, x.double()
        )
    assert y.shape == (3, 4, 6, 6)
    assert float(expected.std()) > 1e-4
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-6)


def test_discriminator_learns() -> None:
    net = Discriminator(GeneratorSizes(width=2))
    net(torch.rand(1, 4, 4, 64, 64)).mean().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


# ------------------------------------------------------------------ nets, full width


def test_parameter_counts() -> None:
    with torch.device("meta"):
        nets: list[Any] = [Generator(GeneratorSizes()), Discriminator(GeneratorSizes())]
        less = Generator(GeneratorSizes(unused=False))
    assert [count(n) for n in nets] == [181_746_628, 26_360_518]
    assert count(less) == 162_872_260


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_names_and_shapes_are_the_authors(reference_folder: Path) -> None:
    for part, (kind, table) in enumerate(
        [(Generator, original_names), (Discriminator, discriminator_names)]
    ):
        with torch.device("meta"):
            net = kind(GeneratorSizes())
        found = {n: tuple(t.shape) for n, t in theirs(net, table(GeneratorSizes())).items()}
        assert found == listed(reference_folder, part)
        assert {o for own in table(GeneratorSizes()).values() for o in own} == set(net.state_dict())


def test_discriminator_parity(reference_folder: Path) -> None:
    net = Discriminator(GeneratorSizes()).eval()
    fill_by_formula(net, discriminator_names(net.sizes))
    with torch.inference_mode():
        y = net(field((1, 4, 64, 64, 4))).permute(0, 2, 3, 1).numpy()
    expected = np.load(reference_folder / "parity" / "ganfilling_discriminator.npz")["y"]
    assert np.abs(y - expected).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_generator_parity(reference_folder: Path, channels_last: bool) -> None:
    sizes = GeneratorSizes(unused=False)
    with torch.device("meta"):
        net = Generator(sizes)
    net.to_empty(device="cpu").eval()
    fill_by_formula(net, original_names(sizes))
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        y = net(field((1, 4, 128, 128, 3))).permute(0, 2, 3, 4, 1).numpy()
    expected = np.load(reference_folder / "parity" / "ganfilling_generator.npz")["y"]
    assert np.abs(y - expected).max() <= 1e-5
