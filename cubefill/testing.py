"""What the author of a method tests with: a small cube and the suite that every method passes.

Ships with the package, so that methods of other packages are held to the same laws.
"""

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cubefill.cube.bands import BANDS, SCL
from cubefill.cube.counts import SCALE
from cubefill.engine import gapfill
from cubefill.errors import CubefillWarning
from cubefill.methods.contract import Block, Flag, Method, traits
from cubefill.methods.windows import Span

EMPTY = (Flag.SOURCE_MISSING, Flag.UNFILLABLE, Flag.INCOMPLETE, Flag.NO_DATA)
"""Codes of `fill_flag` that leave NaN, in every band or in some."""
SMALL = 100_000
"""Bytes that a pickled method may have."""

Days = Sequence[float] | None


def synthetic_cube(
    dates: int = 12,
    size: tuple[int, int] = (20, 24),
    bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
    *,
    seed: int = 0,
    gap: float = 0.4,
    days: Days = None,
    sar: bool = False,
    dem: bool = False,
) -> xr.Dataset:
    """A small cube in memory: seasons, cloudy values under the gaps, and `valid` and `SCL`.

    Parameters
    ----------
    dates
        Time steps, 2 to 7 days apart.
    size
        Rows and columns, 10 m each, in UTM zone 31N.
    bands
        Names of Sentinel-2 bands.
    seed
        The same seed gives the same cube.
    gap
        Share of the values that are cloudy. The cloudy values are in the bands, as a sensor saw
        them. With 0 < `gap` < 1 every pixel is clear at least once.
    days
        Days of the time steps after 2023-03-01, instead of `dates`.
    sar, dem
        True adds VV, VH and `sar_valid`, or DEM.

    Examples
    --------
    >>> synthetic_cube(dates=3).sizes["time"]
    3
    """
    from odc.geo.xr import assign_crs

    rng = np.random.default_rng(seed)
    apart = np.cumsum(rng.integers(2, 8, dates)) - 2 if days is None else days
    when = np.asarray(apart, np.float64)
    time = np.datetime64("2023-03-01T10:56:19", "ns") + (when * 86_400e9).astype("m8[ns]")
    shape = (len(when), *size)
    valid = _clear(rng, shape, gap)
    data: dict[str, Any] = {b: _band(rng, b, when, valid) for b in bands}
    scl = np.where(valid, SCL.VEGETATION, SCL.CLOUD_HIGH).astype(np.uint8)
    data["SCL"] = (("time", "y", "x"), scl, {"long_name": "scene classification"})
    data["valid"] = (("time", "y", "x"), valid, {"comment": "made by synthetic_cube"})
    data |= _radar(rng, shape, when) if sar else {}
    if dem:
        height = 100 + 5 * np.add.outer(np.arange(size[0]), np.arange(size[1]))
        data["DEM"] = (("y", "x"), height.astype(np.float32), {"units": "m"})
    y, x = 5_600_005.0 - 10 * np.arange(size[0]), 500_005.0 + 10 * np.arange(size[1])
    ds = xr.Dataset(data, {"time": time, "y": y, "x": x})
    if sar:
        hours = rng.uniform(-60, 60, len(when)).astype(np.float32)
        ds = ds.assign_coords(sar_gap_hours=("time", hours))
    ds = assign_crs(ds, "EPSG:32631")
    for variable in ds.data_vars.values():
        variable.encoding["grid_mapping"] = "spatial_ref"
    return ds.assign_attrs(boa_offset_harmonized=1, history="made by synthetic_cube")


def _clear(rng: np.random.Generator, shape: tuple[int, ...], gap: float) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = rng.random(shape) >= gap
    if 0 < gap < 1:
        never = ~valid.any(axis=0)
        which = rng.integers(0, shape[0], shape[1:])
        valid |= never & (np.arange(shape[0])[:, None, None] == which)
    return valid


def _band(
    rng: np.random.Generator, name: str, days: NDArray[np.float64], valid: NDArray[np.bool_]
) -> Any:
    """A season that differs from pixel to pixel, noise, and bright clouds; on the 1e-4 grid."""
    bright = BANDS[name].wavelength > 750 if name in BANDS else False
    peak = rng.uniform(120, 200, valid.shape[1:])
    season = np.exp(-0.5 * ((days[:, None, None] - peak + 60) / 40) ** 2)
    ground = 0.2 + 0.25 * season if bright else 0.12 - 0.06 * season
    ground = ground + rng.normal(0, 0.005, valid.shape)
    cloud = rng.uniform(0.3, 0.9, valid.shape)
    counts = np.rint(np.where(valid, ground, cloud) * 1e4)
    attrs = {"long_name": name, "units": "1", "standard_name": "surface_bidirectional_reflectance"}
    if name in BANDS:
        attrs["wavelength_nm"] = str(BANDS[name].wavelength)
    return ("time", "y", "x"), counts.astype(np.float32) * np.float32(SCALE), attrs


def _radar(
    rng: np.random.Generator, shape: tuple[int, ...], days: NDArray[np.float64]
) -> dict[str, Any]:
    slow = 2 * np.sin(days / 40)[:, None, None]
    dims = ("time", "y", "x")
    return {
        "VV": (dims, (-10 + slow + rng.normal(0, 1, shape)).astype(np.float32), {"units": "dB"}),
        "VH": (dims, (-17 + slow + rng.normal(0, 1, shape)).astype(np.float32), {"units": "dB"}),
        "sar_valid": (dims, np.ones(shape, bool)),
    }


class MethodTests:
    """The laws of a method, as tests: a subclass names the method, pytest does the rest.

    Examples
    --------
    >>> from cubefill.methods.pixel.linear import Linear
    >>> class TestLinear(MethodTests):
    ...     method = Linear()
    """

    method: ClassVar[Any]
    """The method under test, cheap enough to run some fifty times on a small cube."""
    size: ClassVar[tuple[int, int]] = (20, 24)
    """Rows and columns of the test cubes; larger than one window of the method."""
    dates: ClassVar[int] = 12
    """Time steps of the test cubes."""

    # -------------------------------------------------------------- what the tests stand on

    def cube(self, **options: Any) -> xr.Dataset:
        """A cube with all that the method needs."""
        needs = self.method.needs
        given = {"dates": self.dates, "size": self.size, "sar": needs.sar, "dem": needs.dem}
        given |= {"bands": needs.bands} if needs.bands else {}
        return synthetic_cube(**{**given, **options})

    def filled(self, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """The result in memory."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CubefillWarning)
            return gapfill(ds, self.method, **options).compute()

    def outputs(self, ds: xr.Dataset) -> list[tuple[str, str]]:
        """Names of the results, each with the band that it fills."""
        bands = self.method.needs.bands or [n for n in ds.data_vars if str(n) in BANDS]
        found = traits(self.method, map(str, bands))
        return [(n, n.removesuffix(found.suffix) if found.suffix else n) for n in found.gives]

    def check(self, ds: xr.Dataset, out: xr.Dataset) -> None:
        """Clear observations kept, gaps filled, codes and NaN in agreement."""
        found = traits(self.method, [b for _, b in self.outputs(ds)])
        valid = ds["valid"].values
        flag = out["fill_flag"].values
        empty = np.isin(flag, EMPTY)
        for name, band in self.outputs(ds):
            a = out[name].values
            assert a.dtype == np.float32, f"{name} is {a.dtype}: expected float32"
            assert a.shape == valid.shape, f"{name} has shape {a.shape}: expected {valid.shape}"
            assert np.isfinite(a[~empty]).all(), f"{name} is not finite where fill_flag says filled"
            assert np.isnan(a[np.isin(flag, (Flag.SOURCE_MISSING, Flag.NO_DATA))]).all()
            if band in ds and not found.suffix:
                same = a[valid].view(np.uint32) == ds[band].values[valid].view(np.uint32)
                assert same.all(), f"{name}: {(~same).sum()} clear observations were changed"
        if not found.suffix:
            np.testing.assert_array_equal(flag == Flag.OBSERVED, valid, "fill_flag 0 is not clear")
        if found.complete:
            some = np.broadcast_to(valid.any(axis=0), valid.shape)
            assert not empty[some].any(), "gaps are left: say complete = False"

    def same(self, a: xr.Dataset, b: xr.Dataset) -> None:
        """Both results are equal to the last bit."""
        assert set(a.data_vars) == set(b.data_vars)
        for name in a.data_vars:
            x, y = a[name].values, b[name].values
            equal = (x == y) | ((x != x) & (y != y))
            assert equal.all(), f"{name} differs at {(~equal).sum()} of {equal.size} values"

    # -------------------------------------------------------------- the laws

    def test_clear_observations_are_kept_and_gaps_filled(self) -> None:
        """Law 1, and honesty about what is left."""
        ds = self.cube()
        self.check(ds, self.filled(ds))

    def test_answer_does_not_depend_on_tiles(self) -> None:
        """Law 2: the engine's tiles."""
        ds = self.cube()
        whole = self.filled(ds)
        for tile in (7, 16):
            self.same(whole, self.filled(ds, tile=tile))

    def test_answer_does_not_depend_on_chunks(self) -> None:
        """Law 2: the caller's chunks, in space and time."""
        ds = self.cube()
        whole = self.filled(ds)
        for chunks in ({"time": 5, "y": 7, "x": 13}, {"time": 1, "y": 20, "x": 24}):
            self.same(whole, self.filled(ds.chunk(chunks), tile=15))

    def test_answer_does_not_depend_on_where_the_pixel_stands(self) -> None:
        """Law 2 for a method that works pixel by pixel: a part of the cube gives that part."""
        space = self.method.needs.space
        if not (isinstance(space, Span) and space.pointwise) or self._learns():
            return
        ds = self.cube()
        part = {"y": slice(3, 18), "x": slice(5, 12)}
        self.same(self.filled(ds).isel(part), self.filled(ds.isel(part)))

    def test_same_answer_twice(self) -> None:
        """No hidden state and no chance."""
        ds = self.cube()
        self.same(self.filled(ds), self.filled(ds))

    def test_input_is_not_changed(self) -> None:
        """Arrays are lent; a read-only view is enough."""
        ds = self.cube()
        before = ds.copy(deep=True)
        self.filled(ds)
        xr.testing.assert_identical(ds, before)

    def test_blocks_do_not_see_each_other(self) -> None:
        """A batch gives what its blocks give one by one, in their order; none is written to."""
        ds = self.cube()
        method = self._prepared(ds)
        halves = [self.block(ds, seed=s) for s in (1, 2)]
        before = [{n: b.copy() for n, b in block.bands.items()} for block in halves]
        together = list(method.fill(iter(halves)))
        for block, copy, out in zip(halves, before, together, strict=True):
            (alone,) = method.fill([block])
            for name, a in alone.bands.items():
                np.testing.assert_array_equal(out.bands[name], a, "blocks of a batch are mixed")
            for name, a in copy.items():
                np.testing.assert_array_equal(block.bands[name], a, "the input was changed")

    def test_pixels_never_and_always_clear(self) -> None:
        """All gap stays NaN and says so; no gap comes back as it was."""
        nothing = self.cube(gap=1.0)
        self.check(nothing, self.filled(nothing))
        everything = self.cube(gap=0.0)
        self.check(everything, self.filled(everything))

    def test_few_dates(self) -> None:
        """One date, two dates: filled, or refused with a reason before a pixel is read."""
        for dates in (1, 2, 3):
            if dates >= self.method.needs.min_dates:
                ds = self.cube(dates=dates)
                self.check(ds, self.filled(ds))

    def test_irregular_dates(self) -> None:
        """A year's pause between days next to each other."""
        ds = self.cube(days=[0, 1, 2, 40, 41, 300, 420, 421, 425, 430, 431, 500])
        self.check(ds, self.filled(ds))

    def test_unsorted_and_doubled_days(self) -> None:
        """The answer comes in the caller's order, each acquisition with its own clear pixels."""
        ds = self.cube(days=[0, 5, 5.001, 12, 20, 26, 31, 33, 40, 47, 55, 60])
        order = [3, 1, 2, 0, 11, 5, 4, 6, 7, 10, 9, 8]
        shuffled = ds.isel(time=order)
        out = self.filled(shuffled)
        self.check(shuffled, out)
        self.same(out, self.filled(ds).isel(time=order))

    def test_dates_without_acquisition(self) -> None:
        """Other dates than those given, each with its own flag."""
        ds = self.cube()
        out = self.filled(ds, times="6D")
        flag = out["fill_flag"].values
        for name, _ in self.outputs(ds):
            assert out[name].dtype == np.float32
            assert np.isfinite(out[name].values[~np.isin(flag, EMPTY)]).all()

    def test_pickle_is_small(self) -> None:
        """Sent with every task of a cluster, what was learned included."""
        ds = self.cube()
        for method in (self.method, self._prepared(ds)):
            sent = pickle.dumps(method)
            assert len(sent) < SMALL, f"the pickle has {len(sent)} bytes: expected < {SMALL}"
            assert pickle.loads(sent) == method

    def test_expected_error(self) -> None:
        """`<band>_std` is positive where it filled and absent where observed."""
        if not traits(self.method, ()).gives_std:
            return
        ds = self.cube()
        out = self.filled(ds, std=True)
        plain = self.filled(ds)
        self.same(plain, out[list(plain.data_vars)])
        filled = ~np.isin(out["fill_flag"].values, (*EMPTY, Flag.OBSERVED, Flag.SMOOTHED))
        filled &= ~ds["valid"].values
        for name, _ in self.outputs(ds):
            std = out[f"{name}_std"].values
            assert std.dtype == np.float32
            assert (std[filled] >= 0).all()
            assert np.isnan(std[out["fill_flag"].values == Flag.OBSERVED]).all()

    def test_gpu_answers_as_the_cpu(self) -> None:
        """Equal to 1e-4 where the method runs on both and a GPU is there."""
        device = getattr(self.method, "device", None)
        if device is None or not _has_gpu():
            return
        ds = self.cube()
        gpu, cpu = (self.filled(ds, device=d) for d in ("cuda", "cpu"))
        for name, _ in self.outputs(ds):
            np.testing.assert_allclose(gpu[name].values, cpu[name].values, atol=1e-4)

    # -------------------------------------------------------------- blocks without an engine

    def block(self, ds: xr.Dataset | None = None, *, seed: int = 0, std: bool = False) -> Block:
        """A block of the size that the method declares, as the engine would hand it over."""
        given: xr.Dataset = self.cube(seed=seed) if ds is None or seed else ds
        space, span = self.method.needs.space, self.method.needs.time
        y, x = (
            min(n, space.size) if isinstance(space, Span) and not space.pointwise else n
            for n in (given.sizes["y"], given.sizes["x"])
        )
        t = min(given.sizes["time"], span.size) if isinstance(span, Span) else None
        cut = given.isel(time=slice(t), y=slice(y), x=slice(x))
        bands = self.method.needs.bands or [n for n in cut.data_vars if str(n) in BANDS]
        time = cut["time"].values.astype("datetime64[ns]")
        return Block(
            bands={str(n): cut[n].values for n in bands},
            valid=cut["valid"].values,
            time=time,
            out_time=time,
            sar={n: cut[n].values for n in ("VV", "VH") if n in cut},
            dem=cut["DEM"].values if "DEM" in cut else None,
            std=std,
        )

    def _learns(self) -> bool:
        return hasattr(self.method, "prepare") and getattr(self.method, "wants_sample", True)

    def _prepared(self, ds: xr.Dataset) -> Method:
        prepare = getattr(self.method, "prepare", None)
        if prepare is None:
            found: Method = self.method
            return found
        sample = replace(self.block(ds), std=traits(self.method, ()).gives_std)
        learned: Method = prepare(sample)
        return learned


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
