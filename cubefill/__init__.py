"""Fill the gaps that clouds leave in Sentinel-2 cubes.

Importing cubefill registers the accessor `ds.gapfill`. The straight line:

    items = cubefill.search("catalogue", bbox=..., datetime="2018-01-01/2018-06-30")
    ds = cubefill.load(items)
    cubefill.write_cube(ds, "cube.zarr")
    out = cubefill.open_cube("cube.zarr").gapfill()
    out.gapfill.ndvi()
"""

from typing import TYPE_CHECKING

from cubefill.imports import keep_former_paths, on_first_use, when_imported

if TYPE_CHECKING:
    from cubefill import cube as cube
    from cubefill import plot as plot
    from cubefill import reports as reports
    from cubefill import stac as stac
    from cubefill.accessor import GapfillAccessor as GapfillAccessor
    from cubefill.cube import conform as conform
    from cubefill.cube import ndvi as ndvi
    from cubefill.cube import with_ndvi as with_ndvi
    from cubefill.engine import Plan as Plan
    from cubefill.engine import gapfill as gapfill
    from cubefill.engine import plan as plan
    from cubefill.engine import run as run
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
    from cubefill.formats import from_geotiffs as from_geotiffs
    from cubefill.formats import to_geotiff as to_geotiff
    from cubefill.methods import Block as Block
    from cubefill.methods import Filled as Filled
    from cubefill.methods import Flag as Flag
    from cubefill.methods import Method as Method
    from cubefill.methods import Near as Near
    from cubefill.methods import Needs as Needs
    from cubefill.methods import Span as Span
    from cubefill.methods import Whole as Whole
    from cubefill.methods import list_methods as list_methods
    from cubefill.methods import register as register
    from cubefill.reports import report as report
    from cubefill.stac import load as load
    from cubefill.stac import search as search
    from cubefill.store import open_cube as open_cube
    from cubefill.store import write_cube as write_cube
    from cubefill.version import __version__ as __version__
else:
    _PUBLIC = {
        "cube": "conform ndvi with_ndvi",
        "engine": "Plan gapfill plan run",
        "errors": "CatalogueError CubeError CubefillError CubefillWarning DeviceError JobError "
        "MethodError PlanError ReadError StoreError",
        "formats": "from_geotiffs to_geotiff",
        "methods": "Block Filled Flag Method Near Needs Span Whole list_methods register",
        "reports": "report",
        "stac": "load search",
        "store": "open_cube write_cube",
        "accessor": "GapfillAccessor",
        "version": "__version__",
    }
    _PACKAGES = (
        "accessor applications cli cube engine errors evaluate formats gaps layout machine methods "
        "metrics nn plot reports samples simulate stac store testing train"
    )
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC, _PACKAGES)

keep_former_paths()
when_imported("xarray", "cubefill.accessor")
