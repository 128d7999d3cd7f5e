"""All methods on the same pixels; numbers equal those by hand; intervals are over cubes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import evaluate, metrics, simulate
from cubefill import gaps as artificial
from cubefill.engine import gapfill
from cubefill.errors import CubeError, MethodError
from cubefill.evaluate import compare, score_stores
from cubefill.evaluate.bootstrap import key_of
from cubefill.gaps import Dates, Transplant
from cubefill.methods.contract import Block, Filled, Needs
from cubefill.methods.registry import resolve
from cubefill.store import write_cube
from tests.shared import pictures_scene as scenes

BANDS = ("B02", "B03", "B04", "B08")
METHODS = ("linear", "nearest")


@pytest.fixture(scope="module")
def cubes() -> dict[str, xr.Dataset]:
    return {f"place {i}": scenes.cube(dates=20, size=28, seed=i) for i in range(3)}


@pytest.fixture(scope="module")
def found(cubes: dict[str, xr.Dataset]) -> xr.Dataset:
    return compare(METHODS, cubes, Transplant(), seed=2, resamples=40,
                   pixel_sets=("occluded", "observed", "all"))  # fmt: skip


def by_hand(ds: xr.Dataset, method: str) -> tuple[Any, Any, Any, Any]:
    """Fill, truth, hidden and seen, made here."""
    hidden = artificial.hide(ds, Transplant(), 2).values
    out = gapfill(artificial.apply(ds, hidden), method).compute()
    seen = ds["valid"].values & ~hidden
    truth = {b: np.where(ds["valid"].values, ds[b].values, np.nan) for b in BANDS}
    return {b: out[b].values for b in BANDS}, truth, hidden, seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["MAE", "RMSE", "bias", "R2", "PSNR", "SSIM", "SAM", "ERGAS"])
def test_each_cube_scores_as_by_hand(
    cubes: dict[str, xr.Dataset], found: xr.Dataset, method: str, name: str
) -> None:
    fill, truth, hidden, _ = by_hand(cubes["place 1"], method)
    expected = metrics.score(fill, truth, hidden, [name])[name]
    row = found[f"{key_of(name)}_case"].sel(method_name=method, pixel_set="occluded", case=1)
    assert float(row) == pytest.approx(expected.value, rel=1e-9)


def test_values_are_pooled_over_cubes(cubes: dict[str, xr.Dataset], found: xr.Dataset) -> None:
    errors, index = [], []
    for ds in cubes.values():
        fill, truth, hidden, _ = by_hand(ds, "linear")
        errors.append(np.concatenate([(fill[b] - truth[b])[hidden] for b in BANDS]))
        fraction = [(a["B08"] - a["B04"]) / (a["B08"] + a["B04"]) for a in (fill, truth)]
        index.append(np.abs(fraction[0] - fraction[1])[hidden])
    whole = np.concatenate(errors).astype(float)
    row = found.sel(method_name="linear", pixel_set="occluded", stratum="all")
    assert float(row.mae) == pytest.approx(np.abs(whole).mean(), rel=1e-6)
    assert float(row.psnr) == pytest.approx(-10 * np.log10((whole**2).mean()), rel=1e-6)
    assert float(row.ndvi_mae) == pytest.approx(np.concatenate(index).mean(), rel=1e-5)
    assert int(row.mae_n) == len(whole)
    assert int(row.sam_n) == len(whole) / 4


def test_a_stratum_scores_as_by_hand(cubes: dict[str, xr.Dataset], found: xr.Dataset) -> None:
    total, n = 0.0, 0
    for ds in cubes.values():
        fill, truth, hidden, seen = by_hand(ds, "linear")
        days = (ds.time.values - ds.time.values[0]) / np.timedelta64(1, "D")
        for t, y, x in zip(*np.nonzero(hidden), strict=True):
            clear = days[seen[:, y, x]]
            past, coming = clear[clear < days[t]], clear[clear > days[t]]
            inside = len(past) and len(coming)
            length = coming.min() - past.max() if inside else np.abs(clear - days[t]).min()
            if 20 < length <= 40:
                total += sum(abs(float(fill[b][t, y, x]) - truth[b][t, y, x]) for b in BANDS)
                n += 4
    row = found.sel(method_name="linear", pixel_set="occluded", stratum="20-40 d")
    assert int(row.mae_n) == n > 0
    assert float(row.mae) == pytest.approx(total / n, rel=1e-5)


def test_strata_of_a_kind_add_up(found: xr.Dataset) -> None:
    n = found.mae_n.sel(pixel_set="occluded")
    for kind in ("gap length", "position", "season", "clear share"):
        assert int(n[found.kind.values == kind].sum()) == int(n.sel(stratum="all"))
    part = found.sel(method_name="linear", pixel_set="occluded")
    season = part.isel(stratum=found.kind.values == "season")
    pooled = float((season.mae * season.mae_n).sum() / season.mae_n.sum())
    assert pooled == pytest.approx(float(part.mae.sel(stratum="all")))


def test_observed_pixels_are_kept_and_all_holds_both(found: xr.Dataset) -> None:
    whole = found.sel(stratum="all")
    assert float(whole.mae.sel(pixel_set="observed").max()) == 0
    n = whole.mae_n
    assert int(n.sel(pixel_set="all")) == int(n.sel(pixel_set="occluded")) + int(
        n.sel(pixel_set="observed")
    )
    assert bool((whole.mae.sel(pixel_set="all") < whole.mae.sel(pixel_set="occluded")).all())


def test_each_value_stands_with_what_it_means(found: xr.Dataset) -> None:
    assert found.psnr.attrs["peak"] == 1.0
    assert found.attrs["gaps"].startswith("Transplant")
    assert found.attrs["interval"] == "bootstrap over 3 cubes, 40 draws"
    for name in ("mae", "psnr", "ssim", "sam"):
        assert found[name].attrs["convention"] == "cubefill"
        assert found[name].attrs["pooling"]
        assert found[name].dims == ("method_name", "pixel_set", "stratum")
        assert found[f"{name}_n"].dims == ("pixel_set", "stratum")
    assert found.meaning.sel(pixel_set="occluded").item().endswith("did not see")
    assert found.cube.values.tolist() == ["place 0", "place 1", "place 2"]


def test_intervals_hold_the_value_and_skill_is_paired(found: xr.Dataset) -> None:
    whole = found.sel(pixel_set="occluded", stratum="all")
    for name in ("mae", "rmse", "psnr", "skill"):
        row = whole.sel(method_name="nearest")
        assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
    ratio = 1 - float(whole.mae.sel(method_name="nearest") / whole.mae.sel(method_name="linear"))
    assert float(whole.skill.sel(method_name="nearest")) == pytest.approx(ratio)
    assert float(whole.skill.sel(method_name="linear")) == 0
    assert found.skill.attrs["baseline"] == "linear"


def test_the_bootstrap_draws_cubes(cubes: dict[str, xr.Dataset]) -> None:
    alike = {f"copy {i}": cubes["place 0"] for i in range(3)}
    same = compare("linear", alike, Dates(), metrics=["MAE"], resamples=20)
    whole = same.sel(pixel_set="occluded", stratum="all", method_name="linear")
    assert float(whole.mae_low) == pytest.approx(float(whole.mae))
    assert float(whole.mae_high) == pytest.approx(float(whole.mae))


def test_one_cube_is_drawn_by_seeds_and_one_case_has_no_interval(
    cubes: dict[str, xr.Dataset],
) -> None:
    ds = cubes["place 0"]
    several = compare(["linear"], ds, Dates(), seed=range(3), metrics=["MAE"], resamples=20)
    assert several.attrs["interval"] == "bootstrap over 3 seeds, 20 draws"
    assert several.seed.values.tolist() == [0, 1, 2]
    assert float(several.mae_low[0, 0, 0]) < float(several.mae_high[0, 0, 0])
    one = compare(["linear"], ds, Dates(), metrics=["MAE"])
    assert np.isnan(one.mae_low.values).all()
    assert one.attrs["interval"] == "none: one case"


def test_order_of_methods_and_the_same_answer_twice(
    cubes: dict[str, xr.Dataset],
) -> None:
    ds = cubes["place 0"]
    a = compare(["linear", "nearest"], ds, Dates(), metrics=["MAE", "SSIM"], seed=(1, 2))
    b = compare(["nearest", "linear"], ds, Dates(), metrics=["MAE", "SSIM"], seed=(1, 2))
    xr.testing.assert_identical(a, b.sel(method_name=["linear", "nearest"]))


def test_methods_with_names_of_ones_own(cubes: dict[str, xr.Dataset]) -> None:
    both: dict[str, Any] = {"short": resolve("linear", max_gap=15), "long": "linear"}
    table = compare(both, cubes["place 0"], Dates(), metrics=["MAE"])
    assert table.method_name.values.tolist() == ["short", "long"]
    assert float(table.filled[0]) < float(table.filled[1]) == 1
    row = table.sel(pixel_set="occluded", stratum="all")
    assert float(row.mae[0]) == pytest.approx(float(row.mae[1])), "scored where both filled"
    assert table.skill.attrs["baseline"] == "short"


def test_a_cloudless_truth_scores_the_real_gaps() -> None:
    scene = simulate.scene(size=24, dates=20, seed=1, bands=BANDS, sar=False, dem=False)
    table = compare(["linear"], scene.cube, truth=scene.truth, metrics=["MAE", "SSIM"],
                    pixel_sets=("occluded", "observed", "all"))  # fmt: skip
    valid = scene.cube["valid"].values
    out = gapfill(scene.cube, "linear").compute()
    errors = np.concatenate(
        [np.abs(out[b].values - scene.truth[b].values)[~valid].astype(float) for b in BANDS]
    )
    row = table.sel(method_name="linear", stratum="all")
    assert float(row.mae.sel(pixel_set="occluded")) == pytest.approx(np.nanmean(errors), rel=1e-6)
    assert float(row.mae.sel(pixel_set="observed")) > 0, "the truth has no noise"
    assert int(row.mae_n.sel(pixel_set="all")) == valid.size * 4
    assert table.attrs["truth"] == "given, cloudless"


def test_a_screen_adds_a_pixel_set(cubes: dict[str, xr.Dataset]) -> None:
    def upper(ds: xr.Dataset) -> xr.DataArray:
        return ds["valid"] & (ds["y"] > float(ds["y"].median()))

    table = compare(["linear"], cubes["place 0"], Dates(), metrics=["MAE"], screen=upper)
    assert table.pixel_set.values.tolist() == ["occluded", "observed", "screened"]
    n = table.mae_n.sel(stratum="all")
    assert 0 < int(n.sel(pixel_set="screened")) < int(n.sel(pixel_set="occluded"))


def test_land_cover_gives_strata(cubes: dict[str, xr.Dataset]) -> None:
    ds = cubes["place 0"]
    cover = xr.DataArray(np.where(np.arange(28) < 9, 10, 40)[:, None] * np.ones((1, 28), int),
                         dims=("y", "x"))  # fmt: skip
    cover.attrs = {"flag_values": [10, 40], "flag_meanings": "tree crop"}
    table = compare(["linear"], ds.assign(land_cover=cover), Dates(), metrics=["MAE"])
    part = table.isel(stratum=table.kind.values == "land cover").sel(pixel_set="occluded")
    assert part.stratum.values.tolist() == ["crop", "tree"]
    assert int(part.mae_n.sum()) == int(table.mae_n.sel(pixel_set="occluded", stratum="all"))


@pytest.mark.parametrize("convention", ["decloud", "utilise", "ganfilling-train", "earthnet"])
def test_other_conventions(cubes: dict[str, xr.Dataset], convention: str) -> None:
    table = compare(["linear"], cubes["place 0"], Dates(0.4), convention=convention)
    name = metrics.defaults(BANDS, convention)[0]
    row = table[key_of(name)].sel(method_name="linear", pixel_set="occluded", stratum="all")
    hidden = artificial.hide(cubes["place 0"], Dates(0.4), 0)
    out = gapfill(artificial.apply(cubes["place 0"], hidden), "linear").compute()
    truth = cubes["place 0"][list(BANDS)].where(cubes["place 0"].valid)
    expected = metrics.score(out[list(BANDS)], truth, hidden, [name], convention=convention)[name]
    assert float(row) == pytest.approx(expected.value, rel=1e-9)
    assert table.attrs["convention"] == convention


def test_coverage_of_methods_that_know_their_error(cubes: dict[str, xr.Dataset]) -> None:
    table = compare(["linear"], cubes["place 0"], Transplant(), metrics=["coverage"])
    assert 0.4 < float(table.coverage[0].sel(pixel_set="occluded", stratum="all")) <= 1
    assert "skill" not in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": []}, "expected methods and cubes, got 0 and 1"),
        ({"cubes": []}, "expected methods and cubes, got 1 and 0"),
        ({"gaps": None}, "gaps to hide or a cloudless truth, got neither"),
        ({"pixel_sets": ("hidden",)}, "expected some of occluded, observed, all"),
        ({"convention": "mine"}, "Unknown convention 'mine'"),
        ({"metrics": ["MAE", "mea"]}, "Unknown metric 'mea'"),
    ],
)
def test_wrong_calls_are_refused(
    cubes: dict[str, xr.Dataset], options: dict[str, Any], message: str
) -> None:
    call: dict[str, Any] = {"methods": ["linear"], "cubes": cubes["place 0"], "gaps": Dates()}
    call |= options
    with pytest.raises(CubeError, match=message):
        compare(call.pop("methods"), call.pop("cubes"), call.pop("gaps"), **call)


def test_cubes_and_truths_must_fit(cubes: dict[str, xr.Dataset]) -> None:
    a, b = cubes["place 0"], cubes["place 1"]
    with pytest.raises(CubeError, match="expected cubes of one set of bands"):
        compare(["linear"], [a, b.drop_vars("B02")], Dates())
    with pytest.raises(CubeError, match=r"a truth for every cube, got none for \['cube 2'\]"):
        compare(["linear"], [a, b], truth=[a])
    clear = a.assign(valid=xr.ones_like(a["valid"]))
    with pytest.raises(CubeError, match="do not see, got none"):
        compare(["linear"], clear, truth=a)
    with pytest.raises(MethodError, match="Did you mean 'linear'"):
        compare(["liner"], a, Dates())
    with pytest.raises(CubeError, match="no band in common"):
        compare({"s": resolve("whittaker", smooth=True)}, a, Dates())


# ------------------------------------------------------------------ from names and paths


def test_stores_score_like_cubes(cubes: dict[str, xr.Dataset], tmp_path: Any) -> None:
    for i in (0, 1):
        write_cube(cubes[f"place {i}"], tmp_path / f"p{i}.zarr", progress=False)
    lines: list[str] = []
    table = score_stores(
        [tmp_path / "p0.zarr", tmp_path / "p1.zarr"], METHODS, "dates:share=0.3", seeds=(3,),
        metrics=("MAE",), screen=True, resamples=10, progress=lines.append,
    )  # fmt: skip
    assert table.cube.values.tolist() == ["p0.zarr", "p1.zarr"]
    assert lines[0] == "p0.zarr, seed 3: linear"
    assert len(lines) == 4
    direct = evaluate.compare(METHODS, [cubes["place 0"], cubes["place 1"]], Dates(0.3), seed=3,
                              metrics=["MAE"])  # fmt: skip
    a, b = (t.mae.sel(pixel_set="occluded", stratum="all").values for t in (table, direct))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_gaps_are_lent_by_the_cube_itself(cubes: dict[str, xr.Dataset], tmp_path: Any) -> None:
    write_cube(cubes["place 0"], tmp_path / "p0.zarr", progress=False)
    table = score_stores([tmp_path / "p0.zarr"], ["linear"], "borrowed", metrics=("MAE",))
    assert table.attrs["gaps"].startswith("Borrowed(")
    assert 0 < float(table.mae.sel(pixel_set="occluded", stratum="all")[0]) < 0.1


@pytest.mark.parametrize("asked", [None, ["MAE", "NDVI-MAE"]])
def test_near_infrared_may_be_b8a(cubes: dict[str, xr.Dataset], asked: list[str] | None) -> None:
    ds = cubes["place 0"]
    wide, narrow = (
        compare(METHODS, c, Dates(0.3), metrics=asked) for c in (ds, ds.rename(B08="B8A"))
    )
    np.testing.assert_allclose(narrow.ndvi_mae, wide.ndvi_mae, rtol=1e-6)
    assert narrow.ndvi_mae.attrs["formula"] == "NDVIMAE(red='B04', nir='B8A')"
    assert wide.ndvi_mae.attrs["formula"] == "NDVIMAE(red='B04', nir='B08')"
    assert narrow.attrs["bands"] == "B02 B03 B04 B8A"


def test_skill_has_the_facts_of_mae(found: xr.Dataset) -> None:
    for name in ("peak", "pooling", "convention"):
        assert found.skill.attrs[name] == found.mae.attrs[name]
    np.testing.assert_array_equal(found.skill_n, found.mae_n)


@dataclass(frozen=True)
class Greenness:
    """Gives NDVI alone, as a net that fuses SAR does: its mean over time."""

    gives: tuple[str, ...] = ("NDVI",)
    needs: Needs = field(default_factory=lambda: Needs(bands=("B04", "B08")))

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for block in blocks:
            seen = block.optical
            mean = np.nanmean((seen[:, 1] - seen[:, 0]) / (seen[:, 1] + seen[:, 0]), axis=0)
            yield Filled({"NDVI": np.broadcast_to(mean, block.shape).astype(np.float32)})


@pytest.mark.parametrize("nir", ["B08", "B8A"])
def test_methods_that_give_ndvi_alone(cubes: dict[str, xr.Dataset], nir: str) -> None:
    mean = Greenness(needs=Needs(bands=("B04", nir)))
    methods: dict[str, Any] = {"mean": mean, "linear": "linear"}
    table = compare(methods, cubes["place 0"].rename(B08=nir), Dates(0.3))
    row = table.sel(pixel_set="occluded", stratum="all")
    assert table.attrs["bands"] == "NDVI"
    assert "sam" not in table
    assert 0 < float(row.mae[1]) < float(row.mae[0]) < 1
