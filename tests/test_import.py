"""What an import and a command may load: sets of modules, which a slow machine does not change."""

import subprocess
import sys
from pathlib import Path

COMMAND = "import sys; sys.argv = ['cubefill', {!r}]; from cubefill.cli import main; main()"
STARTED = ["cubefill", "cubefill.errors", "cubefill.imports"]
SHELL = ["cubefill.addresses", "cubefill.cli"]
SHELL += [f"cubefill.cli.{name}" for name in ("command", "commands", "training")]

WITHOUT_TORCH = """
import sys, warnings

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
warnings.simplefilter("error")
import cubefill
from cubefill import evaluate, simulate
scene = simulate.scene(size=32, dates=14, seed=0)
cubefill.stac.write_catalogue(scene.cube, "catalogue")
ds = cubefill.load(cubefill.search("catalogue"), sar=True, dem=True)
cubefill.write_cube(ds, "cube.zarr", progress=False)
cube = cubefill.open_cube("cube.zarr")
print(cube.gapfill.plan("whittaker"))
cube.gapfill("linear").compute()
filled = cubefill.run("cube.zarr", "filled.zarr", ndvi=True, std=True, progress=False)
cubefill.report(filled, before=cube).save("report.html")
cubefill.plot.preview(filled, "picture.png")
filled.gapfill.to_geotiff("tifs")
evaluate.self_test(cube, ["linear"])
assert len(cubefill.list_methods()) > 20
"""
REFUSED = """
import cubefill
from cubefill.testing import synthetic_cube
from cubefill import train
for ask in (
    lambda: synthetic_cube().gapfill("utilise"),
    lambda: synthetic_cube().gapfill("linear", device="cuda"),
    lambda: train.fit,
):
    try:
        ask()
    except cubefill.MethodError as error:
        assert "needs torch, which is not installed. Use pip install torch" in str(error)
    else:
        raise AssertionError("nothing was refused")
"""


def run(code: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, given: str = "pass") -> set[str]:
    """Modules that `code` loads beside those of `given`, the standard library's left out.

    cubefill's come with their path, others by the name of their package.
    """
    tell = "atexit.register(lambda: print('loaded', *sys.modules))"
    both = (run(f"import atexit, sys; {tell}; {c}").split("loaded ")[-1] for c in (given, code))
    given_names, names = (set(text.split()) for text in both)
    own = {n for n in names if n.partition(".")[0] == "cubefill"}
    others = {n.partition(".")[0] for n in names - given_names - own}
    return own | (others - sys.stdlib_module_names)


def test_import_loads_nothing_but_the_face() -> None:
    assert loaded("import cubefill") == set(STARTED)


def test_after_xarray_the_accessor_alone_is_added() -> None:
    found = loaded("import xarray, cubefill", given="import xarray")
    assert found == {*STARTED, "cubefill.accessor"}


def test_help_loads_click_alone() -> None:
    assert loaded(COMMAND.format("--help")) == {*STARTED, *SHELL, "click"}
    assert loaded(COMMAND.format("--version")) == {*STARTED, *SHELL, "click"}


def test_methods_are_listed_without_the_methods() -> None:
    found = loaded(COMMAND.format("methods"))
    assert {n for n in found if not n.startswith("cubefill")} == {"click", "numpy"}
    assert not any(n.startswith(("cubefill.methods.pixel", "cubefill.nn")) for n in found)


def test_the_reading_sees_a_heavy_module() -> None:
    assert "matplotlib" in loaded("import matplotlib")


def test_the_straight_line_needs_no_torch(tmp_path: Path) -> None:
    run(WITHOUT_TORCH, tmp_path)


def test_a_net_without_torch_says_what_to_install() -> None:
    run(WITHOUT_TORCH.partition("import cubefill\n")[0] + REFUSED)
