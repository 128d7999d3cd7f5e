"""Fill the gaps that clouds leave in Sentinel-2 cubes.

Importing cubefill registers the accessor `ds.gapfill`. The straight line:

    items = cubefill.search("catalogue", bbox=..., datetime="2018-01-01/2018-06-30")
    ds = cubefill.load(items)
    cubefill.write_cube(ds, "cube.zarr")
    out = cubefill.open_cube("cube.zarr").gapfill()
    out.gapfill.ndvi()
"""

from importlib.metadata import version as _version

from cubefill import plot as plot
from cubefill import stac as stac
from cubefill.accessor import GapfillAccessor as GapfillAccessor
from cubefill.cube import conform as conform
from cubefill.engine import gapfill as gapfill
from cubefill.engine import list_methods as list_methods
from cubefill.errors import CatalogueError as CatalogueError
from cubefill.errors import CubeError as CubeError
from cubefill.errors import CubefillError as CubefillError
from cubefill.errors import CubefillWarning as CubefillWarning
from cubefill.errors import DeviceError as DeviceError
from cubefill.errors import JobError as JobError
from cubefill.errors import MethodError as MethodError
from cubefill.errors import PlanError as PlanError
from cubefill.errors import ReadError as ReadError
from cubefill.errors import StoreError as StoreError
from cubefill.cube.indices import ndvi as ndvi
from cubefill.cube.indices import with_ndvi as with_ndvi
from cubefill.engine.job import run as run
from cubefill.methods.contract import Block as Block
from cubefill.methods.contract import Filled as Filled
from cubefill.methods.contract import Flag as Flag
from cubefill.methods.contract import Method as Method
from cubefill.methods.contract import Needs as Needs
from cubefill.methods.contract import register as register
from cubefill.engine.planning import Plan as Plan
from cubefill.engine.planning import plan as plan
from cubefill.reports import report as report
from cubefill.stac import load as load
from cubefill.stac import search as search
from cubefill.store import open_cube as open_cube
from cubefill.store import write_cube as write_cube
from cubefill.formats.geotiff import to_geotiff as to_geotiff
from cubefill.methods.windows import Span as Span
from cubefill.methods.windows import Whole as Whole

__version__ = _version("cubefill")
