"""A STAC API and a file server on loopback, for the demo's catalogue."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from cubefill import stac
from cubefill.errors import CubefillError

PATIENCE = 30.0
"""Seconds that the API may take to answer."""


@contextmanager
def serving(catalogue: Path) -> Iterator[str]:
    """The URL of a STAC API whose items point to files over HTTP, while the context lasts.

    Raises
    ------
    CubefillError
        rustac or rangehttpserver is not installed, or the API does not answer.
    """
    with _files(catalogue) as files, tempfile.TemporaryDirectory() as folder:
        items = stac.search(catalogue).to_dict()
        for feature in items["features"]:
            for asset in feature["assets"].values():
                asset["href"] = f"{files}/{Path(asset['href']).relative_to(catalogue.absolute())}"
            feature["links"] = []
        listed = Path(folder) / "items.json"
        listed.write_text(json.dumps(items))
        with _api(listed) as url:
            yield url


@contextmanager
def _files(root: Path) -> Iterator[str]:
    try:
        from RangeHTTPServer import RangeRequestHandler
    except ImportError as error:
        raise _absent("rangehttpserver") from error

    class Silent(RangeRequestHandler):  # type: ignore[misc]
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _api(items: Path) -> Iterator[str]:
    program = shutil.which("rustac", path=str(Path(sys.executable).parent)) or shutil.which(
        "rustac"
    )
    if program is None:
        raise _absent("rustac")
    address = f"127.0.0.1:{_free_port()}"
    command = [program, "serve", "-a", address, "--create-collections", str(items)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://{address}", process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise CubefillError(f"{url} does not answer: expected rustac to serve it. Leave --serve away.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _absent(package: str) -> CubefillError:
    return CubefillError(
        f"Serving the catalogue needs {package}, which is not installed. "
        f"Use pip install {package}, or leave --serve away."
    )
