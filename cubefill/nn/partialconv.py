"""A U-Net of partial 3-D convolutions, which see clear values only (STpconv, Appel 2024).

A convolution weighs what it sees by how much of its window is clear. The net carries, beside the
features, where anything clear was seen.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Steps = tuple[int, int, int]
Ratio = Literal["window", "features"]


@dataclass(frozen=True)
class PartialConvSizes:
    """Widths of the net; the defaults are those of the weights that the author published."""

    filters: tuple[int, ...] = (16, 16)
    """Features of each level of the encoder."""
    kernels: tuple[int, ...] = (3, 3)
    """Edge of the kernel of each level of the encoder, odd."""
    strides: tuple[Steps, ...] = ((2, 2, 2), (2, 2, 2))
    """How much each level of the encoder shrinks time, y and x."""
    convs: int = 1
    """Convolutions of a level."""
    ratio: Ratio = "window"
    """What the clear share of a window is measured by. "window", as the author's code and weights:
    the voxels of the window, though its clear values are counted over all features, so that a
    convolution of n features weighs a clear window by 1/n. "features": voxels times features
    (Liu et al. 2018), so that a clear window weighs 1."""

    @property
    def multiple(self) -> Steps:
        """Lengths of time, y and x must be multiples of these."""
        t, y, x = (prod(s[i] for s in self.strides) for i in range(3))
        return t, y, x

    @property
    def reach(self) -> Steps:
        """Most steps along time, y and x from which an output can depend on an input."""
        t, y, x = (self._reach(i) for i in range(3))
        return t, y, x

    def _reach(self, axis: int) -> int:
        total, scale = 0, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            total += scale * self.convs * (kernel // 2 + 1)
            scale *= stride[axis]
        return total + scale - 1


class Seen(NamedTuple):
    """Features, and where anything clear was seen."""

    values: Tensor
    """`(batch, feature, time, y, x)`"""
    clear: tuple[tuple[Tensor, int], ...]
    """Masks `(batch, 1, time, y, x)` of 0 and 1, each with the number of features it is of."""

    @property
    def features(self) -> int:
        """Number of features."""
        return sum(n for _, n in self.clear)


class PartialConv3d(nn.Module):
    """A convolution over the clear values of a window (Liu et al. 2018), and its mask.

    With n clear values of k in a window the sum of the weighed clear values is multiplied by k/n;
    the bias is added, also where nothing is clear.

    Examples
    --------
    >>> conv = PartialConv3d(1, 2, 3)
    >>> clear = torch.ones(1, 1, 4, 4, 4)
    >>> conv(Seen(clear, ((clear, 1),))).values.shape
    torch.Size([1, 2, 4, 4, 4])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: Steps = (1, 1, 1),
        ratio: Ratio = "window",
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.full = kernel**3 * (inputs if ratio == "features" else 1)
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, seen: Seen) -> Seen:
        """Convolved features, not yet rectified, and the mask of windows with anything clear."""
        masked = seen.values * _spread(seen)
        y = F.conv3d(masked, self.weight, None, self.stride, self.kernel // 2)
        count = self._count(seen)
        some = count.clamp(max=1.0)
        y = y * (self.full / (count + 1e-8) * some) + self.bias[:, None, None, None]
        return Seen(y, ((some, self.outputs),))

    def _count(self, seen: Seen) -> Tensor:
        """Clear values of each window, over all features."""
        weight = seen.values.new_ones(1, 1, self.kernel, self.kernel, self.kernel)
        total = None
        for mask, features in seen.clear:
            n = features * F.conv3d(mask, weight, None, self.stride, self.kernel // 2)
            total = n if total is None else total + n
        return cast(Tensor, total)


def _spread(seen: Seen) -> Tensor:
    """The mask of every feature."""
    if len(seen.clear) == 1:
        return seen.clear[0][0]
    return torch.cat([m.expand(-1, n, -1, -1, -1) for m, n in seen.clear], dim=1)


class PartialUNet3d(nn.Module):
    """Every value of a series of images, from its clear values.

    Examples
    --------
    >>> net = PartialUNet3d(PartialConvSizes())
    >>> net(torch.zeros(1, 1, 4, 8, 8), torch.ones(1, 1, 4, 8, 8)).shape
    torch.Size([1, 1, 4, 8, 8])
    >>> sum(p.numel() for p in net.parameters())
    21678
    """

    def __init__(self, sizes: PartialConvSizes) -> None:
        super().__init__()
        self.sizes = sizes
        widths = (1, *sizes.filters)
        levels = list(zip(pairwise(widths), sizes.kernels, sizes.strides, strict=True))
        self.down = nn.ModuleList(
            _level(i, o, k, s, sizes, last_strided=True) for (i, o), k, s in levels
        )
        self.up = nn.ModuleList(
            _level(i + o, i, 3, (1, 1, 1), sizes, last_strided=False)
            for (i, o), _, _ in reversed(levels)
        )
        self.head = nn.Conv3d(1, 1, 1)

    def forward(self, x: Tensor, clear: Tensor) -> Tensor:
        """`(batch, 1, time, y, x)` from the same; `clear` is 1 where `x` is, else 0."""
        multiple = self.sizes.multiple
        if any(n % m for n, m in zip(x.shape[2:], multiple, strict=True)):
            raise ValueError(
                f"The net got {tuple(x.shape[2:])} time steps, rows and columns: expected "
                f"multiples of {multiple}."
            )
        seen = Seen(x, ((clear, 1),))
        skips = []
        for level in self.down:
            skips.append(seen)
            seen = _through(level, seen)
        for level, stride in zip(self.up, reversed(self.sizes.strides), strict=True):
            skip, up = skips.pop(), _repeated(seen, stride)
            joined = torch.cat([skip.values, up.values], dim=1)
            seen = _through(level, Seen(joined, (*skip.clear, *up.clear)))
        y: Tensor = self.head(seen.values)
        return y


def _level(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: Steps,
    sizes: PartialConvSizes,
    *,
    last_strided: bool,
) -> nn.ModuleList:
    """Convolutions of a level: the last one is strided, the first one changes the width."""
    convs = nn.ModuleList()
    for i in range(sizes.convs):
        step = stride if last_strided and i == sizes.convs - 1 else (1, 1, 1)
        convs.append(PartialConv3d(outputs if i else inputs, outputs, kernel, step, sizes.ratio))
    return convs


def _through(level: nn.Module, seen: Seen) -> Seen:
    for conv in cast(nn.ModuleList, level):
        values, clear = conv(seen)
        seen = Seen(F.leaky_relu(values, 0.1), clear)
    return seen


def _repeated(seen: Seen, stride: Steps) -> Seen:
    def repeat(a: Tensor) -> Tensor:
        for axis, n in zip((2, 3, 4), stride, strict=True):
            a = a.repeat_interleave(n, dim=axis) if n > 1 else a
        return a

    return Seen(repeat(seen.values), tuple((repeat(m), n) for m, n in seen.clear))


def reached(clear: Tensor, sizes: PartialConvSizes) -> Tensor:
    """1 where the net's answer depends on anything clear, else 0; `(batch, 1, time, y, x)`."""
    masks = [clear]
    for kernel, stride in zip(sizes.kernels, sizes.strides, strict=True):
        mask = masks[-1]
        for i in range(sizes.convs):
            step = stride if i == sizes.convs - 1 else (1, 1, 1)
            mask = F.max_pool3d(mask, kernel, step, kernel // 2)
        masks.append(mask)
    mask = masks.pop()
    for stride in reversed(sizes.strides):
        up = _repeated(Seen(mask, ()), stride).values
        mask = torch.maximum(masks.pop(), up)
        for _ in range(sizes.convs):
            mask = F.max_pool3d(mask, 3, 1, 1)
    return mask
