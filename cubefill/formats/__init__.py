"""Every file format but Zarr: GeoTIFF and minicubes.

A cube becomes GeoTIFF files, and a folder of them or a minicube file becomes a cube. Start with
`geotiff.py`.
"""

from cubefill.formats.geotiff import to_geotiff as to_geotiff
from cubefill.formats.geotiff import write_cog as write_cog
from cubefill.formats.images import from_geotiffs as from_geotiffs
