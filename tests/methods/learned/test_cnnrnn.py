"""CNN-RNN fusion: its grid and features, the authors' data, the laws of a method."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch

from cubefill import train
from cubefill.engine import gapfill
from cubefill.errors import MethodError, StoreError
from cubefill.gaps import Blobs
from cubefill.methods.contract import Block, Flag, Needs
from cubefill.methods.learned.cnnrnn import MISSING, CnnRnn, ConfigCnnRnn, Hdf5Samples
from cubefill.methods.learned.method import Arrays, card_of
from cubefill.methods.learned.series import (
    Grid,
    SeriesMethod,
    at_dates,
    grid_of,
    nearest_known,
    on_grid,
)
from cubefill.nn import checkpoint
from cubefill.samples.patches import CubeSamples
from cubefill.testing import MethodTests, synthetic_cube
from cubefill.train.recipe import Recipe
from tests.shared import decloud
from tests.shared.torch_thread import one_thread as one_thread

TINY = ConfigCnnRnn(steps=8, coherence=False, convs=(2, 3), features=4, units=3)
DAY = np.timedelta64(1, "D")


@cache
def made(config: ConfigCnnRnn = TINY) -> CnnRnn:
    """The method with a checkpoint of first weights."""
    method: CnnRnn = decloud.made(CnnRnn, **vars(config))
    return method


class SeriesTests(MethodTests):
    """A matrix product may round a row by where it stands, so a cut cube agrees to rounding."""

    def test_answer_does_not_depend_on_where_the_pixel_stands(self) -> None:
        ds = self.cube()
        part = {"y": slice(3, 18), "x": slice(5, 12)}
        whole, alone = self.filled(ds).isel(part), self.filled(ds.isel(part))
        np.testing.assert_allclose(whole["NDVI"], alone["NDVI"], rtol=0, atol=5e-7)
        np.testing.assert_array_equal(whole["fill_flag"], alone["fill_flag"])


class TestCnnRnn(SeriesTests):
    @classmethod
    def setup_class(cls) -> None:
        cls.method = made()


class TestCnnRnnWithAttention(SeriesTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(replace(TINY, attention=True, steps=40))


# ------------------------------------------------------------------ the grid


def times(*days: float) -> Any:
    start = np.datetime64("2020-04-09T10:30", "ns")
    return start + (np.array(days) * 86_400e9).astype("m8[ns]")


def block_of(days: tuple[float, ...], size: tuple[int, int] = (2, 3), seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    shape = (len(days), *size)
    when = times(*days)
    return Block(
        bands={
            "B08": rng.uniform(0.2, 0.5, shape).astype(np.float32),
            "B04": rng.uniform(0.02, 0.2, shape).astype(np.float32),
        },
        valid=rng.random(shape) < 0.6,
        time=when,
        out_time=when,
        sar={n: rng.uniform(-20, -8, shape).astype(np.float32) for n in ("VV", "VH")},
    )


def test_grid_covers_the_dates_to_within_half_a_step() -> None:
    day = np.datetime64("2020-04-09", "ns")
    assert grid_of(block_of((0, 100, 168)), 6) == Grid(day, 6, 29)
    assert grid_of(block_of((0, 170)), 6).steps == 29
    assert grid_of(block_of((0, 171)), 6).steps == 30
    asked = replace(block_of((3, 9)), out_time=times(0, 12))
    assert grid_of(asked, 6) == Grid(day, 6, 3)


def test_clear_values_go_to_their_nearest_step() -> None:
    when = times(0, 4, 7, 9, 20)
    grid = Grid(np.datetime64("2020-04-09", "ns"), 6, 4)
    values = np.arange(1, 6, dtype=np.float32)[:, None, None] * np.ones((1, 1, 2), np.float32)
    clear = np.ones(values.shape, bool)
    clear[2, 0, 1] = False
    found = on_grid(values, clear, when, grid)[:, 0]
    np.testing.assert_array_equal(found[:, 0], [1, 3, 4, 5])
    np.testing.assert_array_equal(found[:, 1], [1, 2, 4, 5])


def test_radar_bridges_dates_without_it() -> None:
    grid = Grid(np.datetime64("2020-04-09", "ns"), 6, 3)
    values = np.array([[1, np.nan], [np.nan, np.nan], [3, np.nan]], np.float32)[:, None]
    found = nearest_known(values, times(0, 6, 13), grid)
    np.testing.assert_array_equal(found[:, 0, 0], [1, 1, 3])
    assert np.isnan(found[:, 0, 1]).all()


def test_between_steps_it_is_linear() -> None:
    grid = Grid(np.datetime64("2020-04-09", "ns"), 6, 3)
    steps = np.array([0, 6, 0], np.float32)[:, None, None]
    found = at_dates(steps, times(0, 2, 6.4, 9, 12, 14), grid)
    np.testing.assert_allclose(found[:, 0, 0], [0, 2, 6, 3, 0, 0])


def test_on_its_own_grid_it_gives_what_the_net_gives() -> None:
    method = made()
    days = (0, 5, 13, 20, 28, 33, 42)
    block = replace(block_of(days), out_time=times(*range(0, 43, 6)))
    (out,) = method.fill([block])
    net = CnnRnn.net(TINY).eval()
    net.load_state_dict(checkpoint.load(method.checkpoint)[0])
    with torch.inference_mode():
        want = net(torch.from_numpy(method.encode(block)["x"]))[..., 0].numpy().T
    np.testing.assert_allclose(out.bands["NDVI"].reshape(8, -1), want, atol=1e-6)


# ------------------------------------------------------------------ inputs


def test_series_are_those_of_the_text() -> None:
    block = block_of((0, 6, 12), (1, 1))
    block.valid[:, 0, 0] = [True, False, True]
    block.bands["B08"][0] = block.bands["B04"][0] / 2
    x = made().encode(block)["x"]
    assert x.shape == (1, 8, 5)
    vv, vh = (block.sar[n][:, 0, 0] / -30 for n in ("VV", "VH"))
    nir, red = (block.bands[b][2, 0, 0] for b in ("B08", "B04"))
    for k, want in enumerate((vv, vh, vh - vv, vv / vh)):
        np.testing.assert_allclose(x[0, :3, k], want, rtol=1e-6)
        np.testing.assert_array_equal(x[0, 3:, k], x[0, 2, k])
    np.testing.assert_allclose(x[0, :3, 4], [0, MISSING, (nir - red) / (nir + red)], rtol=1e-6)
    np.testing.assert_array_equal(x[0, 3:, 4], MISSING)


def test_coherence_is_taken_where_present_and_asked_for_where_not() -> None:
    method = made(replace(TINY, coherence=True))
    block = block_of((0, 6, 12), (1, 1))
    with pytest.raises(MethodError, match=r"COH_VV.*assumed_coherence=0.3"):
        method.encode(block)
    assumed = replace(method, assumed_coherence=0.3).encode(block)["x"]
    np.testing.assert_allclose(assumed[0, :, 4:7], 0.3, rtol=1e-6)
    rng = np.random.default_rng(0)
    coherence = {n: rng.random((3, 1, 1)).astype(np.float32) for n in ("COH_VV", "COH_VH")}
    x = method.encode(replace(block, sar={**block.sar, **coherence}))["x"]
    a, b = (c[:, 0, 0] for c in coherence.values())
    for k, want in ((4, a), (5, b), (6, np.sqrt(a * b))):
        np.testing.assert_allclose(x[0, :3, k], want, rtol=1e-6)


def test_pixels_without_radar_are_left_and_say_so() -> None:
    ds = synthetic_cube(6, (3, 4), ("B04", "B08"), sar=True)
    ds["VV"][:, 1, 2] = np.nan
    ds["VH"][2:4] = np.nan
    out = gapfill(ds, made()).compute()
    left = ~ds["valid"].values[:, 1, 2]
    assert (out["fill_flag"].values[left, 1, 2] == Flag.UNFILLABLE).all()
    assert np.isnan(out["NDVI"].values[left, 1, 2]).all()
    assert np.isfinite(np.delete(out["NDVI"].values.reshape(6, -1), 6, axis=1)).all()


def test_a_cube_without_radar_is_refused() -> None:
    with pytest.raises(MethodError, match="no Sentinel-1"):
        gapfill(synthetic_cube(), made())


def test_clear_ndvi_is_put_back_and_the_rest_is_a_number_of_0_to_1() -> None:
    ds = synthetic_cube(20, (5, 6), ("B04", "B08"), sar=True)
    out = gapfill(ds, made()).compute()
    assert list(out.data_vars) == ["NDVI", "fill_flag"]
    ndvi = ((ds.B08 - ds.B04) / (ds.B08 + ds.B04)).values
    valid = ds["valid"].values
    np.testing.assert_allclose(out["NDVI"].values[valid], ndvi[valid], atol=1e-6)
    assert (out["fill_flag"].values[~valid] == Flag.LEARNED).all()
    assert ((out["NDVI"].values >= 0) & (out["NDVI"].values <= 1))[~valid].all()
    six = gapfill(ds, made(), times="6D")
    assert six.sizes["time"] == int((ds.time[-1] - ds.time[0].dt.floor("D")) / (6 * DAY)) + 1


@pytest.mark.parametrize("origin", [(0, 0), (5, 30), (16, 31)])
def test_a_pixel_has_its_place_in_the_cube(origin: tuple[int, int]) -> None:
    """The squares that go through the net are the cube's, whatever part of it a block is."""
    block = replace(block_of((0, 6, 12, 18), (37, 20)), origin=(0, *origin))
    seen: list[Block] = []

    class Watched(CnnRnn):
        def encode(self, block: Block) -> Arrays:
            seen.append(block)
            return super().encode(block)

    method = made()
    watched = Watched()
    object.__setattr__(watched, "checkpoint", method.checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watched, "_card", lambda self: checkpoint.read_card(self.checkpoint))
        found = list(watched.fill([block, block_of((0, 6), (1, 2))]))
    assert {b.valid.shape[1:] for b in seen} == {(16, 16)}
    y0, x0 = origin
    assert len(seen) == 1 + -(-(37 + y0 % 16) // 16) * -(-(20 + x0 % 16) // 16)
    part = {n: a[:, 15:23, 3:9] for n, a in block.bands.items()}
    sar = {n: a[:, 15:23, 3:9] for n, a in block.sar.items()}
    small = replace(
        block, bands=part, sar=sar, valid=block.valid[:, 15:23, 3:9], origin=(0, y0 + 15, x0 + 3)
    )
    (alone,) = method.fill([small])
    whole = found[0].bands["NDVI"]
    np.testing.assert_array_equal(alone.bands["NDVI"], whole[:, 15:23, 3:9])
    assert found[1].bands["NDVI"].shape == (2, 1, 2)


def test_the_authors_weights_fill_a_cube(reference_folder: Path, tmp_path: Path) -> None:
    state = CnnRnn.from_original(reference_folder / "weights" / "sf_fusion_model_weights.h5")
    folder = checkpoint.save(tmp_path / "net", state, card_of(CnnRnn(), licence="MIT"))
    ds = synthetic_cube(40, (3, 4), ("B04", "B08"), sar=True)
    out = gapfill(ds, CnnRnn(str(folder), assumed_coherence=0.3)).compute()
    assert np.isfinite(out["NDVI"].values).all()


def test_weights_of_another_net_are_refused(reference_folder: Path) -> None:
    path = reference_folder / "weights" / "mowing_model_weights.h5"
    with pytest.raises(StoreError, match=r"has 'conv1d_16/kernel:0'"):
        CnnRnn.from_original(path)
    with pytest.raises(MethodError, match="without coherence"):
        CnnRnn.from_original(path, TINY)
    with pytest.raises(MethodError, match="attention"):
        CnnRnn.from_original(path, ConfigCnnRnn(attention=True))


def test_a_series_method_must_give_its_series() -> None:
    class Bare(SeriesMethod):
        needs = Needs()

    with pytest.raises(NotImplementedError, match="Bare has no `series"):
        Bare().series(block_of((0, 6)), Grid(np.datetime64("2020-01-01", "ns"), 6, 2))


# ------------------------------------------------------------------ training


def test_weights_of_hidden_seen_and_cloudy_steps() -> None:
    truth = block_of((0, 6, 12, 18), (1, 1))
    truth.valid[:, 0, 0] = [True, True, False, True]
    gapped = replace(truth, valid=truth.valid & np.array([1, 0, 0, 1], bool)[:, None, None])
    found = made().target(truth, gapped)
    assert found["where"][0, :, 0].tolist() == [0.25, 0.75, 0, 0.25, 0, 0, 0, 0]
    ndvi = (truth.bands["B08"] - truth.bands["B04"]) / (truth.bands["B08"] + truth.bands["B04"])
    np.testing.assert_allclose(found["target"][0, :4, 0], ndvi[:, 0, 0] * [1, 1, 0, 1], rtol=1e-6)
    assert found["target"].shape == (1, 8, 1)


def test_it_trains_on_a_cube_and_fills(tmp_path: Path) -> None:
    ds = synthetic_cube(12, (16, 16), ("B04", "B08"), sar=True)
    method = CnnRnn().configured(**vars(TINY))
    samples = CubeSamples([ds], method, Blobs(), count=8, patch=4)
    recipe = Recipe(method="cnnrnn", epochs=2, batch=4, rate=0.01, device="cpu")
    folder = train.fit(method, samples, recipe, tmp_path / "net", progress=False)
    out = gapfill(ds, CnnRnn(str(folder))).compute()
    assert np.isfinite(out["NDVI"].values).all()


# ------------------------------------------------------------------ the authors' data


def their_file(path: Path, weights: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n, steps = 10, 8
    data: dict[str, Any] = {
        "X": rng.random((n, steps, 8)).astype(np.float32),
        "y": rng.random((n, steps)).astype(np.float32),
        "actual_cloud_absense": rng.random((n, steps)) < 0.7,
        "artificial_cloud_absense": rng.random((n, steps)) < 0.7,
        "pixel_id": np.arange(n),
        "training_instances": np.array([7, 1, 3, 0, 9, 2]),
        "validation_instances": np.array([4, 5, 6, 8]),
    }
    data["y"][1, 2] = MISSING
    data["weights"] = np.where(
        data["actual_cloud_absense"], np.where(data["artificial_cloud_absense"], 0.25, 0.75), 0
    )
    with h5py.File(path, "w") as file:
        for name, a in data.items():
            if name != "weights":
                file[name] = a
        if weights:
            file["training_weights"] = data["weights"]
    return data


@pytest.mark.parametrize("weights", [True, False])
def test_their_samples(tmp_path: Path, weights: bool) -> None:
    data = their_file(tmp_path / "data.h5", weights)
    samples = Hdf5Samples(tmp_path / "data.h5", group=2)
    assert len(samples) == 3
    found = samples[0]
    np.testing.assert_array_equal(found["x"], data["X"][[7, 1]])
    want = data["weights"][[7, 1]].astype(np.float32)
    want[1, 2] = 0
    np.testing.assert_array_equal(found["where"][..., 0], want)
    assert found["target"][1, 2, 0] == 0
    np.testing.assert_array_equal(found["target"][0, :, 0], data["y"][7])
    assert len(Hdf5Samples(tmp_path / "data.h5", "validation", group=4)) == 1
    np.testing.assert_array_equal(
        Hdf5Samples(tmp_path / "data.h5", "all", 5)[1]["x"], data["X"][5:]
    )
    with pytest.raises(IndexError, match="0 to 2"):
        samples[3]
    others = [("training", 1), ("validation", 2), ("all", 2)]
    digests = {Hdf5Samples(tmp_path / "data.h5", part, group).digest for part, group in others}
    assert len(digests | {samples.digest}) == 4
    assert Hdf5Samples(tmp_path / "data.h5", group=2).digest == samples.digest


def test_it_trains_on_their_samples(tmp_path: Path) -> None:
    their_file(tmp_path / "data.h5")
    method = CnnRnn().configured(**vars(replace(TINY, coherence=True)))
    parts = [Hdf5Samples(tmp_path / "data.h5", p, group=2) for p in ("training", "validation")]
    recipe = Recipe(method="cnnrnn", epochs=3, batch=2, rate=0.01, device="cpu")
    folder = train.fit(
        method, parts[0], recipe, tmp_path / "net", validation=parts[1], progress=False
    )
    assert checkpoint.read_card(folder).config["steps"] == 8


def test_their_file_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with pytest.raises(StoreError, match="cannot be read"):
        Hdf5Samples(path)
    their_file(path)
    with pytest.raises(StoreError, match=r"4 series for 'validation'.*group=4"):
        Hdf5Samples(path, "validation")
    with pytest.raises(StoreError, match=r"lacks 'test_instances'"):
        Hdf5Samples(path, "test", 2)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(StoreError, match="cannot be read"):
        Hdf5Samples(path)
