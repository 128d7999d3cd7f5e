"""A cube: an ordinary `xarray.Dataset` that `check` accepts.

Datasets of any catalogue or tool come in; `conform` and `check` give one form of bands, mask,
dates and grid. Start with `dataset.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.cube.dataset import check as check
    from cubefill.cube.dataset import check_values as check_values
    from cubefill.cube.dataset import conform as conform
    from cubefill.cube.dataset import crs_of as crs_of
    from cubefill.cube.dataset import describe as describe
    from cubefill.cube.dataset import resolution_of as resolution_of
    from cubefill.cube.dataset import spectral as spectral
    from cubefill.cube.indices import ndvi as ndvi
    from cubefill.cube.indices import with_ndvi as with_ndvi
else:
    _PUBLIC = {
        "dataset": "check check_values conform crs_of describe resolution_of spectral",
        "indices": "ndvi with_ndvi",
    }
    _PACKAGES = "axes bands counts dataset indices masks rows valid"
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC, _PACKAGES)
