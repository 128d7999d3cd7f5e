"""A window for scoring holds all that a method may need."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from cubefill import evaluate
from cubefill.cube import spectral
from cubefill.cube.bands import COHERENCE
from cubefill.errors import CubeError
from cubefill.evaluate import window
from cubefill.gaps import Blobs, hide
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.testing import synthetic_cube


@dataclass(frozen=True)
class Coherent:
    """Fills gaps with the coherence under them."""

    needs = Needs(sar=True)

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            a, b = (block.sar[n] for n in COHERENCE)
            yield Filled(dict.fromkeys(block.bands, (a + b) / 2))


@dataclass(frozen=True)
class Shown:
    """Gives what it is shown in gaps, 0 where that is no data."""

    needs = Needs()

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            yield Filled({n: np.nan_to_num(a) for n, a in block.bands.items()})


def clouded() -> xr.Dataset:
    """A cube whose cloudy values are 2, far above its clear ones."""
    ds = synthetic_cube(8, (24, 24))
    for name in spectral(ds):
        ds[name] = ds[name].where(ds["valid"], np.float32(2))
    return ds


def test_hidden_pixels_are_shown_under_clouds_of_other_dates() -> None:
    ds = clouded()
    bias = {}
    for shown in ("clouds", "nodata"):
        table = evaluate.compare([Shown()], ds, Blobs(), metrics=("bias",), hidden_as=shown)
        assert table.attrs["hidden_as"] == shown
        bias[shown] = float(table["bias"].sel(stratum="all", pixel_set="occluded").squeeze())
    hidden = hide(ds, Blobs(), 0).values
    truth = np.mean([ds[b].values[hidden].mean() for b in spectral(ds)])
    assert bias["nodata"] == pytest.approx(-truth, rel=1e-5)
    assert bias["clouds"] == pytest.approx(2 - truth, rel=1e-5)


def test_methods_that_look_at_valid_pixels_do_not_see_the_clouds() -> None:
    tables = [
        evaluate.compare(["linear", "whittaker"], clouded(), Blobs(), hidden_as=shown)
        for shown in ("clouds", "nodata")
    ]
    for table in tables:
        del table.attrs["hidden_as"]
    xr.testing.assert_identical(*tables)
    with pytest.raises(CubeError, match="expected 'clouds' or 'nodata', got 'haze'"):
        evaluate.compare(["linear"], clouded(), Blobs(), hidden_as="haze")  # type: ignore[arg-type]


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
