"""Losses over scored values: a scalar from a prediction, the truth and where to score.

`where` is boolean, or a weight per value (0 leaves out), and broadcasts to the prediction. The
truth may be anything, NaN included, where `where` is 0: nothing of it reaches loss or gradient.
Each loss is a weighted mean over all scored values of the batch, 0 where nothing is scored; `carl`
is a mean over all values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cubefill.errors import MethodError, did_you_mean

Loss = Callable[..., Tensor]

SSIM_SIZE = 11
SSIM_SIGMA = 1.5


def l1(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference where scored.

    Examples
    --------
    >>> one = torch.ones(2)
    >>> float(l1(0 * one, torch.tensor([0.5, torch.nan]), torch.tensor([True, False])))
    0.5
    """
    weight, true = _scored(pred, true, where)
    return _mean((pred - true).abs(), weight)


def l2(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Mean squared difference where scored."""
    weight, true = _scored(pred, true, where)
    return _mean((pred - true).square(), weight)


def laplace_nll(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Mean negative log-likelihood of a Laplace distribution where scored.

    `pred` has an axis of two after the first: `pred[:, 0]` is the median, `pred[:, 1]` the natural
    logarithm of the scale b; the standard deviation of the error is then sqrt(2) b.
    """
    if pred.ndim < 2 or pred.shape[1] != 2:
        raise MethodError(
            f"The net gave {tuple(pred.shape)}: expected median and scale, (sample, 2, ...), for "
            "the loss 'laplace'. Pass loss='l1' for a net of one value."
        )
    median, log_scale = pred.unbind(1)
    weight, true = _scored(median, true, where)
    return _mean((median - true).abs() * torch.exp(-log_scale) + log_scale + _LOG_2, weight)


def bce(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Mean cross-entropy of probabilities, in nats, where scored."""
    weight, true = _scored(pred, true, where)
    if ((pred < 0) | (pred > 1)).any():
        raise MethodError(
            "The net gave values outside 0-1: expected probabilities for the loss 'bce'. Pass "
            "loss='l1' for a net of other values."
        )
    ones = torch.nn.functional.binary_cross_entropy(pred, true, reduction="none")
    return _mean(ones, weight)


def ssim(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """1 minus the mean structural similarity of images `(..., y, x)` where scored; peak 1.

    Local moments are taken over scored values only, with a Gaussian of 1.5 px in 11 px.

    References
    ----------
    Wang et al. (2004), Image quality assessment: from error visibility to structural similarity,
    IEEE Transactions on Image Processing 13(4).
    """
    weight, _ = _scored(pred, true, where)
    total = weight.sum()
    return torch.where(total > 0, 1 - _mean(ssim_map(pred, true, where), weight), pred.sum() * 0)


def ssim_map(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """Structural similarity at each value of images `(..., y, x)`, from scored neighbours only."""
    weight, true = _scored(pred, true, where)
    shape, size = pred.shape, pred.shape[-2:]
    w = weight.expand(shape).reshape(-1, 1, *size)
    x, y = pred.reshape(-1, 1, *size), true.reshape(-1, 1, *size)
    near = _blur(w).clamp_min(_TINY)
    mx, my = _blur(w * x) / near, _blur(w * y) / near
    vx = _blur(w * x * x) / near - mx * mx
    vy = _blur(w * y * y) / near - my * my
    cov = _blur(w * x * y) / near - mx * my
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return (top / ((mx * mx + my * my + c1) * (vx + vy + c2))).reshape(shape)


def carl(
    pred: Tensor, true: Tensor, where: Tensor, given: Tensor, clear: Tensor, weight: float = 1.0
) -> Tensor:
    """Cloud-adaptive regularised loss of DSen2-CR: the truth in gaps, the input where it was clear.

    `mean(|(1 - clear) (pred - true) + clear (pred - given)|) + weight mean(|pred - true|)` over
    all values; `clear` is 0 in cloud and shadow of the input. A difference from an unknown truth
    counts as 0, so that passes with equally many samples add up; `given` may be anything, NaN
    included, where it is not clear.

    References
    ----------
    Meraner et al. (2020), Cloud removal in Sentinel-2 imagery using a deep residual neural network
    and SAR-optical data fusion, ISPRS Journal of Photogrammetry and Remote Sensing 166.
    """
    known, true = _scored(pred, true, where)
    kept, given = _scored(pred, given, clear)
    missed, moved = (pred - true).abs() * known, (pred - given).abs() * kept
    return (missed * (1 - kept) + moved).mean() + weight * missed.mean()


def l1_ssim(pred: Tensor, true: Tensor, where: Tensor) -> Tensor:
    """`0.84 ssim + 0.16 l1`: structure first, level second.

    References
    ----------
    Zhao et al. (2017), Loss functions for image restoration with neural networks, IEEE
    Transactions on Computational Imaging 3(1).
    """
    return 0.84 * ssim(pred, true, where) + 0.16 * l1(pred, true, where)


LOSSES: dict[str, Loss] = {
    "l1": l1,
    "l2": l2,
    "ssim": ssim,
    "l1_ssim": l1_ssim,
    "laplace": laplace_nll,
    "bce": bce,
    "carl": carl,
}
"""Losses that a recipe may name; `carl` takes more than a prediction and the truth."""

OF_DECLOUD = "ssop_mer, ssop_unet, msop_unet, msop_david"
"""Methods that learn by `carl`."""


def named(name: str) -> Loss:
    """The loss of a name, of `(pred, true, where)`.

    Raises
    ------
    MethodError
        The name is unknown, and the nearest one is suggested; or it is "carl".
    """
    if name not in LOSSES:
        raise MethodError(
            f"Unknown loss {name!r}: expected one of {', '.join(LOSSES)}."
            f"{did_you_mean(name, LOSSES)}"
        )
    if name == "carl":
        raise MethodError(
            "loss='carl' compares with the cloudy image of the target date: expected a method "
            f"that is shown it, one of {OF_DECLOUD}. Pass loss='l1'."
        )
    return LOSSES[name]


_LOG_2 = 0.6931471805599453
_TINY = 1e-12


def _scored(pred: Tensor, true: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the prediction's type, and the truth with the unscored values made harmless."""
    if pred.shape != true.shape:
        raise MethodError(
            f"The net gave {tuple(pred.shape)}: expected {tuple(true.shape)} as the target is."
        )
    weight = where.to(pred.dtype).expand(pred.shape)
    return weight, torch.where(weight > 0, true.to(pred.dtype), pred.detach())


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(_TINY)


def _blur(images: Tensor) -> Tensor:
    """A Gaussian mean of `(n, 1, y, x)`; zeros beyond the edge."""
    i = torch.arange(SSIM_SIZE, device=images.device, dtype=images.dtype) - SSIM_SIZE // 2
    g = torch.exp(-(i**2) / (2 * SSIM_SIGMA**2))
    g = (g / g.sum())[None, None]
    rows = torch.nn.functional.conv2d(images, g[..., None], padding=(SSIM_SIZE // 2, 0))
    return torch.nn.functional.conv2d(rows, g[..., None, :], padding=(0, SSIM_SIZE // 2))
