"""Acquisition layouts: which dates a method sees, and in which role.

A layout and the dates of a cube come in; `choose` gives one date for each slot. Start with
`slots.py`.
"""

from cubefill.layout.index import Index as Index
from cubefill.layout.index import choose as choose
from cubefill.layout.index import clearest as clearest
from cubefill.layout.slots import TARGET as TARGET
from cubefill.layout.slots import Draw as Draw
from cubefill.layout.slots import Layout as Layout
from cubefill.layout.slots import Slot as Slot
from cubefill.layout.slots import dumps as dumps
from cubefill.layout.slots import load as load
from cubefill.layout.slots import names as names
from cubefill.layout.slots import read as read
