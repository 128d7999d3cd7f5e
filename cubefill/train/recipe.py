"""Recipes: how a net is trained, as plain values from TOML or flags."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from math import cos, isfinite, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cubefill.addresses import local_path
from cubefill.errors import CubefillError, MethodError, did_you_mean
from cubefill.methods.registry import listed

if TYPE_CHECKING:
    from cubefill.nn import Adam

SHIPPED = Path(__file__).parent / "recipes"

SCHEDULES = ("constant", "steps", "cosine", "plateau")
PRECISIONS = ("float32", "bfloat16")

TABLES = ("config", "samples")
"""Entries of a recipe that are tables."""

_FREE = ("device", "workers", "epochs", "updates", "patience", "keep_every", "log_every")
"""Entries that may change between a run and its resumption."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Examples
    --------
    >>> Recipe(method="utilise", rate=2e-4).adam.rate
    0.0002
    """

    method: str = ""
    """Name of the method, or "module:Class"."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the method's `Config` that differ from its defaults."""
    samples: Mapping[str, Any] = field(default_factory=dict)
    """Where samples come from when the recipe is run by name: see `run_recipe`."""

    loss: str = "l1"
    """One of `nn.losses.LOSSES`."""
    rate: float = 1e-3
    """Learning rate of Adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.0
    """Weight decay; above 0 it is that of AdamW."""
    adversary_rate: float = 2e-4
    adversary_betas: tuple[float, float] = (0.5, 0.999)
    weight: float = 100.0
    """Weight of the reconstruction loss relative to the adversarial loss."""

    epochs: int = 10
    updates: int = 0
    """Stop after this many updates; 0 for all epochs."""
    batch: int = 4
    """Samples of an update, over all processes."""
    micro: int = 0
    """Samples of a pass: gradients of passes add up to those of the batch; 0 for the batch."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 for any."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which then is scored and kept; 0 for none."""
    precision: str = "float32"
    """"bfloat16" on CUDA, or on a CPU that multiplies it in hardware."""

    schedule: str = "constant"
    """"steps" (at `milestones`), "cosine" (to 0 over all epochs), "plateau" (no better score)."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the rate is multiplied by `factor`."""
    factor: float = 0.5
    plateau: int = 3
    """Epochs without a better score after which the rate is multiplied by `factor`."""
    least_rate: float = 0.0
    patience: int = 0
    """Epochs without a better score after which training stops; 0 for never."""
    better_by: float = 0.0
    """How much lower a score must be to count as better, for `patience` and `plateau`."""

    seed: int = 0
    device: str = "auto"
    workers: int = 0
    """Processes that prepare samples; 0 for none beside this one."""
    keep_every: int = 0
    """Updates between two resumable states; 0 for the end of each epoch."""
    log_every: int = 10
    """Updates between two lines of the log."""

    def __post_init__(self) -> None:
        for name in ("betas", "adversary_betas", "milestones"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for f in fields(self):
            value, default = getattr(self, f.name), _default(f)
            _check_type(f.name, value, default)
            _check_range(f.name, value, default)
        _check_together(self)

    @property
    def adam(self) -> "Adam":
        """Settings for the net."""
        from cubefill.nn import Adam

        return Adam(self.rate, self.betas, self.decay, self.eps)

    @property
    def adversary(self) -> "Adam":
        """Settings for a discriminator."""
        from cubefill.nn import Adam

        return Adam(self.adversary_rate, self.adversary_betas, self.decay, self.eps)

    def scheduled(self, epoch: int, plateaus: int) -> float:
        """Factor of the learning rate in an epoch, counted from 0, after so many plateaus."""
        if self.schedule == "steps":
            found = self.factor ** sum(epoch >= m for m in self.milestones)
        elif self.schedule == "cosine":
            found = (1 + cos(pi * epoch / self.epochs)) / 2
        elif self.schedule == "plateau":
            found = self.factor**plateaus
        else:
            found = 1.0
        return max(found, self.least_rate / self.rate)

    def to_dict(self) -> dict[str, Any]:
        """Every entry, as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @property
    def fingerprint(self) -> str:
        """Digest of all that shapes the weights; a resumed run must have the same."""
        held = {n: v for n, v in self.to_dict().items() if n not in (*_FREE, "samples")}
        return sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def from_dict(values: Mapping[str, Any], source: str = "the recipe") -> Recipe:
    """A recipe of plain values.

    Raises
    ------
    CubefillError
        A key is unknown (the valid ones are listed, the nearest is suggested), or a value is of
        another type.
    """
    return _made(Recipe, values, source)


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe with some entries replaced, as flags of a command line do.

    A dot reaches into a table: "config.patch" replaces that one field of `config`.

    Raises
    ------
    CubefillError
        As `from_dict`; also a dot in a key that is not of `config` or `samples`.

    Examples
    --------
    >>> with_options(Recipe(config={"patch": 64, "pad": 4}), {"config.patch": 32}).config
    {'patch': 32, 'pad': 4}
    """
    whole = {n: v for n, v in options.items() if "." not in n}
    made = _made(partial(replace, recipe), whole, "the options")
    for name, value in options.items():
        table, dot, entry = name.partition(".")
        if dot and (table not in TABLES or not entry):
            raise CubefillError(
                f"the options has unknown key {name!r}: expected an entry of a table of "
                f"{', '.join(TABLES)}, such as config.patch or samples.count."
            )
        if dot:
            changed: dict[str, Any] = {table: {**getattr(made, table), entry: value}}
            made = replace(made, **changed)
    return made


def read(path: str | Path) -> Recipe:
    """The recipe of a TOML file, or a shipped one by its name.

    Raises
    ------
    CubefillError
        There is no such file or name, it is not TOML, or has an unknown key.

    Examples
    --------
    >>> read("utilise").batch
    3
    """
    found = local_path(path)
    if not found.is_file():
        found = SHIPPED / f"{path}.toml"
    if not found.is_file():
        raise CubefillError(
            f"No recipe {path}: expected a TOML file, or one of {', '.join(shipped())}."
        )
    try:
        values = tomllib.loads(found.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CubefillError(f"{found} is not TOML: {error}.") from error
    method = values.get("method", "")
    if isinstance(method, str) and method and not listed(method):
        raise MethodError(
            f"{found} has method = {method!r}: expected a name of cubefill.list_methods(), for a "
            f"file never names code to run. Pass method={method!r} yourself and leave the entry "
            "out, or register the class."
        )
    return from_dict(values, str(found))


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(p.stem for p in SHIPPED.glob("*.toml"))


def _made(make: Callable[..., Recipe], values: Mapping[str, Any], source: str) -> Recipe:
    known = [f.name for f in fields(Recipe)]
    unknown = [k for k in values if k not in known]
    if unknown:
        raise CubefillError(
            f"{source} has unknown key {unknown[0]!r}: expected one of {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)}"
        )
    try:
        return make(**values)
    except CubefillError as error:
        raise CubefillError(f"{source}: {error}") from error


# ------------------------------------------------------------------ what an entry may be

_Test = tuple[str, Callable[[Any], bool]]

_ABOVE: _Test = ("more than 0", lambda v: v > 0)
_ANY: _Test = ("0 or more", lambda v: v >= 0)
_SOME: _Test = ("1 or more", lambda v: v >= 1)
_BETAS: _Test = (
    "two numbers from 0 to less than 1",
    lambda v: len(v) == 2 and all(_is_number(b) and 0 <= b < 1 for b in v),
)

_RANGES: dict[str, _Test] = {
    **dict.fromkeys(("rate", "adversary_rate", "eps"), _ABOVE),
    **dict.fromkeys(("epochs", "batch", "plateau", "log_every"), _SOME),
    **dict.fromkeys(("decay", "weight", "clip", "least_rate", "better_by"), _ANY),
    **dict.fromkeys(("updates", "micro", "patience", "workers", "keep_every"), _ANY),
    **dict.fromkeys(("betas", "adversary_betas"), _BETAS),
    "ema": ("0 or more and less than 1", lambda v: 0 <= v < 1),
    "factor": ("more than 0 and at most 1", lambda v: 0 < v <= 1),
    "seed": ("0 to 2**63 - 1", lambda v: 0 <= v < 2**63),
    "schedule": (f"one of {', '.join(SCHEDULES)}", lambda v: v in SCHEDULES),
    "precision": (f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
    "milestones": (
        "epochs that increase, each 1 or more",
        lambda v: (
            all(isinstance(m, int) and not isinstance(m, bool) for m in v)
            and all(a < b for a, b in pairwise((0, *v)))
        ),
    ),
}
"""What an entry must be, in words, and the test of it."""

_TYPED = {"milestones": (50, 100), "method": "utilise"}
"""What to type where the default says nothing."""


def _default(f: Any) -> Any:
    return f.default if not callable(f.default_factory) else f.default_factory()


def _typed(name: str, default: Any) -> str:
    value = _TYPED.get(name, default)
    if isinstance(value, dict):
        return f" Pass {name}={{'KEY': 'VALUE'}}."
    shown = str(list(value)).replace(" ", "") if isinstance(value, tuple) else repr(value)
    return f" Pass {name}={shown}."


def _check_type(name: str, value: Any, default: Any) -> None:
    kind = type(default)
    wanted: tuple[type, ...] = (kind,)
    if kind is float:
        wanted = (float, int)
    elif kind is dict:
        wanted = (Mapping,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise CubefillError(f"{name} = {value!r}: expected {kind.__name__}.{_typed(name, default)}")


def _check_range(name: str, value: Any, default: Any) -> None:
    if isinstance(default, float) and not isfinite(value):
        raise CubefillError(f"{name} = {value!r}: expected a number.{_typed(name, default)}")
    expected, holds = _RANGES.get(name, ("", lambda _: True))
    if not holds(value):
        raise CubefillError(f"{name} = {value!r}: expected {expected}.{_typed(name, default)}")


def _check_together(recipe: Recipe) -> None:
    if recipe.schedule == "steps" and not recipe.milestones:
        raise CubefillError(
            "schedule = 'steps' without milestones: expected epochs after which the rate falls. "
            "Pass milestones=[50,100], or schedule='constant'."
        )
    if recipe.least_rate > recipe.rate:
        raise CubefillError(
            f"least_rate = {recipe.least_rate}: expected at most the rate, {recipe.rate}. Pass "
            "least_rate=0.0."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
