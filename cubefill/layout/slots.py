"""A layout and its slots, what each date of a sample must be, and their JSON.

The files are those of Cresson et al. (2022); some ship with cubefill.
"""

import ast
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from cubefill.addresses import local_path
from cubefill.errors import MethodError, did_you_mean

TARGET = "target"
"""Name of the slot that a net is to give and is not shown."""


# ------------------------------------------------------------------ a random bound


@dataclass(frozen=True)
class Draw:
    """A number that is drawn anew for every search: `random.randint(0, 2)`.

    Numbers, `+ - * /`, and `random.random()`, `random.uniform(a, b)`, `random.randint(a, b)`
    (both ends included), `random.randrange(a, b)`, `random.choice([a, b])`; nothing else is read.

    Examples
    --------
    >>> Draw("random.randint(0, 2)").value(None)
    0.0
    """

    text: str

    def __post_init__(self) -> None:
        _ = self.bounds

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """No number below the first or above the second is drawn."""
        return self._read(_bounds)

    def value(self, rng: np.random.Generator | None) -> float:
        """A number; the smallest of each draw without a generator."""
        return self.bounds[0] if rng is None else self._read(lambda node: _number(node, rng))

    def _read(self, what: Callable[[ast.expr], Any]) -> Any:
        try:
            if len(self.text) > 200:
                raise SyntaxError("longer than 200 characters")
            return what(ast.parse(self.text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise MethodError(
                f"Cloud bound {self.text!r}: expected a number or a draw such as "
                f"'random.randint(0, 2)', got {error}. Pass a number from 0 to 100."
            ) from error

    def __str__(self) -> str:
        return self.text.replace("random.", "")


_SIGNS: dict[type, Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def _number(node: ast.expr, rng: np.random.Generator) -> float:
    if isinstance(node, ast.Constant):
        return float(cast(float, node.value))
    if isinstance(node, ast.UnaryOp):
        return -_number(node.operand, rng)
    if isinstance(node, ast.BinOp):
        return float(_SIGNS[type(node.op)](_number(node.left, rng), _number(node.right, rng)))
    name, args = _call(node)
    if name == "choice":
        return float(rng.choice([_number(a, rng) for a in args]))
    a, b = (_number(a, rng) for a in args) if args else (0.0, 1.0)
    if name in ("randint", "randrange"):
        return float(rng.integers(int(a), int(b) + (name == "randint")))
    return float(rng.uniform(a, b))


def _bounds(node: ast.expr) -> tuple[float, float]:
    """The smallest and the largest number, as `_number` draws them; refuses what it cannot."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value), float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        low, high = _bounds(node.operand)
        return -high, -low
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        sides = _bounds(node.left), _bounds(node.right)
        if isinstance(node.op, ast.Div) and sides[1][0] <= 0 <= sides[1][1]:
            raise ZeroDivisionError("a division by 0")
        found = [float(_SIGNS[type(node.op)](a, b)) for a, b in product(*sides)]
        return min(found), max(found)
    name, args = _call(node)
    ends = [_bounds(a) for a in args] or [(0.0, 0.0), (1.0, 1.0)]
    if name in ("randint", "randrange"):
        (low, latest), (first, high) = ends
        if int(latest) >= int(first) + (name == "randint"):
            raise ValueError(f"an empty range {latest:g} to {first:g}")
        return float(int(low)), float(int(high) - (name == "randrange"))
    return min(low for low, _ in ends), max(high for _, high in ends)


def _call(node: ast.expr) -> tuple[str, list[ast.expr]]:
    """Name and arguments of a draw; those of a choice are the elements of its list."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) and not node.keywords else ""
    if not isinstance(node, ast.Call) or not name.startswith("random."):
        raise ValueError(f"{ast.unparse(node)[:40]!r}, which is neither")
    name, args = name.removeprefix("random."), node.args
    if name == "choice" and len(args) == 1 and isinstance(args[0], ast.List | ast.Tuple):
        args = args[0].elts
        if args:
            return name, args
    elif (name, len(args)) in _DRAWS:
        return name, args
    raise ValueError(f"random.{name} with {len(args)} arguments")


_DRAWS = {("random", 0), ("uniform", 2), ("randint", 2), ("randrange", 2)}


# ------------------------------------------------------------------ slots and layouts


@dataclass(frozen=True)
class Slot:
    """One role in a layout."""

    name: str
    """Its key: `tm1`, `t`, `tp1`, `target`, `t0` ..."""
    start: float = 0.0
    """Hours after the reference from which it may lie; negative for before."""
    stop: float = 0.0
    """Hours after the reference up to which it may lie."""
    origin: bool = False
    """True for the reference itself."""
    optical: bool = True
    """It has a Sentinel-2 image."""
    sar: bool = False
    """It has a Sentinel-1 image."""
    min_cloud: float | Draw = 0.0
    """Smallest share of clouds in percent."""
    max_cloud: float | Draw = 100.0
    """Largest share of clouds in percent."""
    max_gap: float = math.inf
    """Most hours between its two images."""

    @property
    def side(self) -> int:
        """-1 before the reference, 1 after it, 0 around it."""
        return -1 if self.stop < 0 else 1 if self.start > 0 else 0

    @property
    def clouds(self) -> str:
        """Its range of clouds, in words."""
        if not self.optical:
            return "-"
        if self.min_cloud == self.max_cloud:
            return f"{_show(self.min_cloud)} %"
        return f"{_show(self.min_cloud)} to {_show(self.max_cloud)} %"

    @property
    def frame(self) -> str:
        """Its time frame, in words."""
        return "reference" if self.origin else f"{_days(self.start)} to {_days(self.stop)} d"


@dataclass(frozen=True)
class Layout:
    """Slots around a reference date; `str()` of it is a table.

    Examples
    --------
    >>> from cubefill import layout
    >>> print(layout.load("ssop"))
    ssop
    slot    time         sensors  clouds      S1 gap
    t       reference    S1 + S2  0 to 100 %  72 h
    target  -10 to 10 d  S2       0 %         -
    """

    slots: tuple[Slot, ...]
    """In the order of the file."""
    siblings: tuple[tuple[str, ...], ...] = ()
    """Groups of slots that may take the same image; all others take different ones."""
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def origin(self) -> Slot:
        """The reference."""
        return next(s for s in self.slots if s.origin)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Slots that a net is shown, in time order; the target is none of them."""
        shown = sorted((s for s in self.slots if s.name != TARGET), key=lambda s: s.start + s.stop)
        return tuple(s.name for s in shown)

    @property
    def generates(self) -> bool:
        """True where the target is the reference's own optical image, which is not shown (OS1)."""
        return all(s.name != TARGET for s in self.slots)

    @property
    def synthesis(self) -> bool:
        """True where the target lies apart from the reference, among the dates shown (monthly)."""
        return any(s.name == TARGET and s.start > 0 for s in self.slots)

    def __getitem__(self, name: str) -> Slot:
        found = next((s for s in self.slots if s.name == name), None)
        if found is None:
            names = ", ".join(s.name for s in self.slots)
            raise MethodError(
                f"Layout {self.name!r} has no slot {name!r}: expected one of {names}."
            )
        return found

    def only(self, *names: str) -> "Layout":
        """The layout of some of its slots, the reference among them."""
        kept = tuple(self[n] for n in names)
        return replace(self, slots=kept, siblings=_within(self.siblings, set(names)))

    def may_share(self, a: str, b: str) -> bool:
        """True where two slots may take the same image."""
        return any(a in group and b in group for group in self.siblings)

    def __str__(self) -> str:
        rows = [("slot", "time", "sensors", "clouds", "S1 gap")]
        for s in self.slots:
            sensors = " + ".join(n for n, on in (("S1", s.sar), ("S2", s.optical)) if on)
            gap = "-" if math.isinf(s.max_gap) else f"{s.max_gap:g} h"
            rows.append((s.name, s.frame, sensors, s.clouds, gap))
        widths = [max(len(r[i]) for r in rows) for i in range(5)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        shared = [" = ".join(g) + " may be one image" for g in self.siblings]
        return "\n".join(t.rstrip() for t in (self.name or "layout", *lines, *shared))


def _show(bound: float | Draw) -> str:
    return str(bound) if isinstance(bound, Draw) else f"{bound:g}"


def _days(hours: float) -> str:
    return f"{hours / 24:.3g}"


def _within(groups: Sequence[Sequence[str]], names: set[str]) -> tuple[tuple[str, ...], ...]:
    cut = (tuple(n for n in g if n in names) for g in groups)
    return tuple(g for g in cut if len(g) > 1)


def _check(layout: Layout) -> None:
    names = [s.name for s in layout.slots]
    origins = [s.name for s in layout.slots if s.origin]
    if len(origins) != 1:
        wrong(layout.name, f"expected one slot with timeframe_origin, got {origins or 'none'}")
    if len(set(names)) != len(names):
        wrong(layout.name, f"expected different names of slots, got {names}")
    for slot in layout.slots:
        _check_slot(slot, layout.name)
    unknown = sorted({n for g in layout.siblings for n in g} - set(names))
    if unknown:
        wrong(layout.name, f"siblings {unknown} are no slots: expected one of {', '.join(names)}")


def _check_slot(s: Slot, where: str) -> None:
    what = f"slot {s.name!r}"
    if not (s.optical or s.sar):
        wrong(where, f"{what} has no sensor: expected 'S1', 'S2' or both under 'acquisition'")
    if s.optical and s.sar and not math.isfinite(s.max_gap):
        wrong(where, f"{what} has S1 and S2: expected max_s1s2_gap_hours")
    if s.max_gap < 0:
        wrong(where, f"{what}: expected max_s1s2_gap_hours >= 0, got {s.max_gap:g}")
    if s.start > s.stop:
        wrong(where, f"{what}: expected a time frame that starts before it ends, got {s.frame}")
    low, high = (b.bounds if isinstance(b, Draw) else (b, b) for b in (s.min_cloud, s.max_cloud))
    if not (0 <= low[0] <= high[0] and max(low[1], high[1]) <= 100):
        wrong(where, f"{what}: expected 0 <= min_cloud_percent <= max_cloud_percent <= 100, got "
               f"{s.clouds}")  # fmt: skip


def wrong(where: str, what: str) -> NoReturn:
    """Says what is wrong with a layout."""
    raise MethodError(f"Layout {where!r}: {what}. Use cubefill.layout.load('msop') to see one.")


# ------------------------------------------------------------------ JSON


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
    path = local_path(name)
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
