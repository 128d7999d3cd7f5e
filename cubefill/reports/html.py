"""The page of a report: one self-contained piece of HTML, styled by CSS alone, without scripts."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.plot.drawing import BACKGROUND, require
from cubefill.plot.pixels import flag_rgb

GENERATOR = '<meta name="generator" content="cubefill">'
"""The mark of a report."""

STEPS = 40
"""Places where the before/after slider can stand, less one."""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    meaning: str
    """What the numbers mean, in a sentence."""
    body: str
    """HTML."""


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    pixels: NDArray[np.uint8]
    """(y, x, 4) colours, or (y, x) codes of `fill_flag`."""
    alt: str


def image(picture: Picture, extra: str = "") -> str:
    """An `img` whose PNG lies in the page.

    Raises
    ------
    CubefillError
        pillow is not installed.
    """
    height, width = picture.pixels.shape[:2]
    data = base64.b64encode(_png(picture.pixels)).decode()
    return (
        f'<img {extra} width="{width}" height="{height}" alt="{escape(picture.alt)}" '
        f'src="data:image/png;base64,{data}">'
    )


def figure(picture: Picture, caption: str, key: str = "", pins: str = "") -> str:
    """An image over its caption and a key in HTML."""
    return (
        f'<figure><div class="frame">{image(picture)}{pins}</div>'
        f"<figcaption>{escape(caption)}</figcaption>{key}</figure>"
    )


def slider(before: Picture, after: Picture, caption: str, pins: str = "") -> str:
    """Before over after; the edge follows the pointer, a tap, or the arrow keys.

    A row of radio buttons lies over the images as invisible strips; the one that is checked or
    hovered says how much of `before` is cut away.
    """
    name = "cf" + hashlib.sha256(before.pixels.tobytes() + after.pixels.tobytes()).hexdigest()[:10]
    shares = [round(100 * k / STEPS, 2) for k in range(STEPS + 1)]
    strips = "".join(
        f'<input type="radio" name="{name}" aria-label="{share:g} % before"'
        f"{' checked' if k == STEPS // 2 else ''}>"
        for k, share in enumerate(shares)
    )
    height, width = before.pixels.shape[:2]
    return (
        f'<figure><div class="frame slider" role="radiogroup" aria-label="Before and after" '
        f'style="aspect-ratio:{width}/{height}">{image(after)}{strips}'
        f'{image(before, extra=_BEFORE)}<span class="edge"></span>'
        f'<span class="chip left">before</span><span class="chip right">after</span>{pins}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def pin(number: int, across: float, down: float) -> str:
    """A numbered dot on a picture, at shares of its width and height, wholly inside."""
    left, top = (100 * min(max(v, 0.03), 0.97) for v in (across, down))
    return f'<span class="pin" style="left:{left:.2f}%;top:{top:.2f}%">{number}</span>'


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Large numbers over their names."""
    cells = "".join(f"<li><b>{escape(v)}</b><span>{escape(k)}</span></li>" for v, k in values)
    return f'<ul class="tiles">{cells}</ul>'


def notes(warnings: Sequence[str]) -> str:
    """Warnings as a list, or one line that says there are none."""
    if not warnings:
        return '<p class="fine">Nothing stands out.</p>'
    return '<ul class="notes">' + "".join(f"<li>{escape(w)}</li>" for w in warnings) + "</ul>"


def pairs(rows: Mapping[str, str]) -> str:
    """Names and values as a table."""
    body = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows.items()
    )
    return f'<table class="pairs"><tbody>{body}</tbody></table>'


def score_table(scores: xr.Dataset) -> str:
    """Methods by metrics; the best of each column is bold."""
    metrics = [str(v) for v in scores.data_vars if "higher_is_better" in scores[v].attrs]
    head = "".join(
        f"<th>{escape(str(scores[m].attrs.get('long_name', m)))}<small>"
        f"{escape(_unit(scores[m].attrs))}</small></th>"
        for m in metrics
    )
    rows = []
    for i, method in enumerate(scores["method_name"].values):
        cells = "".join(_cell(scores[m], i) for m in metrics)
        rows.append(f'<tr><th scope="row">{escape(str(method))}</th>{cells}</tr>')
    return (
        f'<div class="chart"><table class="scores"><thead><tr><th>method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def page(title: str, lead: str, sections: Sequence[Section], fragment: bool = False) -> str:
    """The whole document, or with `fragment` the piece that a notebook cell takes."""
    parts = "".join(
        f"<section><h2>{escape(s.title)}</h2>{s.body}"
        f'<p class="meaning">{escape(s.meaning)}</p></section>'
        for s in sections
    )
    inner = (
        f'<article class="cubefill-report"><style>{_CSS}{_strips()}</style>'
        f"<header><h1>{escape(title)}</h1>{lead}</header>{parts}</article>"
    )
    if fragment:
        return inner
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'{GENERATOR}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_PAGE}</style></head><body>{inner}</body></html>\n"
    )


# ------------------------------------------------------------------ parts

_BEFORE = 'class="before"'


def _png(pixels: NDArray[np.uint8]) -> bytes:
    require("PIL", "pillow")
    from PIL import Image

    buffer, picture = io.BytesIO(), Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.ndim == 2:
        sheet = picture
        sheet.putpalette(flag_rgb(np.arange(256, dtype=np.uint8)).tobytes())
    else:
        sheet = Image.new("RGB", picture.size, BACKGROUND)
        sheet.paste(picture, (0, 0), picture)
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _cell(metric: xr.DataArray, i: int) -> str:
    values = metric.values.astype(float)
    target = metric.attrs.get("target", np.inf if metric.attrs["higher_is_better"] else -np.inf)
    away = np.abs(values - target) if np.isfinite(target) else -np.sign(target) * values
    shown = [f"{v:.{int(metric.attrs.get('digits', 4))}f}" for v in values]
    text = shown[i] if np.isfinite(values[i]) else "n/a"
    best = shown[int(np.nanargmin(away))] if np.isfinite(away).any() else ""
    bold = text == best and len(set(shown)) > 1
    return f"<td><strong>{text}</strong></td>" if bold else f"<td>{text}</td>"


def _unit(attrs: Mapping[Any, Any]) -> str:
    unit = f"aim {attrs['target']:g}" if "target" in attrs else str(attrs.get("units", ""))
    return "" if unit in ("", "1") else unit


def _strips() -> str:
    """Rules that move the edge of the slider; those of the pointer come last and win."""
    at = [(k + 1, round(100 * k / STEPS, 2)) for k in range(STEPS + 1)]
    return "".join(
        f".cubefill-report .slider input:nth-of-type({n}):{state}~*{{--p:{p:g}%}}"
        for state in ("checked", "hover")
        for n, p in at
    )


_PAGE = """
:root{color-scheme:light dark}
body{margin:0;background:Canvas;color:CanvasText}
body>article{max-width:960px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
"""

_CSS = """
.cubefill-report{font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
color:inherit;font-variant-numeric:tabular-nums}
.cubefill-report h1{font-size:1.75rem;line-height:1.2;font-weight:650;margin:0 0 .35rem;
letter-spacing:-.01em}
.cubefill-report h2{font-size:1.1rem;font-weight:650;margin:0 0 .7rem}
.cubefill-report header p{margin:.1rem 0;opacity:.75}
.cubefill-report section{margin:0;padding:1.6rem 0 0}
.cubefill-report section+section{margin-top:1.6rem;border-top:1px solid rgba(128,128,128,.3)}
.cubefill-report .meaning{margin:.7rem 0 0;max-width:46rem;opacity:.75;font-size:.9rem}
.cubefill-report .tiles{list-style:none;display:grid;gap:.75rem;margin:1.4rem 0 .6rem;padding:0;
grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr))}
.cubefill-report .tiles li{border:1px solid rgba(128,128,128,.3);border-radius:8px;
padding:.65rem .8rem;margin:0}
.cubefill-report .tiles b{display:block;font-size:1.4rem;line-height:1.25;font-weight:600}
.cubefill-report .tiles span{font-size:.82rem;opacity:.75}
.cubefill-report .pictures{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.cubefill-report figure{margin:0;min-width:0}
.cubefill-report figcaption{font-size:.85rem;opacity:.75;margin-top:.4rem}
.cubefill-report .frame{position:relative;overflow:hidden;border-radius:6px;line-height:0;
border:1px solid rgba(128,128,128,.35);background:#bdbdbd}
.cubefill-report .frame img{display:block;width:100%;height:auto;max-width:none;margin:0;
image-rendering:pixelated}
.cubefill-report .slider img{position:absolute;inset:0;height:100%;pointer-events:none}
.cubefill-report .slider .before{clip-path:inset(0 calc(100% - var(--p,50%)) 0 0)}
.cubefill-report .slider input{appearance:none;-webkit-appearance:none;margin:0;padding:0;border:0;
position:relative;z-index:3;float:left;width:calc(100%/STRIPS);height:100%;background:none;
outline:0;cursor:ew-resize}
.cubefill-report .edge{position:absolute;z-index:2;top:0;bottom:0;left:var(--p,50%);width:2px;
margin-left:-1px;background:#fff;box-shadow:0 0 3px rgba(0,0,0,.7);pointer-events:none}
.cubefill-report .edge:after{content:"\\2194";position:absolute;top:50%;left:-14px;width:30px;
height:30px;margin-top:-15px;border-radius:50%;background:#fff;color:#222;font:18px/29px sans-serif;
text-align:center;box-shadow:0 0 4px rgba(0,0,0,.5)}
.cubefill-report input:focus-visible~.edge{background:#ffb000;width:4px;margin-left:-2px}
.cubefill-report .chip{position:absolute;z-index:2;top:8px;padding:0 8px;border-radius:10px;
font-size:.75rem;line-height:20px;background:rgba(0,0,0,.62);color:#fff;pointer-events:none}
.cubefill-report .left{left:8px}.cubefill-report .right{right:8px}
.cubefill-report .pin,.cubefill-report .dot{width:18px;height:18px;border-radius:50%;
background:#fff;color:#111;border:1px solid #111;font:600 11px/17px sans-serif;text-align:center;
box-sizing:border-box}
.cubefill-report .pin{position:absolute;z-index:4;margin:-9px 0 0 -9px;pointer-events:none}
.cubefill-report .dot{display:inline-block;margin-right:.45rem;vertical-align:1px}
.cubefill-report .chart{overflow-x:auto}
.cubefill-report svg{display:block;width:100%;min-width:560px;height:auto;overflow:visible}
.cubefill-report svg text{fill:currentColor;fill-opacity:.75;font-size:10.5px}
.cubefill-report svg .year{font-weight:650;fill-opacity:1}
.cubefill-report svg .grid{stroke:rgba(128,128,128,.3);stroke-width:1}
.cubefill-report svg .tick{stroke:rgba(128,128,128,.8);stroke-width:1}
.cubefill-report svg .cloudy{fill:rgba(128,128,128,.35)}
.cubefill-report svg .mark{fill:currentColor}
.cubefill-report svg .filled{fill:none;stroke:#2a85c7;stroke-width:1.8;stroke-linejoin:round}
.cubefill-report svg .interval{fill:#2a85c7;fill-opacity:.22}
.cubefill-report svg .seen{fill:currentColor}
.cubefill-report svg .veiled{fill:none;stroke:rgba(128,128,128,.9);stroke-width:1}
.cubefill-report h3{font-size:.92rem;font-weight:600;margin:1rem 0 .2rem}
.cubefill-report .legend{font-size:.85rem;margin:.1rem 0 .3rem}
.cubefill-report .key{display:inline-block;width:12px;height:12px;margin:0 .35rem 0 0;
box-sizing:border-box;border:1px solid rgba(128,128,128,.7)}
.cubefill-report .entry{display:inline-flex;align-items:center;vertical-align:bottom;
margin-right:1rem;white-space:nowrap}
.cubefill-report .stack{display:flex;height:26px;border-radius:5px;overflow:hidden;
border:1px solid rgba(128,128,128,.5)}
.cubefill-report table{border-collapse:collapse;margin:.8rem 0 0;font-size:.9rem;border:0}
.cubefill-report th,.cubefill-report td{padding:.3rem .9rem .3rem 0;text-align:left;border:0;
background:none;vertical-align:top}
.cubefill-report tbody tr{border-top:1px solid rgba(128,128,128,.25);background:none}
.cubefill-report thead th{font-weight:600;font-size:.82rem;opacity:.75}
.cubefill-report thead small{display:block;font-weight:400}
.cubefill-report .scores td,.cubefill-report .scores thead th+th{text-align:right;
padding:.3rem 0 .3rem 1.4rem}
.cubefill-report .scores tbody th{font-weight:500}
.cubefill-report .pairs{width:100%;table-layout:fixed}
.cubefill-report .pairs th{width:11rem;font-weight:500;opacity:.75}
.cubefill-report .pairs td{white-space:pre-wrap;overflow-wrap:anywhere}
.cubefill-report .bars{width:100%}.cubefill-report .bars td{white-space:nowrap}
.cubefill-report .bars .wide{width:65%}
.cubefill-report .bar{display:block;height:.85rem;margin-top:.3rem;border-radius:2px;
background:#2a85c7;min-width:1px}
.cubefill-report .bar.long{background:#d55e00}
.cubefill-report .notes{margin:0;padding:0;list-style:none}
.cubefill-report .notes li{border-left:3px solid #d55e00;padding:.25rem 0 .25rem .8rem;
margin:0 0 .5rem;max-width:46rem}
.cubefill-report .fine{border-left:3px solid #009e73;padding:.25rem 0 .25rem .8rem;margin:0}
@media(max-width:40rem){.cubefill-report .pairs th{width:7rem}}
@media print{.cubefill-report section{break-inside:avoid}}
""".replace("STRIPS", str(STEPS + 1))
