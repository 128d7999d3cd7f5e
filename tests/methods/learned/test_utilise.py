"""U-TILISE: its inputs, its windows over long series, the laws of a method."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from cubefill import train
from cubefill.errors import CubeError, MethodError
from cubefill.gaps import Blobs
from cubefill.methods.learned.utilise import (
    Utilise,
    UtiliseConfig,
    day_of_year,
    from_names,
    original_names,
)
from cubefill.samples.patches import CubeSamples
from cubefill.testing import MethodTests, synthetic_cube
from cubefill.train.recipe import Recipe
from tests.shared.decloud import block, made, of_bands, same_state, saved
from tests.shared.torch_thread import one_thread as one_thread

SMALL: dict[str, Any] = {"patch": 16, "pad": 4, "widths": (8, 8, 8), "dates": 6}


class TestUtilise(MethodTests):
    dates: ClassVar[int] = 9

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(Utilise, **SMALL)


class TestUtiliseWithSar(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(Utilise, **SMALL, sar=True, blend="linear")


def residual(last: float = 0.5, **config: Any) -> Utilise:
    """A net that gives a residual, drawn at random; with `last=0` as it is before training."""
    torch.manual_seed(3)
    chosen = UtiliseConfig(**SMALL | {"residual": "linear"} | config)
    net = Utilise.net(chosen)
    for p in net.last[1].parameters():  # type: ignore[index, union-attr]
        torch.nn.init.normal_(p, std=last) if last else None
    return Utilise(checkpoint=saved(Utilise, net, chosen))


class TestUtiliseResidual(MethodTests):
    dates: ClassVar[int] = 9

    @classmethod
    def setup_class(cls) -> None:
        cls.method = residual()


# ------------------------------------------------------------------ a residual


def test_before_training_a_residual_gives_straight_lines() -> None:
    ds = synthetic_cube(15, (20, 24))
    out, line = (ds.gapfill(m) for m in (residual(last=0), "linear"))
    for band in ("B02", "B08"):
        np.testing.assert_allclose(out[band], line[band], atol=2e-6)
    assert float(abs(ds.gapfill(residual())["B08"] - line["B08"]).max()) > 0.01


def test_a_date_that_shows_nothing_between_others_stays_on_the_line() -> None:
    ds = synthetic_cube(12, (20, 24), gap=0.1)
    ds["valid"][5] = False
    out, line = (ds.gapfill(m) for m in (residual(), "linear"))
    clear = ds["valid"].values
    inside = np.stack([clear[:5].any(0) & clear[6:].any(0)])
    differs = abs(out["B08"] - line["B08"]).values
    np.testing.assert_allclose(differs[5:6][inside], 0, atol=2e-6)
    assert differs.max() > 0.01


def test_a_pixel_without_a_clear_observation_has_no_residual() -> None:
    ds = synthetic_cube(8, (20, 24))
    ds["valid"][:, 3, 4] = False
    out = ds.gapfill(residual())
    assert np.isnan(out["B08"].values[:, 3, 4]).all()
    assert int(np.isnan(out["B08"].values).sum()) == 8


def test_a_residual_is_learned_from_what_was_hidden() -> None:
    method, truth = Utilise().configured(**SMALL, residual="linear"), of_bands(block(6))
    shown = replace(truth, valid=truth.valid.copy())
    shown.valid[2] = False
    found = method.encode(shown) | method.target(truth, shown)
    np.testing.assert_array_equal(found["where"][2, 0], truth.valid[2])
    assert not found["where"][[0, 1, 3, 4, 5]].any()
    assert found["prior"].shape == found["target"].shape
    over = replace(shown, time=shown.time + np.timedelta64(240, "D"))
    assert (np.diff(method.encode(over)["days"]) == 7).all(), "days go on into the next year"


# ------------------------------------------------------------------ inputs


def test_gaps_are_one_and_the_rest_is_clipped() -> None:
    method = made(Utilise, **SMALL, sar=True)
    one = block()
    one.valid[0, 0, 0] = False
    one.valid[0, 0, 1:4] = True
    one.bands["B03"][0, 0, 1:4] = (1.7, -0.2, np.nan)
    one.sar["VH"][1, 2, 3:6] = (-40, np.nan, -16.25)
    arrays = method.encode(one)
    assert arrays["x"].shape == (4, 6, 16, 16)
    assert arrays["x"][0, 1, 0, :4].tolist() == [1, 1, 0, 0]
    assert arrays["x"][1, 5, 2, 3:6].tolist() == [0, 0, 0.5]
    assert arrays["days"].tolist() == [121, 128, 135, 142]


def test_days_of_the_year() -> None:
    days = np.array(["2023-01-01", "2023-12-31T23:00", "2024-12-31"], "M8[ns]")
    assert day_of_year(days).tolist() == [1, 365, 366]


def test_every_clear_pixel_is_a_target() -> None:
    method, truth = made(Utilise, **SMALL), block()
    found = method.target(truth, replace(truth, valid=np.zeros_like(truth.valid)))
    np.testing.assert_array_equal(found["where"][:, 0], truth.valid)


# ------------------------------------------------------------------ one pass


def test_a_short_series_is_one_pass() -> None:
    method = made(Utilise, **SMALL)
    one = of_bands(block(6))
    (out,) = method.fill([one])
    net = Utilise.net(method.config).eval()
    from cubefill.nn import checkpoint

    net.load_state_dict(checkpoint.load(method.checkpoint)[0])
    arrays = {n: torch.from_numpy(a)[None] for n, a in method.encode(one).items()}
    with torch.inference_mode():
        y = net(**arrays)[0].numpy()
    np.testing.assert_allclose(out.bands["B08"], y[:, 3], atol=5e-6)


# ------------------------------------------------------------------ series that are too short


def test_what_a_series_is_filled_up_with_changes_nothing() -> None:
    method = made(Utilise, **SMALL)
    net = method.net(method.config).eval()
    one = of_bands(block(4))
    sample = method.encode(one) | method.target(one, one)
    padded = method.padded(sample, 6)
    assert {n: a.shape[0] for n, a in padded.items()} == dict.fromkeys([*sample, "present"], 6)
    assert padded["present"].tolist() == [True] * 4 + [False] * 2
    assert not padded["where"][4:].any()
    plain, told = (
        {n: torch.from_numpy(s[n])[None] for n in names}
        for s, names in ((sample, ("x", "days")), (padded, ("x", "days", "present")))
    )
    with torch.inference_mode():
        short, long = net(**plain)[0], net(**told)[0]
    torch.testing.assert_close(long[:4], short)
    assert not long[4:].any()
    same = method.padded(sample, 4)
    np.testing.assert_array_equal(same["x"], sample["x"])
    assert same["present"].all()


def test_five_dates_that_are_left_are_enough_to_learn_from(tmp_path: Path) -> None:
    ds = synthetic_cube(9, (16, 16))
    clear = np.ones(ds["valid"].shape, bool)
    clear[[1, 4], :8] = False
    ds = ds.assign(valid=(ds["valid"].dims, clear))
    method = Utilise().configured(**SMALL | {"dates": 8})
    given = CubeSamples([ds], method, Blobs(keep=0), count=4, dates=8, drop_impaired=True)
    made_of = [given[i] for i in range(4)]
    assert [int(s["present"].sum()) for s in made_of] == [7] * 4
    assert {s["x"].shape[0] for s in made_of} == {8}
    recipe = Recipe(method="utilise", epochs=2, batch=2, rate=1e-3)
    folder = train.fit(method, given, recipe, tmp_path / "net", progress=False)
    out = ds.gapfill(replace(method, checkpoint=str(folder)))
    assert bool(np.isfinite(out["B08"]).all())
    clear[:5, :8] = False
    few = replace(given, cubes=[ds.assign(valid=(ds["valid"].dims, clear))])
    with pytest.raises(CubeError, match="too few dates that are not impaired"):
        _ = few[0]


# ------------------------------------------------------------------ errors and weights


def test_a_patch_that_does_not_fit_the_net() -> None:
    with pytest.raises(MethodError, match="expected a patch of a multiple of 4 pixels"):
        _ = made(Utilise, **{**SMALL, "patch": 18}).needs
    odd: list[dict[str, Any]] = [{"heads": 0}, {"key": 0}, {"widths": ()}, {"heads": 3}]
    for config in odd:
        with pytest.raises(MethodError, match="widths of multiples of heads"):
            UtiliseConfig(**config)


def test_the_authors_checkpoint(tmp_path: Path) -> None:
    config = UtiliseConfig(**SMALL)
    net = Utilise.net(config)
    table = original_names(2)
    theirs = {}
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        theirs[f"{table[module]}.{part}"] = tensor
    torch.save({"model_state_dict": theirs, "epoch": 3}, tmp_path / "utilise.pt")
    state = Utilise.from_original(tmp_path / "utilise.pt", config)
    assert set(state) == set(net.state_dict())
    same_state(state, net)
    assert set(from_names({"odd.weight": torch.zeros(1)})) == {"odd.weight"}
    with pytest.raises(MethodError, match="expected"):
        Utilise.from_original(tmp_path / "utilise.pt", UtiliseConfig())
