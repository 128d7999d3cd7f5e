"""The table of names: which class stands for which method's name, and how more are added."""

from importlib.metadata import entry_points

from cubefill.errors import MethodError, did_you_mean

METHODS: dict[str, str] = {
    "nearest": "cubefill.methods.pixel.linear:Nearest",
    "last": "cubefill.methods.pixel.linear:Last",
    "next": "cubefill.methods.pixel.linear:Next",
    "linear": "cubefill.methods.pixel.linear:Linear",
    "linear2": "cubefill.methods.pixel.linear:Linear2",
    "pchip": "cubefill.methods.pixel.cubic:Pchip",
    "akima": "cubefill.methods.pixel.cubic:Akima",
    "quadratic": "cubefill.methods.pixel.cubic:Quadratic",
    "savgol": "cubefill.methods.pixel.smooth:Savgol",
    "whittaker": "cubefill.methods.pixel.smooth:Whittaker",
    "harmonic": "cubefill.methods.pixel.harmonic:Harmonic",
    "climatology": "cubefill.methods.pixel.harmonic:Climatology",
    "ssop_mer": "cubefill.methods.learned.ssop:SsopMer",
    "ssop_unet": "cubefill.methods.learned.ssop:SsopUnet",
    "msop_unet": "cubefill.methods.learned.msop:MsopUnet",
    "msop_david": "cubefill.methods.learned.msop:MsopDavid",
    "utilise": "cubefill.methods.learned.utilise:Utilise",
    "ganfilling": "cubefill.methods.learned.ganfilling:GanFilling",
    "seq2seq": "cubefill.methods.learned.seq2seq:Seq2Seq",
    "stpconv": "cubefill.methods.learned.stpconv:STpconv",
    "cnnrnn": "cubefill.methods.learned.cnnrnn:CnnRnn",
    "mowing": "cubefill.methods.learned.mowing:Mowing",
}
"""Name to "module:Class"; nothing is imported until a method is asked for."""

AUTO = "linear"
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
    return name == "auto" or name in table()


def target_of(name: str) -> str:
    """The "package.module:Class" that a name stands for; such a string stands for itself.

    Raises
    ------
    MethodError
        The name is unknown; the nearest one is suggested.

    Examples
    --------
    >>> target_of("auto")
    'cubefill.methods.pixel.linear:Linear'
    """
    if name == "auto":
        name = AUTO
    if name in METHODS:
        return METHODS[name]
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
    """The name that stands for a "package.module:Class", else that string."""
    known = next((n for n, t in METHODS.items() if t == target), None)
    return known or next((n for n, t in table().items() if t == target), target)
