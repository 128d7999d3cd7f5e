"""What the layers of a sample are, and a Zarr store to which they are added one by one."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray

from cubefill.cube.bands import COHERENCE, SAR_BANDS
from cubefill.cube.counts import NODATA, SCALE, Encoding, decode, encode
from cubefill.errors import CubefillWarning
from cubefill.ownership import ID, MEMBERS
from cubefill.store.encoding import array_options

KIND = "cubefill samples"
WINDOWS = "discriminator_windows"
"""Name of the clear windows that an adversary learns from, in a store and in a sample."""

_INT16, _FLOAT32 = np.dtype(np.int16), np.dtype(np.float32)
_SCALES = {"optical": SCALE, "sar": 2e-3, "coherence": SCALE, "dem": 0.25}


def _encoding(name: str) -> Encoding:
    return Encoding(_INT16, _FLOAT32, _SCALES[name], NODATA, NODATA)


def decoded(counts: NDArray[Any], name: str = "optical") -> NDArray[np.float32]:
    """Values of a part of a sample, NaN where there is no data."""
    return decode(counts, _encoding(name)) if counts.dtype == _INT16 else counts


@dataclass(frozen=True)
class Form:
    """What each layer of a sample is: optical images, `valid`, `hidden`, SAR, elevation."""

    bands: tuple[str, ...]
    dates: tuple[str, ...]
    """Names of the dates: slots of a layout, or numbers."""
    patch: int
    optical: tuple[bool, ...]
    """Dates with an optical image."""
    sar: tuple[bool, ...]
    """Dates with a SAR image."""
    dem: bool = False
    gaps: bool = False
    """With observations that are hidden."""
    layout: str = ""
    """Its JSON text, and its name; "" for windows of consecutive dates."""
    layout_name: str = ""
    dtype: str = "int16"
    coherence: bool = False
    """With the coherence of each SAR image."""

    @cached_property
    def parts(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name of a part to its layers and their shape: `(date, band)` and so on."""
        d, s = sum(self.optical), sum(self.sar)
        shapes = {
            "optical": (d, len(self.bands)), "valid": (d,), "hidden": (d * self.gaps,),
            "sar": (s, 2), "coherence": (s * self.coherence, 2), "dem": (int(self.dem),),
        }  # fmt: skip
        found, start = {}, 0
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            found[name] = (slice(start, start + count), shape)
            start += count
        return found

    @property
    def layers(self) -> int:
        """Layers of a sample."""
        return self.parts["dem"][0].stop

    @property
    def names(self) -> list[str]:
        """What each layer is, in words."""
        seen = [n for n, on in zip(self.dates, self.optical, strict=True) if on]
        radar = [n for n, on in zip(self.dates, self.sar, strict=True) if on]
        found = [f"{b} {n}" for n in seen for b in self.bands] + [f"valid {n}" for n in seen]
        found += [f"hidden {n}" for n in seen] if self.gaps else []
        found += [f"{p} {n}" for n in radar for p in SAR_BANDS]
        found += [f"{p} {n}" for n in radar for p in COHERENCE if self.coherence]
        return found + ["DEM"] * self.dem

    def encode(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], int]:
        """Layers of a sample as they are stored, and how many values had to be clipped."""
        out = np.empty((self.layers, self.patch, self.patch), self.dtype)
        clipped = 0
        for name, (where, _) in self.parts.items():
            if where.stop == where.start:
                continue
            values = arrays[name].reshape(-1, self.patch, self.patch)
            if self.dtype == "int16" and name in _SCALES:
                values, n = encode(values.astype(np.float32, copy=False), _encoding(name))
                clipped += n
            out[where] = values
        return out, clipped

    def decode(self, stored: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Parts of a sample: float32 with NaN where there is no data, bool for `valid`."""
        found: dict[str, NDArray[Any]] = {}
        for name, (where, shape) in self.parts.items():
            counts = stored[where]
            whole = (*shape, *stored.shape[1:])
            values = decoded(counts, name) if name in _SCALES else counts != 0
            found[name] = values.reshape(whole)
        return found


# ------------------------------------------------------------------ writing


@dataclass
class Writer:
    """A store that grows sample by sample."""

    path: Path
    form: Form
    rows: list[dict[str, Any]] = field(default_factory=list)
    clipped: int = 0
    window_splits: list[int] = field(default_factory=list)
    """Split of each clear window."""

    def begin(self, most: int) -> None:
        """Makes the store, with room for `most` samples."""
        mark = {ID: uuid4().hex}
        self._group = zarr.create_group(self.path, attributes=mark, zarr_format=3)
        edge = self.form.patch
        names = ("sample", "layer", "y", "x")
        self._array = self._made("data", (most, self.form.layers, edge, edge), names)

    def _made(self, name: str, shape: tuple[int, ...], names: tuple[str, ...]) -> Any:
        return self._group.create_array(
            name, shape=shape, chunks=(1, *shape[1:]), dtype=self.form.dtype,
            chunk_key_encoding={"name": "default", "separator": "."}, dimension_names=names,
            fill_value=NODATA if self.form.dtype == "int16" else np.nan,
            **array_options("fast", 3),
        )  # fmt: skip

    def add_window(self, values: NDArray[np.float32], code: int) -> None:
        """Writes one clear window `(time, band, y, x)` of a split."""
        if not self.window_splits:
            names = ("window", "step", "band", "v", "u")
            self._windows = self._made(WINDOWS, (0, *values.shape), names)
        if self.form.dtype == "int16":
            values, n = encode(values, _encoding("optical"))
            self.clipped += n
        count = len(self.window_splits)
        self._windows.resize((count + 1, *values.shape))
        self._windows[count] = values
        self.window_splits.append(code)

    def add(self, arrays: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Writes one sample and remembers its facts."""
        stored, clipped = self.form.encode(arrays)
        self._array[len(self.rows)] = stored
        self.rows.append(facts)
        self.clipped += clipped

    def end(self, attrs: dict[str, Any]) -> None:
        """Writes the facts of all samples and the attributes."""
        self._array.resize((len(self.rows), *self._array.shape[1:]))
        for name in self.rows[0]:
            self._fact(name, np.array([r[name] for r in self.rows]))
        if self.window_splits:
            self._fact(f"{WINDOWS}_split", np.array(self.window_splits, np.int8), "window")
        form = asdict(self.form)
        known = {"kind": KIND, "form": form, "layers": self.form.names, **attrs}
        self._group.attrs.update({**known, MEMBERS: sorted(self._group)})
        if self.clipped:
            warnings.warn(
                f"{self.clipped} values are beyond what int16 holds and were cut. Pass "
                "dtype='float32' to keep them.",
                CubefillWarning,
                stacklevel=3,
            )

    def _fact(self, name: str, values: NDArray[Any], along: str = "sample") -> None:
        if values.dtype.kind == "M":
            values = values.astype("datetime64[ns]").astype(np.int64)
        dims = (along, *{"bbox": ("edge",)}.get(name, ("date",) * (values.ndim - 1)))
        made = self._group.create_array(
            name, shape=values.shape, chunks=values.shape, dtype=values.dtype,
            dimension_names=dims, fill_value=0,
        )  # fmt: skip
        made[...] = values
