"""Bytes that a net holds, counted on torch's meta device, where nothing is computed."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def weight_bytes(net: nn.Module) -> int:
    """Bytes of the parameters and buffers of a net, shared ones counted once.

    Examples
    --------
    >>> weight_bytes(nn.Linear(3, 2))
    32
    """
    held = {t.untyped_storage()._cdata: t for t in (*net.parameters(), *net.buffers())}
    return sum(t.untyped_storage().nbytes() for t in held.values())


def pass_bytes(net: nn.Module, inputs: Mapping[str, tuple[int, ...]]) -> int:
    """Most bytes that one pass holds at once: inputs, activations, answer; without the weights.

    A convolution counts its weights, and its input, once more while it works: libraries lay both
    out anew. What a library holds beyond that is not seen.

    Parameters
    ----------
    net
        A net on the meta device.
    inputs
        Name of each float32 argument of the net to its shape.

    Raises
    ------
    RuntimeError, NotImplementedError
        The net asks for values of its tensors, which the meta device does not have.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     net = nn.Linear(3, 2)
    >>> pass_bytes(net, {"input": (10, 3)})
    200
    """
    counter = _Live((*net.parameters(), *net.buffers()))
    given = {n: torch.empty(s, device="meta") for n, s in inputs.items()}
    for t in given.values():
        counter.follow(t)
    with torch.no_grad(), counter:
        net(**given)
    return counter.peak


class _Live(TorchDispatchMode):
    """Current and peak bytes of live activations, without weights."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = {t.untyped_storage()._cdata for t in weights}

    def follow(self, tensor: Tensor) -> None:
        """Counts the storage of a tensor until it is freed; views of it cost nothing."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._dropped, key, storage.nbytes())

    def _dropped(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for t in tree_iter(made):
            if isinstance(t, Tensor):
                self.follow(t)
        if func in _CONVOLUTIONS:
            laid = (*args[:2], made)
            self.peak = max(self.peak, self.live + sum(t.untyped_storage().nbytes() for t in laid))
        return made


_CONVOLUTIONS = (torch.ops.aten.convolution.default,)
