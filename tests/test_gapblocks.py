"""Blocks of GeoTIFF files, read, written and trained on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from benchmarks.reference import gapblocks
from benchmarks.reference.gapblocks import BlockSamples, GapBlock
from cubefill import train
from cubefill.errors import StoreError
from cubefill.methods.learned.stpconv import ConfigSTpconv, STpconv
from cubefill.train.recipe import Recipe
from tests.shared.torch_thread import one_thread as one_thread


def test_blocks_are_read_and_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((3, 4, 6)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.3] = np.nan
    hidden = np.isfinite(truth) & (rng.random(truth.shape) < 0.3)
    given = np.where(hidden, np.float32(np.nan), truth)
    block = GapBlock("3_1_2", given, truth, hidden, "EPSG:4326", (0.1, 0, 5.0, 0, -0.1, 50.0))
    assert len(gapblocks.write(tmp_path, block)) == 4
    assert gapblocks.names(tmp_path) == ["3_1_2"]
    back = gapblocks.read(tmp_path, "3_1_2")
    for name in ("given", "truth", "hidden", "valid"):
        np.testing.assert_array_equal(getattr(back, name), getattr(block, name))
    assert back.transform == pytest.approx(block.transform)
    assert "WGS 84" in back.crs
    ds = gapblocks.to_cube(back)
    assert ds["CO"].dims == ("time", "y", "x")
    np.testing.assert_allclose(ds["x"][:2], [5.05, 5.15])
    np.testing.assert_allclose(ds["y"][:2], [49.95, 49.85])
    assert str(ds["time"].values[0])[:10] == "2000-01-07"


def test_negative_values_are_kept_where_they_are_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(-1, 1, (2, 8, 8)).astype(np.float32)
    truth[0, 0] = np.nan
    hidden = np.isfinite(truth) & (rng.random(truth.shape) < 0.3)
    given = np.where(hidden, np.float32(np.nan), truth)
    grid = ("EPSG:4326", (0.1, 0, 5.0, 0, -0.1, 50.0))
    gapblocks.write(tmp_path, GapBlock("0_0_0", given, truth, hidden, *grid))
    back = gapblocks.read(tmp_path, "0_0_0", negative=True)
    for name in ("given", "truth", "hidden", "valid"):
        np.testing.assert_array_equal(getattr(back, name), {
            "given": given, "truth": truth, "hidden": hidden, "valid": np.isfinite(given),
        }[name])  # fmt: skip
    authors = gapblocks.read(tmp_path, "0_0_0")
    np.testing.assert_array_equal(np.isfinite(authors.truth), truth >= 0)
    np.testing.assert_array_equal(authors.hidden, hidden & (truth >= 0))


def test_predictions_are_written_on_the_grid(tmp_path: Path) -> None:
    a = np.ones((2, 3, 4), np.float32)
    block = GapBlock("0_0_0", a, a, a < 0, "EPSG:4326", (0.1, 0, 5.0, 0, -0.1, 50.0))
    values = a.copy()
    values[0, 0, 0] = np.nan
    path = gapblocks.write_prediction(tmp_path, block, values)
    with rasterio.open(path) as file:
        assert (path.name, file.count, file.dtypes[0]) == ("PRED_0_0_0.tif", 2, "float32")
        assert file.transform.c == 5.0
        assert file.read(masked=True).mask.sum() == 1
    with pytest.raises(StoreError, match=r"\(1, 3, 4\): expected \(2, 3, 4\)"):
        gapblocks.write_prediction(tmp_path, block, values[:1])


def test_the_authors_blocks_survive_a_round_trip(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "stpconv" / "validation"
    name = gapblocks.names(folder)[0]
    block = gapblocks.read(folder, name)
    assert len(gapblocks.names(folder)) == 15
    np.testing.assert_array_equal(block.hidden, np.isfinite(block.truth) & ~block.valid)
    np.testing.assert_array_equal(block.given[block.valid], block.truth[block.valid])
    gapblocks.write(tmp_path, block)
    back = gapblocks.read(tmp_path, name)
    np.testing.assert_array_equal(back.truth, block.truth)
    assert (back.crs, back.transform) == (block.crs, block.transform)


def test_blocks_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No block in .*X_10_3_17.tif"):
        gapblocks.names(tmp_path)
    a = np.ones((2, 3, 4), np.float32)
    grid = ("EPSG:4326", (0.1, 0.0, 5.0, 0.0, -0.1, 50.0))
    gapblocks.write(tmp_path, GapBlock("0_0_0", a, a, a < 0, *grid))
    gapblocks.write(tmp_path / "other", GapBlock("0_0_0", a[:1], a[:1], a[:1] < 0, *grid))
    shutil.copy(tmp_path / "other" / "MASK_0_0_0.tif", tmp_path)
    with pytest.raises(StoreError, match=r"MASK_0_0_0.tif has shape \(1, 3, 4\)"):
        gapblocks.read(tmp_path, "0_0_0")
    (tmp_path / "MASK_0_0_0.tif").write_bytes(b"no image")
    with pytest.raises(StoreError, match="cannot be read"):
        gapblocks.read(tmp_path, "0_0_0")


def test_a_net_learns_from_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        truth = rng.uniform(0.02, 0.04, (4, 8, 8)).astype(np.float32)
        hidden = rng.random(truth.shape) < 0.3
        given = np.where(hidden, np.float32(np.nan), truth)
        grid = ("EPSG:4326", (0.1, 0.0, 5.0, 0.0, -0.1, 50.0))
        gapblocks.write(tmp_path, GapBlock(f"{i}_0_0", given, truth, hidden, *grid))
    config = ConfigSTpconv(filters=(2,), kernels=(3,), strides=((2, 2, 2),), size=8)
    method = STpconv().configured(**vars(config))
    samples = BlockSamples(tmp_path, method)
    assert len(samples) == 4
    assert samples[1]["where"].sum() == gapblocks.read(tmp_path, "1_0_0").hidden.sum()
    recipe = Recipe(method="stpconv", epochs=2, batch=2, rate=0.01, device="cpu")
    folder = train.fit(method, samples, recipe, tmp_path / "net", progress=False)
    (out,) = STpconv(str(folder)).fill([gapblocks.to_blocks(gapblocks.read(tmp_path, "0_0_0"))[1]])
    assert np.isfinite(out.bands["CO"]).all()
