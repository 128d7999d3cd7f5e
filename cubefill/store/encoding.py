"""How each variable of a cube lies in a store: type, scale, fill value, codecs."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from cubefill.cube.bands import BANDS
from cubefill.errors import CubefillWarning, StoreError
from cubefill.store.source import decode_counts

Profile = Literal["default", "fast"]

SCALE = 1e-4
"""Reflectance of one count."""

_PIECE = 1 << 16
_FLOAT32 = frozenset({"VV", "VH", "DEM"})
_CODECS: dict[str, tuple[Literal["zstd", "lz4"], int]] = {
    "default": ("zstd", 1),
    "fast": ("lz4", 5),
}
_FILL = {"fill_flag": 255, "NDVI_flag": 255}


@dataclass(frozen=True)
class Encoding:
    """Type and scale of one stored variable."""

    dtype: np.dtype[Any]
    """Type on disk."""
    decoded: np.dtype[Any]
    """Type in memory."""
    scale: float | None = None
    """Value of one count; None where values are stored as they are."""
    nodata: int | None = None
    """Count that stands for NaN."""
    fill: Any = 0
    """What a reader finds where nothing was written."""

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes that say how to decode."""
        if self.scale is None:
            return {}
        return {"scale_factor": self.scale, "_FillValue": self.nodata}


def encoding_of(name: str, dtype: np.dtype[Any]) -> Encoding:
    """The encoding of a variable by its name and type.

    Bands, `<band>_smooth` and NDVI are int16 counts of 1e-4, `<name>_std` uint16 counts of 1e-4,
    every other floating-point variable float32; booleans and integers stay what they are.

    Examples
    --------
    >>> e = encoding_of("B04", np.dtype("float32"))
    >>> str(e.dtype), e.scale, e.nodata
    ('int16', 0.0001, -32768)
    """
    dtype = np.dtype(dtype)
    float32 = np.dtype(np.float32)
    if dtype.kind == "b":
        return Encoding(dtype, dtype, fill=False)
    if dtype.kind in "iu":
        return Encoding(dtype, dtype, fill=_FILL.get(name, 0))
    if dtype.kind != "f":
        raise StoreError(
            f"Variable {name!r} has type {dtype}: expected floating point, integer or bool. "
            f"Use ds.drop_vars({name!r}) or convert it."
        )
    if name.endswith("_std"):
        return Encoding(np.dtype(np.uint16), float32, SCALE, 65535, 65535)
    if name not in _FLOAT32 and name.removesuffix("_smooth") in {*BANDS, "NDVI"}:
        return Encoding(np.dtype(np.int16), float32, SCALE, -32768, -32768)
    return Encoding(float32, float32, fill=float("nan"))


def encode(array: NDArray[Any], encoding: Encoding) -> tuple[NDArray[Any], int]:
    """Stored values of an array and the number of values that had to be clipped.

    Counts are `rint(clip(value * float32(1e4), low, high))` in float32 arithmetic, NaN becomes
    `nodata`; `low` and `high` leave `nodata` out: ±32767 for int16, 0 and 65534 for uint16. An
    array that has the stored type already passes through.

    Examples
    --------
    >>> band = encoding_of("B04", np.dtype("float32"))
    >>> counts, clipped = encode(np.float32([0.12, np.nan, 9.0]), band)
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
        if top > high + 0.5 or bottom < low - 0.5:
            clipped += int(np.count_nonzero((counts > high + 0.5) | (counts < low - 0.5)))
        np.clip(counts, low, high, out=counts)
        np.rint(counts, out=counts)
        np.copyto(counts, np.float32(encoding.nodata), where=np.isnan(counts))
        out[start : start + _PIECE] = counts
    return out.reshape(array.shape), clipped


def decode(counts: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
    """Values of stored counts: `np.float32(count) * np.float32(1e-4)`, NaN where `nodata`."""
    return decode_counts(counts, encoding.decoded, encoding.scale, 0.0, encoding.nodata)


def limits(encoding: Encoding) -> tuple[int, int]:
    """Smallest and largest count that stand for a value."""
    return (0, 65534) if encoding.dtype == np.uint16 else (-32767, 32767)


def is_rounded(array: NDArray[Any], encoding: Encoding) -> bool:
    """True when values lie between counts, as resampled reflectance does.

    Looks at a regular sample of at most 65536 values.
    """
    if encoding.scale is None or array.dtype.kind != "f":
        return False
    flat = array.reshape(-1)[:: max(1, array.size // _PIECE)]
    counts = flat.astype(np.float32, copy=False) * np.float32(round(1 / encoding.scale))
    low, high = limits(encoding)
    counts = counts[(counts >= low) & (counts <= high)]
    return bool(np.any(np.abs(counts - np.rint(counts)) > 0.02))


def array_options(profile: Profile, zarr_format: int) -> dict[str, Any]:
    """Codecs as keywords of `zarr.create_array`: blosc bitshuffle and, in zarr 3, crc32c.

    Raises
    ------
    StoreError
        The profile or the format is unknown.
    """
    if profile not in _CODECS:
        raise StoreError(f"Unknown profile {profile!r}: expected 'default' or 'fast'.")
    name, level = _CODECS[profile]
    if zarr_format == 3:
        blosc = BloscCodec(cname=name, clevel=level, shuffle=BloscShuffle.bitshuffle)
        return {"compressors": (blosc, Crc32cCodec())}
    if zarr_format == 2:
        return {"compressors": (Blosc(cname=name, clevel=level, shuffle=Blosc.BITSHUFFLE),)}
    raise StoreError(f"zarr_format={zarr_format!r}: expected 3 or 2.")


def warn_format_2() -> None:
    """Says once per call what a store of format 2 lacks."""
    warnings.warn(
        "zarr_format=2 writes no shards (more files), no checksums (a damaged chunk goes "
        "unnoticed) and no GeoZarr attributes; it is meant for software that cannot read "
        "zarr 3, such as GDAL 3.10.",
        CubefillWarning,
        stacklevel=3,
    )


def plain(value: Any) -> Any:
    """An attribute as JSON has it: numpy scalars and arrays become numbers and lists."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
