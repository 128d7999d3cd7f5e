"""The command `cubefill`: each subcommand is one call of the library."""

import json
import logging
import re
import sys
import warnings
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import cubefill
from cubefill import demo as demo_module
from cubefill import doctor as doctor_module
from cubefill import inventory, job, planning, plot
from cubefill.errors import CubefillError
from cubefill.method import named

LEVELS = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}

OPERATORS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=": "eq"}


class Failure(click.ClickException):
    """One line `error: ...` on stderr and exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Prints the line."""
        click.echo(f"error: {' '.join(self.message.split())}", err=True)


class Commands(click.Group):
    """A group that turns cubefill's errors and Ctrl-C into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a first day's work."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """What the subcommand returns."""
        try:
            with _warnings_in_one_line():
                return super().invoke(ctx)
        except CubefillError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt as stop:
            raise Failure(
                "interrupted. What is written stays; the same command with --resume finishes it."
            ) from stop


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _log_to_stderr(level: int) -> Iterator[None]:
    logger = logging.getLogger("cubefill")
    handler, before = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


# ------------------------------------------------------------------ options shared by commands


def _verbosity(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.ensure_object(dict)[param.name] = bool(value)


def _command(function: Callable[..., None]) -> click.Command:
    """Registers a subcommand with -v, -q and --json."""

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        said = ctx.ensure_object(dict)
        ctx.with_resource(_log_to_stderr(LEVELS[said["verbose"] - said["quiet"]]))
        function(**options)

    command = click.command(function.__name__.rstrip("_"), help=function.__doc__)(run)
    shared = [
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_verbosity),
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_verbosity),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines."),
    ]
    own = getattr(function, "__click_params__", [])
    command.params = [*reversed(own), *shared]
    main.add_command(command)
    return command


def _conditions(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    found: dict[str, dict[str, Any]] = {}
    for text in value:
        parts = re.fullmatch(r"([^<>=]+)(<=|>=|<|>|=)(.+)", text)
        if parts is None:
            raise click.BadParameter(
                f"expected such as eo:cloud_cover<30, got {text!r}", ctx, param
            )
        found.setdefault(parts[1], {})[OPERATORS[parts[2]]] = _literal(parts[3])
    return found


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for pair in value:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected KEY=VALUE, got {pair!r}", ctx, param)
        found[key] = _literal(text)
    return found


def _literal(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _search_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option("--bbox", type=float, nargs=4, metavar="W S E N", help="In degrees."),
            click.option("--intersects", type=click.Path(exists=True), help="A GeoJSON geometry."),
            click.option("--datetime", metavar="A/B", help="A date, or two with a slash."),
            click.option("-c", "--collection", "collections", multiple=True),
            click.option("--query", multiple=True, callback=_conditions, metavar="KEY<VALUE"),
            click.option("--max-cloud", type=float, help="Highest cloud cover of an item in %."),
            click.option("--max-items", type=int),
        )
    ):
        function = option(function)
    return function


_plain_path = click.Path(path_type=Path)
_resume = click.option(
    "--resume/--no-resume", default=True, help="Finish a store that was begun (the default)."
)
_overwrite = click.option("--overwrite", is_flag=True, help="Replace TARGET.")
_dry_run = click.option("--dry-run", is_flag=True, help="Print grid, tiles and bytes; write none.")


def _search(source: str, options: dict[str, Any]) -> Any:
    intersects = options.pop("intersects")
    given = {k: v for k, v in options.items() if v not in (None, (), {})}
    if intersects:
        given["geometry"] = json.loads(Path(intersects).read_text())
    if "collections" in given:
        given["collections"] = list(given["collections"])
    return cubefill.search(json.load(sys.stdin) if source == "-" else source, **given)


def _bar() -> bool | None:
    """False with -q; else None, which draws a bar on a terminal."""
    return False if click.get_current_context().obj["quiet"] else None


def _print(as_json: bool, machine: Any, human: str) -> None:
    click.echo(json.dumps(machine, default=str) if as_json else human)


# ------------------------------------------------------------------ subcommands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(cubefill.__version__, prog_name="cubefill")
def main() -> None:
    """Fill the gaps that clouds leave in Sentinel-2 cubes: STAC to Zarr to NDVI."""


@_command
@click.argument("folder", type=_plain_path, default="cubefill-demo")
@click.option("--size", default=384, show_default=True, help="Pixels along a side.")
@click.option("--dates", default=40, show_default=True, help="Acquisition dates.")
@click.option("--seed", default=0, show_default=True)
@click.option("--serve", is_flag=True, help="Serve the catalogue on loopback and search it.")
def demo(folder: Path, as_json: bool, **options: Any) -> None:
    """Make a simulated catalogue in FOLDER, load it, fill it, and write a report."""
    say = None if as_json else click.echo
    result = demo_module.run_demo(folder, say=say, **options)
    _print(as_json, asdict(result), result.next_steps)


@_command
@click.argument("source")
@_search_options
@click.option("--save", type=_plain_path, help="Write the items to a file.")
@click.option("--matched", is_flag=True, help="Print how many items there are.")
def search(source: str, save: Path | None, matched: bool, as_json: bool, **options: Any) -> None:
    """Find items in SOURCE: the URL of an API, a file, or - for an ItemCollection on stdin."""
    items = _search(source, options)
    if save:
        items.save(save)
    if matched:
        _print(as_json, {"matched": len(items)}, f"{len(items)} items matched")
    else:
        _print(as_json, items.to_dict(), "\n".join(_item_line(item) for item in items))


def _item_line(item: Any) -> str:
    cloud = item.properties.get("eo:cloud_cover")
    cover = "" if cloud is None else f"  {cloud:5.1f} % cloud"
    return f"{item.datetime:%Y-%m-%d}  {item.id}{cover}"


@_command
@click.argument("source")
@click.argument("target")
@_search_options
@click.option("--bands", default="B02,B03,B04,B08", show_default=True, help="With commas.")
@click.option("--resolution", type=float, default=10, show_default=True, help="In metres.")
@click.option("--sar", is_flag=True, help="Add Sentinel-1 VV and VH on the nearest date.")
@click.option("--dem", is_flag=True, help="Add elevation.")
@_resume
@_overwrite
@_dry_run
def load(source: str, target: str, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Load the items of SOURCE into the Zarr store TARGET."""
    writing = {name: options.pop(name) for name in ("resume", "overwrite")}
    reading = {name: options.pop(name) for name in ("resolution", "sar", "dem")}
    bands = tuple(options.pop("bands").split(","))
    bbox = options["bbox"]
    items = _search(source, options)
    ds = cubefill.load(items, bbox=bbox, bands=bands, **reading)
    if not dry_run:
        cubefill.write_cube(ds, target, progress=_bar(), **writing)
    found = inventory.take(ds, shares=False) if dry_run else inventory.of_store(target)
    _print(as_json, found.as_dict(), str(found))


@_command
@click.argument("source")
@click.argument("target")
@click.option("--method", default="auto", show_default=True, help="See `cubefill methods`.")
@click.option("--option", "choices", multiple=True, callback=_pairs, metavar="KEY=VALUE")
@click.option("--ndvi", is_flag=True, help="Write NDVI with its own flag.")
@click.option("--nir", default="B08", show_default=True, help="Near infrared of NDVI.")
@click.option("--times", help="Dates to give: 5D for a regular axis, or dates with commas.")
@click.option("--std", is_flag=True, help="Write the standard deviation of the error.")
@click.option("--memory", help="Memory budget, such as 4GB.")
@click.option("--tile", type=int, help="Pixels along a side of a tile.")
@click.option("--workers", type=int, help="Tiles at work at once.")
@click.option("--device", default="auto", show_default=True)
@click.option("--on-error", type=click.Choice(["raise", "skip"]), default="raise")
@click.option("--scheduler", help="Address of a dask scheduler, such as tcp://host:8786.")
@_resume
@_overwrite
@_dry_run
def fill(source: str, target: str, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Fill the gaps of the cube SOURCE into the Zarr store TARGET."""
    choices, scheduler = options.pop("choices"), options.pop("scheduler")
    for name in sorted(set(choices) & {*options, "client", "progress"}):
        raise click.UsageError(f"--option {name}={choices[name]}: type --{name} {choices[name]}")
    if options["times"] and "-" in options["times"]:
        options["times"] = options["times"].split(",")
    if dry_run:
        asking = {name: options[name] for name in ("method", "times", "std", "device")}
        limits = {name: options[name] for name in ("memory", "tile")}
        limits["workers"] = options["workers"] or planning.cores()
        asked = planning.request(cubefill.open_cube(source), **asking, options=choices)
        plan, work = planning.plan_work(asked, **limits), job.plan_job(asked, **limits)
        _print(as_json, plan.to_dict() | {"job": asdict(work)}, f"{plan}\njob      {work}")
        return
    with _client(scheduler) as client:
        cubefill.run(source, target, client=client, progress=_bar(), **options, **choices)
    found = inventory.of_store(target)
    _print(as_json, found.as_dict(), str(found))


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    from distributed import Client

    with Client(address) as client:
        yield client


@_command
@click.argument("source")
@click.argument("target")
@click.option("--nir", default="B08", show_default=True)
@click.option("--red", default="B04", show_default=True)
@_resume
@_overwrite
def ndvi(source: str, target: str, as_json: bool, nir: str, red: str, **writing: Any) -> None:
    """Write NDVI of the cube SOURCE into the Zarr store TARGET."""
    out = cubefill.with_ndvi(cubefill.open_cube(source), nir=nir, red=red)
    names = [str(n) for n in out.data_vars if str(n).startswith("NDVI")]
    cubefill.write_cube(out[names], target, progress=_bar(), **writing)
    found = inventory.of_store(target)
    _print(as_json, found.as_dict(), str(found))


@_command
@click.argument("store")
def info(store: str, as_json: bool) -> None:
    """Print what STORE holds: grid, dates, clear fraction, completeness, provenance."""
    found = inventory.of_store(store)
    _print(as_json, found.as_dict(), str(found))


@_command
@click.argument("store")
@click.argument("picture", type=_plain_path)
@click.option(
    "--time", help="Date to show; by default the cloudiest of a filled cube, else the clearest."
)
def preview(store: str, picture: Path, as_json: bool, time: str | None) -> None:
    """Write a picture of STORE to the file PICTURE."""
    plot.preview(cubefill.open_cube(store), picture, time)
    _print(as_json, {"picture": str(picture)}, str(picture))


@_command
@click.argument("recipe")
@click.argument("folder", type=_plain_path)
@click.option("--cube", "cubes", multiple=True, metavar="STORE", help="Cube to learn from.")
@click.option("--validation", multiple=True, metavar="STORE", help="Cube to stop by.")
@click.option("--set", "options", multiple=True, callback=_pairs, metavar="KEY=VALUE")
@_resume
@_overwrite
def train(
    recipe: str, folder: Path, as_json: bool, options: dict[str, Any], **choices: Any
) -> None:
    """Train what RECIPE says (a TOML file or a shipped name) into the checkpoint FOLDER."""
    from cubefill import train as training

    made = training.run_recipe(recipe, folder, progress=_bar(), **choices, **options)
    _print(as_json, {"checkpoint": str(made)}, str(made))


@_command
@click.argument("stores", nargs=-1, required=True)
@click.option("--method", "names", multiple=True, default=("linear",), metavar="NAME[=CHECKPOINT]")
@click.option("--gaps", default="transplant", show_default=True, help="What to hide.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,))
@click.option("--convention", default="cubefill", show_default=True)
@click.option("--screen", is_flag=True, help="Also score without haze that SCL missed.")
@click.option("--protocol", type=click.Choice(["compare", "decloud"]), default="compare")
@click.option("--save", type=_plain_path, help="Table or picture: .md .html .csv .json .nc .png")
def score(stores: tuple[str, ...], as_json: bool, protocol: str, **options: Any) -> None:
    """Score methods on hidden pixels of the cubes STORES."""
    from cubefill import evaluate, evaluate_decloud, evaluate_tables

    chosen, save = named(options.pop("names")), options.pop("save")
    if protocol == "decloud":
        table = evaluate_decloud.compare_decloud(chosen, stores, seed=options["seeds"][0])
        _print(as_json, table.to_dict(), evaluate_decloud.markdown(table))
        return
    table = evaluate.score_stores(stores, chosen, **options)
    if save:
        evaluate_tables.write(table, save)
    _print(as_json, table.to_dict(), evaluate_tables.markdown(table))


@_command
def methods(as_json: bool) -> None:
    """List the methods with what they need."""
    rows = cubefill.list_methods()
    lines = [
        f"{name:<12} {row['summary']}\n{'':<12} needs {row['needs']}" for name, row in rows.items()
    ]
    _print(as_json, rows, "\n".join(lines))


@_command
def doctor(as_json: bool) -> None:
    """Print what this machine offers, with a fix for each problem."""
    findings = doctor_module.examine()
    _print(as_json, [asdict(f) for f in findings], "\n".join(map(str, findings)))


if __name__ == "__main__":
    main()
