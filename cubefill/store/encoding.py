"""How each variable of a cube lies in a store: type, scale, fill value, codecs."""

import re
import warnings
from typing import Any, Literal

import numpy as np
from numcodecs import Blosc
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from cubefill.cube.bands import BANDS
from cubefill.cube.counts import NODATA, SCALE, Encoding
from cubefill.errors import CubefillWarning, StoreError

Profile = Literal["default", "fast"]

_FLOAT32 = frozenset({"VV", "VH", "DEM"})
_CODECS: dict[str, tuple[Literal["zstd", "lz4"], int]] = {
    "default": ("zstd", 1),
    "fast": ("lz4", 5),
}
_FILL = {"fill_flag": 255, "NDVI_flag": 255}


def encoding_of(name: str, dtype: np.dtype[Any]) -> Encoding:
    """The encoding of a variable by its name and type.

    Bands, `<band>_smooth`, NDVI and quantiles are int16 counts of 1e-4, their `_std` uint16 counts
    of 1e-4; Sentinel-1 and elevation are float32. All else stays what it is, float16 as float32.

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
    plain = re.sub(r"(_std|_q\d{2,3})$", "", name)
    if plain.removesuffix("_smooth") in {*BANDS, "NDVI"} - _FLOAT32:
        if name.endswith("_std"):
            return Encoding(np.dtype(np.uint16), float32, SCALE, 65535, 65535)
        return Encoding(np.dtype(np.int16), float32, SCALE, NODATA, NODATA)
    wide = np.dtype(np.float64)
    kept = wide if dtype.itemsize > 4 and name not in _FLOAT32 else float32
    return Encoding(kept, kept, fill=float("nan"))


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
    if isinstance(value, set | frozenset):
        return sorted((plain(v) for v in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
