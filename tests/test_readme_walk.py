"""The README's and the guides' own lines, in their order, as a newcomer would type them.

On the demo camera, one after the other in one empty folder. Environment variables shorten what
takes long, and change nothing else. A block that cannot be run here says why, in a comment above
it; one that says nothing is run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.cli import app
from quietscope.storage.open_stack import open_stack

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))

SHORTER = {
    "QUIETSCOPE_CALIBRATE_LEVELS": "5",
    "QUIETSCOPE_CALIBRATE_FRAMES_PER_LEVEL": "10",
    **{f"QUIETSCOPE_{name}_ROI": "64,64,96,96" for name in ("CALIBRATE", "RECORD", "LIVE")},
    "QUIETSCOPE_RECORD_FRAMES": "30",
    "QUIETSCOPE_LIVE_FRAMES": "20",
    "QUIETSCOPE_TRAIN_PRESET": "fast",
    "QUIETSCOPE_TRAIN_STEPS": "200",
    "QUIETSCOPE_TRAIN_BATCH": "8",
    # The specimen lives: what a corner of it shows now may be so smooth that a blur is as good.
    "QUIETSCOPE_TRAIN_ACCEPT": "1",
    "QUIETSCOPE_RETRAIN_STEPS": "2",
    "QUIETSCOPE_BENCH_SHAPE": "128x128",
    "QUIETSCOPE_BENCH_FRAMES": "3",
}
SHORTEST = SHORTER | {
    "QUIETSCOPE_TRAIN_STEPS": "2",
    "QUIETSCOPE_TRAIN_BATCH": "2",
}
"""For the guides, whose models nobody looks at."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


# ------------------------------------------------------------------------------- the blocks


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and the comment above it."""

    page: str
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(
        r"(?:<!-- (?P<note>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
    )
    for found in fenced.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        name = page.relative_to(ROOT).as_posix()
        yield Block(name, line, found["language"], found["text"], found["note"] or "")


def is_run(block: Block) -> bool:
    return block.language != "text" and not block.note


# ----------------------------------------------------------------------------------- the walk


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a newcomer")


@pytest.fixture(scope="module")
def readme(folder: Path) -> Path:
    """The folder after the README's lines, each typed as it stands."""
    command = shutil.which("quietscope", path=sysconfig.get_path("scripts"))
    assert command, "the set-up puts `quietscope` beside this Python; run: pip install -e .[test]"
    for block in blocks(ROOT / "README.md"):
        if not is_run(block):
            continue
        lines = [block.text] if block.language == "python" else block.lines
        for line in lines:
            typed = _python(line) if block.language == "python" else [command, *_words(line)]
            done = subprocess.run(
                typed,
                cwd=folder,
                env=os.environ | SHORTER,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            assert done.returncode == 0, f"{block}: {line}\n{done.stdout}{done.stderr}"
    return folder


def _words(line: str) -> list[str]:
    """What follows `quietscope`; everything else in a block has to say why it is not run."""
    name, *words = shlex.split(line)
    assert name == "quietscope", line
    return words


MICROSCOPE = """
from quietscope.acquisition.microscope.core import open_microscope

with open_microscope():
"""


def _python(script: str) -> list[str]:
    """A script that finds a microscope which is on already, where it acquires."""
    if "pycromanager" in script:
        body = "".join(f"    {line}\n" if line else "\n" for line in script.splitlines())
        script = MICROSCOPE + body
    return [sys.executable, "-W", "error", "-c", script]


def test_the_readme_ends_with_a_picture_that_is_cleaner_than_the_cameras(readme: Path) -> None:
    run = readme / "runs" / "tuesday"
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["frames_recorded"] == report["frames_denoised"] == 20
    raw, denoised = open_stack(run), open_stack(run / "denoised.ome.zarr")
    truth = _truth(raw.frame(10), run)
    assert _psnr(denoised.frame(10), truth) > _psnr(raw.frame(10), truth) + 3


def test_the_script_that_the_readme_prints_records_and_denoises(readme: Path) -> None:
    run = readme / "runs" / "wednesday"
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["frames_recorded"] == report["frames_denoised"] == 50
    assert list((readme / "data").glob("cells_*/NDTiff.index"))


def _truth(raw: np.ndarray, run: Path) -> np.ndarray:
    """The simulated specimen behind a raw frame: it lives by the clock, so try every second."""
    specimen = Specimen(raw.shape, CameraLaw(1.0, 0.0, 0.0))
    ended = int((run / "report.json").stat().st_mtime)
    moments = [specimen.truth(second).astype(float) for second in range(ended - 120, ended + 60)]
    best = max(moments, key=lambda image: np.corrcoef(image.ravel(), raw.ravel())[0, 1])
    assert np.corrcoef(best.ravel(), raw.ravel())[0, 1] > 0.4
    # In the camera's units: the raw frame is right on average.
    slope, offset = np.polyfit(best.ravel(), raw.ravel(), 1)
    return slope * best + offset


def _psnr(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.mean((estimate - truth) ** 2)))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_the_lines_of_a_guide_work(
    readme: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder that the README filled."""
    monkeypatch.chdir(readme)
    for language, group in groupby(filter(is_run, blocks(page)), lambda block: block.language):
        read = list(group)
        if language == "python":  # one after the other, as in one session
            done = subprocess.run(
                _python("\n".join(block.text for block in read)),
                env=os.environ | SHORTEST,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{read[0]}\n{done.stdout}{done.stderr}"
            continue
        for block in read:
            for line in block.lines:
                ended = CliRunner().invoke(app, _words(line), env=SHORTEST)
                assert ended.exit_code == 0, f"{block}: {line}\n{ended.output}"


# --------------------------------------------------------------------- what is told beside it


def test_whatever_is_not_run_says_why() -> None:
    for page in (ROOT / "README.md", *GUIDES):
        for block in blocks(page):
            known = block.note in ("", "set-up", "test command")
            assert known or re.match(r"not run: \w+", block.note), f"{block}: {block.note}"
            if block.note in ("set-up", "test command"):
                assert page.name == "README.md", block


def test_the_set_up_installs_what_is_there() -> None:
    """Its extras exist, and its console script is the one that the lines after it call."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    set_up = [block.text for block in blocks(ROOT / "README.md") if block.note]
    groups = re.findall(r'"\.\[([\w,]+)\]"', "".join(set_up))
    asked = {extra for group in groups for extra in group.split(",")}
    assert {"train", "test"} <= asked <= set(project["optional-dependencies"])
    assert project["scripts"] == {"quietscope": "quietscope.cli:main"}


def test_every_option_that_a_page_names_exists() -> None:
    """Also in prose and tables, where nothing is run."""
    commands = dict(_options(typer.main.get_command(app)))
    others = {"--long", "--nproc-per-node", "--extra-index-url", "--no-deps", "--help"}
    for script in (*(ROOT / "benchmarks").glob("*.py"), ROOT / "training/general/train.py"):
        others |= set(re.findall(r"--[a-z-]+", script.read_text(encoding="utf-8")))
    everywhere = set().union(*commands.values()) | others
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *GUIDES):
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"`quietscope ([a-z-][^`]*)`", text):
            names = [name for name in commands if f"{line} ".startswith(f"{name} ")]
            assert names, f"{page.name}: quietscope {line}"
            name, rest = names[0], line
            unknown = set(re.findall(r"(?<!\S)--[a-z-]+", rest)) - commands[name]
            assert not unknown, f"{page.name}: quietscope {name} has no {unknown}"
        options = set(re.findall(r"`(--[a-z-]+)[^`]*`", text))
        assert options <= everywhere, f"{page.name}: {options - everywhere}"


def _options(group: Any, before: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command by its one or two words, and the options that it takes."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _options(command, f"{name} ")
        options = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
        yield before + name, options
