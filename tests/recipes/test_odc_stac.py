"""odc-stac: a Dataset of counts, uint16 and uint8, one variable an asset."""

from pathlib import Path

import odc.stac
import pytest
import xarray as xr

from cubefill.errors import CubeError
from tests.recipes.clean_cube import assert_right, recipe, said
from tests.recipes.items import write_items


@pytest.fixture
def ds(tmp_path: Path) -> xr.Dataset:
    found: xr.Dataset = odc.stac.load(
        write_items(tmp_path),
        bands=["blue", "green", "red", "nir", "scl"],
        crs="EPSG:32631",
        resolution=10,
        chunks={},
    )
    return found


def test_counts_are_refused_and_the_printed_line_leads_on(ds: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"Use cubefill.*conform\(ds, scale=1e-4\)"), said():
        ds.gapfill()
    with said():
        assert_right(recipe("odc-stac", ds=ds)["out"], tmp_path)


def test_scaled_with_the_catalogues_names(ds: xr.Dataset, tmp_path: Path) -> None:
    bands = ["blue", "green", "red", "nir"]
    scaled = ds.assign({b: ds[b].astype("float32") * 1e-4 for b in bands})
    with said("red as B04"):
        out = scaled.gapfill()
    assert_right(out, tmp_path)
