"""One loop from samples to a checkpoint that fills, alone and with several processes."""

import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from cubefill import engine, simulate
from cubefill.errors import CubefillError, MethodError
from cubefill.gaps import Blobs
from cubefill.nn import checkpoint, losses
from cubefill.samples.patches import CubeSamples
from cubefill.train import loop
from tests.methods.learned.test_method import Demo, DemoConfig, Series
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.train_runs import (
    RECIPE,
    ROOT,
    Opposed,
    close,
    fit,
    free_port,
    log,
    samples,
    smooth_cube,
    state,
    two,
)


def test_a_run_ends_in_a_checkpoint_that_fills(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=12, rate=2e-2)
    apart = CubeSamples([smooth_cube(3)], Demo(), Blobs(), 9, 4)
    folder = fit(tmp_path / "net", recipe, samples=samples(16), validation=apart)
    scores = [float(r["score"]) for r in log(folder, "epoch")]
    assert min(scores) < 0.3 * scores[0]
    card = checkpoint.read_card(folder)
    assert card.method == "tests.methods.learned.test_method:Demo"
    assert card.config == {"width": 4, "size": 8, "keep": 4}
    assert card.recipe["rate"] == 2e-2
    assert card.data == samples(16).digest
    assert card.scores["loss"] == pytest.approx(min(scores))
    out = engine.gapfill(smooth_cube(7), Demo(checkpoint=str(folder))).compute()
    error = np.abs(out["B04"] - smooth_cube(7)["B04"])
    assert float(error.max()) < 0.2
    assert len(pickle.dumps(Demo(checkpoint=str(folder)))) < 2000


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
    with pytest.raises(MethodError, match=r"no configuration 'depth': expected one of width, size"):
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


def test_the_same_loop_trains_against_an_adversary(tmp_path: Path) -> None:
    given = CubeSamples([smooth_cube()], Opposed(), Blobs(), count=8, discriminator_windows=(1, 4))
    assert given[0]["discriminator_windows"].shape == (1, 2, 4, 4)
    folder = fit(tmp_path / "net", method=Opposed(), samples=given)
    assert float(log(folder, "update")[-1]["discriminator"]) > 0
    assert np.isfinite(
        engine.gapfill(smooth_cube(), Opposed(checkpoint=str(folder)))["B08"].values
    ).all()


def test_training_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=50, rate=1e-12, patience=2, better_by=1e-3)
    folder = fit(tmp_path / "net", recipe, validation=samples(4))
    assert len(log(folder, "epoch")) == 3
    scores = [float(r["score"]) for r in log(folder, "epoch")]
    assert checkpoint.read_card(folder).scores["loss"] == min(scores)
    assert max(scores) - min(scores) < 1e-3


def test_the_weights_of_the_lowest_score_are_kept_however_little_better(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=3, rate=1e-3, better_by=0.5, ema=0.0)
    whole = fit(tmp_path / "a", recipe, validation=samples(4))
    scores = [float(r["score"]) for r in log(whole, "epoch")]
    assert scores[0] > scores[1] > scores[2] > scores[0] - 0.5
    assert checkpoint.read_card(whole).scores["epoch"] == 3
    last = torch.load(whole / "training" / "state.pt", weights_only=True)["objective"]["net"]
    for name, tensor in state(whole).items():
        assert torch.equal(tensor, last[name])


def test_a_number_of_updates_is_enough(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net", replace(RECIPE, updates=3))
    assert len(log(folder, "update")) == 3


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.LOSSES, "l1", lambda pred, true, where: pred.sum() * np.nan)
    with pytest.raises(MethodError, match=r"loss is nan at update 1.*lower rate"):
        fit(tmp_path / "net")


def test_a_method_without_a_net(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="no net to train"):
        fit(tmp_path / "net", method="linear")


def test_validation_without_a_scored_value(tmp_path: Path) -> None:
    given = replace(samples(4), gaps=None)
    with pytest.raises(CubefillError, match="None of 4 validation samples"):
        fit(tmp_path / "net", validation=given)


def test_bfloat16_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cubefill.methods.learned import passes as _pass

    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: False)
    with pytest.raises(MethodError, match="60 times slower"):
        fit(tmp_path / "net", replace(RECIPE, precision="bfloat16"))
    monkeypatch.setattr(_pass, "fast_bfloat16", lambda: True)
    folder = fit(tmp_path / "net", replace(RECIPE, precision="bfloat16", epochs=1))
    assert state(folder)["first.weight"].dtype == torch.float32


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


def told(shapes: list[tuple[int, ...] | None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `check_shapes` says in each of several processes, here threads that add up as these."""
    here, given, together = threading.local(), dict[int, float](), threading.Barrier(len(shapes))

    def summed(value: float) -> float:
        given[here.rank] = value
        together.wait(60)
        total = sum(given.values())
        together.wait(60)
        return total

    def process(rank: int) -> str:
        here.rank, shape = rank, shapes[rank]
        try:
            loop.check_shapes(None if shape is None else {"x": torch.zeros(shape)})
        except CubefillError as error:
            return str(error)
        return ""

    monkeypatch.setattr(loop, "world", lambda: len(shapes))
    monkeypatch.setattr(loop, "rank", lambda: here.rank)
    monkeypatch.setattr(loop, "sum_of_processes", summed)
    with ThreadPoolExecutor(len(shapes)) as pool:
        return list(pool.map(process, range(len(shapes))))


def test_shapes_that_differ_between_processes_are_refused_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = told([(2, 6, 3), (2, 5, 3)], monkeypatch)
    assert ["6, 3" in found[0], "5, 3" in found[1]] == [True, True]
    assert all("differ in shape between processes; process" in text for text in found)
    assert all(told([(2, 6), None, (1, 5)], monkeypatch)[i] for i in (0, 2))
    assert told([(2, 6), None, (1, 6)], monkeypatch) == ["", "", ""]


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
        from tests.shared.train_runs import *
        torch.set_num_threads(1)
        two(Path(sys.argv[1]), {kind})
        """)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}", str(script)]
    subprocess.run([*command, str(tmp_path / "b")], check=True, timeout=200, cwd=ROOT)
    two(tmp_path / "a", {"Demo": Demo, "Opposed": Opposed}[kind])
    close(tmp_path / "b", tmp_path / "a", atol=1e-5)
    assert len(log(tmp_path / "b", "update")) == len(log(tmp_path / "a", "update"))
