"""Random fields of the simulator: white noise comes in, structure goes out.

The parts of the simulator are pure functions of arrays. They take the functions they use from the
arrays they are given (`namespace`), so that the same line runs on numpy arrays and on torch tensors
of any device. Random numbers are drawn outside and handed in.
"""

import sys
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor."""


def namespace(array: Array) -> Any:
    """The module whose functions work on `array`: `numpy`, or `torch` for a tensor."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]


def like(values: Any, array: Array) -> Array:
    """`values` in the library, type and device of `array`."""
    return namespace(array).asarray(values, dtype=array.dtype, device=array.device)


def stream(seed: int, *key: int) -> np.random.Generator:
    """A generator of its own for one part of a scene, so that no part shifts the draws of another.

    Examples
    --------
    >>> bool(stream(1, 2, 3).random() == stream(1, 2, 3).random())
    True
    """
    return np.random.default_rng([seed, *key])


def fractal(white: Array, slope: float = 3.0, outer: float = 1.0, inner: float = 0.0) -> Array:
    """A field of zero mean and unit variance with power spectrum `f ** -slope`, periodic.

    Parameters
    ----------
    white
        `(y, x)` independent standard normal values.
    slope
        Exponent of the power spectrum; 2 is rough, 3 is like clouds and terrain, 4 is smooth.
    outer
        Structures larger than this share of the longer side get no more power.
    inner
        Structures smaller than this many pixels are damped.
    """
    xp = namespace(white)
    ny, nx = white.shape
    fy, fx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :]
    f2 = fy * fy + fx * fx
    corner = 1.0 / (outer * max(ny, nx))
    gain = (f2 + corner * corner) ** (-slope / 4) * np.exp(-2 * (np.pi * inner / 4) ** 2 * f2)
    gain[0, 0] = 0.0
    spectrum = xp.fft.rfft2(white) * like(gain / gain.max(), white)
    field = xp.fft.irfft2(spectrum, (ny, nx))
    return field / (xp.sqrt((field * field).mean()) + 1e-12)


def smooth(field: Array, sigma: float) -> Array:
    """`field` filtered by a Gaussian of `sigma` pixels, periodic at the borders."""
    xp = namespace(field)
    ny, nx = field.shape
    f2 = np.fft.fftfreq(ny)[:, None] ** 2 + np.fft.rfftfreq(nx)[None, :] ** 2
    gain = like(np.exp(-2 * (np.pi * sigma) ** 2 * f2), field)
    return xp.fft.irfft2(xp.fft.rfft2(field) * gain, (ny, nx))


def block_mean(a: Array, factor: int) -> Array:
    """Means over `factor` x `factor` pixels of the last two axes, which must divide evenly."""
    if factor == 1:
        return a
    *head, ny, nx = a.shape
    cut = a.reshape(*head, ny // factor, factor, nx // factor, factor)
    return cut.mean((-3, -1))


def enlarge(a: Array, factor: int) -> Array:
    """Each pixel of the last two axes repeated `factor` times along both."""
    if factor == 1:
        return a
    xp = namespace(a)
    *head, ny, nx = a.shape
    wide = xp.broadcast_to(a[..., :, None, :, None], (*head, ny, factor, nx, factor))
    return wide.reshape(*head, ny * factor, nx * factor)
