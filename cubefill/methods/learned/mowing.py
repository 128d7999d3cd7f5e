"""Mowing: the probability that grass is cut in each step, from filled NDVI and Sentinel-1.

Tsardanidis et al. (2024), arXiv 2403.09554. The net sees 29 steps of 6 days of 11 series,
`(pixel, 29, 11)`: VV, VH, cross ratio, ratio, radar vegetation index, change of VV and of VH,
coherence of VV and of VH, mixed coherence, filled NDVI; it gives the probability of a mowing in
each step, `(pixel, 29, 1)`.

What differs from the authors' code: the features are those that the text describes. The code that
the published weights were trained with has the ratio in place of the cross ratio, VV / (VV + VH)
for the index, and the change of VV twice: `formulas="authors"`, which those weights need.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.errors import MethodError
from cubefill.methods.contract import Block, Bool, Filled, Float, Needs
from cubefill.methods.learned.method import Arrays
from cubefill.methods.learned.series import Grid, SeriesMethod, nearest_known
from cubefill.nn import keras
from cubefill.nn.recurrent import SeriesNet, SeriesSizes, keras_names

Formulas = Literal["text", "authors"]


@dataclass(frozen=True)
class ConfigMowing:
    """The net and its grid; the defaults are those of the published weights."""

    steps: int = 29
    """Steps of a series."""
    every: int = 6
    """Days of a step."""
    formulas: Formulas = "text"
    """How features are computed: as the text says, or as the authors' code does."""
    features: int = 64
    """Features of a series, and of a step at the end."""
    convs: tuple[int, int] = (16, 16)
    """Features of the two convolutions of a series."""
    units: int = 29
    """Units of each direction of an LSTM."""
    dropout: float = 0.2
    """Share of the features of a series that is dropped while training."""

    @property
    def sizes(self) -> SeriesSizes:
        """Widths of the net."""
        return SeriesSizes(
            inputs=11,
            steps=self.steps,
            convs=self.convs,
            pool=1,
            branch=(self.features, self.features),
            units=self.units,
            head=(self.features, self.features),
            dropout=self.dropout,
        )


@dataclass(frozen=True)
class Mowing(SeriesMethod):
    """Probability that grass is mown in each step, from filled NDVI and Sentinel-1.

    Takes a cube with filled `NDVI` and gives `mowing`, 0-1; with `times="6D"` on the net's grid.

    Examples
    --------
    >>> Mowing().needs.bands, Mowing.gives
    (('NDVI',), ('mowing',))
    """

    name: ClassVar[str] = "mowing"
    quantity: ClassVar[str] = "NDVI"
    Config: ClassVar[type] = ConfigMowing
    gives: ClassVar[tuple[str, ...]] = ("mowing",)
    learns_from: ClassVar[Literal["cubes", "series"]] = "series"

    @property
    def needs(self) -> Needs:
        """Filled NDVI, Sentinel-1, pixel by pixel."""
        return Needs(bands=("NDVI",), sar=True, coherence=not self.assumed_coherence)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return SeriesNet(config.sizes)

    def series(self, block: Block, grid: Grid) -> Float:
        """Series in the authors' order `(step, series, y, x)`; NDVI from the nearest date."""
        radar = self._radar(block, grid, coherence=True)
        ndvi = nearest_known(np.asarray(block.bands["NDVI"], np.float32), block.time, grid)
        parts = features(
            radar["VV"], radar["VH"], radar["COH_VV"], radar["COH_VH"], ndvi,
            formulas=self.config.formulas,
        )  # fmt: skip
        return np.stack(list(parts.values()), axis=1)

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        """Probability on the dates asked for; NaN where a pixel lacks NDVI or Sentinel-1."""
        return Filled({"mowing": self.answer(output, block)})

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """Refused: a cube does not say when grass was mown.

        Raises
        ------
        MethodError
            Always.
        """
        raise MethodError(
            "Mowing is trained on dated events, not from a cube: expected samples with `target` "
            "and `where`. Use cubefill.applications.mowing.labels(events, dates) to make them."
        )

    def lacking(self, block: Block) -> Bool:
        """True `(y, x)` where a pixel lacks an input on every date."""
        empty: Bool = np.isnan(block.bands["NDVI"]).all(axis=0)
        return super().lacking(block) | empty

    @classmethod
    def from_original(
        cls, path: str | Path, config: ConfigMowing | None = None
    ) -> dict[str, Tensor]:
        """Weights that the authors published (Keras HDF5); they need `formulas="authors"`.

        Raises
        ------
        CubefillError, StoreError
            h5py is absent; the file is no Keras file, or its weights are not those of this net.
        """
        names = keras_names((config or ConfigMowing()).sizes, paired=True, last="when_out")
        return keras.renamed(keras.read(path), names)

    @classmethod
    def original_settings(cls, path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The formulas that the published weights were trained with."""
        return {"formulas": "authors"}, {}


def features(
    vv: Float,
    vh: Float,
    coherence_vv: Float,
    coherence_vh: Float,
    ndvi: Float,
    *,
    formulas: Formulas = "text",
) -> dict[str, Float]:
    """The eleven series of the net by name, in its order; all arrays `(step, ...)`.

    Parameters
    ----------
    vv, vh
        Backscatter, dB / -30.
    coherence_vv, coherence_vh
        0-1.
    ndvi
        0-1, without gaps.
    formulas
        "text": cross ratio VH - VV, index 4 VH / (VV + VH), each polarisation's own change.
        "authors": as the published weights were trained: VV / VH in place of the cross ratio,
        index VV / (VV + VH), the change of VV in place of that of VH.

    Examples
    --------
    >>> a = np.full(3, 0.5, np.float32)
    >>> list(features(a, a, a, a, a))[:4]
    ['VV', 'VH', 'cross_ratio', 'ratio']
    """
    if formulas not in ("text", "authors"):
        raise MethodError(f"formulas={formulas!r}: expected 'text' or 'authors'.")
    text = formulas == "text"
    ratio = vv / vh
    return {
        "VV": vv,
        "VH": vh,
        "cross_ratio": vh - vv if text else ratio,
        "ratio": ratio,
        "rvi": (4 * vh if text else vv) / (vv + vh),
        "change_vv": _change(vv),
        "change_vh": _change(vh if text else vv),
        "coherence_vv": coherence_vv,
        "coherence_vh": coherence_vh,
        "coherence_mixed": np.sqrt(coherence_vv * coherence_vh),
        "ndvi": ndvi,
    }


def _change(a: Float) -> Float:
    """Difference to the step before; 0 in the first step."""
    return np.diff(a, axis=0, prepend=a[:1])
