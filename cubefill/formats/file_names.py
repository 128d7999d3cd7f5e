"""The date and the layers that the name of an image tells."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cubefill.cube.bands import canonical
from cubefill.errors import CubeError

_CLOCK = r"(?P<clock>(?:[01]\d|2[0-3])[0-5]\d[0-5]\d)"
_YEAR = r"(?<!\d)(?P<year>(?:19|20)\d\d)"
_PRODUCTS = tuple(
    re.compile(head + rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)(?:T{_CLOCK})?" + tail)
    for head, tail in (
        (r"^S2[A-D]_MSIL[12][ABC]_", r"(?=_)"),  # the second stamp tells products of a date apart
        (r"^S2[A-D]_OPER_.*_V", r"(?=_)"),  # made on the first stamp, seen on that after V
        (r"^L[COTEM]\d\d_L\w{3}_\d{6}_", r"(?=_\d{8}_)"),  # Landsat: seen, then processed
    )
)
_DAYS = re.compile(
    _YEAR + r"(?P<cut>[-_.]?)(?P<month>0[1-9]|1[0-2])(?P=cut)(?P<day>0[1-9]|[12]\d|3[01])"
    rf"(?:T{_CLOCK}(?P<fraction>\d{{1,6}})?|-(?P<theia>\d{{6}})(?=-\d{{3}}_))?(?!\d)"
)
_ORDINALS = re.compile(_YEAR + rf"-?(?P<ordinal>[0-3]\d\d)(?:T{_CLOCK})?(?!\d)")
_BASELINE = re.compile(r"_N(\d{4})_")


def date_in(name: str) -> tuple[pd.Timestamp, str] | None:
    """The acquisition date in a name and the name without it; None where there is none.

    Knows the names of Sentinel-2 and Landsat products, and any name with one day in it, written
    20210301, 2021-03-01, 2021_03_01 or by its number in the year, 2021060; a time of day after
    a T is read.

    Raises
    ------
    CubeError
        The name holds two days and is not that of a known product.

    Examples
    --------
    >>> date_in("T31UDS_20210301T105621_B04_10m")
    (Timestamp('2021-03-01 10:56:21'), 'T31UDS__B04_10m')
    >>> date_in("HLS.S30.T31UDS.2021060.B04")[0]
    Timestamp('2021-03-01 00:00:00')
    """
    for product in _PRODUCTS:
        found = product.search(name)
        if found and (stamp := _stamp(found)) is not None:
            return stamp, _without(name, [found])
    for form in (_DAYS, _ORDINALS):
        hits = [(s, m) for m in form.finditer(name) if (s := _stamp(m)) is not None]
        days = sorted({s.normalize() for s, _ in hits})
        if len(days) > 1:
            raise CubeError(
                f"{name} holds two days, {days[0]:%Y-%m-%d} and {days[1]:%Y-%m-%d}: expected one. "
                "Pass dates= a list of one date a file, or a function of a file's path."
            )
        if hits:
            return hits[0][0], _without(name, [m for _, m in hits])
    return None


def date_of(path: Path, root: Path | None) -> pd.Timestamp | None:
    """The date in the name of a file, else of the nearest folder of it that lies in `root`."""
    inside = path.relative_to(root).parts[:-1] if root is not None else path.parts[:-1]
    for name in (path.stem, *reversed(inside)):
        if (found := date_in(name)) is not None:
            return found[0]
    return None


def layers_in(stem: str, count: int) -> tuple[str, ...]:
    """Bands that the name of a file tells, in its order; () unless they are as many as `count`.

    Examples
    --------
    >>> layers_in("T31UDS_20210301T105621_B04_10m", 1), layers_in("2021-03-01_red_nir", 2)
    (('B04',), ('B04', 'B08'))
    """
    rest = rest_of(stem)
    found = [b for word in re.split(r"[\W_]+", rest) if (b := canonical(word)) is not None]
    return tuple(found) if len(set(found)) == len(found) == count else ()


def rest_of(stem: str) -> str:
    """A name without its date and without signs at its ends; as it is where it holds two days."""
    try:
        found = date_in(stem)
    except CubeError:  # whoever reads the name for its band may have the date from the user
        found = None
    return (stem if found is None else found[1]).strip("_-. ")


def offset_baseline(paths: Iterable[Path]) -> str | None:
    """The first processing baseline from N0400 on that a path names, or None."""
    found = (m for path in paths for part in path.parts for m in _BASELINE.findall(part))
    return next((f"N{number}" for number in found if int(number) >= 400), None)


def _stamp(found: re.Match[str]) -> pd.Timestamp | None:
    parts = found.groupdict()
    clock = parts.get("clock") or parts.get("theia") or "000000"
    fraction = (parts.get("fraction") or "0").ljust(6, "0")
    if parts.get("ordinal"):
        day, form = parts["year"] + parts["ordinal"], "%Y%j"
    else:
        day, form = parts["year"] + parts["month"] + parts["day"], "%Y%m%d"
    stamp = pd.to_datetime(f"{day}{clock}{fraction}", format=f"{form}%H%M%S%f", errors="coerce")
    return None if pd.isna(stamp) else stamp


def _without(name: str, found: list[re.Match[str]]) -> str:
    for match in reversed(found):
        name = name[: match.start("year")] + name[match.end() :]
    return name
