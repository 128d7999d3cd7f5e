"""Every net after the same small training, against the classical methods, on places it never saw.

Each net is trained on one thread for the same processor time, reading its samples included, then
fills real cubes of other places with real cloud shapes pasted on clear dates; hidden pixels alone
are scored. Two runs, split by place:

    simulated   learns from simulated scenes with Sentinel-1 and elevation, is scored on 31UDS
    real        learns from 31UDS and simulated scenes without Sentinel-1, is scored on minicubes
    decloud     SSOP and MSOP nets of the first run without SAR, with SAR, and with elevation too,
                by the protocol of Cresson et al. (2022) on other simulated scenes and on 31UDS

    CUBEFILL_DATA=../shared/data python -m benchmarks.score_nets --run real --seconds 240 --out DIR

Widths are cut where a net as published would see a handful of samples in that time; the table
says the parameters. Seams are measured on a simulated scene that no net saw: mean step across
borders of patches over the mean step elsewhere, filled pixels only, beside that of the truth; of
the borders where patches begin and end, those that show more. "Same grid" compares with steps at
the same phase of the net's coarsest grid, so that the net's own pattern is no seam.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import cubefill
from benchmarks.context import context
from cubefill import evaluate, samples, simulate, train
from cubefill.evaluate import tables as evaluate_tables
from cubefill.evaluate.decloud import compare_decloud, markdown
from cubefill.evaluate.strata import robust
from cubefill.formats import earthnet as minicube
from cubefill.gaps import Transplant
from cubefill.methods import resolve
from cubefill.methods.learned import TorchMethod
from cubefill.methods.windows import Span
from cubefill.metrics.perceptual import seam_ratio
from cubefill.samples.patches import CubeSamples
from cubefill.samples.protocol import Samples
from cubefill.train.recipe import Recipe

METRICS = ("MAE", "RMSE", "bias", "R2", "PSNR", "SSIM", "SAM", "ERGAS", "NDVI-MAE")
CLASSIC = ("linear", "nearest", "whittaker", "savgol")
BANDS = ("B02", "B03", "B04", "B08")
RIM = 8
"""Pixels along the border of a scene that seams are not measured in: no patch reaches beyond it."""
PLACES = (
    "greenearthnet/JAS2021_replicated_minicube_0_29SND_39.29_-8.56.nc",
    "greenearthnet/MJJ2021_replicated_minicube_241_34VCL_59.04_17.96.nc",
    "earthnet2021/context_33SXD_2019-05-16_2019-10-12_4025_4153_3129_3257_62_142_48_128.npz",
)


@dataclass(frozen=True)
class Net:
    """How one net is built, shown its samples, and trained."""

    config: Mapping[str, Any] = field(default_factory=dict)
    dates: int = 10
    """Time steps of a sample, where it is a window of consecutive dates."""
    batch: int = 4
    rate: float = 1e-3
    real: tuple[int, int] = (0, 0)
    """Time steps and edge of the clear windows of an adversary."""
    sar: Mapping[str, Any] = field(default_factory=dict)
    """Configuration to add where there is Sentinel-1."""


_RADAR = {"sar": True, "dem": True}
_PATCH = {"patch": 64, "pad": 8, "blend": "linear", "sar": False}
NETS = {
    "ganfilling": Net({"width": 8, "clouds": "hidden"}, batch=1, rate=2e-4, real=(4, 64)),
    "seq2seq": Net({"width": 8, "clouds": "hidden"}, batch=1),
    "stpconv": Net({"size": 64, "offset": 0.1, "scale": 0.1}, dates=16, batch=1),
    "utilise": Net({"patch": 64, "pad": 8, "blend": "linear", "widths": (16, 16, 16, 32)}, batch=2),
    "ssop_mer": Net({**_PATCH, "width": 64, "blocks": 4}, sar=_RADAR),
    "ssop_unet": Net(_PATCH, sar=_RADAR),
    "msop_unet": Net(_PATCH, sar=_RADAR),
    "msop_david": Net(_PATCH, sar=_RADAR),
    "cnnrnn": Net({"coherence": False}, batch=16, rate=5e-3),
}
NDVI_ONLY = ("cnnrnn",)
DECLOUD = {
    f"{name}{label}": replace(NETS[name], sar={"sar": sar, "dem": dem})
    for name in ("ssop_unet", "msop_unet")
    for label, sar, dem in (("_optical", False, False), ("_sar", True, False), ("_dem", True, True))
}
"""Rows of the protocol's tables."""


# ------------------------------------------------------------------ cubes


def scenes(sar: bool, seeds: Sequence[int] = (11, 12, 13, 14), size: int = 192) -> list[xr.Dataset]:
    """Simulated cubes of different weather, half of them at 20 m where there is no Sentinel-1."""
    return [
        simulate.scene(
            size=size, seed=s, bands=BANDS, sar=sar, dem=sar, cloud=0.35 + 0.1 * (i % 3), days=300,
            resolution=20 if i % 2 and not sar else 10, origin=(500_000 + 50_000 * i, 5_600_000),
        ).cube
        for i, s in enumerate(seeds)
    ]  # fmt: skip


def catalogue(folder: Path, sar: bool) -> xr.Dataset:
    """The cube of the real catalogue in memory."""
    items = cubefill.search(folder / "stac_31UDS" / "items.json")
    return cubefill.load(items, sar=sar, dem=sar).compute()


def learned(run: str, folder: Path) -> list[xr.Dataset]:
    """What the nets of a run learn from."""
    return scenes(True) if run != "real" else [catalogue(folder, False), *scenes(False)]


def unseen(run: str, folder: Path) -> dict[str, xr.Dataset]:
    """What they are scored on."""
    if run != "real":
        return {"31UDS": catalogue(folder, True)}
    return {Path(p).name[:26]: minicube.read(folder / p).compute() for p in PLACES}


# ------------------------------------------------------------------ training


def learner_of(name: str, run: str) -> TorchMethod:
    """The method with the net of a run."""
    found = resolve(method_of(name))
    if not isinstance(found, TorchMethod):
        raise TypeError(f"{name} has no net.")
    return found.configured(**config_of(name, run))


def net_of(name: str) -> Net:
    """What a row of a table is."""
    return {**NETS, **DECLOUD}[name]


def method_of(name: str) -> str:
    """The method of a row."""
    return name if name in NETS else name.rpartition("_")[0]


def config_of(name: str, run: str) -> dict[str, Any]:
    """Configuration of the net of a row."""
    net = net_of(name)
    return {**net.config, **(net.sar if run != "real" else {})}


def samples_of(name: str, learner: TorchMethod, cubes: list[xr.Dataset], work: Path) -> Samples:
    """Windows with pasted clouds, or what the method's layout chooses, from a store."""
    net = net_of(name)
    if not hasattr(learner, "layout"):
        gaps = None if net.real[0] else Transplant(clear=0.3)
        dates = 0 if name in NDVI_ONLY else net.dates
        return CubeSamples(
            cubes,
            learner,
            gaps,
            count=256,
            patch=4,
            dates=dates,
            augment=True,
            discriminator_windows=net.real,
        )
    path = work / f"{name}.samples.zarr"
    samples.make(
        cubes, learner, target=path, splits=(1.0, 0.0, 0.0), max_per_place=60, overwrite=True,
        progress=False,
    )  # fmt: skip
    return samples.open(path, "train", learner, augment=True)


def trained(name: str, run: str, cubes: list[xr.Dataset], seconds: float, work: Path) -> Path:
    """The checkpoint of a net after `seconds` of processor time."""
    folder = work / name
    if (folder / "card.json").exists() and (work / f"{name}.json").exists():
        return folder
    learner = learner_of(name, run)
    start = time.process_time()
    data = samples_of(name, learner, cubes, work)
    made = time.process_time() - start
    net = net_of(name)
    recipe = Recipe(
        method=method_of(name),
        rate=net.rate,
        betas=(0.5, 0.999) if net.real[0] else (0.9, 0.999),
        batch=net.batch,
        clip=1.0,
        schedule="cosine",
        device="cpu",
    )

    def fit(updates: int, epochs: int, where: Path) -> float:
        shutil.rmtree(where, ignore_errors=True)
        began = time.process_time()
        train.fit(
            learner, data, replace(recipe, updates=updates, epochs=epochs), where, progress=False
        )
        return time.process_time() - began

    trial = work / f"{name}.trial"
    each = (-fit(2, 1, trial) + fit(10, 1, trial)) / 8
    updates = max(20, int(seconds / each))
    epochs = max(1, -(-updates * net.batch // len(data)))
    took = fit(updates, epochs, folder)
    shutil.rmtree(trial, ignore_errors=True)
    facts = {
        "parameters": sum(p.numel() for p in learner.net(learner.config).parameters()),
        "updates": updates,
        "samples": updates * net.batch,
        "epochs": epochs,
        "seconds": round(took, 1),
        "seconds_to_prepare": round(made, 1),
        "rate": net.rate,
        "loss": json.loads((folder / "card.json").read_text())["scores"]["loss"],
        "config": config_of(name, run),
    }
    (work / f"{name}.json").write_text(json.dumps(facts))
    return folder


# ------------------------------------------------------------------ seams


def seams(method: TorchMethod, sar: bool) -> list[float]:
    """Steps across borders of patches over steps elsewhere: of the fill, of the truth; over steps
    at the same phase of the net's grid, again of both."""
    space = method.needs.space
    if not isinstance(space, Span) or space.pointwise:
        return [float("nan")] * 4
    size = space.size + space.keep * max(1, round(192 / space.keep))
    made = simulate.scene(
        size=size, seed=77, bands=BANDS, sar=sar, dem=sar, dates=12, days=120, cloud=0.5
    )
    filled = cubefill.gapfill(made.cube, method).compute()
    starts = (0, space.halo) if space.blend == "linear" else (space.halo // 2,)
    inside = np.pad(
        ~made.cube["valid"].values[:, RIM:-RIM, RIM:-RIM], ((0, 0), (RIM, RIM), (RIM, RIM))
    )
    wiring = getattr(method, "wiring", None)
    images = [
        np.stack([np.where(inside, ds[b].values, np.nan) for b in BANDS])
        for ds in (filled, made.truth)
    ]
    found: list[float] = []
    phase = math.gcd(space.keep, wiring.multiple if wiring else 1)
    for grid in (1, phase // 2 if phase == space.keep else phase):
        fill, truth = (
            [seam_ratio(image[..., s:, s:], space.keep, grid) for s in starts] for image in images
        )
        worst = max(zip(fill, truth, strict=True), key=lambda pair: pair[0] / pair[1])
        found += [worst[0], worst[1]]
    return found


# ------------------------------------------------------------------ scores


def scored(
    methods: Mapping[str, Any], cubes: Mapping[str, xr.Dataset], seeds: int, metrics: Sequence[str]
) -> xr.Dataset:
    """The comparison; "screened" leaves out observations that disagree with those around them."""
    return evaluate.compare(
        methods,
        cubes,
        Transplant(share=0.25),
        seed=range(seeds),
        metrics=metrics,
        screen=robust,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )


def compared(
    methods: Mapping[str, Any], places: Mapping[str, xr.Dataset], seeds: int
) -> list[xr.Dataset]:
    """All bands; the same where `linear2` gives a value too; NDVI where a net gives only that."""
    classic = {n: resolve(n) for n in CLASSIC}
    bands = {n: m for n, m in methods.items() if n not in NDVI_ONLY}
    two = {"linear2": resolve("linear2")}
    tables = [scored({**classic, **more, **bands}, places, seeds, METRICS) for more in ({}, two)]
    if len(bands) < len(methods):
        metrics = ("MAE", "RMSE", "bias", "R2")
        ndvi = {n: m for n, m in methods.items() if n in NDVI_ONLY}
        tables.append(scored({**classic, **ndvi}, places, seeds, metrics))
    return tables


def budget_table(facts: Mapping[str, Any]) -> str:
    """Markdown: what each net is, what it was shown, and its seams."""
    head = (
        "| net | parameters | updates | samples | CPU s | loss | seam fill | seam truth | ratio | "
        "same grid |"
    )
    rows = [head, "|" + "---|" * 10]
    for name, f in facts.items():
        fill, truth, own, same = f["seams"]
        rows.append(
            f"| {name} | {f['parameters']:,} | {f['updates']} | {f['samples']} | {f['seconds']} | "
            f"{f['loss']:.4f} | {fill:.3f} | {truth:.3f} | {fill / truth:.3f} | "
            f"{own / same:.3f} |"
        )
    return "\n".join(rows)


def report(tables: Sequence[xr.Dataset]) -> str:
    """Markdown: the scores, strata of gap length, damage to observations."""
    parts = []
    for found in tables:
        parts += [evaluate_tables.scores(found, s).markdown() for s in ("occluded", "screened")]
        kinds = ("all", "gap length", "position")
        parts.append(evaluate_tables.by_stratum(found, "mae", "occluded", kinds).markdown())
        worst = float(found.mae.sel(pixel_set="observed", stratum="all").max())
        parts.append(f"Largest MAE of any method on observed pixels: {worst:g}.")
        parts.append(f"Gaps: `{found.attrs['gaps']}`, seeds {found.seed.values.tolist()}.")
    return "\n\n".join(p.strip() for p in parts)


def all_trained(
    run: str, names: Sequence[str], cubes: list[xr.Dataset], seconds: float, work: Path
) -> tuple[dict[str, TorchMethod], dict[str, Any]]:
    """Every net of a run with its checkpoint, and how it was trained."""
    methods, facts = {}, {}
    for name in names:
        print(f"train {name}", file=sys.stderr, flush=True)
        where = trained(name, run, cubes, seconds, work)
        methods[name] = replace(learner_of(name, run), checkpoint=str(where), device="cpu")
        record = work / f"{name}.json"
        facts[name] = json.loads(record.read_text())
        if "seams" not in facts[name]:
            facts[name]["seams"] = seams(methods[name], run != "real")
            record.write_text(json.dumps(facts[name]))
        print(json.dumps({name: facts[name]}), file=sys.stderr, flush=True)
    return methods, facts


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures seams, scores; what is trained already in DIR is not trained again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", choices=("simulated", "real", "decloud"), default="real")
    parser.add_argument("--seconds", type=float, default=240, help="of processor time, each net")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nets", help="names of nets; all by default")
    parser.add_argument("--out", type=Path, required=True, help="folder for nets and table")
    asked = parser.parse_args(arguments)
    folder = Path(os.environ.get("CUBEFILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        print(f"No folder {folder}: pass CUBEFILL_DATA=FOLDER.", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    work = asked.out / asked.run
    work.mkdir(parents=True, exist_ok=True)
    every = DECLOUD if asked.run == "decloud" else NETS
    chosen = asked.nets.split(",") if asked.nets else list(every)
    if asked.run == "real":
        chosen = [n for n in chosen if n not in NDVI_ONLY]
    methods, facts = all_trained(asked.run, chosen, learned(asked.run, folder), asked.seconds, work)
    places = unseen(asked.run, folder)
    if asked.run == "decloud":
        held_out = {
            "simulated": scenes(True, seeds=(31, 32)),
            **{n: [p] for n, p in places.items()},
        }
        compared_with = {**methods, "linear2": resolve("linear2")}
        tables = [
            compare_decloud(compared_with, cubes, patch=64, sar=True, dem=True)
            for cubes in held_out.values()
        ]
    else:
        tables = compared(methods, places, asked.seeds)
    for i, found in enumerate(tables):
        found.to_netcdf(work / f"scores{i}.nc")
    if asked.run == "decloud":
        parts = [f"## {n}\n\n{markdown(t)}" for n, t in zip(held_out, tables, strict=True)]
        shown = "\n\n".join(parts)
    else:
        shown = report(tables)
    title = f"# Nets after {asked.seconds:g} s of one core each, run {asked.run}"
    record = {"nets": facts, **context()}
    record_text = f"```json\n{json.dumps(record, indent=1)}\n```"
    text = "\n\n".join([title, (__doc__ or "").strip(), budget_table(facts), shown, record_text])
    (work / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
