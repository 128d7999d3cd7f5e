"""Fixtures for tests that run nets: what a module imports of them holds for every test of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cubefill.methods.learned import method as _method
from cubefill.methods.learned import passes as _pass
from cubefill.nn import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch on one thread, as before afterwards, and its random numbers the same ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    """No net is loaded or checked, and no batch is known to be too large."""
    checkpoint._NETS.clear()
    _method._READY.clear()
    _pass._FITS.clear()


def watched(monkeypatch: pytest.MonkeyPatch, module: Any, *names: str) -> list[str]:
    """Names of functions of a module, as they are called from now on."""
    seen: list[str] = []

    def watch(name: str, own: Any) -> Any:
        def call(*given: Any) -> Any:
            seen.append(name)
            return own(*given)

        return call

    for name in names:
        monkeypatch.setattr(module, name, watch(name, getattr(module, name)))
    return seen
