"""A small scene whose fields do what no date beside tells: each date has news for each crop."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.methods.contract import Block
from cubefill.testing import synthetic_cube

DIMS = ("time", "y", "x")
BANDS = ("B04", "B08")


def scene(
    dates: int = 11, size: tuple[int, int] = (28, 30), *, seed: int = 0, shares: Any = None
) -> tuple[xr.Dataset, dict[str, NDArray[Any]]]:
    """A cube with clouds that cover the given shares of each date, and its bands without clouds."""
    ds = synthetic_cube(dates, size, BANDS, gap=0.0, seed=seed, days=range(0, 6 * dates, 6))
    rng = np.random.default_rng(seed)
    crops = np.kron(rng.integers(0, 3, (8, 8)), np.ones((7, 7), int))[: size[0], : size[1]]
    shape = (dates, *size)
    covered = np.asarray(shares if shares is not None else np.tile([0.0, 0.5, 0.3], dates)[:dates])
    height = np.stack([_hills(rng, size) for _ in range(dates)])
    order = height.reshape(dates, -1).argsort(axis=1).argsort(axis=1).reshape(shape)
    valid = order >= np.round(covered * size[0] * size[1])[:, None, None]
    truth = {}
    for name, level in zip(BANDS, (0.08, 0.3), strict=True):
        news = rng.normal(0, 0.03, (dates, 3))
        clean = level + news[:, crops] + 0.1 * level * rng.normal(0, 1, size)
        truth[name] = _on_grid(clean + rng.normal(0, 0.002, shape))
        ds[name] = DIMS, np.where(valid, truth[name], _on_grid(rng.uniform(0.4, 0.9, shape)))
    ds["valid"] = DIMS, valid
    return ds, truth


def _on_grid(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.rint(values * 1e4).astype(np.float32) * np.float32(1e-4)


def _hills(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    y, x = np.mgrid[: size[0], : size[1]]
    a, b, c = rng.uniform(0, 6.28, 3)
    return np.asarray(np.sin(y / 6 + a) + np.sin(x / 7 + b) + np.sin((x + y) / 9 + c))


def block(ds: xr.Dataset, **options: Any) -> Block:
    """The whole cube as one block."""
    time = ds["time"].values.astype("datetime64[ns]")
    bands = {n: ds[n].values for n in BANDS if n in ds}
    return Block(bands, ds["valid"].values, time, options.pop("out_time", time), **options)
