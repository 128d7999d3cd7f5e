"""Bad checkpoints, as a user meets them; test_bad_input.py lists what is tested where."""

import io
import json
import os
import pickle
import re
import shutil
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import cubefill
from cubefill import train
from cubefill.cli import main
from cubefill.errors import CubefillError, MethodError, StoreError
from cubefill.methods import resolve
from cubefill.methods.learned.ganfilling import GanFilling
from cubefill.methods.learned.utilise import Utilise, UtiliseConfig
from cubefill.nn import checkpoint
from cubefill.train.recipe import Recipe
from tests.shared.bad_cases import TINY, cube, filled, net, whole
from tests.shared.decloud import made
from tests.shared.torch_thread import one_thread as one_thread

CUT = "cut short or not a safetensors file"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of `utilise` that a test may spoil."""
    return Path(shutil.copytree(net("utilise"), tmp_path / "net"))


def card(folder: Path, **entries: Any) -> None:
    found = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(found | entries))


def signed(folder: Path) -> None:
    """Lets the card name the weights that lie beside it."""
    card(folder, digest=checkpoint.digest(folder))


def spoiled(folder: Path, spoil: Callable[[Any], Any]) -> None:
    """Changes the state and signs it."""
    path = str(folder / "weights.safetensors")
    state = load_file(path)
    spoil(state)
    save_file(state, path)
    signed(folder)


TINY_CONFIG = UtiliseConfig(**TINY["utilise"])


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


# ------------------------------------------------------------------ checkpoints


def test_a_checkpoint_of_another_method() -> None:
    other = net("ganfilling")
    told = r"is a checkpoint of .*ganfilling:GanFilling: expected one of .*utilise:Utilise.*Use ds"
    with pytest.raises(MethodError, match=told):
        cube().gapfill("utilise", checkpoint=other)
    recipe = Recipe(method="utilise", epochs=1)
    with pytest.raises(MethodError, match=told):
        train.fit(Utilise(checkpoint=other), [], recipe, "nowhere")


@pytest.mark.parametrize("place", ["nowhere", "net/card.json"])
def test_a_folder_that_is_none(folder: Path, place: str) -> None:
    with pytest.raises(StoreError, match=r"No checkpoint at .*expected a folder.*cubefill train"):
        cube().gapfill("utilise", checkpoint=str(folder.parent / place))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda s: s.pop("first.0.bias"), r"lacks 'first\.0\.bias': expected the \d+ tensors of"),
        (lambda s: s.update(extra=torch.ones(1)), r"has 'extra', which \w+ does not: expected"),
        (
            lambda s: s.update({"first.0.bias": torch.ones(9)}),
            r"'first\.0\.bias' of shape \(9,\): expected \(8,\)",
        ),
    ],
)
def test_weights_of_another_net(folder: Path, spoil: Callable[[Any], Any], told: str) -> None:
    spoiled(folder, spoil)
    told = rf"weights\.safetensors.*{told}.*Pass the checkpoint"
    with pytest.raises(MethodError, match=told) as planned:
        cube().gapfill("utilise", checkpoint=str(folder))
    target = folder.parent / "filled.zarr"
    with pytest.raises(MethodError, match=told):
        cubefill.run(cube(), target, "utilise", checkpoint=str(folder), progress=False)
    assert not target.exists(), "refused before anything is written"
    with pytest.raises(MethodError) as loaded:
        checkpoint.load_net(folder, lambda card: Utilise(checkpoint=str(folder)).net(TINY_CONFIG))
    assert str(planned.value) == str(loaded.value)


@pytest.mark.parametrize("name", TINY)
def test_every_net_is_known_while_planning(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(net(name), tmp_path / "net"))
    method = resolve(name, checkpoint=str(folder))
    method.ready()  # type: ignore[attr-defined]
    spoiled(folder, lambda s: s.pop(next(iter(s))))
    with pytest.raises(
        MethodError, match=r"weights\.safetensors lacks .*: expected the \d+ tensors"
    ):
        resolve(name, checkpoint=str(folder)).ready()  # type: ignore[attr-defined]


class Numbers(Utilise):
    """A net that torch's meta device cannot make."""

    @classmethod
    def net(cls, config: Any) -> torch.nn.Module:
        assert float(torch.ones(2).sum()) == 2
        return super().net(config)


def test_a_net_that_needs_numbers_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    method = made(Numbers, **TINY["utilise"])
    method.ready()
    whole(cube().gapfill(method).compute(), cube())
    folder = Path(shutil.copytree(method.checkpoint, tmp_path / "net"))
    spoiled(folder, lambda s: s.pop("first.0.bias"))
    lazy = cube().gapfill(Numbers(checkpoint=str(folder)))
    with pytest.raises(MethodError, match=r"lacks 'first\.0\.bias'"):
        lazy.compute()


@pytest.mark.parametrize("name_them", [False, True])
def test_weights_that_are_cut_short(folder: Path, name_them: bool) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    if name_them:
        signed(folder)
    told = rf"weights\.safetensors \(\d+ bytes\) is {CUT}.*Try to copy the whole folder again"
    with pytest.raises(StoreError, match=told):
        filled(cube(), place=folder)


def test_weights_of_another_checkpoint(folder: Path) -> None:
    other = Path(net("ganfilling")) / "weights.safetensors"
    shutil.copy(other, folder)
    with pytest.raises(StoreError, match=r"SHA-256 .*expected .* as card\.json says.*Try to copy"):
        cube().gapfill("utilise", checkpoint=str(folder))
    with pytest.raises(StoreError, match=r"as card\.json says"):
        checkpoint.load(folder)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_weights_that_are_a_pickle_with_code(folder: Path, write: str) -> None:
    struck, path = folder.parent / "struck", folder / "weights.safetensors"
    if write == "pickle":
        path.write_bytes(pickle.dumps(Hostile(struck)))
    else:
        torch.save({"first.0.bias": Hostile(struck)}, path)
    signed(folder)
    with pytest.raises(StoreError, match=CUT):
        filled(cube(), place=folder)
    assert not struck.exists()
    data = io.BytesIO(path.read_bytes())
    torch.load(data, weights_only=False) if write == "torch" else pickle.load(data)
    assert struck.exists()


@pytest.mark.parametrize(
    ("error", "text", "told"),
    [
        (StoreError, "", "is not JSON"),
        (StoreError, '{"method": "a:', "is not JSON"),
        (StoreError, "[]", "holds list: expected `method`"),
        (StoreError, {"colour": 3}, "holds .*colour: expected `method` and of"),
        (StoreError, {"method": 7}, "method=7: expected a string"),
        (StoreError, {"digest": 7}, "digest=7: expected a string"),
        (StoreError, {"config": None}, "config=None: expected an object"),
        (MethodError, {"config": {"depth": 3}}, r"config \['depth'\]: expected bands, sar"),
        (MethodError, {"config": {"patch": "16"}}, "patch='16': expected a value such as 128"),
        (MethodError, {"config": {"sar": 1}}, "sar=1: expected a value such as False"),
        (MethodError, {"config": {"bands": "B02"}}, "bands='B02': expected a value such as"),
        (MethodError, {"config": {"widths": [8, "x"]}}, "widths=.*expected a value such as"),
        (MethodError, {"config": {"widths": []}}, r"widths=\[\]: expected a value such as"),
    ],
)
def test_a_broken_card(folder: Path, error: type[CubefillError], text: Any, told: str) -> None:
    if isinstance(text, str):
        (folder / "card.json").write_text(text)
    else:
        card(folder, **text)
    with pytest.raises(error, match=rf"{told}.*(again|copy)"):
        cube().gapfill("utilise", checkpoint=str(folder))


def test_the_command_line_says_it_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    cubefill.write_cube(cube(), tmp_path / "cube.zarr", progress=False)
    places = [str(tmp_path / n) for n in ("cube.zarr", "filled.zarr")]
    options = ["--method", "utilise", "--option", f"checkpoint={folder}", "-q"]
    done = CliRunner().invoke(main, ["fill", *places, *options])
    assert done.exit_code == 1
    assert CUT in done.stderr
    assert "Traceback" not in done.output


@dataclass
class Foreign:
    """A class of nobody's list; it does nothing."""

    rate: float = 0.1


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "model": GanFilling.convert,
    "model_state_dict": lambda path, target: Utilise.from_original(path),
}


@pytest.mark.parametrize("key", READERS)
def test_an_authors_file_with_a_foreign_class(tmp_path: Path, key: str) -> None:
    path, target = tmp_path / "theirs.pt", tmp_path / "net"
    torch.save({key: {"conv1.weight": torch.ones(2, 4, 4, 4)}, "options": Foreign()}, path)
    told = r"theirs\.pt is refused.*\(GLOBAL \S+Foreign\).*ask its authors for"
    with pytest.raises(StoreError, match=told) as refused:
        READERS[key](path, target)
    assert not target.exists()
    shown = "".join(traceback.format_exception(refused.value))
    assert not re.search(ADVICE, shown)


ADVICE = "weights_only|safe_globals|likely succeed|can still be loaded"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_torchs_advice_is_never_repeated(tmp_path: Path, protocol: int, legacy: bool) -> None:
    path, struck = tmp_path / "theirs.pt", tmp_path / "struck"
    torch.save(
        {"conv.weight": torch.ones(2), "more": Hostile(struck)}, path,
        pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy,
    )  # fmt: skip
    found = r"GLOBAL \w+\.mkdir" if protocol < 4 else r"Unsupported operand \d+"
    with pytest.raises(StoreError, match=rf"is refused.*\({found}\)\. Nothing in it") as refused:
        checkpoint.original_pt(path)
    assert not struck.exists()
    assert not re.search(ADVICE, "".join(traceback.format_exception(refused.value)))


def test_tensors_of_another_pickle_protocol_are_read_in_silence(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "theirs.pt", pickle_protocol=3)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        state, _ = checkpoint.original_pt(tmp_path / "theirs.pt")
    assert torch.equal(state["a"], torch.ones(2))
    assert not heard


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_program_of_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(
        StoreError, match=r"cannot be read \(it is a TorchScript archive"
    ) as refused:
        checkpoint.original_pt(path)
    assert not re.search(ADVICE, str(refused.value))
