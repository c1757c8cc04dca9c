"""What all steps have in common: a job, a state, a command, and who may use the camera.

Owns how a job's end reaches its step. What is asked for and said is written in each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from ...errors import QuietscopeError
from ...reporting.console import command_line
from ..job import Job, JobSnapshot, JobState
from .facts import Facts


class StepState(Enum):
    """Where a step stands, for the list on the left."""

    WAITING = "waiting"
    """Something before it is missing."""
    READY = "ready"
    BUSY = "busy"
    DONE = "done"
    LOOK = "look"
    """Done, and something about it wants to be read."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, eq=False)
class StepSnapshot:
    """What every page shows. Never changes.

    Attributes
    ----------
    line
        The step in a few words, for the list on the left.
    missing
        What has to be done before it can start; empty if nothing.
    command
        What the button would run, as it can be typed.
    job
        The one that runs or ran last; None before the first.
    stopping
        Whether it was asked to end.
    error
        Why the last one failed, in a sentence with a way out.
    """

    state: StepState
    line: str
    missing: str
    command: str
    job: JobSnapshot | None
    stopping: bool
    error: str


class Step:
    """One step of the job. Used from the window's thread alone; no call waits.

    Attributes
    ----------
    name
        By which its jobs are found again.
    uses_camera
        Whether it needs the microscope for itself.
    uses_folder
        Whether it reads or writes her folder.
    """

    name: ClassVar[str]
    uses_camera: ClassVar[bool] = False
    uses_folder: ClassVar[bool] = True

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.job: Job | None = None
        self.seen: JobSnapshot | None = None
        self.error = ""

    # ------------------------------------------------------------------ to be written by each

    def words(self) -> list[str]:
        """Return the command, without the program's name."""
        raise NotImplementedError

    def missing(self) -> str:
        """Return what has to be done first, "" if nothing."""
        return ""

    def line(self) -> str:
        """Return the step in a few words."""
        return ""

    def done(self) -> StepState | None:
        """Return DONE or LOOK if it has been done, None if not."""
        return None

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take the result of a job that is done; return whether to go on to the next step."""
        raise NotImplementedError

    def stopped(self, job: Job, seen: JobSnapshot) -> None:
        """Take note of a job that was stopped or failed."""

    # ------------------------------------------------------------------------------ the job

    def start(self) -> bool:
        """Start the job; return whether it runs."""
        if self.why_not():
            return False
        return self.run(self.words())

    def run(self, words: list[str], **about: Any) -> bool:
        """Start a job with these words; `about` is what `finished` finds in it again."""
        self.error = ""
        try:
            self.adopt(Job.start(self.facts.jobs, self.name, words, about))
        except (OSError, QuietscopeError) as error:
            self.error = f"it could not be started: {error}; free some space and try again"
            return False
        return True

    def adopt(self, job: Job) -> None:
        """Take a job as this step's own, started just now or by an earlier window."""
        self.job, self.seen = job, job.read()
        if self.uses_camera and self.seen.running:
            self.facts.at_microscope = self.name

    def why_not(self) -> str:
        """Return why it cannot start now, "" if it can."""
        if self.busy:
            return "it is running"
        holder = self.facts.at_microscope
        if self.uses_camera and holder and holder != self.name:
            return f"the camera is in use by “{holder}”; wait until it is done, or stop it there"
        if self.uses_folder and not self.facts.look_for_folder():
            return (
                f"the folder {self.facts.workspace.path} is not there any more; connect its disk "
                "again, or choose another folder (below left)"
            )
        return self.missing()

    @property
    def busy(self) -> bool:
        """Whether its job runs."""
        return self.seen is not None and self.seen.running

    def tick(self) -> bool:
        """Read what the job has said; return whether it is done and the next step may come."""
        if self.job is None or not self.busy:
            return False
        seen = self.seen = self.job.read()
        if seen.running:
            return False
        if self.uses_camera and self.facts.at_microscope == self.name:
            self.facts.at_microscope = ""
        if seen.state is JobState.DONE:
            return self.finished(self.job, seen)
        self.error = seen.error
        self.stopped(self.job, seen)
        if self.uses_camera:
            self.facts.forget_a_microscope_that_ended()
        return False

    def cancel(self) -> None:
        """Ask the job to end; the second time, end it by force."""
        if self.job is None or not self.busy:
            return
        if self.job.cancelled:
            self.job.kill()
        else:
            self.job.cancel()

    def answer(self) -> None:
        """Say that what the job asked for is done."""
        if self.job is not None:
            self.job.answer()

    # -------------------------------------------------------------------------- what is seen

    def state(self) -> StepState:
        """Return where it stands."""
        if self.busy:
            return StepState.BUSY
        if self.error:
            return StepState.FAILED
        return self.done() or (StepState.WAITING if self.missing() else StepState.READY)

    def common(self) -> Mapping[str, Any]:
        """Return the fields of `StepSnapshot`."""
        return {
            "state": self.state(),
            "line": self.line_now(),
            "missing": self.why_not() if not self.busy else "",
            "command": command_line(*self._words_now()),
            "job": self.seen,
            "stopping": bool(self.job and self.job.cancelled and self.busy),
            "error": self.error,
        }

    def _words_now(self) -> Sequence[str]:
        return self.job.words if self.busy and self.job is not None else self.words()

    def line_now(self) -> str:
        """Return the line for the list on the left."""
        if self.busy and self.seen is not None:
            if self.seen.question:
                return "waits for you"
            share = self.seen.share
            return "working …" if share is None else f"{100 * share:.0f} %"
        return "needs a look" if self.error else self.line()
