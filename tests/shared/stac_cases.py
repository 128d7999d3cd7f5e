"""Small cubes, items and servers that the tests of the STAC modules share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import xarray as xr
from odc.geo.xr import assign_crs

BANDS = ("B02", "B04", "B8A")


def cube(
    ny: int = 40, nx: int = 50, dates: int = 5, crs: str = "EPSG:32631", sar: bool = False
) -> xr.Dataset:
    """Reflectance of whole counts above 0, some NaN, classes in blobs."""
    rng = np.random.default_rng(7)
    time = np.datetime64("2021-05-01T10:50:31", "ns") + np.arange(dates) * np.timedelta64(5, "D")
    coords = {
        "time": time,
        "y": 5_600_000.0 - 10 * np.arange(ny) - 5,
        "x": 500_000.0 + 10 * np.arange(nx) + 5,
    }
    dims = ("time", "y", "x")
    shape = (dates, ny, nx)
    absent = rng.random(shape) < 0.03
    absent[:, 0, :5] = True
    ds = xr.Dataset(coords=coords)
    for name in BANDS:
        counts = rng.integers(1, 6000, shape).astype(np.float32)
        counts[absent] = np.nan
        ds[name] = (dims, counts * np.float32(1e-4))
    scl = np.full(shape, 4, np.uint8)
    for _ in range(12):
        t, y, x = (rng.integers(0, n) for n in shape)
        c = rng.choice([3, 8, 9, 10, 11])
        scl[t, y : y + 4, x : x + 5] = c
    scl[absent] = 0
    ds["SCL"] = (dims, scl)
    if sar:
        ds["VV"] = (dims, rng.normal(-10, 3, shape).astype(np.float32))
        ds["VH"] = (dims, rng.normal(-17, 3, shape).astype(np.float32))
        ds["DEM"] = (("y", "x"), rng.uniform(0, 300, (ny, nx)).astype(np.float32))
        gap = np.linspace(1, 30, dates).astype(np.float32)
        ds = ds.assign_coords(sar_gap_hours=("time", gap))
    return assign_crs(ds, crs)


def item(
    name: str = "S2A_31UDS_20210501_0_L2A",
    *,
    time: Any = "2021-05-01T10:50:31Z",
    collection: Any = "sentinel-2-l2a",
    keys: Any = ("blue", "red", "nir08", "scl"),
    asset: Any = None,
    box: Any = (3.0, 50.0, 3.1, 50.1),
    **properties: Any,
) -> pystac.Item:
    w, s, e, n = box
    ring = [[w, s], [e, s], [e, n], [w, n], [w, s]]
    doc = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "links": [],
        "properties": {"datetime": time, "proj:code": "EPSG:32631", **properties},
        "assets": {k: {"href": f"/data/{name}/{k}.tif", **(asset or {})} for k in keys},
    }
    return pystac.Item.from_dict(doc)


Answer = Callable[[BaseHTTPRequestHandler], bool]


@contextmanager
def server(root: Path, answer: Answer | None = None) -> Iterator[str]:
    """Files over HTTP with ranges; `answer` may reply itself and return True."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            if not (answer and answer(self)):
                reply(self, 405)

        def do_GET(self) -> None:
            if answer and answer(self):
                return
            path = root / self.path.split("?")[0].lstrip("/")
            if not path.is_file():
                reply(self, 404)
                return
            data = path.read_bytes()
            wanted = self.headers.get("Range", "")
            if not wanted.startswith("bytes="):
                reply(self, 200, data)
                return
            a, _, b = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(a), min(int(b or len(data)), len(data) - 1)
            where = {"Content-Range": f"bytes {start}-{stop}/{len(data)}"}
            reply(self, 206, data[start : stop + 1], where)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def reply(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
