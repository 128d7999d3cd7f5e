import builtins
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cubefill.errors import CubefillError, StoreError
from cubefill.nn import keras

Arrays = dict[str, NDArray[Any]]

WEIGHTS: dict[str, Arrays] = {
    "dense": {"dense/kernel:0": np.arange(6.0).reshape(2, 3), "dense/bias:0": np.ones(3)},
    "bidirectional": {"bidirectional/forward_lstm/lstm_cell_1/kernel:0": np.ones((2, 8))},
    "flatten": {},
}


def keras_file(path: Path, layers: dict[str, Arrays] = WEIGHTS, under: str = "") -> Path:
    """A file as Keras 2 writes it: the layer's group holds the full name of each weight."""
    with h5py.File(path, "w") as file:
        root = file.create_group(under) if under else file
        root.attrs["layer_names"] = [n.encode() for n in layers]
        file.attrs["model_config"] = '{"class_name": "Lambda", "code": "__import__(\'os\')"}'
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [n.encode() for n in weights]
            for name, a in weights.items():
                group.create_dataset(name, data=np.asarray(a, np.float32))
    return path


@pytest.mark.parametrize("under", ["", "model_weights"])
def test_weights_come_back_by_name(tmp_path: Path, under: str) -> None:
    found = keras.read(keras_file(tmp_path / "net.h5", under=under))
    wanted = {n: a for layer in WEIGHTS.values() for n, a in layer.items()}
    assert list(found) == list(wanted)
    for name, a in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], a)


def test_the_originals_are_read(reference_folder: Path) -> None:
    counts = {}
    for path in (reference_folder / "weights").glob("*.h5"):
        counts[path.name] = sum(a.size for a in keras.read(path).values())
    assert counts == {
        "stpconv_S5P_CO_model.h5": 21_678,
        "sf_fusion_model_weights.h5": 82_881,
        "mowing_model_weights.h5": 581_153,
    }


def test_layout_gives_the_same_convolutions() -> None:
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(6, 7, 4))
    slow = np.array(
        [[np.tensordot(x[i : i + 3, j : j + 2], a, axes=3) for j in range(6)] for i in range(4)]
    )
    image = torch.from_numpy(x.transpose(2, 0, 1)[None]).float()
    fast = torch.nn.functional.conv2d(image, keras.kernel(a))[0].permute(1, 2, 0)
    np.testing.assert_allclose(fast.numpy(), slow, atol=1e-5)
    dense = torch.nn.functional.linear(torch.ones(4), keras.kernel(a[0, 0]))
    np.testing.assert_allclose(dense.numpy(), a[0, 0].sum(0), atol=1e-6)


def test_table_must_name_every_weight() -> None:
    weights: Arrays = {"dense/kernel:0": np.zeros((2, 3), np.float32), "dense/bias:0": np.zeros(3)}
    names = {"dense/kernel:0": "last.weight", "dense/bias:0": "last.bias"}
    assert {n: tuple(t.shape) for n, t in keras.renamed(weights, names).items()} == {
        "last.weight": (3, 2),
        "last.bias": (3,),
    }
    with pytest.raises(StoreError, match=r"lacks 'dense_1/bias:0'.*3 weights"):
        keras.renamed(weights, {**names, "dense_1/bias:0": "more.bias"})
    with pytest.raises(StoreError, match=r"has 'dense/bias:0'"):
        keras.renamed(weights, {"dense/kernel:0": "last.weight"})


# ------------------------------------------------------------------ bad files


def test_truncated_at_any_place(tmp_path: Path) -> None:
    data = keras_file(tmp_path / "net.h5").read_bytes()
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        path = tmp_path / f"cut{share}.h5"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(StoreError, match=r"(cut short|not an HDF5)"):
            keras.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04 a zip", "Keras 3"),
        (b"\x80\x04\x95 a pickle", "not an HDF5"),
        (b"", "not an HDF5"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        keras.read(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No file"):
        keras.read(tmp_path / "net.h5")


def test_hdf5_of_another_program(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = np.zeros(3)
    with pytest.raises(StoreError, match=r"no layer_names, it holds X"):
        keras.read(tmp_path / "other.h5")


def test_listed_weight_is_absent_or_no_number(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "net.h5")
    with h5py.File(path, "a") as file:
        del file["dense/dense/bias:0"]
    with pytest.raises(StoreError, match=r"lacks 'dense/bias:0'"):
        keras.read(path)
    with h5py.File(path, "a") as file:
        file["dense/dense/bias:0"] = "words"
    with pytest.raises(StoreError, match="no numbers"):
        keras.read(path)


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    secret = keras_file(tmp_path / "secret.h5")
    path = keras_file(tmp_path / "net.h5")
    for link in (h5py.ExternalLink(str(secret), "/dense/dense/bias:0"), h5py.SoftLink("/dense")):
        with h5py.File(path, "a") as file:
            del file["dense/dense/bias:0"]
            file["dense/dense/bias:0"] = link
        with pytest.raises(StoreError, match="is a link"):
            keras.read(path)


def test_numbers_in_another_file_are_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "net.h5")
    (tmp_path / "raw").write_bytes(bytes(12))
    with h5py.File(path, "a") as file:
        del file["dense/dense/bias:0"]
        file["dense/dense"].create_dataset(
            "bias:0", shape=3, dtype="f4", external=[(str(tmp_path / "raw"), 0, 12)]
        )
    with pytest.raises(StoreError, match="another file"):
        keras.read(path)


def test_a_file_cannot_ask_for_more_memory_than_it_holds(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "net.h5")
    with h5py.File(path, "a") as file:
        del file["dense/dense/bias:0"]
        file["dense/dense"].create_dataset("bias:0", shape=10**12, dtype="f4", chunks=(1024,))
    with pytest.raises(StoreError, match="4000000000"):
        keras.read(path)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras_file(tmp_path / "net.h5")
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CubefillError, match=r"pip install cubefill\[convert\]"):
        keras.read(path)


def test_the_file_is_only_read(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "net.h5")
    shutil.copy(path, tmp_path / "copy.h5")
    path.chmod(0o444)
    keras.read(path)
    assert path.read_bytes() == (tmp_path / "copy.h5").read_bytes()
