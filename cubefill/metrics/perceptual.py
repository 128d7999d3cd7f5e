"""How a fill looks, without a download: gradients, fine texture, seams; LPIPS with your weights.

`GMSD` and `HighFrequency` are metrics like the others; `seam_ratio` looks at one picture, and
`lpips` needs files that are not part of cubefill.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cubefill.errors import CubeError
from cubefill.imports import import_module
from cubefill.metrics.formulas import Array, Bands, Mapped, Terms, blur, ratio, whole

if TYPE_CHECKING:
    from torch import Tensor

STRETCH = 1 / 3
"""Reflectance that counts as white in `GMSD` and `lpips`."""


@dataclass(frozen=True)
class GMSD(Mapped):
    """Standard deviation of the local similarity of gradients (Xue et al., 2014); 0 is best.

    Reflectance 0 to 1/3 spans the range; images keep their size, without the halving of the paper.
    """

    name: ClassVar[str] = "GMSD"
    unit: ClassVar[str] = "1"

    peak: float = STRETCH

    def local(self, p: Array, t: Array) -> Array:
        """Similarity of the gradients of Prewitt."""
        known = np.isfinite(p) & np.isfinite(t)
        a, b = (_gradient(np.where(known, x, 0) / self.peak) for x in (p, t))
        c = 170 / 255**2
        return np.where(whole(known, 1), (2 * a * b + c) / (a * a + b * b + c), np.nan)

    def terms_of(self, maps: Bands, where: Array) -> Terms:
        """Sums of similarities and of their squares."""
        squares = super().terms_of({b: m * m for b, m in maps.items()}, where)["similarity"]
        return super().terms_of(maps, where) | {"square": squares}

    def value(self, terms: Terms) -> float:
        """Standard deviation over everything that was scored."""
        n = float(terms["n"].sum())
        if n == 0:
            return float("nan")
        mean = float(terms["similarity"].sum()) / n
        return float(np.sqrt(max(0.0, float(terms["square"].sum()) / n - mean**2)))


@dataclass(frozen=True)
class HighFrequency(Mapped):
    """Power of the fine texture of the fill over that of the truth: blur < 1 < hallucination.

    Fine texture is what a Gaussian of `sigma` pixels takes away.
    """

    name: ClassVar[str] = "high-frequency"
    unit: ClassVar[str] = "1"
    ideal: ClassVar[float | None] = 1.0

    sigma: float = 1.0
    halo: int = 3

    def maps(self, pred: Bands, true: Bands) -> dict[str, Array]:
        """What the blur takes away, squared, of the fill and of the truth."""
        out: dict[str, Array] = {}
        for band, t in true.items():
            sides = [np.asarray(a, float) for a in (pred[band], t)]
            known = np.isfinite(sides[0]) & np.isfinite(sides[1])
            usable = whole(known, self.halo)
            for name, a in zip((f"{band} fill", f"{band} truth"), sides, strict=True):
                a = np.where(known, a, 0)
                out[name] = np.where(usable, (a - blur(a, self.sigma, self.halo)) ** 2, np.nan)
        return out

    def terms_of(self, maps: Bands, where: Array) -> Terms:
        """Sums of the two powers, band after band."""
        power = {k: m[where & np.isfinite(m)] for k, m in maps.items()}
        fill, truth = ([v for k, v in power.items() if k.endswith(s)] for s in ("fill", "truth"))
        return {
            "fill": np.array([float(v.sum()) for v in fill]),
            "truth": np.array([float(v.sum()) for v in truth]),
            "n": np.array([float(len(v)) for v in truth]),
        }

    def value(self, terms: Terms) -> float:
        """Ratio."""
        return ratio(terms["fill"].sum(), terms["truth"].sum())


def _gradient(a: Array) -> Array:
    """Length of the gradient by Prewitt's two 3 x 3 filters."""
    from scipy.ndimage import correlate1d

    across, along = np.array([1.0, 0.0, -1.0]), np.full(3, 1 / 3)
    parts = [
        correlate1d(correlate1d(a, across, i, mode="constant"), along, j, mode="constant")
        for i, j in ((-1, -2), (-2, -1))
    ]
    return np.hypot(*parts)


def seam_ratio(image: Any, tile: int | tuple[int, int], grid: int = 1) -> float:
    """Mean step across the borders of tiles over the mean step elsewhere; 1 where none shows.

    Parameters
    ----------
    image
        `(..., y, x)` values; a pair with a NaN does not count.
    tile
        Height and width of the tiles, or of the kept part of patches, counted from the first row
        and column.
    grid
        Steps elsewhere are taken at multiples of this alone, a divisor of `tile`. A net that
        halves and doubles resolution leaves a pattern of its own, with larger steps at every
        2 or 4 pixels all over a patch: `grid=4` then tells seams of patches from it.

    Raises
    ------
    CubeError
        No border of a tile lies inside the image, or `grid` does not divide it.

    Examples
    --------
    >>> smooth = np.add.outer(np.arange(32.0), np.arange(32.0))
    >>> seam_ratio(smooth, 8)
    1.0
    >>> seam_ratio(smooth + 3 * (np.arange(32) // 8), 8) > 1.5
    True
    """
    a = np.asarray(image, dtype=float)
    edges = (tile, tile) if isinstance(tile, int) else tile
    if any(edge % grid for edge in edges):
        raise CubeError(f"grid={grid}: expected a divisor of {edges[0]} and {edges[1]}. Use 1.")
    seams: list[Array] = []
    others: list[Array] = []
    for axis, edge in zip((-2, -1), edges, strict=True):
        step = np.moveaxis(np.abs(np.diff(a, axis=axis)), axis, 0)
        place = np.arange(1, len(step) + 1)
        at_seam = place % edge == 0
        seams.append(step[at_seam].ravel())
        others.append(step[~at_seam & (place % grid == 0)].ravel())
    across, within = np.concatenate(seams), np.concatenate(others)
    across, within = across[np.isfinite(across)], within[np.isfinite(within)]
    if not len(across) or not len(within):
        raise CubeError(
            f"seam_ratio: expected an image larger than one tile, got {a.shape[-2:]} with tiles of "
            f"{edges[0]} x {edges[1]} px. Pass tile= the side that the method keeps."
        )
    below = float(within.mean())
    return float(across.mean()) / below if below else float("inf" if across.any() else 1.0)


# ------------------------------------------------------------------ LPIPS

_LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""AlexNet: number in `features`, stride, padding; max pooling stands before 3 and 6."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def lpips(
    pred: Any,
    true: Any,
    *,
    backbone: str | Path = "",
    heads: str | Path = "",
) -> float:
    """Learned perceptual distance of two pictures (Zhang et al., 2018, AlexNet, version 0.1).

    Parameters
    ----------
    pred, true
        `(..., 3, y, x)` reflectance of red, green and blue, at least 64 pixels wide and high;
        0 to 1/3 is stretched to the full range.
    backbone
        AlexNet's weights as torchvision names them (`features.0.weight`), .safetensors or .pth.
    heads
        Weights of the linear layers (`lin0.model.1.weight`), such as `alex.pth` of the `lpips`
        package; .safetensors or .pth.

    Raises
    ------
    CubeError
        A file is not given or lacks a layer, or the pictures do not fit.
    """
    torch = import_module("torch")
    for name, path in (("backbone", backbone), ("heads", heads)):
        if not path or not Path(path).is_file():
            raise CubeError(
                f"lpips: expected a file with the weights of its {name}, got {str(path)!r}. "
                "cubefill ships none and downloads none: get AlexNet's from torchvision and "
                f"alex.pth from the lpips package, and use lpips(..., {name}='FILE')."
            )
    sides = [torch.from_numpy(_picture(a)) for a in (pred, true)]
    if sides[0].shape != sides[1].shape:
        raise CubeError(
            f"lpips: expected two pictures of one shape, got {tuple(sides[0].shape)} and "
            f"{tuple(sides[1].shape)}."
        )
    net, lines = _weights(backbone), _weights(heads)
    with torch.inference_mode():
        layers = zip(*(_features(a, net, str(backbone)) for a in sides), strict=True)
        found = torch.zeros(len(sides[0]))
        for i, (a, b) in enumerate(layers):
            line = _layer(lines, f"lin{i}.model.1.weight", str(heads))
            found += ((_unit(a) - _unit(b)) ** 2 * line.reshape(1, -1, 1, 1)).sum(1).mean((1, 2))
    return float(found.mean())


def _picture(a: Any) -> Array:
    """`(n, 3, y, x)` float32 within -1 and 1."""
    a = np.asarray(a, dtype=np.float32)
    if a.ndim < 3 or a.shape[-3] != 3 or min(a.shape[-2:]) < 64 or not np.isfinite(a).all():
        raise CubeError(
            "lpips: expected (..., 3, y, x) reflectance of red, green and blue without NaN, at "
            f"least 64 x 64 px, got {a.shape}."
        )
    return np.clip(a.reshape(-1, *a.shape[-3:]) / np.float32(STRETCH), 0, 1) * 2 - 1


def _weights(path: str | Path) -> dict[str, "Tensor"]:
    """Tensors of a file; nothing in it is executed."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CubeError(
            f"lpips: {path} cannot be read as plain weights ({type(error).__name__}): expected "
            ".safetensors, or .pth with tensors alone."
        ) from error
    return dict(found)


def _layer(state: dict[str, "Tensor"], key: str, path: str) -> "Tensor":
    if key not in state:
        raise CubeError(f"lpips: expected {key!r} in {path}, got {', '.join(list(state)[:4])}...")
    return state[key].float()


def _features(a: "Tensor", state: dict[str, "Tensor"], path: str) -> "list[Tensor]":
    """The five activations of AlexNet."""
    import torch
    from torch.nn import functional

    shift, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
    a = (a - shift) / scale
    out = []
    for number, stride, padding in _LAYERS:
        if number in (3, 6):
            a = functional.max_pool2d(a, 3, 2)
        weight, bias = (_layer(state, f"features.{number}.{k}", path) for k in ("weight", "bias"))
        a = functional.relu(functional.conv2d(a, weight, bias, stride, padding))
        out.append(a)
    return out


def _unit(a: "Tensor") -> "Tensor":
    """Channels of unit length."""
    found: Tensor = a / (a.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
    return found
