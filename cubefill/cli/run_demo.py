"""The whole line on a simulated scene: catalogue, cube, filled cube, NDVI, report."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cubefill import plot, reports, simulate, stac, store
from cubefill.addresses import local_path, writing
from cubefill.cli.demo_server import serving
from cubefill.cube.indices import ndvi
from cubefill.engine import job
from cubefill.errors import CubefillError
from cubefill.ownership import WRITER, claim, document

BANDS = ("B02", "B03", "B04", "B08")
"""Bands of the simulated catalogue."""

MARKER = "demo.json"
"""File by which a folder is known as a demo's own."""

PARTS = ("catalogue", "cube.zarr", "filled.zarr", "report.html", "compare.png", MARKER)
"""What a later demo replaces in its folder, each by the rule of its writer."""

Say = Callable[[str], Any]


@dataclass(frozen=True)
class DemoResult:
    """What a demo has left behind."""

    folder: Path
    catalogue: Path
    """Items and cloud-optimised GeoTIFFs."""
    cube: Path
    """The loaded cube."""
    filled: Path
    """The filled cube with NDVI."""
    report: Path
    """The HTML report."""
    picture: Path
    """Before, after and flag of the cloudiest date."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Step to how long it took."""
    errors: dict[str, float] = field(default_factory=dict)
    """Band, or NDVI, to the mean absolute error in gaps, measured on the simulated truth."""

    @property
    def next_steps(self) -> str:
        """Where things are and what to type next."""
        rows = "\n".join(f"  {name:<5} {error:.4f}" for name, error in self.errors.items())
        return f"""
Mean absolute error of the filled gaps (the scene is simulated, so the truth is known):
{rows}

report     {self.report}
picture    {self.picture}
catalogue  {self.catalogue}
cube       {self.cube}
filled     {self.filled}

Next:
  {_program("cubefill")} info {self.filled}
  {_program("cubefill")} fill {self.cube} {self.folder}/whittaker.zarr --method whittaker --ndvi
  {_program("cubefill")} methods
  {_program("python")} -c "import cubefill; print(cubefill.open_cube('{self.filled}'))"
"""


def run_demo(
    folder: str | Path,
    size: int = 384,
    dates: int = 40,
    seed: int = 0,
    serve: bool = False,
    say: Say | None = None,
) -> DemoResult:
    """Everything that a user does, on a simulated scene, in one folder.

    Parameters
    ----------
    folder
        New, or a folder of an earlier demo, whose results are replaced.
    size
        Pixels along a side.
    dates
        Acquisition dates within a year.
    seed
        Another seed is another scene.
    serve
        True serves the catalogue with rustac on loopback and searches it over HTTP.
    say
        Called with each line of progress; None is silent.

    Raises
    ------
    CubefillError
        The folder holds something else, or `serve` lacks rustac.

    Examples
    --------
    >>> import tempfile
    >>> result = run_demo(tempfile.mkdtemp(), size=64, dates=6)
    >>> result.report.exists()
    True
    """
    root = _claim(local_path(folder))
    steps = _Steps(say)
    with steps("simulate a scene"):
        scene = simulate.scene(size=size, dates=dates, seed=seed, bands=BANDS)
    with steps("write a catalogue"):
        catalogue = stac.write_catalogue(scene.cube, root / "catalogue", overwrite=True)
    with steps("search and load it to Zarr"):
        cube = _load(catalogue, root / "cube.zarr", serve)
    with steps("fill the gaps, make NDVI"):
        filled = job.run(
            root / "cube.zarr", root / "filled.zarr", "auto", ndvi=True, overwrite=True,
            progress=False,
        )  # fmt: skip
    with steps("compare with the truth"):
        errors = errors_in_gaps(filled, scene)
    with steps("write report and picture"):
        report = reports.report(filled, before=cube).save(root / "report.html")
        picture = plot.preview(filled, root / "compare.png")
    result = DemoResult(
        root, catalogue, root / "cube.zarr", root / "filled.zarr", report, picture,
        steps.seconds, errors,
    )  # fmt: skip
    told = {"description": WRITER, "seconds": steps.seconds, "errors": errors}
    (root / MARKER).write_text(json.dumps(told, indent=1))
    return result


def errors_in_gaps(filled: xr.Dataset, scene: simulate.Scene) -> dict[str, float]:
    """Mean absolute error of each band and of NDVI where the cube had a gap, in its unit."""
    hidden = ~scene.cube["valid"].values
    truth = scene.truth[list(BANDS)].assign(NDVI=ndvi(scene.truth))
    errors = {}
    for name in (*BANDS, "NDVI"):
        difference = np.abs(filled[name].values - truth[name].values)[hidden]
        errors[name] = float(np.nanmean(difference))
    return errors


def _program(name: str) -> str:
    """How to call a program of this environment from here."""
    own = Path(sys.executable).parent / name
    if shutil.which(name) == str(own) or not own.exists():
        return name
    here = Path.cwd()
    return str(own.relative_to(here) if own.is_relative_to(here) else own)


class _Steps:
    """Times the steps and says each one when it is done."""

    def __init__(self, say: Say | None) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        if self.say:
            self.say(f"{name:<30} {self.seconds[name]:6.1f} s")


def _claim(root: Path) -> Path:
    """The folder, which is new or holds an earlier demo and nothing else."""
    there = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    if there or (root.exists() and not root.is_dir()):
        ours = WRITER in (document(root / MARKER) or {}).values()
        others = (n for n in there if n not in PARTS)
        claim(root, "demo", ours=ours, foreign=others, overwrite=True, error=CubefillError)
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(json.dumps({"description": WRITER}))
    return root


def _load(catalogue: Path, target: Path, serve: bool) -> xr.Dataset:
    with serving(catalogue) if serve else nullcontext(str(catalogue)) as source:
        ds = stac.load(stac.search(source), bands=BANDS, sar=True, dem=True)
        store.write_cube(ds, target, overwrite=True, progress=False)
    return store.open_cube(target)
