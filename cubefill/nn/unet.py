"""Nets of the Decloud family: an encoder shared by all dates, features side by side, one decoder.

Cresson et al. (2022) name them SSOP (one date) and MSOP (several dates). Every convolution pads
as TensorFlow's "same" does: on even sizes a stride of 2 pads nothing before and one row and column
after, and a transposed convolution drops its last row and column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["s1s2", "s2", "s1"]

WIDTHS = (64, 128, 256, 512, 512, 512)
"""Features of the U-Net at 1, 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""


@dataclass(frozen=True)
class Inputs:
    """What a Decloud net is given, date by date."""

    dates: tuple[Kind, ...]
    """What is known of each date, in the order of the features."""
    bands: int = 4
    """Optical bands at full resolution."""
    bands_20m: int = 0
    """Optical bands at half resolution, in and out; 0 for none."""
    sar: int = 2
    """SAR polarisations."""
    dem: bool = False
    """Elevation at half resolution."""

    @property
    def optical_dates(self) -> tuple[int, ...]:
        """Positions of the dates that have an optical image."""
        return tuple(i for i, kind in enumerate(self.dates) if "s2" in kind)

    @property
    def sar_dates(self) -> tuple[int, ...]:
        """Positions of the dates that have a SAR image."""
        return tuple(i for i, kind in enumerate(self.dates) if "s1" in kind)

    def channels(self, kind: Kind) -> int:
        """Channels of one date's image at full resolution."""
        return (self.sar if "s1" in kind else 0) + (self.bands if "s2" in kind else 0)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": any odd amount goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, outputs, ceil(y / stride), ceil(x / stride))`."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, padding=kernel // 2)
        top, bottom = _same(x.shape[-2], kernel, stride)
        left, right = _same(x.shape[-1], kernel, stride)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, stride)


class SameDeconv(nn.ConvTranspose2d):
    """A transposed 3 x 3 convolution as TensorFlow's "same": `stride` times the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 2) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`(batch, outputs, stride * y, stride * x)`."""
        y = super().forward(x)
        stride = self.stride[0]
        return y[..., : stride * x.shape[-2], : stride * x.shape[-1]]


class Encoder(nn.Module):
    """Features of one date at every scale; the same weights serve all dates.

    A first layer per kind of date (SAR, optical or both); elevation and bands at half
    resolution join after the second layer.
    """
