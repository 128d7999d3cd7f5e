"""Convolutional LSTM nets: the generator and the discriminator of GANFilling.

González-Calabuig et al. (2025), ISPRS J. 220, 637-648. A series runs through the net layer by
layer: each convolution, and the input's half of every gate, sees all time steps at once; only the
half that reads the state of the step before runs step by step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cubefill.errors import MethodError

STEPS = 16
"""Time steps that run through a net at once; longer series go in blocks that hand on states."""

SMALL, FEW = 16, 256
"""Pixels of a map, and of all maps together where one has up to four times as many, up to which a
CPU convolves by one matrix product (measured: 1.3 to 5 times as fast)."""


class CellState(NamedTuple):
    """What a cell knows of the steps before: both `(batch, hidden, y, x)`."""

    output: Tensor
    cell: Tensor


class ConvLSTM(nn.Module):
    """Outputs of a convolutional LSTM (Shi et al. 2015) for every time step: 3 x 3, no bias.

    No gate looks at the cell. Gates are ordered input, forget, output, candidate.

    Examples
    --------
    >>> cell = ConvLSTM(4, 8)
    >>> y, state = cell(torch.zeros(5, 1, 4, 16, 16))
    >>> y.shape, state.cell.shape
    (torch.Size([5, 1, 8, 16, 16]), torch.Size([1, 8, 16, 16]))
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inward = nn.Parameter(torch.empty(4 * hidden, inputs, 3, 3))
        self.recurrent = nn.Parameter(torch.empty(4 * hidden, hidden, 3, 3))
        bound = (9 * (inputs + hidden)) ** -0.5
        for weight in (self.inward, self.recurrent):
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor, state: CellState | None = None) -> tuple[Tensor, CellState]:
        """`(time, batch, hidden, y, x)` and the last state, from `(time, batch, inputs, y, x)`.

        `state` is that of the step before the first one; None stands for zeros.
        """
        maps = x.flatten(0, 1)
        gates = _filter(self.inward, maps)(maps).unflatten(0, x.shape[:2])
        recur = _filter(self.recurrent, maps[: x.shape[1]])
        outputs = []
        for gate in gates:
            z = gate if state is None else recur(state.output).add_(gate)
            state = self._step(z, state)
            outputs.append(state.output)
        if state is None:
            raise MethodError("ConvLSTM got a series of 0 time steps: expected at least 1.")
        return torch.cat(outputs).unflatten(0, x.shape[:2]), state

    def _step(self, z: Tensor, state: CellState | None) -> CellState:
        i, f, o = torch.sigmoid(z[:, : 3 * self.hidden]).chunk(3, dim=1)
        new = i * torch.tanh(z[:, 3 * self.hidden :])
        cell = new if state is None else new.addcmul_(f, state.cell)
        return CellState(o * torch.tanh(cell), cell)


def _filter(weight: Tensor, like: Tensor) -> Callable[[Tensor], Tensor]:
    """A 3 x 3 convolution, padded by zeros, for maps as large as those of `like`.

    Where maps have few pixels and weights are many, a CPU spends its time laying weights out for
    the convolution, again at each call: a product with the weights as a matrix does not.
    """
    size = like.shape[-2:]
    small = size.numel() <= SMALL or (size.numel() <= 4 * SMALL and len(like) * size.numel() <= FEW)
    if like.device.type != "cpu" or not small:
        return lambda x: F.conv2d(x, weight, padding=1)
    if size.numel() == 1:
        centre = weight[:, :, 1, 1].contiguous()
        return lambda x: F.linear(x.flatten(1), centre)[:, :, None, None]
    matrix = weight.permute(0, 2, 3, 1).flatten(1)

    def product(x: Tensor) -> Tensor:
        pad = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        near = [pad[:, i : i + size[0], j : j + size[1]] for i in range(3) for j in range(3)]
        return F.linear(torch.cat(near, dim=3), matrix).permute(0, 3, 1, 2)

    return product


# ------------------------------------------------------------------ generator


@dataclass(frozen=True)
class GeneratorSizes:
    """Widths of both nets."""

    bands: int = 4
    """Optical bands, in and out."""
    width: int = 64
    """Features of the first layer; the deepest have eight times as many."""
    unused: bool = True
    """True holds the tensors that the authors' nets hold and no pass reads, 10 % of the weights."""

    @property
    def encoder(self) -> tuple[int, ...]:
        """Features of the seven levels of the encoder."""
        return tuple(self.width * n for n in (1, 2, 4, 8, 8, 8, 8))

    @property
    def decoder(self) -> tuple[tuple[int, int], ...]:
        """Inputs and features of the seven cells of the decoder."""
        out = [self.width * n for n in (8, 8, 8, 4, 2, 1, 1)]
        skips = self.encoder[-2::-1]
        return (
            (self.encoder[-1], out[0]),
            *((o + s, n) for o, s, n in zip(out, skips, out[1:], strict=False)),
        )


MULTIPLE = 128
"""Heights and widths that the generator takes are multiples of this."""


class Generator(nn.Module):
    """A series in 0-1 without gaps, from one with them; step by step, forwards in time only.

    Seven strided convolutions, with a cell after each but the last, down to 1/128 of the
    resolution; seven cells up again, each joined by the convolution of its scale.

    Examples
    --------
    >>> net = Generator(GeneratorSizes(width=1))
    >>> net(torch.zeros(1, 3, 4, 128, 128)).shape
    torch.Size([1, 3, 4, 128, 128])
    """

    def __init__(self, sizes: GeneratorSizes, steps: int = STEPS) -> None:
        super().__init__()
        self.sizes, self.steps = sizes, steps
        widths = sizes.encoder
        inputs = (sizes.bands, *widths[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, 2, 1) for i, o in zip(inputs, widths, strict=True)
        )
        self.down = nn.ModuleList(ConvLSTM(n, n) for n in widths[:-1])
        self.up = nn.ModuleList(ConvLSTM(i, o) for i, o in sizes.decoder)
        self.last = nn.Conv2d(sizes.width, sizes.bands, 3, 1, 1)
        if sizes.unused:
            self.unused = ConvLSTM(widths[-1], widths[-1]).requires_grad_(False)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, time, band, y, x)` from the same in 0-1, y and x multiples of 128."""
        if x.shape[-2] % MULTIPLE or x.shape[-1] % MULTIPLE:
            raise MethodError(
                f"The generator got {x.shape[-2]} x {x.shape[-1]} pixels: expected multiples of "
                f"{MULTIPLE}. Pass patch={MULTIPLE}."
            )
        states: list[CellState | None] = [None] * (len(self.down) + len(self.up))
        parts = [self._block(part, states) for part in x.transpose(0, 1).split(self.steps)]
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y.transpose(0, 1)

    def _block(self, x: Tensor, states: list[CellState | None]) -> Tensor:
        """`(time, batch, band, y, x)` of some time steps; `states` is brought up to their last."""
        at = iter(range(len(states)))
        skips = []
        for conv, cell in zip(self.convs, self.down, strict=False):
            x = _each(conv, x)
            skips.append(x)
            x = F.leaky_relu(_run(cell, x, states, at), 0.2)
        x = _each(self.convs[-1], x)
        for cell in self.up:
            x = _run(cell, F.relu(x), states, at)
            x = _each(_twice, x)
            x = torch.cat([x, skips.pop()], dim=2) if skips else x
        return torch.tanh(_each(self.last, x)).clamp(0, 1)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _each(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer applied to every time step by itself, all at once."""
    y = layer(x.flatten(0, 1))
    return y.unflatten(0, x.shape[:2])


def _run(cell: nn.Module, x: Tensor, states: list[CellState | None], at: Iterator[int]) -> Tensor:
    i = next(at)
    y: Tensor
    y, states[i] = cell(x, states[i])
    return y


def _initialise(net: nn.Module) -> None:
    """Convolutions as the authors start them; cells keep theirs."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------ discriminator


class Discriminator(nn.Module):
    """How real each patch of a short series looks, 0-1, at each time step.

    Every time step is normalised by itself, as the authors' batch norms do with one sample.

    Examples
    --------
    >>> net = Discriminator(GeneratorSizes(width=1))
    >>> net(torch.rand(2, 4, 4, 64, 64)).shape
    torch.Size([2, 4, 6, 6])
    """

    def __init__(self, sizes: GeneratorSizes) -> None:
        super().__init__()
        self.sizes, w = sizes, sizes.width
        self.conv1 = nn.Conv2d(sizes.bands, w, 4, 2, 1)
        self.conv2, self.norm2 = nn.Conv2d(w, 2 * w, 4, 2, 1), _norm(2 * w)
        self.conv3, self.norm3 = nn.Conv2d(2 * w, 4 * w, 4, 2, 1), _norm(4 * w)
        self.cell4 = ConvLSTM(4 * w, 4 * w)
        self.conv4, self.norm4 = nn.Conv2d(4 * w, 8 * w, 4, 1, 1), _norm(8 * w)
        self.cell5 = ConvLSTM(8 * w, 8 * w)
        self.conv5 = nn.Conv2d(8 * w, 1, 4, 1, 1)
        if sizes.unused:
            self.unused = nn.Conv2d(4, 1, 1).requires_grad_(False)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, time, y', x')` from `(batch, time, band, y, x)`; 64 pixels give 6."""
        x = x.transpose(0, 1)
        x = F.leaky_relu(_each(self.conv1, x), 0.2)
        x = F.leaky_relu(_each(self.norm2, _each(self.conv2, x)), 0.2)
        x = F.leaky_relu(_each(self.norm3, _each(self.conv3, x)), 0.2)
        x, _ = self.cell4(x)
        x = F.leaky_relu(_each(self.norm4, _each(self.conv4, x)), 0.2)
        x, _ = self.cell5(x)
        x = F.leaky_relu(_each(self.conv5, x), 0.2)
        return torch.sigmoid(x).squeeze(2).transpose(0, 1)


def _norm(features: int) -> nn.Module:
    return nn.InstanceNorm2d(features, affine=True)


# ------------------------------------------------------------------ the authors' names


def original_names(sizes: GeneratorSizes) -> dict[str, tuple[str, ...]]:
    """Name of a tensor in the authors' generator to ours; two of ours where a cell's is cut."""
    names: dict[str, tuple[str, ...]] = {}
    for i in range(7):
        names |= _layer(f"conv{i + 1}", f"convs.{i}")
        names |= _cell(f"conv_lstm_d{i + 1}", f"up.{i}")
    for i in range(6):
        names |= _cell(f"conv_lstm_e{i + 1}", f"down.{i}")
    if sizes.unused:
        names |= _cell("conv_lstm_e7", "unused")
    return names | _layer("conv_out", "last")


def _layer(theirs: str, ours: str) -> dict[str, tuple[str, ...]]:
    return {f"{theirs}.{n}": (f"{ours}.{n}",) for n in ("weight", "bias")}


def _cell(theirs: str, ours: str) -> dict[str, tuple[str, ...]]:
    return {f"{theirs}.conv.weight": (f"{ours}.inward", f"{ours}.recurrent")}
