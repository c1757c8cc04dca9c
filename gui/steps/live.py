"""Step 5, live: start, stop, look; afterwards open the run elsewhere.

Owns what is asked for, the sentences about a run that is over, and the commands that hand it to
other programs. The run is that of `quietscope live`.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...acquisition.preview.model import Reading
from ...inference.trust.verdict import Grade
from ..job import Job, JobSnapshot
from .record import frame_readings, report_left_by
from .step import Step, StepSnapshot, StepState

DEMO_FRAMES, FRAMES = 200, 500
FIJI = ("fiji", "fiji-linux-x64", "fiji-windows-x64", "ImageJ-win64", "ImageJ-linux64", "ImageJ")
GRADES = {"good": Grade.GOOD, "care": Grade.CARE, "bad": Grade.BAD, "unknown": Grade.UNKNOWN}


@dataclass(frozen=True, slots=True, eq=False)
class LiveSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    frames, channel, channels, follow
        What is asked for.
    can_follow
        Whether Micro-Manager's own live mode or acquisition can be followed.
    models
        Which models would denoise, in words.
    mailbox
        Where the newest picture is.
    run
        The run that is shown: the one that runs or the last one.
    readings
        What became of its frames, and its verdict.
    left_over
        Frames of the last run that are not denoised yet.
    export
        The writing of a TIFF; None if it never began.
    opens_with
        Programs on this computer that can open it: `fiji`, `napari`.
    """

    frames: int
    channel: str
    channels: tuple[str, ...]
    follow: bool
    can_follow: bool
    models: str
    mailbox: str
    run: Path | None
    readings: tuple[Reading, ...]
    left_over: int
    export: JobSnapshot | None
    export_error: str
    opens_with: tuple[str, ...]


class Export(Step):
    """Writes the last run as TIFF, or denoises what was skipped, beside the fifth step."""

    name = "export"

    def words(self) -> list[str]:
        """Return nothing: what is written is said when it begins."""
        return []

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Nothing follows."""
        return False


class Live(Step):
    """Step 5."""

    name = "live"
    uses_camera = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.follow = False
        self.report: Mapping[str, Any] = {}
        self.run_path: Path | None = None
        self.export = Export(self.facts)

    @property
    def frames(self) -> int:
        """How many time points."""
        default = DEMO_FRAMES if self.facts.simulated else FRAMES
        return self.facts.remembered.frames_live or default

    def choose(self, *, frames: int | None = None, follow: bool | None = None) -> None:
        """Change what is recorded; what is None stays."""
        if frames is not None and frames != self.frames:
            self.facts.remember(frames_live=frames)
        if follow is not None:
            self.follow = follow

    @property
    def can_follow(self) -> bool:
        """Whether there is a Micro-Manager of its own to follow."""
        return self.facts.choice.kind == "attach"

    def words(self) -> list[str]:
        """Return the command."""
        facts = self.facts
        words = ["live", "--out", str(facts.workspace.new_run())]
        words += ["--library", str(facts.workspace.path)]
        if self.follow and self.can_follow:
            return [*words, *facts.choice.camera_words(), "--follow", "--preview"]
        return [*words, *facts.choice.words(), "--frames", str(self.frames), "--preview"]

    def missing(self) -> str:
        """Return what has to be done first."""
        if self.facts.microscope is None:
            return "connect a microscope first"
        if not self.facts.models:
            return "train a model for this camera first"
        return ""

    def start(self) -> bool:
        """Begin a run."""
        if reason := self.why_not():
            self.error = reason
            return False
        self.facts.find_models()  # one may have been deleted since
        if self.facts.complaint:
            self.error = self.facts.complaint
            return False
        self.report = {}
        return super().start()

    def adopt(self, job: Job) -> None:
        """Take a run as this step's own."""
        super().adopt(job)
        self.run_path = Path(job.words[job.words.index("--out") + 1])

    def line(self) -> str:
        """Return the last run."""
        if self.run_path is not None:
            return f"“{self.run_path.name}”"
        return "" if self.facts.models else "no model yet"

    def done(self) -> StepState | None:
        """Return whether a run is there."""
        if not self.report:
            return None
        verdict = self.report.get("verdict") or {}
        poor = verdict.get("word") == "bad" or self.report.get("frames_missing")
        return StepState.LOOK if poor else StepState.DONE

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take the report."""
        self.report = seen.result
        return False

    def stopped(self, job: Job, seen: JobSnapshot) -> None:
        """Take the report that the run left behind."""
        self.report = report_left_by(self.run_path, seen)

    def tick(self) -> bool:
        """Read both jobs."""
        self.export.tick()
        return super().tick()

    @property
    def left_over(self) -> int:
        """Frames that are recorded and not denoised."""
        if not self.report or self.busy:
            return 0
        recorded, done = int(self.report["frames_recorded"]), int(self.report["frames_denoised"])
        return max(0, recorded - done - int(self.report.get("frames_without_model") or 0))

    def denoise_the_rest(self) -> bool:
        """Denoise a stopped run as a whole, beside it."""
        if self.run_path is None:
            return False
        out = self.run_path.with_name(f"{self.run_path.name} denoised.ome.zarr")
        words = ["denoise", str(self.run_path), "--library", str(self.facts.workspace.path)]
        return self.export.run([*words, "--out", str(out)])

    def save_tiff(self, out: Path) -> bool:
        """Write the denoised run as one TIFF; one that is there was asked about by the dialog."""
        if self.run_path is None:
            return False
        stack = self.run_path / "denoised.ome.zarr"
        again = ["--overwrite"] if out.exists() else []
        return self.export.run(["export", str(stack), "--out", str(out), *again])

    def opens_with(self) -> list[str]:
        """Return the programs here that can open a run."""
        found = ["fiji"] if _fiji() else []
        return found + (["napari"] if importlib.util.find_spec("napari") else [])

    def opener(self, program: str) -> list[str]:
        """Return the command line of another program that opens the last run."""
        run = self.run_path or self.facts.workspace.path
        stores = [str(store) for store in sorted(run.glob("*.ome.zarr"))]
        if program == "napari":
            return [sys.executable, "-m", "napari", *stores]
        return [str(_fiji()), *stores[:1]]

    def snapshot(self) -> LiveSnapshot:
        """Return what the page shows."""
        running = self.seen is not None and self.seen.running
        counts = self.seen.counts if running and self.seen is not None else self.report
        facts = self.facts
        return LiveSnapshot(
            **self.common(),
            frames=self.frames,
            channel=facts.choice.channel,
            channels=tuple(facts.channels),
            follow=self.follow,
            can_follow=self.can_follow,
            models=", ".join(sorted({path.name for path in facts.models.values()})),
            mailbox=self.seen.mailbox if self.seen is not None else "",
            run=self.run_path,
            readings=(*self._verdict(), *frame_readings(counts), *self._denoised(counts)),
            left_over=self.left_over,
            export=self.export.seen,
            export_error=self.export.error,
            opens_with=tuple(self.opens_with()) if self.report else (),
        )

    def _verdict(self) -> list[Reading]:
        verdict = None if self.busy else self.report.get("verdict")
        if not verdict:
            return []
        grade = GRADES.get(str(verdict["word"]), Grade.UNKNOWN)
        return [Reading("Verdict", str(verdict["headline"]), str(verdict["sentence"]), grade)]

    def _denoised(self, counts: Mapping[str, Any]) -> list[Reading]:
        if not counts:
            return []
        done, skipped = counts["frames_denoised"], counts["frames_skipped_live"]
        said = ""
        if skipped:
            said = f"{skipped} were skipped in the view, and are denoised afterwards."
        return [Reading("Denoised", f"{done}", said, Grade.GOOD)]


def _fiji() -> str:
    return next((found for name in FIJI if (found := shutil.which(name))), "")
