"""Blocks for the tests of kernels, and the slow references that they are compared with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.methods.contract import Block, Counts, Filled
from cubefill.testing import synthetic_cube

Series = NDArray[np.float64]
COUNTS = Counts()


def block(
    dates: int = 15,
    size: tuple[int, int] = (6, 7),
    *,
    gap: float = 0.5,
    seed: int = 0,
    bands: tuple[str, ...] = ("B04", "B08"),
    out_days: Any = None,
    days: Any = None,
) -> Block:
    """A block of the synthetic cube; `out_days` after its first date are asked for."""
    ds = synthetic_cube(dates, size, bands, gap=gap, seed=seed, days=days)
    time = ds["time"].values.astype("datetime64[ns]")
    out = time
    if out_days is not None:
        out = time[0] + (np.asarray(out_days) * 86_400e9).astype("m8[ns]")
    return Block({b: ds[b].values for b in bands}, ds["valid"].values, time, out)


def as_counts(b: Block) -> Block:
    """The same block as int16 counts; a value that is NaN becomes the fill value."""
    return replace(b, bands={n: encode(a) for n, a in b.bands.items()}, counts=COUNTS)


def encode(a: NDArray[Any]) -> NDArray[np.int16]:
    """Counts of reflectance, by the formula of the store."""
    scaled = np.rint(np.clip(a * np.float32(1e4), -32767, 32767))
    return np.where(np.isnan(scaled), -32768, scaled).astype(np.int16)


def decode(a: NDArray[np.int16]) -> NDArray[np.float32]:
    """Reflectance of counts, by the formula of the store."""
    return np.where(a == -32768, np.float32(np.nan), a.astype(np.float32) * np.float32(1e-4))


def one(method: Any, b: Block) -> Filled:
    """The filled block."""
    (out,) = method.fill([b])
    assert isinstance(out, Filled)
    return out


def expect(
    method: Any,
    b: Block,
    reference: Callable[[Series, Series, Series], Series],
    *,
    fewest: int = 1,
    atol: float = 2e-7,
    restore: bool = True,
) -> int:
    """Compares every pixel with `reference(days, values, out_days)`; gives how many there were.

    `restore` puts the clear observations into the reference first, where dates are the same.
    """
    out, seen = one(method, b), 0
    for name, band in b.bands.items():
        for y, x in np.ndindex(band.shape[1:]):
            clear = b.valid[:, y, x] & np.isfinite(band[:, y, x])
            if clear.sum() < fewest:
                continue
            values = band[clear, y, x].astype(np.float64)
            right = np.array(reference(b.days[clear], values, b.out_days))
            if restore and b.same_axis:
                right[clear] = values
            got = out.bands[name + getattr(method, "suffix", "")][:, y, x]
            np.testing.assert_allclose(got, right, rtol=0, atol=atol)
            seen += 1
    assert seen
    return seen
