"""The cube and the stores of samples that several files read, made once a session."""

import pytest
import xarray as xr

from cubefill import samples
from cubefill.gaps import Blobs
from cubefill.samples import StoredSamples
from tests.shared.samples_cases import NEEDS, scene_cube


@pytest.fixture(scope="session")
def cube() -> xr.Dataset:
    return scene_cube()


@pytest.fixture(scope="session")
def by_layout(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> StoredSamples:
    """Samples by the layout MSOP."""
    path = tmp_path_factory.mktemp("layout") / "msop.zarr"
    return samples.make([cube], "msop", None, path, patch=16, dem=True, splits=(0.6, 0.2, 0.2))


@pytest.fixture(scope="session")
def by_window(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> StoredSamples:
    """Samples of windows of six dates with blobs hidden."""
    path = tmp_path_factory.mktemp("window") / "window.zarr"
    return samples.make(
        [cube], NEEDS, Blobs(keep=1), path, splits=(0.6, 0.2, 0.2), min_clear=0.3, max_per_place=7
    )
