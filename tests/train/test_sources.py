"""Minicubes as cubes to learn from, and the clear windows that a file of the authors lists."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cubefill import train
from cubefill.errors import CubeError, CubefillError
from cubefill.formats import earthnet as minicube
from cubefill.methods import resolve
from cubefill.methods.learned import TorchMethod
from cubefill.train.recipe import Recipe
from cubefill.train.sources import CleanWindows

NAME = "context_33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz"
SMALL = {"width": 4, "patch": 128, "patch_keep": 96}


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A minicube that is clear from row 40 and column 24, and the JSON that says so."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 0.6, (128, 128, 5, 10)).astype(np.float16)
    a[:, :, -1] = 1
    a[40:104, 24:88, -1, 2:8] = 0
    a[:, :60, -1, 0] = 0
    np.savez(tmp_path / NAME, highresdynamic=a)
    entry = {"path": NAME, "kernel size": 64, "bbox": [40, 24], "time steps": [2, 3, 4, 5, 6, 7]}
    (tmp_path / "clean.json").write_text(json.dumps({"33S": [entry], "34S": []}))
    return tmp_path


def learner() -> TorchMethod:
    found = resolve("ganfilling")
    assert isinstance(found, TorchMethod)
    return found.configured(**SMALL)


def entries(folder: Path, **more: Any) -> dict[str, Any]:
    return {"gaps": "none", "count": 2, "discriminator_windows": [4, 64], **more,
            "clean_windows": str(folder / "clean.json")}  # fmt: skip


def test_a_clear_window_is_cut_from_its_minicube(places: Path) -> None:
    found = CleanWindows(places / "clean.json")
    assert len(found) == 1
    ds = found[0]
    whole = minicube.read(places / NAME)
    np.testing.assert_array_equal(ds["B04"], whole["B04"][2:8, 40:104, 24:88])
    assert bool(ds["valid"].all())


def test_an_adversary_learns_from_the_windows_that_are_listed(places: Path) -> None:
    given = train.cube_samples([places / NAME], learner(), Recipe(), entries(places))
    whole = minicube.read(places / NAME)
    bands = np.stack([whole[b].values for b in ("B02", "B03", "B04", "B08")], axis=1)
    parts = [bands[t : t + 4, :, 40:104, 24:88] for t in (2, 3, 4)]
    for sample in (given[i] for i in range(len(given))):
        assert sample["discriminator_windows"].shape == (4, 4, 64, 64)
        assert any(np.array_equal(sample["discriminator_windows"], p) for p in parts)
    plain = train.cube_samples([places / NAME], learner(), Recipe(), {"gaps": "none"})
    assert given.digest != plain.digest


def test_windows_that_are_too_short_or_not_there(places: Path) -> None:
    short = entries(places, discriminator_windows=[7, 64])
    given = train.cube_samples([places / NAME], learner(), Recipe(), short)
    with pytest.raises(CubeError, match="6 dates and 64 x 64 px holds no 7 clear dates of 64 px"):
        _ = given[0]
    (places / "clean.json").write_text("{}")
    with pytest.raises(CubefillError, match=r"lists no window.*mine_clean_windows"):
        len(CleanWindows(places / "clean.json"))


@pytest.mark.parametrize("count", [0, -4])
def test_an_epoch_holds_samples(places: Path, count: int) -> None:
    with pytest.raises(CubefillError, match=f"count = {count}: expected 1 or more"):
        train.cube_samples([places / NAME], learner(), Recipe(), {"count": count})
