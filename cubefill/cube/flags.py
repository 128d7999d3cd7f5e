"""How a value came about: the codes of `fill_flag` and of `NDVI_flag`."""

from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cubefill.errors import CubeError

if TYPE_CHECKING:
    import xarray as xr


class Flag(IntEnum):
    """Codes of `fill_flag`: the state of a pixel and date over all of its bands.

    7, 8 and 255 leave NaN in every band, 11 in at least one of them, all others in none. Where
    bands came about in different ways, the code is that of the band least well known: 0 says that
    every band was observed. 12 stands beside `NDVI` alone, where 8 says that it is not defined.
    """

    OBSERVED = 0
    INTERPOLATED = 1
    SAME_DATE = 2
    LEARNED = 3
    CLIMATOLOGY = 4
    EXTRAPOLATED = 5
    SMOOTHED = 6
    SOURCE_MISSING = 7
    UNFILLABLE = 8
    NOT_ACQUIRED = 9
    FEW_OBSERVATIONS = 10
    INCOMPLETE = 11
    CLIPPED = 12
    NO_DATA = 255


def flag_attrs(name: str = "fill_flag") -> dict[str, Any]:
    """CF attributes of `fill_flag`, or of the flag of an index, which has a code of its own.

    Examples
    --------
    >>> flag_attrs("NDVI_flag")["flag_meanings"].split()[8:]
    ['undefined', 'not_acquired', 'few_observations', 'incomplete', 'clipped', 'no_data']
    """
    own = {} if name == "fill_flag" else {Flag.UNFILLABLE: "undefined"}
    codes = [f for f in Flag if own or f != Flag.CLIPPED]
    what = "each value" if name == "fill_flag" else name.removesuffix("_flag")
    return {
        "long_name": f"how {what} was obtained",
        "standard_name": "status_flag",
        "flag_values": np.array(codes, np.uint8),
        "flag_meanings": " ".join(own.get(f, f.name.lower()) for f in codes),
    }


# ------------------------------------------------------------------ how much was filled how


def codes_in(flag: NDArray[np.uint8]) -> Counter[int]:
    """Number of values of each code of `Flag` that occurs."""
    found, left = Counter[int](), flag.size
    for code in Flag:
        n = int(np.count_nonzero(flag == code)) if left else 0
        left -= n
        if n:
            found[int(code)] = n
    return found


def shares_of(codes: Mapping[int, int]) -> dict[str, float]:
    """Share of each code among the gaps, largest first; values outside the acquisition aside.

    Examples
    --------
    >>> shares_of({0: 60, 1: 10, 2: 30, 255: 100})
    {'same_date': 0.75, 'interpolated': 0.25}
    """
    gaps = {c: n for c, n in codes.items() if c not in (Flag.OBSERVED, Flag.NO_DATA) and n}
    total = sum(gaps.values())
    return {
        Flag(c).name.lower(): round(n / total, 6)
        for c, n in sorted(gaps.items(), key=lambda item: (-item[1], item[0]))
    }


def shares_line(codes: Mapping[int, int]) -> str:
    """The same in a sentence.

    Examples
    --------
    >>> shares_line({0: 60, 1: 10, 2: 30})
    '40 % of pixels and dates were gaps: 75 % of them same_date, 25 % interpolated'
    """
    inside = sum(n for c, n in codes.items() if c != Flag.NO_DATA)
    if not (told := shares_of(codes)):
        return "no gaps: every pixel was clear on every date"
    each = [f"{in_words(share)} {name}" for name, share in told.items()]
    each[0] = each[0].replace(" % ", " % of them ", 1)
    share = 1 - codes.get(Flag.OBSERVED, 0) / inside
    return f"{in_words(share)} of pixels and dates were gaps: {', '.join(each)}"


def fill_shares(ds: "xr.Dataset") -> dict[str, float]:
    """Share of the gaps of a filled cube that each code of `fill_flag` names, largest first.

    Every pixel counts. Of a lazy result the flags are computed, and so is the whole fill: store it
    first, and ask what `open_cube` gives. Values outside the acquisition (255) are no gaps.

    Raises
    ------
    CubeError
        `ds` has no `fill_flag`.

    Examples
    --------
    >>> import cubefill
    >>> from cubefill.testing import synthetic_cube
    >>> fill_shares(synthetic_cube().gapfill("linear"))
    {'interpolated': 0.747602, 'extrapolated': 0.252398}
    """
    if "fill_flag" not in ds:
        raise CubeError(
            "The dataset has no fill_flag: expected a filled cube. Use ds.gapfill() first."
        )
    flag = ds["fill_flag"].data
    if isinstance(flag, np.ndarray):
        return shares_of(codes_in(flag))
    import dask

    blocks = [dask.delayed(codes_in)(block) for block in flag.to_delayed().ravel()]  # type: ignore[attr-defined]
    return shares_of(sum(dask.compute(*blocks), Counter[int]()))  # type: ignore[attr-defined, no-untyped-call]


def in_words(share: float) -> str:
    """A share in percent, with one digit where it is small.

    Examples
    --------
    >>> in_words(0.4321), in_words(0.0123), in_words(0.00001)
    ('43 %', '1.2 %', '< 0.1 %')
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"
