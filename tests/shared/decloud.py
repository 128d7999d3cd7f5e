"""What tests of the Decloud methods and U-TILISE share: checkpoints, blocks, Keras files."""

import atexit
import tempfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from cubefill.methods.contract import Block
from cubefill.methods.learned.decloud import BANDS, BANDS_20M
from cubefill.methods.learned.method import TorchMethod, path_of
from cubefill.nn import checkpoint
from cubefill.nn.unet import layer_names

SMALL: dict[str, Any] = {"patch": 16, "pad": 4}
NARROW: dict[str, Any] = {**SMALL, "widths": (4, 4, 4)}
OS1 = "crga-os1-occitanie"

_FOLDER = tempfile.TemporaryDirectory(prefix="cubefill-test-")
atexit.register(_FOLDER.cleanup)


@cache
def made(kind: type[TorchMethod], **config: Any) -> Any:
    """A method with a checkpoint of random weights for a configuration, made once."""
    torch.manual_seed(5)
    chosen = kind.Config(**config)
    return kind(checkpoint=saved(kind, kind.net(chosen), chosen))


def saved(kind: type, net: nn.Module, config: Any) -> str:
    """Folder of a checkpoint of a net; it goes when the tests end."""
    card = checkpoint.Card(path_of(kind), config=asdict(config))
    folder = tempfile.mkdtemp(dir=_FOLDER.name)
    return str(checkpoint.save(f"{folder}/net", net.state_dict(), card))


def block(dates: int = 4, size: int = 16, **changes: Any) -> Block:
    """All ten bands, SAR and elevation at random, a date a week."""
    rng = np.random.default_rng(0)
    shape = (dates, size, size)
    time = np.datetime64("2023-05-01T10:30", "ns") + (7 * np.arange(dates)).astype("m8[D]")
    found = Block(
        bands={b: rng.random(shape, np.float32) for b in (*BANDS, *BANDS_20M)},
        valid=rng.random(shape) > 0.3,
        time=time,
        out_time=time,
        sar={n: rng.uniform(-25, 0, shape).astype(np.float32) for n in ("VV", "VH")},
        dem=rng.uniform(0, 2000, shape[1:]).astype(np.float32),
    )
    return replace(found, **changes)


def of_bands(given: Block, bands: tuple[str, ...] = BANDS) -> Block:
    """The block with some of its bands."""
    return replace(given, bands={n: given.bands[n] for n in bands})


def on_days(days: list[int], valid: float = 1.0, **changes: Any) -> Block:
    """A block on some days of May 2023 and after, a share of it clear."""
    given = block(len(days))
    time = np.datetime64("2023-05-01T10:30", "ns") + np.array(days, "m8[D]")
    clear = np.random.default_rng(1).random(given.valid.shape) < valid
    return replace(given, time=time, out_time=time, valid=clear, **changes)


def wanted(given: Block, day: int) -> Block:
    """The block asked for one day."""
    time = np.array([np.datetime64("2023-05-01T10:30", "ns") + np.timedelta64(day, "D")])
    return replace(given, out_time=time)


def write_keras(path: Path, net: Any) -> Path:
    """Weights of a net as Keras 2 stores them."""
    layers = layer_names(net)
    names: dict[str, dict[str, Any]] = {}
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        values = tensor.numpy()
        values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
        key = f"{layers[module]}/{'kernel' if part == 'weight' else 'bias'}:0"
        names.setdefault(layers[module], {})[key] = values
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(names)
        for layer, weights in names.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = list(weights)
            for key, values in weights.items():
                group.create_dataset(key, data=values)
    return path


def same_state(state: dict[str, Tensor], net: nn.Module) -> None:
    """Fails unless the state holds the weights of a net and no others."""
    assert set(state) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(state[name], tensor)
