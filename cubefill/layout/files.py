"""Layouts as JSON: the files of Cresson et al. (2022), and those that ship with cubefill."""

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from cubefill.errors import MethodError, did_you_mean
from cubefill.layout.slots import Draw, Layout, Slot, wrong


def names() -> list[str]:
    """Names of the published layouts that ship with cubefill."""
    return sorted(p.name.removesuffix(".json") for p in _folder().iterdir() if _json(p.name))


def load(name: str | Path) -> Layout:
    """A layout by the name of a published one, from a JSON file, or from JSON text.

    Raises
    ------
    MethodError
        No such layout, or the file is no layout; the message names the slot and the entry.

    Examples
    --------
    >>> load("msop").inputs
    ('tm1', 't', 'tp1')
    """
    if isinstance(name, str) and name in names():
        return read(json.loads((_folder() / f"{name}.json").read_text()), name)
    if isinstance(name, str) and name.lstrip().startswith("{"):
        return _parsed(name, "given")
    path = Path(name)
    if not path.is_file():
        raise MethodError(
            f"No layout {str(name)!r}: expected a JSON file or one of {', '.join(names())}."
            f"{did_you_mean(name, names())}"
        )
    return _parsed(path.read_bytes(), path.stem)


def _parsed(text: str | bytes, name: str) -> Layout:
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, name))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MethodError(f"Layout {name!r} is not JSON ({error}): expected an object.") from error
    return read(content, name)


def _once(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    """An object of JSON, whose names come once each."""
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        wrong(name, f"expected each name once, got {', '.join(map(repr, twice))} twice")
    return dict(pairs)


def dumps(layout: Layout) -> str:
    """The JSON text of a layout, which `load` reads back."""
    content: dict[str, Any] = {}
    for s in layout.slots:
        sensors: dict[str, Any] = {}
        if s.optical:
            low, high = (b.text if isinstance(b, Draw) else b for b in (s.min_cloud, s.max_cloud))
            sensors["S2"] = {"type": "S2", "min_cloud_percent": low, "max_cloud_percent": high}
        if s.sar:
            sensors["S1"] = {"type": "S1"}
        entry: dict[str, Any] = {"acquisition": sensors}
        if math.isfinite(s.max_gap):
            entry["max_s1s2_gap_hours"] = s.max_gap
        frame = {"timeframe_start_hours": s.start, "timeframe_end_hours": s.stop}
        content[s.name] = entry | ({"timeframe_origin": "True"} if s.origin else frame)
    if layout.siblings:
        content["options"] = {"siblings": [list(g) for g in layout.siblings]}
    return json.dumps(content)


def read(content: Mapping[str, Any], name: str = "") -> Layout:
    """A layout from the object of a JSON file.

    Numbers may be strings; a cloud bound may be a draw (`Draw`); `options` may hold `siblings`
    (or `sibling`), lists of slots that may take the same image; the ends of a time frame come in
    any order.

    Raises
    ------
    MethodError
        An entry is missing, unknown, or no number.
    """
    if not isinstance(content, Mapping):
        wrong(name, f"expected an object of slots, got {type(content).__name__}")
    options = _object(content.get("options", {}), name, "options")
    _known(options, ("siblings", "sibling"), name, "options")
    groups = options.get("siblings", options.get("sibling", []))
    if not isinstance(groups, list) or not all(isinstance(g, list) for g in groups):
        wrong(name, f"expected siblings as a list of lists of slots, got {groups!r}")
    slots = [_slot(n, v, name) for n, v in content.items() if n != "options"]
    return Layout(tuple(slots), tuple(tuple(map(str, g)) for g in groups), name)


_KEYS = (
    "acquisition", "max_s1s2_gap_hours", "timeframe_origin", "timeframe_start_hours",
    "timeframe_end_hours",
)  # fmt: skip


def _slot(name: str, value: Any, where: str) -> Slot:
    what = f"slot {name!r}"
    entry = _object(value, where, what)
    _known(entry, _KEYS, where, what)
    sensors = _object(entry.get("acquisition", {}), where, what)
    _known(sensors, ("S1", "S2"), where, what)
    optical = _object(sensors.get("S2", {}), where, what)
    _known(optical, ("type", "min_cloud_percent", "max_cloud_percent"), where, what)
    _known(_object(sensors.get("S1", {}), where, what), ("type",), where, what)
    origin = _flag(entry.get("timeframe_origin", False), where, what)
    ends = [n for n in ("timeframe_start_hours", "timeframe_end_hours") if n in entry]
    if len(ends) != (0 if origin else 2):
        need = "no time frame" if origin else "timeframe_start_hours and timeframe_end_hours"
        wrong(where, f"{what}: expected {need}, got {', '.join(ends) or 'none'}")
    frame = sorted(_float(entry[n], where, f"{what}, {n}") for n in ends) or [0.0, 0.0]
    return Slot(
        name, frame[0], frame[1], origin, "S2" in sensors, "S1" in sensors,
        _bound(optical.get("min_cloud_percent", 0), where, f"{what}, min_cloud_percent"),
        _bound(optical.get("max_cloud_percent", 100), where, f"{what}, max_cloud_percent"),
        _float(entry.get("max_s1s2_gap_hours", math.inf), where, f"{what}, max_s1s2_gap_hours"),
    )  # fmt: skip


def _object(value: Any, where: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        wrong(where, f"{what}: expected an object, got {value!r}")
    return value


def _known(entry: Mapping[str, Any], keys: Sequence[str], where: str, what: str) -> None:
    for key in entry:
        if key not in keys:
            near = get_close_matches(str(key), keys, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            wrong(where, f"{what} has {key!r}: expected one of {', '.join(keys)}{hint}")


def _flag(value: Any, where: str, what: str) -> bool:
    if str(value).lower() not in ("true", "false"):
        wrong(where, f"{what}: expected timeframe_origin true or false, got {value!r}")
    return str(value).lower() == "true"


def _float(value: Any, where: str, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or isinstance(value, bool):
        wrong(where, f"{what}: expected a number, got {value!r}")
    return number


def _bound(value: Any, where: str, what: str) -> float | Draw:
    if isinstance(value, str) and "random" in value:
        return Draw(value)
    return _float(value, where, what)


def _folder() -> Any:
    return files("cubefill.layout") / "published"


def _json(name: str) -> bool:
    return name.endswith(".json")
