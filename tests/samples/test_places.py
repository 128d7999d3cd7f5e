from collections import Counter
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import assign_crs, xr_reproject

from cubefill.errors import CubeError
from cubefill.samples.places import Site, assign, places, site
from cubefill.stac.area import quiet
from cubefill.testing import synthetic_cube


def cube(side: int = 64, down: float = 0, right: float = 0) -> Site:
    """A cube whose corner is moved by so many pixels."""
    ds = synthetic_cube(2, (side, side), ("B04",))
    return site(ds.assign_coords(y=ds["y"] - 10 * down, x=ds["x"] + 10 * right), "a")


def test_places_tile_a_cube() -> None:
    found = places([cube(70)], 16)
    assert [(p.row, p.col) for p in found] == [
        (r, c) for r in (0, 16, 32, 48) for c in (0, 16, 32, 48)
    ]
    assert len({p.group for p in found}) == 16
    lon, lat = np.array(found[0].ring).T
    assert (lon > 2.9).all()
    assert (lon < 3.1).all()
    assert (lat > 50.4).all()
    assert (lat < 50.7).all()


def test_blocks_of_places_stay_together() -> None:
    found = places([cube(96)], 16, 48)
    assert sorted(Counter(p.group for p in found).values()) == [9, 9, 9, 9]


def test_cubes_on_one_pixel_grid_share_their_squares() -> None:
    first, second = cube(64), cube(64, 20, -9)
    found = places([first, second], 16)
    other = [p for p in found if p.site == 1]
    # rows 20 + 12 = 32 = 2 * 16; columns -9 + 9 = 0
    assert {(p.row % 16, p.col % 16) for p in other} == {(12, 9)}
    shared = {p.spot for p in other} & {p.spot for p in found if p.site == 0}
    assert len(shared) == 2 * 3
    for spot in shared:
        assert len({p.group for p in found if p.spot == spot}) == 1


@pytest.mark.parametrize("offset", [0.5, 8.3])
def test_squares_that_overlap_otherwise_are_one_group(offset: float) -> None:
    found = places([cube(32), cube(32, 0, offset)], 32)
    assert len(found) == 2
    assert len({p.group for p in found}) == 1
    assert len({p.group for p in places([cube(32), cube(32, 0, 32.4)], 32)}) == 2


def test_a_place_seen_in_two_zones_is_one_group() -> None:
    with quiet():
        near = synthetic_cube(2, (64, 64), ("B04",)).drop_vars(["SCL", "valid"])
        far = xr_reproject(near, "EPSG:32632", resolution=10)
        for ds in (near, far):
            ds["valid"] = (
                ("time", "y", "x"),
                np.ones(tuple(ds.sizes[d] for d in ds.B04.dims), bool),
            )
        sites = [site(ds, n) for ds, n in ((near, "31"), (far, "32"))]
        found = places(sites, 64)
    assert {p.site for p in found} == {0, 1}
    assert len({p.group for p in found}) == 1


def test_far_cubes_are_apart() -> None:
    found = places([cube(32), cube(32, 5000, 7000)], 16)
    assert len({p.group for p in found}) == 8


@given(
    st.lists(st.integers(1, 50), min_size=3, max_size=60),
    st.sampled_from([(0.8, 0.05, 0.15), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
    st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_every_group_is_in_one_split_and_no_split_is_empty(
    weights: Any, shares: Any, seed: int
) -> None:
    given_weights = dict(enumerate(weights))
    found = assign(given_weights, shares, np.random.default_rng(seed))
    assert set(found) == set(given_weights)
    assert set(found.values()) == {i for i in range(3) if shares[i]}
    assert found == assign(given_weights, shares, np.random.default_rng(seed))
    total = sum(weights)
    for i in range(3):
        held = sum(w for g, w in given_weights.items() if found[g] == i)
        assert held <= shares[i] * total + 2 * max(weights)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(CubeError, match="2 separate places"):
        assign({0: 5, 1: 9}, (0.8, 0.1, 0.1), np.random.default_rng(0))
    with pytest.raises(CubeError, match="add up to 1"):
        assign({0: 5, 1: 9}, (0.8, 0.3, -0.1), np.random.default_rng(0))
    with pytest.raises(CubeError, match="No place of 128 x 128 px in 1 cubes"):
        places([cube(64)], 128)
    axes = {"time": np.array(["2023-01-01"], "M8[ns]"), "y": [5.0], "x": np.arange(8) * 10.0}
    strip = assign_crs(
        xr.Dataset({"B04": (("time", "y", "x"), np.zeros((1, 1, 8), np.float32))},
                   axes),
        "EPSG:32631",
    )  # fmt: skip
    with pytest.raises(CubeError, match="has 1 x 8 px"):
        site(strip.assign(valid=strip["B04"] == 0), "strip")
