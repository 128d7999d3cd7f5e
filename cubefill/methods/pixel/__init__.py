"""Methods that look at one pixel at a time, in numba.

A block comes in and is filled row by row. Start with `method.py`, then `linear.py`.
"""

from typing import TYPE_CHECKING

from cubefill.imports import on_first_use

if TYPE_CHECKING:
    from cubefill.methods.pixel.blend import Blend as Blend
    from cubefill.methods.pixel.climatology import Climatology as Climatology
    from cubefill.methods.pixel.cubic import Akima as Akima
    from cubefill.methods.pixel.cubic import Pchip as Pchip
    from cubefill.methods.pixel.cubic import Quadratic as Quadratic
    from cubefill.methods.pixel.harmonic import Harmonic as Harmonic
    from cubefill.methods.pixel.linear import Last as Last
    from cubefill.methods.pixel.linear import Linear as Linear
    from cubefill.methods.pixel.linear import Linear2 as Linear2
    from cubefill.methods.pixel.linear import Nearest as Nearest
    from cubefill.methods.pixel.linear import Next as Next
    from cubefill.methods.pixel.savgol import Savgol as Savgol
    from cubefill.methods.pixel.whittaker import Whittaker as Whittaker
else:
    _PUBLIC = {
        "blend": "Blend",
        "climatology": "Climatology",
        "cubic": "Akima Pchip Quadratic",
        "harmonic": "Harmonic",
        "linear": "Last Linear Linear2 Nearest Next",
        "savgol": "Savgol",
        "whittaker": "Whittaker",
    }
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
