"""`quietscope doctor --report FILE`: what a bug report needs, and nothing of the person.

Owns the file: the findings, the versions of what quietscope is built on, and the removal of
names and places. The questions are asked in `this_machine` and `attached`.
"""

from __future__ import annotations

import getpass
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ..storage.atomic_output import new_file
from ..version import __version__
from .finding import Finding

PLACE = "…"
"""Stands for the folders of a path: what is left is its last name."""
_PATH = re.compile(
    r"""(?<![\w:/\\])(?:[A-Za-z]:[\\/]|\\\\|~?/)(?:[^\n"'<>|,;()\\/]+[\\/])*(?P<last>[^\s"'<>|,;()\\/]*)"""
)
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^\s\"'<>]+")


def write_report(path: Path, findings: Iterable[Finding]) -> None:
    """Write what was found, for a bug report.

    Raises
    ------
    OutputError
        If something is there already, or nothing may be written there.
    """
    text = "\n".join(
        [
            f"# quietscope {__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.release()} {platform.machine()}",
            "",
            "## What doctor found",
            "",
            *(line for finding in findings for line in _lines(finding)),
            "",
            "## Installed",
            "",
            *(f"- {name} {version}" for name, version in installed().items()),
            "",
        ]
    )
    with new_file(path, overwrite=False) as staging:
        staging.write_text(without_person(text), encoding="utf-8")


def installed() -> Mapping[str, str]:
    """Return the versions of quietscope's own requirements, its extras included."""
    try:
        wanted = metadata.requires("quietscope") or []
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        wanted = []
    names = dict.fromkeys(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted)
    return {name: _version(name) for name in sorted(names, key=str.lower) if name != "quietscope"}


def without_person(text: str) -> str:
    """Return text without places on this machine, its name and that of who uses it."""
    text = _ADDRESS.sub(rf"\g<scheme>{PLACE}", text)
    for home in {str(Path.home()), sys.prefix, str(Path.cwd())}:
        text = text.replace(home, PLACE)
    text = _PATH.sub(rf"{PLACE}/\g<last>", text)
    for name in {_user(), platform.node()}:
        if len(name) > 2:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", PLACE, text)
    return text


def _lines(finding: Finding) -> list[str]:
    mark = "ok" if finding.passed else "FAILED"
    advice = [f"  - advice: {finding.advice}"] if finding.advice else []
    return [f"- {finding.name}: {mark}: {finding.value}", *advice]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return ""
