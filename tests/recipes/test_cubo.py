"""cubo: an array (time, band, y, x) of float64 counts at pixel corners, the CRS in attrs["epsg"].

The package needs stackstac and with it pandas below 3, so the project does not install it. Where it
is, the real function runs on local items in place of a search.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.errors import CubeError
from tests.recipes.clean_cube import (
    BANDS,
    STEP,
    assert_right,
    classes,
    counts,
    recipe,
    said,
    times,
    x_centres,
    y_centres,
)


def by_hand() -> xr.DataArray:
    values = np.stack([*counts().values(), classes()], axis=1).astype(np.float64)
    values[values == 0] = np.nan
    ids = [f"S2A_MSIL2A_{str(t)[:10]}" for t in times()]
    x, y = x_centres(), y_centres()
    away = np.hypot(x - x.mean(), (y - y.mean())[:, None])
    return xr.DataArray(
        values,
        {
            "time": times(),
            "id": ("time", ids),
            "band": [*BANDS, "SCL"],
            "x": x - STEP / 2,
            "y": y + STEP / 2,
            "epsg": 32631,
            "cubo:distance_from_center": (("y", "x"), away),
        },
        ("time", "band", "y", "x"),
        name="sentinel-2-l2a",
        attrs={
            "collection": "sentinel-2-l2a",
            "stac": "https://planetarycomputer.microsoft.com/api/stac/v1",
            "epsg": 32631,
            "resolution": 10,
            "edge_size": 24,
            "edge_size_m": 240,
            "central_y": y.mean() + 1.3,
            "central_x": x.mean() - 2.7,
            "central_lat": 50.5,
            "central_lon": 3.0,
            "time_coverage_start": "2021-05-01",
            "time_coverage_end": "2021-06-10",
        },
    )


def test_counts_are_refused_and_the_printed_line_leads_on(tmp_path: Path) -> None:
    da = by_hand()
    with pytest.raises(CubeError, match=r"Use cubefill.*conform\(ds, scale=1e-4\)"), said("corner"):
        da.gapfill().compute()
    with said("corner"):
        assert_right(recipe("cubo", da=da)["out"], tmp_path)


def test_the_array_by_hand_has_the_form_of_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cubo = pytest.importorskip("cubo", reason="asks for pandas below 3")
    import pystac_client

    from tests.recipes.items import write_items

    items = write_items(tmp_path)
    for item in items:
        item.properties["proj:epsg"] = 32631

    class Search:
        def __init__(self, **_: Any) -> None: ...

        def item_collection(self) -> Any:
            import pystac

            return pystac.ItemCollection(items)

        get_all_items = item_collection

    class Client:
        search = staticmethod(lambda **options: Search(**options))

    monkeypatch.setattr(pystac_client.Client, "open", staticmethod(lambda *_, **__: Client()))
    real = cubo.create(
        lat=50.551,
        lon=3.0017,
        collection="sentinel-2-l2a",
        stac="https://earth-search.aws.element84.com/v1",
        bands=["blue", "green", "red", "nir", "scl"],
        start_date="2021-05-01",
        end_date="2021-06-10",
        edge_size=24,
        resolution=10,
    )
    own = by_hand()
    assert (real.dims, real.dtype, real.name) == (own.dims, own.dtype, own.name)
    assert set(own.attrs) <= set(real.attrs)
    assert set(own.coords) <= set(real.coords)
    assert real.attrs["epsg"] == 32631
    assert float(real.x[0]) % 10 == 0, "pixel corners"
