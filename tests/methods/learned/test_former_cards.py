"""Cards that version 0.1 wrote, letter by letter: their nets fill, load, and learn on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cubefill import train
from cubefill.methods import resolve, traits
from cubefill.methods.learned.method import TorchMethod
from cubefill.nn import checkpoint
from cubefill.train.recipe import Recipe
from tests.shared.bad_cases import cube, whole
from tests.shared.torch_thread import one_thread as one_thread

PATCH = '"patch": 16, "pad": 4, "blend": "none"'
DECLOUD = f"""
  "bands": ["B02", "B03", "B04", "B08"], "bands_20m": [], "sar": true, "dem": false, {PATCH},
  "mosaic": 0"""
GENERATOR = """
  "bands": ["B02", "B03", "B04", "B08"], "width": 1, "clouds": "seen", "dates": 10, "keep": 5,
  "patch": 128, "patch_keep": 96, "blend": "linear", "unused": true"""

CARDS = {
    "utilise": (
        "cubefill.methods.utilise:Utilise",
        f"""
  "bands": ["B02", "B03", "B04", "B08"], "sar": false, "widths": [8, 8, 8], "heads": 4, "key": 4,
  "dates": 6, {PATCH}""",
    ),
    "ganfilling": ("cubefill.methods.ganfilling:GanFilling", GENERATOR),
    "seq2seq": ("cubefill.methods.seq2seq:Seq2Seq", GENERATOR),
    "ssop_mer": (
        "cubefill.methods.ssop:SsopMer",
        f'"layout": "ssop", {DECLOUD}, "width": 4, "blocks": 2',
    ),
    "ssop_unet": (
        "cubefill.methods.ssop:SsopUnet",
        f'"layout": "ssop", {DECLOUD}, "widths": [4, 4, 4]',
    ),
    "msop_unet": (
        "cubefill.methods.msop:MsopUnet",
        f'"layout": "msop", {DECLOUD}, "widths": [4, 4, 4]',
    ),
    "msop_david": (
        "cubefill.methods.msop:MsopDavid",
        f'"layout": "msop", {DECLOUD}, "widths": [4, 4, 4]',
    ),
    "stpconv": (
        "cubefill.methods.stpconv:STpconv",
        """
  "filters": [2], "kernels": [3], "strides": [[2, 2, 2]], "convs": 1, "ratio": "masks",
  "size": 16, "offset": 0.0, "scale": 1.0""",
    ),
    "cnnrnn": (
        "cubefill.methods.cnnrnn:CnnRnn",
        """
  "steps": 8, "every": 6, "coherence": false, "attention": false, "convs": [2, 3], "features": 4,
  "units": 3""",
    ),
}


def text(name: str, digest: str) -> str:
    method, config = CARDS[name]
    return f"""{{
  "method": "{method}",
  "config": {{{config}
  }},
  "needs": {{
    "bands": "('B02', 'B03', 'B04', 'B08')", "time": "Whole()", "space": "Span(...)",
    "sar": "False", "coherence": "False", "dem": "False", "min_dates": "1"
  }},
  "recipe": {{}},
  "data": "",
  "versions": {{"python": "3.12.3", "cubefill": "0.1.0", "torch": "2.10.0"}},
  "scores": {{"loss": 0.25}},
  "licence": "CC-BY-4.0",
  "digest": "{digest}"
}}
"""


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    """A checkpoint with the card of 0.1."""
    method: Any = resolve(name)
    card = checkpoint.Card("any", json.loads(text(name, ""))["config"])
    torch.manual_seed(5)
    net = method.net(checkpoint.config_of(card, method.Config))
    made = checkpoint.save(tmp_path / "net", net.state_dict(), card)
    (made / "card.json").write_text(text(name, checkpoint.digest(made)))
    return made


@pytest.mark.parametrize("name", CARDS)
def test_it_fills_and_loads(name: str, folder: Path) -> None:
    ds = cube(dates=3)
    out = ds.gapfill(name, checkpoint=folder).compute()
    if traits(resolve(name), ()).complete:
        whole(out, ds)
    state, card = checkpoint.load(folder)
    method: Any = resolve(name, checkpoint=str(folder))
    assert card.method == f"{type(method).__module__}:{type(method).__qualname__}"
    assert card.scores == {"loss": 0.25}
    net = checkpoint.load_net(folder, lambda c: method.net(checkpoint.config_of(c, method.Config)))
    assert all(torch.equal(t, state[n]) for n, t in net.state_dict().items())


@pytest.mark.parametrize("name", ["utilise", "ssop_unet"])
def test_it_learns_on_and_is_resumed(name: str, folder: Path, tmp_path: Path) -> None:
    from cubefill.samples.patches import CubeSamples

    method: Any = resolve(name, checkpoint=str(folder))
    assert isinstance(method, TorchMethod)
    samples = CubeSamples([cube(dates=6, size=(20, 20))], method, None, count=4, dates=6)
    target = tmp_path / "further"
    for epochs in (1, 2):
        recipe = Recipe(method=name, epochs=epochs, batch=2, rate=1e-3, device="cpu")
        train.fit(method, samples, recipe, target, progress=False)
    # The run of 0.1 left a card too; a run that goes on takes the folder as its own.
    best = checkpoint.read_card(target)
    (target / "card.json").write_text(text(name, best.digest))
    recipe = Recipe(method=name, epochs=3, batch=2, rate=1e-3, device="cpu")
    train.fit(method, samples, recipe, target, progress=False)
    before, after = (checkpoint.load(f)[0] for f in (folder, target))
    assert any(not np.array_equal(before[n], after[n]) for n in before)
