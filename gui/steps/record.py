"""Step 3, record: the images that the model is to learn from.

Owns what is asked for (how many, which channel, how often, which planes) and what is said about
disk and dropped frames. Recording is that of `quietscope record`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...acquisition.preview.model import Reading
from ...inference.trust.verdict import Grade
from ...storage.bounded_text import read_text
from ..job import Job, JobSnapshot
from .step import Step, StepSnapshot, StepState

DEMO_FRAMES, FRAMES = 80, 300
FEW_FRAMES = 50
SPARE_BYTES = 2 * 2**30
COUNTED = frozenset({"frames_delivered", "frames_recorded", "frames_denoised"})


@dataclass(frozen=True, slots=True, eq=False)
class RecordSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    frames, interval_s, planes, channel
        What is asked for.
    channels
        Those that can be chosen.
    readings
        Room on the disk, and what became of the frames.
    mailbox
        Where the newest picture is, while it runs.
    chosen, recorded
        What training will learn from, and what else there is.
    """

    frames: int
    interval_s: float
    planes: str
    channel: str
    channels: tuple[str, ...]
    readings: tuple[Reading, ...]
    mailbox: str
    chosen: Path | None
    recorded: tuple[Path, ...]


class Record(Step):
    """Step 3."""

    name = "record"
    uses_camera = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.interval_s = 0.0
        self.planes = ""
        self._report: Mapping[str, Any] = {}

    @property
    def frames(self) -> int:
        """How many time points."""
        default = DEMO_FRAMES if self.facts.simulated else FRAMES
        return self.facts.remembered.frames_to_record or default

    def choose(
        self,
        *,
        frames: int | None = None,
        interval_s: float | None = None,
        planes: str | None = None,
        channel: str | None = None,
    ) -> None:
        """Change what is recorded; what is None stays."""
        if frames is not None and frames != self.frames:
            self.facts.remember(frames_to_record=frames)
        if interval_s is not None:
            self.interval_s = interval_s
        if planes is not None:
            self.planes = _with_points(planes.replace(" ", ""))
        if channel is not None and channel != self.facts.choice.channel:
            choice = self.facts.choice.model_copy(update={"channel": channel})
            self.facts.remember(microscope=choice)

    def words(self) -> list[str]:
        """Return the command."""
        out = self.facts.workspace.new_recording()
        words = ["record", "--out", str(out), *self.facts.choice.words()]
        words += ["--frames", str(self.frames)]
        if self.interval_s > 0:
            words += ["--interval-s", f"{self.interval_s:g}"]
        if self.planes:
            words.append(f"--z={self.planes}")
        return [*words, "--preview"]

    def missing(self) -> str:
        """Return what has to be done first."""
        if self.facts.microscope is None:
            return "connect a microscope first"
        if self.planes and len(self.planes.split(",")) != 3:
            return "planes are start, end and step in µm, for example -2,2,0.5"
        free = self.facts.workspace.free_bytes()
        if free is not None and free < self.bytes_needed():
            return (
                f"these images take {_size(self.bytes_needed())} and the disk has only "
                f"{_size(free)} left; free some space, record fewer, or choose another folder"
            )
        return ""

    def bytes_needed(self) -> int:
        """Return what the recording takes on the disk."""
        found = self.facts.microscope
        if found is None:
            return 0
        height, width = found["frame_shape"]
        pixels = self.frames * self._plane_count() * int(height) * int(width)
        return pixels * (2 if _is_16(found) else 1)

    def _plane_count(self) -> int:
        try:
            start, end, step = (float(part) for part in self.planes.split(","))
            return int(abs((end - start) / step)) + 1
        except (ValueError, ZeroDivisionError):
            return 1

    def line(self) -> str:
        """Return what there is to learn from."""
        chosen = self.facts.recording
        return "nothing recorded yet" if chosen is None else f"“{chosen.name}”"

    def done(self) -> StepState | None:
        """Return whether there is something to learn from."""
        if self.facts.microscope is None or self.facts.recording is None:
            return None
        lost = self._report.get("frames_missing") or 0
        return StepState.LOOK if lost else StepState.DONE

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take the recording, and go on."""
        self._report = seen.result
        self.facts.recording = Path(seen.result["output"])
        return True

    def stopped(self, job: Job, seen: JobSnapshot) -> None:
        """Keep what was recorded until then."""
        self._report = report_left_by(_out_of(job), seen)
        self.facts.look_again()

    def choose_recording(self, path: Path) -> None:
        """Learn from another recording."""
        self.facts.recording, self.error = path, ""

    def snapshot(self) -> RecordSnapshot:
        """Return what the page shows."""
        running = self.seen is not None and self.seen.running
        counts = self.seen.counts if running and self.seen is not None else self._report
        return RecordSnapshot(
            **self.common(),
            frames=self.frames,
            interval_s=self.interval_s,
            planes=self.planes,
            channel=self.facts.choice.channel,
            channels=tuple(self.facts.channels),
            readings=(self._room(), *frame_readings(counts)),
            mailbox=self.seen.mailbox if self.seen is not None else "",
            chosen=self.facts.recording,
            recorded=tuple(self.facts.workspace.recorded()),
        )

    def _room(self) -> Reading:
        free, needed = self.facts.workspace.free_bytes(), self.bytes_needed()
        if free is None:
            return Reading("Room on the disk", "–", "Its disk cannot be asked.", Grade.CARE)
        enough = free > needed + SPARE_BYTES
        said = f"These images take {_size(needed)}." if needed else ""
        if not enough:
            said += " That is close to all there is."
        return Reading(
            "Room on the disk", f"{_size(free)} free", said, Grade.GOOD if enough else Grade.CARE
        )


def _is_16(found: Mapping[str, Any]) -> bool:
    return str(found["pixel_type"]) == "uint16"


def _size(size: int) -> str:
    """Return bytes as a person says them."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.0f} kB"


def _with_points(numbers: str) -> str:
    """Return numbers as commands take them; `-2;2;0,5`, as half of Europe writes them, too."""
    if ";" not in numbers:
        return numbers
    return numbers.replace(",", ".").replace(";", ",")


def _out_of(job: Job) -> Path | None:
    return Path(job.words[job.words.index("--out") + 1]) if "--out" in job.words else None


def report_left_by(run: Path | None, seen: JobSnapshot) -> Mapping[str, Any]:
    """Return what a run that was stopped says of its frames, or the last counts that it told."""
    try:
        report = json.loads("" if run is None else read_text(run / "report.json"))
    except (OSError, ValueError, RecursionError):
        return seen.counts
    whole = isinstance(report, dict) and report.keys() >= COUNTED
    return report if whole else seen.counts


def frame_readings(counts: Mapping[str, Any]) -> list[Reading]:
    """Return what became of a run's frames; empty before the first."""
    if not counts:
        return []
    delivered, recorded = counts["frames_delivered"], counts["frames_recorded"]
    missing = counts.get("frames_missing") or 0
    rate = counts.get("frame_rate_hz")
    readings = [
        Reading(
            "Recorded",
            f"{recorded} of {delivered}",
            "Every image that the camera gave is on the disk."
            if recorded == delivered
            else "The rest is on its way to the disk.",
            Grade.GOOD,
        )
    ]
    if missing:
        said = (
            "The camera took images that never came: the computer cannot keep up. Use a longer "
            "exposure or a smaller region."
        )
        readings.append(Reading("Lost", f"{missing}", said, Grade.BAD))
    else:
        readings.append(Reading("Lost", "none", "", Grade.GOOD))
    if rate:
        readings.append(Reading("Images per second", f"{rate:.1f}", "", Grade.UNKNOWN))
    return readings
