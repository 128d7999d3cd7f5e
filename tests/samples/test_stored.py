import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cubefill import samples, store
from cubefill.gaps import Dates
from cubefill.methods.contract import Block, Needs
from cubefill.samples import StoredSamples
from cubefill.testing import synthetic_cube
from tests.shared.samples_cases import NEEDS, every


def test_the_same_seed_gives_the_same_samples(cube: xr.Dataset, tmp_path: Path) -> None:
    stored = store.write_cube(cube.drop_dims("sar_time"), tmp_path / "cube.zarr")
    made = [
        samples.make([c], NEEDS, Dates(), tmp_path / n, max_per_place=2, seed=s)
        for c, n, s in (
            (cube, "a.zarr", 5), (tmp_path / "cube.zarr", "b.zarr", 5), (cube, "c.zarr", 6)
        )
    ]  # fmt: skip
    assert stored is not None
    assert len(made[0]) == len(made[1])
    for i in range(len(made[0])):
        for name, a in made[0][i].items():
            np.testing.assert_array_equal(a, made[1][i][name])
    again = samples.open(made[0].path)
    assert again.digest == made[0].digest
    assert made[2].digest != made[0].digest


def test_a_sample_is_one_file(by_layout: StoredSamples) -> None:
    total = sum(len(p) for p in every(by_layout))
    files = [p for p in (Path(by_layout.path) / "data").iterdir() if p.name != "zarr.json"]
    assert len(files) == total
    assert all(p.is_file() for p in files)


def test_samples_pickle_small_and_feed_a_loader(by_window: StoredSamples) -> None:
    torch = pytest.importorskip("torch")
    assert len(by_window[0]) > 0
    packed = pickle.dumps(by_window)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)[1]["target"], by_window[1]["target"])
    loader = torch.utils.data.DataLoader(by_window, batch_size=4, shuffle=True)
    batch = next(iter(loader))
    assert batch["optical"].shape == (4, 6, 4, 16, 16)
    assert batch["target"].dtype == torch.float32


@pytest.mark.slow
def test_worker_processes_read_what_one_process_reads(by_window: StoredSamples) -> None:
    torch = pytest.importorskip("torch")
    alone = [by_window[i]["target"] for i in range(6)]
    loader = torch.utils.data.DataLoader(by_window, batch_size=1, num_workers=2)
    for a, batch in zip(alone, loader, strict=False):
        np.testing.assert_array_equal(a, batch["target"][0].numpy())


def test_turns_differ_by_epoch_and_keep_values(by_window: StoredSamples) -> None:
    turned = samples.open(by_window.path, augment=True)
    plain = np.sort(by_window[2]["target"], axis=None)
    seen = {turned.at(e)[2]["target"].tobytes() for e in range(12)}
    assert len(seen) > 3
    for e in range(3):
        np.testing.assert_array_equal(np.sort(turned.at(e)[2]["target"], axis=None), plain)
        np.testing.assert_array_equal(turned.at(e)[2]["valid"], turned.at(e)[2]["valid"])


def test_no_data_is_nan(tmp_path: Path) -> None:
    cube = synthetic_cube(6, (32, 32), ("B04",)).copy(deep=True)
    cube["B04"][2, :5] = np.nan
    cube["SCL"][2, :5] = 0
    cube["valid"][2, :5] = False
    made = samples.make(
        [cube], Needs(("B04",)), None, tmp_path / "a.zarr", patch=32, dates=6, splits=(1, 0, 0)
    )
    assert np.isnan(made[0]["optical"][2, 0, :5]).all()
    assert np.isfinite(made[0]["optical"][2, 0, 5:]).all()
    assert not made[0]["where"][2, 0, :5].any()
    with pytest.raises(IndexError, match="expected 0 to 0"):
        made[1]


class _Passed:
    """A learner that gives what it is shown."""

    def encode(self, block: Block) -> dict[str, Any]:
        return {"x": np.stack([np.nan_to_num(a) for a in block.bands.values()])}

    def target(self, truth: Block, gapped: Block) -> dict[str, Any]:
        return {"target": truth.bands["B04"], "where": truth.valid & ~gapped.valid}


def test_any_learner_reads_its_own_arrays(by_window: StoredSamples) -> None:
    found = samples.open(by_window.path, "test", _Passed())
    sample = found[0]
    assert sorted(sample) == ["target", "where", "x"]
    assert sample["where"].any()
    assert found.digest.endswith("-test")
