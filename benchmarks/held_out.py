"""How far the classical methods are off on real clouds: the catalogue of 31UDS, clear dates hidden.

Real cloud shapes of other dates are pasted on clear dates, every method fills the same cube, and
hidden pixels alone are scored, for several seeds. Two truths: every observation that SCL calls
clear, haze included, and the observations that also agree with their neighbours in time
(`evaluate.strata.robust`). The methods see what SCL calls clear in both, so haze in the input is in
both. Intervals are over seeds of one place: they say nothing of other places.

    CUBEFILL_DATA=../shared/data python -m benchmarks.held_out --seeds 8 --out held_out.md
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import xarray as xr

import cubefill
from benchmarks.context import context
from cubefill import evaluate
from cubefill.evaluate import tables as evaluate_tables
from cubefill.evaluate.strata import robust
from cubefill.gaps import Transplant

METHODS = (
    "linear", "whittaker", "linear2", "nearest", "last", "next", "pchip", "akima", "quadratic",
    "savgol", "harmonic", "climatology",
)  # fmt: skip
METRICS = ("MAE", "RMSE", "bias", "PSNR", "SAM", "NDVI-MAE")
SETS = ("occluded", "screened")


def catalogue(folder: Path) -> xr.Dataset:
    """The cube of the real catalogue, its four bands of 10 m, in memory."""
    items = cubefill.search(folder / "stac_31UDS" / "items.json")
    return cubefill.load(items).compute()


def measure(ds: xr.Dataset, methods: tuple[str, ...], seeds: int, share: float) -> xr.Dataset:
    """The comparison; observed pixels are scored too, to show that they are kept."""
    return evaluate.compare(
        methods,
        {"stac_31UDS": ds},
        Transplant(share=share),
        seed=range(seeds),
        metrics=METRICS,
        screen=robust,
        progress=lambda line: print(line, file=sys.stderr),
    )


def report(found: xr.Dataset, facts: dict[str, Any]) -> str:
    """Markdown: both truths, strata of gap length and position, damage to observations."""
    parts = ["# Held-out error on real clouds, 31UDS", __doc__ or ""]
    parts += [evaluate_tables.scores(found, s).markdown() for s in SETS]
    kinds = ("all", "gap length", "position", "season")
    for metric in ("mae", "ndvi_mae"):
        parts += [evaluate_tables.by_stratum(found, metric, s, kinds).markdown() for s in SETS]
    worst = float(found.mae.sel(pixel_set="observed", stratum="all").max())
    parts.append(f"Largest MAE of any method on observed pixels: {worst:g}.")
    parts.append(f"Gaps: `{found.attrs['gaps']}`, seeds {found.seed.values.tolist()}.")
    parts.append(f"```json\n{json.dumps(facts, indent=1)}\n```")
    return "\n\n".join(p.strip() for p in parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.25, help="of the clear dates, hidden")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, help=".md, .nc, .csv, .html, .json or a picture")
    asked = parser.parse_args(arguments)
    folder = Path(os.environ.get("CUBEFILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        print(f"No folder {folder}: pass CUBEFILL_DATA=FOLDER.", file=sys.stderr)
        return 2
    found = measure(catalogue(folder), tuple(asked.methods.split(",")), asked.seeds, asked.share)
    text = report(found, context())
    if asked.out is None:
        print(text)
    elif asked.out.suffix == ".md":
        asked.out.write_text(text, encoding="utf-8")
    else:
        evaluate_tables.write(found, asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
