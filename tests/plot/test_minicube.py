import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill.engine import gapfill
from cubefill.errors import CubeError
from cubefill.formats.earthnet import LANDCOVER
from cubefill.plot.minicube import colours, day_of_year, landcover_colours, overview
from cubefill.testing import synthetic_cube


@pytest.fixture(scope="module")
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    ds = synthetic_cube(days=[5.0 * i for i in range(12)], size=(24, 24), gap=0.3)
    return ds, gapfill(ds, "linear").compute()


def classes(size: int = 24) -> xr.DataArray:
    codes = np.array(list(LANDCOVER), np.uint8)[np.arange(size * size) % len(LANDCOVER)]
    return xr.DataArray(codes.reshape(size, size), dims=("y", "x"))


def test_ten_dates_with_their_days(pair: tuple[xr.Dataset, xr.Dataset], tmp_path: Path) -> None:
    fig = overview(*pair, classes())
    labels = [t.get_text() for ax in fig.axes for t in ax.texts]
    first = day_of_year(pair[0]["time"].values[0])
    assert labels == [f"DOY {first + 5 * i}" for i in range(10)]
    images = [ax for ax in fig.axes if ax.images]
    assert len(images) == 31
    (legend,) = [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == [n for n, _ in LANDCOVER.values()]
    path = tmp_path / "figure.png"
    fig.savefig(path, dpi=80)
    assert path.stat().st_size > 20_000


def test_rows_show_the_observed_the_filled_and_ndvi(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    before, filled = pair
    fig = overview(before, filled, first=2)
    shown = [np.asarray(ax.images[0].get_array()) for ax in fig.axes if ax.images]
    np.testing.assert_array_equal(shown[0], colours(before.isel(time=2)))
    np.testing.assert_array_equal(shown[1], colours(filled.isel(time=2)))
    b08, b04 = (filled[b].values[2] for b in ("B08", "B04"))
    np.testing.assert_allclose(shown[2], (b08 - b04) / (b08 + b04), atol=1e-5)
    assert [ax.images[0].get_clim() for ax in fig.axes if ax.images][2::3] == [(0, 1)] * 10


def test_gaps_are_outlined(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    def outlined(**options: bool) -> int:
        return sum(len(ax.collections) > 0 for ax in overview(*pair, **options).axes)  # type: ignore[arg-type]

    assert outlined() == outlined(outlines=False) + 10


def test_short_series_and_other_dates(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    before, filled = pair
    fig = overview(before, filled.isel(time=slice(0, 3)))
    assert sum(bool(ax.images) for ax in fig.axes) == 9
    other = filled.assign_coords(time=filled["time"] + np.timedelta64(2, "D"))
    fig = overview(before, other.isel(time=slice(0, 2)))
    assert sum(bool(ax.images) for ax in fig.axes) == 4, "no observed image on other days"


def test_colours() -> None:
    values = {"B04": [[0.101, np.nan]], "B03": [[0.2, 0.1]], "B02": [[0.5, 0.1]]}
    step = xr.Dataset({n: (("y", "x"), np.array(v, np.float32)) for n, v in values.items()})
    assert colours(step)[0, 0].tolist() == [77, 153, 255, 255]
    assert colours(step)[0, 1, 3] == 0


def test_landcover_colours() -> None:
    found = landcover_colours(np.array([[62, 162, 7]]))
    assert found[0].tolist() == [[210, 0, 0], [20, 69, 249], [255, 255, 255]]


def test_day_of_year() -> None:
    assert day_of_year(np.datetime64("2019-05-16")) == 136
    assert day_of_year(np.datetime64("2020-12-31T10:00")) == 366


def test_what_does_not_fit_is_refused(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    before, filled = pair
    with pytest.raises(CubeError, match="B08"):
        overview(before, filled.drop_vars("B08"))
    with pytest.raises(CubeError, match="first=12"):
        overview(before, filled, first=12)
    with pytest.raises(CubeError, match="land cover has 9 x 9"):
        overview(before, filled, classes(9))
    with pytest.raises(CubeError, match="observed cube has 5 x 24"):
        overview(before.isel(y=slice(0, 5)), filled)


def test_import_is_light() -> None:
    code = "import sys, cubefill.plot.minicube; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
