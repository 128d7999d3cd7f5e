"""The cube that every recipe starts from, and what its filling has to give."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from odc.geo.xr import assign_crs

import cubefill
from cubefill.errors import CubefillWarning

BANDS = ("B02", "B03", "B04", "B08")
COMMON = ("blue", "green", "red", "nir")
DATES, ROWS, COLUMNS = 8, 24, 28
LEFT, TOP, STEP = 500_000.0, 5_600_000.0, 10.0
SHAPE = (DATES, ROWS, COLUMNS)
DIMS = ("time", "y", "x")


PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def recipe(title: str, *blocks: int, **given: Any) -> dict[str, Any]:
    """The names after the blocks of a recipe of the page, run with what the package gives."""
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    scope: dict[str, Any] = {"np": np, "xr": xr, **given}
    for i in blocks or (1,):
        exec(compile(found[i], f"recipes.md, {title}", "exec"), scope)
    return scope


def counts() -> dict[str, NDArray[np.uint16]]:
    """Reflectance in counts of 1e-4, from 1 on, with odd values under the clouds."""
    rng = np.random.default_rng(4)
    season = 1500 + 400 * np.sin(np.arange(DATES) / 2)[:, None, None]
    found = {}
    for i, name in enumerate(BANDS):
        values = season + 300 * i + rng.normal(0, 60, SHAPE)
        found[name] = np.where(clear(), values, 6000 + 10 * i).astype(np.uint16)
    return found


def classes() -> NDArray[np.uint8]:
    """SCL in squares of four pixels: vegetation, cloud on a third of them, no data in a corner."""
    rng = np.random.default_rng(5)
    blocks = np.where(rng.random((DATES, ROWS // 4, COLUMNS // 4)) < 0.3, 9, 4)
    found = blocks.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    found[3, :4, :4] = 0
    return found


def clear() -> NDArray[np.bool_]:
    return classes() == 4


def times() -> NDArray[np.datetime64]:
    return np.datetime64("2021-05-01T10:50:31", "ns") + np.arange(DATES) * np.timedelta64(5, "D")


def x_centres() -> NDArray[Any]:
    return LEFT + STEP * (np.arange(COLUMNS) + 0.5)


def y_centres() -> NDArray[Any]:
    return TOP - STEP * (np.arange(ROWS) + 0.5)


def clean() -> xr.Dataset:
    """Reflectance, SCL and dates as `cubefill.load` gives them."""
    bands = {n: (DIMS, c * np.float32(1e-4)) for n, c in counts().items()}
    coords = {"time": times(), "y": y_centres(), "x": x_centres()}
    return assign_crs(xr.Dataset({**bands, "SCL": (DIMS, classes())}, coords), "EPSG:32631")


def reflectance(dtype: Any = np.float32) -> NDArray[Any]:
    """`(time, band, y, x)`, computed in `dtype`."""
    scale = np.dtype(dtype).type(1e-4)
    return np.stack([c.astype(dtype) * scale for c in counts().values()], axis=1)


def masked() -> NDArray[np.float32]:
    """Reflectance `(time, band, y, x)`, NaN where it is not clear."""
    return np.where(clear()[:, None], reflectance(), np.float32("nan"))


@contextmanager
def said(*parts: str) -> Iterator[None]:
    """Fails unless cubefill warns of each of the parts, and of nothing else."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    own = [str(w.message) for w in caught if issubclass(w.category, CubefillWarning)]
    assert [p for p in parts if not any(p in text for text in own)] == [], own
    assert [text for text in own if not any(p in text for p in parts)] == []


def assert_right(
    out: xr.Dataset | xr.DataArray,
    folder: Path,
    *,
    valid: Any = None,
    bands: Sequence[str] = BANDS,
    crs: int | None = 32631,
) -> None:
    """The filled cube is that of the clean cube, clear values are as given, files lie right."""
    want = cubefill.gapfill(clean(), valid=valid).compute()
    if isinstance(out, xr.DataArray):
        out = cubefill.cube.conform(out)
    out = out.compute().sortby("time")
    seen = (want["fill_flag"] == 0).values
    assert 0.1 < seen.mean() < 0.9
    for i, name in enumerate(bands):
        got = out[name].transpose(*DIMS).values
        np.testing.assert_allclose(got, want[name].values, atol=1e-6)
        given = reflectance()[:, BANDS.index(name)] if name in BANDS else reflectance()[:, i]
        np.testing.assert_allclose(got[seen], given[seen], rtol=2.5e-7)
    stamps = out["time"].values.astype("datetime64[s]")
    np.testing.assert_array_equal(stamps, times().astype("datetime64[s]"))
    path = out.gapfill.to_geotiff(folder / "files", bands=list(bands))[2]
    with rasterio.open(path) as file:
        assert tuple(file.transform)[:6] == (STEP, 0, LEFT, 0, -STEP, TOP)
        assert (file.crs.to_epsg() if file.crs else None) == crs
        pixels = file.read(1, masked=True).astype(float).filled(np.nan) * 1e-4
        np.testing.assert_allclose(pixels, want[bands[0]].values[2], atol=6e-5)
