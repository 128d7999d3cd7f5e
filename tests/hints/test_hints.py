"""Every hint of the package is typed by a test, or stands below with the reason why not."""

from pathlib import Path

import pytest

from tests.hints import cases_catalogues, cases_cube, cases_files, cases_methods, cases_scores
from tests.hints.typing import Case, hints, leads_on

CASES: list[Case] = [
    *cases_cube.CASES,
    *cases_catalogues.CASES,
    *cases_files.CASES,
    *cases_methods.CASES,
    *cases_scores.CASES,
]
ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "Use {} for a path from here": "tests/test_addresses.py",
    "holds what is no date from 1678 to 2262": "tests/cube/test_axes.py",
    "Use cubefill.formats.earthnet.read(path)": "tests/cube/test_georeference.py",
    "The time coordinate has several levels": "tests/cube/test_dataset.py",
    "Use xarray.decode_cf(ds), since": "tests/cube/test_dataset.py",
    "Use ds.unstack({}).": "tests/cube/test_dataset.py",
    "nobody can tell corners from centres": "tests/cube/test_georeference.py",
    "Use valid={} with the numbers of the clear classes": "tests/cube/test_given.py",
    "Use valid={{}: {}} with the numbers": "tests/cube/test_given.py",
    "Use {} for what counts as clear": "tests/cube/test_given.py",
    "Use valid={{}: (0,)} to turn it": "tests/cube/test_given.py",
    "Use os.rename({}, {})": "tests/store/test_swap.py",
    "Use item.assets[key].extra_fields": "tests/stac/test_catalogues.py",
    "The cube has no CRS or no x and y": "tests/stac/test_catalogues.py",
}
"""Words of hints that another file types."""
FOLDERS = {
    "train": "each needs a training that goes wrong in the middle",
    "samples": "each needs samples, which are slow to make",
    "layout": "a layout is a file that its author mends",
    "simulate": "says in which direction to change a number",
    "metrics": "given to whoever writes a metric",
    "applications": "needs a net of mowing",
}
UNTYPED = {
    "install": (
        "Use pip install {}.",
        "Use pip install {}, or leave --serve away",
        "Use pip install 'cubefill[distributed]'",
        "Use pip install torch",
        'Use pip install "cubefill[viz]"',
        "Use pip install cubefill[convert]",
        "which cannot be imported ({}). Use {}",
        "install one",
    ),
    "a command of hours, or of a shell": (
        "Use -v to see where it comes from",
        "Pass --seed {}",
        "Use `cubefill train cnnrnn`",
        "Use `cubefill train RECIPE.toml FOLDER` to make a checkpoint",
        "to train one on {}",
        "Use cubefill train RECIPE.toml {} to make one",
        "Pass the folder that `cubefill train` printed",
        "Use `cubefill train` to train again",
        "or use `cubefill train` to train again",
        "Use gdalwarp to lay it so",
        "Use `git lfs pull`",
        "`cubefill methods` for the names",
    ),
    "a file that came broken, to be had anew from elsewhere": (
        "Try to copy it again",
        "Pass the file of this net",
        "Use model.save_weights",
        "Pass the checkpoint of this method",
        "Pass the config of this file",
        "Pass config=Config(",
        "Use a local path, and copy the file",
        "Pass the paths of the other files",
        "Pass scale=1e-4 for those without",
    ),
    "says what to look at, not what to type": (
        "Use da.rename or da.isel to get there",
        "Use ds.interp or ds.sel to bring them there",
        "Use nearest resampling",
        "Pass method= to measure another",
        "Pass device='cpu', or close what else runs there",
        "Pass max_gap=None, or give a longer series",
        "Pass collections=['...']",
        "Pass collections=['sentinel-2-l2a'] in search",
    ),
    "tells the author of a method or of a loss": (
        "Pass loss='l1'",
        "Pass {}=(4, 64) to the samples",
        "Use method = method.prepare(sample)",
        "Pass counts=None and give reflectance",
        "Use band.astype('float32')",
        "Use numpy.ascontiguousarray(array)",
        "Use resolve(...) to make it again",
        "The generator got",
        "cubefill.applications.mowing.labels",
    ),
    "needs a cube, a net or items of its own, and says nearly what to change": (
        "Use ['linear2']",
        "Use ds.cloud_probability / 100 for percent",
        "Use ndvi(out, point) for the filled cube alone",
        "Pass first=0",
        "No Sentinel-1 item reaches the grid",
    ),
    "needs Sentinel-1 coherence and a net of it": (
        "Pass assumed_coherence=0.3",
        "series for {}: expected at least group={}",
        "mosaic={} for layout",
    ),
    "the end of messages whose beginnings are tested": (
        "Use cubefill.write_cube to store the cube first",
        "for a net whose weights come with cubefill",
        "Use {} to finish it",
        "Use %s to finish it",
        "Pass resume=True to finish it or overwrite=True",
    ),
    "code, not a message": ("Use `@` matmul",),
}
"""Words of hints that nobody types here, by the reason."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_hint_says_to_type_leads_on(case: Case) -> None:
    leads_on(case)


def test_every_hint_is_typed_or_has_a_reason_not_to_be() -> None:
    known = {*ELSEWHERE, *(words for all_ in UNTYPED.values() for words in all_)}
    words = {*known, *(case.says for case in CASES)}
    new = [
        f"{path}: {text}"
        for path, text in hints()
        if path.split("/")[0] not in FOLDERS and not any(w in text for w in words)
    ]
    assert new == [], "add a case that types what the hint says"
    assert {w for w in words if not any(w in text for _, text in hints())} == set()
    assert all((ROOT / path).is_file() for path in ELSEWHERE.values())
