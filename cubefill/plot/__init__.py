"""Pictures of cubes, and the pixels and curves that pictures and reports share.

A cube comes in; a figure or a file comes out. Start with `figures.py`.
"""

from cubefill.plot.figures import animate as animate
from cubefill.plot.figures import compare as compare
from cubefill.plot.figures import ndvi as ndvi
from cubefill.plot.figures import preview as preview
from cubefill.plot.figures import rgb as rgb
