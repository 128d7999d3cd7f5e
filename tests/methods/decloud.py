"""A small trained-looking checkpoint of a Decloud or U-TILISE method."""

import atexit
import tempfile
from dataclasses import asdict
from typing import Any

import torch

from cubefill import checkpoint
from cubefill.methods._torch import TorchMethod, path_of

_FOLDER = tempfile.TemporaryDirectory(prefix="cubefill-test-")
atexit.register(_FOLDER.cleanup)


def made(kind: type[TorchMethod], **config: Any) -> Any:
    """A method with a checkpoint of random weights for a configuration."""
    torch.manual_seed(5)
    chosen = kind.Config(**config)
    net = kind.net(chosen)
    card = checkpoint.Card(path_of(kind), config=asdict(chosen))
    folder = tempfile.mkdtemp(dir=_FOLDER.name)
    return kind(checkpoint=str(checkpoint.save(f"{folder}/net", net.state_dict(), card)))
