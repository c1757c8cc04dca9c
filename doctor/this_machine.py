"""What this machine has for live denoising, and what is missing.

Owns the questions and their remedies; each answer is asked of the thing itself, not of a list.
What is asked of a Micro-Manager that is running stands in `attached`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import psutil

from ..errors import MissingExtraError, QuietscopeError, require_extra
from ..version import __version__
from .finding import Finding

NEEDED_GIB = 10.0
WINDOW_S = 60.0

_TRY_A_WINDOW = """
from quietscope.acquisition.preview.qt_platform import obstacle

reason = obstacle()
if not reason:
    from PySide6.QtWidgets import QApplication

    application = QApplication([])
    platform = application.platformName()
    if platform in ("offscreen", "minimal", "vnc", "linuxfb") or not application.screens():
        reason = f"Qt draws to no screen here (its platform is {platform})"
print(reason)
"""


def answer(name: str, folder: Path) -> Finding:
    """Ask one of `QUESTIONS`; runs would be recorded in `folder`."""
    try:
        return QUESTIONS[name](folder)
    except QuietscopeError as error:
        return Finding(name, False, str(error))
    except (ImportError, OSError) as error:
        return Finding(name, False, str(error), "install quietscope anew, with pip, and ask again")


def _machine(folder: Path) -> Finding:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    memory_gib = psutil.virtual_memory().total / 2**30
    return Finding(
        "machine",
        sys.version_info >= (3, 11) and memory_gib >= 4,
        f"quietscope {__version__}, Python {platform.python_version()} on "
        f"{platform.system()} {platform.release()}, {cores} cores, {memory_gib:.0f} GiB memory",
        "" if memory_gib >= 4 else "live denoising needs 4 GiB of memory, and 8 are better",
    )


def _core(folder: Path) -> Finding:
    from ..acquisition.microscope.core import MicroscopeSettings, open_microscope

    with open_microscope(MicroscopeSettings()) as microscope:
        version = microscope.core.get_version_info()
        fingerprint = microscope.fingerprint()
    return Finding("core", True, f"{version} with {fingerprint.camera} (demo camera) answers")


def _inference(folder: Path) -> Finding:
    rivals = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    if len(rivals) > 1:
        return Finding(
            "inference",
            False,
            f"{', '.join(rivals)} are installed over each other: all are the module onnxruntime, "
            "and which one runs is chance",
            f"pip uninstall {' '.join(rivals)}, then install the one for this machine "
            "(onnxruntime-gpu with an NVIDIA GPU, else onnxruntime)",
        )
    from ..inference.runtime.providers import working_provider

    provider, remark = working_provider()
    advice = "" if provider != "CPUExecutionProvider" else remark
    return Finding("inference", True, f"ONNX Runtime runs on {provider}", advice)


def _training(folder: Path) -> Finding:
    try:
        require_extra("train", "training")
    except MissingExtraError as error:
        return Finding("training", True, str(error))  # a PC that only runs models needs none of it
    import torch

    if torch.cuda.is_available():
        device = str(torch.cuda.get_device_name())
    else:
        device = f"the CPU, {torch.get_num_threads()} threads"
    return Finding("training", True, f"torch {torch.__version__} on {device}")


def _preview(folder: Path) -> Finding:
    from ..acquisition.preview.link import missing_screen

    problem = missing_screen() or _window_problem()
    return Finding(
        "preview",
        True,  # recording and denoising need no window
        f"no window: {problem}" if problem else "a window can be shown",
    )


def _window_problem() -> str:
    """Return what keeps a window from being shown, "" if nothing does, by trying it.

    In a process of its own: Qt ends the process that it cannot be loaded into.
    """
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", _TRY_A_WINDOW],
            capture_output=True,
            text=True,
            timeout=WINDOW_S,
        )
    except subprocess.TimeoutExpired:
        return f"Qt did not reach the screen within {WINDOW_S:.0f} s"
    if tried.returncode == 0:
        return tried.stdout.strip()
    said = [line for line in tried.stderr.splitlines() if "could not connect to display" in line]
    where = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or "none is named"
    return f"Qt cannot reach the screen ({where})" if said else "Qt cannot be loaded"


def _disk(folder: Path) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except FileNotFoundError:
        return Finding("disk", False, f"{folder}: is not there", "give a --folder that exists")
    free_gib = usage.free / 2**30
    writable = os.access(folder, os.W_OK)
    advice = "" if writable else "choose a --folder that this user may write to"
    if free_gib < NEEDED_GIB:
        advice = (
            f"free some space, or give a --folder on another disk: a 2048² camera at 100 frames/s "
            f"fills {NEEDED_GIB:.0f} GiB in 13 s"
        )
    return Finding(
        "disk",
        writable and free_gib >= NEEDED_GIB,
        f"{folder.resolve()}: {free_gib:.0f} GiB free" + ("" if writable else ", read-only"),
        advice,
    )


QUESTIONS: Mapping[str, Callable[[Path], Finding]] = {
    "machine": _machine,
    "core": _core,
    "inference": _inference,
    "training": _training,
    "preview": _preview,
    "disk": _disk,
}
"""In the order in which they are asked; none depends on another's answer."""
