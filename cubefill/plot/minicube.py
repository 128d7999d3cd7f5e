"""The figure of a filled minicube, as the authors of GANFilling draw it.

Matplotlib is loaded when a figure is made.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import axes
from cubefill.cube.indices import ndvi
from cubefill.errors import CubeError
from cubefill.formats.earthnet import LANDCOVER
from cubefill.plot.drawing import figure
from cubefill.plot.pixels import TRUE_COLOUR, same_day

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

DATES = 10
"""Dates of a figure."""
GAIN = 3.0
"""Factor from reflectance to brightness."""

_GAP = "#ff0000"


def overview(
    before: xr.Dataset,
    filled: xr.Dataset,
    landcover: xr.DataArray | None = None,
    *,
    first: int = 0,
    outlines: bool = True,
) -> "Figure":
    """A figure of ten dates: as observed with the day of the year, filled, and the filled NDVI.

    Land cover stands at the left with the legend of its 15 classes. Gaps are outlined in red on
    the observed images. Colours are reflectance times 3, NDVI is `jet` from 0 to 1, black where it
    is unknown.

    Parameters
    ----------
    before
        The cube as it was, with `valid`.
    filled
        The filled cube, with B02, B03, B04 and B08, of the same pixels.
    landcover
        Codes of `minicube.LANDCOVER` `(y, x)`; None leaves its place empty.
    first
        First time step of `filled` to show.
    outlines
        False leaves the outlines out.

    Raises
    ------
    CubeError
        A band is missing, `first` is outside, or the grids differ.

    References
    ----------
    GANFilling, ISPRS Journal of Photogrammetry and Remote Sensing 220 (2025), 637-648.
    """
    _check(before, filled, landcover, first)
    shown = filled.isel(time=slice(first, first + DATES))
    days = shown["time"].values
    columns = len(days)
    fig = figure(2.6 + 1.32 * columns, 4.7)
    grid = fig.add_gridspec(4, columns + 1, width_ratios=[1.75, *[1] * columns],
                            height_ratios=[1, 1, 1, 0.08])  # fmt: skip
    _left(fig, grid[0, 0], grid[1:3, 0], landcover)
    image: Any = None
    index = ndvi(shown).transpose("time", "y", "x").values
    for k in range(columns):
        top, middle, low = (fig.add_subplot(grid[row, k + 1]) for row in range(3))
        at = same_day(before, days[k])
        if at is not None:
            seen = before.isel(time=at)
            top.imshow(colours(seen), interpolation="nearest")
            _outline(top, seen, outlines)
        _day(top, days[k])
        middle.imshow(colours(shown.isel(time=k)), interpolation="nearest")
        low.set_facecolor("black")
        image = low.imshow(index[k], cmap="jet", vmin=0, vmax=1, interpolation="nearest")
        for ax in (top, middle, low):
            _bare(ax)
        if k == 0:
            for ax, name in ((top, "Observed"), (middle, "Filled"), (low, "NDVI, filled")):
                ax.set_ylabel(name, fontsize=8)
    bar = fig.colorbar(image, cax=fig.add_subplot(grid[3, 1:]), orientation="horizontal")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("NDVI", fontsize=8)
    return fig


def colours(step: xr.Dataset) -> NDArray[np.uint8]:
    """True colour `(y, x, 4)` of one date, reflectance times 3; transparent where it is unknown."""
    values = np.stack([step[b].transpose("y", "x").values for b in TRUE_COLOUR], axis=-1)
    known = np.isfinite(values).all(axis=-1)
    bright = np.clip(np.nan_to_num(values) * GAIN, 0, 1)
    alpha = known[..., None].astype(np.float64)
    rgba: NDArray[np.uint8] = np.rint(255 * np.concatenate([bright, alpha], -1)).astype(np.uint8)
    return rgba


def landcover_colours(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours `(y, x, 3)` of land cover; a code that is no class is white, as no data."""
    table = np.full((256, 3), 255, np.uint8)
    for code, (_, colour) in LANDCOVER.items():
        table[code] = colour
    return table[codes.astype(np.uint8)]


def day_of_year(time: Any) -> int:
    """Day of the year, 1 for the first of January."""
    return int(axes.day_of_year(time))


def _left(
    fig: "Figure", above: "SubplotSpec", below: "SubplotSpec", codes: xr.DataArray | None
) -> None:
    """Land cover, and under it the legend of all classes."""
    if codes is None:
        return
    from matplotlib.patches import Patch

    ax = fig.add_subplot(above)
    ax.imshow(landcover_colours(codes.transpose("y", "x").values), interpolation="nearest")
    ax.set_title("Land cover", fontsize=8, pad=3)
    _bare(ax)
    handles = [
        Patch(facecolor="#" + bytes(rgb).hex(), edgecolor="#888888", linewidth=0.4, label=name)
        for name, rgb in LANDCOVER.values()
    ]
    box = fig.add_subplot(below)
    box.axis("off")
    box.legend(
        handles=handles,
        loc="center",
        frameon=False,
        fontsize=6.2,
        handlelength=1.1,
        handleheight=0.9,
        labelspacing=0.35,
        borderaxespad=0,
        handletextpad=0.5,
    )


def _day(ax: "Axes", time: Any) -> None:
    ax.text(
        0.96,
        0.05,
        f"DOY {day_of_year(time)}",
        transform=ax.transAxes,
        ha="right",
        va="bottom",
        fontsize=6.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )


def _outline(ax: "Axes", seen: xr.Dataset, outlines: bool) -> None:
    if not outlines or "valid" not in seen:
        return
    gap = ~seen["valid"].transpose("y", "x").values.astype(bool)
    if gap.any() and min(gap.shape) > 1:
        ring = np.pad(gap, 1).astype(float)
        at = [np.arange(-1, n + 1) for n in reversed(gap.shape)]
        ax.contour(at[0], at[1], ring, levels=[0.5], colors=_GAP, linewidths=0.5)
        ax.set_xlim(-0.5, gap.shape[1] - 0.5)
        ax.set_ylim(gap.shape[0] - 0.5, -0.5)


def _bare(ax: "Axes") -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_linewidth(0.4)


def _check(
    before: xr.Dataset, filled: xr.Dataset, landcover: xr.DataArray | None, first: int
) -> None:
    for what, ds, names in (
        ("observed", before, TRUE_COLOUR),
        ("filled", filled, (*TRUE_COLOUR, "B08")),
    ):
        missing = [n for n in names if n not in ds]
        if missing:
            raise CubeError(
                f"The {what} cube has no {', '.join(missing)}: the figure needs {', '.join(names)}."
            )
    if not 0 <= first < filled.sizes["time"]:
        raise CubeError(f"first={first}: expected 0 to {filled.sizes['time'] - 1}. Pass first=0.")
    shape = {d: filled.sizes[d] for d in ("y", "x")}
    others = [("observed cube", dict(before.sizes))]
    others += [("land cover", dict(landcover.sizes))] if landcover is not None else []
    for what, sizes in others:
        if {d: sizes.get(d) for d in ("y", "x")} != shape:
            raise CubeError(
                f"The {what} has {sizes.get('y')} x {sizes.get('x')} pixels: expected "
                f"{shape['y']} x {shape['x']} as the filled cube."
            )
