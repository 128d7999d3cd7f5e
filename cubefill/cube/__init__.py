"""A cube: an ordinary `xarray.Dataset` that `check` accepts.

Datasets of any catalogue or tool come in; `conform` and `check` give one form of bands, mask,
dates and grid. Start with `dataset.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.cube.conforming import conform as conform
    from cubefill.cube.dataset import accept as accept
    from cubefill.cube.dataset import check as check
    from cubefill.cube.dataset import check_values as check_values
    from cubefill.cube.dataset import describe as describe
    from cubefill.cube.flags import fill_shares as fill_shares
    from cubefill.cube.georeference import crs_of as crs_of
    from cubefill.cube.georeference import follow as follow
    from cubefill.cube.georeference import resolution_of as resolution_of
    from cubefill.cube.georeference import settled as settled
    from cubefill.cube.georeference import transform_of as transform_of
    from cubefill.cube.georeference import unplaced as unplaced
    from cubefill.cube.indices import ndvi as ndvi
    from cubefill.cube.indices import with_ndvi as with_ndvi
    from cubefill.cube.variables import chosen_bands as chosen_bands
    from cubefill.cube.variables import spectral as spectral
else:
    _PUBLIC = {
        "conforming": "conform",
        "dataset": "accept check check_values describe",
        "flags": "fill_shares",
        "georeference": "crs_of follow resolution_of settled transform_of unplaced",
        "indices": "ndvi with_ndvi",
        "variables": "chosen_bands spectral",
    }
    _PACKAGES = (
        "axes bands conforming coordinates counts dataset flags georeference indices masks rows "
        "valid variables"
    )
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC, _PACKAGES)
