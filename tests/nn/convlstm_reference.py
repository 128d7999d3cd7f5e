"""The nets of GANFilling written time step by time step, from tensors under the authors' names.

Slow and plain: every step runs through the whole net before the next one, each cell convolves its
input beside its state, states start as zeros. What `cubefill.nn.convlstm` gives must equal this.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from cubefill.nn.convlstm import GeneratorSizes
from tests.nn.formula import formula_weights, torch_fan_in

Tensors = Mapping[str, Tensor]
Fill = Callable[[str, tuple[int, ...]], Tensor]


class _Cell:
    """A cell and its state."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.hidden = weight, weight.shape[0] // 4
        self.h: Tensor | None = None
        self.c: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.h is None or self.c is None:
            self.h = self.c = x.new_zeros(x.shape[0], self.hidden, *x.shape[2:])
        z = F.conv2d(torch.cat([x, self.h], 1), self.weight, padding=1)
        i, f, o, g = z.split(self.hidden, dim=1)
        self.c = torch.sigmoid(f) * self.c + torch.sigmoid(i) * torch.tanh(g)
        self.h = torch.sigmoid(o) * torch.tanh(self.c)
        return self.h


def generate(w: Tensors, series: Tensor) -> Tensor:
    """The generator: `(batch, time, band, y, x)` to the same."""
    down = [_Cell(w[f"conv_lstm_e{n}.conv.weight"]) for n in range(1, 7)]
    up = [_Cell(w[f"conv_lstm_d{n}.conv.weight"]) for n in range(1, 8)]
    steps = []
    for x in series.unbind(1):
        e = F.conv2d(x, w["conv1.weight"], w["conv1.bias"], 2, 1)
        raw = [e]
        for n, cell in enumerate(down, 2):
            a = F.leaky_relu(cell(e), 0.2)
            e = F.conv2d(a, w[f"conv{n}.weight"], w[f"conv{n}.bias"], 2, 1)
            raw.append(e)
        d = raw.pop()
        for cell in up:
            d = F.interpolate(cell(F.relu(d)), scale_factor=2.0, mode="nearest")
            if raw:
                d = torch.cat([d, raw.pop()], 1)
        out = F.conv2d(d, w["conv_out.weight"], w["conv_out.bias"], 1, 1)
        steps.append(torch.tanh(out).clamp(0, 1))
    return torch.stack(steps, 1)


def judge(w: Tensors, series: Tensor) -> Tensor:
    """The discriminator, one sample after the other: `(batch, time, y', x')`."""
    return torch.cat([_judge_one(w, one[None]) for one in series])


def _judge_one(w: Tensors, series: Tensor) -> Tensor:
    cell4, cell5 = _Cell(w["conv4_lstm.conv.weight"]), _Cell(w["conv5_lstm.conv.weight"])

    def conv(x: Tensor, n: int, stride: int) -> Tensor:
        return F.conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"], stride, 1)

    def norm(x: Tensor, n: int) -> Tensor:
        return F.batch_norm(
            x, None, None, w[f"conv{n}_bn.weight"], w[f"conv{n}_bn.bias"], training=True
        )

    steps = []
    for x in series.unbind(1):
        a = F.leaky_relu(conv(x, 1, 2), 0.2)
        a = F.leaky_relu(norm(conv(a, 2, 2), 2), 0.2)
        a = F.leaky_relu(norm(conv(a, 3, 2), 3), 0.2)
        a = F.leaky_relu(norm(conv(cell4(a), 4, 1), 4), 0.2)
        steps.append(torch.sigmoid(F.leaky_relu(conv(cell5(a), 5, 1), 0.2))[:, 0])
    return torch.stack(steps, 1)


def by_formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the parity fixtures."""
    return torch.from_numpy(formula_weights(name, shape, torch_fan_in(shape)))


def discriminator_names(sizes: GeneratorSizes) -> dict[str, tuple[str, ...]]:
    """Name of a tensor in the authors' discriminator to ours; two of ours where a cell's is cut."""
    layers = {f"conv{i}": f"conv{i}" for i in range(1, 6)}
    layers |= {f"conv{i}_bn": f"norm{i}" for i in (2, 3, 4)}
    layers |= {"conv_fusion": "unused"} if sizes.unused else {}
    parts = ("weight", "bias")
    names = {f"{n}.{p}": (f"{own}.{p}",) for n, own in layers.items() for p in parts}
    cells = {4: ("cell4.inward", "cell4.recurrent"), 5: ("cell5.inward", "cell5.recurrent")}
    return names | {f"conv{i}_lstm.conv.weight": own for i, own in cells.items()}
