"""The straight line from a cube to a filled cube.

A cube and a method come in; a lazy dataset (`gapfill`) or a finished store (`run`) comes out.
Start with `lazy.py`.
"""

from cubefill.engine.job import run as run
from cubefill.engine.lazy import gapfill as gapfill
from cubefill.engine.planning import Plan as Plan
from cubefill.engine.planning import plan as plan
