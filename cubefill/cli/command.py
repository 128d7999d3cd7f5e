"""What the subcommands of `cubefill` share: options, logs, and errors in the words of a shell."""

import json
import logging
import re
import shlex
import sys
import warnings
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cubefill.addresses import local_path
from cubefill.errors import CubefillError

LEVELS = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}

_CALL = r"[\w.]*\w\((?:[^()]|\([^()]*\))*\)"
_LITERAL = r"\[[^\]]*\]|\([^()]*\)|\{[^}]*\}|'[^']*'|True|False|None|-?\d+(?:\.\d+)?(?:e-?\d+)?"
_VALUE = rf"(?P<value>{_LITERAL})|(?=[,. ]|$)"
_ARGUMENT = re.compile(rf"{_CALL}|(?P<hint>(?:Pass|Use) )?(?<![\w.])(?P<name>\w+)=(?:{_VALUE})")


class Failure(click.ClickException):
    """One line `error: ...` on stderr and exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Prints the line."""
        click.echo(f"error: {' '.join(self.message.split())}", err=True)


class Subcommand(click.Command):
    """A subcommand that says which names its `--set` knows."""

    settings: Callable[[], Mapping[str, str]] = dict
    """Gives the name in a message to the key of `--set`; called where there is a message."""


class Commands(click.Group):
    """A group that turns errors and Ctrl-C into one line and exit code 1; -v shows where from."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in workflow order."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """What the subcommand returns."""
        ctx.ensure_object(dict)

        def said(text: object) -> str:
            return in_flags(str(text), self.commands.get(ctx.invoked_subcommand or ""))

        try:
            with _warnings_in_one_line(said):
                return super().invoke(ctx)
        except CubefillError as error:
            raise Failure(said(error)) from error
        except KeyboardInterrupt as stop:
            raise Failure(
                "interrupted. What is written stays; the same command with --resume finishes it."
            ) from stop
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.obj.get("verbose") or isinstance(error, BrokenPipeError):
                raise
            raise Failure(
                f"{type(error).__name__}: {str(error) or 'nothing more is said'}. Use -v to see "
                "where it comes from."
            ) from error


def in_flags(message: str, chosen: click.Command | None) -> str:
    """A message of the library with `name=value` as the flag that sets it, outside of calls.

    What no flag of the command sets stays as it is.

    Examples
    --------
    >>> tile = click.Command("fill", params=[click.Option(["--tile"])])
    >>> in_flags("tile=0: expected 1 or more. Pass tile=256, or ds.gapfill(tile=256).", tile)
    '--tile 0: expected 1 or more. Pass --tile 256, or ds.gapfill(tile=256).'
    """
    if chosen is None:
        return message
    options = {str(p.name): p for p in chosen.params if isinstance(p, click.Option)}
    settings = chosen.settings() if isinstance(chosen, Subcommand) else {}

    def flag(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return found[0]
        start = found["hint"] or ""
        if found["value"] is None:
            flags = {n: f"--set {k}=" for n, k in settings.items()}
            flags |= {n: _long(o) for n, o in options.items()}
            return start + flags[name] if name in flags else found[0]
        value = literal(found["value"])
        if name in options:
            if start and (value is None or value is False) and not _says_no(options[name]):
                return f"Leave out {_long(options[name])}"
            said = _as_option(options[name], value)
        else:
            off = options.get(f"no_{name}") if value is False else None
            said = _long(off) if off else ""
            said = _as_setting(settings[name], value) if name in settings else said
        return start + said if said else found[0]

    return _ARGUMENT.sub(flag, message)


def _says_no(option: click.Option) -> bool:
    """True where an option can be given as false, not only left out."""
    return bool(option.secondary_opts) or option.default == "true"


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)


def _as_option(option: click.Option, value: Any) -> str:
    long = _long(option)
    if option.is_flag:
        return long if value is True else next(iter(option.secondary_opts), "")
    if value is None:
        return ""
    if isinstance(value, dict):
        nested = any(isinstance(v, dict) for v in value.values())
        value = [_rule(n, v) for n, v in value.items()] if option.multiple and not nested else []
    if isinstance(value, str) and re.fullmatch(r"\(.*\)", value):
        value = tuple(part.strip() for part in value[1:-1].split(","))
    each = value if isinstance(value, list | tuple) else [value]
    words = ["..." if v is ... else shlex.quote(str(v)) for v in each]
    if option.multiple:
        return " ".join(f"{long} {word}" for word in words)
    return f"{long} {(' ' if option.nargs > 1 else ',').join(words)}" if words else ""


def _rule(name: str, said: Any) -> str:
    """`SCL=4,5` or `cloud_probability<40`, from a key and its value."""
    if isinstance(said, str):
        return name + said.replace(" ", "")
    return f"{name}={','.join(map(str, said)) if isinstance(said, tuple) else said}"


def _as_setting(name: str, value: Any) -> str:
    entries = {name: value}
    if isinstance(value, dict):
        entries = {f"{name}.{key}": v for key, v in value.items()}
    return " ".join(f"--set {shlex.quote(f'{n}={v}')}" for n, v in entries.items())


@contextmanager
def _warnings_in_one_line(said: Callable[[object], str]) -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"warning: {' '.join(said(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _InFlags(logging.Formatter):
    """Lines of the log in the words of a command."""

    def __init__(self, chosen: click.Command) -> None:
        super().__init__("%(message)s")
        self.chosen = chosen

    def format(self, record: logging.LogRecord) -> str:
        return in_flags(super().format(record), self.chosen)


@contextmanager
def _log_to_stderr(level: int, chosen: click.Command) -> Iterator[None]:
    logger = logging.getLogger("cubefill")
    handler, before = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(_InFlags(chosen))
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


# ------------------------------------------------------------------ subcommands and their options


def _verbosity(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.ensure_object(dict)[param.name] = bool(value)


def command(function: Callable[..., None]) -> Subcommand:
    """A subcommand with -v, -q and --json."""

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        said = ctx.ensure_object(dict)
        level = LEVELS[said["verbose"] - said["quiet"]]
        ctx.with_resource(_log_to_stderr(level, ctx.command))
        function(**options)

    name = function.__name__
    made = click.command(name, cls=Subcommand, help=function.__doc__)(run)
    shared = [
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_verbosity),
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_verbosity),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines."),
    ]
    own = getattr(function, "__click_params__", [])
    made.params = [*reversed(own), *shared]
    return made


def pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """Keys and values of `KEY=VALUE`, values as `literal` reads them."""
    found = {}
    for pair in value:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected KEY=VALUE, got {pair!r}", ctx, param)
        found[key] = literal(text)
    return found


def literal(text: str) -> Any:
    """A value as Python reads it, `true` and `false` as TOML does, else the text."""
    try:
        return literal_eval(text.title() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        return text


class _PlainPath(click.Path):
    """A path of this machine, also as a `file://` URL."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The path."""
        return super().convert(local_path(value), param, ctx)


plain_path = _PlainPath(path_type=Path)
some_file = _PlainPath(path_type=Path, exists=True, dir_okay=False, readable=True)
resume = click.option(
    "--resume/--no-resume", default=True, help="Finish what was begun (the default)."
)


def overwrite(what: str) -> Callable[[Any], Any]:
    """The flag that lets `what` be replaced."""
    return click.option("--overwrite", is_flag=True, help=f"Replace {what}.")


def bar() -> bool | None:
    """False with -q; else None, which draws a bar on a terminal."""
    return False if quiet() else None


def quiet() -> bool:
    """True with -q."""
    return bool(click.get_current_context().obj["quiet"])


def show(as_json: bool, machine: Any, human: str) -> None:
    """Prints JSON for machines, in which NaN and infinity become null, or text."""
    if as_json:
        text = json.dumps(machine, default=str)
        machine = json.loads(text, parse_constant=lambda _: None)
    click.echo(json.dumps(machine) if as_json else human)
