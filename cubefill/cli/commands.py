"""The command `cubefill`: each subcommand is one call of the library."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import cubefill
from cubefill.cli import training
from cubefill.cli.command import (
    Commands,
    bar,
    command,
    literal,
    overwrite,
    pairs,
    plain_path,
    quiet,
    resume,
    show,
    some_file,
)

OPERATORS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=": "eq"}


# ------------------------------------------------------------------ options shared by commands


def _conditions(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    found: dict[str, dict[str, Any]] = {}
    for text in value:
        parts = re.fullmatch(r"([^<>=]+)(<=|>=|<|>|=)(.+)", text)
        if parts is None:
            raise click.BadParameter(
                f"expected such as eo:cloud_cover<30, got {text!r}", ctx, param
            )
        found.setdefault(parts[1], {})[OPERATORS[parts[2]]] = literal(parts[3])
    return found


def _clear(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    """What `valid=` takes, from names, NAME=CLASSES and NAME<NUMBER."""
    rules: dict[str, Any] = {}
    for text in value:
        parts = re.fullmatch(r"([^<>=!]+)([<>]=?|[=!]=|=)(.+)", text)
        if parts is None and len(value) > 1:
            raise click.BadParameter(f"the name {text!r} stands alone", ctx, param)
        if parts is None:
            return text
        name, said, rest = (p.strip() for p in parts.groups())
        if said != "=":
            rules[name] = f"{said} {rest}"
        elif name == "dilate":
            rules[name] = literal(rest)
        else:
            rules[name] = tuple(map(literal, rest.split(",")))
    return rules or None


def _search_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option("--bbox", type=float, nargs=4, metavar="W S E N", help="In degrees."),
            click.option("--intersects", type=some_file, help="A GeoJSON geometry."),
            click.option("--datetime", metavar="A/B", help="A date, or two with a slash."),
            click.option("-c", "--collection", "collections", multiple=True),
            click.option("--query", multiple=True, callback=_conditions, metavar="KEY<VALUE"),
            click.option("--max-cloud", type=float, help="Highest cloud cover of an item in %."),
            click.option("--max-items", type=int),
        )
    ):
        function = option(function)
    return function


_dry_run = click.option("--dry-run", is_flag=True, help="Print grid, tiles and bytes; write none.")


def _search(source: str, options: dict[str, Any]) -> Any:
    intersects = options.pop("intersects")
    given = {k: v for k, v in options.items() if v not in (None, (), {})}
    if intersects:
        given["geometry"] = _json(intersects.read_bytes(), f"--intersects {intersects}")
    if "collections" in given:
        given["collections"] = list(given["collections"])
    return cubefill.search(_json(sys.stdin.read(), "-") if source == "-" else source, **given)


def _json(text: str | bytes, name: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{name} is no JSON ({error}): expected GeoJSON.") from error
    if not isinstance(found, dict):
        raise click.UsageError(f"{name} holds {str(found)[:40]}: expected a GeoJSON object.")
    return found


def _show_store(as_json: bool, store: str) -> None:
    """Prints what was written; with -q only where JSON is asked for."""
    from cubefill.store import inventory

    if as_json or not quiet():
        found = inventory.of_store(store)
        show(as_json, found.as_dict(), str(found))


# ------------------------------------------------------------------ subcommands


@command
@click.argument("folder", type=plain_path, default="cubefill-demo")
@click.option(
    "--size", type=click.IntRange(8), default=384, show_default=True, help="Pixels along a side."
)
@click.option(
    "--dates", type=click.IntRange(1, 130), default=40, show_default=True, help="Acquisition dates."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--serve", is_flag=True, help="Serve the catalogue on loopback and search it.")
def demo(folder: Path, as_json: bool, **options: Any) -> None:
    """Make a simulated catalogue in FOLDER, load it, fill it, and write a report."""
    from cubefill.cli.run_demo import run_demo

    say = None if as_json else click.echo
    result = run_demo(folder, say=say, **options)
    show(as_json, asdict(result), result.next_steps)


@command
@click.argument("source")
@_search_options
@click.option("--save", type=plain_path, help="Write the items to a file.")
@click.option("--matched", is_flag=True, help="Print how many items there are.")
def search(source: str, save: Path | None, matched: bool, as_json: bool, **options: Any) -> None:
    """Find items in SOURCE: the URL of an API, a file, or - for an ItemCollection on stdin."""
    items = _search(source, options)
    if save:
        items.save(save)
    if matched:
        show(as_json, {"matched": len(items)}, f"{len(items)} items matched")
    else:
        show(as_json, items.to_dict(), "\n".join(_item_line(item) for item in items))


def _item_line(item: Any) -> str:
    from cubefill.stac.items import when

    cloud = item.properties.get("eo:cloud_cover")
    cover = "" if cloud is None else f"  {cloud:5.1f} % cloud"
    return f"{str(when(item))[:10]}  {item.id}{cover}"


@command
@click.argument("source")
@click.argument("target")
@_search_options
@click.option("--bands", default="B02,B03,B04,B08", show_default=True, help="With commas.")
@click.option("--resolution", type=float, default=10, show_default=True, help="In metres.")
@click.option("--crs", help="Of the grid, such as EPSG:32631; by default that of the items.")
@click.option(
    "--harmonize", default="true", show_default=True, metavar="COUNTS",
    callback=lambda ctx, param, value: literal(value),
    help="Counts to add to every item; true follows its metadata, false adds none.",
)  # fmt: skip
@click.option("--on-error", type=click.Choice(["raise", "flag"]), default="raise")
@click.option("--sar", is_flag=True, help="Add Sentinel-1 VV and VH on the nearest date.")
@click.option("--dem", is_flag=True, help="Add elevation.")
@resume
@overwrite("TARGET")
@_dry_run
def load(source: str, target: str, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Load the items of SOURCE into the Zarr store TARGET."""
    writing = {name: options.pop(name) for name in ("resume", "overwrite")}
    names = ("resolution", "crs", "harmonize", "on_error", "sar", "dem")
    reading = {name: options.pop(name) for name in names}
    bands = tuple(options.pop("bands").split(","))
    bbox = options["bbox"]
    items = _search(source, options)
    ds = cubefill.load(items, bbox=bbox, bands=bands, **reading)
    if not dry_run:
        cubefill.write_cube(ds, target, progress=bar(), **writing)
        _show_store(as_json, target)
        return
    from cubefill.store import inventory

    found = inventory.take(ds, shares=False)
    show(as_json, found.as_dict(), str(found))


@command
@click.argument("source")
@click.argument("target")
@click.option(
    "--method", default="auto", show_default=True,
    help="A name of `cubefill methods`; auto is samedate: what is clear on the same date tells.",
)  # fmt: skip
@click.option("--option", "choices", multiple=True, callback=pairs, metavar="KEY=VALUE")
@click.option("--bands", help="Variables to fill, with commas; others are copied beside them.")
@click.option("--ndvi", is_flag=True, help="Write NDVI with its own flag.")
@click.option("--nir", default="B08", show_default=True, help="Near infrared of NDVI.")
@click.option("--times", help="Dates to give: 5D for a regular axis, or dates with commas.")
@click.option(
    "--valid",
    multiple=True,
    callback=_clear,
    metavar="RULE",
    help="What is clear: SCL=4,5,6,7, cloud_probability<40 (several hold together), finite, a "
    "variable, or a mask package such as csmask. By default `valid`, else SCL.",
)
@click.option("--std", is_flag=True, help="Write the standard deviation of the error.")
@click.option("--quantiles", help="Write quantiles of what is filled: 0.05,0.95 for 90 %.")
@click.option("--memory", help="Memory budget, such as 4GB.")
@click.option("--tile", type=int, help="Pixels along a side of a tile.")
@click.option("--workers", type=int, help="Tiles at work at once.")
@click.option("--device", default="auto", show_default=True)
@click.option("--on-error", type=click.Choice(["raise", "skip"]), default="raise")
@click.option("--scheduler", help="Address of a dask scheduler, such as tcp://host:8786.")
@resume
@overwrite("TARGET")
@_dry_run
def fill(source: str, target: str, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Fill the gaps of the cube SOURCE into the Zarr store TARGET.

    When it is done, the log says what filled how much, and the store keeps it as gapfill_shares.
    `cubefill score SOURCE` compares methods on pixels of the cube that are hidden.
    """
    choices, scheduler = options.pop("choices"), options.pop("scheduler")
    for name in sorted(set(choices) & {*options, "client", "progress"}):
        raise click.UsageError(f"--option {name}={choices[name]}: pass --{name} {choices[name]}")
    if options["times"] and "-" in options["times"]:
        options["times"] = options["times"].split(",")
    options["bands"] = options["bands"].split(",") if options["bands"] else None
    options["quantiles"] = options["quantiles"].split(",") if options["quantiles"] else ()
    if dry_run:
        from cubefill.engine import planning, request
        from cubefill.machine import cores

        names = ("method", "times", "valid", "std", "quantiles", "device", "bands")
        asking = {name: options[name] for name in names}
        limits = {name: options[name] for name in ("memory", "tile")}
        limits["workers"] = options["workers"] or cores()
        asked = request.request(cubefill.open_cube(source), **asking, options=choices)
        plan = planning.plan_work(asked, **limits)
        work = planning.plan_work(asked, **limits, job=True)
        show(as_json, plan.to_dict() | {"job": work.to_dict()}, f"{plan}\njob      {work}")
        return
    with _client(scheduler) as client:
        cubefill.run(source, target, client=client, progress=bar(), **options, **choices)
    _show_store(as_json, target)


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise click.UsageError(
            f"--scheduler needs dask's cluster ({error}). Use pip install 'cubefill[distributed]'."
        ) from error

    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"--scheduler {address} does not answer ({error}): expected such as tcp://host:8786."
        ) from error
    with client:
        yield client


@command
@click.argument("source")
@click.argument("target")
@click.option("--nir", default="B08", show_default=True)
@click.option("--red", default="B04", show_default=True)
@click.option("--clip", is_flag=True, help="Put NDVI beyond -1 or 1 there instead of NaN.")
@resume
@overwrite("TARGET")
def ndvi(
    source: str, target: str, as_json: bool, nir: str, red: str, clip: bool, **writing: Any
) -> None:
    """Write NDVI of the cube SOURCE into the Zarr store TARGET."""
    out = cubefill.with_ndvi(cubefill.open_cube(source), nir=nir, red=red, clip=clip)
    names = [str(n) for n in out.data_vars if str(n).startswith("NDVI")]
    cubefill.write_cube(out[names], target, progress=bar(), **writing)
    _show_store(as_json, target)


@command
@click.argument("store")
def info(store: str, as_json: bool) -> None:
    """Print what STORE holds: grid, dates, clear fraction, completeness, provenance."""
    from cubefill.store import inventory

    found = inventory.of_store(store)
    show(as_json, found.as_dict(), str(found))


@command
@click.argument("store")
@click.argument("picture", type=plain_path)
@click.option(
    "--time", help="Date to show; by default the cloudiest of a filled cube, else the clearest."
)
def preview(store: str, picture: Path, as_json: bool, time: str | None) -> None:
    """Write a picture of STORE to the file PICTURE."""
    cubefill.plot.preview(cubefill.open_cube(store), picture, time)
    show(as_json, {"picture": str(picture)}, str(picture))


@command
def methods(as_json: bool) -> None:
    """List the methods with what they need, those that need a trained net apart."""
    rows = cubefill.list_methods()
    kinds = {"classical": "no checkpoint", "deep": "a checkpoint: cubefill train NAME FOLDER"}
    lines = []
    for kind, net in kinds.items():
        lines += [f"{kind}: {net}"]
        for name, row in rows.items():
            if row["kind"] == kind:
                needs = row["needs"] + ("; checkpoint" if row["checkpoint"] else "")
                needs += "; its weights come with cubefill" if row["weights"] else ""
                lines += [f"  {name:<12} {row['summary']}", f"  {'':<12} needs {needs}"]
    show(as_json, rows, "\n".join(lines))


@command
@click.option(
    "--warm",
    is_flag=False,
    flag_value="auto",
    metavar="[METHODS]",
    help="Compile the kernels of METHODS, names with commas or all, ahead of their first use; "
    "without METHODS those of the default.",
)
def doctor(as_json: bool, warm: str | None) -> None:
    """Print what this machine offers, with a fix for each problem."""
    from cubefill.cli import machine_check

    findings = [*machine_check.examine(), *(machine_check.warm(warm) if warm else ())]
    show(as_json, [asdict(f) for f in findings], "\n".join(map(str, findings)))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cubefill", prog_name="cubefill")
def main() -> None:
    """Fill the gaps that clouds leave in Sentinel-2 cubes: STAC to Zarr to NDVI."""


for _each in (
    demo, search, load, fill, ndvi, info, preview,
    training.train, training.convert, training.score, methods, doctor,
):  # fmt: skip
    main.add_command(_each)


if __name__ == "__main__":
    main()
