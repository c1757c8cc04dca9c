"""A desktop icon that opens the window: what it is on each system.

Owns the files that are written, nothing else: no registry, no installation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs

from ..storage.atomic_output import OutputError

NAME = "quietscope"
WORDS = ("-P", "-m", "quietscope.cli", "gui")


def write_shortcut(
    folder: Path | None = None, *, overwrite: bool = False, platform: str = sys.platform
) -> dict[Path, str]:
    """Write the icon, and return every file with what is in it.

    Parameters
    ----------
    folder
        The desktop if not given.
    overwrite
        Replace an earlier one.
    platform
        As `sys.platform` names it.

    Raises
    ------
    OutputError
        If it is there already or cannot be written.
    """
    place = (folder or Path(platformdirs.user_desktop_dir())).absolute()
    name, text = _content(platform)
    path = place / name
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: is there already; replace it with --overwrite")
    try:
        place.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\r\n" if platform == "win32" else "\n")
        if platform != "win32":
            path.chmod(0o755)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); choose a --folder of yours"
        ) from error
    written = {path: text}
    if platform == "win32" and sys.platform == "win32":
        written |= _windows_link(place)
    return written


def _content(platform: str) -> tuple[str, str]:
    if platform == "win32":
        python = _windowed(Path(sys.executable))
        return f"{NAME}.bat", f'@start "" "{python}" {" ".join(WORDS)}\n'
    if platform == "darwin":
        return f"{NAME}.command", f'#!/bin/sh\nexec "{sys.executable}" {" ".join(WORDS)}\n'
    return f"{NAME}.desktop", (
        "[Desktop Entry]\nType=Application\nVersion=1.5\n"
        f"Name={NAME}\nComment=See the clean image while the microscope runs\n"
        f"Exec={_desktop_quoted(sys.executable)} {' '.join(WORDS)}\n"
        "Terminal=false\nCategories=Science;\n"
    )


def _windowed(python: Path) -> Path:
    """Return the interpreter that opens no console, where there is one."""
    windowed = python.with_name("pythonw.exe")
    return windowed if windowed.is_file() else python


def _desktop_quoted(path: str) -> str:
    """Return an argument as the Desktop Entry Specification quotes it."""
    for character in ("\\", '"', "`", "$"):
        path = path.replace(character, f"\\{character}")
    return f'"{path}"'.replace("%", "%%")


def _windows_link(place: Path) -> dict[Path, str]:
    """Write a link as well, which has an icon; without PowerShell the .bat has to do."""
    link = place / f"{NAME}.lnk"
    script = (
        "$s = (New-Object -ComObject WScript.Shell).CreateShortcut($env:QS_LINK); "
        "$s.TargetPath = $env:QS_PYTHON; $s.Arguments = $env:QS_WORDS; $s.Save()"
    )
    python = str(_windowed(Path(sys.executable)))
    named = {"QS_LINK": str(link), "QS_PYTHON": python, "QS_WORDS": " ".join(WORDS)}
    try:
        done = subprocess.run(
            ["powershell", "-NoProfile", "-Command", script],
            env={**os.environ, **named},
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {link: f"{python} {' '.join(WORDS)}"} if done.returncode == 0 else {}
