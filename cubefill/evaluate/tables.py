"""The dataset of `evaluate.compare` as tables for people: Markdown, HTML, CSV, and a figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cubefill.errors import CubeError
from cubefill.plot.drawing import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
"""Endings of pictures that `write` makes."""
LINE, OTHER = "#0072b2", "#555555"
_THIN = "\u2009"


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
        lines = [self.head, ("---", *["---:"] * (len(self.head) - 1))]
        lines += [
            tuple(f"**{c}**" if (i, j) in self.best else c for j, c in enumerate(row))
            for i, row in enumerate(self.rows)
        ]
        text = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in x) + " |" for x in lines)
        return "\n\n".join(p for p in (f"**{self.caption}**", text, self.note) if p)

    def html(self) -> str:
        """A table element, best values strong."""
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
    return [str(n) for n in ds.data_vars if f"{n}_low" in ds]


def scores(ds: xr.Dataset, pixel_set: str = "occluded", stratum: str = "all") -> Table:
    """One row a method, one column a metric, with intervals and the number of values.

    Raises
    ------
    CubeError
        `ds` is no table of `compare`, or has no such pixel set or stratum.
    """
    part = _part(ds, pixel_set).sel(stratum=_known(ds, "stratum", stratum))
    keys = metrics_of(ds)
    facts = [ds[k].attrs for k in keys]
    head = ("method", *(_title(a) for a in facts))
    values = [part[k].values for k in keys]
    rows = tuple(
        (str(m), *(_cell(part, k, i) for k in keys)) for i, m in enumerate(ds["method_name"].values)
    )
    counts = {k: int(part[f"{k}_n"]) for k in keys if f"{k}_n" in part}
    n = ", ".join(f"{ds[k].attrs['long_name']} {counted(v)}" for k, v in counts.items())
    return Table(
        f"{pixel_set}: {_meaning(ds, pixel_set)}" + ("" if stratum == "all" else f"; {stratum}"),
        head,
        rows,
        _best(values, facts),
        f"n: {n}. Interval in brackets: 95 %, {ds.attrs.get('interval', '')}. "
        f"{facts_line(facts)} {_whose(ds)}",
    )


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
    if metric not in metrics_of(ds) or f"{metric}_n" not in ds:
        known = [m for m in metrics_of(ds) if f"{m}_n" in ds]
        raise CubeError(f"Unknown metric {metric!r}: expected one of {', '.join(known)}.")
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
    """All tables of a comparison: scores of each pixel set, then `metric` by stratum."""
    return "\n\n".join(t.markdown() for t in _tables(ds, metric)) + "\n"


def html(ds: xr.Dataset, metric: str = "mae") -> str:
    """All tables of a comparison as a fragment of HTML."""
    return "\n".join(t.html() for t in _tables(ds, metric)) + "\n"


def _tables(ds: xr.Dataset, metric: str) -> list[Table]:
    found = [scores(ds, str(s)) for s in ds["pixel_set"].values]
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
    if metric not in metrics_of(ds):
        raise CubeError(f"Unknown metric {metric!r}: expected one of {', '.join(metrics_of(ds))}.")
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

    Raises
    ------
    CubeError
        The suffix is unknown.
    """
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        plot(ds, metric).savefig(path, dpi=130)
        return path
    texts = {suffix: partial(text, metric=metric) for suffix, text in _TEXTS.items()}
    return save(ds, path, texts, PICTURES)


def save(
    ds: xr.Dataset,
    path: Path,
    texts: Mapping[str, Callable[[xr.Dataset], str]],
    others: Sequence[str] = (),
) -> Path:
    """The file of a dataset: netCDF for .nc, else what its suffix has in `texts`.

    Raises
    ------
    CubeError
        The suffix is none of these; the message names `others` too.
    """
    suffix = path.suffix.lower()
    if suffix == ".nc":
        ds.to_netcdf(path, engine="h5netcdf")
    elif suffix in texts:
        path.write_text(texts[suffix](ds), encoding="utf-8")
    else:
        raise CubeError(
            f"{path.name}: expected a name that ends in {', '.join([*texts, '.nc', *others])}, got "
            f"{suffix or 'no suffix'!r}. Use scores.md."
        )
    return path


def _page(ds: xr.Dataset, metric: str) -> str:
    style = (
        "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
        "caption{text-align:left;font-weight:bold;padding:.3em 0}td,th{padding:.2em .6em;"
        "border-bottom:1px solid #ccc;text-align:right}td:first-child,"
        "th:first-child{text-align:left}"
    )
    title = "<title>Scores of gap filling</title>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{title}<style>{style}</style>'
        f"</head><body>{html(ds, metric)}</body></html>\n"
    )


def _csv(ds: xr.Dataset, metric: str) -> str:
    """Long form: one line a method, pixel set, stratum and metric."""
    lines = ["method,pixel_set,kind,stratum,metric,value,low,high,n,unit,peak,pooling,convention"]
    for key in metrics_of(ds):
        attrs = ds[key].attrs
        for m, s, k in np.ndindex(*ds[key].shape):
            value, low, high = (
                float(ds[f"{key}{e}"].values[m, s, k]) for e in ("", "_low", "_high")
            )
            n = int(ds[f"{key}_n"].values[s, k]) if f"{key}_n" in ds else ""
            facts = (attrs["units"], *(attrs.get(n, "") for n in ("peak", "pooling", "convention")))
            at = (ds["method_name"], ds["pixel_set"], ds["kind"], ds["stratum"])
            where = (str(a.values[i]) for a, i in zip(at, (m, s, k, k), strict=True))
            cells = (*where, attrs["long_name"], value, low, high, n, *facts)
            lines.append(",".join(quoted(str(c)) for c in cells))
    return "\n".join(lines) + "\n"


def quoted(cell: str) -> str:
    """A cell of CSV."""
    return '"' + cell.replace('"', '""') + '"' if {",", '"'} & set(cell) else cell


def _json(ds: xr.Dataset, metric: str) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        if isinstance(value, float) and not np.isfinite(value):
            return None
        return value.item() if isinstance(value, np.generic) else value

    return json.dumps(plain(ds.to_dict()), indent=1) + "\n"


_TEXTS = {".md": markdown, ".html": _page, ".csv": _csv, ".json": _json}


# ------------------------------------------------------------------ cells


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
        return "–"
    return f"{value:.{int(attrs.get('digits', 4))}f}"


def _cell(part: xr.Dataset, key: str, i: int) -> str:
    attrs = part[key].attrs
    value, low, high = (float(part[f"{key}{s}"].values[i]) for s in ("", "_low", "_high"))
    text = _text(value, attrs)
    if np.isnan(low) or np.isnan(high):
        return text
    return f"{text} [{_text(low, attrs)}, {_text(high, attrs)}]"


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
