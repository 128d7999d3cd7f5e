"""A window for scoring holds all that a method may need."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from cubefill import evaluate
from cubefill.bands import COHERENCE
from cubefill.cube import spectral
from cubefill.evaluate_fill import window
from cubefill.gaps import Blobs, hide
from cubefill.method import Block, Filled, Needs
from cubefill.testing import synthetic_cube


@dataclass(frozen=True)
class Coherent:
    """Fills gaps with the coherence under them."""

    needs = Needs(sar=True)

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            a, b = (block.sar[n] for n in COHERENCE)
            yield Filled(dict.fromkeys(block.bands, (a + b) / 2))


def test_coherence_comes_along_and_is_scored() -> None:
    ds = synthetic_cube(8, (24, 24), sar=True)
    rng = np.random.default_rng(0)
    for name in COHERENCE:
        ds[name] = ds["VV"].dims, rng.random(ds["VV"].shape, np.float32)
    part, _ = window(ds, 12)
    assert part.sizes["x"] == 12
    for name in COHERENCE:
        np.testing.assert_array_equal(part[name], ds[name].sel(y=part.y, x=part.x))
    found = evaluate.compare([Coherent()], {"here": ds}, Blobs(), metrics=("MAE",))
    hidden = hide(ds, Blobs(), 0).values
    mean = (ds["COH_VV"].values + ds["COH_VH"].values)[hidden] / 2
    expected = np.mean([np.abs(ds[b].values[hidden] - mean) for b in spectral(ds)])
    row = found["mae"].sel(stratum="all", pixel_set="occluded").squeeze("method_name")
    assert float(row) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(KeyError, match="COH_VV"):
        evaluate.compare([Coherent()], {"here": ds.drop_vars(COHERENCE)}, Blobs())
