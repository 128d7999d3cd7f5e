"""Makes the picture of the README from a simulated scene: python docs/make_pictures.py."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import cubefill
from cubefill import simulate

IMAGES = Path(__file__).parent / "img"
BANDS = ("B02", "B03", "B04", "B08")


def main() -> None:
    """Writes `img/before_after.png`: one half-cloudy date, and NDVI over the year."""
    scene = simulate.scene(size=256, dates=50, bands=BANDS, sar=False, dem=False, seed=3)
    out = scene.cube.gapfill("linear", std=True).compute()
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


if __name__ == "__main__":
    main()
    print(f"{cubefill.__name__} made {IMAGES / 'before_after.png'}")
