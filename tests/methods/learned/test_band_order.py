"""A net sees its bands in its own order, whatever stands beside them and in whatever order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import samples
from cubefill.errors import StoreError
from cubefill.gaps import Blobs
from cubefill.methods import METHODS, Block, Needs, resolve
from cubefill.methods.windows import Span
from cubefill.samples.patches import CubeSamples
from tests.shared.bad_cases import BANDS, TINY, cube, filled, net, same
from tests.shared.samples_cases import scene_cube
from tests.shared.torch_thread import one_thread as one_thread

MIXED = ("B08", "B11", "B04", "B02", "B03")
OF_BANDS = tuple(n for n in TINY if n != "stpconv")
"""Deep methods with bands of their own; stpconv takes any, each by itself."""


def method_of(name: str) -> Any:
    return resolve(name, checkpoint=net(name))


def mixed(ds: xr.Dataset) -> xr.Dataset:
    """The cube with its variables in another order, and one more band that no net has."""
    names = [*MIXED, *(n for n in ds.data_vars if n not in MIXED)]
    return ds.assign(B11=0.5 + ds["B02"] / 2)[names]


def test_every_deep_method_is_tested() -> None:
    learned = {n for n, target in METHODS.items() if ".learned." in target}
    assert learned == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_the_order_of_a_cube_does_not_matter(name: str) -> None:
    ds = cube(dates=3)
    plain, other = filled(ds, name), filled(mixed(ds), name)
    if name == "stpconv":
        other = other.drop_vars("B11")
    same(plain, other)


@pytest.mark.parametrize("name", OF_BANDS)
def test_the_order_of_a_block_does_not_matter(name: str) -> None:
    method = method_of(name)
    space = method.needs.space
    size = space.size if not space.pointwise else 16
    ds = cube(dates=3, size=(size, size))
    time = ds["time"].values.astype("datetime64[ns]")

    def block(bands: tuple[str, ...], given: xr.Dataset) -> Block:
        seen = {b: given[b].values for b in bands}
        sar = {n: ds[n].values for n in ("VV", "VH")}
        return Block(seen, ds["valid"].values, time, time, sar=sar)

    plain, other = method.fill([block(BANDS, ds), block(MIXED, mixed(ds))])
    assert set(plain.bands) == set(other.bands)
    for n, a in plain.bands.items():
        np.testing.assert_array_equal(a, other.bands[n], err_msg=n)


@pytest.mark.parametrize("name", OF_BANDS)
def test_the_order_of_a_training_cube_does_not_matter(name: str) -> None:
    ds = cube(dates=8, size=(160, 160) if "width" in TINY[name] else (40, 40))
    plain, other = (
        CubeSamples([c], method_of(name), Blobs(), count=1, dates=6)[0] for c in (ds, mixed(ds))
    )
    alike(plain, other)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Samples of windows and of a layout, of the four bands and of five in another order."""
    folder, scene = tmp_path_factory.mktemp("stores"), mixed(scene_cube())
    made = {}
    for name, what, gaps in (
        ("window", Needs(time=Span(6), space=Span(16), sar=True), Blobs(keep=1)),
        ("msop", "msop", None),
    ):
        paths = folder / f"{name}.zarr", folder / f"{name}_mixed.zarr"
        for path, bands in zip(paths, (BANDS, MIXED), strict=True):
            samples.make(
                [scene], what, gaps, path, bands=bands, patch=16, splits=(1, 0, 0),
                min_clear=0.3, max_per_place=2, discriminator_windows=(2, 8) if gaps else (0, 0),
            )  # fmt: skip
        made[name] = paths
    return made


@pytest.mark.parametrize("name", OF_BANDS)
def test_the_order_of_stored_samples_does_not_matter(
    name: str, stores: dict[str, tuple[Path, Path]]
) -> None:
    paths = stores["msop" if "sop_" in name else "window"]
    plain, other = (samples.open(p, "train", method_of(name)) for p in paths)
    assert len(plain) == len(other)
    alike(plain[0], other[0])


def test_stored_samples_without_a_band_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "red.zarr"
    needs = Needs(("B04",), time=Span(4), space=Span(16))
    samples.make([cube(dates=8, size=(64, 64))], needs, Blobs(), path, splits=(1, 0, 0))
    with pytest.raises(StoreError, match=r"holds samples of B04: expected B02, .*bands=\('B02'"):
        samples.open(path, "train", method_of("utilise"))


def alike(plain: Any, other: Any) -> None:
    """Equal, and no band like another, so that a swap would show."""
    assert set(plain) == set(other)
    for n, a in plain.items():
        np.testing.assert_array_equal(a, other[n], err_msg=n)
    target = plain["target"]
    axis = target.ndim - 3
    if target.ndim > 2:
        first, second = (target.take(i, axis) for i in (0, 1))
        assert (first != second).any()
