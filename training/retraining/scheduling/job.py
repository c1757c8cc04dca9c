"""What is to be started every night, whichever system starts it, and what that takes to set up.

Owns the job's name, its command, and the plan that a person is shown before anything is done. How
each system is told is in the modules beside this one; they only compute, `installation` does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path, PurePath

from ...errors import TrainingError
from ..supervision import own_command

MARK = "written by quietscope schedule"
"""In every file of ours: only what has it is ever taken away."""
MOST_NAME = 24
_ON_A_LINE = re.compile("[^\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]*")
"""What unit files, tables and XML can hold."""


def printable(text: str) -> str:
    """Return a text without what is no Unicode in it."""
    return text.encode("utf-8", errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Job:
    """A library's night.

    Attributes
    ----------
    library
        Absolute.
    at, until
        Local times of day.
    notify
        A command that gets the night's record; None for none.
    known_as
        The name under which it was set up; None for that of the library where it lies now.
    """

    library: PurePath
    at: time
    until: time
    notify: str | None = None
    known_as: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot stand on a line of a job file."""
        for what, text in (("the library's path", str(self.library)), ("--notify", self.notify)):
            if text is not None and not _ON_A_LINE.fullmatch(text):
                raise TrainingError(
                    f"{what} is {text!r}, expected one without line breaks and in Unicode"
                )

    @property
    def name(self) -> str:
        """Of the job: the library's, and what tells two libraries of one name apart."""
        if self.known_as is not None:
            return self.known_as
        plain = re.sub(r"[^a-z0-9]+", "-", self.library.name.lower()).strip("-")[:MOST_NAME]
        told_apart = hashlib.sha256(str(self.library).encode()).hexdigest()[:8]
        return "-".join(filter(None, ["quietscope", plain, told_apart]))

    @property
    def description(self) -> str:
        """What the job is for, in one line."""
        return f"quietscope: the models of {self.library} keep up with the microscope ({MARK})"

    def command(self, python: Sequence[str] | None = None) -> list[str]:
        """Return what is started, the program by its absolute path."""
        arguments = ["schedule", "run", "--library", str(self.library)]
        arguments += ["--at", f"{self.at:%H:%M}", "--until", f"{self.until:%H:%M}"]
        if self.notify is not None:
            arguments += ["--notify", self.notify]
        return [*(python or own_command("quietscope.cli")), *arguments]


@dataclass(frozen=True, slots=True)
class Step:
    """A command to run, and what is put into it.

    Attributes
    ----------
    may_fail
        Whether it only clears the way, and may find nothing to clear.
    """

    command: tuple[str, ...]
    given: str | None = None
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is done to set a job up, or to take it away; computed, not yet done.

    Attributes
    ----------
    files
        To be written, with what they will hold.
    steps
        To be run, in order, after the files were written.
    doomed
        Files to be taken away afterwards, if they are ours.
    afterwards
        To be run at the very end.
    remarks
        What a person has to know or do.
    """

    files: Mapping[Path, bytes] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    doomed: tuple[Path, ...] = ()
    afterwards: tuple[Step, ...] = ()
    remarks: tuple[str, ...] = ()
