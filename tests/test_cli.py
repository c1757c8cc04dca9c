"""The command line keeps its promises to people and to programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer.main
from typer.testing import CliRunner

from quietscope.cli import app

PROMISED = {
    "demo", "calibrate", "fit-noise", "record", "train", "live", "denoise", "evaluate", "bench",
    "retrain", "doctor", "inspect", "compare",
}  # fmt: skip


def _commands(group: Any, *before: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *before, name)
        else:
            yield (*before, name)


COMMANDS = sorted(_commands(typer.main.get_command(app)))


def quietscope(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "quietscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=150,
    )


def test_every_command_that_was_promised_is_there() -> None:
    assert {" ".join(words) for words in COMMANDS} >= PROMISED


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_its_options(command: tuple[str, ...]) -> None:
    environment = {"COLUMNS": "200", "TERM": "dumb"}
    shown = CliRunner().invoke(app, [*command, "--help"], env=environment)
    assert shown.exit_code == 0, shown.output
    assert "--json" in shown.output
    assert "env var" not in shown.output
    found: Any = typer.main.get_command(app)
    for word in command:
        found = found.commands[word]
    assert found.help
    shown_ones = [param for param in found.params if not getattr(param, "hidden", False)]
    unexplained = [param.name for param in shown_ones if not getattr(param, "help", "")]
    assert unexplained == []


def test_help_starts_fast_because_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, quietscope.cli\n"
        "heavy = {'torch', 'onnxruntime', 'matplotlib', 'pymmcore', 'pyqtgraph', 'skimage',\n"
        "         'scipy.stats', 'scipy.optimize', 'scipy.signal', 'scipy.ndimage',\n"
        "         'pymmcore_plus', 'useq', 'napari', 'npe2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_wrong_usage_is_status_2() -> None:
    assert quietscope("train").returncode == 2
    assert quietscope("no-such-command").returncode == 2


@pytest.fixture
def bad_stacks(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "with spaces"
    folder.mkdir()
    frames = np.random.default_rng(0).normal(100, 5, (8, 64, 64)).astype(np.float32)
    frames[3, 5, 5] = np.nan
    tifffile.imwrite(folder / "nan.tif", frames, imagej=False)
    tifffile.imwrite(folder / "constant.tif", np.full((8, 64, 64), 100, np.uint16))
    (folder / "empty.ome.zarr").mkdir()
    (folder / "text.tif").write_text("no image", encoding="utf-8")
    return {
        "missing": folder / "missing.tif",
        "nan": folder / "nan.tif",
        "constant": folder / "constant.tif",
        "empty": folder / "empty.ome.zarr",
        "text": folder / "text.tif",
    }


@pytest.mark.parametrize("kind", ["missing", "nan", "constant", "empty", "text"])
def test_bad_training_data_is_one_line_and_leaves_nothing(
    kind: str, bad_stacks: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    words = ["train", str(bad_stacks[kind]), "--out", str(out), "--steps", "5", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert bad_stacks[kind].name in lines[0]
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not list(tmp_path.glob(".*partial"))


def test_doctor_answers_in_json() -> None:
    done = quietscope("doctor", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["passed"] else 1), done.stderr
    names = {check["name"] for check in answer["checks"]}
    assert {"machine", "core", "inference", "training", "preview", "disk"} <= names
    assert all(check["passed"] for check in answer["checks"] if check["name"] != "disk")


def test_doctor_fails_where_something_is_missing(tmp_path: Path) -> None:
    done = quietscope("doctor", "--folder", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "FAIL disk" in done.stdout
    assert "give a --folder that exists" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("checks failed: disk")


def test_an_output_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("years of work", encoding="utf-8")
    for extra in ([], ["--overwrite"]):
        done = quietscope("demo", "--out", precious, "--no-preview", *extra)
        assert done.returncode == 1
        assert str(precious) in done.stderr
    assert (precious / "chapter1.txt").read_text(encoding="utf-8") == "years of work"


def test_a_run_that_does_not_fit_on_the_disk_does_not_begin(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = quietscope("record", "--out", run, "--frames", 1_000_000_000)
    assert done.returncode == 1
    assert "GiB is free" in done.stderr
    assert not run.exists()


def test_a_recorded_run_is_not_recorded_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert quietscope("record", "--out", run, "--frames", 3).returncode == 0
    before = sorted((file.name, file.stat().st_size) for file in run.rglob("*"))
    again = quietscope("record", "--out", run, "--frames", 5)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert sorted((file.name, file.stat().st_size) for file in run.rglob("*")) == before
    replaced = quietscope("record", "--out", run, "--frames", 5, "--overwrite", "--json")
    assert json.loads(replaced.stdout)["frames_recorded"] == 5
