"""Nets of the Decloud family: an encoder shared by all dates, features side by side, one decoder.

Every convolution pads as TensorFlow's "same" does: on even sizes a stride of 2 pads nothing
before and one row and column after, and a transposed convolution drops its last row and column.
No layer normalises.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cubefill.errors import MethodError
from cubefill.nn import keras

Kind = Literal["s1s2", "s2", "s1"]

WIDTHS = (64, 128, 256, 512, 512, 512)
"""Features of the U-Net at 1, 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""

SMALL = (64, 128, 256)
"""Features of the small net ("david") at 1, 1/2 and 1/4 of the resolution."""


@dataclass(frozen=True)
class Wiring:
    """What a Decloud net is given, date by date, and how it is put together."""

    dates: tuple[Kind, ...]
    """What is known of each date (SAR, optical, both), in the order of the features."""
    bands: int = 4
    """Optical bands at full resolution, in and out."""
    bands_20m: int = 0
    """Optical bands at half resolution, in and out; 0 for none."""
    sar: int = 2
    """SAR polarisations."""
    dem: bool = False
    """Elevation at half resolution."""
    widths: tuple[int, ...] = WIDTHS
    """Features at each scale of the encoder."""
    skips: bool = True
    """Features of the encoder join the decoder at their scale (U-Net)."""
    full_skip: bool = True
    """So do those at full resolution."""
    rectified: bool = False
    """The output passes a ReLU."""
    raw_dem: bool = False
    """Elevation joins as it is, without a convolution of its own."""
    own_second: bool = False
    """Each kind of date has its own second layer."""

    @property
    def optical_dates(self) -> tuple[int, ...]:
        """Positions of the dates that have an optical image."""
        return tuple(i for i, kind in enumerate(self.dates) if "s2" in kind)

    @property
    def sar_dates(self) -> tuple[int, ...]:
        """Positions of the dates that have a SAR image."""
        return tuple(i for i, kind in enumerate(self.dates) if "s1" in kind)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of date that occur, each once."""
        return tuple(dict.fromkeys(self.dates))

    @property
    def mixed_20m(self) -> bool:
        """True where a convolution mixes the half-resolution features of each optical date.

        Where a date has no optical image, all dates must come out equally wide (OS1).
        """
        return self.bands_20m > 0 and len(self.optical_dates) < len(self.dates)

    @property
    def dem_width(self) -> int:
        """Features that elevation adds to a date."""
        return 0 if not self.dem else 1 if self.raw_dem else self.widths[0]

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(2 ** (len(self.widths) - 1))

    def channels(self, kind: Kind) -> int:
        """Channels of one date's image at full resolution, SAR before optical."""
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
        (top, bottom), (left, right) = (same_pad(n, kernel, stride) for n in x.shape[-2:])
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, stride)


class SameDeconv(nn.ConvTranspose2d):
    """A transposed 3 x 3 convolution padded as TensorFlow's "same": `stride` times the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 2) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`(batch, outputs, stride * y, stride * x)`."""
        y, stride = super().forward(x, output_size), self.stride[0]
        return y[..., : stride * x.shape[-2], : stride * x.shape[-1]]


def same_pad(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after an axis of `size`, as TensorFlow's "same".

    Examples
    --------
    >>> same_pad(64, 3, 2), same_pad(63, 3, 2)
    ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class DecloudNet(nn.Module):
    """Reflectance of one date from images of one or several dates.

    Examples
    --------
    >>> net = DecloudNet(Wiring(("s1s2",), widths=(4, 4, 4)))
    >>> net(torch.zeros(1, 1, 4, 8, 8), torch.zeros(1, 1, 2, 8, 8)).shape
    torch.Size([1, 4, 8, 8])
    """

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        w = self.wiring = wiring
        first, half = w.widths[0], w.widths[1]
        seconds = w.kinds if w.own_second else ("all",)
        self.conv1 = nn.ModuleDict({k: SameConv(w.channels(k), first, 5) for k in w.kinds})
        self.conv2 = nn.ModuleDict({k: SameConv(first, half, 3, 2) for k in seconds})
        if w.dem and not w.raw_dem:
            self.conv1_dem = SameConv(1, first, 3)
        if w.bands_20m:
            self.conv1_20m = SameConv(w.bands_20m, first, 3)
            self.conv2_20m = SameConv(first + (half + w.dem_width if w.mixed_20m else 0), half, 3)
        scales = (self.half_width, *w.widths[2:])
        self.down = nn.ModuleList(SameConv(i, o, 3, 2) for i, o in pairwise(scales))
        self._decoder(len(w.dates), (first, *scales))

    @property
    def half_width(self) -> int:
        """Features of one date at half resolution, once all that is known of it has joined."""
        w = self.wiring
        if w.mixed_20m:
            return w.widths[1]
        return w.widths[1] + w.dem_width + (w.widths[1] if w.bands_20m else 0)

    def _decoder(self, dates: int, scales: tuple[int, ...]) -> None:
        w, x = self.wiring, dates * scales[-1]
        self.up = nn.ModuleList()
        for level in range(len(scales) - 2, -1, -1):
            outputs = w.widths[level]
            self.up.append(SameDeconv(x, outputs))
            if level == 0 and w.bands_20m:
                self.up_20m = SameDeconv(x, outputs, stride=1)
                self.head_20m = SameConv(outputs, w.bands_20m, 3)
            skip = w.skips and (level > 0 or w.full_skip)
            x = outputs + (dates * scales[level] if skip else 0)
        self.head = SameConv(x, w.bands, 5)

    def forward(
        self,
        optical: Tensor | None = None,
        sar: Tensor | None = None,
        optical_20m: Tensor | None = None,
        dem: Tensor | None = None,
    ) -> Tensor:
        """`(batch, band, y, x)`; bands at half resolution last, repeated to full resolution.

        `optical (batch, date, band, y, x)` and `optical_20m (batch, date, band, y/2, x/2)` hold
        the dates that have an optical image, `sar (batch, date, 2, y, x)` those that have a SAR
        image, `dem (batch, 1, y/2, x/2)` the elevation; y and x are multiples of
        `wiring.multiple`.
        """
        features = self._encode(optical, sar, optical_20m, dem)
        x = _side_by_side(features[-1])
        x_half = x
        for up, skip in zip(self.up, reversed(features[:-1]), strict=True):
            x_half, x = x, F.relu(up(x))
            full = skip is features[0]
            if self.wiring.skips and (not full or self.wiring.full_skip):
                x = torch.cat([_side_by_side(skip), x], dim=1)
        out = self._rectify(self.head(x))
        if not self.wiring.bands_20m:
            return out
        coarse = self._rectify(self.head_20m(F.relu(self.up_20m(x_half))))
        return torch.cat([out, F.interpolate(coarse, scale_factor=2.0, mode="nearest")], dim=1)

    def _rectify(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.wiring.rectified else x

    def _encode(
        self, optical: Tensor | None, sar: Tensor | None, fine: Tensor | None, dem: Tensor | None
    ) -> list[Tensor]:
        """Features `(batch, date, feature, y, x)` at every scale, the finest first."""
        w = self.wiring
        full, half = [], []
        height = None
        if w.dem and dem is not None:
            height = dem if w.raw_dem else F.relu(self.conv1_dem(dem))
        for i, kind in enumerate(w.dates):
            parts = []
            if "s1" in kind:
                parts.append(cast(Tensor, sar)[:, w.sar_dates.index(i)])
            if "s2" in kind:
                parts.append(cast(Tensor, optical)[:, w.optical_dates.index(i)])
            x = F.relu(self.conv1[kind](torch.cat(parts, dim=1)))
            full.append(x)
            x = F.relu(self.conv2[kind if w.own_second else "all"](x))
            coarse = None
            if w.bands_20m and "s2" in kind:
                coarse = cast(Tensor, fine)[:, w.optical_dates.index(i)]
            half.append(self._join(x, coarse, height))
        features = [torch.stack(full, dim=1), torch.stack(half, dim=1)]
        for down in self.down:
            x = features[-1]
            y = F.relu(down(x.flatten(0, 1)))
            features.append(y.reshape(*x.shape[:2], *y.shape[1:]))
        return features

    def _join(self, x: Tensor, coarse: Tensor | None, height: Tensor | None) -> Tensor:
        """Features of one date at half resolution, with its 20 m bands and the elevation."""
        parts, mixed = [x], self.wiring.mixed_20m
        if coarse is not None:
            y = F.relu(self.conv1_20m(coarse))
            parts.append(y if mixed else F.relu(self.conv2_20m(y)))
        if height is not None and (coarse is not None or not mixed):
            parts.append(height)
        y = torch.cat(parts, dim=1)
        return F.relu(self.conv2_20m(y)) if mixed and coarse is not None else y


class ResidualNet(nn.Module):
    """Reflectance of one date as its cloudy image plus what residual blocks correct.

    Meraner et al. (2020): a 3 x 3 convolution, `blocks` residual blocks scaled by 0.1 and a
    3 x 3 convolution back to the bands, at full resolution. Elevation and bands at half
    resolution are repeated to full resolution and join the input.
    """

    def __init__(self, wiring: Wiring, width: int = 256, blocks: int = 16) -> None:
        super().__init__()
        self.wiring = wiring
        bands = wiring.bands + wiring.bands_20m
        inputs = wiring.channels(wiring.dates[0]) + wiring.bands_20m + wiring.dem
        self.conv1 = SameConv(inputs, width, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList([SameConv(width, width, 3), SameConv(width, width, 3)])
            for _ in range(blocks)
        )
        self.conv2 = SameConv(width, bands, 3)

    def forward(
        self,
        optical: Tensor,
        sar: Tensor | None = None,
        optical_20m: Tensor | None = None,
        dem: Tensor | None = None,
    ) -> Tensor:
        """`(batch, band, y, x)` from inputs of the shapes of `DecloudNet.forward`."""
        cloudy = [optical[:, 0]]
        if optical_20m is not None:
            cloudy.append(_doubled(optical_20m[:, 0]))
        parts = [] if sar is None else [sar[:, 0]]
        parts += cloudy + ([] if dem is None else [_doubled(dem)])
        x = F.relu(self.conv1(torch.cat(parts, dim=1)))
        for block in self.blocks:
            a, b = cast(nn.ModuleList, block)
            x = F.relu(x + 0.1 * b(F.relu(a(x))))
        return torch.cat(cloudy, dim=1) + self.conv2(x)


def _side_by_side(x: Tensor) -> Tensor:
    return x.flatten(1, 2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


# ------------------------------------------------------------------ weights from Keras


def layer_names(net: DecloudNet | ResidualNet) -> dict[str, str]:
    """Name of a module of the net to the name of its Keras layer."""
    if isinstance(net, ResidualNet):
        pairs = {
            f"blocks.{b}.{c}": f"block{b}_conv{c + 1}_relu"
            for b in range(len(net.blocks))
            for c in range(2)
        }
        return {"conv1": "conv1_relu", "conv2": "conv2", **pairs}
    w, deep = net.wiring, len(net.up)
    found = {f"conv1.{k}": _stem(k, w) for k in w.kinds}
    found |= {f"conv2.{k}": f"conv2_{k}_relu" for k in w.kinds} if w.own_second else {}
    found |= {"conv2.all": "conv2_bn_relu", "conv1_dem": "conv1_dem_relu"}
    found |= {"conv1_20m": "conv1_20m_relu", "conv2_20m": "conv2_20m_bn_relu"}
    found |= {f"down.{i}": f"conv{i + 3}_bn_relu" for i in range(len(net.down))}
    found |= {f"up.{i}": f"deconv{i + 1}_bn_relu" for i in range(deep)}
    found |= {"up_20m": f"deconv{deep}_20m_bn_relu"}
    return found | {"head": "s2_estim", "head_20m": "s2_20m_estim"}


def _stem(kind: str, w: Wiring) -> str:
    return "conv1_relu" if len(w.kinds) == 1 else f"conv1_{kind}_relu"


def from_keras(
    net: DecloudNet | ResidualNet, weights: Mapping[str, NDArray[Any]]
) -> dict[str, Tensor]:
    """The state of a net from Keras tensors named `layer/kernel:0` and `layer/bias:0`.

    Raises
    ------
    MethodError
        A tensor is missing, of another shape, or left over; named as Keras names it.
    """
    layers = layer_names(net)
    state: dict[str, Tensor] = {}
    used = set()
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        key = f"{layers[module]}/{'kernel' if part == 'weight' else 'bias'}:0"
        if key not in weights:
            raise MethodError(
                f"Weights of {layers[module]!r} are missing ({key}): expected the layers "
                f"{', '.join(_layers(net, layers))}. {_CONFIG}"
            )
        values = keras.bias(weights[key]) if part == "bias" else keras.kernel(weights[key])
        if values.shape != tensor.shape:
            wanted = (
                tuple(tensor.movedim((0, 1), (-1, -2)).shape) if tensor.ndim > 1 else tensor.shape
            )
            raise MethodError(
                f"{key}: expected shape {tuple(wanted)}, got {np.shape(weights[key])}. {_CONFIG}"
            )
        state[name] = values
        used.add(key)
    left = sorted(set(weights) - used)
    if left:
        raise MethodError(f"Weights {', '.join(left)} have no place in the net. {_CONFIG}")
    return state


_CONFIG = "Pass config=Config(sar=..., dem=..., bands_20m=..., layout=...) as the net was trained."


def _layers(net: nn.Module, layers: Mapping[str, str]) -> list[str]:
    modules = (n.rsplit(".", 1)[0] for n in net.state_dict())
    return list(dict.fromkeys(layers[m] for m in modules))


def initialise(net: nn.Module, rule: Literal["glorot", "lecun"]) -> nn.Module:
    """The net with fresh weights as Keras draws them, biases 0.

    `glorot` is uniform with variance 2 / (fan_in + fan_out); `lecun` ("VarianceScaling") a
    normal cut at two standard deviations with variance 1 / fan_in.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if rule == "glorot":
                nn.init.xavier_uniform_(module.weight)
            else:
                std = 1 / math.sqrt(module.in_channels * module.weight[0, 0].numel())
                std /= 0.87962566103423978
                nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
