"""Seq2Seq: every date of a series by the GANFilling generator, learnt without an adversary.

The preprint of González-Calabuig et al. (2025). Net, input and windows are those of `ganfilling`;
it learns by a loss over clear values alone, so gaps are learnt from what artificial gaps hide and
from what lies beside and before them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cubefill.methods.learned.generator import GeneratorMethod
from cubefill.nn import losses
from cubefill.nn.objective import Learning, Objective, Supervised


@dataclass(frozen=True)
class Seq2Seq(GeneratorMethod):
    """Every date by a ConvLSTM generator, learnt by a loss alone (GANFilling's preprint).

    Examples
    --------
    >>> Seq2Seq().needs.bands
    ('B02', 'B03', 'B04', 'B08')
    """

    name: ClassVar[str] = "seq2seq"

    def objective(self, net: nn.Module, recipe: Learning) -> Objective:
        """Clear values, hidden or not, by the loss that the recipe names."""
        return Supervised(net, losses.named(recipe.loss), recipe)
