"""Pictures read no more than they show; dates and colours are chosen as said."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cubefill import plot
from cubefill.errors import CubeError
from cubefill.methods.contract import Flag
from cubefill.plot import pixels as pictures
from tests.shared import pictures_scene as scenes
from tests.shared.pictures_scene import Counted


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return scenes.cube()


class TestDecimation:
    SIDE = 10_980

    @pytest.fixture
    def large(self) -> tuple[xr.Dataset, dict[str, Counted]]:
        shape = (5, self.SIDE, self.SIDE)
        sources = {b: Counted(shape, np.float32) for b in ("B02", "B03", "B04")}
        sources["valid"] = Counted(shape, bool)
        chunks = (5, 2745, 2745)
        ds = xr.Dataset(
            {
                n: (("time", "y", "x"), da.from_array(a, chunks, asarray=False, name=False))
                for n, a in sources.items()
            },
            {
                "time": np.datetime64("2021-01-01", "ns") + np.arange(5) * np.timedelta64(5, "D"),
                "y": 5e6 - 10.0 * np.arange(self.SIDE),
                "x": 5e5 + 10.0 * np.arange(self.SIDE),
            },
        )
        return ds, sources

    def test_only_what_is_shown_is_computed(
        self, large: tuple[xr.Dataset, dict[str, Counted]]
    ) -> None:
        ds, sources = large
        image = plot.rgb(ds, time="2021-01-06", max_px=512).axes[0].get_images()[0].get_array()
        assert image is not None
        assert image.shape == (499, 499, 4)
        assert sources["valid"].read == 0
        for band in ("B02", "B03", "B04"):
            assert 499**2 <= sources[band].read <= 1.05 * 512**2

    def test_choosing_a_date_reads_few_pixels(
        self, large: tuple[xr.Dataset, dict[str, Counted]]
    ) -> None:
        ds, sources = large
        plot.rgb(ds, max_px=256)
        assert sources["valid"].read <= 5 * 64**2
        assert sum(a.read for a in sources.values()) < 0.001 * ds["B04"].size

    @pytest.mark.parametrize(("side", "most"), [(1, 7), (7, 7), (8, 7), (100, 33)])
    def test_never_longer_than_asked(self, side: int, most: int) -> None:
        ds = xr.Dataset({"a": (("y", "x"), np.zeros((side, 2 * side)))})
        small = pictures.decimate(ds, most)
        assert max(small.sizes.values()) <= most
        assert min(small.sizes.values()) >= 1

    def test_less_than_one_pixel_is_refused(self, cube: xr.Dataset) -> None:
        with pytest.raises(CubeError, match="max_px=0: expected at least 1"):
            plot.rgb(cube, max_px=0)


def test_of_equal_dates_the_middle_one() -> None:
    clear = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    assert pictures.Cover(clear, np.ones(5)).cloudiest == 2


def test_a_date_at_the_edge_of_the_swath_does_not_count() -> None:
    found = pictures.Cover(np.array([0.9, 0.0, 0.2, 1.0]), np.array([1.0, 0.1, 1.0, 1.0]))
    assert found.cloudiest == 2
    assert found.clearest == 3


def test_colours_are_apart() -> None:
    colours = list(pictures.FLAG_COLOURS.values())
    assert len(set(colours)) == len(Flag) == len(colours)
    grey = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in colours]
    apart = [abs(a - b).sum() for i, a in enumerate(grey) for b in grey[:i]]
    assert min(apart) > 60
