"""The parts of a report's page: pictures, curves, charts and tables, each with its meaning."""

from html import escape

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.flags import in_words
from cubefill.errors import CubeError
from cubefill.plot.curves import (
    Curve,
    Location,
    curve,
    full_index,
    ndvi_of,
    pixel,
    representative_pixel,
)
from cubefill.plot.pixels import clear_of, colour_bands, date_text, decimate, named, rgba, same_day
from cubefill.reports.charts import (
    curve_chart,
    curve_key,
    flag_bar,
    flag_key,
    gap_bars,
)
from cubefill.reports.facts import Summary
from cubefill.reports.html import Picture, Section, figure, pairs, pin, score_table, slider

PICTURE_PX = 400
"""Longest side of a picture in the page, which keeps the page below 3 MB."""

Spot = tuple[Location, str, Curve]
"""A pixel, why it was chosen, and its NDVI."""


MEANING = {
    "warnings": "Signs that a number below may mislead, or that the source needs a look.",
    "A partly cloudy date": "Where the edge of a cloud shows in the filled picture, the fill does "
    "not fit what was seen beside it on the same date.",
    "The cloudiest date": "Every picture has the same stretch, reflectance 0 to 0.3 with gamma "
    "1/1.2, so that brightness compares; grey is no data.",
    "clear": "Height is the share of pixels seen clear on each date; grey is cloud or shadow, "
    "empty is no data; the triangle marks the cloudiest date.",
    "flags": "Share of each code of fill_flag over all pixels and dates; observed values are those "
    "of the source, unchanged.",
    "gaps": "Days from the clear observation before a missing one to the next clear one: the "
    "longer the gap, the less any method can know.",
    "curves": "One pixel each, numbered on the picture; dots are what was seen, the line is what "
    "the filled cube holds.",
    "scores": "Clear pixels were hidden under real cloud shapes of other dates and filled again: "
    "the difference is the error to expect in gaps like these.",
    "provenance": "What the dataset says of itself, so that it can be made again.",
}


# ------------------------------------------------------------------ pictures


def picture_section(
    cube: xr.Dataset | None, out: xr.Dataset | None, found: Summary, spots: list[Spot]
) -> list[Section]:
    """Before and after on the cloudiest date, or two dates of a cube before filling."""
    if out is None:
        return [] if cube is None else [_two_dates(cube, found, _pins(cube, spots))]
    days = {"The cloudiest date": found.dates.cloudiest}
    if found.dates.partly is not None:
        days.setdefault("A partly cloudy date", found.dates.partly)
    pins = _pins(out, spots)
    bands = colour_bands(out)
    shown = {title: _index(out, found.time[i]) for title, i in days.items()}
    order = list(dict.fromkeys(shown.values()))
    steps = decimate(out, PICTURE_PX).isel(time=order)
    after = steps[list(dict.fromkeys([*named(out, bands), "fill_flag"]))].compute()
    parts = [
        Section(title, MEANING[title], _before_after(cube, after.isel(time=order.index(i)), pins))
        for title, i in shown.items()
    ]
    return parts[: len(order)]


def _before_after(cube: xr.Dataset | None, step: xr.Dataset, pins: str) -> str:
    """Slider and flags of one filled time step."""
    after = rgba(step, colour_bands(step))
    flag = step["fill_flag"].transpose("y", "x").values
    first, note = _first(cube, step, after, flag)
    date, clear = date_text(step["time"].values), in_words(float((flag == 0).mean()))
    body = slider(
        Picture(first, f"The cube on {date} before filling, in colour"),
        Picture(after, f"The cube on {date} after filling, in colour"),
        f"{date}, {clear} observed. Left: before{note}. Right: after. Move the pointer over the "
        "picture, tap it, or use the arrow keys.",
        pins,
    ) + figure(
        Picture(flag, f"fill_flag on {date}: {clear} observed"),
        f"fill_flag on {date}.",
        flag_key(int(c) for c in np.unique(flag)),
        pins,
    )
    return f'<div class="pictures">{body}</div>'


def _two_dates(cube: xr.Dataset, found: Summary, pins: str) -> Section:
    days = (("Clearest date", found.dates.clearest), ("Cloudiest date", found.dates.cloudiest))
    body = "".join(
        figure(
            Picture(_colours(cube, _index(cube, found.time[i])), f"{what} in colour"),
            f"{what}, {date_text(found.time[i])}: {in_words(float(found.clear[i]))} clear.",
            pins=pins,
        )
        for what, i in days
    )
    return Section(
        "Two dates", MEANING["The cloudiest date"], f'<div class="pictures">{body}</div>'
    )


def _index(ds: xr.Dataset, day: np.datetime64) -> int:
    return int(np.abs(ds["time"].values - day).argmin())


def _pins(ds: xr.Dataset, spots: list[Spot]) -> str:
    return "".join(
        pin(n, (p.x.start + 0.5) / ds.sizes["x"], (p.y.start + 0.5) / ds.sizes["y"])
        for n, (p, _, _) in enumerate(spots, 1)
    )


def _first(
    cube: xr.Dataset | None,
    step: xr.Dataset,
    after: NDArray[np.uint8],
    flag: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], str]:
    """The picture before filling, and what to say of it."""
    at = None if cube is None else same_day(cube, step["time"].values)
    if cube is None or at is None:
        return np.where((flag == 0)[..., None], after, np.uint8(0)), ", observed pixels only"
    return _colours(cube, at), ""


def _colours(ds: xr.Dataset, index: int) -> NDArray[np.uint8]:
    bands = colour_bands(ds)
    step = decimate(ds, PICTURE_PX, index)
    return rgba(step[list(dict.fromkeys(named(step, bands)))].compute(), bands)


# ------------------------------------------------------------------ curves


def find_spots(cube: xr.Dataset | None, out: xr.Dataset | None, thin: xr.Dataset) -> list[Spot]:
    """Pixels where NDVI changes most, typically, least, and where most gaps are.

    They are chosen among those of `thin`, every n-th pixel of the cube. Empty where the cube has
    no NDVI or was hardly ever clear.
    """
    ds = cube if cube is not None else out
    if ds is None:
        return []
    try:
        spots = _spots(ds, thin)
    except CubeError:
        return []
    return [(where, what, curve(cube, out, where)) for what, where in spots]


def _spots(ds: xr.Dataset, thin: xr.Dataset) -> list[tuple[str, Location]]:
    small = decimate(thin, 40)
    got = xr.Dataset({"ndvi": ndvi_of(small), "clear": clear_of(small)})
    got = got.transpose("time", "y", "x").compute()
    value = np.where(got["clear"].values, got["ndvi"].values, np.nan)
    count = np.isfinite(value).sum(0)
    fair = count >= max(3, np.quantile(count, 0.25))
    if not fair.any():
        return []
    value[:, ~fair] = 0
    low, high = np.nanquantile(value, (0.1, 0.9), axis=0)
    spread = np.where(fair, high - low, np.nan)
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
    found["most gaps"] = full_index(ds, thin, *representative_pixel(thin))
    first = {at: what for what, at in reversed(found.items())}
    return [(what, pixel(ds, *at)) for at, what in reversed(first.items())]


def curve_sections(spots: list[Spot]) -> list[Section]:
    """One chart a spot; nothing without spots."""
    if not spots:
        return []
    body = curve_key(c for _, _, c in spots) + "".join(
        f'<h3><span class="dot">{n}</span>{escape(what)}: {escape(where.label)}</h3>'
        f"{curve_chart(found, n)}"
        for n, (where, what, found) in enumerate(spots, 1)
    )
    return [Section("NDVI of single pixels", MEANING["curves"], body)]


# ------------------------------------------------------------------ charts and tables


def number_sections(found: Summary) -> list[Section]:
    """Shares of `fill_flag`, where the cube is filled, and the length of the gaps."""
    flags = Section("How each value came to be", MEANING["flags"], flag_bar(found))
    gaps = Section("Length of the gaps", MEANING["gaps"], gap_bars(found))
    return [flags, gaps] if found.flags else [gaps]


def score_sections(scores: xr.Dataset | None, reason: str) -> list[Section]:
    """The table of held-out errors, or why there is none; nothing where nobody asked."""
    title = "Held-out error on this cube"
    if scores is None:
        return [Section(title, reason, "")] if reason else []
    comment = str(scores.attrs.get("comment", ""))
    return [Section(title, f"{MEANING['scores']} {comment}".strip(), score_table(scores))]


def provenance_section(ds: xr.Dataset) -> Section:
    """Attributes, those of gap filling first and the history last."""
    rows = {str(k): str(v) for k, v in ds.attrs.items() if isinstance(v, str | int | float | list)}
    order = sorted(rows, key=lambda k: (k == "history", not k.startswith("gapfill"), k))
    plain = {k.removeprefix("gapfill_").replace("_", " "): rows[k][:2000] for k in order}
    if "valid" in ds and "comment" in ds["valid"].attrs:
        plain.setdefault("valid", str(ds["valid"].attrs["comment"]))
    body = pairs(plain or {"attributes": "none"})
    return Section("Provenance", MEANING["provenance"], body)
