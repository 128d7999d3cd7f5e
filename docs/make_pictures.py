"""Makes the pictures of README and docs: python docs/make_pictures.py."""

import io
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

import cubefill
from cubefill import simulate

IMAGES = Path(__file__).parent / "img"
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
LAYERS = '<text x="24" y="262"'
"""Where the second half of `design.svg` begins: the layers, drawn from the import contract."""
COLOURS = {"methods": "#fff6df", "engine": "#dcefe0", "store": "#dcefe0", "stac": "#dfeaf6"}
BANDS = ("B02", "B03", "B04", "B08")


def main() -> None:
    """Writes `img/before_after.png`: one half-cloudy date, and NDVI over the year."""
    scene = simulate.scene(size=256, dates=50, bands=BANDS, sar=False, dem=False, seed=3)
    out = scene.cube.gapfill(std=True).compute()
    above = out.gapfill.plot.compare(time=half_cloudy(scene.cube), before=scene.cube)
    below = scene.cube.gapfill.plot.ndvi(lively(scene.truth), out=out)
    pictures = [rendered(above, 90), rendered(below, 110)]
    width = max(p.width for p in pictures)
    sheet = Image.new("RGB", (width, sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height
    sheet.quantize(256, dither=Image.Dither.NONE).save(IMAGES / "before_after.png", optimize=True)


def half_cloudy(cube: Any) -> np.datetime64:
    """The date of the vegetation period that is nearest to half clear."""
    clear = cube["valid"].mean(("y", "x"))
    summer = clear.where(clear["time"].dt.month.isin([5, 6, 7, 8]), drop=True)
    return np.datetime64(summer["time"].values[np.abs(summer.values - 0.5).argmin()])


def lively(truth: Any) -> tuple[float, float]:
    """The place whose NDVI changes most over the year, water apart."""
    ndvi = cubefill.ndvi(truth)
    low = ndvi.min("time")
    change = (ndvi.max("time") - low).where(low > 0.15, 0).values
    row, column = np.unravel_index(int(change.argmax()), change.shape)
    return float(truth["x"][column]), float(truth["y"][row])


def rendered(figure: Any, dpi: int) -> Image.Image:
    """A figure as pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def layers() -> list[list[str]]:
    """Packages and modules of each layer, the topmost first, as the import contract has them."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    return [re.split(r" *[|:] *", layer) for layer in contracts[0]["layers"]]


def design(drawn: str) -> str:
    """The picture of the design with its lower half drawn anew: a box for each package."""
    head, rows = drawn[: drawn.index(LAYERS)], layers()
    height = 284 + 31 * len(rows)
    head = re.sub(
        r'viewBox="0 0 960 \d+" width="960" height="\d+"',
        f'viewBox="0 0 960 {height}" width="960" height="{height}"',
        head,
    )
    head = re.sub(r'<rect width="960" height="\d+"', f'<rect width="960" height="{height}"', head)
    parts = [_words(24, 262, "The packages: imports go down only", 16, "start", "#222", "600")]
    for row, names in enumerate(rows):
        left = 170.0
        for name in names:
            wide, top = 20 + 8 * len(name), 276 + 31 * row
            parts.append(
                f'<rect x="{left}" y="{top}" width="{wide}" height="26" rx="4" '
                f'fill="{COLOURS.get(name, "#f3f3f3")}" stroke="#7a8896"/>'
            )
            parts.append(_words(left + wide / 2, top + 18, name, 12.5, "middle", "#222"))
            left += wide + 10
        if len(names) == 1:
            parts.append(_words(310, 294 + 31 * row, first_line(names[0]), 12, "start", "#444"))
    parts.append(
        f'<line x1="900" y1="280" x2="900" y2="{height - 15}" stroke="#444" stroke-width="1.5" '
        'marker-end="url(#a)"/>'
    )
    parts.append(_words(888, 294, "imports", 12.5, "end", "#444"))
    return head + "\n".join([*parts, "</svg>"]) + "\n"


def first_line(name: str) -> str:
    """What a package or module says of itself."""
    inside = PROJECT.parent / "cubefill" / name
    text = (inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")).read_text()
    return escape(text.split('"""')[1].splitlines()[0].rstrip(".").replace("`", ""))


def _words(
    x: float, y: float, text: str, size: float, anchor: str, fill: str, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{text}</text>'
    )


if __name__ == "__main__":
    main()
    drawing = IMAGES / "design.svg"
    drawing.write_text(design(drawing.read_text()))
    print(f"{cubefill.__name__} made {IMAGES / 'before_after.png'}")
