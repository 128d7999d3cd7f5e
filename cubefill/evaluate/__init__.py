"""Methods scored on hidden clear observations.

Methods, cubes and gaps come in; one table of scores comes out. Start with `comparison.py`.
"""

from cubefill.evaluate.comparison import compare as compare
from cubefill.evaluate.hiding import window as window
from cubefill.evaluate.self_testing import GAPS as GAPS
from cubefill.evaluate.self_testing import parse_gaps as parse_gaps
from cubefill.evaluate.self_testing import score_stores as score_stores
from cubefill.evaluate.self_testing import self_test as self_test
