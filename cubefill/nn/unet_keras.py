"""Weights of the Decloud nets from Keras, by the names of its layers, and how they start."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.errors import MethodError
from cubefill.nn import keras
from cubefill.nn.unet import DecloudNet, ResidualNet, Wiring

Weights = Mapping[str, NDArray[Any]]


def layer_names(net: DecloudNet | ResidualNet) -> dict[str, str]:
    """Name of a module of the net to the name of its Keras layer."""
    if isinstance(net, ResidualNet):
        pairs = {
            f"blocks.{b}.{c}": f"block{b}_conv{c + 1}_relu"
            for b in range(len(net.blocks))
            for c in range(2)
        }
        return {"conv1": "conv1_relu", "conv2": "conv2", **pairs}
    w, deep = net.wiring, len(net.up)
    found = {f"conv1.{k}": _stem(k, w) for k in w.kinds}
    found |= {f"conv2.{k}": f"conv2_{k}_relu" for k in w.kinds} if w.own_second else {}
    found |= {"conv2.all": "conv2_bn_relu", "conv1_dem": "conv1_dem_relu"}
    found |= {"conv1_20m": "conv1_20m_relu", "conv2_20m": "conv2_20m_bn_relu"}
    found |= {f"down.{i}": f"conv{i + 3}_bn_relu" for i in range(len(net.down))}
    found |= {f"up.{i}": f"deconv{i + 1}_bn_relu" for i in range(deep)}
    found |= {"up_20m": f"deconv{deep}_20m_bn_relu"}
    return found | {"head": "s2_estim", "head_20m": "s2_20m_estim"}


def _stem(kind: str, w: Wiring) -> str:
    return "conv1_relu" if len(w.kinds) == 1 else f"conv1_{kind}_relu"


def from_keras(net: DecloudNet | ResidualNet, weights: Weights) -> dict[str, Tensor]:
    """The state of a net from Keras tensors named `layer/kernel:0` and `layer/bias:0`.

    Raises
    ------
    MethodError
        A tensor is missing, of another shape, or left over; named as Keras names it.
    """
    layers = layer_names(net)
    state: dict[str, Tensor] = {}
    used = set()
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        key = f"{layers[module]}/{'kernel' if part == 'weight' else 'bias'}:0"
        if key not in weights:
            raise MethodError(
                f"Weights of {layers[module]!r} are missing ({key}): expected the layers "
                f"{', '.join(_layers(net, layers))}. {_CONFIG}"
            )
        values = keras.bias(weights[key]) if part == "bias" else keras.kernel(weights[key])
        if values.shape != tensor.shape:
            wanted = (
                tuple(tensor.movedim((0, 1), (-1, -2)).shape) if tensor.ndim > 1 else tensor.shape
            )
            raise MethodError(
                f"{key}: expected shape {tuple(wanted)}, got {np.shape(weights[key])}. {_CONFIG}"
            )
        state[name] = values
        used.add(key)
    left = sorted(set(weights) - used)
    if left:
        raise MethodError(f"Weights {', '.join(left)} have no place in the net. {_CONFIG}")
    return state


_CONFIG = "Pass config=Config(sar=..., dem=..., bands_20m=..., layout=...) as the net was trained."


def _layers(net: nn.Module, layers: Mapping[str, str]) -> list[str]:
    modules = (n.rsplit(".", 1)[0] for n in net.state_dict())
    return list(dict.fromkeys(layers[m] for m in modules))


def initialise(net: nn.Module, rule: Literal["glorot", "lecun"]) -> nn.Module:
    """The net with fresh weights as Keras draws them, biases 0.

    `glorot` is uniform with variance 2 / (fan_in + fan_out); `lecun` ("VarianceScaling") a
    normal cut at two standard deviations with variance 1 / fan_in.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if rule == "glorot":
                nn.init.xavier_uniform_(module.weight)
            else:
                std = 1 / math.sqrt(module.in_channels * module.weight[0, 0].numel())
                std /= 0.87962566103423978
                nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
