"""Bad input, as a user meets it: the refusal and what it says, or the answer where there is one.

Where each kind is tested, "here" for this file and test_bad_checkpoint.py:

- checkpoint of another method: here; `TorchMethod` alone in methods/test_torch.py
- missing key, unexpected key, wrong shape: here; `load_state` alone in test_checkpoint.py
- truncated safetensors: here; cut at every part of the file in test_checkpoint.py
- a pickle with code: in place of weights here; an author's `.pt` in test_checkpoint.py and
  methods/test_ganfilling.py; the state of a training in test_train.py
- an author's `.pt` with a foreign class: here; cut short, or a git-lfs pointer, in
  test_checkpoint.py
- broken card, digest of other weights, absent folder: here; `load` alone in test_checkpoint.py
- bands missing or in another order, no SAR: here; `Needs` alone in test_planning.py
- too few dates: here; `min_dates` in test_planning.py, the laws of each method in methods/
- patch larger than the cube: here; samples that do not fit in test_train.py and test_samples*.py
- NaN in SAR: here; pixels that SAR never saw in methods/test_cnnrnn.py
- empty layout search: test_layout.py (`choose`), test_samples*.py (`samples.make`)
- split with an empty part: too few places in test_samples*.py; a part that is left empty once
  gaps were tried, and opening an empty one, here
- absent accelerator, emulated bfloat16: here; while training in test_train.py
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import cubefill
from cubefill import samples, simulate, train
from cubefill.engine import gapfill
from cubefill.errors import CubeError, CubefillWarning, DeviceError, MethodError, StoreError
from cubefill.gaps import Blobs
from cubefill.methods import METHODS, Needs, resolve
from cubefill.methods.learned import passes as _pass
from cubefill.methods.learned.mowing import Mowing
from cubefill.methods.learned.utilise import Utilise, UtiliseConfig, day_of_year
from cubefill.methods.windows import Span
from cubefill.nn import checkpoint
from cubefill.samples.patches import CubeSamples
from cubefill.train.recipe import Recipe
from tests.shared.bad_cases import (
    BANDS,
    PATCHES,
    TINY,
    WITH_SAR,
    cube,
    filled,
    gives,
    net,
    same,
    whole,
)
from tests.shared.decloud import made
from tests.shared.strategies import Neighbours
from tests.shared.torch_thread import one_thread as one_thread

# ------------------------------------------------------------------ bands and SAR


@pytest.mark.parametrize("name", [n for n in TINY if n != "stpconv"])
def test_missing_bands_are_named(name: str) -> None:
    ds = cube().drop_vars("B08")
    told = r"needs band B08; the cube has B02, B03, B04\. Load it with bands=.*'B08'"
    with pytest.raises(MethodError, match=told):
        ds.gapfill(name, checkpoint=net(name))


def test_bands_under_other_names_and_an_absent_ndvi() -> None:
    foreign = cube().rename(B04="red", B08="nir")
    with pytest.warns(CubefillWarning, match="Read red as B04, nir as B08"):
        same(filled(foreign), filled(cube()))
    whole(filled(cubefill.cube.conform(foreign)), cube())
    with pytest.raises(MethodError, match=r"needs band B04, B08; .*conform\(ds\) to rename red, n"):
        _ = CubeSamples([foreign], resolve("utilise"), Blobs())[0]
    mowing = made(Mowing, steps=8, features=4, convs=(2, 3), units=3)
    with pytest.raises(
        MethodError, match=r"needs band NDVI.*use cubefill\.cube\.indices\.with_ndvi"
    ):
        cube().gapfill("mowing", checkpoint=mowing.checkpoint)


@pytest.mark.parametrize("name", TINY)
def test_the_order_of_bands_in_the_cube_is_nothing(name: str) -> None:
    ds = cube()
    turned = ds[["valid", "VH", "B08", "sar_valid", "B03", "SCL", "B02", "VV", "B04"]]
    out = filled(ds, name)
    whole(out, ds)
    same(out, filled(turned, name))


@pytest.mark.parametrize("name", WITH_SAR)
@pytest.mark.parametrize(
    ("spoil", "came"),
    [
        (lambda ds: ds.drop_vars(["VV", "VH", "sar_valid"]), "has no Sentinel-1"),
        (lambda ds: ds.drop_vars("VH"), "lacks VH"),
        (
            lambda ds: ds.assign({n: ds[n].rename(time="sar_time") for n in ("VV", "VH")}),
            "has VV on sar_time, y, x",
        ),
    ],
)
def test_no_sar_says_which_methods_do_without(
    name: str, spoil: Callable[[xr.Dataset], xr.Dataset], came: str
) -> None:
    ds = spoil(cube(dates=12))
    told = rf"{name}' needs VV, VH and sar_valid on time: the cube {came}\. Load it with sar=True"
    with pytest.raises(MethodError, match=told) as error:
        ds.gapfill(name, checkpoint=net(name))
    text = str(error.value)
    listed = text.split("needs none: ")[1].rstrip(".").split(", ")
    assert set(listed) == set(METHODS) - set(WITH_SAR)
    assert ("[config] sar = false" in text) == (name != "cnnrnn")
    plain = cube(dates=12, sar=False)
    for other in listed:
        plain.gapfill(other, **({"checkpoint": net(other)} if other in TINY else {}))
    if name != "cnnrnn":
        whole(filled(plain, name, net(name, sar=False)), plain)


def unseen(ds: xr.Dataset, value: dict[str, float]) -> xr.Dataset:
    """The cube with SAR that is `value` at a third of all pixels and on one whole date."""
    lost = np.random.default_rng(3).random(ds["VV"].shape) < 0.3
    lost[2] = True
    return ds.assign({n: ds[n].where(~lost, np.float32(v)) for n, v in value.items()})


@pytest.mark.parametrize("name", [*WITH_SAR, "utilise"])
def test_sar_without_numbers_is_no_data(name: str) -> None:
    place = net(name, sar=True) if name == "utilise" else net(name)
    ds = cube()
    lost = unseen(ds, {"VV": np.nan, "VH": np.nan})
    assert np.isnan(lost["VV"].values).mean() > 0.3
    out = filled(lost, name, place)
    whole(out, ds)
    seen = filled(ds, name, place)
    assert any((out[n].values != seen[n].values).any() for n in gives(out))
    if name == "utilise":
        same(out, filled(unseen(ds, {"VV": -25.0, "VH": -32.5}), name, place))


@pytest.mark.parametrize("name", ["ssop_unet", "cnnrnn"])
def test_sar_without_numbers_trains(name: str, tmp_path: Path) -> None:
    ds = unseen(cube(12, (20, 20)), {"VV": np.nan, "VH": np.nan})
    method: Any = resolve(name)
    learner = method.configured(**TINY[name])
    given = CubeSamples([ds], learner, Blobs(), count=2, dates=6)
    recipe = Recipe(method=name, epochs=1, batch=2, device="cpu")
    place = train.fit(learner, given, recipe, tmp_path / "net", progress=False)
    whole(filled(ds, name, place), ds)


# ------------------------------------------------------------------ too small a cube


def test_a_cube_shorter_than_a_span() -> None:
    method = Neighbours(time_size=9, time_keep=3)
    with pytest.raises(
        MethodError, match=r"needs 9 distinct dates; the cube has 6\. Load a longer"
    ):
        gapfill(cube(6), method)
    doubled = cube(days=[0, 1, 2, 3, 4, 5, 6, 7, 7.001])
    with (
        pytest.warns(CubefillWarning, match="more than one acquisition"),
        pytest.raises(MethodError, match="needs 9 distinct dates; the cube has 8"),
    ):
        gapfill(doubled, method)
    enough = gapfill(cube(9), method).compute()
    assert np.isfinite(enough["B04"].values).all()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dates", [1, 2])
def test_one_or_two_dates_are_filled(name: str, dates: int) -> None:
    ds = cube(dates, (16, 16), gap=0.0)
    valid = np.random.default_rng(1).random(ds["valid"].shape) < 0.7
    ds["valid"] = (ds["valid"].dims, valid)
    whole(filled(ds, name), ds)


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_a_patch_larger_than_the_cube_sees_it_reflected(name: str, size: tuple[int, int]) -> None:
    ds = cube(size=size)
    edge = 128 if name in ("ganfilling", "seq2seq") else 16
    around = cube(size=(edge, edge))
    for n, v in ds.data_vars.items():
        wide = [(0, 0), *((0, edge - length) for length in size)]
        around[n] = (v.dims, np.pad(v.values, wide, mode="reflect"))
    out = filled(ds, name)
    whole(out, ds)
    same(out, filled(around, name).isel(y=slice(size[0]), x=slice(size[1])))


def test_a_reflected_patch_is_what_the_net_is_given() -> None:
    ds = cube(size=(5, 7))
    stacked = np.stack([ds[b].values for b in BANDS], axis=1)
    x = np.where(ds["valid"].values[:, None], np.clip(stacked, 0, 1), np.float32(1))
    x = np.pad(x, [(0, 0), (0, 0), (0, 11), (0, 9)], mode="reflect")
    state, _ = checkpoint.load(net("utilise"))
    plain = Utilise.net(UtiliseConfig(**TINY["utilise"])).eval()
    checkpoint.load_state(plain, state)
    days = torch.from_numpy(day_of_year(ds["time"].values))
    with torch.inference_mode():
        right = plain(x=torch.from_numpy(x)[None], days=days[None])[0].numpy()
    out = filled(ds)
    gap = ~ds["valid"].values
    for i, band in enumerate(BANDS):
        np.testing.assert_allclose(
            out[band].values[gap], right[:, i, :5, :7][gap], rtol=0, atol=1e-6
        )


# ------------------------------------------------------------------ samples


def test_a_split_that_gaps_leave_empty(tmp_path: Path) -> None:
    ds = simulate.scene(size=(16, 48), days=120, seed=3, cloud=0.4, bands=BANDS).cube
    ds["valid"] = ds["valid"].where(ds["x"] > ds["x"][15], False)
    needs = Needs(BANDS, Span(6), Span(16))
    with pytest.raises(CubeError) as error:
        samples.make([ds], needs, Blobs(), tmp_path / "a.zarr", splits=(0.4, 0.3, 0.3))
    told = r"No sample in (train|validation|test), which splits=\(0\.4, 0\.3, 0\.3\) asks for: of "
    assert re.match(told + r"\d+ dates .* removed: \d+ x no gap: Blobs.*Widen", str(error.value))
    assert not list(tmp_path.iterdir())
    made = samples.make([ds], needs, Blobs(), tmp_path / "a.zarr", splits=(1, 0, 0))
    with pytest.raises(StoreError, match=r"no test samples .*expected a split with a share.*Use"):
        samples.open(made.path, "test")


# ------------------------------------------------------------------ devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_absent_accelerator(device: str) -> None:
    with pytest.raises(DeviceError, match=rf"'{device}': this machine has no such.*device='auto'"):
        cube().gapfill("utilise", checkpoint=net("utilise"), device=device)


def test_bfloat16_where_a_cpu_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    _pass.fast_bfloat16.cache_clear()
    try:
        with pytest.raises(MethodError, match=r"neither AVX512-BF16.*Pass precision='float32'"):
            filled(cube(), precision="bfloat16", device="cpu")
    finally:
        _pass.fast_bfloat16.cache_clear()
