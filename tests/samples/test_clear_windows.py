from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cubefill import samples
from cubefill.errors import CubeError
from cubefill.formats import earthnet as minicube
from cubefill.samples.clear_windows import clear_corners, longest_runs
from cubefill.testing import synthetic_cube


@given(
    arrays(bool, st.tuples(st.integers(1, 8), st.integers(4, 9), st.integers(4, 9)),
           elements=st.sampled_from([True, True, True, True, True, False])),
    st.integers(1, 4),
    st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_runs_are_those_of_a_plain_search(valid: Any, size: int, apart: int) -> None:
    first, length = longest_runs(valid, size, apart)
    _, ny, nx = valid.shape
    rows, cols = range(0, ny - size + 1, apart), range(0, nx - size + 1, apart)
    assert length.shape == (len(rows), len(cols))
    for i, y in enumerate(rows):
        for j, x in enumerate(cols):
            clear = valid[:, y : y + size, x : x + size].all((1, 2))
            runs = "".join("x" if c else " " for c in clear).split()
            assert length[i, j] == max((len(r) for r in runs), default=0)
            assert clear[first[i, j] : first[i, j] + length[i, j]].all()


def test_windows_are_clear_apart_and_survive_their_json(tmp_path: Path) -> None:
    cube = synthetic_cube(9, (48, 48), ("B04",), gap=0.0)
    valid = cube["valid"].values.copy()
    valid[4, 20, 20] = False
    cube = cube.assign(valid=(cube["valid"].dims, valid))
    found = samples.mine_clean_windows([cube], 16, 5)
    assert list(found) == ["31U"]
    windows = found["31U"]
    assert len(windows) == 8
    assert all(len(w.steps) == 9 for w in windows)
    for w in windows:
        assert w.cut(cube)["valid"].values.all()
        near = [v for v in windows if abs(v.row - w.row) < 16 and abs(v.column - w.column) < 16]
        assert near == [w]
    path = samples.write_clean_windows(tmp_path / "clean.json", found)
    assert minicube.read_clean_windows(path) == found
    assert len(samples.mine_clean_windows([cube], 16, 5, most=3)["31U"]) == 3


def test_a_window_between_those_that_are_looked_at_first_is_found() -> None:
    cube = synthetic_cube(6, (40, 40), ("B04",), gap=0.0)
    valid = np.zeros(cube["valid"].shape, bool)
    valid[1:, 5:29, 7:31] = True
    cube = cube.assign(valid=(cube["valid"].dims, valid))
    (window,) = samples.mine_clean_windows([cube], 24, 4)["31U"]
    assert (window.row, window.column, window.steps) == (5, 7, (1, 2, 3, 4, 5))
    assert clear_corners(valid, 5, 24) == [(1, 5, 7)]


def test_none_found_says_how_near_the_cubes_come() -> None:
    cubes = [synthetic_cube(5, (32, 32), gap=0.0), synthetic_cube(5, (20, 20))]
    with pytest.raises(CubeError, match=r"in 2 cubes: 1 are smaller than 32 px.* has 5 steps"):
        samples.mine_clean_windows(cubes, 32, 6)
    with pytest.raises(CubeError, match="size=0"):
        samples.mine_clean_windows(cubes, 0, 6)


def test_minicubes_by_name(data_folder: Path) -> None:
    files = sorted((data_folder / "earthnet2021").glob("context_*.npz"))
    found = samples.mine_clean_windows(files, 64, 3)
    assert set(found) == {"29S", "33S"}
    for windows in found.values():
        for w in windows:
            assert minicube.read(w.path)["valid"].values[
                list(w.steps), w.row : w.row + 64, w.column : w.column + 64
            ].all()  # fmt: skip
