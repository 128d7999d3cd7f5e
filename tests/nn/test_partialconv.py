from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cubefill.methods.learned.stpconv import STpconv
from cubefill.nn.partialconv import PartialConv3d, PartialConvSizes, PartialUNet3d, Seen, reached
from tests.shared.torch_thread import one_thread as one_thread

TINY = PartialConvSizes(filters=(3, 4))


def sizes(filters: tuple[int, ...], convs: int = 1) -> PartialConvSizes:
    return PartialConvSizes(filters, (3,) * len(filters), ((2, 2, 2),) * len(filters), convs)


@pytest.mark.parametrize(
    ("filters", "convs", "count"),
    [
        ((16, 16), 1, 21_678),
        ((32, 64), 1, 140_126),
        ((32, 64, 128), 1, 693_278),
        ((32, 64, 128, 256), 1, 2_905_502),
        ((32, 64, 128, 256), 2, 5_836_922),
    ],
)
def test_parameter_counts(filters: tuple[int, ...], convs: int, count: int) -> None:
    with torch.device("meta"):
        net = PartialUNet3d(sizes(filters, convs))
    assert sum(p.numel() for p in net.parameters()) == count


def test_parity_with_the_authors_weights(reference_folder: Path) -> None:
    net = PartialUNet3d(PartialConvSizes())
    net.load_state_dict(
        STpconv.from_original(reference_folder / "weights" / "stpconv_S5P_CO_model.h5")
    )
    fixture = np.load(reference_folder / "parity" / "stpconv_original_weights.npz")
    x, clear = (torch.from_numpy(fixture[n].transpose(2, 0, 1)[None, None]) for n in ("X", "M"))
    with torch.inference_mode():
        y = net(x, clear)[0, 0].numpy().transpose(1, 2, 0)
    assert np.abs(y - fixture["pred"][0, ..., 0]).max() < 1e-5


@pytest.mark.parametrize("ratio", ["window", "features"])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2)])
def test_partial_convolution_against_loops(ratio: str, stride: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    x, clear = rng.normal(size=(2, 5, 6, 4)), (rng.random((2, 5, 6, 4)) < 0.2).astype(float)
    conv = PartialConv3d(2, 3, 3, stride, ratio).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(conv.bias)
    w, b = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    pad = ((0, 0), (1, 1), (1, 1), (1, 1))
    px, pm = np.pad(x * clear, pad), np.pad(clear, pad)
    shape = [-(-n // s) for n, s in zip(x.shape[1:], stride, strict=True)]
    want, some = np.zeros((3, *shape)), np.zeros(shape)
    for place in product(*map(range, shape)):
        cut: tuple[Any, ...] = (
            slice(None),
            *(slice(i * s, i * s + 3) for i, s in zip(place, stride, strict=True)),
        )
        n = pm[cut].sum()
        full = 27 * (2 if ratio == "features" else 1)
        some[place[0], place[1], place[2]] = min(n, 1)
        total = (w * px[cut]).sum((1, 2, 3, 4)) * (full / n if n else 0)
        want[:, place[0], place[1], place[2]] = total + b
    first, second = (torch.from_numpy(clear[None, i : i + 1]) for i in (0, 1))
    got = conv(Seen(torch.from_numpy(x[None]), ((first, 1), (second, 1))))
    np.testing.assert_allclose(got.values[0].detach().numpy(), want, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(got.clear[0][0][0, 0].numpy(), some)
    assert got.features == 3


def test_ratio_weighs_a_clear_window_by_one_or_by_its_features() -> None:
    ones = torch.ones(1, 4, 3, 3, 3)
    seen = Seen(ones, ((torch.ones(1, 1, 3, 3, 3), 4),))
    full = PartialConv3d(4, 1, 3, ratio="features")
    authors = PartialConv3d(4, 1, 3, ratio="window")
    authors.load_state_dict(full.state_dict())
    plain = torch.nn.functional.conv3d(ones, full.weight)
    middle = (0, 0, 1, 1, 1)
    assert torch.isclose(full(seen).values[middle], plain[0, 0, 0, 0, 0])
    assert torch.isclose(authors(seen).values[middle], plain[0, 0, 0, 0, 0] / 4)


@pytest.mark.parametrize("convs", [1, 2])
def test_what_is_not_clear_is_not_seen(convs: int) -> None:
    net = PartialUNet3d(PartialConvSizes(filters=(3, 4), convs=convs))
    x, clear = torch.rand(1, 1, 4, 8, 8), (torch.rand(1, 1, 4, 8, 8) < 0.5).float()
    with torch.inference_mode():
        a = net(x, clear)
        b = net(torch.where(clear > 0, x, 77.0), clear)
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    "given",
    [
        TINY,
        PartialConvSizes((2,), (5,), ((1, 2, 4),)),
        PartialConvSizes((2, 2), (3, 3), ((2, 1, 2),) * 2, 2),
    ],
)
def test_reach_and_what_is_reached(given: PartialConvSizes) -> None:
    shape = (40, 40, 40)
    net = PartialUNet3d(given).double()
    rng = np.random.default_rng(0)
    for place in [(20, 20, 20), (21, 18, 23), (0, 39, 19)]:
        clear = torch.zeros(1, 1, *shape, dtype=torch.float64)
        clear[0, 0][place] = 1
        x = torch.from_numpy(rng.random((1, 1, *shape)))
        with torch.inference_mode():
            changed = (net(x, clear) != net(x + 1, clear))[0, 0]
            near = reached(clear, given)[0, 0] > 0
        assert not (changed & ~near).any()
        assert changed.any()
        for axis in range(3):
            where = torch.nonzero(near)[:, axis]
            assert (where - place[axis]).abs().max() <= given.reach[axis]


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"multiples of \(4, 4, 4\)"):
        PartialUNet3d(TINY)(torch.zeros(1, 1, 4, 6, 8), torch.zeros(1, 1, 4, 6, 8))


def test_it_learns() -> None:
    net = PartialUNet3d(TINY)
    x, clear = torch.rand(2, 1, 4, 8, 8), torch.ones(2, 1, 4, 8, 8)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = (net(x, clear) - 0.5).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
