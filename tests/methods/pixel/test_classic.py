"""What all methods without learning share, on blocks and without an engine."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubefill.errors import MethodError
from cubefill.methods import pixel
from cubefill.methods.contract import Block, Counts, Filled, Flag, traits
from cubefill.methods.pixel.harmonic import Harmonic
from cubefill.methods.pixel.method import Classic
from cubefill.methods.registry import METHODS, resolve
from tests.shared.series_reference import as_counts, block, decode, encode, one


def build(name: str, **options: Any) -> Classic:
    method = resolve(name, **options)
    assert isinstance(method, Classic)
    return method


VARIANTS: dict[str, Classic] = {
    **{
        n: build(n, **({"lam": 1500.0} if n == "whittaker" else {}))
        for n, target in METHODS.items()
        if target.startswith("cubefill.methods.pixel.")
    },
    "whittaker robust": build("whittaker", lam=100.0, robust=2, smooth=True),
    "harmonic robust": build("harmonic", robust=1, orders=1),
    "climatology median": build("climatology", statistic="median"),
    "linear limited": build("linear", max_gap=15, max_extrapolate=9),
}
NAMES = list(VARIANTS)
each = pytest.mark.parametrize("method", [VARIANTS[n] for n in NAMES], ids=NAMES)


def same_bits(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))


def equal(a: Filled, b: Filled) -> None:
    assert set(a.bands) == set(b.bands)
    assert a.flag is not None
    assert b.flag is not None
    np.testing.assert_array_equal(a.flag, b.flag)
    for name in a.bands:
        np.testing.assert_array_equal(a.bands[name], b.bands[name])
    assert set(a.std) == set(b.std)
    for name in a.std:
        np.testing.assert_array_equal(a.std[name], b.std[name])


def cut(b: Block, y: slice, x: slice) -> Block:
    bands = {n: a[:, y, x] for n, a in b.bands.items()}
    return replace(b, bands=bands, valid=b.valid[:, y, x])


def holed(b: Block) -> Block:
    """The block with a band that lacks data where `valid` says clear."""
    band = b.bands["B04"].copy()
    band[::3, ::2, ::5] = np.nan
    return replace(b, bands={**b.bands, "B04": band})


WIDE = holed(block(dates=19, size=(9, 150), gap=0.55, seed=3))


@cache
def answer(name: str) -> Filled:
    """What a method makes of the whole block."""
    return one(VARIANTS[name], WIDE)


def test_every_method_of_a_pixel_is_here() -> None:
    classes = {c for c in (getattr(pixel, n) for n in dir(pixel)) if isinstance(c, type)}
    assert {type(m) for m in VARIANTS.values()} == classes


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_a_block_is_that_part_of_its_answer(name: str, data: st.DataObject) -> None:
    """Law 2: whatever pixels stand beside a pixel, at any offset, its bits are its own."""
    y0, x0 = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 149))
    y1, x1 = data.draw(st.integers(y0 + 1, 9)), data.draw(st.integers(x0 + 1, 150))
    part = slice(y0, y1), slice(x0, x1)
    out = one(VARIANTS[name], cut(WIDE, *part))
    whole = answer(name)
    for band, a in out.bands.items():
        same_bits(np.ascontiguousarray(a), np.ascontiguousarray(whole.bands[band][:, *part]))


@each
def test_many_tiles_are_as_one(method: Classic) -> None:
    """A block of several tiles, against its rows one by one."""
    b = block(dates=9, size=(5, 700), gap=0.5, seed=5)
    whole = one(method, b)
    for y in range(5):
        row = one(method, cut(b, slice(y, y + 1), slice(None)))
        for band, a in row.bands.items():
            same_bits(a, np.ascontiguousarray(whole.bands[band][:, y : y + 1]))


def in_counts(name: str) -> Any:
    """A method; slow where its kernel for counts is compiled for one test alone."""
    quick = VARIANTS[name].__class__.__name__ in ("Linear", "Whittaker", "Harmonic", "Nearest")
    return pytest.param(VARIANTS[name], id=name, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("method", [in_counts(n) for n in NAMES])
@pytest.mark.parametrize("out_days", [None, (-3, 2.5, 11, 40, 90)], ids=["same", "other"])
def test_counts_give_the_encoded_answer_of_reflectance(method: Classic, out_days: Any) -> None:
    b = holed(block(dates=20, size=(8, 9), gap=0.6, seed=1, out_days=out_days))
    counted = as_counts(b)
    decoded = {n: decode(np.asarray(a)) for n, a in counted.bands.items()}
    plain, stored = one(method, replace(b, bands=decoded)), one(method, counted)
    for band, a in plain.bands.items():
        assert stored.bands[band].dtype == np.int16
        np.testing.assert_array_equal(stored.bands[band], encode(np.asarray(a)))
        if b.same_axis and not method.smooth:
            kept = b.valid & (counted.bands[band] != -32768)
            np.testing.assert_array_equal(stored.bands[band][kept], counted.bands[band][kept])
    assert plain.flag is not None
    assert stored.flag is not None
    np.testing.assert_array_equal(plain.flag, stored.flag)


def test_every_count_survives_and_overflow_is_clipped() -> None:
    counts = np.arange(-32768, 32768, dtype=np.int16).reshape(1, 256, 256)
    time = np.array(["2023-01-01"], "datetime64[ns]")
    b = Block({"B04": counts}, np.ones(counts.shape, bool), time, time, counts=Counts())
    out = one(build("linear"), b)
    np.testing.assert_array_equal(out.bands["B04"], counts)
    b = as_counts(block(dates=3, size=(1, 1), bands=("B04",), days=[0, 10, 11]))
    steep = np.array([0, 32767, 0], np.int16)[:, None, None]
    valid = np.array([True, True, False])[:, None, None]
    late = b.time[0] + np.array([0, 10, 30]).astype("m8[D]")
    quick = replace(b, bands={"B04": steep}, valid=valid, out_time=late, time=b.time)
    out = one(build("harmonic", smooth=True, orders=1), quick)
    assert out.bands["B04_smooth"].dtype == np.int16


def test_other_counts_are_refused() -> None:
    b = replace(as_counts(block()), counts=Counts(scale=1e-3))
    with pytest.raises(MethodError, match="Pass counts=None and give reflectance"):
        one(build("linear"), b)


@each
def test_views_that_are_readonly_and_not_contiguous_will_do(method: Classic) -> None:
    b = block(dates=12, size=(14, 15), gap=0.5)
    inner = cut(b, slice(2, 11), slice(3, 14))
    copies = {n: np.ascontiguousarray(a) for n, a in inner.bands.items()}
    expected = one(method, replace(inner, bands=copies, valid=inner.valid.copy()))
    for a in (*inner.bands.values(), inner.valid):
        a.flags.writeable = False
    equal(one(method, inner), expected)
    back = {n: np.array(a) for n, a in inner.bands.items()}
    equal(one(method, replace(inner, bands=back, valid=np.array(inner.valid))), expected)


@each
def test_cloudy_values_do_not_matter(method: Classic) -> None:
    b = block(dates=12, gap=0.5)
    other = {n: np.where(b.valid, a, np.float32(9)) for n, a in b.bands.items()}
    nothing = {n: np.where(b.valid, a, np.float32(np.nan)) for n, a in b.bands.items()}
    equal(one(method, replace(b, bands=other)), one(method, b))
    equal(one(method, replace(b, bands=nothing)), one(method, b))


@each
@pytest.mark.parametrize("dates", [1, 2, 3, 4, 5])
def test_few_dates_and_few_clear(method: Classic, dates: int) -> None:
    """Every pattern of clear and gap of up to five dates, one pixel each."""
    b = block(dates=dates, size=(1, 2**dates), gap=0.5)
    valid = (np.arange(2**dates) >> np.arange(dates)[:, None] & 1).astype(bool)[:, None]
    out = one(method, replace(b, valid=valid))
    assert out.flag is not None
    empty = out.flag == Flag.UNFILLABLE
    for name, a in out.bands.items():
        np.testing.assert_array_equal(np.isnan(a), empty)
        if not method.smooth:
            np.testing.assert_array_equal(a[valid], b.bands[name][valid])
    if method.complete:
        np.testing.assert_array_equal(empty[0], ~valid.any(axis=0))
    if not method.smooth:
        np.testing.assert_array_equal(out.flag == Flag.OBSERVED, valid)


@each
def test_a_lone_observation_is_held(method: Classic) -> None:
    if isinstance(method, Harmonic) or not all(method.holds):
        return
    b = block(dates=6, size=(1, 1), gap=0.0, bands=("B04",))
    valid = (np.arange(6) == 3)[:, None, None]
    free = replace(method, max_gap=None, max_extrapolate=None)
    a = one(free, replace(b, valid=valid)).bands["B04" + method.suffix]
    np.testing.assert_allclose(a, b.bands["B04"][3, 0, 0], rtol=1e-6)


@each
def test_threads_share_a_method(method: Classic) -> None:
    b = block(dates=12, size=(30, 40), gap=0.5)
    expected = one(method, b)
    with ThreadPoolExecutor(4) as pool:
        for out in pool.map(lambda _: one(method, b), range(8)):
            equal(out, expected)


@each
def test_declared_members(method: Classic) -> None:
    found = traits(method, ("B04",))
    assert found.counts
    assert found.gives_std
    assert found.keeps_clear
    assert found.gives == ("B04_smooth" if method.smooth else "B04",)
    assert len(pickle.dumps(method)) < 2000


# ------------------------------------------------------------------ expected errors


@each
def test_expected_errors_are_given_for_gaps_only(method: Classic) -> None:
    b = replace(holed(block(dates=20, size=(16, 16), gap=0.5)), std=True)
    learned = method.prepare(b)
    out = one(learned, b)
    for name, std in out.std.items():
        clear = b.valid & np.isfinite(b.bands[name.removesuffix(method.suffix)])
        assert std.dtype == np.float32
        assert np.isnan(std[clear]).all()
        gaps = ~clear & np.isfinite(out.bands[name])
        assert (std[gaps] > 0).all()
        assert np.isnan(std[np.isnan(out.bands[name])]).all()
    assert set(learned.recorded()) >= {"std_edges_days", "std"}
    assert pickle.loads(pickle.dumps(learned)) == learned


def test_expected_error_grows_with_the_gap() -> None:
    b = replace(block(dates=40, size=(30, 30), gap=0.7, bands=("B08",)), std=True)
    out = one(build("linear").prepare(b), b)
    days = b.days
    short: list[float] = []
    long: list[float] = []
    for y, x in np.ndindex(30, 30):
        t = days[b.valid[:, y, x]]
        for i in np.flatnonzero(~b.valid[:, y, x] & (days > t[0]) & (days < t[-1])):
            span = t[t > days[i]][0] - t[t < days[i]][-1]
            (short if span < 12 else long if span > 40 else []).append(out.std["B08"][i, y, x])
    assert np.mean(short) < np.mean(long)


def test_an_unprepared_method_refuses_to_guess_errors() -> None:
    with pytest.raises(MethodError, match=r"method\.prepare\(sample\)"):
        one(build("linear"), replace(block(), std=True))


def test_nothing_is_learned_that_nobody_asked_for() -> None:
    method = build("linear")
    assert method.prepare(block()) is method
    assert method.recorded() == {}
    assert not method.wants_sample
