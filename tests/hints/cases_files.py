"""Hints about files and stores."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cubefill
from cubefill.formats.geotiff import write_cog
from cubefill.store.source import GROUP
from cubefill.store.template import create
from tests.hints.cases_cube import BARE, CUBE
from tests.hints.typing import Case

PARTS = ["B04", "valid"]


def new(name: str = "new") -> str:
    return str(Path(tempfile.mkdtemp()) / name)


def stored(ds: xr.Dataset = CUBE) -> str:
    place = new("cube.zarr")
    cubefill.write_cube(ds[PARTS], place, shard=256)
    return place


def write(ds: xr.Dataset, store: str, **options: Any) -> xr.Dataset:
    return cubefill.write_cube(ds[PARTS], store, **{"shard": 256, **options})


def write_all(ds: xr.Dataset, store: str) -> xr.Dataset:
    return cubefill.write_cube(ds, store)


def run(source: str, target: str, **options: Any) -> xr.Dataset:
    return cubefill.run(source, target, **options)


def resumed_over(**options: Any) -> Any:
    return lambda: {"ds": CUBE, "store": stored(), **options}


def made(ds: xr.Dataset, store: str) -> str:
    create(store, ds)
    return store


def without_ledger() -> dict[str, Any]:
    place = stored()
    shutil.rmtree(Path(place) / GROUP)
    return {"ds": CUBE, "store": place}


def images(*files: str, shift: float = 0.0, **options: Any) -> Any:
    """A folder with images of counts, all on one grid but the last where it is shifted."""

    def make() -> dict[str, Any]:
        folder = Path(new())
        for i, name in enumerate(files):
            left = 500_000 + (shift if i == len(files) - 1 else 0)
            values = np.full((4, 5), 1000 + i, np.uint16)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            grid = np.array([10, 0, left, 0, -10, 5_600_000], float)
            import rasterio

            write_cog(folder / name, values, transform=rasterio.Affine(*grid), crs="EPSG:32631")
        return {"folder": str(folder), **options}

    return make


def exports(**options: Any) -> Any:
    def make() -> dict[str, Any]:
        folder = new()
        cubefill.to_geotiff(CUBE.isel(time=[0]), folder, bands=["B04"])
        return {"ds": CUBE.isel(time=[0]), "folder": folder, "bands": ["B04"], **options}

    return make


def export(ds: xr.Dataset, **options: Any) -> Any:
    return cubefill.to_geotiff(ds, **{"folder": new(), **options})


def by_stem(path: Any) -> Any:
    return "2021-03-0" + Path(path).stem[-1]


DATES = "a list of one date a file, or a function of a file's path"
STORES = [
    Case("exists: expected a new {}. Use {}overwrite=True", write, resumed_over(resume=False)),
    Case(
        "Pass overwrite=True to replace it, or choose another path", write, resumed_over(chunk=128)
    ),
    Case("and has no record of tiles, so it cannot be finished", write, without_ledger),
    Case(
        "has no parent folder",
        lambda ds, store, made=None: write(ds, store),
        lambda: {"ds": CUBE, "store": f"{new('no')}/cube.zarr"},
        takes="made",
    ),
    Case(
        "expected a shard that is a multiple of the chunk",
        write,
        lambda: {"ds": CUBE, "store": new(), "shard": 300},
    ),
    Case(
        "expected floating point, integer or bool",
        lambda ds, store: made(ds, store),
        lambda: {"ds": CUBE.assign(name=CUBE["B04"].astype(str)), "store": new()},
    ),
    Case(
        "is no name for an array of a store",
        lambda ds: cubefill.write_cube(ds, new(), shard=256),
        {"ds": CUBE.assign({"a/b": CUBE["B04"]})},
    ),
    Case("so {} has none and lies nowhere", lambda ds: write(ds, new()), {"ds": BARE}),
    Case("is one zarr array", cubefill.open_cube, lambda: {"store": f"{stored()}/B04"}),
]
IMAGES = [
    Case(
        "holds two days",
        cubefill.from_geotiffs,
        images("2021-03-01_2021-03-02_B04.tif"),
        put={DATES: "['2021-03-01']"},
    ),
    Case(
        "has no date",
        cubefill.from_geotiffs,
        images("B04_1.tif", "B04_2.tif"),
        put={" a list of one date a file, or a function of a file's path": "by_stem"},
        names={"by_stem": by_stem},
    ),
    Case(
        "matches {}: expected files ending in",
        cubefill.from_geotiffs,
        images("2021-03-01_B04.tif", pattern="*.jp2"),
        put={"the paths of the files instead": "pattern='*.tif'"},
    ),
    Case("without a scale", cubefill.from_geotiffs, images("2021-03-01_B04.tif", offset=-0.1)),
    Case(
        "lies on another grid",
        cubefill.from_geotiffs,
        images("2021-03-01_B04.tif", "2021-03-06_B04.tif", shift=3.0),
        put={"'...'": "'2021-03-01*'"},
    ),
    Case(
        "expected a name for each",
        cubefill.from_geotiffs,
        images("2021-03-01_B04.tif", bands=["B04", "B08"]),
        put={"[...]": "['B04']", ", or pattern='...' that leaves it out": ""},
    ),
    Case(
        "Nothing tells the band of the file",
        cubefill.from_geotiffs,
        images("2021-03-01_one.tif", "2021-03-06_two.tif"),
    ),
    Case(
        "times of day that tell them apart",
        cubefill.from_geotiffs,
        images("a/2021-03-01_B04.tif", "b/2021-03-01_B04.tif", "b/2021-03-01_B08.tif"),
        put={"dates= with": "dates=DATES with"},
        names={"DATES": ["2021-03-01T10", "2021-03-01T11", "2021-03-01T10"]},
    ),
    Case(
        "whose counts stand 1000 too high",
        cubefill.from_geotiffs,
        images("S2B_MSIL2A_20230301T105621_N0509_R094_T31UDS_20230301T130000_B04.tif"),
        put={" and offset": ", offset"},
    ),
    Case("other files exist", export, exports()),
    Case(
        "The dataset has no time axis",
        export,
        {"ds": CUBE.isel(time=0, drop=True)},
        put={"[...]": "[pandas.Timestamp('2021-03-01')]"},
    ),
    Case(
        "to write: expected some of",
        export,
        {"ds": CUBE, "bands": ["B99"]},
        put={"[...]": "['B04']"},
    ),
    Case(
        "The cube holds a time twice",
        export,
        {"ds": CUBE.isel(time=[0, 0, 1]), "time": ["2023-03-06", "2023-03-08"]},
        put={"2024-05-01": str(CUBE.time.values[0])[:10]},
    ),
    Case("No date {} in the cube", export, {"ds": CUBE, "time": "1999-01-01"}, takes="time"),
]
CASES = STORES + IMAGES
