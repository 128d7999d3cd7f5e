"""Pictures of a cube before and after filling; matplotlib and pillow are loaded when first used.

Every picture is decimated before anything is computed, and shown with one fixed stretch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.addresses import local_path, writing
from cubefill.errors import CubeError
from cubefill.methods.contract import Flag
from cubefill.plot.curves import curve, location
from cubefill.plot.drawing import (
    BACKGROUND,
    draw_curve,
    figure,
    legend,
    percent,
    require,
    show,
    size,
)
from cubefill.plot.pixels import (
    TRUE_COLOUR,
    aligned,
    colour_bands,
    cover,
    date_text,
    decimate,
    flag_rgb,
    named,
    nearest_time,
    rgba,
    same_day,
    source_cube,
    with_valid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


@overload
def rgb(
    ds: xr.Dataset,
    time: Any = None,
    ax: None = None,
    bands: Sequence[str] = ...,
    max_px: int = ...,
) -> "Figure": ...
@overload
def rgb(
    ds: xr.Dataset, time: Any = None, *, ax: "Axes", bands: Sequence[str] = ..., max_px: int = ...
) -> "Axes": ...
def rgb(
    ds: xr.Dataset,
    time: Any = None,
    ax: "Axes | None" = None,
    bands: Sequence[str] = TRUE_COLOUR,
    max_px: int = 1024,
) -> "Figure | Axes":
    """A colour picture of one date: a new figure, or `ax` where one is given.

    Parameters
    ----------
    ds
        A cube, filled or not; only every n-th pixel of one date is computed.
    time
        The nearest date is shown; None stands for the clearest date.
    bands
        Red, green and blue. Reflectance 0 to 0.3 is stretched with gamma 1/1.2, always, so that
        pictures compare. Pixels without data show the grey background.
    max_px
        Longest side of what is computed.

    Raises
    ------
    CubeError
        `time` lies outside the cube or a band is missing.
    CubefillError
        matplotlib is not installed.

    Examples
    --------
    >>> from cubefill.testing import synthetic_cube
    >>> fig = rgb(synthetic_cube(), time="2023-03-16", bands=("B08", "B04", "B04"))
    >>> fig.axes[0].get_title("left")
    '2023-03-16'
    """
    index = cover(ds).clearest if time is None else nearest_time(ds, time)
    small = decimate(ds, max_px, index)
    image = rgba(small[named(small, bands)].compute(), bands)
    fig = None if ax is not None else figure(*size(small, panels=1))
    axes = cast("Axes", ax if fig is None else fig.add_subplot())
    show(axes, image, small)
    axes.set_title(date_text(small["time"].values), loc="left")
    return axes if fig is None else fig


def compare(
    out: xr.Dataset,
    time: Any = None,
    before: xr.Dataset | None = None,
    bands: Sequence[str] | None = None,
    max_px: int = 768,
) -> "Figure":
    """Before, after and `fill_flag` of one date, side by side with one stretch.

    Parameters
    ----------
    out
        A filled cube.
    time
        The nearest date is shown; None stands for the cloudiest date.
    before
        The cube that was filled. By default the one that `out` remembers; where there is none,
        the first panel shows the observed pixels of `out` alone, and says so.
    bands
        Red, green and blue; by default true colour, or grey where the cube has no true colour.
    max_px
        Longest side of what is computed.

    Raises
    ------
    CubeError
        `out` is not filled, `time` lies outside it, or `before` does not cover it.
    """
    if "fill_flag" not in out:
        raise CubeError(
            "compare shows a filled cube: expected the variable fill_flag, found "
            f"{', '.join(map(str, out.data_vars))}. Use ds.gapfill().gapfill.plot.compare()."
        )
    index = cover(out).cloudiest if time is None else nearest_time(out, time)
    bands = bands or colour_bands(out)
    small = decimate(out, max_px, index)
    after = small[[*dict.fromkeys(named(small, bands)), "fill_flag"]].compute()
    flag = after["fill_flag"].transpose("y", "x").values
    filled = rgba(after, bands)
    first, note = _before(out, small, before, bands, filled, flag)
    fig = figure(*size(small, panels=3))
    axes = cast("list[Axes]", list(fig.subplots(1, 3, sharex=True, sharey=True)))
    method = out.attrs.get("gapfill_method", out.attrs.get("method"))
    titles = (note, f"After: {method}" if method else "After", "Flag")
    for ax, image, title in zip(axes, (first, filled, flag_rgb(flag)), titles, strict=True):
        show(ax, image, small, left=ax is axes[0])
        ax.set_title(title, loc="left", fontsize=10)
    clear = float((flag == Flag.OBSERVED).mean())
    title = f"{date_text(small['time'].values)}   {percent(clear)} observed"
    fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    legend(fig, flag)
    return fig


@overload
def ndvi(
    ds: xr.Dataset, point: Any = None, out: xr.Dataset | None = None, ax: None = None
) -> "Figure": ...
@overload
def ndvi(
    ds: xr.Dataset, point: Any = None, out: xr.Dataset | None = None, *, ax: "Axes"
) -> "Axes": ...
def ndvi(
    ds: xr.Dataset,
    point: Any = None,
    out: xr.Dataset | None = None,
    ax: "Axes | None" = None,
) -> "Figure | Axes":
    """NDVI of one place through time: observed dots, cloudy dots, filled line, 90 % interval.

    Parameters
    ----------
    ds
        A cube, or a filled cube, whose own cube is found as in `compare`.
    point
        `(x, y)` in the CRS of the cube, three or more corners of a polygon, or its GeoJSON; None
        picks a pixel with many gaps. A polygon shows means; a date counts as observed where half
        of its pixels are clear.
    out
        The filled cube, where `ds` is the cube before filling.

    Raises
    ------
    CubeError
        The place lies outside the cube, or a band is missing.
    """
    cube: xr.Dataset | None = ds
    if out is None and "fill_flag" in ds:
        cube, out = aligned(source_cube(ds), ds), ds
    cube = None if cube is None else with_valid(cube)
    where = location(cube if cube is not None else ds, point)
    found = curve(cube, out, where)
    fig = None if ax is not None else figure(9, 3.6)
    axes = cast("Axes", ax if fig is None else fig.add_subplot())
    draw_curve(axes, found)
    return axes if fig is None else fig


def animate(
    ds: xr.Dataset,
    path: str | Path,
    fps: float = 4,
    max_px: int = 400,
    bands: Sequence[str] | None = None,
    before: xr.Dataset | None = None,
) -> Path:
    """A GIF of every date, the date stamped below each; returns its path.

    Parameters
    ----------
    ds
        A cube, filled or not.
    fps
        Dates per second.
    max_px
        Longest side; small cubes are enlarged by a whole factor.
    before
        Shown on the left of `ds`, where given.

    Raises
    ------
    CubeError
        `before` does not cover `ds`.
    CubefillError
        pillow is not installed.
    """
    require("PIL", "pillow")
    bands = bands or colour_bands(ds)
    small = decimate(ds, max_px)
    names = list(dict.fromkeys(named(small, bands)))
    images = _frames(small[names].compute(), bands)
    part = aligned(before, small, given=before is not None)
    if part is not None:
        other = list(dict.fromkeys(named(part, bands)))
        at = [same_day(part, t) for t in small["time"].values]
        left = _frames(part[other].compute(), bands)
        blank = np.zeros_like(images[0])
        pairs = [blank if i is None else left[i] for i in at]
        gap = np.zeros((images[0].shape[0], 2, 4), np.uint8)
        images = [np.hstack([a, gap, b]) for a, b in zip(pairs, images, strict=True)]
    zoom = max(1, max_px // max(images[0].shape[:2]))
    stamped = [
        _stamp(image, date_text(t), zoom)
        for image, t in zip(images, small["time"].values, strict=True)
    ]
    target = local_path(path)
    first, *rest = stamped
    timing: dict[str, Any] = {"duration": round(1000 / fps), "loop": 0, "disposal": 1}
    with writing(target):
        first.save(target, save_all=True, append_images=rest, **timing)
    return target


def preview(
    ds: xr.Dataset, path: str | Path, time: Any = None, max_px: int = 1024, dpi: int = 150
) -> Path:
    """A PNG of one date: before, after and flag of a filled cube, else its colours."""
    fig = (
        compare(ds, time, max_px=max_px)
        if "fill_flag" in ds
        else rgb(ds, time, bands=colour_bands(ds), max_px=max_px)
    )
    target = local_path(path)
    with writing(target):
        fig.savefig(target, dpi=dpi, format="png")
    return target


# ------------------------------------------------------------------ parts


def _before(
    out: xr.Dataset,
    small: xr.Dataset,
    before: xr.Dataset | None,
    bands: Sequence[str],
    filled: NDArray[np.uint8],
    flag: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], str]:
    """The first panel and its title."""
    cube = source_cube(out, before)
    index = None if cube is None else same_day(cube, small["time"].values)
    step = aligned(cube, small, index, given=before is not None)
    if step is None:
        seen = filled.copy()
        seen[flag != Flag.OBSERVED] = 0
        return seen, "Before: observed pixels only"
    if index is None:
        return np.zeros_like(filled), "Before: no acquisition"
    return rgba(step[list(dict.fromkeys(named(step, bands)))].compute(), bands), "Before"


def _frames(ds: xr.Dataset, bands: Sequence[str]) -> list[NDArray[np.uint8]]:
    return [rgba(ds.isel(time=i), bands) for i in range(ds.sizes["time"])]


def _stamp(image: NDArray[np.uint8], text: str, zoom: int) -> "Image":
    """The image enlarged on grey, over a strip that carries the text."""
    from PIL import Image, ImageDraw, ImageFont

    big = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    height, width = big.shape[:2]
    strip = 22
    sheet = Image.new("RGB", (max(width, 96), height + strip), "#1a1a1a")
    sheet.paste(BACKGROUND, (0, 0, width, height))
    picture = Image.fromarray(big)
    sheet.paste(picture, (0, 0), picture)
    ImageDraw.Draw(sheet).text(
        (6, height + strip / 2), text, fill="white", anchor="lm", font=ImageFont.load_default(14)
    )
    return sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
