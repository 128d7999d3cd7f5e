"""Where the samples of a recipe come from: cubes, a store of samples, or series of the authors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from cubefill import samples as stored
from cubefill.addresses import local_path
from cubefill.errors import CubefillError, MethodError, StoreError, did_you_mean
from cubefill.formats import earthnet as minicube
from cubefill.gaps import FORMER, GAPS
from cubefill.methods.learned.cnnrnn import Hdf5Samples
from cubefill.methods.learned.method import TorchMethod
from cubefill.methods.learned.series import SeriesMethod
from cubefill.methods.registry import name_of
from cubefill.samples.patches import CubeSamples
from cubefill.samples.protocol import Samples
from cubefill.store import open_cube
from cubefill.train.recipe import Recipe

Cubes = Sequence[str | Path | xr.Dataset]
Parts = tuple[Samples, Samples | None]

MINICUBES = (".npz", ".nc")
"""Endings of files that `minicube.read` reads."""
FORMER_ENTRIES = {"turns": "augment", "real": "discriminator_windows"}
"""Former name of an entry to that of today; recipes may have either."""

_NO_ENTRIES = ("cubes", "method", "gaps", "seed", "epoch", "donors", "clear")
_OF_CUBES = {f.name: f.default for f in fields(CubeSamples) if f.name not in _NO_ENTRIES}
_ENTRIES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "cubes": (
        ("cubes", "validation", "store", "hdf5"),
        {"gaps": "blobs", **_OF_CUBES, "clean_windows": "windows.json"},
    ),
    "store": (("store",), {"augment": False, "seasons": False}),
    "hdf5": (("hdf5",), {"patch": _OF_CUBES["patch"]}),
}
"""Whence samples come to the entries that say where, and to the others, each with its default."""


def parts_of(
    recipe: Recipe, learner: TorchMethod, cubes: Cubes, validation: Cubes, source: str
) -> Parts:
    """Samples to train on, and those that choose the weights, where there are any.

    `cubes` and `validation` come before the entries of that name in the table `[samples]`; with
    `store` there samples of `cubefill.samples.make` are read, with `hdf5` series of a file.

    Raises
    ------
    CubefillError
        There are no samples, they are named twice, or an entry is unknown or of another type.
    """
    entries = dict(recipe.samples)
    train, held = (_listed(entries.pop(n, ())) for n in ("cubes", "validation"))
    kind = next((n for n in ("hdf5", "store") if n in entries), "")
    if kind and (cubes or validation):
        raise CubefillError(
            f"[samples] of {source} has {kind} = {entries[kind]!r}, and cubes were given: expected "
            f"one of them. Pass no cubes, or leave out {kind!r}."
        )
    if kind == "hdf5":
        return _of_series(entries, learner)
    if learner.learns_from == "series":
        raise MethodError(
            f"{name_of(learner)!r} learns from series with known answers, which no cube holds: "
            f"expected `hdf5` in the table [samples] of {source}, a file with X, y and "
            "training_weights. Pass samples={'hdf5': 'FILE.h5'}."
        )
    if kind == "store":
        return _of_store(entries, learner, recipe)
    given, apart = list(cubes) or train, list(validation) or held
    if not given:
        raise CubefillError(
            f"The recipe {source} names no cubes: expected `cubes` in its table [samples]. Pass "
            "cubes=['cube.zarr']."
        )
    samples = cube_samples(given, learner, recipe, entries, apart)
    if not apart:
        return samples, None
    later = replace(recipe, seed=recipe.seed + 1)
    return samples, cube_samples(apart, learner, later, entries, given)


def cube_samples(
    cubes: Cubes,
    learner: TorchMethod,
    recipe: Recipe,
    entries: Mapping[str, Any],
    others: Cubes = (),
) -> CubeSamples:
    """Samples of cubes or stores, as the table `[samples]` of a recipe says.

    Without `dates` a sample has as many time steps as the `dates` of the method's configuration,
    where it has that field. With `gaps = "borrowed"` a cube borrows those of the rest of
    them, and of `others`.

    Raises
    ------
    CubefillError
        There is no cube, or an entry is unknown or of another type.
    """
    values = _checked(entries, "cubes")
    name = values.pop("gaps", "blobs")
    name = FORMER.get(name, name)
    if windows := values.get("discriminator_windows"):
        values["discriminator_windows"] = tuple(windows)
    if listed := values.pop("clean_windows", ""):
        values["clear"] = CleanWindows(listed)
    values.setdefault("dates", getattr(learner.config, "dates", 0))
    gaps = GAPS[name]() if name != "none" else None
    if name == "borrowed":
        values["donors"] = [_opened(c) for c in others]
    return CubeSamples([_opened(c) for c in cubes], learner, gaps, recipe.seed, **values)


def _of_store(entries: Mapping[str, Any], learner: TorchMethod, recipe: Recipe) -> Parts:
    """The training and validation part of a store of samples."""
    options = _checked(entries, "store")
    train, held = (
        stored.open(entries["store"], part, learner, seed=recipe.seed, **options)
        for part in ("train", "validation")
    )
    return train, held if len(held) else None


def _of_series(entries: Mapping[str, Any], learner: TorchMethod) -> Parts:
    """The training and validation series of an HDF5 file, a patch of pixels a sample."""
    path = entries["hdf5"]
    if not isinstance(learner, SeriesMethod):
        raise MethodError(
            f"[samples] has hdf5 = {path!r}: expected a method of single series, cnnrnn or mowing, "
            f"got {name_of(learner)!r}. Pass cubes=['cube.zarr']."
        )
    group = int(_checked(entries, "hdf5").get("patch", 4)) ** 2
    train, held = (Hdf5Samples(path, part, group) for part in ("training", "validation"))
    _check_series(path, (learner.config.steps, learner.config.sizes.inputs))
    return train, held


def _check_series(path: str, wanted: tuple[int, int]) -> None:
    import h5py

    with h5py.File(path, "r") as file:
        found = {n: file[n].shape for n in file}
    shape = found["X"][1:]
    if shape != wanted or found["y"] != found["X"][:2]:
        raise StoreError(
            f"{path} has X of shape {found['X']} and y of {found['y']}: expected (series, "
            f"{wanted[0]}, {wanted[1]}) and (series, {wanted[0]}) for this net."
        )
    clouds = {"actual_cloud_absense", "artificial_cloud_absense"}
    if "training_weights" not in found and not clouds <= set(found):
        raise StoreError(
            f"{path} lacks training_weights, it holds {', '.join(found)}: expected the weight of "
            "each step, as large as y."
        )


def _checked(entries: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Entries of the table `[samples]` by their names of today, but for the one named `kind`.

    Raises
    ------
    CubefillError
        An entry is unknown, of another type, or names gaps or a count that cannot be.
    """
    places, defaults = _ENTRIES[kind]
    names, kinds = [*places, *defaults], [*GAPS, "none"]
    values = {FORMER_ENTRIES.get(n, n): v for n, v in entries.items() if n != kind}
    for name, value in values.items():
        if name not in defaults:
            raise CubefillError(
                f"[samples] has unknown key {name!r}: expected one of {', '.join(names)}."
                f"{did_you_mean(name, names)}"
            )
        default: Any = defaults[name]
        wanted = (list, tuple) if isinstance(default, tuple) else (type(default),)
        alike = isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)
        if not alike:
            raise CubefillError(
                f"[samples] has {name} = {value!r}: expected a value such as {default!r}."
            )
        if name == "gaps" and FORMER.get(value, value) not in kinds:
            raise CubefillError(
                f"[samples] has unknown gaps = {value!r}: expected one of {', '.join(kinds)}."
                f"{did_you_mean(value, kinds)}"
            )
        if name == "count" and value < 1:
            raise CubefillError(
                f"[samples] has count = {value}: expected 1 or more samples to an epoch. "
                "Pass count=256."
            )
    return values


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Path) else list(value)


def _opened(cube: str | Path | xr.Dataset) -> xr.Dataset:
    """A cube, from its store or from a minicube (`.npz`, `.nc`)."""
    if isinstance(cube, xr.Dataset):
        return cube
    return minicube.read(cube) if Path(cube).suffix in MINICUBES else open_cube(cube)


@dataclass(frozen=True)
class CleanWindows:
    """The windows of minicubes that a JSON of GANFilling's authors lists, each a clear cube.

    Paths in the file are taken from its folder. A window is read when it is asked for.
    """

    path: str | Path

    @cached_property
    def listed(self) -> list[minicube.CleanWindow]:
        """The windows of all regions."""
        regions = minicube.read_clean_windows(self.path)
        found = [w for windows in regions.values() for w in windows]
        if not found:
            raise CubefillError(
                f"{self.path} lists no window: expected some. Use "
                "cubefill.samples.mine_clean_windows(cubes, 64) to find them."
            )
        return found

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> xr.Dataset:
        """One window, as `minicube.read` gives it."""
        window = self.listed[index]
        return window.cut(minicube.read(local_path(self.path).parent / window.path))
