from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from cubefill.errors import MethodError
from cubefill.methods import contract as methods
from cubefill.methods import registry as method_table
from cubefill.methods.contract import (
    Block,
    Counts,
    Flag,
    describe,
    name_of,
    parameters,
    register,
    resolve,
    traits,
)
from tests.shared.strategies import Mean


def test_every_name_resolves_to_what_it_says() -> None:
    for name in methods.METHODS:
        found = resolve(name)
        assert name_of(found) == name
        assert found.needs.min_dates >= 1


def test_auto_is_the_default_method() -> None:
    assert name_of(resolve("auto")) == methods.AUTO


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(MethodError, match=r"Unknown method 'whitaker'.*Did you mean 'whittaker'"):
        resolve("whitaker")


def test_an_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(
        MethodError, match=r"no option 'max_gaps': expected max_gap.*mean 'max_gap'"
    ):
        resolve("linear", max_gaps=3)


def test_a_dotted_path_a_class_and_an_object_resolve() -> None:
    assert isinstance(resolve("tests.shared.strategies:Mean"), Mean)
    assert isinstance(resolve(Mean, learned=1.0), Mean)
    mine = Mean(2.0)
    assert resolve(mine) is mine


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("tests.nothing:Mean", {}, r"cannot be imported"),
        ("tests.shared.strategies:Nothing", {}, r"cannot be imported"),
        (3, {}, r"Expected a method.*got int"),
        (Mean(), {"learned": 2}, r"dataclasses.replace"),
    ],
)
def test_what_is_no_method_is_refused(
    given: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(MethodError, match=message):
        resolve(given, **options)  # type: ignore[arg-type]


def test_registered_names_are_found_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_table, "METHODS", dict(methods.METHODS))
    register("mine", "tests.shared.strategies:Mean")
    assert isinstance(resolve("mine"), Mean)
    with pytest.raises(MethodError, match=r"overwrite=True"):
        register("linear", "tests.shared.strategies:Mean")


def test_entry_points_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "tests.shared.strategies:Mean", "cubefill.methods")
    monkeypatch.setattr(method_table, "entry_points", lambda group: [point])
    assert isinstance(resolve("theirs"), Mean)


def test_the_table_tells_summary_needs_and_options() -> None:
    rows = describe()
    assert set(methods.METHODS) <= set(rows)
    assert "max_gap" in rows["linear"]["options"]
    assert all(row["summary"] and row["needs"] for row in rows.values())


def test_traits_have_defaults() -> None:
    t = traits(Mean(), ["B04"])
    assert t.gives == ("B04",)
    assert t.flag == Flag.INTERPOLATED
    assert (t.complete, t.keeps_clear, t.counts, t.gives_std) == (True, False, False, False)
    assert parameters(Mean(0.5)) == {"learned": 0.5}


@dataclass(frozen=True)
class Demanding:
    size: int
    needs = Mean.needs
    fill = Mean.fill


def test_a_method_with_required_options_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "demanding", "tests.methods.test_contract:Demanding")
    assert describe()["demanding"]["needs"] == "see its options"


def test_a_block_gives_days_and_a_stacked_array_with_nan_gaps() -> None:
    time = np.array(["2023-01-01T06", "2023-01-02T18"], "datetime64[ns]")
    values = np.ones((2, 3, 4), np.float32)
    valid = np.ones((2, 3, 4), bool)
    valid[1, 2, 3] = False
    block = Block({"B04": values, "B08": 2 * values}, valid, time, time)
    assert block.days.tolist() == [0.0, 1.5]
    assert block.optical.shape == (2, 2, 3, 4)
    assert np.isnan(block.optical[1, :, 2, 3]).all()
    assert np.isfinite(values).all()
    counts = replace(
        block,
        bands={"B04": np.array([[[5, -32768]]], np.int16)},
        valid=np.ones((1, 1, 2), bool),
        time=time[:1],
        out_time=time[:1],
        counts=Counts(),
    )
    np.testing.assert_array_equal(
        counts.optical.ravel(), np.array([5 * np.float32(1e-4), np.nan], np.float32)
    )


def test_a_method_named_twice_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "resolve", lambda name, **options: (name, options))
    found: dict[str, object] = {**methods.named(["utilise=a", "linear", "utilise=b", "linear"])}
    assert found == {
        "utilise=a": ("utilise", {"checkpoint": "a"}),
        "linear": ("linear", {}),
        "utilise=b": ("utilise", {"checkpoint": "b"}),
    }
