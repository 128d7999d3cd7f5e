"""How an array lies in memory and its floating type never decide what a gap is filled with."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.storage import MemoryStore

import cubefill
from cubefill.cube.rows import as_rows, in_rows
from cubefill.engine.kernel import fill_tile
from cubefill.engine.memory import tile_bytes
from cubefill.engine.request import request
from cubefill.engine.work import Region
from cubefill.errors import CubeError, MethodError
from cubefill.methods import Block, resolve
from tests.shared.bad_cases import TINY, net
from tests.shared.bad_cases import cube as deep_cube
from tests.shared.strategies import Mean, cube

Array = np.ndarray[Any, Any]
DIMS = ("time", "y", "x")
FLOATS = ("<f4", "<f2", "<f8", ">f4", ">f8")


CLASSIC = [
    *("nearest", "last", "next", "linear", "linear2", "pchip", "akima", "quadratic"),
    *("savgol", "whittaker", "blend", "harmonic", "climatology"),
]


def every_second(a: Array, axis: int) -> Array:
    """The same values, as every second one along an axis of a larger array."""
    wide = np.repeat(a, 2, axis=axis)
    wide[(slice(None),) * axis + (slice(1, None, 2),)] = 1
    return wide[(slice(None),) * axis + (slice(None, None, 2),)]


def backwards(a: Array, axis: int) -> Array:
    """The same values, held in reverse order along an axis."""
    return np.flip(np.flip(a, axis).copy(), axis)


def window(a: Array) -> Array:
    """The same values, as a window of a larger array."""
    return np.pad(a, [(0, 0), (1, 2), (2, 1)], constant_values=1)[:, 1:-2, 2:-1]


def laid(a: Array, order: tuple[int, ...]) -> Array:
    """The same values, with axes in another order in memory."""
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


def unaligned(a: Array) -> Array:
    """The same values, one byte off."""
    raw = np.zeros(a.nbytes + 1, np.uint8)
    out = raw[1:].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def read_only(a: Array) -> Array:
    """The same values, not to be written to."""
    out = a.copy()
    out.flags.writeable = False
    return out


def one_of_a_stack(a: Array) -> Array:
    """The same values, as one band of `(time, y, x, band)`."""
    return np.stack([a, np.ones_like(a), a], axis=-1)[..., 0]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": np.ascontiguousarray,
    **{f"strided {d}": partial(every_second, axis=i) for i, d in enumerate(DIMS)},
    **{f"reversed {d}": partial(backwards, axis=i) for i, d in enumerate(DIMS)},
    "Fortran": np.asfortranarray,
    "y first": lambda a: laid(a, (1, 0, 2)),
    "x before y": lambda a: laid(a, (0, 2, 1)),
    "time last": lambda a: laid(a, (1, 2, 0)),
    "band last": one_of_a_stack,
    "window": window,
    "unaligned": unaligned,
    "read-only": read_only,
}


def with_arrays(ds: xr.Dataset, arrays: dict[str, Array], dims: tuple[str, ...]) -> xr.Dataset:
    """The cube with variables on `dims` that are views of arrays `(time, y, x)`."""
    order = [DIMS.index(d) for d in dims]
    return ds.assign({n: (dims, a.transpose(order)) for n, a in arrays.items()})


@st.composite
def twins(draw: st.DrawFn) -> tuple[xr.Dataset, xr.Dataset]:
    """A cube of any layout and floating type, and the same values as C order float32."""
    size = (draw(st.integers(1, 6)), draw(st.integers(1, 9)))
    gap = draw(st.sampled_from([0.3, 0.6]))
    base = cube(draw(st.integers(2, 9)), size, gap=gap, seed=draw(st.integers(0, 20)))
    if draw(st.booleans()):
        base["B08"] = base["B08"].where(base["B08"] < 0.8)  # clear values without data
    dims = draw(st.permutations(DIMS))
    layout = st.sampled_from(sorted(LAYOUTS))
    plain, odd = {"valid": base["valid"].values}, {}
    for band in ("B04", "B08"):
        typed = base[band].values.astype(draw(st.sampled_from(FLOATS)))
        if typed.dtype.itemsize == 8:
            typed = typed + 1e-10  # between two float32
        odd[band] = LAYOUTS[draw(layout)](typed)
        plain[band] = np.array(typed, np.float32, order="C")
    odd["valid"] = LAYOUTS[draw(layout)](base["valid"].values)
    return with_arrays(base, odd, tuple(dims)), base.assign(
        {n: (DIMS, a) for n, a in plain.items()}
    )


def check_same(
    odd: xr.Dataset, plain: xr.Dataset, fill: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    """Both are filled alike; every clear value is the float32 of what was given."""
    before = {n: odd[n].values.copy() for n in ("B04", "B08", "valid")}
    found, expected = (fill(ds).transpose(*DIMS).load() for ds in (odd, plain))
    for name in expected.data_vars:
        assert found[name].dtype == expected[name].dtype
        assert_array_equal(found[name].values, expected[name].values, str(name))
    for name, values in before.items():
        assert_array_equal(odd[name].values, values)


def options(method: str) -> dict[str, Any]:
    """A fixed `lam`, so that few examples need the V-curve."""
    return {"lam": 10.0} if method == "whittaker" else {}


@pytest.mark.parametrize("method", CLASSIC)
@settings(max_examples=4, deadline=None)
@given(pair=twins(), std=st.booleans(), chunked=st.booleans(), regular=st.booleans())
def test_layout_and_type_do_not_change_a_lazy_fill(
    method: str, pair: tuple[xr.Dataset, xr.Dataset], std: bool, chunked: bool, regular: bool
) -> None:
    odd, plain = pair
    odd = odd.chunk(x=4, y=3) if chunked else odd
    errors = {"std": std, "quantiles": (0.05,) if std else ()}
    how: dict[str, Any] = {**errors, "times": "3D" if regular else None, **options(method)}
    check_same(odd, plain, lambda ds: cubefill.gapfill(ds, method, **how))
    out = cubefill.gapfill(odd, method, **options(method)).transpose(*DIMS).load()
    for band in ("B04", "B08"):
        clear = plain["valid"].values & np.isfinite(plain[band].values)
        assert_array_equal(out[band].values[clear], plain[band].values[clear])


@pytest.mark.parametrize("method", CLASSIC)
@settings(max_examples=1, deadline=None)
@given(pair=twins(), chunked=st.booleans())
def test_layout_and_type_do_not_change_a_job(
    method: str, pair: tuple[xr.Dataset, xr.Dataset], chunked: bool
) -> None:
    odd, plain = pair
    odd = odd.chunk(x=4, y=3) if chunked else odd

    def fill(ds: xr.Dataset) -> xr.Dataset:
        how: dict[str, Any] = {"progress": False, "workers": 1, **options(method)}
        return cubefill.run(ds, MemoryStore(), method, **how)

    check_same(odd, plain, fill)


@pytest.mark.parametrize("name", sorted(TINY))
def test_layout_and_type_do_not_change_a_net(name: str) -> None:
    plain = deep_cube(dem=True)
    odd = plain.copy()
    for i, n in enumerate(v for v in plain.data_vars if set(plain[v].dims) == set(DIMS)):
        layout = sorted(LAYOUTS)[(i * 5) % len(LAYOUTS)]
        a = plain[n].transpose(*DIMS).values
        typed = a.astype((">f8", "f8")[i % 2]) if a.dtype.kind == "f" else a
        odd[n] = (DIMS, LAYOUTS[layout](typed))
    found, expected = (
        cubefill.gapfill(ds, name, checkpoint=net(name)).transpose(*DIMS).compute()
        for ds in (odd, plain)
    )
    for n in expected.data_vars:
        assert_array_equal(found[n].values, expected[n].values, str(n))


@settings(max_examples=3, deadline=None)
@given(pair=twins())
def test_layout_and_type_do_not_change_a_store(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    odd, plain = (ds.transpose(*DIMS) for ds in pair)
    found, expected = (
        cubefill.write_cube(ds, MemoryStore(), progress=False).load() for ds in (odd, plain)
    )
    for name in ("B04", "B08", "valid"):
        assert_array_equal(found[name].values, expected[name].values)


def test_a_mask_along_time_alone_counts_for_every_pixel() -> None:
    ds = cube(gap=0.0)
    mask = xr.DataArray(np.arange(7) % 2 == 0, dims="time")
    whole = mask.expand_dims(y=ds.sizes["y"], x=ds.sizes["x"]).transpose(*DIMS).copy(deep=True)
    found = cubefill.gapfill(ds, "linear", valid=mask).compute()
    expected = cubefill.gapfill(ds, "linear", valid=whole.copy(data=np.array(whole))).compute()
    assert_array_equal(found["B04"].values, expected["B04"].values)
    assert (found["fill_flag"].values[1::2] == 1).all()


def test_acquisitions_of_one_day_merge_alike_in_any_layout() -> None:
    ds = cube(size=(5, 7))
    time = ds["time"].values.copy()
    time[2] = time[1] + np.timedelta64(1, "h")
    ds = ds.assign_coords(time=time).isel(time=[3, 1, 0, 2, 5, 4, 6])
    odd = with_arrays(ds, {n: LAYOUTS["Fortran"](ds[n].values) for n in ("B04", "valid")}, DIMS)
    with pytest.warns(cubefill.CubefillWarning, match="more than one acquisition"):
        check_same(odd, ds.copy(deep=True), lambda d: cubefill.gapfill(d, "pchip"))


class Looking(Mean):
    """Remembers the arrays that it was given."""

    def fill(self, blocks: Any) -> Any:
        """Keeps the blocks."""
        seen = list(blocks)
        SEEN.extend(seen)
        return super().fill(iter(seen))


SEEN: list[Block] = []


def given_to_a_method(ds: xr.Dataset) -> Block:
    """The block of a fill in one tile."""
    SEEN.clear()
    work = request(ds, Looking()).work
    fill_tile(work, Region(*(slice(0, n) for n in work.shape)))
    return SEEN[0]


@pytest.mark.parametrize(
    "layout", ["contiguous", "reversed time", "y first", "window", "strided y"]
)
def test_what_is_right_already_is_not_copied(layout: str) -> None:
    ds = cube()
    arrays = {n: LAYOUTS[layout](ds[n].values) for n in ("B04", "B08", "valid")}
    ds = with_arrays(ds, arrays, DIMS)
    block = given_to_a_method(ds)
    for name, a in {**block.bands, "valid": block.valid}.items():
        assert np.shares_memory(a, ds[name].values)
        assert not a.flags.writeable
    assert tile_bytes(request(ds, "linear").work, 16) == tile_bytes(
        request(cube(), "linear").work, 16
    )


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_method_is_given_rows_of_float32(layout: str, dtype: str) -> None:
    ds = cube()
    arrays = {n: LAYOUTS[layout](ds[n].values.astype(dtype)) for n in ("B04", "B08")}
    arrays["valid"] = LAYOUTS[layout](ds["valid"].values)
    block = given_to_a_method(with_arrays(ds, arrays, DIMS))
    assert all(in_rows(a) and a.dtype == np.float32 for a in block.bands.values())
    assert in_rows(block.valid)
    assert block.valid.dtype == np.bool_


def test_a_plan_counts_the_copy_of_what_must_be_copied() -> None:
    ds = cube()
    double = ds.assign(B04=ds["B04"].astype("f8"))
    more = tile_bytes(request(double, "linear").work, 16) - tile_bytes(
        request(ds, "linear").work, 16
    )
    assert more == 4 * ds["B04"].size


def test_bands_of_another_type_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    ds = cube()
    ds["B04"] = ds["B04"].astype("f8")
    with caplog.at_level(logging.INFO, "cubefill"):
        out = cubefill.gapfill(ds, "linear", tile=4).compute()
    said = [r.getMessage() for r in caplog.records if "float32" in r.getMessage()]
    assert said == ["B04 (float64): read as float32, and so is the result"]
    assert out["B04"].dtype == np.float32


def test_values_beyond_float32_are_no_observations_and_warn_of_nothing() -> None:
    ds = cube(gap=0.0)
    ds["B04"] = ds["B04"].astype("f8")
    ds["B04"][2] = -np.finfo("f8").max
    out = cubefill.gapfill(ds, "linear").compute()
    without = cubefill.gapfill(ds.assign(B04=ds["B04"].where(ds["B04"] > -1)), "linear").compute()
    np.testing.assert_array_equal(out["B04"].values, without["B04"].values)
    assert np.isfinite(out["B04"].values[2]).any()


@pytest.mark.parametrize("dtype", ["i2", "u2", ">i2", "i4"])
def test_bands_of_integers_are_refused_until_conform_scales_them(dtype: str) -> None:
    ds = cube()
    digital = ds.assign({b: (ds[b] * 10_000).round().astype(dtype) for b in ("B04", "B08")})
    with pytest.raises(CubeError, match="digital numbers"):
        cubefill.gapfill(digital, "linear")
    check_same(cubefill.conform(digital, scale=1e-4), ds, lambda d: cubefill.gapfill(d, "nearest"))


def test_conform_gives_float32() -> None:
    ds = cube()
    ds["B04"] = ds["B04"].astype("f8")
    assert cubefill.conform(ds)["B04"].dtype == np.float32


@pytest.mark.parametrize("method", CLASSIC)
@pytest.mark.parametrize("layout", ["strided x", "reversed x", "Fortran"])
@pytest.mark.parametrize("what", ["band", "valid"])
def test_kernels_refuse_what_they_would_misread(method: str, layout: str, what: str) -> None:
    ds = cube()
    band, valid, time = ds["B04"].values, ds["valid"].values, ds["time"].values
    band = LAYOUTS[layout](band) if what == "band" else band
    valid = LAYOUTS[layout](valid) if what == "valid" else valid
    block = Block({"B04": band, "B08": band}, valid, time, time)
    with pytest.raises(MethodError, match="side by side along x"):
        list(resolve(method, **options(method)).fill([block]))


@pytest.mark.parametrize("method", CLASSIC)
@pytest.mark.parametrize("types", [("f8", "f8"), (">f4", ">f4"), ("f4", "f8")])
def test_kernels_refuse_types_that_they_would_misread(method: str, types: tuple[str, str]) -> None:
    ds = cube()
    bands = {b: ds[b].values.astype(t) for b, t in zip(("B04", "B08"), types, strict=True)}
    block = Block(bands, ds["valid"].values, ds["time"].values, ds["time"].values)
    with pytest.raises(MethodError, match=r"expected (float32|one type|native)"):
        list(resolve(method, **options(method)).fill([block]))


def test_rows_are_told_from_what_is_none() -> None:
    a = np.zeros((2, 3, 4), np.float32)
    assert in_rows(a[:, 1:, 1:3])
    assert in_rows(a[::-1, ::2])
    assert in_rows(a[..., :1])
    assert not in_rows(a[..., ::2])
    assert not in_rows(a[..., ::-1])
    assert not in_rows(a.T)
    assert as_rows(a.T, a.dtype).flags.c_contiguous


@pytest.mark.parametrize("lazy", [False, True])
def test_what_numpy_masks_is_no_data_whatever_lies_under_the_mask(lazy: bool) -> None:
    plain = cube(7, (5, 6))
    hidden = np.random.default_rng(3).random(plain["B04"].shape) < 0.3
    plain = plain.assign({n: plain[n].where(~hidden) for n in ("B04", "B08")})
    odd = plain.assign(
        {
            n: (DIMS, np.ma.masked_array(np.where(hidden, 9.0, plain[n].values), hidden)[:, ::-1])
            for n in ("B04", "B08")
        }
    )
    odd["valid"] = odd["valid"].isel(y=slice(None, None, -1)).variable
    turned = plain.isel(y=slice(None, None, -1)).assign_coords(y=plain["y"].values)
    odd = odd.chunk(x=4) if lazy else odd
    check_same(odd, turned, lambda ds: cubefill.gapfill(ds, "linear"))
