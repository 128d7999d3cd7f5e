"""A net that torch compiled gives the same answer up to rounding, whatever the tiles."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cubefill import engine
from cubefill.errors import DeviceError
from cubefill.methods.learned.passes import COMPILERS, check_compiler
from tests.methods.learned.test_method import Demo, equal, trained
from tests.shared.strategies import cube
from tests.shared.torch_thread import one_thread as one_thread


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
@pytest.mark.slow
def test_a_compiled_net_fills_the_same_for_any_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    method, ds = trained(tmp_path / "net", Demo), cube(size=(22, 17))
    compiled = replace(method, compiled=True)
    plain = engine.gapfill(ds, method).compute()
    whole = engine.gapfill(ds, compiled, tile=64).compute()
    for band in ("B04", "B08"):
        np.testing.assert_allclose(whole[band], plain[band], atol=1e-6)
    assert '"compiled": true' in whole.attrs["gapfill_parameters"]
    chunked = ds.chunk({"time": 3, "y": 7, "x": 5})
    equal(engine.gapfill(chunked, compiled, tile=5).compute(scheduler="threads"), whole)
    short = ds.isel(time=slice(0, len(ds["time"]) - 1))
    engine.gapfill(short, compiled).compute()
    equal(engine.gapfill(ds, compiled, tile=5).compute(), whole)


def test_without_a_compiler_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler: expected one of g\+\+, clang"):
        check_compiler(torch.device("cpu"))
    check_compiler(torch.device("meta"))
    monkeypatch.setenv("CXX", "/bin/sh")
    check_compiler(torch.device("cpu"))
