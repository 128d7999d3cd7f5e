"""The weights that come with cubefill: whole, described, and better than straight lines."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors import safe_open

import cubefill
from cubefill import gaps, simulate
from cubefill.errors import MethodError
from cubefill.methods import resolve
from cubefill.methods.learned.ganfilling import GanFilling
from cubefill.methods.learned.utilise import Utilise, UtiliseConfig
from cubefill.methods.registry import METHODS, WITH_WEIGHTS
from cubefill.nn import checkpoint
from cubefill.testing import synthetic_cube

BANDS = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_card_is_that_of_the_weights(name: str) -> None:
    method: Any = resolve(name)
    file = Path(method.folder) / "weights.safetensors"
    card = checkpoint.read_card(method.folder)
    assert method.digest == card.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_size < 2.5e6
    assert card.method == METHODS[name]
    assert card.licence == "Apache-2.0"
    assert card.data
    assert card.recipe["method"] == name
    assert [v for n, v in card.scores.items() if n.endswith("of linear")]
    with safe_open(str(file), framework="numpy") as found:
        assert {found.get_tensor(n).dtype for n in found.keys()} == {np.dtype(np.float16)}  # noqa: SIM118
    assert pickle.loads(pickle.dumps(method)).digest == card.digest


@pytest.fixture(scope="module")
def held() -> tuple[xr.Dataset, xr.Dataset]:
    """A scene that no net saw, as it is and with gaps in it."""
    ds = simulate.scene(size=64, days=100, seed=77, bands=BANDS, sar=False, dem=False, cloud=0.3)
    cube = ds.cube[[*BANDS, "valid"]]
    return cube, gaps.apply(cube, gaps.hide(cube, gaps.Transplant(clear=0.5), seed=2))


def test_it_fills_without_a_checkpoint_and_better_than_linear(
    held: tuple[xr.Dataset, xr.Dataset],
) -> None:
    truth, shown = held
    clear = shown["valid"].values
    hidden = truth["valid"].values & ~clear & clear.any(0)
    net, line = (shown.gapfill(m) for m in ("utilise", "linear"))
    errors = []
    for out in (net, line):
        errors.append(np.mean([np.abs(out[b] - truth[b]).values[hidden].mean() for b in BANDS]))
        for b in BANDS:
            np.testing.assert_array_equal(out[b].values[clear], truth[b].values[clear])
    assert errors[0] < 0.95 * errors[1]
    assert float(abs(net["B08"] - line["B08"]).max()) > 0.01


def test_its_answer_does_not_depend_on_chunks() -> None:
    ds = synthetic_cube(10, (70, 60))
    whole, lazy = (d.gapfill("utilise").compute() for d in (ds, ds.chunk(time=4, y=33, x=27)))
    for band in BANDS:
        np.testing.assert_array_equal(whole[band], lazy[band])


def test_a_net_that_is_yet_to_be_trained_has_no_weights() -> None:
    fresh = Utilise().configured(dates=6)
    assert fresh.config == UtiliseConfig(dates=6)
    assert (fresh.folder, fresh.digest) == ("", "")
    again = fresh.configured(patch=64)
    assert (again.config.dates, again.config.patch) == (6, 64)
    with pytest.raises(MethodError, match="needs a trained net"):
        synthetic_cube().gapfill(fresh)


def test_methods_without_weights_name_one_that_has_them() -> None:
    known = r"Use ds.gapfill\('utilise'\) for a net whose weights come with cubefill"
    with pytest.raises(MethodError, match=known):
        synthetic_cube().gapfill("ganfilling")
    rows = cubefill.list_methods()
    assert [n for n, row in rows.items() if row["weights"]] == list(WITH_WEIGHTS)
    assert GanFilling().folder == ""
