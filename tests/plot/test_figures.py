"""Pictures show the numbers that they claim to show, and read no more than they need."""

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from cubefill import plot
from cubefill.cube.indices import ndvi
from cubefill.errors import CubeError, CubefillError
from cubefill.methods.contract import Flag
from cubefill.plot import pixels as pictures
from cubefill.plot.curves import curve, location
from tests.shared import pictures_scene as scenes

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return scenes.cube()


@pytest.fixture(scope="module")
def out(cube: xr.Dataset) -> xr.Dataset:
    made = scenes.filled(cube)
    made.encoding["source_cube"] = cube
    return made


def shown(ax: Any) -> Pixels:
    """What an axes shows, as given to matplotlib."""
    return np.asarray(ax.get_images()[0].get_array())


def expected(values: NDArray[Any]) -> NDArray[Any]:
    return np.rint(255 * np.clip(values / 0.3, 0, 1) ** (1 / 1.2))


class TestRgb:
    def test_pixels_are_the_stretch_of_the_bands(self, cube: xr.Dataset) -> None:
        fig = plot.rgb(cube, time=cube.time.values[5])
        image = shown(fig.axes[0])
        for channel, band in enumerate(("B04", "B03", "B02")):
            np.testing.assert_array_equal(image[..., channel], expected(cube[band][5].values))
        assert (image[..., 3] == 255).all()

    def test_extent_and_crs(self, cube: xr.Dataset) -> None:
        ax = plot.rgb(cube).axes[0]
        left, right = 499_995, 499_995 + 480
        assert tuple(ax.get_images()[0].get_extent()) == (left, right, 5_650_005 - 480, 5_650_005)
        assert ax.get_xlabel() == "Easting (m, EPSG:32631)"

    def test_large_extents_are_in_kilometres(self, cube: xr.Dataset) -> None:
        wide = cube.assign_coords(x=500_000.0 + 1000 * np.arange(48))
        ax = plot.rgb(wide).axes[0]
        assert ax.get_xlabel() == "Easting (km, EPSG:32631)"

    def test_north_stays_up_for_ascending_y(self, cube: xr.Dataset) -> None:
        ax = plot.rgb(cube.isel(y=slice(None, None, -1)), time=scenes.dates_of(cube)[0]).axes[0]
        assert ax.get_images()[0].origin == "lower"
        assert ax.get_ylim()[0] < ax.get_ylim()[1]

    def test_no_data_is_transparent(self, cube: xr.Dataset) -> None:
        holed = cube.copy(deep=True)
        holed["B03"][5, 2:4, 3] = np.nan
        alpha = shown(plot.rgb(holed, time=cube.time.values[5]).axes[0])[..., 3]
        assert (alpha[2:4, 3] == 0).all()
        assert (alpha == 0).sum() == 2

    def test_date_is_the_nearest_and_the_title(self, cube: xr.Dataset) -> None:
        days = scenes.dates_of(cube)
        for asked in (days[3], cube.time.values[3], cube.time[3], f"{days[3]}T23:00Z"):
            assert plot.rgb(cube, time=asked).axes[0].get_title("left") == days[3]

    def test_a_day_means_that_day_whatever_the_hour(self, cube: xr.Dataset) -> None:
        late = cube.isel(time=[0, 1]).assign_coords(
            time=np.array(["2021-03-01T20:00", "2021-03-02T20:00"], "datetime64[ns]")
        )
        assert plot.rgb(late, time="2021-03-02").axes[0].get_title("left") == "2021-03-02"

    def test_without_a_date_the_clearest(self, cube: xr.Dataset) -> None:
        best = int(cube["valid"].sum(("y", "x")).values.argmax())
        assert plot.rgb(cube).axes[0].get_title("left") == scenes.dates_of(cube)[best]

    @pytest.mark.parametrize("time", ["2020-01-01", "2031-01-01", "a Tuesday", "NaT"])
    def test_a_date_outside_is_refused(self, cube: xr.Dataset, time: str) -> None:
        with pytest.raises(CubeError, match=r"expected .*Pass time='20"):
            plot.rgb(cube, time=time)

    def test_a_missing_band_is_named(self, cube: xr.Dataset) -> None:
        with pytest.raises(CubeError, match=r"B12 missing; the cube has B02.*Pass bands="):
            plot.rgb(cube, bands=("B12", "B08", "B04"))

    def test_draws_into_given_axes(self, cube: xr.Dataset) -> None:
        ax = plot.rgb(cube).axes[0]
        assert plot.rgb(cube, ax=ax) is ax

    def test_notebooks_show_the_figure(self, cube: xr.Dataset) -> None:
        assert plot.rgb(cube)._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]

    def test_pyplot_is_never_loaded(self, cube: xr.Dataset) -> None:
        before = "matplotlib.pyplot" in sys.modules
        plot.rgb(cube)
        assert ("matplotlib.pyplot" in sys.modules) == before


class TestCompare:
    def test_three_panels_of_one_date(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        day = scenes.dates_of(cube)[5]
        fig = plot.compare(out, time=day)
        before, after, flag = (shown(ax) for ax in fig.axes)
        np.testing.assert_array_equal(before[..., 0], expected(cube["B04"][5].values))
        np.testing.assert_array_equal(after[..., 0], expected(out["B04"][5].values))
        np.testing.assert_array_equal(flag, pictures.flag_rgb(out["fill_flag"][5].values))
        assert [ax.get_title("left") for ax in fig.axes] == ["Before", "After: linear", "Flag"]

    def test_observed_pixels_look_the_same_before_and_after(self, out: xr.Dataset) -> None:
        fig = plot.compare(out, time=out.time.values[5])
        observed = out["fill_flag"][5].values == 0
        before, after = (shown(ax)[observed] for ax in fig.axes[:2])
        np.testing.assert_array_equal(before, after)
        assert observed.any()
        assert not observed.all()

    def test_legend_has_the_codes_of_the_picture(self, out: xr.Dataset) -> None:
        fig = plot.compare(out, time=out.time.values[5])
        legend = fig.legends[0]
        codes, counts = np.unique(out["fill_flag"][5].values, return_counts=True)
        texts = [t.get_text() for t in legend.get_texts()]
        assert [int(t.split()[0]) for t in texts] == codes.tolist()
        assert texts[0] == f"0  observed  {100 * counts[0] / counts.sum():.0f} %"
        for handle, code in zip(legend.legend_handles, codes, strict=True):
            assert to_hex(handle.get_facecolor()) == pictures.FLAG_COLOURS[Flag(code)]  # type: ignore[union-attr]

    def test_without_a_date_the_cloudiest(self, out: xr.Dataset) -> None:
        share = (out["fill_flag"] == 0).mean(("y", "x")).values
        day = plot.compare(out).get_suptitle()[:10]
        assert share[scenes.dates_of(out).index(day)] == share.min()

    def test_before_given(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        other = cube.copy(deep=True)
        other["B04"][5] = 0.15
        image = shown(plot.compare(out, time=out.time.values[5], before=other).axes[0])
        assert (image[..., 0] == expected(np.full(1, 0.15))).all()

    def test_before_of_a_part(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        part = out.isel(y=slice(10, 30), x=slice(4, 40, 2))
        image = shown(plot.compare(part, time=out.time.values[5]).axes[0])
        np.testing.assert_array_equal(image[..., 0], expected(cube["B04"][5, 10:30, 4:40:2].values))

    def test_before_unknown_shows_observed_pixels_and_says_so(self, cube: xr.Dataset) -> None:
        alone = scenes.filled(cube)
        ax = plot.compare(alone, time=cube.time.values[5]).axes[0]
        assert ax.get_title("left") == "Before: observed pixels only"
        np.testing.assert_array_equal(
            shown(ax)[..., 3] > 0, alone["fill_flag"][5].values == Flag.OBSERVED
        )

    def test_a_date_without_acquisition(self, out: xr.Dataset) -> None:
        moved = out.assign_coords(time=out.time + np.timedelta64(30, "h"))
        moved.encoding["source_cube"] = out.encoding["source_cube"].isel(time=slice(0, 2))
        ax = plot.compare(moved, time=moved.time.values[-1]).axes[0]
        assert ax.get_title("left") == "Before: no acquisition"
        assert (shown(ax)[..., 3] == 0).all()

    def test_a_cube_of_another_place_is_refused(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        far = cube.assign_coords(x=cube.x + 1e5)
        with pytest.raises(CubeError, match="before= does not cover"):
            plot.compare(out, before=far)

    def test_an_unfilled_cube_is_refused(self, cube: xr.Dataset) -> None:
        with pytest.raises(CubeError, match=r"expected the variable fill_flag.*Use ds\.gapfill"):
            plot.compare(cube)


class TestNdvi:
    def test_dots_and_line_are_the_ndvi_of_the_pixel(
        self, cube: xr.Dataset, out: xr.Dataset
    ) -> None:
        iy, ix = 20, 30
        point = (float(cube.x[ix]), float(cube.y[iy]))
        ax = plot.ndvi(out, point).axes[0]
        lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.get_lines()}
        raw = ndvi(cube)[:, iy, ix].values
        clear = cube["valid"][:, iy, ix].values
        np.testing.assert_allclose(lines["observed"], np.where(clear, raw, np.nan))
        np.testing.assert_allclose(lines["cloudy"], np.where(clear, np.nan, raw))
        np.testing.assert_allclose(lines["filled"], ndvi(out)[:, iy, ix].values)

    def test_interval_is_that_of_the_bands(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        where = location(cube, (float(cube.x[3]), float(cube.y[4])))
        found = curve(cube, out, where)
        red, nir = (out[b][:, 4, 3].values.astype(float) for b in ("B04", "B08"))
        exact = 2 * np.hypot(nir, red) * 0.01 / (nir + red) ** 2
        assert found.std is not None
        clear = cube["valid"][:, 4, 3].values
        np.testing.assert_allclose(found.std, np.where(clear, 0, exact), rtol=1e-5)

    def test_a_polygon_is_a_mean(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        x, y = cube.x.values, cube.y.values
        box = [
            (x[2] - 5, y[9] - 5),
            (x[6] + 5, y[9] - 5),
            (x[6] + 5, y[3] + 5),
            (x[2] - 5, y[3] + 5),
        ]
        geojson = {"type": "Polygon", "coordinates": [[*box, box[0]]]}
        for shape in (box, geojson):
            found = curve(cube, out, location(cube, shape))
            np.testing.assert_allclose(
                found.filled, ndvi(out)[:, 3:10, 2:7].mean(("y", "x")).values, rtol=1e-6
            )
            assert found.label == "mean of 35 pixels"

    def test_a_polygon_follows_its_edge(self, cube: xr.Dataset) -> None:
        from matplotlib.path import Path as Outline

        corners = [(500_021.0, 5_649_611.0), (500_333.0, 5_649_702.0), (500_101.0, 5_649_977.0)]
        where = location(cube, corners)
        xx, yy = np.meshgrid(cube.x[where.x], cube.y[where.y])
        inside = Outline(corners).contains_points(np.c_[xx.ravel(), yy.ravel()])
        np.testing.assert_array_equal(where.inside.ravel(), inside)
        assert 0 < inside.sum() < inside.size

    def test_default_pixel_has_many_gaps_and_was_seen(self, cube: xr.Dataset) -> None:
        where = location(cube)
        count = cube["valid"].sum("time").values
        mine = count[where.y, where.x].item()
        assert mine == count[count >= np.quantile(count[count > 0], 0.25)].min()

    def test_out_beside_its_cube(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        ax = plot.ndvi(cube, out=out).axes[0]
        assert {"observed", "cloudy", "filled"} <= {line.get_label() for line in ax.get_lines()}

    def test_a_cube_alone_has_no_line(self, cube: xr.Dataset) -> None:
        ax = plot.ndvi(cube).axes[0]
        assert [line.get_label() for line in ax.get_lines()] == ["cloudy", "observed"]

    def test_unsorted_dates_make_one_line(self, cube: xr.Dataset, out: xr.Dataset) -> None:
        order = np.random.default_rng(0).permutation(out.sizes["time"])
        point = (float(cube.x[3]), float(cube.y[4]))
        one = curve(cube, out, location(cube, point))
        two = curve(cube.isel(time=order), out.isel(time=order), location(cube, point))
        np.testing.assert_array_equal(one.filled, two.filled)

    @pytest.mark.parametrize("point", [(0.0, 0.0), (500_000.0, 0.0)])
    def test_a_point_outside_is_refused(self, cube: xr.Dataset, point: Any) -> None:
        with pytest.raises(CubeError, match=r"outside the cube: expected [xy] from .*Pass point="):
            plot.ndvi(cube, point)

    @pytest.mark.parametrize("point", ["here", (1.0, 2.0, 3.0, 4.0)[:1], [(0, 0), (1, 1)]])
    def test_what_is_no_place_is_refused(self, cube: xr.Dataset, point: Any) -> None:
        with pytest.raises(CubeError, match=r"expected \(x, y\) in the CRS"):
            plot.ndvi(cube, point)

    def test_reads_one_pixel(self, cube: xr.Dataset) -> None:
        source = scenes.Counted(cube["B04"].shape, np.float32)
        lazy = cube.copy()
        lazy["B04"] = (cube["B04"].dims, da.from_array(source, (16, 48, 48), asarray=False))
        plot.ndvi(lazy, (float(cube.x[3]), float(cube.y[4])))
        assert source.read == cube.sizes["time"]


class TestAnimate:
    def test_every_date_is_a_picture(
        self, cube: xr.Dataset, out: xr.Dataset, tmp_path: Path
    ) -> None:
        path = plot.animate(out, tmp_path / "a.gif", fps=5, max_px=96)
        with Image.open(path) as gif:
            assert gif.n_frames == out.sizes["time"]  # type: ignore[attr-defined]
            assert gif.info["duration"] == 200
            assert gif.size == (96, 96 + 22)
            gif.seek(5)
            frame = np.asarray(gif.convert("RGB")).astype(int)
        truth = pictures.rgba(out.isel(time=5))[..., :3].repeat(2, 0).repeat(2, 1).astype(int)
        assert np.abs(frame[:96] - truth).mean() < 4
        assert (frame[96:] > 200).any()

    def test_before_on_the_left(self, cube: xr.Dataset, out: xr.Dataset, tmp_path: Path) -> None:
        path = plot.animate(out, tmp_path / "a.gif", max_px=48, before=cube)
        with Image.open(path) as gif:
            assert gif.size == (48 + 2 + 48, 48 + 22)
            gif.seek(5)
            frame = np.asarray(gif.convert("RGB")).astype(int)
        for left, ds in ((0, cube), (50, out)):
            truth = pictures.rgba(ds.isel(time=5))[..., :3].astype(int)
            assert np.abs(frame[:48, left : left + 48] - truth).mean() < 4


class TestPreview:
    def test_png_of_a_cube_and_of_its_filled_form(
        self, cube: xr.Dataset, out: xr.Dataset, tmp_path: Path
    ) -> None:
        widths = []
        for ds in (cube, out):
            with Image.open(plot.preview(ds, tmp_path / "p.png", dpi=50)) as image:
                assert image.format == "PNG"
                widths.append(image.size[0])
        assert widths[1] > 1.5 * widths[0]

    def test_a_cube_without_true_colour_is_grey(self, cube: xr.Dataset, tmp_path: Path) -> None:
        grey = cube.drop_vars(["B02", "B03"])
        assert pictures.colour_bands(grey) == ("B08",) * 3
        assert plot.preview(grey, tmp_path / "p.png").exists()


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("matplotlib", lambda ds, folder: plot.rgb(ds)),
        ("PIL", lambda ds, folder: plot.animate(ds, folder / "a.gif")),
    ],
)
def test_a_missing_library_says_what_to_install(
    cube: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    call: Callable[[xr.Dataset, Path], Any],
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(CubefillError, match=r'pip install "cubefill\[viz\]"'):
        call(cube, tmp_path)
