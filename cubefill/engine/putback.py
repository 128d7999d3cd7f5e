"""After a method has filled: clear pixels put back, every code of `fill_flag` set."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.indices import normalized_difference
from cubefill.engine.work import Arrays, Work
from cubefill.methods import Bool, Codes, Filled, Flag


def finish(work: Work, filled: Filled, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Output arrays on the caller's dates, clear pixels put back, every code set."""
    axes, names = work.axes, work.traits.gives
    trusted = work.traits.keeps_clear and axes.plain_in and axes.same and axes.plain_out
    flag = filled.flag
    if flag is None:
        flag = np.full(filled.bands[names[0]].shape, work.traits.flag, np.uint8)
    step = list(axes.out_step)
    expand = not axes.plain_out
    out = {n: filled.bands[n][step] if expand else filled.bands[n] for n in names}
    flag = flag[step] if expand else flag
    if not trusted:
        out = {n: _own(a) for n, a in out.items()}
        flag = _own(flag)
        _put_back(work, out, flag, arrays)
    if "source_missing" in arrays:
        out, flag = {n: _own(a) for n, a in out.items()}, _own(flag)
        _flag_missing(work, out, flag, arrays)
    if not trusted or flag.max(initial=0) >= Flag.UNFILLABLE:
        out, flag = {n: _own(a) for n, a in out.items()}, _own(flag)
        _flag_no_data(work, out, flag, arrays)
    return {**out, **_errors(work, filled, out, flag, trusted), "fill_flag": flag}


def _errors(
    work: Work, filled: Filled, out: Arrays, flag: Codes, trusted: bool
) -> dict[str, NDArray[Any]]:
    """`<band>_std` and quantiles on the caller's dates, NaN where observed or not filled."""
    wanted = {f"{n}_std": (n, filled.std.get(n)) for n in out} if work.std else {}
    wanted |= {q: (n, filled.quantiles.get(q)) for q, (n, _) in work.quantile_names.items()}
    known = trusted and flag.max(initial=0) < Flag.UNFILLABLE  # then the method's NaN are right
    found = {}
    for name, (band, given) in wanted.items():
        if given is None:
            given = np.full(filled.bands[band].shape, np.nan, np.float32)
        a = _own(given if work.axes.plain_out else given[list(work.axes.out_step)])
        if not known:
            a[(flag == Flag.OBSERVED) | ~_has_data(work, out[band])] = np.nan
        if name in work.quantile_names:
            value = out[band]
            np.add(a, work.counts.decode(value) if work.counts else value, out=a)
        found[name] = a
    return found


def _own(a: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy where writing into it could change something else."""
    return a if a.flags.writeable and a.flags.owndata else a.copy()


def _missing_value(work: Work) -> float:
    return work.counts.nodata if work.counts else np.nan


def _has_data(work: Work, a: NDArray[Any]) -> Bool:
    return a != work.counts.nodata if work.counts else np.isfinite(a)


def _observed(work: Work, name: str, arrays: Arrays) -> NDArray[Any] | None:
    """The observed series of an output, or None where an output has no observation."""
    if name in work.bands:
        return arrays[name]
    if name == "NDVI" and {"B08", "B04"} <= set(work.bands):
        return normalized_difference(arrays["B08"], arrays["B04"])
    return None


def _put_back(work: Work, out: dict[str, NDArray[Any]], flag: Codes, arrays: Arrays) -> None:
    axes, valid = work.axes, arrays["valid"]
    series = {n: _observed(work, n, arrays) for n in out}
    seen = [s for s in series.values() if s is not None]
    for i, sources in enumerate(axes.sources):
        clear_all = np.zeros(flag.shape[1:], bool)
        for j in reversed(sources):
            clear_here = valid[j].copy()
            for n, s in series.items():
                if s is not None:
                    clear = valid[j] & _has_data(work, s[j])
                    np.copyto(out[n][i], s[j], where=clear)
                    clear_here &= clear
            clear_all |= clear_here
        code = flag[i]
        if not work.traits.suffix:
            code[(code == Flag.OBSERVED) & ~clear_all] = work.traits.flag
        if seen:
            code[clear_all] = Flag.OBSERVED
        known = [_has_data(work, a[i]) for a in out.values()]
        every, some = np.logical_and.reduce(known), np.logical_or.reduce(known)
        for a, has in zip(out.values(), known, strict=True):
            np.copyto(a[i], _missing_value(work), where=~has)  # infinity of a method is no value
        if not sources:
            code[every] = Flag.NOT_ACQUIRED
        code[~every] = Flag.INCOMPLETE
        code[~some] = Flag.UNFILLABLE


def _flag_missing(work: Work, out: dict[str, NDArray[Any]], flag: Codes, arrays: Arrays) -> None:
    missing = arrays["source_missing"]
    for i, sources in enumerate(work.axes.sources):
        if sources:
            lost = missing[list(sources)].all(axis=0) & (flag[i] != Flag.OBSERVED)
            flag[i][lost] = Flag.SOURCE_MISSING
            for a in out.values():
                a[i][lost] = _missing_value(work)


def _flag_no_data(work: Work, out: dict[str, NDArray[Any]], flag: Codes, arrays: Arrays) -> None:
    """Code 255 and NaN where a pixel has no value on any date in any band."""
    dead = np.ones(flag.shape[1:], bool)
    for name in work.bands:
        for a in arrays[name]:
            dead &= ~_has_data(work, a)
            if not dead.any():
                return
    flag[:, dead] = Flag.NO_DATA
    for a in out.values():
        a[:, dead] = _missing_value(work)
