"""What the Decloud methods share: mosaics of clear pixels, and the 20 m grid in odd cubes."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill.engine import gapfill
from cubefill.errors import MethodError
from cubefill.methods.contract import Block
from cubefill.methods.learned.decloud import BANDS, BANDS_20M, backscatter
from cubefill.methods.learned.decloud_nets import MsopUnet, SsopUnet
from cubefill.methods.windows import Span
from cubefill.samples.patches import CubeSamples, placed
from cubefill.testing import synthetic_cube
from tests.shared.decloud import NARROW, OS1, made, of_bands, on_days, wanted
from tests.shared.torch_thread import one_thread as one_thread

DAYS = [0, 5, 10, 12, 17, 20, 25, 31, 38, 44, 60]


def slowly(block: Block, most: int, otherwise: list[int]) -> list[Any]:
    """Time step of each pixel of the slot before, the date and the slot after, one by one."""
    (at,) = block.out_time
    order = sorted(range(len(block.time)), key=lambda t: abs(block.time[t] - at))
    before = [t for t in order if block.time[t] < at][:most]
    after = [t for t in order if block.time[t] > at][:most]
    found = []
    for near, other in zip((before, [], after), otherwise, strict=True):
        steps = np.full(block.valid.shape[1:], other)
        for y, x in np.ndindex(steps.shape):
            for t in near:
                seen = [np.isfinite(a[t, y, x]) for a in block.bands.values()]
                if block.valid[t, y, x] and all(seen):
                    steps[y, x] = t
                    break
        found.append(steps)
    return found


def pixels(a: Any, steps: Any) -> Any:
    """An image `(y, x)` put together one pixel after another."""
    out = np.empty(steps.shape, a.dtype)
    for y, x in np.ndindex(out.shape):
        out[y, x] = a[steps[y, x], y, x]
    return out


@pytest.mark.parametrize("day", [0, 20, 22, 60])
@pytest.mark.parametrize("most", [1, 3, 12])
@pytest.mark.parametrize("layout", ["msop", OS1])
def test_pixels_come_from_the_nearest_clear_acquisition(layout: str, most: int, day: int) -> None:
    method = made(MsopUnet, **NARROW, layout=layout, mosaic=most)
    given = wanted(of_bands(on_days(DAYS, valid=0.4)), day)
    given.bands["B03"][3:8, :4] = np.nan
    given.sar["VV"][:, 2, 3] = np.nan
    steps = slowly(given, most, method.dates(given).tolist())
    assert len(np.unique(np.stack(steps))) > 3 or most == 1
    arrays = method.encode(given)
    shown = [0, 1, 2] if layout == "msop" else [0, 2]
    for i, slot in enumerate(shown):
        for b, name in enumerate(BANDS):
            seen = np.nan_to_num(pixels(given.bands[name], steps[slot]), nan=-1)
            np.testing.assert_array_equal(arrays["optical"][i, b], seen)
    for slot in range(3):
        for b, name in enumerate(("VV", "VH")):
            image = pixels(given.sar[name], steps[slot])
            count = np.clip(1 + 65534 * (np.log(10 ** (image / 10) + 1e-6) + 10) / 13, 1, 65535)
            expected = np.nan_to_num(count / 65535, nan=0)
            np.testing.assert_allclose(arrays["sar"][slot, b], expected, rtol=1e-5)


def test_bands_at_20_m_come_from_the_same_acquisitions() -> None:
    method = made(MsopUnet, **NARROW, mosaic=4, bands_20m=BANDS_20M)
    given = wanted(on_days(DAYS, valid=0.3), 20)
    steps = slowly(given, 4, method.dates(given).tolist())
    arrays = method.encode(given)
    for i, part in enumerate(steps):
        image = pixels(given.bands["B11"], part)
        means = image.reshape(8, 2, 8, 2).mean((1, 3))
        at = BANDS_20M.index("B11")
        np.testing.assert_allclose(arrays["optical_20m"][i, at], means, rtol=1e-5)


def test_one_date_a_slot_is_its_own_mosaic() -> None:
    """A stored sample of a layout holds no other dates, so training is the same."""
    plain, mosaic = made(MsopUnet, **NARROW), made(MsopUnet, **NARROW, mosaic=12)
    given = wanted(of_bands(on_days([5, 20, 34], valid=0.5)), 20)
    for name, a in plain.encode(given).items():
        np.testing.assert_array_equal(mosaic.encode(given)[name], a)
    for name, a in plain.target(given, given).items():
        np.testing.assert_array_equal(mosaic.target(given, given)[name], a)


def test_without_a_mosaic_a_slot_is_one_date() -> None:
    method = made(MsopUnet, **NARROW)
    given = wanted(of_bands(on_days(DAYS, valid=0.4)), 20)
    assert method.sources(given)[:, 0, 0].tolist() == method.dates(given).tolist()
    dates = method.dates(given)
    radar = backscatter(given, dates[:, None, None])
    np.testing.assert_array_equal(method.encode(given)["sar"], radar)
    np.testing.assert_array_equal(method.encode(given)["optical"][:, 3], given.bands["B08"][dates])


def test_a_mosaic_changes_what_is_filled() -> None:
    ds = synthetic_cube(9, (16, 16), sar=True, gap=0.6)
    plain = gapfill(ds, made(MsopUnet, **NARROW)).compute()
    mosaic = gapfill(ds, made(MsopUnet, **NARROW, mosaic=6)).compute()
    assert not np.array_equal(plain["B04"].values, mosaic["B04"].values)
    np.testing.assert_array_equal(plain["fill_flag"], mosaic["fill_flag"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [(MsopUnet, {"layout": "monthly", "mosaic": 3}), (MsopUnet, {"mosaic": -1}),
     (SsopUnet, {"mosaic": 3})],
)  # fmt: skip
def test_a_layout_without_slots_before_and_after(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=r"mosaic=-?\d for layout .* Pass mosaic=0"):
        _ = made(kind, **NARROW, **options).needs


# ------------------------------------------------------------------ the 20 m grid


def cube(size: tuple[int, int]) -> xr.Dataset:
    """All gap; the 20 m bands are repeats of 2 x 2 pixels."""
    ds = synthetic_cube(3, size, bands=(*BANDS, *BANDS_20M))
    for name in BANDS_20M:
        even = ds[name].values[:, ::2, ::2].repeat(2, 1).repeat(2, 2)[:, : size[0], : size[1]]
        ds[name] = ds[name].copy(data=even)
    return ds.assign(valid=ds["valid"] & False)


@pytest.mark.parametrize("kind", [SsopUnet, MsopUnet])
@pytest.mark.parametrize("size", [(36, 52), (37, 53), (45, 31), (15, 17)])
@pytest.mark.parametrize("blend", ["none", "linear"])
def test_pixels_of_20_m_are_filled_as_one(kind: Any, size: tuple[int, int], blend: str) -> None:
    method = made(kind, **NARROW, bands_20m=BANDS_20M, sar=False, blend=blend)
    filled = gapfill(cube(size), method)["B05"].values
    cells = filled[:, : size[0] // 2 * 2, : size[1] // 2 * 2]
    cells = cells.reshape(3, size[0] // 2, 2, size[1] // 2, 2).swapaxes(2, 3)
    spread = np.ptp(cells.reshape(*cells.shape[:3], 4), axis=-1)
    assert np.isfinite(filled).all()
    assert float(np.std(filled)) > 1e-3
    assert float(spread.max()) <= (0 if blend == "none" else 0.2 * float(np.ptp(filled)))


@pytest.mark.parametrize("blend", ["none", "linear"])
def test_an_odd_cube_does_not_show_its_chunks(blend: str) -> None:
    ds = cube((37, 53))
    method = made(SsopUnet, **NARROW, bands_20m=BANDS_20M, sar=False, blend=blend)
    whole = gapfill(ds, method).compute()
    parts = gapfill(ds.chunk(time=2, y=11, x=16), method, tile=16).compute()
    xr.testing.assert_equal(whole, parts)


def test_values_without_bound_are_no_data() -> None:
    ds = cube((20, 20))
    ds = ds.assign(valid=ds["valid"] | True)
    ds["B02"][1] = np.inf
    ds["B03"][1, 4:9] = np.nan
    hidden = ds.assign(valid=ds["valid"].where(ds["time"] != ds["time"][2], False))
    for kind in (SsopUnet, MsopUnet):
        out = gapfill(hidden, made(kind, **NARROW, sar=False)).compute()
        assert all(np.isfinite(out[b].values[2]).all() for b in BANDS)


def test_patches_to_learn_from_lie_on_the_grid() -> None:
    method = made(SsopUnet, **NARROW, bands_20m=BANDS_20M, sar=False)
    assert method.needs.space == Span(16, 8, align=2)
    ds = cube((37, 53))
    starts = {placed(np.random.default_rng(i), 37, 16, 2).start for i in range(50)}
    assert len(starts) > 3
    assert all(s % 2 == 0 for s in starts)
    given = CubeSamples([ds.assign(valid=ds["valid"] | True)], method, None, count=8)
    for sample in (given[i] for i in range(len(given))):
        cells = sample["target"][4:].reshape(6, 8, 2, 8, 2)
        assert float(np.ptp(cells, axis=(2, 4)).max()) == 0
