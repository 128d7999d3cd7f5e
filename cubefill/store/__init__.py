"""Cubes in Zarr: opened lazily, written tile by tile, finished after an interruption.

A cube and a path come in; a store with its ledger of finished tiles comes out. Start with
`reading.py` and `writing.py`.
"""

from cubefill.store.fingerprint import fingerprint_of as fingerprint_of
from cubefill.store.reading import open_cube as open_cube
from cubefill.store.template import create as create
from cubefill.store.template import write_region as write_region
from cubefill.store.writing import begin as begin
from cubefill.store.writing import write_cube as write_cube
