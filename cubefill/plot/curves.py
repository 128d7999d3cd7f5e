"""NDVI through time at a pixel or in a polygon: what was observed beside what was filled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.indices import ndvi, ndvi_std
from cubefill.errors import CubeError
from cubefill.plot.pixels import align, clear_of, decimate, named

MOSTLY = 0.5
"""Clear share of a polygon from which a date counts as observed."""


# ------------------------------------------------------------------ places


@dataclass(frozen=True)
class Location:
    """A pixel or the pixels inside a polygon."""

    y: slice
    x: slice
    inside: NDArray[np.bool_]
    """(y, x) within the slices."""
    label: str


def location(ds: xr.Dataset, point: Any = None) -> Location:
    """A pixel `(x, y)`, a polygon `[(x, y), ...]` or its GeoJSON; None picks a typical pixel.

    Raises
    ------
    CubeError
        The point or polygon lies outside the cube, or is neither.
    """
    if point is None:
        return pixel(ds, *representative_pixel(ds))
    corners = _corners(point)
    if len(corners) == 1:
        x, y = corners[0]
        _require_inside(ds, x, y)
        at = [int(np.abs(ds[d].values - v).argmin()) for d, v in (("y", y), ("x", x))]
        return pixel(ds, *at)
    return _polygon(ds, corners)


def pixel(ds: xr.Dataset, iy: int, ix: int) -> Location:
    """The place that is one pixel, by row and column."""
    label = f"x {float(ds['x'][ix]):.0f}, y {float(ds['y'][iy]):.0f}"
    return Location(slice(iy, iy + 1), slice(ix, ix + 1), np.ones((1, 1), bool), label)


def representative_pixel(ds: xr.Dataset) -> tuple[int, int]:
    """Row and column of the pixel with the most gaps, the least seen quarter left aside.

    A pixel that was hardly ever seen says nothing about filling.
    """
    small = decimate(ds, 64)
    count = clear_of(small).sum("time").transpose("y", "x").values
    seen = count[count > 0]
    fewest = np.quantile(seen, 0.25) if seen.size else 0
    order = np.where(count >= max(fewest, 1), count, np.iinfo(np.int64).max)
    iy, ix = np.unravel_index(int(order.argmin()), count.shape)
    return full_index(ds, small, int(iy), int(ix))


def full_index(ds: xr.Dataset, small: xr.Dataset, iy: int, ix: int) -> tuple[int, int]:
    """Row and column in `ds` of a pixel of its decimated form."""
    at = [
        int(np.abs(ds[d].values - small[d].values[i]).argmin()) for d, i in (("y", iy), ("x", ix))
    ]
    return at[0], at[1]


def _corners(point: Any) -> NDArray[np.float64]:
    shape = getattr(point, "__geo_interface__", point)
    if isinstance(shape, dict):
        shape = shape.get("geometry", shape)
        nested = shape.get("coordinates", ())
        shape = nested[0] if shape.get("type") == "Polygon" else nested
    try:
        corners = np.atleast_2d(np.asarray(shape, float))
    except (TypeError, ValueError):
        corners = np.empty((0, 0))
    if corners.ndim != 2 or corners.shape[1] < 2 or corners.shape[0] == 2 or not corners.size:
        raise CubeError(
            f"point={point!r}: expected (x, y) in the CRS of the cube, or three or more corners "
            "of a polygon. Pass point=(x, y)."
        )
    return corners[:, :2]


def _require_inside(ds: xr.Dataset, x: float, y: float) -> None:
    bounds = {}
    for d, v in (("x", x), ("y", y)):
        values = ds[d].values
        half = abs(values[1] - values[0]) / 2 if values.size > 1 else 0.5
        bounds[d] = (float(values.min() - half), float(values.max() + half))
        if not bounds[d][0] <= v <= bounds[d][1]:
            lo, hi = bounds[d]
            raise CubeError(
                f"point=({x:g}, {y:g}) lies outside the cube: expected {d} from {lo:.10g} to "
                f"{hi:.10g} in its CRS. Pass point=({float(ds['x'].mean()):.10g}, "
                f"{float(ds['y'].mean()):.10g}) for the middle."
            )


def _polygon(ds: xr.Dataset, corners: NDArray[np.float64]) -> Location:
    """Pixels whose centre is inside, by the even-odd rule."""
    spans = []
    for d, column in (("y", 1), ("x", 0)):
        values = ds[d].values
        lo, hi = corners[:, column].min(), corners[:, column].max()
        at = np.flatnonzero((values >= lo) & (values <= hi))
        spans.append(slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0))
    y, x = np.meshgrid(ds["y"].values[spans[0]], ds["x"].values[spans[1]], indexing="ij")
    inside = np.zeros(y.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    if not inside.any():
        raise CubeError(
            f"The polygon holds no pixel centre of the cube: expected corners within x "
            f"{float(ds['x'].min()):.10g} to {float(ds['x'].max()):.10g}, y "
            f"{float(ds['y'].min()):.10g} to {float(ds['y'].max()):.10g}, in its CRS. "
            "Pass point=(x, y) for one pixel."
        )
    return Location(spans[0], spans[1], inside, f"mean of {int(inside.sum())} pixels")


# ------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Curve:
    """NDVI of one place."""

    label: str
    """Where it is."""
    time: NDArray[np.datetime64]
    """Acquisitions."""
    observed: NDArray[np.float64]
    """NDVI on `time` where clear, else NaN."""
    cloudy: NDArray[np.float64]
    """NDVI on `time` where not clear, as it came, else NaN."""
    out_time: NDArray[np.datetime64]
    """Dates of the filled cube; empty without one."""
    filled: NDArray[np.float64]
    """NDVI on `out_time`."""
    std: NDArray[np.float64] | None
    """Standard deviation of the error of `filled`, 0 where observed; None where unknown."""


def curve(cube: xr.Dataset | None, out: xr.Dataset | None, where: Location) -> Curve:
    """NDVI of `where` in a cube, in its filled form, or in both; reads these pixels alone.

    Without `cube`, the observed dates are those that `out.fill_flag` calls observed.
    """
    full = cube if cube is not None else out
    if full is None:
        raise CubeError("A curve needs a cube or its filled form: got neither. Use ndvi(ds).")
    seen = full.isel(y=where.y, x=where.x).sortby("time")
    small = xr.Dataset({"ndvi": ndvi_of(seen), "clear": clear_of(seen)}).compute()
    value = small["ndvi"].transpose("time", "y", "x").values.astype(float)
    clear = small["clear"].transpose("time", "y", "x").values & where.inside
    enough = clear.sum((1, 2)) >= max(1, MOSTLY * where.inside.sum())
    observed = np.where(enough, _mean(value, clear), np.nan)
    rest = _mean(value, np.broadcast_to(where.inside, value.shape))
    cloudy = np.where(enough | (cube is None), np.nan, rest)
    out_time, filled, std = _filled(out, seen, where)
    time = seen["time"].values
    return Curve(where.label, time, observed, cloudy, out_time, filled, std)


def _filled(
    out: xr.Dataset | None, seen: xr.Dataset, where: Location
) -> tuple[NDArray[np.datetime64], NDArray[np.float64], NDArray[np.float64] | None]:
    empty = np.empty(0)
    if out is None:
        return np.empty(0, "datetime64[ns]"), empty, None
    part = align(out.sortby("time"), seen)
    if part is None:
        raise CubeError(
            "The filled cube lacks the pixels of this place: expected it to cover the cube that "
            "it was filled from. Use ndvi(out, point) for the filled cube alone."
        )
    std = _std(part)
    both = xr.Dataset({"ndvi": ndvi_of(part), **({} if std is None else {"std": std})}).compute()
    inside = np.broadcast_to(where.inside, both["ndvi"].transpose("time", "y", "x").shape)
    value = _mean(both["ndvi"].transpose("time", "y", "x").values.astype(float), inside)
    if std is None:
        return part["time"].values, value, None
    spread = both["std"].transpose("time", "y", "x").fillna(0).values.astype(float)
    return part["time"].values, value, np.where(np.isnan(value), np.nan, _mean(spread, inside))


def ndvi_of(ds: xr.Dataset) -> xr.DataArray:
    """`NDVI` of the dataset, or made from its bands; B8A stands in for a missing B08."""
    if "NDVI" in ds:
        return ds["NDVI"]
    nir, red = _nir_red(ds)
    return ndvi(ds, nir=nir, red=red)


def _std(ds: xr.Dataset) -> xr.DataArray | None:
    if "NDVI_std" in ds:
        return ds["NDVI_std"]
    if "B04_std" not in ds or not {"B08_std", "B8A_std"} & set(map(str, ds.data_vars)):
        return None
    return ndvi_std(ds, *_nir_red(ds))


def _nir_red(ds: xr.Dataset) -> tuple[str, str]:
    wide = "B08" in ds or "B08_smooth" in ds
    nir, red = named(ds, ("B08" if wide else "B8A", "B04"))
    return nir, red


def _mean(value: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over y and x of the finite values at `where`, NaN where there is none."""
    use = where & np.isfinite(value)
    count = use.sum((1, 2))
    total = np.where(use, value, 0).sum((1, 2))
    mean: NDArray[np.float64] = np.full(count.shape, np.nan)
    return np.divide(total, count, out=mean, where=count > 0)
