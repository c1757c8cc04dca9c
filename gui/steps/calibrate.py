"""Step 2, calibrate: measure the camera's noise, or take a calibration that fits.

Owns the choice between measuring, reusing and doing without, and the sentences about it. The
ladder of light and its checks are those of `quietscope calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...acquisition.preview.model import Reading
from ...calibration.kept_models import KeptModel
from ...inference.trust.verdict import Grade
from ..job import Job, JobSnapshot
from .step import Step, StepSnapshot, StepState

GRADES = {"green": Grade.GOOD, "amber": Grade.CARE, "red": Grade.BAD}

CHECKS = {
    "saturation": "Not too bright",
    "clipping_at_zero": "Nothing is cut off in the dark",
    "stuck_pixels": "No pixel is stuck",
    "motion": "Nothing moved",
    "lamp_drift": "The lamp kept its brightness",
    "lamp_flicker": "The lamp did not flicker",
    "repeats": "Enough images at each brightness",
    "coverage": "Dim to bright was measured",
    "coverage_of_data": "Every brightness was measured",
    "spatial_correlation": "Each pixel has noise of its own",
    "hot_pixels": "Few pixels are hot",
    "mixture_against_photon_transfer": "Two ways to tell the noise agree",
    "linearity": "The camera is linear",
    "held_out_likelihood": "The noise of new images is predicted",
    "gain_known": "The gain is known",
    "offset_known": "The offset is known",
    "dark_is_dark": "The dark images are dark",
    "dark_fits_levels": "Dark and bright images fit together",
    "quantisation": "Fine enough grey levels",
    "excess_noise": "The camera's amplifier is known",
}
"""What each check of a calibration asks, for whoever has never heard of it; true if green."""

WITHOUT = (
    "The camera's noise is then estimated from the recording itself. The picture is denoised all "
    "the same, but the uncertainty is only a guess, the offset and the gain are not known, and "
    "faint detail may be lost that a calibration would have kept. You can calibrate later."
)


@dataclass(frozen=True, slots=True)
class KeptCalibration:
    """A calibration in her folder, in words."""

    path: Path
    words: str
    fits: bool
    why_not: str


@dataclass(frozen=True, slots=True, eq=False)
class CalibrateSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    belongs
        "This calibration belongs to this camera in this setting", in words.
    levels
        (mean ADU, variance ADU²) so far.
    model_levels
        The same of the fitted camera, once there is one.
    checks
        What has to be true before it is trusted.
    kept
        Calibrations in her folder.
    chosen
        The one that training will use.
    without
        Whether she chose to do without.
    asks
        What a person has to do now.
    """

    belongs: str
    levels: tuple[tuple[float, float], ...]
    model_levels: tuple[tuple[float, float], ...]
    checks: tuple[Reading, ...]
    kept: tuple[KeptCalibration, ...]
    chosen: Path | None
    without: bool
    asks: str
    light: str
    report: Path | None


@dataclass(slots=True)
class _Found:
    """What the last calibration of this window found."""

    path: Path | None = None
    checks: tuple[Reading, ...] = ()
    levels: tuple[tuple[float, float], ...] = ()
    model_levels: tuple[tuple[float, float], ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)


class Calibrate(Step):
    """Step 2."""

    name = "calibrate"
    uses_camera = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.light = "exposure"
        self.without = False
        self._found = _Found()

    def choose_light(self, light: str) -> None:
        """Vary the light by `exposure`, by `hand`, or by a device's DEVICE-PROPERTY."""
        self.light = light.strip() or "exposure"

    def words(self) -> list[str]:
        """Return the command."""
        facts = self.facts
        camera = "camera" if facts.microscope is None else str(facts.microscope["camera"])
        out = facts.workspace.new_calibration("Demo camera" if facts.simulated else camera)
        words = ["calibrate", "--out", str(out), *self.facts.choice.camera_words()]
        if self.facts.choice.channel:
            words += ["--channel", self.facts.choice.channel]
        if self.light != "exposure":
            words += ["--light", self.light]
        return words

    def missing(self) -> str:
        """Return what has to be done first."""
        return "connect a microscope first" if self.facts.microscope is None else ""

    def line(self) -> str:
        """Return what is used."""
        if self.facts.calibration is not None:
            return self.facts.calibration.stem
        return "estimated from the recording" if self.without else "not measured yet"

    def done(self) -> StepState | None:
        """Return whether there is something to train with."""
        if self.facts.microscope is None:
            return None
        if self.facts.calibration is not None:
            worst = max((check.grade for check in self._found.checks), default=Grade.GOOD)
            of_this = self.facts.calibration == self._found.path
            return StepState.LOOK if of_this and worst is Grade.BAD else StepState.DONE
        return StepState.LOOK if self.without else None

    def start(self) -> bool:
        """Begin the ladder of light."""
        self._found = _Found()
        self.without = False
        return super().start()

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take the calibration; go on unless one of its checks is red."""
        result = seen.result
        checks = tuple(
            Reading(_asked(c), "", _says(c), GRADES[str(c["colour"])])
            for c in sorted(result["checks"], key=lambda c: -GRADES[str(c["colour"])])
        )
        measured = [(v["mean_adu"], v["variance_adu2"]) for v in result["levels"]]
        fitted = [(v["mean_adu"], v["model_variance_adu2"]) for v in result["levels"]]
        path = Path(result["out"])
        self._found = _Found(path, checks, tuple(measured), tuple(fitted), dict(result))
        self.facts.look_again()
        self.facts.calibration = path
        return all(check.grade is not Grade.BAD for check in checks)

    def reuse(self, path: Path) -> None:
        """Take a calibration that was made before."""
        self.facts.calibration, self.without, self.error = path, False, ""

    def do_without(self) -> None:
        """Let the noise be estimated from the recording."""
        self.facts.calibration, self.without, self.error = None, True, ""

    def snapshot(self) -> CalibrateSnapshot:
        """Return what the page shows."""
        seen, found = self.seen, self._found
        running = seen is not None and seen.running
        chosen = self.facts.calibration
        report = None if chosen is None else chosen.with_suffix(".html")
        return CalibrateSnapshot(
            **self.common(),
            belongs=self._belongs(),
            levels=seen.levels if running and seen is not None else found.levels,
            model_levels=() if running else found.model_levels,
            checks=() if running or chosen != found.path else found.checks,
            kept=tuple(map(_in_words, self.facts.calibrations)),
            chosen=chosen,
            without=self.without,
            asks=seen.question if running and seen is not None else "",
            light=self.light,
            report=report if report is not None and report.is_file() else None,
        )

    def _belongs(self) -> str:
        chosen = self.facts.calibration
        kept = next((kept for kept in self.facts.calibrations if kept.path == chosen), None)
        if kept is None:
            return ""
        if kept.fits:
            return f"{_figures(kept)}. It belongs to this camera in this setting."
        return f"It does not belong to this camera as it is set: {'; '.join(kept.differs)}."


def _says(check: dict[str, Any]) -> str:
    """Return what was found and what to do; what is good is said by its name alone."""
    if check["colour"] == "green":
        return ""
    return f"{check['sentence']} {check['advice']}".strip()


def _asked(check: dict[str, Any]) -> str:
    """Return what a check asks; as a question where the answer is no plain yes."""
    name = str(check["name"])
    words = CHECKS.get(name, name.replace("_", " ").capitalize())
    return words if check["colour"] == "green" else f"{words}?"


def _in_words(kept: KeptModel) -> KeptCalibration:
    return KeptCalibration(kept.path, kept.path.stem, kept.fits, "; ".join(kept.differs))


def _figures(kept: KeptModel) -> str:
    law = kept.model.photon_transfer
    words = [f"Gain {law.gain_adu_per_e:.3g} grey levels per electron"]
    if law.read_noise is not None:
        words.append(f"read noise {law.read_noise_e:.2g} electrons")
    return ", ".join(words)
