import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import layout, samples, simulate, store
from cubefill.bands import COHERENCE
from cubefill.errors import CubeError, MethodError, StoreError
from cubefill.gaps import Blobs, Dates, Lent
from cubefill.method import Block, Needs
from cubefill.samples import StoredSamples
from cubefill.testing import synthetic_cube
from cubefill.train_samples import Samples
from cubefill.windows import Span

BANDS = ("B02", "B03", "B04", "B08")
NEEDS = Needs(bands=BANDS, time=Span(6), space=Span(16))


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return simulate.scene(
        size=(64, 96), days=240, seed=3, cloud=0.4, bands=BANDS, sar="own", dem=True
    ).cube


@pytest.fixture(scope="module")
def by_layout(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> StoredSamples:
    path = tmp_path_factory.mktemp("layout") / "msop.zarr"
    return samples.make([cube], "msop", None, path, patch=16, dem=True, splits=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def by_window(cube: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> StoredSamples:
    path = tmp_path_factory.mktemp("window") / "window.zarr"
    return samples.make(
        [cube], NEEDS, Blobs(keep=1), path, splits=(0.6, 0.2, 0.2), min_clear=0.3, max_per_place=7
    )


def every(found: StoredSamples) -> list[StoredSamples]:
    return [samples.open(found.path, s) for s in ("train", "validation", "test")]


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
    from cubefill.methods.msop import MsopDavid
    from cubefill.methods.ssop import SsopUnet

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
    many = samples.make([cube], "msop", None, tmp_path / "b.zarr", ways=4, **options)
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
    from cubefill.methods.utilise import Utilise

    method = Utilise().configured(patch=32, pad=4, dates=6)
    samples.make(
        [cube],
        method,
        Lent(),
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
    made = samples.make([clear], NEEDS, Blobs(keep=0), path, real=(3, 8), **options)
    for part in every(made):
        corners = zip(part.table["row"].values, part.table["col"].values, strict=True)
        places = {(int(r), int(c)) for r, c in corners}
        real = part[0]["real"]
        assert real.shape == (3, 4, 8, 8)
        assert real.dtype == np.float32
        near = np.abs(clear["B02"].values - real[0, 0, 0, 0]) < 6e-5
        at = {(int(r) // 16 * 16, int(c) // 16 * 16) for _, r, c in np.argwhere(near)}
        assert at & places
    assert "real" not in samples.make([clear], NEEDS, None, tmp_path / "b.zarr", **options)[0]
    refused("at most 16 px", [clear], NEEDS, None, tmp_path / "c.zarr", real=(3, 64))
    clouds = clear.assign(valid=clear["valid"] & (np.arange(96) % 5 > 0))
    refused("No place of the train split is clear on 3", [clouds], NEEDS, None,
            tmp_path / "c.zarr", real=(3, 8))  # fmt: skip


def test_samples_train_a_net_to_a_checkpoint(cube: xr.Dataset, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from cubefill import train
    from cubefill.methods.utilise import Utilise
    from cubefill.train_recipe import Recipe

    torch.set_num_threads(1)
    method = Utilise().configured(patch=16, pad=4, dates=4, widths=(4, 4, 8), heads=2)
    options: Any = {"max_per_place": 2, "splits": (0.6, 0.2, 0.2), "clear_dates": 0.3}
    samples.make([cube], method, Lent(), tmp_path / "a.zarr", dates=4, **options)
    held = samples.open(tmp_path / "a.zarr", "validation", method)
    given = samples.open(tmp_path / "a.zarr", method=method, turns=True)
    recipe = Recipe(method="cubefill.methods.utilise:Utilise", updates=3, batch=2)
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
        turns = true
        """
    )
    other = train.run_recipe(tmp_path / "mine.toml", tmp_path / "other", progress=False)
    assert given.digest in (other / "card.json").read_text()


# ------------------------------------------------------------------ split


def footprints(found: StoredSamples) -> list[Any]:
    return list(json.loads(Path(found.path).with_suffix(".geojson").read_text())["features"])


def test_splits_share_no_ground(by_layout: StoredSamples, by_window: StoredSamples) -> None:
    from shapely.geometry import shape
    from shapely.ops import unary_union

    for found in (by_layout, by_window):
        area = {
            part.split: unary_union(
                [
                    shape(f["geometry"])
                    for f in footprints(found)
                    if f["properties"]["split"] == part.split
                ]
            )
            for part in every(found)
        }
        assert all(a.area > 0 for a in area.values())
        assert area["train"].intersection(area["validation"]).area == 0
        assert area["train"].intersection(area["test"]).area == 0
        assert area["validation"].intersection(area["test"]).area == 0
        counts = [len(p) for p in every(found)]
        assert sum(f["properties"]["samples"] for f in footprints(found)) == sum(counts)
        assert counts[0] / sum(counts) == pytest.approx(0.6, abs=0.15)


def test_at_most_n_of_a_place(by_window: StoredSamples, by_layout: StoredSamples) -> None:
    for part in every(by_window):
        assert np.bincount(part.table["place"].values).max() <= 7
    most = [np.bincount(part.table["place"].values).max() for part in every(by_layout)]
    assert most[0] == most[1] == 50
    assert most[2] > 50


def test_a_later_year_of_a_place_stays_in_its_split(tmp_path: Path) -> None:
    years = [synthetic_cube(8, (64, 64), ("B04",), seed=s) for s in (0, 1)]
    shifted = synthetic_cube(8, (64, 64), ("B04",), seed=2)
    shifted = shifted.assign_coords(y=shifted["y"] - 24 * 10, x=shifted["x"] + 12 * 10)
    options: Any = {"patch": 16, "dates": 4, "splits": (0.5, 0.25, 0.25), "max_per_place": 4}
    made = samples.make([*years, shifted], Needs(("B04",)), None, tmp_path / "a.zarr", **options)
    seen: dict[tuple[float, ...], set[str]] = {}
    counts: dict[tuple[float, ...], int] = {}
    for part in every(made):
        for box in part.table["bbox"].values:
            key = tuple(box.round(6))
            seen.setdefault(key, set()).add(part.split)
            counts[key] = counts.get(key, 0) + 1
    assert all(len(s) == 1 for s in seen.values())
    assert max(counts.values()) <= 4
    cubes = [set(p.table["cube"].values) for p in every(made)]
    assert set.union(*cubes) == {0, 1, 2}


def test_seasons_are_taken_in_turns(tmp_path: Path) -> None:
    days = np.concatenate([np.arange(0, 60, 2), [100, 105, 110, 115], [200, 205], [290, 300]])
    cube = synthetic_cube(size=(32, 32), bands=("B04",), days=days.tolist())
    options: Any = {"patch": 16, "dates": 1, "splits": (1, 0, 0), "max_per_place": 8}
    made = samples.make([cube], Needs(("B04",)), None, tmp_path / "a.zarr", seasons=True, **options)
    np.testing.assert_array_equal(np.bincount(made.table["season"].values), [8, 8, 8, 8])
    made = samples.make([cube], Needs(("B04",)), None, tmp_path / "b.zarr", **options)
    few = np.bincount(made.table["season"].values, minlength=4)
    assert few[1] > 16
    drawn = samples.open(made.path, seasons=True).at(3)
    counts = np.zeros(4)
    times = made.table["season"].values
    for i in range(400):
        number = drawn._drawn(np.random.default_rng(i))
        counts[times[number]] += 1
    present = counts[few > 0] / 400
    np.testing.assert_allclose(present, 1 / len(present), atol=0.08)


# ------------------------------------------------------------------ reading


def test_the_same_seed_gives_the_same_samples(cube: xr.Dataset, tmp_path: Path) -> None:
    stored = store.write_cube(cube.drop_dims("sar_time"), tmp_path / "cube.zarr")
    made = [
        samples.make([c], NEEDS, Dates(), tmp_path / n, max_per_place=2, seed=s)
        for c, n, s in (
            (cube, "a.zarr", 5), (tmp_path / "cube.zarr", "b.zarr", 5), (cube, "c.zarr", 6)
        )
    ]  # fmt: skip
    assert stored is not None
    assert len(made[0]) == len(made[1])
    for i in range(len(made[0])):
        for name, a in made[0][i].items():
            np.testing.assert_array_equal(a, made[1][i][name])
    again = samples.open(made[0].path)
    assert again.digest == made[0].digest
    assert made[2].digest != made[0].digest


def test_a_sample_is_one_file(by_layout: StoredSamples) -> None:
    total = sum(len(p) for p in every(by_layout))
    files = [p for p in (Path(by_layout.path) / "data").iterdir() if p.name != "zarr.json"]
    assert len(files) == total
    assert all(p.is_file() for p in files)


def test_samples_pickle_small_and_feed_a_loader(by_window: StoredSamples) -> None:
    torch = pytest.importorskip("torch")
    assert len(by_window[0]) > 0
    packed = pickle.dumps(by_window)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)[1]["target"], by_window[1]["target"])
    loader = torch.utils.data.DataLoader(by_window, batch_size=4, shuffle=True)
    batch = next(iter(loader))
    assert batch["optical"].shape == (4, 6, 4, 16, 16)
    assert batch["target"].dtype == torch.float32


@pytest.mark.slow
def test_worker_processes_read_what_one_process_reads(by_window: StoredSamples) -> None:
    torch = pytest.importorskip("torch")
    alone = [by_window[i]["target"] for i in range(6)]
    loader = torch.utils.data.DataLoader(by_window, batch_size=1, num_workers=2)
    for a, batch in zip(alone, loader, strict=False):
        np.testing.assert_array_equal(a, batch["target"][0].numpy())


def test_turns_differ_by_epoch_and_keep_values(by_window: StoredSamples) -> None:
    turned = samples.open(by_window.path, turns=True)
    plain = np.sort(by_window[2]["target"], axis=None)
    seen = {turned.at(e)[2]["target"].tobytes() for e in range(12)}
    assert len(seen) > 3
    for e in range(3):
        np.testing.assert_array_equal(np.sort(turned.at(e)[2]["target"], axis=None), plain)
        np.testing.assert_array_equal(turned.at(e)[2]["valid"], turned.at(e)[2]["valid"])


def test_no_data_is_nan(tmp_path: Path) -> None:
    cube = synthetic_cube(6, (32, 32), ("B04",)).copy(deep=True)
    cube["B04"][2, :5] = np.nan
    cube["SCL"][2, :5] = 0
    cube["valid"][2, :5] = False
    made = samples.make(
        [cube], Needs(("B04",)), None, tmp_path / "a.zarr", patch=32, dates=6, splits=(1, 0, 0)
    )
    assert np.isnan(made[0]["optical"][2, 0, :5]).all()
    assert np.isfinite(made[0]["optical"][2, 0, 5:]).all()
    assert not made[0]["where"][2, 0, :5].any()
    with pytest.raises(IndexError, match="expected 0 to 0"):
        made[1]


class _Passed:
    """A learner that gives what it is shown."""

    def encode(self, block: Block) -> dict[str, Any]:
        return {"x": np.stack([np.nan_to_num(a) for a in block.bands.values()])}

    def target(self, truth: Block, gapped: Block) -> dict[str, Any]:
        return {"target": truth.bands["B04"], "where": truth.valid & ~gapped.valid}


def test_any_learner_reads_its_own_arrays(by_window: StoredSamples) -> None:
    found = samples.open(by_window.path, "test", _Passed())
    sample = found[0]
    assert sorted(sample) == ["target", "where", "x"]
    assert sample["where"].any()
    assert found.digest.endswith("-test")


# ------------------------------------------------------------------ refusals


def refused(match: str, *args: Any, error: type[Exception] = CubeError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        samples.make(*args, **options)


def test_an_empty_search_says_what_removed_how_many(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    summer = cube.isel(time=slice(0, 1))
    refused(
        r"No sample: of \d+ dates .*slot 'tm1': no date at", [summer], "msop", None, path, patch=32
    )
    cloudy = cube.assign(valid=cube["valid"] & False)
    refused(r"slot 'target': clouds not 0 %", [cloudy], "ssop", None, path, patch=32)
    none = cube.assign(SCL=cube["SCL"] * 0)
    refused(r"\d+ x slot 't': pixels without data", [none], "ssop", None, path, patch=32)
    far = cube.assign_coords(sar_time=cube["sar_time"] + np.timedelta64(4000, "D"))
    refused(r"\d+ x slot 't': S1 not within 72 h", [far], "ssop", None, path, patch=32)
    refused(r"6 x places with fewer than 200 dates", [cube], NEEDS, None, path, dates=200, patch=32)
    few = cube.assign(valid=cube["valid"] & (np.arange(96) % 3 > 0))
    refused(r"less than 90% clear \(min_clear\)", [few], NEEDS, None, path, min_clear=0.9)
    refused("no gap: ", [cube], NEEDS, Dates(keep=99), path)
    assert not any(tmp_path.iterdir())


def test_a_split_that_would_be_empty_is_refused(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    refused("1 separate places.*expected at least 3", [cube], NEEDS, None, path, patch=64)
    refused("1 separate places", [cube], NEEDS, None, path, block=96)
    refused("multiple of patch=16", [cube], NEEDS, None, path, block=40)
    refused("add up to 1", [cube], NEEDS, None, path, splits=(0.5, 0.1, 0.1))
    made = samples.make([cube], NEEDS, None, path, patch=64, splits=(1, 0, 0))
    with pytest.raises(StoreError, match=r"no test samples \(it holds .*splits="):
        samples.open(made.path, "test")
    with pytest.raises(StoreError, match="expected one of train, validation, test"):
        samples.open(made.path, "val")


def test_what_cannot_be_is_refused(cube: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    refused("no B11: expected", [cube], Needs(("B11",)), None, path, dates=4)
    refused("No place of 512 x 512 px", [cube], NEEDS, None, path, patch=512)
    refused("got none", [], NEEDS, None, path)
    refused("got a single one", cube, NEEDS, None, path)
    nowhere = synthetic_cube().drop_vars("spatial_ref").drop_encoding()
    refused("no CRS", [nowhere], NEEDS, None, path)
    refused("Type dates=10", [cube], Needs(), None, path, error=MethodError)
    refused("gaps=None", [cube], "ssop", Blobs(), path, error=MethodError)
    refused("Expected a layout", [cube], 3, None, path, error=MethodError)
    with pytest.raises(StoreError, match="no store"):
        samples.open(path)
    samples.make([cube], NEEDS, None, path, max_per_place=1)
    refused("overwrite=True", [cube], NEEDS, None, path, error=StoreError)
    assert len(samples.make([cube], NEEDS, None, path, max_per_place=1, overwrite=True)) > 0
    other = store.write_cube(cube.drop_dims("sar_time"), tmp_path / "cube.zarr")
    assert other is not None
    refused("holds no samples", [cube], NEEDS, None, tmp_path / "cube.zarr", error=StoreError,
            overwrite=True)  # fmt: skip
