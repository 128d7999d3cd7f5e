"""What a method is, and every method that fills gaps.

A method declares what it needs and turns blocks into filled blocks. Start with `contract.py`;
then read one method, such as `pixel/linear.py`.
"""

from cubefill.methods.contract import Block as Block
from cubefill.methods.contract import Bool as Bool
from cubefill.methods.contract import Codes as Codes
from cubefill.methods.contract import Counts as Counts
from cubefill.methods.contract import Filled as Filled
from cubefill.methods.contract import Flag as Flag
from cubefill.methods.contract import Float as Float
from cubefill.methods.contract import Method as Method
from cubefill.methods.contract import Needs as Needs
from cubefill.methods.contract import Scratch as Scratch
from cubefill.methods.contract import Traits as Traits
from cubefill.methods.contract import days_since as days_since
from cubefill.methods.contract import quantile_name as quantile_name
from cubefill.methods.contract import traits as traits
from cubefill.methods.registry import AUTO as AUTO
from cubefill.methods.registry import METHODS as METHODS
from cubefill.methods.registry import describe as describe
from cubefill.methods.registry import list_methods as list_methods
from cubefill.methods.registry import listed as listed
from cubefill.methods.registry import name_for as name_for
from cubefill.methods.registry import name_of as name_of
from cubefill.methods.registry import named as named
from cubefill.methods.registry import options_of as options_of
from cubefill.methods.registry import parameters as parameters
from cubefill.methods.registry import register as register
from cubefill.methods.registry import resolve as resolve
from cubefill.methods.registry import table as table
from cubefill.methods.windows import Axis as Axis
from cubefill.methods.windows import Near as Near
from cubefill.methods.windows import Span as Span
from cubefill.methods.windows import Whole as Whole
from cubefill.methods.windows import Window as Window
