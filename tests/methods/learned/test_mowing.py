"""The mowing net in the engine: its features, and how it is taught."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill import train
from cubefill.applications import mowing as events
from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.methods.learned.method import card_of
from cubefill.methods.learned.mowing import ConfigMowing, Mowing, features
from cubefill.nn import checkpoint
from cubefill.testing import synthetic_cube
from cubefill.train.recipe import Recipe
from tests.methods.learned.test_cnnrnn import block_of
from tests.shared import decloud
from tests.shared.torch_thread import one_thread as one_thread

TINY = ConfigMowing(steps=8, features=4, convs=(2, 3), units=3)


@cache
def made() -> Mowing:
    """The method with a checkpoint of first weights."""
    method: Mowing = decloud.made(
        Mowing,
        **vars(TINY),
    )
    return method


def ndvi_cube(dates: int = 15) -> xr.Dataset:
    ds = synthetic_cube(dates, (5, 6), ("B04", "B08"), sar=True)
    ndvi = ((ds.B08 - ds.B04) / (ds.B08 + ds.B04)).astype(np.float32)
    return ds.drop_vars(["B04", "B08", "SCL"]).assign(NDVI=ndvi)


def test_features_of_the_text_and_of_the_authors_code() -> None:
    rng = np.random.default_rng(0)
    vv, vh, a, b, ndvi = rng.uniform(0.2, 0.8, (5, 4, 3)).astype(np.float32)
    text = features(vv, vh, a, b, ndvi)
    theirs = features(vv, vh, a, b, ndvi, formulas="authors")
    assert list(text) == list(theirs)
    differing = {n for n in text if not np.array_equal(text[n], theirs[n])}
    assert differing == {"cross_ratio", "rvi", "change_vh"}
    np.testing.assert_allclose(text["cross_ratio"], vh - vv)
    np.testing.assert_allclose(text["rvi"], 4 * vh / (vv + vh))
    np.testing.assert_allclose(text["change_vh"][1:], vh[1:] - vh[:-1])
    assert not text["change_vv"][0].any()
    np.testing.assert_allclose(text["coherence_mixed"], np.sqrt(a * b))
    np.testing.assert_array_equal(theirs["cross_ratio"], theirs["ratio"])
    np.testing.assert_allclose(theirs["rvi"], vv / (vv + vh))
    np.testing.assert_array_equal(theirs["change_vh"], theirs["change_vv"])
    with pytest.raises(MethodError, match="'text' or 'authors'"):
        features(vv, vh, a, b, ndvi, formulas="both")  # type: ignore[arg-type]


def test_it_gives_probabilities_for_any_tiles_on_its_grid() -> None:
    ds = ndvi_cube()
    method = Mowing(made().checkpoint, assumed_coherence=0.3)
    out = gapfill(ds, method, times="6D").compute()
    assert list(out.data_vars) == ["mowing", "fill_flag"]
    assert ((out["mowing"] > 0) & (out["mowing"] < 1)).all()
    tiled = gapfill(ds.chunk({"y": 2}), method, times="6D", tile=3).compute()
    np.testing.assert_array_equal(out["mowing"], tiled["mowing"])
    found = events.mowing_probability(ds, method.checkpoint, times="6D", assumed_coherence=0.3)
    np.testing.assert_array_equal(out["mowing"], found)
    assert events.mowing_events(found, threshold=0.0).keys() == {
        (y, x) for y in range(5) for x in range(6)
    }


def test_pixels_without_ndvi_are_left() -> None:
    ds = ndvi_cube()
    ds["NDVI"][:, 2, 3] = np.nan
    method = Mowing(made().checkpoint, assumed_coherence=0.3)
    out = gapfill(ds, method)["mowing"].values
    assert np.isnan(out[:, 2, 3]).all()
    assert np.isnan(out).sum() == len(out)


def test_the_authors_weights_run_on_a_cube(reference_folder: Path, tmp_path: Path) -> None:
    state = Mowing.from_original(reference_folder / "weights" / "mowing_model_weights.h5")
    card = card_of(Mowing().configured(formulas="authors"), licence="MIT")
    folder = checkpoint.save(tmp_path / "net", state, card)
    method = Mowing(str(folder), assumed_coherence=0.3)
    assert method.config.formulas == "authors"
    assert np.isfinite(gapfill(ndvi_cube(40), method, times="6D")["mowing"].values).all()


class Dated:
    """Series whose first half or second half holds an event."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        dates = np.datetime64("2020-05-01") + 6 * np.arange(8)
        late = index % 2
        target, where = events.labels([events.Event(dates[2 + 3 * late])], dates)
        x = rng.normal(0.5, 0.01, (1, 8, 11)).astype(np.float32)
        x[0, 2 + 3 * late :, 10] -= 0.4
        return {"x": x, "target": target[None], "where": where[None]}


def test_it_is_taught_by_dated_events(tmp_path: Path) -> None:
    method = Mowing().configured(**vars(TINY))
    recipe = Recipe(method="mowing", loss="bce", epochs=2, batch=4, device="cpu")
    folder = train.fit(method, Dated(), recipe, tmp_path / "net", progress=False)
    assert Mowing(str(folder)).config == TINY
    block = block_of((0, 6))
    with pytest.raises(MethodError, match=r"cubefill.applications.mowing.labels"):
        method.target(block, block)
