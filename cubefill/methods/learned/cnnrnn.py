"""CNN-RNN fusion: NDVI of each pixel from its clear NDVI, Sentinel-1 backscatter and coherence.

Tsardanidis et al. (2024), arXiv 2403.09554. The net sees 29 steps of 6 days of 8 series,
`(pixel, 29, 8)`: VV, VH, cross ratio, ratio, coherence of VV, of VH, mixed coherence, NDVI; it
gives `(pixel, 29, 1)`. Without coherence 5 series.

What differs from the authors' code: any dates and any length, clear NDVI is kept, features are
computed here. VV and VH are dB / -30 as in their data, cross ratio VH - VV and ratio VV / VH of
these; the authors' data hold the features ready-made, so these formulas are those of their text.
Cubes hold backscatter at the acquisition dates; a step of the grid gets that of the nearest one.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cubefill.addresses import local_path
from cubefill.errors import MethodError, StoreError
from cubefill.methods.contract import Block, Bool, Filled, Float, Needs
from cubefill.methods.learned.method import Arrays
from cubefill.methods.learned.series import Grid, SeriesMethod, on_grid
from cubefill.nn import keras
from cubefill.nn.recurrent import SeriesNet, SeriesSizes, keras_names

MISSING = np.float32(-100)
"""Stands for NDVI that is not known, in the authors' data and in the net's input."""

OBSERVED, HIDDEN = 0.25, 0.75
"""Weights of a step whose NDVI the net sees, and of one whose NDVI was hidden from it."""


@dataclass(frozen=True)
class ConfigCnnRnn:
    """The net and its grid; the defaults are those of the published weights."""

    steps: int = 29
    """Steps of a series."""
    every: int = 6
    """Days of a step."""
    coherence: bool = True
    """Sentinel-1 coherence is among the inputs."""
    attention: bool = False
    """Attention over time in place of bidirectional LSTMs."""
    convs: tuple[int, int] = (8, 16)
    """Features of the two convolutions of a series."""
    features: int = 32
    """Features of a series, and of a step at the end."""
    units: int = 16
    """Units of an LSTM."""

    @property
    def sizes(self) -> SeriesSizes:
        """Widths of the net."""
        return SeriesSizes(
            inputs=8 if self.coherence else 5,
            steps=self.steps,
            convs=self.convs,
            branch=(self.features,),
            units=self.units,
            head=(self.features,),
            attention=self.attention,
        )


class FusionNet(SeriesNet):
    """A net of series whose missing NDVI, -100, counts as 0."""

    def forward(self, x: Tensor) -> Tensor:
        """NDVI `(batch, step, 1)` from `(batch, step, series)`."""
        return super().forward(x.masked_fill(x == float(MISSING), 0.0))


@dataclass(frozen=True)
class CnnRnn(SeriesMethod):
    """NDVI from clear NDVI and Sentinel-1 (Tsardanidis et al. 2024).

    Gives `NDVI` on the cube's dates, or with `times="6D"` on the net's own grid.

    Examples
    --------
    >>> CnnRnn().needs.sar, CnnRnn.gives
    (True, ('NDVI',))
    """

    name: ClassVar[str] = "cnnrnn"
    quantity: ClassVar[str] = "NDVI"
    Config: ClassVar[type] = ConfigCnnRnn
    gives: ClassVar[tuple[str, ...]] = ("NDVI",)

    @property
    def needs(self) -> Needs:
        """Near infrared and red, Sentinel-1, pixel by pixel."""
        asked = self.config.coherence and not self.assumed_coherence
        return Needs(bands=("B08", "B04"), sar=True, coherence=asked)

    @classmethod
    def net(cls, config: Any) -> nn.Module:
        """An untrained net."""
        return FusionNet(config.sizes)

    def series(self, block: Block, grid: Grid) -> Float:
        """Series in the authors' order `(step, series, y, x)`."""
        radar = self._radar(block, grid, coherence=self.config.coherence)
        vv, vh = radar["VV"], radar["VH"]
        parts = [vv, vh, vh - vv, vv / vh]
        if self.config.coherence:
            a, b = radar["COH_VV"], radar["COH_VH"]
            parts += [a, b, np.sqrt(a * b)]
        ndvi = _ndvi(block, block.valid, grid)
        return np.stack([*parts, np.where(np.isnan(ndvi), MISSING, ndvi)], axis=1)

    def decode(self, output: NDArray[np.float32], block: Block) -> Filled:
        """NDVI on the dates asked for; NaN for pixels that Sentinel-1 never saw."""
        return Filled({"NDVI": self.answer(output, block)})

    def target(self, truth: Block, gapped: Block) -> Arrays:
        """NDVI of each step; `where` is 0.75 where it was hidden, 0.25 where seen, 0 if unknown."""
        grid = self._grid(truth)
        ndvi = _ndvi(truth, truth.valid, grid)
        seen = np.isfinite(_ndvi(truth, truth.valid & gapped.valid, grid))
        known = np.isfinite(ndvi)
        where = np.where(known, np.where(seen, OBSERVED, HIDDEN), 0.0).astype(np.float32)
        both = np.stack([np.where(known, ndvi, np.float32(0)), where], axis=1)
        missing = self.config.steps - grid.steps
        if missing > 0:
            both = np.concatenate([both, np.zeros((missing, *both.shape[1:]), np.float32)])
        samples = self._samples(both, grid)
        return {"target": samples[..., :1], "where": samples[..., 1:]}

    def _after(self, series: Float, steps: int) -> Float:
        after = super()._after(series, steps)
        after[:, -1] = MISSING
        return after

    @classmethod
    def from_original(
        cls, path: str | Path, config: ConfigCnnRnn | None = None
    ) -> dict[str, Tensor]:
        """Weights that the authors published (Keras HDF5), under our names.

        Raises
        ------
        CubefillError, StoreError
            h5py is absent; the file is no Keras file, or its weights are not those of this net.
        MethodError
            A net with attention or without coherence is asked for: none is published.
        """
        chosen = config or ConfigCnnRnn()
        if chosen.attention or not chosen.coherence:
            what = "with attention" if chosen.attention else "without coherence"
            raise MethodError(
                f"The authors published no weights of a net {what}: expected "
                "ConfigCnnRnn(attention=False, coherence=True). Use `cubefill train cnnrnn`."
            )
        sizes = chosen.sizes
        names = keras_names(sizes, paired=False, last="time_distributed_1")
        return keras.renamed(keras.read(path), names)


def _ndvi(block: Block, clear: Bool, grid: Grid) -> Float:
    """Clear NDVI on the grid, 0-1, NaN where there is none."""
    nir, red = (np.asarray(block.bands[b], np.float32) for b in ("B08", "B04"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ndvi = np.clip((nir - red) / (nir + red), 0, 1)
    return on_grid(ndvi, clear & np.isfinite(ndvi), block.time, grid)


# ------------------------------------------------------------------ the authors' samples


class Hdf5Samples:
    """The authors' training data (`cloud_gap_filling_data.h5`), some series at a time.

    Datasets `X (n, step, 8)`, `y (n, step)` and `training_weights (n, step)`, or instead of the
    weights `actual_cloud_absense` and `artificial_cloud_absense`; `training_instances` and
    `validation_instances` list the series of either part. Nothing is read before it is asked for.

    Parameters
    ----------
    path
        The file.
    part
        "training", "validation", or "all".
    group
        Series of one sample; those that fill no whole sample are left out.

    Raises
    ------
    CubefillError
        h5py is not installed.
    StoreError
        The file is absent, cut short, or lacks a dataset.
    """

    def __init__(self, path: str | Path, part: str = "training", group: int = 64) -> None:
        self.path, self.part, self.group = local_path(path), part, group
        with self._open() as file:
            missing = [n for n in ("X", "y") if n not in file]
            listed = f"{part}_instances"
            if part != "all" and listed not in file:
                missing.append(listed)
            if missing:
                raise StoreError(
                    f"{path} lacks {missing[0]!r}, it holds {', '.join(file) or 'nothing'}: "
                    "expected the authors' cloud_gap_filling_data.h5."
                )
            every = np.arange(len(file["X"]))
            self.series = every if part == "all" else np.asarray(file[listed][()]).astype(np.intp)
        if len(self.series) < group:
            raise StoreError(
                f"{path} has {len(self.series)} series for {part!r}: expected at least "
                f"group={group}. Pass group={max(1, len(self.series))}."
            )

    def __len__(self) -> int:
        return len(self.series) // self.group

    @cached_property
    def digest(self) -> str:
        """A word that changes with the shape of the file's series, and with those that are used."""
        with self._open() as file:
            shape = file["X"].shape
        words = f"{shape} {self.part} {self.group}".encode() + self.series.tobytes()
        return sha256(words).hexdigest()[:16]

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        """`x (group, step, 8)`, `target` and `where (group, step, 1)` of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index}: expected 0 to {len(self) - 1}.")
        chosen = self.series[index * self.group : (index + 1) * self.group]
        rows, back = np.unique(chosen, return_inverse=True)
        with self._open() as file:
            x, y = (np.asarray(file[n][rows], np.float32)[back] for n in ("X", "y"))
            where = _weights(file, rows)[back]
        known = np.isfinite(y) & (y != MISSING)
        where = np.where(known, where, np.float32(0))
        target = np.where(known, y, np.float32(0))
        return {"x": x, "target": target[..., None], "where": where[..., None]}

    def _open(self) -> Any:
        h5py = keras.hdf5("The authors' data are HDF5")
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be read ({error}): expected the authors' HDF5 file."
            ) from error


def _weights(file: Any, rows: NDArray[np.intp]) -> Float:
    """Weight of each step: 0 under real clouds, 0.25 observed, 0.75 hidden on purpose."""
    if "training_weights" in file:
        return np.asarray(file["training_weights"][rows], np.float32)
    clear, shown = (
        np.asarray(file[f"{n}_cloud_absense"][rows]) > 0 for n in ("actual", "artificial")
    )
    return np.where(clear, np.where(shown, OBSERVED, HIDDEN), 0.0).astype(np.float32)
