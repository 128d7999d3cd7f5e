"""The installed version of cubefill."""

from importlib.metadata import version

__version__ = version("cubefill")
