"""Blocks of one variable with artificial gaps as GeoTIFF, as STpconv's author publishes them.

A block is four files whose bands are time steps: `X_` what a net is shown, `Y_` the truth, `MASK_`
1 where X is known, `VALMASK_` 1 where the truth was hidden from X. The grid may be in degrees.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.errors import StoreError
from cubefill.formats import write_cog
from cubefill.methods.contract import Block, Bool, Float

NODATA = np.float32(-3.4e38)
"""Stands for no data in `X_` and `Y_`; the author reads every negative value as that."""

DAY = np.timedelta64(86_400_000_000_000, "ns")


@dataclass(frozen=True)
class GapBlock:
    """One variable on `(time, y, x)`, part of it hidden on purpose."""

    name: str
    """What follows the prefix in the files' names: `10_3_17`, the places along x, y and time."""
    given: Float
    """What may be seen, NaN elsewhere."""
    truth: Float
    """What was measured, NaN where nothing was."""
    hidden: Bool
    """True where the truth is known and hidden from `given`."""
    crs: str
    """Coordinate reference system as WKT or "EPSG:4326"; "" for none."""
    transform: tuple[float, float, float, float, float, float]
    """Affine coefficients a to f: pixel to coordinate."""

    @property
    def valid(self) -> Bool:
        """True where `given` is known."""
        return np.isfinite(self.given)


def names(folder: str | Path) -> list[str]:
    """Names of the blocks in a folder, sorted."""
    found = sorted(p.stem.removeprefix("X_") for p in Path(folder).glob("X_*.tif"))
    if not found:
        raise StoreError(f"No block in {folder}: expected files such as X_10_3_17.tif.")
    return found


def read(folder: str | Path, name: str, *, negative: bool = False) -> GapBlock:
    """A block; `Y_` and `VALMASK_` may be absent, then nothing is hidden.

    Parameters
    ----------
    folder, name
        Where the files are, and what follows the prefix in their names.
    negative
        True keeps negative values, as of a vegetation index; by default they are no data, as in
        the author's code and scores.

    Raises
    ------
    StoreError
        A file is absent, cannot be read, or its size is not that of the others.

    Examples
    --------
    >>> import tempfile
    >>> ones = np.ones((2, 3, 4), np.float32)
    >>> folder = tempfile.mkdtemp()
    >>> grid = ("EPSG:4326", (0.1, 0, -180, 0, -0.1, 60))
    >>> _ = write(folder, GapBlock("0_0_0", ones, ones, ones < 0, *grid))
    >>> read(folder, "0_0_0").given.shape
    (2, 3, 4)
    """
    folder = Path(folder)
    x, crs, transform = _open(folder / f"X_{name}.tif")
    seen = _open(folder / f"MASK_{name}.tif")[0] == 1
    given = np.where(seen, _known(x, negative), np.float32(np.nan)).astype(np.float32)
    truth, hidden = given, np.zeros(given.shape, bool)
    if (folder / f"Y_{name}.tif").exists():
        y = _open(folder / f"Y_{name}.tif")[0]
        truth = _known(y, negative)
        hidden = _open(folder / f"VALMASK_{name}.tif")[0] == 1
    for what, a in (("MASK", seen), ("Y", truth), ("VALMASK", hidden)):
        if a.shape != given.shape:
            raise StoreError(
                f"{folder}/{what}_{name}.tif has shape {a.shape} (time, y, x): expected "
                f"{given.shape} as X_{name}.tif."
            )
    return GapBlock(name, given, truth, hidden & np.isfinite(truth), crs, transform)


def _known(a: NDArray[Any], negative: bool) -> Float:
    """Values, NaN where there is no data."""
    known = a > NODATA / 2 if negative else a >= 0
    return np.where(known, a, np.float32(np.nan)).astype(np.float32)


def write(folder: str | Path, block: GapBlock) -> list[Path]:
    """The four files of a block, written as the author's are: LZW, one band a time step.

    Negative values are written, and come back from `read(..., negative=True)`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers: dict[str, NDArray[Any]] = {
        "X": np.where(block.valid, block.given, NODATA),
        "Y": np.where(np.isfinite(block.truth), block.truth, NODATA),
        "MASK": block.valid.astype(np.uint8),
        "VALMASK": block.hidden.astype(np.uint8),
    }
    return [_save(folder / f"{n}_{block.name}.tif", a, block) for n, a in layers.items()]


def write_prediction(folder: str | Path, block: GapBlock, values: Float) -> Path:
    """`PRED_<name>.tif` with filled values `(time, y, x)`, float32, on the grid of the block."""
    if values.shape != block.given.shape:
        raise StoreError(
            f"The filled values have shape {values.shape}: expected {block.given.shape} "
            f"(time, y, x) as block {block.name}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    filled = np.where(np.isfinite(values), values, NODATA)
    return _save(folder / f"PRED_{block.name}.tif", filled, block)


# ------------------------------------------------------------------ into what a method is given


def dates(block: GapBlock, start: str = "2000-01-01") -> NDArray[np.datetime64]:
    """One day a time step, counted on from block 0 of the same place; the files carry no dates."""
    count = len(block.given)
    place = block.name.rsplit("_", 1)[-1]
    first = int(place) * count if place.isdigit() else 0
    return np.datetime64(start, "ns") + (first + np.arange(count)) * DAY


def to_cube(block: GapBlock, variable: str = "CO", start: str = "2000-01-01") -> xr.Dataset:
    """The block as a dataset: the variable on time, y, x, `valid`, `truth_valid` and a CRS."""
    from odc.geo.xr import assign_crs

    a, _, c, _, e, f = block.transform
    ny, nx = block.given.shape[1:]
    dims = ("time", "y", "x")
    coords = {
        "time": dates(block, start),
        "y": f + e * (np.arange(ny) + 0.5),
        "x": c + a * (np.arange(nx) + 0.5),
    }
    data = {
        variable: (dims, np.where(block.valid | ~block.hidden, block.given, block.truth)),
        "valid": (dims, block.valid, {"description": "1 in MASK"}),
    }
    ds = xr.Dataset(data, coords, {"block": block.name})
    if block.crs:
        ds = assign_crs(ds, block.crs)
        ds[variable].encoding["grid_mapping"] = "spatial_ref"
    return ds


def to_blocks(block: GapBlock, variable: str = "CO") -> tuple[Block, Block]:
    """What a method learns from: the truth, and the same with its artificial gaps."""
    time = dates(block)
    known = np.isfinite(block.truth)
    seen = {variable: block.truth}
    truth = Block(seen, known, time, time)
    return truth, Block(seen, known & block.valid, time, time)


class Learner(Protocol):
    """What samples ask of a method."""

    def encode(self, block: Block) -> dict[str, NDArray[Any]]:
        """Arguments of the net."""

    def target(self, truth: Block, gapped: Block) -> dict[str, NDArray[Any]]:
        """`target` and `where`."""


@dataclass(frozen=True)
class BlockSamples:
    """Training samples, one a block of a folder, read when asked for.

    Examples
    --------
    >>> BlockSamples("training", STpconv())  # doctest: +SKIP
    """

    folder: str | Path
    method: Learner
    variable: str = "CO"
    negative: bool = False
    """True keeps negative values; see `read`."""

    @cached_property
    def names(self) -> list[str]:
        """Names of the blocks."""
        return names(self.folder)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        """Arguments of the net, `target` and `where` of a block."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index}: expected 0 to {len(self) - 1}.")
        block = read(self.folder, self.names[index], negative=self.negative)
        truth, gapped = to_blocks(block, self.variable)
        return self.method.encode(gapped) | self.method.target(truth, gapped)


# ------------------------------------------------------------------ files


def _open(path: Path) -> tuple[NDArray[Any], str, Any]:
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as file:
            crs = file.crs.to_wkt() if file.crs else ""
            return file.read(), crs, tuple(file.transform)[:6]
    except RasterioIOError as error:
        raise StoreError(f"{path} cannot be read ({error}): expected a GeoTIFF block.") from error


def _save(path: Path, a: NDArray[Any], block: GapBlock) -> Path:
    from affine import Affine

    floats = a.dtype.kind == "f"
    pixels = a.astype(np.float32 if floats else np.uint8)
    nodata = float(NODATA) if floats else 255
    write_cog(
        path, pixels, transform=Affine(*block.transform), crs=block.crs or None, nodata=nodata
    )
    return path
