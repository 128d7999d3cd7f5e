"""Samples of cubes: what a net is shown, and what it is scored on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from cubefill.engine import gapfill
from cubefill.errors import CubeError, CubefillError, CubefillWarning, MethodError
from cubefill.gaps import Blobs, Borrowed, Dates, Lent, apply, impaired
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.windows import Span
from cubefill.samples.clear_windows import clear_corners
from cubefill.samples.patches import CubeSamples
from cubefill.samples.protocol import Sample
from cubefill.testing import synthetic_cube
from cubefill.train import Recipe, cube_samples
from cubefill.train.state import TrainingState, batches
from tests.methods.learned.test_method import Demo, Series
from tests.shared.strategies import cube
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.train_runs import RECIPE, Watched, fit, samples, smooth_cube


def test_samples_of_unequal_shape(tmp_path: Path) -> None:
    cubes = [smooth_cube(0, dates=5), smooth_cube(1, dates=7)]
    given = CubeSamples(cubes, Demo(), Blobs(), count=8)
    with pytest.raises(CubefillError, match=r"'x' of shapes \(.*Pass dates="):
        fit(tmp_path / "net", samples=given)
    fit(tmp_path / "net", replace(RECIPE, epochs=1), samples=replace(given, dates=4))


def test_a_sample_is_what_the_method_encodes_of_a_gapped_patch() -> None:
    given = samples()
    found = given[2]
    assert found["x"].shape == (6, 4, 8, 8)
    assert found["target"].shape == found["where"].shape == (6, 2, 8, 8)
    assert found["where"].any()
    hidden = found["where"]
    assert (found["x"][:, 2:][hidden] == 0).all()
    assert (found["x"][:, :2][hidden] == 0).all()
    assert (found["target"][hidden] > 0).all()


def test_samples_are_decided_by_seed_epoch_and_index() -> None:
    def differs(a: Sample, b: Sample) -> bool:
        return not all(np.array_equal(a[n], b[n]) for n in a)

    given = samples(augment=True)
    assert not differs(given[1], samples(augment=True)[1])
    assert differs(given[1], given[2])
    assert differs(given[1], given.at(1)[1])
    assert differs(given[1], replace(given, seed=1)[1])
    with pytest.raises(IndexError):
        given[8]


def test_clouds_may_lie_where_gaps_are_made() -> None:
    ds = smooth_cube()
    ds["B04"] = ds["B04"].where(ds["valid"], 7.0)
    plain = CubeSamples([ds], Demo(), Blobs(), count=4)
    for given, high in ((plain, 0), (replace(plain, cloudy=True), 1)):
        rng = np.random.default_rng(0)
        truth, gapped = given._pair(rng)
        hidden = truth.valid & ~gapped.valid
        seen = gapped.bands["B04"][hidden]
        assert (seen[np.isfinite(seen)] == 7).all()
        assert np.isfinite(seen).any() == bool(high)
        assert np.isfinite(truth.bands["B04"]).all()


def test_clear_windows_are_clear_and_all_found() -> None:
    rng = np.random.default_rng(0)
    valid = rng.random((6, 14, 13)) > 0.02
    expected = [
        (t, y, x)
        for t in range(5)
        for y in range(11)
        for x in range(10)
        if valid[t : t + 2, y : y + 4, x : x + 4].all()
    ]
    assert clear_corners(valid, 2, 4) == expected
    assert clear_corners(valid, 7, 4) == []


def test_samples_that_cannot_be_made() -> None:
    ds = smooth_cube()
    with pytest.raises(CubeError, match="A sample has 4 time steps, a cube 3: expected"):
        CubeSamples([synthetic_cube(3, sar=True, dem=True)], Everything(), Blobs())[0]
    with pytest.raises(MethodError, match="needs VV, VH and sar_valid on time: the cube has no S"):
        CubeSamples([ds], Everything(), Blobs())[0]
    with pytest.raises(MethodError, match="needs DEM on y and x: the cube has none"):
        CubeSamples([synthetic_cube(sar=True)], Everything(), Blobs())[0]
    cloudy = ds.assign(valid=ds["valid"] & False)
    with pytest.raises(CubeError, match=r"No gap in any of .*no clear observation"):
        CubeSamples([cloudy], Demo(), Blobs())[0]
    with pytest.raises(CubeError, match="No window of 3 time steps and 8 px is clear"):
        CubeSamples([ds], Demo(), Blobs(), discriminator_windows=(3, 8))[0]


@dataclass(frozen=True)
class Everything(Demo):
    """Asks for SAR and DEM."""

    @property
    def needs(self) -> Needs:
        return Needs(bands=("B04", "B08"), space=Span(8, 4), time=Span(4, 2), sar=True, dem=True)


def test_sar_and_elevation_come_along() -> None:
    ds = synthetic_cube(sar=True, dem=True)
    truth, _ = CubeSamples([ds], Everything(), Blobs())._pair(np.random.default_rng(0))
    assert truth.sar["VV"].shape == truth.valid.shape == (4, 8, 8)
    assert truth.dem is not None
    t, y, x = truth.origin
    np.testing.assert_array_equal(truth.dem, ds["DEM"].values[y : y + 8, x : x + 8])
    np.testing.assert_array_equal(
        truth.bands["B08"], ds["B08"].values[t : t + 4, y : y + 8, x : x + 8]
    )


def test_every_sample_is_met_once_in_an_epoch() -> None:
    watched = Watched(samples(10))
    found = list(batches(watched, replace(RECIPE, batch=4), TrainingState()))
    assert [len(b["x"]) for b in found] == [4, 4]
    assert len(set(watched.seen)) == 8
    other = Watched(samples(10))
    list(batches(other, replace(RECIPE, batch=4), TrainingState(epoch=1)))
    assert other.seen != watched.seen
    small = list(batches(samples(3), replace(RECIPE, batch=4), TrainingState()))
    assert [len(b["x"]) for b in small] == [3]


# ------------------------------------------------------------------ cubes smaller than a patch


@dataclass(frozen=True)
class Patches(Demo):
    """Asks for patches of 8 pixels with SAR and DEM; keeps what the engine hands it."""

    seen: list[Block] = field(default_factory=list, compare=False)

    @property
    def needs(self) -> Needs:
        return Needs(bands=("B04", "B08"), space=Span(8, 4), sar=True, dem=True)

    def ready(self) -> None:
        """It has no net."""

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            self.seen.append(block)
            yield block.filled(np.nan_to_num(block.optical))


@pytest.mark.parametrize("size", [(5, 6), (1, 2), (2, 8), (8, 3), (8, 8)])
def test_a_sample_of_a_small_cube_is_the_block_that_the_engine_hands_over(
    size: tuple[int, int],
) -> None:
    ds, method = synthetic_cube(6, size, sar=True, dem=True), Patches()
    given = CubeSamples([ds], method, Dates(share=0.5, keep=0))
    truth, gapped = given._pair(np.random.default_rng(0))
    hidden = (truth.valid & ~gapped.valid)[:, : size[0], : size[1]]
    assert hidden.any()
    gapfill(apply(ds, hidden), method).compute(scheduler="synchronous")
    block = method.seen[-1]
    assert block.valid.shape == gapped.valid.shape == (6, 8, 8)
    np.testing.assert_array_equal(gapped.valid, block.valid)
    assert gapped.dem is not None
    np.testing.assert_array_equal(gapped.dem, block.dem)
    for ours, theirs in ((gapped.bands, block.bands), (gapped.sar, block.sar)):
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert given[0]["target"].shape == (6, 2, 8, 8)


def test_a_small_cube_trains_a_net_that_fills_it(tmp_path: Path) -> None:
    ds = smooth_cube(size=5)
    folder = fit(
        tmp_path / "net", samples=CubeSamples([ds], Demo(), Blobs(), count=8, augment=True)
    )
    out = gapfill(ds, Demo(checkpoint=str(folder)))["B08"].values
    assert np.isfinite(out).all()


# ------------------------------------------------------------------ gaps of other cubes


def striped(axis: int, level: float, size: int = 24) -> xr.Dataset:
    """A cube of one value whose every second date has a gap on every second row or column."""
    ds = cube(dates=8, size=(size, size), gap=0.0)
    index = np.indices(ds["valid"].shape)
    ds["valid"][:] = (index[0] % 2 == 0) | (index[axis] % 2 == 0)
    for b in ("B04", "B08"):
        ds[b][:] = level
    return ds


def lines(hidden: NDArray[np.bool_], axis: int) -> bool:
    """True where what is hidden on each date is whole, or the same all along an axis."""
    return bool((hidden == hidden.take([0], axis=axis)).all())


def test_gaps_are_lent_by_other_cubes() -> None:
    rows, cols = striped(1, 0.1), striped(2, 0.2)
    given = CubeSamples([rows, cols], Demo(), Borrowed(), count=16)
    met = set()
    for i in range(16):
        truth, gapped = given._pair(np.random.default_rng(i))
        first = float(truth.bands["B04"][0, 0, 0]) < 0.15
        hidden = truth.valid & ~gapped.valid
        clear = np.flatnonzero(truth.valid.all((1, 2)) & hidden.any((1, 2)))
        met.add(first)
        assert not hidden[0].any()
        if len(clear):
            assert lines(hidden[clear], 1 if first else 2)
            assert not lines(hidden[clear], 2 if first else 1)
    assert met == {True, False}


def test_lenders_lend_and_are_not_learned_from() -> None:
    bare = striped(1, 0.1)
    bare["valid"][:] = True
    alone = CubeSamples([bare], Demo(), Borrowed(), count=8)
    with pytest.raises(CubeError, match="No gap in any of 50 random patches of 1 cubes"):
        alone[0]
    given = replace(alone, donors=[striped(2, 0.2, size=5)])
    assert given.digest != alone.digest
    truth, gapped = given._pair(np.random.default_rng(0))
    hidden = truth.valid & ~gapped.valid
    assert lines(hidden, 1)
    assert hidden.any()
    assert (np.unique(truth.bands["B04"]) == np.float32(0.1)).all()
    np.testing.assert_array_equal(given[3]["x"], given.at(1).at(0)[3]["x"])


def test_a_cube_alone_is_lent_its_own_gaps() -> None:
    given = CubeSamples([striped(1, 0.1)], Demo(), Borrowed())
    truth, gapped = given._pair(np.random.default_rng(1))
    assert (truth.valid & ~gapped.valid).any()


# ------------------------------------------------------------------ dates that are left out


@pytest.mark.parametrize("probability", [False, True])
def test_impaired_dates_are_left_out(probability: bool) -> None:
    ds = smooth_cube(dates=12, size=10)
    rng = np.random.default_rng(3)
    share = np.array([0, 0.02, 0.06, 0.09, 0.12, 0.5])[rng.integers(0, 6, 12)]
    ds["valid"][:] = rng.random((12, 10, 10)) >= share[:, None, None]
    if probability:
        high = rng.random((12, 10, 10)) < rng.choice([0, 0.02, 0.1], 12)[:, None, None]
        ds["cloud_probability"] = ds["valid"].dims, np.where(high, 0.3, 0.0)
    given = CubeSamples([ds], Series(), Blobs(), patch=10, drop_impaired=True)
    truth, _ = given._pair(np.random.default_rng(0))
    left = ~impaired(ds["valid"].values, ds["cloud_probability"].values if probability else None)
    assert 5 <= left.sum() < 12
    np.testing.assert_array_equal(truth.time, ds["time"].values[left])
    np.testing.assert_array_equal(truth.bands["B08"], ds["B08"].values[left])
    assert truth.origin[0] == np.flatnonzero(left)[0]
    few, _ = replace(given, dates=3)._pair(np.random.default_rng(0))
    assert set(few.time) < set(truth.time)
    assert len(few.time) == 3
    with pytest.raises(CubeError, match=r"too few dates .* or drop_impaired=False"):
        replace(given, dates=12)[0]
    assert replace(given, drop_impaired=False).digest != given.digest


def test_impaired_dates_are_judged_patch_by_patch() -> None:
    ds = smooth_cube(dates=8, size=16)
    ds["valid"][:] = True
    ds["valid"][3, :8] = False
    given = CubeSamples([ds], Demo(), Blobs(keep=0), drop_impaired=True)
    lengths = set()
    for i in range(40):
        truth, _ = given._pair(np.random.default_rng(i))
        gap = 1 - ds["valid"].values[3, truth.origin[1] : truth.origin[1] + 8].mean()
        assert len(truth.time) == 8 - (gap >= 0.05)
        lengths.add(len(truth.time))
    assert lengths == {7, 8}


# ------------------------------------------------------------------ former names


def test_former_names_are_accepted_with_a_warning() -> None:
    ds = striped(1, 0.1)
    with pytest.warns(CubefillWarning, match="turns= is now augment="):
        former = CubeSamples([ds], Demo(), Borrowed(), turns=True, count=4)  # type: ignore[call-arg]
    assert former.augment
    with pytest.warns(CubefillWarning, match="lenders= is now donors="):
        former = CubeSamples([ds], Demo(), Borrowed(), lenders=[ds])  # type: ignore[call-arg]
    assert len(former.donors) == 1
    with pytest.warns(CubefillWarning, match="Lent is now Borrowed"):
        lent = Lent(share=0.5)
    assert isinstance(lent, Borrowed)
    assert former.digest == replace(former, gaps=lent).digest
    with pytest.warns(CubefillWarning, match="real= is now discriminator_windows="):
        windows = CubeSamples([ds], Demo(), real=(1, 4))  # type: ignore[call-arg]
    assert windows.discriminator_windows == (1, 4)
    recipe = Recipe(samples={"gaps": "lent", "turns": True, "real": [1, 4]})
    found = cube_samples([ds], Demo(), recipe, recipe.samples)
    given = (found.gaps, found.augment, found.discriminator_windows)
    assert given == (Borrowed(), True, (1, 4))
