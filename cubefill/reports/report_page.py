"""A report on a cube or its filled form: pictures, shares, held-out errors and warnings."""

import json
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubefill.addresses import local_path, writing
from cubefill.cube import accept, describe
from cubefill.cube.flags import in_words
from cubefill.errors import CubefillError, MethodError
from cubefill.evaluate import self_test as held_out
from cubefill.methods import AUTO, Flag, Method, name_of, resolve
from cubefill.methods.registry import listed
from cubefill.ownership import claim_files
from cubefill.plot.pixels import aligned, date_text, decimate, source_cube, thinned, with_valid
from cubefill.reports import sections as parts
from cubefill.reports.charts import clear_chart
from cubefill.reports.facts import Summary, flag_rows, summarise, warnings_of
from cubefill.reports.html import GENERATOR, Section, notes, page, tiles

EAGER = 512 * 2**20
"""Bytes up to which a lazy result is computed once and kept."""
NUMBERS_PX = 192
"""Rows and columns that numbers are taken from."""
SMALL = 4_000_000
"""Pixels and dates up to which the one-line summary counts gaps in memory."""


@dataclass(frozen=True)
class Report:
    """What is known of a cube: shown by a notebook, saved as one HTML file, printed as text.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> found = report(synthetic_cube(), self_test=False)
    >>> found.save("/tmp/report.html").name
    'report.html'
    """

    title: str
    facts: Summary
    scores: xr.Dataset | None
    """Held-out errors, methods by metrics; None where they were not asked for or not possible."""
    warnings: tuple[str, ...]
    text: str
    lead: str = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes one self-contained HTML file, and returns its path."""
        target = local_path(path)
        claim_files([target], "report", _is_report)
        text = self.html()
        with writing(target):
            target.write_text(text, encoding="utf-8")
        return target

    def html(self) -> str:
        """The whole page."""
        return page(self.title, self.lead, self.sections)

    def _repr_html_(self) -> str:
        return page(self.title, self.lead, self.sections, fragment=True)

    def __repr__(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


def _is_report(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return GENERATOR in file.read(1000)


def report(
    ds: xr.Dataset,
    before: xr.Dataset | None = None,
    method: str | Method | None = None,
    self_test: bool = True,
    path: str | Path | None = None,
) -> Report:
    """A report on a filled cube, or on the quality of a cube that is still to be filled.

    At most 192 rows and columns are read for numbers and 400 for pictures. A lazy result of more
    than 512 MB is computed several times: write it first, and report on what `open_cube` gives.

    Parameters
    ----------
    ds
        A filled cube (it has `fill_flag`) or a cube.
    before
        The cube that `ds` was filled from. By default the one that `ds` remembers; without any,
        cloudy values are not shown and nothing is held out.
    method
        The method whose held-out error is measured, against linear. By default the one that filled
        `ds`, with its parameters, or the default method.
    self_test
        False leaves the held-out error out, which fills a part of the cube once per method.
    path
        Where to save the page.

    Returns
    -------
    Report
        With `save(path)`, `scores`, `facts` and `warnings`.

    Raises
    ------
    CubeError
        `before` does not cover `ds`.
    CubefillError
        pillow is not installed.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> report(synthetic_cube(), self_test=False).title
    'Cube before gap filling'
    """
    ds = accept(ds)
    out = ds if "fill_flag" in ds else None
    source = ds if out is None else source_cube(ds, before)
    cube = source if out is None else aligned(source, ds, given=before is not None)
    if out is not None and out.chunks and out.nbytes <= EAGER:
        out = out.compute()
    cube = None if cube is None else _judged(cube, out)
    thin, flags = _thin(ds, cube, out)
    found = replace(summarise(thin, flags), every=thinned(ds, NUMBERS_PX))
    scores, reason = _scores(cube, out, method, self_test)
    spots = parts.find_spots(cube, out, thin)
    warnings = (*warnings_of(found), *_score_warnings(scores))
    if scores is not None and reason:
        warnings = (reason, *warnings)
    sections = (
        Section("Worth a second look", parts.MEANING["warnings"], notes(warnings)),
        *parts.picture_section(cube, out, found, spots),
        Section("Clear share of each date", parts.MEANING["clear"], clear_chart(found)),
        *parts.curve_sections(spots),
        *parts.score_sections(scores, reason),
        *parts.number_sections(found),
        parts.provenance_section(ds),
    )
    name = ds.attrs.get("gapfill_method", "an unnamed method")
    title = f"Gap filling by {name}" if out is not None else "Cube before gap filling"
    made = Report(
        title=title,
        facts=found,
        scores=scores,
        warnings=warnings,
        text=_text(title, ds, found, scores, warnings),
        lead=_lead(ds, found, scores),
        sections=sections,
    )
    if path is not None:
        made.save(path)
    return made


def summary_html(ds: xr.Dataset) -> str:
    """One line of HTML on a dataset; reads pixels only where a small `valid` is in memory.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> "12 dates" in summary_html(synthetic_cube())
    True
    """
    parts = [describe(ds)]
    known = ds.variables.get("fill_flag", ds.variables.get("valid"))
    if known is not None and isinstance(known._data, np.ndarray) and known.size <= SMALL:
        values = known.values
        gaps = float((values != 0).mean() if known.dtype == np.uint8 else (~values).mean())
        parts.append(f"{in_words(gaps)} {'filled' if 'fill_flag' in ds else 'missing'}")
    if "gapfill_method" in ds.attrs:
        parts.append(f"filled by {ds.attrs['gapfill_method']}")
    return (
        '<div style="font-family:monospace;padding:.3em 0">'
        f"&lt;gapfill: {escape(', '.join(parts))}&gt;</div>"
    )


def _thin(
    ds: xr.Dataset, cube: xr.Dataset | None, out: xr.Dataset | None
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Every n-th pixel of what numbers come from, and of the flags; these are computed once."""
    thin = decimate(ds if cube is None else cube, NUMBERS_PX)
    if out is None:
        return thin, None
    flags = decimate(out, NUMBERS_PX)[["fill_flag"]].compute()
    if cube is None:
        return thin.assign(fill_flag=flags["fill_flag"]), flags
    return _judged(thin, flags), flags


def _judged(cube: xr.Dataset, out: xr.Dataset | None) -> xr.Dataset:
    """The cube with the `valid` that its filled form was made with."""
    if out is not None and np.array_equal(cube["time"].values, out["time"].values):
        return cube.assign(valid=out["fill_flag"] == int(Flag.OBSERVED))
    return with_valid(cube)


# ------------------------------------------------------------------ held-out errors


def _scores(
    cube: xr.Dataset | None, out: xr.Dataset | None, method: Any, wanted: bool
) -> tuple[xr.Dataset | None, str]:
    if not wanted:
        return None, ""
    if cube is None:
        return None, "The cube before filling is not at hand: pass before= to measure the error."
    try:
        chosen, said = _method(out, method)
        same = name_of(chosen) == "linear"
        return held_out(cube, methods=(chosen, "nearest" if same else "linear")), said
    except CubefillError as error:
        return None, f"Not measured: {error}"


def _method(out: xr.Dataset | None, method: Any) -> tuple[Method, str]:
    """1. `method`. 2. The method that the attributes name, with its parameters. 3. The default.

    Attributes may come from anybody: they name a method of the table and its options, never code.
    The text says why it is the default.
    """
    if method is not None:
        return resolve(method), ""
    attrs = {} if out is None else out.attrs
    name = attrs.get("gapfill_method", AUTO)
    try:
        if not isinstance(name, str) or not listed(name):
            raise MethodError("it is not among cubefill.list_methods()")
        options = json.loads(attrs.get("gapfill_parameters", "{}"))
        return resolve(name, **options), ""
    except (ValueError, TypeError, CubefillError) as error:
        return resolve(AUTO), (
            f"The attributes name the method {str(name)[:80]!r}, which cannot be measured "
            f"({error}): measured is {AUTO}. Pass method= to measure another."
        )


def _score_warnings(scores: xr.Dataset | None) -> list[str]:
    """Where linear, the second method, beats the first one by more than 2 %."""
    if scores is None or scores["method_name"].values.tolist()[1:2] != ["linear"]:
        return []
    name = str(scores["method_name"].values[0])
    found = []
    for metric, what in (("mae", "reflectance"), ("ndvi_mae", "NDVI")):
        first, second = scores[metric].values[:2] if metric in scores else (0.0, 0.0)
        if first > 1.02 * second:
            found.append(
                f"On hidden pixels of this cube, the error of {name} in {what} is "
                f"{in_words(float(first / second) - 1)} larger than that of linear."
            )
    return found


# ------------------------------------------------------------------ words


def _lead(ds: xr.Dataset, found: Summary, scores: xr.Dataset | None) -> str:
    values = [
        (in_words(found.gaps), "of pixels and dates not clear"),
        (str(found.clear_dates[1]), f"clear dates of the median pixel, {found.time.size} in all"),
        (in_words(found.long), "of the gaps over 60 days"),
    ]
    if found.flags:
        left = sum(found.flags.get(code, 0.0) for code in (7, 8))
        values.append((in_words(left), "could not be filled"))
    if scores is not None:
        first, second = scores["method_name"].values[:2]
        mae = scores["mae"].values
        values.append((f"{mae[0]:.4f}", f"held-out MAE of {first}"))
        if second == "linear" and mae[1] > 0:
            values.append((f"{mae[0] / mae[1]:.2f}", "times the held-out MAE of linear"))
    every = f", numbers from one pixel in {found.every**2}" if found.every > 1 else ""
    days = f"{date_text(found.time[0])} to {date_text(found.time[-1])}"
    return f"<p>{escape(describe(ds))}</p><p>{days}{every}</p>{tiles(values)}"


def _text(
    title: str, ds: xr.Dataset, found: Summary, scores: xr.Dataset | None, warnings: tuple[str, ...]
) -> str:
    lines = [
        f"{title}: {describe(ds)}",
        f"  gaps      {in_words(found.gaps)} of pixels and dates; {in_words(found.long)} of them "
        f"over 60 days, {in_words(found.ends)} at an end of the series",
        f"  clear     {found.clear_dates[0]} to {found.clear_dates[2]} dates a pixel, median "
        f"{found.clear_dates[1]}",
    ]
    if found.flags:
        shares = ", ".join(f"{label} {in_words(share)}" for _, label, share in flag_rows(found))
        lines.append(f"  flags     {shares}")
    if scores is not None:
        each = ", ".join(
            f"{m} {v:.4f}"
            for m, v in zip(scores["method_name"].values, scores["mae"].values, strict=True)
        )
        lines.append(f"  held out  MAE {each} (n = {scores.attrs.get('n', 0)})")
    lines += [f"  look at   {w}" for w in warnings]
    return "\n".join(lines)
