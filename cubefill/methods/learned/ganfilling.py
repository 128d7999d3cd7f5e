"""GANFilling: every date of a series by a ConvLSTM generator, learnt against a discriminator.

González-Calabuig et al. (2025), "Generative networks for spatio-temporal gap filling of Sentinel-2
reflectances", ISPRS Journal of Photogrammetry and Remote Sensing 220, 637-648,
doi 10.1016/j.isprsjprs.2025.01.016.

`x (date, band, y, x)` in 0-1, blue, green, red and near infrared, 128 x 128 pixels (20 m in
EarthNet2021) and ten dates five days apart, gives `(date, band, y, x)`. Clouds are given as the
sensor saw them, no mask is; no data is 1, so that it looks like a saturated cloud. The
discriminator sees four dates of 64 x 64 pixels.

What differs from the authors' code: clear pixels are put back by the engine; patches overlap and
are blended, so that a cube has any size; a longer series goes in windows, and dates to give that
are no acquisition join it as dates without data; the discriminator's real windows are flipped
without reversing the order of their bands; `clouds="hidden"` gives a gap as no data. The net itself
is the same: 181 746 628 parameters, of which 18 874 368 are never read, and 26 360 518 of the
discriminator.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cubefill.methods.learned.generator import GeneratorMethod
from cubefill.nn.convlstm import Discriminator, Generator
from cubefill.nn.objective import Adversarial, Learning, Objective


@dataclass(frozen=True)
class GanFilling(GeneratorMethod):
    """Every date by a ConvLSTM generator, learnt as an adversary (GANFilling, 2025).

    Examples
    --------
    >>> GanFilling().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "ganfilling"

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        """Clear values as they were given, and short windows that a discriminator believes."""
        if not isinstance(net, Generator):
            raise TypeError(f"Expected a Generator, got {type(net).__name__}.")
        judge = Discriminator(net.sizes).to(next(net.parameters()).device)
        return Adversarial(net, judge, recipe)
