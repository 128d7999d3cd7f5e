"""A method whose numbers change carries another revision: what it gives is kept here in numbers.

`revisions.json` holds each method's revision and a few sums of its output on a made cube. Where the
numbers of a method are meant to change, give its class another `revision` (`std_revision` where
those of its errors are) and write the file anew:
`python -m tests.methods.test_revisions`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from cubefill.engine import gapfill
from cubefill.methods import METHODS, resolve, traits
from cubefill.methods.learned.method import TorchMethod, card_of
from cubefill.nn import checkpoint

KEPT = Path(__file__).with_name("revisions.json")

CONFIGS: dict[str, dict[str, Any]] = {
    "ssop_mer": {"patch": 16, "pad": 4, "width": 4, "blocks": 2},
    "ssop_unet": {"patch": 16, "pad": 4, "widths": (4, 4, 4)},
    "msop_unet": {"patch": 16, "pad": 4, "widths": (4, 4, 4)},
    "msop_david": {"patch": 16, "pad": 4, "widths": (4, 4, 4)},
    "utilise": {"patch": 16, "pad": 4, "widths": (8, 8, 8), "dates": 6},
    "ganfilling": {"width": 4},
    "seq2seq": {"width": 4},
    "stpconv": {"filters": (2, 3), "size": 20},
    "cnnrnn": {"steps": 8, "coherence": False, "convs": (2, 3), "features": 4, "units": 3},
    "mowing": {"steps": 8, "features": 4, "convs": (2, 3), "units": 3},
}
"""Small nets; their weights are a fixed wave."""


def wave(shape: tuple[int, ...], speed: float) -> np.ndarray[Any, Any]:
    """Values from 0 to 1 that no generator of random numbers had a part in."""
    return np.abs(np.sin(np.arange(np.prod(shape)) * speed)).reshape(shape).astype(np.float32)


def made_cube(dates: int = 24, size: int = 20) -> xr.Dataset:
    """All that any method asks for, on dates six days apart."""
    shape, dims = (dates, size, size), ("time", "y", "x")
    names = ("B02", "B03", "B04", "B08", "NDVI")
    ds = xr.Dataset({n: (dims, 0.1 + 0.3 * wave(shape, 0.7 + i)) for i, n in enumerate(names)})
    ds["valid"] = dims, wave(shape, 1.37) > 0.4
    for i, name in enumerate(("VV", "VH")):
        ds[name] = dims, -20 + 10 * wave(shape, 0.9 + i)
    for i, name in enumerate(("COH_VV", "COH_VH")):
        ds[name] = dims, wave(shape, 0.3 + i)
    ds["sar_valid"] = dims, np.ones(shape, bool)
    ds["DEM"] = ("y", "x"), 100 * wave(shape[1:], 0.2)
    start, step = np.datetime64("2023-03-01T10:30", "ns"), np.timedelta64(6, "D")
    along = 10.0 * np.arange(size)
    return ds.assign_coords(time=start + np.arange(dates) * step, y=5e6 - along, x=5e5 + along)


def method_of(name: str, folder: str) -> Any:
    """The method, a net with weights that every machine makes the same."""
    method: Any = resolve(name)
    if not isinstance(method, TorchMethod):
        return method
    method = method.configured(**CONFIGS[name])
    state = method.net(method.config).state_dict()
    for i, (key, tensor) in enumerate(state.items()):
        if tensor.is_floating_point():
            values = wave(tuple(tensor.shape), 0.61 + 0.01 * i)
            shift = 0.0 if key.endswith("var") else 0.5
            spread = max(1.0, tensor.numel() / max(1, tensor.shape[0] if tensor.ndim else 1))
            state[key] = torch.from_numpy(np.asarray((values - shift) * (2 / spread**0.5)))
    checkpoint.save(f"{folder}/{name}", state, card_of(method))
    return type(method)(checkpoint=f"{folder}/{name}", device="cpu")


def numbers_of(name: str, folder: str) -> dict[str, Any]:
    """The revision of a method, and sums of what it gives that any change of values moves."""
    method = method_of(name, folder)
    what = traits(method, ("B04",))
    levels = (0.05, 0.95) if what.gives_quantiles else ()
    out = gapfill(made_cube(), method, std=what.gives_std, quantiles=levels).compute()
    found: dict[str, Any] = {"revision": what.revision, "std_revision": what.std_revision}
    for variable in map(str, out.data_vars):
        values = out[variable].values.astype(float)
        known = np.isfinite(values)
        sums = [known.mean(), *(np.nanmean(values * wave(values.shape, s)) for s in (0.11, 2.3))]
        found[variable] = [float(f"{s:.6g}") for s in sums]
    return found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_numbers_are_those_of_the_revision(name: str, tmp_path: Path) -> None:
    kept = json.loads(KEPT.read_text())[name]
    found = numbers_of(name, str(tmp_path))
    assert found.keys() == kept.keys()
    for revision in ("revision", "std_revision"):
        assert found.pop(revision) == kept.pop(revision), "write revisions.json anew"
    for variable, sums in found.items():
        np.testing.assert_allclose(
            sums, kept[variable], rtol=2e-4, atol=1e-6,
            err_msg=f"{name} gives other numbers: give it another revision",
        )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = {n: numbers_of(n, scratch) for n in sorted(METHODS)}
    lines = ",\n".join(f'"{n}": {json.dumps(t)}' for n, t in text.items())
    KEPT.write_text(f"{{\n{lines}\n}}\n")
