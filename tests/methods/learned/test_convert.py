"""`convert`: the weights that the authors of each method publish, as a checkpoint that loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cubefill.errors import MethodError, StoreError
from cubefill.methods.learned import utilise
from cubefill.methods.learned.method import TorchMethod
from cubefill.methods.registry import METHODS, resolve
from cubefill.nn import checkpoint
from cubefill.nn.recurrent import keras_names
from tests.methods.learned.test_ganfilling import original
from tests.nn.test_keras import keras_file
from tests.shared.decloud import NARROW, SMALL, same_state, write_keras
from tests.shared.torch_thread import one_thread as one_thread

Write = Callable[[Path, TorchMethod, nn.Module], Path]
SERIES = {"steps": 8, "convs": (2, 3), "features": 4, "units": 3}


def by_layer(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in found.items():
        layers.setdefault(name.split("/")[0], {})[name] = tensor.numpy()
    return layers


def last(tensor: torch.Tensor) -> torch.Tensor:
    """A kernel as Keras lays it out."""
    return tensor.movedim((0, 1), (-1, -2)) if tensor.ndim > 1 else tensor


def write_gan(folder: Path, method: TorchMethod, net: nn.Module) -> Path:
    return original(folder, method.config.width)


def write_decloud(folder: Path, method: TorchMethod, net: nn.Module) -> Path:
    return write_keras(folder / "net.h5", net)


def write_series(folder: Path, method: TorchMethod, net: nn.Module) -> Path:
    paired = method.name == "mowing"
    names = keras_names(
        method.config.sizes, paired=paired, last="when_out" if paired else "time_distributed_1"
    )
    state = net.state_dict()
    return keras_file(
        folder / "net.h5", by_layer({their: last(state[our]) for their, our in names.items()})
    )


def write_stpconv(folder: Path, method: TorchMethod, net: nn.Module) -> Path:
    theirs: dict[str, Any] = {}
    layers: dict[str, str] = {}
    for name, tensor in net.state_dict().items():
        place, _, part = name.rpartition(".")
        number = len(layers)
        layer = layers.setdefault(
            place, "conv3d" if place == "head" else f"s_tpconv_{number}" if number else "s_tpconv"
        )
        kind = "bias" if part == "bias" else "kernel" if place == "head" else "STpconv_kernel"
        values = tensor.permute(0, 1, 3, 4, 2) if tensor.ndim == 5 else tensor
        theirs[f"{layer}/{kind}:0"] = last(values)
    return keras_file(folder / "net.h5", by_layer(theirs))


def write_utilise(folder: Path, method: TorchMethod, net: nn.Module) -> Path:
    table, theirs = utilise.original_names(len(method.config.widths) - 1), {}
    for name, tensor in net.state_dict().items():
        module, _, part = name.rpartition(".")
        theirs[f"{table[module]}.{part}"] = tensor
    torch.save({"model_state_dict": theirs, "epoch": 3}, folder / "net.pth")
    return folder / "net.pth"


CASES: dict[str, tuple[Write, dict[str, Any]]] = {
    "ganfilling": (write_gan, {"width": 2}),
    "seq2seq": (write_gan, {"width": 2}),
    "stpconv": (write_stpconv, {"filters": (2, 3), "size": 20}),
    "cnnrnn": (write_series, SERIES),
    "mowing": (write_series, SERIES),
    "ssop_unet": (write_decloud, {**NARROW, "dem": True}),
    "ssop_mer": (write_decloud, {**SMALL, "width": 4, "blocks": 2}),
    "msop_unet": (write_decloud, {**NARROW, "layout": "msop"}),
    "msop_david": (write_decloud, {**NARROW, "sar": False}),
    "utilise": (write_utilise, {"patch": 32, "pad": 4, "widths": (4, 4, 8), "heads": 2}),
}


def test_every_method_with_a_net_is_among_the_cases() -> None:
    deep = {n for n in METHODS if isinstance(resolve(n), TorchMethod)}
    assert deep | {"mowing"} == set(CASES)  # mowing fills no gap, and is in no list


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_a_checkpoint(tmp_path: Path, name: str) -> None:
    write, config = CASES[name]
    torch.manual_seed(3)
    untrained: Any = resolve(name)
    method: Any = untrained.configured(**config)
    net = method.net(method.config)
    path = write(tmp_path, method, net)
    folder = untrained.convert(path, tmp_path / "net", licence="MIT", **config)
    state, card = checkpoint.load(folder)
    if write is write_gan:
        state_of_file = type(method).from_original(path, method.config)
        assert len(state_of_file) == len(net.state_dict())
        torch.testing.assert_close(state, state_of_file)
        assert card.recipe["lambdaL1"] == 100
    else:
        same_state(state, net)
    assert (card.licence, card.needs["sar"]) == ("MIT", str(method.needs.sar))
    loaded: Any = resolve(name, checkpoint=str(folder))
    for field, value in config.items():
        assert getattr(loaded.config, field) == value
    with pytest.raises(StoreError, match="overwrite=True"):
        untrained.convert(path, tmp_path / "net", **config)
    untrained.convert(path, tmp_path / "net", overwrite=True, **config)
    assert checkpoint.read_card(folder).licence == ""


def test_a_width_is_found_in_the_file_and_formulas_are_the_authors(tmp_path: Path) -> None:
    gan: Any = resolve("ganfilling")
    folder = gan.convert(original(tmp_path, 2), tmp_path / "gan")
    assert checkpoint.read_card(folder).config["width"] == 2
    mowing: Any = resolve("mowing")
    small = mowing.configured(**SERIES)
    path = write_series(tmp_path, small, small.net(small.config))
    folder = mowing.convert(path, tmp_path / "mowing", **SERIES)
    assert checkpoint.read_card(folder).config["formulas"] == "authors"
    mowing.convert(path, tmp_path / "mowing", overwrite=True, formulas="text", **SERIES)
    assert checkpoint.read_card(folder).config["formulas"] == "text"


def test_the_weights_of_the_authors(tmp_path: Path, reference_folder: Path) -> None:
    weights = reference_folder / "weights"
    files = {
        "stpconv": "stpconv_S5P_CO_model.h5",
        "cnnrnn": "sf_fusion_model_weights.h5",
        "mowing": "mowing_model_weights.h5",
    }
    for name, file in files.items():
        method: Any = resolve(name)
        folder = method.convert(weights / file, tmp_path / name)
        state, card = checkpoint.load(folder)
        torch.testing.assert_close(state, type(method).from_original(weights / file))
        assert card.method.endswith(type(method).__qualname__)


def test_tensors_of_another_shape_leave_nothing(tmp_path: Path) -> None:
    method: Any = resolve("cnnrnn")
    small = method.configured(**SERIES)
    path = write_series(tmp_path, small, small.net(small.config))
    with pytest.raises(MethodError, match=r"'encoder.*of shape .*expected .* for cnnrnn"):
        method.convert(path, tmp_path / "net", **{**SERIES, "units": 4})
    with pytest.raises(MethodError, match=r"no configuration 'unit'.*Did you mean 'units'"):
        method.convert(path, tmp_path / "net", unit=3)
    with pytest.raises(MethodError, match=r"config has units = 'three': expected .* such as 16"):
        method.convert(path, tmp_path / "net", units="three")
    assert not (tmp_path / "net").exists()


def test_a_method_without_published_weights_says_so(tmp_path: Path) -> None:
    from tests.methods.learned.test_method import Demo

    with pytest.raises(MethodError, match="reads no weights of its authors"):
        Demo.convert(tmp_path / "net.pt", tmp_path / "net")
