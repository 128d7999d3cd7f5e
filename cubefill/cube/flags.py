"""How a value came about: the codes of `fill_flag` and of `NDVI_flag`."""

from enum import IntEnum
from typing import Any

import numpy as np


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
