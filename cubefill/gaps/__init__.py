"""Artificial gaps for training and scoring.

A cube and a seed come in; the observations to hide come out. Start with `kinds.py`.
"""

from cubefill.gaps.hiding import HiddenAs as HiddenAs
from cubefill.gaps.hiding import apply as apply
from cubefill.gaps.hiding import covered as covered
from cubefill.gaps.hiding import hide as hide
from cubefill.gaps.kinds import FORMER as FORMER
from cubefill.gaps.kinds import GAPS as GAPS
from cubefill.gaps.kinds import Blobs as Blobs
from cubefill.gaps.kinds import Blocks as Blocks
from cubefill.gaps.kinds import Borrowed as Borrowed
from cubefill.gaps.kinds import Dates as Dates
from cubefill.gaps.kinds import EveryDate as EveryDate
from cubefill.gaps.kinds import Gaps as Gaps
from cubefill.gaps.kinds import Lent as Lent
from cubefill.gaps.kinds import Mixed as Mixed
from cubefill.gaps.kinds import Trailing as Trailing
from cubefill.gaps.kinds import Transplant as Transplant
from cubefill.gaps.kinds import impaired as impaired
from cubefill.gaps.kinds import parse_gaps as parse_gaps
from cubefill.gaps.kinds import shapes_of as shapes_of
