"""A cube lies where its pixels are, whatever tool wrote its coordinates and its CRS."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  what the advice for grids in degrees imports
import pandas as pd
import pyproj
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill import gapfill
from cubefill.cube import check, crs_of, settled, transform_of, unplaced
from cubefill.errors import CubeError, CubefillWarning
from tests.shared.strategies import cube

UTM = pyproj.CRS.from_epsg(32631)
Change = Callable[[xr.Dataset], xr.Dataset]


def epsg(ds: xr.Dataset) -> Any:
    crs = crs_of(ds)
    return crs and crs.epsg


def grid(ds: xr.Dataset) -> tuple[float, ...]:
    found = transform_of(ds)
    assert found is not None
    return found


def bare() -> xr.Dataset:
    """A cube that names no CRS anywhere."""
    return cube().drop_vars("spatial_ref")


def listed(value: Any) -> Any:
    made = np.empty((), object)
    made[()] = value
    return made


class Spec:
    """What stackstac keeps beside its pixels."""

    epsg = 32631
    transform = Affine(10, 0, 499_995, 0, -10, 5_600_005)


def _cf() -> dict[str, Any]:
    return {k: v for k, v in UTM.to_cf().items() if k != "crs_wkt"}


PLACES: dict[str, Change] = {
    "epsg": lambda d: d.assign_coords(epsg=32631),
    "epsg as a number with fraction": lambda d: d.assign_coords(epsg=32631.0),
    "epsg as text": lambda d: d.assign_coords(epsg="32631"),
    "proj:epsg of each date": lambda d: d.assign_coords(
        {"proj:epsg": ("time", np.full(d.sizes["time"], 32631))}
    ),
    "proj:code": lambda d: d.assign_coords({"proj:code": "EPSG:32631"}),
    "proj:wkt2": lambda d: d.assign_coords({"proj:wkt2": UTM.to_wkt()}),
    "proj:projjson": lambda d: d.assign_coords({"proj:projjson": listed(UTM.to_json_dict())}),
    "attrs crs": lambda d: d.assign_attrs(crs="epsg:32631"),
    "attrs crs of old rasterio": lambda d: d.assign_attrs(crs="+init=epsg:32631"),
    "attrs crs as an object": lambda d: d.assign_attrs(crs=UTM),
    "attrs crs_wkt": lambda d: d.assign_attrs(crs_wkt=UTM.to_wkt()),
    "attrs epsg": lambda d: d.assign_attrs(epsg=32631),
    "attrs spec": lambda d: d.assign_attrs(spec=Spec()),
    "attrs of a band": lambda d: d.assign(B04=d.B04.assign_attrs(crs="EPSG:32631")),
    "attrs of an axis": lambda d: d.assign_coords(x=d.x.assign_attrs(crs="EPSG:32631")),
    "rioxarray": lambda d: d.rio.write_crs(32631),
    "rioxarray, other name": lambda d: d.rio.write_crs(32631, grid_mapping_name="where"),
    "odc": lambda d: d.odc.assign_crs("EPSG:32631"),
    "variable of bytes": lambda d: d.assign(
        crs=xr.DataArray(b"", attrs={"crs_wkt": UTM.to_wkt()}),
        B04=d.B04.assign_attrs(grid_mapping="crs"),
    ),
    "variable of one number": lambda d: d.assign(
        projection=("n", [0], {"spatial_ref": UTM.to_wkt()})
    ),
    "variable of CF alone": lambda d: d.assign(tm=xr.DataArray(0, attrs=_cf())),
    "grid_mapping of all": lambda d: d.assign_attrs(grid_mapping="here").assign_coords(
        here=((), 0, {"crs_wkt": UTM.to_wkt()})
    ),
}


@pytest.mark.parametrize("change", PLACES.values(), ids=PLACES)
def test_a_crs_is_found_wherever_tools_write_it(change: Change) -> None:
    ds = change(bare())
    assert epsg(ds) == 32631
    out = settled(ds)
    assert pyproj.CRS.from_wkt(out["spatial_ref"].attrs["crs_wkt"]).to_epsg() == 32631
    assert out["B04"].encoding["grid_mapping"] == "spatial_ref"
    assert "grid_mapping" not in out["B04"].attrs
    assert settled(out) is out
    filled = gapfill(ds, "linear")
    assert filled.odc.crs.epsg == 32631
    assert filled.rio.crs.to_epsg() == 32631


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d,
        lambda d: d.assign_attrs(crs="the one of the map", epsg=None),
        lambda d: d.assign_coords({"proj:epsg": ("time", [32631, 32632, *[32631] * 5])}),
        lambda d: d.assign_coords(epsg=np.nan),
        lambda d: d.assign_coords(epsg=-1).assign(crs=xr.DataArray(b"")),
    ],
)
def test_what_names_no_crs_is_said_and_the_advice_places_it(change: Change) -> None:
    ds = change(bare())
    assert crs_of(ds) is None
    with pytest.warns(CubefillWarning, match=r"names no CRS, so it has none.*assign_attrs") as said:
        unplaced(ds, "it")
    typed = str(said[0].message).split("ds = ")[1].split(" with")[0]
    unplaced(eval(typed, {"ds": ds}), "it")


# ------------------------------------------------------------------ corners and centres


def as_text(t: Affine) -> str:
    return " ".join(map(repr, t.to_gdal()))


FORMS: dict[str, Callable[[xr.Dataset, Affine], xr.Dataset]] = {
    "affine": lambda d, t: d.assign_attrs(transform=t),
    "six": lambda d, t: d.assign_attrs(transform=tuple(t)[:6]),
    "list": lambda d, t: d.assign_attrs(transform=list(t)),
    "bands": lambda d, t: d.assign(B04=d.B04.assign_attrs(transform=t)),
    "spec": lambda d, t: d.assign_attrs(spec=type("Spec", (), {"transform": t})()),
    "gdal": lambda d, t: d.assign_coords(
        spatial_ref=d.spatial_ref.assign_attrs(GeoTransform=as_text(t))
    ),
    "stac": lambda d, t: d.assign_coords({"proj:transform": listed(list(t)[:6]), "epsg": 32631}),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_corners_become_centres_and_centres_stay(data: st.DataObject) -> None:
    """Any pixel size, north up or south up, cut, turned round, of one pixel, in float32 or 64."""
    step = data.draw(st.sampled_from([10.0, 20.0, 60.0, 0.5, 30.0]))
    north = data.draw(st.sampled_from([-1, 1]))
    left = data.draw(st.integers(1, 80_000)) * step
    top = data.draw(st.integers(1, 80_000)) * step
    place = Affine(step, 0, left, 0, north * step, top)
    corner = data.draw(st.booleans())
    at = 0.0 if corner else 0.5
    ds = cube(dates=2, size=(6, 7))
    dtype = data.draw(st.sampled_from([np.float32, np.float64])) if step >= 10 else np.float64
    x = (left + step * (np.arange(7) + at)).astype(dtype)
    y = (top + north * step * (np.arange(6) + at)).astype(dtype)
    form = data.draw(st.sampled_from(sorted(FORMS)))
    ds = FORMS[form](ds.assign_coords(x=x, y=y), place)
    truth = xr.Dataset(
        coords={
            "x": left + step * (np.arange(7) + 0.5),
            "y": top + north * step * (np.arange(6) + 0.5),
        }
    )
    cut = {
        d: data.draw(st.sampled_from([slice(None), slice(2, 5), slice(None, None, -1), [3]]))
        for d in ("x", "y")
    }
    ds, truth = ds.isel(cut), truth.isel(cut)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        out = settled(ds)
        assert settled(out) is out
    assert len([w for w in said if "corners of pixels" in str(w.message)]) == corner
    np.testing.assert_allclose(out.x, truth.x, atol=step * 0.06)
    np.testing.assert_allclose(out.y, truth.y, atol=step * 0.06)
    dx, _, west, _, dy, north_edge = grid(out)
    assert abs(dx) == pytest.approx(step, rel=1e-3)
    assert abs(dy) == pytest.approx(step, rel=1e-3)
    assert (west + dx / 2, north_edge + dy / 2) == (float(out.x[0]), float(out.y[0]))


def test_sentle_says_it_on_the_axes_and_cubo_by_its_attributes() -> None:
    ds = cube()
    sentle = ds.assign_coords(
        {
            d: (d, v.astype(np.float32), {"coord_save_mode": "top-left"})
            for d, v in (("x", ds.x.values - 5), ("y", ds.y.values + 5))
        }
    )
    with pytest.warns(CubefillWarning, match="as coord_save_mode says"):
        out = settled(sentle)
    xr.testing.assert_equal(out, ds)
    assert settled(out) is out
    said = {"central_lat": 50.5, "central_lon": 3.0, "edge_size": 12, "resolution": 10}
    with pytest.warns(CubefillWarning, match="of cubo says: moved to the centres, x by"):
        out = settled(ds.assign_attrs(said))
    assert float(out.x[0] - ds.x[0]) == 5
    assert float(out.y[0] - ds.y[0]) == -5
    assert settled(ds.assign_attrs(said, stac="https://earthengine-stac/catalog.json")).x[0] == 5e5


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.isel(x=slice(None, None, 2), y=slice(None, None, 2)),
        lambda d: d.coarsen(x=2, y=2).mean(),
        lambda d: d.assign_coords(x=d.x + 2.5),
    ],
)
def test_what_nobody_can_tell_is_said_and_the_advice_ends_it(change: Change) -> None:
    ds = cube().assign_attrs(transform=Spec.transform)
    ds = change(ds[["B04", "B08"]])
    with pytest.warns(CubefillWarning, match="corners from centres: taken as centres") as said:
        out = settled(ds)
    np.testing.assert_array_equal(out.x, ds.x)
    text = str(said[0].message)
    moved = text.split("Use ds = ")[1].split(" if they")[0]
    scope: dict[str, Any] = {"ds": ds}
    scope["ds"] = eval(moved, scope)
    exec(text.split("`")[1], scope)
    assert float(settled(scope["ds"]).x[0] - ds.x[0]) == 5


def test_a_transform_that_is_turned_or_no_transform_says_nothing() -> None:
    for said in (Affine.rotation(30), (0, 0, 0, 0, 0, 0), "none", None, 5, [1, 2]):
        ds = cube().assign_attrs(transform=said)
        assert settled(ds) is ds


def test_a_mask_with_the_cubes_own_coordinates_still_fits() -> None:
    ds = cube()
    given = ds.drop_vars("valid").assign_attrs(transform=Affine(10, 0, 500_000, 0, -10, 5_600_000))
    days = pd.DatetimeIndex(ds.time.values, tz="UTC")
    given, mask = given.assign_coords(time=days), ds["valid"].assign_coords(time=days)
    with pytest.warns(CubefillWarning, match="corners of pixels"):
        moved = settled(ds.assign_attrs(given.attrs))
    for valid in (mask, mask.assign_coords(x=mask.x + 1e-6), moved["valid"], mask.values):
        with pytest.warns(CubefillWarning, match="corners of pixels"):
            out = gapfill(given, "linear", valid=valid)
        np.testing.assert_array_equal(out.x, ds.x + 5)
        np.testing.assert_array_equal(out["B04"], gapfill(ds, "linear")["B04"])


def test_one_pixel_takes_its_size_from_what_is_said() -> None:
    one = cube().isel(x=[0], y=[0])
    assert grid(one)[::4] == (10, -10)
    assert grid(one.assign_attrs(resolution=60))[::4] == (60, -60)
    assert grid(one.assign_attrs(transform=Affine(20, 0, 0, 0, 20, 0)))[::4] == (20, 20)
    assert grid(cube().isel(x=[0]))[::4] == (10, -10)
    assert transform_of(cube().isel(x=0)) is None


# ------------------------------------------------------------------ grids that are refused


UNEVEN: dict[str, tuple[Change, str]] = {
    "hole": (lambda d: d.isel(x=[0, 1, 2, 6, 7, 8]), r"x has steps of 10 to 40, the widest after"),
    "hole, falling": (lambda d: d.isel(y=[0, 1, 2, 6, 7]), r"y has steps of 10 to 40"),
    "uneven": (lambda d: d.assign_coords(x=d.x + np.arange(10) ** 2 / 3), r"x has steps of"),
    "out of order": (lambda d: d.isel(x=[1, 0, 2, 3]), r"x is out of order"),
    "twice": (lambda d: d.isel(y=[0, 0, 1, 2]), r"y holds the same place twice"),
    "no number": (
        lambda d: d.assign_coords(x=np.where(np.arange(10) == 3, np.nan, d.x)).isel(x=slice(4)),
        r"x holds no number at positions \[3\]",
    ),
    "text": (lambda d: d.assign_coords(x=d.x.astype(str)), r"x has dtype <U.*expected numbers"),
}


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_uneven_grid_is_refused_and_the_advice_mends_it(name: str, lazy: bool) -> None:
    change, message = UNEVEN[name]
    ds = change(cube().chunk() if lazy else cube())
    with pytest.raises(CubeError, match=message) as refused:
        gapfill(ds, "linear")
    typed = str(refused.value).split("Use ")[1].removesuffix(".").split(" to have")[0]
    mended = eval(typed, {"ds": ds, "numpy": np})
    assert mended["valid"].dtype == bool
    assert check(settled(mended)) is mended
    filled = gapfill(mended, "linear").compute()
    assert set(ds.x.values.astype(float)[:3]) <= set(filled.x.values) or name == "uneven"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.sampled_from([10.0, -10.0]), st.booleans())
def test_even_grids_of_any_type_pass(dtype: Any, step: float, long: bool) -> None:
    size = 11_000 if long else 5
    x = (5_600_005 + step * np.arange(size)).astype(dtype)
    ds = xr.Dataset(coords={"x": x, "y": [1.0]})
    assert settled(ds) is ds


# ------------------------------------------------------------------ degrees


def degrees(y: str, x: str) -> xr.Dataset:
    ds = bare().rename(y=y, x=x)
    lat, lon = 50 - 1e-4 * np.arange(ds.sizes[y]), 3 + 1e-4 * np.arange(ds.sizes[x])
    return ds.assign_coords({y: lat, x: lon})


@pytest.mark.parametrize(("y", "x"), [("lat", "lon"), ("latitude", "longitude"), ("y", "x")])
@pytest.mark.parametrize("code", [None, 4258])
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_degrees_are_refused_and_the_advice_puts_them_on_metres(
    y: str, x: str, code: int | None
) -> None:
    ds = degrees(y, x) if code is None else degrees(y, x).assign_coords(epsg=code)
    with pytest.raises(CubeError, match=r"in degrees.*projected CRS in metres") as refused:
        gapfill(ds, "linear")
    typed = str(refused.value).split("`")[1]
    assert f"EPSG:{code or 4326}" in typed
    scope = {"ds": ds}
    exec(typed, scope)
    out = gapfill(scope["ds"], "linear").compute()
    assert grid(out)[::4] == (10, -10)
    assert epsg(out) == 32631
    assert np.isfinite(out["B04"].values).any()


def test_a_minicube_is_told_its_reader() -> None:
    ds = degrees("lat", "lon").rename(B04="s2_B04", B08="s2_B8A")
    with pytest.raises(CubeError, match=r"Use cubefill\.formats\.earthnet\.read\(path\).*minicube"):
        gapfill(ds, "linear")
