"""Methods scored on hidden clear observations.

Methods, cubes and gaps come in; one table of scores comes out. Start with `comparison.py`.
"""

from cubefill.evaluate.cases import window as window
from cubefill.evaluate.comparison import compare as compare
from cubefill.evaluate.comparison import score_stores as score_stores
from cubefill.evaluate.comparison import self_test as self_test
from cubefill.evaluate.errors import errors_by_gap as errors_by_gap
from cubefill.gaps import GAPS as GAPS
from cubefill.gaps import parse_gaps as parse_gaps
