"""A hint is typed as it stands in the message, and what was refused must then go through."""

import ast
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr
import pandas as pd
import xarray as xr

import cubefill
from cubefill import evaluate, gaps
from cubefill.errors import CubefillError

PACKAGE = Path(cubefill.__file__).parent
VERB = re.compile(r"\b(?:Use|Pass|Try) (?=\S)")
NAMES: dict[str, Any] = {
    "cubefill": cubefill,
    "odc": odc,
    "os": os,
    "numpy": np,
    "pandas": pd,
    "xarray": xr,
    "Transplant": gaps.Transplant,
    "Blobs": gaps.Blobs,
    "Borrowed": gaps.Borrowed,
    "shapes_of": gaps.shapes_of,
    "evaluate": evaluate,
}
"""What a user has at hand when the hint is typed, beside what was given."""


@dataclass(frozen=True)
class Case:
    """A call that is refused, or done with a warning, and the hint that it prints."""

    says: str
    """Words of the message as they stand in the code, {} for what is put into it."""
    call: Callable[..., Any]
    given: Any = field(default_factory=dict)
    """Options of the call, or what makes them; the hint may use them by name."""
    takes: str = ""
    """The option that a typed expression stands for, by default the first that was given."""
    put: Mapping[str, Any] = field(default_factory=dict)
    """What the user replaces in the hint: placeholders by values of theirs."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """What the hint may use beside NAMES and `given`."""
    then: Callable[[Any], Any] = lambda _: True
    """What holds of the result once the hint was typed."""

    def __str__(self) -> str:
        return self.says


def said(call: Callable[..., Any], given: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """What the call gives (None where it is refused), and all that it says."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            out = call(**given)
            if isinstance(out, xr.Dataset | xr.DataArray):
                out = out.compute()
        except CubefillError as error:
            return None, [str(error)]
    return out, [str(w.message) for w in heard]


def typed(text: str, names: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The longest code behind the last verb of a hint: values alone, and values by name."""
    code = VERB.split(text)[-1]
    for end in range(len(code), 0, -1):
        line = code[:end].strip("` .,:;")
        scope = {**names, "_": lambda *a, **k: (a, k)}
        try:
            found: tuple[tuple[Any, ...], dict[str, Any]] = eval(f"_({line})", scope)
        except NameError:
            continue
        except SyntaxError:
            found = _set(line, scope)
        if any(found):
            return found
    raise AssertionError(f"nothing to type in {text!r}")


def _set(line: str, scope: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `ds["name"] = value` makes of a copy of ds."""
    whole, item, _ = line.partition("[")
    if not item or whole not in scope or "] = " not in line:
        return (), {}
    scope[whole] = scope[whole].copy()
    try:
        exec(line, scope)
    except (SyntaxError, NameError):
        return (), {}
    return (scope[whole],), {}


def leads_on(case: Case) -> None:
    """The message is said, its hint is typed, and the message is said no more."""
    given = case.given() if callable(case.given) else case.given
    _, heard = said(case.call, given)
    words = re.compile(".*?".join(map(re.escape, case.says.split("{}"))))
    texts = [t for t in heard if words.search(t)]
    assert texts, f"not said: {case.says!r}, but {heard}"
    text = texts[0]
    for old, new in case.put.items():
        assert old in text, text
        text = text.replace(old, new() if callable(new) else new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, named = typed(text, {**NAMES, **given, **case.names})
    if values:
        named = {case.takes or next(iter(given)): values[0], **named}
    out, heard = said(case.call, {**given, **named})
    assert not any(words.search(t) for t in heard), heard
    assert out is not None, heard
    assert case.then(out) is not False


@cache
def hints() -> tuple[tuple[str, str], ...]:
    """Every message of the package that has a hint: the file, and the words."""
    return tuple(
        (str(path.relative_to(PACKAGE)), text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in _texts(ast.parse(path.read_text()))
        if VERB.search(text)
    )


def _texts(tree: ast.Module) -> Iterator[str]:
    """Texts in code, "{}" for what is put into them; not docstrings."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            left_out.update(id(v) for v in node.values)
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values
            )
