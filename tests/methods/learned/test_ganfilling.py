import pickle
from argparse import Namespace
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

from cubefill.engine import gapfill
from cubefill.errors import CubefillError, MethodError, StoreError
from cubefill.methods.contract import Block, Flag
from cubefill.methods.learned.ganfilling import (
    GanFilling,
    GeneratorConfig,
    Seq2Seq,
    from_names,
    original_shapes,
    sizes_of,
)
from cubefill.methods.learned.method import card_of
from cubefill.nn import checkpoint
from cubefill.nn.convlstm import Generator
from cubefill.nn.objective import Adversarial, Supervised
from cubefill.samples.patches import CubeSamples
from cubefill.testing import MethodTests, synthetic_cube
from cubefill.train import fit
from cubefill.train.recipe import Recipe, read
from tests.nn.convlstm_reference import by_formula, generate
from tests.shared import decloud
from tests.shared.torch_thread import one_thread as one_thread

BANDS = ("B02", "B03", "B04", "B08")


def tensors(width: int) -> dict[str, torch.Tensor]:
    """The authors' tensors at another width, filled by formula."""
    shapes = original_shapes(sizes_of(GeneratorConfig(width=width)))
    return {n: by_formula(n, s) for n, s in shapes.items()}


def original(folder: Path, width: int = 8, **changes: Any) -> Path:
    """A file as the authors publish it."""
    path = folder / "GANFilling.pt"
    configuration = Namespace(
        dataPath="data/train", name="run", maxEpochs=1, lrD=2e-4, lambdaL1=100
    )
    torch.save({"model": tensors(width) | changes, "configuration": configuration}, path)
    return path


@cache
def trained(method: type = GanFilling, width: int = 2) -> str:
    """A checkpoint of a small net whose answer is not 0."""
    config = GeneratorConfig(width=width, patch_keep=112)
    net = GanFilling.net(config)
    checkpoint.load_state(net, from_names(tensors(width), sizes_of(config)))
    return decloud.saved(method, net, config)


def block(series: dict[str, Any], valid: np.ndarray[Any, Any]) -> Block:
    time = np.datetime64("2023-01-01", "ns") + 5 * np.arange(len(valid)).astype("m8[D]")
    return Block(bands=series, valid=valid, time=time, out_time=time)


class TestGanFilling(MethodTests):
    dates: ClassVar[int] = 8
    size: ClassVar[tuple[int, int]] = (133, 24)  # two patches of 128, the least there is

    @classmethod
    def setup_class(cls) -> None:
        cls.method = GanFilling(checkpoint=trained())

    def block(self, ds: xr.Dataset | None = None, *, seed: int = 0, std: bool = False) -> Block:
        """One patch: the narrow cube again and again along x."""
        given = self.cube(seed=seed) if ds is None or seed else ds
        return super().block(given.isel(x=np.arange(128) % self.size[1]), std=std)

    def test_answer_does_not_depend_on_chunks(self) -> None:
        ds = self.cube()
        whole = self.filled(ds)
        self.same(whole, self.filled(ds.chunk({"time": 5, "y": 70, "x": 13}), tile=97))

    def test_answer_does_not_depend_on_tiles(self) -> None:
        ds = self.cube()
        self.same(self.filled(ds), self.filled(ds, tile=100))


# ------------------------------------------------------------------ what the net is given


def test_input_is_the_authors() -> None:
    values = np.array([[0.1, -0.2, 1.4, np.nan], [0.3, 0.8, 0.2, 0.0]], np.float32)
    series = {b: values.reshape(2, 2, 2) + i for i, b in enumerate(BANDS)}
    valid = np.ones((2, 2, 2), bool)
    valid[1, 0, 1] = False
    shuffled = {b: series[b] for b in reversed(BANDS)}

    hidden = Hidden().encode(block(shuffled, valid))["x"]
    assert hidden.shape == (2, 4, 2, 2)
    assert hidden.dtype == np.float32
    np.testing.assert_allclose(hidden[0, 0].ravel(), [0.1, 0, 1, 1])
    np.testing.assert_allclose(hidden[1, 0].ravel(), [0.3, 1, 0.2, 0])
    np.testing.assert_allclose(hidden[0, 1].ravel(), [1, 0.8, 1, 1])
    np.testing.assert_array_equal(hidden[:, 2:], 1)

    seen = GanFilling().encode(block(shuffled, valid))["x"]
    np.testing.assert_allclose(seen[1, 0].ravel(), [0.3, 0.8, 0.2, 0])
    expected = np.nan_to_num(np.clip(np.stack([series[b] for b in BANDS], 1), 0, 1), nan=1.0)
    np.testing.assert_array_equal(seen, expected)


class Hidden(GanFilling):
    config = GeneratorConfig(clouds="hidden")


def test_input_is_not_changed_by_encoding() -> None:
    series = {b: np.full((2, 3, 3), 1.5, np.float32) for b in BANDS}
    GanFilling().encode(block(series, np.zeros((2, 3, 3), bool)))
    assert all((a == 1.5).all() for a in series.values())


def test_what_is_learnt_are_clear_values() -> None:
    series = {b: np.full((1, 2, 2), 0.2, np.float32) for b in BANDS}
    series["B04"][0, 0, 0] = np.nan
    valid = np.array([[[True, True], [False, True]]])
    truth = block(series, valid)
    gapped = replace(truth, valid=valid & False)
    found = GanFilling().target(truth, gapped)
    assert found["where"].sum() == 3 * 4 - 1
    assert np.isfinite(found["target"]).all()


# ------------------------------------------------------------------ one pass, many passes


def test_one_patch_is_the_net() -> None:
    method = GanFilling(checkpoint=trained(width=8))
    ds = synthetic_cube(dates=10, size=(128, 128), gap=0.5)
    out = gapfill(ds, method).compute()
    valid = ds["valid"].values
    x = np.stack([np.clip(ds[b].values, 0, 1) for b in BANDS], axis=1)
    w = {n: t.double() for n, t in tensors(8).items()}
    expected = generate(w, torch.from_numpy(x).double()[None])[0].numpy()
    for i, band in enumerate(BANDS):
        a = out[band].values
        np.testing.assert_array_equal(a[valid], ds[band].values[valid])
        np.testing.assert_allclose(a[~valid], expected[:, i][~valid], atol=1e-5)
    assert (out["fill_flag"].values[~valid] == Flag.LEARNED).all()


@pytest.mark.parametrize(("dates", "size"), [(1, (1, 1)), (23, (57, 301)), (11, (129, 5))])
def test_any_size_and_length(dates: int, size: tuple[int, int]) -> None:
    method = GanFilling(checkpoint=trained(width=1))
    ds = synthetic_cube(dates=dates, size=size, gap=0.3)
    out = gapfill(ds, method).compute()
    assert all(np.isfinite(out[b].values).all() for b in BANDS)


def test_windows_answer_for_their_last_dates() -> None:
    """What a window gives for a date is what the net gives for that window alone."""
    method = GanFilling(checkpoint=trained())
    ds = synthetic_cube(dates=17, size=(128, 128), gap=0.5)
    out = gapfill(ds, method).compute()
    last = gapfill(ds.isel(time=slice(7, 17)), method).compute()
    middle = gapfill(ds.isel(time=slice(5, 15)), method).compute()
    for b in BANDS:
        np.testing.assert_array_equal(out[b].values[15:], last[b].values[8:])
        np.testing.assert_array_equal(out[b].values[10:15], middle[b].values[5:])


# ------------------------------------------------------------------ the authors' file


def test_original_file_is_read_without_unpickling_at_large(tmp_path: Path) -> None:
    path = original(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    folder = GanFilling.convert(path, tmp_path / "net")
    method = GanFilling(checkpoint=str(folder))
    assert method.config == GeneratorConfig(width=8)
    _, card = checkpoint.load(folder)
    assert card.recipe["lambdaL1"] == 100
    net = checkpoint.load_net(
        folder, lambda c: GanFilling.net(checkpoint.config_of(c, GeneratorConfig))
    )
    x = torch.rand(1, 2, 4, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), generate(tensors(8), x), rtol=0, atol=1e-5)


def test_original_file_gives_its_values_and_drops_the_unused(tmp_path: Path) -> None:
    path = original(tmp_path)
    state = GanFilling.from_original(path)
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in tensors(8).values())
    less = GanFilling.from_original(path, GeneratorConfig(width=8, unused=False))
    assert set(state) - set(less) == {"unused.inward", "unused.recurrent"}
    net = Generator(sizes_of(GeneratorConfig(width=8, unused=False)))
    checkpoint.load_state(net, less)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("owned"),))


def test_code_in_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"model": tensors(1), "configuration": Evil()}, path)
    with pytest.raises(StoreError, match="refused"):
        GanFilling.from_original(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.weight": torch.zeros(8, 3, 3, 3)}, "conv1.weight"),
        ({"conv9.weight": torch.zeros(1)}, "conv9.weight"),
        ({"conv_lstm_d1.conv.weight": torch.zeros(256, 64, 3, 3)}, "conv_lstm_d1"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        GanFilling.from_original(original(tmp_path, **changes))


def test_missing_tensor_and_cut_file_are_refused(tmp_path: Path) -> None:
    found = tensors(2)
    del found["conv_out.bias"]
    path = tmp_path / "short.pt"
    torch.save({"model": found, "configuration": Namespace()}, path)
    with pytest.raises(MethodError, match=r"conv_out\.bias"):
        GanFilling.from_original(path)
    whole = original(tmp_path, 1)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(StoreError, match="cannot be read"):
        GanFilling.from_original(whole)
    torch.save({"state": {}}, path)
    with pytest.raises(StoreError, match="'model'"):
        GanFilling.from_original(path)


# ------------------------------------------------------------------ refusals, learning


def test_bad_options_are_refused() -> None:
    for wrong in ({"patch": 100}, {"patch_keep": 200}, {"keep": 11}, {"keep": 0}, {"clouds": "x"}):
        with pytest.raises(MethodError, match="expected"):
            GeneratorConfig(**wrong)


def test_no_checkpoint_and_missing_bands_are_refused() -> None:
    ds = synthetic_cube(dates=2, size=(8, 8))
    with pytest.raises(CubefillError, match="checkpoint"):
        gapfill(ds, GanFilling()).compute()
    with pytest.raises(CubefillError, match="B08"):
        gapfill(ds.drop_vars("B08"), GanFilling(checkpoint=trained(width=1)))


def test_learns_against_an_adversary() -> None:
    torch.manual_seed(0)
    method = GanFilling()
    net = Generator(sizes_of(GeneratorConfig(width=2)))
    objective = method.objective(net, Recipe(method="ganfilling", rate=2e-3))
    assert isinstance(objective, Adversarial)
    ds = synthetic_cube(dates=5, size=(128, 128), gap=0.3)
    batch = {n: torch.from_numpy(a)[None] for n, a in samples(method, ds).items()}
    batch["discriminator_windows"] = torch.rand(1, 4, 4, 64, 64)
    losses = [objective.step(batch) for _ in range(3)]
    assert all(np.isfinite(list(step.values())).all() for step in losses)
    assert losses[-1]["reconstruction"] < losses[0]["reconstruction"]


def samples(method: GanFilling, ds: xr.Dataset) -> dict[str, np.ndarray[Any, Any]]:
    given = block({b: ds[b].values for b in BANDS}, ds["valid"].values)
    return {**method.encode(given), **method.target(given, given)}


def test_shipped_recipe_ends_in_a_checkpoint_that_fills(tmp_path: Path) -> None:
    ds = synthetic_cube(dates=12, size=(130, 140), gap=0.0)
    ds["valid"][2, :30] = False
    recipe = replace(read("ganfilling"), config={"width": 1}, batch=2, device="cpu")
    taken = CubeSamples([ds], GanFilling(), None, count=4, dates=10, discriminator_windows=(4, 64))
    folder = fit(GanFilling, taken, recipe, tmp_path / "net", progress=False)
    out = gapfill(ds, GanFilling(checkpoint=str(folder))).compute()
    assert np.isfinite(out["B08"].values).all()
    assert (out["fill_flag"].values[2, :30] == Flag.LEARNED).all()


def test_card_says_what_the_net_needs() -> None:
    card = card_of(GanFilling())
    assert card.method == "cubefill.methods.learned.ganfilling:GanFilling"
    assert card.config == asdict(GeneratorConfig())


# ------------------------------------------------------------------ the net without an adversary


def test_is_the_net_of_ganfilling(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ds = synthetic_cube(dates=3, size=(20, 31))
    a = gapfill(ds, GanFilling(checkpoint=trained())).compute()
    b = gapfill(ds, Seq2Seq(checkpoint=trained(Seq2Seq))).compute()
    for band in BANDS:
        np.testing.assert_array_equal(a[band].values, b[band].values)


def test_checkpoint_of_the_other_is_refused() -> None:
    with pytest.raises(MethodError, match="ganfilling:GanFilling"):
        Seq2Seq(checkpoint=trained())


def test_counts_are_those_of_the_generator() -> None:
    with torch.device("meta"):
        net = Seq2Seq.net(Seq2Seq().config)
    assert sum(p.numel() for p in net.parameters()) == 181_746_628


def test_learns_without_an_adversary(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Generator(sizes_of(GeneratorConfig(width=2)))
    objective = Seq2Seq().objective(net, Recipe(method="seq2seq", rate=2e-3))
    assert isinstance(objective, Supervised)
    ds = synthetic_cube(dates=5, size=(128, 128), gap=0.3)
    given = block({b: ds[b].values for b in BANDS}, ds["valid"].values)
    arrays = {**Seq2Seq().encode(given), **Seq2Seq().target(given, given)}
    batch = {n: torch.from_numpy(a)[None] for n, a in arrays.items()}
    losses = [objective.step(batch)["loss"] for _ in range(3)]
    assert losses[-1] < losses[0]
    card = checkpoint.Card("cubefill.methods.learned.ganfilling:Seq2Seq", {"width": 2})
    folder = checkpoint.save(tmp_path / "net", net.state_dict(), card)
    out = gapfill(ds, Seq2Seq(checkpoint=str(folder))).compute()
    assert np.isfinite(out["B02"].values).all()
