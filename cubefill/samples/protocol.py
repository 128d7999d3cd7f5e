"""What a sample is, and what training asks of samples."""

from typing import Any, Protocol, runtime_checkable

import xarray as xr
from numpy.typing import NDArray

Sample = dict[str, NDArray[Any]]


class Cubes(Protocol):
    """Cubes by number."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> xr.Dataset:
        """One of them."""


@runtime_checkable
class Samples(Protocol):
    """Training samples by index; each a dict of arrays, equal in shape from sample to sample.

    The arrays are the arguments of the net by name, `target` and `where`, and
    `discriminator_windows` for an adversary. Two optional members: `at(epoch) -> Samples`, other
    samples for another epoch; `digest`, a word that changes with the data.
    """

    def __len__(self) -> int:
        """Samples of an epoch."""

    def __getitem__(self, index: int) -> Sample:
        """One sample; the same for the same index."""
