"""The paper's three sets and rows from simulated cubes; linear scores as by hand."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from cubefill import metrics, samples, simulate
from cubefill.errors import CubeError
from cubefill.evaluate.decloud import BANDS, _rows, compare_decloud, markdown, write
from cubefill.methods import resolve
from cubefill.methods.learned.decloud_nets import MsopUnet, SsopUnet
from tests.shared.decloud import made

SMALL: dict[str, Any] = {"patch": 32, "pad": 0, "widths": (2, 2, 2, 2, 2, 2)}


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return simulate.scene(size=64, dates=140, days=700, seed=5, bands=BANDS).cube


@pytest.fixture(scope="module")
def nets() -> list[Any]:
    torch.set_num_threads(1)
    return [
        made(SsopUnet, layout="ssop", sar=False, **SMALL),
        made(SsopUnet, layout="ssop", **SMALL),
        made(MsopUnet, layout="msop", **SMALL),
        made(MsopUnet, layout="msop", dem=True, **SMALL),
    ]


@pytest.fixture(scope="module")
def found(cube: xr.Dataset, nets: list[Any], tmp_path_factory: Any) -> tuple[xr.Dataset, Path]:
    folder = tmp_path_factory.mktemp("decloud")
    methods = [*nets, "linear2"]
    return compare_decloud(methods, [cube], patch=32, dem=True, most=3, folder=folder), folder


def test_rows_are_those_of_the_paper(found: tuple[xr.Dataset, Path]) -> None:
    ds = found[0]
    assert ds.test_set.values.tolist() == ["ssop", "msop", "msop_cld"]
    rows = ds.method_name.values.tolist()
    assert rows == [
        "ssop_unet (without SAR)", "ssop_unet (SAR)", "msop_unet (SAR)", "msop_unet (SAR + DEM)",
        "linear2",
    ]  # fmt: skip
    scored = ds.samples.values > 0
    assert scored[0].tolist() == [True, True, False, False, False]
    assert scored[1].tolist() == [True, True, True, True, False]
    assert scored[2].all()
    assert np.isnan(ds.mse.values[~scored]).all()
    np.testing.assert_allclose(
        ds.psnr.values[scored], 10 * np.log10(1e8 / ds.mse.values[scored]), rtol=1e-9
    )


def test_variants_of_a_method_stand_together_in_the_papers_order(nets: list[Any]) -> None:
    rows = _rows(["linear2", nets[3], nets[1], nets[2], nets[0]])
    assert list(rows) == [
        "linear2", "msop_unet (SAR)", "msop_unet (SAR + DEM)", "ssop_unet (without SAR)",
        "ssop_unet (SAR)",
    ]  # fmt: skip
    assert rows["ssop_unet (SAR)"] is nets[1]


def test_checkpoints_of_one_variant_are_told_apart(nets: list[Any]) -> None:
    other = made.__wrapped__(SsopUnet, layout="ssop", **SMALL)
    rows = _rows([nets[1], other, nets[0], other, "linear2", "linear2"])
    assert list(rows) == [
        "ssop_unet (without SAR)",
        f"ssop_unet={nets[1].checkpoint} (SAR)",
        f"ssop_unet={other.checkpoint} (SAR)",
        f"ssop_unet={other.checkpoint} (SAR) (2)",
        "linear2",
        "linear2 (2)",
    ]
    assert [rows[n] for n in list(rows)[:3]] == [nets[0], nets[1], other]


def test_own_names_and_their_order_are_kept(nets: list[Any]) -> None:
    mine = {"second": nets[1], "first": nets[0], "line": "linear2"}
    assert _rows(mine) == {**mine, "line": resolve("linear2")}
    assert list(_rows(mine)) == list(mine)


def test_linear_scores_as_by_hand(found: tuple[xr.Dataset, Path]) -> None:
    ds, folder = found
    stored = samples.open(folder / "msop_cld.zarr", "test")
    squares, n = 0.0, 0
    for i in range(len(stored)):
        truth, gapped = stored.blocks(i)
        clear = np.flatnonzero(gapped.valid.any((1, 2)))
        days = (gapped.time - gapped.out_time[0]) / np.timedelta64(1, "D")
        before, after = clear[days[clear] < 0], clear[days[clear] > 0]
        assert len(before) == len(after) == 1
        share = -days[before[0]] / (days[after[0]] - days[before[0]])
        both = gapped.valid[before[0]] & gapped.valid[after[0]] & truth.valid[0]
        for b in BANDS:
            a, c = gapped.bands[b][before[0]], gapped.bands[b][after[0]]
            error = (a + share * (c - a) - truth.bands[b][0])[both]
            squares, n = squares + float((error.astype(float) ** 2).sum()), n + int(both.sum())
    row = ds.sel(test_set="msop_cld", method_name="linear2")
    assert int(row["values"]) == n > 0
    assert float(row.mse) == pytest.approx(1e8 * squares / n, rel=1e-4)
    assert float(row.mse) < float(ds.mse[2, :4].min()), "random nets are worse"


def test_tables_in_markdown(found: tuple[xr.Dataset, Path]) -> None:
    text = markdown(found[0])
    assert [x for x in text.splitlines() if x.startswith("**")] == [
        "**SSOP**", "**MSOP**", "**MSOP_CLD**",
    ]  # fmt: skip
    assert text.count("| linear2 |") == 1
    assert "samples | values |" in text
    notes = [x for x in text.splitlines() if x.startswith("Peak")]
    assert len(notes) == 3, "one line below each table"
    assert notes[0].startswith("Peak 10000 (MSE, PSNR); 1 (SSIM, SAM). Pooling: pixels, dates, ban")
    assert "cosines of pixels, dates and cubes, then the angle (SAM)" in notes[0]
    assert "Pixels: clear pixels of the target image; n of MSE: values." in notes[0]


def test_tables_of_files_hold_the_values(found: tuple[xr.Dataset, Path], tmp_path: Path) -> None:
    ds = found[0].copy(deep=True)
    ds = ds.assign_coords(reason=("test_set", ["none <at> all", "", ""]))
    ds["samples"][0] = 0
    assert write(ds, tmp_path / "t.md").read_text() == markdown(ds)
    page = write(ds, tmp_path / "t.html").read_text()
    assert "<strong>SSOP</strong> No samples: none &lt;at&gt; all" in page
    assert page.count("<table>") == 2
    best = float(ds.mse.values[2].min())
    assert f"<strong>{best:.0f}</strong>" in page
    assert f"**{best:.0f}**" in markdown(ds)
    with write(ds, tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * int((ds.samples.values > 0).sum())
    for row in rows:
        one = ds.sel(test_set=row["test_set"], method_name=row["method"])
        score = metrics.resolve(row["metric"], "decloud")
        key = row["metric"].lower()
        assert float(row["value"]) == float(one[key])
        assert (int(row["n"]), int(row["samples"])) == (int(one[f"{key}_n"]), int(one.samples))
        assert (row["unit"], row["pooling"]) == (score.unit, score.pooling)
        assert float(row["peak"]) == getattr(score, "peak", 1.0)
        assert (row["convention"], row["pixel_set"]) == ("decloud", ds.attrs["pixel_set"])
    msop = {row["metric"]: int(row["n"]) for row in rows if row["method"] == "linear2"}
    assert msop["MSE"] == msop["PSNR"] == 4 * msop["SAM"], "bands of a pixel, and its one angle"
    assert 0 < msop["SSIM"] < msop["MSE"], "windows have borders"
    read = json.loads((write(ds, tmp_path / "t.json")).read_text())
    values = np.array(read["data_vars"]["mse"]["data"], float)
    np.testing.assert_array_equal(values, ds.mse.values)
    with xr.open_dataset(write(ds, tmp_path / "t.nc"), engine="h5netcdf") as back:
        np.testing.assert_array_equal(back["sam"], ds["sam"])
    with pytest.raises(CubeError, match=r"ends in \.md, \.html, \.csv, \.json, \.nc, got '\.png'"):
        write(ds, tmp_path / "t.png")


def test_sets_that_cannot_be_made_say_why(cube: xr.Dataset) -> None:
    short = cube.isel(time=slice(0, 2))
    with pytest.raises(CubeError, match="No test set can be made of these cubes") as raised:
        compare_decloud(["linear2"], [short], patch=32)
    said = str(raised.value)
    for name in ("ssop", "msop", "msop_cld"):
        with pytest.raises(CubeError) as one:
            compare_decloud(["linear2"], [short], sets=[name], patch=32)
        alone = str(one.value).removeprefix("No test set can be made of these cubes. ")
        assert alone.startswith(f"{name}: No ")
        assert alone.removeprefix(name) in said
        assert re.search(rf"[., ]{name}[:,]", said)
    with pytest.raises(CubeError, match=r"cubes\. ssop, msop, msop_cld: No place of 128 x 128 px"):
        compare_decloud(["linear2"], [short], patch=128)
