"""What a deep method holds beside its blocks, found without its weights and without computing."""

import logging
from typing import Any

import torch
from torch import nn

from cubefill.errors import CubefillError
from cubefill.methods.contract import Scratch
from cubefill.methods.learned.passes import passes_at_once
from cubefill.nn.memory import pass_bytes, weight_bytes
from cubefill.nn.original import Shape, shapes_of

HEAP = 1.5
"""Memory that a CPU's passes take over that of their tensors (measured with glibc: 1.1 to 1.9)."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]

log = logging.getLogger("cubefill")


def footprint(kind: Any, config: Any, shapes: Shapes, on_cpu: bool) -> Scratch:
    """Weights once, and for each pass at once what one over inputs of these shapes holds.

    `kind` is the class of a deep method. The file of the weights is mapped while it is read: its
    pages are the system's to take back. On a GPU both lie there: what counts here is a copy of the
    weights while they load, and the inputs of two passes, once as they are and once pinned.
    """
    weights, activations = counted(kind, config, shapes)
    if on_cpu:
        return Scratch(weights, int(HEAP * activations), passes_at_once())
    inputs = sum(4 * torch.Size(s).numel() for _, s in shapes)
    return Scratch(weights, 4 * inputs, passes_at_once())


_COUNTED: dict[tuple[type, str, Shapes], tuple[int, int]] = {}


def counted(kind: Any, config: Any, shapes: Shapes) -> tuple[int, int]:
    """Bytes of the weights and of one pass of a net, counted once for a configuration."""
    key = (kind, repr(config), shapes)
    if key not in _COUNTED:
        net = on_meta(kind, config).to("meta").eval().requires_grad_(False)
        if kind.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _COUNTED[key] = weight_bytes(net), pass_bytes(net, dict(shapes))
    return _COUNTED[key]


def on_meta(kind: Any, config: Any) -> nn.Module:
    """A net of shapes alone, on torch's meta device."""
    with torch.device("meta"):
        net: nn.Module = kind.net(config)
    return net


_STATES: dict[tuple[type, str], tuple[str, dict[str, Shape] | None]] = {}


def state_of(kind: Any, config: Any) -> tuple[str, dict[str, Shape] | None]:
    """Name and shapes of a net's state; None for shapes that only real tensors would tell."""
    key = (kind, repr(config))
    if key not in _STATES:
        try:
            net = on_meta(kind, config)
            _STATES[key] = type(net).__name__, shapes_of(net.state_dict())
        except CubefillError:
            raise
        except Exception as error:  # a net may need real numbers while it is made
            log.info("The plan does not check the weights of %s: %s", kind.__name__, error)
            _STATES[key] = kind.__name__, None
    return _STATES[key]
