"""Names on first use, modules under their former paths, and what follows an import."""

import importlib
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cubefill
from cubefill.errors import CubefillWarning
from cubefill.imports import MOVED, current, when_imported

FORMER = {
    "cubefill.bands": "BANDS Band COHERENCE SAR_BANDS SCL",
    "cubefill.checkpoint": "Card load_state read_card save",
    "cubefill.evaluate_decloud": "compare_decloud",
    "cubefill.events": "Event EventScore Series detect labels of_cube recall_by_month score vote",
    "cubefill.indices": "ndvi normalized_difference normalized_difference_std with_ndvi",
    "cubefill.method": "AUTO Block Bool Codes Counts Filled Flag Float METHODS Method Needs Traits "
    "days_since describe name_of named options_of parameters register resolve table traits",
    "cubefill.methods._torch": "TorchMethod card_of",
    "cubefill.methods.cnnrnn": "CnnRnn ConfigCnnRnn Hdf5Samples",
    "cubefill.methods.cubic": "Akima Pchip Quadratic",
    "cubefill.methods.ganfilling": "GanFilling",
    "cubefill.methods.harmonic": "Climatology Harmonic",
    "cubefill.methods.linear": "Last Linear Linear2 Nearest Next",
    "cubefill.methods.mowing": "ConfigMowing Mowing features",
    "cubefill.methods.msop": "ConfigDavid ConfigUnet MsopDavid MsopUnet",
    "cubefill.methods.seq2seq": "Seq2Seq",
    "cubefill.methods.smooth": "Savgol Whittaker",
    "cubefill.methods.ssop": "ConfigMer ConfigUnet SsopMer SsopUnet",
    "cubefill.methods.stpconv": "ConfigSTpconv STpconv original_config",
    "cubefill.methods.utilise": "Utilise UtiliseConfig day_of_year",
    "cubefill.metrics_perceptual": "GMSD HighFrequency lpips seam_ratio",
    "cubefill.minicube": "MinicubeName clean_windows_of parse_name read read_landcover",
    "cubefill.train_recipe": "Recipe read shipped with_options",
    "cubefill.valid": "UserValid apply dilated from_classes from_scl",
    "cubefill.windows": "Axis Span Whole Window",
}
"""What version 0.1 documented of modules that have moved since."""

EVERY_PATH = """
import importlib, json, warnings
from cubefill.imports import MOVED
told = {}
for former in MOVED:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = importlib.import_module(former)
        exec(f"import {former} as again")
    assert again is first and first.__spec__.name == first.__name__, former
    said = [str(w.message) for w in caught if w.category.__name__ == "CubefillWarning"]
    told[former] = said, sorted(n for n in dir(first) if not n.startswith("_"))
print(json.dumps(told))
"""


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    ).stdout


def test_every_former_path_warns_once_and_offers_its_former_names() -> None:
    told = json.loads(run(EVERY_PATH))
    assert {path: len(said) for path, (said, _) in told.items()} == dict.fromkeys(MOVED, 1)
    assert all(f"use {MOVED[path]}" in said[0] for path, (said, _) in told.items())
    assert set(FORMER) <= set(told)
    absent = {path: set(names.split()) - set(told[path][1]) for path, names in FORMER.items()}
    assert {path: names for path, names in absent.items() if names} == {}


@pytest.mark.parametrize("target", sorted(cubefill.methods.METHODS.values()))
def test_a_target_of_today_is_current(target: str) -> None:
    assert current(target) == target


def test_a_former_module_from_its_package_warns() -> None:
    code = "from cubefill import windows; from cubefill.methods import cubic"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(f"import warnings; warnings.simplefilter('error'); {code}")
    assert "CubefillWarning: cubefill.windows has moved: use" in failed.value.stderr


def test_a_pickle_by_a_former_path_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cubefill.methods.linear", raising=False)
    with pytest.warns(CubefillWarning, match=r"cubefill\.methods\.linear has moved"):
        found = pickle.loads(b"ccubefill.methods.linear\nLinear\n.")
    assert found is type(cubefill.methods.resolve("linear"))


def test_reloading_changes_nothing() -> None:
    run(
        "import importlib, cubefill, cubefill.imports, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "importlib.reload(cubefill.imports); importlib.reload(cubefill)\n"
        "import xarray; assert hasattr(xarray.Dataset, 'gapfill')\n"
        "import cubefill.windows as w; importlib.reload(w)\n"
        "assert w.__name__ == 'cubefill.methods.windows' and w.Span(3).size == 3"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import cubefill, xarray",
        "import xarray, cubefill",
        "import cubefill, importlib.util; importlib.util.find_spec('xarray'); import xarray",
        "import cubefill, threading\n"
        "t = threading.Thread(target=lambda: __import__('xarray')); t.start(); t.join()",
        "import threading\n"
        "t = threading.Thread(target=lambda: __import__('xarray')); t.start()\n"
        "import cubefill; t.join()",
    ],
    ids=["before", "after", "asked", "in a thread", "meanwhile"],
)
def test_the_accessor_is_there_whenever_xarray_is_imported(code: str) -> None:
    run(f"{code}\nimport xarray; assert hasattr(xarray.Dataset, 'gapfill')")


def test_a_package_that_another_thread_is_importing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_one.py").write_text("import time\ntime.sleep(0.5)\nready = True\n")
    (tmp_path / "follower_one.py").write_text("import slow_one\nseen = slow_one.ready\n")
    monkeypatch.syspath_prepend(tmp_path)
    importing = threading.Thread(target=lambda: importlib.import_module("slow_one"))
    importing.start()
    while "slow_one" not in sys.modules:
        pass
    when_imported("slow_one", "follower_one")
    importing.join()
    assert sys.modules["follower_one"].seen


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "nothing"
    with pytest.raises(AttributeError, match=r"module 'cubefill' has no attribute 'nothing'"):
        getattr(cubefill, name)
    assert not hasattr(cubefill, "method_table")
