"""Tables say what the dataset holds, for people and for machines."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubefill.errors import CubeError
from cubefill.evaluate import compare, tables
from cubefill.gaps import Dates
from tests.shared import pictures_scene as scenes


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return compare(
        ["nearest", "linear"], scenes.cube(dates=18, size=24), Dates(0.3), seed=(0, 1),
        metrics=["MAE", "bias", "PSNR", "SAM"], resamples=20,
    )  # fmt: skip


def test_scores_in_markdown(found: xr.Dataset) -> None:
    table = tables.scores(found)
    assert table.head == ("method", "MAE", "bias", "PSNR (dB)", "SAM (°)", "skill")
    assert [r[0] for r in table.rows] == ["nearest", "linear"]
    value, low, high = (
        float(found[f"mae{s}"].sel(method_name="linear", pixel_set="occluded", stratum="all"))
        for s in ("", "_low", "_high")
    )
    assert table.rows[1][1] == f"{value:.4f} [{low:.4f}, {high:.4f}]"
    lines = table.markdown().splitlines()
    assert lines[0].startswith("**occluded: pixels with a truth")
    assert lines[3] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert f"**{table.rows[1][1]}**" in lines[5]
    assert "bootstrap over 2 seeds" in lines[-1]
    assert "Convention cubefill; bands B02 B03 B04 B08" in lines[-1]
    assert (
        "Peak 1. Pooling: pixels, dates and bands (MAE, bias, PSNR, skill); pixels and dates (SAM)."
    ) in lines[-1]


def test_every_table_says_peak_and_pooling(found: xr.Dataset) -> None:
    ds = found.copy()
    ds["psnr"] = ds["psnr"].assign_attrs(peak=2.0)
    for text in (tables.markdown(ds, "psnr"), tables.html(ds, "psnr")):
        assert text.count("Peak 1 (MAE, bias, SAM, skill); 2 (PSNR). Pooling: ") == 1
        assert text.count("Peak 2. Pooling: pixels, dates and bands. Pixels: pixels with a t") == 1


def test_the_best_is_lowest_highest_or_nearest_to_the_ideal(found: xr.Dataset) -> None:
    ds = found.copy(deep=True)
    ds["bias"][:, 0, 0] = [-0.001, 0.002]
    ds["psnr"][:, 0, 0] = [30.0, 31.0]
    best = tables.scores(ds).best
    assert {(1, 1), (0, 2), (1, 3)} <= best
    observed = tables.scores(ds, "observed")
    assert not {j for _, j in observed.best if j == 1}, "nothing is best among equals"


def test_strata_in_columns_with_n(found: xr.Dataset) -> None:
    table = tables.by_stratum(found, "mae", kinds=("all", "season"))
    assert table.head[:2] == ("method", "all")
    assert set(table.head[2:]) <= {"DJF", "MAM", "JJA", "SON"}
    assert table.rows[-1][0] == "n"
    n = [int(c.replace("\u2009", "")) for c in table.rows[-1][1:]]
    assert n[0] == sum(n[1:])
    gaps = tables.by_stratum(found, "psnr", kinds=("gap length",))
    assert all(c.startswith("gap ") for c in gaps.head[1:])


def test_the_verdict_names_the_best_and_the_default(found: xr.Dataset) -> None:
    mae = found.mae.sel(pixel_set="occluded", stratum="all")
    at = {"method_name": "nearest", "pixel_set": "occluded", "stratum": "all"}
    skill = found.skill.sel(at)
    best = f"Best of 2 on {tables.counted(int(found.mae_n[0, 0]))} hidden values"
    linear = f"linear, MAE {float(mae.sel(method_name='linear')):.4f}."
    said = tables.verdict(found, "linear")
    assert said.startswith(best)
    assert said.endswith(f"{linear} It is the default.")
    assert tables.verdict(found, "absent").endswith(linear)
    first, second = tables.verdict(found, "nearest").splitlines()
    assert first == tables.verdict(found, "absent")
    worse = f"{-100 * float(skill):.1f} % above linear"
    low, high = (-100 * float(found[f"skill_{e}"].sel(at)) for e in ("high", "low"))
    error = f"MAE {float(mae.sel(method_name='nearest')):.4f}"
    assert second == (
        f"The default is nearest, {error}, {worse} (95 %: {low:.1f} to {high:.1f} %)."
    )
    alone = found.copy()
    alone["skill_low"] = alone["skill_low"] * np.nan
    assert tables.verdict(alone, "nearest").endswith(f"{worse}.")


def test_observations_that_were_kept_are_a_line(found: xr.Dataset) -> None:
    n = tables.counted(int(found.mae_n.sel(pixel_set="observed", stratum="all")))
    said = f"**observed**\n\nEvery method kept all {n} values that it saw.\n"
    assert said in tables.markdown(found)
    changed = found.copy(deep=True)
    changed["mae"].loc["linear", "observed", "all"] = 1e-4
    assert "Every method kept" not in tables.markdown(changed)
    assert "**observed: pixels with a truth that the methods saw**" in tables.markdown(changed)


def test_all_tables_in_html_are_escaped(found: xr.Dataset) -> None:
    ds = found.assign_coords(method_name=["<b>", "a|b"])
    text = tables.html(ds)
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert text.count("<table>") == text.count("</table>") == 2
    assert "a\\|b" in tables.markdown(ds)


def test_a_picture(found: xr.Dataset) -> None:
    fig = tables.plot(found)
    dots, curves = fig.axes
    assert [t.get_text() for t in dots.get_yticklabels()] == ["nearest", "linear"]
    assert len(curves.lines) == 2
    assert dots.get_title("left") == "all, with 95 % interval"
    fig.canvas.draw()
    alone = found.copy()
    for name in ("mae_low", "mae_high"):
        alone[name] = alone[name] * np.nan
    assert tables.plot(alone).axes[0].get_title("left") == "all"


@pytest.mark.parametrize("name", ["t.md", "t.html", "t.csv", "t.json", "t.nc", "t.png"])
def test_files(found: xr.Dataset, tmp_path: Path, name: str) -> None:
    path = tables.write(found, tmp_path / name)
    assert path.stat().st_size > 500
    if name == "t.csv":
        rows = list(csv.DictReader(path.read_text().splitlines()))
        row = next(r for r in rows if r["method"] == "linear" and r["metric"] == "PSNR")
        assert float(row["value"]) == pytest.approx(
            float(found.psnr.sel(method_name="linear")[0, 0])
        )
        assert (row["peak"], row["unit"], row["convention"]) == ("1.0", "dB", "cubefill")
        assert int(row["n"]) == int(found.psnr_n[0, 0])
        for row in rows:
            attrs = found[row["metric"].lower()].attrs
            assert row["pooling"] == attrs["pooling"] != ""
            assert float(row["peak"]) == attrs["peak"]
            assert int(row["n"]) >= 0, "each value has its n, skill too"
    if name == "t.json":
        assert json.loads(path.read_text())["attrs"]["cases"] == 2
    if name == "t.nc":
        with xr.open_dataset(path, engine="h5netcdf") as back:
            np.testing.assert_array_equal(back.mae.values, found.mae.values)


def test_what_is_no_comparison_or_unknown_is_refused(found: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"Expected the dataset of evaluate\.compare"):
        tables.scores(found.drop_dims("pixel_set"))
    with pytest.raises(CubeError, match="Unknown pixel_set 'all': expected one of occluded"):
        tables.scores(found, "all")
    with pytest.raises(CubeError, match="Unknown stratum 'x'"):
        tables.scores(found, stratum="x")
    for call in (tables.by_stratum, tables.plot):
        with pytest.raises(CubeError, match="Unknown metric 'ssim': expected one of mae"):
            call(found, "ssim")
    with pytest.raises(CubeError, match=r"No stratum of \('soil',\)"):
        tables.by_stratum(found, kinds=("soil",))
    with pytest.raises(CubeError, match=r"ends in \.md"):
        tables.write(found, tmp_path / "t.xlsx")
