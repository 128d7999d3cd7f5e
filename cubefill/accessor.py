"""The accessors `ds.gapfill` and `da.gapfill`: every method is one call of a plain function."""

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

    def shares(self) -> dict[str, float]:
        """What filled how much of the gaps; see `cubefill.cube.fill_shares`."""
        return cubefill.cube.fill_shares(self._ds)

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


@xr.register_dataarray_accessor("gapfill")
class GapfillArrayAccessor:
    """`da.gapfill(...)` fills an array on time, y, x and perhaps a dimension of bands.

    The coordinate of that dimension names the bands (`B04`, `red`); a layer among them, such as
    SCL, says what is clear and comes back as it is. An array without the dimension is one index or
    band, and `valid=` says where it is clear.

    Examples
    --------
    >>> import cubefill
    >>> from cubefill.testing import synthetic_cube
    >>> da = synthetic_cube()[["B04", "B08", "SCL"]].to_array("band")
    >>> out = da.gapfill("linear")
    >>> out.dims, out.band.values.tolist(), out.fill_flag.dims
    (('band', 'time', 'y', 'x'), ['B04', 'B08', 'SCL'], ('time', 'y', 'x'))
    """

    def __init__(self, da: xr.DataArray) -> None:
        self._da = da

    def __call__(self, method: Any = "auto", *, valid: Any = None, **options: Any) -> xr.DataArray:
        """The filled array, lazy, in float32 with the same dimensions.

        `fill_flag` on time, y and x is a coordinate, and with `std=True` so is `fill_std` on the
        dimensions of the array, as are `fill_q05` and its like with `quantiles=`. A callable as
        `valid` is given the array. With other dates (`times=`) bands that are not filled are left
        out. See `cubefill.gapfill`.
        """
        out = cubefill.gapfill(self._cube(), method, valid=self._valid(valid), **options)
        return cubefill.cube.conforming.as_array(out, self._da)

    def plan(self, method: Any = "auto", *, valid: Any = None, **options: Any) -> "Plan":
        """What a fill will read, hold and write; see `cubefill.plan`."""
        return cubefill.plan(self._cube(), method, valid=self._valid(valid), **options)

    def ndvi(self, **options: Any) -> xr.DataArray:
        """NDVI of the array on time, y and x; see `cubefill.ndvi`."""
        return cubefill.ndvi(self._cube(), **options)

    def _cube(self) -> xr.Dataset:
        return cubefill.cube.conforming.in_own_names(cubefill.cube.conforming.from_array(self._da))

    def _valid(self, valid: Any) -> Any:
        names = cubefill.cube.conforming.foreign_names(
            cubefill.cube.conforming.from_array(self._da)
        )
        valid = valid(self._da) if callable(valid) else valid
        return cubefill.cube.conforming.mask_in_own_names(valid, self._da, names)

    def __repr__(self) -> str:
        return f"<gapfill: {cubefill.cube.describe(self._cube())}>"
