from collections.abc import Callable
from math import log, sqrt

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from cubefill.errors import MethodError
from cubefill.methods import resolve
from cubefill.methods.learned.decloud import DecloudMethod
from cubefill.methods.registry import METHODS
from cubefill.nn import losses
from tests.shared.torch_thread import one_thread as one_thread

Double = NDArray[np.float64]


def images(seed: int = 0) -> tuple[Double, Double, NDArray[np.bool_]]:
    """Prediction, truth `(2, 3, 4, 24, 20)` and where `(2, 3, 1, 24, 20)`."""
    rng = np.random.default_rng(seed)
    true = gaussian_filter(rng.random((2, 3, 4, 24, 20)), (0, 0, 0, 2, 2)) * 2 - 0.5
    pred = true + 0.05 * rng.standard_normal(true.shape)
    return pred, true, rng.random((2, 3, 1, 24, 20)) > 0.4


def torched(*arrays: NDArray[np.generic]) -> list[torch.Tensor]:
    return [torch.from_numpy(a.astype(np.float32) if a.dtype == np.float64 else a) for a in arrays]


def weighted(values: Double, where: NDArray[np.generic]) -> float:
    weight = np.broadcast_to(where, values.shape).astype(np.float64)
    return float((values * weight).sum() / weight.sum())


def laplace(pred: Double, true: Double) -> Double:
    return np.abs(pred[:, 0] - true) / np.exp(pred[:, 1]) + pred[:, 1] + log(2)


def test_means_of_differences() -> None:
    pred, true, where = images()
    p, t, w = torched(pred, true, where)
    assert float(losses.l1(p, t, w)) == pytest.approx(weighted(np.abs(pred - true), where), 1e-5)
    assert float(losses.l2(p, t, w)) == pytest.approx(weighted((pred - true) ** 2, where), 1e-5)


def test_where_may_weigh() -> None:
    pred, true, where = images()
    weights = np.where(where, 0.75, 0.25)
    weights[0, 0] = 0
    p, t, w = torched(pred, true, weights)
    expected = weighted(np.abs(pred - true), weights)
    assert float(losses.l1(p, t, w)) == pytest.approx(expected, 1e-5)


def test_laplace_likelihood() -> None:
    pred, true, where = images()
    log_scale = np.random.default_rng(1).uniform(-4, 0, true.shape)
    both = np.stack([pred, log_scale], axis=1)
    p, t, w = torched(both, true, where)
    found = float(losses.laplace_nll(p, t, w))
    assert found == pytest.approx(weighted(laplace(both, true), where), 1e-4)


def test_the_laplace_scale_that_fits_best_is_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.laplace(0, 0.2, (1, 4000)).astype(np.float32))
    scores = [
        float(
            losses.laplace_nll(
                torch.stack([torch.zeros_like(true), torch.full_like(true, log(b))], 1),
                true,
                torch.ones_like(true),
            )
        )
        for b in (0.1, 0.2, 0.4)
    ]
    assert min(scores) == scores[1]
    assert float(true.std()) == pytest.approx(sqrt(2) * 0.2, rel=0.05)


# ------------------------------------------------------------------ structural similarity


def slow_ssim(x: Double, y: Double, w: Double) -> Double:
    """Similarity of one image, window by window."""
    i = np.arange(11) - 5
    g = np.exp(-(i**2) / (2 * 1.5**2))
    kernel = np.outer(g, g) / np.outer(g, g).sum()
    out = np.empty_like(x)
    pad = [np.pad(a, 5) for a in (x, y, w)]
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            a, b, k = (p[r : r + 11, c : c + 11] for p in pad)
            k = k * kernel
            k = k / max(k.sum(), 1e-12)
            ma, mb = (k * a).sum(), (k * b).sum()
            va, vb = (k * a * a).sum() - ma**2, (k * b * b).sum() - mb**2
            cov = (k * a * b).sum() - ma * mb
            top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
            out[r, c] = top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    return out


def test_ssim_equals_a_slow_one_in_float64() -> None:
    pred, true, where = (a[:1, :2, :1] for a in images())
    p, t, w = torched(pred, true, where)
    expected = np.stack(
        [
            slow_ssim(pred[0, i, 0], true[0, i, 0], where[0, i, 0].astype(float))
            for i in range(pred.shape[1])
        ]
    )[None, :, None]
    found = losses.ssim_map(p, t, w).numpy()
    np.testing.assert_allclose(found[where], expected[where], atol=2e-4)
    assert float(losses.ssim(p, t, w)) == pytest.approx(1 - weighted(expected, where), abs=1e-4)


def test_ssim_is_that_of_scikit_image_away_from_the_edge() -> None:
    pred, true, _ = images()
    a, b = pred[0, 0, 0], true[0, 0, 0]
    _, expected = structural_similarity(  # type: ignore[no-untyped-call]
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    p, t = torched(a, b)
    found = losses.ssim_map(p, t, torch.ones_like(p)).numpy()
    np.testing.assert_allclose(found[5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-4)


def test_ssim_of_the_truth_is_one() -> None:
    _, true, where = images()
    t, w = torched(true, where)
    assert float(losses.ssim(t, t, w)) == pytest.approx(0, abs=1e-6)


def test_structure_and_level() -> None:
    p, t, w = torched(*images())
    expected = 0.84 * losses.ssim(p, t, w) + 0.16 * losses.l1(p, t, w)
    assert float(losses.l1_ssim(p, t, w)) == pytest.approx(float(expected))


# ------------------------------------------------------------------ cloud-adaptive


def test_carl() -> None:
    pred, true, cloudy = images()
    given = true + np.where(cloudy, 0.5, 0.01)
    hidden = cloudy.astype(np.float64)
    expected = np.abs(hidden * (pred - true) + (1 - hidden) * (pred - given)).mean()
    expected += 2 * np.abs(pred - true).mean()
    p, t, k, g, c = torched(pred, true, np.ones_like(cloudy), given, ~cloudy)
    assert float(losses.carl(p, t, k, g, c, 2)) == pytest.approx(float(expected), 1e-5)


def test_carl_leaves_out_what_is_not_known() -> None:
    pred, true, known = images()
    clear = np.random.default_rng(8).random(known.shape) < 0.5
    known, clear = (np.broadcast_to(a, pred.shape).copy() for a in (known, clear))
    given = true + 0.01
    total = np.where(clear, np.abs(pred - given), np.where(known, np.abs(pred - true), 0))
    expected = total.mean() + np.where(known, np.abs(pred - true), 0).mean()
    spoilt = np.where(known, true, np.nan), np.where(clear, given, np.nan)
    other = np.where(known, true, 7), np.where(clear, given, -1)
    gradients = []
    for truth, shown in (spoilt, other):
        p, t, k, g, c = torched(pred, truth, known, shown, clear)
        value = losses.carl(p.requires_grad_(), t, k, g, c)
        value.backward()
        assert float(value.detach()) == pytest.approx(float(expected), 1e-5)
        assert p.grad is not None
        gradients.append(p.grad)
    assert torch.isfinite(gradients[0]).all()
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0].numpy()[~known & ~clear] == 0).all()


def test_passes_of_carl_add_up() -> None:
    pred, true, known = images()
    p, t, k, g, c = torched(pred, true, known, true + 0.01, ~known)
    whole = float(losses.carl(p, t, k, g, c))
    parts = [float(losses.carl(p[i], t[i], k[i], g[i], c[i])) for i in range(len(p))]
    assert np.mean(parts) == pytest.approx(whole, 1e-5)


# ------------------------------------------------------------------ what is not scored


PLAIN = sorted(set(losses.LOSSES) - {"carl"})


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_not_scored_never_matters(name: str) -> None:
    pred, true, where = images()
    if name == "bce":
        pred, true = 1 / (1 + np.exp(-pred)), 1 / (1 + np.exp(-true))
    spoilt = np.where(where, true, np.nan)
    other = np.where(where, true, 7.0)
    p, s, o, w = torched(pred, spoilt, other, where)
    if name == "laplace":
        p = torch.stack([p, torch.zeros_like(p)], 1)
    loss = losses.named(name)
    gradients = []
    for truth in (s, o):
        leaf = p.clone().requires_grad_()
        value = loss(leaf, truth, w)
        value.backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        gradients.append(leaf.grad)
        assert torch.isfinite(value)
    assert torch.equal(gradients[0], gradients[1])
    where5 = w.expand(s.shape)
    picked = gradients[0][:, 0] if name == "laplace" else gradients[0]
    assert (picked[~where5] == 0).all()


@pytest.mark.parametrize("name", PLAIN)
def test_nothing_scored_is_a_loss_of_zero_with_a_gradient(name: str) -> None:
    pred, true, where = images()
    p, t, w = torched(pred, true, where & False)
    if name == "laplace":
        p = torch.stack([p, torch.zeros_like(p)], 1)
    p.requires_grad_()
    value = losses.named(name)(p, t, w)
    value.backward()
    assert float(value.detach()) == 0
    assert p.grad is not None
    assert (p.grad == 0).all()


def gradient(f: Callable[[Double], float], x: Double, step: float = 1e-5) -> Double:
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        out[i] = (f(up) - f(down)) / (2 * step)
    return out


@pytest.mark.parametrize("name", ["l2", "ssim"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    pred, true, where = images()
    pred, true, where = pred[0, 0, 0, :5, :5], true[0, 0, 0, :5, :5], where[0, 0, 0, :5, :5]
    loss = losses.named(name)

    def value(p: Double) -> float:
        return float(loss(torch.from_numpy(p), torch.from_numpy(true), torch.from_numpy(where)))

    leaf = torch.from_numpy(pred).requires_grad_()
    loss(leaf, torch.from_numpy(true), torch.from_numpy(where)).backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), gradient(value, pred), atol=1e-6)


def test_shapes_that_differ_are_refused() -> None:
    p, t, w = torched(*images())
    with pytest.raises(
        MethodError, match=r"gave \(2, 3, 4, 24, 20\): expected \(2, 3, 4, 24, 19\)"
    ):
        losses.l1(p, t[..., 1:], w)


def test_cross_entropy() -> None:
    pred, true, where = images()
    p, t, w = torched(1 / (1 + np.exp(-pred)), (true > 0.5).astype(np.float64), where)
    q = p.numpy().astype(np.float64)
    expected = weighted(-np.where(true > 0.5, np.log(q), np.log(1 - q)), where)
    assert float(losses.bce(p, t, w)) == pytest.approx(expected, 1e-4)


def test_an_unknown_loss_lists_the_known() -> None:
    with pytest.raises(MethodError, match=r"Unknown loss 'l3': expected one of l1, l2, ssim"):
        losses.named("l3")
    with pytest.raises(MethodError, match="Did you mean 'laplace'"):
        losses.named("laplas")


def test_carl_is_refused_for_nets_that_see_no_date_to_give() -> None:
    with pytest.raises(MethodError, match=r"loss='carl' .*expected a method .*Pass loss='l1'") as e:
        losses.named("carl")
    kinds = {n: type(resolve(n)) for n in METHODS}
    takers = {n for n, kind in kinds.items() if issubclass(kind, DecloudMethod)}
    assert set(losses.OF_DECLOUD.split(", ")) == takers
    assert losses.OF_DECLOUD in str(e.value)


def test_losses_of_other_nets_are_refused() -> None:
    p, t, w = torched(*images())
    with pytest.raises(MethodError, match="expected median and scale"):
        losses.laplace_nll(p[:, :1], t[:, :1], w)
    with pytest.raises(MethodError, match="outside 0-1: expected probabilities"):
        losses.bce(p + 2, (t > 0.5).float(), w)
