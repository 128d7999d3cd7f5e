import csv
import os
import pickle
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from cubefill import checkpoint, engine, simulate, train
from cubefill.errors import CubeError, CubefillError, MethodError, StoreError
from cubefill.gaps import Blobs
from cubefill.method import Needs
from cubefill.methods._torch import TorchMethod
from cubefill.nn import losses
from cubefill.nn.objective import Adversarial, Learning, Objective
from cubefill.store import write_cube
from cubefill.train_batches import batches
from cubefill.train_recipe import Recipe, from_dict, read, shipped, with_options
from cubefill.train_samples import CubeSamples, Sample, clear_windows
from cubefill.train_state import Average, Standing
from cubefill.windows import Span
from tests.methods.test_torch import Demo, DemoConfig, DemoNet, Series
from tests.strategies import cube

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth_cube(seed: int = 0, dates: int = 6, size: int = 24) -> xr.Dataset:
    """Bands that rise in time and space, with random gaps: something to learn."""
    ds = cube(dates=dates, size=(size, size), gap=0.25, seed=seed)
    t, y, x = np.meshgrid(np.arange(dates), np.arange(size), np.arange(size), indexing="ij")
    for i, b in enumerate(("B04", "B08")):
        ds[b][:] = (0.1 + 0.1 * i + 0.01 * t + 0.004 * y + 0.003 * x).astype(np.float32)
    return ds


def samples(count: int = 8, seed: int = 0, **options: Any) -> CubeSamples:
    return CubeSamples([smooth_cube(seed)], Demo(), Blobs(), seed, count, **options)


RECIPE = Recipe(rate=1e-2, epochs=3, batch=4, log_every=1, seed=5)


def fit(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> Path:
    given: dict[str, Any] = {"method": Demo(), "samples": samples(), "progress": False}
    given |= options
    return train.fit(recipe=recipe, folder=folder, **given)


def state(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder)[0]


def close(a: Path, b: Path, atol: float = 1e-6) -> None:
    found, expected = state(a), state(b)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=atol, rtol=0)


def log(folder: Path, kind: str) -> list[dict[str, str]]:
    with (folder / "training" / "log.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


# ------------------------------------------------------------------ from samples to a fill


def test_a_run_ends_in_a_checkpoint_that_fills(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=12, rate=2e-2)
    apart = CubeSamples([smooth_cube(3)], Demo(), Blobs(), 9, 4)
    folder = fit(tmp_path / "net", recipe, samples=samples(16), validation=apart)
    scores = [float(r["score"]) for r in log(folder, "epoch")]
    assert min(scores) < 0.3 * scores[0]
    card = checkpoint.read_card(folder)
    assert card.method == "tests.methods.test_torch:Demo"
    assert card.config == {"width": 4, "size": 8, "keep": 4}
    assert card.recipe["rate"] == 2e-2
    assert card.data == samples(16).digest
    assert card.scores["loss"] == pytest.approx(min(scores))
    out = engine.gapfill(smooth_cube(7), Demo(checkpoint=str(folder))).compute()
    error = np.abs(out["B04"] - smooth_cube(7)["B04"])
    assert float(error.max()) < 0.2
    assert len(pickle.dumps(Demo(checkpoint=str(folder)))) < 2000


def test_the_log_has_a_line_for_each_update_and_epoch(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net")
    assert [int(r["update"]) for r in log(folder, "update")] == [1, 2, 3, 4, 5, 6]
    assert [int(r["epoch"]) for r in log(folder, "epoch")] == [0, 1, 2]
    assert all(float(r["loss"]) > 0 for r in log(folder, "update"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json", "training", "weights.safetensors"
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    a, b = fit(tmp_path / "a"), fit(tmp_path / "b")
    close(a, b, atol=0)
    other = fit(tmp_path / "c", replace(RECIPE, seed=6))
    assert not torch.equal(state(other)["first.weight"], state(a)["first.weight"])


def test_workers_change_nothing(tmp_path: Path) -> None:
    short = replace(RECIPE, epochs=1)
    close(fit(tmp_path / "a", short), fit(tmp_path / "b", replace(short, workers=2)), atol=0)


def test_gradients_of_passes_add_up(tmp_path: Path) -> None:
    close(fit(tmp_path / "a"), fit(tmp_path / "b", replace(RECIPE, micro=1)), atol=1e-4)


def test_another_configuration_of_the_net(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net", replace(RECIPE, epochs=1, config={"width": 6}))
    assert state(folder)["first.weight"].shape[0] == 6
    method = Demo(checkpoint=str(folder))
    assert method.config == DemoConfig(width=6)
    assert np.isfinite(engine.gapfill(smooth_cube(), method)["B04"].values).all()
    with pytest.raises(MethodError, match=r"no configuration 'depth': expected of width, size"):
        fit(tmp_path / "other", replace(RECIPE, config={"depth": 6}))


def test_a_checkpoint_is_trained_further(tmp_path: Path) -> None:
    first = fit(tmp_path / "a", replace(RECIPE, epochs=1))
    still = replace(RECIPE, epochs=1, rate=1e-12)
    second = fit(tmp_path / "b", still, method=Demo(checkpoint=str(first)))
    close(second, first)


def test_a_method_of_pixels_trains(tmp_path: Path) -> None:
    given = CubeSamples([smooth_cube()], Series(), Blobs(), count=8, patch=4)
    folder = fit(tmp_path / "net", method=Series(), samples=given)
    out = engine.gapfill(smooth_cube(), Series(checkpoint=str(folder))).compute()
    assert np.isfinite(out["B08"].values).all()


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class Opposed(Demo):
    """The demo net against an adversary."""

    name: ClassVar[str] = "opposed"

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        return Adversarial(net, Judge(), recipe)


def test_the_same_loop_trains_against_an_adversary(tmp_path: Path) -> None:
    given = CubeSamples([smooth_cube()], Opposed(), Blobs(), count=8, real=(1, 4))
    assert given[0]["real"].shape == (1, 2, 4, 4)
    folder = fit(tmp_path / "net", method=Opposed(), samples=given)
    assert float(log(folder, "update")[-1]["discriminator"]) > 0
    assert np.isfinite(
        engine.gapfill(smooth_cube(), Opposed(checkpoint=str(folder)))["B08"].values
    ).all()


# ------------------------------------------------------------------ averages, rates, stopping


def test_averaged_weights_are_scored_and_kept(tmp_path: Path) -> None:
    plain = fit(tmp_path / "a", replace(RECIPE, epochs=1))
    smooth = fit(tmp_path / "b", replace(RECIPE, epochs=1, ema=0.9))
    start = DemoNet(4)
    torch.manual_seed(RECIPE.seed)
    start = DemoNet(4)
    far = [
        float((state(f)["first.weight"] - start.first.weight.detach()).norm())
        for f in (plain, smooth)
    ]
    assert 0 < far[1] < far[0]


def test_an_average_follows_and_steps_aside() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    average = Average(net, 0.75)
    nn.init.constant_(net.weight, 1.0)
    average.follow()
    average.follow()
    with average.in_place():
        assert float(net.weight.detach()) == pytest.approx(1 - 0.75**2)
    assert float(net.weight.detach()) == 1


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), [1, 1, 1, 1]),
        (Recipe(schedule="steps", milestones=(1, 3)), [1, 0.5, 0.5, 0.25]),
        (Recipe(schedule="cosine", epochs=4), [1, 0.8536, 0.5, 0.1464]),
        (Recipe(schedule="plateau", rate=1e-3, least_rate=4e-4), [1, 0.5, 0.4, 0.4]),
    ],
)
def test_schedules(recipe: Recipe, expected: list[float]) -> None:
    found = [recipe.scheduled(e, plateaus=e) for e in range(4)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_plateaus_and_the_best_score() -> None:
    recipe = Recipe(schedule="plateau", plateau=2, better_by=0.1)
    now, found = Standing(), []
    for score in (1.0, 0.95, 0.95, 0.95, 0.8, 0.79):
        now, better = now.judged(score, recipe)
        found.append((better, now.plateaus, now.stale))
    assert found == [
        (True, 0, 0), (False, 0, 1), (False, 1, 2), (False, 1, 3), (True, 1, 0), (False, 1, 1)
    ]  # fmt: skip


def test_training_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=50, rate=1e-12, patience=2, better_by=1e-3)
    folder = fit(tmp_path / "net", recipe, validation=samples(4))
    assert len(log(folder, "epoch")) == 3
    assert checkpoint.read_card(folder).scores["epoch"] == 1


def test_a_number_of_updates_is_enough(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net", replace(RECIPE, updates=3))
    assert len(log(folder, "update")) == 3


# ------------------------------------------------------------------ going on after a kill


class Dropping(DemoNet):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x))


@dataclass(frozen=True)
class Random(Demo):
    """A net that draws while it learns."""

    name: ClassVar[str] = "random"

    @classmethod
    def net(cls, config: DemoConfig) -> nn.Module:
        return Dropping(config.width)


class Watched:
    """Samples that note which were asked for, and may fail."""

    def __init__(self, held: CubeSamples, fails: int = -1) -> None:
        self.held, self.fails = held, fails
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        if len(self.seen) == self.fails:
            raise InterruptedError("the lights went out")
        self.seen.append(index)
        return self.held[index]


@pytest.mark.parametrize("keep_every", [1, 2])
def test_three_updates_a_kill_and_three_more_are_six(tmp_path: Path, keep_every: int) -> None:
    recipe = replace(RECIPE, epochs=2, batch=4, keep_every=keep_every, ema=0.5, seed=1)
    held = replace(samples(12), method=Random())
    straight, broken, rest = Watched(held), Watched(held, fails=14), Watched(held)
    fit(tmp_path / "a", recipe, method=Random(), samples=straight)
    with pytest.raises(InterruptedError):
        fit(tmp_path / "b", recipe, method=Random(), samples=broken)
    assert not (tmp_path / "b" / "card.json").exists() or keep_every
    fit(tmp_path / "b", recipe, method=Random(), samples=rest)
    assert straight.seen[12:] == rest.seen[-12:]
    close(tmp_path / "b", tmp_path / "a", atol=1e-6)
    assert log(tmp_path / "a", "update") == log(tmp_path / "b", "update")
    assert log(tmp_path / "a", "epoch") == log(tmp_path / "b", "epoch")


def test_a_killed_process_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys, torch
        from tests.test_train import *
        torch.set_num_threads(1)
        class Deadly(Watched):
            def __getitem__(self, index):
                if len(self.seen) == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().__getitem__(index)
        recipe = replace(RECIPE, epochs=1, batch=2, keep_every=1)
        fit(Path(sys.argv[1]), recipe, samples=Deadly(samples(12)))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "b")], cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == -9
    recipe = replace(RECIPE, epochs=1, batch=2, keep_every=1)
    rest = Watched(samples(12))
    fit(tmp_path / "b", recipe, samples=rest)
    assert len(rest.seen) == 6
    straight = Watched(samples(12))
    fit(tmp_path / "a", recipe, samples=straight)
    assert straight.seen[6:] == rest.seen
    close(tmp_path / "b", tmp_path / "a", atol=1e-6)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    fit(tmp_path / "net", samples=Watched(samples()))
    again = Watched(samples())
    fit(tmp_path / "net", samples=again)
    assert again.seen == []
    longer = fit(tmp_path / "net", replace(RECIPE, epochs=4), samples=again)
    assert len(again.seen) == 8
    once = fit(tmp_path / "once", replace(RECIPE, epochs=4), samples=Watched(samples()))
    close(longer, once, atol=1e-6)


def test_another_recipe_or_a_foreign_checkpoint_is_not_mixed_in(tmp_path: Path) -> None:
    fit(tmp_path / "net")
    with pytest.raises(StoreError, match="another recipe"):
        fit(tmp_path / "net", replace(RECIPE, rate=1e-3))
    with pytest.raises(StoreError, match=r"other samples.*overwrite=True"):
        fit(tmp_path / "net", samples=samples(9))
    with pytest.raises(StoreError, match=r"holds a run.*overwrite=True.*resume=True"):
        fit(tmp_path / "net", resume=False)
    fit(tmp_path / "net", replace(RECIPE, rate=1e-3, epochs=1), overwrite=True)
    assert len(log(tmp_path / "net", "epoch")) == 1
    (tmp_path / "net" / "training" / "state.pt").unlink()
    with pytest.raises(StoreError, match="holds a checkpoint"):
        fit(tmp_path / "net")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_a_state_with_code_in_it_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "net")
    struck = tmp_path / "struck"
    torch.save({"recipe": Hostile(struck)}, tmp_path / "net" / "training" / "state.pt")
    with pytest.raises(StoreError, match=r"state\.pt cannot be read"):
        fit(tmp_path / "net")
    assert not struck.exists()


# ------------------------------------------------------------------ what is refused


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.LOSSES, "l1", lambda pred, true, where: pred.sum() * np.nan)
    with pytest.raises(MethodError, match=r"loss is nan at update 1.*lower rate"):
        fit(tmp_path / "net")


def test_a_method_without_a_net(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="no net to train"):
        fit(tmp_path / "net", method="linear")


def test_samples_of_unequal_shape(tmp_path: Path) -> None:
    cubes = [smooth_cube(0, dates=5), smooth_cube(1, dates=7)]
    given = CubeSamples(cubes, Demo(), Blobs(), count=8)
    with pytest.raises(CubefillError, match=r"'x' of shapes \(.*Type dates="):
        fit(tmp_path / "net", samples=given)
    fit(tmp_path / "net", replace(RECIPE, epochs=1), samples=replace(given, dates=4))


def test_validation_without_a_scored_value(tmp_path: Path) -> None:
    given = replace(samples(4), gaps=None)
    with pytest.raises(CubefillError, match="None of 4 validation samples"):
        fit(tmp_path / "net", validation=given)


def test_bfloat16_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cubefill.methods import _pass

    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: False)
    with pytest.raises(MethodError, match="60 times slower"):
        fit(tmp_path / "net", replace(RECIPE, precision="bfloat16"))
    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: True)
    folder = fit(tmp_path / "net", replace(RECIPE, precision="bfloat16", epochs=1))
    assert state(folder)["first.weight"].dtype == torch.float32


# ------------------------------------------------------------------ recipes


def test_shipped_recipes_have_the_settings_of_their_papers() -> None:
    assert {"ganfilling", "seq2seq", "stpconv", "cnnrnn", "mowing", "ssop", "msop", "utilise"} <= (
        set(shipped())
    )
    found = {n: read(n) for n in shipped()}
    gan = found["ganfilling"]
    assert (gan.rate, gan.betas, gan.adversary.betas, gan.weight) == (
        2e-4, (0.5, 0.999), (0.5, 0.999), 100
    )  # fmt: skip
    assert (found["stpconv"].rate, found["stpconv"].batch, found["stpconv"].epochs) == (0.01, 2, 50)
    assert found["cnnrnn"].least_rate == 1e-4
    assert found["mowing"].loss == "bce"
    assert (found["msop"].rate, found["msop"].batch) == (1.2e-4, 128)
    assert found["utilise"].milestones == (50, 100, 150, 200, 250)
    assert all(r.loss in losses.LOSSES for r in found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1e-3", r"mine\.toml has unknown key 'rat': expected of method, .*mean 'rate'"),
        ("batch = 'four'", r"batch = 'four': expected int"),
        ("batch = true", r"batch = True: expected int"),
        ("schedule = 'wild'", r"expected one of constant, steps, cosine, plateau"),
        ("epochs = 0", r"epochs = 0: expected 1 or more"),
        ("epochs = ", r"is not TOML"),
    ],
)
def test_recipes_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(CubefillError, match=message):
        read(tmp_path / "mine.toml")


def test_an_unknown_recipe_lists_the_shipped() -> None:
    with pytest.raises(CubefillError, match=r"No recipe utilize: .*utilise"):
        read("utilize")


def test_options_replace_entries() -> None:
    assert with_options(read("utilise"), {"epochs": 2}).epochs == 2
    assert from_dict({"rate": 1}).adam.rate == 1
    with pytest.raises(CubefillError, match="the options has unknown key 'epoch'"):
        with_options(Recipe(), {"epoch": 2})


def test_a_recipe_runs_on_stored_cubes(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cube(smooth_cube(seed), tmp_path / f"{seed}.zarr", progress=False)
    (tmp_path / "mine.toml").write_text(
        f"""
        method = "tests.methods.test_torch:Demo"
        epochs = 1
        [config]
        width = 3
        [samples]
        cubes = ["{tmp_path}/0.zarr"]
        validation = ["{tmp_path}/1.zarr"]
        gaps = "blobs"
        count = 4
        turns = true
        """
    )
    folder = train.run_recipe(tmp_path / "mine.toml", tmp_path / "net", progress=False, batch=2)
    assert len(log(folder, "epoch")) == 1
    assert checkpoint.read_card(folder).recipe["batch"] == 2
    assert state(folder)["first.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no cubes"),
        ("[samples]\ncubes = ['a']\nholes = 3", r"\[samples\] has unknown key 'holes'"),
        ("[samples]\ncubes = ['a']\ngaps = 'none of it'", r"unknown gaps = 'none of it'"),
    ],
)
def test_recipes_without_good_samples(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'method = "tests.methods.test_torch:Demo"\n{text}')
    with pytest.raises(CubefillError, match=message):
        train.run_recipe(path, tmp_path / "net")


# ------------------------------------------------------------------ samples of cubes


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

    given = samples(turns=True)
    assert not differs(given[1], samples(turns=True)[1])
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
    assert clear_windows(valid, 2, 4) == expected
    assert clear_windows(valid, 7, 4) == []


def test_samples_that_cannot_be_made() -> None:
    ds = smooth_cube()
    with pytest.raises(CubeError, match="8 steps along an axis of 5"):
        CubeSamples([smooth_cube(size=5)], Demo(), Blobs())[0]
    cloudy = ds.assign(valid=ds["valid"] & False)
    with pytest.raises(CubeError, match=r"No gap in any of .*no clear observation"):
        CubeSamples([cloudy], Demo(), Blobs())[0]
    with pytest.raises(CubeError, match="No window of 3 time steps and 8 px is clear"):
        CubeSamples([ds], Demo(), Blobs(), real=(3, 8))[0]


@dataclass(frozen=True)
class Everything(Demo):
    """Asks for SAR and DEM."""

    @property
    def needs(self) -> Needs:
        return Needs(bands=("B04", "B08"), space=Span(8, 4), time=Span(4, 2), sar=True, dem=True)


def test_sar_and_elevation_come_along() -> None:
    from cubefill.testing import synthetic_cube

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
    found = list(batches(watched, replace(RECIPE, batch=4), Standing()))
    assert [len(b["x"]) for b in found] == [4, 4]
    assert len(set(watched.seen)) == 8
    other = Watched(samples(10))
    list(batches(other, replace(RECIPE, batch=4), Standing(epoch=1)))
    assert other.seen != watched.seen
    small = list(batches(samples(3), replace(RECIPE, batch=4), Standing()))
    assert [len(b["x"]) for b in small] == [3]


# ------------------------------------------------------------------ simulated and real data


def test_a_run_on_simulated_data_fills(tmp_path: Path) -> None:
    made = simulate.scene(size=48, dates=8, seed=2, sar=False, dem=False)
    folder = fit(tmp_path / "net", samples=CubeSamples([made.cube], Demo(), Blobs(), count=8))
    out = engine.gapfill(made.cube, Demo(checkpoint=str(folder)))[["B04", "B08"]].compute()
    clear = made.cube["valid"].values
    np.testing.assert_array_equal(out["B08"].values[clear], made.cube["B08"].values[clear])
    assert np.isfinite(out["B08"].values).all()


def real_cube(data_folder: Path) -> xr.Dataset:
    """A patch of farmland, 64 x 64 px of 10 m, the first 20 dates."""
    fine, coarse = (
        next((data_folder / "worldcereal_31UDS").glob(f"S2_L2A_{n}m_*.nc"), None) for n in (10, 20)
    )
    if fine is None or coarse is None:
        pytest.skip(f"real data absent: no Sentinel-2 netCDF in {data_folder}/worldcereal_31UDS")
    bands, classes = (
        xr.open_dataset(f, mask_and_scale=False, decode_coords=False)
        .rename(timestamp="time")
        .sortby("time")
        .isel(time=slice(20))
        for f in (fine, coarse)
    )
    scl = classes["SCL"].values.repeat(2, 1).repeat(2, 2)
    counts = bands[["B04", "B08"]].astype(np.float32)
    return (counts.where(counts > 0) * np.float32(1e-4)).assign(
        valid=(("time", "y", "x"), np.isin(scl, [4, 5, 6, 7]))
    )


def test_a_run_on_real_data_fills_other_places(tmp_path: Path, data_folder: Path) -> None:
    ds = real_cube(data_folder).transpose("time", "y", "x")
    west, east = ds.isel(x=slice(32)), ds.isel(x=slice(32, None))
    recipe = replace(RECIPE, epochs=4, batch=4)
    given = CubeSamples([west], Demo(), Blobs(), count=32)
    apart = CubeSamples([east], Demo(), Blobs(), count=8)
    folder = fit(tmp_path / "net", recipe, samples=given, validation=apart)
    scores = [float(r["score"]) for r in log(folder, "epoch")]
    assert min(scores) < scores[0]
    out = engine.gapfill(east, Demo(checkpoint=str(folder))).compute()
    clear = east["valid"].values & np.isfinite(east["B08"].values)
    np.testing.assert_array_equal(out["B08"].values[clear], east["B08"].values[clear])
    assert np.isfinite(out["B08"].values).all()


# ------------------------------------------------------------------ several processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Demo", "Opposed"])
def test_two_processes_give_the_weights_of_one_with_the_same_batch(
    tmp_path: Path, kind: str
) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, torch
        sys.path.insert(0, {str(ROOT)!r})
        from tests.test_train import *
        torch.set_num_threads(1)
        two(Path(sys.argv[1]), {kind})
        """)
    )
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(script)]
    subprocess.run([*command, str(tmp_path / "b")], check=True, timeout=200, cwd=ROOT)
    two(tmp_path / "a", {"Demo": Demo, "Opposed": Opposed}[kind])
    close(tmp_path / "b", tmp_path / "a", atol=1e-5)
    assert len(log(tmp_path / "b", "update")) == len(log(tmp_path / "a", "update"))


class Real(Watched):
    """Samples with a real window as large as the answer, so that no window is drawn at random."""

    def __getitem__(self, index: int) -> Sample:
        found = super().__getitem__(index)
        return found | {"real": found["target"]}


def two(folder: Path, kind: type[TorchMethod]) -> None:
    """A run whose batches can be shared out; nothing in it depends on the process."""
    held = CubeSamples([smooth_cube()], kind(), Blobs(), count=8)
    given = held if kind is Demo else Real(held)
    apart = replace(held, seed=4, count=4)
    fit(folder, replace(RECIPE, epochs=2), method=kind(), samples=given, validation=apart)
