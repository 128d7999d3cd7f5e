"""How figures are drawn: axes in metres with their CRS, the legend of flags, a curve.

matplotlib is loaded when a figure is made, and pyplot never.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube import crs_of
from cubefill.errors import CubefillError
from cubefill.methods.contract import Flag
from cubefill.plot.curves import Curve
from cubefill.plot.pixels import FLAG_COLOURS, flag_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL = 1.6449
"""Standard deviations on each side of a 90 % interval."""
BACKGROUND = "#bdbdbd"
"""What shows where there is no data."""

_LINE = "#0072b2"
_KM = 10_000.0
"""Extent in m from which axes are labelled in km."""


def require(module: str, package: str) -> None:
    """Raises with an install hint unless `module` can be imported."""
    try:
        __import__(module)
    except ImportError as error:
        raise CubefillError(
            f'Pictures need {package}: expected it installed. Use pip install "cubefill[viz]".'
        ) from error


@cache
def _figure_class() -> "type[Figure]":
    """A figure that a notebook shows without pyplot."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            FigureCanvasAgg(self)
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return Picture


def figure(width: float, height: float) -> "Figure":
    """An empty white figure of that many inches, apart from pyplot, drawn by Agg."""
    require("matplotlib", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fig = _figure_class()(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def size(small: xr.Dataset, panels: int) -> tuple[float, float]:
    """Inches that fit the panels at the shape of the cube."""
    ratio = min(max(small.sizes["y"] / small.sizes["x"], 0.25), 3.0)
    width = 3.6 if panels > 1 else 5.2
    return width * panels + 0.6, width * ratio + (1.35 if panels > 1 else 0.8)


def show(ax: "Axes", image: NDArray[np.uint8], small: xr.Dataset, *, left: bool = True) -> None:
    """Draws an image at its coordinates, the CRS in the label."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    x, y = small["x"].values.astype(float), small["y"].values.astype(float)
    dx = abs(x[1] - x[0]) if x.size > 1 else abs(y[1] - y[0]) if y.size > 1 else 1.0
    dy = abs(y[1] - y[0]) if y.size > 1 else dx
    extent = (x.min() - dx / 2, x.max() + dx / 2, y.min() - dy / 2, y.max() + dy / 2)
    if x.size > 1 and x[0] > x[-1]:
        image = image[:, ::-1]
    down = y.size < 2 or y[0] > y[-1]
    ax.set_facecolor(BACKGROUND)
    ax.imshow(image, extent=extent, origin="upper" if down else "lower", interpolation="nearest")
    in_km = max(extent[1] - extent[0], extent[3] - extent[2]) >= _KM
    unit = "km" if in_km else "m"
    scale = 1e-3 if in_km else 1.0
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v * scale:,.10g}".replace(",", "\u2009"))
        )
    ax.tick_params(labelsize=8, length=3, color="#888888", labelleft=left)
    ax.tick_params(axis="y", labelrotation=90)
    for label in ax.get_yticklabels():
        label.set_verticalalignment("center")
    crs = crs_of(small)
    where = f", EPSG:{crs.epsg}" if crs is not None and crs.epsg else ""
    ax.set_xlabel(f"Easting ({unit}{where})", fontsize=8)
    if left:
        ax.set_ylabel(f"Northing ({unit})", fontsize=8)
    for spine in ax.spines.values():
        spine.set_color("#888888")


def legend(fig: "Figure", flag: NDArray[np.uint8]) -> None:
    """Colour, CF meaning and share of each code in the picture."""
    from matplotlib.patches import Patch

    known = {int(f) for f in Flag}
    codes, counts = np.unique(flag, return_counts=True)
    handles = [
        Patch(
            facecolor=FLAG_COLOURS[Flag(code)],
            edgecolor="#666666",
            linewidth=0.6,
            label=f"{code}  {flag_label(code)}  {percent(n / flag.size)}",
        )
        for code, n in zip(codes.tolist(), counts.tolist(), strict=True)
        if code in known
    ]
    fig.legend(
        handles=handles,
        loc="outside lower right",
        ncols=min(len(handles), 5),
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        handleheight=1.2,
    )


def percent(share: float) -> str:
    """A share 0-1 in whole percent; what is neither none nor all never reads 0 % or 100 %."""
    return "< 1 %" if 0 < share < 0.01 else "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def draw_curve(ax: "Axes", found: Curve) -> None:
    """Draws a curve: observed and cloudy dots, filled line, 90 % interval where it is known."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if found.filled.size:
        if found.std is not None:
            wide = INTERVAL * found.std
            ax.fill_between(
                found.out_time,
                found.filled - wide,
                found.filled + wide,
                color=_LINE,
                alpha=0.2,
                linewidth=0,
                label="90 % interval",
            )
        ax.plot(found.out_time, found.filled, color=_LINE, linewidth=1.6, label="filled")
    if np.isfinite(found.cloudy).any():
        ax.plot(
            found.time,
            found.cloudy,
            "o",
            ms=4,
            mfc="none",
            mec="#9a9a9a",
            mew=0.9,
            label="cloudy",
        )
    ax.plot(found.time, found.observed, "o", ms=5, color="#1a1a1a", label="observed")
    values = np.concatenate([found.observed, found.cloudy, found.filled])
    low = np.nanmin(values) if np.isfinite(values).any() else 0.0
    ax.set_ylim(min(-0.05, float(low) - 0.05), 1.0)
    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    offsets = ["", "%Y", "%Y", "%Y", "%Y-%m-%d", "%Y-%m-%d"]
    ax.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, offset_formats=offsets)  # type: ignore[no-untyped-call]
    )
    ax.set_ylabel("NDVI")
    ax.set_title(found.label, loc="left", fontsize=10)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        frameon=False,
        fontsize=9,
        borderaxespad=0,
    )
