"""How a net learns: one update of its weights from one batch, supervised or against an adversary.

A batch is a dict of tensors on the CPU with samples along the first axis: the arguments of the net
by name, `target` and `where`, and for an adversary `discriminator_windows`. An update cuts it into
passes of `micro` samples whose gradients add up to those of the whole batch. Where
torch.distributed runs, a process sees its share of the batch, and torch's own
DistributedDataParallel adds the gradients up.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from cubefill.errors import MethodError
from cubefill.nn import losses
from cubefill.nn.update import Adam as Adam
from cubefill.nn.update import (
    Batch,
    adam,
    autocast,
    clip,
    cut,
    distributed,
    forward,
    last_syncs,
    mean_of_processes,
    moved,
    rank,
    set_rate,
    shares,
)


class Learning(Protocol):
    """What an objective reads of a recipe."""

    @property
    def loss(self) -> str:
        """Name of a loss, one of `losses.LOSSES`."""

    @property
    def adam(self) -> Adam:
        """Settings for the net."""

    @property
    def adversary(self) -> Adam:
        """Settings for the discriminator."""

    @property
    def weight(self) -> float:
        """Weight of the reconstruction beside the adversary."""

    @property
    def clip(self) -> float:
        """Largest norm of the gradient; 0 stands for any."""

    @property
    def micro(self) -> int:
        """Samples in a pass; 0 for the whole batch."""

    @property
    def precision(self) -> str:
        """Type of a pass: "float32" or "bfloat16"."""

    @property
    def seed(self) -> int:
        """Seed of everything drawn."""


class Objective(Protocol):
    """How a net learns: nets, optimizers, and one update from one batch."""

    net: nn.Module
    """What goes into the checkpoint."""

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the weights; the losses by name, the first one the one to watch."""

    def score(self, batch: Batch) -> tuple[float, float]:
        """Loss without learning, and its weight in a mean over batches."""

    def rate(self, factor: float) -> None:
        """Sets every learning rate to `factor` times that of the settings."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that is trained."""

    def state_dict(self) -> dict[str, Any]:
        """Nets, optimizers and what is drawn at random: all that `load_state_dict` takes back."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""


# ------------------------------------------------------------------ supervised


class Supervised:
    """The net gives the target where it is scored.

    Parameters
    ----------
    net
        A net whose `forward` takes entries of the batch by name.
    loss
        Of `(pred, true, where)`, and of the entries named in `extra`.
    recipe
        Settings.
    extra
        Further entries of the batch that the loss takes.
    unseen
        Further entries of the batch that the net does not take.
    share
        What weighs a pass in the whole batch: its sum of "where", for a loss that is a mean over
        scored values, or its "samples".
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., Tensor],
        recipe: Learning,
        extra: tuple[str, ...] = (),
        share: str = "where",
        unseen: tuple[str, ...] = (),
    ) -> None:
        self.net, self.loss, self.recipe = net, loss, recipe
        self.extra, self.share, self.unseen = extra, share, {"target", "where", *unseen}
        self.optimizer = adam(recipe.adam, net.parameters())
        self.wrapped = distributed(net)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update; `loss` before it."""
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(cut(batch, self.recipe.micro))
        weights = shares([self._weight(p) for p in parts])
        total = 0.0
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            with last_syncs(self.wrapped, i == len(parts) - 1):
                loss = self._loss(self.wrapped, part) * weight
                loss.backward()
            total += float(loss.detach())
        clip(self.net, self.recipe.clip)
        self.optimizer.step()
        return {"loss": mean_of_processes(total)}

    @torch.no_grad()
    def score(self, batch: Batch) -> tuple[float, float]:
        """Loss of a batch, and the weight of its scored values."""
        self.net.eval()
        parts = list(cut(batch, self.recipe.micro))
        weights = [self._weight(p) for p in parts]
        total = sum(w * float(self._loss(self.net, p)) for p, w in zip(parts, weights, strict=True))
        whole = sum(weights)
        return (total / whole if whole else 0.0), whole

    def rate(self, factor: float) -> None:
        """Sets the learning rate to `factor` times that of the settings."""
        set_rate(self.optimizer, self.recipe.adam.rate * factor)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of the net."""
        return self.net.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Net and optimizer."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _weight(self, part: Batch) -> float:
        if self.share == "where":
            return float(part["where"].sum())
        return float(len(part["target"]))

    def _loss(self, net: nn.Module, part: Batch) -> Tensor:
        there = moved(part, self.net)
        pred = forward(net, there, self.recipe.precision, self.unseen)
        more = [there[n] for n in self.extra]
        return self.loss(pred, there["target"], there["where"], *more)


# ------------------------------------------------------------------ adversarial


class Adversarial:
    """Adversarial loss plus reconstruction of the clear values.

    As GANFilling learns. First the discriminator: half the sum of its cross-entropies for real
    clear windows (1) and for a random window of each answer (0). Then the net: the cross-entropy
    of such a window for 1, plus `recipe.weight` times `sum(|pred - target| where) / count`, a mean
    over all values, so that it weighs less under more cloud. The authors cut one window from the
    first sample of a batch; here every sample gives one.

    A batch holds `discriminator_windows` `(sample, time, band, y, x)`, clear windows of the length
    and size that the discriminator sees; the net's answers are `(sample, time, band, y, x)`. The
    discriminator gives probabilities.

    Raises
    ------
    MethodError
        The recipe names another loss than "l1", or a batch has no clear windows.

    References
    ----------
    GANFilling, ISPRS Journal of Photogrammetry and Remote Sensing 220 (2025), 637-648.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, recipe: Learning) -> None:
        losses.named(recipe.loss)
        if recipe.loss != "l1":
            raise MethodError(
                f"loss={recipe.loss!r} beside an adversary: expected 'l1', the reconstruction of "
                "GANFilling. Pass loss='l1'."
            )
        self.net, self.discriminator, self.recipe = generator, discriminator, recipe
        self.optimizer = adam(recipe.adam, generator.parameters())
        self.opponent = adam(recipe.adversary, discriminator.parameters())
        self.wrapped, self.wrapped_opponent = distributed(generator), distributed(discriminator)
        self.draws = torch.Generator().manual_seed(recipe.seed + rank())

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the discriminator, then one of the net."""
        self.net.train()
        self.discriminator.train()
        parts = list(cut(_with_windows(batch), self.recipe.micro))
        weights = shares([float(len(p["target"])) for p in parts])
        seen = self._teach_discriminator(parts, weights)
        return self._teach_net(parts, weights) | seen

    @torch.no_grad()
    def score(self, batch: Batch) -> tuple[float, float]:
        """Mean absolute difference where scored, and the weight of those values."""
        self.net.eval()
        total = whole = 0.0
        for part in cut(batch, self.recipe.micro):
            there = moved(part, self.net)
            pred = forward(self.net, there, self.recipe.precision, _NOT_GIVEN)
            where = there["where"].to(pred.dtype).expand(pred.shape)
            total += float((pred - there["target"]).abs().mul(where).sum())
            whole += float(where.sum())
        return (total / whole if whole else 0.0), whole

    def rate(self, factor: float) -> None:
        """Sets both learning rates to `factor` times those of the settings."""
        set_rate(self.optimizer, self.recipe.adam.rate * factor)
        set_rate(self.opponent, self.recipe.adversary.rate * factor)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of both nets."""
        yield from self.net.parameters()
        yield from self.discriminator.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Both nets, both optimizers, and the state of what is drawn."""
        return {
            "net": self.net.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "opponent": self.opponent.state_dict(),
            "draws": self.draws.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        The state is that of the first process: every other one draws anew, from it and its rank.
        """
        self.net.load_state_dict(state["net"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.opponent.load_state_dict(state["opponent"])
        self.draws.set_state(state["draws"].cpu())
        if rank():
            drawn = int(torch.randint(2**62, (), generator=self.draws))
            self.draws.manual_seed(drawn + rank())

    def _teach_discriminator(self, parts: list[Batch], weights: list[float]) -> dict[str, float]:
        self.opponent.zero_grad(set_to_none=True)
        real_loss = fake_loss = 0.0
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            there = moved(part, self.net)
            with torch.no_grad():
                pred = forward(self.net, there, self.recipe.precision, _NOT_GIVEN)
            judge = self.wrapped_opponent
            with last_syncs(judge, False):
                loss = self._judged(judge, there[_WINDOWS], 1.0) * (weight / 2)
                loss.backward()
            real_loss += float(loss.detach())
            with last_syncs(judge, i == len(parts) - 1):
                loss = self._judged(judge, self._window(pred, there[_WINDOWS]), 0.0) * (weight / 2)
                loss.backward()
            fake_loss += float(loss.detach())
        clip(self.discriminator, self.recipe.clip)
        self.opponent.step()
        return {
            "discriminator": mean_of_processes(real_loss + fake_loss),
            "real": mean_of_processes(2 * real_loss),
            "fake": mean_of_processes(2 * fake_loss),
        }

    def _teach_net(self, parts: list[Batch], weights: list[float]) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)
        deceived = rebuilt = 0.0
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            there = moved(part, self.net)
            with last_syncs(self.wrapped, i == len(parts) - 1):
                pred = forward(self.wrapped, there, self.recipe.precision, _NOT_GIVEN)
                window = self._window(pred, there[_WINDOWS])
                deceit = self._judged(self.discriminator, window, 1.0) * weight
                kept = mean_of_all(pred, there["target"], there["where"]) * weight
                (deceit + self.recipe.weight * kept).backward()
            deceived += float(deceit.detach())
            rebuilt += float(kept.detach())
        self.discriminator.requires_grad_(True)
        clip(self.net, self.recipe.clip)
        self.optimizer.step()
        deceived, rebuilt = mean_of_processes(deceived), mean_of_processes(rebuilt)
        return {
            "loss": deceived + self.recipe.weight * rebuilt,
            "adversarial": deceived,
            "reconstruction": rebuilt,
        }

    def _judged(self, judge: nn.Module, windows: Tensor, answer: float) -> Tensor:
        with autocast(windows.device, self.recipe.precision):
            found = judge(windows)
        found = found.float()
        return binary_cross_entropy(found, torch.full_like(found, answer))

    def _window(self, pred: Tensor, like: Tensor) -> Tensor:
        """One random window of each sample, of the length and size of the real ones."""
        cuts = []
        for sample in pred:
            picked = sample
            for axis, size in ((0, like.shape[1]), (2, like.shape[3]), (3, like.shape[4])):
                last = sample.shape[axis] - size
                start = int(torch.randint(last + 1, (), generator=self.draws))
                picked = picked.narrow(axis, start, size)
            cuts.append(picked)
        return torch.stack(cuts)


_WINDOWS, _FORMER = "discriminator_windows", "real"
_NOT_GIVEN = {"target", "where", _WINDOWS, _FORMER}


def _with_windows(batch: Batch) -> Batch:
    """The batch with the windows that the discriminator learns from, by either name."""
    found = batch.get(_WINDOWS, batch.get(_FORMER))
    if found is None:
        raise MethodError(
            f"A batch of {', '.join(batch)}: expected {_WINDOWS} too, which the discriminator "
            f"learns from. Pass {_WINDOWS}=(4, 64) to the samples."
        )
    return {**batch, _WINDOWS: found}


def mean_of_all(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Absolute differences where scored, divided by the count of all values."""
    weight = where.to(pred.dtype).expand(pred.shape)
    true = torch.where(weight > 0, true.to(pred.dtype), pred.detach())
    return ((pred - true).abs() * weight).mean()
