"""`quietscope doctor`: what this machine has, and what is missing for live denoising.

Owns the questions and their remedies; each answer is asked of the thing itself, not of a list.
What is asked of a Micro-Manager that is running stands in `doctor_attach`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from .. import __version__
from ..errors import QuietscopeError
from ..reporting.console import Outcome, progress


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: what was found, whether live denoising can work with it, and what to do.

    `figures` are what was measured, for programs.
    """

    name: str
    passed: bool
    value: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def doctor(
    folder: Annotated[
        Path, typer.Option(help="Where runs would be recorded; its disk is examined.")
    ] = Path(),
    attach: Annotated[
        bool,
        typer.Option("--attach", help="Examine the Micro-Manager that is running here instead."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Its server's port, with --attach.")
    ] = 4827,
    test_acquisition: Annotated[
        bool,
        typer.Option("--test-acquisition", help="With --attach: take ten images through it."),
    ] = False,
) -> Outcome:
    """Examine this machine: core, camera, inference, training, screen and disk."""
    if test_acquisition and not attach:
        raise typer.BadParameter("--test-acquisition belongs to --attach; give both")
    if attach:
        return _outcome(_attached(port, test_acquisition=test_acquisition))
    return _outcome(_this_machine(folder))


def _outcome(findings: Iterable[Finding]) -> Outcome:
    found = list(findings)
    return Outcome(
        result={
            "version": __version__,
            "passed": all(finding.passed for finding in found),
            "checks": [asdict(finding) for finding in found],
        },
        summary=[_line(finding) for finding in found],
    )


def _attached(port: int, *, test_acquisition: bool) -> Iterator[Finding]:
    from .attached import QUESTIONS, examine

    answered = 0
    with progress() as bar:
        task = bar.add_task("asking Micro-Manager", total=len(QUESTIONS), note=QUESTIONS[0])
        try:
            for finding in examine(port, test_acquisition=test_acquisition):
                yield finding
                answered += 1
                bar.update(task, completed=answered, note=QUESTIONS[answered % len(QUESTIONS)])
        except Exception as error:  # the bridge raises bare exceptions, with Java's whole stack
            message = str(error).strip().split("\n")[0] or type(error).__name__
            advice = (
                "" if isinstance(error, QuietscopeError) else "restart Micro-Manager, ask again"
            )
            yield Finding(QUESTIONS[answered], False, message, advice)


def _this_machine(folder: Path) -> Iterator[Finding]:
    questions: dict[str, Callable[[], Finding]] = {
        "machine": _machine,
        "core": _core,
        "inference": _inference,
        "training": _training,
        "preview": _preview,
        "disk": lambda: _disk(folder),
    }
    with progress() as bar:
        task = bar.add_task("examining", total=len(questions), note="")
        for name, ask in questions.items():
            bar.update(task, note=name)
            yield _answer(name, ask)
            bar.advance(task)


def _answer(name: str, ask: Callable[[], Finding]) -> Finding:
    try:
        return ask()
    except (QuietscopeError, ImportError, OSError) as error:
        return Finding(name, False, str(error), "see the message; reinstall with pip if in doubt")


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.passed else "FAIL"
    advice = f"\n     → {finding.advice}" if finding.advice else ""
    return f"{mark} {finding.name:<10} {finding.value}{advice}"


def _machine() -> Finding:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    memory_gib = psutil.virtual_memory().total / 2**30
    return Finding(
        "machine",
        sys.version_info >= (3, 11) and memory_gib >= 4,
        f"quietscope {__version__}, Python {platform.python_version()} on "
        f"{platform.system()} {platform.release()}, {cores} cores, {memory_gib:.0f} GiB memory",
    )


def _core() -> Finding:
    from ..acquisition.microscope.core import MicroscopeSettings, open_microscope

    with open_microscope(MicroscopeSettings()) as microscope:
        version = microscope.core.get_version_info()
        fingerprint = microscope.fingerprint()
    return Finding("core", True, f"{version} with {fingerprint.camera} (demo camera) answers")


def _inference() -> Finding:
    from ..inference.runtime.providers import working_provider

    provider, remark = working_provider()
    advice = "" if provider != "CPUExecutionProvider" else remark
    return Finding("inference", True, f"ONNX Runtime runs on {provider}", advice)


def _training() -> Finding:
    import torch

    if torch.cuda.is_available():
        device = str(torch.cuda.get_device_name())
    else:
        device = f"the CPU, {torch.get_num_threads()} threads"
    return Finding("training", True, f"torch {torch.__version__} on {device}")


def _preview() -> Finding:
    from ..acquisition.preview.link import missing_screen

    problem = missing_screen() or _qt_problem()
    return Finding(
        "preview",
        True,  # recording and denoising need no window
        f"no window: {problem}" if problem else "a window can be shown",
    )


def _qt_problem() -> str:
    # In a process of its own: Qt ends the process that it cannot be loaded into.
    question = "from quietscope.acquisition.preview.qt_platform import obstacle; print(obstacle())"
    asked = subprocess.run(
        [sys.executable, "-c", question], capture_output=True, text=True, timeout=60
    )
    return asked.stdout.strip() if asked.returncode == 0 else "Qt cannot be loaded"


def _disk(folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    free_gib = usage.free / 2**30
    writable = os.access(folder, os.W_OK)
    return Finding(
        "disk",
        writable and free_gib >= 10,
        f"{folder.resolve()}: {free_gib:.0f} GiB free" + ("" if writable else ", read-only"),
        "" if free_gib >= 10 else "a 2048² camera at 100 frames/s fills 10 GiB in 13 s",
    )
