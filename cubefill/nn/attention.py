"""A U-Net of single dates with attention over time at its bottom (U-TILISE, Stucker et al. 2023).

Dates are encoded one by one; at 1/8 of the resolution every pixel attends over all dates, and the
same attention, brought to each scale, mixes the features that skip to the decoder.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REACH = 0.25
"""Reflectance that an answer may differ from its prior by."""
UNIT = 0.02
"""Reflectance that the last layer's 1 stands for, where a residual is small."""
DATES_AT_ONCE = 4
"""Dates mixed at once where no gradient is asked for, which bounds what is held."""


@dataclass(frozen=True)
class AttentionSizes:
    """Widths of the net."""

    bands: int = 4
    """Optical bands, in and out."""
    sar: int = 0
    """SAR polarisations that join the input."""
    features: int = 0
    """Inputs in place of the bands, of a net that gives a residual; 0 for one that gives bands."""
    widths: tuple[int, ...] = (64, 64, 64, 128)
    """Features at 1, 1/2, 1/4 ... of the resolution."""
    heads: int = 4
    """Heads of the attention."""
    key: int = 4
    """Width of a query and of a key of one head."""
    period: float = 1000.0
    """Longest period of the position code, in units of the positions."""
    dropout: float = 0.1
    """Share of features dropped while training."""

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(2 ** (len(self.widths) - 1))


class TemporalAttentionUNet(nn.Module):
    """All dates of a series, each from all of them.

    Examples
    --------
    >>> net = TemporalAttentionUNet(AttentionSizes(widths=(8, 8)))
    >>> net(torch.zeros(1, 3, 4, 8, 8), torch.tensor([[1.0, 6.0, 11.0]])).shape
    torch.Size([1, 3, 4, 8, 8])
    """

    def __init__(self, sizes: AttentionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        w = sizes.widths
        inputs = (sizes.features or sizes.bands) + sizes.sar
        self.first = nn.ModuleList([conv3(inputs, w[0]), conv3(w[0], w[0])])
        self.down = nn.ModuleList(Down(i, o) for i, o in pairwise(w))
        self.attention = TemporalAttention(w[-1], sizes)
        self.up = nn.ModuleList(Up(i, o, sizes.heads) for i, o in pairwise(w[::-1]))
        self.last = nn.ModuleList([conv3(w[0], w[0]), conv3(w[0], sizes.bands)])
        self.straight = nn.Conv2d(inputs, sizes.bands, 1) if sizes.features else None

    def forward(
        self, x: Tensor, days: Tensor, present: Tensor | None = None, prior: Tensor | None = None
    ) -> Tensor:
        """`(batch, date, band, y, x)` in 0-1 from a series of the same dates.

        Gaps of `x` are 1. `days (batch, date)` is the day of the year of each date;
        `present (batch, date)` is False for dates that only pad the series, which come out 0.
        With `prior (batch, date, band, y, x)` the net gives the prior and what it differs by, at
        most `REACH`; a date's own features then join those mixed over time, which are its own at
        full resolution, and a linear map of the input joins the answer.
        """
        shape = x.shape[:2]
        y = x.flatten(0, 1)
        for conv in self.first:
            y = F.relu(conv(y))
        features = [y]
        for down in self.down:
            features.append(down(features[-1]))
        bottom = features.pop()
        y, attention = self.attention(bottom.view(*shape, *bottom.shape[1:]), days, present)
        y = y.flatten(0, 1)
        for up in self.up:
            own = features.pop()
            if prior is None:
                y = up(y, own, attention)
            else:
                y = own + up(y, own, attention if features else None)
        y = self.last[1](F.relu(self.last[0](y)))
        if self.straight is not None:
            y = y + self.straight(x.flatten(0, 1))
        y = y.view(*shape, -1, *x.shape[-2:])
        y = torch.sigmoid(y) if prior is None else prior + REACH * torch.tanh(y * (UNIT / REACH))
        return y if present is None else y * present[:, :, None, None, None]


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3 x 3 convolution that reflects at the border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


class Down(nn.Module):
    """Half the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, inputs, 4, 2, padding=1, padding_mode="reflect")
        self.conv1, self.conv2 = conv3(inputs, outputs), conv3(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, outputs, y / 2, x / 2)`."""
        x = F.relu(self.conv1(F.relu(self.down(x))))
        return x + F.relu(self.conv2(x))


class Up(nn.Module):
    """Twice the resolution, joined by the features that skip, mixed over time."""

    def __init__(self, inputs: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.skip = nn.Conv2d(outputs, outputs, 1)
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.conv1, self.conv2 = conv3(2 * outputs, outputs), conv3(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor, attention: Tensor | None) -> Tensor:
        """`(batch * date, outputs, 2 y, 2 x)`; without `attention` dates are not mixed."""
        mixed = F.relu(self.skip(skip if attention is None else mix(skip, attention)))
        x = F.relu(self.conv1(torch.cat([F.relu(self.up(x)), mixed], dim=1)))
        return x + F.relu(self.conv2(x))


def mix(x: Tensor, attention: Tensor) -> Tensor:
    """Features weighted over time, head by head, by an attention of a coarser scale.

    `x (batch * date, feature, y, x)`, `attention (batch, head, date, date, y', x')`: for each
    date that is asked for (first), the weight of each date (second), brought to the scale of `x`
    bilinearly.
    """
    b, heads, t = attention.shape[:3]
    size, width = x.shape[-2:], x.shape[1] // heads
    groups = x.reshape(b, t, heads, width, -1).permute(0, 2, 4, 1, 3).reshape(-1, t, width)
    at_once, parts = t if x.requires_grad else DATES_AT_ONCE, []
    for i in range(0, t, at_once):
        asked = attention[:, :, i : i + at_once]
        weight = F.interpolate(
            asked.flatten(0, 2), size=size, mode="bilinear", align_corners=False
        ).view(b, heads, asked.shape[2], t, -1)
        weight = weight.permute(0, 1, 4, 2, 3).reshape(-1, asked.shape[2], t)
        parts.append(torch.bmm(weight, groups))
    out = torch.cat(parts, dim=1).view(b, heads, -1, t, width)
    return out.permute(0, 3, 1, 4, 2).reshape(b * t, heads * width, *size)


class TemporalAttention(nn.Module):
    """Every pixel's features mixed over its dates, and the weights that did it."""

    def __init__(self, width: int, sizes: AttentionSizes) -> None:
        super().__init__()
        self.heads, self.key, self.period = sizes.heads, sizes.key, sizes.period
        self.query_of = nn.Linear(width, sizes.heads * sizes.key, bias=False)
        self.key_of = nn.Linear(width, sizes.heads * sizes.key, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(sizes.heads, width), nn.GroupNorm(sizes.heads, width)
        self.mlp = nn.Linear(width, width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, days: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """`(batch, date, feature, y, x)` and the attention `(batch, head, date, date, y, x)`."""
        b, t, c, h, w = x.shape
        series = x.permute(0, 3, 4, 1, 2).reshape(b * h * w, t, c)
        code = positions(days, c // self.heads, self.period).repeat(1, 1, self.heads)
        series = series + code.repeat_interleave(h * w, dim=0)
        v = _normed(self.norm1, series)
        q, k = self.query_of(v), self.key_of(v)
        q, k, v = (a.view(*a.shape[:2], self.heads, -1).transpose(1, 2) for a in (q, k, v))
        score = q @ k.transpose(2, 3) / math.sqrt(self.key)
        if present is not None:
            hidden = ~present.repeat_interleave(h * w, dim=0)
            score = score.masked_fill(hidden[:, None, None], float("-inf"))
        weight = self.dropout(torch.softmax(score, dim=-1))
        series = series + self.dropout((weight @ v).transpose(1, 2).flatten(2))
        series = series + self.dropout(F.gelu(self.mlp(_normed(self.norm2, series))))
        attention = weight.reshape(b, h, w, self.heads, t, t).permute(0, 3, 4, 5, 1, 2)
        return series.reshape(b, h, w, t, c).permute(0, 3, 4, 1, 2), attention


def _normed(norm: nn.Module, series: Tensor) -> Tensor:
    """Groups of features normed at each date by themselves."""
    return norm(series.flatten(0, 1)).view_as(series)


def positions(days: Tensor, width: int, period: float) -> Tensor:
    """Sines and cosines `(batch, date, width)` of the days, alternating, of growing period."""
    i = torch.arange(width, device=days.device)
    rate = torch.pow(torch.tensor(period, device=days.device), 2 * (i // 2) / width)
    angle = days[:, :, None] / rate
    return torch.where(i % 2 == 0, torch.sin(angle), torch.cos(angle))
