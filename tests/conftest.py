"""Shared fixtures: the folder of real data, and no network but loopback."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real satellite data, `CUBEFILL_DATA` or `../shared/data`."""
    folder = Path(os.environ.get("CUBEFILL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data absent: no folder {folder}; set CUBEFILL_DATA")
    return folder


@pytest.fixture(scope="session")
def reference_folder(data_folder: Path) -> Path:
    """Folder of the originals' outputs and weights, beside the real data."""
    folder = data_folder.parent / "reference"
    if not (folder / "parity").is_dir():
        pytest.skip(f"parity fixtures absent: no folder {folder / 'parity'}")
    return folder


@pytest.fixture(autouse=True)
def no_scheduler_of_a_closed_client() -> None:
    """Clients that close in another order than they opened leave dask one that is gone."""
    if "distributed" not in sys.modules:
        return
    import dask
    from distributed.client import _get_global_client

    if dask.config.get("scheduler", None) == "dask.distributed" and _get_global_client() is None:
        dask.config.set(scheduler=None)


@pytest.fixture(scope="module")
def cluster_client() -> Iterator[Any]:
    """A client of a cluster: one worker with two threads in this process, on TCP.

    Its threads draw random numbers, which hypothesis objects to: it ends with the module.
    """
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address=":0",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def process_client() -> Iterator[Any]:
    """A client of a cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        yield client


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise RuntimeError(f"a test tried to reach {host}: only loopback is allowed")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
