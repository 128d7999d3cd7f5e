"""Synthetic Sentinel-2, Sentinel-1 and DEM scenes with known truth.

Sizes, dates and a seed come in; a cube and its truth come out. Start with `scenes.py`.
"""

from cubefill.simulate.scenes import Scene as Scene
from cubefill.simulate.scenes import acquisitions as acquisitions
from cubefill.simulate.scenes import scene as scene
from cubefill.simulate.spectra import BANDS as BANDS
from cubefill.simulate.surface import Crop as Crop
from cubefill.simulate.world import quantised as quantised
