from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cubefill.nn.memory import pass_bytes, weight_bytes

A = 4 * 10 * 6
"""Bytes of a `(10, 6)` tensor."""


class Of(nn.Module):
    """A net that is one function."""

    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.work = work

    def forward(self, x: Tensor) -> Tensor:
        return self.work(x)


def held(work: Callable[[Tensor], Tensor]) -> int:
    return pass_bytes(Of(work), {"x": (10, 6)})


def halves(x: Tensor) -> Tensor:
    first, second = (x + 1).chunk(2)
    return first * second


def freed(x: Tensor) -> Tensor:
    for _ in range(5):
        x = x * 2
    return x


def kept(x: Tensor) -> Tensor:
    return torch.cat([x * i for i in range(5)])


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: x, A),
        (lambda x: x.T[:2].unflatten(1, (2, 5)), A),
        (lambda x: x + 1, 2 * A),
        (lambda x: (x + 1).add_(2).relu_(), 2 * A),
        (halves, 2 * A + A // 2),
        (freed, 3 * A),
        (kept, A + 5 * A + 5 * A),
    ],
)
def test_what_is_alive_at_once_is_counted(work: Callable[[Tensor], Tensor], expected: int) -> None:
    assert held(work) == expected


def test_a_convolution_lays_input_weights_and_output_out_anew() -> None:
    with torch.device("meta"):
        net = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    x, w, y = 4 * 3 * 100, 4 * 8 * 3 * 9, 4 * 8 * 100
    assert pass_bytes(net, {"input": (1, 3, 10, 10)}) == x + y + (x + w + y)


def test_more_samples_hold_more() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))
    one, four = (pass_bytes(net, {"input": (n, 6)}) for n in (1, 4))
    assert four == 4 * one


def test_weights_that_are_shared_count_once() -> None:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    apart = weight_bytes(nn.Sequential(first, second))
    second.weight = first.weight
    assert apart == 2 * 4 * (36 + 6)
    assert weight_bytes(nn.Sequential(first, second)) == apart - 4 * 36


def test_buffers_are_weights() -> None:
    norm = nn.BatchNorm1d(7)
    assert weight_bytes(norm) == 4 * 4 * 7 + 8


def test_a_net_that_reads_its_values_cannot_be_counted() -> None:
    def asks(x: Tensor) -> Tensor:
        return F.relu(x) if float(x.sum()) > 0 else x

    with pytest.raises((RuntimeError, NotImplementedError)):
        held(asks)
