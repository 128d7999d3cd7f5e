import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.engine import gapfill
from cubefill.engine.kernel import fill_tile, region, sample
from cubefill.engine.request import request
from cubefill.engine.work import Region
from cubefill.errors import CubeError, MethodError
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.windows import Span
from tests.shared.strategies import Mean, Neighbours, chunkings, cube, cubes

spans = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda p: (max(p), min(p)))


@st.composite
def methods(draw: st.DrawFn, dates: int) -> Mean | Neighbours:
    if draw(st.booleans()):
        return Mean()
    size, keep = draw(spans)
    time = draw(st.integers(0, dates))
    blend = draw(st.sampled_from(["none", "linear"]))
    return Neighbours(size + 1, keep, time, draw(st.integers(1, time)) if time else 0, blend)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_answer_never_depends_on_chunks_or_tiles(data: st.DataObject) -> None:
    ds = data.draw(cubes())
    method = data.draw(methods(ds.sizes["time"]))
    whole = gapfill(ds, method, tile=max(ds.sizes.values())).compute()
    chunked = ds.chunk(data.draw(chunkings(ds)))
    parts = gapfill(chunked, method, tile=data.draw(st.integers(2, 14))).compute()
    for name in whole:
        np.testing.assert_array_equal(whole[name].values, parts[name].values)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_clear_observations_are_never_changed(data: st.DataObject) -> None:
    ds = data.draw(cubes())
    before = ds.copy(deep=True)
    out = gapfill(ds, data.draw(methods(ds.sizes["time"])), tile=5).compute()
    clear = ds["valid"].values
    for band in ("B04", "B08"):
        np.testing.assert_array_equal(out[band].values[clear], ds[band].values[clear])
    np.testing.assert_array_equal(out["fill_flag"].values == 0, clear)
    xr.testing.assert_identical(ds, before)


def slow(ds: xr.Dataset, method: Neighbours) -> np.ndarray:
    """Every kept pixel from its own window, one window after the other, in float64 order."""
    needs = method.needs
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    assert isinstance(needs.space, Span)
    out = np.zeros((ds.sizes["time"], ny, nx), np.float32)
    optical = ds["B04"].where(ds["valid"]).values
    days = (ds["time"].values - ds["time"].values[0]) / np.timedelta64(1, "D")
    for wy in needs.space.windows(ny):
        for wx in needs.space.windows(nx):
            seen = optical[:, wy.start : wy.stop, wx.start : wx.stop]
            total = np.nansum(seen.astype(np.float64))
            places = np.arange(seen[0].size, dtype=float).reshape(seen.shape[1:]) * 1e-3
            kept = (slice(wy.keep_start, wy.keep_stop), slice(wx.keep_start, wx.keep_stop))
            inner = (
                slice(kept[0].start - wy.start, kept[0].stop - wy.start),
                slice(kept[1].start - wx.start, kept[1].stop - wx.start),
            )
            value = total + places[inner] + days[:, None, None] * 1e-3
            out[(slice(None), *kept)] = value
    return out


def test_windows_see_what_a_slow_loop_sees() -> None:
    ds = cube(size=(19, 17))
    method = Neighbours(6, 3)
    out = gapfill(ds, method, tile=7)["B04"].values
    gap = ~ds["valid"].values
    np.testing.assert_allclose(out[gap], slow(ds, method)[gap], rtol=1e-6)


def test_a_patch_larger_than_the_cube_sees_it_reflected() -> None:
    @dataclass(frozen=True)
    class Show:
        needs = Needs(space=Span(7))

        def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
            for b in blocks:
                row = b.bands["B04"][0, 0]
                assert row.shape == (7,)
                np.testing.assert_array_equal(row[[0, 1, 2, 1, 0, 1, 2]], row)
                yield b.filled(np.nan_to_num(b.optical))

    assert gapfill(cube(size=(3, 3)), Show())["B04"].shape == (7, 3, 3)
    gapfill(cube(size=(3, 3)), Show()).compute()


def test_regions_grow_by_the_halo_and_stop_at_the_edge() -> None:
    work = request(cube(size=(40, 40)), Neighbours(8, 4)).work
    assert region(work, Region(slice(0, 10), slice(20, 30))) == Region(slice(0, 12), slice(16, 32))


def test_the_sample_depends_on_the_cube_alone() -> None:
    ds = cube(size=(50, 60))
    a = sample(request(ds, Mean()).work)
    b = sample(
        request(ds.chunk({"y": 7, "x": 9}), Mean()).work,
        lambda n, w: ds[n].values[:, w.y, w.x],
    )
    np.testing.assert_array_equal(a.optical, b.optical)
    assert a.valid.shape == (7, 16 * 16, 16)


def test_a_kernel_works_from_a_pickle() -> None:
    work = request(cube(), Mean()).work
    area = Region(slice(2, 9), slice(1, 6))
    again = fill_tile(pickle.loads(pickle.dumps(work)), area)
    for name, a in fill_tile(work, area).items():
        np.testing.assert_array_equal(a, again[name])


def test_too_few_dates_for_a_span_are_named() -> None:
    with pytest.raises(MethodError, match=r"needs 9 distinct dates; the cube has 7"):
        gapfill(cube(), Neighbours(time_size=9, time_keep=3))


def test_an_answer_of_another_shape_is_named() -> None:
    @dataclass(frozen=True)
    class Wrong:
        needs = Needs()

        def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
            for b in blocks:
                yield Filled({n: a[:1] for n, a in b.bands.items()})

    with pytest.raises(MethodError, match=r"Wrong returned float32 of shape \(1, 12, 10\) for B04"):
        gapfill(cube(), Wrong()).compute()


def test_digital_numbers_are_detected_in_lazy_cubes_too() -> None:
    ds = cube()
    ds["B04"] *= 10_000
    with pytest.raises(CubeError, match=r"digital numbers \(median of clear values \d+\)"):
        gapfill(ds.chunk(), Neighbours()).compute()


@pytest.mark.parametrize("size", [1, 7, 20])
def test_digital_numbers_are_found_where_few_pixels_are_clear(size: int) -> None:
    ds = cube().isel(y=slice(size), x=slice(size))
    ds["B04"] = ds["B04"] * 10_000
    clear = xr.zeros_like(ds["B04"], bool)
    clear[{"time": 1, "y": -1, "x": -1}] = True
    with pytest.raises(CubeError, match="digital numbers"):
        gapfill(ds, "linear", valid=clear).compute()


@dataclass(frozen=True)
class Rimmed:
    """The number of the window, and nonsense on the outer rim of what is seen."""

    size: int
    keep: int
    rim: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(space=Span(self.size, self.keep, "linear"))

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            image = np.full(block.valid.shape[1:], sum(block.origin) * 1e-3, np.float32)
            if self.rim:
                inside = image[self.rim : -self.rim, self.rim : -self.rim].copy()
                image[:] = 50
                image[self.rim : -self.rim, self.rim : -self.rim] = inside
            yield block.filled(np.broadcast_to(image, block.optical.shape).astype(np.float32))


def blended(method: Rimmed, shape: tuple[int, int]) -> np.ndarray:
    """Every pixel as the weighted mean over the windows that see it, in float64."""
    span = method.needs.space
    assert isinstance(span, Span)
    margin, ramps = span.halo // 4, []
    for length in shape:
        ramp = np.zeros((len(span.windows(length)), length))
        for i, w in enumerate(span.windows(length)):
            for p in range(w.start, min(w.stop, length)):
                depth = min(p - w.start, w.stop - 1 - p) - margin + 1
                ramp[i, p] = min(1, max(1e-6, depth / (span.halo - 2 * margin + 1)))
        ramps.append(ramp)
    starts = [[w.start for w in span.windows(n)] for n in shape]
    value = (np.add.outer(*map(np.array, starts)) * 1e-3).astype(np.float64)
    total = np.einsum("iy,jx->yx", *ramps)
    return np.asarray(np.einsum("ij,iy,jx->yx", value, *ramps) / total)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 9), st.integers(1, 4), st.integers(1, 30), st.integers(1, 30))
def test_blended_windows_are_a_weighted_mean(size: int, less: int, ny: int, nx: int) -> None:
    method = Rimmed(size, size - min(less, size // 2))
    ds = cube(dates=2, size=(ny, nx))
    ds = ds.assign(valid=ds["valid"] & False)
    out = gapfill(ds, method, tile=7).compute()["B04"].values
    np.testing.assert_allclose(out[0], blended(method, (ny, nx)), rtol=1e-5, atol=1e-6)


def test_the_rim_of_a_window_leaves_no_trace_where_another_one_answers() -> None:
    ds = cube(dates=2, size=(40, 40))
    ds = ds.assign(valid=ds["valid"] & False)
    plain, rimmed = (
        gapfill(ds, Rimmed(16, 8, rim), tile=20).compute()["B04"].values for rim in (0, 2)
    )
    inside = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(rimmed[inside], plain[inside], atol=2e-3)
    assert (rimmed[:, :2] > 10).all()
