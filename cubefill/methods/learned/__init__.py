"""Methods that are a trained net, in torch.

A checkpoint and a block come in; passes of the net fill the block. Start with `method.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.methods.learned.cnnrnn import Hdf5Samples as Hdf5Samples
    from cubefill.methods.learned.method import Arrays as Arrays
    from cubefill.methods.learned.method import TorchMethod as TorchMethod
    from cubefill.methods.learned.method import card_of as card_of
    from cubefill.methods.learned.passes import check_precision as check_precision
    from cubefill.methods.learned.passes import device_of as device_of
    from cubefill.methods.learned.series import SeriesMethod as SeriesMethod
    from cubefill.methods.learned.time_windows import WindowMethod as WindowMethod
else:
    _PUBLIC = {
        "cnnrnn": "Hdf5Samples",
        "method": "Arrays TorchMethod card_of",
        "passes": "check_precision device_of",
        "series": "SeriesMethod",
        "time_windows": "WindowMethod",
    }
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
