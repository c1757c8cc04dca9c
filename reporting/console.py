"""What a command says: progress on standard error, its result on standard output.

Owns the one rich console and the `Outcome` that every command function returns. Does not
decide anything and knows no package. Where a window started the command, `told` says both to it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .told import is_told, tell

stderr = Console(stderr=True, highlight=False)
"""Progress and remarks go here, so that standard output stays one JSON object under --json."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one command.

    Attributes
    ----------
    result
        The JSON object that `--json` prints. Its keys are a contract with other programs.
    summary
        The same for a person, a few lines, plain words with units.
    failed
        Whether the command has an answer, and the answer is that something is wrong: status 1.
    status
        With what the program exits otherwise: 0, or a number that says what was not there.
    """

    result: Mapping[str, Any]
    summary: Sequence[str] = field(default=())
    failed: bool = False
    status: int = 0


def say(line: str) -> None:
    """Print one line for a person on standard error, as it stands."""
    tell("say", text=line)
    stderr.print(line, markup=False, soft_wrap=True)


def command_line(*words: object) -> str:
    """Return a command of quietscope as it can be typed, spaces in paths included."""
    return subprocess.list2cmdline(["quietscope", *map(str, words)])


class _ToldProgress(Progress):
    """A display whose every step is also told to the program that started the command."""

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Update a task."""
        super().update(task_id, **changes)
        task = self._tasks[task_id]
        at_an_end = task.finished or "total" in changes or "description" in changes
        tell(
            "progress",
            least_interval_s=0.0 if at_an_end else 0.1,
            task=task.description,
            completed=task.completed,
            total=task.total,
            note=task.fields.get("note", ""),
        )


def progress() -> Progress:
    """Return a progress display on standard error with counts and the time left."""
    kind = _ToldProgress if is_told() else Progress
    return kind(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,  # a log file wants the results alone
    )
