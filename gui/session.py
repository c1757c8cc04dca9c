"""The five steps and the night, in their order: which one is shown, and what comes next.

Owns the order, and finding the jobs again that an earlier window left running. Knows no Qt.
"""

from __future__ import annotations

import time
from pathlib import Path

from .job import Job, last_job, running_jobs
from .steps.calibrate import Calibrate
from .steps.connect import Connect
from .steps.facts import Facts
from .steps.live import Live
from .steps.overnight import Overnight
from .steps.record import Record
from .steps.step import Step
from .steps.train import Train

LOOK_S = 2.0
ORDER = ("connect", "calibrate", "record", "train", "live", "overnight")


class Session:
    """All that a window shows. Used from the window's thread alone.

    Attributes
    ----------
    current
        The step that is shown.
    found_again
        Names of the steps whose jobs an earlier window had started.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.facts = Facts(folder)
        self.connect = Connect(self.facts)
        self.calibrate = Calibrate(self.facts)
        self.record = Record(self.facts)
        self.train = Train(self.facts)
        self.live = Live(self.facts)
        self.overnight = Overnight(self.facts)
        steps: tuple[Step, ...] = (
            self.connect,
            self.calibrate,
            self.record,
            self.train,
            self.live,
            self.overnight,
        )
        self.steps = {step.name: step for step in steps}
        self.current = ORDER[0]
        self._looked_at: set[Path] = set()
        self._next_look = time.monotonic() + LOOK_S
        self.found_again = self._find_jobs()

    def _find_jobs(self) -> list[str]:
        found = []
        for job in running_jobs(self.facts.jobs):
            if job.step in self.steps:
                self.steps[job.step].adopt(job)
                self.current = job.step
                found.append(job.step)
        last = last_job(self.facts.jobs, self.train.name)
        if last is not None and not last.read().running:
            self.train.remember_interrupted(last)
        return found

    def _take_over_others(self) -> None:
        """Show what another window started: one camera serves both."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        folders = set(self.facts.jobs.glob("*-*"))
        for folder in sorted(folders - self._looked_at):
            job = Job.found(folder)
            if job is None:  # it is just being begun: its folder is there before what is in it
                folders.discard(folder)
                continue
            step = self.steps.get(job.step)
            if step is not None and not step.busy and job.read().running:
                step.adopt(job)
        self._looked_at = folders

    def go_to(self, name: str) -> None:
        """Show a step."""
        self.current = name

    def tick(self) -> None:
        """Read what all jobs have said, and go on where a step is done."""
        self._take_over_others()
        for name, step in self.steps.items():
            if step.tick() and self.current == name:
                self.current = self.after(name)

    def after(self, name: str) -> str:
        """Return the step that follows; what is there already is passed over."""
        if name == "connect" and self.facts.models:
            return "live"
        if name == "connect" and self.facts.calibration is not None:
            return "record"
        return ORDER[min(ORDER.index(name) + 1, ORDER.index("live"))]

    def use_and_go_live(self) -> bool:
        """Put the trained model in use and start at once; return whether it runs."""
        if not self.train.use():
            return False
        self.current = "live"
        return self.live.start()

    def busy(self) -> list[str]:
        """Return the names of the steps whose jobs run."""
        return [name for name, step in self.steps.items() if step.busy]

    def leave(self) -> None:
        """Let go of what runs: it goes on without the window."""
        for step in self.steps.values():
            if step.busy and step.job is not None:
                step.job.let_go()

    def stop_all(self) -> None:
        """Ask every job to end; what was recorded is kept."""
        for step in self.steps.values():
            if step.busy and step.job is not None and not step.job.cancelled:
                step.job.cancel()
