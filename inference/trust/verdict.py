"""What the evidence means, in words for whoever sits at the microscope.

Owns the causes, their order, and the sentences. What is measured is in `evidence`, what is normal
in `null`.

A cause is told before its consequences: a camera that is not the one calibrated makes every place
stand out, a specimen unlike any trained on is lost in places. So the first cause in the order of
`_CAUSES` gives the sentence, whatever else was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import exp, inf
from typing import Any

from .local_evidence import Place
from .null import Null, Spread
from .training_domain import SHAPE, times


class Grade(IntEnum):
    """How good a figure is, shown as a traffic light; the higher, the worse."""

    UNKNOWN = 0
    GOOD = 1
    CARE = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it is with a right model.

    Attributes
    ----------
    cause
        Its name, for programs.
    subject
        Which of the figures that a person sees it belongs to.
    grade
        How much it matters.
    value, sentence, headline
        The figure in a few words; what it means and what to do; the verdict if this is the first
        cause.
    """

    cause: str
    subject: str
    grade: Grade
    value: str
    sentence: str
    headline: str

    def result(self) -> dict[str, str]:
        """Return it as reports and the preview take it."""
        return {
            "cause": self.cause,
            "subject": self.subject,
            "grade": self.grade.name.lower(),
            "value": self.value,
            "sentence": self.sentence,
            "headline": self.headline,
        }


REMOVED = "What was removed"
PATTERN = "Pattern in it"
PLACES = "Lost or invented"
TRAINING = "Known to the model"
SUBJECTS = (REMOVED, PATTERN, PLACES, TRAINING)

_CAUSES = (
    "gain",
    "brightness",
    "read_noise",
    "lines",
    "focus",
    "structure",
    "smoothed",
    "lost",
    "invented",
    "sharpened",
    "removed_too_much",
    "noise_left",
    "pattern",
    "bias",
)
"""From what explains the most to what explains the least."""
_ORDER = {cause: place for place, cause in enumerate(_CAUSES)}
_ORDER["invented"] = _ORDER["lost"]
"""Of these two, the one at more places comes first."""
BAD_FACTOR = 1.3
"""Of the noise's variance, from which a stale noise model is more than a matter of care."""
MANY_PLACES = 5
BLURRED = -0.4
"""Of the range in training: that far finer and middle detail gave way together."""


@dataclass(frozen=True, slots=True)
class Deviations:
    """How far figures and features lie from what is normal, 1 at the limit, with sign.

    Attributes
    ----------
    figures, features
        By name; only those whose limits are known. The feature `kind` is all of shape together.
    """

    figures: dict[str, float]
    features: dict[str, float]

    @classmethod
    def of(
        cls,
        figures: Mapping[str, float],
        features: Mapping[str, float],
        null: Null,
        *,
        pixels: int,
        tiles: int,
        averaged: Mapping[str, float],
    ) -> Deviations:
        """Compare a frame of so many pixels and tiles; so many frames are `averaged` in each."""
        of_figures = {name: null.figure_limits(name, pixels, averaged[name]) for name in figures}
        of_features = {name: null.domain_limits(name, tiles) for name in features}
        like = _deviations(of_features, features)
        kind = null.strangeness(features, tiles)
        if kind is not None:
            like["kind"] = kind
        return cls(_deviations(of_figures, figures), like)

    @property
    def largest(self) -> float:
        """The largest of all, 1 at the limit."""
        every = (*self.figures.values(), *self.features.values())
        return max((abs(value) for value in every), default=0.0)


def _deviations(
    limits: Mapping[str, tuple[float, float] | None], values: Mapping[str, float]
) -> dict[str, float]:
    found = {}
    for name, value in values.items():
        limit = limits[name]
        if limit is None:
            continue
        low, high = limit
        middle = (low + high) / 2 if low > -inf else 0.0
        found[name] = (value - middle) / max(high - middle, 1e-9)
    return found


def _beyond(deviations: Mapping[str, float]) -> dict[str, float]:
    """Return by how much values lie beyond their limits, in half widths of these, with sign."""
    return {
        name: value - 1 if value > 0 else value + 1
        for name, value in deviations.items()
        if abs(value) > 1
    }


def findings(
    deviations: Deviations,
    figures: Mapping[str, float],
    features: Mapping[str, float],
    places: Sequence[Place],
    null: Null,
) -> list[Finding]:
    """Return what is not as it should be, the cause first.

    Parameters
    ----------
    deviations
        Of the figures and features.
    figures, features
        Of the frame, or averaged over the last ones.
    places
        Those that stand out.
    null
        What is normal.
    """
    off = _beyond(deviations.figures)
    found = [
        *_of_camera(off, figures, null),
        *_of_training(deviations.features, features, null),
        *_of_picture(off),
        *_of_places(places),
    ]
    return sorted(found, key=lambda finding: _ORDER[finding.cause])


def _of_camera(
    off: Mapping[str, float], figures: Mapping[str, float], null: Null
) -> list[Finding]:
    found = []
    bright, dark = off.get("noise_bright", 0.0), off.get("noise_dark", 0.0)
    if bright or dark:
        name = "noise_bright" if bright else "noise_dark"
        excess = figures[name] - _normal(null, name)
        factor = exp(excess)
        more = f"{factor:.2g} times" if factor >= 1 else f"{100 * factor:.0f} % of"
        grade = Grade.BAD if times(excess) > BAD_FACTOR else Grade.CARE
        if bright:
            sentence = (
                "The camera's gain is not the one that was calibrated: at the same brightness the "
                f"noise is {more} what it should be. Set the gain back, or calibrate again."
            )
            cause = "gain"
        else:
            sentence = (
                f"In the dark the camera's noise is {more} what was calibrated: another readout "
                "mode or temperature? Calibrate again."
            )
            cause = "read_noise"
        value = f"noise ×{factor:.2g}"
        found.append(
            Finding(cause, REMOVED, grade, value, sentence, "The noise is not as calibrated")
        )
    for name, word in (("rows", "rows"), ("columns", "columns")):
        if off.get(name, 0.0) > 0:
            found.append(
                Finding(
                    "lines",
                    PATTERN,
                    Grade.CARE,
                    f"{word} flicker",
                    f"Whole {word} of the camera's image are brighter or darker together. The "
                    "model knows no such noise: stripes in the picture may not be real.",
                    "The camera adds stripes",
                )
            )
    return found


def _normal(null: Null, name: str) -> float:
    found = null.reference.figures.get(name) if null.reference is not None else None
    return found.mean if found is not None else 0.0


def _of_training(
    deviations: Mapping[str, float], features: Mapping[str, float], null: Null
) -> list[Finding]:
    found = []
    odd = _beyond(deviations)
    light = {name: value for name, value in odd.items() if name in ("brightness", "highlights")}
    if light and null.reference is not None:
        found.append(_brightness(light, features, null.reference.domain))
    shape = {name: value for name, value in odd.items() if name not in light}
    if shape:
        worst = max(SHAPE, key=lambda name: abs(deviations.get(name, 0.0)))
        blurred = _blurred(deviations)
        found.append(_focus() if blurred else _structure(worst, deviations.get(worst, 0.0)))
    return found


def _blurred(deviations: Mapping[str, float]) -> bool:
    """Whether structure of every size has become coarser and its peaks flatter."""
    sizes = [deviations.get(name, 0.0) for name in ("detail", "coarse_detail")]
    return sum(sizes) / 2 < BLURRED and deviations.get("peaks", 0.0) < 0


def _brightness(
    light: Mapping[str, float], features: Mapping[str, float], trained: Mapping[str, Spread]
) -> Finding:
    name = max(light, key=lambda name: abs(light[name]))
    seen = trained[name]
    brighter = light[name] > 0
    factor = times(features[name] - (seen.high if brighter else seen.low))
    word = "brighter" if brighter else "darker"
    typical = times(features[name] - seen.mean)
    return Finding(
        "brightness",
        TRAINING,
        Grade.CARE,
        f"{typical:.2g} times {word}",
        f"The frame is {typical:.2g} times {word} than what the model was trained on, and "
        f"{factor:.2g} times {word} than anything it saw: train it with such frames.",
        f"{word.capitalize()} than in training",
    )


def _focus() -> Finding:
    return Finding(
        "focus",
        TRAINING,
        Grade.CARE,
        "blurrier",
        "The image is blurrier than anything the model was trained on: is it out of focus?",
        "Out of focus?",
    )


def _structure(name: str, excess: float) -> Finding:
    more, less = {
        "contrast": ("with more contrast", "with less contrast"),
        "fine_detail": ("with finer detail", "with coarser detail"),
        "detail": ("with finer detail", "with coarser detail"),
        "coarse_detail": ("with less that is large", "with more that is large"),
        "peaks": ("with sharper peaks", "with flatter peaks"),
        "skewness": ("with more bright points", "with fewer bright points"),
        "threads": ("more like threads", "less like threads"),
    }[name]
    words = more if excess > 0 else less
    return Finding(
        "structure",
        TRAINING,
        Grade.CARE,
        words,
        f"The specimen is of another kind than those the model was trained on ({words}): what it "
        "does not know it may lose. Train it with such recordings.",
        "Unlike anything in training",
    )


def _of_picture(off: Mapping[str, float]) -> list[Finding]:
    found = []
    soft = off.get("softness", 0.0)
    if soft > 0:
        found.append(
            Finding(
                "smoothed",
                PATTERN,
                Grade.BAD if soft > 2 else Grade.CARE,
                "follows the picture",
                "The picture is softer than the camera's image allows: fine detail was smoothed "
                "away with the noise. Check edges and small things in the raw image.",
                "Fine detail was smoothed away",
            )
        )
    elif soft < 0:
        found.append(
            Finding(
                "sharpened",
                PATTERN,
                Grade.CARE,
                "against the picture",
                "The picture is sharper or noisier than this model makes it: fine detail may not "
                "be real.",
                "Fine detail may not be real",
            )
        )
    removed = off.get("removed", 0.0)
    if removed:
        found.append(_amount(removed))
    lags = [off[name] for name in ("lag_x", "lag_y") if name in off]
    if lags:
        found.append(_pattern(max(lags, key=abs)))
    if "bias_bright" in off or "bias_dark" in off:
        name = "bias_bright" if "bias_bright" in off else "bias_dark"
        where = "bright" if name == "bias_bright" else "dark"
        word = "darker" if off[name] > 0 else "brighter"
        found.append(
            Finding(
                "bias",
                REMOVED,
                Grade.CARE,
                f"{where} parts {word}",
                f"The {where} parts of the picture are {word} than the camera's image: do not "
                "measure brightness in it.",
                "Brightness is off",
            )
        )
    return found


def _amount(removed: float) -> Finding:
    if removed > 0:
        return Finding(
            "removed_too_much",
            REMOVED,
            Grade.BAD if removed > 4 else Grade.CARE,
            "more than noise",
            "More than noise was removed: compare fine detail with the raw image.",
            "Look twice at fine detail",
        )
    return Finding(
        "noise_left",
        REMOVED,
        Grade.CARE,
        "less than the noise",
        "Some of the camera's noise is still in the picture.",
        "Still noisy",
    )


def _pattern(lag: float) -> Finding:
    if lag > 0:
        return Finding(
            "pattern",
            PATTERN,
            Grade.BAD if lag > 4 else Grade.CARE,
            "neighbours agree",
            "Neighbouring pixels of what was removed are alike: structure was removed with the "
            "noise, or the camera's noise is correlated.",
            "Look twice at fine detail",
        )
    return Finding(
        "pattern",
        PATTERN,
        Grade.CARE,
        "neighbours differ",
        "What was removed is not what this model removes: the picture may be smoothed more than "
        "the model does.",
        "Look twice at fine detail",
    )


def _of_places(places: Sequence[Place]) -> list[Finding]:
    found = []
    counts = {
        lost: sum((place.strength > 0) == lost for place in places) for lost in (True, False)
    }
    for lost, count in sorted(counts.items(), key=lambda item: -item[1]):
        if not count:
            continue
        where = "one place" if count == 1 else f"{count} places"
        sentence = (
            f"The picture lost small bright things at {where}: they are in the camera's image."
            if lost
            else f"The picture says more than the data at {where}: what it shows there may not be "
            "real."
        )
        found.append(
            Finding(
                "lost" if lost else "invented",
                PLACES,
                Grade.BAD if count >= MANY_PLACES else Grade.CARE,
                f"{'lost' if lost else 'invented'} at {where}",
                sentence,
                "Something was lost" if lost else "Something was invented",
            )
        )
    return found


def summary(found: Sequence[Finding]) -> dict[str, Any]:
    """Return the verdict as reports take it: its word, its cause, its sentence."""
    if not found:
        return {"word": "good", "cause": None, "sentence": None}
    worst = max(finding.grade for finding in found)
    return {
        "word": worst.name.lower(),
        "cause": found[0].cause,
        "sentence": found[0].sentence,
    }
