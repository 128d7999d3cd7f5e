"""Masks of other packages: ukis-csmask as it is, the others by stand-ins with their signatures."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import cubefill
from cubefill import simulate
from cubefill.cube import masks, valid
from cubefill.errors import CubeError, CubefillWarning
from cubefill.testing import synthetic_cube

BANDS = ("B01", "B02", "B03", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    one = synthetic_cube(size=(60, 56), bands=("B04",)).isel(time=slice(3))
    steps = {b: (one["B04"] * np.float32(1 + i / 10)) for i, b in enumerate(BANDS)}
    return xr.Dataset({b: v.astype("float32") for b, v in steps.items()})


class Calls(list[Any]):
    """Images and options that a stand-in was given."""


@pytest.fixture
def omnicloudmask(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """As documented: (red, green, nir; y, x) in, (1, y, x) classes 0 to 3 out."""
    calls, module = Calls(), ModuleType("omnicloudmask")

    def predict_from_array(
        input_array: Any, patch_size: int = 1000, patch_overlap: int = 300, **more: Any
    ) -> Any:
        assert input_array.dtype == np.float32
        assert patch_overlap < patch_size <= min(input_array.shape[1:])
        calls.append(input_array)
        near = input_array[0] + np.roll(input_array[0], 7, axis=1)  # looks around
        return np.digitize(near, [0.1, 0.2, 0.3])[None].astype(np.uint8)

    module.__dict__.update(predict_from_array=predict_from_array, __version__="9.9")
    monkeypatch.setitem(sys.modules, "omnicloudmask", module)
    return calls


@pytest.fixture
def s2cloudless(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """As documented: (date, y, x, ten bands) in, (date, y, x) of 0 and 1 out."""
    calls, module = Calls(), ModuleType("s2cloudless")

    class S2PixelCloudDetector:
        def __init__(
            self,
            threshold: float = 0.4,
            all_bands: bool = False,
            average_over: int | None = 1,
            dilation_size: int | None = 1,
        ) -> None:
            assert not all_bands
            self.threshold = threshold

        def get_cloud_masks(self, data: Any) -> Any:
            assert data.shape[-1] == 10
            calls.append(data)
            return (data[..., 7] > self.threshold).astype(np.uint8)

    module.__dict__.update(S2PixelCloudDetector=S2PixelCloudDetector, __version__="8.8")
    monkeypatch.setitem(sys.modules, "s2cloudless", module)
    return calls


def test_omnicloudmask(cube: xr.Dataset, omnicloudmask: Calls) -> None:
    out = valid.apply(cube, "omnicloudmask")
    assert not omnicloudmask, "runs when computed, not before"
    want = (cube["B04"] + cube["B04"].roll(x=7)) < 0.1
    np.testing.assert_array_equal(out, want)
    assert len(omnicloudmask) == 3
    image = omnicloudmask[0]
    dates = [np.abs(image[0] - cube["B04"][t]).max() for t in range(3)]
    t = int(np.argmin(dates))
    np.testing.assert_array_equal(image, [cube[b][t] for b in ("B04", "B03", "B8A")])
    other = valid.apply(cube.drop_vars("B8A"), "omnicloudmask")
    assert "B04, B03, B08 (patch_size=1000" in other.attrs["description"]
    assert "omnicloudmask 9.9 finds no thick or thin cloud or shadow" in out.attrs["description"]


def test_s2cloudless(cube: xr.Dataset, s2cloudless: Calls) -> None:
    np.testing.assert_array_equal(valid.apply(cube, "s2cloudless"), cube["B10"] <= 0.4)
    assert s2cloudless[0].shape == (1, 60, 56, 10)
    strict = masks.by_package(cube, "s2cloudless", threshold=0.1)
    np.testing.assert_array_equal(strict, cube["B10"] <= np.float32(0.1))
    assert "threshold=0.1" in strict.attrs["description"]
    with pytest.raises(CubeError, match=r"lacks B10.*Level-1C.*valid='csmask'"):
        valid.apply(cube.drop_vars("B10"), "s2cloudless")


def test_what_has_no_data_is_not_clear(cube: xr.Dataset, omnicloudmask: Calls) -> None:
    cube = cube.copy(deep=True)
    cube["B03"][0, 5:9, :] = np.nan
    cube["B04"][1] = np.nan
    out = valid.apply(cube, "omnicloudmask").compute()
    assert not out[0, 5:9].any()
    assert not out[1].any()
    assert len(omnicloudmask) == 2, "a date without data is not looked at"
    assert all(np.isfinite(image).all() for image in omnicloudmask)


@pytest.mark.parametrize("chunks", [{"time": 2, "y": 17, "x": 13}, {"time": -1, "y": 60, "x": 1}])
def test_the_mask_does_not_depend_on_chunks_or_executor(
    cube: xr.Dataset, omnicloudmask: Calls, chunks: dict[str, int], tmp_path: Any
) -> None:
    want = valid.apply(cube, "omnicloudmask").values
    lazy = cube.transpose("x", "time", "y").chunk(chunks)
    np.testing.assert_array_equal(valid.apply(lazy, "omnicloudmask"), want)
    filled = lazy.gapfill("linear", valid="omnicloudmask", tile=16)
    known = cube.gapfill("linear", valid=want)
    xr.testing.assert_equal(filled.transpose("time", "y", "x").compute(), known.compute())
    assert "omnicloudmask 9.9" in filled.attrs["gapfill_valid"]
    target = tmp_path / "out.zarr"
    job = cubefill.run(lazy, target, "linear", valid="omnicloudmask", progress=False)
    np.testing.assert_array_equal(job["fill_flag"], known["fill_flag"])


def test_a_small_cube_is_mirrored_and_said(cube: xr.Dataset, omnicloudmask: Calls) -> None:
    small = cube.isel(x=slice(20))
    with pytest.warns(CubefillWarning, match="sure of its classes only from 50 x 50"):
        out = valid.apply(small, "omnicloudmask")
    assert out.compute().shape == (3, 60, 20)
    np.testing.assert_array_equal(omnicloudmask[0][..., 20:40], omnicloudmask[0][..., 19::-1])


@pytest.mark.parametrize("name", masks.PACKAGES)
def test_absent_packages_and_bands(
    cube: xr.Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = masks.PACKAGES[name]
    monkeypatch.setitem(sys.modules, package.module.split(".")[0], None)
    monkeypatch.delitem(sys.modules, "ukis_csmask.mask", raising=False)
    with pytest.raises(CubeError, match=f"needs the package {package.package}") as error:
        cube.gapfill("linear", valid=name)
    assert f"Use {package.install}." in str(error.value)
    with pytest.raises(CubeError, match=r"the cube lacks .*B04"):
        valid.apply(cube.drop_vars("B04"), name)
    mine = cube.assign({name: cube["B04"] > 0.1})
    np.testing.assert_array_equal(valid.apply(mine, name), mine[name])
    with pytest.raises(CubeError, match="Unknown mask package 'fmask'"):
        masks.by_package(cube, "fmask")


def test_csmask_finds_simulated_clouds() -> None:
    pytest.importorskip("ukis_csmask.mask")
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    scene = simulate.scene(size=128, dates=6, bands=bands, sar=False, dem=False).cube
    shares = scene["valid"].mean(("y", "x")).values
    scene = scene.isel(time=[int(shares.argmin()), int(shares.argmax())])
    with pytest.warns(CubefillWarning, match="256 x 256"):
        mask = valid.apply(scene.chunk(y=20, x=30), "csmask")
    assert isinstance(mask.data, da.Array)
    found = mask.compute()
    cloudy, clear = found.mean(("y", "x")).values
    assert cloudy < 0.3
    assert clear > 0.8
    assert "ukis-csmask" in mask.attrs["description"]
    out = cubefill.gapfill(scene, "nearest", valid=found)
    np.testing.assert_array_equal(out["fill_flag"] == 0, found)


def test_the_examples_of_the_page_run(
    cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    text = (Path(__file__).parents[2] / "docs/masks.md").read_text()
    scl = xr.full_like(cube["B04"], 4, "uint8")
    ds = cube[["B02", "B03", "B04", "B08"]].assign(SCL=scl)
    ds = ds.assign_coords(cloud_class=scl - 4, cloud_mask=scl - 4, cloud_probability=scl)
    package = replace(masks.PACKAGES["csmask"], module="json", clear=lambda i, *_: i[0] > 0)
    monkeypatch.setitem(masks.PACKAGES, "csmask", replace(package, least=1))
    monkeypatch.chdir(tmp_path)
    names = {"ds": ds, "cubefill": cubefill}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "docs/masks.md", "exec"), names)
    assert (tmp_path / "cube.zarr").exists()
