"""An asset that is a Zarr array, seen as a raster file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cubefill.stac.grid import Grid
from cubefill.store.source import place


@dataclass(frozen=True)
class ZarrFile:
    """A two-dimensional Zarr array with the members of a raster file that reading asks for."""

    array: Any
    grid: Grid

    @classmethod
    def opened(cls, href: str, grid: Grid | None) -> "ZarrFile":
        """The array at an address; its grid from STAC, else from its own attributes.

        Raises
        ------
        ValueError
            It has no grid, or is not two-dimensional.
        """
        import zarr

        array = zarr.open_array(place(href), mode="r")
        if array.ndim != 2:
            raise ValueError(f"the Zarr array has {array.ndim} dimensions: expected y and x")
        said = array.attrs
        if grid is None:
            code = said.get("proj:code") or f"EPSG:{said.get('proj:epsg')}"
            if "proj:transform" not in said or code == "EPSG:None":
                raise ValueError("neither STAC nor the Zarr array has proj:transform and proj:code")
            a, b, c, d, e, f = (float(v) for v in said["proj:transform"][:6])
            grid = Grid(code, (a, b, c, d, e, f), array.shape)
        if grid.shape != array.shape:
            raise ValueError(f"the Zarr array has shape {array.shape}: STAC says {grid.shape}")
        return cls(array, grid)

    @property
    def _said(self) -> dict[str, Any]:
        return {**self.array.attrs.get("_eopf_attrs", {}), **self.array.attrs}

    @property
    def scaling(self) -> dict[str, float]:
        """Scale and counts to add as the attributes of the array give them."""
        scale = float(self._said.get("scale_factor", 1.0))
        offset = float(self._said.get("add_offset", 0.0))
        return {"scale": scale, "counts": round(offset / scale, 3)}

    @property
    def nodata(self) -> float | None:
        """The value that stands for no data."""
        said = (self._said.get(k) for k in ("_FillValue", "fill_value"))
        return next((float(v) for v in said if isinstance(v, int | float)), None)

    def read(self, band: int, window: Any) -> Any:
        """Counts of a window."""
        return np.asarray(self.array[window.toslices()])
