"""Methods by name: which class stands for a name, what it says of itself, how more are added."""

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from cubefill.errors import MethodError, did_you_mean
from cubefill.imports import current, import_module
from cubefill.methods.contract import Method, Needs

METHODS: dict[str, str] = {
    "nearest": "cubefill.methods.pixel.linear:Nearest",
    "last": "cubefill.methods.pixel.linear:Last",
    "next": "cubefill.methods.pixel.linear:Next",
    "blend": "cubefill.methods.pixel.blend:Blend",
    "linear": "cubefill.methods.pixel.linear:Linear",
    "linear2": "cubefill.methods.pixel.linear:Linear2",
    "pchip": "cubefill.methods.pixel.cubic:Pchip",
    "akima": "cubefill.methods.pixel.cubic:Akima",
    "quadratic": "cubefill.methods.pixel.cubic:Quadratic",
    "savgol": "cubefill.methods.pixel.savgol:Savgol",
    "whittaker": "cubefill.methods.pixel.whittaker:Whittaker",
    "harmonic": "cubefill.methods.pixel.harmonic:Harmonic",
    "climatology": "cubefill.methods.pixel.climatology:Climatology",
    "samedate": "cubefill.methods.samedate.method:SameDate",
    "ssop_mer": "cubefill.methods.learned.decloud_nets:SsopMer",
    "ssop_unet": "cubefill.methods.learned.decloud_nets:SsopUnet",
    "msop_unet": "cubefill.methods.learned.decloud_nets:MsopUnet",
    "msop_david": "cubefill.methods.learned.decloud_nets:MsopDavid",
    "utilise": "cubefill.methods.learned.utilise:Utilise",
    "ganfilling": "cubefill.methods.learned.ganfilling:GanFilling",
    "seq2seq": "cubefill.methods.learned.ganfilling:Seq2Seq",
    "stpconv": "cubefill.methods.learned.stpconv:STpconv",
    "cnnrnn": "cubefill.methods.learned.cnnrnn:CnnRnn",
}
"""Name to "module:Class"; nothing is imported until a method is asked for."""

APPLICATIONS = {"mowing": "cubefill.methods.learned.mowing:Mowing"}
"""What runs and learns as a method but fills no gap; `cubefill.applications` asks for it."""

WITH_WEIGHTS = ("utilise",)
"""Deep methods whose trained weights come with cubefill."""

SHIPPED = dict(METHODS)
"""The targets that `listing.json` describes."""

AUTO = "samedate"
"""What `method="auto"` stands for."""


def register(name: str, target: str, *, overwrite: bool = False) -> None:
    """Adds a method to the table under `name`; `target` is "package.module:Class".

    Raises
    ------
    MethodError
        The name is taken and `overwrite` is False.
    """
    if name in METHODS and not overwrite:
        raise MethodError(
            f"Method {name!r} is registered as {METHODS[name]!r}: expected a new name; "
            "pass overwrite=True to replace it."
        )
    METHODS[name] = target


def table() -> dict[str, str]:
    """Every known name and its target, entry points of the group `cubefill.methods` included."""
    found = {e.name: e.value for e in entry_points(group="cubefill.methods")}
    return {**found, **METHODS}


def listed(name: str) -> bool:
    """True for a name of the table: all that a file or a store may name, never a dotted path."""
    return name == "auto" or name in APPLICATIONS or name in table()


def target_of(name: str) -> str:
    """The "package.module:Class" that a name stands for; such a string stands for itself.

    Raises
    ------
    MethodError
        The name is unknown; the nearest one is suggested.

    Examples
    --------
    >>> target_of("auto")
    'cubefill.methods.samedate.method:SameDate'
    """
    if name == "auto":
        name = AUTO
    if name in METHODS or name in APPLICATIONS:
        return METHODS.get(name) or APPLICATIONS[name]
    known = table()
    if name in known:
        return known[name]
    if ":" in name:
        return name
    raise MethodError(
        f"Unknown method {name!r}: expected one of {', '.join(sorted(known))}, "
        f"or 'package.module:Class'.{did_you_mean(name, known)}"
    )


def name_for(target: str) -> str:
    """The name that stands for a "package.module:Class" of any version, else that string."""
    target = current(target)
    known = next((n for n, t in {**APPLICATIONS, **METHODS}.items() if t == target), None)
    return known or next((n for n, t in table().items() if t == target), target)


def resolve(method: "str | Method | type[Method]", **options: Any) -> Method:
    """A method object from a name, a "package.module:Class" string, a class or an object.

    Raises
    ------
    MethodError
        The name is unknown (the nearest one is suggested), the target cannot be imported, or an
        option is unknown (the valid ones are listed).

    Examples
    --------
    >>> resolve("linear", max_gap=60).max_gap
    60
    """
    if isinstance(method, str):
        return _build(_import(target_of(method)), method, options)
    if inspect.isclass(method):
        return _build(method, method.__name__, options)
    if not hasattr(method, "needs") or not hasattr(method, "fill"):
        raise MethodError(
            f"Expected a method (a name, 'package.module:Class', or an object with `needs` and "
            f"`fill`), got {type(method).__name__}. Use cubefill.list_methods() for the names."
        )
    if options:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise MethodError(
            f"Options {sorted(options)} came with a method object: expected them in it. Use "
            f"dataclasses.replace(method, {given})."
        )
    return method


def named(texts: Iterable[str]) -> dict[str, Method]:
    """Methods from `NAME` or `NAME=CHECKPOINT`, as a command line gives them.

    The label of a method is its name, or the whole text where a name comes twice.

    Examples
    --------
    >>> list(named(["linear", "whittaker"]))
    ['linear', 'whittaker']
    """
    found = {text: text.partition("=") for text in texts}
    names = [name for name, _, _ in found.values()]
    return {
        name if names.count(name) == 1 else text: resolve(
            name, **({"checkpoint": folder} if equals else {})
        )
        for text, (name, equals, folder) in found.items()
    }


def name_of(method: Method) -> str:
    """The registered name of a method, else its "module:Class"."""
    return name_for(f"{type(method).__module__}:{type(method).__qualname__}")


def parameters(method: Any) -> dict[str, Any]:
    """Every option of a method and its value."""
    if not is_dataclass(method):
        return {}
    return {f.name: getattr(method, f.name) for f in fields(method) if f.repr}


def options_of(cls: type) -> list[str]:
    """Names of the options that a method class takes."""
    if is_dataclass(cls):
        return [f.name for f in fields(cls) if f.init]
    return [p for p in inspect.signature(cls).parameters if p != "self"]


def list_methods() -> dict[str, dict[str, Any]]:
    """Name to its kind, its one line, what it needs and its options, for every known method.

    What ships with cubefill is told without importing it, so that a list takes no time and no
    torch.

    Returns
    -------
    dict
        `kind` is "classical" or "deep", `checkpoint` whether a trained net must be passed, which is
        so of all deep ones but those of which `weights` is True: theirs come with cubefill.
        `summary` and `needs` are text, `options` is a dict of each option and its default.

    Raises
    ------
    MethodError
        A registered method of another package cannot be imported.

    Examples
    --------
    >>> list_methods()["whittaker"]["options"]["robust"]
    0
    """
    shipped = json.loads(Path(__file__).with_name("listing.json").read_text())
    return {
        name: shipped[name] if SHIPPED.get(name) == target else described(_import(target))
        for name, target in sorted(table().items())
    }


describe = list_methods
"""The name of `list_methods` in version 0.1."""


def described(cls: Any) -> dict[str, Any]:
    """The entry of `list_methods` for a class."""
    deep = "checkpoint" in options_of(cls)
    weights = name_for(f"{cls.__module__}:{cls.__qualname__}") in WITH_WEIGHTS
    return {
        "kind": "deep" if deep else "classical",
        "checkpoint": deep and not weights,
        "weights": weights,
        "summary": (inspect.getdoc(cls) or "").split("\n")[0],
        "needs": _needs_line(cls),
        "options": {o: _default(cls, o) for o in options_of(cls)},
    }


def _needs_line(cls: Any) -> str:
    if any(f.init and f.default is MISSING and f.default_factory is MISSING for f in fields(cls)):
        return "see its options"
    n: Needs = cls().needs
    parts = [", ".join(n.bands) or "any band"]
    parts += [x for x, on in (("SAR", n.sar), ("DEM", n.dem)) if on]
    parts += [f">= {n.min_dates} dates"] if n.min_dates > 1 else []
    return "; ".join(parts)


def _default(cls: Any, option: str) -> Any:
    found = next((f.default for f in fields(cls) if f.name == option), MISSING)
    return None if found is MISSING else found


def _import(target: str) -> type:
    module, _, attribute = current(target).partition(":")
    try:
        return cast(type, getattr(import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise MethodError(
            f"Method {target!r} cannot be imported ({error}): expected 'package.module:Class' of "
            "an installed package."
        ) from error


def _build(cls: Any, name: str, options: Mapping[str, Any]) -> Method:
    valid = options_of(cls)
    unknown = [o for o in options if o not in valid]
    if unknown:
        raise MethodError(
            f"Method {name!r} has no option {unknown[0]!r}: expected "
            f"{', '.join(valid) or 'no options'}.{did_you_mean(unknown[0], valid)}"
        )
    return cast(Method, cls(**options))
