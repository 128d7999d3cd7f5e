"""What the tile kernel must know of a cube and a method to fill any tile of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from cubefill.cube.axes import TimeAxes
from cubefill.cube.indices import Together
from cubefill.methods import Counts, Method, Traits, name_of, parameters, quantile_name
from cubefill.store.source import UNTRACKED, Source

_NEVER_CHANGE = frozenset({"device", "batch", "checkpoint"})
"""Options that a result does not depend on: weights are told by their digest, not their folder."""

Arrays = Mapping[str, NDArray[Any]]


class Region(NamedTuple):
    """A rectangle of output pixels."""

    y: slice
    x: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.stop - self.y.start, self.x.stop - self.x.start


@dataclass(frozen=True)
class Work:
    """All that the kernel must know to fill any tile of one cube; picklable."""

    method: Method
    traits: Traits
    bands: tuple[str, ...]
    """Bands a method is given, in its order."""
    shape: tuple[int, int]
    """Rows and columns of the cube."""
    axes: TimeAxes
    sources: Mapping[str, Source | None] = field(default_factory=dict)
    """Variable name to where its pixels are read; None where the executor hands them over."""
    std: bool = False
    quantiles: tuple[float, ...] = ()
    counts: Counts | None = None
    """Set when bands travel as int16 counts from store to store."""

    @property
    def outputs(self) -> dict[str, np.dtype[Any]]:
        """Names and types of the arrays that `fill_region` returns."""
        value = np.dtype(np.int16 if self.counts else np.float32)
        names: dict[str, np.dtype[Any]] = dict.fromkeys(self.traits.gives, value)
        if self.std:
            names |= {f"{g}_std": np.dtype(np.float32) for g in self.traits.gives}
        names |= dict.fromkeys(self.quantile_names, np.dtype(np.float32))
        return {**names, "fill_flag": np.dtype(np.uint8)}

    @property
    def quantile_names(self) -> dict[str, tuple[str, float]]:
        """Names of quantiles, with the output and the level of each."""
        pairs = ((g, q) for g in self.traits.gives for q in self.quantiles)
        return {quantile_name(g, q): (g, q) for g, q in pairs}

    def errors_together(self, output: str) -> Together:
        """How the error of an output, or its quantile, goes with those of others, if known."""
        known = getattr(self.method, "errors_together", None)
        return known(output) if (self.std or self.quantiles) and known else {}


def described(work: Work) -> dict[str, Any]:
    """What a result depends on beside the cube: the method, its options and what is asked of it."""
    method = work.method
    options = parameters(method) or getattr(method, "__dict__", {})
    return {
        "method": name_of(method),
        "revision": work.traits.revision,
        "parameters": {k: _told(v) for k, v in options.items() if k not in _NEVER_CHANGE},
        "bands": sorted(work.bands),
        "times": [str(t) for t in work.axes.out.astype("datetime64[ns]")],
        "std": _errors_told(work),
    }


def _errors_told(work: Work) -> Any:
    """What is asked of errors, as former jobs wrote it where that means the same."""
    revision = work.traits.std_revision
    if not work.quantiles and (not work.std or revision == "1"):
        return work.std
    return {"std": work.std, "quantiles": list(work.quantiles), "revision": revision}


def _told(value: Any) -> Any:
    """An option as JSON has it; a digest of one that JSON has no form for."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    try:
        return tokenize(value, ensure_deterministic=True)
    except (TypeError, ValueError, RuntimeError):
        return f"{UNTRACKED}{uuid4().hex}"
