import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from cubefill.cube import fill_shares, indices
from cubefill.engine import gapfill
from cubefill.engine.job import run
from cubefill.errors import CubefillError, CubefillWarning, JobError, StoreError
from cubefill.methods.contract import Block, Filled, Flag, Needs
from cubefill.store import open_cube, write_cube
from cubefill.store.ledger import Ledger
from tests.shared.strategies import Mean, cube


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_cube(cube(size=(70, 50)), tmp_path / "cube.zarr", progress=False)
    return tmp_path / "cube.zarr"


@dataclass(frozen=True)
class Smooth:
    """Bounded values that depend on neighbours."""

    needs = Needs()
    flag = Flag.INTERPOLATED

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for b in blocks:
            yield b.filled(np.where(np.isfinite(b.optical), b.optical, np.float32(0.12345)))


@dataclass(frozen=True)
class Failing(Smooth):
    """Fails in one tile while a file is there."""

    switch: str = ""

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for b in blocks:
            if b.origin[1] == 32 and b.origin[2] == 0 and Path(self.switch).exists():
                raise RuntimeError("the lamp is out")
            yield from Smooth.fill(self, [b])


def equal(a: xr.Dataset, b: xr.Dataset) -> None:
    assert set(b.data_vars) <= set(a.data_vars)
    for name in b.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values)


@pytest.mark.parametrize("method", ["linear", "whittaker", Mean(), Smooth()])
def test_job_and_lazy_results_are_the_same_bits(stored: Path, tmp_path: Path, method: Any) -> None:
    lazy = gapfill(open_cube(stored), method, tile=17)
    expected = write_cube(lazy, tmp_path / "lazy.zarr", progress=False)
    for tile in (32, None):
        out = run(stored, tmp_path / f"job{tile}.zarr", method, tile=tile, progress=False)
        equal(out, expected)


def test_std_and_other_dates_are_the_same_bits(stored: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"std": True, "quantiles": (0.1, 0.975), "times": "4D"}
    lazy = gapfill(open_cube(stored), "linear", tile=17, **how)
    expected = write_cube(lazy, tmp_path / "lazy.zarr", progress=False)
    out = run(stored, tmp_path / "j.zarr", "linear", progress=False, **how)
    quantiles = [n for n in expected.data_vars if str(n).endswith(("_q10", "_q975"))]
    assert len(quantiles) == 4
    equal(out, expected.drop_vars(quantiles))
    for name in quantiles:  # a job adds to values that are rounded to counts already
        np.testing.assert_allclose(out[name], expected[name], atol=1.01e-4)


def test_a_cube_in_memory_or_a_lazy_graph_is_a_source_too(tmp_path: Path) -> None:
    ds = cube(size=(40, 30))
    expected = write_cube(gapfill(ds, "linear"), tmp_path / "lazy.zarr", progress=False)
    equal(run(ds, tmp_path / "a.zarr", "linear", progress=False), expected)
    equal(
        run(ds.chunk({"time": 2, "y": 9}), tmp_path / "b.zarr", "linear", progress=False), expected
    )


def test_ndvi_equals_that_of_the_stored_bands(stored: Path, tmp_path: Path) -> None:
    out = run(stored, tmp_path / "f.zarr", "linear", ndvi=True, std=True, quantiles=[0.05],
              progress=False)  # fmt: skip
    np.testing.assert_allclose(out["NDVI"], indices.ndvi(out), atol=0.5001e-4)
    np.testing.assert_array_equal(out["NDVI_flag"], out["fill_flag"])
    before = open_cube(stored)
    clear = before["valid"].values
    np.testing.assert_allclose(
        out["NDVI"].values[clear], indices.ndvi(before).values[clear], atol=0.5001e-4
    )
    assert out["NDVI"].attrs["ancillary_variables"] == "NDVI_flag NDVI_std NDVI_q05"
    assert np.isfinite(out["NDVI_std"].values).any()
    after = indices.with_ndvi(gapfill(before, "linear", quantiles=(0.05,))).compute()
    here = np.isfinite(after["NDVI_q05"].values)
    np.testing.assert_array_equal(np.isfinite(out["NDVI_q05"].values), here)
    away = np.abs(out["NDVI_q05"].values - after["NDVI_q05"].values)[here]
    assert np.median(away) < 1e-3


def test_ndvi_may_go_to_a_store_of_its_own(stored: Path, tmp_path: Path) -> None:
    run(stored, tmp_path / "f.zarr", "linear", ndvi_store=tmp_path / "n.zarr", progress=False)
    assert "NDVI" not in open_cube(tmp_path / "f.zarr")
    alone = open_cube(tmp_path / "n.zarr")
    assert sorted(map(str, alone.data_vars)) == ["NDVI", "NDVI_flag"]
    assert np.isfinite(alone["NDVI"].values).any()


def test_ndvi_without_its_bands_says_what_to_type(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(CubefillError, match=r"B8A is missing.*nir='B8A' or ndvi=False"):
        run(stored, tmp_path / "f.zarr", "linear", ndvi=True, nir="B8A")


def test_a_job_that_stopped_goes_on_where_it_stopped(stored: Path, tmp_path: Path) -> None:
    switch, target = tmp_path / "switch", tmp_path / "f.zarr"
    switch.touch()
    method = Failing(str(switch))
    with pytest.raises(
        JobError, match=r"Tile 1-0 \(y 32:64, x 0:32\) failed.*lamp.*again"
    ) as error:
        run(stored, target, method, tile=32, workers=1, progress=False)
    assert list(error.value.tiles) == ["1-0"]
    with pytest.warns(CubefillWarning, match=r"incomplete: 4 of 6 tiles"):
        open_cube(target)
    switch.unlink()
    seen: list[tuple[int, int]] = []
    out = run(
        stored, target, method, tile=32, workers=1, progress=lambda d, t, i: seen.append((d, t))
    )
    assert seen == [(2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    whole = run(stored, tmp_path / "whole.zarr", method, tile=32, progress=False)
    equal(out, whole)


def shares(ds: xr.Dataset) -> dict[str, float]:
    """Share of each code among the gaps, by comparing values."""
    flag = ds["fill_flag"].values
    gaps = flag[(flag != Flag.OBSERVED) & (flag != Flag.NO_DATA)]
    return {f.name.lower(): float((gaps == f).mean()) for f in Flag if (gaps == f).any()}


def test_a_job_says_and_records_what_filled_how_much(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cubefill"):
        out = run(stored, tmp_path / "a.zarr", "linear", tile=32, max_gap=20, progress=False)
    told = json.loads(out.attrs["gapfill_shares"])
    assert told == pytest.approx(shares(out), abs=1e-6)
    assert set(told) == {"interpolated", "extrapolated", "unfillable"}
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert out.gapfill.shares() == fill_shares(out.compute()) == told
    (line,) = [r.message for r in caplog.records if "were gaps" in r.message]
    assert f"% of them {next(iter(told))}, " in line
    again = gapfill(out, "linear", valid=out["fill_flag"] == 0)
    assert "gapfill_shares" not in again.attrs
    stored_again = write_cube(again, tmp_path / "b.zarr", progress=False)
    assert stored_again.attrs["gapfill_shares"] == json.dumps(again.gapfill.shares())


def test_shares_of_a_job_that_went_on_are_of_all_tiles(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    switch = tmp_path / "switch"
    switch.touch()
    with pytest.raises(JobError), caplog.at_level(logging.INFO, "cubefill"):
        run(stored, tmp_path / "a.zarr", Failing(str(switch)), tile=32, progress=False)
    assert "were gaps" not in caplog.text
    switch.unlink()
    out = run(stored, tmp_path / "a.zarr", Failing(str(switch)), tile=32, progress=False)
    assert json.loads(out.attrs["gapfill_shares"]) == pytest.approx(shares(out), abs=1e-6)


def test_failing_tiles_can_be_skipped(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    switch, target = tmp_path / "switch", tmp_path / "f.zarr"
    switch.touch()
    with (
        caplog.at_level(logging.ERROR, logger="cubefill"),
        pytest.warns(CubefillWarning, match=r"1 of 6 tiles failed|incomplete: 1 of 6"),
    ):
        run(stored, target, Failing(str(switch)), tile=32, on_error="skip", progress=False)
    assert "the lamp is out" in caplog.text
    assert [t.name for t in Ledger(target).missing()] == ["1-0"]


def test_an_interrupt_leaves_a_store_that_can_be_resumed(stored: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, info: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    target = tmp_path / "f.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(stored, target, "linear", tile=32, workers=1, progress=interrupt)
    assert 0 < len(Ledger(target).missing()) < 6
    out = run(stored, target, "linear", tile=32, progress=False)
    equal(out, run(stored, tmp_path / "w.zarr", "linear", tile=32, progress=False))


def test_another_job_on_the_same_target_is_refused(stored: Path, tmp_path: Path) -> None:
    target = tmp_path / "f.zarr"
    run(stored, target, "linear", progress=False)
    with pytest.raises(StoreError, match=r"method is 'linear' there, 'last' here.*overwrite=True"):
        run(stored, target, "last", progress=False)
    with pytest.raises(StoreError, match=r"resume=True"):
        run(stored, target, "linear", resume=False, progress=False)
    run(stored, target, "last", overwrite=True, progress=False)
    assert open_cube(target).attrs["gapfill_method"] == "last"


def test_a_cluster_writes_the_same_bits(stored: Path, tmp_path: Path, cluster_client: Any) -> None:
    expected = run(stored, tmp_path / "a.zarr", "linear", ndvi=True, tile=32, progress=False)
    seen: list[int] = []
    out = run(
        stored,
        tmp_path / "b.zarr",
        "linear",
        ndvi=True,
        tile=32,
        client=cluster_client,
        progress=lambda done, total, info: seen.append(done),
    )
    equal(out, expected)
    lazy = gapfill(open_cube(stored), "linear", tile=32).compute()
    np.testing.assert_array_equal(lazy["fill_flag"].values, expected["fill_flag"].values)
    assert seen == list(range(7))


def test_a_cluster_is_refused_a_store_in_memory(stored: Path, cluster_client: Any) -> None:
    target = MemoryStore()
    with pytest.raises(StoreError, match=r"lives in one process.*path or a URL"):
        run(stored, target, "linear", client=cluster_client, progress=False)
    assert not Ledger(target).exists


@dataclass(frozen=True)
class Bright(Smooth):
    """Fills with what no reflectance is."""

    def fill(self, blocks: Iterable[Block]) -> Iterator[Filled]:
        for b in blocks:
            yield b.filled(np.full_like(b.optical, 5.0))


def test_values_beyond_int16_are_clipped_and_counted(stored: Path, tmp_path: Path) -> None:
    gaps = int((~open_cube(stored)["valid"].values).sum())
    with pytest.warns(
        CubefillWarning,
        match=rf"^{2 * gaps} values .*f.zarr and were clipped \(B04: {gaps}, B08: {gaps}\)",
    ):
        out = run(stored, tmp_path / "f.zarr", Bright(), progress=False)
    assert out["B04"].attrs["clipped_values"] == gaps
    assert float(out["B04"].max()) == pytest.approx(3.2767)


def test_another_cube_in_memory_is_another_job(tmp_path: Path) -> None:
    ds = cube(size=(40, 30))
    run(ds, tmp_path / "f.zarr", "linear", progress=False)
    darker = ds.assign(B04=ds["B04"] * np.float32(0.5))
    with pytest.raises(StoreError, match=r"variables.B04 with other values"):
        run(darker, tmp_path / "f.zarr", "linear", progress=False)


def test_a_job_never_writes_into_its_source(stored: Path) -> None:
    with pytest.raises(StoreError, match=r"where the cube is read from.*another target"):
        run(stored, stored, "linear", overwrite=True, progress=False)
    assert open_cube(stored)["B04"].shape == (7, 70, 50)


@pytest.mark.slow
def test_worker_processes_write_the_same_bits(
    stored: Path, tmp_path: Path, process_client: Any
) -> None:
    expected = run(stored, tmp_path / "a.zarr", "linear", tile=32, progress=False)
    out = run(stored, tmp_path / "b.zarr", "linear", tile=32, client=process_client, progress=False)
    equal(out, expected)


PEAK = """
import sys, resource
import cubefill.engine.job
from cubefill.store import open_cube
from pathlib import Path
out = cubefill.run(sys.argv[1], sys.argv[2], "linear", tile=256, workers=2, progress=False,
                   overwrite=True, memory="2GB")
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(int(line.split()[1]))
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_cube(tmp_path: Path) -> None:
    peaks = []
    for n, size in enumerate([(512, 512), (1024, 2048)]):
        ds = cube(dates=40, size=size)
        source = tmp_path / f"cube{n}.zarr"
        write_cube(ds, source, progress=False)
        del ds
        args = [sys.executable, "-c", PEAK, str(source), str(tmp_path / f"filled{n}.zarr")]
        done = subprocess.run(args, capture_output=True, text=True, check=True, timeout=200)
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.2 * peaks[0], peaks
