"""What a cube holds, for people and for machines, with little reading."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from cubefill.cube import crs_of, resolution_of, spectral
from cubefill.methods.contract import Flag
from cubefill.store.ledger import Ledger
from cubefill.store.reading import open_cube

WINDOW = 256
"""Side in pixels of a window that is read for shares."""

WINDOWS = 4
"""Windows along y and along x; a larger cube is sampled, a smaller one is read whole."""


@dataclass(frozen=True)
class Inventory:
    """What a cube holds."""

    bands: tuple[str, ...]
    """Variables on time, y and x that a method may fill."""
    variables: tuple[str, ...]
    """The other variables."""
    sizes: dict[str, int]
    """Length of each dimension."""
    dates: tuple[str, ...]
    """Acquisition dates, ISO."""
    crs: str
    """Such as `EPSG:32631`; `unknown` where the cube has none."""
    resolution: float | None
    """Pixel size in m."""
    gigabytes: float
    """Size in memory."""
    clear: float | None
    """Share of clear observations, from a sample of windows; None without `valid`."""
    flags: dict[str, float]
    """Share of each code of `fill_flag`, from the same sample."""
    attrs: dict[str, Any]
    """Provenance: the dataset's attributes."""
    complete: bool | None = None
    """True where every tile of a store is written; None where the store keeps no record."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        first, last = (self.dates[0], self.dates[-1]) if self.dates else ("none", "none")
        step = "" if self.resolution is None else f", {self.resolution:g} m"
        lines = [
            f"bands       {', '.join(self.bands) or 'none'}",
            f"also        {', '.join(self.variables) or 'nothing'}",
            f"size        {' x '.join(f'{n} {d}' for d, n in self.sizes.items())}",
            f"dates       {first} to {last}",
            f"grid        {self.crs}{step}",
            f"memory      {self.gigabytes:.3f} GB when read whole",
        ]
        if self.complete is not None:
            lines.append(f"complete    {'yes' if self.complete else 'no'}")
        if self.clear is not None:
            lines.append(f"clear       {self.clear:.1%}")
        if self.flags:
            shares = (f"{name} {share:.1%}" for name, share in self.flags.items())
            lines.append(f"fill_flag   {', '.join(shares)}")
        shown = {n: _short(v) for n, v in self.attrs.items() if n != "history"}
        lines += [f"  {name:<24} {value}" for name, value in shown.items()]
        return "\n".join(lines)


def take(ds: xr.Dataset, *, shares: bool = True) -> Inventory:
    """The inventory of a cube; reads at most 16 windows of 256 px of `valid` and `fill_flag`.

    With `shares=False` it reads no pixel, and leaves `clear` and `flags` out.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> take(synthetic_cube()).sizes["time"]
    12
    """
    bands = spectral(ds)
    crs = crs_of(ds)
    return Inventory(
        bands=bands,
        variables=tuple(str(v) for v in ds.data_vars if v not in bands),
        sizes={str(d): int(n) for d, n in ds.sizes.items()},
        dates=tuple(np.datetime_as_string(ds["time"].values, unit="D").tolist()),
        crs="unknown" if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else str(crs),
        resolution=resolution_of(ds),
        gigabytes=ds.nbytes / 1e9,
        clear=_clear_share(ds) if shares else None,
        flags=_flag_shares(ds) if shares else {},
        attrs=dict(ds.attrs),
    )


def _short(value: Any) -> str:
    """A value on one line: a long list by its length, a long text by its beginning."""
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{len(value)} values: {value[0]} to {value[-1]}"
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def of_store(store: Any) -> Inventory:
    """The inventory of a store, and whether every tile of it is written."""
    ledger = Ledger(store)
    return replace(take(open_cube(store)), complete=ledger.complete if ledger.exists else None)


def _clear_share(ds: xr.Dataset) -> float | None:
    if "valid" not in ds:
        return None
    parts = [w.values for w in _windows(ds["valid"])]
    return float(sum(p.sum() for p in parts) / max(1, sum(p.size for p in parts)))


def _flag_shares(ds: xr.Dataset) -> dict[str, float]:
    if "fill_flag" not in ds:
        return {}
    counts = sum(np.bincount(w.values.ravel(), minlength=256) for w in _windows(ds["fill_flag"]))
    total = np.sum(counts)
    return {f.name.lower(): float(counts[f] / total) for f in Flag if counts[f]}  # type: ignore[index]


def _windows(values: xr.DataArray) -> Iterator[xr.DataArray]:
    """Windows spread evenly over y and x, together the whole where it is small."""
    for rows in _spread(values.sizes["y"]):
        for columns in _spread(values.sizes["x"]):
            yield values.isel(y=rows, x=columns)


def _spread(length: int) -> list[slice]:
    starts = range(0, length, WINDOW)
    chosen = sorted({starts[i] for i in np.linspace(0, len(starts) - 1, WINDOWS).astype(int)})
    return [slice(start, start + WINDOW) for start in chosen]
