"""stub."""

QUIRKS = ()


def write_catalogue() -> None:
    """None."""
