"""What a run keeps: its log, averaged weights, and the state from which it goes on."""

import csv
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from cubefill.errors import StoreError
from cubefill.train.recipe import Recipe
from cubefill.train.state import Average, Log, TrainingState
from tests.methods.learned.test_method import Demo, DemoConfig, DemoNet
from tests.shared.torch_thread import one_thread as one_thread
from tests.shared.train_runs import (
    RECIPE,
    ROOT,
    Watched,
    close,
    fit,
    free_port,
    log,
    samples,
    state,
)


def test_the_log_has_a_line_for_each_update_and_epoch(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net")
    assert [int(r["update"]) for r in log(folder, "update")] == [1, 2, 3, 4, 5, 6]
    assert [int(r["epoch"]) for r in log(folder, "epoch")] == [0, 1, 2]
    assert all(float(r["loss"]) > 0 for r in log(folder, "update"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json", "training", "weights.safetensors"
    ]  # fmt: skip


class Writer:
    """Stands for TensorBoard's: notes what it is told."""

    made: ClassVar[list["Writer"]] = []

    def __init__(self, folder: str) -> None:
        self.folder, self.closed = folder, False
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_scalars_go_to_tensorboard_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "made", [])
    fake = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    folder = fit(tmp_path / "net")
    (writer,) = Writer.made
    assert writer.folder == str(folder / "training" / "tensorboard")
    assert writer.closed
    told = {(name, step): value for name, value, step in writer.scalars}
    assert len(told) == len(writer.scalars) == 6 * 2 + 3 * 2
    for row in log(folder, "update"):
        assert told["update/loss", int(row["update"])] == float(row["loss"])
        assert told["update/rate", int(row["update"])] == RECIPE.rate
    for row in log(folder, "epoch"):
        assert told["epoch/score", int(row["update"])] == float(row["score"])


def test_without_tensorboard_there_is_the_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = fit(tmp_path / "net")
    assert len(log(folder, "update")) == 6
    assert not (folder / "training" / "tensorboard").exists()
    assert "ensor" not in "".join(capsys.readouterr())


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = fit(tmp_path / "net")
    events = EventAccumulator(str(folder / "training" / "tensorboard"))
    events.Reload()
    losses = [float(r["loss"]) for r in log(folder, "update")]
    assert [e.value for e in events.Scalars("update/loss")] == pytest.approx(losses)


# ------------------------------------------------------------------ averages


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


def test_plateaus_and_the_best_score() -> None:
    recipe = Recipe(schedule="plateau", plateau=2, better_by=0.1)
    now, found = TrainingState(), []
    for score in (1.0, 0.95, 0.95, 0.95, 0.8, 0.79):
        now, better = now.judged(score, recipe)
        found.append((better, now.plateaus, now.patience_used))
    assert found == [
        (True, 0, 0), (True, 0, 1), (False, 1, 2), (False, 1, 3), (True, 1, 0), (True, 1, 1)
    ]  # fmt: skip
    assert (now.best, now.reference) == (0.79, 0.8)


def test_small_steps_add_up_to_a_better_score() -> None:
    recipe = Recipe(better_by=0.1, patience=3)
    now, patience_used = TrainingState(), []
    for score in (1.0, 0.95, 0.92, 0.89, 0.85, float("nan"), 0.86):
        now, _ = now.judged(score, recipe)
        patience_used.append(now.patience_used)
    assert patience_used == [0, 1, 2, 0, 1, 2, 3]
    assert (now.best, now.reference) == (0.85, 0.89)


def test_a_state_without_a_reference_was_judged_by_its_best(tmp_path: Path) -> None:
    held = asdict(TrainingState(epoch=3, best=0.4, patience_used=2))
    del held["reference"]
    now = TrainingState.taken_up(held, tmp_path)
    assert now == TrainingState(epoch=3, best=0.4, patience_used=2, reference=0.4)
    assert now.judged(0.35, Recipe(better_by=0.1))[0].patience_used == 3
    assert TrainingState.taken_up(asdict(now), tmp_path) == now
    for other in (held | {"mood": 1}, {"epoch": 3}):
        with pytest.raises(StoreError, match=r"of another version .*expected .*overwrite=True"):
            TrainingState.taken_up(other, tmp_path)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    folder = fit(tmp_path / "net", validation=samples(4))
    path = folder / "training" / "state.pt"
    kept = torch.load(path, weights_only=True)
    del kept["standing"]["reference"]
    kept["standing"]["stale"] = kept["standing"].pop("patience_used")
    torch.save(kept, path)
    fit(folder, replace(RECIPE, epochs=4), validation=samples(4))
    once = fit(tmp_path / "once", replace(RECIPE, epochs=4), validation=samples(4))
    assert log(folder, "epoch") == log(once, "epoch")
    close(folder, once, atol=1e-6)


# ------------------------------------------------------------------ after a kill


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
        from tests.shared.train_runs import *
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


TWO = """
import os, sys
sys.path.insert(0, {root!r})
from tests.shared.train_runs import *
torch.set_num_threads(1)
folder, noted = Path(sys.argv[1]), []
given = CubeSamples([smooth_cube()], Opposed(), Blobs(), count=8, discriminator_windows=(1, 4))
options = dict(method=Opposed(), samples=given)
window = Adversarial._window

def watched(self, pred, like):
    draws = torch.Generator()
    draws.set_state(self.draws.get_state())
    noted.append([*torch.randint(1000, (9,), generator=draws).tolist(), torch.initial_seed()])
    return window(self, pred, like)

Adversarial._window = watched
fit(folder, replace(RECIPE, epochs=int(sys.argv[2])), **options)
(folder / f"drawn-{{os.environ['RANK']}}").write_text(repr(noted[0]))
"""


@pytest.mark.slow
def test_two_processes_draw_apart_after_going_on(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(TWO.format(root=str(ROOT)))
    for epochs in ("1", "2"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        command += ["--nnodes=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
        command += [str(tmp_path / "run.py"), str(tmp_path / "net"), epochs]
        subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    first, second = ((tmp_path / "net" / f"drawn-{i}").read_text() for i in range(2))
    assert first.split(",")[:9] != second.split(",")[:9]
    assert first.split(",")[9] != second.split(",")[9]


# ------------------------------------------------------------------ a log that was cut off


@pytest.mark.parametrize(
    "left",
    ["upd", "update,2", "update,2,1", "update,2,6,0.01,0.1", "epoch,,,\r\n", "a,b,c,d,e,f,g,h\r\n",
     "update,x,6,0.01,0.1,\r\n", "update,2,6.5,0.01,0.1,\r\n", "\x00\x00\x00"],
)  # fmt: skip
def test_what_a_kill_left_of_a_line_is_dropped(tmp_path: Path, left: str) -> None:
    folder = fit(tmp_path / "net")
    path = folder / "training" / "log.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + left.encode())
    fit(folder, replace(RECIPE, epochs=4))
    once = fit(tmp_path / "once", replace(RECIPE, epochs=4))
    assert path.read_bytes() == (once / "training" / "log.csv").read_bytes()


def test_a_log_of_half_a_header_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("kind,ep")
    written = Log(tmp_path, TrainingState(update=2))
    written.line("update", TrainingState(update=3), {"loss": 0.5})
    assert (tmp_path / "log.csv").read_text() == "kind,epoch,update,loss\nupdate,0,3,0.5\n"


def test_a_kill_while_the_log_is_written_anew_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Log(tmp_path, TrainingState())
    written.line("update", TrainingState(update=1), {"loss": 0.5})
    before = (tmp_path / "log.csv").read_bytes()

    def struck(*_: Any) -> None:
        raise InterruptedError("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", struck)
        with pytest.raises(InterruptedError):
            written.line("epoch", TrainingState(update=1), {"score": 0.4})
        with pytest.raises(InterruptedError):
            Log(tmp_path, TrainingState(update=1))
    assert (tmp_path / "log.csv").read_bytes() == before
    Log(tmp_path, TrainingState(update=1)).line("epoch", TrainingState(update=1), {"score": 0.4})
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows == ["kind,epoch,update,loss,score", "update,0,1,0.5,", "epoch,0,1,,0.4"]


# ------------------------------------------------------------------ states of others


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
