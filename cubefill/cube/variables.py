"""What the variables of a dataset are: bands that a method may fill, layers that none fills.

Decided by the names that the tools give, then by CF attributes, then by the type.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import xarray as xr

from cubefill.cube.bands import BANDS, NOT_SPECTRAL, canonical
from cubefill.errors import CubeError, did_you_mean

DIMS = ("time", "y", "x")

_LAYERS = frozenset({*NOT_SPECTRAL, "NDVI_flag"})
_LAYER_WORDS = re.compile(
    "angles?|aot|azi|bqa|class(es)?|cld(prb)?|clear|clm|clp|conf|counts?|cwv|dem|detector|doy|"
    "err(ors?)?|fmask|footprint|haze|incidence|invalid|labels?|landcover|lulc|nobs|nodata|obs|orbit|"
    "overview|precision|preview|prob|proba|qa|qc|raa|saa|saturated|scl|sigma|snw(prb)?|std(dev)?|"
    "stdev|sza|tci|tcwv|unc|vaa|valid|variance|visual|vza|weights?|wvp"
)
_LAYER_PARTS = re.compile(
    "azimuth|classif|cloud|confidence|flag|mask|probab|quality|shadow|uncertaint|zenith"
)
_BAND_WORDS = re.compile(
    "band|blue|boa|coastal|edge|green|nir|pan|radiance|red|rededge|refl(ectance)?|rho|rrs|sr|swir|"
    "tir|toa|vnir|yellow"
)
_INDICES = re.compile(
    "k?nd[a-z]{1,3}|[a-z]{0,4}vi|mndwi|nbr|nirv|lai|fapar|fcover|fvc|ireci|s2rep|bsi|psri|tc[bgw]"
)
_ANGLES = frozenset({"arc_degree", "deg", "degree", "degrees", "rad", "radian", "radians"})
_LAYER_STANDARD = re.compile("flag|angle|mask|probability|standard_error|number_of_obs|area_type")
_BAND_ATTRS = ("wavelength", "wavelength_nm", "center_wavelength", "central_wavelength", "eo:bands")


def spectral(ds: xr.Dataset) -> tuple[str, ...]:
    """Names of the variables that a method may fill, in the dataset's order.

    Variables on time, y and x that are plainly bands or indices; where there is none of these,
    those that could be. Masks, classes, flags, angles, probabilities, SAR, standard deviations and
    what else tools put beside bands are none.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> ds = synthetic_cube(bands=("B04", "B08"))
    >>> spectral(ds.assign(cloud_mask=ds["SCL"], NDVI=ds["B08"], view_zenith=ds["B04"]))
    ('B04', 'B08', 'NDVI')
    """
    return _sorted_out(ds)[0]


def doubtful(ds: xr.Dataset) -> tuple[str, ...]:
    """Names of the variables that may be bands or not, beside others that plainly are."""
    return _sorted_out(ds)[1]


def chosen_bands(ds: xr.Dataset, bands: Iterable[str] | str | None = None) -> tuple[str, ...]:
    """Names of the variables to fill: those in `bands`, else those that plainly are bands.

    Raises
    ------
    CubeError
        Without `bands`: there is no band, or a variable that may be one. With it: a name is no
        variable on time, y and x, or holds classes.
    """
    if bands is not None:
        return _given(ds, bands)
    found, unknown = _sorted_out(ds)
    if not found:
        raise CubeError(no_band(ds))
    if unknown:
        raise CubeError(
            f"{', '.join(unknown)} may be bands or not: expected names of bands or indices, or of "
            f"masks, classes, angles. Pass bands={list(found)!r} to leave them as they are, or "
            f"bands={[*found, *unknown]!r} to fill them."
        )
    return found


def no_band(ds: xr.Dataset) -> str:
    """The message about a dataset without a band to fill."""
    could = [n for n in _gridded(ds) if ds[n].dtype.kind == "f"]
    aliases = [str(n) for n in ds.data_vars if canonical(str(n)) in BANDS]
    fix = "Use ds['B04'] = ... to add a band."
    if aliases and not set(aliases) & set(BANDS):
        fix = f"Use cubefill.cube.conform(ds) to rename {', '.join(aliases)}."
    elif could:
        fix = f"Pass bands={could[:1]!r} to fill what looks like a mask or an angle."
    return (
        "No band to fill: expected variables such as B04 on time, y, x; found "
        f"{', '.join(map(str, ds.data_vars)) or 'none'}. {fix}"
    )


def variable_of(ds: xr.Dataset, band: str) -> str | None:
    """The variable that holds a band: of that name or of a catalogue's, or None.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> variable_of(synthetic_cube().rename(B08="nir"), "B08")
    'nir'
    """
    if band in ds:
        return band
    meant = canonical(band)
    found = [str(n) for n in ds.data_vars if meant and canonical(str(n)) == meant]
    return found[0] if len(found) == 1 else None


_OF_A_FILL = re.compile(r"_(std|flag|q\d{2,3})$")


def is_layer(name: Hashable, attrs: Mapping[Any, Any]) -> bool:
    """True where name or CF attributes say mask, classes, flag, angle, probability or error."""
    text = str(name)
    if canonical(text) in BANDS:
        return False
    if text in _LAYERS or canonical(text) in _LAYERS or _OF_A_FILL.search(text):
        return True
    if any(k in attrs for k in ("flag_values", "flag_meanings", "flag_masks")):
        return True
    standard = str(attrs.get("standard_name", ""))
    if _LAYER_STANDARD.search(standard) or str(attrs.get("units", "")).strip() in _ANGLES:
        return True
    named = any(_LAYER_WORDS.fullmatch(w) for w in _words(text))
    return named or bool(_LAYER_PARTS.search(text.lower()))


def _is_band(name: str, attrs: Mapping[Any, Any]) -> bool:
    """True where name or attributes say band or index."""
    plain = name.removesuffix("_smooth")
    if canonical(plain) in BANDS or re.fullmatch(r"[Bb]\d{1,2}[Aa]?", plain):
        return True
    if any(_BAND_WORDS.fullmatch(w) or _INDICES.fullmatch(w) for w in _words(plain)):
        return True
    standard = str(attrs.get("standard_name", ""))
    return (
        "reflectance" in standard
        or "vegetation_index" in standard
        or any(k in attrs for k in _BAND_ATTRS)
        or "fill_flag" in str(attrs.get("ancillary_variables", "")).split()
    )


def _words(name: str) -> list[str]:
    """Words of a name in lower case, without numbers at their ends.

    Examples
    --------
    >>> _words("sunAzimuth"), _words("S2_cloud_mask"), _words("nbart_red_edge_1")
    (['sun', 'azimuth'], ['s', 'cloud', 'mask'], ['nbart', 'red', 'edge'])
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()
    words = (w.rstrip("0123456789") for w in re.split(r"[^a-z0-9]+", apart))
    return [w for w in words if w]


def _gridded(ds: xr.Dataset) -> list[str]:
    """Numbers on time, y and x; those that another variable names as its quality are left out."""
    beside = {
        n
        for v in ds.data_vars.values()
        for n in str(v.attrs.get("ancillary_variables", "")).split()
    }
    return [
        name
        for name, v in ds.data_vars.items()
        if set(v.dims) == set(DIMS)
        and v.dtype.kind in "iuf"
        and isinstance(name, str)
        and name not in beside
    ]


def _sorted_out(ds: xr.Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Variables that are bands, and those that may be."""
    open_ = [n for n in _gridded(ds) if not is_layer(n, ds[n].attrs)]
    plain = tuple(n for n in open_ if _is_band(n, ds[n].attrs))
    unknown = tuple(n for n in open_ if n not in plain and ds[n].dtype.itemsize > 1)
    if plain:
        return plain, unknown
    floats = tuple(n for n in unknown if ds[n].dtype.kind == "f")
    return (floats, tuple(n for n in unknown if n not in floats)) if floats else (unknown, ())


def _given(ds: xr.Dataset, bands: Any) -> tuple[str, ...]:
    asked = (bands,) if not isinstance(bands, Iterable) else tuple(dict.fromkeys(bands))
    asked = (bands,) if isinstance(bands, str) else asked
    if not asked:
        raise CubeError(f"bands={bands!r}: expected at least one name. {_such_as(ds)}")
    found = []
    for one in asked:
        name = variable_of(ds, str(one))
        if name is None:
            raise CubeError(
                f"bands={bands!r}: the cube has no {one!r}, but "
                f"{', '.join(map(str, ds.data_vars)) or 'nothing'}."
                f"{did_you_mean(one, map(str, ds.data_vars))} {_such_as(ds)}"
            )
        v = ds[name]
        if set(v.dims) != set(DIMS):
            raise CubeError(
                f"bands={bands!r}: {name} lies on {', '.join(map(str, v.dims)) or 'nothing'}, "
                f"expected time, y, x. {_such_as(ds)}"
            )
        classes = v.dtype.kind in "iu" and (is_layer(name, v.attrs) or v.dtype.itemsize == 1)
        if v.dtype.kind not in "iuf" or classes or canonical(name) == "SCL":
            raise CubeError(
                f"bands={bands!r}: {name} ({v.dtype}) holds classes or a mask, which no method "
                f"fills: expected reflectance or an index. {_such_as(ds)}"
            )
        found.append(name)
    return tuple(dict.fromkeys(found))


def _such_as(ds: xr.Dataset) -> str:
    names = list(_sorted_out(ds)[0]) or ["B04"]
    return f"Pass bands={names!r}."
