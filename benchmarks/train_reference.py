"""Trains the net whose weights come with cubefill: `python -m benchmarks.train_reference OUT`.

`utilise` learns what series differ by from straight lines, on one thread, from simulated scenes of
many weathers and densities of dates. Real cloud shapes of one Sentinel-2 granule hide a part of
what is clear. The weights are those with the lowest loss on 31UDS, a real place that no gradient
comes from.
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import cubefill
from cubefill import simulate, train
from cubefill.gaps import Blobs, Blocks, Borrowed, Mixed, Trailing, Transplant
from cubefill.methods.learned.utilise import Utilise
from cubefill.nn import checkpoint
from cubefill.samples.patches import CubeSamples
from cubefill.train.recipe import read, with_options

BANDS = ("B02", "B03", "B04", "B08")
SCENES = 28
SEED = 4000
GRANULE = "S2A T29UNU 2022-10-05 (contains modified Copernicus Sentinel data 2022)"
FILLS = {"patch": 64, "pad": 8, "blend": "linear"}
"""How the trained net is laid over a cube; patches are smaller while it learns."""
CLOUDY = (0, 1, 3, 8, 9, 10)
"""Scene classes that hide the ground."""


def scene(index: int) -> xr.Dataset:
    """A simulated cube; weather, density of dates, season, latitude and pixels are drawn.

    Time runs backwards in every second one: spring in the simulator is not spring everywhere.
    """
    rng = np.random.default_rng([SEED, index])
    days = int(rng.integers(180, 420))
    cube = simulate.scene(
        size=128,
        start=str(np.datetime64("2021-01-01") + int(rng.integers(0, 365))),
        days=days,
        seed=SEED + index,
        bands=BANDS,
        sar=False,
        dem=False,
        cloud=float(rng.uniform(0.15, 0.65)),
        persistence=float(rng.uniform(1, 8)),
        omission=float(rng.uniform(0, 0.2)),
        resolution=float(rng.choice([10, 10, 20])),
        latitude=float(rng.uniform(36, 60)),
    ).cube
    share = cube["valid"].mean(("y", "x")).values
    kept = rng.random(len(share)) < np.where(share < 0.02, 0.5, 1) * rng.uniform(0.5, 1)
    cube = cube[[*BANDS, "valid"]].isel(time=kept)
    return backwards(cube) if index % 2 else cube


def backwards(cube: xr.Dataset) -> xr.Dataset:
    """The cube with its last date first, as many days apart."""
    time = cube["time"].values
    later = time[0] + (time[-1] - time[::-1])
    return cube.isel(time=slice(None, None, -1)).assign_coords(time=later)


def cloud_shapes(data: Path, size: int = 128) -> NDArray[np.bool_]:
    """Gaps `(n, size, size)` of the partly cloudy parts of a real granule, at 20 m."""
    import rasterio

    path = next((data / "safe_T29UNU").rglob("*SCL_20m.jp2"))
    with rasterio.open(path) as file:
        gap = np.isin(file.read(1), CLOUDY)
    count = len(gap) // size
    whole = gap[: count * size, : count * size].reshape(count, size, count, size)
    tiles = whole.swapaxes(1, 2).reshape(-1, size, size)
    share = tiles.mean((1, 2))
    return tiles[(share > 0.08) & (share < 0.92)]


def tuning(data: Path) -> xr.Dataset:
    """31UDS, which chooses the weights and nothing else."""
    items = cubefill.search(data / "stac_31UDS" / "items.json")
    cube = cubefill.load(items, bands=list(BANDS)).compute()
    return cube[[*BANDS, "valid"]]


def gaps(data: Path) -> Mixed:
    """Real cloud shapes, those of the cube itself, runs of days and the end of a series."""
    shapes = Borrowed(cloud_shapes(data), share=0.6, whole=1.0)
    kinds = (
        shapes,
        Transplant(share=0.6, clear=0.3),
        Blobs(share=0.3),
        Blocks((15, 75)),
        Trailing(20),
    )
    return Mixed(kinds, (0.5, 0.5, 0.1, 0.5, 0.2))


def packed(folder: Path, target: Path, scores: Mapping[str, float]) -> Path:
    """The checkpoint as it comes with cubefill: half precision, larger patches, and its scores."""
    state, card = checkpoint.load(folder)
    data = f"{card.data}: {SCENES} scenes of cubefill.simulate; cloud shapes of {GRANULE}"
    card = replace(
        card,
        config={**card.config, **FILLS},
        data=data,
        scores={**card.scores, **scores},
        licence="Apache-2.0",
    )
    return checkpoint.save(target, state, card, precision="float16", overwrite=True)


def main() -> None:
    """Trains, or goes on where it was killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the recipe's")
    parser.add_argument("--pack", type=Path, help="write what comes with cubefill, train nothing")
    parser.add_argument("--scores", type=Path, help="JSON of names to numbers for the packed card")
    args = parser.parse_args()
    if args.pack:
        scores = json.loads(args.scores.read_text()) if args.scores else {}
        print(packed(args.out, args.pack, scores))
        return
    torch.set_num_threads(1)
    data = Path(os.environ["CUBEFILL_DATA"])
    recipe = with_options(read("utilise_residual"), {"epochs": args.epochs} if args.epochs else {})
    learner = Utilise().configured(**recipe.config)
    options = {n: recipe.samples[n] for n in ("dates", "augment")}
    hidden, count = gaps(data), recipe.samples["count"]
    train.fit(
        learner,
        CubeSamples(
            [scene(i) for i in range(SCENES)], learner, hidden, recipe.seed, count, **options
        ),
        recipe,
        args.out,
        validation=CubeSamples([tuning(data)], learner, hidden, recipe.seed + 1, 24, **options),
    )


if __name__ == "__main__":
    main()
