"""The one memory layout in which pixels reach a method: rows of pixels side by side."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_rows(a: NDArray[Any]) -> bool:
    """True where the pixels of a row lie side by side in native byte order, as kernels read them.

    How dates and rows lie is free: a window or a reversed date axis needs no copy.
    """
    beside = a.ndim == 0 or a.shape[-1] <= 1 or a.strides[-1] == a.itemsize
    return beside and a.dtype.isnative and a.flags.aligned


def as_rows(a: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array `in_rows` of `dtype`: `a` itself where it is that already, else a copy in C order.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.zeros((2, 3, 8), np.float32)
    >>> as_rows(a, a.dtype) is a, as_rows(a[..., ::2], a.dtype).strides
    (True, (48, 16, 4))
    """
    if a.dtype == dtype and in_rows(a):
        return a
    with np.errstate(over="ignore"):  # beyond float32 is inf, nothing to warn of
        return np.array(a, dtype, order="C")


def has_infinity(a: NDArray[Any]) -> bool:
    """True where a value is infinite; NaN is none.

    Examples
    --------
    >>> has_infinity(np.array([1.0, np.nan])), has_infinity(np.array([1.0, -np.inf]))
    (False, True)
    """
    return any(bool(np.isinf(part).any()) for part in a)  # a date at a time stays in the cache
