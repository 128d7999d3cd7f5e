"""The accessor `ds.gapfill`: every method is one call of a plain function."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

import cubefill

if TYPE_CHECKING:
    from cubefill.engine import Plan
    from cubefill.reports import Report


class PlotAccessor:
    """`ds.gapfill.plot`: pictures of a cube, see `cubefill.plot`."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def rgb(self, time: Any = None, **options: Any) -> Any:
        """One date in true colour, see `cubefill.plot.rgb`."""
        return cubefill.plot.rgb(self._ds, time, **options)

    def compare(self, time: Any = None, **options: Any) -> Any:
        """Before, after and flag of one date, see `cubefill.plot.compare`."""
        return cubefill.plot.compare(self._ds, time, **options)

    def ndvi(self, point: Any = None, **options: Any) -> Any:
        """NDVI over time at a place, see `cubefill.plot.ndvi`."""
        return cubefill.plot.ndvi(self._ds, point, **options)

    def animate(self, path: str | Path, **options: Any) -> Path:
        """A GIF of all dates, see `cubefill.plot.animate`."""
        return cubefill.plot.animate(self._ds, path, **options)


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
        return cubefill.gapfill(self._ds, method, **options)

    def plan(self, method: Any = "auto", **options: Any) -> "Plan":
        """What a fill will read, hold and write; see `cubefill.plan`."""
        return cubefill.plan(self._ds, method, **options)

    def ndvi(self, **options: Any) -> xr.DataArray:
        """NDVI of the cube; see `cubefill.ndvi`."""
        return cubefill.ndvi(self._ds, **options)

    def with_ndvi(self, **options: Any) -> xr.Dataset:
        """The cube with NDVI and its flag; see `cubefill.with_ndvi`."""
        return cubefill.with_ndvi(self._ds, **options)

    def report(self, **options: Any) -> "Report":
        """A report with pictures, shares and held-out errors; see `cubefill.report`."""
        return cubefill.report(self._ds, **options)

    def to_geotiff(self, folder: str | Path, **options: Any) -> list[Path]:
        """One cloud-optimised GeoTIFF per date; see `cubefill.to_geotiff`."""
        return cubefill.to_geotiff(self._ds, folder, **options)

    @property
    def plot(self) -> PlotAccessor:
        """Pictures of the cube."""
        return PlotAccessor(self._ds)

    def __repr__(self) -> str:
        return f"<gapfill: {cubefill.cube.describe(self._ds)}>"

    def _repr_html_(self) -> str:
        return cubefill.reports.summary_html(self._ds)
