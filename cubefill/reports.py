"""A report on a cube or its filled form: pictures, shares, held-out errors, warnings, provenance."""

import json
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubefill.cube import describe
from cubefill.curves import Curve, Place, curve, full_index, pixel, place, telling_pixel
from cubefill.errors import CubeError, CubefillError
from cubefill.evaluate import self_test as held_out
from cubefill.method import AUTO, Method, name_of, resolve
from cubefill.pictures import (
    Cover,
    align,
    clear_of,
    colour_bands,
    cover,
    date_text,
    decimate,
    named,
    rgba,
    same_day,
    source_cube,
)
from cubefill.reports_charts import clear_chart, curve_chart, flag_bar, gap_bars
from cubefill.reports_facts import Facts, facts, flag_rows, warnings_of, words
from cubefill.reports_html import (
    Picture,
    Section,
    figure,
    notes,
    page,
    pairs,
    pin,
    score_table,
    slider,
    tiles,
)

PICTURE_PX = 480
"""Longest side of a picture in the page, which keeps the page below 3 MB."""
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
    facts: Facts
    scores: xr.Dataset | None
    """Held-out errors, methods by metrics; None where they were not asked for or not possible."""
    warnings: tuple[str, ...]
    text: str
    lead: str = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes one self-contained HTML file, and returns its path."""
        target = Path(path)
        target.write_text(self.html(), encoding="utf-8")
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


def report(
    ds: xr.Dataset,
    before: xr.Dataset | None = None,
    method: str | Method | None = None,
    self_test: bool = True,
    path: str | Path | None = None,
) -> Report:
    """A report on a filled cube, or on the quality of a cube that is still to be filled.

    At most 192 rows and columns are read for numbers and 480 for pictures.

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
    out = ds if "fill_flag" in ds else None
    source = ds if out is None else source_cube(ds, before)
    cube = source if out is None or source is None else align(source, ds)
    if before is not None and cube is None:
        raise CubeError(
            "before= does not cover the filled cube: expected a cube that has all of its x and y. "
            "Type before=ds with the cube that was filled."
        )
    found = facts(ds if cube is None else cube, out)
    scores, reason = _scores(cube, out, method, self_test)
    curves = _curves(cube, out)
    warnings = (*warnings_of(found), *_score_warnings(scores))
    name = _method_name(out, method)
    sections = [
        Section("Worth a second look", _MEANING["warnings"], notes(warnings)),
        _picture_section(cube, out, [c[0] for c in curves]),
        Section("Clear share of each date", _MEANING["clear"], clear_chart(found, _marked(found))),
        *_curve_sections(curves),
        *_score_sections(scores, reason, self_test),
        *([Section("How each value came to be", _MEANING["flags"], flag_bar(found))] * bool(out)),
        Section("Length of the gaps", _MEANING["gaps"], gap_bars(found)),
        Section("Provenance", _MEANING["provenance"], pairs(_provenance(ds))),
    ]
    title = f"Gap filling by {name}" if out is not None else "Cube before gap filling"
    made = Report(
        title=title,
        facts=found,
        scores=scores,
        warnings=warnings,
        text=_text(title, ds, found, scores, warnings),
        lead=_lead(ds, found, scores),
        sections=tuple(sections),
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
        parts.append(f"{words(gaps)} {'filled' if 'fill_flag' in ds else 'missing'}")
    if "gapfill_method" in ds.attrs:
        parts.append(f"filled by {ds.attrs['gapfill_method']}")
    return (
        '<div style="font-family:monospace;padding:.3em 0">'
        f"&lt;gapfill: {escape(', '.join(parts))}&gt;</div>"
    )


# ------------------------------------------------------------------ held-out errors


def _scores(
    cube: xr.Dataset | None, out: xr.Dataset | None, method: Any, wanted: bool
) -> tuple[xr.Dataset | None, str]:
    if not wanted:
        return None, ""
    if cube is None:
        return None, "The cube before filling is not at hand: pass before= to measure the error."
    try:
        chosen = _method(out, method)
        same = name_of(chosen) == "linear"
        return held_out(cube, methods=(chosen, "nearest" if same else "linear")), ""
    except CubefillError as error:
        return None, f"Not measured: {error}"


def _method(out: xr.Dataset | None, method: Any) -> Method:
    """1. `method`. 2. The method that the attributes name, with its parameters. 3. The default."""
    if method is not None:
        return resolve(method)
    attrs = {} if out is None else out.attrs
    name = str(attrs.get("gapfill_method", AUTO))
    try:
        options = json.loads(attrs.get("gapfill_parameters", "{}"))
        return resolve(name, **options)
    except (ValueError, TypeError):
        return resolve(name)


def _method_name(out: xr.Dataset | None, method: Any) -> str:
    if out is not None and "gapfill_method" in out.attrs:
        return str(out.attrs["gapfill_method"])
    return method if isinstance(method, str) else "an unnamed method" if method is None else name_of(method)


def _score_warnings(scores: xr.Dataset | None) -> list[str]:
    if scores is None or scores.sizes["method"] < 2:
        return []
    first, second = (float(v) for v in scores["mae"].values[:2])
    names = [str(n) for n in scores["method"].values[:2]]
    if names[1] == "linear" and first > 1.02 * second:
        return [
            f"On this cube {names[0]} is {words(first / second - 1)} worse than linear on hidden "
            "pixels: linear is the better choice here."
        ]
    return []


def _score_sections(scores: xr.Dataset | None, reason: str, wanted: bool) -> list[Section]:
    if not wanted:
        return []
    if scores is None:
        return [Section("Held-out error on this cube", escape(reason), "")]
    a = scores.attrs
    meaning = f"{_MEANING['scores']} {a.get('comment', '')}".strip()
    return [Section("Held-out error on this cube", meaning, score_table(scores))]


# ------------------------------------------------------------------ pictures


def _marked(found: Facts) -> str | None:
    if not found.covered.any():
        return None
    return date_text(found.time[Cover(found.clear, found.covered).cloudiest])


def _picture_section(cube: xr.Dataset | None, out: xr.Dataset | None, places: list[Place]) -> Section:
    ds = cube if cube is not None else out
    assert_ds = ds
    bands = colour_bands(assert_ds)
    dates = cover(assert_ds)
    pins = _pins(assert_ds, places)
    if out is None:
        shown = [("Clearest date", dates.clearest), ("Cloudiest date", dates.cloudiest)]
        body = "".join(
            figure(Picture(_colours(assert_ds, i, bands), f"{what} in colour"), f"{what}, {_date(assert_ds, i)}")
            for what, i in shown
        )
        return Section("Two dates", _MEANING["pictures"], f'<div class="pictures">{body}</div>')
    day = assert_ds["time"].values[dates.cloudiest]
    index = int(np.abs(out["time"].values - day).argmin())
    after = _colours(out, index, bands)
    flag = decimate(out, PICTURE_PX)["fill_flag"].isel(time=index).transpose("y", "x").values
    at = None if cube is None else same_day(cube, out["time"].values[index])
    if cube is None or at is None:
        first, note = np.where((flag == 0)[..., None], after, np.uint8(0)), " (observed pixels only)"
    else:
        first, note = _colours(cube, at, bands), ""
    date = _date(out, index)
    clear = words(float((flag == 0).mean()))
    body = slider(
        Picture(first, f"The cube on {date} before filling, in colour"),
        Picture(after, f"The cube on {date} after filling, in colour"),
        f"{date}, {clear} observed. Before{note} on the left, after on the right: move the pointer "
        "over the picture, tap it, or use the arrow keys.",
        pins,
    ) + figure(Picture(flag, f"fill_flag on {date}: {clear} observed"), f"fill_flag on {date}; key below.")
    return Section("The cloudiest date", _MEANING["pictures"], f'<div class="pictures">{body}</div>')


def _colours(ds: xr.Dataset, index: int, bands: tuple[str, ...]) -> Any:
    step = decimate(ds, PICTURE_PX).isel(time=index)
    return rgba(step[list(dict.fromkeys(named(step, bands)))].compute(), bands)


def _pins(ds: xr.Dataset, places: list[Place]) -> str:
    return "".join(
        pin(n, (p.x.start + 0.5) / ds.sizes["x"], (p.y.start + 0.5) / ds.sizes["y"])
        for n, p in enumerate(places, 1)
    )


def _date(ds: xr.Dataset, index: int) -> str:
    return date_text(ds["time"].values[index])


# ------------------------------------------------------------------ curves


def _curves(cube: xr.Dataset | None, out: xr.Dataset | None) -> list[tuple[Place, str, Curve]]:
    """NDVI where it changes most, typically, least, and where most gaps are."""
    ds = cube if cube is not None else out
    try:
        spots = _spots(ds)
    except CubeError:
        return []
    return [(where, what, curve(cube, out, where)) for what, where in spots]


def _spots(ds: xr.Dataset) -> list[tuple[str, Place]]:
    from cubefill.curves import ndvi_of

    small = decimate(ds, 40)
    got = xr.Dataset({"ndvi": ndvi_of(small), "clear": clear_of(small)})
    got = got.transpose("time", "y", "x").compute()
    value = np.where(got["clear"].values, got["ndvi"].values, np.nan)
    count = np.isfinite(value).sum(0)
    fair = count >= max(3, np.quantile(count, 0.25))
    if not fair.any():
        return []
    value[:, ~fair] = 0
    spread = np.where(fair, np.nanquantile(value, 0.9, axis=0) - np.nanquantile(value, 0.1, axis=0), np.nan)
    order = np.argsort(spread, axis=None)[: int(fair.sum())]
    picks = {
        "changes most": order[int(0.98 * (order.size - 1))],
        "typical": order[order.size // 2],
        "changes least": order[int(0.02 * (order.size - 1))],
    }
    shape = spread.shape
    found = {
        what: full_index(ds, small, *(int(v) for v in np.unravel_index(int(i), shape)))
        for what, i in picks.items()
    }
    found["most gaps"] = telling_pixel(ds)
    distinct = {at: what for what, at in reversed(found.items())}
    return [(what, pixel(ds, *at)) for what, at in found.items() if distinct[at] == what]


def _curve_sections(curves: list[tuple[Place, str, Curve]]) -> list[Section]:
    if not curves:
        return []
    body = _LEGEND + "".join(
        f'<h3><span class="dot">{n}</span>{escape(what)}: {escape(where.label)}</h3>'
        f"{curve_chart(found, n)}"
        for n, (where, what, found) in enumerate(curves, 1)
    )
    return [Section("NDVI of single pixels", _MEANING["curves"], body)]


_LEGEND = (
    '<p class="legend"><i style="background:currentColor;border-radius:50%"></i>observed'
    '<i style="border-radius:50%"></i>cloudy, not used'
    '<i style="background:#2a85c7;height:3px;vertical-align:4px;border:0;width:18px"></i>filled'
    '<i style="background:rgba(42,133,199,.25);border:0"></i>90 % interval, where known</p>'
)

# ------------------------------------------------------------------ words


_MEANING = {
    "warnings": "Signs that a number below may mislead, or that the source needs a look.",
    "pictures": "Every picture has the same stretch, reflectance 0 to 0.3 with gamma 1/1.2, so that "
    "brightness compares; grey is no data.",
    "clear": "Height is the share of pixels seen clear on each date; grey is cloud or shadow, empty "
    "is no data; the triangle marks the cloudiest date.",
    "flags": "Share of each code of fill_flag over all pixels and dates; observed values are those "
    "of the source, unchanged.",
    "gaps": "Days from the clear observation before a missing one to the next clear one: the longer "
    "the gap, the less any method can know.",
    "curves": "One pixel each, numbered on the picture; dots are what was seen, the line is what the "
    "filled cube holds.",
    "scores": "Clear pixels were hidden under real cloud shapes of other dates and filled again: "
    "the difference is the error to expect in gaps like these.",
    "provenance": "What the dataset says of itself, so that it can be made again.",
}


def _lead(ds: xr.Dataset, found: Facts, scores: xr.Dataset | None) -> str:
    values = [
        (words(found.gaps), "of pixels and dates not clear"),
        (str(found.clear_dates[1]), f"clear dates of the median pixel, {found.time.size} in all"),
        (words(found.long), "of the gaps over 60 days"),
    ]
    if found.flags:
        left = sum(found.flags.get(code, 0.0) for code in (7, 8))
        values.append((words(left), "could not be filled"))
    if scores is not None:
        values.append((f"{float(scores['mae'][0]):.4f}", f"held-out MAE of {scores['method'].values[0]}"))
    every = f", numbers from every {found.every}th pixel" if found.every > 1 else ""
    days = f"{date_text(found.time[0])} to {date_text(found.time[-1])}"
    return f"<p>{escape(describe(ds))}</p><p>{days}{every}</p>{tiles(values)}"


def _provenance(ds: xr.Dataset) -> dict[str, str]:
    """Attributes in plain words, those of gap filling first."""
    rows = {str(k): str(v) for k, v in ds.attrs.items() if isinstance(v, str | int | float | list)}
    order = sorted(rows, key=lambda k: (k == "history", not k.startswith("gapfill"), k))
    named_rows = {k.removeprefix("gapfill_").replace("_", " "): rows[k][:2000] for k in order}
    if "valid" in ds and "comment" in ds["valid"].attrs:
        named_rows.setdefault("valid", str(ds["valid"].attrs["comment"]))
    return named_rows or {"attributes": "none"}


def _text(
    title: str, ds: xr.Dataset, found: Facts, scores: xr.Dataset | None, warnings: tuple[str, ...]
) -> str:
    lines = [
        f"{title}: {describe(ds)}",
        f"  gaps      {words(found.gaps)} of pixels and dates; {words(found.long)} of them over 60 "
        f"days, {words(found.ends)} at an end of the series",
        f"  clear     {found.clear_dates[0]} to {found.clear_dates[2]} dates a pixel, median "
        f"{found.clear_dates[1]}",
    ]
    if found.flags:
        shares = ", ".join(f"{label} {words(share)}" for _, label, share in flag_rows(found))
        lines.append(f"  flags     {shares}")
    if scores is not None:
        each = ", ".join(
            f"{m} {v:.4f}" for m, v in zip(scores["method"].values, scores["mae"].values, strict=True)
        )
        lines.append(f"  held out  MAE {each} (n = {scores.attrs.get('n', 0)})")
    lines += [f"  look at   {w}" for w in warnings]
    return "\n".join(lines)
