"""The command line: one library call each, JSON on stdout, exit codes 0, 1 and 2."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zarr
from click.testing import CliRunner, Result

import cubefill
from cubefill.cli import commands as cli
from cubefill.cli import run_demo as demo
from cubefill.cli.command import in_flags
from cubefill.store.ledger import Ledger
from cubefill.testing import synthetic_cube

SLOW = """
import time
from dataclasses import dataclass
from cubefill.methods.pixel.linear import Linear

@dataclass(frozen=True)
class Slow(Linear):
    def fill(self, blocks):
        for block in super().fill(blocks):
            time.sleep({seconds})
            yield block
"""


HARMONIZE = "Pass --harmonize False, or --harmonize -1000."

OPTICAL = ["-c", "sentinel-2-l2a"]


def call(*arguments: Any, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def parsed(*arguments: Any, **options: Any) -> Any:
    return json.loads(call(*arguments, "--json", "-q", **options).stdout)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoResult:
    """A small demo: catalogue, cube and filled cube."""
    return demo.run_demo(tmp_path_factory.mktemp("cli") / "demo", size=48, dates=6)


def test_every_command_has_help() -> None:
    names = [
        "demo",
        "search",
        "load",
        "fill",
        "ndvi",
        "info",
        "preview",
        "train",
        "convert",
        "score",
        "methods",
        "doctor",
    ]
    assert list(cli.main.commands) == names
    for name in names:
        assert "Usage:" in call(name, "--help").stdout
        assert cli.main.commands[name].help


def test_version() -> None:
    assert cubefill.__version__ in call("--version").stdout


def test_usage_errors_exit_with_2() -> None:
    assert "Missing argument" in call("fill", code=2).stderr
    assert "KEY=VALUE" in call("fill", "a", "b", "--option", "max_gap", code=2).stderr
    assert "--tile 9" in call("fill", "a", "b", "--option", "tile=9", code=2).stderr
    assert "eo:cloud_cover<30" in call("search", "a", "--query", "cloudy", code=2).stderr
    assert "No such option" in call("methods", "--nonsense", code=2).stderr


def test_errors_are_one_line_and_exit_with_1(tmp_path: Path) -> None:
    result = call("info", tmp_path / "absent.zarr", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is no cube, no catalogue and no place to write to."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "nothing").touch()
    (root / "folder").mkdir()
    (root / "bytes").write_bytes(bytes(range(256)) * 4)
    for name, text in {
        "text.json": "hello", "null.json": "null", "list.json": "[3]", "catalog.json": "{}",
        "none.json": '{"type": "FeatureCollection", "features": []}',
        "odd.json": '{"type": "FeatureCollection", "features": [{}, 3]}',
    }.items():  # fmt: skip
        (root / name).write_text(text)
    for name, text in {
        "cut.zarr": "{",
        "bare.zarr": '{"zarr_format": 3, "node_type": "group"}',
    }.items():
        (root / name).mkdir()
        (root / name / "zarr.json").write_text(text)
    zarr.create_array(str(root / "array.zarr"), shape=(3, 3), dtype="f4")
    return root


INPUTS = (
    "missing", "nothing", "folder", "bytes", "text.json", "null.json", "list.json", "none.json",
    "odd.json", "cut.zarr", "bare.zarr", "array.zarr", "nonsense://b/c", "s3://b/c.zarr",
    "gs://b/c", "ftp://127.0.0.1:9/c.zarr", "file:///nowhere/c", "file://host/c", "file:", "://",
    "", "a\x00b", "~nobody/x", "/dev/null", "x" * 300,
)  # fmt: skip
READERS = (
    "load {} t", "fill {} t", "fill {} t --dry-run", "ndvi {} t", "info {}", "preview {} p.png",
    "search {}", "score {}", "train {} t", "convert linear {} t", "convert {} bytes t",
    "search CATALOGUE --intersects {}", "fill CUBE t --method {}", "load {} t --dry-run",
    "fill CUBE t --method ganfilling --option checkpoint={}", "score CUBE --method utilise={}",
)  # fmt: skip
OUTPUTS = ("/nowhere/t", "nothing/t", "nonsense://t", "s3://b/t", "", "file://h/t")
WRITERS = (
    "load CATALOGUE {}", "fill CUBE {}", "ndvi CUBE {} --overwrite", "preview CUBE {}",
    "search CATALOGUE --save {}", "score CUBE --save {}", "convert utilise bytes {}",
    "train utilise {} --cube missing", "fill CUBE {} --overwrite",
)  # fmt: skip
NUMBERS = ("nan", "inf", "-inf", "-1", "1e400", "abc", "")
OPTIONS = (
    "search CATALOGUE --max-cloud {}", "search CATALOGUE --max-items {}",
    "search CATALOGUE --bbox {} 1 2 3", "search CATALOGUE --bbox 0 1 2 {}",
    "search CATALOGUE --datetime {}/{}", "search CATALOGUE -c sentinel-2-l2a --query gsd<{}",
    "load CATALOGUE t --dry-run --resolution {}", "load CATALOGUE t --dry-run --crs {}",
    "load CATALOGUE t --dry-run --bands {}", "fill CUBE t --tile {}", "fill CUBE t --workers {}",
    "demo t --seed {}", "demo t --size {}", "demo t --dates {}", "score CUBE --seed {}",
    "score CUBE --gaps {}", "score CUBE --convention {}", "fill CUBE t --device {}",
    "preview CUBE p.png --time {}", "fill CUBE t --scheduler {}", "ndvi CUBE t --red {}",
)  # fmt: skip


# Every line meets some values and every value some lines: all pairs take a minute.
GROUPS = ((READERS, INPUTS, 6), (WRITERS, OUTPUTS, 2), (OPTIONS, NUMBERS, 3))


@pytest.mark.parametrize("line", [*READERS, *WRITERS, *OPTIONS])
def test_whatever_is_typed_is_answered_in_one_line(
    line: str, shown: demo.DemoResult, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    known = {"CATALOGUE": str(shown.catalogue), "CUBE": str(shown.cube)}
    kind, values, step = next(g for g in GROUPS if line in g[0])
    chosen: tuple[str, ...] = values[kind.index(line) % step :: step]
    before = sorted(hostile.rglob("*"))
    for value in chosen:
        words = [known.get(w, w.replace("{}", value)) for w in line.split()]
        result = CliRunner().invoke(cli.main, words)
        said = result.stderr.strip().splitlines()
        assert result.exit_code in (1, 2), (words, result.output)
        assert isinstance(result.exception, SystemExit), (words, result.exception)
        assert said[-1].lower().startswith("error: "), (words, result.stderr)
        assert "Use -v" not in said[-1], (words, said[-1])
        assert "Ellipsis" not in said[-1], (words, said[-1])
    assert sorted(hostile.rglob("*")) == before


def test_what_nobody_foresaw_is_one_line_and_v_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(cubefill, "list_methods", fails)
    result = call("methods", code=1)
    assert (
        result.stderr == "error: ZeroDivisionError: by zero. Use -v to see where it comes from.\n"
    )
    result = CliRunner().invoke(cli.main, ["methods", "-v"])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_with_the_flags(shown: demo.DemoResult, tmp_path: Path) -> None:
    doc = json.loads((Path(shown.catalogue) / "items.json").read_text())
    for feature in doc["features"]:
        feature["properties"] = {
            "datetime": None,
            "start_datetime": feature["properties"]["datetime"].replace("2021", "2023"),
            "end_datetime": "2023-12-31T00:00:00Z",
            "proj:code": feature["properties"]["proj:code"],
        }
        for asset in feature["assets"].values():
            asset.pop("raster:bands", None)
            asset["href"] = str(Path(shown.catalogue) / asset["href"])
    (tmp_path / "items.json").write_text(json.dumps(doc))
    found = call("search", tmp_path / "items.json").stdout.splitlines()
    assert len(found) == len(doc["features"])
    assert found[0].startswith("2023-")
    words = ["load", str(tmp_path / "items.json"), str(tmp_path / "c.zarr"), "--dry-run", "-q"]
    said = call(*words).stderr.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: ")
    assert "Pass --harmonize False" in said[0]
    assert call(*words, "--harmonize", "False").stderr == ""
    assert call(*words, "--harmonize", "-1000").stderr == ""


def test_messages_name_the_flags_of_the_command() -> None:
    fill, train = cli.main.commands["fill"], cli.main.commands["train"]
    load = cli.main.commands["load"]
    for command, said, wanted in (
        (fill, "Pass overwrite=True or resume=True.", "Pass --overwrite or --resume."),
        (fill, "Pass resume=False.", "Pass --no-resume."),
        (
            fill,
            "tile=0: Pass tile=256, memory='4 GB'.",
            "--tile 0: Pass --tile 256, --memory '4 GB'.",
        ),
        (
            fill,
            "Use ds.gapfill('a', tile=(3, 4), std=True).",
            "Use ds.gapfill('a', tile=(3, 4), std=True).",
        ),
        (fill, "Pass max_gap=40.", "Pass max_gap=40."),
        (fill, "Pass valid='finite' or leave it.", "Pass --valid finite or leave it."),
        (fill, "Use valid={'SCL': (4, 5)} now.", "Use --valid SCL=4,5 now."),
        (fill, "Use valid={'p': '< 40', 'm': 1}.", "Use --valid 'p<40' --valid m=1."),
        (load, "Pass sar=False.", "Leave out --sar."),
        (cli.main.commands["score"], "Pass sar=False.", "Pass --no-sar."),
        (load, "Pass collections=['a', 'b'].", "Pass --collection a --collection b."),
        (load, "Pass collections=[..., 'b'].", "Pass --collection ... --collection b."),
        (load, "Pass bbox=(W, S, E, N).", "Pass --bbox W S E N."),
        (load, "Pass bbox=(3, 50, 4, 51).", "Pass --bbox 3 50 4 51."),
        (load, "such as bands=('B04', 'B08').", "such as --bands B04,B08."),
        (load, "Pass harmonize=False, or harmonize=-1000.", HARMONIZE),
        (load, "Pass on_error='flag'.", "Pass --on-error flag."),
        (load, "Pass crs='EPSG:32631'.", "Pass --crs EPSG:32631."),
        (load, "Pass bbox=None to load all.", "Leave out --bbox to load all."),
        (train, "Pass cubes=['c d.zarr'].", "Pass --cube 'c d.zarr'."),
        (
            train,
            "a lower rate, clip=1.0, or batch=2.",
            "a lower rate, --set clip=1.0, or --set batch=2.",
        ),
        (train, "Pass samples={'hdf5': 'F.h5'}.", "Pass --set samples.hdf5=F.h5."),
        (train, "Pass precision='float32'.", "Pass --set precision=float32."),
        (train, "Pass dates=, so that all fit.", "Pass --set samples.dates=, so that all fit."),
        (fill, "Pass tile= the side, or max_gap=.", "Pass --tile the side, or max_gap=."),
        (None, "Pass overwrite=True.", "Pass overwrite=True."),
    ):
        assert in_flags(said, command) == wanted


def test_help_says_what_is_replaced_and_set() -> None:
    assert "Replace TARGET." in call("fill", "--help").stdout
    for name in ("train", "convert"):
        said = " ".join(call(name, "--help").stdout.split())
        assert "Replace FOLDER." in said
        assert "--set config." in said


def test_unknown_method_and_option_are_told(shown: demo.DemoResult, tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    assert "linear" in call("fill", shown.cube, target, "--method", "linaer", code=1).stderr
    wrong = call("fill", shown.cube, target, "--method", "linear", "--option", "max_gip=1", code=1)
    assert "max_gap" in wrong.stderr
    assert not target.exists()


def test_fill_says_what_is_clear(shown: demo.DemoResult, tmp_path: Path) -> None:
    def said(*rules: str) -> str:
        target = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        more = [part for rule in rules for part in ("--valid", rule)]
        call("fill", shown.cube, target, "--method", "linear", *more)
        return str(cubefill.open_cube(target).attrs["gapfill_valid"])

    assert "SCL is vegetation, bare;" in said("SCL=4,5")
    both = said("SCL = 4,5", "dilate=0", "B02<0.2", "B02 >= 0")
    assert "dilated by 0 m" in both
    assert "(B02 >= 0)" in both
    assert said("finite").startswith("True where any of B02")
    wrong = call("fill", shown.cube, tmp_path / "a.zarr", "--valid", "SCL", code=1).stderr
    assert "Use --valid SCL=4,5,6,7 with" in wrong
    assert "class numbers" in call("fill", shown.cube, "b", "--valid", "SCL=a", code=1).stderr
    assert (
        "dilate=far"
        in call("fill", shown.cube, "b", "--valid", "SCL=4", "--valid", "dilate=far", code=1).stderr
    )
    alone = call("fill", "a", "b", "--valid", "SCL=4", "--valid", "finite", code=2).stderr
    assert "the name 'finite' stands alone" in alone
    plan = parsed("fill", shown.cube, tmp_path / "f.zarr", "--dry-run", "--valid", "SCL=4")
    assert "job" in plan


def test_methods() -> None:
    rows = parsed("methods")
    assert set(rows) == set(cubefill.list_methods())
    assert "linear" in call("methods").stdout


def test_doctor() -> None:
    rows = parsed("doctor")
    assert {"python", "cores", "memory", "codecs"} <= {r["name"] for r in rows}
    assert all(r["ok"] or r["fix"] for r in rows)
    assert "ok    cores" in call("doctor").stdout


def test_search_and_save(shown: demo.DemoResult, tmp_path: Path) -> None:
    saved = tmp_path / "items.json"
    found = parsed("search", shown.catalogue, *OPTICAL, "--save", saved)
    assert len(found["features"]) == 6
    assert len(json.loads(saved.read_text())["features"]) == 6
    assert parsed("search", shown.catalogue, *OPTICAL, "--matched") == {"matched": 6}
    assert parsed("search", shown.catalogue, "--matched", "--max-items", 2) == {"matched": 2}
    assert "% cloud" in call("search", shown.catalogue).stdout


def test_search_conditions(shown: demo.DemoResult) -> None:
    items = cubefill.search(shown.catalogue, collections=[OPTICAL[1]])
    covers = sorted(i.properties["eo:cloud_cover"] for i in items)
    limit = (covers[2] + covers[3]) / 2
    wanted = sum(c < limit for c in covers)
    query = ["--query", f"eo:cloud_cover<{limit}", "--matched"]
    assert parsed("search", shown.catalogue, *OPTICAL, *query) == {"matched": wanted}
    day = f"{items[0].datetime:%Y-%m-%d}"
    dated = ["--datetime", f"{day}/{day}", "--matched"]
    assert parsed("search", shown.catalogue, *OPTICAL, *dated) == {"matched": 1}
    away = call("search", shown.catalogue, "--bbox", 100, 10, 101, 11, code=1)
    assert away.stderr.startswith("error: ")


def test_load_from_stdin(shown: demo.DemoResult, tmp_path: Path) -> None:
    items = call("search", shown.catalogue, "--json", "-q").stdout
    dry = call("load", "-", tmp_path / "dry.zarr", "--dry-run", "-q", stdin=items)
    assert "48 y" in dry.stdout
    assert not (tmp_path / "dry.zarr").exists()
    made = parsed("load", "-", tmp_path / "c.zarr", "--bands", "B04,B08", stdin=items)
    assert made["bands"] == ["B04", "B08"]
    assert made["sizes"] == {"time": 6, "y": 48, "x": 48}
    assert made["complete"] is True


def test_fill_dry_run_prints_the_plan(shown: demo.DemoResult, tmp_path: Path) -> None:
    plan = parsed("fill", shown.cube, tmp_path / "f.zarr", "--dry-run", "--memory", "2GB")
    assert plan["tiles"] == 1
    assert plan["memory"] == 2_000_000_000
    assert plan["tasks"] == cubefill.plan(cubefill.open_cube(shown.cube), "linear").tasks
    assert plan["job"]["tiles"] == 1
    assert "tiles" in call("fill", shown.cube, tmp_path / "f.zarr", "--dry-run").stdout
    assert not (tmp_path / "f.zarr").exists()


def test_fill_refuses_what_does_not_fit(shown: demo.DemoResult, tmp_path: Path) -> None:
    result = call("fill", shown.cube, tmp_path / "f.zarr", "--memory", "1kB", code=1)
    assert "1 kB" in result.stderr


def test_fill_writes_what_the_library_writes(shown: demo.DemoResult, tmp_path: Path) -> None:
    arguments = [
        "--method",
        "linear",
        "--option",
        "max_gap=40",
        "--ndvi",
        "--std",
        "--quantiles",
        "0.05,0.95",
    ]
    made = parsed("fill", shown.cube, tmp_path / "cli.zarr", *arguments)
    out = cubefill.run(
        shown.cube, tmp_path / "lib.zarr", "linear", max_gap=40, ndvi=True, std=True,
        quantiles=(0.05, 0.95), progress=False,
    )  # fmt: skip
    assert {"B04_q05", "NDVI_q95"} <= set(out.data_vars)
    other = cubefill.open_cube(tmp_path / "cli.zarr")
    assert set(made["bands"]) >= {"B04", "B08"}
    for name in out.data_vars:
        assert out[name].identical(other[name]) or bool((out[name] == other[name]).all())
    assert json.loads(made["attrs"]["gapfill_parameters"])["max_gap"] == 40


def test_fill_on_other_dates(shown: demo.DemoResult, tmp_path: Path) -> None:
    made = parsed("fill", shown.cube, tmp_path / "r.zarr", "--times", "30D")
    assert len(made["dates"]) > 6
    two = parsed("fill", shown.cube, tmp_path / "d.zarr", "--times", "2023-05-01,2023-06-01")
    assert two["dates"] == ["2023-05-01", "2023-06-01"]


def test_an_existing_store_is_not_replaced(shown: demo.DemoResult, tmp_path: Path) -> None:
    target = tmp_path / "f.zarr"
    call("fill", shown.cube, target, "-q")
    other = call("fill", shown.cube, target, "--method", "nearest", "-q", code=1)
    assert other.stderr.startswith("error: ")
    assert "Pass --overwrite to replace it" in other.stderr
    again = call("fill", shown.cube, target, "--no-resume", "-q", code=1).stderr
    assert "--resume to finish it or --overwrite to replace it" in again
    call("fill", shown.cube, target, "--method", "nearest", "--overwrite", "-q")
    assert parsed("info", target)["attrs"]["gapfill_method"] == "nearest"


def test_ndvi(shown: demo.DemoResult, tmp_path: Path) -> None:
    made = parsed("ndvi", shown.filled, tmp_path / "n.zarr")
    assert made["bands"] == ["NDVI"]
    assert "NDVI_flag" in made["variables"]


def test_info(shown: demo.DemoResult) -> None:
    found = parsed("info", shown.cube)
    assert found["crs"].startswith("EPSG:326")
    assert 0 < found["clear"] < 1
    assert found["complete"] is True
    filled = parsed("info", shown.filled)
    assert abs(sum(filled["flags"].values()) - 1) < 1e-6
    text = call("info", shown.filled).stdout
    assert "fill_flag" in text
    assert "gapfill_method" in text


def test_preview(shown: demo.DemoResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    call("preview", shown.filled, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_logs_go_to_stderr_and_q_is_quiet(shown: demo.DemoResult, tmp_path: Path) -> None:
    loud = call("fill", shown.cube, tmp_path / "a.zarr", "-v")
    assert "samedate" in loud.stderr
    assert "complete    yes" in loud.stdout
    assert call("fill", shown.cube, tmp_path / "b.zarr", "-q").output == ""
    assert call("ndvi", shown.filled, tmp_path / "n.zarr", "-q").output == ""
    bbox = cubefill.search(shown.catalogue)[0].bbox
    load = ["load", shown.catalogue, tmp_path / "c.zarr", "--bbox", *bbox, "-q"]
    assert call(*load).output == ""
    assert "bands" in call("info", tmp_path / "b.zarr", "-q").stdout


def test_interrupt_leaves_a_store_that_the_same_command_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "cube.zarr", tmp_path / "filled.zarr"
    cubefill.write_cube(synthetic_cube(size=(256, 256), dates=2), source, progress=False)
    command = [sys.executable, "-m", "cubefill.cli", "fill", str(source), str(target)]
    command += ["--method", "slow_linear:Slow", "--tile", "64"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "slow_linear.py").write_text(SLOW.format(seconds=1.5))
    heed = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a shell's background job does not
    job = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    ledger = Ledger(target)
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (ledger.exists and len(ledger.missing()) < 16):
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "--resume" in said.splitlines()[-1]
    assert "Traceback" not in said
    left = len(ledger.missing())
    assert 0 < left < 16
    (tmp_path / "slow_linear.py").write_text(SLOW.format(seconds=0))
    monkeypatch.syspath_prepend(tmp_path)
    call(*command[3:])
    assert ledger.complete


def test_fill_on_a_cluster(shown: demo.DemoResult, tmp_path: Path, cluster_client: Any) -> None:
    address = cluster_client.scheduler.address
    made = parsed("fill", shown.cube, tmp_path / "f.zarr", "--scheduler", address)
    assert made["complete"] is True


def test_search_in_a_geometry(shown: demo.DemoResult, tmp_path: Path) -> None:
    west, south, east, north = cubefill.search(shown.catalogue)[0].bbox
    inside = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    shape = tmp_path / "area.geojson"
    shape.write_text(json.dumps({"type": "Polygon", "coordinates": [inside]}))
    found = parsed("search", shown.catalogue, *OPTICAL, "--intersects", shape, "--matched")
    assert found == {"matched": 6}
