"""Training samples, drawn from cubes in memory or stored in Zarr.

Cubes, what a method needs and gaps come in; samples come out. Start with `builder.py`.
"""

from cubefill.samples.builder import make as make
from cubefill.samples.builder import mine_clean_windows as mine_clean_windows
from cubefill.samples.builder import open as open
from cubefill.samples.clear_windows import write_clean_windows as write_clean_windows
from cubefill.samples.patches import CubeSamples as CubeSamples
from cubefill.samples.protocol import Sample as Sample
from cubefill.samples.protocol import Samples as Samples
from cubefill.samples.stored import StoredSamples as StoredSamples
from cubefill.samples.wanted import BANDS as BANDS
