"""Weights and inputs made by a formula, as the parity fixtures were (reference/parity/README)."""

from math import prod, sqrt
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def formula_weights(name: str, shape: tuple[int, ...], fan_in: float) -> Float:
    """A tensor filled by its name, in the C order of the original's own layout."""
    c = crc32(name.encode())
    n = np.arange(prod(shape), dtype=np.float64)
    w = np.sin(0.6180339887 * n * (1 + (c % 997) / 997) + (c % 1009)) * 4 / sqrt(fan_in)
    return w.astype(np.float32).reshape(shape)


def formula_field(shape: tuple[int, ...]) -> Float:
    """The input field of the fixtures, in 0-1."""
    n = np.arange(prod(shape), dtype=np.float64)
    f = 0.5 + 0.5 * np.sin(0.0123 * n) * np.cos(0.00071 * n)
    return f.astype(np.float32).reshape(shape)


def torch_fan_in(shape: tuple[int, ...]) -> float:
    """Fan-in of a PyTorch tensor: `prod(shape[1:])`, 100 where it has one axis."""
    return 100 if len(shape) == 1 else prod(shape[1:])


def keras_fan_in(name: str, shape: tuple[int, ...]) -> float:
    """Fan-in of a Keras tensor; transposed kernels (`deconv`) are (kh, kw, out, in)."""
    if len(shape) == 1:
        return 100
    return shape[0] * shape[1] * shape[3] if "deconv" in name else prod(shape[:-1])


def shapes_of(listing: Path) -> dict[str, tuple[int, ...]]:
    """Name to shape, from a listing of one tab-separated tensor a line."""
    rows = (line.split("\t") for line in listing.read_text().splitlines() if line.strip())
    return {name: tuple(int(s) for s in shape.strip("()").split(",") if s) for name, shape in rows}
