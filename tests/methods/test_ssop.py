"""SSOP: inputs as specified, one pass a date, the laws of a method."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch

from cubefill.errors import MethodError
from cubefill.method import Block, Flag
from cubefill.methods._decloud import BANDS, BANDS_20M
from cubefill.methods.ssop import ConfigMer, ConfigUnet, SsopMer, SsopUnet
from cubefill.nn.unet_keras import layer_names
from cubefill.testing import MethodTests
from tests.methods.decloud import made

SMALL: dict[str, Any] = {"patch": 16, "pad": 4}
NARROW: dict[str, Any] = {**SMALL, "widths": (4, 4, 4)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def block(dates: int = 4, size: int = 16, **changes: Any) -> Block:
    rng = np.random.default_rng(0)
    shape = (dates, size, size)
    time = np.datetime64("2023-05-01T10:30", "ns") + (7 * np.arange(dates)).astype("m8[D]")
    found = Block(
        bands={b: rng.random(shape, np.float32) for b in (*BANDS, *BANDS_20M)},
        valid=rng.random(shape) > 0.3,
        time=time,
        out_time=time,
        sar={n: rng.uniform(-25, 0, shape).astype(np.float32) for n in ("VV", "VH")},
        dem=rng.uniform(0, 2000, shape[1:]).astype(np.float32),
    )
    return replace(found, **changes)


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
    given = block()
    given = replace(given, bands={n: given.bands[n] for n in BANDS})
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
    gappy = block()
    gappy = replace(gappy, bands={n: gappy.bands[n] for n in BANDS})
    clear = replace(gappy, valid=np.ones_like(gappy.valid))
    first, second, third, fourth = method.fill([clear, gappy, clear, clear])
    for out in (first, third, fourth):
        np.testing.assert_array_equal(out.bands["B04"], clear.bands["B04"])
    assert not np.array_equal(second.bands["B04"], clear.bands["B04"])
    assert list(method.fill([])) == []


def test_target_is_the_clear_part_of_the_wanted_date() -> None:
    method = made(SsopUnet, **NARROW)
    truth = block()
    truth = replace(truth, bands={n: truth.bands[n] for n in BANDS})
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


def write_keras(path: Path, net: Any) -> Path:
    """Weights of a net as Keras 2 stores them."""
    layers = layer_names(net)
    names: dict[str, dict[str, Any]] = {}
    for name, tensor in net.state_dict().items():
        module, part = name.rsplit(".", 1)
        values = tensor.numpy()
        values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
        key = f"{layers[module]}/{'kernel' if part == 'weight' else 'bias'}:0"
        names.setdefault(layers[module], {})[key] = values
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(names)
        for layer, weights in names.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = list(weights)
            for key, values in weights.items():
                group.create_dataset(key, data=values)
    return path


@pytest.mark.parametrize("dem", [False, True])
def test_keras_weights_of_the_unet(tmp_path: Path, dem: bool) -> None:
    config = ConfigUnet(**NARROW, dem=dem, bands_20m=BANDS_20M)
    net = SsopUnet.net(config)
    state = SsopUnet.from_original(write_keras(tmp_path / "net.h5", net), config)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(state[name], tensor)


def test_keras_weights_of_the_residual_net(tmp_path: Path) -> None:
    config = ConfigMer(**SMALL, width=4, blocks=2)
    net = SsopMer.net(config)
    path = write_keras(tmp_path / "net.h5", net)
    state = SsopMer.from_original(path, config)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(state[name], tensor)
    with pytest.raises(MethodError, match="as the net was trained"):
        SsopMer.from_original(path, replace(config, blocks=3))


def test_filled_dates_are_flagged_learned() -> None:
    method = made(SsopUnet, **NARROW)
    given = block()
    (out,) = method.fill([replace(given, bands={n: given.bands[n] for n in BANDS})])
    assert out.flag is not None
    assert set(np.unique(out.flag)) == {int(Flag.LEARNED)}
