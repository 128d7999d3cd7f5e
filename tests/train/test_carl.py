"""The Decloud nets learn by the cloud-adaptive loss, from cubes and from a store of samples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import cubefill
from cubefill import samples, simulate, train
from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.gaps import Blobs
from cubefill.layout import names
from cubefill.methods.learned.decloud import BANDS, BANDS_20M, DecloudMethod
from cubefill.methods.learned.decloud_nets import MsopDavid, MsopUnet, SsopMer, SsopUnet
from cubefill.nn import checkpoint
from cubefill.nn.objective import Supervised
from cubefill.samples.patches import CubeSamples
from cubefill.train.recipe import Recipe
from cubefill.train.state import TrainingState, batches
from tests.shared.decloud import NARROW, OS1, SMALL, block, of_bands, wanted
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.train_runs import log, state

CARL = Recipe(loss="carl", rate=3e-3, epochs=3, batch=4, log_every=1, micro=2, seed=1)


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return simulate.scene(
        size=(48, 64), days=160, seed=3, cloud=0.4, bands=BANDS, sar=True, dem=False
    ).cube


def test_clear_is_what_was_seen_of_the_date_to_give() -> None:
    method = MsopUnet().configured(**NARROW)
    given = wanted(of_bands(block(5)), 14)
    given.bands["B03"][2, 4, 5] = np.nan
    seen = given.valid[2].copy()
    seen[4, 5] = False
    truth = replace(given, valid=np.ones_like(given.valid))
    found = method.target(truth, given)
    np.testing.assert_array_equal(found["clear"], seen[None])
    one = replace(truth, time=truth.time[4:] + 1, valid=truth.valid[4:],
                  bands={n: a[4:] for n, a in truth.bands.items()})  # fmt: skip
    np.testing.assert_array_equal(method.target(one, given)["clear"], seen[None])
    np.testing.assert_array_equal(method.target(one, given)["target"][0], truth.bands["B02"][4])


@pytest.mark.parametrize("layout", [OS1, "monthly"])
def test_a_date_that_is_not_shown_has_no_clear_part(layout: str) -> None:
    method = MsopDavid().configured(**NARROW, layout=layout)
    given = wanted(of_bands(block(5)), 14)
    assert sorted(method.target(given, given)) == ["target", "where"]


@pytest.mark.parametrize("name", names())
def test_layouts_that_show_the_date_to_give_and_no_others_take_it(name: str) -> None:
    method = MsopDavid().configured(**NARROW, layout=name)
    net = method.net(method.config)
    assert isinstance(method.objective(net, replace(CARL, loss="l1")), Supervised)
    if name in ("crga-os1-burkina", OS1, "monthly", "monthly-difficult"):
        message = f"loss='carl' for layout '{name}': expected .* Pass loss='l1'"
        with pytest.raises(MethodError, match=message):
            method.objective(net, CARL)
    else:
        assert isinstance(method.objective(net, CARL), Supervised)


def by_hand(net: torch.nn.Module, batch: Any, own: int, wide: bool) -> float:
    """The loss of a batch, one value after another."""
    unseen = ("target", "where", "clear")
    with torch.no_grad():
        pred = net(**{n: a for n, a in batch.items() if n not in unseen}).numpy()
    target, where, clear = (batch[n].numpy() for n in unseen)
    optical = batch["optical"][:, own].numpy()
    total = 0.0
    for s, b, y, x in np.ndindex(pred.shape):
        if b < 4:
            shown, kept = optical[s, b, y, x], clear[s, 0, y, x]
        else:
            shown = batch["optical_20m"][s, own, b - 4, y // 2, x // 2].item()
            square = clear[s, 0, y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2]
            kept = square.all()
        off = abs(pred[s, b, y, x] - target[s, b, y, x]) * where[s, b, y, x]
        total += off + (abs(pred[s, b, y, x] - shown) if kept else off)
    assert wide == (pred.shape[1] == 10)
    return float(total / pred.size)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("kind", "own"), [(SsopUnet, 0), (MsopUnet, 1), (SsopMer, 0)])
def test_the_loss_of_a_batch_is_that_of_its_formula(
    kind: type[DecloudMethod], own: int, wide: bool
) -> None:
    small = {**SMALL, "width": 4, "blocks": 1} if kind is SsopMer else NARROW
    method = kind().configured(**small, bands_20m=BANDS_20M if wide else ())
    torch.manual_seed(0)
    net = method.net(method.config)
    found = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        truth = wanted(block(5) if wide else of_bands(block(5)), 14)
        valid = truth.valid & (rng.random(truth.valid.shape) > 0.1)
        valid[2, :8] |= truth.valid[2, :8]
        given = replace(truth, valid=valid & (rng.random(valid.shape) > 0.3))
        given.bands["B03"][2, 4, 5:9] = np.nan
        found.append(method.encode(given) | method.target(truth, given))
    batch = {n: torch.from_numpy(np.stack([f[n] for f in found])) for n in found[0]}
    assert 0.1 < float(batch["clear"].float().mean()) < 0.9
    learns = method.objective(net, replace(CARL, micro=0))
    expected = by_hand(net, batch, own, wide)
    assert learns.score(batch) == pytest.approx((expected, 3), rel=1e-5)
    assert learns.step(batch)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [pytest.param(MsopDavid, marks=pytest.mark.slow), SsopUnet])
def test_a_net_learns_by_it_from_cubes(
    tmp_path: Path, cube: xr.Dataset, kind: type[DecloudMethod]
) -> None:
    method = kind().configured(**NARROW)
    given = CubeSamples([cube], method, Blobs(), count=8, cloudy=True)
    sample = given[0]
    assert sample["clear"].shape == (1, 16, 16)
    folder = train.fit(method, given, CARL, tmp_path / "net", progress=False)
    scores = [float(r["score"]) for r in log(folder, "epoch")]
    assert scores[-1] < scores[0]
    assert checkpoint.read_card(folder).recipe["loss"] == "carl"
    plain = train.fit(method, given, replace(CARL, loss="l1"), tmp_path / "l1", progress=False)
    assert any(not torch.equal(a, state(plain)[n]) for n, a in state(folder).items())
    out = gapfill(cube, kind(checkpoint=str(folder))).compute()
    assert np.isfinite(out["B08"].values).all()


def test_a_recipe_learns_by_it_from_a_store(tmp_path: Path, cube: xr.Dataset) -> None:
    store = tmp_path / "msop.zarr"
    samples.make([cube], "msop", None, store, patch=16, splits=(0.6, 0.2, 0.2), progress=False)
    (tmp_path / "mine.toml").write_text(
        f"""
        method = "msop_david"
        loss = "l1"
        batch = 4
        epochs = 1
        updates = 3
        [config]
        patch = 16
        pad = 4
        widths = [4, 4, 4]
        [samples]
        store = "{store}"
        augment = true
        """
    )
    folder = train.run_recipe(tmp_path / "mine.toml", tmp_path / "net", progress=False, loss="carl")
    card = checkpoint.read_card(folder)
    assert card.recipe["loss"] == "carl"
    assert 0 < card.scores["loss"] < 2
    method = MsopDavid().configured(**NARROW)
    part = samples.open(store, "train", method, augment=True)
    seen = next(iter(batches(part, Recipe(batch=8, seed=2), TrainingState())))
    shown = seen["optical"][:, 1] - seen["target"]
    assert shown.abs().max() > 0, "the target is another date"
    assert 0 < float(seen["clear"].float().mean()) < 1
    other = tmp_path / "other"
    changed: dict[str, Any] = {"loss": "carl", "config.layout": OS1}
    with pytest.raises(MethodError, match=r"loss='carl' for layout 'crga-os1-occitanie'"):
        train.run_recipe(tmp_path / "mine.toml", other, progress=False, **changed)
    assert not (other / "card.json").exists()


@pytest.mark.parametrize("name", ["utilise", "ganfilling", "seq2seq", "stpconv"])
def test_other_methods_refuse_it(tmp_path: Path, cube: xr.Dataset, name: str) -> None:
    small: dict[str, Any] = {
        "utilise": {"patch": 16, "pad": 4, "widths": [4, 4, 8], "heads": 2},
        "stpconv": {"size": 16},
    }
    method: Any = cubefill.methods.resolve(name)
    method = method.configured(**small.get(name, {"width": 2}))
    given = CubeSamples([cube], method, Blobs(), count=4)
    with pytest.raises(MethodError, match=r"loss='carl' .*ssop_mer, ssop_unet, msop_unet or|of ss"):
        train.fit(method, given, CARL, tmp_path / "net", progress=False)
    assert not (tmp_path / "net").exists()
