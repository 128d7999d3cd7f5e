from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.methods.learned.ganfilling import GanFilling
from cubefill.methods.learned.seq2seq import Seq2Seq
from cubefill.nn import checkpoint
from cubefill.nn.convlstm import Generator, Sizes
from cubefill.nn.objective import Supervised
from cubefill.testing import MethodTests, synthetic_cube
from cubefill.train.recipe import Recipe
from tests.methods.learned.test_ganfilling import BANDS, block, trained
from tests.shared.torch_thread import one_thread as one_thread


@pytest.mark.slow
class TestSeq2Seq(MethodTests):
    size: ClassVar[tuple[int, int]] = (133, 130)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def small_net(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = trained(tmp_path_factory.mktemp("seq2seq"), Seq2Seq)
        cls.method = Seq2Seq(checkpoint=folder)

    def test_answer_does_not_depend_on_chunks(self) -> None:
        ds = self.cube()
        whole = self.filled(ds)
        self.same(whole, self.filled(ds.chunk({"time": 5, "y": 70, "x": 33}), tile=97))

    def test_answer_does_not_depend_on_tiles(self) -> None:
        ds = self.cube()
        self.same(self.filled(ds), self.filled(ds, tile=100))


def test_is_the_net_of_ganfilling(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ds = synthetic_cube(dates=3, size=(20, 31))
    a = gapfill(ds, GanFilling(checkpoint=trained(tmp_path / "a"))).compute()
    b = gapfill(ds, Seq2Seq(checkpoint=trained(tmp_path / "b", Seq2Seq))).compute()
    for band in BANDS:
        np.testing.assert_array_equal(a[band].values, b[band].values)


def test_checkpoint_of_the_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="ganfilling:GanFilling"):
        Seq2Seq(checkpoint=trained(tmp_path))


def test_counts_are_those_of_the_generator() -> None:
    with torch.device("meta"):
        net = Seq2Seq.net(Seq2Seq().config)
    assert sum(p.numel() for p in net.parameters()) == 181_746_628


def test_learns_without_an_adversary(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Generator(Sizes(width=2))
    objective = Seq2Seq().objective(net, Recipe(method="seq2seq", rate=2e-3))
    assert isinstance(objective, Supervised)
    ds = synthetic_cube(dates=5, size=(128, 128), gap=0.3)
    given = block({b: ds[b].values for b in BANDS}, ds["valid"].values)
    arrays = {**Seq2Seq().encode(given), **Seq2Seq().target(given, given)}
    batch = {n: torch.from_numpy(a)[None] for n, a in arrays.items()}
    losses = [objective.step(batch)["loss"] for _ in range(3)]
    assert losses[-1] < losses[0]
    card = checkpoint.Card("cubefill.methods.learned.seq2seq:Seq2Seq", {"width": 2})
    folder = checkpoint.save(tmp_path / "net", net.state_dict(), card)
    out = gapfill(ds, Seq2Seq(checkpoint=str(folder))).compute()
    assert np.isfinite(out["B02"].values).all()
