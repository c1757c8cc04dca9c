"""Overnight: what will be retrained, what came of it, and the way back.

Owns the words for the library's history. Retraining is `quietscope retrain`; going back is the
library's own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ...acquisition.preview.model import Grade, Reading
from ...errors import QuietscopeError
from ...inference.library import InUse, LibraryEntry
from ..job import Job, JobSnapshot
from .step import Step, StepSnapshot, StepState

AT, UNTIL = "23:00", "06:00"
MINUTES_NOW = 10
LOOK_S = 5.0
GRADES = {"promoted": Grade.GOOD, "rolled back": Grade.CARE}
WORDS = {
    "promoted": "New model in use",
    "kept": "Kept the old model",
    "skipped": "Nothing to do",
    "rolled back": "Went back",
}


@dataclass(frozen=True, slots=True, eq=False)
class OvernightSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    at, until
        The window of time, HH:MM.
    in_use
        What is in use, in words, with the channel that a click takes back.
    history
        What happened, the newest first, with the model's page of figures where there is one.
    tonight
        What would be learned from tonight.
    """

    at: str
    until: str
    in_use: tuple[tuple[str | None, str], ...]
    history: tuple[tuple[Reading, Path | None], ...]
    tonight: str


class Overnight(Step):
    """Retraining, beside the five steps."""

    name = "overnight"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.at, self.until = AT, UNTIL
        self.now = False
        self._found: list[Path] = []
        self._looked_in: Path | None = None
        self._next_look = 0.0

    def choose(self, *, at: str | None = None, until: str | None = None) -> None:
        """Change the window of time."""
        self.at, self.until = at or self.at, until or self.until

    def words(self) -> list[str]:
        """Return the command."""
        words = ["retrain", "--library", str(self.facts.workspace.path)]
        if self.now:
            return [*words, "--once", "--minutes", str(MINUTES_NOW)]
        return [*words, "--at", self.at, "--until", self.until]

    def start_now(self) -> bool:
        """Retrain at once."""
        self.now = True
        try:
            return self.start()
        finally:
            self.now = False

    def missing(self) -> str:
        """Return what has to be done first."""
        for name, text in (("start", self.at), ("end", self.until)):
            try:
                datetime.strptime(text, "%H:%M")
            except ValueError:
                return f"the {name} is “{text}”; write a time of day as 23:00"
        if self.at == self.until:
            return "start and end are the same; choose a later end"
        if not self._runs():
            return "record something first: the night learns from what was recorded"
        return ""

    def _runs(self) -> list[Path]:
        """Return the recordings, looked for now and then: her disk may be slow."""
        if time.monotonic() > self._next_look or self._looked_in != self.facts.workspace.path:
            self._looked_in = self.facts.workspace.path
            self._next_look = time.monotonic() + LOOK_S
            try:
                self._found = self.facts.workspace.library.runs()
            except (QuietscopeError, OSError):
                self._found = []
        return self._found

    def line(self) -> str:
        """Return whether something will happen tonight."""
        return "off"

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Read what is in use now."""
        self.facts.find_models()
        return False

    def done(self) -> StepState | None:
        """Return nothing: it is never done."""
        return None

    def line_now(self) -> str:
        """Return the line for the list on the left."""
        if self.busy and self.job is not None and "--at" in self.job.words:
            return f"on, from {self.job.words[self.job.words.index('--at') + 1]}"
        return super().line_now()

    def roll_back(self, channel: str | None) -> bool:
        """Put the model back in use that was in use before."""
        try:
            self.facts.workspace.library.rollback(channel)
        except (QuietscopeError, OSError) as error:
            self.error = str(error)
            return False
        self.error = ""
        self.facts.find_models()
        return True

    def snapshot(self) -> OvernightSnapshot:
        """Return what the page shows."""
        library = self.facts.workspace.library
        in_use: tuple[InUse, ...] = ()
        history: tuple[LibraryEntry, ...] = ()
        try:
            in_use, history = library.in_use(), library.history()
        except QuietscopeError as error:
            self.error = self.error or str(error)
        runs = self._runs()
        return OvernightSnapshot(
            **self.common(),
            at=self.at,
            until=self.until,
            in_use=tuple((one.channel, _in_words(one)) for one in in_use),
            history=tuple((_entry(e), self._page(e)) for e in reversed(history)),
            tonight=f"It will learn from the newest of {len(runs)} recordings, and use the new "
            "model only where it is better."
            if runs
            else "Nothing is recorded yet.",
        )

    def _page(self, entry: LibraryEntry) -> Path | None:
        named = entry.candidate or entry.model
        page = None if named is None else self.facts.workspace.path / named / "report.html"
        return page if page is not None and page.is_file() else None


def _in_words(one: InUse) -> str:
    since = "" if one.since is None else f", since {one.since[:16].replace('T', ' ')}"
    channel = "every channel" if one.channel is None else f"channel {one.channel}"
    return f"“{Path(one.model).name}” for {channel}{since}"


def _entry(entry: LibraryEntry) -> Reading:
    when = entry.time[:16].replace("T", " ")
    named = entry.candidate or entry.model
    name = "" if named is None else f" ({Path(named).name})"
    reason = entry.reason[:1].upper() + entry.reason[1:]
    grade = GRADES.get(entry.decision, Grade.UNKNOWN)
    return Reading(f"{WORDS[entry.decision]}{name}", when, reason, grade)
