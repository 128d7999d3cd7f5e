"""MSOP: dates chosen by the layout, reconstruction, generation, monthly synthesis."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.methods.contract import Flag
from cubefill.methods.learned.decloud import BANDS, BANDS_20M
from cubefill.methods.learned.msop import ConfigDavid, ConfigUnet, MsopDavid, MsopUnet
from cubefill.testing import MethodTests, synthetic_cube
from tests.shared.decloud import (
    NARROW,
    OS1,
    block,
    made,
    of_bands,
    on_days,
    same_state,
    wanted,
    write_keras,
)
from tests.shared.torch_thread import one_thread as one_thread

EVERY = [
    (kind, layout, bands_20m, sar, dem)
    for kind in (MsopUnet, MsopDavid)
    for layout in ("msop", OS1, "monthly")
    for bands_20m in ((), BANDS_20M)
    for sar, dem in ((False, False), (True, False), (True, True))
]


class TestMsopUnet(MethodTests):
    dates: ClassVar[int] = 6

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopUnet, **NARROW, dem=True)


class TestMsopDavid(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopDavid, **NARROW, sar=False)


class TestGeneration(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopUnet, **NARROW, layout=OS1)


class TestSynthesis(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopDavid, **NARROW, layout="monthly")


def test_dates_lie_in_the_time_frames_of_the_layout() -> None:
    method = made(MsopUnet, **NARROW)
    given = on_days([0, 5, 12, 20, 25, 32, 50])
    assert method.dates(wanted(given, 20)).tolist() == [1, 3, 5]
    given.valid[1] = False
    assert method.dates(wanted(given, 20)).tolist() == [2, 3, 5]
    given.valid[2] = False
    assert method.dates(wanted(given, 20)).tolist() == [0, 3, 5]


def test_the_ends_of_a_series_borrow_from_the_other_side() -> None:
    method = made(MsopUnet, **NARROW)
    given = of_bands(on_days([0, 5, 12, 20], valid=0.5))
    (out,) = method.fill([given])
    assert out.flag is not None
    ends = [Flag.EXTRAPOLATED, Flag.LEARNED, Flag.LEARNED, Flag.EXTRAPOLATED]
    assert out.flag[:, 0, 0].tolist() == [int(f) for f in ends]
    one = on_days([3], valid=0.5)
    assert method.dates(one).tolist() == [0, 0, 0]


def test_generation_is_not_shown_the_wanted_image() -> None:
    method = made(MsopUnet, **NARROW, layout=OS1)
    given = wanted(on_days([0, 5, 12, 20, 25]), 12)
    arrays = method.encode(given)
    assert arrays["optical"].shape == (2, 4, 16, 16)
    assert arrays["sar"].shape == (3, 2, 16, 16)
    before, after = method.dates(given)[[0, 2]]
    np.testing.assert_array_equal(arrays["optical"][0, 0], given.bands["B02"][before])
    np.testing.assert_array_equal(arrays["optical"][1, 0], given.bands["B02"][after])
    given.bands["B02"][2] = 0.123
    np.testing.assert_array_equal(method.encode(given)["optical"], arrays["optical"])


def test_generation_at_a_date_without_acquisition() -> None:
    method = made(MsopUnet, **NARROW, layout=OS1)
    given = wanted(on_days([0, 5, 12, 20, 25]), 15)
    dates = method.dates(given)
    assert dates[0] in (0, 1, 2)
    assert dates[2] in (3, 4)
    ds = synthetic_cube(5, (16, 16), sar=True)
    from cubefill.engine import gapfill

    day = np.array(["2023-03-10"], "M8[ns]")
    out = gapfill(ds, method, times=day).compute()
    assert (out["fill_flag"] == int(Flag.NOT_ACQUIRED)).all()
    assert np.isfinite(out["B02"].values).all()


def test_synthesis_takes_the_six_clearest_in_time_order() -> None:
    method = made(MsopDavid, **NARROW, layout="monthly")
    given = on_days([0, 3, 6, 9, 12, 15, 18, 21, 60])
    given.valid[3] = given.valid[5] = False
    assert method.dates(wanted(given, 10)).tolist() == [0, 1, 2, 4, 6, 7]
    given.valid[:, :8] = False
    given.valid[[0, 1, 2, 6, 7, 8]] = False
    arrays = method.encode(wanted(given, 10))
    assert arrays["optical"].shape == (6, 4, 16, 16)
    assert arrays["sar"].shape == (6, 2, 16, 16)


@pytest.mark.parametrize(("kind", "layout", "bands_20m", "sar", "dem"), EVERY)
def test_every_form_fills(
    kind: Any, layout: str, bands_20m: tuple[str, ...], sar: bool, dem: bool
) -> None:
    method = made(kind, **NARROW, layout=layout, bands_20m=bands_20m, sar=sar, dem=dem)
    (out,) = method.fill([of_bands(block(7), method.needs.bands)])
    assert set(out.bands) == set(BANDS + bands_20m)
    assert all(np.isfinite(a).all() for a in out.bands.values())
    assert method.needs.sar == sar


@pytest.mark.parametrize("layout", ["msop", OS1, "monthly"])
def test_keras_weights(tmp_path: Path, layout: str) -> None:
    config = ConfigUnet(**NARROW, layout=layout, dem=True)
    net = MsopUnet.net(config)
    state = MsopUnet.from_original(write_keras(tmp_path / "net.h5", net), config)
    same_state(state, net)


def test_keras_names_of_the_published_forms() -> None:
    from cubefill.nn.unet_keras import layer_names

    def names(config: Any, kind: Any = MsopUnet) -> set[str]:
        net = kind.net(config)
        layers = layer_names(net)
        return {layers[n.rsplit(".", 1)[0]] for n in net.state_dict()}

    tail = {"conv3_bn_relu", "deconv1_bn_relu", "deconv2_bn_relu", "s2_estim"}
    assert names(ConfigDavid(**NARROW, bands_20m=BANDS_20M), MsopDavid) == tail | {
        "conv1_relu", "conv1_20m_relu", "conv2_bn_relu", "conv2_20m_bn_relu",
        "deconv2_20m_bn_relu", "s2_20m_estim",
    }  # fmt: skip
    assert names(ConfigUnet(**NARROW, layout=OS1)) == tail | {
        "conv1_s1_relu", "conv1_s1s2_relu", "conv2_bn_relu",
    }  # fmt: skip
    assert names(ConfigUnet(**NARROW, layout="monthly", dem=True)) == tail | {
        "conv1_s1_relu", "conv1_s2_relu", "conv2_s1_relu", "conv2_s2_relu",
    }  # fmt: skip
    assert names(ConfigDavid(**NARROW, layout="monthly", dem=True), MsopDavid) == tail | {
        "conv1_s1_relu", "conv1_s2_relu", "conv2_bn_relu", "conv1_dem_relu",
    }  # fmt: skip
