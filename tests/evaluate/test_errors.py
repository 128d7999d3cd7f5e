"""Errors by flag, gap length and position are those of the values themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from cubefill.cube.flags import Flag
from cubefill.cube.indices import ndvi
from cubefill.errors import CubeError
from cubefill.evaluate import errors_by_gap
from cubefill.evaluate.cases import able, fill
from cubefill.evaluate.errors import ENDS, interval
from cubefill.evaluate.strata import GAP_DAYS, GAP_LENGTHS, POSITIONS
from cubefill.evaluate.tally import FLAGS, ErrorSums, cells
from cubefill.gaps import Dates, Trailing, apply, hide
from cubefill.methods import METHODS, register, resolve
from cubefill.methods.pixel.linear import Linear
from tests.shared import pictures_scene as scenes

HIDDEN = Dates(0.3)


@dataclass(frozen=True)
class Silent(Linear):
    """Linear that does not know its error."""

    gives_std: ClassVar[bool] = False
    gives_quantiles: ClassVar[bool] = False


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return scenes.cube(dates=18, size=24)


@pytest.fixture(scope="module")
def found(ds: xr.Dataset) -> xr.Dataset:
    return errors_by_gap(ds, "linear", HIDDEN, baseline="nearest")


def test_cells_add_up_to_all_hidden_values(ds: xr.Dataset, found: xr.Dataset) -> None:
    bands = [b for b in ds.data_vars if str(b).startswith("B")]
    hidden = hide(ds, HIDDEN).values
    assert int(found.n.sel(variable="bands").sum()) == hidden.sum() * len(bands) == found.attrs["n"]
    assert int(found.n.sel(variable="NDVI").sum()) == hidden.sum()
    mae = (found.mae * found.n).sel(variable="bands").sum() / found.attrs["n"]
    assert float(mae) == pytest.approx(found.attrs["mae"])
    assert (found.n == 0).equals(found.mae.isnull())


def test_a_cell_is_as_by_hand(ds: xr.Dataset, found: xr.Dataset) -> None:
    hidden = hide(ds, HIDDEN)
    test = apply(ds, hidden)
    filled = fill(test, resolve("linear"), quantiles=ENDS)
    base = fill(test, resolve("nearest"), std=False)
    days = ds["time"].values.astype("M8[D]").astype(int)
    seen = test["valid"].values
    errors: dict[str, list[float]] = {"bands": [], "NDVI": []}
    others: dict[str, list[float]] = {"bands": [], "NDVI": []}
    index, truth_index = (ndvi(side, clip=True).values for side in (filled, ds))
    told, line, truth = ({b: side[b].values for b in side.data_vars} for side in (filled, base, ds))
    inside = 0
    for t, y, x in zip(*np.nonzero(hidden.values), strict=True):
        before = np.flatnonzero(seen[:t, y, x])
        after = np.flatnonzero(seen[t + 1 :, y, x]) + t + 1
        if not len(before) or not len(after):
            continue
        length = days[after[0]] - days[before[-1]]
        if np.searchsorted(GAP_DAYS, length) != 1:
            continue
        for band in ("B02", "B03", "B04", "B08"):
            errors["bands"].append(abs(float(told[band][t, y, x] - truth[band][t, y, x])))
            others["bands"].append(abs(float(line[band][t, y, x] - truth[band][t, y, x])))
            low, high = (told[f"{band}_{q}"][t, y, x] for q in ("q05", "q95"))
            inside += bool(low <= truth[band][t, y, x] <= high)
        errors["NDVI"].append(abs(float(index[t, y, x] - truth_index[t, y, x])))
    for variable, expected in errors.items():
        cell = found.sel(variable=variable, flag="interpolated", gap_length=GAP_LENGTHS[1],
                         position="interior")  # fmt: skip
        assert int(cell.n) == len(expected) > 20
        assert float(cell.mae) == pytest.approx(np.mean(expected), rel=1e-4)
    cell = found.sel(variable="bands", flag="interpolated", gap_length=GAP_LENGTHS[1],
                     position="interior")  # fmt: skip
    ratio = np.mean(errors["bands"]) / np.mean(others["bands"])
    assert float(cell.ratio) == pytest.approx(ratio, rel=1e-4)
    assert float(cell.coverage) == pytest.approx(inside / len(errors["bands"]), abs=0.02)


def test_the_ends_are_a_position_of_their_own(found: xr.Dataset) -> None:
    of = found.n.sel(variable="bands").sum("gap_length")
    assert int(of.sel(flag="extrapolated", position="interior")) == 0
    assert int(of.sel(flag="extrapolated", position=["leading", "trailing"]).sum()) > 0
    assert int(of.sel(flag="interpolated", position=["leading", "trailing"]).sum()) == 0


def test_a_method_without_errors_has_no_coverage(ds: xr.Dataset) -> None:
    found = errors_by_gap(ds.drop_vars("B08"), Silent(), HIDDEN)
    assert found.coverage.isnull().all()
    assert found["variable"].values.tolist() == ["bands"]


def test_an_index_alone(ds: xr.Dataset) -> None:
    index = xr.Dataset({"NDVI": ndvi(ds), "valid": ds["valid"]})
    found = errors_by_gap(index, "linear", HIDDEN)
    assert found["variable"].values.tolist() == ["NDVI"]
    assert found.attrs["ratio"] == 1


def test_nothing_in_common_is_refused(ds: xr.Dataset) -> None:
    with pytest.raises(CubeError, match=r"linear and next filled no hidden pixel in common"):
        errors_by_gap(ds, "linear", Trailing(20), baseline="next")


def test_quantiles_are_preferred_to_standard_deviations() -> None:
    where = np.ones((1, 1, 1), bool)
    held = {"B04": 0.5, "B04_std": 0.1, "B04_q05": 0.45, "B04_q95": 0.7}
    ds = xr.Dataset({n: (("time", "y", "x"), np.full((1, 1, 1), v)) for n, v in held.items()})
    assert np.ravel(interval(ds, "B04", where) or ()).tolist() == [0.45, 0.7]
    half = np.diff(interval(ds.drop_vars("B04_q05"), "B04", where) or (), axis=0).item() / 2
    assert half == pytest.approx(0.16448536)
    assert interval(ds[["B04"]], "B04", where) is None


def test_tallies_add_up_and_know_every_cell() -> None:
    days, seen = np.array([0.0, 3, 30, 33, 90]), np.zeros((5, 1, 2), bool)
    seen[[1, 3], :, 0] = True
    flag = np.full(seen.shape, Flag.NO_DATA)
    flag[[0, 2, 4]] = np.array(list(FLAGS[1:7])).reshape(3, 1, 2)
    at = cells(flag, seen, days)
    rng = np.random.default_rng(0)
    one, two = ErrorSums(), ErrorSums()
    value = rng.random(10)
    for tally, part in ((one, slice(0, 5)), (two, slice(5, 10))):
        tally.add(value[part], np.zeros(5), at.ravel()[part], baseline=np.ones(5))
    both = one + two
    assert both.n == 10
    assert both.ratio == pytest.approx(value.sum() / 10)
    table = both.table()
    assert int(table.n.sum()) == 3, "seen and never seen values are in no cell"
    for t, gap, place in ((0, 0, 1), (2, 2, 0), (4, 3, 2)):
        name = Flag(int(flag[t, 0, 0])).name.lower()
        cell = table.sel(flag=name, gap_length=GAP_LENGTHS[gap], position=POSITIONS[place])
        assert float(cell.mae) == pytest.approx(value.reshape(5, 2)[t, 0])


def test_every_method_that_is_able(
    ds: xr.Dataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "own", "")
    register("own", "cubefill.methods.pixel.linear:Linear", overwrite=True)
    with caplog.at_level("INFO", "cubefill"):
        found = able({"cube": ds})
    assert {"linear", "nearest", "whittaker", "own"} <= set(found)
    assert not {"last", "next", "linear2", "ganfilling"} & set(found)
    assert "left out: last, linear2, next, which fill a part of the gaps alone" in caplog.text
    with caplog.at_level("INFO", "cubefill"):
        assert able({"cube": ds.drop_vars(["valid", "SCL"], errors="ignore")}) == {}
    assert "left out: linear (" in caplog.text
