import json
import os
import pickle
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cubefill.errors import CubefillError, MethodError, StoreError
from cubefill.nn import checkpoint
from cubefill.nn.checkpoint import (
    Card,
    config_of,
    digest,
    load,
    load_net,
    load_state,
    original_pt,
    read_card,
    save,
)
from tests.shared.torch_thread import watched


@dataclass(frozen=True)
class Config:
    width: int = 3
    kernels: tuple[int, ...] = (3, 3)


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3)
        self.norm = nn.BatchNorm2d(width)


CARD = Card(
    "package.module:Mine", {"width": 3, "kernels": (3, 3)}, scores={"mae": 0.01}, licence="MIT"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "net", Net().state_dict(), CARD)


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    checkpoint._NETS.clear()
    yield
    checkpoint._NETS.clear()


def test_weights_and_card_come_back(tmp_path: Path) -> None:
    net = Net()
    folder = save(tmp_path / "a" / "net", net.state_dict(), CARD)
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "weights.safetensors"]
    state, card = load(folder)
    assert card.method == CARD.method
    assert card.digest == digest(folder)
    assert card.scores == {"mae": 0.01}
    assert set(card.versions) >= {"torch", "python", "cubefill"}
    assert config_of(card, Config) == Config(3, (3, 3))
    other = Net()
    load_state(other, state)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_half_the_bytes_in_bfloat16(tmp_path: Path) -> None:
    net = nn.Linear(64, 64)
    wide = save(tmp_path / "wide", net.state_dict(), CARD)
    narrow = save(tmp_path / "narrow", net.state_dict(), CARD, precision="bfloat16")
    sizes = [(f / "weights.safetensors").stat().st_size for f in (wide, narrow)]
    assert sizes[1] < 0.6 * sizes[0]
    other = nn.Linear(64, 64)
    load_state(other, load(narrow)[0])
    assert other.weight.dtype == torch.float32
    torch.testing.assert_close(other.weight, net.weight, atol=1e-3, rtol=0)


def test_a_checkpoint_is_replaced_only_when_asked(folder: Path) -> None:
    with pytest.raises(StoreError, match="overwrite=True"):
        save(folder, Net().state_dict(), CARD)
    before = digest(folder)
    save(folder, Net().state_dict(), CARD, overwrite=True)
    assert digest(folder) != before
    assert load(folder)[1].digest == digest(folder)


# ------------------------------------------------------------------ bad folders


def test_an_absent_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No checkpoint at .*nowhere.*cubefill train"):
        load(tmp_path / "nowhere")


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match=r"card\.json is absent.*notes\.txt"):
        load(tmp_path)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(StoreError, match=r"weights\.safetensors is absent"):
        load(folder)
    with pytest.raises(StoreError, match=r"cannot be read"):
        digest(folder)


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_weights_that_are_cut_short(folder: Path, size: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreError, match=r"weights\.safetensors .*bytes.* cut short"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "holds list: expected `method`"),
        ("{}", "holds nothing: expected `method`"),
        ('{"method": "a:B", "colour": 3}', "holds method, colour"),
    ],
)
def test_a_card_that_is_no_card(folder: Path, text: str, message: str) -> None:
    (folder / "card.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        load(folder)


def test_weights_of_another_checkpoint(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", Net().state_dict(), CARD)
    (other / "weights.safetensors").replace(folder / "weights.safetensors")
    with pytest.raises(StoreError, match=r"SHA-256 .*different checkpoints"):
        load(folder)


def test_a_config_of_another_version(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["config"]["depth"] = 4
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(MethodError, match=r"config .*'depth'.*expected width, kernels"):
        config_of(read_card(folder), Config)


# ------------------------------------------------------------------ bad states


def changed(**other: Any) -> dict[str, torch.Tensor]:
    state = dict(Net().state_dict())
    for name, value in other.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            changed(first__bias=None),
            r"the state lacks 'first\.bias': expected the 7 tensors of Net",
        ),
        (changed(first__bias=None, norm__bias=None), r"lacks 'first\.bias' and 1 more"),
        (changed(extra=torch.ones(1)), r"has 'extra', which Net does not"),
        (
            changed(norm__weight=torch.ones(9)),
            r"has 'norm\.weight' of shape \(9,\): expected \(3,\)",
        ),
    ],
)
def test_a_state_of_another_net(state: dict[str, torch.Tensor], message: str) -> None:
    net = Net()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(MethodError, match=message):
        load_state(net, state)
    assert all(torch.equal(t, net.state_dict()[n]) for n, t in before.items())


# ------------------------------------------------------------------ one net per process


def test_two_threads_load_once(folder: Path) -> None:
    built: list[int] = []
    found: list[nn.Module] = []

    def build(card: Card) -> nn.Module:
        built.append(1)
        time.sleep(0.05)
        return Net(card.config["width"])

    def ask() -> None:
        found.append(load_net(folder, build))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(built) == 1
    assert all(net is found[0] for net in found)
    assert not found[0].training
    assert not any(p.requires_grad for p in found[0].parameters())


def test_new_weights_in_the_same_folder_are_loaded(folder: Path) -> None:
    old = digest(folder)
    first = load_net(folder, lambda c: Net())
    save(folder, Net().state_dict(), CARD, overwrite=True)
    second = load_net(folder, lambda c: Net())
    assert second is not first
    with pytest.raises(StoreError, match=r"Use resolve\(\.\.\.\) to make it again"):
        load_net(folder, lambda c: Net(), expected=old)


def test_card_and_weights_are_read_once_until_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch, checkpoint, "read_card", "check", "load")
    nets = {id(load_net(folder, lambda c: Net())) for _ in range(3)}
    assert len(nets) == 1
    assert seen.count("load") == 1
    first = len(seen)
    load_net(folder, lambda c: Net())
    assert len(seen) == first
    other = json.loads((folder / "card.json").read_text()) | {"digest": "0" * 64}
    (folder / "card.json").write_text(json.dumps(other))
    with pytest.raises(StoreError, match=r"as card\.json says"):
        load_net(folder, lambda c: Net())
    (folder / "card.json").unlink()
    with pytest.raises(StoreError, match=r"card\.json is absent"):
        load_net(folder, lambda c: Net())


def test_few_nets_are_kept(tmp_path: Path) -> None:
    for i in range(checkpoint.NETS_KEPT + 2):
        net = nn.Linear(1, 1)
        nn.init.constant_(net.weight, i)
        load_net(save(tmp_path / str(i), net.state_dict(), CARD), lambda c: nn.Linear(1, 1))
    assert len(checkpoint._NETS) == checkpoint.NETS_KEPT


# ------------------------------------------------------------------ authors' files


def test_an_authors_file_with_its_namespace(tmp_path: Path) -> None:
    net = Net()
    path = tmp_path / "theirs.pt"
    torch.save({"model": net.state_dict(), "configuration": Namespace(lrD=2e-4, name="x")}, path)
    shapes = {n: tuple(t.shape) for n, t in net.state_dict().items()}
    state, rest = original_pt(path, shapes, key="model")
    assert torch.equal(state["first.weight"], net.first.weight)
    assert rest == {"configuration": {"lrD": 2e-4, "name": "x"}}
    with pytest.raises(MethodError, match=r"theirs\.pt lacks 'last\.weight'"):
        original_pt(path, {**shapes, "last.weight": (1,)}, key="model")
    with pytest.raises(MethodError, match=r"'first\.bias' of shape \(3,\): expected \(8,\)"):
        original_pt(path, {**shapes, "first.bias": (8,)}, key="model")
    with pytest.raises(StoreError, match=r"holds model, configuration: expected a state dict"):
        original_pt(path)


def test_a_plain_state_dict(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "plain.pt")
    state, rest = original_pt(tmp_path / "plain.pt")
    assert len(state) == 7
    assert rest == {}


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    struck = tmp_path / "struck"
    path = tmp_path / "hostile.pt"
    held = {"model": Net().state_dict(), "configuration": Hostile(struck)}
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(StoreError, match=r"hostile\.pt is refused.*Nothing in it was run"):
        original_pt(path, key="model")
    assert not struck.exists()


def test_a_bare_pickle_with_code_is_refused(tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile(struck), protocol=2))
    with pytest.raises(CubefillError):
        original_pt(tmp_path / "bare.pt")
    assert not struck.exists()


def test_a_pointer_an_absent_and_a_short_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No file"):
        original_pt(tmp_path / "nothing.pt")
    pointer = tmp_path / "pointer.pt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:93\nsize 7\n")
    with pytest.raises(StoreError, match="git lfs pull"):
        original_pt(pointer)
    torch.save(Net().state_dict(), tmp_path / "short.pt")
    for size in (0, 40, 500, 1500):
        data = (tmp_path / "short.pt").read_bytes()[:size]
        (tmp_path / "cut.pt").write_bytes(data)
        with pytest.raises(StoreError, match=r"cut\.pt"):
            original_pt(tmp_path / "cut.pt")


WRAPPED = {
    "module": lambda n: f"module.{n}",
    "compiled": lambda n: f"_orig_mod.{n}",
    "both": lambda n: f"module._orig_mod.{n}",
    "inside": lambda n: n.replace("first.", "first._orig_mod.").replace("norm.", "module.norm."),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=list(WRAPPED))
def test_weights_of_a_wrapped_net_open(wrap: Any, tmp_path: Path) -> None:
    net, other = Net(), Net()
    state = {wrap(n): t for n, t in net.state_dict().items()}
    folder = save(tmp_path / "net", state, CARD)
    checkpoint.check(folder, "Net", {n: tuple(t.shape) for n, t in net.state_dict().items()})
    load_state(other, load(folder)[0])
    torch.save({"model": state}, tmp_path / "net.pt")
    theirs, _ = original_pt(tmp_path / "net.pt", key="model")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert torch.equal(tensor, theirs[name])


def test_a_net_that_has_a_part_of_such_a_name_keeps_it() -> None:
    net = nn.ModuleDict({"module": nn.Linear(2, 1)})
    other = nn.ModuleDict({"module": nn.Linear(2, 1)})
    load_state(other, net.state_dict())
    assert torch.equal(net["module"].weight, other["module"].weight)  # type: ignore[arg-type]
    both = {"module.a": torch.zeros(1), "a": torch.zeros(1)}
    with pytest.raises(MethodError, match=r"module\.a"):
        load_state(nn.ParameterDict({"a": torch.zeros(1)}), both)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_weights_get_the_mode_of_other_files(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        folder = save(tmp_path / "net", Net().state_dict(), CARD)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()}
    assert modes == {"card.json": 0o666 & ~mask, "weights.safetensors": 0o666 & ~mask}


def test_a_card_without_quantity_opens_and_is_replaced(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    del card["quantity"], card["sensor"]
    (folder / "card.json").write_text(json.dumps(card))
    assert read_card(folder).quantity == ""
    save(folder, Net().state_dict(), CARD, overwrite=True)
