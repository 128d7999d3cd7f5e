"""SSOP: inputs as specified, one pass a date, the laws of a method."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Flag
from cubefill.methods.learned.decloud import BANDS, BANDS_20M
from cubefill.methods.learned.ssop import ConfigMer, ConfigUnet, SsopMer, SsopUnet
from cubefill.testing import MethodTests
from tests.shared.decloud import NARROW, SMALL, block, made, of_bands, same_state, write_keras
from tests.shared.torch_thread import one_thread as one_thread


class TestSsopUnet(MethodTests):
    dates: ClassVar[int] = 6
    size: ClassVar[tuple[int, int]] = (20, 24)

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(SsopUnet, **NARROW, dem=True)


class TestSsopMer(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(SsopMer, **SMALL, sar=False, width=4, blocks=2)


class TestAllBands(MethodTests):
    dates: ClassVar[int] = 4

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(SsopUnet, **NARROW, bands_20m=BANDS_20M, blend="linear")


# ------------------------------------------------------------------ inputs


def test_inputs_are_scaled_as_specified() -> None:
    method = made(SsopUnet, **NARROW, dem=True, bands_20m=BANDS_20M)
    given = block()
    given.bands["B03"][2, 5, 6] = np.nan
    given.bands["B11"][2, 4:6, 6:8] = np.nan
    given.bands["B11"][2, 0, 0] = np.nan
    given.sar["VH"][2, 1, 1] = np.nan
    arrays = method.encode(given)
    assert {n: a.shape for n, a in arrays.items()} == {
        "optical": (1, 4, 16, 16),
        "sar": (1, 2, 16, 16),
        "optical_20m": (1, 6, 8, 8),
        "dem": (1, 8, 8),
    }
    optical = arrays["optical"][0]
    assert optical[1, 5, 6] == -1
    np.testing.assert_array_equal(optical[0], given.bands["B02"][2])
    power = 10 ** (float(given.sar["VV"][2, 3, 4]) / 10)
    count = 1 + 65534 * (np.log(power + 1e-6) + 10) / 13
    assert arrays["sar"][0, 0, 3, 4] == pytest.approx(count / 65535, rel=1e-5)
    assert arrays["sar"][0, 1, 1, 1] == 0
    b11 = arrays["optical_20m"][0, BANDS_20M.index("B11")]
    assert b11[2, 3] == -1
    square = given.bands["B11"][2, :2, :2].ravel()[1:]
    assert b11[0, 0] == pytest.approx(square.mean(), rel=1e-5)
    assert given.dem is not None
    assert arrays["dem"][0, 0, 0] == pytest.approx(given.dem[:2, :2].mean() * 1e-4, rel=1e-5)


def test_backscatter_is_cut_to_its_counts() -> None:
    method = made(SsopUnet, **NARROW)
    given = block()
    given.sar["VV"][2, 0, :2] = (-90, 40)
    sar = method.encode(given)["sar"][0, 0, 0]
    assert sar[0] == pytest.approx(1 / 65535)
    assert sar[1] == 1


def test_only_dates_with_gaps_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(SsopUnet, **NARROW)
    given = of_bands(block())
    given.valid[1] = True
    seen = []
    encode = SsopUnet.encode

    def spy(self: SsopUnet, one: Block) -> Any:
        seen.append(one.out_time[0])
        return encode(self, one)

    monkeypatch.setattr(SsopUnet, "encode", spy)
    (out,) = method.fill([given])
    assert seen == [given.time[i] for i in (0, 2, 3)]
    np.testing.assert_array_equal(out.bands["B08"][1], given.bands["B08"][1])


def test_blocks_without_anything_to_do_come_back_in_order() -> None:
    method = made(SsopUnet, **NARROW)
    gappy = of_bands(block())
    clear = replace(gappy, valid=np.ones_like(gappy.valid))
    first, second, third, fourth = method.fill([clear, gappy, clear, clear])
    for out in (first, third, fourth):
        np.testing.assert_array_equal(out.bands["B04"], clear.bands["B04"])
    assert not np.array_equal(second.bands["B04"], clear.bands["B04"])
    assert list(method.fill([])) == []


def test_target_is_the_clear_part_of_the_wanted_date() -> None:
    method = made(SsopUnet, **NARROW)
    truth = of_bands(block())
    hidden = replace(truth, valid=np.zeros_like(truth.valid))
    found = method.target(truth, hidden)
    assert found["target"].shape == (4, 16, 16)
    np.testing.assert_array_equal(found["where"][0], truth.valid[2])
    inside = found["where"][3]
    np.testing.assert_array_equal(found["target"][3][inside], truth.bands["B08"][2][inside])


def test_needs_follow_the_configuration() -> None:
    plain = made(SsopUnet, **NARROW, sar=False).needs
    assert (plain.sar, plain.dem, plain.bands) == (False, False, BANDS)
    full = made(SsopUnet, **NARROW, dem=True, bands_20m=BANDS_20M).needs
    assert (full.sar, full.dem, full.bands) == (True, True, BANDS + BANDS_20M)


# ------------------------------------------------------------------ errors and weights


def test_a_patch_that_does_not_fit_the_net() -> None:
    with pytest.raises(MethodError, match="expected a patch of a multiple of 4 pixels"):
        _ = made(SsopUnet, patch=18, pad=2, widths=(4, 4, 4)).needs
    with pytest.raises(MethodError, match="an even pad of less than half"):
        _ = made(SsopUnet, patch=16, pad=8, widths=(4, 4, 4)).needs


@pytest.mark.parametrize("dem", [False, True])
def test_keras_weights_of_the_unet(tmp_path: Path, dem: bool) -> None:
    config = ConfigUnet(**NARROW, dem=dem, bands_20m=BANDS_20M)
    net = SsopUnet.net(config)
    state = SsopUnet.from_original(write_keras(tmp_path / "net.h5", net), config)
    same_state(state, net)


def test_keras_weights_of_the_residual_net(tmp_path: Path) -> None:
    config = ConfigMer(**SMALL, width=4, blocks=2)
    net = SsopMer.net(config)
    path = write_keras(tmp_path / "net.h5", net)
    state = SsopMer.from_original(path, config)
    same_state(state, net)
    with pytest.raises(MethodError, match="as the net was trained"):
        SsopMer.from_original(path, replace(config, blocks=3))


def test_filled_dates_are_flagged_learned() -> None:
    method = made(SsopUnet, **NARROW)
    (out,) = method.fill([of_bands(block())])
    assert out.flag is not None
    assert set(np.unique(out.flag)) == {int(Flag.LEARNED)}
