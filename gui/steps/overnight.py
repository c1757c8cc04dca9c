"""Overnight: what will be retrained, what came of it, and the way back.

Owns the words for the library's history and its nights. The night is the operating system's own
job, set up by `quietscope schedule`; retraining at once is `quietscope retrain`; going back is the
library's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from ...acquisition.preview.model import Reading
from ...errors import QuietscopeError
from ...inference.library import InUse, LibraryEntry
from ...inference.trust.verdict import Grade
from ...reporting.console import command_line
from ...training.retraining.night_record import NightRecord, nights, nights_folder
from ...training.retraining.scheduling.installation import Installed, installed_for
from ..job import Job, JobSnapshot
from .step import Step, StepSnapshot, StepState

AT, UNTIL = "23:00", "06:00"
MINUTES_NOW = 10
LOOK_S = 30.0
"""Between two looks for new recordings: her disk may be slow."""
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
    is_set_up
        Whether the operating system has the job.
    in_use
        What is in use: its channel, the words, and the command that takes it back.
    history
        What happened, the newest first, with the model's page of figures where there is one.
    tonight
        What would be learned from tonight.
    status
        When the next night is, and what is wrong with the last one or the job.
    """

    at: str
    until: str
    is_set_up: bool
    in_use: tuple[tuple[str | None, str, str], ...]
    history: tuple[tuple[Reading, Path | None], ...]
    tonight: str
    status: tuple[Reading, ...]


class ScheduleLook(Step):
    """Asks the operating system whether it still has the job, beside the page."""

    name = "schedule"

    def words(self) -> list[str]:
        """Return the command."""
        return ["schedule", "status", "--library", str(self.facts.workspace.path)]

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Nothing follows."""
        return False


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
        self.schedule = ScheduleLook(self.facts)
        self._nights: tuple[NightRecord, ...] = ()
        self._nights_of: tuple[Path, int] | None = None

    def look(self) -> None:
        """Look again, and ask how the schedule stands; the answer comes with a later snapshot."""
        self._next_look = 0.0
        if self.facts.workspace.path.is_dir() and not self.schedule.busy:
            self.schedule.start()

    def tick(self) -> bool:
        """Read both jobs."""
        self.schedule.tick()
        return super().tick()

    def nights(self) -> tuple[NightRecord, ...]:
        """Return the nights of her folder, read again only where one was added or changed."""
        folder = nights_folder(self.facts.workspace.path)
        try:
            stamp = (folder, folder.stat().st_mtime_ns)
        except OSError:
            return ()
        if stamp != self._nights_of:
            self._nights, self._nights_of = nights(self.facts.workspace.path), stamp
        return self._nights

    @property
    def last_failed(self) -> bool:
        """Whether the last night failed."""
        known = self.nights()
        return bool(known) and known[-1].state == "failed"

    def choose(self, *, at: str | None = None, until: str | None = None) -> None:
        """Change the window of time."""
        self.at, self.until = at or self.at, until or self.until

    def words(self) -> list[str]:
        """Return the command."""
        library = ["--library", str(self.facts.workspace.path)]
        if self.now:
            return ["retrain", *library, "--once", "--minutes", str(MINUTES_NOW)]
        if self.installed is not None:
            return ["schedule", "remove", *library, "--yes"]
        return ["schedule", "install", *library, "--at", self.at, "--until", self.until, "--yes"]

    @property
    def installed(self) -> Installed | None:
        """What the operating system was given; None for nothing."""
        return installed_for(self.facts.workspace.path)

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
        installed = self.installed
        if self.last_failed:
            return "last night failed"
        return "off" if installed is None else f"every night from {installed.at}"

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Read what is in use now, and how the schedule stands."""
        self.facts.find_models()
        self.look()
        return False

    def done(self) -> StepState | None:
        """Return DONE while the night is set up, LOOK if something about it is wrong."""
        if self.last_failed or self._problem():
            return StepState.LOOK
        return None if self.installed is None else StepState.DONE

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
            in_use=tuple((one.channel, _in_words(one), self._back(one)) for one in in_use),
            is_set_up=self.installed is not None,
            history=tuple(self._history(history)),
            tonight=f"It will learn from the newest of {len(runs)} recordings, and use the new "
            "model only where it is better."
            if runs
            else "Nothing is recorded yet.",
            status=tuple(self._status()),
        )

    def _told(self) -> Mapping[str, Any]:
        return {} if self.schedule.seen is None else self.schedule.seen.result

    def _problem(self) -> str:
        return str(self._told().get("problem") or "")

    def _status(self) -> Iterator[Reading]:
        if problem := self._problem():
            yield Reading("Needs a look", "", f"{problem[:1].upper()}{problem[1:]}.", Grade.BAD)
        if following := self._told().get("next_night"):
            when = f"{_when(str(following)):%A %H:%M}"
            yield Reading("Next night", when, "This computer has to be on then.", Grade.GOOD)

    def _back(self, one: InUse) -> str:
        channel = [] if one.channel is None else ["--channel", one.channel]
        return command_line("models", "rollback", "--library", self.facts.workspace.path, *channel)

    def _history(
        self, decisions: tuple[LibraryEntry, ...]
    ) -> Iterator[tuple[Reading, Path | None]]:
        """Yield decisions and nights, the newest first."""
        told = [(_when(entry.time), _entry(entry), self._page(entry)) for entry in decisions]
        folder = nights_folder(self.facts.workspace.path)
        for night in self.nights():
            told.append((night.started.astimezone(), _night(night), _page_of(night, folder)))
        for _, reading, page_or_none in sorted(told, key=lambda one: one[0], reverse=True):
            yield reading, page_or_none

    def _page(self, entry: LibraryEntry) -> Path | None:
        named = entry.candidate or entry.model
        page = None if named is None else self.facts.workspace.path / named / "report.html"
        return page if page is not None and page.is_file() else None


def _page_of(night: NightRecord, folder: Path) -> Path | None:
    """Return the page of a night, and nothing else: its record may have come from anywhere."""
    # Of either system: a library lies on a share, and the night may be another computer's.
    page = folder / PureWindowsPath(night.page or f"{night.night}.html").name
    return page if page.suffix == ".html" and page.is_file() else None


def _in_words(one: InUse) -> str:
    since = "" if one.since is None else f", since {_when(one.since):%Y-%m-%d %H:%M}"
    channel = "every channel" if one.channel is None else f"channel {one.channel}"
    return f"“{Path(one.model).name}” for {channel}{since}"


def _when(text: str) -> datetime:
    """Return a time of the library's as one of this computer's clock."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.fromtimestamp(0, UTC)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone()


def _night(night: NightRecord) -> Reading:
    grade = {"done": Grade.GOOD, "failed": Grade.BAD}.get(night.state, Grade.UNKNOWN)
    said = night.headline()
    name = f"The night of {night.night}"
    return Reading(name, night.state, f"{said[:1].upper()}{said[1:]}", grade)


def _entry(entry: LibraryEntry) -> Reading:
    when = f"{_when(entry.time):%Y-%m-%d %H:%M}"
    named = entry.candidate or entry.model
    name = "" if named is None else f" ({Path(named).name})"
    reason = entry.reason[:1].upper() + entry.reason[1:]
    grade = GRADES.get(entry.decision, Grade.UNKNOWN)
    return Reading(f"{WORDS[entry.decision]}{name}", when, reason, grade)
