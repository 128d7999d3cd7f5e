"""Subcommands that make checkpoints and judge them: train, convert, score."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cubefill.cli.command import bar, command, overwrite, pairs, plain_path, quiet, resume, show
from cubefill.errors import CubefillError

OF_DECLOUD = ("patch", "most", "dem", "no_sar")
OF_COMPARE = ("gaps", "hidden_as", "convention", "screen")

_SET = (
    "Replace an entry of the recipe, as often as wanted: --set epochs=3. A dot reaches into "
    "config and samples: --set config.patch=32."
)


@command
@click.argument("recipe")
@click.argument("folder", type=plain_path)
@click.option("--cube", "cubes", multiple=True, metavar="STORE", help="Cube to learn from.")
@click.option("--validation", multiple=True, metavar="STORE", help="Cube to stop by.")
@click.option("--set", "options", multiple=True, callback=pairs, metavar="KEY=VALUE", help=_SET)
@resume
@overwrite("FOLDER")
def train(
    recipe: str, folder: Path, as_json: bool, options: dict[str, Any], **choices: Any
) -> None:
    """Train what RECIPE says (a TOML file or a shipped name) into the checkpoint FOLDER."""
    from cubefill import train as training

    made = training.run_recipe(recipe, folder, progress=bar(), **choices, **options)
    if os.environ.get("RANK", "0") == "0":
        show(as_json, {"checkpoint": str(made)}, str(made))


def _entries() -> dict[str, str]:
    from dataclasses import fields

    from cubefill.train.recipe import Recipe

    samples = ("count", "dates", "discriminator_windows", "drop_impaired", "gaps")
    return {f.name: f.name for f in fields(Recipe)} | {n: f"samples.{n}" for n in samples}


train.settings = _entries


@command
@click.argument("method")
@click.argument("file", type=plain_path)
@click.argument("folder", type=plain_path)
@click.option(
    "--set",
    "options",
    multiple=True,
    callback=pairs,
    metavar="config.KEY=VALUE",
    help="What the net is, where it is not the default: --set config.sar=True.",
)
@click.option("--licence", default="", help="Licence of the weights, for the card.")
@overwrite("FOLDER")
def convert(
    method: str, file: Path, folder: Path, as_json: bool, options: dict[str, Any], **choices: Any
) -> None:
    """Convert FILE, weights that the authors of METHOD publish, to the checkpoint FOLDER."""
    from cubefill.methods import resolve

    config = {name.removeprefix("config."): value for name, value in options.items()}
    if bare := [name for name in options if not name.startswith("config.")]:
        raise click.UsageError(f"--set {bare[0]}={options[bare[0]]}: expected config.{bare[0]}.")
    found: Any = resolve(method)
    if not hasattr(found, "convert"):
        raise CubefillError(
            f"{method} has no net: expected a method whose authors publish weights. Use "
            "`cubefill methods` for the names."
        )
    made = found.convert(file, folder, **choices, **config)
    show(as_json, {"checkpoint": str(made)}, str(made))


@command
@click.argument("stores", nargs=-1, required=True)
@click.option(
    "--method",
    "names",
    multiple=True,
    metavar="NAME[=CHECKPOINT]",
    help="Score this method, as often as wanted; by default all that need no checkpoint. "
    "`--method all` adds these to others.",
)
@click.option(
    "--gaps", default="transplant", show_default=True,
    help="What to hide: transplant (clouds of other dates), dates, blocks, blobs or trailing.",
)  # fmt: skip
@click.option(
    "--hidden-as", type=click.Choice(["clouds", "nodata"]), default="clouds", show_default=True,
    help="What lies under hidden pixels.",
)  # fmt: skip
@click.option(
    "--seed", "seeds", type=click.IntRange(0), multiple=True, default=(0,),
    help="Of windows and gaps; with several, figures have intervals.",
)  # fmt: skip
@click.option("--convention", default="cubefill", show_default=True, help="Whose formulas.")
@click.option("--screen", is_flag=True, help="Also score without haze that SCL missed.")
@click.option("--protocol", type=click.Choice(["compare", "decloud"]), default="compare")
@click.option("--patch", default=256, show_default=True, help="Decloud: edge of a sample in px.")
@click.option("--most", default=50, show_default=True, help="Decloud: most samples of a place.")
@click.option("--dem", is_flag=True, help="Decloud: the samples hold elevation.")
@click.option("--no-sar", is_flag=True, help="Decloud: the samples hold no Sentinel-1.")
@click.option("--save", type=plain_path, help="Table or picture: .md .html .csv .json .nc .png")
def score(stores: tuple[str, ...], as_json: bool, protocol: str, **options: Any) -> None:
    """Score methods on hidden pixels of the cubes STORES, and say which is best."""
    from cubefill import evaluate
    from cubefill.evaluate import decloud as evaluate_decloud
    from cubefill.evaluate import tables as evaluate_tables
    from cubefill.methods import AUTO, named

    decloud = protocol == "decloud"
    _refuse_foreign(protocol, options["seeds"])
    save: Path | None = options.pop("save")
    pictures = () if decloud else evaluate_tables.PICTURES
    _check_save(save, (*evaluate_tables.TABLES, *pictures), protocol)
    names = options.pop("names") or (("linear",) if decloud else ("all",))
    chosen = named(n for n in names if n != "all")
    if decloud:
        taken = {name: options[name] for name in ("patch", "most", "dem")}
        table = evaluate_decloud.compare_decloud(
            list(chosen.values()),
            stores,
            seed=options["seeds"][0],
            sar=not options["no_sar"],
            **taken,
        )
    else:
        taken = {name: options[name] for name in ("seeds", *OF_COMPARE)}
        progress = None if quiet() else partial(click.echo, err=True)
        table = evaluate.score_stores(
            stores, chosen, every="all" in names, progress=progress, **taken
        )
    if save:
        evaluate_tables.write(table, save)
    said = "" if decloud or as_json else f"{evaluate_tables.verdict(table, AUTO)}\n\n"
    show(as_json, table.to_dict(), said + evaluate_tables.markdown(table))


def _refuse_foreign(protocol: str, seeds: tuple[int, ...]) -> None:
    """Refuses options that the other protocol has."""
    ctx = click.get_current_context()
    other = "compare" if protocol == "decloud" else "decloud"
    for name in OF_COMPARE if protocol == "decloud" else OF_DECLOUD:
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{flag} says nothing to --protocol {protocol}: leave it out, or pass "
                f"--protocol {other}."
            )
    if protocol == "decloud" and len(seeds) > 1:
        raise click.UsageError(
            f"{len(seeds)} seeds with --protocol decloud: expected one. Pass --seed {seeds[0]}."
        )


def _check_save(save: Path | None, suffixes: tuple[str, ...], protocol: str) -> None:
    """Refuses a file that could not be written, before anything is computed."""
    if save is None:
        return
    if save.suffix.lower() not in suffixes:
        raise click.UsageError(
            f"--save {save}: expected a name that ends in {', '.join(suffixes)} with --protocol "
            f"{protocol}."
        )
    if not save.parent.is_dir():
        raise click.UsageError(f"--save {save}: there is no folder {save.parent}. Make it first.")
