"""An asset that is a Zarr array, seen as a raster file."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cubefill.stac.grid import grid_of
from cubefill.store.source import place

RETRIES = 4
"""Attempts after the first for a request to a server, with back-off."""


@dataclass(frozen=True)
class ZarrFile:
    """A two-dimensional Zarr array with the members of a raster file that reading asks for."""

    array: Any
    grid: Any

    @classmethod
    def opened(cls, href: str, grid: Any | None) -> "ZarrFile":
        """The array at an address; its grid from STAC, else from its own attributes.

        Raises
        ------
        ValueError
            It has no grid, or is not two-dimensional.
        """
        import zarr

        web = urlsplit(href).scheme in ("http", "https")
        array: Any = zarr.open_array(_web(href) if web else place(href), mode="r")
        if array.ndim != 2:
            raise ValueError(f"the Zarr array has {array.ndim} dimensions: expected y and x")
        said = array.attrs
        if grid is None:
            code = said.get("proj:code") or f"EPSG:{said.get('proj:epsg')}"
            if "proj:transform" not in said or code == "EPSG:None":
                raise ValueError("neither STAC nor the Zarr array has proj:transform and proj:code")
            grid = grid_of(code, said["proj:transform"], array.shape)
        if grid.shape != array.shape:
            raise ValueError(
                f"the Zarr array has shape {array.shape}: STAC says {tuple(grid.shape)}"
            )
        return cls(array, grid)

    @property
    def scaling(self) -> tuple[float, float]:
        """Scale and counts to add as the attributes of the array give them."""
        scale = float(self._said.get("scale_factor", 1.0))
        offset = float(self._said.get("add_offset", 0.0))
        return scale, round(offset / scale, 3)

    @property
    def nodata(self) -> float | None:
        """The value that stands for no data."""
        said = (self._said.get(k) for k in ("_FillValue", "fill_value"))
        return next((float(v) for v in said if isinstance(v, int | float)), None)

    @property
    def _said(self) -> dict[str, Any]:
        return {**self.array.attrs.get("_eopf_attrs", {}), **self.array.attrs}

    def read(self, band: int, window: Any) -> Any:
        """Counts of a window."""
        return np.asarray(self.array[window.toslices()])


def _web(href: str) -> Any:
    """A Zarr store over HTTP: signed addresses keep their query, failed requests are repeated."""
    import requests
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from fsspec.spec import AbstractFileSystem
    from urllib3.util.retry import Retry
    from zarr.storage import FsspecStore

    root, _, query = href.partition("?")
    session = requests.Session()
    retry = Retry(RETRIES, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    session.mount(root, requests.adapters.HTTPAdapter(max_retries=retry))

    class Web(AbstractFileSystem):  # type: ignore[misc]
        cachable = False

        def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            wanted = {} if start is None else {"Range": f"bytes={start}-{(end or 0) - 1}"}
            answer = session.get(path, params=query, headers=wanted, timeout=120)
            if answer.status_code == 404:
                raise FileNotFoundError(path)
            answer.raise_for_status()
            return answer.content

    return FsspecStore(AsyncFileSystemWrapper(Web(), asynchronous=True), path=root, read_only=True)
