import http.server
import pickle
import threading
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from scipy import ndimage

from cubefill.errors import ReadError
from cubefill.stac import reading as stac_read
from cubefill.stac.grid import fit, grid_of
from cubefill.stac.reading import Asset, ReadOptions, layer, read_mosaic, read_one
from tests.shared.stac_cases import reply, server

CRS = "EPSG:32631"
NEAREST = ReadOptions(resampling="nearest")


def grid(ny: int, nx: int, step: float = 10, x: float = 500_000, y: float = 5_600_000) -> GeoBox:
    return grid_of(CRS, (step, 0.0, x, 0.0, -step, y), (ny, nx))


def write(path: Path, values: np.ndarray, where: GeoBox, **options: Any) -> str:
    profile = {"driver": "GTiff", "count": 1, "nodata": 0, "crs": str(where.crs), **options}
    with rasterio.open(
        path, "w", dtype=values.dtype, height=where.shape[0], width=where.shape[1],
        transform=where.affine, **profile,
    ) as file:  # fmt: skip
        file.write(values, 1)
    return str(path)


def source(href: str, **options: Any) -> Asset:
    return Asset(href, "S2A_1", "red", "B04", "2021-05-01T10:50:31", **options)


def counts(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 9000, shape).astype(np.uint16)
    values[2:4, 3:6] = 0
    return values


def test_own_grid_is_copied_exactly(tmp_path: Path) -> None:
    dn = counts((30, 40))
    href = write(tmp_path / "a.tif", dn, grid(30, 40))
    got = read_one(source(href, counts=-1000, scale=1e-4), grid(30, 40), ReadOptions())
    want = (dn.astype(np.float32) - np.float32(1000)) * np.float32(1e-4)
    np.testing.assert_array_equal(got, np.where(dn == 0, np.nan, want))
    assert got.dtype == np.float32
    assert np.nanmin(got) < 0


@pytest.mark.parametrize(("row", "col"), [(5, 7), (-6, -3), (20, 30), (-40, 0), (0, 90)])
def test_a_shifted_grid_is_a_slice(tmp_path: Path, row: int, col: int) -> None:
    dn = counts((30, 40))
    href = write(tmp_path / "a.tif", dn, grid(30, 40))
    moved = grid(30, 40, x=500_000 + 10 * col, y=5_600_000 - 10 * row)
    want = np.full((30, 40), np.nan, np.float32)
    for i in range(30):
        for j in range(40):
            if 0 <= i + row < 30 and 0 <= j + col < 40 and dn[i + row, j + col]:
                want[i, j] = dn[i + row, j + col]
    np.testing.assert_array_equal(read_one(source(href), moved, ReadOptions()), want)


def test_both_nodata_values_are_absent(tmp_path: Path) -> None:
    dn = counts((30, 40))
    dn[10, 10] = 65535
    href = write(tmp_path / "a.tif", dn, grid(30, 40), nodata=65535)
    got = read_one(source(href, nodata=(0.0,)), grid(30, 40), ReadOptions())
    np.testing.assert_array_equal(np.isnan(got), (dn == 0) | (dn == 65535))


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("step", [20.0, 5.0, 60.0])
def test_resampling_equals_gdal(tmp_path: Path, how: str, step: float) -> None:
    dn = counts((36, 48)).astype(np.float32)
    dn[dn == 0] = np.nan
    mine = grid(36, 48, 20)
    href = write(tmp_path / "a.tif", dn, mine, nodata=np.nan)
    target = grid(int(720 / step) - 3, int(960 / step) - 2, step, 500_020, 5_599_980)
    got = read_one(source(href), target, ReadOptions(resampling=how))
    np.testing.assert_array_equal(got, gdal(dn, mine, target, how))


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_another_crs_equals_gdal(tmp_path: Path) -> None:
    dn = counts((60, 60)).astype(np.float32)
    mine = grid_of("EPSG:32632", (10.0, 0.0, 75_000.0, 0.0, -10.0, 5_610_000.0), (60, 60))
    href = write(tmp_path / "a.tif", dn, mine, nodata=None)
    w, s, e, n = rasterio.warp.transform_bounds("EPSG:32632", CRS, *mine.boundingbox)
    target = grid(40, 40, 10, (w + e) / 2 - 200, (s + n) / 2 + 200)
    got = read_one(source(href), target, NEAREST)
    want = gdal(dn, mine, target, "nearest")
    assert np.isfinite(got).mean() > 0.9
    assert (got != want)[np.isfinite(want)].mean() < 0.01


def gdal(values: np.ndarray, mine: GeoBox, target: GeoBox, how: str) -> np.ndarray:
    out = np.full(target.shape, np.nan, np.float32)
    scale = str(mine.affine.a / target.affine.a)
    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan}
        size = {"height": mine.shape[0], "width": mine.shape[1]}
        with memory.open(**profile, **size, crs=str(mine.crs), transform=mine.affine) as f:
            f.write(values, 1)
        with memory.open() as f, rasterio.vrt.WarpedVRT(
            f, crs=str(target.crs), transform=target.affine, height=target.shape[0],
            width=target.shape[1], resampling=Resampling[how], src_nodata=np.nan, nodata=np.nan,
            XSCALE=scale, YSCALE=scale,
        ) as warped:  # fmt: skip
            warped.read(1, out=out)
    return out


def test_bilinear_is_the_textbook_formula(tmp_path: Path) -> None:
    dn = np.random.default_rng(1).integers(1, 9000, (12, 14)).astype(np.uint16)
    href = write(tmp_path / "a.tif", dn, grid(12, 14, 20))
    got = read_one(source(href), grid(24, 28), ReadOptions())
    rows, cols = np.meshgrid(np.arange(24) / 2 - 0.25, np.arange(28) / 2 - 0.25, indexing="ij")
    want = ndimage.map_coordinates(dn.astype(np.float64), [rows, cols], order=1, mode="nearest")
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_array_equal(
        read_one(source(href), grid(24, 28), NEAREST), np.repeat(np.repeat(dn, 2, 0), 2, 1)
    )


def test_absent_pixels_do_not_spread(tmp_path: Path) -> None:
    dn = np.full((10, 10), 5000, np.uint16)
    dn[:, 5:] = 0
    href = write(tmp_path / "a.tif", dn, grid(10, 10, 20))
    got = read_one(source(href), grid(20, 20, 10), ReadOptions())
    np.testing.assert_array_equal(got[:, :10], 5000)
    assert np.isnan(got[:, 10:]).all()


@settings(deadline=None, max_examples=8)
@given(st.integers(9, 50), st.sampled_from(["nearest", "bilinear", "average", "cubic"]))
def test_the_answer_does_not_depend_on_chunks(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, how: str
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    near = source(write(folder / "a.tif", counts((24, 23)), grid(24, 23, 20)))
    native = source(write(folder / "b.tif", counts((48, 46), 1), grid(48, 46)))
    coarse = source(write(folder / "c.tif", counts((90, 92), 2), grid(90, 92, 5)))
    target = grid(45, 44)
    steps = [[near], [native], [coarse, near], []]
    whole = np.stack([read_mosaic(s, target, ReadOptions(resampling=how)) for s in steps])
    lazy = layer(
        f"t{chunk}{how}{folder}", steps, target, (chunk, chunk), ReadOptions(resampling=how)
    )
    assert lazy.chunks[1][0] == min(chunk, 45)
    got = lazy.compute(scheduler="sync")
    same = ["nearest", "bilinear"]
    np.testing.assert_allclose(got, whole, rtol=0 if how in same else 1e-6)


def test_the_halo_is_read_and_cropped(tmp_path: Path) -> None:
    href = write(tmp_path / "a.tif", counts((48, 46)), grid(48, 46))
    target = grid(48, 46)
    padded = layer("halo", [[source(href)]], target, (20, 20), ReadOptions(), halo=3)
    assert padded.chunks[1:] == ((23, 26, 11), (23, 26, 9))
    same = stac_read.crop(padded, (48, 46), (20, 20), 3, lambda a: a, np.float32)
    np.testing.assert_array_equal(same[0].compute(), read_one(source(href), target, ReadOptions()))


def test_each_item_has_its_own_offset_in_a_mosaic(tmp_path: Path) -> None:
    west = np.full((10, 10), 2000, np.uint16)
    east = np.full((10, 10), 3000, np.uint16)
    west[:, 8:] = 0
    sources = [
        source(write(tmp_path / "w.tif", west, grid(10, 10))),
        source(write(tmp_path / "e.tif", east, grid(10, 10, x=500_050)), counts=-1000),
    ]
    got = read_mosaic(sources, grid(10, 15), ReadOptions())
    np.testing.assert_array_equal(got, 2000)
    sources[1] = source(sources[1].href, counts=-500)
    got = read_mosaic(sources, grid(10, 15), ReadOptions())
    np.testing.assert_array_equal(got[0], [2000] * 8 + [2500] * 7)


def test_overviews_serve_coarse_grids(tmp_path: Path) -> None:
    dn = np.repeat(np.repeat(counts((16, 16)), 8, 0), 8, 1)
    href = write(tmp_path / "a.tif", dn, grid(128, 128), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(href, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.nearest)
    got = read_one(source(href), grid(16, 16, 80), NEAREST)
    want = counts((16, 16)).astype(np.float32)
    np.testing.assert_array_equal(got, np.where(want == 0, np.nan, want))


def test_decibel() -> None:
    power = np.array([1, 100, 0, -1, np.nan, 0.01], np.float32)
    np.testing.assert_allclose(stac_read.decibel(power), [0, 20, np.nan, np.nan, np.nan, -20])


def test_a_vrt_cannot_name_another_file(tmp_path: Path) -> None:
    href = write(tmp_path / "secret.tif", counts((10, 10)), grid(10, 10))
    with rasterio.open(href) as file:
        vrt = f"""<VRTDataset rasterXSize="10" rasterYSize="10"><SRS>{CRS}</SRS>
        <GeoTransform>500000,10,0,5600000,0,-10</GeoTransform>
        <VRTRasterBand dataType="{file.dtypes[0]}" band="1"><SimpleSource>
        <SourceFilename>{href}</SourceFilename><SourceBand>1</SourceBand>
        </SimpleSource></VRTRasterBand></VRTDataset>"""
    disguised = tmp_path / "innocent.tif"
    disguised.write_text(vrt)
    with pytest.raises(ReadError, match=r"innocent\.tif"):
        read_one(source(str(disguised)), grid(10, 10), ReadOptions())


def test_fit_of_grids() -> None:
    assert fit(grid(10, 10), grid(10, 10, x=600_000)) is None
    same = fit(grid(10, 10), grid(5, 5, x=500_020, y=5_599_980))
    assert same is not None
    assert same.exact
    assert same.source == (slice(2, 7), slice(2, 7))
    half = fit(grid(10, 10), grid(5, 5, x=500_005))
    assert half is not None
    assert not half.exact
    coarse = fit(grid(12, 12), grid(2, 2, 60))
    assert coarse is not None
    assert coarse.shrink == 6
    south_up = grid_of(CRS, (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_599_900.0), (10, 10))
    assert fit(south_up, grid(10, 10)) is not None


# ------------------------------------------------------------------ what can go wrong


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"asset 'red' \(B04\) of item S2A_1 of 2021-05-01") as e:
        read_one(source(str(tmp_path / "no.tif")), grid(5, 5), ReadOptions())
    assert "on_error='flag'" in str(e.value)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    href = Path(write(tmp_path / "a.tif", counts((300, 300)), grid(300, 300), compress="deflate"))
    data = href.read_bytes()
    href.write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match="S2A_1"):
        read_one(source(str(href)), grid(300, 300), ReadOptions())


def test_flagged_reads_are_missing_where_nothing_else_is(tmp_path: Path) -> None:
    good = write(tmp_path / "a.tif", counts((10, 10)), grid(10, 10))
    bad = source(str(tmp_path / "no.tif"), grid=grid(10, 10, x=500_050))
    got = read_mosaic([bad, source(good)], grid(10, 20), ReadOptions(on_error="flag"))
    missing = np.isposinf(got)
    np.testing.assert_array_equal(missing[:, 10:15], True)
    np.testing.assert_array_equal(missing[:, 15:], False)
    seen = counts((10, 10)) > 0
    np.testing.assert_array_equal(missing[:, :10], ~seen & (np.arange(10) >= 5))
    absent = read_mosaic([source("")], grid(4, 4), ReadOptions(on_error="flag"))
    assert np.isposinf(absent).all()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.02")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "3")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_recovers_gives_exact_values(tmp_path: Path, status: int) -> None:
    dn = counts((300, 300))
    write(tmp_path / "b.tif", dn, grid(300, 300), compress="deflate")
    lock, asked = threading.Lock(), [0]

    def busy(handler: http.server.BaseHTTPRequestHandler) -> bool:
        with lock:
            asked[0] += 1
            refuse = asked[0] % 3 != 0
        if refuse:
            reply(handler, status)
        return refuse

    with server(tmp_path, busy) as url:
        got = read_one(source(f"{url}/b.tif"), grid(300, 300), ReadOptions())
    np.testing.assert_array_equal(got, np.where(dn == 0, np.nan, dn))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("status", "words"),
    [(503, "after 3 retries: the server answers HTTP 503"), (404, "HTTP 404"), (403, "HTTP 403")],
)
def test_a_server_that_fails_is_an_error(tmp_path: Path, status: int, words: str) -> None:
    def fail(handler: http.server.BaseHTTPRequestHandler) -> bool:
        reply(handler, status)
        return True

    with server(tmp_path, fail) as url:
        one = source(f"{url}/b.tif?sig=SECRET&se=2030")
        with pytest.raises(ReadError) as caught:
            read_one(one, grid(5, 5), ReadOptions())
        flagged = read_mosaic([one], grid(5, 5), ReadOptions(on_error="flag"))
    text = str(caught.value)
    assert "asset 'red' (B04) of item S2A_1 of 2021-05-01T10:50:31" in text
    assert words in text
    assert "SECRET" not in text
    assert np.isposinf(flagged).all()


@pytest.mark.usefixtures("quick")
def test_a_login_page_is_named(tmp_path: Path) -> None:
    def page(handler: http.server.BaseHTTPRequestHandler) -> bool:
        reply(handler, 200, b"<html>log in</html>", {"Content-Type": "text/html"})
        return True

    with server(tmp_path, page) as url, pytest.raises(ReadError, match="text/html"):
        read_one(source(f"{url}/b.tif"), grid(5, 5), ReadOptions())


class Signer:
    """Signs as a token service does: each signature serves for one time only."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, href: str) -> str:
        self.count += 1
        return f"{href}?sig={self.count}"


@pytest.mark.usefixtures("quick")
def test_urls_are_signed_when_they_are_read(tmp_path: Path) -> None:
    dn = counts((10, 10))
    write(tmp_path / "b.tif", dn, grid(10, 10))
    sign = Signer()

    def expired(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if "sig=1" in handler.path or "sig" not in handler.path:
            reply(handler, 403)
            return True
        return False

    with server(tmp_path, expired) as url:
        lazy = layer(
            "signed", [[source(f"{url}/b.tif")]], grid(10, 10), (10, 10), ReadOptions(sign=sign)
        )
        assert sign.count == 0
        with dask.config.set(scheduler="sync"):
            got = lazy.compute()[0]
    assert sign.count == 2
    np.testing.assert_array_equal(got, np.where(dn == 0, np.nan, dn))


def test_settings_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with stac_read.gdal_env():
        assert str(rasterio.env.getenv()["GDAL_HTTP_TIMEOUT"]) == "7"
        assert str(rasterio.env.getenv()["GDAL_HTTP_CONNECTTIMEOUT"]) == "10"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [403, 404, 503])
def test_the_same_process_can_go_on_after_an_outage(tmp_path: Path, status: int) -> None:
    write(tmp_path / "b.tif", counts((10, 10)), grid(10, 10))
    down = [True]

    def outage(handler: http.server.BaseHTTPRequestHandler) -> bool:
        if down[0]:
            reply(handler, status)
        return down[0]

    with server(tmp_path, outage) as url:
        one = source(f"{url}/b.tif")
        with pytest.raises(ReadError, match=f"HTTP {status}"):
            read_one(one, grid(10, 10), ReadOptions())
        down[0] = False
        assert np.isfinite(read_one(one, grid(10, 10), ReadOptions())).any()
