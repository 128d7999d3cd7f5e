from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cubefill.errors import MethodError
from cubefill.nn import Adam, losses, objective
from cubefill.nn.objective import Adversarial, Objective, Supervised
from tests.shared.torch_thread import one_thread as one_thread

ADAM, ADVERSARY = Adam(1e-2), Adam(1e-2, (0.5, 0.999))


@dataclass(frozen=True)
class Settings:
    loss: str = "l1"
    adam: Adam = ADAM
    adversary: Adam = ADVERSARY
    weight: float = 100.0
    clip: float = 0.0
    micro: int = 0
    precision: str = "float32"
    seed: int = 0


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 4, stride=2)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return torch.sigmoid(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])


def batch(samples: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(samples, 5, 2, 10, 10, generator=draw)
    where = torch.rand(samples, 5, 1, 10, 10, generator=draw) > 0.3
    where[0] &= torch.rand(5, 1, 10, 10, generator=draw) > 0.8  # samples weigh unequally
    real = torch.rand(samples, 3, 2, 6, 6, generator=draw)
    return {"x": x, "target": 1 - x, "where": where, "discriminator_windows": real}


def supervised() -> dict[str, Tensor]:
    found = batch()
    del found["discriminator_windows"]
    return found


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().ravel() for p in net.parameters()])


# ------------------------------------------------------------------ supervised


@pytest.mark.parametrize("loss", ["l1", "l2", "ssim", "l1_ssim"])
def test_it_learns(loss: str) -> None:
    learns = Supervised(Generator(), losses.named(loss), Settings())
    found = [learns.step(supervised())["loss"] for _ in range(15)]
    assert found[-1] < found[0]
    assert learns.score(supervised())[0] < found[0]


def test_one_update_is_that_of_plain_torch() -> None:
    net = Generator()
    plain = deepcopy(net)
    Supervised(net, losses.l1, Settings()).step(supervised())
    b = supervised()
    loss = ((plain(b["x"]) - b["target"]).abs() * b["where"]).sum() / (2 * b["where"].sum())
    loss.backward()
    torch.optim.Adam(plain.parameters(), 1e-2).step()
    torch.testing.assert_close(weights(net), weights(plain), atol=1e-6, rtol=0)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("loss", ["l1", "ssim"])
def test_passes_add_up_to_the_batch(micro: int, loss: str) -> None:
    whole, parts = Generator(), Generator()
    parts.load_state_dict(whole.state_dict())
    a = Supervised(whole, losses.named(loss), Settings(adam=Adam(1e-4)))
    b = Supervised(parts, losses.named(loss), Settings(adam=Adam(1e-4), micro=micro))
    assert a.step(supervised())["loss"] == pytest.approx(b.step(supervised())["loss"], abs=1e-6)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4)
    assert a.score(supervised())[1] == b.score(supervised())[1]


def test_a_long_gradient_is_cut() -> None:
    net = Generator()
    learns = Supervised(net, losses.l1, Settings(clip=1e-3))
    learns.step(supervised())
    total = sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None)
    assert total**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_may_take_more_of_the_batch() -> None:
    net = Generator()
    found = supervised() | {"clear": ~supervised()["where"]}

    def kept(pred: Tensor, true: Tensor, where: Tensor, clear: Tensor, x: Tensor) -> Tensor:
        return losses.carl(pred, true, where, x, clear)

    learns = Supervised(net, kept, Settings(), ("clear", "x"), "samples", unseen=("clear",))
    b = found
    expected = float(kept(net(b["x"]), b["target"], b["where"], b["clear"], b["x"]).detach())
    first = learns.step(found)["loss"]
    assert first == pytest.approx(expected, 1e-5)
    assert learns.score(found)[1] == len(found["x"])
    assert learns.step(found)["loss"] < first


def test_nothing_to_score_changes_nothing() -> None:
    net = Generator()
    before = weights(net).clone()
    found = supervised()
    found["where"] = found["where"] & False
    learns = Supervised(net, losses.l1, Settings())
    assert learns.step(found) == {"loss": 0.0}
    assert learns.score(found) == (0.0, 0.0)
    assert torch.equal(weights(net), before)


def test_the_rate_can_be_scaled() -> None:
    learns = Supervised(Generator(), losses.l1, Settings())
    learns.rate(0.5)
    assert learns.optimizer.param_groups[0]["lr"] == 5e-3


def test_a_decay_makes_it_adamw() -> None:
    learns = Supervised(Generator(), losses.l1, Settings(adam=Adam(decay=0.1)))
    assert isinstance(learns.optimizer, torch.optim.AdamW)


def test_bfloat16_passes_give_float32_weights() -> None:
    net = Generator()
    exact = deepcopy(net)
    Supervised(net, losses.l1, Settings(precision="bfloat16")).step(supervised())
    Supervised(exact, losses.l1, Settings()).step(supervised())
    assert net.conv.weight.dtype == torch.float32
    torch.testing.assert_close(weights(net), weights(exact), atol=0.025, rtol=0)


# ------------------------------------------------------------------ adversarial


def adversarial(settings: Any = None) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(Generator(), Discriminator(), settings or Settings())


def test_windows_have_a_former_name_and_must_be_there() -> None:
    former = batch()
    former["real"] = former.pop("discriminator_windows")
    assert adversarial().step(former) == adversarial().step(batch())
    assert adversarial().score(former) == adversarial().score(batch())
    with pytest.raises(MethodError, match=r"Pass discriminator_windows=\(4, 64\) to the samples"):
        adversarial().step(supervised())


def test_the_steps_of_ganfilling() -> None:
    """One update against the same arithmetic written out."""
    learns = adversarial()
    net, judge = deepcopy(learns.net), deepcopy(learns.discriminator)
    found = learns.step(batch())
    b = batch()
    assert isinstance(learns.discriminator, Discriminator)
    real, fake, deceit = learns.discriminator.seen
    assert torch.equal(real, b["discriminator_windows"])
    assert fake.shape == deceit.shape == real.shape
    adam_d = torch.optim.Adam(judge.parameters(), 1e-2, (0.5, 0.999))
    loss_d = 0.5 * (-judge(real).log().mean() - (1 - judge(fake)).log().mean())
    loss_d.backward()
    adam_d.step()
    torch.testing.assert_close(weights(judge), weights(learns.discriminator), atol=1e-6, rtol=0)
    assert found["discriminator"] == pytest.approx(float(loss_d.detach()), abs=1e-6)
    kept = ((net(b["x"]) - b["target"]).abs() * b["where"]).mean()
    assert found["reconstruction"] == pytest.approx(float(kept.detach()), abs=1e-6)
    fooled = float(-judge(deceit).log().mean().detach())
    assert found["adversarial"] == pytest.approx(fooled, abs=1e-6)
    assert found["loss"] == pytest.approx(fooled + 100 * float(kept.detach()), abs=1e-4)
    assert next(iter(found)) == "loss"


@pytest.mark.parametrize("loss", ["carl", "l2", "l3"])
def test_an_adversary_takes_no_other_loss(loss: str) -> None:
    with pytest.raises(MethodError, match=rf"{loss}.*expected"):
        adversarial(Settings(loss=loss))


def test_windows_are_cut_from_the_answers() -> None:
    learns = adversarial()
    answers = learns.net(batch()["x"]).detach()
    windows = learns._window(answers, batch()["discriminator_windows"])
    for sample, window in zip(answers, windows, strict=True):
        places = sample.unfold(0, 3, 1).unfold(2, 6, 1).unfold(3, 6, 1)
        places = places.permute(0, 2, 3, 4, 1, 5, 6).reshape(-1, *window.shape)
        assert (places == window).flatten(1).all(1).any()


def test_the_net_alone_moves_in_its_step() -> None:
    learns = adversarial(Settings(adversary=Adam(0.0)))
    before = weights(learns.discriminator).clone()
    learns.step(batch())
    assert torch.equal(weights(learns.discriminator), before)
    assert all(p.requires_grad for p in learns.discriminator.parameters())


def test_the_reconstruction_is_learnt() -> None:
    learns = adversarial()
    found = [learns.step(batch())["reconstruction"] for _ in range(15)]
    assert found[-1] < found[0]
    score, weight = learns.score(batch())
    assert weight == 2 * int(batch()["where"].sum())
    assert 0 < score < 1


def test_clouds_lighten_the_reconstruction() -> None:
    clear, cloudy = batch(), batch()
    clear["where"] = torch.ones_like(clear["where"])
    cloudy["where"] = cloudy["where"] & False
    assert adversarial().step(clear)["reconstruction"] > 0.1
    assert adversarial().step(cloudy)["reconstruction"] == 0


@pytest.mark.parametrize("micro", [1, 3])
def test_passes_of_both_nets_add_up(micro: int) -> None:
    whole, parts = adversarial(), adversarial(Settings(micro=micro))
    found, other = whole.step(batch()), parts.step(batch())
    assert found["real"] == pytest.approx(other["real"], abs=1e-6)
    assert found["reconstruction"] == pytest.approx(other["reconstruction"], abs=1e-6)


# ------------------------------------------------------------------ going on


@pytest.mark.parametrize("kind", ["supervised", "adversarial"])
def test_going_on_from_a_state_is_as_if_it_never_stopped(kind: str) -> None:
    def make() -> Objective:
        if kind == "adversarial":
            return adversarial()
        torch.manual_seed(0)
        return Supervised(Generator(), losses.l1, Settings())

    given = batch() if kind == "adversarial" else supervised()
    straight = make()
    for _ in range(4):
        straight.step(given)
    first = make()
    for _ in range(2):
        first.step(given)
    state = deepcopy(first.state_dict())
    second = make()
    second.load_state_dict(state)
    for _ in range(2):
        second.step(given)
    for p, q in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)


def test_every_process_draws_its_own_windows_after_going_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = adversarial()
    first.step(batch())

    def drawn(number: int) -> list[int]:
        monkeypatch.setattr(objective, "rank", lambda: number)
        again = adversarial()
        again.load_state_dict(deepcopy(first.state_dict()))
        return torch.randint(1000, (20,), generator=again.draws).tolist()

    alone, second, third = (drawn(number) for number in range(3))
    assert drawn(1) == second
    monkeypatch.setattr(objective, "rank", lambda: 0)
    assert alone == torch.randint(1000, (20,), generator=deepcopy(first).draws).tolist()
    assert len({*map(tuple, (alone, second, third))}) == 3
    first.step(batch())
    assert drawn(1) != second


def test_settings_are_values() -> None:
    assert replace(Adam(), rate=1.0) == Adam(1.0)
