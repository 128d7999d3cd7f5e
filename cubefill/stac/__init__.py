"""Sentinel-2, Sentinel-1 and DEM from a STAC catalogue to a lazy cube, and back.

A catalogue and an area come in; `search` gives items and `load` a lazy cube on one grid. Start
with `loading.py`.
"""

from cubefill.stac.driver import Driver as Driver
from cubefill.stac.loading import load as load
from cubefill.stac.offsets import offset_jumps as offset_jumps
from cubefill.stac.query import Items as Items
from cubefill.stac.query import search as search
from cubefill.stac.safe import from_safe as from_safe
from cubefill.stac.writing import QUIRKS as QUIRKS
from cubefill.stac.writing import write_catalogue as write_catalogue
