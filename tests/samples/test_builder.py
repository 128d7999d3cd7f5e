from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import layout, samples, simulate
from cubefill.cube.bands import COHERENCE
from cubefill.errors import CubeError
from cubefill.gaps import Blobs, Borrowed, Dates
from cubefill.methods.contract import Needs
from cubefill.samples import StoredSamples
from cubefill.samples.protocol import Samples
from cubefill.testing import synthetic_cube
from tests.shared.samples_cases import (
    BANDS,
    NEEDS,
    every,
    refused,
)

# ------------------------------------------------------------------ layouts


def test_slots_hold_what_the_cube_holds(by_layout: StoredSamples, cube: xr.Dataset) -> None:
    table = by_layout.table
    assert list(table["date"].values) == ["tm1", "t", "target", "tp1"]
    for i in range(0, len(by_layout), max(1, len(by_layout) // 5)):
        sample = by_layout[i]
        fact = table.isel(sample=i)
        y, x = (slice(int(fact[n]), int(fact[n]) + 16) for n in ("row", "col"))
        for d, name in enumerate(("tm1", "t", "target", "tp1")):
            there = cube.sel(time=fact["time"].values[d]).isel(y=y, x=x)
            values = np.stack([there[b].values for b in BANDS])
            np.testing.assert_allclose(sample[f"s2_{name}"], values, atol=6e-5)
            np.testing.assert_array_equal(sample[f"valid_{name}"], there["valid"].values)
            if name != "target":
                radar = cube.sel(sar_time=fact["sar_time"].values[d]).isel(y=y, x=x)
                values = np.stack([radar[n].values for n in ("VV", "VH")])
                np.testing.assert_allclose(sample[f"s1_{name}"], values, atol=1.1e-3)
        np.testing.assert_allclose(sample["dem"][0], cube["DEM"].isel(y=y, x=x), atol=0.13)
        assert "s1_target" not in sample
        assert {a.dtype.name for n, a in sample.items() if "valid" not in n} == {"float32"}


def test_dates_meet_the_layout(by_layout: StoredSamples) -> None:
    chosen = layout.load("msop")
    for part in every(by_layout):
        hours = {
            n: (part.table["time"][:, d] - part.table["reference"]).values / np.timedelta64(1, "h")
            for d, n in enumerate(part.form.dates)
        }
        clear = part.table["clear"].values
        for d, slot in enumerate(chosen.slots):
            if slot.origin:
                assert (hours[slot.name] == 0).all()
                continue
            assert (hours[slot.name] >= slot.start).all()
            assert (hours[slot.name] <= slot.stop).all()
            assert (100 * (1 - clear[:, d]) <= float(str(slot.max_cloud)) + 1e-3).all()
        apart = part.table["sar_time"].values - part.table["time"].values
        gap = np.abs(apart[:, [0, 1, 3]] / np.timedelta64(1, "h"))
        assert gap.max() <= 72
        assert np.isnat(part.table["sar_time"].values[:, 2]).all()
        assert set(np.unique(part.table["ascending"].values[:, 0])) <= {0, 1}


def test_the_nearest_sar_image_is_taken(by_layout: StoredSamples, cube: xr.Dataset) -> None:
    passes = cube["sar_time"].values
    time = by_layout.table["time"].values[:, 0]
    nearest = passes[np.abs(passes[None] - time[:, None]).argmin(1)]
    gap, best = np.abs(by_layout.table["sar_time"].values[:, 0] - time), np.abs(nearest - time)
    np.testing.assert_array_equal(gap, best)


def test_a_layout_is_kept_with_all_dates(by_layout: StoredSamples, cube: xr.Dataset) -> None:
    assert by_layout.layout == layout.load("msop")
    assert len(by_layout.attrs["acquisitions"]["0"]) == cube.sizes["time"]
    assert len(by_layout.attrs["sar_acquisitions"]["0"]) == cube.sizes["sar_time"]
    assert by_layout.attrs["layers"][:5] == ["B02 tm1", "B03 tm1", "B04 tm1", "B08 tm1", "B02 t"]
    assert len(by_layout.attrs["layers"]) == by_layout.form.layers == 4 * 4 + 4 + 3 * 2 + 1


@pytest.mark.parametrize("name", ["ssop", "msop", "crga-os1-occitanie", "monthly"])
def test_a_method_is_shown_the_dates_that_were_chosen(
    name: str, cube: xr.Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from cubefill.methods.learned.decloud_nets import MsopDavid, SsopUnet

    kind: Any = SsopUnet if name == "ssop" else MsopDavid
    method = kind().configured(layout=name, patch=32, pad=4, dem=True)
    made = samples.make([cube], method, None, tmp_path / "a.zarr", splits=(1, 0, 0))
    found = samples.open(made.path, method=method)
    assert len(found) > 5
    for i in range(0, len(found), len(found) // 5):
        truth, gapped = found.blocks(i)
        number = int(found.numbers[i])
        wanted = [found._times(number)[found.form.dates.index(n)] for n in method.layout.inputs]
        np.testing.assert_array_equal(gapped.time[method.dates(gapped)], wanted)
        sample = found[i]
        assert sample["target"].shape == (4, 32, 32)
        assert sample["where"].mean() > 0.9
        assert all(np.isfinite(a).all() for a in sample.values())
        assert len(truth.time) == 1
        assert sample["sar"].shape[0] == len(method.layout.inputs)


def test_several_ways_for_one_date(cube: xr.Dataset, tmp_path: Path) -> None:
    options: Any = {"patch": 32, "splits": (1, 0, 0), "max_per_place": 0}
    one = samples.make([cube], "msop", None, tmp_path / "a.zarr", **options)
    many = samples.make([cube], "msop", None, tmp_path / "b.zarr", draws=4, **options)
    assert 1.5 * len(one) < len(many) <= 4 * len(one)
    places, times = many.table["place"].values, many.table["time"].values.tolist()
    assert len({(p, *t) for p, t in zip(places, times, strict=True)}) == len(many)


def test_a_layout_without_sar_asks_nothing_of_it(cube: xr.Dataset, tmp_path: Path) -> None:
    plain = cube.drop_vars(["VV", "VH", "sar_valid"]).drop_dims("sar_time", errors="ignore")
    made = samples.make([plain], "ssop", None, tmp_path / "a.zarr", sar=False, patch=32)
    assert not any(n.startswith("s1") for n in made[0])
    with pytest.raises(CubeError, match=r"no VV, VH.*sar=False"):
        samples.make([plain], "ssop", None, tmp_path / "b.zarr", patch=32)


def test_sar_on_time_keeps_its_hours(tmp_path: Path) -> None:
    scene = simulate.scene(size=64, days=120, seed=1, cloud=0.3, bands=("B04",), sar=True).cube
    narrow = layout.load("ssop")
    narrow = replace(
        narrow, slots=tuple(replace(s, max_gap=30.0) if s.sar else s for s in narrow.slots)
    )
    made = samples.make([scene], narrow, None, tmp_path / "a.zarr", bands=("B04",), patch=32)
    gap = made.table["sar_time"].values[:, 0] - made.table["time"].values[:, 0]
    assert np.abs(gap / np.timedelta64(1, "h")).max() <= 30
    assert np.abs(gap / np.timedelta64(1, "h")).max() > 0


def test_coherence_comes_with_sar(tmp_path: Path) -> None:
    cube = synthetic_cube(8, (48, 48), ("B04", "B08"), sar=True)
    rng = np.random.default_rng(0)
    cube = cube.assign(
        {n: (cube["VV"].dims, rng.random(cube["VV"].shape, np.float32)) for n in COHERENCE}
    )
    needs = Needs(("B04", "B08"), sar=True)
    made = samples.make([cube], needs, Dates(), tmp_path / "a.zarr", patch=16, dates=5)
    truth, _ = made.blocks(2)
    fact = made.table.isel(sample=2)
    y, x = (slice(int(fact[n]), int(fact[n]) + 16) for n in ("row", "col"))
    there = cube.sel(time=fact["time"].values).isel(y=y, x=x)
    for n in ("VV", "VH", *COHERENCE):
        np.testing.assert_allclose(truth.sar[n], there[n], atol=1.1e-3 if "C" not in n else 6e-5)
    assert made[2]["coherence"].shape == (5, 2, 16, 16)
    assert made.form.names[-1] == "COH_VH 4"


# ------------------------------------------------------------------ windows and gaps


def test_windows_hide_clear_observations(by_window: StoredSamples, cube: xr.Dataset) -> None:
    for i in range(len(by_window)):
        sample, (truth, gapped) = by_window[i], by_window.blocks(i)
        hidden = truth.valid & ~gapped.valid
        assert hidden.any()
        np.testing.assert_array_equal(sample["valid"], gapped.valid)
        assert not sample["where"][~np.broadcast_to(hidden[:, None], sample["where"].shape)].any()
        assert np.isnan(sample["optical"][np.broadcast_to(hidden[:, None], (6, 4, 16, 16))]).all()
        assert np.isfinite(sample["target"]).all()
        assert truth.valid.mean() >= 0.3
        steps = np.searchsorted(cube["time"].values, truth.time)
        assert (np.diff(steps) == 1).all()
    number = int(by_window.numbers[0])
    fact = by_window.table.isel(sample=0)
    there = cube.sel(time=by_window._times(number)).isel(
        y=slice(int(fact["row"]), int(fact["row"]) + 16),
        x=slice(int(fact["col"]), int(fact["col"]) + 16),
    )
    truth = by_window.blocks(0)[0]
    for b in BANDS:
        np.testing.assert_allclose(truth.bands[b], there[b].values, atol=6e-5)
    np.testing.assert_array_equal(truth.valid, there["valid"].values)


def test_a_net_is_trained_on_windows(cube: xr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cubefill.methods.learned.utilise import Utilise

    method = Utilise().configured(patch=32, pad=4, dates=6)
    samples.make(
        [cube],
        method,
        Borrowed(),
        tmp_path / "a.zarr",
        dates=6,
        clear_dates=0.6,
        splits=(0.5, 0.2, 0.3),
    )
    found = samples.open(tmp_path / "a.zarr", method=method)
    sample = found[0]
    assert sample["x"].shape == sample["target"].shape == (6, 4, 32, 32)
    assert isinstance(found, Samples)
    for i in range(len(found)):
        truth, gapped = found.blocks(i)
        np.testing.assert_array_equal(gapped.valid[0], truth.valid[0])
        assert (truth.valid & ~gapped.valid).any()
        assert (truth.valid.mean((1, 2)) >= 0.6).all()


def test_float32_is_exact(cube: xr.Dataset, tmp_path: Path) -> None:
    options: Any = {"patch": 32, "dates": 5, "splits": (1, 0, 0), "dtype": "float32"}
    needs = Needs(bands=("B04",), sar=True, dem=True)
    made = samples.make([cube], needs, None, tmp_path / "a.zarr", **options)
    sample, fact = made[3], made.table.isel(sample=3)
    y, x = (slice(int(fact[n]), int(fact[n]) + 32) for n in ("row", "col"))
    there = cube.sel(time=fact["time"].values).isel(y=y, x=x)
    np.testing.assert_array_equal(sample["optical"][:, 0], there["B04"].values)
    np.testing.assert_array_equal(sample["dem"][0], there["DEM"].values)
    radar = cube["VV"].sel(sar_time=fact["sar_time"].values).isel(y=y, x=x)
    np.testing.assert_array_equal(sample["sar"][:, 0], radar.values)


def test_an_adversary_is_shown_clear_windows_of_its_split(cube: xr.Dataset, tmp_path: Path) -> None:
    clear = cube.assign(valid=cube["valid"] | (np.arange(96) < 80))
    path = tmp_path / "a.zarr"
    options: Any = {"max_per_place": 2, "splits": (0.6, 0.2, 0.2)}
    made = samples.make(
        [clear], NEEDS, Blobs(keep=0), path, discriminator_windows=(3, 8), **options
    )
    for part in every(made):
        corners = zip(part.table["row"].values, part.table["col"].values, strict=True)
        places = {(int(r), int(c)) for r, c in corners}
        real = part[0]["discriminator_windows"]
        assert real.shape == (3, 4, 8, 8)
        assert real.dtype == np.float32
        near = np.abs(clear["B02"].values - real[0, 0, 0, 0]) < 6e-5
        at = {(int(r) // 16 * 16, int(c) // 16 * 16) for _, r, c in np.argwhere(near)}
        assert at & places
    first = made[0]["discriminator_windows"]
    for end in ("", "_split"):  # as version 0.1 named them
        (path / f"discriminator_windows{end}").rename(path / f"real{end}")
    assert np.array_equal(samples.open(path)[0]["discriminator_windows"], first)
    without = samples.make([clear], NEEDS, None, tmp_path / "b.zarr", **options)
    assert "discriminator_windows" not in without[0]
    refused("at most 16 px", [clear], NEEDS, None, tmp_path / "c.zarr",
            discriminator_windows=(3, 64))  # fmt: skip
    clouds = clear.assign(valid=clear["valid"] & (np.arange(96) % 5 > 0))
    refused("No place of the train split is clear on 3", [clouds], NEEDS, None,
            tmp_path / "c.zarr", discriminator_windows=(3, 8))  # fmt: skip


def test_samples_train_a_net_to_a_checkpoint(cube: xr.Dataset, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from cubefill import train
    from cubefill.methods.learned.utilise import Utilise
    from cubefill.train.recipe import Recipe

    torch.set_num_threads(1)
    method = Utilise().configured(patch=16, pad=4, dates=4, widths=(4, 4, 8), heads=2)
    options: Any = {"max_per_place": 2, "splits": (0.6, 0.2, 0.2), "clear_dates": 0.3}
    samples.make([cube], method, Borrowed(), tmp_path / "a.zarr", dates=4, **options)
    held = samples.open(tmp_path / "a.zarr", "validation", method)
    given = samples.open(tmp_path / "a.zarr", method=method, augment=True)
    recipe = Recipe(method="cubefill.methods.learned.utilise:Utilise", updates=3, batch=2)
    folder = train.fit(method, given, recipe, tmp_path / "net", validation=held, progress=False)
    assert given.digest in (folder / "card.json").read_text()
    store = (tmp_path / "a.zarr").as_posix()
    (tmp_path / "mine.toml").write_text(
        f"""
        method = "utilise"
        batch = 2
        updates = 2
        [config]
        patch = 16
        pad = 4
        dates = 4
        widths = [4, 4, 8]
        heads = 2
        [samples]
        store = "{store}"
        augment = true
        """
    )
    other = train.run_recipe(tmp_path / "mine.toml", tmp_path / "other", progress=False)
    assert given.digest in (other / "card.json").read_text()
