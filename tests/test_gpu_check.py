"""The check of a GPU at toy size on what this machine has, and what it says without a GPU."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Report
from cubefill.methods import list_methods
from tests.shared.torch_thread import one_thread as one_thread

EVERY = [n for n, facts in list_methods().items() if facts["kind"] == "deep"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "nets", [["utilise", "cnnrnn"], pytest.param(EVERY, marks=pytest.mark.slow, id="every")]
)
def test_toy_check_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nets: list[str]
) -> None:
    path = tmp_path / "gpu.md"
    assert gpu_check.main(["--toy", "--nets", *nets, "--write", str(path)]) == 0
    text = path.read_text()
    assert text in capsys.readouterr().out
    assert "0 checks failed." in text
    for name in nets:
        assert re.search(rf"\| parity \| {name}, float32 \| \d.* ok \|", text), name
    assert re.search(r"\| memory \| utilise \| batch 8 became [1-4], .* ok \|", text)
    for name in ("ganfilling", "utilise"):
        (speed,) = re.findall(rf"\| rate \| {name}, float32 \| .* values/s, (\S+) GFLOP/s, ", text)
        assert float(speed.replace(",", "")) > 0
    assert re.search(r"\| job \| utilise, Zarr to Zarr \| .* ok \|", text)
    assert re.search(r"\| training \| utilise, batch 4, float32 \| \d+ updates in .* ok \|", text)


def test_a_check_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Report:
        say = Report()
        say.say("parity", "utilise, float32", "3.0e-01", good=False)
        say.say("memory", "utilise", "1", good=True)
        return say

    shown = failing().markdown("Card", {})
    assert "1 checks failed: parity, utilise, float32." in shown
    assert "| parity | utilise, float32 | 3.0e-01 **failed** |" in shown
    monkeypatch.setattr(gpu_check, "check", failing)
    assert gpu_check.main(["--toy"]) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_no_gpu_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == gpu_check.NO_GPU
    shown = capsys.readouterr().out
    assert shown.startswith("No GPU: ")
    assert shown.count("\n") == 1
