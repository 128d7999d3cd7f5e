import inspect
import json
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cubefill.errors import MethodError
from cubefill.methods import registry
from cubefill.methods.registry import (
    APPLICATIONS,
    AUTO,
    METHODS,
    SHIPPED,
    described,
    list_methods,
    listed,
    name_for,
    name_of,
    named,
    parameters,
    register,
    resolve,
)
from tests.shared.strategies import Mean

LISTING = Path(registry.__file__).with_name("listing.json")


def test_every_name_resolves_to_what_it_says() -> None:
    for name in METHODS:
        found = resolve(name)
        assert name_of(found) == name
        assert found.needs.min_dates >= 1


def test_auto_is_the_default_method() -> None:
    assert name_of(resolve("auto")) == AUTO


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
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))
    register("mine", "tests.shared.strategies:Mean")
    assert isinstance(resolve("mine"), Mean)
    with pytest.raises(MethodError, match=r"overwrite=True"):
        register("linear", "tests.shared.strategies:Mean")


def test_entry_points_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "tests.shared.strategies:Mean", "cubefill.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert isinstance(resolve("theirs"), Mean)


def test_the_table_tells_summary_needs_and_options() -> None:
    rows = list_methods()
    assert set(METHODS) <= set(rows)
    assert "max_gap" in rows["linear"]["options"]
    assert all(row["summary"] and row["needs"] for row in rows.values())


def test_the_table_tells_classical_from_deep_which_need_a_net() -> None:
    rows = list_methods()
    for name, row in rows.items():
        deep = ".learned." in METHODS.get(name, "")
        assert row["kind"] == ("deep" if deep else "classical")
        assert (row["checkpoint"], row["weights"]) == (
            deep and name != "utilise",
            name == "utilise",
        )
    assert sum(row["checkpoint"] for row in rows.values()) == 8


def test_what_fills_no_gap_is_not_listed_and_still_found() -> None:
    assert set(APPLICATIONS) == {"mowing"}
    assert not set(APPLICATIONS) & set(list_methods())
    assert name_of(resolve("mowing")) == "mowing"
    assert name_for(APPLICATIONS["mowing"]) == "mowing"
    assert listed("mowing")


@dataclass(frozen=True)
class Demanding:
    size: int
    needs = Mean.needs
    fill = Mean.fill


def test_the_listing_is_what_the_classes_say() -> None:
    rows = {name: described(type(resolve(name))) for name in sorted(SHIPPED)}
    lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    wanted = "{\n" + ",\n".join(lines) + "\n}\n"
    assert LISTING.read_text() == wanted, f"{LISTING} should be:\n{wanted}"


def test_a_replaced_method_is_listed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "utilise", "tests.shared.strategies:Mean")
    row = list_methods()["utilise"]
    assert row["summary"] == (inspect.getdoc(Mean) or "").split("\n")[0]
    assert list(row["options"]) == [f.name for f in fields(Mean)]


def test_parameters_are_options_and_values() -> None:
    assert parameters(Mean(0.5)) == {"learned": 0.5}


def test_a_former_target_is_the_method_of_today() -> None:
    former = "cubefill.methods.linear:Linear"
    assert name_of(resolve(former)) == name_for(former) == "linear"


def test_a_method_with_required_options_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "demanding", "tests.methods.test_registry:Demanding")
    assert list_methods()["demanding"]["needs"] == "see its options"


def test_a_method_named_twice_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "resolve", lambda name, **options: (name, options))
    found: dict[str, object] = {**named(["utilise=a", "linear", "utilise=b", "linear"])}
    assert found == {
        "utilise=a": ("utilise", {"checkpoint": "a"}),
        "linear": ("linear", {}),
        "utilise=b": ("utilise", {"checkpoint": "b"}),
    }
