"""`import cubefill` stays light."""

import json
import subprocess
import sys

HEAVY = ("torch", "odc", "distributed", "matplotlib", "numba", "rasterio", "pystac_client")


def loaded(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_loads_nothing_heavy() -> None:
    assert sorted(loaded("import cubefill") & set(HEAVY)) == []


def test_command_line_loads_nothing_heavy() -> None:
    assert sorted(loaded("import cubefill.cli") & set(HEAVY)) == []


def test_the_reading_sees_a_heavy_module() -> None:
    assert "matplotlib" in loaded("import matplotlib")
