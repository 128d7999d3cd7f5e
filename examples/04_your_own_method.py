"""A method of your own: one class, then everything that cubefill does works with it.

Run: python examples/04_your_own_method.py
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

import cubefill
from cubefill import simulate
from cubefill.methods.contract import Block, Filled, Flag, Needs
from cubefill.testing import MethodTests

# %% A frozen dataclass with `needs` and `fill`. Its fields are the options.


@dataclass(frozen=True)
class Median:
    """Every gap gets the median of the pixel's clear observations within `days` of it."""

    days: float = 60.0
    """Half width of the window; a gap without an observation in it gets the median of all."""
    needs = Needs()
    flag = Flag.CLIMATOLOGY

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        """Filled blocks, one for each block given."""
        for block in blocks:
            yield Filled({name: self._band(block, band) for name, band in block.bands.items()})

    def _band(self, block: Block, values: np.ndarray) -> np.ndarray:
        hidden = ~block.valid | np.isnan(values)
        anywhere = median(values, hidden)
        out = np.empty(block.shape, np.float32)
        for i, day in enumerate(block.out_days):
            near = np.abs(block.days - day) <= self.days
            local = median(values[near], hidden[near])
            out[i] = np.where(np.isnan(local), anywhere, local)
        return out


def median(values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Median over time of what is not hidden, NaN where nothing is left."""
    if len(values) == 0:
        return np.full(values.shape[1:], np.nan, np.float32)
    middle = np.ma.median(np.ma.masked_array(values, hidden), axis=0)
    return np.ma.filled(middle.astype(np.float32), np.nan)


# %% The contract suite of the package, in your own test file. pytest runs it.


class TestMedian(MethodTests):
    """All laws of a method."""

    method = Median()


# %% Use it: as an object, or under a name.


def main() -> None:
    """Fill a simulated cube with `Median` and with `linear`, and compare both with the truth."""
    scene = simulate.scene(size=64, dates=16, bands=("B04", "B08"), sar=False, dem=False)
    cubefill.register("median", f"{__name__}:Median", overwrite=True)
    hidden = ~scene.cube["valid"].values
    for method in (Median(days=45), "linear"):
        out = scene.cube.gapfill(method).compute()
        error = np.abs(out["B08"].values - scene.truth["B08"].values)[hidden]
        print(
            f"{out.attrs['gapfill_method']:<20} mean error of B08 in gaps {np.nanmean(error):.4f}"
        )
    print(scene.cube.gapfill.plan("median"))


if __name__ == "__main__":
    main()
