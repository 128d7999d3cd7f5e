"""A net of series: convolutions over each series, and two bidirectional LSTMs over all of them.

The form that Tsardanidis et al. (2024) gave to the fusion of Sentinel-1 and Sentinel-2 and to the
detection of mowing. Cells and outputs of their first LSTMs pass a ReLU where torch has a tanh.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SeriesSizes:
    """Widths of the net; the defaults are those of the fusion net."""

    inputs: int = 8
    """Series."""
    steps: int = 29
    """Time steps of a series, in and out."""
    convs: tuple[int, int] = (8, 16)
    """Features of the two convolutions of a series."""
    pool: int = 3
    """Steps that become one after the convolutions, by their maximum; 1 for all."""
    branch: tuple[int, ...] = (32,)
    """Features of the dense layers of a series."""
    units: int = 16
    """Units of each direction of an LSTM."""
    activations: tuple[str, str] = ("relu", "relu")
    """What cells and outputs of the two LSTMs pass: "relu" or "tanh"."""
    head: tuple[int, ...] = (32,)
    """Features of the dense layers of a step."""
    dropout: float = 0.0
    """Share of the features of a series that is dropped while training."""
    attention: bool = False
    """Attention over time, with LSTMs of one direction, in place of the bidirectional LSTMs."""


class Lstm(nn.Module):
    """Outputs of an LSTM for one input that stays the same at every step.

    Gates are ordered input, forget, candidate, output. The input's share of the gates is computed
    once.

    Examples
    --------
    >>> Lstm(4, 3, "relu")(torch.zeros(2, 4), 5).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, inputs: int, units: int, activation: str) -> None:
        super().__init__()
        self.units, self.activation = units, _ACTIVATIONS[activation]
        self.inward = nn.Parameter(torch.empty(4 * units, inputs))
        self.recurrent = nn.Parameter(torch.empty(4 * units, units))
        self.bias = nn.Parameter(torch.zeros(4 * units))
        nn.init.xavier_normal_(self.inward)
        nn.init.orthogonal_(self.recurrent)
        nn.init.ones_(self.bias[units : 2 * units])

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """`(batch, steps, units)` from `(batch, inputs)`."""
        return self.states(F.linear(x, self.inward, self.bias).expand(steps, -1, -1))

    def states(self, gates: Tensor) -> Tensor:
        """Outputs from the input's share of the gates `(steps, batch, 4 units)`."""
        h = c = gates.new_zeros(gates.shape[1], self.units)
        outputs = []
        for gate in gates:
            i, f, g, o = (gate + F.linear(h, self.recurrent)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * self.activation(g)
            h = torch.sigmoid(o) * self.activation(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}


class BiLstm(nn.Module):
    """Outputs of two LSTMs, one of which runs backwards in time, for one input that stays."""

    def __init__(self, inputs: int, units: int, activation: str) -> None:
        super().__init__()
        self.ahead = Lstm(inputs, units, activation)
        self.back = Lstm(inputs, units, activation)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """`(batch, steps, 2 units)` from `(batch, inputs)`."""
        return torch.cat([self.ahead(x, steps), self.back(x, steps).flip(1)], dim=2)

    def last(self, x: Tensor, steps: int) -> Tensor:
        """`(batch, 2 units)`: what each direction gives when it has seen every step."""
        return torch.cat([self.ahead(x, steps)[:, -1], self.back(x, steps)[:, -1]], dim=1)


class Branch(nn.Module):
    """Features of one series."""

    def __init__(self, sizes: SeriesSizes) -> None:
        super().__init__()
        a, b = sizes.convs
        self.pool = sizes.pool
        self.conv1, self.conv2 = nn.Conv1d(1, a, 3, padding=1), nn.Conv1d(a, b, 3, padding=1)
        self.dropout = nn.Dropout(sizes.dropout)
        widths = (sizes.steps // sizes.pool * b, *sizes.branch)
        self.dense = nn.ModuleList(map(nn.Linear, widths, widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, feature)` from `(batch, step)`."""
        x = F.relu(self.conv2(F.relu(self.conv1(x[:, None]))))
        x = F.max_pool1d(x, self.pool) if self.pool > 1 else x
        x = self.dropout(x).transpose(1, 2).flatten(1)
        for layer in self.dense:
            x = F.relu(layer(x))
        return x


class Attention(nn.Module):
    """One output a step from an LSTM's steps, weighed by scaled products with its last state.

    The authors give the form (an LSTM that returns its state, a softmax of products scaled by
    0.01 over time, an LSTM) and publish no weights for it.
    """

    def __init__(self, inputs: int, units: int, activations: tuple[str, str]) -> None:
        super().__init__()
        self.encoder = Lstm(inputs, units, activations[0])
        self.decoder = Lstm(2 * units, units, activations[1])

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """`(batch, steps, units)` from `(batch, inputs)`."""
        seen = self.encoder(x, steps)
        last = seen[:, -1]
        weight = torch.softmax(0.01 * (seen @ last[:, :, None]).squeeze(2), dim=1)
        context = (weight[:, None] @ seen).squeeze(1)
        y: Tensor = self.decoder(torch.cat([context, last], dim=1), steps)
        return y


class SeriesNet(nn.Module):
    """One number in 0-1 for each step, from several series.

    Examples
    --------
    >>> net = SeriesNet(SeriesSizes())
    >>> net(torch.zeros(2, 29, 8)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 29, 1]), 82881)
    """

    def __init__(self, sizes: SeriesSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.branches = nn.ModuleList(Branch(sizes) for _ in range(sizes.inputs))
        joined = sizes.inputs * sizes.branch[-1]
        units = sizes.units
        if sizes.attention:
            self.attention = Attention(joined, units, sizes.activations)
        else:
            self.encoder = BiLstm(joined, units, sizes.activations[0])
            self.decoder = BiLstm(2 * units, units, sizes.activations[1])
        widths = (units if sizes.attention else 2 * units, *sizes.head)
        self.dense = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
        self.last = nn.Linear(widths[-1], 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, step, 1)` from `(batch, step, series)`."""
        steps = self.sizes.steps
        if x.shape[1:] != (steps, self.sizes.inputs):
            raise ValueError(
                f"The net got {x.shape[1]} steps of {x.shape[2]} series: expected {steps} of "
                f"{self.sizes.inputs}."
            )
        y = torch.cat([b(x[:, :, i]) for i, b in enumerate(self.branches)], dim=1)
        if self.sizes.attention:
            y = self.attention(y, steps)
        else:
            y = self.decoder(self.encoder.last(y, steps), steps)
        for layer in self.dense:
            y = F.relu(layer(y))
        return torch.sigmoid(self.last(y))


def _initialise(net: nn.Module) -> None:
    """Convolutions and dense layers as the authors start them."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d | nn.Linear) and layer.bias is not None:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------ the authors' names


def keras_names(sizes: SeriesSizes, *, paired: bool, last: str) -> dict[str, str]:
    """Name of a weight in the authors' Keras files to ours.

    Parameters
    ----------
    sizes
        Of a net without attention.
    paired
        The dense layers of series v are `2v` and `2v + 1`, as its convolutions, not `v`.
    last
        Name of the layer that gives the answer.
    """
    names: dict[str, str] = {}
    for v in range(sizes.inputs):
        names |= _layer(_numbered("conv1d", 2 * v), f"branches.{v}.conv1")
        names |= _layer(_numbered("conv1d", 2 * v + 1), f"branches.{v}.conv2")
        for k in range(len(sizes.branch)):
            theirs = _numbered("dense", len(sizes.branch) * v + k if paired else v)
            names |= _layer(theirs, f"branches.{v}.dense.{k}")
    for n, ours in enumerate(("encoder", "decoder")):
        for d, (way, mine) in enumerate((("forward", "ahead"), ("backward", "back"))):
            theirs = (
                f"{_numbered('bidirectional', n)}/{_numbered(f'{way}_lstm', n)}"
                f"/lstm_cell_{3 * n + d + 1}"
            )
            names |= {
                f"{theirs}/kernel:0": f"{ours}.{mine}.inward",
                f"{theirs}/recurrent_kernel:0": f"{ours}.{mine}.recurrent",
                f"{theirs}/bias:0": f"{ours}.{mine}.bias",
            }
    for k in range(len(sizes.head)):
        names |= _layer(_numbered("time_distributed", k), f"dense.{k}")
    return names | _layer(last, "last")


def _numbered(name: str, i: int) -> str:
    return f"{name}_{i}" if i else name


def _layer(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}/kernel:0": f"{ours}.weight", f"{theirs}/bias:0": f"{ours}.bias"}


# ------------------------------------------------------------------ series of any length


def starts(steps: int, size: int) -> list[int]:
    """First steps of the windows of `size` that cover a series, each overlapping half the next.

    Examples
    --------
    >>> starts(29, 29), starts(40, 29), starts(10, 29)
    ([0], [0, 11], [0])
    """
    last = max(0, steps - size)
    return [*range(0, last, size - size // 2), last]


def cut(series: NDArray[np.float32], size: int, steps: int) -> NDArray[np.float32]:
    """Windows `(series * window, size, ...)` of series `(series, steps, ...)`, series by series.

    `series` has at least `size` steps; `steps` of them are real.
    """
    firsts = starts(steps, size)
    parts = np.stack([series[:, s : s + size] for s in firsts], axis=1)
    return parts.reshape(-1, *parts.shape[2:])


def joined(parts: NDArray[np.float32], size: int, steps: int) -> NDArray[np.float32]:
    """Series `(series, steps, ...)` from their windows, weighted by the distance to an edge."""
    firsts = starts(steps, size)
    parts = parts.reshape(-1, len(firsts), *parts.shape[1:])
    if len(firsts) == 1:
        return parts[:, 0, :steps]
    i = np.arange(size)
    ramp = (np.minimum(i, i[::-1]) + 1).astype(np.float32)
    ramp = ramp.reshape(-1, *(1,) * (parts.ndim - 3))
    total = np.zeros((len(parts), steps, *parts.shape[3:]), np.float32)
    weight = np.zeros((steps, *ramp.shape[1:]), np.float32)
    for k, s in enumerate(firsts):
        total[:, s : s + size] += parts[:, k] * ramp
        weight[s : s + size] += ramp
    return np.asarray(total / weight, np.float32)
