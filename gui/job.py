"""A command that runs as a program of its own, and what it has said so far.

Owns its job folder, how it is started, asked to end, ended by force and found again after the
window was killed; and the snapshot that is read from its events. A job does not depend on the
window: it reads no pipe of it and outlives it. What the events of a step mean is known in `steps`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ..reporting.told import ANSWER, CANCEL, EVENTS, JOB
from ..storage.atomic_output import write_json

ABOUT, SAID = "job.json", "said.txt"
KEPT_JOBS = 30
PATIENCE_S = 10.0
"""Left to a program that has said its last word to end."""
MOST_REMARKS = 8
MOST_POINTS = 2000

# Windows: no console window of its own, and out of reach of the window's Ctrl-C. Zero elsewhere.
_OWN_GROUP: int = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)


class JobState(Enum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "stopped"
    LOST = "lost"
    """It ended without a word: killed, or out of memory."""


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Training at one moment."""

    step: int
    loss: float | None
    validation_loss: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A piece (Y, X) of a frame as the camera gave it and as the model sees it now, ADU."""

    step: int
    raw: NDArray[np.float32]
    denoised: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class JobSnapshot:
    """What a job has said so far. Never changes; may cross threads.

    Attributes
    ----------
    task, share, note
        What it is doing, how far it is (0 to 1, None if nobody knows), and a word about that.
    seconds_left
        Of the task; None if not known.
    question
        What a person has to do before it goes on; empty if nothing.
    error
        Why it failed, in a sentence with what to do.
    result, summary
        What the command returned: its JSON object, and the same for a person.
    levels
        (mean ADU, variance ADU²) of the light levels of a calibration so far.
    losses, tile
        Of a training.
    mailbox
        Where a run puts the newest picture; empty without one.
    counts
        Of a run's frames.
    """

    state: JobState = JobState.RUNNING
    task: str = ""
    share: float | None = None
    note: str = ""
    seconds_left: float | None = None
    elapsed_s: float = 0.0
    question: str = ""
    remarks: tuple[str, ...] = ()
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    summary: tuple[str, ...] = ()
    levels: tuple[tuple[float, float], ...] = ()
    losses: tuple[LossPoint, ...] = ()
    tile: Tile | None = None
    mailbox: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)
    task_began: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.state is JobState.RUNNING


def folded(before: JobSnapshot, event: Mapping[str, Any]) -> JobSnapshot:
    """Return the snapshot after one more event; an unknown one changes nothing."""
    kind = event.get("event")
    fold = _FOLDS.get(str(kind))
    return before if fold is None else fold(before, event)


def _progress(before: JobSnapshot, event: Mapping[str, Any]) -> JobSnapshot:
    total, completed, now = event.get("total"), event.get("completed") or 0.0, event["time"]
    share = min(completed / total, 1.0) if total else None
    task = str(event.get("task", ""))
    new = task != before.task or (share or 0.0) < (before.share or 0.0)
    began = now if new else before.task_began
    left = None
    if share and now - began > 1:
        left = (now - began) * (1 - share) / share
    return replace(
        before,
        task=task,
        share=share,
        note=str(event.get("note") or ""),
        seconds_left=left,
        task_began=began,
    )


def _training(before: JobSnapshot, event: Mapping[str, Any]) -> JobSnapshot:
    point = LossPoint(event["step"], event["loss"], event["validation_loss"])
    return replace(
        before,
        losses=(*before.losses, point)[-MOST_POINTS:],
        share=event["progress"],
        seconds_left=event["seconds_left"],
    )


def _tile(before: JobSnapshot, event: Mapping[str, Any]) -> JobSnapshot:
    def image(name: str) -> NDArray[np.float32]:
        return np.frombuffer(base64.b64decode(event[name]), "<f4").reshape(event["shape"])

    return replace(before, tile=Tile(event["step"], image("raw"), image("denoised")))


def _ended(before: JobSnapshot, event: Mapping[str, Any]) -> JobSnapshot:
    error = str(event.get("error") or "")
    state = JobState.FAILED if error else JobState.DONE
    if event.get("cancelled"):
        state = JobState.CANCELLED
    return replace(
        before,
        state=state,
        error=error,
        question="",
        result=event.get("result") or {},
        summary=tuple(event.get("summary") or ()),
    )


Fold = Callable[[JobSnapshot, Mapping[str, Any]], JobSnapshot]

_FOLDS: dict[str, Fold] = {
    "progress": _progress,
    "training": _training,
    "tile": _tile,
    "ended": _ended,
    "say": lambda s, e: replace(s, remarks=(*s.remarks, str(e["text"]))[-MOST_REMARKS:]),
    "ask": lambda s, e: replace(s, question=str(e["text"])),
    "answered": lambda s, e: replace(s, question=""),
    "level": lambda s, e: replace(s, levels=(*s.levels, (e["mean_adu"], e["variance_adu2"]))),
    "preview": lambda s, e: replace(s, mailbox=str(e["mailbox"])),
    "counts": lambda s, e: replace(s, counts=e),
}


class Job:
    """One command in a program of its own. Used from one thread; no call waits for it."""

    def __init__(self, folder: Path, about: Mapping[str, Any], process: _Process) -> None:
        self.folder = folder
        self.words: tuple[str, ...] = tuple(about["words"])
        self.step = str(about["step"])
        self.about: Mapping[str, Any] = about.get("about", {})
        self.cancelled = (folder / CANCEL).exists()
        self._began = float(about["began"])
        self._process = process
        self._read_bytes = 0
        self._rest = b""
        self._snapshot = JobSnapshot()
        self._said = self._snapshot
        self._over_since: float | None = None

    @classmethod
    def start(
        cls, jobs: Path, step: str, words: Sequence[str], about: Mapping[str, Any] | None = None
    ) -> Job:
        """Start a command of quietscope.

        Parameters
        ----------
        jobs
            Where job folders are kept.
        step
            By which the job is found again.
        words
            The command, without the program's name.
        about
            What the step wants to know when it finds the job again; JSON.

        Raises
        ------
        OSError, OutputError
            If the folder cannot be written or the program not be started.
        """
        clear_old_jobs(jobs)
        folder = jobs / f"{time.strftime('%Y%m%d-%H%M%S')}-{step}-{uuid.uuid4().hex[:6]}"
        folder.mkdir(parents=True)
        # -P: a file named numpy.py in the working folder must not be imported.
        command = [sys.executable, "-P", "-m", "quietscope.cli", *words, "--json"]
        with (folder / SAID).open("wb") as said:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=tempfile.gettempdir(),  # a job must not keep a data folder in use
                env={**os.environ, JOB: str(folder), "PYTHONIOENCODING": "utf-8"},
                start_new_session=sys.platform != "win32",
                creationflags=_OWN_GROUP,
            )
        process = _Process(popen.pid, popen=popen)
        facts = {
            "step": step,
            "words": list(words),
            "about": dict(about or {}),
            "began": time.time(),
            "pid": popen.pid,
            "created": process.created,
        }
        try:
            write_json(folder / ABOUT, facts)
        except BaseException:
            popen.kill()  # or it would run and nobody could find it again
            popen.wait()
            raise
        return cls(folder, facts, process)

    @classmethod
    def found(cls, folder: Path) -> Job | None:
        """Return the job of a folder, running or not; None if there is none."""
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            return cls(folder, about, _Process(int(about["pid"]), created=float(about["created"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read(self) -> JobSnapshot:
        """Return what it has said by now."""
        if not self._snapshot.running:
            return self._snapshot
        alive = self._process.alive()  # before reading: what it said last is then in the file
        snapshot = self._said
        for event in self._new_events():
            try:
                snapshot = folded(snapshot, event)
            except (KeyError, TypeError, ValueError):
                continue  # half a line, of a disk that was full
        if snapshot.running and not alive:
            snapshot = replace(snapshot, **self._last_words())
        self._said = replace(snapshot, elapsed_s=time.time() - self._began)
        if self._said.running:
            self._snapshot = self._said
        elif not alive or self._over_for_long():
            self._snapshot = self._said
            self.let_go()
        return self._snapshot

    def _over_for_long(self) -> bool:
        """Whether its last word is long ago; until it has ended, the camera may be its own."""
        self._over_since = self._over_since or time.monotonic()
        return time.monotonic() - self._over_since > PATIENCE_S

    @property
    def running(self) -> bool:
        """Whether it goes on, as far as was read."""
        return self._snapshot.running

    def answer(self) -> None:
        """Say that what it asked for is done."""
        (self.folder / ANSWER).touch()

    def cancel(self) -> None:
        """Ask it to end as Ctrl-C would; what it recorded is kept."""
        self.cancelled = True
        (self.folder / CANCEL).touch()

    def kill(self) -> None:
        """End it by force."""
        self._process.kill()

    def let_go(self) -> None:
        """Leave it to itself: it goes on without this program."""
        self._process.let_go()

    def _new_events(self) -> list[Mapping[str, Any]]:
        try:
            with (self.folder / EVENTS).open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except OSError:
            return []
        self._read_bytes += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        events: list[Mapping[str, Any]] = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "time" in event:
                events.append(event)
        return events

    def _last_words(self) -> dict[str, Any]:
        if self.cancelled:
            return {"state": JobState.CANCELLED, "question": ""}
        said = _last_sentence(self.folder / SAID)
        state = JobState.FAILED if said else JobState.LOST
        lost = (
            "the program that did this was ended from outside, or the computer ran out of memory; "
            "close other programs and start this step again"
        )
        return {"state": state, "error": said or lost, "question": ""}


def _last_sentence(path: Path) -> str:
    """Return what a program said about its end, where it could not tell an event."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip(" │╭╮╰╯─\r") for line in text.splitlines()]
    if "Error" in lines:  # wrong usage, in a box
        return " ".join(filter(None, lines[lines.index("Error") + 1 :]))[:500]
    told = [line.removeprefix("error:").strip() for line in lines if "rror" in line]
    return (told or [""])[-1][:500]


class _Process:
    """A process by its number and the time of its start: numbers are used again."""

    def __init__(
        self,
        pid: int,
        *,
        created: float | None = None,
        popen: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._popen = popen
        self._process: psutil.Process | None = None
        self.created = 0.0
        try:
            process = psutil.Process(pid)
            self.created = process.create_time()
            if created is None or abs(created - self.created) < 2:
                self._process = process
        except psutil.Error:
            return

    def alive(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False

    def let_go(self) -> None:
        if self._popen is not None:
            self._popen.returncode = 0  # or Python complains of a process that nobody waited for

    def kill(self) -> None:
        try:
            if self._popen is not None:
                self._popen.kill()
            elif self._process is not None:
                self._process.kill()
        except (psutil.Error, OSError):
            return


def running_jobs(jobs: Path) -> list[Job]:
    """Return the jobs that an earlier window started and that still run, oldest first."""
    found = [Job.found(folder) for folder in sorted(jobs.glob("*-*"))]
    return [job for job in found if job is not None and job.read().running]


def last_job(jobs: Path, step: str) -> Job | None:
    """Return the newest job of a step, running or not; None if there was none."""
    found = (Job.found(folder) for folder in sorted(jobs.glob("*-*"), reverse=True))
    return next((job for job in found if job is not None and job.step == step), None)


def clear_old_jobs(jobs: Path) -> None:
    """Remove the folders of jobs that are over, but for the newest."""
    for folder in sorted(jobs.glob("*-*"))[:-KEPT_JOBS]:
        job = Job.found(folder)
        if job is not None and job.read().running:
            continue
        for name in (ABOUT, SAID, EVENTS, ANSWER, CANCEL):
            try:
                (folder / name).unlink(missing_ok=True)
            except OSError:
                break  # Windows: somebody has it open
        try:
            folder.rmdir()
        except OSError:
            continue
