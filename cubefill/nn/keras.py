"""Weights of Keras nets: arrays of an HDF5 file by layer name, in torch's layout.

Only numbers are read. Configurations, pickles and links out of the file are never followed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cubefill.addresses import local_path
from cubefill.errors import CubefillError, StoreError
from cubefill.nn.original import published

Float = NDArray[np.float32]

LARGEST_RATIO = 64
"""Bytes that the arrays of a file may have for each byte of it."""


def read(path: str | Path) -> dict[str, Float]:
    """Every weight of a Keras HDF5 file: "layer/weight" to its array, in Keras' own layout.

    Names are those that Keras gives: `conv1d/kernel:0`,
    `bidirectional/forward_lstm/lstm_cell_1/kernel:0`. Files of weights and of whole models are
    read; of a model only the weights.

    Raises
    ------
    CubefillError
        h5py is not installed.
    StoreError
        The file is absent, cut short, no HDF5, of another program, or links out of itself.

    Examples
    --------
    >>> import h5py, tempfile
    >>> path = tempfile.mkdtemp() + "/net.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file.attrs["layer_names"] = ["dense"]
    ...     file.create_group("dense").attrs["weight_names"] = ["dense/bias:0"]
    ...     file["dense/dense/bias:0"] = [1.0, 2.0]
    >>> read(path)
    {'dense/bias:0': array([1., 2.], dtype=float32)}
    """
    h5py = hdf5("Keras weights are HDF5 files")
    path = local_path(path)
    _check_head(path)
    try:
        with h5py.File(path, "r") as file:
            layers = _layers(file, path)
            found = {n: d for layer in layers for n, d in _weights(h5py, layer, path)}
            _check_bytes(found, path)
            return {n: np.asarray(d[()], np.float32) for n, d in found.items()}
    except (KeyError, RuntimeError, ValueError) as error:
        raise _broken(path, error) from error
    except OSError as error:
        raise error if isinstance(error, StoreError) else _broken(path, error) from error


def kernel(a: NDArray[Any]) -> Tensor:
    """A kernel `(..., in, out)` of a Dense or Conv layer as torch has it, `(out, in, ...)`.

    A transposed kernel `(y, x, out, in)` becomes `(in, out, y, x)`, which is torch's too, and
    the kernel `(in, 4 units)` of an LSTM becomes `(4 units, in)` with its gates in torch's order
    (input, forget, candidate, output).

    Examples
    --------
    >>> kernel(np.zeros((3, 5, 1, 16))).shape
    torch.Size([16, 1, 3, 5])
    """
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, (-1, -2), (0, 1)), np.float32))


def bias(a: NDArray[Any]) -> Tensor:
    """A bias `(out,)` as torch has it."""
    return torch.from_numpy(np.array(a, np.float32))


def renamed(weights: Mapping[str, NDArray[Any]], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors in torch's layout under our names, from a table of Keras name to ours.

    File and table must name the same weights; those of one axis are biases, all others kernels.

    Raises
    ------
    StoreError
        The first weight that the file lacks, or that the table does not know.
    """
    missing = [n for n in names if n not in weights]
    unknown = [n for n in weights if n not in names]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}, which is not expected"
        raise StoreError(
            f"The Keras file {what}: expected the {len(names)} weights of this net, got "
            f"{len(weights)}. Pass the file of this net and configuration."
        )
    return {
        ours: bias(weights[theirs]) if weights[theirs].ndim == 1 else kernel(weights[theirs])
        for theirs, ours in names.items()
    }


# ------------------------------------------------------------------ the file


def hdf5(what: str) -> Any:
    """The module h5py, which `what` asks for.

    Raises
    ------
    CubefillError
        It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise CubefillError(
            f"{what}, and h5py is not installed. Use pip install cubefill[convert]"
        ) from error
    return h5py


def _check_head(path: Path) -> None:
    head, size = published(path), path.stat().st_size
    if head[:2] == b"PK":
        raise StoreError(
            f"{path} is a zip file, such as Keras 3 writes: expected HDF5. "
            "Use model.save_weights('net.h5') in the Keras that made it."
        )
    if head[:8] != b"\x89HDF\r\n\x1a\n":
        raise StoreError(
            f"{path} ({size} bytes) is not an HDF5 file: expected Keras weights (.h5)."
        )


def _layers(file: Any, path: Path) -> list[Any]:
    """Groups of layers, in Keras' order."""
    root = file
    if "layer_names" not in root.attrs and "model_weights" in root:
        root = _inside(root, "model_weights", path)
    if "layer_names" not in root.attrs:
        inside = ", ".join(list(file)[:5]) or "nothing"
        raise StoreError(
            f"{path} has no layer_names, it holds {inside}: expected weights that Keras 2 saved. "
            "Use model.save_weights('net.h5')."
        )
    return [_inside(root, name, path) for name in _texts(root.attrs["layer_names"])]


def _weights(h5py: Any, layer: Any, path: Path) -> list[tuple[str, Any]]:
    found = []
    for name in _texts(layer.attrs.get("weight_names", ())):
        data = _inside(layer, name, path)
        if not isinstance(data, h5py.Dataset) or data.dtype.kind != "f":
            raise StoreError(f"{path} has no numbers at {name!r}: expected a Keras weight.")
        if data.is_virtual or data.external:
            raise StoreError(f"{path} keeps {name!r} in another file: expected it inside.")
        found.append((name, data))
    return found


def _inside(group: Any, name: str, path: Path) -> Any:
    """A member of a group, reached by hard links only."""
    for part in name.split("/"):
        link = group.get(part, getlink=True) if hasattr(group, "keys") else None
        if link is None:
            raise StoreError(
                f"{path} lacks {name!r}, which it lists: it is damaged. Try to copy it again."
            )
        if type(link).__name__ != "HardLink":
            raise StoreError(f"{path} is refused: {name!r} is a link. Expected the weight itself.")
        group = group[part]
    return group


def _check_bytes(found: Mapping[str, Any], path: Path) -> None:
    """Refuses arrays that the file cannot hold, before memory is taken for them."""
    total, size = sum(int(d.nbytes) for d in found.values()), path.stat().st_size
    if total > LARGEST_RATIO * size:
        raise StoreError(
            f"{path} ({size} bytes) claims to hold {total} bytes of weights: it is damaged. "
            "Try to copy it again."
        )


def _texts(names: Any) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names]


def _broken(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} ({path.stat().st_size} bytes) cannot be read ({error}): it is cut short or "
        "damaged. Try to copy it again."
    )
