"""Step 4, train: one button, what to expect, and at the end what the model is worth.

Owns the minutes, going on after a stop, and putting a model in use. Training and verdict are those
of `quietscope train`; which model is in use is kept by the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...acquisition.preview.model import Reading
from ...acquisition.preview.wording import duration, percent
from ...errors import QuietscopeError
from ...inference.trust.verdict import Grade
from ...reporting.console import command_line
from ..job import Job, JobSnapshot, LossPoint, Tile
from .step import Step, StepSnapshot, StepState

DEMO_MINUTES, MINUTES = 1.0, 5.0
CHOICES = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""What the slider stands on, minutes."""


def expectation(minutes: float) -> str:
    """Return what so many minutes bring, in words."""
    if minutes <= 1:
        return "A first look: most of the noise goes, faint detail may stay soft."
    if minutes <= 5:
        return "Good for a day at the microscope. Longer brings less and less."
    if minutes <= 20:
        return "For faint specimens and large images. Have a coffee."
    return "The last few percent. Overnight is a better time for this."


@dataclass(frozen=True, slots=True, eq=False)
class TrainSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    minutes, expects
        The budget, and what to expect of it.
    sources
        Recording and noise model, in words.
    losses, tile
        Of the training, also after it is done.
    can_resume
        Whether a training that was stopped can go on.
    verdict
        What the model is worth; None before.
    readings
        Before and after, in figures.
    model
        The trained one; None before.
    in_use
        Whether it is the one in use.
    use_command
        What puts it in use, as it can be typed.
    report
        Its page of figures.
    """

    minutes: float
    expects: str
    sources: tuple[Reading, ...]
    losses: tuple[LossPoint, ...]
    tile: Tile | None
    can_resume: bool
    verdict: Reading | None
    readings: tuple[Reading, ...]
    model: Path | None
    in_use: bool
    use_command: str
    report: Path | None


class Train(Step):
    """Step 4."""

    name = "train"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.result: Mapping[str, Any] = {}
        self._interrupted: tuple[str, ...] = ()

    @property
    def minutes(self) -> float:
        """The budget."""
        default = DEMO_MINUTES if self.facts.simulated else MINUTES
        return self.facts.remembered.training_minutes or default

    def choose_minutes(self, minutes: float) -> None:
        """Change the budget."""
        if minutes != self.minutes:
            self.facts.remember(training_minutes=minutes)

    def words(self) -> list[str]:
        """Return the command."""
        facts = self.facts
        words = ["train", str(facts.recording or "RECORDING")]
        words += ["--out", str(facts.workspace.new_model())]
        if facts.calibration is not None:
            words += ["--noise-model", str(facts.calibration)]
        if facts.choice.channel:
            words += ["--channel", facts.choice.channel]
        return [*words, "--minutes", f"{self.minutes:g}"]

    def missing(self) -> str:
        """Return what has to be done first."""
        if self.facts.recording is None:
            return "record some images first: the model learns from them"
        return ""

    def start(self) -> bool:
        """Begin anew."""
        self.result, self._interrupted = {}, ()
        return super().start()

    def resume(self) -> bool:
        """Go on with the training that was stopped."""
        return self.can_resume and self.run([*self._interrupted, "--resume"])

    @property
    def can_resume(self) -> bool:
        """Whether it can go on: its working file is there."""
        words = self._interrupted
        if self.busy or "--out" not in words:
            return False
        out = Path(words[words.index("--out") + 1])
        return out.with_name(f"{out.name}.unfinished.pt").is_file()

    def line(self) -> str:
        """Return what there is."""
        if self.result:
            return "ready to use" if self.is_good and not self.in_use else _name(self.model)
        return f"{len(self.facts.models)} in use" if self.facts.models else "no model yet"

    def done(self) -> StepState | None:
        """Return whether there is a model."""
        if self.result:
            return StepState.DONE if self.is_good else StepState.LOOK
        return StepState.DONE if self.facts.models else None

    @property
    def model(self) -> Path | None:
        """The trained one."""
        return Path(self.result["out"]) if self.result else None

    @property
    def is_good(self) -> bool:
        """Whether it is better than a blur."""
        return bool(self.result.get("better_than_trivial"))

    @property
    def in_use(self) -> bool:
        """Whether it is the one in use."""
        return self.model is not None and self.model in self.facts.models.values()

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take the model; a person reads the verdict before it is used."""
        self.result = seen.result
        return False

    def stopped(self, job: Job, seen: JobSnapshot) -> None:
        """Remember what can go on, and say so."""
        self.remember_interrupted(job)
        if self.error and self.can_resume:
            self.error += ". What it has learned until then is kept: press “Go on with it”"

    def remember_interrupted(self, job: Job) -> None:
        """Take a training as one that can go on, if its working file is there."""
        self._interrupted = tuple(word for word in job.words if word != "--resume")

    def use(self) -> bool:
        """Put the model in use for its channel; return whether that was possible."""
        if self.model is None:
            return False
        try:
            # A person has read the verdict, so a poor one is accepted with this click.
            self.facts.workspace.library.promote(
                self.model, "chosen in the window after training", accept=True
            )
        except (QuietscopeError, OSError) as error:
            self.error = f"it could not be put in use: {error}"
            return False
        self.error = ""
        self.facts.find_models()
        return True

    def snapshot(self) -> TrainSnapshot:
        """Return what the page shows."""
        seen = self.seen
        report = None if self.model is None else self.model / "report.html"
        return TrainSnapshot(
            **self.common(),
            minutes=self.minutes,
            expects=expectation(self.minutes),
            sources=tuple(self._sources()),
            losses=() if seen is None else seen.losses,
            tile=None if seen is None else seen.tile,
            can_resume=self.can_resume,
            verdict=self._verdict(),
            readings=tuple(self._readings()),
            model=self.model,
            in_use=self.in_use,
            use_command=self._use_command(),
            report=report if report is not None and report.is_file() else None,
        )

    def _use_command(self) -> str:
        if self.model is None:
            return ""
        words = ["models", "use", self.model.name, "--accept"]
        return command_line(*words, "--library", self.facts.workspace.path)

    def _sources(self) -> list[Reading]:
        recording, camera = self.facts.recording, self.facts.calibration
        learned = "–" if recording is None else recording.name
        if camera is None:
            said = "No calibration is used, so the uncertainty will be a guess."
            noise = Reading("Camera's noise", "estimated", said, Grade.CARE)
        else:
            noise = Reading("Camera's noise", "calibrated", camera.stem, Grade.GOOD)
        grade = Grade.UNKNOWN if recording is None else Grade.GOOD
        return [Reading("Learns from", learned, "", grade), noise]

    def _verdict(self) -> Reading | None:
        if not self.result:
            return None
        said = self._noise_left() or str(self.result["verdict"])
        if self.is_good:
            return Reading("Verdict", "", said, Grade.GOOD, "This model is worth using")
        said += " Train for longer, or record more images."
        return Reading("Verdict", "", said, Grade.CARE, "No better than a blur so far")

    def _noise_left(self) -> str:
        """Return what of the noise is left, beside what the best blur leaves, in words."""
        figures = self.result.get("figures", {})
        camera = figures.get("held_out_mse_input_adu2")
        model, blur = figures.get("held_out_mse_adu2"), figures.get("held_out_mse_blur_adu2")
        if not camera or model is None or blur is None:
            return ""
        return (
            f"On images that it never saw it leaves {percent(max(model, 0) / camera)} of the "
            f"camera's noise; the best simple blur leaves {percent(max(blur, 0) / camera)}."
        )

    def _readings(self) -> list[Reading]:
        if not self.result:
            return []
        return [
            Reading("Learned from", f"{self.result['frames']} images", "", Grade.UNKNOWN),
            Reading("Took", duration(round(self.result["seconds"])), "", Grade.UNKNOWN),
        ]


def _name(model: Path | None) -> str:
    return "no model yet" if model is None else f"“{model.name}”"
