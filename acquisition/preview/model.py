"""What the preview says: figures judged as traffic lights, in words for a biologist.

Owns the thresholds, the sentences, and the averaging that keeps numbers readable. Knows no Qt and
no pixels, so that all of it can be tested without a window. Whether pictures still arrive is
judged in `stream_watch`. What each figure means is told in docs/preview.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...inference.trust.verdict import PATTERN, PLACES, REMOVED, TRAINING, Grade
from .wording import count, duration, percent, shortened, three_digits

NOISE_SHARE_GOOD, NOISE_SHARE_CARE = 0.90, 0.75
"""Share of what was removed that is camera noise: good from here, then care, then bad. Where
frames were judged against what their model was measured to do, that counts instead."""
NOISE_LEFT_CARE = 1.3
"""The noise expected is this many times what was removed: some is still in the picture."""
PATTERN_GOOD, PATTERN_CARE = 0.06, 0.15
"""Correlation of neighbouring pixels in what was removed."""
ALTERNATION_GOOD = 0.2
"""Neighbours that differ more than by chance: whatever smooths does so to that extent."""
UNCERTAINTY_GOOD, UNCERTAINTY_CARE = 0.08, 0.20
"""Typical error of a pixel as a share of the brightness range shown."""
SATURATION_GOOD, SATURATION_CARE = 1e-5, 5e-3
"""Share of pixels at the camera's limit: a lone hot pixel is no fault of the light."""
DELAY_GOOD_MS, DELAY_CARE_MS = 200.0, 1000.0
AVERAGING_S = 1.5


@dataclass(frozen=True, slots=True)
class Reading:
    """One judged figure.

    Attributes
    ----------
    name
        What is judged, a few words.
    value
        The figure with its unit.
    sentence
        What it means for the person at the microscope.
    grade
        How good it is.
    headline
        The verdict on the picture if this figure is the worst one.
    cause
        Name of the cause, for programs; None if it has none.
    order
        Of causes that were found, the lowest explains the others.
    """

    name: str
    value: str
    sentence: str
    grade: Grade
    headline: str = ""
    cause: str | None = None
    order: int = 0

    @property
    def explanation(self) -> str:
        """How the figure comes about, for those who want to know."""
        return _EXPLANATIONS.get(self.name, "")


_EXPLANATIONS = {
    "What was removed": (
        "The camera's image minus the denoised one is what was removed. Its strength is compared "
        "with the noise that this camera was measured to have. 100 %: noise and nothing else."
    ),
    "Pattern in it": (
        "Camera noise differs at random from pixel to pixel. If neighbouring pixels of what was "
        "removed resemble each other, edges or fine structure went with the noise. "
        "0 is none, 1 is complete."
    ),
    PLACES: (
        "What was removed is looked through at the sizes that structures have, in this frame and "
        "summed over the last ones. Places at which more is missing, or more was added, than "
        "noise and this model ever make are counted, and circled with Doubts."
    ),
    TRAINING: (
        "Brightness, contrast and structure of the camera's image against those of the frames "
        "that the model was trained on."
    ),
    "Uncertainty": (
        "The model's own estimate of its error, for a typical pixel; in brackets as a share of "
        "the range from black to white on the screen."
    ),
    "Saturation": (
        "Pixels at the camera's highest value. The true brightness there is unknown, and no "
        "denoising can bring it back."
    ),
    "Delay of the view": "From the moment the camera delivered a frame until it was denoised.",
    "Skipped in this view": (
        "Frames that came while the previous one was still being denoised. They are in the "
        "recording, and are denoised after the acquisition."
    ),
}


class FigureAverage:
    """Exponential averages of the figures that change with each frame; the rest as it comes."""

    AVERAGED = frozenset(
        {
            "residual_explained",
            "residual_correlation",
            "uncertainty_adu_median",
            "latency_ms",
            "frame_rate_hz",
        }
    )

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def add(self, figures: Mapping[str, Any], seconds_since_last: float) -> None:
        """Take the figures of the next frame."""
        weight = 1 - math.exp(-max(seconds_since_last, 1e-3) / AVERAGING_S)
        for name, value in figures.items():
            before = number(self.figures, name)
            now = number(figures, name)
            if name in self.AVERAGED and before is not None and now is not None:
                self.figures[name] = before + weight * (now - before)
            else:
                self.figures[name] = value


def number(figures: Mapping[str, Any], name: str) -> float | None:
    """Return a figure as a number, or None if it is absent or none that could be read."""
    value = figures.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e12 else None


def trust_readings(figures: Mapping[str, Any], shown_span_adu: float) -> list[Reading]:
    """Judge what the figures say about the denoised picture.

    Parameters
    ----------
    figures
        As passed to `PreviewLink.show`.
    shown_span_adu
        Brightness range between black and white on the screen, ADU.
    """
    found, known = _findings(figures), bool(figures.get("training_record"))
    return [
        _with_finding(_removed(number(figures, "residual_explained")), found, known),
        _with_finding(_pattern(number(figures, "residual_correlation")), found, known),
        _with_finding(_places(found), found, known),
        _with_finding(_training(found, known), found, known),
        _uncertainty(number(figures, "uncertainty_adu_median"), shown_span_adu),
        _saturation(number(figures, "saturated_share")),
    ]


def verdict(readings: Iterable[Reading], *, denoised: bool = True) -> Reading:
    """Return the one judgement of the picture: that of the worst figure, by its first cause."""
    readings = list(readings)
    worst = max(readings, key=lambda reading: reading.grade)
    if not denoised:
        sentence = "No model denoises this run; the camera's images are recorded as they are."
        return Reading("Verdict", "", sentence, Grade.UNKNOWN, "Recording only")
    if worst.grade is Grade.UNKNOWN:
        sentence = "The figures appear with the first denoised image."
        return Reading("Verdict", "", sentence, Grade.UNKNOWN, "Not judged yet")
    causes = [reading for reading in readings if reading.cause and reading.grade >= Grade.CARE]
    if causes and any(reading.grade is worst.grade for reading in causes):
        first = min(causes, key=lambda reading: reading.order)
        return replace(first, name="Verdict", value="", grade=worst.grade)
    noise_known = all(one.grade > Grade.UNKNOWN for one in readings if one.name == REMOVED)
    if worst.grade is Grade.GOOD and not noise_known:
        # A model made elsewhere, say: without the camera's noise the rest proves nothing.
        sentence = "The camera's noise is not known, nor whether more than noise was removed."
        return Reading("Verdict", "", sentence, Grade.UNKNOWN, "Not judged: noise not known")
    if worst.grade is Grade.GOOD:
        sentence = "What was removed is camera noise, and the light is right."
        return Reading("Verdict", "", sentence, Grade.GOOD, "You can trust this picture")
    return Reading("Verdict", "", worst.sentence, worst.grade, worst.headline)


def merged_verdict(verdicts: Mapping[str, Reading]) -> Reading:
    """Return the one judgement of several channels in one picture: the worst, by its name.

    Parameters
    ----------
    verdicts
        The judgement of each channel that is seen.
    """
    channel = max(verdicts, key=lambda name: verdicts[name].grade)
    worst = verdicts[channel]
    if len(verdicts) == 1 or worst.grade <= Grade.GOOD:
        return worst
    return replace(worst, headline=f"{channel}: {worst.headline}")


def speed_readings(figures: Mapping[str, Any]) -> list[Reading]:
    """Say how fast the stream runs and what became of the frames."""
    rate = number(figures, "frame_rate_hz")
    delay = number(figures, "latency_ms")
    recorded = number(figures, "frames_recorded")
    return [
        Reading(
            "Camera",
            "–" if rate is None else f"{three_digits(rate)} images/s",
            "",
            Grade.UNKNOWN,
        ),
        Reading(
            "Delay of the view",
            "–" if delay is None else duration(delay / 1000),
            "" if delay is None else "From the camera to the denoised picture.",
            _graded(delay, DELAY_GOOD_MS, DELAY_CARE_MS),
        ),
        _recorded(recorded, number(figures, "frames_missing")),
        Reading("Denoised", count(number(figures, "frames_denoised")), "", Grade.UNKNOWN),
        _skipped(number(figures, "frames_skipped_live"), recorded),
    ]


def run_lines(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what identifies the run; only what is known."""
    elapsed = number(figures, "elapsed_s")
    model = str(figures.get("model") or "").replace("\\", "/").rstrip("/")
    lines = [
        ("Model", shortened(model.rsplit("/", 1)[-1], 30)),
        ("Runs on", device_words(str(figures.get("provider") or ""))),
        ("Channel", shortened(str(figures.get("channel") or ""), 30)),
        ("Running for", "" if elapsed is None else duration(elapsed)),
    ]
    return [(name, value) for name, value in lines if value]


def device_words(provider: str) -> str:
    """Return a name a person knows for ONNX Runtime's execution provider."""
    known = {
        "cpu": "the processor (CPU)",
        "cuda": "NVIDIA graphics card",
        "tensorrt": "NVIDIA card, TensorRT",
        "dml": "graphics card (DirectML)",
        "coreml": "Apple processor (Core ML)",
    }
    return known.get(provider.lower().removesuffix("executionprovider"), provider)


def _findings(figures: Mapping[str, Any]) -> list[Reading] | None:
    """Return what was found wrong, the cause first; None where frames were not judged so."""
    found = figures.get("findings")
    if not isinstance(found, list):
        return None
    return [
        Reading(
            name=str(one.get("subject", "")),
            value=str(one.get("value", "")),
            sentence=str(one.get("sentence", "")),
            grade=_GRADES.get(str(one.get("grade")), Grade.CARE),
            headline=str(one.get("headline", "")),
            cause=str(one.get("cause", "")),
            order=order,
        )
        for order, one in enumerate(found)
        if isinstance(one, Mapping)
    ]


_GRADES = {"good": Grade.GOOD, "care": Grade.CARE, "bad": Grade.BAD}


def _with_finding(reading: Reading, found: Sequence[Reading] | None, known: bool) -> Reading:
    """Return what was found of this figure, judged against the record of the model's training.

    Where there is a record and nothing was found, a figure is as it is with a right model.
    """
    for one in found or ():
        if one.name == reading.name:
            return one
    if found is not None and known and reading.grade >= Grade.CARE:
        sentence = "As with this model on the frames that it was trained on."
        return replace(reading, sentence=sentence, grade=Grade.GOOD, headline="")
    return reading


def _places(found: Sequence[Reading] | None) -> Reading:
    if found is None:
        return Reading(PLACES, "–", "Not looked for.", Grade.UNKNOWN)
    return Reading(PLACES, "nothing", "No place stands out of the noise.", Grade.GOOD)


def _training(found: Sequence[Reading] | None, known: bool) -> Reading:
    if found is None or not known:
        sentence = "This model does not say what it was trained on."
        return Reading(TRAINING, "not known", sentence, Grade.UNKNOWN)
    return Reading(TRAINING, "yes", "Like the frames that it was trained on.", Grade.GOOD)


def _removed(share: float | None) -> Reading:
    name = REMOVED
    if share is None or share <= 0:
        return Reading(name, "–", "Needs a noise model of this camera.", Grade.UNKNOWN)
    if share > NOISE_LEFT_CARE:
        return Reading(
            name,
            f"{100 / share:.0f} % of the noise",
            "Some of the camera's noise is still in the picture.",
            Grade.CARE,
            "Still noisy",
        )
    value = f"{100 * min(share, 1):.0f} % noise"
    if share >= NOISE_SHARE_GOOD:
        return Reading(name, value, "Nothing but the camera's own noise.", Grade.GOOD)
    if share >= NOISE_SHARE_CARE:
        sentence = "A little more than noise: compare fine detail with the raw image."
        return Reading(name, value, sentence, Grade.CARE, "Look twice at fine detail")
    sentence = "Detail may be missing: rely on the raw image."
    return Reading(name, value, sentence, Grade.BAD, "Do not rely on detail")


def _pattern(correlation: float | None) -> Reading:
    name = PATTERN
    if correlation is None:
        return Reading(name, "–", "Needs a denoised picture.", Grade.UNKNOWN)
    grade = _graded(correlation, PATTERN_GOOD, PATTERN_CARE)
    if correlation < -ALTERNATION_GOOD:
        grade = Grade.CARE
    value, sentence, headline = {
        Grade.GOOD: ("none", "It is random from pixel to pixel, as noise is.", ""),
        Grade.CARE: (
            "faint",
            "Not quite random: fine structure may be softened.",
            "Look twice at fine detail",
        ),
        Grade.BAD: (
            "clear",
            "Structure was removed with the noise: check edges in the raw image.",
            "Do not rely on detail",
        ),
    }[grade]
    return Reading(name, f"{value} ({correlation:+.2f})", sentence, grade, headline)


def _uncertainty(median_adu: float | None, shown_span_adu: float) -> Reading:
    name = "Uncertainty"
    if not median_adu or shown_span_adu <= 0:
        return Reading(name, "–", "This model gives none.", Grade.UNKNOWN)
    share = median_adu / shown_span_adu
    grade = _graded(share, UNCERTAINTY_GOOD, UNCERTAINTY_CARE)
    sentence, headline = {
        Grade.GOOD: ("Typical error of a pixel: small next to the contrast shown.", ""),
        Grade.CARE: (
            "Small differences in brightness may not be real.",
            "Small differences may not be real",
        ),
        Grade.BAD: (
            "Faint detail is a guess: use more light or a longer exposure.",
            "Too little light",
        ),
    }[grade]
    return Reading(
        name, f"± {three_digits(median_adu)} ADU ({percent(share)})", sentence, grade, headline
    )


def _saturation(share: float | None) -> Reading:
    name = "Saturation"
    if share is None:
        return Reading(name, "–", "Not measured.", Grade.UNKNOWN)
    grade = _graded(share, SATURATION_GOOD, SATURATION_CARE)
    sentence, headline = {
        Grade.GOOD: ("No bright structure is cut off.", ""),
        Grade.CARE: (
            "Brightness is cut off where it is marked red.",
            "A few pixels are too bright",
        ),
        Grade.BAD: (
            "Brightness is lost where it is marked red: use less light.",
            "Too much light",
        ),
    }[grade]
    value = "none" if share <= 0 else f"{percent(share)} of pixels"
    return Reading(name, value, sentence, grade, headline)


def _recorded(recorded: float | None, missing: float | None) -> Reading:
    name = "Recorded"
    if not missing:
        return Reading(name, count(recorded), "", Grade.UNKNOWN)
    sentence = "The camera took images that never came: the computer cannot keep up."
    return Reading(name, f"{count(recorded)}, {count(missing)} lost", sentence, Grade.BAD)


def _skipped(skipped: float | None, recorded: float | None) -> Reading:
    name = "Skipped in this view"
    if not skipped:
        return Reading(name, "–" if skipped is None else "none", "", Grade.UNKNOWN)
    share = f" ({percent(skipped / recorded)})" if recorded and recorded >= 1 else ""
    sentence = "They are recorded, and denoised afterwards."
    return Reading(name, f"{count(skipped)}{share}", sentence, Grade.UNKNOWN)


def _graded(value: float | None, good: float, care: float) -> Grade:
    if value is None:
        return Grade.UNKNOWN
    return Grade.GOOD if value <= good else Grade.CARE if value <= care else Grade.BAD
