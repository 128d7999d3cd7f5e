"""What an address names, a path of this machine or a place elsewhere; how it may be said."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from cubefill.errors import StoreError

_FILE = re.compile(r"(?:file|local):(?://)?(?P<host>[^/]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"\?[^\s'\"]*")
_TOKEN = re.compile(r"\b((?:access_?)?token|sig|signature|key|password)=[^/&\s'\"]+", re.IGNORECASE)

PACKAGES = {
    "s3": "'cubefill[cloud]'", "s3a": "'cubefill[cloud]'", "gs": "gcsfs", "gcs": "gcsfs",
    "http": "aiohttp", "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "adl": "adlfs",
}  # fmt: skip
"""What pip installs so that fsspec opens URLs of a kind."""


def local(address: str) -> str:
    """A `file://` URL as a path; any other text as it is.

    Raises
    ------
    StoreError
        The URL names another machine, which `file://` cannot reach.

    Examples
    --------
    >>> local("file:///data/my%20cube.zarr"), local("s3://bucket/cube.zarr")
    ('/data/my cube.zarr', 's3://bucket/cube.zarr')
    """
    found = _FILE.fullmatch(address)
    if found is None:
        return address
    host, path = found["host"], unquote(found["path"])
    if host not in ("", "localhost"):
        raise StoreError(
            f"{address} names the machine {host!r}: expected three slashes and an absolute path, "
            f"such as file:///{host}{path}. Use {host + path!r} for a path from here."
        )
    return path


def local_path(address: str | os.PathLike[str]) -> Path:
    """The path of this machine that a path or a `file://` URL names.

    Raises
    ------
    StoreError
        It is a URL of another kind, or a name that no file can have.

    Examples
    --------
    >>> local_path("file:///data/net"), local_path("net")
    (PosixPath('/data/net'), PosixPath('net'))
    """
    text = local(os.fspath(address))
    if is_url(text):
        raise StoreError(
            f"{bare(text)} is a URL: expected a path of this machine here. Use a local path, and "
            "copy the file."
        )
    path = Path(os.path.expanduser(text))
    try:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(
            f"{text[:80]!r} is no name of a file ({why}): expected a path. Choose another path."
        ) from error
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block a file that cannot be written is an error of ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}): expected a file in a folder "
            "that is there. Choose another path."
        ) from error


def is_url(text: str) -> bool:
    """True where text names a place by a scheme, such as `s3://bucket`; also after `Path`."""
    return _URL.match(text) is not None


def bare(text: str) -> str:
    """Text in which URLs have neither user, query nor token, where secrets stand.

    Examples
    --------
    >>> bare("no http://me:secret@host/a.tif?sig=abc there")
    'no http://host/a.tif there'
    """
    return _TOKEN.sub(r"\1=...", _QUERY.sub("", _USER.sub("", text)))


def unopened(address: str, error: Exception) -> StoreError:
    """The error for an address that fsspec does not open, with what to install or to pass."""
    scheme = address.partition("://")[0].rpartition("::")[2].lower()
    where = bare(address)
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme)
        more = f"Use pip install {package}." if package else f"It says: {error}."
        return StoreError(f"{where} needs a package that is not installed. {more}")
    if "not known" in str(error):
        return StoreError(
            f"{where} is of the unknown kind {scheme!r}: expected a path, or a URL that starts "
            "with file://, s3://, gs://, https:// or another scheme of fsspec. Check the address."
        )
    return StoreError(
        f"{where} cannot be opened ({type(error).__name__}: {bare(str(error))}). Check the address "
        "and storage_options=."
    )
