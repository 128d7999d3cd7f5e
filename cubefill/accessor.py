"""The accessor `ds.gapfill`: every method is one call of a plain function."""

from pathlib import Path
from typing import Any

import xarray as xr

from cubefill import cube, engine, plot, reports
from cubefill.cube import indices
from cubefill.engine import planning
from cubefill.formats import geotiff as store_geotiff


class PlotAccessor:
    """`ds.gapfill.plot`: pictures of a cube, see `cubefill.plot`."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def rgb(self, time: Any = None, **options: Any) -> Any:
        """One date in true colour, see `cubefill.plot.rgb`."""
        return plot.rgb(self._ds, time, **options)

    def compare(self, time: Any = None, **options: Any) -> Any:
        """Before, after and flag of one date, see `cubefill.plot.compare`."""
        return plot.compare(self._ds, time, **options)

    def ndvi(self, point: Any = None, **options: Any) -> Any:
        """NDVI over time at a place, see `cubefill.plot.ndvi`."""
        return plot.ndvi(self._ds, point, **options)

    def animate(self, path: str | Path, **options: Any) -> Path:
        """A GIF of all dates, see `cubefill.plot.animate`."""
        return plot.animate(self._ds, path, **options)


@xr.register_dataset_accessor("gapfill")
class GapfillAccessor:
    """`ds.gapfill(...)` fills the gaps of a cube; its methods plan, show and export.

    Examples
    --------
    >>> import cubefill
    >>> from cubefill.testing import synthetic_cube
    >>> out = synthetic_cube().gapfill("linear")
    >>> out.gapfill.ndvi().dims
    ('time', 'y', 'x')
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __call__(self, method: Any = "auto", **options: Any) -> xr.Dataset:
        """The filled cube, lazy; see `cubefill.gapfill`."""
        return engine.gapfill(self._ds, method, **options)

    def plan(self, method: Any = "auto", **options: Any) -> planning.Plan:
        """What a fill will read, hold and write; see `cubefill.plan`."""
        return planning.plan(self._ds, method, **options)

    def ndvi(self, **options: Any) -> xr.DataArray:
        """NDVI of the cube; see `cubefill.ndvi`."""
        return indices.ndvi(self._ds, **options)

    def with_ndvi(self, **options: Any) -> xr.Dataset:
        """The cube with NDVI and its flag; see `cubefill.with_ndvi`."""
        return indices.with_ndvi(self._ds, **options)

    def report(self, **options: Any) -> reports.Report:
        """A report with pictures, shares and held-out errors; see `cubefill.report`."""
        return reports.report(self._ds, **options)

    def to_geotiff(self, folder: str | Path, **options: Any) -> list[Path]:
        """One cloud-optimised GeoTIFF per date; see `cubefill.to_geotiff`."""
        return store_geotiff.to_geotiff(self._ds, folder, **options)

    @property
    def plot(self) -> PlotAccessor:
        """Pictures of the cube."""
        return PlotAccessor(self._ds)

    def __repr__(self) -> str:
        return f"<gapfill: {cube.describe(self._ds)}>"

    def _repr_html_(self) -> str:
        return reports.summary_html(self._ds)
