"""What is imported only when it is used: names of a face; modules and options by former names.

`import cubefill` must cost little and load no torch, so faces resolve their names on first use.
"""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, TypeVar, cast

from cubefill.errors import CubefillWarning, MethodError

MOVED: dict[str, str] = {
    "cubefill.bands": "cubefill.cube.bands",
    "cubefill.checkpoint": "cubefill.nn.checkpoint",
    "cubefill.evaluate_decloud": "cubefill.evaluate.decloud",
    "cubefill.evaluate_tables": "cubefill.evaluate.tables",
    "cubefill.events": "cubefill.applications.mowing",
    "cubefill.indices": "cubefill.cube.indices",
    "cubefill.job": "cubefill.engine.job",
    "cubefill.method": "cubefill.methods",
    "cubefill.methods._torch": "cubefill.methods.learned.method",
    "cubefill.methods.cnnrnn": "cubefill.methods.learned.cnnrnn",
    "cubefill.methods.cubic": "cubefill.methods.pixel.cubic",
    "cubefill.methods.ganfilling": "cubefill.methods.learned.ganfilling",
    "cubefill.methods.harmonic": "cubefill.methods.pixel",
    "cubefill.methods.linear": "cubefill.methods.pixel.linear",
    "cubefill.methods.mowing": "cubefill.methods.learned.mowing",
    "cubefill.methods.msop": "cubefill.methods.learned.decloud_nets",
    "cubefill.methods.seq2seq": "cubefill.methods.learned.ganfilling",
    "cubefill.methods.smooth": "cubefill.methods.pixel",
    "cubefill.methods.ssop": "cubefill.methods.learned.decloud_nets",
    "cubefill.methods.stpconv": "cubefill.methods.learned.stpconv",
    "cubefill.methods.utilise": "cubefill.methods.learned.utilise",
    "cubefill.metrics_conventions": "cubefill.metrics.conventions",
    "cubefill.metrics_perceptual": "cubefill.metrics.perceptual",
    "cubefill.minicube": "cubefill.formats.earthnet",
    "cubefill.planning": "cubefill.engine.planning",
    "cubefill.train_recipe": "cubefill.train.recipe",
    "cubefill.train_samples": "cubefill.samples.patches",
    "cubefill.valid": "cubefill.cube.valid",
    "cubefill.windows": "cubefill.methods.windows",
}
"""Former path of a module to its path now; kept for one minor release."""

PARTED = {
    "cubefill.methods.harmonic:Climatology": "cubefill.methods.pixel.climatology:Climatology",
    "cubefill.methods.harmonic:Harmonic": "cubefill.methods.pixel.harmonic:Harmonic",
    "cubefill.methods.smooth:Savgol": "cubefill.methods.pixel.savgol:Savgol",
    "cubefill.methods.smooth:Whittaker": "cubefill.methods.pixel.whittaker:Whittaker",
}
"""Former "module:Class" to the one of today, where the classes of a module went apart."""

RENAMED = {
    "cubefill.events": {"of_cube": "mowing_events"},
    "cubefill.methods.msop": {"ConfigDavid": "MsopDavidConfig", "ConfigUnet": "MsopUnetConfig"},
    "cubefill.methods.ssop": {"ConfigMer": "SsopMerConfig", "ConfigUnet": "SsopUnetConfig"},
}
"""Names in a module of `MOVED` that are others today; its former path offers both."""


def current(target: str) -> str:
    """A "module:Class" with the module's path of today, whichever version wrote it.

    Examples
    --------
    >>> current("cubefill.methods.linear:Linear")
    'cubefill.methods.pixel.linear:Linear'
    """
    module, colon, name = target.partition(":")
    return PARTED.get(target) or MOVED.get(module, module) + colon + name


Called = TypeVar("Called", bound=Callable[..., Any])


def renamed(**now: str) -> Callable[[Called], Called]:
    """Accepts keyword arguments under their former names, with a warning, for one minor release.

    Examples
    --------
    >>> import warnings
    >>> call = renamed(colour="color")(lambda *, color: color)
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     call(colour="red"), str(said[0].message)
    ('red', 'colour= is now color=: use that. The former goes with the next minor release.')
    """

    def wrap(call: Called) -> Called:
        @functools.wraps(call)
        def with_former(*given: Any, **options: Any) -> Any:
            for before in [n for n in options if n in now]:
                warnings.warn(
                    f"{before}= is now {now[before]}=: use that. The former goes with the next "
                    "minor release.",
                    CubefillWarning,
                    stacklevel=2,
                )
                options[now[before]] = options.pop(before)
            return call(*given, **options)

        return cast(Called, with_former)

    return wrap


def import_module(name: str) -> Any:
    """The module, which may need torch or be torch.

    Raises
    ------
    MethodError
        torch is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise MethodError(
            f"{'This' if name == 'torch' else name} needs torch, which is not installed. Use "
            "pip install torch; methods without a net, such as 'linear' or 'whittaker', need none."
        ) from error


def on_first_use(
    face: str, public: Mapping[str, str], packages: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names are imported when asked for.

    Parameters
    ----------
    face
        `__name__` of the package.
    public
        Name of a module in the package to the public names it defines, parted by blanks.
    packages
        Names of packages and modules in it that are public themselves.
    """
    where = {name: module for module, names in public.items() for name in names.split()}
    inside = packages.split()

    def get(name: str) -> Any:
        full = f"{face}.{name}"
        if name in inside or full in MOVED:
            return import_module(full)
        if name not in where:
            raise AttributeError(f"module {face!r} has no attribute {name!r}")
        found = getattr(import_module(f"{face}.{where[name]}"), name)
        setattr(sys.modules[face], name, found)
        return found

    return get, lambda: sorted({*vars(sys.modules[face]), *where, *inside})


def when_imported(package: str, follower: str) -> None:
    """Imports the module `follower` as soon as `package` is there, which may be now."""
    if package not in sys.modules and package not in (getattr(f, "awaits", "") for f in _finders()):
        sys.meta_path.insert(0, _Awaited(package, follower))
    if package in sys.modules:
        importlib.import_module(package)  # another thread may be at it: waits for its end
        importlib.import_module(follower)


def _finders() -> list[Any]:
    return list(sys.meta_path)


class _Awaited(MetaPathFinder):
    """Finds a package as others do, and has its loader import the follower at the end.

    Stays until the package is executed: who asks for a spec only asks whether there is one.
    """

    def __init__(self, package: str, follower: str) -> None:
        self.awaits, self.follower = package, follower

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.awaits:
            return None
        others = (f.find_spec(name, path, target) for f in _finders() if f is not self)
        spec: ModuleSpec | None = next((found for found in others if found), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                importlib.import_module(self.follower)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Former(MetaPathFinder, Loader):
    """Gives a module under its former path, with a warning that names the path of today."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = MOVED[spec.name]
        warnings.warn(
            f"{spec.name} has moved: use {now}. The former path goes with the next minor release.",
            CubefillWarning,
            stacklevel=2,
        )
        module = importlib.import_module(now)
        if names := RENAMED.get(spec.name):
            former = ModuleType(spec.name)
            public = {n: v for n, v in vars(module).items() if not n.startswith("__")}
            vars(former).update(public, **{n: public[new] for n, new in names.items()})
            return former
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        former = module.__spec__  # the import system has put it where the module's own was
        if former is not None and former.loader_state is not None:
            module.__spec__ = former.loader_state


def keep_former_paths() -> None:
    """Lets `import` find the modules of `MOVED`."""
    if not any(isinstance(f, _Former) for f in sys.meta_path):
        sys.meta_path.append(_Former())
