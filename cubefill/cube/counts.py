"""Counts: reflectance and other values as integers times a scale; the only place that converts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 1e-4
"""Reflectance of one count."""

NODATA = -32768
"""Count that stands for no data."""

_PIECE = 1 << 16


@dataclass(frozen=True)
class Counts:
    """How int16 counts of a store stand for reflectance: `value = count * scale`."""

    scale: float = SCALE
    nodata: int = NODATA

    def decode(self, counts: NDArray[Any]) -> NDArray[np.float32]:
        """A new array of reflectance, NaN where there is no data."""
        float32 = np.dtype(np.float32)
        return decode(counts, Encoding(counts.dtype, float32, self.scale, self.nodata))

    def encode(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """A new array of counts, `nodata` where there is NaN.

        Examples
        --------
        >>> Counts().encode(np.float32([0.12, np.nan])).tolist()
        [1200, -32768]
        """
        int16, float32 = np.dtype(np.int16), np.dtype(np.float32)
        return encode(values, Encoding(int16, float32, self.scale, self.nodata))[0]


@dataclass(frozen=True)
class Encoding:
    """Type and scale of one stored variable."""

    dtype: np.dtype[Any]
    """Type on disk."""
    decoded: np.dtype[Any]
    """Type in memory."""
    scale: float | None = None
    """Value of one count; None where values are stored as they are."""
    nodata: float | None = None
    """Stored number that stands for NaN; None where NaN or nothing does."""
    fill: Any = 0
    """What a reader finds where nothing was written."""
    offset: float = 0.0
    """Value of count 0; 0 in all that is encoded here."""

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes that say how to decode."""
        if self.scale is None:
            return {}
        return {"scale_factor": self.scale, "_FillValue": self.nodata}


def encode(array: NDArray[Any], encoding: Encoding) -> tuple[NDArray[Any], int]:
    """Stored values of an array and the number of values that had to be clipped.

    Counts are `rint(clip(value * float32(1e4), low, high))` in float32 arithmetic; NaN and infinity
    become `nodata`. `low` and `high` leave `nodata` out: ±32767 for int16, 0 to 65534 for uint16.
    An array that has the stored type already passes through.

    Examples
    --------
    >>> counts, clipped = encode(
    ...     np.float32([0.12, np.nan, 9.0]),
    ...     Encoding(np.dtype("int16"), np.dtype("float32"), SCALE, NODATA),
    ... )
    >>> counts.tolist(), clipped
    ([1200, -32768, 32767], 1)
    """
    if array.dtype == encoding.dtype:
        return array, 0
    if encoding.scale is None or encoding.nodata is None:
        with np.errstate(over="ignore"):
            return array.astype(encoding.dtype), 0
    low, high = limits(encoding)
    flat = np.ascontiguousarray(array).reshape(-1)
    out = np.empty(flat.shape, encoding.dtype)
    factor = np.float32(round(1 / encoding.scale))
    clipped = 0
    for start in range(0, flat.size, _PIECE):
        with np.errstate(over="ignore"):
            part = flat[start : start + _PIECE].astype(np.float32, copy=False)
            counts = part * factor
        top, bottom = np.fmax.reduce(counts), np.fmin.reduce(counts)
        if np.isinf(top) or np.isinf(bottom):
            np.copyto(counts, np.float32("nan"), where=np.isinf(part))
        if top > high + 0.5 or bottom < low - 0.5:
            clipped += int(np.count_nonzero((counts > high + 0.5) | (counts < low - 0.5)))
        np.clip(counts, low, high, out=counts)
        np.rint(counts, out=counts)
        np.copyto(counts, np.float32(encoding.nodata), where=np.isnan(counts))
        out[start : start + _PIECE] = counts
    return out.reshape(array.shape), clipped


def decode(counts: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
    """Values of stored counts: `np.float32(count) * np.float32(scale)`, NaN where `nodata`.

    Integers and booleans without `scale` keep their values. The result may be `counts` itself
    where nothing has to change.
    """
    dtype, scale, nodata = encoding.decoded, encoding.scale, encoding.nodata
    if dtype.kind != "f" or (scale is None and nodata is None):
        return counts.astype(dtype, copy=False)
    flat = np.ascontiguousarray(counts).reshape(-1)
    out = np.empty(flat.shape, dtype)
    factor = dtype.type(1.0 if scale is None else scale)
    for start in range(0, flat.size, _PIECE):
        part, into = flat[start : start + _PIECE], out[start : start + _PIECE]
        np.multiply(part, factor, out=into, dtype=dtype, casting="unsafe")
        if encoding.offset:
            into += dtype.type(encoding.offset)
        if nodata is not None:
            np.copyto(into, dtype.type("nan"), where=part == nodata)
    return out.reshape(counts.shape)


def limits(encoding: Encoding) -> tuple[int, int]:
    """Smallest and largest count that stand for a value."""
    return (0, 65534) if encoding.dtype == np.uint16 else (-32767, 32767)


def is_rounded(array: NDArray[Any], encoding: Encoding) -> bool:
    """True if storing the values as multiples of 1e-4 rounds them.

    Looks at a regular sample of at most 65536 values.
    """
    if encoding.scale is None or array.dtype.kind != "f":
        return False
    flat = array.reshape(-1)[:: max(1, array.size // _PIECE)]
    counts = flat.astype(np.float32, copy=False) * np.float32(round(1 / encoding.scale))
    low, high = limits(encoding)
    counts = counts[(counts >= low) & (counts <= high)]
    return bool(np.any(np.abs(counts - np.rint(counts)) > 0.02))
