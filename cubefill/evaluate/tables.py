"""Datasets of scores as tables for people and machines: Markdown, HTML, CSV, JSON, and a figure.

Both those of `evaluate.compare` and those of `evaluate.decloud.compare_decloud`.
"""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cubefill.addresses import local_path, writing
from cubefill.errors import CubeError
from cubefill.plot.drawing import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
"""Endings of pictures that `write` makes."""
TABLES = (".md", ".html", ".csv", ".json", ".nc")
"""Endings of tables that `write` makes."""
LINE, OTHER = "#0072b2", "#555555"
_THIN, _NONE = "\u2009", "–"
_FACTS = ("peak", "pooling", "convention")
_COLUMNS = (
    "test_set", "method", "pixel_set", "kind", "stratum", "metric", "value", "low", "high", "n",
    "samples", "unit", *_FACTS,
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells as text, with what they stand for."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column of the best value of each column."""
    note: str = ""

    def markdown(self) -> str:
        """A table of GitHub's Markdown, best values bold."""
        if not self.rows:
            return f"**{self.caption}**\n\n{self.note}"
        lines = [self.head, ("---", *["---:"] * (len(self.head) - 1))]
        lines += [
            tuple(f"**{c}**" if (i, j) in self.best else c for j, c in enumerate(row))
            for i, row in enumerate(self.rows)
        ]
        text = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in x) + " |" for x in lines)
        return "\n\n".join(p for p in (f"**{self.caption}**", text, self.note) if p)

    def html(self) -> str:
        """A table element, best values strong."""
        if not self.rows:
            return f"<p><strong>{escape(self.caption)}</strong> {escape(self.note)}</p>"
        head = "".join(f"<th>{escape(c)}</th>" for c in self.head)
        body = "".join(
            "<tr>" + "".join(self._html_cell(i, j, c) for j, c in enumerate(row)) + "</tr>"
            for i, row in enumerate(self.rows)
        )
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<table><caption>{escape(self.caption)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{note}"
        )

    def _html_cell(self, i: int, j: int, cell: str) -> str:
        text = escape(cell)
        return f"<td>{f'<strong>{text}</strong>' if (i, j) in self.best else text}</td>"


def metrics_of(ds: xr.Dataset) -> list[str]:
    """Variables that are metrics, skill included."""
    return [str(n) for n in ds.data_vars if f"{n}_n" in ds]


def scores(ds: xr.Dataset, pixel_set: str = "occluded", stratum: str = "all") -> Table:
    """One row a method, one column a metric, with intervals and the number of values.

    Raises
    ------
    CubeError
        `ds` is no table of `compare`, or has no such pixel set or stratum.
    """
    part = _part(ds, pixel_set).sel(stratum=_known(ds, "stratum", stratum))
    keys = metrics_of(ds)
    n = ", ".join(f"{ds[k].attrs['long_name']} {counted(int(part[f'{k}_n']))}" for k in keys)
    return _table(
        part,
        f"{pixel_set}: {_meaning(ds, pixel_set)}" + ("" if stratum == "all" else f"; {stratum}"),
        f"n: {n}. Interval in brackets: 95 %, {ds.attrs.get('interval', '')}. "
        f"{facts_line([ds[k].attrs for k in keys])} {_whose(ds)}",
    )


def of_test_set(ds: xr.Dataset, name: str) -> Table:
    """One row a method that was scored on a test set, one column a metric, with two counts.

    Raises
    ------
    CubeError
        `ds` has no such test set.
    """
    part = ds.sel(test_set=_known(ds, "test_set", name))
    reason = str(part["reason"].values)
    part = part.isel(method_name=np.flatnonzero(part["samples"].values))
    if reason or not part.sizes["method_name"]:
        note = f"No samples: {reason}" if reason else "No method of this comparison has a row here."
        return Table(name.upper(), (), (), note=note)
    facts = facts_line([ds[k].attrs for k in metrics_of(ds)])
    pixels = f"Pixels: {ds.attrs['pixel_set']}; n of MSE: values."
    return _table(part, name.upper(), f"{facts} {pixels} {_whose(ds)}", ("samples", "values"))


def _table(part: xr.Dataset, caption: str, note: str, counts: tuple[str, ...] = ()) -> Table:
    """A row for each method, a column for each metric and count."""
    keys = metrics_of(part)
    facts = [part[k].attrs for k in keys]
    rows = tuple(
        (str(m), *(_cell(part, k, i) for k in keys), *(counted(int(part[c][i])) for c in counts))
        for i, m in enumerate(part["method_name"].values)
    )
    best = _best([part[k].values for k in keys], facts)
    return Table(caption, ("method", *map(_title, facts), *counts), rows, best, note)


def facts_line(facts: list[dict[Any, Any]]) -> str:
    """Peak and pooling of metrics in one line: "Peak 1. Pooling: pixels and dates."."""
    said = []
    for key, title in (("peak", "Peak"), ("pooling", "Pooling:")):
        groups: dict[str, list[str]] = {}
        for attrs in (a for a in facts if key in a):
            value = attrs[key]
            text = value if isinstance(value, str) else f"{float(value):g}"
            groups.setdefault(text, []).append(str(attrs["long_name"]))
        alone = len(groups) == 1
        cells = (t if alone else f"{t} ({', '.join(names)})" for t, names in groups.items())
        said.append(f"{title} {'; '.join(cells)}.")
    return " ".join(said)


def _whose(ds: xr.Dataset) -> str:
    return f"Convention {ds.attrs.get('convention', '')}; bands {ds.attrs.get('bands', '')}."


def by_stratum(
    ds: xr.Dataset, metric: str = "mae", pixel_set: str = "occluded", kinds: tuple[str, ...] = ()
) -> Table:
    """One row a method, one column a stratum, for one metric; the last row is n.

    Raises
    ------
    CubeError
        `ds` has no such metric, pixel set or kind of strata.
    """
    _check_metric(ds, metric)
    part = _part(ds, pixel_set)
    counts = part[f"{metric}_n"].values
    wanted = [
        i
        for i, kind in enumerate(ds["kind"].values)
        if (not kinds or kind in kinds) and counts[i] > 0
    ]
    if not wanted:
        found = ", ".join(dict.fromkeys(map(str, ds["kind"].values)))
        raise CubeError(f"No stratum of {kinds}: expected some of {found}.")
    attrs = ds[metric].attrs
    values = [part[metric].values[:, i] for i in wanted]
    rows = [
        (str(m), *(_text(v[r], attrs) for v in values))
        for r, m in enumerate(ds["method_name"].values)
    ]
    rows.append(("n", *(counted(int(counts[i])) for i in wanted)))
    names = [str(ds["stratum"].values[i]) for i in wanted]
    kind = [str(ds["kind"].values[i]) for i in wanted]
    titles = (
        n if k == "all" else f"{_SHORT.get(k, '')}{n}" for n, k in zip(names, kind, strict=True)
    )
    return Table(
        f"{_title(attrs)} by stratum; {pixel_set}",
        ("method", *titles),
        tuple(rows),
        _best(values, [attrs] * len(values)),
        f"{facts_line([attrs])} Pixels: {_meaning(ds, pixel_set)}. {_whose(ds)}",
    )


_SHORT = {"gap length": "gap ", "clear share": "clear "}


def markdown(ds: xr.Dataset, metric: str = "mae") -> str:
    """All tables of a comparison: each pixel set or test set, then `metric` by stratum."""
    return "\n\n".join(t.markdown() for t in _tables(ds, metric)) + "\n"


def html(ds: xr.Dataset, metric: str = "mae") -> str:
    """All tables of a comparison as a fragment of HTML."""
    return "\n".join(t.html() for t in _tables(ds, metric)) + "\n"


def _kept(ds: xr.Dataset) -> Table | None:
    """A line instead of a table of zeros where no method altered what it saw."""
    part = ds.sel(pixel_set="observed", stratum="all")
    if "mae" not in ds or not (part["mae"].values == 0).all():
        return None
    n = counted(int(part["mae_n"]))
    return Table("observed", (), (), note=f"Every method kept all {n} values that it saw.")


def verdict(ds: xr.Dataset, default: str) -> str:
    """Which method is best, and what the default gives, against the baseline: a line for each.

    Raises
    ------
    CubeError
        `ds` has no MAE of occluded pixels.
    """
    _check_metric(ds, "mae")
    part = _part(ds, "occluded").sel(stratum="all")
    base, names = ds["skill"].attrs["baseline"], [str(n) for n in part["method_name"].values]
    best = names[int(np.nanargmin(part["mae"].values))]
    n, unit = counted(int(part["mae_n"])), ds["mae"].attrs["pooling"]
    lines = [f"Best of {len(names)} on {n} hidden values ({unit}): {_against(part, best, base)}"]
    if default in names and default != best:
        lines.append(f"The default is {_against(part, default, base)}")
    elif default == best:
        lines[0] += " It is the default."
    return "\n".join(lines)


def _against(part: xr.Dataset, name: str, base: str) -> str:
    """Such as `savgol, MAE 0.0121, 9.7 % below linear (95 %: 5.0 to 12.1 %).`."""
    one = part.sel(method_name=name)
    said = f"{name}, MAE {_text(float(one['mae']), part['mae'].attrs)}"
    if name == base:
        return said + "."
    value, low, high = (100 * float(one[f"skill{e}"]) for e in ("", "_low", "_high"))
    way, sign = ("below", 1) if value >= 0 else ("above", -1)
    said += f", {abs(value):.1f} % {way} {base}"
    ends = sorted((sign * low, sign * high))
    return said + (f" (95 %: {ends[0]:.1f} to {ends[1]:.1f} %)." if low == low else ".")


def _tables(ds: xr.Dataset, metric: str) -> list[Table]:
    if "test_set" in ds.dims:
        return [of_test_set(ds, str(n)) for n in ds["test_set"].values]
    found = [_kept(ds) or scores(ds, s) if s == "observed" else scores(ds, s)
             for s in map(str, ds["pixel_set"].values)]  # fmt: skip
    chosen = metric if metric in ds else metrics_of(ds)[0]
    sets = [str(s) for s in ds["pixel_set"].values if s != "observed"]
    return found + [by_stratum(ds, chosen, s) for s in sets]


def plot(ds: xr.Dataset, metric: str = "mae", pixel_set: str = "occluded") -> "Figure":
    """A figure of one metric: methods with their intervals, and the curve over gap length.

    Raises
    ------
    CubeError
        `ds` has no such metric or pixel set.
    CubefillError
        matplotlib is not installed.
    """
    _check_metric(ds, metric)
    part = _part(ds, pixel_set)
    fig = figure(9.0, 1.6 + 0.28 * ds.sizes["method_name"])
    left, right = fig.subplots(1, 2)
    _dots(left, part.sel(stratum="all"), metric)
    _curves(right, part, metric)
    fig.suptitle(f"{_title(ds[metric].attrs)}, {pixel_set} pixels", fontsize=10)
    return fig


def _dots(ax: "Axes", part: xr.Dataset, metric: str) -> None:
    value, low, high = (part[f"{metric}{s}"].values for s in ("", "_low", "_high"))
    names = [str(m) for m in part["method_name"].values]
    where = np.arange(len(names))[::-1]
    known = np.isfinite(low) & np.isfinite(high)
    ax.hlines(where[known], low[known], high[known], color=LINE, linewidth=2, alpha=0.5)
    ax.plot(value, where, "o", color=LINE, markersize=5)
    ax.set_yticks(where, names, fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title("all, with 95 % interval" if known.any() else "all", loc="left", fontsize=9)


def _curves(ax: "Axes", part: xr.Dataset, metric: str) -> None:
    gap = part["kind"].values == "gap length"
    names = [str(n) for n in part["stratum"].values[gap]]
    for name in part["method_name"].values:
        values = part[metric].sel(method_name=name).values[gap]
        ax.plot(np.arange(len(names)), values, "o-", markersize=3, linewidth=1.2, label=str(name))
    ax.set_xticks(np.arange(len(names)), names, fontsize=8)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_title("by gap length", loc="left", fontsize=9)
    ax.legend(fontsize=7, frameon=False, ncols=2)


def write(ds: xr.Dataset, path: str | Path, metric: str = "mae") -> Path:
    """The file of a comparison; its suffix decides: .md .html .csv .json .nc, or a picture.

    A comparison on test sets has no picture.

    Raises
    ------
    CubeError
        The suffix is unknown.
    """
    path = local_path(path)
    suffix, pictures = path.suffix.lower(), () if "test_set" in ds.dims else PICTURES
    if suffix not in (*TABLES, *pictures):
        raise CubeError(
            f"{path.name}: expected a name that ends in {', '.join([*TABLES, *pictures])}, got "
            f"{suffix or 'no suffix'!r}. Use scores.md."
        )
    with writing(path):
        if suffix in pictures:
            plot(ds, metric).savefig(path, dpi=130)
        elif suffix == ".nc":
            ds.to_netcdf(path, engine="h5netcdf")
        else:
            path.write_text(_text_of(ds, suffix, metric), encoding="utf-8")
    return path


def _text_of(ds: xr.Dataset, suffix: str, metric: str) -> str:
    if suffix == ".md":
        return markdown(ds, metric)
    if suffix == ".csv":
        return _csv(ds)
    if suffix == ".html":
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Scores of gap '
            f"filling</title><style>{_STYLE}</style></head><body>{html(ds, metric)}</body></html>\n"
        )
    text = json.dumps(ds.to_dict(), default=lambda v: v.item())
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=1) + "\n"


_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "caption{text-align:left;font-weight:bold;padding:.3em 0}td,th{padding:.2em .6em;"
    "border-bottom:1px solid #ccc;text-align:right}td:first-child,"
    "th:first-child{text-align:left}"
)


def _csv(ds: xr.Dataset) -> str:
    """Long form: one line a method, pixel set, stratum or test set, and metric."""
    parts = []
    for key in metrics_of(ds):
        attrs, ends = ds[key].attrs, {"": "value", "_low": "low", "_high": "high", "_n": "n"}
        named = {f"{key}{e}": n for e, n in ends.items()} | {"samples": "samples"}
        found = ds[[n for n in named if n in ds]].rename(
            {k: v for k, v in named.items() if k in ds}
        )
        rows = found.to_dataframe(dim_order=list(ds[key].dims)).reset_index()
        facts = {n: attrs.get(n, "") for n in _FACTS}
        parts.append(rows.assign(metric=attrs["long_name"], unit=attrs["units"], **facts))
    table = pd.concat(parts).rename(columns={"method_name": "method"})
    if "samples" in table:
        table = table[table["samples"] > 0].assign(pixel_set=ds.attrs["pixel_set"])
    return table[[c for c in _COLUMNS if c in table]].to_csv(index=False, na_rep="nan")


# ------------------------------------------------------------------ cells


def _check_metric(ds: xr.Dataset, metric: str) -> None:
    if metric not in metrics_of(ds):
        raise CubeError(f"Unknown metric {metric!r}: expected one of {', '.join(metrics_of(ds))}.")


def _part(ds: xr.Dataset, pixel_set: str) -> xr.Dataset:
    if "pixel_set" not in ds.coords or not metrics_of(ds):
        raise CubeError(
            "Expected the dataset of evaluate.compare, got one without pixel_set. "
            "Use evaluate.compare(['linear'], cube, Transplant())."
        )
    return ds.sel(pixel_set=_known(ds, "pixel_set", pixel_set))


def _known(ds: xr.Dataset, dim: str, name: str) -> str:
    names = [str(v) for v in ds[dim].values]
    if name not in names:
        raise CubeError(f"Unknown {dim} {name!r}: expected one of {', '.join(names)}.")
    return name


def _meaning(ds: xr.Dataset, pixel_set: str) -> str:
    return str(ds["meaning"].sel(pixel_set=pixel_set).values)


def _title(attrs: dict[Any, Any]) -> str:
    unit = {"1": "", "reflectance": "", "degree": "°", "radian": "rad"}.get(
        attrs["units"], attrs["units"]
    )
    return f"{attrs['long_name']} ({unit})" if unit else str(attrs["long_name"])


def _text(value: float, attrs: dict[Any, Any]) -> str:
    if np.isnan(value):
        return _NONE
    return f"{value:.{int(attrs.get('digits', 4))}f}"


def _cell(part: xr.Dataset, key: str, i: int) -> str:
    attrs = part[key].attrs
    text, *interval = (
        _text(float(part[f"{key}{e}"].values[i]), attrs)
        for e in ("", "_low", "_high")
        if f"{key}{e}" in part
    )
    return f"{text} [{', '.join(interval)}]" if interval and _NONE not in interval else text


def _best(columns: list[Any], facts: list[dict[Any, Any]]) -> frozenset[tuple[int, int]]:
    """The best row of each column; none where all are equal."""
    found = set()
    for j, (values, attrs) in enumerate(zip(columns, facts, strict=True)):
        order = np.abs(values - attrs["ideal"]) if "ideal" in attrs else np.asarray(values)
        if attrs.get("higher_is_better") and "ideal" not in attrs:
            order = -order
        if np.isfinite(order).sum() > 1 and np.nanmin(order) < np.nanmax(order):
            found.add((int(np.nanargmin(order)), j + 1))
    return frozenset(found)


def counted(value: int) -> str:
    """A whole number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", _THIN)
