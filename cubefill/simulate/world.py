"""One simulated place through time: its surface and sky, sampled by Sentinel-2 and Sentinel-1."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cubefill.cube import bands as table
from cubefill.cube.counts import SCALE
from cubefill.simulate import clouds, spectra, surface
from cubefill.simulate.noise import block_mean, enlarge, fractal, stream

Float = NDArray[np.float32]
Times = NDArray[np.datetime64]

BANDS = spectra.BANDS
DAY = np.timedelta64(86_400_000_000_000, "ns")

_LAND, _YEAR, _GROUND, _WET, _TERRAIN, _OPTICS, _NOISE, _CLOUD, _SAR, _ORBIT = range(10)


def day_of_year(time: Times) -> NDArray[np.float64]:
    """Day of the year of each time, with fractions; noon of the first of January is 1.5."""
    return np.asarray((time - time.astype("datetime64[Y]").astype("datetime64[ns]")) / DAY + 1)


class World:
    """Everything of a scene that is not on an acquisition date, on a grid of whole 20 m blocks."""

    def __init__(
        self, shape: tuple[int, int], resolution: float, t0: np.datetime64, days: int, seed: int,
        latitude: float,
    ) -> None:  # fmt: skip
        self.shape, self.resolution, self.t0, self.seed = shape, resolution, t0, seed
        self.latitude = latitude
        self.factor = max(1, round(20 / resolution))
        self.padded = tuple(-(-n // self.factor) * self.factor for n in shape)
        self.domain = tuple((n * 3 // 2 + 31) // 32 * 32 for n in self.padded)
        self.length = days
        self.land = surface.land(self.padded, resolution, stream(seed, _LAND))  # type: ignore[arg-type]
        doy = int(day_of_year(np.array([t0]))[0])
        self.year = surface.calendar(self.land.crop, doy, days, stream(seed, _YEAR))
        self.crop = self.land.crop[self.land.parcel]
        self._draw_ground(stream(seed, _GROUND))

    def _draw_ground(self, rng: np.random.Generator) -> None:
        built = self.crop == surface.Crop.SETTLEMENT
        parcels = rng.uniform(-0.25, 0.25, len(self.land.crop))
        soft = self.field(rng, 2.6, outer=0.2)
        rough = self.field(rng, 1.2, inner=1.5)
        region = self.field(rng, 3.2, inner=20)
        amount = np.full(len(surface.Crop), 0.12)
        amount[[surface.Crop.GRASS, surface.Crop.SETTLEMENT, surface.Crop.ROAD]] = 0.2, 0.75, 0.5
        texture = amount[self.crop] * np.where(built, rough, soft) + 0.04 * self.land.rows
        self.vigour = np.clip(1 + texture, 0.05, 2.5).astype(np.float32)
        colour = 0.45 + parcels[self.land.parcel] + 0.18 * region + 0.08 * self.field(rng, 2.2)
        self.colour = np.clip(np.where(built, 0.5 + 0.45 * rough, colour), -0.2, 1.3)
        self.early = np.clip(self.field(rng, 2.8) * 0.4, -1, 1)
        self.rough = rough
        self.wetter = (
            0.07 * self.field(rng, 2.8) + rng.normal(0, 0.06, len(self.land.crop))[self.land.parcel]
        ).astype(np.float32)
        grid = np.random.default_rng([self.seed, _WET])
        self.moisture = clouds.latent(np.arange(-20.0, self.length + 21), 7.0, grid)

    def field(
        self, rng: np.random.Generator, slope: float, outer: float = 1.0, inner: float = 0.0
    ) -> Float:
        """A fractal field on the padded grid."""
        white = rng.standard_normal(self.padded, dtype=np.float32)
        return np.asarray(fractal(white, slope, outer, inner), dtype=np.float32)

    @cached_property
    def terrain(self) -> Float:
        """Elevation in m."""
        rng = stream(self.seed, _TERRAIN)
        relief = self.field(rng, 3.4, inner=6) * 14 + self.field(rng, 2.6, inner=3) * 1.2
        return np.asarray(relief - relief.min() + rng.uniform(5, 120), dtype=np.float32)

    def days(self, time: Times) -> NDArray[np.float64]:
        """Days since the first date."""
        return np.asarray((time - self.t0) / DAY)

    def state(self, day: float) -> surface.State:
        """Green, brown and flower `(y, x)`; a pixel is up to five days off its parcel."""
        reach = 5.0
        three = surface.growth(np.array([day - reach, day, day + reach]), self.year)
        parcel = self.land.parcel

        def pixels(a: NDArray[np.float64]) -> Float:
            before, now, after = (row.astype(np.float32)[parcel] for row in a)
            slope = np.where(self.early > 0, after - now, now - before)
            return np.asarray(now + slope * self.early, dtype=np.float32)

        green, brown, flower = (pixels(a) for a in three)
        return surface.State(np.clip(green * self.vigour, 0, 8), brown, flower)

    def wet(self, day: float) -> Float:
        """Moisture of the topsoil `(y, x)`, wetter in winter."""
        doy = (day + float(day_of_year(np.array([self.t0]))[0])) % 365
        level = 0.42 + 0.16 * np.cos(2 * np.pi * (doy - 20) / 365)
        level += 0.2 * self.moisture[int(np.clip(day, -20, self.length + 20)) + 20]
        return np.asarray(np.clip(np.float32(level) + self.wetter, 0, 1))

    def crop_to(self, a: Any) -> Any:
        """`a` without the rows and columns that filled up whole blocks."""
        return a[..., : self.shape[0], : self.shape[1]]


# ------------------------------------------------------------------ Sentinel-2


def optical(
    world: World, sky: clouds.Sky, time: Times, orbit: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables of the cube and of the truth, band by band and date by date."""
    full = (len(time), *world.shape)
    seen = {n: np.empty(full, np.float32) for n in names}
    clean = {n: np.empty(full, np.float32) for n in names}
    scl = np.empty(full, np.uint8)
    masks = {n: np.empty(full, bool) for n in ("clear", "cloud", "shadow")}
    masks |= {n: np.empty(full, np.float32) for n in ("opacity", "LAI")}
    grids = [Sampling(world, names, f) for f in sorted({1, world.factor})]
    for i, day in enumerate(world.days(time)):
        date = Date(world, sky, i, float(day))
        for grid in grids:
            for name, true, dirty in zip(grid.names, *grid.see(date, int(orbit[i])), strict=True):
                clean[name][i], seen[name][i] = true, dirty
        scl[i] = world.crop_to(date.scl())
        for name, values in date.masks().items():
            masks[name][i] = world.crop_to(values)
    static = {
        "parcel": (("y", "x"), world.crop_to(world.land.parcel).astype(np.int32)),
        "crop": (("y", "x"), world.crop_to(world.crop).astype(np.uint8)),
    }
    dims = ("time", "y", "x")
    cube = {n: (dims, a) for n, a in (seen | {"SCL": scl}).items()}
    return cube, {n: (dims, a) for n, a in (clean | masks).items()} | static


class Date:
    """Surface, atmosphere and sky of one acquisition, on the padded grid."""

    def __init__(self, world: World, sky: clouds.Sky, index: int, day: float) -> None:
        self.world, self.sky, self.index = world, sky, index
        self.state, self.moisture = world.state(day), world.wet(day)
        rng = stream(world.seed, _OPTICS, index)
        haze = 0.7 * rng.standard_normal() + 0.7 * world.field(rng, 3.4, inner=8)
        gain = 0.7 * rng.standard_normal() + 0.7 * world.field(rng, 3.4, inner=8)
        self.haze = (0.006 * haze + 0.002).astype(np.float32)
        self.gain = (0.026 * gain + self._shade()).astype(np.float32)
        self.shift = rng.uniform(-0.25, 0.25, 2)
        self.wander = fractal(rng.standard_normal(self.coarse, dtype=np.float32), 2.4, 0.2)
        self._cover(stream(world.seed, _CLOUD, index))

    @property
    def coarse(self) -> tuple[int, int]:
        """Shape of SCL's own grid."""
        ny, nx = self.world.padded
        return ny // self.world.factor, nx // self.world.factor

    def _shade(self) -> Float:
        """Light on slopes towards the sun, relative to flat ground, half of it corrected."""
        down, right = np.gradient(self.world.terrain, self.world.resolution)
        angle = np.radians(self.sky.azimuth[self.index])
        slope = down * np.cos(angle) - right * np.sin(angle)
        low = np.tan(np.radians(min(float(self.sky.zenith[self.index]), 75.0)))
        return np.asarray(0.5 * slope * low, dtype=np.float32)

    def _cover(self, rng: np.random.Generator) -> None:
        sky, i, world = self.sky, self.index, self.world
        ny, nx = world.padded
        white = rng.standard_normal(world.domain, dtype=np.float32)
        main = clouds.opacity(
            white, (ny, nx), float(sky.fraction[i]), float(sky.slope[i]), float(sky.thickness[i])
        )
        shift = clouds.displacement(
            float(sky.zenith[i]), float(sky.azimuth[i]), float(sky.height[i]), world.resolution
        )
        self.main = main[:ny, :nx]
        dark = clouds.shadow(main, shift)[:ny, :nx] * np.float32(sky.fraction[i] < 1)
        veil = clouds.halo(main, 100 / world.resolution)[:ny, :nx]
        top = rng.standard_normal(world.padded, dtype=np.float32)
        self.texture = fractal(top, 2.8, 0.3)
        haze = np.clip(1 + 0.6 * self.texture, 0, 3) * np.float32(sky.haze[i])
        self.cloud = 1 - (1 - self.main) * (1 - veil) * (1 - haze)
        self.dark = dark

    def scl(self) -> NDArray[np.uint8]:
        """Scene classes, in 20 m blocks."""
        world, f, i = self.world, self.world.factor, self.index
        water = world.crop == surface.Crop.WATER
        cover = np.where(self.state.green > 0.7, np.float32(4), np.float32(5))
        cover = np.where(water, np.float32(6), cover)[::f, ::f]
        built = block_mean(np.float32(world.crop == surface.Crop.SETTLEMENT), f)
        bright = built * np.clip(block_mean(world.rough, f) - 0.6, 0, 1)
        found = clouds.classes(
            block_mean(self.cloud, f), block_mean(self.dark, f), self.wander, cover, bright,
            float(self.sky.threshold[i]), float(self.sky.shadow_threshold[i]),
        )  # fmt: skip
        return np.asarray(enlarge(found.astype(np.uint8), f))

    def masks(self) -> dict[str, Any]:
        """What is true of the sky and the surface."""
        f = self.world.factor
        touched = enlarge(block_mean(self.cloud + self.dark, f), f) > 0
        return {
            "clear": ~touched,
            "cloud": self.cloud > 0.05,
            "shadow": self.dark > 0.05,
            "opacity": self.cloud,
            "LAI": self.state.green,
        }


class Sampling:
    """The bands of one native resolution, `factor` pixels of the cube wide."""

    def __init__(self, world: World, names: tuple[str, ...], factor: int) -> None:
        coarse = {n for n in names if table.BANDS[n].resolution > world.resolution}
        self.names = tuple(n for n in names if (n in coarse) == (factor > 1))
        if factor == 1 and world.factor == 1:
            self.names = names
        self.columns = tuple(BANDS.index(n) for n in self.names)
        self.world, self.factor = world, factor
        ground = spectra.ground(world.crop, world.colour, self.columns)
        self.ground = spectra.Ground(*(block_mean(a, factor) for a in ground))
        draws = stream(world.seed, _ORBIT).normal(size=(2, 1 + len(BANDS)))
        views = 1 + 0.03 * draws[:, :1] + 0.008 * draws[:, 1:]
        self.views = views[:, list(self.columns)].astype(np.float32)

    def see(self, date: Date, orbit: int) -> tuple[Float, Float]:
        """Reflectance `(band, y, x)` under a clear sky, and as observed; quantised."""
        if not self.names:
            return np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0), np.float32)
        f, seed = self.factor, self.world.seed

        def mean(a: Float) -> Float:
            return np.asarray(block_mean(a, f))

        green, brown, flower = (mean(a) for a in date.state)
        wet = mean(date.moisture)
        rho = spectra.reflectance(green, brown, flower, wet, self.ground, self.columns)
        rho = spectra.resampled(rho, float(date.shift[0]) / f, float(date.shift[1]) / f, 0.12 / f)
        noise = np.stack(
            [
                stream(seed, _NOISE, date.index, c).standard_normal(green.shape, dtype=np.float32)
                for c in self.columns
            ]
        )
        view, haze, gain = self.views[orbit], mean(date.haze), mean(date.gain)
        true = quantised(spectra.measured(rho, view, haze, gain, noise, self.columns))
        cloud, dark, texture = mean(date.cloud), mean(date.dark), mean(date.texture)
        dirty = clouds.through(true, cloud, dark, texture, self.columns)
        return self._cube(true), self._cube(quantised(dirty))

    def _cube(self, a: Float) -> Float:
        return np.asarray(self.world.crop_to(enlarge(a, self.factor)))


def quantised(rho: Float) -> Float:
    """Reflectance rounded to counts of 1e-4 as a product stores it, never below one count."""
    counts = np.rint(np.clip(rho * np.float32(1e4), 1, 20_000))
    return np.asarray(counts * np.float32(SCALE), dtype=np.float32)


# ------------------------------------------------------------------ Sentinel-1


def radar_passes(world: World) -> tuple[Times, list[str]]:
    """Times and directions of Sentinel-1: each orbit every six days, in the evening and at dawn."""
    rng = stream(world.seed, _SAR)
    first = rng.integers(0, 6, 2)
    hours = {"ascending": 17.54, "descending": 5.97}
    passes = sorted(
        (d + (hours[name] - 10.8) / 24, name)
        for start, name in zip(first, hours, strict=True)
        for d in range(int(start) - 6, world.length + 7, 6)
    )
    seconds = np.array([round(d * 86_400) for d, _ in passes], dtype=np.int64)
    noon = world.t0.astype("datetime64[s]").astype("datetime64[ns]")
    return noon + seconds * np.timedelta64(10**9, "ns"), [name for _, name in passes]


def radar(world: World, time: Times, directions: list[str]) -> dict[str, Float]:
    """VV and VH `(time, y, x)` in dB of passes at `time`, speckled like a ground-range product."""
    power = spectra.radar(world.crop)
    out = {n: np.empty((len(time), *world.shape), np.float32) for n in ("VV", "VH")}
    offset = {"ascending": 0.3, "descending": -0.3}
    for i, day in enumerate(world.days(time)):
        green, wet = world.state(float(day)).green, world.wet(float(day))
        seconds = round(float(day) * 86_400) + 30 * 86_400
        for c, name in enumerate(("VV", "VH")):
            rng = stream(world.seed, _SAR, seconds, c)
            looks = 4.5
            speckle = rng.standard_gamma(looks, world.padded, dtype=np.float32) / np.float32(looks)
            db = spectra.backscatter(green, wet, power[2 * c], power[2 * c + 1], speckle)
            out[name][i] = world.crop_to(db) + np.float32(offset[directions[i]])
    return out


__all__ = ["DAY", "World", "day_of_year", "optical", "quantised", "radar", "radar_passes"]
