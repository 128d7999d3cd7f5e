import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import xarray as xr
import zarr
from odc.geo.geom import Geometry

from cubefill import stac
from cubefill.cube import valid
from cubefill.errors import CatalogueError, ReadError
from cubefill.stac import reading
from cubefill.stac.area import outline, quiet
from tests.shared.stac_cases import BANDS, cube, item, reply, server

DRIVER = "cubefill.stac.Driver"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stac.write_catalogue(cube(), tmp_path_factory.mktemp("catalogue"), quirk="duplicates")


@pytest.fixture
def items(folder: Path) -> stac.Items:
    return stac.search(folder)


def tile(dates: int) -> list[pystac.Item]:
    """Items of a whole tile, every fifth day."""
    out = []
    start = np.datetime64("2021-01-01T10:50:31")
    for n in range(dates):
        when = str(start + np.timedelta64(5 * n, "D")) + "Z"
        one = item(f"S2A_31UDS_{n}", time=when, keys=("blue", "green", "red", "nir", "scl"))
        with_proj = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
        one.stac_extensions = [with_proj]
        for key, asset in one.assets.items():
            step = 20 if key == "scl" else 10
            asset.media_type = "image/tiff"
            asset.extra_fields["proj:shape"] = [109_800 // step] * 2
            asset.extra_fields["proj:transform"] = [step, 0, 399_960, 0, -step, 5_600_040]
        out.append(one)
    return out


# ------------------------------------------------------------------ the driver in odc.stac.load


def test_the_driver_gives_odc_stac_the_same_values(items: stac.Items) -> None:
    want = stac.load(items, bands=BANDS, resolution=20, chunks=16)
    with quiet():
        got = odc.stac.load(
            [i for i in items if i.id in " ".join(want.attrs["items"])],
            bands=[*BANDS, "SCL"],
            like=want,
            groupby="solar_day",
            resampling="bilinear",
            chunks={"x": 16, "y": 16},
            driver=DRIVER,
        ).compute()
    np.testing.assert_array_equal(got["time"], want["time"])
    for name in (*BANDS, "SCL"):
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        assert got[name].dtype == want[name].dtype


def test_offsets_of_one_day_are_taken_off_before_the_mosaic(items: stac.Items) -> None:
    with quiet():
        ds = odc.stac.load(
            items, bands=["B04"], groupby=lambda item, parsed, index: 0, driver=DRIVER,
            fuse_func="tests.stac.test_driver.lowest",
        )  # fmt: skip
    want = cube()["B04"].min("time")
    np.testing.assert_array_equal(ds["B04"][0], want)


def lowest(out: np.ndarray, values: np.ndarray) -> None:
    np.fmin(out, values, out=out)


def test_a_failed_read_in_odc_stac_is_named_or_left_out(items: stac.Items) -> None:
    items[0].assets["red"].href = "/nowhere/gone.tif"
    with quiet(), pytest.raises(ReadError, match=f"'red'.*of item {items[0].id}"):
        odc.stac.load(items, bands=["B04"], groupby="id", driver=DRIVER)
    with quiet():
        ds = odc.stac.load(items, bands=["B04"], groupby="id", driver=DRIVER, fail_on_error=False)
    assert bool(ds["B04"][0].isnull().all())
    assert bool(ds["B04"][1].notnull().any())


def test_tasks_of_other_offsets_have_other_names(items: stac.Items) -> None:
    with quiet():
        one, two = (
            odc.stac.load(
                items, bands=["B04"], chunks={}, driver=stac.Driver(harmonize=h), groupby="id"
            )
            for h in (True, False)
        )
    assert set(one["B04"].data.dask).isdisjoint(
        k for k in two["B04"].data.dask if str(k[0] if isinstance(k, tuple) else k)[:4] == "open"
    )


# ------------------------------------------------------------------ what that route cannot hold


def test_a_year_of_a_tile_is_planned_in_a_second() -> None:
    given = tile(73)
    stac.load(given[:2])
    start = time.process_time()
    ds = stac.load(given)
    assert time.process_time() - start < 1.0
    assert ds["B04"].data.numblocks == (73, 11, 11)


@pytest.mark.xfail(strict=True, reason="odc-loader makes a task a chunk when the load is planned")
def test_odc_stac_alone_plans_a_year_of_a_tile_in_a_second() -> None:
    given = tile(12)
    start = time.process_time()
    with quiet():
        odc.stac.load(
            given, bands=["blue", "green", "red", "nir", "scl"], groupby="solar_day",
            chunks={"x": 1024, "y": 1024}, driver=DRIVER,
        )  # fmt: skip
    assert time.process_time() - start < 12 / 73


class Counter:
    """Counts the windows of assets that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bands: list[str] = []
        plain = reading.read_one

        def count(asset: Any, *args: Any) -> Any:
            self.bands.append(asset.band)
            return plain(asset, *args)

        monkeypatch.setattr(reading, "read_one", count)


def test_scl_and_valid_of_a_chunk_are_one_read(
    items: stac.Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = stac.load(items, bands=("B04",), chunks=16)
    part = ds[["SCL", "valid"]].isel(time=0, y=slice(16, 32), x=slice(16, 32))
    seen = Counter(monkeypatch)
    part.compute(scheduler="sync")
    assert seen.bands == ["SCL"]


@pytest.mark.xfail(strict=True, reason="odc-loader reads a chunk without what lies around it")
def test_odc_stac_alone_reads_scl_and_valid_once(
    items: stac.Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet():
        scl = odc.stac.load(
            items, bands=["SCL"], groupby="id", chunks={"x": 16, "y": 16}, driver=DRIVER
        )["SCL"]
    both = xr.Dataset({"SCL": scl, "valid": valid.from_scl(scl)})
    part = both.isel(time=0, y=slice(16, 32), x=slice(16, 32))
    seen = Counter(monkeypatch)
    part.compute(scheduler="sync")
    assert seen.bands == ["SCL"]


@pytest.mark.xfail(strict=True, reason="odc-stac passes over an asset that an item lacks")
def test_odc_stac_alone_names_an_absent_asset(items: stac.Items) -> None:
    del items[1].assets["red"]
    with quiet(), pytest.raises((ReadError, CatalogueError)):
        odc.stac.load(items, bands=["B04"], groupby="id", driver=DRIVER)


# ------------------------------------------------------------------ odc-stac's names in load


def test_a_grid_like_that_of_another_cube(items: stac.Items) -> None:
    whole = stac.load(items, bands=("B04",))
    part = whole.isel(y=slice(5, 25), x=slice(8, 31))
    xr.testing.assert_equal(stac.load(items, bands=("B04",), like=part), part)
    xr.testing.assert_equal(stac.load(items, bands=("B04",), like=part["B04"]), part)
    with quiet():
        xr.testing.assert_equal(stac.load(items, bands=("B04",), like=part.odc.geobox), part)


def test_a_polygon_in_the_crs_of_the_grid(items: stac.Items) -> None:
    whole = stac.load(items, bands=("B04",))
    part = whole.isel(y=slice(5, 25), x=slice(8, 31))
    with quiet():
        polygon = part.odc.geobox.pad(-1).extent
        degrees = Geometry(outline(part.odc.geobox.pad(-1)).shape, "EPSG:4326")
    got = stac.load(items, bands=("B04",), geopolygon=polygon)
    assert 0 < got.sizes["x"] < whole.sizes["x"]
    xr.testing.assert_equal(got, stac.load(items, bands=("B04",), geometry=degrees))
    xr.testing.assert_equal(got, whole.sel(y=got["y"], x=got["x"]))


@pytest.mark.parametrize(
    ("groupby", "dates"), [("solar_day", 5), ("time", 5), ("id", 5), ("platform", 1)]
)
def test_groups_of_items(items: stac.Items, groupby: str, dates: int) -> None:
    ds = stac.load(items, bands=("B04",), groupby=groupby)
    assert ds.sizes["time"] == dates
    np.testing.assert_array_equal(ds["valid"], valid.from_scl(ds["SCL"]))


def test_the_order_given_may_decide_what_counts(items: stac.Items) -> None:
    kept = stac.load(items, bands=("B04",))
    order = [i for t in (3, 1, 0, 2, 4) for i in items if i.id == kept.attrs["items"][t]]
    ds = stac.load(order, bands=("B04",), groupby="platform", preserve_original_order=True)
    want = kept["B04"].isel(time=[3, 1, 0, 2, 4]).bfill("time")[0]
    np.testing.assert_array_equal(ds["B04"][0], want)


def test_chunks_as_odc_stac_takes_them(items: stac.Items) -> None:
    want = stac.load(items, bands=("B04",))
    ds = stac.load(items, bands=("B04",), chunks={"y": 16, "x": -1})
    assert ds["B04"].data.chunks == ((1,) * 5, (16, 16, 8), (50,))
    xr.testing.assert_identical(ds.compute(), want.compute())
    now = stac.load(items, bands=("B04",), chunks=None)
    assert not any(hasattr(v.data, "dask") for v in now.variables.values())
    xr.testing.assert_identical(now, want.compute())
    with pytest.raises(CatalogueError, match=r"one time step a chunk.*\.chunk\(time="):
        stac.load(items, bands=("B04",), chunks={"time": 5})


def test_patch_url_is_called_at_every_read(items: stac.Items) -> None:
    asked: list[str] = []

    def patch(href: str) -> str:
        asked.append(href)
        return href

    ds = stac.load(items, bands=("B04",), patch_url=patch)
    assert not asked
    ds["B04"].compute(scheduler="sync")
    assert len(asked) == 5


# ------------------------------------------------------------------ Zarr


def eopf(
    root: Path, href: str, *, version: Any = 2, says: str = "zarr", bands: Sequence[str] = BANDS
) -> list[pystac.Item]:
    """The cube as items whose assets are Zarr arrays, one product a date, and write them."""
    ds = cube()
    out = []
    for t, when in enumerate(ds["time"].values):
        name = f"S2A_MSIL2A_T31UDS_{t}"
        one = item(name, time=f"{str(when)[:19]}Z", keys=(), **{"s2:processing_baseline": "05.11"})
        one.bbox, one.geometry = None, None
        with quiet():
            one.geometry = outline(ds.odc.geobox).shape.__geo_interface__
        group = zarr.open_group(root / f"{name}.zarr", mode="w", zarr_format=version)
        for band in (*bands, "SCL"):
            values = ds[band].values[t]
            if band != "SCL":
                counts = np.rint(values.astype(np.float64) * 1e4) + 1000
                values = np.where(np.isnan(values), 0, counts).astype(np.uint16)
            step = {"B8A": 20, "SCL": 20}.get(band, 10)
            path = f"measurements/r{step}m/{band.lower()}"
            array = group.create_array(path, data=values, chunks=(16, 16))
            array.attrs["proj:epsg"] = 32631
            array.attrs["proj:transform"] = [10, 0, 500_000, 0, -10, 5_600_000]
            extra: dict[str, Any] = {"gsd": step}
            if band != "SCL" and says == "zarr":
                array.attrs["_eopf_attrs"] = {"scale_factor": 1e-4, "add_offset": -0.1}
                array.attrs["_FillValue"] = 0
            if says == "stac":
                extra["proj:shape"] = list(values.shape)
                extra["proj:transform"] = array.attrs["proj:transform"]
                extra |= {"raster:scale": 1e-4, "raster:offset": -0.1} if band != "SCL" else {}
            kind = "application/vnd+zarr"
            asset = pystac.Asset(f"{href}/{name}.zarr/{path}", None, None, kind, None, extra)
            one.add_asset(f"{band}_{step}m", asset)
        out.append(one)
    return out


@pytest.mark.parametrize("says", ["zarr", "stac"])
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_assets_come_through_the_same_door(tmp_path: Path, version: int, says: str) -> None:
    items = eopf(tmp_path, str(tmp_path), version=version, says=says)
    with quiet():
        ds = stac.load(items, bands=BANDS, geobox=cube().odc.geobox, chunks=16)
    for name in BANDS:
        np.testing.assert_allclose(ds[name], cube()[name], atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(ds["SCL"], cube()["SCL"])
    np.testing.assert_array_equal(ds["valid"], valid.from_scl(cube()["SCL"]))
    rule = {"zarr": "from the metadata of the file", "stac": "-1000 counts (band metadata)"}
    assert ds.attrs["offset_items"] == f"5 items: {rule[says]}"


def test_zarr_and_geotiff_of_one_catalogue(tmp_path: Path, folder: Path) -> None:
    late = eopf(tmp_path, str(tmp_path), says="stac")[3:]
    early = [i for i in stac.search(folder) if str(i.datetime) < "2021-05-15"]
    ds = stac.load([*early, *late], bands=("B02", "B04"))
    for name in ("B02", "B04"):
        np.testing.assert_allclose(ds[name], cube()[name], atol=1e-7, err_msg=name)


def test_zarr_over_http_with_signatures(tmp_path: Path) -> None:
    items = eopf(tmp_path, "")

    def unsigned(handler: Any) -> bool:
        if "sig=1" not in handler.path:
            reply(handler, 403)
            return True
        return False

    with server(tmp_path, unsigned) as url:
        for asset in (a for i in items for a in i.assets.values()):
            asset.href = url + asset.href
        with quiet():
            box = cube().odc.geobox
        ds = stac.load(items, bands=("B04",), geobox=box, sign=lambda h: f"{h}?sig=1")
        np.testing.assert_allclose(ds["B04"], cube()["B04"], atol=1e-7)
        with pytest.raises(ReadError, match=r"'B04_10m' \(B04\) of item S2A_MSIL2A_T31UDS_\d.*403"):
            stac.load(items, bands=("B04",), geobox=box)["B04"].compute()


def test_a_zarr_asset_that_cannot_be_read(tmp_path: Path) -> None:
    items = eopf(tmp_path, str(tmp_path), says="stac")
    chunk = tmp_path / "S2A_MSIL2A_T31UDS_1.zarr/measurements/r10m/b04"
    (chunk / "0.0").write_bytes(b"broken")
    items[2].assets["B04_10m"].href += "_absent"
    ds = stac.load(items, bands=("B04",))
    for t in (1, 2):
        with pytest.raises(ReadError, match=rf"'B04_10m' \(B04\) of item S2A_MSIL2A_T31UDS_{t}"):
            ds["B04"][t].compute()
    flagged = stac.load(items, bands=("B04",), on_error="flag").compute()
    assert flagged["source_missing"].any(("y", "x")).values.tolist() == [0, 1, 1, 0, 0]
