"""Clear pixels from packages that find clouds: ukis-csmask, omnicloudmask, s2cloudless.

Each date is handed over whole, because these packages cut a scene into tiles of their own and
look around every pixel: so the mask does not depend on the chunks of the cube. It does depend on
which part of a scene the cube is.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.errors import CubeError, CubefillWarning

Bool = NDArray[np.bool_]
Image = NDArray[np.float32]


@dataclass(frozen=True)
class MaskPackage:
    """A package that finds clouds in one image at a time."""

    package: str
    """Name for pip and in provenance."""
    module: str
    """What is imported."""
    install: str
    """What to type where it is absent."""
    finds: str
    """What it marks, in words."""
    bands: tuple[tuple[str, ...], ...]
    """Sets of bands it can take, in its order; the first that the cube has is used."""
    clear: Callable[..., Bool]
    """Clear pixels (y, x) of an image (band, y, x) of reflectance, 0 where there is no data."""
    options: Mapping[str, Any]
    """Arguments of the package, as they are unless asked otherwise."""
    least: int = 1
    """Side in pixels below which an image is mirrored at its edges up to this side."""
    note: str = ""
    """What to know where a band is missing."""


def _csmask(image: Image, bands: Sequence[str], options: Mapping[str, Any]) -> Bool:
    common = {"B02": "blue", "B03": "green", "B04": "red"}
    common |= {"B08": "nir", "B11": "swir16", "B12": "swir22"}
    find = importlib.import_module("ukis_csmask.mask").CSmask
    found = find(
        np.ascontiguousarray(np.moveaxis(image, 0, -1)), [common[b] for b in bands], **options
    )
    return np.asarray(found.valid[..., 0] == 1)


def _omnicloudmask(image: Image, bands: Sequence[str], options: Mapping[str, Any]) -> Bool:
    size = min(options["patch_size"], *image.shape[1:])
    fitting = {"patch_size": size, "patch_overlap": min(options["patch_overlap"], size // 2)}
    find = importlib.import_module("omnicloudmask").predict_from_array
    return np.asarray(find(image, **{**options, **fitting})[0] == 0)


def _s2cloudless(image: Image, bands: Sequence[str], options: Mapping[str, Any]) -> Bool:
    find = importlib.import_module("s2cloudless").S2PixelCloudDetector
    found = find(all_bands=False, **options).get_cloud_masks(np.moveaxis(image, 0, -1)[None])
    return np.asarray(found[0] == 0)


PACKAGES: dict[str, MaskPackage] = {
    "csmask": MaskPackage(
        "ukis-csmask",
        "ukis_csmask.mask",
        "pip install 'cubefill[csmask]'",
        "cloud or shadow",
        (("B02", "B03", "B04", "B08", "B11", "B12"), ("B02", "B03", "B04", "B08")),
        _csmask,
        # One thread a date: dates run side by side already.
        {"product_level": "l2a", "invalid_buffer": 4, "intra_op_num_threads": 1},
        least=256,
    ),
    "omnicloudmask": MaskPackage(
        "omnicloudmask",
        "omnicloudmask",
        "pip install omnicloudmask (it downloads its weights when it is first used)",
        "thick or thin cloud or shadow",
        (("B04", "B03", "B8A"), ("B04", "B03", "B08")),
        _omnicloudmask,
        {"patch_size": 1000, "patch_overlap": 300},
        least=50,
    ),
    "s2cloudless": MaskPackage(
        "s2cloudless",
        "s2cloudless",
        "pip install s2cloudless",
        "cloud (it knows no shadow)",
        (("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12"),),
        _s2cloudless,
        {"threshold": 0.4, "average_over": 4, "dilation_size": 2},
        note=" It reads Level-1C, which has B10; use valid='csmask' for Level-2A.",
    ),
}
"""Name in `valid=` to the package."""


def by_package(ds: xr.Dataset, name: str, **options: Any) -> xr.DataArray:
    """Clear pixels `(time, y, x)` by a mask package: lazy, one task a date.

    Parameters
    ----------
    ds
        A cube of reflectance, 0 to about 1, with the bands that the package takes.
    name
        "csmask" (clouds and shadows; weights come with the package), "omnicloudmask" (clouds and
        shadows; weights are downloaded at first use) or "s2cloudless" (clouds alone, Level-1C).
    **options
        Arguments of the package, such as `invalid_buffer=8` for csmask.

    Returns
    -------
    xr.DataArray
        bool; False wherever one of the bands has no data. Its attributes say how it was made.

    Raises
    ------
    CubeError
        The name is unknown, the package is not installed, or a band is missing.

    Examples
    --------
    >>> import cubefill
    >>> cube = cubefill.testing.synthetic_cube()
    >>> filled = cube.gapfill(valid=lambda ds: by_package(ds, "csmask", invalid_buffer=8))
    ... # doctest: +SKIP
    """
    if name not in PACKAGES:
        raise CubeError(f"Unknown mask package {name!r}: expected one of {', '.join(PACKAGES)}.")
    package = PACKAGES[name]
    bands = _bands_for(ds, name, package)
    _require(name, package)
    options = {**package.options, **options}
    _warn_of_small(ds, name, package)
    # Numpy too becomes lazy: a plan must not run a net.
    whole = {"time": 1, "y": -1, "x": -1}
    images = [ds[b].transpose("time", "y", "x").chunk(whole).data for b in bands]
    import dask.array as da

    run = partial(_clear_date, name=name, bands=bands, options=options)
    blocks: Any = da.map_blocks
    data = blocks(run, *images, dtype=bool, meta=np.empty((0, 0, 0), bool))
    return xr.DataArray(
        data,
        dims=("time", "y", "x"),
        coords={d: ds[d] for d in ("time", "y", "x") if d in ds.coords},
        name="valid",
        attrs=_attributes(name, package, bands, options),
    )


def _clear_date(
    *arrays: NDArray[Any], name: str, bands: Sequence[str], options: Mapping[str, Any]
) -> Bool:
    """Clear pixels of a block of one date, from the bands of that date."""
    package = PACKAGES[name]
    image = np.stack([a[0] for a in arrays]).astype(np.float32)
    seen: Bool = np.asarray(np.isfinite(image).all(axis=0))
    if not seen.any():
        return seen[None]
    rows, columns = seen.shape
    more = [(0, 0), *((0, max(0, package.least - n)) for n in seen.shape)]
    image = np.pad(np.where(np.isfinite(image), image, np.float32(0)), more, mode="symmetric")
    clear = package.clear(image, bands, options)[:rows, :columns]
    return (clear & seen)[None]


def _bands_for(ds: xr.Dataset, name: str, package: MaskPackage) -> tuple[str, ...]:
    for bands in package.bands:
        if all(b in ds.data_vars for b in bands):
            return bands
    least = package.bands[-1]
    missing = [b for b in least if b not in ds.data_vars]
    raise CubeError(
        f"valid={name!r} needs {', '.join(least)}: the cube lacks {', '.join(missing)}."
        f"{package.note or f' Load it with bands={least!r}.'}"
    )


def _require(name: str, package: MaskPackage) -> None:
    try:
        importlib.import_module(package.module)
    except ImportError as error:
        raise CubeError(
            f"valid={name!r} needs the package {package.package}, which cannot be imported "
            f"({str(error).splitlines()[0]}). Use {package.install}."
        ) from error


def _warn_of_small(ds: xr.Dataset, name: str, package: MaskPackage) -> None:
    if min(ds.sizes["y"], ds.sizes["x"]) < package.least:
        warnings.warn(
            f"valid={name!r}: the cube has {ds.sizes['y']} x {ds.sizes['x']} pixels, and "
            f"{package.package} is sure of its classes only from {package.least} x "
            f"{package.least}. Load a larger area to trust the mask.",
            CubefillWarning,
            stacklevel=2,
        )


def _attributes(
    name: str, package: MaskPackage, bands: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """How the mask was made, in words."""
    try:
        which = version(package.package)
    except PackageNotFoundError:
        which = str(getattr(importlib.import_module(package.module), "__version__", "unknown"))
    said = ", ".join(f"{k}={v}" for k, v in options.items())
    return {
        "long_name": "clear observation",
        "source": name,
        "description": (
            f"True where {package.package} {which} finds no {package.finds} in "
            f"{', '.join(bands)} ({said}), and all of these have data"
        ),
    }
