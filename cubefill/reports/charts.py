"""Charts of a report as inline SVG: text in the page's own colour, legible on light and dark."""

from collections.abc import Callable, Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray

from cubefill.cube.flags import in_words
from cubefill.methods.contract import Flag, days_since
from cubefill.plot.curves import Curve
from cubefill.plot.drawing import INTERVAL
from cubefill.plot.pixels import FLAG_COLOURS, date_text, flag_label
from cubefill.reports.facts import BINS, Summary, flag_rows

WIDTH = 760
"""Width of a chart in its own units; it scales with the page."""

_LEFT, _RIGHT = 42, 8
_BLUE = "#2a85c7"


def clear_chart(found: Summary) -> str:
    """One bar a date, at its day: clear below, cloudy above, empty where there is no data.

    A triangle marks the cloudiest date.
    """
    mark = date_text(found.time[found.dates.cloudiest])
    top, height = 12, 96
    axis = _Days(found.time)
    width = axis.bar(found.time)
    parts = [_levels(top, height, ((0.0, "0"), (0.5, "50"), (1.0, "100 %")))]
    for t, clear, seen in zip(found.time, found.clear, found.covered, strict=True):
        x = axis.x(t) - width / 2
        say = f"{date_text(t)}: {in_words(clear)} clear, {in_words(1 - seen)} without data"
        up = top + height * (1 - clear)
        parts.append(
            f"<g><title>{say}</title>"
            f'<rect class="cloudy" x="{x:.1f}" y="{top + height * (1 - seen):.1f}" '
            f'width="{width:.1f}" height="{height * max(seen - clear, 0):.1f}"/>'
            f'<rect fill="{_BLUE}" x="{x:.1f}" y="{up:.1f}" width="{width:.1f}" '
            f'height="{height * clear:.1f}"/></g>'
        )
        if date_text(t) == mark:
            parts.append(f'<path class="mark" d="M{axis.x(t):.1f} {top - 3} l-4 -7 h8 z"/>')
    parts.append(axis.ticks(top + height))
    median = float(np.median(found.clear)) if found.clear.size else 0.0
    label = (
        f"Clear share of {found.time.size} dates from {date_text(found.time[0])} to "
        f"{date_text(found.time[-1])}; the median date is {in_words(median)} clear."
    )
    return _svg(top + height + 22, label, parts)


def curve_chart(found: Curve, number: int) -> str:
    """Observed and cloudy dots, filled line, 90 % interval."""
    top, height = 8, 132
    axis = _Days(np.concatenate([found.time, found.out_time]))
    values = np.concatenate([found.observed, found.cloudy, found.filled])
    low = min(0.0, float(np.nanmin(values))) if np.isfinite(values).any() else 0.0
    low = max(low, -0.3)

    def y(v: float) -> float:
        return top + height * (1 - (min(max(v, low), 1.0) - low) / (1 - low))

    levels = tuple(((v - low) / (1 - low), f"{v:g}") for v in (0.0, 0.5, 1.0))
    parts = [_levels(top, height, levels)]
    if found.std is not None:
        parts += [_band(axis, found, found.std, y)]
    parts += [
        f'<polyline class="filled" points="{line}"/>'
        for line in _lines(axis, found.out_time, found.filled, y)
    ]
    for kind, series, r in (("veiled", found.cloudy, 2.6), ("seen", found.observed, 3.2)):
        parts += [
            f'<circle class="{kind}" cx="{axis.x(t):.1f}" cy="{y(v):.1f}" r="{r}">'
            f"<title>{date_text(t)}: NDVI {v:.2f}</title></circle>"
            for t, v in zip(found.time, series, strict=True)
            if np.isfinite(v)
        ]
    parts.append(axis.ticks(top + height))
    seen = int(np.isfinite(found.observed).sum())
    label = f"NDVI of place {number}, {found.label}: {seen} observed of {found.time.size} dates."
    return _svg(top + height + 22, label, parts)


def flag_bar(found: Summary) -> str:
    """One bar split by the codes of `fill_flag`, with its key as a table."""
    rows = flag_rows(found)
    colours = {int(code): colour for code, colour in FLAG_COLOURS.items()}
    pieces = "".join(
        f'<span style="width:{100 * share:.3f}%;background:{colours[code]}" '
        f'title="{label} {in_words(share)}"></span>'
        for code, label, share in rows
    )
    body = "".join(
        f'<tr><td><i class="key" style="background:{colours[code]}"></i></td>'
        f"<td>{code}</td><td>{label}</td><td>{in_words(share)}</td></tr>"
        for code, label, share in rows
    )
    say = ", ".join(f"{label} {in_words(share)}" for _, label, share in rows)
    return (
        f'<div class="stack" role="img" aria-label="Shares: {say}">{pieces}</div>'
        '<table class="small"><thead><tr><th></th><th>code</th><th>meaning</th><th>share</th></tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def flag_key(codes: Iterable[int]) -> str:
    """The colours and meanings of the codes that occur, in one line of HTML."""
    entries = "".join(
        f'<span class="entry"><i class="key" style="background:{FLAG_COLOURS[Flag(code)]}"></i>'
        f"{flag_label(code)}</span>"
        for code in sorted(codes)
    )
    return f'<p class="legend">{entries}</p>'


def curve_key(curves: Iterable[Curve]) -> str:
    """What dots, line and band of the curves mean; only what they show."""
    known = list(curves)
    filled = any(c.filled.size for c in known)
    entries = [
        ("observed", "background:currentColor;border-radius:50%"),
        *([("cloudy, not used", "border-radius:50%")] if _any(c.cloudy for c in known) else []),
        *([("filled", "background:#2a85c7;height:3px;border:0;width:18px")] if filled else []),
    ]
    if any(c.std is not None for c in known):
        entries.append(("90 % interval", "background:rgba(42,133,199,.25);border:0"))
    spans = "".join(
        f'<span class="entry"><i class="key" style="{style}"></i>{what}</span>'
        for what, style in entries
    )
    return f'<p class="legend">{spans}</p>'


def gap_bars(found: Summary) -> str:
    """Share of the gaps by length, one row a class, as a table with bars."""
    top = max(found.gap_lengths, default=0) or 1
    rows = "".join(
        f"<tr><td>{_bin(lo, hi)}</td><td>{in_words(share)}</td>"
        f'<td class="wide"><i class="bar{" long" if hi == np.inf else ""}" '
        f'style="width:{100 * share / top:.1f}%"></i></td></tr>'
        for (lo, hi), share in zip(BINS, found.gap_lengths, strict=True)
    )
    head = '<tr><th>length</th><th>share</th><th class="wide"></th></tr>'
    return f'<table class="small bars"><thead>{head}</thead><tbody>{rows}</tbody></table>'


# ------------------------------------------------------------------ parts


def _any(series: Iterable[NDArray[np.float64]]) -> bool:
    return any(bool(np.isfinite(s).any()) for s in series)


class _Days:
    """A time axis over the width of a chart."""

    def __init__(self, time: NDArray[np.datetime64]) -> None:
        self.first, self.last = time.min(), time.max()
        span = float(days_since(np.array([self.last]), self.first)[0])
        self.span = max(span, 1.0)
        self.pad = 0.015 * (WIDTH - _LEFT - _RIGHT)

    def x(self, t: np.datetime64) -> float:
        day = float(days_since(np.array([t]), self.first)[0])
        inner = WIDTH - _LEFT - _RIGHT - 2 * self.pad
        return _LEFT + self.pad + inner * day / self.span

    def bar(self, time: NDArray[np.datetime64]) -> float:
        """A width that leaves most neighbours apart."""
        at = np.array([self.x(t) for t in time])
        apart = np.diff(np.unique(at))
        return float(np.clip(0.8 * np.quantile(apart, 0.1), 1.5, 14)) if apart.size else 14.0

    def ticks(self, y: float) -> str:
        """Months, or quarters or years where months would touch; January carries the year."""
        first, last = self.first.astype("datetime64[M]"), self.last.astype("datetime64[M]")
        months = np.arange(first, last + 2)
        step = next((s for s in (1, 2, 3, 6, 12, 24, 60) if months.size / s <= 14), 120)
        out: list[str] = []
        for i, m in enumerate(months):
            if (m.astype(int) % 12) % min(step, 12) or not self.first <= m <= self.last:
                continue
            if step > 12 and (i // 12) % (step // 12):
                continue
            january = int(m.astype(int)) % 12 == 0
            name = _MONTHS[int(m.astype(int)) % 12]
            text = str(m)[:4] if january else name if out else f"{name} {str(m)[:4]}"
            x = self.x(m.astype("datetime64[ns]"))
            weight = ' class="year"' if january else ""
            out.append(
                f'<path class="tick" d="M{x:.1f} {y:.1f}v4"/>'
                f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle"{weight}>{text}</text>'
            )
        if not out:
            text = f"{date_text(self.first)} to {date_text(self.last)}"
            out = [f'<text x="{_LEFT}" y="{y + 16:.1f}">{text}</text>']
        return "".join(out)


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def _levels(top: float, height: float, levels: tuple[tuple[float, str], ...]) -> str:
    out = []
    for share, text in levels:
        y = top + height * (1 - share)
        out.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
        )
    return "".join(out)


def _lines(
    axis: _Days,
    time: NDArray[np.datetime64],
    value: NDArray[np.float64],
    y: Callable[[float], float],
) -> list[str]:
    """Unbroken runs of finite values as SVG points."""
    runs: list[list[str]] = [[]]
    for t, v in sorted(zip(time, value, strict=True), key=lambda p: p[0]):
        if np.isfinite(v):
            runs[-1].append(f"{axis.x(t):.1f},{y(v):.1f}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(r) for r in runs if r]


def _band(axis: _Days, found: Curve, std: NDArray[np.float64], y: Callable[[float], float]) -> str:
    use = np.isfinite(found.filled) & np.isfinite(std)
    time, mid, wide = found.out_time[use], found.filled[use], INTERVAL * std[use]
    upper = _lines(axis, time, mid + wide, y)
    lower = _lines(axis, time, mid - wide, y)
    if not upper or not lower:
        return ""
    back = " ".join(reversed(lower[0].split()))
    return f'<polygon class="interval" points="{upper[0]} {back}"/>'


def _svg(height: float, label: str, parts: list[str]) -> str:
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )


def _bin(lo: float, hi: float) -> str:
    if lo < 0:
        return f"up to {hi:g} days"
    return f"over {lo:g} days" if hi == np.inf else f"{lo:g} to {hi:g} days"
