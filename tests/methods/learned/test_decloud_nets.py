"""SSOP and MSOP: inputs as specified, dates chosen by the layout, one pass a date, the laws."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Flag
from cubefill.methods.learned.decloud import BANDS, BANDS_20M
from cubefill.methods.learned.decloud_nets import (
    MsopDavid,
    MsopDavidConfig,
    MsopUnet,
    MsopUnetConfig,
    SsopMer,
    SsopMerConfig,
    SsopUnet,
    SsopUnetConfig,
)
from cubefill.nn.unet import layer_names
from cubefill.testing import MethodTests, synthetic_cube
from tests.shared.decloud import (
    NARROW,
    OS1,
    SMALL,
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


class TestMsopOfAllBands(MethodTests):
    dates: ClassVar[int] = 4

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopUnet, **NARROW, bands_20m=BANDS_20M, blend="linear")


class TestSynthesis(MethodTests):
    dates: ClassVar[int] = 5

    @classmethod
    def setup_class(cls) -> None:
        cls.method = made(MsopDavid, **NARROW, layout="monthly")


OTHER_FORMS = [
    (SsopUnet, {"bands_20m": BANDS_20M, "blend": "linear"}),
    (MsopUnet, {"dem": True}),
    (MsopDavid, {"sar": False}),
    (MsopUnet, {"layout": OS1}),
    (MsopUnet, {"mosaic": 3}),
    (MsopDavid, {"mosaic": 12, "layout": OS1, "sar": False}),
]


@pytest.mark.parametrize(("kind", "config"), OTHER_FORMS)
def test_other_forms_do_not_show_chunks_tiles_or_axes(kind: Any, config: dict[str, Any]) -> None:
    method = made(kind, **NARROW, **config)
    ds = synthetic_cube(5, (19, 22), method.needs.bands, sar=True, dem=True)
    ds = ds.assign(valid=ds["valid"].where(ds["time"] != ds["time"][1], True))
    whole = gapfill(ds, method).compute()
    clear = ds["valid"].values
    parts = gapfill(ds.chunk(time=2, y=7, x=9), method, tile=11).compute()
    turned = gapfill(ds.transpose("x", "time", "y"), method).compute()
    for name in method.needs.bands:
        np.testing.assert_array_equal(whole[name].values[clear], ds[name].values[clear])
        assert np.isfinite(whole[name].values).all()
        np.testing.assert_array_equal(parts[name].values, whole[name].values)
        np.testing.assert_array_equal(turned[name].transpose("time", "y", "x"), whole[name])
    for few in (ds.isel(time=[2]), ds.isel(time=[0, 4])):
        out = gapfill(few, method).compute()
        assert all(np.isfinite(out[name].values).all() for name in method.needs.bands)


# ------------------------------------------------------------------ inputs of one date


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
    config = SsopUnetConfig(**NARROW, dem=dem, bands_20m=BANDS_20M)
    net = SsopUnet.net(config)
    state = SsopUnet.from_original(write_keras(tmp_path / "net.h5", net), config)
    same_state(state, net)


def test_keras_weights_of_the_residual_net(tmp_path: Path) -> None:
    config = SsopMerConfig(**SMALL, width=4, blocks=2)
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


# ------------------------------------------------------------------ dates of several


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
    config = MsopUnetConfig(**NARROW, layout=layout, dem=True)
    net = MsopUnet.net(config)
    state = MsopUnet.from_original(write_keras(tmp_path / "net.h5", net), config)
    same_state(state, net)


def test_keras_names_of_the_published_forms() -> None:
    def names(config: Any, kind: Any = MsopUnet) -> set[str]:
        net = kind.net(config)
        layers = layer_names(net)
        return {layers[n.rsplit(".", 1)[0]] for n in net.state_dict()}

    tail = {"conv3_bn_relu", "deconv1_bn_relu", "deconv2_bn_relu", "s2_estim"}
    assert names(MsopDavidConfig(**NARROW, bands_20m=BANDS_20M), MsopDavid) == tail | {
        "conv1_relu", "conv1_20m_relu", "conv2_bn_relu", "conv2_20m_bn_relu",
        "deconv2_20m_bn_relu", "s2_20m_estim",
    }  # fmt: skip
    assert names(MsopUnetConfig(**NARROW, layout=OS1)) == tail | {
        "conv1_s1_relu", "conv1_s1s2_relu", "conv2_bn_relu",
    }  # fmt: skip
    assert names(MsopUnetConfig(**NARROW, layout="monthly", dem=True)) == tail | {
        "conv1_s1_relu", "conv1_s2_relu", "conv2_s1_relu", "conv2_s2_relu",
    }  # fmt: skip
    assert names(MsopDavidConfig(**NARROW, layout="monthly", dem=True), MsopDavid) == tail | {
        "conv1_s1_relu", "conv1_s2_relu", "conv2_bn_relu", "conv1_dem_relu",
    }  # fmt: skip
