import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from cubefill.errors import StoreError
from cubefill.store.ledger import Ledger, Progress, differences, tiles

ASKED = {"method": "linear", "options": {"max_gap": 60}, "bands": ["B04", "B08"]}


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 60), st.integers(1, 60))
def test_tiles_cover_every_pixel_once(rows: int, columns: int, height: int, width: int) -> None:
    seen = [
        (y, x)
        for t in tiles((rows, columns), (height, width))
        for y in range(t.y.start, t.y.stop)
        for x in range(t.x.start, t.x.stop)
    ]
    assert len(seen) == rows * columns == len(set(seen))
    found = tiles((rows, columns), (height, width))
    assert len({t.index for t in found}) == len(found)


def test_a_ledger_remembers_what_is_done() -> None:
    store = MemoryStore()
    ledger = Ledger(store)
    assert not ledger.exists
    todo = ledger.begin(ASKED, (100, 60), 32, finish="cubefill.run(...)")
    assert len(todo) == 4 * 2
    ledger.mark(todo[3])
    again = Ledger(store)
    assert again.exists
    assert again.fingerprint == ASKED
    assert again.tile == 32
    assert again.finish == "cubefill.run(...)"
    assert again.done(todo[3])
    assert not again.done(todo[2])
    assert again.missing() == [t for t in todo if t != todo[3]]
    assert again.begin(ASKED, (100, 60), 32) == again.missing()
    for tile in todo:
        again.mark(tile)
    assert ledger.complete


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_each_tile_has_a_chunk_of_its_own(tmp_path: Path, zarr_format: Any) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_group(path, zarr_format=zarr_format)
    ledger = Ledger(path)
    todo = ledger.begin(ASKED, (64, 64), 16)
    for tile in todo[:5]:
        ledger.mark(tile)
    done = zarr.open_array(path, path="cubefill_job/done")
    assert done.metadata.zarr_format == zarr_format
    assert done.nchunks_initialized == 5
    assert done.chunks == (1, 1)


def test_xarray_sees_no_variable(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(path, consolidated=False)
    Ledger(path).begin(ASKED, (4, 4), 2)
    assert list(xr.open_zarr(path, consolidated=False).variables) == ["a"]


def test_other_content_is_refused_with_what_differs() -> None:
    store = MemoryStore()
    Ledger(store).begin(ASKED, (4, 4), 2)
    other = {**ASKED, "options": {"max_gap": 30}, "ndvi": True}
    with pytest.raises(StoreError) as caught:
        Ledger(store).begin(other, (4, 4), 2)
    assert "options.max_gap is 60 there, 30 here" in str(caught.value)
    assert "ndvi is absent there, True here" in str(caught.value)
    assert "overwrite=True" in str(caught.value)
    with pytest.raises(StoreError, match=r"exists.*resume=True.*overwrite=True"):
        Ledger(store).begin(ASKED, (4, 4), 2, resume=False)


def test_a_store_without_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no record of finished tiles"):
        Ledger(tmp_path / "none.zarr").missing()


def test_a_ledger_that_was_cut_short_is_begun_again() -> None:
    store = MemoryStore()
    zarr.create_group(store, path="cubefill_job")
    assert not Ledger(store).exists
    assert len(Ledger(store).begin(ASKED, (4, 4), 2)) == 4


def test_differences_of_types_and_long_values() -> None:
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({"a": True}, {"a": 1}) == ["a is True there, 1 here"]
    [line] = differences({"a": "x" * 500}, {"a": "y"})
    assert len(line) < 120


def test_progress_calls_back() -> None:
    seen: list[tuple[int, int, Mapping[str, Any]]] = []
    with Progress(lambda d, t, i: seen.append((d, t, i)), 5, 3) as bar:
        bar.step({"tile": "0-1"})
        bar.step()
    assert seen == [(3, 5, {}), (4, 5, {"tile": "0-1"}), (5, 5, {})]


def test_progress_draws_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for show in (None, False):
        with Progress(show, 3) as bar:
            bar.step()
    assert capsys.readouterr().err == ""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(None, 3, label="fill") as bar:
        bar.step()
    assert "fill" in terminal.getvalue()
